//! SIGINT and SIGTERM: git removes `index.lock` before it dies, the only copy of the index of a commit whose refs are done. The
//! next commit would take that one back without a word.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;

use super::guarded;
use crate::support::crash::{self, assert_fsck, run_jin};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Repo, text, write_file};
use crate::support::tracer::{self, Action, Event, Isolation, Role};
use crate::support::wait::wait_until;

/// Uncommitted work in a file that the repository has, and a file that nobody has added.
fn scene() -> Repo {
    let repo = guarded();
    repo.write("other", "one\n");
    repo.git(["add", "other"]);
    repo.git(["commit", "-qm", "other"]);
    repo.write("file", "two\n");
    repo.write("untracked", "mine\n");
    let_the_clock_tick(&repo.git_dir());
    repo
}

/// Sends `signal` to the git of `commit -a` at the `n`th change of the file system by git, or by its hooks, which go on; `false`
/// when there are fewer.
fn interrupt(repo: &Repo, signal: Signal, by: Role, n: usize) -> bool {
    let (mut seen, mut sent) = (0, false);
    let decide = &mut |event: &Event| {
        seen += usize::from(event.role == by);
        if event.role == by && seen == n {
            sent = true;
            return Action::SignalGit(signal);
        }
        Action::Continue
    };
    let commit = crash::git(repo, &["commit", "-qam", "two"]);
    tracer::trace(commit, b"", Isolation::None, decide).expect("git starts");
    let_the_clock_tick(&repo.git_dir());
    sent
}

fn has_locks(repo: &Repo) -> bool {
    let names = |dir: &str| fs::read_dir(repo.git_dir().join(dir)).expect("it can be listed").flatten();
    let mut all = ["", "refs/heads"].into_iter().flat_map(names);
    all.any(|entry| entry.path().extension().is_some_and(|extension| extension == "lock"))
}

/// What plain git says to a command; a hook may refuse it once.
#[track_caller]
fn second_try(repo: &Repo, arguments: &[&str], what: &str) -> String {
    let first = repo.try_git(arguments);
    let said = text(&first.stderr).into_owned();
    if first.status.success() {
        return said;
    }
    assert!(said.contains("run your command again"), "{what}: {arguments:?} is refused: {said}");
    let second = repo.try_git(arguments);
    assert!(second.status.success(), "{what}: {arguments:?} is refused twice: {said}{}", text(&second.stderr));
    said
}

/// What is done between the interrupted commit and the next one.
const BETWEEN: [&[&str]; 4] = [&[], &["status", "--porcelain"], &["tag", "t"], &["recover"]];

/// At every `stride`th point.
fn assert_nothing_is_taken_back(signal: Signal, by: Role, between: &[&str], stride: usize) {
    let mut in_between = 0;
    for (round, n) in (1..).step_by(stride).enumerate() {
        let repo = scene();
        if !interrupt(&repo, signal, by, n) {
            break;
        }
        let what = format!("{signal} at change {n}, then {between:?}");
        let is_done = repo.read(["log", "-1", "--format=%s"]) == "two";
        in_between += usize::from(is_done && repo.try_git(["diff", "--cached", "--quiet"]).status.code() == Some(1));
        // A signal between the making of a lock and git's note of it leaves the lock, as SIGKILL does.
        if has_locks(&repo) {
            assert_eq!(run_jin(&repo, &["recover"]).0, 0, "{what}");
        }
        match between {
            [] => {}
            ["recover"] => {
                let (code, said) = run_jin(&repo, &["recover"]);
                assert_eq!(code, 0, "{what}: {said}");
                assert_eq!(repo.read(["diff", "--cached", "--name-only"]), "", "{what}: {said}");
            }
            other => {
                second_try(&repo, other, &what);
            }
        }
        let next: &[&str] = if round % 3 < 2 {
            &["commit", "-q", "--allow-empty", "-m", "next"]
        } else {
            &["commit", "-qam", "next", "--allow-empty"]
        };
        second_try(&repo, next, &what);
        if !is_done {
            repo.git(["commit", "-qam", "two", "--allow-empty"]);
        }
        assert_eq!(repo.read(["show", "HEAD:file"]), "two", "{what}: the commit is taken back");
        assert_eq!(repo.read(["status", "--porcelain"]), "?? untracked", "{what}");
        assert_eq!(
            fs::read_to_string(repo.worktree().expect("it has one").join("file")).expect("it is there"),
            "two\n"
        );
        let (code, said) = run_jin(&repo, &["check"]);
        assert_eq!(code, 0, "{what}: nothing is left: {said}");
        assert_fsck(&repo);
        repo.discard();
    }
    assert!(in_between > 0, "{signal}, {between:?}: some point lies between the refs and the index");
}

#[test]
fn a_commit_that_is_interrupted_between_its_refs_and_its_index_is_not_taken_back_by_the_next_one() {
    for between in BETWEEN {
        assert_nothing_is_taken_back(Signal::SIGINT, Role::Git, between, 5);
    }
}

#[test]
fn nor_is_one_that_is_terminated() {
    assert_nothing_is_taken_back(Signal::SIGTERM, Role::Git, &[], 4);
}

