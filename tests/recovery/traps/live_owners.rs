//! Processes that are alive, or just not dead yet: nothing of theirs is touched.
//!
//! A git is kept alive in the middle of a transaction by a reflog that is a FIFO: git holds the ref's lock and waits for
//! somebody to read.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use super::{Torn, guarded, leave_stale_lock, updates, with_branches};
use crate::support::crash::{self, assert_recovers, is_log_call, recover, run_jin, spare_commit, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::Repo;
use crate::support::tracer::{self, Action, Event, Isolation, Role};
use crate::support::wait::wait_until;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_git_with_git_dir_and_cwd_elsewhere_is_not_robbed() {
    for guard in ["on", "off"] {
        let scene = Scene::new(|repo| {
            let mut command = update(repo);
            command.current_dir("/").env("GIT_DIR", repo.git_dir()).env("JIN_TXN", guard);
            command
        });
        for arguments in [["check", "-q"], ["recover", "-q"], ["check", "-q"]] {
            let (code, said) = run_jin(&scene.repo, &arguments);
            assert_eq!(code, 5, "guard {guard}: {arguments:?} must see that somebody is at work: {said}");
        }
        assert!(scene.live.lock().exists(), "guard {guard}: its lock stays");
        scene.finish();
    }
}

/// In another mount namespace a path says nothing: the inode of what its worktree belongs to does.
#[test]
fn a_git_in_a_linked_worktree_of_another_repository_holds_no_lock_of_this_one_in_whatever_mount_namespace() {
    let (repo, other) = (guarded(), guarded());
    other.git(["worktree", "add", "-q", "-b", "linked", "../linked"]);
    let mut elsewhere = crash::git(&other.sibling("linked"), &["hash-object", "--stdin"]);
    let mut elsewhere = elsewhere.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("git starts");
    leave_stale_lock(&repo, "refs/heads/nobody.lock");
    let recovered = thread::scope(|scope| {
        let recover_there = || {
            let alone = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS);
            alone.ok().map(|()| recover(&repo))
        };
        scope.spawn(recover_there).join().expect("it ends")
    });
    drop(elsewhere.stdin.take());
    elsewhere.wait().expect("it is our child");
    match recovered {
        Some((_, said)) => assert!(!said.contains("hash-object"), "{said}"),
        None => println!("skipped: no right to make a mount namespace"),
    }
}

/// The pid file is a lock of its own; which of the two is looked at first is the directory's to say.
#[test]
fn a_pid_file_that_names_a_live_git_keeps_both_its_lock_and_itself() {
    let (repo, other) = (guarded(), guarded());
    // Nothing else would tell that it may hold a lock here.
    let mut live = crash::git(&other, &["hash-object", "--stdin"]);
    let mut live = live.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("git starts");
    let locks =
        ["index~pid.lock", "index.lock", "gc.pid.lock", "gc.pid~pid.lock"].map(|name| repo.git_dir().join(name));
    for lock in &locks {
        fs::write(lock, format!("pid {}\n", live.id())).expect("a lock can be made");
    }
    let (code, said) = recover(&repo);
    let kept = locks.iter().filter(|lock| lock.exists()).count();
    drop(live.stdin.take());
    live.wait().expect("it is our child");
    assert_eq!((code, kept), (5, locks.len()), "{said}");
    assert_recovers(&repo);
    assert!(!locks.iter().any(|lock| lock.exists()), "of the dead they go");
}

#[test]
fn of_two_gits_with_the_same_arguments_only_the_dead_one_is_recovered() {
    let scene = Scene::of(guarded(), update);
    // From a thread of its own: the tracer waits for all children of its thread.
    let torn = thread::scope(|scope| scope.spawn(|| Torn::of(scene.repo.clone())).join()).expect("the update is torn");
    let (code, said) = recover(&torn.repo);
    assert_eq!(code, 5, "one of them is alive: {said}");
    torn.assert_rolled_back();
    for branch in Torn::BRANCHES {
        let lock = torn.repo.git_dir().join(format!("refs/heads/{branch}.lock"));
        assert!(!lock.exists(), "{} was the dead one's", lock.display());
    }
    assert!(scene.live.lock().exists(), "the live one's lock stays");
    scene.finish();
}

