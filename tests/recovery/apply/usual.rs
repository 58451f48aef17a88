//! The main path, and what others may do to it.

use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::apply::{Scene, State, apply, mode, run};
use crate::support::crash::{
    assert_fsck, git, is_log_sync, is_ref_lock, is_ref_rename, jin, kill_at, nth, recover, transactions, value, wal,
};
use crate::support::repo::{Git, Options, Repo, text};
use crate::support::tracer::{self, Action, Isolation};

#[test]
fn refs_and_files_change_together_and_the_log_tells_it() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let second = value(repo, "main@{1}");
    let (code, out, said) = run(repo, &["apply", "--json", "-m", "layers"], &scene.input);
    assert_eq!(code, 0, "{said}");
    let done: serde_json::Value = serde_json::from_str(&out).expect("--json prints JSON");
    assert_eq!(done["refs"].as_array().map(Vec::len), Some(4));
    assert_eq!(done["files"].as_array().map(Vec::len), Some(3));
    assert_eq!(done["done"], true);
    for name in ["main", "layer", "v1"] {
        assert_eq!(value(repo, name), second, "{name}");
    }
    assert_eq!(value(repo, "doomed"), "");
    assert_eq!(std::fs::read_to_string(repo.path().join("etc/app.conf")).unwrap(), "new\n");
    assert_eq!(mode(repo, "bin/deep/new.sh"), 0o755);
    assert!(!repo.path().join("old").exists(), "directories that became empty are gone");
    for log in ["main", "HEAD"] {
        let message = repo.read(["log", "-g", "-1", "--format=%gs", log]);
        assert!(message.starts_with("layers (tx-"), "{log}: {message}");
    }
    let all = transactions(repo);
    assert_eq!(all[0]["state"], "committed");
    assert!(all[0]["operation"].as_str().unwrap().starts_with("jin-txn apply"));
    let id = done["id"].as_str().unwrap();
    let begins = wal(repo).iter().filter(|r| r["type"] == "begin" && r["time"].as_u64() > Some(0)).count();
    let (_, shown, _) = run(repo, &["show", id], "");
    assert!(shown.contains("etc/app.conf"), "{shown}");
    assert!(begins >= 1);
    assert_fsck(repo);
}

#[test]
fn git_is_told_nothing_twice_our_hook_steps_aside_and_the_users_may_refuse() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let before = State::of(repo);
    let hook = repo.git_dir().join("hooks/reference-transaction");
    let ours = std::fs::read_link(&hook).expect("the guard is a link");
    std::fs::remove_file(&hook).unwrap();
    let script = format!(
        "#!/bin/sh\ncat > \"$PWD/.git/seen\"\n[ \"$1\" = prepared ] && [ -e \"$PWD/.git/refuse\" ] && {{ echo no, says the user >&2; exit 1; }}\nexec -a reference-transaction {} \"$@\" < \"$PWD/.git/seen\"\n",
        ours.display()
    );
    let script = script.replace("#!/bin/sh", "#!/bin/bash");
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(repo.git_dir().join("refuse"), "").unwrap();
    let (code, said) = apply(repo, &scene.input);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no, says the user"), "{said}");
    assert_eq!(State::of(repo), before);
    std::fs::remove_file(repo.git_dir().join("refuse")).unwrap();
    let count = wal(repo).iter().filter(|r| r["type"] == "begin").count();
    let (code, said) = apply(repo, &scene.input);
    assert_eq!(code, 0, "{said}");
    let records = wal(repo);
    assert_eq!(records.iter().filter(|r| r["type"] == "begin").count(), count + 1, "one transaction, not two");
    let kinds: Vec<&str> = records.iter().rev().take(3).map(|r| r["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["committed", "decided", "begin"]);
}

#[test]
fn a_variable_without_a_live_transaction_is_believed_by_nobody() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let count = || wal(repo).iter().filter(|r| r["type"] == "begin").count();
    let before = count();
    let status = git(repo, &["branch", "watched", "main"]).env("JIN_TXN_TX", "tx-1").status().unwrap();
    assert!(status.success());
    assert_eq!(count(), before + 1, "the hook logs it as ever");
}

