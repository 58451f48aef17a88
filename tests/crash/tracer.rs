//! The tracer itself: what is killed has not happened, and nothing outlives the trace.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::repo::{Git, Options, Repo};
use crate::support::tracer::{self, Action, Calls, Event, Isolation, Outcome};

#[test]
fn a_call_at_which_a_process_is_killed_is_not_executed() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let outcome =
        kill_at(shell(directory.path(), "mkdir first; mkdir second; mkdir third"), "second", Action::KillTree);
    assert!(outcome.killed.is_some(), "the second directory is about to be made");
    assert!(directory.path().join("first").exists(), "what came before has happened");
    assert!(!directory.path().join("second").exists(), "the call itself has not");
    assert!(!directory.path().join("third").exists(), "the whole tree is dead, the shell included");
}

#[test]
fn killing_one_process_lets_the_others_go_on() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    kill_at(shell(directory.path(), "mkdir first; mkdir second; mkdir third"), "second", Action::KillOne);
    assert!(!directory.path().join("second").exists(), "the killed process has done nothing");
    assert!(directory.path().join("third").exists(), "the shell has gone on");
}

#[test]
fn orphans_are_waited_for() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let outcome = kill_at(shell(directory.path(), "(sleep 0.3; mkdir late) & mkdir now"), "now", Action::KillOne);
    assert!(outcome.status.success() || outcome.killed.is_some(), "the shell has ended, one way or the other");
    assert!(directory.path().join("late").exists(), "the orphan was still at work and has ended now");
}

#[test]
fn a_killed_tree_does_not_linger() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let start = Instant::now();
    kill_at(shell(directory.path(), "sleep 30 & sleep 30 & mkdir now; wait"), "now", Action::KillTree);
    assert!(start.elapsed() < Duration::from_secs(10), "the sleepers died with the tree");
}

#[test]
fn output_goes_to_the_caller_and_is_no_event() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let (events, outcome) =
        tracer::events_of(shell(directory.path(), "cat; echo no >&2; exit 3"), b"input").expect("the shell starts");
    assert!(events.is_empty(), "pipes and captured output are no file system: {events:?}");
    assert_eq!((outcome.stdout.as_slice(), outcome.stderr.as_slice()), (&b"input"[..], &b"no\n"[..]));
    assert_eq!(outcome.status.code(), Some(3), "the exit code is the command's");
}

#[test]
fn the_same_command_has_the_same_events() {
    let template = Repo::new(Options::default());
    template.write("file", "content");
    template.git(["add", "file"]);
    let names = || {
        let repo = template.copy();
        let mut command = repo.command(Git::under_test().program.as_os_str());
        command.args(["commit", "-qm", "message"]);
        let (events, outcome) = tracer::events_of(command, b"").expect("git starts");
        assert!(outcome.status.success(), "the commit works under the tracer");
        events.iter().map(|event| event.syscall).collect::<Vec<_>>()
    };
    assert_eq!(names(), names(), "a point must mean the same in every run");
}

#[test]
fn killing_the_init_of_a_container_kills_all_of_it() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let mut decide = |event: &Event| {
        if is_about(event, "now") { Action::KillRoot } else { Action::Continue }
    };
    let command = shell(directory.path(), "echo $$; (sleep 0.3; mkdir late) & mkdir now; wait");
    let Ok(outcome) = tracer::trace(command, b"", Isolation::Container, &mut decide) else {
        return println!("skipped: no right to make a pid namespace");
    };
    assert_eq!(outcome.stdout, b"1\n", "the shell is init there");
    assert!(!directory.path().join("late").exists(), "its background job died with it");
}

fn shell(directory: &Path, script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.current_dir(directory).args(["-c", script]);
    command
}

fn kill_at(command: Command, name: &str, action: Action) -> Outcome {
    let mut decide = |event: &Event| {
        if is_about(event, name) { action } else { Action::Continue }
    };
    tracer::trace(command, b"", Isolation::None, &mut decide).expect("the shell starts")
}

fn is_about(event: &Event, name: &str) -> bool {
    event.path.as_deref().is_some_and(|path| path.ends_with(name))
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_call_that_is_made_to_fail_is_not_executed_and_returns_the_error() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let mut decide = |event: &Event| match event.syscall {
        "mkdir" if is_about(event, "second") => Action::Fail(nix::errno::Errno::EDQUOT),
        "flock" => Action::Fail(nix::errno::Errno::ENOLCK),
        _ => Action::Continue,
    };
    let script = "mkdir first second third; exec 9>lock; flock 9 true";
    let command = shell(directory.path(), script);
    let outcome =
        tracer::trace_calls(command, b"", Isolation::None, Calls::Failing, &mut decide).expect("the shell starts");
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(said.contains("Disk quota exceeded") && said.contains("No locks available"), "{said}");
    let made = ["first", "second", "third"].map(|name| directory.path().join(name).exists());
    assert_eq!(made, [true, false, true], "only the call that was to fail has failed");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_write_that_is_shortened_writes_half() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let mut sizes = Vec::new();
    let mut decide = |event: &Event| {
        if event.syscall != "write" || !is_about(event, "out") {
            return Action::Continue;
        }
        sizes.push(std::fs::metadata(directory.path().join("out")).expect("it is open").len());
        if sizes.len() == 1 { Action::Shorten } else { Action::Continue }
    };
    let command = shell(directory.path(), "dd if=/dev/zero of=out bs=100 count=1 2>/dev/null");
    tracer::trace(command, b"", Isolation::None, &mut decide).expect("the shell starts");
    assert_eq!(sizes, [0, 50], "dd writes the second half again");
}
