//! One crash: run an operation in a fresh copy of its template, kill it at one event, recover, judge.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, fs, io, thread};

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use super::invariants::{self, Expectation, Violation};
use super::operations::{INPUT, Operation};
use super::probes::{Probes, Via};
use super::repo::{Git, Options, Repo, jin_txn, text};
use super::snapshot;
use super::tracer::{self, Action, Event, Isolation, Outcome};
use super::watch::{Watch, with_watch};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Tree,
    Git,
    Hook,
    /// The tree runs in a container, whose init is killed.
    Container,
    /// Git is told to end, and its hooks are not.
    Told(Signal),
    /// All of the foreground group is told to end: `^C` at a terminal.
    AllTold(Signal),
}

/// What happens after the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The repository has no guard and nobody recovers.
    Nothing,
    /// `jin-txn recover`.
    Recover,
    /// `jin-txn recover` is killed too, at its given event, then run again.
    KilledRecovery(usize),
    /// The next command goes through the shim.
    Shim,
    /// The next command is plain git, whose hook recovers (2.54 and later).
    PlainGit,
    /// The watch is there; git is held at its first lock and where it is killed, as one that has much to do.
    Watch,
    /// The watch is there, and git is as fast as it is.
    WatchAtSpeed,
    /// The watch is killed moments after git is, with the child that recovers, and `jin-txn recover` comes then.
    WatchKilled,
}

impl After {
    /// Is a watch there when git is killed?
    fn is_watched(self) -> bool {
        matches!(self, After::Watch | After::WatchAtSpeed | After::WatchKilled)
    }
}

/// One crash. Written and parsed as `commit-a:tree:recover:37`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub operation: &'static str,
    pub victim: Victim,
    pub after: After,
    pub n: usize,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let victim = match self.victim {
            Victim::Tree => "tree".to_owned(),
            Victim::Git => "git".to_owned(),
            Victim::Hook => "hook".to_owned(),
            Victim::Container => "container".to_owned(),
            Victim::Told(signal) => format!("git-{signal}"),
            Victim::AllTold(signal) => format!("all-{signal}"),
        };
        let after = match self.after {
            After::Nothing => "nothing".to_owned(),
            After::Recover => "recover".to_owned(),
            After::KilledRecovery(m) => format!("killed-recovery-{m}"),
            After::Shim => "shim".to_owned(),
            After::PlainGit => "plain-git".to_owned(),
            After::Watch => "watch".to_owned(),
            After::WatchAtSpeed => "watch-at-speed".to_owned(),
            After::WatchKilled => "watch-killed".to_owned(),
        };
        write!(f, "{}:{victim}:{after}:{}", self.operation, self.n)
    }
}

/// What became of a point.
pub struct Report {
    pub point: Point,
    /// The call at which it was killed; `None` when the run ended before.
    pub killed: Option<Event>,
    /// What had happened until then.
    pub before: Vec<Event>,
    pub violations: Vec<Violation>,
    /// Why the point says nothing.
    pub skipped: Option<&'static str>,
    pub directory: PathBuf,
}

impl Report {
    pub fn is_bad(&self) -> bool {
        !self.violations.is_empty()
    }
}

/// An operation with its template and what is expected of it.
pub struct Bench {
    pub operation: &'static Operation,
    template: Repo,
    expected: Expectation,
    /// A commit that no ref has, for the probes.
    spare_commit: String,
    guarded: bool,
}

impl Bench {
    /// Builds the template and observes the undisturbed command.
    pub fn new(operation: &'static Operation, guarded: bool) -> Self {
        let template = Repo::new(Options::default());
        if !guarded {
            template.do_not_wait_for_locks();
        }
        (operation.setup)(&template);
        let subject = template.sibling(operation.subject);
        let tree = subject.git(["hash-object", "-t", "tree", "-w", "--stdin"]).stdout;
        let spare_commit = subject.read(["commit-tree", "-m", "probe", text(&tree).trim()]);
        let expected = Expectation::observe(operation, &template, &|repo, variables| {
            let mut command = command(operation, repo);
            command.envs(variables.iter().copied());
            let outcome = run(command, repo, Isolation::None, &mut |_| Action::Continue).expect("git starts");
            assert!(outcome.status.success(), "{} fails by itself: {}", operation.name, text(&outcome.stderr));
        });
        Self { operation, template, expected, spare_commit, guarded }
    }

