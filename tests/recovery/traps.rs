//! Traps that real git sets for whoever recovers it: each test is one of them.

mod callers;
mod dead_ends;
mod ending;
mod half_done;
mod interrupted;
mod live_owners;
mod other_paths;
mod readers;
mod renames;
mod third_parties;
mod together;
mod unseen;
mod vetoes;
mod watching;
mod ways_out;

use std::fmt::Write as _;

use crate::support::crash::{self, is_ref_rename, kill_at, nth, spare_commit, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Options, Repo};
use crate::support::tracer::Action;

/// A guarded repository with one commit.
fn guarded() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.do_not_wait_for_locks();
    repo.write("file", "one\n");
    repo.commit_all("base");
    repo
}

/// A guarded repository with branches at its commit `old`, and another commit.
fn with_branches(branches: &[&str]) -> (Repo, String, String) {
    let repo = guarded();
    let old = repo.read(["rev-parse", "HEAD"]);
    let new = spare_commit(&repo, "new");
    for branch in branches {
        repo.git(["branch", branch]);
    }
    (repo, old, new)
}

/// A guarded repository in which an update of six branches from `old` to `new` was killed after three of them.
struct Torn {
    repo: Repo,
    old: String,
    new: String,
}

impl Torn {
    const BRANCHES: [&str; 6] = ["b1", "b2", "b3", "b4", "b5", "b6"];

    fn new() -> Self {
        Self::of(guarded())
    }

    fn of(repo: Repo) -> Self {
        let old = repo.read(["rev-parse", "HEAD"]);
        let new = spare_commit(&repo, "new");
        for branch in Self::BRANCHES {
            repo.git(["branch", branch, &old]);
        }
        let torn = Self { repo, old, new };
        torn.tear();
        torn
    }

    fn tear(&self) {
        let command = crash::git(&self.repo, &["update-ref", "--stdin"]);
        kill_at(command, &updates(&Self::BRANCHES, &self.new, &self.old), Action::KillTree, nth(4, is_ref_rename));
        assert_eq!(self.new_ones(), 3, "the update is torn");
        let_the_clock_tick(&self.repo.git_dir());
    }

    /// How many of the branches have the new value.
    fn new_ones(&self) -> usize {
        Self::BRANCHES.iter().filter(|branch| self.value(branch) == self.new).count()
    }

    fn value(&self, branch: &str) -> String {
        value(&self.repo, &format!("refs/heads/{branch}"))
    }

    fn assert_rolled_back(&self) {
        for branch in Self::BRANCHES {
            assert_eq!(self.value(branch), self.old, "{branch} is back where it was");
        }
    }

    fn assert_whole(&self) {
        assert!([0, 6].contains(&self.new_ones()), "{} of 6 branches have the new value", self.new_ones());
    }
}

/// The input of `update-ref --stdin` that moves branches.
fn updates(branches: &[&str], new: &str, old: &str) -> String {
    let mut input = String::from("start\n");
    for branch in branches {
        writeln!(input, "update refs/heads/{branch} {new} {old}").expect("writing to a string works");
    }
    input + "prepare\ncommit\n"
}

/// Leaves a lock that a dead git might have left.
fn leave_stale_lock(repo: &Repo, name: &str) {
    std::fs::write(repo.git_dir().join(name), "").expect("a lock can be made");
    let_the_clock_tick(&repo.git_dir());
}
