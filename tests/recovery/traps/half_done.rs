//! Commands cut in the middle: what they leave is finished or taken back, and the next command works.

use std::fs;
use std::path::Path;

use super::{Torn, guarded, leave_stale_lock, updates, with_branches};
use crate::support::crash::{
    self, assert_recovers, is_ref_lock, is_ref_rename, is_rename_to, kill_at, nth, path_of, recover, spare_commit,
    value,
};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Repo, text};
use crate::support::snapshot::{Snapshot, walk};
use crate::support::tracer::{Action, Event, Role};

#[test]
fn a_delete_cut_between_its_reflog_and_its_ref_gets_the_reflog_back() {
    let repo = guarded();
    let old = repo.read(["rev-parse", "HEAD"]);
    let new = spare_commit(&repo, "new");
    for branch in ["deleted", "deleted-too", "moved"] {
        repo.git(["branch", branch]);
        repo.git(["branch", "-q", "-f", branch, &new]);
        repo.git(["branch", "-q", "-f", branch, &old]);
    }
    let before = Snapshot::of(&repo);
    let input = format!(
        "start\nupdate refs/heads/moved {new} {old}\ndelete refs/heads/deleted {old}\ndelete refs/heads/deleted-too {old}\n\
         prepare\ncommit\n"
    );
    kill_at(crash::git(&repo, &["update-ref", "--stdin"]), &input, Action::KillTree, |event| {
        event.role == Role::Git
            && event.syscall.starts_with("unlink")
            && path_of(event).ends_with("refs/heads/deleted")
            && !path_of(event).components().any(|part| part.as_os_str() == "logs")
    });
    assert!(!repo.git_dir().join("logs/refs/heads/deleted").exists(), "git has removed the reflog already");
    assert_ne!(value(&repo, "refs/heads/deleted"), "", "but not yet the ref");
    assert_recovers(&repo);
    assert_eq!(Snapshot::of(&repo), before, "refs and reflogs are back, byte for byte");
}

#[test]
fn locks_of_a_git_that_died_while_locking_are_removed_by_recover() {
    let (repo, before) = died_while_locking();
    assert_recovers(&repo);
    assert_eq!(Snapshot::of(&repo).refs, before.refs, "nothing had happened");
}

#[test]
fn locks_of_a_git_that_died_while_locking_do_not_stop_the_shim() {
    let (repo, _) = died_while_locking();
    let output = repo.jin_txn(["git", "commit", "-q", "--allow-empty", "-m", "next"]);
    assert!(output.status.success(), "the shim clears the way: {}", text(&output.stderr));
    assert_recovers(&repo);
}

#[test]
fn locks_of_a_git_that_died_while_locking_do_not_stop_a_modern_plain_git() {
    if !Git::under_test().is_at_least(2, 54) {
        return println!("skipped: before 2.54 git calls no hook before it locks");
    }
    let (repo, _) = died_while_locking();
    let output = repo.try_git(["commit", "-q", "--allow-empty", "-m", "next"]);
    assert!(output.status.success(), "the hook clears the way at once: {}", text(&output.stderr));
    assert_recovers(&repo);
}

/// git was killed when it had locked `main` and one more of three branches.
fn died_while_locking() -> (Repo, Snapshot) {
    let (repo, old, new) = with_branches(&["one", "two"]);
    let before = Snapshot::of(&repo);
    let input = updates(&["main", "one", "two"], &new, &old);
    kill_at(crash::git(&repo, &["update-ref", "--stdin"]), &input, Action::KillTree, nth(3, is_ref_lock));
    let_the_clock_tick(&repo.git_dir());
    let locks = walk(&repo.git_dir().join("refs"), &|_| true);
    assert!(locks.iter().filter(|path| path.extension().is_some_and(|it| it == "lock")).count() == 2, "{locks:?}");
    (repo, before)
}