#[test]
fn a_symbolic_link_and_a_mode_alone_are_changes_and_the_same_again_is_none() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    symlink("../somewhere", repo.scratch().join("link")).unwrap();
    repo.write("../kept.txt", "kept\n");
    let input = "write l 120000 ../link\nwrite kept.txt 100755 ../kept.txt\n";
    let (code, said) = apply(repo, input);
    assert_eq!(code, 0, "{said}");
    assert_eq!(std::fs::read_link(repo.path().join("l")).unwrap().to_str(), Some("../somewhere"));
    assert_eq!(mode(repo, "kept.txt"), 0o755);
    let (_, out, _) = run(repo, &["apply", "--json"], input);
    let done: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(done["files"].as_array().map(Vec::len), Some(0), "nothing changes any more");
}

#[test]
fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let scene = Scene::guarded();
    let before = State::of(&scene.repo);
    let (code, out, said) = run(&scene.repo, &["apply", "--dry-run", "--json"], &scene.input);
    assert_eq!(code, 0, "{said}");
    let done: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((done["done"].as_bool(), done["id"].is_null()), (Some(false), true));
    assert_eq!((done["refs"].as_array().unwrap().len(), done["files"].as_array().unwrap().len()), (4, 3));
    assert_eq!(State::of(&scene.repo), before);
}

#[test]
fn a_file_that_somebody_changes_behind_the_commit_point_is_left_and_told() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let conf = repo.path().join("etc/app.conf");
    // git puts the first branch into place: that is behind the commit point.
    let outcome = scene.interfere(is_ref_rename, || {
        std::fs::write(&conf, "somebody's\n").unwrap();
    });
    assert_eq!(outcome.status.code(), Some(4), "{}", text(&outcome.stderr));
    assert_eq!(std::fs::read_to_string(&conf).unwrap(), "somebody's\n");
    assert_eq!(value(repo, "doomed"), "", "the rest has happened");
    assert!(repo.path().join("bin/deep/new.sh").exists());
    let id = transactions(repo)[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(jin(repo, &["check"]).status().unwrap().code(), Some(4));
    assert!(jin(repo, &["recover", "--acknowledge", &id]).status().unwrap().success());
    assert_eq!(jin(repo, &["check"]).status().unwrap().code(), Some(0));
    assert_eq!(std::fs::read_to_string(&conf).unwrap(), "somebody's\n");
}

#[test]
fn a_file_that_somebody_changes_before_the_commit_point_stops_everything() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let conf = repo.path().join("etc/app.conf");
    let before = State::of(repo);
    let outcome = scene.interfere(is_ref_lock, || {
        std::fs::write(&conf, "somebody's\n").unwrap();
    });
    let said = text(&outcome.stderr);
    assert_eq!(outcome.status.code(), Some(1), "{said}");
    assert!(said.contains("etc/app.conf: expected"), "{said}");
    std::fs::write(&conf, "old\n").unwrap();
    assert_eq!(State::of(repo).refs, before.refs);
    assert_eq!(jin(repo, &["check"]).status().unwrap().code(), Some(0));
}

#[test]
fn plain_git_is_refused_while_a_dead_transaction_has_files_to_write_and_goes_on_after_recovery() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let mut decided = nth(2, |e: &tracer::Event| is_log_sync(e));
    let mut armed = false;
    // The first file-system change after the second sync of the log, which is the one of `decided`.
    kill_at(Scene::command(repo), &scene.input, Action::KillTree, |event| {
        let now = armed;
        armed |= decided(event);
        now
    });
    let output = git(repo, &["update-ref", "refs/heads/other", "main"]).output().unwrap();
    let said = text(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("git txn recover"), "{said}");
    assert_eq!(std::fs::read_to_string(repo.path().join("etc/app.conf")).unwrap(), "old\n", "a hook writes no files");
    let (code, said) = recover(repo);
    assert_eq!(code, 0, "{said}");
    assert_eq!(std::fs::read_to_string(repo.path().join("etc/app.conf")).unwrap(), "new\n");
    repo.git(["update-ref", "refs/heads/other", "main"]);
}