/// `pack-refs` lists the values that it found; by the time its hook is called others may have moved a ref on, and be about to
/// move it again. Their locks are not the dead `pack-refs`' locks.
#[test]
fn a_killed_pack_refs_does_not_take_the_locks_of_others_along() {
    let repo = guarded();
    let [new, newest] = ["new", "newest"].map(|message| spare_commit(&repo, message));
    repo.git(["branch", "slow"]);
    let mut live = None;
    let mut decide = |event: &Event| {
        if live.is_none() && event.path.as_deref().is_some_and(|path| path.ends_with("packed-refs.new")) {
            // From a thread of its own: the tracer waits for all children of this one.
            live = thread::scope(|scope| {
                let other = scope.spawn(|| {
                    repo.git(["update-ref", "refs/heads/slow", &new]);
                    let command = crash::git(&repo, &["update-ref", "--stdin"]);
                    Hanging::start(&repo, command, "slow", &updates(&["slow"], &newest, &new))
                });
                Some(other.join().expect("the other one comes to its reflog"))
            });
        }
        if crash::is_rename_to(event, "/packed-refs") { Action::KillTree } else { Action::Continue }
    };
    tracer::trace(crash::git(&repo, &["pack-refs", "--all"]), b"", Isolation::None, &mut decide).expect("git starts");
    let live = live.expect("pack-refs has read the refs");
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = recover(&repo);
    assert_eq!(code, 5, "somebody is at work: {said}");
    assert!(live.lock().exists(), "the live one's lock stays");
    live.finish();
    assert_eq!(value(&repo, "refs/heads/slow"), newest, "it ends as if nothing had been");
    assert_recovers(&repo);
}

#[test]
fn a_killed_git_that_hung_leaves_a_lock_that_goes() {
    let Scene { repo, live, old, .. } = Scene::of(guarded(), update);
    live.kill();
    assert_recovers(&repo);
    assert_eq!(value(&repo, "refs/heads/slow"), old, "nothing had happened");
}

#[test]
fn a_killed_git_whose_parent_has_not_looked_is_dead() {
    let Scene { repo, live: mut hanging, old, .. } = Scene::of(guarded(), update);
    hanging.child.kill().expect("git can be killed");
    wait_until("it is a zombie", || !is_running(hanging.pid()));
    hanging.become_a_file("");
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = recover(&repo);
    assert_eq!(code, 0, "a zombie does nothing any more: {said}");
    assert!(!hanging.lock().exists(), "nor does it need its lock");
    hanging.child.wait().expect("it can be reaped");
    assert_recovers(&repo);
    assert_eq!(value(&repo, "refs/heads/slow"), old, "nothing had happened");
}

/// git dies while the hook is about to write the record; recovery comes while the hook is still at it.
#[test]
fn recovery_waits_for_a_hook_that_outlived_its_git() {
    let (repo, old, new) = with_branches(&["one", "two"]);
    let mut recovery = None;
    let mut waited = false;
    let (end, has_ended) = mpsc::channel();
    let mut git = None;
    let mut decide = |event: &Event| {
        git = if event.role == Role::Git { Some(event.pid) } else { git };
        if recovery.is_none() && is_log_call(event, "write") {
            let killed = git.expect("git has taken its locks before it calls the hook");
            kill(killed, Signal::SIGKILL).expect("git is there");
            wait_until("git is dead", || !is_running(killed));
            let (repo, end) = (repo.clone(), end.clone());
            // From a thread of its own: the tracer waits for all children of this one.
            recovery = Some(thread::spawn(move || {
                let said = run_jin(&repo, &["recover"]);
                end.send(()).ok();
                said
            }));
            waited = has_ended.recv_timeout(Duration::from_millis(150)).is_err();
        }
        Action::Continue
    };
    let input = updates(&["one", "two"], &new, &old);
    tracer::trace(crash::git(&repo, &["update-ref", "--stdin"]), input.as_bytes(), Isolation::None, &mut decide)
        .expect("git starts");
    let runner = recovery.expect("the hook writes a record");
    let (code, said) = runner.join().expect("recovery does not panic");
    assert!(waited || code == 5, "while the hook is at it recovery waits or says so: {code} {said}");
    if code != 0 {
        assert_eq!(code, 5, "{said}");
    }
    assert_recovers(&repo);
    assert_eq!([value(&repo, "one"), value(&repo, "two")], [old.clone(), old], "nothing had happened");
}