    /// Returns the file-system changes of an undisturbed run.
    pub fn events(&self) -> Vec<Event> {
        let repo = self.fresh();
        let (events, outcome) = tracer::events_of(command(self.operation, &repo), &input(&repo)).expect("git starts");
        assert!(outcome.status.success(), "{} fails by itself: {}", self.operation.name, text(&outcome.stderr));
        repo.discard();
        events
    }

    /// Returns the file-system changes of the recovery after a kill at event `n`.
    pub fn events_of_recovery(&self, n: usize) -> Vec<Event> {
        let repo = self.fresh();
        let mut decide = |event: &Event| {
            if event.n == n { Action::KillTree } else { Action::Continue }
        };
        run(command(self.operation, &repo), &repo, Isolation::None, &mut decide).expect("git starts");
        let subject = repo.sibling(self.operation.subject);
        let_the_clock_tick(&subject.git_dir());
        let (events, _) = tracer::events_of(recovery(&subject), b"").expect("jin-txn starts");
        repo.discard();
        events
    }

    /// Crashes once and judges.
    pub fn run(&self, point: Point) -> Report {
        let repo = self.fresh();
        let subject = repo.sibling(self.operation.subject);
        let mut report = Report {
            point,
            killed: None,
            before: Vec::new(),
            violations: Vec::new(),
            skipped: None,
            directory: repo.scratch().to_owned(),
        };
        let watch = point.after.is_watched().then(|| Watch::start(&repo));
        match kill(self.operation, &repo, point, watch.as_ref(), &mut report.before) {
            Ok(outcome) => report.killed = outcome.killed,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                report.skipped = Some("no right to make a pid namespace");
            }
            Err(error) => panic!("{point}: {error}"),
        }
        match watch {
            Some(watch) if point.after == After::WatchKilled => {
                // At another moment of its work each time.
                thread::sleep(Duration::from_millis(point.n as u64 % 8));
                watch.kill_with_children();
            }
            Some(watch) => watch.wait_until_idle(),
            None => {}
        }
        // A signal between the making of a lock and git's note of it leaves the lock, as SIGKILL does.
        let is_told = matches!(point.victim, Victim::Told(_) | Victim::AllTold(_));
        let after =
            if is_told && !invariants::locks(&subject.git_dir()).is_empty() { After::Recover } else { point.after };
        let index_is_locked = subject.git_dir().join("index.lock").exists();
        if after == After::PlainGit && index_is_locked {
            report.skipped = Some("plain git never gets past a locked index");
        }
        if report.skipped.is_none() {
            let_the_clock_tick(&subject.git_dir());
            report.violations = self.judge(&subject, after);
        }
        if !report.is_bad() {
            repo.discard();
        }
        report
    }

    fn judge(&self, repo: &Repo, after: After) -> Vec<Violation> {
        match after {
            After::Nothing | After::Watch | After::WatchAtSpeed => self.judge_directly(repo),
            After::Recover | After::WatchKilled => {
                let mut violations = invariants::judge_recovery(repo);
                violations.extend(self.judge_directly(repo));
                violations
            }
            After::KilledRecovery(m) => {
                let mut decide = |event: &Event| {
                    if event.n == m { Action::KillTree } else { Action::Continue }
                };
                tracer::trace(recovery(repo), b"", Isolation::None, &mut decide).expect("jin-txn starts");
                let_the_clock_tick(&repo.git_dir());
                self.judge(repo, After::Recover)
            }
            After::Shim => self.judge_through_the_shim(repo),
            After::PlainGit => self.judge_through_plain_git(repo),
        }
    }

    /// The state must be right as it is, before any command.
    fn judge_directly(&self, repo: &Repo) -> Vec<Violation> {
        let mut violations = self.judge_at_rest(repo);
        let mut probes = Probes::new(repo, Via::Git);
        probes.look();
        probes.branch(&self.spare_commit);
        probes.work(&self.expected, &self.spare_commit);
        violations.append(&mut probes.violations);
        violations
    }

    /// The state must be right after the first command, whatever it is.
    fn judge_through_the_shim(&self, repo: &Repo) -> Vec<Violation> {
        let mut probes = Probes::new(repo, Via::Shim);
        invariants::unless_hindered(|| {
            probes.look();
            repo.jin_txn(["check", "-q"])
        });
        let mut violations = self.judge_at_rest(repo);
        probes.branch(&self.spare_commit);
        probes.work(&self.expected, &self.spare_commit);
        violations.append(&mut probes.violations);
        violations
    }

    /// The state must be right after the first commands that write a ref. Locks on refs that nobody writes may stay until
    /// somebody does, so they are judged last.
    fn judge_through_plain_git(&self, repo: &Repo) -> Vec<Violation> {
        let mut probes = Probes::new(repo, Via::GitThatMayRefuseOnce);
        probes.branch(&self.spare_commit);
        let mut violations = self.expected.judge_state(repo);
        probes.look();
        probes.work(&self.expected, &self.spare_commit);
        violations.append(&mut probes.violations);
        violations.extend(invariants::judge_locks(repo, &|path| {
            path.starts_with("refs")
                || path == Path::new("HEAD.lock")
                || path.as_os_str().as_encoded_bytes().starts_with(b"packed-refs")
        }));
        violations.extend(invariants::judge_markers(repo));
        violations
    }

    fn judge_at_rest(&self, repo: &Repo) -> Vec<Violation> {
        let mut violations = self.expected.judge_state(repo);
        violations.extend(invariants::judge_locks(repo, &|_| true));
        violations.extend(invariants::judge_linked_worktrees(repo));
        violations.extend(invariants::judge_markers(repo));
        violations
    }

    /// A fresh copy. The guard is installed in the copy: a copied state directory is a case of its own.
    fn fresh(&self) -> Repo {
        let repo = self.template.copy();
        if self.guarded {
            repo.sibling(self.operation.subject).install_guard();
        }
        repo
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.template.discard();
    }
}

