//! The loop that follows a tree of traced processes to its end.
//!
//! ```text
//!            seccomp stop                 decide: kill
//! Counting ---------------> Counting ---------------------> KillingAll   whoever still shows up dies too
//!                                      \------------------> Letting      the survivors run on untouched
//! ```

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, thread};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::syscalls::Call;
use super::{Action, Calls, Event, Role};

/// How long a tree may live, orphans included.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Counting,
    KillingAll,
    Letting,
}

pub struct Session<'a> {
    root: Pid,
    calls: Calls,
    decide: &'a mut dyn FnMut(&Event) -> Action,
    phase: Phase,
    /// Alive as far as we know; shared with the watchdog.
    live: Arc<Mutex<BTreeSet<Pid>>>,
    /// Processes whose first stop we have seen.
    started: BTreeSet<Pid>,
    events: usize,
    killed: Option<Event>,
    status: ExitStatus,
}

impl<'a> Session<'a> {
    pub fn new(root: Pid, calls: Calls, decide: &'a mut dyn FnMut(&Event) -> Action) -> Self {
        Self {
            root,
            calls,
            decide,
            phase: Phase::Counting,
            live: Arc::new(Mutex::new(BTreeSet::from([root]))),
            started: BTreeSet::new(),
            events: 0,
            killed: None,
            status: ExitStatus::from_raw(0),
        }
    }

    /// Follows the tree until no process of it is left.
    pub fn run(mut self) -> (usize, Option<Event>, ExitStatus) {
        let (done, watch) = mpsc::channel::<()>();
        let live = Arc::clone(&self.live);
        let watchdog = thread::spawn(move || match watch.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Timeout) => {
                let stuck = live.lock().expect("nobody panics with this lock").clone();
                stuck.iter().for_each(|&pid| kill_now(pid));
                Some(stuck)
            }
            _ => None,
        });
        self.follow();
        drop(done);
        let stuck = watchdog.join().expect("the watchdog does not panic");
        self.reap_orphans();
        assert!(stuck.is_none(), "these processes did not end within {PATIENCE:?}: {stuck:?}");
        (self.events, self.killed, self.status)
    }

    fn follow(&mut self) {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(status) => self.handle(status),
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return,
                Err(error) => panic!("waiting for a traced process failed: {error}"),
            }
        }
    }

    /// A process that we saw end as its tracer stays a zombie until its parent asks. When the parent is dead, that is us.
    fn reap_orphans(&self) {
        for &pid in &self.started {
            while waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))
                .is_ok_and(|s| s != WaitStatus::StillAlive)
            {}
        }
    }

    fn handle(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, code) => self.ended(pid, ExitStatus::from_raw(code << 8)),
            WaitStatus::Signaled(pid, signal, _) => self.ended(pid, ExitStatus::from_raw(signal as i32)),
            WaitStatus::PtraceEvent(pid, _, event) => self.at_event(pid, event),
            WaitStatus::Stopped(pid, signal) => self.stopped(pid, signal),
            _ => {}
        }
    }

    fn ended(&mut self, pid: Pid, status: ExitStatus) {
        self.live().remove(&pid);
        if pid == self.root {
            self.status = status;
        }
    }

    fn stopped(&mut self, pid: Pid, signal: Signal) {
        let first = self.started.insert(pid);
        self.live().insert(pid);
        if first && pid == self.root {
            let wanted = Options::PTRACE_O_TRACESECCOMP
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_TRACEEXEC
                | Options::PTRACE_O_EXITKILL;
            ptrace::setoptions(pid, wanted).expect("the first process of the tree is stopped at its exec");
            return self.go_on(pid, None);
        }
        let ours = first && signal == Signal::SIGSTOP;
        let delivered = !ours && ptrace::getsiginfo(pid).is_ok();
        self.go_on(pid, delivered.then_some(signal));
    }

    fn at_event(&mut self, pid: Pid, event: i32) {
        match event {
            libc::PTRACE_EVENT_SECCOMP if self.phase == Phase::Counting => {
                return self.at_change(pid);
            }
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                if let Some(child) = message(pid) {
                    self.live().insert(child);
                }
            }
            libc::PTRACE_EVENT_EXEC => {
                if let Some(thread) = message(pid).filter(|&thread| thread != pid) {
                    self.live().remove(&thread);
                }
            }
            _ => {}
        }
        self.go_on(pid, None);
    }

    fn at_change(&mut self, pid: Pid) {
        let Some(event) = self.event(pid) else {
            return self.go_on(pid, None);
        };
        self.events += 1;
        let action = (self.decide)(&event);
        match action {
            Action::Continue => return self.go_on(pid, None),
            Action::Fail(errno) => {
                fail(pid, errno);
                return self.go_on(pid, None);
            }
            Action::Shorten => {
                shorten(pid);
                return self.go_on(pid, None);
            }
            _ => {}
        }
        self.phase = if action == Action::KillTree { Phase::KillingAll } else { Phase::Letting };
        // All victims are signalled before anybody is resumed.
        let victims: Vec<Pid> =
            self.live().iter().copied().filter(|&it| is_victim(action, it, &event, self.root)).collect();
        if let Action::SignalGit(signal) | Action::SignalTree(signal) = action {
            victims.iter().for_each(|&victim| {
                kill(victim, signal).ok();
            });
            self.killed = Some(event);
            return self.go_on(pid, None);
        }
        victims.iter().for_each(|&victim| kill_now(victim));
        self.killed = Some(event);
        if !victims.contains(&pid) {
            self.go_on(pid, None);
        }
    }

    fn event(&self, pid: Pid) -> Option<Event> {
        let info = ptrace::syscall_info(pid).ok().filter(|info| info.op == libc::PTRACE_SYSCALL_INFO_SECCOMP)?;
        // SAFETY: `op` says which member of the union the kernel has filled in.
        let entry = unsafe { info.u.seccomp };
        let call = Call { pid, number: entry.nr.cast_signed(), args: entry.args, calls: self.calls };
        let change = call.change()?;
        let exe = exe(pid);
        let role = Role::of(&exe);
        Some(Event {
            n: self.events + 1,
            pid,
            syscall: change.syscall,
            flags: change.flags,
            path: change.path,
            path2: change.path2,
            exe,
            role,
        })
    }

    /// Resumes a process; in a general kill, kills it instead.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        if self.phase == Phase::KillingAll {
            return kill_now(pid);
        }
        match ptrace::cont(pid, signal) {
            // It was killed while it was stopped; its end is reported next.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => panic!("resuming {pid} failed: {error}"),
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, BTreeSet<Pid>> {
        self.live.lock().expect("nobody panics with this lock")
    }
}