/// It has deleted the old name and not made the new one, and its git dies while others are recovering: they have seen it alive,
/// and its reflog is on its way.
#[test]
fn a_rename_that_is_cut_while_others_recover_keeps_its_reflog_and_its_name() {
    let repo = guarded();
    repo.git(["branch", "a"]);
    let log = repo.git_dir().join("logs/refs/heads/a");
    let before = (value(&repo, "refs/heads/a"), fs::read(&log).expect("it has one"));
    let (stand, stands) = mpsc::channel();
    let (die, may_die) = mpsc::channel();
    let (fall, has_fallen) = mpsc::channel();
    thread::scope(|scope| {
        let repo = &repo;
        scope.spawn(move || {
            let decide = &mut |event: &Event| {
                if !crash::is_rename_to(event, "logs/refs/heads/b") {
                    return Action::Continue;
                }
                stand.send(()).expect("somebody waits");
                may_die.recv_timeout(LONG).expect("somebody says so");
                Action::KillTree
            };
            let rename = crash::git(repo, &["branch", "-m", "a", "b"]);
            tracer::trace(rename, b"", Isolation::None, decide).expect("git starts");
            fall.send(()).expect("somebody waits");
        });
        stands.recv_timeout(LONG).expect("git comes to the new name");
        let torn = Torn::of(repo.clone());
        let mut has_looked = false;
        let decide = &mut |event: &Event| {
            let removes = event.path.as_deref().is_some_and(|path| path.ends_with("b4.lock"));
            if removes && !std::mem::replace(&mut has_looked, true) {
                die.send(()).expect("it waits");
                has_fallen.recv_timeout(LONG).expect("it is killed");
            }
            Action::Continue
        };
        tracer::trace(crash::jin(&torn.repo, &["recover"]), b"", Isolation::None, decide).expect("it starts");
        assert!(has_looked, "it has something to recover");
    });
    let_the_clock_tick(&repo.git_dir());
    assert_recovers(&repo);
    let after = (value(&repo, "refs/heads/a"), fs::read(&log).unwrap_or_default());
    assert_eq!(after, before, "`a` is back, with its reflog");
}

/// It has put `topic` into `packed-refs` and is about to remove the file. Deleted and made again in between the file has the
/// value that it expects, and is all that there is.
#[test]
fn a_ref_that_was_made_again_while_it_was_packed_stays() {
    let repo = guarded();
    repo.git(["branch", "topic"]);
    let before = value(&repo, "refs/heads/topic");
    let mut made_again = false;
    let mut decide = |event: &Event| {
        let locks_topic = event.path.as_deref().is_some_and(|path| path.ends_with("refs/heads/topic.lock"));
        if !made_again && event.role == Role::Git && locks_topic {
            made_again = true;
            thread::scope(|scope| {
                let other = scope.spawn(|| {
                    repo.git(["branch", "-q", "-D", "topic"]);
                    repo.git(["branch", "topic", &before]);
                });
                other.join().expect("the other one does its work");
            });
        }
        Action::Continue
    };
    let pack = crash::git(&repo, &["pack-refs", "--all"]);
    tracer::trace(pack, b"", Isolation::None, &mut decide).expect("git starts");
    assert!(made_again, "pack-refs came to the file");
    assert_eq!(value(&repo, "refs/heads/topic"), before, "the branch is there");
    assert_recovers(&repo);
}

#[test]
fn a_torn_update_of_a_killed_git_with_a_live_neighbour_is_recovered_by_the_neighbours_hook() {
    let torn = Torn::new();
    let new = torn.new.clone();
    torn.repo.git(["update-ref", "refs/heads/neighbour", &new]);
    torn.assert_rolled_back();
    assert_eq!(torn.value("neighbour"), new, "and it does its own work");
    assert_recovers(&torn.repo);
}

/// A repository in which a git is about to move the branch `slow` from `old` to `new`, and hangs.
pub struct Scene {
    pub repo: Repo,
    pub live: Hanging,
    old: String,
    new: String,
}