fn kill(
    operation: &Operation,
    repo: &Repo,
    point: Point,
    watch: Option<&Watch>,
    before: &mut Vec<Event>,
) -> io::Result<Outcome> {
    let (action, isolation) = match point.victim {
        Victim::Tree => (Action::KillTree, Isolation::None),
        Victim::Git => (Action::KillGit, Isolation::None),
        Victim::Hook => (Action::KillHook, Isolation::None),
        Victim::Container => (Action::KillRoot, Isolation::Container),
        Victim::Told(signal) => (Action::SignalGit(signal), Isolation::None),
        Victim::AllTold(signal) => (Action::SignalTree(signal), Isolation::None),
    };
    /// As long as a git works that has much to do.
    const HELD: Duration = Duration::from_millis(100);
    let slow_for = watch.filter(|_| point.after == After::Watch);
    let mut took_lock = false;
    let mut decide = |event: &Event| {
        // The lock that the event before has made is there now.
        if let Some(watch) = slow_for.filter(|_| event.n == point.n || took_lock) {
            thread::sleep(HELD);
            watch.wait_until_it_has_looked();
        }
        took_lock = event.role == tracer::Role::Git && event.takes_lock();
        before.push(event.clone());
        if event.n == point.n { action } else { Action::Continue }
    };
    let mut command = command(operation, repo);
    if point.after.is_watched() {
        command = with_watch(repo, command);
    }
    run(command, repo, isolation, &mut decide)
}

fn run(
    command: Command,
    repo: &Repo,
    isolation: Isolation,
    decide: &mut dyn FnMut(&Event) -> Action,
) -> io::Result<Outcome> {
    tracer::trace(command, &input(repo), isolation, decide)
}

fn command(operation: &Operation, repo: &Repo) -> Command {
    let mut command = repo.command(Git::under_test().program.as_os_str());
    command.arg0("git").args(operation.command);
    command
}

fn recovery(repo: &Repo) -> Command {
    let mut command = repo.command(jin_txn().as_os_str());
    command.arg("recover");
    command
}

fn input(repo: &Repo) -> Vec<u8> {
    fs::read(repo.scratch().join(INPUT)).unwrap_or_default()
}

/// Waits until several clock ticks have passed since the last change in a git directory.
///
/// The kernel tells the start of a process in ticks of 10 ms, and the time of a file up to one tick late. Whoever proves that a process is younger than a lock compares that
/// with the lock's ctime, so what starts in the same tick as the crash proves nothing. People are never that fast, tests are.
pub fn let_the_clock_tick(git_dir: &Path) {
    const TICKS: Duration = Duration::from_millis(50);
    let newest = snapshot::walk(git_dir, &|_| true)
        .iter()
        .filter_map(|path| fs::symlink_metadata(path).ok())
        .map(|metadata| (metadata.ctime(), metadata.ctime_nsec()))
        .max()
        .unwrap_or_default();
    let newest = Duration::new(newest.0.unsigned_abs(), u32::try_from(newest.1).unwrap_or(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let boottime = || Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock"));
    let until = boottime() + TICKS.saturating_sub(now.saturating_sub(newest));
    while boottime() < until {
        thread::sleep(until.saturating_sub(boottime()));
    }
}
