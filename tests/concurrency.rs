//! Eight gits commit at once in linked worktrees of one repository, and one of them is killed every tenth of a second.
//!
//! `JIN_SOAK_SECONDS=30` for the long form, `JIN_SOAK_SEED=<n>` for another order of the kills.

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use support::crash::{self, assert_recovers, recover, wal};
use support::repo::{Options, Repo, text};

const WORKERS: usize = 8;
const SECONDS: u64 = 6;
const BETWEEN_KILLS: Duration = Duration::from_millis(100);
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// A process as the log knows it: pid and start time.
type Process = (u64, u64);

/// What one worker knows for certain.
#[derive(Default)]
struct Shadow {
    /// Commits that git said it has made.
    acknowledged: Vec<String>,
    /// The processes that said so.
    succeeded: HashSet<Process>,
}

/// The git that a worker is running, if any. Whoever kills it holds the lock, so that it cannot be reaped meanwhile.
type Running = Mutex<Option<Pid>>;

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
        let kills = kill_at_random(&running);
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
    assert_no_success_was_taken_back(&repo, &shadows);
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
        let (process, printed) = run(command, running);
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

/// Runs a command where the killer can reach it; returns what it printed when it succeeded.
fn run(mut command: Command, running: &Running) -> (Process, Option<String>) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().expect("the command starts");
    let pid = Pid::from_raw(child.id().cast_signed());
    let process = (u64::from(child.id()), start_of(child.id()));
    *running.lock().expect("nobody panics with this lock") = Some(pid);
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("it is our child");
    *running.lock().expect("nobody panics with this lock") = None;
    let output = child.wait_with_output().expect("the command can be waited for");
    let complaint = text(&output.stderr);
    assert!(!complaint.contains("panicked"), "{complaint}");
    (process, output.status.success().then(|| text(&output.stdout).into_owned()))
}

/// The start time of a child that has not been reaped, in ticks.
fn start_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it has not been reaped");
    let rest = stat.rsplit(") ").next().expect("the name ends with a parenthesis");
    rest.split(' ').nth(19).and_then(|word| word.parse().ok()).expect("field 22 is the start time")
}

/// Kills one git after another, by turns it alone and with its hook; returns how many.
fn kill_at_random(running: &[Running]) -> usize {
    let number = |name, default| env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default);
    let end = Instant::now() + Duration::from_secs(number("JIN_SOAK_SECONDS", SECONDS));
    let mut random = Random(number("JIN_SOAK_SEED", 1));
    let mut kills = 0;
    while Instant::now() < end {
        thread::sleep(BETWEEN_KILLS);
        let first = random.below(running.len());
        for slot in (0..running.len()).map(|step| &running[(first + step) % running.len()]) {
            let slot = slot.lock().expect("nobody panics with this lock");
            let Some(pid) = *slot else { continue };
            let send = if kills % 2 == 0 { kill } else { killpg };
            // It may have ended by itself: then it is a zombie, which takes any signal.
            if send(pid, Signal::SIGKILL).is_ok() {
                kills += 1;
                break;
            }
        }
    }
    kills
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

/// Whoever reported success was alive until then: recovery may have recorded it as committed, and nothing else.
fn assert_no_success_was_taken_back(repo: &Repo, shadows: &[Shadow]) {
    let log = wal(repo);
    let of = |kind: &'static str| log.iter().filter(move |record| record["type"] == kind);
    let owner = |record: &serde_json::Value| {
        let data = &record["data"];
        Some((data["pid"].as_u64()?, data["start"].as_u64()?))
    };
    let owners: HashMap<String, Process> =
        of("begin").filter_map(|record| Some((record["tx"].to_string(), owner(record)?))).collect();
    assert!(!owners.is_empty(), "the log has transactions with their owners");
    for record in of("recovered").filter(|record| record["data"]["outcome"] != "committed") {
        let owner = owners.get(&record["tx"].to_string());
        let succeeded = owner.is_some_and(|owner| shadows.iter().any(|shadow| shadow.succeeded.contains(owner)));
        assert!(!succeeded, "a transaction was taken back although its git succeeded: {record:#}");
    }
}

/// xorshift64: the same kills for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let limit = u64::try_from(limit).expect("a limit is small");
        usize::try_from(self.0 % limit).expect("less than the limit")
    }
}
