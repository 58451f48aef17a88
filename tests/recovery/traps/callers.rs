//! Hooks are called by more than what is named git: programs link its code, wrappers and loaders run it under other names. What
//! they do is protected as git's is, and they are no less alive.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{guarded, updates, with_branches};
use crate::support::crash::{assert_recovers, is_ref_rename, kill_at, nth, run_jin, spare_commit, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Repo, text, write_file};
use crate::support::tracer::Action;
use crate::support::wait::wait_until;

/// A program with git's code in it, and another name.
fn program(repo: &Repo) -> PathBuf {
    let program = repo.scratch().join("history-tool");
    if !program.exists() {
        // By another process: what is open for writing here a child of another test inherits, and then it cannot be started.
        let copied = Command::new("cp").arg("-L").arg(&Git::under_test().program).arg(&program).status();
        assert!(copied.is_ok_and(|status| status.success()), "git can be copied");
    }
    program
}

fn tool(repo: &Repo, arguments: &[&str]) -> Command {
    let mut command = repo.command(program(repo).as_os_str());
    command.args(arguments);
    command
}

/// The loader that the program names in its header, told to run git.
fn loaded(repo: &Repo, arguments: &[&str]) -> Option<Command> {
    let loader =
        ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"].into_iter().find(|l| Path::new(l).exists())?;
    let mut command = repo.command(loader.as_ref());
    command.arg(&Git::under_test().program).args(arguments);
    Some(command)
}

/// One that waits, with everything locked and logged, for its input to go on.
struct Live(Child);

impl Live {
    fn new(mut command: Command, repo: &Repo) -> Live {
        let commit = spare_commit(repo, "of the live one");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        let input = format!("start\ncreate refs/heads/live {commit}\nprepare\n");
        child.stdin.as_mut().expect("it has one").write_all(input.as_bytes()).expect("it reads");
        wait_until("it is prepared", || repo.logged().first().is_some_and(|line| line.contains("begun")));
        Live(child)
    }

    fn commit(mut self) -> bool {
        let mut stdin = self.0.stdin.take().expect("it has one");
        stdin.write_all(b"commit\n").expect("it reads");
        drop(stdin);
        self.0.wait().expect("it is our child").success()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn whoever_runs_gits_code_under_another_name_is_protected_and_not_refused() {
    let repo = guarded();
    let commit = spare_commit(&repo, "new");
    let mut callers = vec![("history-tool update-ref", tool(&repo, &["update-ref", "refs/heads/x1", &commit]))];
    callers.extend(loaded(&repo, &["update-ref", "refs/heads/x2", &commit]).map(|it| ("update-ref refs/heads/x2", it)));
    for (shown, command) in &mut callers {
        let done = command.output().expect("it starts");
        assert!(done.status.success(), "{shown}: {}", text(&done.stderr));
        assert_eq!(text(&done.stderr), "", "{shown}");
        assert!(repo.logged()[0].contains(*shown), "{shown}: {:?}", repo.logged());
    }
    assert_recovers(&repo);
}

/// A hook manager is alive only as long as the hook: what it runs for is the process above it.
#[test]
fn a_hook_manager_between_is_not_taken_for_the_owner() {
    let repo = guarded();
    let hook = repo.git_dir().join("hooks/reference-transaction");
    fs::rename(&hook, hook.with_extension("real")).expect("it is there");
    write_file(&hook, "#!/bin/sh\n\"$0.real\" \"$@\"\nexit $?\n", 0o755);
    let live = Live::new(tool(&repo, &["update-ref", "--stdin"]), &repo);
    assert_is_left_alone(&repo, "behind a manager");
    assert!(live.commit(), "nobody has disturbed it");
    // Whether such a manager calls us can only be tried, and `check` tries nothing.
    fs::rename(hook.with_extension("real"), &hook).expect("it is there");
    assert_recovers(&repo);
}

/// It holds closed locks, as git does, and nothing but its marker says whose they are.
#[test]
fn a_living_owner_under_another_name_is_robbed_of_no_lock_and_of_no_object() {
    let repo = guarded();
    let mut owners = vec![("a tool", tool(&repo, &["update-ref", "--stdin"]))];
    owners.extend(loaded(&repo, &["update-ref", "--stdin"]).map(|command| ("a loader", command)));
    for (what, command) in owners {
        let live = Live::new(command, &repo);
        assert_is_left_alone(&repo, what);
        let refused = repo.try_git(["gc", "-q"]);
        assert!(
            text(&refused.stderr).contains("is not finished, and needs objects"),
            "{what}: {}",
            text(&refused.stderr)
        );
        assert!(live.commit(), "{what}: nobody has disturbed it");
        repo.git(["update-ref", "-d", "refs/heads/live"]);
        assert_recovers(&repo);
    }
}

#[track_caller]
fn assert_is_left_alone(repo: &Repo, what: &str) {
    let_the_clock_tick(&repo.git_dir());
    for arguments in [&["check"][..], &["recover"], &["recover", "--force"]] {
        let (code, said) = run_jin(repo, arguments);
        assert_eq!(code, 5, "{what}: {arguments:?} sees that somebody is at work: {said}");
    }
    // Another program's hook calls recover as well.
    repo.git(["commit", "-q", "--allow-empty", "-m", "of somebody else"]);
    assert!(repo.git_dir().join("refs/heads/live.lock").exists(), "{what}: its lock stays");
}

#[test]
fn what_an_owner_under_another_name_left_half_done_is_taken_back() {
    for killed in [Action::KillTree, Action::KillRoot] {
        let (repo, old, new) = with_branches(&["a", "b", "c"]);
        let command = tool(&repo, &["update-ref", "--stdin"]);
        kill_at(command, &updates(&["a", "b", "c"], &new, &old), killed, nth(2, is_ref_rename));
        assert_eq!(value(&repo, "refs/heads/a"), new, "it is torn");
        assert_recovers(&repo);
        for branch in ["a", "b", "c"] {
            assert_eq!(value(&repo, &format!("refs/heads/{branch}")), old, "{killed:?}: {branch}");
        }
    }
}

/// The git of an orphan is gone. Whoever takes orphans in (the first process, a run, this test) makes no transaction.
#[test]
fn a_hook_that_nobody_called_refuses_nothing_and_begins_nothing() {
    let (repo, old, new) = with_branches(&["a"]);
    let mut hook = repo.command(repo.git_dir().join("hooks/reference-transaction").as_os_str());
    let mut hook = hook.arg("prepared").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let line = format!("{old} {new} refs/heads/a\n");
    fs::write(repo.git_dir().join("refs/heads/a.lock"), format!("{new}\n")).expect("a lock can be made");
    hook.stdin.take().expect("it has one").write_all(line.as_bytes()).expect("it reads");
    let done = hook.wait_with_output().expect("it is our child");
    assert!(done.status.success(), "{}", text(&done.stderr));
    insta::assert_snapshot!(text(&done.stderr), @r"
    jin-txn: error: no process above this hook can have called it
    jin-txn: hint: this change is not protected; `git txn status` says more
    ");
    assert!(!repo.logged()[0].contains("begun"), "{:?}", repo.logged());
    assert_recovers(&repo);
}
