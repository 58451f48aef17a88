//! Refs that a run moves where no hook sees it: they go back when they are the run's, and are told when nobody can know.

use std::fs;

use super::restoring::{assert_no_trace, guarded, run_script};
use crate::support::crash::{self, jin, run_jin, unseen_git, value};
use crate::support::repo::{Repo, text};
use crate::support::scenes::Whole;
use crate::support::tracer::Action;

const MOVES: &str = "echo x >file; git commit -qam x; git tag t; git branch -qD topic; git branch -qf other HEAD";

fn with_branches() -> Repo {
    let repo = guarded();
    repo.git(["branch", "topic", "HEAD~1"]);
    repo.git(["branch", "other", "HEAD~1"]);
    repo
}

/// As the install script of husky does.
#[test]
fn the_commit_of_a_run_that_sets_a_hooks_directory_goes_back_with_its_files() {
    assert_no_trace(&with_branches(), &format!("mkdir -p .husky/_; git config core.hooksPath .husky/_; {MOVES}"));
}

#[test]
fn the_commit_of_a_run_that_removes_or_replaces_the_hook_goes_back_with_its_files() {
    for away in ["rm .git/hooks/reference-transaction", "ln -sf /bin/true .git/hooks/reference-transaction"] {
        let repo = with_branches();
        let before = Whole::of(&repo);
        let (code, said) = run_script(&repo, &format!("{away}; {MOVES}; exit 9"));
        assert_eq!(code, 9, "{said}");
        let after = Whole::of(&repo);
        assert!(before == after, "{away}: {}\n{said}", after.differences(&before));
        assert!(said.contains("jin-txn install"), "hooks are not put back, which is said: {said}");
    }
}

#[test]
fn the_commit_of_a_run_that_looks_away_goes_back_with_its_files() {
    assert_no_trace(&with_branches(), &format!("export JIN_TXN=off; {MOVES}"));
    let mixed =
        "JIN_TXN=off git branch -f topic main; git branch -f topic main~2 2>/dev/null || git branch -f topic main~1";
    assert_no_trace(&with_branches(), mixed);
    assert_no_trace(&with_branches(), "JIN_TXN=off git branch -f topic main; git branch -D topic");
    assert_no_trace(&with_branches(), "git tag t; JIN_TXN=off git tag -f t HEAD~1 >/dev/null");
    for (name, setting) in [("JIN_TXN", "off"), ("GIT_CONFIG_PARAMETERS", "'core.hooksPath'='/dev/null'")] {
        let repo = with_branches();
        let before = Whole::of(&repo);
        let script = format!("{MOVES}; exit 9");
        let output = jin(&repo, &["run", "--", "sh", "-ec", &script]).env(name, setting).output().expect("it starts");
        assert_eq!(output.status.code(), Some(9), "{name}: {}", text(&output.stderr));
        let after = Whole::of(&repo);
        assert!(before == after, "{name}: {}", after.differences(&before));
    }
}

#[test]
fn the_branch_of_a_worktree_goes_back_with_its_files_whatever_hid_its_commit() {
    assert_no_trace(
        &with_branches(),
        "echo x >file; git -c core.hooksPath=/dev/null commit -qam x; git -c core.hooksPath=/dev/null tag t",
    );
}

#[test]
fn a_blind_run_in_a_linked_worktree_or_a_bare_repository_takes_its_refs_back() {
    let repo = with_branches();
    repo.git(["worktree", "add", "-q", "-b", "linked", "../linked"]);
    repo.git(["clone", "-q", "--bare", ".", "../bare.git"]);
    let bare = repo.sibling("bare.git");
    bare.install_guard();
    let in_worktree = "echo x >file; git commit -qam x; git bisect start -q HEAD HEAD~1 2>/dev/null || true";
    for (place, script) in
        [(repo.sibling("linked"), in_worktree), (bare, "git branch -D linked; git symbolic-ref HEAD refs/heads/topic")]
    {
        let look = || (place.read(["for-each-ref"]), place.read(["rev-parse", "HEAD"]));
        let before = look();
        let script = format!("git config core.hooksPath .husky; {script}; git branch -f other HEAD; git tag t; exit 9");
        let (code, said) = run_script(&place, &script);
        assert_eq!((code, look()), (9, before), "{said}");
    }
    assert_eq!(repo.sibling("linked").read(["status", "--porcelain"]), "");
}

