//! SIGINT and SIGTERM: git removes `index.lock` before it dies, the only copy of the index of a commit whose refs are done. The
//! next commit would take that one back without a word.

use std::fs;

use nix::sys::signal::{Signal, kill};

use super::guarded;
use crate::support::crash::{self, assert_fsck, run_jin};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Repo, text};
use crate::support::tracer::{self, Action, Event, Isolation, Role};

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

/// Sends `signal` to the git of `commit -a` at its `n`th change of the file system; `false` when it makes fewer.
fn interrupt(repo: &Repo, signal: Signal, n: usize) -> bool {
    let (mut seen, mut sent) = (0, false);
    let decide = &mut |event: &Event| {
        if event.role == Role::Git {
            seen += 1;
            if seen == n {
                kill(event.pid, signal).expect("git is there");
                sent = true;
            }
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
fn assert_nothing_is_taken_back(signal: Signal, between: &[&str], stride: usize) {
    let mut in_between = 0;
    for n in (1..).step_by(stride) {
        let repo = scene();
        if !interrupt(&repo, signal, n) {
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
        let next: &[&str] = if n % 2 == 0 {
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
        assert_nothing_is_taken_back(Signal::SIGINT, between, 3);
    }
}

#[test]
fn nor_is_one_that_is_terminated() {
    assert_nothing_is_taken_back(Signal::SIGTERM, &[], 1);
}
