//! Everything at once: sixteen processes work in one repository, and are killed at random, alone and with all that they
//! started. At the end everything holds, and what was acknowledged is there.
//!
//! `JIN_SOAK_SECONDS=60` for the long form; `support/workers.rs` has the variables.

use std::collections::HashSet;
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::crash::{self, assert_recovers, recover, run_jin, spare_commit, value};
use crate::support::repo::{Options, Repo, text};
use crate::support::wait::comes_true;
use crate::support::workers::{self, Process, Running};

const SECONDS: u64 = 6;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
const REFS: usize = 4;

/// One of the sixteen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    /// Commits in a worktree of its own.
    Commit,
    /// Moves four refs at once.
    Move,
    /// Lets an upstream grow that nobody guards.
    Upstream,
    Fetch,
    Gc,
    PackRefs,
    /// Renames a branch there and back.
    Rename,
    /// Runs scripts in a worktree of its own; every second fails.
    Run,
    Recover,
    /// Moves a ref and undoes that.
    Undo,
    /// Switches branches in a worktree of its own.
    Switch,
}

const JOBS: [Job; 16] = [
    Job::Commit,
    Job::Commit,
    Job::Commit,
    Job::Commit,
    Job::Move,
    Job::Move,
    Job::Move,
    Job::Upstream,
    Job::Fetch,
    Job::Gc,
    Job::PackRefs,
    Job::Rename,
    Job::Run,
    Job::Recover,
    Job::Undo,
    Job::Switch,
];

/// What one worker knows for certain.
#[derive(Default)]
struct Shadow {
    /// Commits that are in its branch.
    there: Vec<String>,
    /// Commits that are not.
    gone: Vec<String>,
    /// What its refs may be: what was acknowledged last, and what was tried since.
    possible: Vec<String>,
    /// Processes that have succeeded.
    succeeded: HashSet<Process>,
}

struct Worker<'w> {
    repo: &'w Repo,
    /// The worktree that it has to itself, or the repository.
    place: Repo,
    number: usize,
    running: &'w Running,
    shadow: Shadow,
    was_refused: bool,
}

