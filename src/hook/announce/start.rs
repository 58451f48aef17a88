//! Starting the watch: by the first hook that finds none.
//!
//! It is started with five variables, no stream, and `/` as its directory; what else it must not inherit (descriptors, ignored
//! signals, the session) it drops itself, because it is a fresh process and nothing of it is in use. What it cannot drop keeps it
//! from being started ([`super::hindrance`]).
//!
//! A note says when, and why not: a start that failed is not tried again for a minute, and one that a subreaper has adopted not in
//! this boot.

use std::ffi::OsString;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::fs::{durable, named as fs};
use crate::hook::announce::{Address, hindrance};
use crate::process::owner;
use crate::state::WatchMode;

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
    pub(crate) runtime: Option<OsString>,
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
            in_ci: is_set("CI"),
            is_inner: is_set(crate::util::env::RUN) || is_set("GIT_QUARANTINE_PATH"),
        }
    }

    /// Nothing is announced.
    pub(crate) fn is_silent(&self) -> bool {
        self.mode == Some(WatchMode::Off)
    }

    /// Where the watch of this user listens.
    pub(crate) fn address(&self) -> Option<Address> {
        Address::of(self.runtime.as_ref())
    }

    /// Why a hook would not start it, for people; `None` when it would.
    pub(crate) fn hindrance(&self, set: WatchMode) -> Option<&'static str> {
        let is_auto = self.mode.unwrap_or(set) == WatchMode::Auto;
        self.refusal(set).or_else(|| hindrance::of_this_process(is_auto))
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

/// Starts the watch, unless something speaks against it, or one was started a moment ago.
pub(crate) fn start_if_wanted(caller: &Caller, address: &Address, set: WatchMode) {
    if caller.refusal(set).is_some() || address.prepare().is_err() {
        return;
    }
    if Tried::read(address).is_some_and(|tried| tried.is_reason_to_wait()) {
        return;
    }
    let why = caller.hindrance(set);
    if Tried::note(address, why.unwrap_or_default()).is_ok() && why.is_none() && start().is_err() {
        // No place, no process, no memory: git goes on without.
    }
}

/// What is known of the last start.
pub(crate) struct Tried {
    at: SystemTime,
    boot: String,
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
        let text = String::from_utf8(text).ok()?;
        let (boot, why) = text.split_once('\n').unwrap_or_default();
        Some(Tried { at, boot: boot.to_owned(), why: why.trim_end().to_owned() })
    }

    /// Writes down a start, or why there was none.
    pub(crate) fn note(address: &Address, why: &str) -> io::Result<()> {
        durable::remove_file(&address.tried())?;
        durable::create_new(&address.tried(), format!("{}\n{why}\n", owner::boot_id()?).as_bytes()).map(|_| ())
    }

    /// Is it not to be tried again?
    fn is_reason_to_wait(&self) -> bool {
        // One in the future has been set back since, and counts for nothing.
        let is_recent = SystemTime::now().duration_since(self.at).is_ok_and(|age| age < PAUSE);
        is_recent || self.is_adopted()
    }

    /// Was the one that was started in this boot adopted?
    pub(crate) fn is_adopted(&self) -> bool {
        self.why == Tried::ADOPTED && owner::boot_id().is_ok_and(|boot| boot == self.boot)
    }
}

/// Starts this program as the watch.
pub(crate) fn start() -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["watch", "--started", &std::process::id().to_string()]).current_dir("/").env_clear();
    command.envs(VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(|_| ())
}
