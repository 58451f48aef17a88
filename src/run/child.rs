//! The command of a run: started, watched, reaped.
//!
//! The runner becomes the parent of whatever its command leaves behind (child subreaper), so that nobody of the tree gets
//! lost. Signals from the keyboard reach the command by themselves, it is in the same process group; those that somebody
//! sends to the runner alone are passed on. What was ignored when the runner started stays ignored.

use std::process::Command;
use std::{fs, io};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this exit code.
    Exited(u8),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// The exit code that a shell would report.
    pub(crate) fn code(self) -> u8 {
        match self {
            Ended::Exited(code) => code,
            Ended::Killed(signal) => 128_u8.wrapping_add(u8::try_from(signal).unwrap_or(0)),
        }
    }

    fn of(status: WaitStatus) -> Option<Ended> {
        if let Some(code) = status.exit_status() {
            return Some(Ended::Exited(u8::try_from(code & 0xff).unwrap_or(1)));
        }
        status.terminating_signal().map(Ended::Killed)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Exited(code) => write!(f, "exit code {code}"),
            Ended::Killed(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Runs `command` to its end; `beat` is called now and then meanwhile. `None`: how it ended cannot be told.
pub(crate) fn run(mut command: Command, beat: impl Fn() + Send) -> io::Result<Option<Ended>> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Handlers first: a signal in between would end the runner and leave the command.
    let mut signals = SignalsInfo::<WithOrigin>::new(to_watch())?;
    let handle = signals.handle();
    let (done, stop) = std::sync::mpsc::channel::<()>();
    // In our process group, and so in the terminal's foreground; ignored signals are inherited, handlers are not.
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            const PERIOD: std::time::Duration = std::time::Duration::from_millis(500);
            while stop.recv_timeout(PERIOD) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                beat();
            }
        });
        let ended = wait(pid, &mut signals);
        handle.close();
        drop(done);
        Ok(ended.ok())
    })
}

fn wait(pid: Pid, signals: &mut SignalsInfo<WithOrigin>) -> io::Result<Ended> {
    // It may have ended before anybody looked.
    if let Some(ended) = reap(pid)? {
        return Ok(ended);
    }
    for origin in &mut *signals {
        if origin.signal == SIGCHLD {
            if let Some(ended) = reap(pid)? {
                return Ok(ended);
            }
            continue;
        }
        // The keyboard's signals come from the kernel, and the command has them already.
        if origin.process.is_some()
            && let Some(signal) = Signal::from_named_raw(origin.signal)
            && rustix::process::kill_process(pid, signal).is_err()
        {
            // It has ended just now: its end is reaped next.
        }
    }
    Err(io::Error::other("the exit status of the command is unknown"))
}

/// Reaps whoever has ended; the command's own end is returned.
fn reap(pid: Pid) -> io::Result<Option<Ended>> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((who, status))) if who == pid => {
                if let Some(ended) = Ended::of(status) {
                    return Ok(Some(ended));
                }
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reaps whoever of the tree has ended.
pub(crate) fn reap_all() -> io::Result<()> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Signals to handle: all that are not ignored already (`nohup`, a shell's background job).
fn to_watch() -> Vec<i32> {
    let ignored = ignored();
    let all = [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2];
    all.into_iter().filter(|s| ignored & (1 << (s - 1)) == 0).chain([SIGCHLD]).collect()
}

/// The mask of ignored signals.
fn ignored() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).unwrap_or(0)
}
