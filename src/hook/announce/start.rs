//! Starting the watch: by the first hook that finds none.
//!
//! It is started with five variables, no stream, and `/` as its directory; what else it must not inherit (descriptors, ignored
//! signals, the session) it drops itself, because it is a fresh process and nothing of it is in use. What it cannot drop keeps it
//! from being started ([`super::hindrance`]), or is bounded by its short life ([`crate::watch`]).
//!
//! A note says when, and why not; a watch that runs removes it. While it is there and younger than a minute, nobody tries again.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::fs::{durable, named as fs};
use crate::hook::announce::{Address, hindrance};
use crate::process::owner::ExecContext;
use crate::state::WatchMode;
use crate::trust::Notes;

/// The variables that the watch gets.
pub(crate) const VARIABLES: [&str; 5] = ["HOME", "PATH", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "LANG"];

/// A start that failed is not tried again for so long.
const PAUSE: Duration = Duration::from_secs(60);

/// Who may start it: read from the environment, once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    /// `JIN_WATCH`.
    pub(crate) mode: Option<WatchMode>,
    /// `XDG_RUNTIME_DIR`.
    runtime: Option<OsString>,
    /// Which repositories are the user's.
    notes: Option<Notes>,
    /// `CI` is set.
    pub(crate) in_ci: bool,
    /// Within a run, or while a push waits in quarantine.
    pub(crate) is_inner: bool,
}

impl Caller {
    /// Of a process with these variables.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<OsString>) -> Caller {
        let is_set = |name: &str| variable(name).is_some();
        Caller {
            mode: variable("JIN_WATCH").and_then(|value| WatchMode::parse(value.to_str()?).ok()),
            runtime: variable("XDG_RUNTIME_DIR"),
            notes: Notes::of(&variable),
            in_ci: is_set("CI"),
            is_inner: is_set(crate::util::env::RUN) || is_set("GIT_QUARANTINE_PATH"),
        }
    }

    /// Nothing is announced.
    pub(crate) fn is_silent(&self) -> bool {
        self.mode == Some(WatchMode::Off)
    }

    /// Where the watch of this user listens; `None` without a place, or a list of the user's repositories.
    pub(crate) fn address(&self) -> Option<Address> {
        Address::of(self.runtime.as_ref(), self.notes.as_ref()?)
    }

    /// Why a hook would not start it, for people; `None` when it would.
    pub(crate) fn hindrance(&self, address: &Address, set: WatchMode) -> Option<&'static str> {
        let is_auto = self.mode.unwrap_or(set) == WatchMode::Auto;
        self.refusal(set).or_else(|| hindrance::of_this_process(is_auto)).or_else(|| hindrance::of_the_last(address))
    }

    /// What speaks against it in the environment.
    fn refusal(&self, set: WatchMode) -> Option<&'static str> {
        let mode = self.mode.unwrap_or(set);
        let differs = rustix::process::getuid() != rustix::process::geteuid()
            || rustix::process::getgid() != rustix::process::getegid();
        match () {
            () if !mode.is_wanted() => Some("it is switched off (`jin.watch`, `JIN_WATCH`)"),
            () if self.is_inner => Some("this runs within a `jin-txn run`, or while a push waits in quarantine"),
            () if differs => Some("this process is setuid"),
            () if mode == WatchMode::Auto && self.in_ci => Some("`CI` is set (`jin.watch=on` starts it there, too)"),
            () => None,
        }
    }
}

/// Starts the watch for a git that is at work in `common_dir`, unless something speaks against it, or one was started a moment ago
/// that does not run.
pub(crate) fn start_if_wanted(caller: &Caller, address: &Address, set: WatchMode, common_dir: &Path) {
    if caller.refusal(set).is_some() || address.prepare().is_err() {
        return;
    }
    if Tried::read(address).is_some_and(|tried| tried.is_reason_to_wait()) {
        return;
    }
    let why = caller.hindrance(address, set);
    if Tried::note(address, why.unwrap_or_default()).is_ok() && why.is_none() && start(address, common_dir).is_err() {
        // No place, no process, no memory: git goes on without.
    }
}

/// What is known of the last start that came to nothing.
pub(crate) struct Tried {
    at: SystemTime,
    /// Why none runs; empty when one was started.
    pub(crate) why: String,
}

impl Tried {
    /// What a watch says that was adopted by a process which may wait for it.
    pub(crate) const ADOPTED: &str = "a program that collects orphaned processes would have waited for it (`jin-txn watch --install` starts it by systemd)";

    /// The last start; `None` when nothing is known of one.
    pub(crate) fn read(address: &Address) -> Option<Tried> {
        const LONGEST: u64 = 1 << 10;
        let at = fs::symlink_metadata(address.tried()).and_then(|found| found.modified()).ok()?;
        let text = durable::read_own(&address.tried(), LONGEST).ok()?;
        Some(Tried { at, why: String::from_utf8(text).ok()?.trim_end().to_owned() })
    }

    /// Writes down a start, or why there was none.
    pub(crate) fn note(address: &Address, why: &str) -> io::Result<()> {
        durable::remove_file(&address.tried())?;
        durable::create_new(&address.tried(), format!("{why}\n").as_bytes()).map(|_| ())
    }

    /// Of a watch that runs.
    pub(crate) fn forget(address: &Address) -> io::Result<()> {
        durable::remove_file(&address.tried())
    }

    /// Is it not to be tried again?
    fn is_reason_to_wait(&self) -> bool {
        // One in the future has been set back since, and counts for nothing.
        SystemTime::now().duration_since(self.at).is_ok_and(|age| age < PAUSE)
    }
}

/// How long it stays without a git. The first process of a container may wait for it, and so may whoever deletes a user without a
/// session. A session is over for its user when its last command has ended, whoever is left in it.
fn until_idle(address: &Address) -> Duration {
    const ELSEWHERE: Duration = Duration::from_secs(30);
    const IN_A_SESSION: Duration = Duration::from_secs(600);
    let is_on_host = ExecContext::here().is_ok_and(|here| here.sees_everything());
    if address.is_of_session && is_on_host { IN_A_SESSION } else { ELSEWHERE }
}

/// Starts this program as the watch.
fn start(address: &Address, common_dir: &Path) -> io::Result<()> {
    let (hook, until_idle) = (std::process::id().to_string(), until_idle(address).as_secs().to_string());
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["watch", "--started", &hook, "--until-idle", &until_idle, "--of"]).arg(common_dir);
    command.current_dir("/").env_clear();
    command.envs(VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn()?.stdout.map_or(Ok(()), |pipe| wait_until_detached(&pipe))
}

/// Waits until it has closed its end of `pipe`: then it has closed all that it has inherited, too. A script that gives up a lock with
/// the end of its git finds it free. On a machine that is too busy for that git does not wait.
fn wait_until_detached(pipe: &impl AsFd) -> io::Result<()> {
    const LONGEST: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    rustix::event::poll(&mut [PollFd::new(pipe, PollFlags::empty())], Some(&LONGEST))?;
    Ok(())
}
