//! Repositories that somebody prepared: parts of the state directory that are something else, environments that lie. Nothing outside of the repository is read into it or written, nothing is executed, nothing hangs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use serde_json::Value;

use crate::support::crash::{git, is_ref_rename, jin, kill_at, nth};
use crate::support::hanging::Case;
use crate::support::hostile::{outside, protected, replace, run, victims};
use crate::support::observe::{assert_same, shown, tree};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{NOBODY, Options, Repo, give_to, jin_txn, text};
use crate::support::snapshot::Snapshot;
use crate::support::tracer::Action;

#[test]
fn a_lock_with_a_line_feed_in_its_name_prints_no_line_of_its_own() {
    let repo = protected();
    let name = "a\nhint: run evil\u{202e}.lock";
    fs::write(repo.git_dir().join("refs/heads").join(name), "").expect("it can be written");
    let_the_clock_tick(&repo.git_dir());
    for arguments in [&["status"][..], &["doctor"], &["recover", "--dry-run"], &["recover"]] {
        let output = jin(&repo, arguments).output().expect("it runs");
        let said = text(&output.stdout).into_owned() + &text(&output.stderr);
        assert!(said.contains(r"a\nhint: run evil\u{202e}.lock"), "{arguments:?}: {said}");
        assert!(!said.lines().any(|line| line.starts_with("hint: run evil")), "{arguments:?}: {said}");
    }
}

/// Every command that a user may give, and a change by plain git.
fn use_everything(repo: &Repo, what: &str) {
    for arguments in [
        &["status"][..],
        &["check"],
        &["log"],
        &["show", "tx-1"],
        &["wal", "verify"],
        &["wal", "dump"],
        &["recover", "--dry-run"],
        &["recover"],
        &["undo"],
        &["doctor"],
        &["run", "--", "git", "tag", "by-a-run"],
    ] {
        run(jin(repo, arguments), &format!("{what}, {arguments:?}"));
    }
    for arguments in
        [&["branch", "topic"][..], &["commit", "-q", "--allow-empty", "-m", "three"], &["branch", "-D", "topic"]]
    {
        run(git(repo, arguments), &format!("{what}, git {arguments:?}"));
    }
}

/// The files and directories of a state directory, with its newest segment and a marker of an open transaction.
pub fn parts(repo: &Repo) -> Vec<PathBuf> {
    let state = repo.git_dir().join(".jin");
    let mut parts = vec![state.clone()];
    parts.extend(["wal", "quarantine", "tx"].map(|name| state.join(name)));
    parts.extend(
        ["append.lock", "recovery.lock", "files.lock", "log-head", "durability", "settings", "config.saved"]
            .map(|name| state.join(name)),
    );
    parts.extend(
        ["packed-refs-synced", "install.json", "id", ".transaction_in_progress.tx-90"].map(|name| state.join(name)),
    );
    // The directories that the next transactions would use.
    parts.extend((2..9).map(|n| state.join(format!("tx/tx-{n}"))));
    parts.extend(fs::read_dir(state.join("wal")).expect("there is a log").flatten().map(|e| e.path()));
    parts
}

fn with_each_part(what: &str, change: impl Fn(&Repo, &Path)) {
    let count = parts(&protected()).len();
    for n in 0..count {
        let repo = protected();
        victims(&repo);
        let part = parts(&repo)[n].clone();
        change(&repo, &part);
        let before = outside(&repo);
        let name = format!("{what} at {}", part.strip_prefix(repo.scratch()).expect("it lies there").display());
        use_everything(&repo, &name);
        assert_same(&before, &outside(&repo), &name);
    }
}

#[test]
fn a_link_in_place_of_any_part_of_the_state_directory_leads_nowhere() {
    with_each_part("a link", |repo, part| {
        let to_dir = part.extension().is_none() && (part.is_dir() || part.display().to_string().contains("/tx/"));
        let victim = repo.scratch().join(if to_dir { "victims" } else { "victim" });
        replace(part, |part| symlink(victim, part).expect("a link can be made"));
    });
}

#[test]
fn a_fifo_in_place_of_any_part_of_the_state_directory_keeps_nobody_waiting() {
    with_each_part("a fifo", |_, part| {
        replace(part, |part| nix::unistd::mkfifo(part, Mode::from_bits_truncate(0o666)).expect("a fifo can be made"));
    });
}

#[test]
fn a_directory_in_place_of_any_file_of_the_state_directory_is_told() {
    with_each_part("a directory", |_, part| {
        if !part.is_dir() {
            replace(part, |part| fs::create_dir(part).expect("a directory can be made"));
        }
    });
}

#[test]
fn a_device_in_place_of_any_part_of_the_state_directory_is_not_used() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can make devices");
        return;
    }
    with_each_part("a device", |_, part| {
        replace(part, |part| {
            // /dev/zero never ends.
            let device = nix::sys::stat::makedev(1, 5);
            let kind = nix::sys::stat::SFlag::S_IFCHR;
            nix::sys::stat::mknod(part, kind, Mode::from_bits_truncate(0o666), device).expect("a device can be made");
        });
    });
}

