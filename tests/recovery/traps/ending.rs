//! Gits that end while somebody looks at them: what has ended well is not recovered, and nobody complains.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::live_owners::{Scene, update};
use super::{Torn, guarded, updates, with_branches};
use crate::support::crash::{
    self, assert_recovers, is_ref_rename, jin, nth, recover, run_jin, spare_commit, value, wal,
};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Repo, text};
use crate::support::tracer::{self, Action, Calls, Event, Isolation, Outcome, Role};
use crate::support::wait::wait_until;

/// Lets the git of `scene` end when somebody who has read its marker is about to look at it.
fn let_it_end(scene: Scene, command: impl FnOnce(&Repo) -> Command) -> (Outcome, bool) {
    let (repo, stat, live) = (scene.repo.clone(), scene.in_proc("stat"), scene.live);
    end_when_looked_at(&repo, &stat, move || live.finish(), command)
}

/// What a command said at whose look at `stat` something ends, and whether it recovered.
fn end_when_looked_at(
    repo: &Repo,
    stat: &Path,
    end: impl FnOnce() + Send,
    command: impl FnOnce(&Repo) -> Command,
) -> (Outcome, bool) {
    let (mut end, mut recovers) = (Some(end), false);
    let mut decide = |event: &Event| {
        let path = event.path.as_deref();
        recovers |= path.is_some_and(|path| path.ends_with(".jin/recovery.lock"));
        if event.role == Role::Hook
            && path == Some(stat)
            && let Some(end) = end.take()
        {
            end();
        }
        Action::Continue
    };
    let command = command(repo);
    // From a thread of its own: the tracer waits for all children of its thread.
    let outcome = thread::scope(|scope| {
        let trace = || tracer::trace_calls(command, b"", Isolation::None, Calls::Looking, &mut decide);
        scope.spawn(trace).join().expect("the tracer does not panic").expect("it starts")
    });
    assert!(end.is_none(), "it was looked at");
    assert_recovers(repo);
    (outcome, recovers)
}

#[test]
fn a_git_that_ends_while_recovery_looks_at_it_is_not_recovered() {
    let (outcome, _) = let_it_end(Scene::new(update), |repo| jin(repo, &["recover"]));
    assert_eq!((outcome.status.code(), text(&outcome.stderr).as_ref()), (Some(0), "jin-txn: nothing to recover\n"));
}

#[test]
fn a_git_that_ends_while_a_hook_looks_at_it_leaves_nothing_to_recover() {
    let (outcome, recovers) =
        let_it_end(Scene::new(update), |repo| crash::git(repo, &["update-ref", "refs/heads/other", "main"]));
    assert_eq!((outcome.status.code(), text(&outcome.stderr).as_ref(), recovers), (Some(0), "", false));
}

/// A run that waits, and ends when somebody who has read its marker is about to look at it.
fn let_a_run_end(command: impl FnOnce(&Repo) -> Command) -> Outcome {
    let repo = guarded();
    let mut run = jin(&repo, &["run", "--", "sh", "-c", "read line; git branch made"]);
    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    wait_until("the run has its marker, and its command waits", || has_child(run.id()));
    let stat = PathBuf::from(format!("/proc/{}/stat", run.id()));
    let end = || {
        drop(run.stdin.take().expect("it is piped"));
        assert!(run.wait().expect("it is our child").success(), "the run is kept");
    };
    let (outcome, _) = end_when_looked_at(&repo, &stat, end, command);
    assert_ne!(value(&repo, "refs/heads/made"), "", "what it did stays");
    outcome
}

/// The runner starts its command when everything else is in place; before that it only starts gits, which end by themselves.
fn has_child(pid: u32) -> bool {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let names =
        children.split_whitespace().map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default());
    names.into_iter().any(|name| name.trim() == "sh")
}

