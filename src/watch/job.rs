//! Recovery of one repository, in a child of the watch.
//!
//! The child is a process group of its own, so that it can be ended with the gits that it has started: recovery that is killed is
//! repeated, to the same end.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::Mode as Bits;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::git::Repository;
use crate::hook::announce::start::VARIABLES;
use crate::locks::{Seen, SeenLock};
use crate::process::owner::{Process, Stat};
use crate::recovery::{self, Mode, Options, Report};
use crate::state::{StateDir, told};
use crate::trust::{Notes, ownership};
use crate::util::clock::unix_time;
use crate::util::date::utc;
use crate::util::text::{escape, unescape};
use crate::watch::repositories::Key;

/// How urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Priority {
    /// Somebody has died.
    Now,
    /// What the last boot left: gives way to everybody.
    Idle,
}

/// What the child is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    common_dir: String,
    seen: Vec<SeenLock>,
    /// Command lines of the dead, as far as they were seen.
    commands: Vec<String>,
    priority: Priority,
}

impl Request {
    pub(crate) fn new(common_dir: &Path, priority: Priority) -> Request {
        let common_dir = escape(common_dir.as_os_str().as_bytes()).into_owned();
        Request { common_dir, seen: Vec::new(), commands: Vec::new(), priority }
    }

    /// The same with locks that were seen, and the commands that held them.
    pub(crate) fn with(mut self, seen: Vec<SeenLock>, mut commands: Vec<String>) -> Request {
        commands.dedup();
        (self.seen, self.commands) = (seen, commands);
        self
    }

    fn common_dir(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        unescape(&self.common_dir).map(|bytes| std::ffi::OsString::from_vec(bytes).into())
    }
}

/// A child that recovers.
pub(crate) struct Job {
    pub(crate) key: Key,
    pub(crate) priority: Priority,
    /// The child.
    pub(crate) process: Process,
    child: Child,
    began: Instant,
}

impl Job {
    /// Starts one.
    pub(crate) fn start(key: Key, request: &Request) -> anyhow::Result<Job> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("jin-txn").args(["watch", "--recover"]).current_dir("/").env_clear().process_group(0);
        command.envs(VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(&serde_json::to_vec(request)?)?;
        }
        let start = Stat::of(child.id()).map_or(0, |stat| stat.start);
        let process = Process { pid: child.id(), start };
        Ok(Job { key, priority: request.priority, process, child, began: Instant::now() })
    }

    /// When it has taken far too long. A check after a reboot reads much, and gives way to everybody.
    pub(crate) fn deadline(&self) -> Instant {
        const LONGEST: Duration = Duration::from_secs(300);
        const LONGEST_CHECK: Duration = Duration::from_secs(3600);
        self.began + if self.priority == Priority::Idle { LONGEST_CHECK } else { LONGEST }
    }

    /// Ends it, and waits until it is gone.
    pub(crate) fn end(mut self) {
        self.kill();
        while self.ended().is_none() {
            std::thread::yield_now();
        }
    }

    /// Ends it, with the gits that it has started: they have its lock.
    fn kill(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && rustix::process::kill_process_group(pid, Signal::KILL).is_err()
        {
            // It has ended by itself.
        }
    }

    /// How it ended; `None` while it works.
    pub(crate) fn ended(&mut self) -> Option<Option<u8>> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.code().and_then(|code| u8::try_from(code).ok())),
            Err(_) => Some(None),
        }
    }
}

/// The child: recovers, where this user has a note that fits. `None` where it has none.
pub(crate) fn recover(request: &Request, notes: &Notes, git: PathBuf) -> anyhow::Result<Option<Report>> {
    if request.priority == Priority::Idle && rustix::process::setpriority_process(None, 19).is_err() {
        // Then it is as quick as anything else.
    }
    let Some(repo) = request.common_dir().and_then(|dir| Repository::open(&dir).ok()) else { return Ok(None) };
    if ownership::require_linked(&repo).is_err() || !notes.cover(&StateDir::of(&repo)) {
        return Ok(None);
    }
    be_as_open_as(&repo.common_dir)?;
    let options = Options { mode: Mode::AfterTransaction, seen: Some(Seen(request.seen.clone())), ..Options::new(git) };
    let report = recovery::recover(&repo, &options)?;
    if told::leave(&StateDir::of(&repo), &lines_for_user(request, &report)).is_err() {
        // The log has it.
    }
    Ok(Some(report))
}

/// What the user is told at the next occasion: what was killed, whether it happened, what to do.
fn lines_for_user(request: &Request, report: &Report) -> Vec<String> {
    let mut lines = report.headlines();
    // Of a transaction its line says all that.
    let is_named = report.transactions.iter().any(|it| !it.quiet);
    if !lines.is_empty() && !is_named {
        let killed = request.commands.iter().map(|command| {
            format!("jin-txn: `{command}` was killed before it was done, at {}: run it again", utc(unix_time()))
        });
        lines.splice(0..0, killed);
    }
    lines
}

/// The first git that started the watch may have had any umask: what is made here is as open as the repository is.
fn be_as_open_as(dir: &Path) -> anyhow::Result<()> {
    let closed = !std::fs::metadata(dir)?.mode() & 0o077;
    rustix::process::umask(Bits::from_raw_mode(closed));
    Ok(())
}
