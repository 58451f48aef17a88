//! Faults at places that have a name.

use std::process::Output;

use insta::assert_snapshot;
use nix::errno::Errno;

use super::errors::{Fault, Reach};
use super::subjects::{Stand, Subject};
use super::{Point, judge};
use crate::support::crash::run_jin;
use crate::support::observe::shown;
use crate::support::point::let_the_clock_tick;
use crate::support::repo::Repo;
use crate::support::tracer::{Action, Event};

/// Runs the script that succeeds; once it has, every call that `refused` selects finds the disk full.
fn run_until_the_disk_is_full(subject: &Subject, refused: fn(&Event) -> bool) -> (Repo, Output) {
    let repo = subject.fresh();
    let (mut runner, mut records, mut is_full) = (None, 0, false);
    let outcome = subject.trace(&repo, &mut |event| {
        let is_runner = subject.is_ours(event, &repo) && event.pid == *runner.get_or_insert(event.pid);
        // Its first record begins the run, its second one ends it.
        let is_record =
            event.syscall == "write" && event.path.as_deref().is_some_and(|p| p.extension() == Some("wal".as_ref()));
        records += usize::from(is_runner && is_record);
        is_full |= records == 2;
        if is_full && refused(event) { Action::Fail(Errno::ENOSPC) } else { Action::Continue }
    });
    let_the_clock_tick(&repo.git_dir());
    (repo, Output { status: outcome.status, stdout: outcome.stdout, stderr: outcome.stderr })
}

#[test]
fn a_run_that_has_succeeded_when_the_log_cannot_be_written_is_kept_and_that_is_told() {
    let subject = Subject::named("run");
    let (repo, output) = run_until_the_disk_is_full(&subject, |event| event.syscall.contains("write"));
    assert_snapshot!(shown(&repo, &output), @r"
    --- stderr
    jin-txn: warning: tx-1 is kept, but not everything of it is done: cannot append to the log [DIR]/repo/.git/.jin/wal/[ID].wal: No space left on device (os error 28)
    jin-txn: hint: `git txn recover` does the rest as soon as the disk takes it
    --- exit 0
    ");
    assert_eq!(subject.stand(&repo), Ok(vec![Stand::After]));
    let (code, said) = run_jin(&repo, &["recover"]);
    assert!(code == 0 && said.contains("it was kept when the log could not be written"), "{code}: {said}");
    assert_eq!(subject.stand(&repo), Ok(vec![Stand::After]), "recovery keeps it");
    assert_eq!(run_jin(&repo, &["recover"]).1, "jin-txn: nothing to recover\n");
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!(code, 0, "it can be undone as any other: {said}");
}

#[test]
fn a_run_that_cannot_be_kept_says_so_at_once() {
    let subject = Subject::named("run");
    let refused = |event: &Event| event.syscall.contains("write") || event.syscall.starts_with("rename");
    let (repo, output) = run_until_the_disk_is_full(&subject, refused);
    assert_snapshot!(shown(&repo, &output), @r"
    --- stderr
    error: tx-1 has succeeded, but cannot be kept: `git txn recover` takes it back, unless it finds it in the log
    caused by: its marker cannot say that it is kept ([DIR]/repo/.git/.jin/.transaction_committed.tx-1: No space left on device (os error 28))
    caused by: cannot append to the log [DIR]/repo/.git/.jin/wal/[ID].wal
    caused by: No space left on device (os error 28)
    hint: free some space, then try again
    --- exit 1
    ");
    let (code, said) = run_jin(&repo, &["recover"]);
    assert!(code == 0 && said.contains("rolled back tx-1"), "{code}: {said}");
    assert_eq!(subject.stand(&repo), Ok(vec![Stand::Before]));
}

/// git moves the branch, forgets `AUTO_MERGE`, and only then renames the index into place.
#[test]
fn a_note_of_gits_own_is_not_vetoed_when_the_log_cannot_be_read() {
    let subject = Subject::named("commit-a");
    let notes = subject.calls.iter().enumerate().filter(|(_, call)| {
        call.syscall.starts_with("open") && call.path.as_deref().is_some_and(|path| path.ends_with("AUTO_MERGE"))
    });
    let mut count = 0;
    for (index, _) in notes {
        let fault = Fault::Error(Errno::EMFILE);
        let wrong = judge::inject(&subject, Point { subject: subject.name, reach: Reach::Once, fault, at: index + 1 });
        assert!(wrong.as_ref().is_none_or(Vec::is_empty), "{wrong:#?}");
        count += usize::from(wrong.is_some());
    }
    println!("{count} reads of AUTO_MERGE");
}

/// Of a marker that cannot be read recovery must not think that it stands for a transaction without refs, a hook not that its
/// change is no part of the run, and a run not that it is alone.
#[test]
fn a_run_whose_marker_cannot_be_read_takes_back_all_of_it() {
    every_read_of_a_marker_fails(&Subject::named("failing-run"));
}

/// The hook of the git that an apply starts must not think that it is on its own: it would log a transaction of its own, and
/// recovery would take that back although the apply is kept.
#[test]
fn an_apply_whose_marker_cannot_be_read_is_kept_wholly_or_not_at_all() {
    every_read_of_a_marker_fails(&Subject::named("apply"));
}

/// A disk that fails for a moment is no reason to ask a human.
#[test]
fn a_run_whose_snapshot_cannot_be_read_is_taken_back_by_the_next_command() {
    every_read_fails(&Subject::named("failing-run"), "/snapshot.json");
}

fn every_read_of_a_marker_fails(subject: &Subject) {
    every_read_fails(subject, ".transaction_in_progress");
}

fn every_read_fails(subject: &Subject, name: &str) {
    let is_wanted = |path: &std::path::Path| path.display().to_string().contains(name);
    let looks = subject.calls.iter().enumerate().filter(|(_, call)| {
        call.flags & libc::O_ACCMODE == libc::O_RDONLY
            && call.syscall.starts_with("open")
            && call.path.as_deref().is_some_and(is_wanted)
    });
    let mut count = 0;
    for (index, _) in looks {
        let fault = Fault::Error(Errno::EACCES);
        let wrong = judge::inject(subject, Point { subject: subject.name, reach: Reach::Once, fault, at: index + 1 });
        assert!(wrong.as_ref().is_none_or(Vec::is_empty), "{wrong:#?}");
        count += usize::from(wrong.is_some());
    }
    assert_ne!(count, 0, "{name} is read");
    println!("{}: {count} reads of {name}", subject.name);
}

#[test]
fn a_run_whose_marker_is_damaged_is_taken_back_by_its_record() {
    let subject = Subject::named("failing-run");
    let repo = subject.fresh();
    let outcome = subject.trace(&repo, &mut |event| {
        let commits = event.path2.as_deref().is_some_and(|path| path.ends_with(".git/index"));
        if commits { Action::KillTree } else { Action::Continue }
    });
    assert!(outcome.killed.is_some(), "it commits");
    let_the_clock_tick(&repo.git_dir());
    let marker = repo.git_dir().join(".jin/.transaction_in_progress.tx-1");
    let content = std::fs::read(&marker).expect("it is there");
    std::fs::write(&marker, &content[..content.len() / 2]).expect("it can be damaged");
    let (code, said) = run_jin(&repo, &["recover"]);
    assert!(said.contains("is damaged"), "{said}");
    assert_eq!(code, 0, "{said}");
    assert_eq!(subject.stand(&repo).map(|stands| stands.contains(&Stand::Before)), Ok(true), "{said}");
}