#[test]
fn a_run_that_ends_while_a_hook_looks_at_it_is_no_reason_to_refuse_anything() {
    let outcome = let_a_run_end(|repo| crash::git(repo, &["update-ref", "refs/heads/other", "main"]));
    assert_eq!((outcome.status.code(), text(&outcome.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_run_that_ends_while_recovery_looks_at_it_is_not_taken_back() {
    let outcome = let_a_run_end(|repo| jin(repo, &["recover"]));
    assert_eq!((outcome.status.code(), text(&outcome.stderr).as_ref()), (Some(0), "jin-txn: nothing to recover\n"));
}

/// A git that is killed where `dies` says so, while a recovery stands still that has begun at `begin` and come to `pause`. Returns
/// how that recovery ended.
fn dies_under_recovery(
    repo: &Repo,
    (git, input): (Command, &str),
    begin: fn(&Event) -> bool,
    pause: fn(&Event, Pid) -> bool,
    mut dies: impl FnMut(&Event) -> bool,
) -> Outcome {
    let (ready, is_ready) = mpsc::channel();
    let (may_go, go) = mpsc::channel::<()>();
    let mut waiting = Some((ready, go));
    let mut recovery = None;
    let mut decide = |event: &Event| {
        if begin(event)
            && let Some((ready, go)) = waiting.take()
        {
            let git = if event.role == Role::Hook { parent_of(event.pid) } else { event.pid };
            let repo = repo.clone();
            // From a thread of its own: the tracer waits for all children of this one.
            recovery = Some(thread::spawn(move || {
                let mut ready = Some(ready);
                let mut decide = |event: &Event| {
                    if pause(event, git)
                        && let Some(ready) = ready.take()
                    {
                        ready.send(()).expect("the test waits");
                        go.recv().expect("the test lets it go");
                    }
                    Action::Continue
                };
                tracer::trace_calls(jin(&repo, &["recover"]), b"", Isolation::None, Calls::Looking, &mut decide)
                    .expect("it starts")
            }));
            is_ready.recv().expect("recovery comes there");
        }
        if recovery.is_some() && dies(event) { Action::KillTree } else { Action::Continue }
    };
    let outcome = tracer::trace(git, input.as_bytes(), Isolation::None, &mut decide).expect("git starts");
    assert!(outcome.killed.is_some(), "it comes there: {}", text(&outcome.stderr));
    let_the_clock_tick(&repo.git_dir());
    may_go.send(()).expect("recovery waits");
    recovery.take().expect("it has begun").join().expect("it does not panic")
}

/// A `commit -a` that is killed behind its refs and before its index.
fn commit_that_dies(begin: fn(&Event) -> bool, pause: fn(&Event, Pid) -> bool) -> (Repo, Outcome) {
    let repo = guarded();
    repo.write("file", "two\n");
    let commit = crash::git(&repo, &["commit", "-q", "-a", "-m", "two"]);
    let recovered = dies_under_recovery(&repo, (commit, ""), begin, pause, is_index_rename);
    assert_eq!(repo.read(["log", "-1", "--format=%s"]), "two", "the commit is there");
    (repo, recovered)
}

fn looks_at(event: &Event, git: Pid) -> bool {
    event.path.as_deref() == Some(Path::new(&format!("/proc/{git}/stat")))
}

/// It read the marker of a git that had not even locked, and knows of no record.
#[test]
fn an_update_that_gets_on_and_dies_while_recovery_looks_at_its_first_marker_is_rolled_back() {
    if !Git::under_test().is_at_least(2, 54) {
        return println!("skipped: before 2.54 git calls no hook before it locks");
    }
    let (repo, old, new) = with_branches(&Torn::BRANCHES);
    let update = (crash::git(&repo, &["update-ref", "--stdin"]), updates(&Torn::BRANCHES, &new, &old));
    let update = (update.0, update.1.as_str());
    let recovered = dies_under_recovery(&repo, update, crash::is_ref_lock, looks_at, nth(4, is_ref_rename));
    assert_eq!(recovered.status.code(), Some(0), "{}", text(&recovered.stderr));
    for branch in Torn::BRANCHES {
        assert_eq!(value(&repo, &format!("refs/heads/{branch}")), old, "{branch}: {}", text(&recovered.stderr));
    }
    assert_recovers(&repo);
}

/// Whether it says anything of an index cannot be known; a lock whose owner is dead goes all the same.
#[test]
fn a_damaged_marker_of_a_dead_run_does_not_keep_recovery_from_its_end() {
    let repo = guarded();
    let run = jin(&repo, &["run", "--", "sh", "-c", "git branch made; touch .git/index.lock; kill -9 $PPID"]).output();
    assert!(run.is_ok_and(|run| !run.status.success()), "it was killed");
    let entries = fs::read_dir(repo.git_dir().join(".jin")).expect("it is there").flatten().map(|entry| entry.path());
    let marker = entries.into_iter().find(|path| path.to_string_lossy().contains(".transaction_in_progress"));
    fs::write(marker.expect("the run has left its marker"), "garbage\n").expect("it can be written");
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = recover(&repo);
    assert_eq!(code, 0, "{said}");
    assert_eq!(value(&repo, "refs/heads/made"), "", "it is taken back: {said}");
    assert_recovers(&repo);
}

fn is_index_rename(event: &Event) -> bool {
    event.role == Role::Git && crash::is_rename_to(event, ".git/index")
}

#[test]
fn a_commit_whose_marker_gets_its_other_name_and_whose_git_dies_while_recovery_looks_gets_its_index() {
    let (repo, recovered) = commit_that_dies(is_settled, looks_at);
    assert_eq!(recovered.status.code(), Some(0), "{}", text(&recovered.stderr));
    assert_eq!(repo.read(["status", "--porcelain"]), "", "the index goes with the commit");
    assert_recovers(&repo);
}

#[test]
fn a_commit_whose_git_dies_behind_recoverys_look_at_the_markers_keeps_its_index_for_the_next_recovery() {
    let (repo, recovered) =
        commit_that_dies(is_index_rename, |event, _| event.path.as_deref() == Some(Path::new("/proc")));
    assert_eq!(recovered.status.code(), Some(5), "{}", text(&recovered.stderr));
    assert!(repo.git_dir().join("index.lock").exists(), "it stays: {}", text(&recovered.stderr));
    let (code, said) = recover(&repo);
    assert_eq!(code, 0, "now it is known whose it is: {said}");
    assert_eq!(repo.read(["status", "--porcelain"]), "", "the index goes with the commit");
    assert_recovers(&repo);
}

/// A repository whose git dies at the call `at` of its last hook, and what `meanwhile` then does with it.
fn outlived<T>(at: fn(&Event) -> bool, meanwhile: impl FnOnce(&Repo) -> T) -> (Repo, Outcome, T) {
    let repo = guarded();
    let old = repo.read(["rev-parse", "HEAD"]);
    let new = spare_commit(&repo, "new");
    repo.git(["branch", "one"]);
    let (mut meanwhile, mut seen) = (Some(meanwhile), None);
    let mut decide = |event: &Event| {
        if event.role == Role::Hook
            && at(event)
            && value(&repo, "refs/heads/one") == new
            && let Some(meanwhile) = meanwhile.take()
        {
            let git = parent_of(event.pid);
            kill(git, Signal::SIGKILL).expect("git waits for its hook");
            wait_until("git is dead", || is_zombie(git));
            seen = Some(meanwhile(&repo));
        }
        Action::Continue
    };
    let input = updates(&["one"], &new, &old);
    let command = crash::git(&repo, &["update-ref", "--stdin"]);
    let outcome = tracer::trace_calls(command, input.as_bytes(), Isolation::None, Calls::Failing, &mut decide);
    let outcome = outcome.expect("git starts");
    assert_eq!(value(&repo, "refs/heads/one"), new, "git had applied it");
    (repo, outcome, seen.expect("the hook comes to its end"))
}

fn parent_of(pid: Pid) -> Pid {
    Pid::from_raw(field(pid, 1).parse().expect("field 4"))
}

/// Its death is not told to anybody before the tracer comes to it.
fn is_zombie(pid: Pid) -> bool {
    field(pid, 0) == "Z"
}

/// A field of `/proc/PID/stat` behind the name.
fn field(pid: Pid, n: usize) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it can be read");
    let rest = stat.rsplit(") ").next().expect("the name ends with a parenthesis");
    rest.split(' ').nth(n).expect("it is there").to_owned()
}

/// The marker says from here on that the transaction is committed.
fn is_settled(event: &Event) -> bool {
    event.path2.as_deref().is_some_and(|path| path.to_string_lossy().contains(".transaction_committed"))
}

#[test]
fn a_hook_that_outlived_its_git_has_nothing_to_say_when_recovery_was_faster() {
    let (repo, outcome, (code, said)) = outlived(is_settled, |repo| {
        // From a thread of its own: the tracer waits for all children of this one.
        thread::scope(|scope| scope.spawn(|| run_jin(repo, &["recover"])).join().expect("it does not panic"))
    });
    assert_eq!(code, 0, "{said}");
    assert_eq!(text(&outcome.stderr), "", "the hook finds its marker gone, and all as it should be");
    assert_eq!(run_jin(&repo, &["check"]).0, 0, "nothing is left to be done");
    assert_recovers(&repo);
}

/// It would say that all is as git left it, when recovery may have seen and logged something else.
#[test]
fn a_hook_that_outlived_its_git_logs_nothing_behind_recovery() {
    let is_append = |event: &Event| event.path.as_deref().is_some_and(|path| path.ends_with(".jin/append.lock"));
    let (repo, outcome, (code, said)) = outlived(is_append, |repo| {
        // From a thread of its own: the tracer waits for all children of this one.
        thread::scope(|scope| scope.spawn(|| run_jin(repo, &["recover"])).join().expect("it does not panic"))
    });
    assert_eq!(code, 0, "{said}");
    assert_eq!(text(&outcome.stderr), "");
    let ends: Vec<String> = wal(&repo).iter().map(|record| record["type"].to_string()).collect();
    assert_eq!(ends.last().map(String::as_str), Some("\"recovered\""), "{ends:?}");
    assert_recovers(&repo);
}

#[test]
fn recovery_does_not_fail_when_a_hook_that_outlived_its_git_was_faster() {
    let (may_go, go) = mpsc::channel();
    let (repo, outcome, recovery) = outlived(is_settled, |repo| {
        let (ready, is_ready) = mpsc::channel();
        let repo = repo.clone();
        let recovery = thread::spawn(move || {
            let mut decide = |event: &Event| {
                if is_settled(event) {
                    ready.send(()).expect("the test waits");
                    go.recv().expect("the test lets it go");
                }
                Action::Continue
            };
            tracer::trace(jin(&repo, &["recover"]), b"", Isolation::None, &mut decide).expect("it starts")
        });
        is_ready.recv().expect("recovery comes to the marker");
        recovery
    });
    may_go.send(()).expect("recovery waits");
    let recovered = recovery.join().expect("it does not panic");
    assert_eq!(recovered.status.code(), Some(0), "{}", text(&recovered.stderr));
    assert_eq!(text(&outcome.stderr), "");
    assert_eq!(run_jin(&repo, &["check"]).0, 0, "nothing is left to be done");
    assert_recovers(&repo);
}