fn is_victim(action: Action, pid: Pid, event: &Event, root: Pid) -> bool {
    match action {
        Action::Continue | Action::Fail(_) | Action::Shorten => false,
        Action::KillTree | Action::SignalTree(_) => true,
        Action::KillGit | Action::SignalGit(_) => Role::of(&exe(pid)) == Role::Git,
        Action::KillHook => Role::of(&exe(pid)) == Role::Hook,
        Action::KillOne => pid == event.pid,
        Action::KillRoot => pid == root,
    }
}

/// Lets the call at whose entry a process is stopped return an error without being executed.
#[cfg(target_arch = "x86_64")]
fn fail(pid: Pid, errno: Errno) {
    change_registers(pid, |registers| {
        // A call with this number is skipped, and what stands in `rax` is its result.
        registers.orig_rax = u64::MAX;
        registers.rax = i64::from(-(errno as i32)).cast_unsigned();
    });
}

/// Lets the write at whose entry a process is stopped take only half of its bytes.
#[cfg(target_arch = "x86_64")]
fn shorten(pid: Pid) {
    change_registers(pid, |registers| registers.rdx = registers.rdx.div_ceil(2));
}

#[cfg(target_arch = "x86_64")]
fn change_registers(pid: Pid, change: impl FnOnce(&mut libc::user_regs_struct)) {
    // It may have been killed while it was stopped.
    let Ok(mut registers) = ptrace::getregs(pid) else { return };
    change(&mut registers);
    ptrace::setregs(pid, registers).ok();
}

#[cfg(not(target_arch = "x86_64"))]
fn fail(_: Pid, _: Errno) {
    panic!("faults are injected on x86-64 only");
}

#[cfg(not(target_arch = "x86_64"))]
fn shorten(_: Pid) {
    panic!("faults are injected on x86-64 only");
}

fn exe(pid: Pid) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default()
}

/// Sends SIGKILL. Fails only when the process is gone, which is what we want.
fn kill_now(pid: Pid) {
    kill(pid, Signal::SIGKILL).ok();
}

/// Returns the process that an event is about.
fn message(pid: Pid) -> Option<Pid> {
    let number = ptrace::getevent(pid).ok()?;
    i32::try_from(number).ok().map(Pid::from_raw)
}
