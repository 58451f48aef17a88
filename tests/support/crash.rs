//! A crash at a place that has a name: kill a command where a predicate says, recover, look.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::invariants::{self, Expectation};
use super::operations::{self, INPUT, Operation};
use super::point::let_the_clock_tick;
use super::repo::{Git, Options, Repo, jin_txn, text};
use super::snapshot;
use super::tracer::{self, Action, Event, Isolation, Role};
use super::wait::wait_until;

/// Returns git with arguments, in a repository.
pub fn git(repo: &Repo, arguments: &[&str]) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = repo.command(Git::under_test().program.as_os_str());
    command.arg0("git").args(arguments);
    command
}

/// Returns the binary under test with arguments, in a repository.
pub fn jin(repo: &Repo, arguments: &[&str]) -> Command {
    let mut command = repo.command(jin_txn().as_os_str());
    command.args(arguments);
    command
}

/// Runs git with the guard looking away.
///
/// # Panics
/// When it fails.
pub fn unseen_git(repo: &Repo, arguments: &[&str]) {
    let output = git(repo, arguments).env("JIN_TXN", "off").output().expect("git starts");
    assert!(output.status.success(), "git {arguments:?} failed: {}", text(&output.stderr));
}

/// Runs a command and kills where `wanted` first says so.
///
/// # Panics
/// When the command never comes there.
pub fn kill_at(command: Command, input: &str, action: Action, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    let shown = format!("{command:?}");
    let mut decide = |event: &Event| if wanted(event) { action } else { Action::Continue };
    let outcome = tracer::trace(command, input.as_bytes(), Isolation::None, &mut decide).expect("the command starts");
    outcome.killed.unwrap_or_else(|| panic!("{shown} never came there: {}", text(&outcome.stderr)))
}

/// Recovers and returns the exit code with what was said.
///
/// A git of another test may work anywhere, as far as anybody can tell, when it lives in a mount namespace of its own or names its
/// worktree in an option: recovery leaves locks alone because of it, and is run again when it has ended.
pub fn recover(repo: &Repo) -> (i32, String) {
    let_the_clock_tick(&repo.git_dir());
    let start = Instant::now();
    loop {
        let (code, said) = run_jin(repo, &["recover"]);
        if start.elapsed() > Duration::from_secs(60) || !outlive_stranger(repo, &said) {
            return (code, said);
        }
    }
}

/// Waits for the process that something was left to, if it is not of this test. Returns false where there is none.
pub fn outlive_stranger(repo: &Repo, said: &str) -> bool {
    let stranger = stranger(repo, said);
    if let Some(process) = &stranger {
        wait_until("the stranger has ended", || !process.exists());
    }
    stranger.is_some()
}

fn stranger(repo: &Repo, said: &str) -> Option<PathBuf> {
    let (before, _) = said.split_once(") is running and may hold it")?;
    let process = Path::new("/proc").join(before.rsplit_once("(pid ")?.1);
    let link = |process: &Path, name: &str| fs::read_link(process.join(name)).ok();
    let is_elsewhere = link(&process, "ns/mnt") != link(Path::new("/proc/self"), "ns/mnt");
    // Every process of a test has its home directory there.
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    let is_of_this_test = text(&environment).contains(&*repo.scratch().to_string_lossy());
    (is_elsewhere || !is_of_this_test).then_some(process)
}

