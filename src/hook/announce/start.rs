//! Starting the watch: by the first hook that finds none.
//!
//! It is started with five variables, no stream, and `/` as its directory; what else it must not inherit (descriptors, ignored
//! signals, the session) it drops itself, because it is a fresh process and nothing of it is in use.

use std::ffi::OsString;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::fs::{durable, named as fs};
use crate::hook::announce::Address;
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
        let mode = self.mode.unwrap_or(set);
        let differs = rustix::process::getuid() != rustix::process::geteuid()
            || rustix::process::getgid() != rustix::process::getegid();
        let is_auto = mode == WatchMode::Auto;
        match () {
            () if mode == WatchMode::Off => Some("it is switched off (`jin.watch`, `JIN_WATCH`)"),
            () if self.is_inner => Some("this runs within a `jin-txn run`, or while a push waits in quarantine"),
            () if differs => Some("this process is setuid"),
            () if is_auto && self.in_ci => Some("`CI` is set (`jin.watch=on` starts it there, too)"),
            () if is_auto && is_sandboxed() => {
                Some("this process is in a sandbox (`jin.watch=on` starts it there, too)")
            }
            () => None,
        }
    }
}

/// A process that must not gain privileges, in the machine's own namespaces; or bubblewrap is the first process, which waits for
/// all others.
fn is_sandboxed() -> bool {
    let first = std::fs::read("/proc/1/comm").unwrap_or_default();
    let on_host = crate::process::owner::ExecContext::here().is_ok_and(|here| here.sees_everything());
    first.starts_with(b"bwrap") || (on_host && rustix::thread::no_new_privs().unwrap_or(false))
}

/// Starts the watch, unless something speaks against it, or one was started a moment ago.
pub(crate) fn start_if_wanted(caller: &Caller, address: &Address, set: WatchMode) {
    if caller.hindrance(set).is_some() || address.prepare().is_err() || was_tried(address) {
        return;
    }
    if note_try(address).and_then(|()| start()).is_err() {
        // No place, no process, no memory: git goes on without.
    }
}

fn was_tried(address: &Address) -> bool {
    let tried = fs::symlink_metadata(address.tried()).and_then(|found| found.modified());
    // One in the future has been set back since, and counts for nothing.
    tried.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < PAUSE))
}

fn note_try(address: &Address) -> io::Result<()> {
    durable::remove_file(&address.tried())?;
    durable::create_new(&address.tried(), b"").map(|_| ())
}

/// Starts this program as the watch.
pub(crate) fn start() -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["watch", "--started"]).current_dir("/").env_clear();
    command.envs(VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(|_| ())
}