#[test]
fn a_commit_cut_between_its_ref_and_its_index_gets_its_index() {
    let repo = guarded();
    repo.write("file", "two\n");
    let mut has_moved = false;
    kill_at(crash::git(&repo, &["commit", "-qam", "two"]), "", Action::KillTree, |event| {
        has_moved |= is_ref_rename(event);
        has_moved && is_rename_to(event, ".git/index")
    });
    assert!(repo.git_dir().join("index.lock").exists(), "the new index was about to be renamed into place");
    assert_recovers(&repo);
    assert_eq!(repo.read(["log", "-1", "--format=%s"]), "two", "the commit had happened");
    assert_eq!(repo.read(["status", "--porcelain"]), "", "and the index goes with it");
}

#[test]
fn a_rebase_that_was_killed_can_be_aborted() {
    for n in [1, 2, 3] {
        let repo = guarded();
        repo.git(["switch", "-q", "-c", "topic"]);
        for number in 1..=3 {
            repo.write(&format!("topic-{number}"), "topic\n");
            repo.commit_all(&format!("topic {number}"));
        }
        repo.git(["switch", "-q", "main"]);
        repo.write("main", "main\n");
        repo.commit_all("main");
        repo.git(["switch", "-q", "topic"]);
        let before = Snapshot::of(&repo);
        let mut started = false;
        let moves_head = |event: &Event| event.role == Role::Git && is_rename_to(event, ".git/HEAD");
        let mut seen = 0;
        kill_at(crash::git(&repo, &["rebase", "-q", "main"]), "", Action::KillTree, |event| {
            started |= is_rename_to(event, "rebase-merge/git-rebase-todo");
            seen += usize::from(started && moves_head(event));
            seen == n
        });
        let (code, said) = recover(&repo);
        assert_eq!(code, 0, "kill at move {n} of HEAD: {said}");
        let abort = repo.try_git(["rebase", "--abort"]);
        assert!(abort.status.success(), "kill at move {n} of HEAD: {}", text(&abort.stderr));
        let after = Snapshot::of(&repo);
        assert_eq!((after.refs, after.worktree), (before.refs, before.worktree), "everything is as before the rebase");
        assert_eq!(repo.read(["status", "--porcelain"]), "");
        assert_recovers(&repo);
    }
}

#[test]
fn a_stale_index_lock_does_not_touch_a_sparse_index() {
    let repo = guarded();
    for name in ["in/a", "out/b"] {
        repo.write(name, "content\n");
    }
    repo.commit_all("directories");
    let full = fs::read(repo.git_dir().join("index")).expect("there is an index");
    repo.git(["sparse-checkout", "set", "--cone", "in"]);
    let sparse = fs::read(repo.git_dir().join("index")).expect("there is an index");
    fs::write(repo.git_dir().join("index.lock"), &full).expect("a lock can be made");
    assert_recovers(&repo);
    assert!(fs::read(repo.git_dir().join("index")).is_ok_and(|now| now == sparse), "the index is as it was");
    assert!(!repo.path().join("out/b").exists(), "the checkout is still sparse");
    let quarantine = walk(&repo.git_dir().join(".jin/quarantine"), &|_| true);
    let kept = quarantine.iter().any(|path| fs::read(path).is_ok_and(|content| content == full));
    assert!(kept, "the lock is kept: {quarantine:?}");
}

#[test]
fn a_worktree_of_which_the_making_was_cut_can_be_made_again() {
    for n in [2, 4, 6] {
        let repo = guarded();
        repo.git(["branch", "topic"]);
        let arguments = ["worktree", "add", "-q", "../linked", "topic"];
        let inside = |event: &Event| {
            event.role == Role::Git && path_of(event).components().any(|part| part.as_os_str() == "worktrees")
        };
        kill_at(crash::git(&repo, &arguments), "", Action::KillTree, nth(n, inside));
        assert_recovers(&repo);
        let again = repo.try_git(arguments);
        assert!(again.status.success(), "killed at event {n} in worktrees/: {}", text(&again.stderr));
        let linked = repo.sibling("linked");
        assert_eq!(linked.read(["symbolic-ref", "HEAD"]), "refs/heads/topic");
        linked.git(["commit", "-q", "--allow-empty", "-m", "in the new worktree"]);
        assert_recovers(&repo);
    }
}