#[test]
fn a_ref_that_nobody_is_known_to_have_moved_is_left_and_told() {
    let repo = guarded();
    let first = value(&repo, "HEAD~1");
    let (code, said) =
        run_script(&repo, "git tag t; git -c core.hooksPath=/dev/null tag -f t HEAD~1 >/dev/null; exit 9");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("no hook saw who moved refs/tags/t"), "{said}");
    assert_eq!(value(&repo, "t"), first);
    assert_eq!(run_jin(&repo, &["check"]).0, 0, "it has been told, and is over");
    unseen_git(&repo, &["tag", "-d", "t"]);
}

#[test]
fn what_others_do_to_refs_while_a_run_is_blind_stays() {
    let repo = with_branches();
    let theirs = "env -u JIN_TXN_RUN -u JIN_TXN git -c core.hooksPath=.git/hooks";
    let (code, said) = run_script(
        &repo,
        &format!(
            "{theirs} branch theirs; {theirs} branch -f other main; git config core.hooksPath .husky; git tag t; exit 9"
        ),
    );
    assert_eq!(code, 9, "{said}");
    assert_eq!((value(&repo, "theirs"), value(&repo, "other")), (value(&repo, "main"), value(&repo, "main")), "{said}");
    assert_eq!(value(&repo, "t"), "");
}

#[test]
fn symbolic_refs_point_where_they_did() {
    let repo = with_branches();
    repo.git(["symbolic-ref", "refs/heads/alias", "refs/heads/topic"]);
    repo.git(["symbolic-ref", "refs/heads/gone", "refs/heads/topic"]);
    assert_no_trace(
        &repo,
        "git symbolic-ref -m moved refs/heads/alias refs/heads/other; git symbolic-ref refs/heads/new refs/heads/other
         git symbolic-ref -d refs/heads/gone",
    );
    repo.git(["clone", "-q", "--bare", ".", "../origin.git"]);
    repo.git(["remote", "add", "origin", "../origin.git"]);
    repo.git(["fetch", "-q", "origin"]);
    assert_no_trace(&repo, "git remote set-head origin topic");
    repo.git(["remote", "set-head", "origin", "main"]);
    assert_no_trace(&repo, "git remote set-head origin topic");
    assert_no_trace(&repo, "git remote set-head -d origin");
    assert_no_trace(&repo, "git remote rename origin upstream");
    // To a branch that is not there yet: the run makes that, and no more.
    repo.git(["symbolic-ref", "refs/heads/dangling", "refs/heads/nowhere"]);
    let (code, said) = run_script(&repo, "git branch nowhere; exit 9");
    assert_eq!((code, value(&repo, "nowhere")), (9, String::new()), "{said}");
    assert_eq!(repo.read(["symbolic-ref", "refs/heads/dangling"]), "refs/heads/nowhere");
}

#[test]
fn the_reflog_of_a_symbolic_ref_that_is_written_through_is_as_before() {
    let repo = with_branches();
    repo.git(["config", "core.logAllRefUpdates", "always"]);
    repo.git(["symbolic-ref", "-m", "made", "refs/heads/alias", "refs/heads/topic"]);
    assert_no_trace(
        &repo,
        "git update-ref -m through refs/heads/alias main; git update-ref -m again refs/heads/alias main~1",
    );
}

