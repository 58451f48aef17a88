//! The other ref format: a transaction is one table append, atomic by itself; what a crash leaves are locks.
//!
//! `JIN_KILL=all` kills at every event instead of a sample.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::crash::{self, assert_recovers, git, is_log_sync, spare_commit, transactions, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Options, Repo, text};
use crate::support::table;
use crate::support::tracer::{self, Action, Event, Isolation};

/// How many events are killed by default.
const SAMPLE: usize = 16;

const BRANCHES: [&str; 6] = ["created", "deleted", "one", "two", "three", "four"];

#[test]
fn commits_in_a_reftable_are_logged() {
    if is_too_old() {
        return;
    }
    let repo = repository();
    repo.install_guard();
    for number in 1..=3 {
        repo.write("file", &format!("{number}\n"));
        repo.git(["add", "file"]);
        let commit = repo.git(["commit", "-q", "-m", &format!("number {number}")]);
        assert_eq!(text(&commit.stderr), "", "a healthy repository sees no output");
    }
    repo.git(["switch", "-q", "-c", "other"]);
    let states: Vec<_> = transactions(&repo).iter().map(|it| it["state"].clone()).collect();
    assert!(states.len() >= 3, "every commit is a transaction: {states:?}");
    assert!(states.iter().all(|state| state == "committed"), "and has an end: {states:?}");
    assert_recovers(&repo);
}

#[test]
fn a_kill_anywhere_in_an_update_of_a_reftable_leaves_all_or_nothing() {
    if is_too_old() {
        return;
    }
    let scene = Scene::new();
    let events = scene.events();
    assert!(events.iter().any(is_log_sync), "the update is logged");
    let stride = table::stride("JIN_KILL", events.len().div_ceil(SAMPLE));
    let chosen: Vec<usize> = events.iter().map(|event| event.n).step_by(stride).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(&n) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            scene.crash(n);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
}

#[test]
fn a_reftable_is_not_appended_to_before_the_record_is_durable() {
    if is_too_old() {
        return;
    }
    let events = Scene::new().events();
    let sync = events.iter().position(is_log_sync);
    let append = events.iter().position(|event| crash::is_rename_to(event, "reftable/tables.list"));
    assert!(sync.is_some() && append.is_some() && sync < append, "synced at {sync:?}, appended at {append:?}");
}

/// An update of six branches: two of them are created and deleted.
struct Scene {
    template: Repo,
    input: String,
    before: Vec<String>,
    after: Vec<String>,
}

impl Scene {
    fn new() -> Self {
        let template = repository();
        let old = template.commit_all("base");
        let new = spare_commit(&template, "new");
        let mut input = format!("start\ncreate refs/heads/created {new}\ndelete refs/heads/deleted {old}\n");
        for branch in &BRANCHES[1..] {
            template.git(["branch", branch]);
        }
        for branch in &BRANCHES[2..] {
            input += &format!("update refs/heads/{branch} {new} {old}\n");
        }
        input += "prepare\ncommit\n";
        let before = values(&template);
        let after = [new.clone(), String::new()].into_iter().chain(vec![new; 4]).collect();
        Self { template, input, before, after }
    }

    fn fresh(&self) -> Repo {
        let repo = self.template.copy();
        repo.install_guard();
        repo
    }

    fn events(&self) -> Vec<Event> {
        let repo = self.fresh();
        let command = git(&repo, &["update-ref", "--stdin"]);
        let (events, outcome) = tracer::events_of(command, self.input.as_bytes()).expect("git starts");
        assert!(outcome.status.success(), "the update works: {}", text(&outcome.stderr));
        assert_eq!(values(&repo), self.after, "and does what it is to do");
        events
    }

    /// Kills the update at an event, recovers, and works on.
    fn crash(&self, n: usize) {
        let repo = self.fresh();
        let mut decide = |event: &Event| {
            if event.n == n { Action::KillTree } else { Action::Continue }
        };
        let command = git(&repo, &["update-ref", "--stdin"]);
        let outcome = tracer::trace(command, self.input.as_bytes(), Isolation::None, &mut decide).expect("git starts");
        let killed = outcome.killed.map(|event| event.to_string()).unwrap_or_default();
        let_the_clock_tick(&repo.git_dir());
        assert_recovers(&repo);
        let found = values(&repo);
        assert!(found == self.before || found == self.after, "killed at {killed}: neither old nor new: {found:?}");
        let ending = transactions(&repo).first().map(|it| it["state"].clone());
        if let Some(ending) = ending {
            let says_done = ending == "committed" || ending == "completed";
            assert_eq!(says_done, found == self.after, "killed at {killed}: the log says {ending}");
        }
        if Git::under_test().is_at_least(2, 47) {
            let verify = repo.try_git(["refs", "verify"]);
            assert!(verify.status.success(), "killed at {killed}: {}", text(&verify.stderr));
        }
        let next = repo.try_git(["update-ref", "refs/heads/one", "HEAD"]);
        assert!(next.status.success(), "killed at {killed}: {}", text(&next.stderr));
        repo.git(["commit", "-q", "--allow-empty", "-m", "next"]);
    }
}

fn values(repo: &Repo) -> Vec<String> {
    BRANCHES.iter().map(|branch| value(repo, &format!("refs/heads/{branch}"))).collect()
}

fn repository() -> Repo {
    let repo = Repo::new(Options { ref_format: Some("reftable"), ..Options::default() });
    repo.do_not_wait_for_locks();
    repo
}

fn is_too_old() -> bool {
    let is_too_old = !Git::under_test().is_at_least(2, 45);
    if is_too_old {
        println!("skipped: git has no reftable before 2.45");
    }
    is_too_old
}