#[test]
fn a_segment_or_a_marker_of_a_terabyte_fills_no_memory() {
    let wal = |repo: &Repo| parts(repo).pop().expect("there is a segment");
    let marker = |repo: &Repo| repo.git_dir().join(".jin/.transaction_in_progress.tx-90");
    let note = |repo: &Repo| repo.git_dir().join(".jin/log-head");
    /// Where something lies in a repository.
    type Place<'p> = &'p dyn Fn(&Repo) -> PathBuf;
    let places: [(&str, Place<'_>); 3] = [("a segment", &wal), ("a marker", &marker), ("log-head", &note)];
    for (what, place) in places {
        let repo = protected();
        let file = fs::OpenOptions::new().append(true).create(true).open(place(&repo)).expect("it can be opened");
        if file.set_len(1 << 40).is_err() {
            println!("skipped: no file of that size here");
            return;
        }
        for arguments in [&["status"][..], &["recover"], &["log"], &["wal", "verify"]] {
            let mut limited = repo.command("/bin/sh".as_ref());
            limited.args(["-c", "ulimit -v 4000000; exec \"$@\"", "sh"]).arg(jin_txn()).args(arguments);
            let output = run(limited, &format!("{what}, {arguments:?}"));
            assert!(!text(&output.stderr).contains("memory"), "{what}: {}", text(&output.stderr));
        }
    }
}

/// Every file of the state directory may be anybody's: what it says leads nowhere, and `doctor` tells.
#[test]
fn a_state_directory_that_anybody_may_write_is_told() {
    let repo = protected();
    let state = repo.git_dir().join(".jin");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).expect("the mode can be set");
    let output = run(jin(&repo, &["doctor"]), "doctor");
    let said = shown(&repo, &output);
    assert!(said.contains("every user may write"), "{said}");
    assert!(said.contains("chmod"), "with the remedy: {said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    repo.commit_all("three");
}

#[test]
fn a_repository_of_somebody_else_is_not_touched_by_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give a repository away");
        return;
    }
    let case = Case::torn();
    let repo = &case.repo;
    // A hook of theirs that root must not run.
    let trap = repo.scratch().join("sprung");
    let hook = repo.git_dir().join("hooks/post-checkout");
    replace(&hook, |hook| {
        fs::write(hook, format!("#!/bin/sh\ntouch {}\n", trap.display())).expect("it can be written")
    });
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("the mode can be set");
    give_to(NOBODY, repo.path());
    let before = tree(repo.path());
    for arguments in [
        &["status"][..],
        &["check"],
        &["recover"],
        &["log"],
        &["show", "tx-1"],
        &["undo"],
        &["redo"],
        &["wal", "verify"],
        &["doctor", "--fix"],
        &["install"],
        &["run", "--", "true"],
        &["apply", "/dev/null"],
        &["git", "status"],
        &["uninstall"],
    ] {
        let output = run(jin(repo, arguments), &format!("{arguments:?}"));
        assert_ne!(output.status.code(), Some(0), "{arguments:?} refuses: {}", shown(repo, &output));
        assert!(text(&output.stderr).contains("dubious ownership"), "{arguments:?}: {}", shown(repo, &output));
    }
    let prompt = run(jin(repo, &["check", "--prompt"]), "prompt");
    assert_eq!(text(&prompt.stdout), "", "a prompt looks at nothing of theirs");
    assert_same(&before, &tree(repo.path()), "somebody else's repository stays as it is");
    assert!(!trap.exists(), "nothing of theirs was executed");
}

#[test]
fn a_marker_that_is_damaged_while_its_git_lives_costs_that_git_nothing() {
    for (what, from, to) in [
        ("it is no JSON", "{", "["),
        ("it names another process", "\"pid\":", "\"pid\":1"),
        ("it names another start", "\"start\":", "\"start\":1"),
        ("it is of another boot", "\"boot\":\"", "\"boot\":\"0"),
        ("it is of another namespace", "\"pidns\":", "\"pidns\":1"),
    ] {
        let case = Case::new();
        let hanging = case.hang();
        let marker =
            crate::support::snapshot::walk(&case.repo.git_dir().join(".jin"), &|dir| dir.ends_with(Path::new(".jin")));
        let marker = marker.into_iter().find(|p| p.display().to_string().contains(".transaction_")).expect("a marker");
        let content = fs::read_to_string(&marker).expect("it can be read");
        // In all places: the owner's and the helper's.
        fs::write(&marker, content.replace(from, to)).expect("it can be written");
        let locks = case.locks();
        let output = run(jin(&case.repo, &["recover"]), what);
        assert_eq!(
            case.values(),
            ["new", "new", "old", "old"],
            "{what}: its refs stay: {}",
            shown(&case.repo, &output)
        );
        assert_eq!(case.locks(), locks, "{what}: its locks stay: {}", shown(&case.repo, &output));
        assert_ne!(output.status.code(), Some(0), "{what}: and it is told");
        hanging.let_go();
        assert_eq!(case.values(), ["new"; 4], "{what}: it comes to its end");
    }
}