#[test]
fn a_branch_has_its_name_again_however_the_rename_was_spelled() {
    for renamed in [
        "-m topic new",
        "topic new -m",
        "--mov topic new",
        "-mf topic other",
        "-fm topic other",
        "topic other -M",
        "-M topic other",
        "-m new",
        "-M other",
        "--move --force main other",
        "-c topic new",
        "-C topic other",
        "topic new --copy",
    ] {
        let repo = with_branches();
        repo.git(["config", "branch.topic.description", "mine"]);
        let before = Whole::of(&repo);
        let (code, said) = run_script(&repo, &format!("git branch {renamed}; exit 9"));
        let after = Whole::of(&repo);
        assert!(code == 9 && before == after, "branch {renamed}: {code} {}\n{said}", after.differences(&before));
    }
}

#[test]
fn a_file_comes_back_with_its_own_content_though_the_run_has_replaced_its_blob() {
    let repo = guarded();
    assert_no_trace(&repo, "git replace HEAD:file HEAD:dir/inner; rm file");
}

#[test]
fn reflogs_that_expire_in_a_run_are_there_again() {
    assert_no_trace(&with_branches(), "git reflog expire --expire=now --all");
}

#[test]
fn undo_takes_nothing_older_back_than_a_kept_run_whose_commit_no_hook_saw() {
    let repo = with_branches();
    repo.git(["tag", "before"]);
    let (code, said) =
        run_script(&repo, &format!("git config core.hooksPath .husky; {MOVES}; git config --unset core.hooksPath"));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("no hook saw how refs/heads/main, refs/heads/other, refs/heads/topic and 1 more"), "{said}");
    assert!(repo.logged()[0].contains("4 refs"), "{:?}", repo.logged());
    let tip = value(&repo, "main");
    let (code, said) = run_jin(&repo, &["undo"]);
    assert!(code != 0 && said.contains("cannot be reversed: refs changed in it that no hook saw"), "{said}");
    assert_eq!((value(&repo, "main"), value(&repo, "before") == String::new()), (tip, false), "{said}");
    repo.git(["tag", "after"]);
    assert_eq!(run_jin(&repo, &["undo"]).0, 0, "what was done since can be undone");
    assert_eq!(value(&repo, "after"), "");
}

/// `cargo new`, and what else brings a `.gitignore` of its own.
#[test]
fn new_files_go_though_the_run_has_made_a_rule_that_hides_them() {
    let repo = guarded();
    repo.write(".gitignore", "*.old\n");
    repo.write(".git/info/exclude", "");
    repo.write("mine.old", "mine\n");
    repo.commit_all("rules");
    assert_no_trace(
        &repo,
        "mkdir -p new/target/deep; echo target >new/.gitignore; echo >new/target/deep/out; echo >new/main",
    );
    assert_no_trace(&repo, "mkdir -p new/a/b; echo a >new/.gitignore; echo b >new/a/.gitignore; echo >new/a/b/out");
    assert_no_trace(
        &repo,
        "echo '*' >.git/info/exclude; echo >hidden; echo '*' >.gitignore; echo >hidden2; git commit -qam rules",
    );
    // As the caches of tools do.
    assert_no_trace(&repo, "mkdir -p cache/deep; echo '*' >cache/.gitignore; echo >cache/deep/out");
    assert!(repo.path().join("mine.old").exists());
}

/// Killed in the middle of the restore the configuration may be back already, and does not say any more that hooks were off.
#[test]
fn a_blind_run_whose_restore_is_killed_goes_back_all_the_same() {
    let repo = with_branches();
    let before = Whole::of(&repo);
    let script = format!("git config core.hooksPath .husky/_; {MOVES}; exit 9");
    let command = jin(&repo, &["run", "--", "sh", "-ec", &script]);
    let mut seen = false;
    crash::kill_at(command, "", Action::KillTree, |event| {
        seen |= event.path.as_deref().is_some_and(|path| path.ends_with("blind"));
        seen && event.path.as_deref().is_some_and(|path| path.ends_with("refs/heads/main.lock"))
    });
    assert!(fs::read_to_string(repo.git_dir().join("config")).is_ok_and(|text| !text.contains("husky")));
    let (code, said) = crash::recover(&repo);
    assert_eq!(code, 0, "{said}");
    let after = Whole::of(&repo);
    assert!(before == after, "{}\n{said}", after.differences(&before));
}
