//! What the watch does, for `watch --status`, `status` and `doctor`: a file that it writes when something changes.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::fs::durable;
use crate::hook::announce::Address;
use crate::process::owner::{Process, Stat};
use crate::state::flock;
use crate::util::clock::unix_time;
use crate::util::text::shown;

/// The most that the file has.
const LONGEST: u64 = 64 << 10;

/// What a watch says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) pid: u32,
    pub(crate) start: u64,
    /// Unix time of its start.
    pub(crate) since: u64,
    /// How many repositories it watches.
    pub(crate) repositories: usize,
    /// The user may watch no more directories: some are not seen.
    pub(crate) limit_reached: bool,
    /// What it did last.
    pub(crate) last: Option<Done>,
}

/// One recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Unix time.
    pub(crate) at: u64,
    /// The git directory.
    pub(crate) repository: String,
}

impl Done {
    pub(crate) fn now(common_dir: &Path) -> Done {
        Done { at: unix_time(), repository: shown(common_dir) }
    }
}

impl Status {
    pub(crate) fn write(&self, address: &Address) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        durable::replace(&address.status(), &text)
    }

    /// Of the watch that runs; `None` when none does.
    pub(crate) fn read(address: &Address) -> Option<Status> {
        if !address.is_usable() || !flock::is_held(&address.lock()).unwrap_or(false) {
            return None;
        }
        let text = durable::read_own(&address.status(), LONGEST).ok()?;
        let status: Status = serde_json::from_slice(&text).ok()?;
        Stat::may_live(status.process()).then_some(status)
    }

    fn process(&self) -> Process {
        Process { pid: self.pid, start: self.start }
    }

    /// Ends this watch, and waits until it is gone. False when that takes too long.
    pub(crate) fn stop(&self) -> io::Result<bool> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(true) };
        let watch = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(true),
            opened => opened?,
        };
        if !Stat::may_live(self.process()) {
            return Ok(true);
        }
        rustix::process::pidfd_send_signal(&watch, Signal::TERM)?;
        let mut waited = [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        Ok(rustix::event::poll(&mut waited, Some(&limit))? > 0)
    }
}
