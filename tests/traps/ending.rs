//! Gits that end while somebody looks at them: what has ended well is not recovered, and nobody complains.

use std::fs;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::crash::{self, assert_recovers, jin, run_jin, spare_commit, value};
use super::support::repo::{Repo, text};
use super::support::tracer::{self, Action, Calls, Event, Isolation, Outcome, Role};
use super::unseen::{Scene, update};
use super::{guarded, updates};

/// Lets the git of `scene` end when somebody who has read its marker is about to look at it.
fn let_it_end(scene: Scene, command: impl FnOnce(&Repo) -> Command) -> (Outcome, bool) {
    let (repo, stat) = (scene.repo.clone(), scene.in_proc("stat"));
    let (mut live, mut recovers) = (Some(scene.live), false);
    let mut decide = |event: &Event| {
        let path = event.path.as_deref();
        recovers |= path.is_some_and(|path| path.ends_with(".jin/recovery.lock"));
        if event.role == Role::Hook
            && path == Some(&stat)
            && let Some(live) = live.take()
        {
            live.finish();
        }
        Action::Continue
    };
    let command = command(&repo);
    // From a thread of its own: the tracer waits for all children of its thread.
    let outcome = thread::scope(|scope| {
        let trace = || tracer::trace_calls(command, b"", Isolation::None, Calls::Looking, &mut decide);
        scope.spawn(trace).join().expect("the tracer does not panic").expect("it starts")
    });
    assert!(live.is_none(), "it was looked at");
    assert_recovers(&repo);
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

/// A repository whose git dies while its last hook is about to say that all is done, and what `meanwhile` then does with it.
fn outlived<T>(meanwhile: impl FnOnce(&Repo) -> T) -> (Repo, Outcome, T) {
    let repo = guarded();
    let old = repo.read(["rev-parse", "HEAD"]);
    let new = spare_commit(&repo, "new");
    repo.git(["branch", "one"]);
    let (mut meanwhile, mut seen) = (Some(meanwhile), None);
    let mut decide = |event: &Event| {
        if is_settled(event)
            && let Some(meanwhile) = meanwhile.take()
        {
            kill(parent_of(event.pid), Signal::SIGKILL).expect("git waits for its hook");
            seen = Some(meanwhile(&repo));
        }
        Action::Continue
    };
    let input = updates(&["one"], &new, &old);
    let command = crash::git(&repo, &["update-ref", "--stdin"]);
    let outcome = tracer::trace(command, input.as_bytes(), Isolation::None, &mut decide).expect("git starts");
    assert_eq!(value(&repo, "refs/heads/one"), new, "git had applied it");
    (repo, outcome, seen.expect("the hook comes to its end"))
}

fn parent_of(pid: Pid) -> Pid {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it can be read");
    let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    Pid::from_raw(parent.expect("field 4"))
}

/// The marker says from here on that the transaction is committed.
fn is_settled(event: &Event) -> bool {
    event.path2.as_deref().is_some_and(|path| path.to_string_lossy().contains(".transaction_committed"))
}

#[test]
fn a_hook_that_outlived_its_git_has_nothing_to_say_when_recovery_was_faster() {
    let (repo, outcome, (code, said)) = outlived(|repo| {
        // From a thread of its own: the tracer waits for all children of this one.
        thread::scope(|scope| scope.spawn(|| run_jin(repo, &["recover"])).join().expect("it does not panic"))
    });
    assert_eq!(code, 0, "{said}");
    assert_eq!(text(&outcome.stderr), "", "the hook finds its marker gone, and all as it should be");
    assert_eq!(run_jin(&repo, &["check"]).0, 0, "nothing is left to be done");
    assert_recovers(&repo);
}

#[test]
fn recovery_does_not_fail_when_a_hook_that_outlived_its_git_was_faster() {
    let (may_go, go) = mpsc::channel();
    let (repo, outcome, recovery) = outlived(|repo| {
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