impl Worker<'_> {
    /// Runs git here; through the shim after something was refused.
    fn git(&mut self, arguments: &[&str]) -> Output {
        let command = if self.was_refused {
            crash::jin(&self.place, &[&["git"], arguments].concat())
        } else {
            crash::git(&self.place, arguments)
        };
        self.run(command)
    }

    fn run(&mut self, command: std::process::Command) -> Output {
        let (process, output) = workers::run(command, self.running);
        let said = text(&output.stderr);
        // What a git says whose lock somebody has taken away from it.
        for robbed in ["couldn't set", "unable to write new index file", "unable to commit", "Unable to write"] {
            assert!(!said.contains(robbed), "a live git was robbed: {said}");
        }
        if output.status.success() {
            self.shadow.succeeded.insert(process);
        } else {
            thread::sleep(BETWEEN_TRIES);
        }
        self.was_refused = !output.status.success();
        output
    }

    /// A command that makes its refs `next`.
    fn makes(&mut self, next: &str, output: &Output) {
        if output.status.success() {
            self.shadow.possible.clear();
        }
        self.shadow.possible.push(next.to_owned());
    }

    fn commit(&mut self, round: usize) {
        let output = self.git(&["commit", "--allow-empty", "-m", &format!("number {round}")]);
        if output.status.success() {
            let printed = text(&output.stdout).into_owned();
            let commit = printed.split([' ', ']']).find(|word| word.len() == 40).expect("git prints the commit");
            self.shadow.there.push(commit.to_owned());
        }
    }

    fn move_refs(&mut self, spare: &[String], round: usize) {
        let next = &spare[round % spare.len()];
        let names = (0..REFS).map(|index| format!("refs/heads/multi-{}/{index}", self.number));
        let lines: String = names.map(|name| format!("update {name} {next}\\n")).collect();
        let script = format!("printf '{lines}' | exec git update-ref --stdin");
        let mut command = self.place.command("/bin/sh".as_ref());
        command.args(["-c", &script]);
        let output = self.run(command);
        self.makes(next, &output);
    }

    fn rename(&mut self, round: usize) {
        let names = ["renamed-a", "renamed-b"];
        self.git(&["branch", "-m", names[round % 2], names[(round + 1) % 2]]);
    }

    fn run_script(&mut self, round: usize) {
        let code = if round.is_multiple_of(2) { 0 } else { 7 };
        // Somebody may have the lock of packed refs just then: a script that goes on after that would keep half its work.
        let script = format!(
            "set -e; echo {round} >file; git commit -qam 'run {round}'; git rev-parse HEAD; echo {round} >untracked; exit {code}"
        );
        let command = crash::jin(&self.place, &["run", "--", "sh", "-c", &script]);
        let output = self.run(command);
        let commit = || text(&output.stdout).lines().next().expect("the script prints its commit").to_owned();
        match output.status.code() {
            Some(0) => self.shadow.there.push(commit()),
            Some(7) => self.shadow.gone.push(commit()),
            _ => {}
        }
    }

    fn undo(&mut self, spare: &[String], round: usize) {
        let (before, next) = (value(&self.place, "refs/heads/undone"), &spare[round % spare.len()]);
        let mark = format!("mark-{round}-");
        let output = self.git(&["update-ref", "-m", &mark, "refs/heads/undone", next]);
        self.makes(next, &output);
        if !output.status.success() || before == *next {
            return;
        }
        let listed = text(&self.place.jin_txn(["log", "-n", "60"]).stdout).into_owned();
        let id = listed.lines().find(|line| line.contains(&mark)).and_then(|line| line.split(' ').next());
        let Some(id) = id.map(str::to_owned) else { return };
        let output = self.run(crash::jin(&self.place, &["undo", &id]));
        self.makes(&before, &output);
    }

    fn work(mut self, job: Job, spare: &[String], is_over: &AtomicBool, rounds: &AtomicUsize) -> Shadow {
        let mut round = 0;
        while !is_over.load(Ordering::Relaxed) {
            round += 1;
            rounds.fetch_add(1, Ordering::Relaxed);
            match job {
                Job::Commit => self.commit(round),
                Job::Move => self.move_refs(spare, round),
                Job::Upstream => {
                    let upstream = self.repo.sibling("upstream.git");
                    let next = upstream.read(["commit-tree", "-p", "main", "-m", &round.to_string(), "main^{tree}"]);
                    upstream.git(["update-ref", "refs/heads/main", &next]);
                    thread::sleep(BETWEEN_TRIES);
                }
                Job::Fetch => drop(self.git(&["fetch", "-q", "upstream"])),
                Job::Gc => drop(self.git(&["gc", "-q"])),
                Job::PackRefs => drop(self.git(&["pack-refs", "--all"])),
                Job::Rename => self.rename(round),
                Job::Run => self.run_script(round),
                Job::Recover => drop(self.run(crash::jin(self.repo, &["recover"]))),
                Job::Undo => self.undo(spare, round),
                Job::Switch => drop(self.git(&["switch", "-q", ["switched-a", "switched-b"][round % 2]])),
            }
        }
        self.shadow
    }
}

#[test]
fn whoever_is_killed_among_sixteen_at_work_nothing_acknowledged_is_lost_and_nobody_is_robbed() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    let spare = prepare(&repo);
    let running: Vec<Running> = JOBS.iter().map(|_| Mutex::new(None)).collect();
    let (is_over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (shadows, kills) = thread::scope(|scope| {
        let workers: Vec<_> = JOBS
            .iter()
            .zip(&running)
            .enumerate()
            .map(|(number, (&job, running))| {
                let place = if has_worktree(job) { repo.sibling(&format!("own-{number}")) } else { repo.clone() };
                let (repo, shadow) = (&repo, Shadow::default());
                let worker = Worker { repo, place, number, running, shadow, was_refused: false };
                let (spare, is_over, rounds) = (&spare, &is_over, &rounds);
                scope.spawn(move || worker.work(job, spare, is_over, rounds))
            })
            .collect();
        let kills = workers::kill_at_random(&running, SECONDS);
        is_over.store(true, Ordering::Relaxed);
        let shadows: Vec<Shadow> = workers.into_iter().map(|it| it.join().expect("no worker panics")).collect();
        (shadows, kills)
    });

    let rounds = rounds.into_inner();
    let there: usize = shadows.iter().map(|shadow| shadow.there.len()).sum();
    let gone: usize = shadows.iter().map(|shadow| shadow.gone.len()).sum();
    println!("{rounds} commands, {kills} kills, {there} commits acknowledged, {gone} taken back with their runs");
    assert!(kills > 0 && there > 0, "{there} commits and {kills} kills prove nothing");
    come_to_rest(&repo);
    assert_recovers(&repo);
    for (number, (job, shadow)) in JOBS.iter().zip(&shadows).enumerate() {
        judge(&repo, number, *job, shadow);
    }
    let succeeded = shadows.into_iter().flat_map(|shadow| shadow.succeeded).collect();
    workers::assert_no_success_was_taken_back(&repo, &succeeded);
    println!("torture: commands={rounds} kills={kills} violations=0");
}