#[test]
fn an_environment_that_lies_changes_nothing_elsewhere() {
    let repo = protected();
    let other = repo.new_sibling("other", Options { guarded: true, ..Options::default() });
    other.commit_all("theirs");
    let forged = |variable: &str, value: &str| {
        let mut command = git(&repo, &["commit", "-q", "--allow-empty", "-m", "forged"]);
        command.env(variable, value);
        let before = (Snapshot::of(&other), other.logged());
        let count = repo.logged().len();
        let output = run(command, variable);
        assert!(output.status.success(), "{variable}={value}: {}", text(&output.stderr));
        assert_eq!(repo.logged().len(), count + 1, "{variable}={value}: it is logged as any other");
        assert_eq!((Snapshot::of(&other), other.logged()), before, "{variable}={value}: and nowhere else");
        let id = repo.logged()[0].split(' ').next().expect("an id").to_owned();
        text(&repo.jin_txn(["show", &id, "--json"]).stdout).into_owned()
    };
    let ino = fs::metadata(repo.git_dir().join(".jin")).expect("it is there").ino();
    for (variable, value) in [
        ("JIN_TXN_TX", "tx-1".to_owned()),
        ("JIN_TXN_TX", "\u{1b}[31m".to_owned()),
        ("JIN_TXN_TX", "tx-99999999999999999999999".to_owned()),
        ("JIN_TXN_REVERSES", "undo ../../x".to_owned()),
        ("JIN_TXN_RUN", format!("tx-1@{ino}")),
        ("JIN_TXN_RUN", format!("tx-404@{ino} tx-9@1 garbage @ \u{1b}[31m")),
        ("JIN_TXN", "on".to_owned()),
    ] {
        let told = forged(variable, &value);
        let told: Value = serde_json::from_str(&told).expect("it is JSON");
        assert!(told["begin"].get("part_of").is_none(), "{variable}={value}: it is part of nothing");
    }
    // The hook believes GIT_DIR, as git does: git sets it. A user who sets it works in that repository.
    let before = (Snapshot::of(&repo), repo.logged());
    let mut command = git(&repo, &["update-ref", "refs/heads/x", "HEAD"]);
    command.env("GIT_DIR", other.git_dir());
    assert!(run(command, "GIT_DIR").status.success());
    assert_eq!((Snapshot::of(&repo), repo.logged()), before, "GIT_DIR elsewhere: this one is not touched");
    assert_eq!(other.logged().len(), 2, "and that one logs it");
}

#[test]
fn an_apply_whose_decision_may_be_lost_waits_for_a_human() {
    let repo = protected();
    let (old, new) = (repo.read(["rev-parse", "HEAD~"]), repo.read(["rev-parse", "HEAD"]));
    for branch in ["a", "b", "c"] {
        repo.git(["branch", branch, &old]);
    }
    let input = format!(
        "update refs/heads/a {new} {old}\nupdate refs/heads/b {new} {old}\nupdate refs/heads/c {new} {old}\n\
         write made 100644 file absent\n"
    );
    kill_at(jin(&repo, &["apply"]), &input, Action::KillTree, nth(2, is_ref_rename));
    let values = || ["a", "b", "c"].map(|branch| repo.read(["rev-parse", branch]) == new);
    assert_eq!(values(), [true, false, false], "it is cut behind its commit point");
    let segment = parts(&repo).pop().expect("there is a segment");
    let log = fs::read_to_string(&segment).expect("the log is text");
    let decided = log.find("\"type\":\"decided\"").expect("it was decided");
    let mut bytes = log.into_bytes();
    bytes[decided + 8] ^= 1;
    fs::write(&segment, bytes).expect("it can be written");
    for _ in 0..2 {
        let output = run(jin(&repo, &["recover"]), "recover");
        assert_eq!(output.status.code(), Some(4), "{}", shown(&repo, &output));
        assert_eq!(values(), [true, false, false], "neither direction is taken");
        assert!(!repo.path().join("made").exists(), "and no file is written");
    }
    let staged = tree(&repo.git_dir().join(".jin/tx")).into_values().any(|(_, content)| content == b"one\n");
    assert!(staged, "what was staged is kept");
    let id = repo.logged()[0].split(' ').next().expect("an id").to_owned();
    let closed = run(jin(&repo, &["recover", "--acknowledge", &id]), "acknowledge");
    assert_eq!(closed.status.code(), Some(0), "{}", shown(&repo, &closed));
    // Its locks went with it; nobody needs the damaged log any more, which is told once.
    let_the_clock_tick(&repo.git_dir());
    assert_eq!(run(jin(&repo, &["recover"]), "recover").status.code(), Some(4));
    assert_eq!(run(jin(&repo, &["check"]), "check").status.code(), Some(0));
    repo.git(["update-ref", "refs/heads/b", &new]);
}