/// Runs the binary under test and returns the exit code with what was said.
pub fn run_jin(repo: &Repo, arguments: &[&str]) -> (i32, String) {
    let output = repo.jin_txn(arguments);
    let code = output.status.code().unwrap_or(-1);
    (code, format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// Recovers, and asserts that this ends everything: nothing is left, a second recovery changes nothing, `check` and `fsck` are
/// content.
pub fn assert_recovers(repo: &Repo) {
    let_the_clock_tick(&repo.git_dir());
    let mut violations = invariants::judge_recovery(repo);
    violations.extend(invariants::judge_locks(repo, &|_| true));
    violations.extend(invariants::judge_markers(repo));
    violations.extend(invariants::judge_linked_worktrees(repo));
    assert!(violations.is_empty(), "recovery does not end well: {violations:#?}");
    let (code, said) = run_jin(repo, &["check"]);
    assert_eq!(code, 0, "a recovered repository is clean: {said}");
    assert_fsck(repo);
}

pub fn assert_fsck(repo: &Repo) {
    let fsck = repo.try_git(["fsck", "--full", "--no-progress"]);
    let complaints = text(&fsck.stderr);
    let complains = complaints.lines().any(|line| line.starts_with("error") || line.starts_with("fatal"));
    assert!(fsck.status.success() && !complains, "fsck: {}: {complaints}{}", fsck.status, text(&fsck.stdout));
}

/// The visible transactions, newest first, as `jin-txn log --json` has them.
pub fn transactions(repo: &Repo) -> Vec<Json> {
    let output = repo.jin_txn(["log", "--json", "-n", "10000"]);
    assert!(output.status.success(), "`jin-txn log` failed: {}", text(&output.stderr));
    let listed: Json = serde_json::from_slice(&output.stdout).expect("`log --json` prints JSON");
    listed["transactions"].as_array().expect("the log lists transactions").clone()
}

/// Every record of the log, oldest first.
pub fn wal(repo: &Repo) -> Vec<Json> {
    let segments = snapshot::walk(&repo.git_dir().join(".jin/wal"), &|_| true);
    let contents = segments.iter().map(|path| std::fs::read_to_string(path).expect("a segment is text"));
    contents
        .flat_map(|content| content.lines().map(|line| line[9..].to_owned()).collect::<Vec<_>>())
        .map(|line| serde_json::from_str(&line).expect("a record is JSON"))
        .collect()
}

/// Returns the value of a ref, or nothing when it is absent.
pub fn value(repo: &Repo, name: &str) -> String {
    text(&repo.try_git(["rev-parse", "-q", "--verify", name]).stdout).trim().to_owned()
}

/// Makes a commit with an empty tree that no ref has.
pub fn spare_commit(repo: &Repo, message: &str) -> String {
    let tree = repo.git(["hash-object", "-t", "tree", "-w", "--stdin"]).stdout;
    repo.read(["commit-tree", "-m", message, text(&tree).trim()])
}

pub fn is_rename_to(event: &Event, suffix: &str) -> bool {
    event.syscall.starts_with("rename") && event.path2.as_deref().is_some_and(|path| path.ends_with(suffix))
}

/// git puts the lock of a ref below `refs/` into its place.
pub fn is_ref_rename(event: &Event) -> bool {
    let place = event.path2.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
    event.syscall.starts_with("rename")
        && event.path.as_deref().is_some_and(|path| path.extension().is_some_and(|it| it == "lock"))
        && place.contains("/refs/")
        && !place.contains("/logs/")
}

/// A call by the hook about a segment of the log.
pub fn is_log_call(event: &Event, syscall: &str) -> bool {
    event.role == Role::Hook && event.syscall == syscall && path_of(event).extension().is_some_and(|it| it == "wal")
}

/// The hook makes a segment of the log durable: alone, or with its whole file system.
pub fn is_log_sync(event: &Event) -> bool {
    is_log_call(event, "fdatasync") || is_log_call(event, "syncfs")
}

/// The creation of a lock of a ref below `refs/`.
pub fn is_ref_lock(event: &Event) -> bool {
    let path = path_of(event);
    event.role == Role::Git
        && event.syscall.starts_with("open")
        && path.extension().is_some_and(|it| it == "lock")
        && path.components().any(|part| part.as_os_str() == "refs")
}

pub fn path_of(event: &Event) -> PathBuf {
    event.path.clone().unwrap_or_default()
}

/// Wants the `n`-th event, counted from 1, of those that `wanted` selects.
pub fn nth(n: usize, wanted: impl Fn(&Event) -> bool) -> impl FnMut(&Event) -> bool {
    let mut seen = 0;
    move |event| {
        seen += usize::from(wanted(event));
        seen == n
    }
}

/// Which whole state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    Before,
    After,
}

/// One of [`operations::ALL`] with its template, to be killed at named places.
pub struct Stage {
    operation: &'static Operation,
    template: Repo,
    pub expected: Expectation,
}

impl Stage {
    pub fn new(operation: &str) -> Self {
        let operation = operations::named(operation);
        let template = Repo::new(Options::default());
        (operation.setup)(&template);
        let expected = Expectation::observe(operation, &template, &|repo, variables| {
            let mut command = git(repo, operation.command);
            command.envs(variables.iter().copied());
            let input = input(repo);
            let mut go_on = |_: &Event| Action::Continue;
            let outcome = tracer::trace(command, input.as_bytes(), Isolation::None, &mut go_on).expect("git starts");
            assert!(outcome.status.success(), "{} fails by itself: {}", operation.name, text(&outcome.stderr));
        });
        Self { operation, template, expected }
    }

    /// Returns a guarded copy of the template.
    pub fn fresh(&self) -> Repo {
        let repo = self.template.copy();
        repo.install_guard();
        repo
    }

    /// Returns the file-system changes of an undisturbed run.
    pub fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.watch(|event| events.push(event.clone()));
        events
    }

    /// Shows the file-system changes of an undisturbed run, each just before it happens.
    pub fn watch(&self, mut look: impl FnMut(&Event)) {
        let repo = self.fresh();
        let mut decide = |event: &Event| {
            look(event);
            Action::Continue
        };
        let outcome =
            tracer::trace(git(&repo, self.operation.command), input(&repo).as_bytes(), Isolation::None, &mut decide)
                .expect("git starts");
        assert!(outcome.status.success(), "{} fails by itself: {}", self.operation.name, text(&outcome.stderr));
    }

    /// Kills the operation in a fresh copy.
    pub fn kill(&self, action: Action, wanted: impl FnMut(&Event) -> bool) -> Repo {
        let repo = self.fresh();
        kill_at(git(&repo, self.operation.command), &input(&repo), action, wanted);
        repo
    }

    /// Asserts that the refs are between the whole states.
    pub fn assert_torn(&self, repo: &Repo) {
        let found = snapshot::Snapshot::of(repo).refs;
        assert!(!self.expected.legal.contains(&found), "without a torn state this test proves nothing");
    }

    /// Asserts which whole state the refs are in, that everything else fits them, and that nothing is left to do.
    pub fn assert_recovers_to(&self, repo: &Repo, whole: Whole) {
        assert_recovers(repo);
        let found = snapshot::Snapshot::of(repo).refs;
        let wanted = if whole == Whole::Before { &self.expected.before } else { &self.expected.after };
        assert_eq!(found, wanted.refs, "recovery must come to the state {whole:?}");
        let violations = self.expected.judge_state(repo);
        assert!(violations.is_empty(), "the rest does not fit the refs: {violations:#?}");
    }
}

fn input(repo: &Repo) -> String {
    std::fs::read_to_string(repo.scratch().join(INPUT)).unwrap_or_default()
}

/// The files of a git directory that recovery determines: not our own state, not the inodes that the index notes.
pub fn end_state(repo: &Repo) -> BTreeMap<PathBuf, Vec<u8>> {
    let git_dir = repo.git_dir();
    let skipped = [".jin", "hooks", "objects"].map(|name| git_dir.join(name));
    let files = snapshot::walk(&git_dir, &|directory| !skipped.iter().any(|it| it == directory));
    files
        .into_iter()
        .filter_map(|path| Some((path.strip_prefix(&git_dir).ok()?.to_owned(), std::fs::read(&path).ok()?)))
        .filter(|(path, _)| path != Path::new("index"))
        .collect()
}

/// The files that differ between two end states.
pub fn differing(one: &BTreeMap<PathBuf, Vec<u8>>, other: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<PathBuf> {
    let names = one.keys().chain(other.keys()).collect::<std::collections::BTreeSet<_>>();
    names.into_iter().filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}