/// Before git has made its first file in it the directory itself is the evidence, whatever it is called.
#[test]
fn a_cut_worktree_named_like_gits_own_file_takes_no_other_worktree_along() {
    let repo = guarded();
    repo.git(["worktree", "add", "-q", "--detach", "../one"]);
    fs::create_dir(repo.git_dir().join("worktrees/locked")).expect("git makes it first");
    let_the_clock_tick(&repo.git_dir());
    assert_recovers(&repo);
    assert!(!repo.git_dir().join("worktrees/locked").exists(), "the cut one is gone");
    assert_eq!(repo.sibling("one").read(["rev-parse", "HEAD"]), value(&repo, "HEAD"), "the other one is there");
}

/// One that is finished while recovery looks is not taken for one that was cut.
#[test]
fn a_worktree_that_is_made_while_recovery_runs_stays() {
    let repo = Repo::new(crate::support::repo::Options::default());
    repo.commit_all("one");
    let is_over = &std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let repo = &repo;
        scope.spawn(move || {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                repo.jin_txn(["recover"]);
            }
        });
        for n in 0..40 {
            repo.git(["worktree", "add", "-q", "--detach", &format!("../made-{n}")]);
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    for n in 0..40 {
        let made = repo.sibling(&format!("made-{n}"));
        assert_eq!(made.read(["rev-parse", "HEAD"]), value(&repo, "HEAD"), "worktree {n} is whole");
    }
}

#[test]
fn a_plain_commit_on_a_torn_branch_is_refused_at_most_once() {
    let repo = guarded();
    repo.git(["switch", "-q", "-c", "elsewhere"]);
    let old = repo.read(["rev-parse", "main"]);
    let new = repo.read(["commit-tree", "-p", "main", "-m", "new", "main^{tree}"]);
    repo.git(["branch", "other"]);
    let input = updates(&["main", "other"], &new, &old);
    kill_at(crash::git(&repo, &["update-ref", "--stdin"]), &input, Action::KillTree, nth(2, is_ref_rename));
    assert_eq!((value(&repo, "main"), value(&repo, "other")), (new, old.clone()), "torn, and main's lock is gone");
    crash::unseen_git(&repo, &["symbolic-ref", "HEAD", "refs/heads/main"]);
    let_the_clock_tick(&repo.git_dir());

    let commit = ["commit", "-q", "--allow-empty", "-m", "next"];
    let first = repo.try_git(commit);
    let said = text(&first.stderr);
    let is_modern = Git::under_test().is_at_least(2, 54);
    assert!(is_modern || !first.status.success(), "main has to move, and this command holds its lock: {said}");
    if !first.status.success() {
        // A modern git is told before it locks: it refuses by itself, because HEAD is not where it was.
        let told = if is_modern { "rolled back" } else { "run your command again" };
        assert!(said.contains("jin-txn") && said.contains(told), "it says what happened: {said}");
        let second = repo.try_git(commit);
        assert!(second.status.success(), "the second try works: {}", text(&second.stderr));
    }
    assert_eq!(repo.read(["rev-parse", "main~1"]), old, "the commit builds on what was there before the torn update");
    assert_recovers(&repo);
    assert_eq!(value(&repo, "other"), old);
}

#[test]
fn a_stale_pid_file_that_names_init_does_not_keep_a_lock() {
    let repo = guarded();
    fs::write(repo.git_dir().join("index~pid.lock"), "pid 1\n").expect("a lock can be made");
    leave_stale_lock(&repo, "index.lock");
    assert_recovers(&repo);
    repo.git(["commit", "-q", "--allow-empty", "-m", "next"]);
}

#[test]
fn a_torn_update_is_whole_for_the_next_plain_git_that_writes_another_ref() {
    let torn = Torn::new();
    let other = torn.repo.try_git(["branch", "unrelated"]);
    assert!(other.status.success(), "recovery needs no lock that this command holds: {}", text(&other.stderr));
    torn.assert_rolled_back();
    assert!(Path::new(&torn.repo.git_dir().join("refs/heads/unrelated")).exists());
    assert_recovers(&torn.repo);
}