fn has_worktree(job: Job) -> bool {
    matches!(job, Job::Commit | Job::Run | Job::Switch)
}

/// Branches, worktrees, an upstream, and commits to move refs to.
fn prepare(repo: &Repo) -> Vec<String> {
    repo.do_not_wait_for_locks();
    repo.git(["config", "core.abbrev", "40"]);
    repo.write("file", "base\n");
    repo.commit_all("base");
    let spare: Vec<String> = (0..5).map(|number| spare_commit(repo, &format!("spare {number}"))).collect();
    // No gc takes them while no branch has them.
    for (number, commit) in spare.iter().enumerate() {
        repo.git(["update-ref", &format!("refs/kept/{number}"), commit]);
    }
    for branch in ["renamed-a", "undone", "switched-a", "switched-b"] {
        repo.git(["branch", branch]);
    }
    for (number, job) in JOBS.iter().enumerate() {
        if has_worktree(*job) {
            repo.git(["worktree", "add", "-q", "-b", &format!("own-{number}"), &format!("../own-{number}")]);
        }
        if *job == Job::Move {
            for index in 0..REFS {
                repo.git(["branch", &format!("multi-{number}/{index}")]);
            }
        }
    }
    let upstream = repo.new_sibling("upstream.git", Options { bare: true, ..Options::default() });
    repo.git(["push", "-q", "../upstream.git", "main"]);
    repo.git(["remote", "add", "upstream", "../upstream.git"]);
    upstream.git(["config", "core.logAllRefUpdates", "false"]);
    spare
}

/// Who was not killed together with its parent may be at work for a moment still.
fn come_to_rest(repo: &Repo) {
    let mut last = (0, String::new());
    let rests = comes_true(|| {
        last = recover(repo);
        last.0 == 0 && run_jin(repo, &["recover"]).0 == 0
    });
    assert!(rests, "it does not come to rest: {last:?}");
}

fn judge(repo: &Repo, number: usize, job: Job, shadow: &Shadow) {
    match job {
        Job::Commit | Job::Run => {
            let branch = format!("own-{number}");
            let history: HashSet<String> = repo.read(["rev-list", &branch]).lines().map(str::to_owned).collect();
            let lost: Vec<_> = shadow.there.iter().filter(|commit| !history.contains(*commit)).collect();
            assert!(lost.is_empty(), "{branch} has lost {lost:?} of {}", shadow.there.len());
            let stayed: Vec<_> = shadow.gone.iter().filter(|commit| history.contains(*commit)).collect();
            assert!(stayed.is_empty(), "{branch} has what was taken back: {stayed:?}");
            let status = repo.sibling(&branch).read(["status", "--porcelain", "-uno"]);
            assert_eq!(status, "", "{branch}: index and worktree go with the branch");
        }
        Job::Move => {
            let name = |index| format!("refs/heads/multi-{number}/{index}");
            let values: HashSet<String> = (0..REFS).map(|index| value(repo, &name(index))).collect();
            assert_eq!(values.len(), 1, "the four refs of {number} move together: {values:?}");
            assert_possible(shadow, &values.into_iter().next().expect("one"), &name(0));
        }
        Job::Undo => assert_possible(shadow, &value(repo, "refs/heads/undone"), "undone"),
        Job::Rename => {
            let base = value(repo, "refs/heads/main");
            let values = ["renamed-a", "renamed-b"].map(|name| value(repo, &format!("refs/heads/{name}")));
            let is_one = values == [base.clone(), String::new()] || values == [String::new(), base];
            assert!(is_one, "the branch has one of its two names: {values:?}");
        }
        Job::Fetch => {
            let upstream = repo.sibling("upstream.git").read(["rev-list", "main"]);
            let fetched = value(repo, "refs/remotes/upstream/main");
            // Every single fetch may have been killed.
            let is_none = fetched.is_empty() && shadow.succeeded.is_empty();
            assert!(is_none || upstream.lines().any(|it| it == fetched), "`{fetched}` is what upstream once had");
        }
        _ => {}
    }
}

fn assert_possible(shadow: &Shadow, found: &str, name: &str) {
    let is_possible = shadow.possible.is_empty() || shadow.possible.iter().any(|value| value == found);
    assert!(is_possible, "{name} is {found}, not one of {:?}", shadow.possible);
}
