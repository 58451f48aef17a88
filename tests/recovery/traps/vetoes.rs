//! A hook refuses as the last resort: git changes notes of its own (`AUTO_MERGE`) between the refs and the index of a commit,
//! and one that is refused there leaves a commit without its index, which the next commit reverts.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, thread};

use super::guarded;
use crate::support::crash::{self, assert_recovers, run_jin, spare_commit, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Repo, jin_txn, text};
use crate::support::tracer::{self, Action, Event, Isolation};
use crate::support::wait::wait_until;

/// A git that waits, with everything locked and logged, for its input to go on.
struct Live {
    child: std::process::Child,
}

impl Live {
    fn new(repo: &Repo) -> Live {
        let commit = spare_commit(repo, "of the live one");
        let mut command = crash::git(repo, &["update-ref", "--stdin"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("git starts");
        let input = format!("start\ncreate refs/heads/live {commit}\nprepare\n");
        std::io::Write::write_all(child.stdin.as_mut().expect("it has one"), input.as_bytes()).expect("git reads");
        wait_until("it is prepared", || repo.logged().first().is_some_and(|line| line.contains("begun")));
        Live { child }
    }

    fn commit(mut self) {
        let mut stdin = self.child.stdin.take().expect("it has one");
        std::io::Write::write_all(&mut stdin, b"commit\n").expect("git reads");
        drop(stdin);
        assert!(self.child.wait().expect("it is our child").success(), "nobody has disturbed it");
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[track_caller]
fn assert_index_and_worktree_are_heads(repo: &Repo, what: &str) {
    assert_eq!(repo.read(["status", "--porcelain"]), "", "{what}: the index is the commit's");
    assert_eq!(
        fs::read_dir(repo.git_dir()).map_or(0, |all| all.flatten().filter(is_lock).count()),
        0,
        "{what}: no lock"
    );
}

fn is_lock(entry: &fs::DirEntry) -> bool {
    Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "lock")
}

/// The word `gc` among the arguments makes no gc.
#[test]
fn a_commit_whose_message_is_gc_keeps_its_index_while_another_transaction_lives() {
    for arguments in [&["commit", "-qam", "gc"][..], &["checkout", "-q", "gc"], &["merge", "-q", "gc"]] {
        let repo = guarded();
        repo.git(["checkout", "-q", "-b", "gc"]);
        repo.write("other", "of gc\n");
        repo.git(["add", "other"]);
        repo.git(["commit", "-q", "-m", "other"]);
        repo.git(["checkout", "-q", "-"]);
        if arguments[0] == "commit" {
            repo.write("file", "two\n");
        }
        let live = Live::new(&repo);
        let done = repo.try_git(arguments.iter());
        assert!(done.status.success(), "{arguments:?}: {}", text(&done.stderr));
        assert_eq!(text(&done.stderr), "", "{arguments:?}");
        assert_index_and_worktree_are_heads(&repo, &format!("{arguments:?}"));
        live.commit();
        assert_recovers(&repo);
    }
}

/// A run of another worktree dies between the refs of a commit and its notes.
#[test]
fn a_run_that_dies_in_the_middle_of_a_commit_does_not_take_its_index() {
    let repo = guarded();
    let linked = repo.scratch().join("linked");
    repo.git(["worktree", "add", "-q", "-b", "side", linked.to_str().expect("the path is text")]);
    repo.write("file", "two\n");
    let mut has_died = false;
    let decide = &mut |event: &Event| {
        if crash::is_ref_rename(event) && !std::mem::replace(&mut has_died, true) {
            // From a thread of its own: the tracer waits for all children of this one.
            let (repo, linked) = (repo.clone(), linked.clone());
            thread::spawn(move || die_in_a_run(&repo, &linked)).join().expect("it does not panic");
        }
        Action::Continue
    };
    let commit = crash::git(&repo, &["commit", "-qam", "two"]);
    let outcome = tracer::trace(commit, b"", Isolation::None, decide).expect("git starts");
    assert!(has_died, "git renames a ref");
    assert!(outcome.status.success(), "{}", text(&outcome.stderr));
    assert_index_and_worktree_are_heads(&repo, "the commit");
    assert_eq!(repo.read(["log", "-1", "--format=%s"]), "two");
    let refused = repo.try_git(["tag", "t"]);
    assert!(!refused.status.success(), "what is no note waits for the run: {}", text(&refused.stderr));
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = run_jin(&repo, &["-C", linked.to_str().expect("the path is text"), "recover"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::read_to_string(linked.join("file")).expect("it is there"), "one\n", "the run is taken back");
    assert_eq!(repo.read(["log", "-1", "--format=%s"]), "two", "and the commit is not");
    assert_eq!(value(&repo, "refs/heads/side"), repo.read(["rev-parse", "HEAD~1"]));
}

fn die_in_a_run(repo: &Repo, worktree: &Path) {
    let mut run: Command = repo.command(jin_txn().as_os_str());
    let script = "echo of the run >file; kill -9 $PPID; kill -9 $$";
    run.current_dir(worktree).args(["run", "--", "sh", "-c", script]);
    run.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(!run.status().expect("it starts").success(), "it is killed");
}