#[test]
fn a_linked_worktree_has_its_own_head_and_files() {
    let scene = Scene::guarded();
    scene.repo.git(["worktree", "add", "-q", "../linked", "layer"]);
    let linked = scene.repo.sibling("linked");
    linked.write("../x", "x\n");
    let to = value(&scene.repo, "v0^{commit}");
    let to = if to.is_empty() { value(&scene.repo, "main@{1}") } else { to };
    let (code, said) = apply(&linked, &format!("update HEAD {to}\nwrite sub/x 100644 ../x absent\n"));
    assert_eq!(code, 0, "{said}");
    assert_eq!(value(&scene.repo, "layer"), to);
    assert!(linked.path().join("sub/x").exists() && !scene.repo.path().join("sub").exists());
}

#[test]
fn reftables_and_longer_hashes_are_served_as_well() {
    for options in [
        Options { ref_format: Some("reftable"), ..Options::default() },
        Options { object_format: Some("sha256"), ..Options::default() },
    ] {
        if options.ref_format.is_some() && !Git::under_test().is_at_least(2, 45) {
            println!("skipped: git has no reftables before 2.45");
            continue;
        }
        let scene = Scene::template(options);
        scene.repo.install_guard();
        let (code, said) = apply(&scene.repo, &scene.input);
        assert_eq!(code, 0, "{options:?}: {said}");
        assert_eq!(value(&scene.repo, "main"), value(&scene.repo, "v1"));
        assert_eq!(value(&scene.repo, "doomed"), "");
        assert!(!scene.repo.path().join("old").exists());
    }
}

#[test]
fn symbolic_refs_need_a_git_that_has_them_in_transactions() {
    let scene = Scene::guarded();
    let before = State::of(&scene.repo);
    let (code, said) = apply(&scene.repo, "symref-update HEAD refs/heads/layer ref refs/heads/main\n");
    if Git::under_test().is_at_least(2, 46) {
        assert_eq!(code, 0, "{said}");
        assert_eq!(scene.repo.read(["symbolic-ref", "HEAD"]), "refs/heads/layer");
        let (code, said) = apply(&scene.repo, "symref-update HEAD refs/heads/main ref refs/heads/doomed\n");
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("HEAD: expected ref: refs/heads/doomed, found ref: refs/heads/layer"), "{said}");
    } else {
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("needs 2.46"), "{said}");
        assert_eq!(State::of(&scene.repo), before);
    }
}

#[test]
fn a_manifest_says_the_same_and_so_does_nul_separated_input() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    let first = repo.commit_all("first");
    let manifest = format!(
        r#"{{"version":1,"message":"m","refs":[{{"ref":"refs/heads/a","to":"{first}","expect":"absent"}}],
            "files":[{{"path":"d/f","content":"text\n","expect":"absent"}}]}}"#
    );
    let (code, said) = apply(&repo, &manifest);
    assert_eq!(code, 0, "{said}");
    assert_eq!(std::fs::read_to_string(repo.path().join("d/f")).unwrap(), "text\n");
    let fields = format!("delete refs/heads/a\0{first}\0create refs/heads/b\0main\0remove d/f\0\0");
    let (code, _, said) = run(&repo, &["apply", "-z"], &fields);
    assert_eq!(code, 0, "{said}");
    assert_eq!((value(&repo, "a"), value(&repo, "b")), (String::new(), first));
    assert!(!repo.path().join("d").exists());
}

#[test]
fn a_file_that_is_replaced_at_the_very_moment_of_the_exchange_comes_back() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let conf = repo.path().join("etc/app.conf");
    let mut done = false;
    let outcome = tracer::trace(Scene::command(repo), scene.input.as_bytes(), Isolation::None, &mut |event| {
        // The call is about to be made: everything has been looked at.
        if !done && event.syscall == "renameat2" && event.path2.as_deref() == Some(conf.as_path()) {
            done = true;
            repo.write("../theirs", "somebody's\n");
            std::fs::rename(repo.scratch().join("theirs"), &conf).unwrap();
        }
        Action::Continue
    })
    .unwrap();
    assert!(done);
    assert_eq!(outcome.status.code(), Some(4), "{}", text(&outcome.stderr));
    assert_eq!(std::fs::read_to_string(&conf).unwrap(), "somebody's\n");
    assert!(!repo.path().join("old").exists(), "the rest has happened");
}
