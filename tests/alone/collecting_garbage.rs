//! `git gc --prune=now` beside a transaction that is not finished: what it needs to go back, or to come to its end, stays.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::alone;
use crate::support::crash::{assert_fsck, git, is_log_sync, is_ref_rename, kill_at, nth, recover, spare_commit, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Options, Repo, text};
use crate::support::tracer::{Action, Event};
use crate::support::wait::wait_until;
use nix::sys::stat::Mode;

const BRANCHES: [&str; 3] = ["a", "b", "c"];

/// Branches whose commits nothing else names, not even a reflog, and commits that they are to move to.
fn scene() -> (Repo, Vec<String>, Vec<String>) {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.do_not_wait_for_locks();
    repo.git(["config", "core.logAllRefUpdates", "false"]);
    repo.write("file", "one\n");
    repo.commit_all("base");
    let commits = |what: &str| BRANCHES.map(|branch| spare_commit(&repo, &format!("{branch} {what}"))).to_vec();
    let (before, after) = (commits("before"), commits("after"));
    for (branch, commit) in BRANCHES.iter().zip(&before) {
        repo.git(["update-ref", &format!("refs/heads/{branch}"), commit]);
    }
    (repo, before, after)
}

fn input(before: &[String], after: &[String]) -> String {
    let lines = BRANCHES.iter().zip(before).zip(after);
    lines.map(|((branch, before), after)| format!("update refs/heads/{branch} {after} {before}\n")).collect()
}

fn values(repo: &Repo) -> Vec<String> {
    BRANCHES.iter().map(|branch| value(repo, &format!("refs/heads/{branch}"))).collect()
}

fn is_there(repo: &Repo, object: &str) -> bool {
    repo.try_git(["cat-file", "-e", object]).status.success()
}

#[test]
fn a_gc_takes_nothing_that_a_dead_transaction_needs() {
    let _alone = alone();
    type Place = Box<dyn FnMut(&Event) -> bool>;
    let mut places: Vec<(String, Place)> = vec![
        ("before its record is durable".into(), Box::new(is_log_sync)),
        ("before `committed` is durable".into(), Box::new(nth(2, is_log_sync))),
    ];
    for n in 1..=BRANCHES.len() {
        places.push((format!("before rename {n}"), Box::new(nth(n, is_ref_rename))));
    }
    for (place, wanted) in places {
        let (repo, before, after) = scene();
        let command = git(&repo, &["update-ref", "--stdin"]);
        kill_at(command, &input(&before, &after), Action::KillTree, wanted);
        let_the_clock_tick(&repo.git_dir());
        let collected = repo.try_git(["gc", "-q", "--prune=now"]);
        let (code, said) = recover(&repo);
        assert_eq!(code, 0, "{place}: {said}\n{}", text(&collected.stderr));
        let found = values(&repo);
        assert!(found == before || found == after, "{place}: neither before nor after: {found:?}");
        for commit in &found {
            assert!(is_there(&repo, commit), "{place}: {commit} is gone: {}", text(&collected.stderr));
        }
        assert_fsck(&repo);
        repo.git(["gc", "-q", "--prune=now"]);
        assert_eq!(values(&repo), found, "{place}: and stays");
    }
}

/// A test that fails must not leave a git behind that is in the way of the others.
struct Hanging(std::process::Child);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_gc_takes_nothing_that_a_live_transaction_needs() {
    let _alone = alone();
    let (repo, before, after) = scene();
    // git hangs before its first rename: the reflog that it is about to write is a FIFO that nobody reads.
    let log = repo.git_dir().join("logs/refs/heads/a");
    fs::create_dir_all(log.parent().expect("it lies in a directory")).expect("it can be made");
    nix::unistd::mkfifo(&log, Mode::from_bits_truncate(0o600)).expect("a FIFO can be made");
    let mut command = repo.command(Git::under_test().program.as_os_str());
    command.args(["update-ref", "--stdin"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut hanging = Hanging(command.spawn().expect("git starts"));
    let mut stdin = hanging.0.stdin.take().expect("git has a stdin");
    stdin.write_all(input(&before, &after).as_bytes()).expect("git reads its input");
    drop(stdin);
    let begun = || repo.logged().first().is_some_and(|line| line.contains("begun"));
    wait_until("git comes to its first rename", begun);
    let collected = repo.try_git(["gc", "-q", "--prune=now"]);
    let said = text(&collected.stderr);
    assert!(said.contains("is not finished, and needs objects"), "the gc is refused: {said}");
    if Git::under_test().is_at_least(2, 54) {
        println!("limit: this git goes on with its gc when its pack-refs was refused ({})", collected.status);
        return;
    }
    assert!(!collected.status.success(), "and fails: {said}");
    for commit in after.iter().chain(&before) {
        assert!(is_there(&repo, commit), "{commit} is gone, and git is about to name it: {said}");
    }
    drop(fs::File::open(&log).map(|mut fifo| std::io::copy(&mut fifo, &mut std::io::sink())));
    assert!(hanging.0.wait().expect("it can be waited for").success(), "git comes to its end");
    assert_eq!(values(&repo), after);
    fs::remove_file(&log).expect("it can be removed");
    assert_fsck(&repo);
    repo.git(["gc", "-q", "--prune=now"]);
}