impl Scene {
    pub fn new(command: impl FnOnce(&Repo) -> Command) -> Self {
        let repo = guarded();
        // No file says who holds a lock: git may have been told otherwise, and most gits cannot.
        repo.git(["config", "core.lockfilePid", "false"]);
        Self::of(repo, command)
    }

    pub fn of(repo: Repo, command: impl FnOnce(&Repo) -> Command) -> Self {
        let old = repo.read(["rev-parse", "HEAD"]);
        let new = spare_commit(&repo, "new");
        repo.git(["branch", "slow"]);
        let live = Hanging::start(&repo, command(&repo), "slow", &updates(&["slow"], &new, &old));
        let_the_clock_tick(&repo.git_dir());
        Self { repo, live, old, new }
    }

    pub fn finish(self) {
        self.live.finish();
        assert_eq!(value(&self.repo, "refs/heads/slow"), self.new, "it ends as if nothing had been");
        assert_recovers(&self.repo);
    }
}

pub fn update(repo: &Repo) -> Command {
    crash::git(repo, &["update-ref", "--stdin"])
}

/// A git that hangs at a FIFO with a ref's lock in its hands.
pub struct Hanging {
    child: Child,
    git_dir: PathBuf,
    fifo: PathBuf,
    branch: String,
}

impl Hanging {
    pub fn start(repo: &Repo, mut command: Command, branch: &str, input: &str) -> Self {
        let git_dir = repo.git_dir();
        let fifo = git_dir.join("logs/refs/heads").join(branch);
        fs::remove_file(&fifo).expect("the branch has a reflog");
        mkfifo(&fifo, Mode::from_bits_truncate(0o600)).expect("a FIFO can be made");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("git starts");
        // Its input stays open: git reads it to the end only after the commit.
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("git reads");
        let hanging = Self { child, git_dir, fifo, branch: branch.to_owned() };
        let pid = hanging.pid();
        wait_until("git waits for a reader of the reflog", || is_opening(pid) && hanging.lock().exists());
        hanging
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn lock(&self) -> PathBuf {
        self.git_dir.join(format!("refs/heads/{}.lock", self.branch))
    }

    /// Reads what git has to say and lets it end.
    pub fn finish(mut self) {
        let mut entry = String::new();
        fs::File::open(&self.fifo).and_then(|mut fifo| fifo.read_to_string(&mut entry)).expect("the FIFO can be read");
        let status = self.child.wait().expect("git can be waited for");
        let mut said = String::new();
        self.child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("it says text");
        assert!(status.success(), "the live git succeeds: {said}");
        self.become_a_file(&entry);
    }

    fn kill(mut self) {
        self.child.kill().expect("git can be killed");
        let status = self.child.wait().expect("git can be waited for");
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "it was alive until now");
        self.become_a_file("");
    }

    /// Nobody else is to hang at the FIFO.
    fn become_a_file(&self, content: &str) {
        fs::remove_file(&self.fifo).expect("the FIFO is there");
        fs::write(&self.fifo, content).expect("the reflog can be written");
    }
}

impl Drop for Hanging {
    /// A test that failed must not leave a git behind that is in the way of the others.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Whether a process is inside of `open` or `openat`.
fn is_opening(pid: Pid) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number: Option<i64> = call.split(' ').next().and_then(|word| word.parse().ok());
    number.is_some_and(|number| OPENING.contains(&number))
}

#[cfg(target_arch = "x86_64")]
const OPENING: &[i64] = &[libc::SYS_openat, libc::SYS_open];
#[cfg(not(target_arch = "x86_64"))]
const OPENING: &[i64] = &[libc::SYS_openat];

/// Whether a process exists and is no zombie.
fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    Path::new(&format!("/proc/{pid}")).exists() && !matches!(state, Some('Z' | 'X') | None)
}

#[test]
fn a_lock_that_the_program_which_runs_us_has_open_stays() {
    let repo = guarded();
    let lock = repo.git_dir().join("refs/heads/held.lock");
    let held = fs::File::create_new(&lock).expect("we lock, as a library would");
    let (code, said) = recover(&repo);
    assert!(lock.exists(), "it is ours, and we are alive: {code}: {said}");
    drop(held);
    let (code, said) = recover(&repo);
    assert!(code == 0 && !lock.exists(), "nobody has it any more: {code}: {said}");
}
