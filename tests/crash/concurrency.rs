//! Eight gits commit at once in linked worktrees of one repository, and one of them is killed every tenth of a second.
//!
//! `JIN_SOAK_SECONDS=30` for the long form, `JIN_SOAK_SEED=<n>` for another order of the kills.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::crash::{self, assert_recovers, recover};
use crate::support::repo::{Options, Repo, text};
use crate::support::workers::{self, Process, Running};

const WORKERS: usize = 8;
const SECONDS: u64 = 6;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// What one worker knows for certain.
#[derive(Default)]
struct Shadow {
    /// Commits that git said it has made.
    acknowledged: Vec<String>,
    /// The processes that said so.
    succeeded: HashSet<Process>,
}

#[test]
fn killed_at_random_among_eight_writers_nothing_acknowledged_is_lost() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.do_not_wait_for_locks();
    repo.git(["config", "core.abbrev", "40"]);
    let base = repo.commit_all("base");
    let branches: Vec<String> = (0..WORKERS).map(|number| format!("worker-{number}")).collect();
    for branch in &branches {
        repo.git(["worktree", "add", "-q", "-b", branch, &format!("../{branch}")]);
    }

    let running: Vec<Running> = (0..WORKERS).map(|_| Mutex::new(None)).collect();
    let is_over = AtomicBool::new(false);
    let (shadows, kills) = thread::scope(|scope| {
        let workers: Vec<_> = branches
            .iter()
            .zip(&running)
            .map(|(branch, running)| {
                let worktree = repo.sibling(branch);
                let is_over = &is_over;
                scope.spawn(move || work(&worktree, running, is_over))
            })
            .collect();
        let kills = workers::kill_at_random(&running, SECONDS);
        is_over.store(true, Ordering::Relaxed);
        let shadows: Vec<Shadow> = workers.into_iter().map(|it| it.join().expect("no worker panics")).collect();
        (shadows, kills)
    });

    let commits: usize = shadows.iter().map(|shadow| shadow.acknowledged.len()).sum();
    let each: Vec<_> = shadows.iter().map(|shadow| shadow.acknowledged.len()).collect();
    println!("{commits} commits were acknowledged ({each:?}), {kills} gits were killed");
    assert!(kills > 0 && commits > WORKERS, "{commits} commits and {kills} kills prove nothing");
    let (code, said) = recover(&repo);
    assert_eq!(code, 0, "{said}");
    assert_recovers(&repo);
    for (branch, shadow) in branches.iter().zip(&shadows) {
        assert_holds_everything(&repo, &base, branch, shadow);
        let status = repo.sibling(branch).read(["status", "--porcelain"]);
        assert_eq!(status, "", "{branch}: the index goes with the branch");
    }
    let succeeded = shadows.into_iter().flat_map(|shadow| shadow.succeeded).collect();
    workers::assert_no_success_was_taken_back(&repo, &succeeded);
    println!("torture: kills={kills} violations=0");
}

/// Commits until it is over.
fn work(worktree: &Repo, running: &Running, is_over: &AtomicBool) -> Shadow {
    let mut shadow = Shadow::default();
    let mut number = 0;
    let mut was_refused = false;
    while !is_over.load(Ordering::Relaxed) {
        number += 1;
        let message = format!("number {number}");
        let arguments = ["commit", "--allow-empty", "-m", &message];
        let command = if was_refused {
            crash::jin(worktree, &[&["git"][..], &arguments].concat())
        } else {
            crash::git(worktree, &arguments)
        };
        let (process, output) = workers::run(command, running);
        let printed = output.status.success().then(|| text(&output.stdout).into_owned());
        was_refused = printed.is_none();
        match printed {
            Some(printed) => {
                let commit = printed.split([' ', ']']).find(|word| word.len() == 40);
                shadow.acknowledged.push(commit.expect("git prints the commit").to_owned());
                shadow.succeeded.insert(process);
            }
            None => thread::sleep(BETWEEN_TRIES),
        }
    }
    shadow
}

/// Every acknowledged commit is in the branch's linear history.
fn assert_holds_everything(repo: &Repo, base: &str, branch: &str, shadow: &Shadow) {
    let history = repo.read(["rev-list", "--parents", branch]);
    let parents: BTreeMap<&str, Vec<&str>> = history
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            (words.next().unwrap_or(""), words.collect())
        })
        .collect();
    for (commit, parents) in &parents {
        assert_eq!(parents.len(), usize::from(*commit != base), "{branch} is linear at {commit}");
    }
    let lost: Vec<_> = shadow.acknowledged.iter().filter(|it| !parents.contains_key(it.as_str())).collect();
    assert!(lost.is_empty(), "{branch} has lost {} of {}: {lost:?}", lost.len(), shadow.acknowledged.len());
}