/// A hook that outlives its git finds `index.lock` gone, and forgets nothing because of that.
#[test]
fn nor_is_one_whose_hook_goes_on_when_git_is_interrupted() {
    assert_nothing_is_taken_back(Signal::SIGINT, Role::Hook, &[], 2);
}

/// The index of before comes back by other ways than a cut: nothing of a commit that has ended well is brought back.
#[test]
fn a_commit_that_has_ended_well_is_not_taken_for_an_interrupted_one() {
    let go_back: [&[&[&str]]; 7] = [
        &[&["reset", "-q", "--hard", "HEAD~1"]],
        &[&["reset", "-q", "HEAD~1"]],
        &[&["reset", "-q", "HEAD~1", "--", "."]],
        &[&["checkout", "-q", "HEAD~1"]],
        &[&["switch", "-q", "-c", "other", "HEAD~1"]],
        &[&["revert", "-n", "HEAD"]],
        &[&["revert", "--no-edit", "HEAD"]],
    ];
    for commands in go_back {
        let repo = scene();
        repo.git(["commit", "-qam", "two"]);
        for arguments in commands {
            let output = repo.try_git(arguments.iter());
            assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        }
        let staged = repo.read(["ls-files", "-s"]);
        let output = repo.try_git(["tag", "t"]);
        assert_eq!(text(&output.stderr), "", "{commands:?}");
        assert_eq!(run_jin(&repo, &["recover"]).0, 0, "{commands:?}");
        assert_eq!(repo.read(["ls-files", "-s"]), staged, "{commands:?}: the index is what git made of it");
    }
}

/// What was staged since is nobody's to throw away, and the commit is not taken back in silence.
#[test]
fn a_commit_behind_an_interrupted_one_and_a_new_file_is_refused_once_and_the_reason_told() {
    let repo = cut_between_refs_and_index();
    repo.write("new", "new\n");
    repo.git(["add", "new"]);
    let refused = repo.try_git(["commit", "-qm", "second"]);
    let said = text(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("`git reset` keeps it"), "{said}");
    repo.git(["reset", "-q"]);
    repo.git(["add", "new"]);
    repo.git(["commit", "-qm", "second"]);
    assert_eq!((repo.read(["show", "HEAD:file"]), repo.read(["show", "HEAD:new"])), ("two".into(), "new".into()));
}

/// It has read the index of before already.
#[test]
fn a_command_that_has_read_the_index_is_neither_refused_nor_disturbed() {
    for arguments in [&["reset", "-q", "--hard", "HEAD~1"][..], &["reset", "-q", "--hard"]] {
        let repo = cut_between_refs_and_index();
        let output = repo.try_git(arguments.iter());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(repo.read(["status", "--porcelain"]), "?? untracked", "{arguments:?}");
        repo.git(["tag", "t"]);
        assert_eq!(repo.read(["status", "--porcelain"]), "?? untracked", "{arguments:?}, and afterwards");
    }
}

/// A commit waits in its editor, and another git moves its branch: that one has no index.
#[test]
fn the_index_of_a_commit_that_waits_in_its_editor_is_not_that_of_another_transaction() {
    let repo = scene();
    repo.write("other", "staged by hand\n");
    repo.git(["add", "other"]);
    repo.write("other", "and more\n");
    let staged = repo.read(["ls-files", "-s"]);
    let (waits, go_on) = (repo.scratch().join("waits"), repo.scratch().join("go-on"));
    let editor = repo.scratch().join("editor");
    let script = format!(
        "#!/bin/sh\n: >'{}'\nwhile [ ! -e '{}' ]; do sleep 0.01; done\n: >\"$1\"\n",
        waits.display(),
        go_on.display()
    );
    write_file(&editor, &script, 0o755);
    let mut commit = crash::git(&repo, &["commit", "-a"]);
    let mut commit = commit.env("GIT_EDITOR", &editor).spawn().expect("git starts");
    wait_until("it waits in its editor", || waits.exists());
    let same_tree = repo.read(["commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "the same tree"]);
    repo.git(["update-ref", "HEAD", &same_tree]);
    fs::write(&go_on, "").expect("it can be told");
    assert!(!commit.wait().expect("it is our child").success(), "an empty message aborts a commit");
    repo.git(["tag", "t"]);
    assert_eq!(repo.read(["ls-files", "-s"]), staged, "what was staged by hand is still staged");
}

/// `commit -a` is done but for its index, which git has removed.
fn cut_between_refs_and_index() -> Repo {
    // The search begins a little before the point at which another test has found one.
    static FOUND: AtomicUsize = AtomicUsize::new(0);
    for n in FOUND.load(Ordering::Relaxed).saturating_sub(4).max(1).. {
        let repo = scene();
        assert!(interrupt(&repo, Signal::SIGINT, Role::Git, n), "some point lies between the refs and the index");
        let is_done = repo.read(["log", "-1", "--format=%s"]) == "two";
        if is_done && !has_locks(&repo) && repo.read(["diff", "--cached", "--name-only"]) == "file" {
            FOUND.store(n, Ordering::Relaxed);
            return repo;
        }
        repo.discard();
    }
    unreachable!("it is found or asserted")
}
