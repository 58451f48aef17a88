//! Runs a tree of processes and kills it at a chosen file-system change, or lets that change fail.
//!
//! Every call that changes a file system stops at its *entry* and is an [`Event`], numbered from 1 over the whole tree. The
//! caller decides at each event; whoever is killed there has not executed that call.
//!
//! Tracing belongs to the calling *thread* (`__WNOTHREAD`), so tests may trace in parallel. The process becomes a child
//! subreaper: orphans stay visible, and [`trace`] returns only when all of the tree is gone.
//!
//! Limits: a group-stop (`SIGSTOP`, `SIGTSTP`) is continued at once instead of being kept. Calls of one process are numbered
//! the same in every run, those of processes that run concurrently may interleave differently.

#![allow(unsafe_code, reason = "tracing is made of system calls")]

mod filter;
mod session;
mod syscalls;

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::Pid;

use filter::Filter;
use session::Session;

/// Who is about to change the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Any git executable.
    Git,
    /// `jin-txn`, whatever it is called as.
    Hook,
    /// Shells and the rest.
    Other,
}

impl Role {
    fn of(exe: &Path) -> Self {
        match exe.file_name().and_then(|name| name.to_str()) {
            Some(name) if name.starts_with("jin-txn") => Self::Hook,
            Some(name) if name.starts_with("git") => Self::Git,
            _ => Self::Other,
        }
    }
}

/// One file-system change that is about to happen.
#[derive(Clone, Debug)]
pub struct Event {
    /// Position in the run, from 1.
    pub n: usize,
    pub pid: Pid,
    pub syscall: &'static str,
    /// Of an open, its flags.
    pub flags: i32,
    /// The file, absolute.
    pub path: Option<PathBuf>,
    /// The new name, for renames and links.
    pub path2: Option<PathBuf>,
    pub exe: PathBuf,
    pub role: Role,
}

impl Event {
    /// Does it create a lock file?
    pub fn takes_lock(&self) -> bool {
        let is_lock = self.path.as_deref().is_some_and(|path| path.extension().is_some_and(|it| it == "lock"));
        self.syscall.starts_with("open") && is_lock
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "event {} by {:?}: {}(", self.n, self.role, self.syscall)?;
        if let Some(path) = &self.path {
            write!(f, "{}", path.display())?;
        }
        if let Some(path2) = &self.path2 {
            write!(f, " -> {}", path2.display())?;
        }
        write!(f, ")")
    }
}

/// Which calls are events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Those that change a file system.
    Changing,
    /// Those, every open, and locking: all that a failing disk or a full table can refuse.
    Failing,
    /// Those, and every open in `/proc`: how one process looks at another.
    Looking,
}

/// What to do at an event. After somebody was killed no further event is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Continue,
    /// Do not execute this call, and let it return this error (x86-64 only).
    Fail(Errno),
    /// Let this write take only half of its bytes (x86-64 only).
    Shorten,
    /// Kill every process of the tree at once.
    KillTree,
    /// Kill the git processes; hooks go on as orphans.
    KillGit,
    /// Kill the hook processes; git goes on.
    KillHook,
    /// Kill only the process of this event.
    KillOne,
    /// Send this signal to the git processes; hooks hear nothing of it.
    SignalGit(Signal),
    /// Send this signal to every process, as a terminal does to the foreground group.
    SignalTree(Signal),
    /// Kill the first process of the tree: for a container's init, the kernel kills the rest.
    KillRoot,
}

/// Where the tree runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    None,
    /// In a pid namespace with its own `/proc`, like a container; needs root.
    Container,
}

/// How a traced run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Events seen, the fatal one included.
    pub events: usize,
    /// The event at which somebody was killed.
    pub killed: Option<Event>,
    /// How the direct child ended.
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs `command` to its end, asking `decide` at every file-system change.
///
/// # Errors
/// When the command cannot be started; [`io::ErrorKind::PermissionDenied`] when a container is asked for without the right to
/// make one.
///
/// # Panics
/// When the tree is still alive after a minute; it is killed first.
pub fn trace(
    command: Command,
    stdin: &[u8],
    isolation: Isolation,
    decide: &mut dyn FnMut(&Event) -> Action,
) -> io::Result<Outcome> {
    trace_calls(command, stdin, isolation, Calls::Changing, decide)
}

/// As [`trace`], with a choice of the calls that are events.
///
/// # Errors
/// As for [`trace`].
pub fn trace_calls(
    mut command: Command,
    stdin: &[u8],
    isolation: Isolation,
    calls: Calls,
    decide: &mut dyn FnMut(&Event) -> Action,
) -> io::Result<Outcome> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let [mut input, mut stdout, mut stderr] =
        [c"stdin", c"stdout", c"stderr"].map(|name| memfd_create(name, MFdFlags::MFD_CLOEXEC).map(File::from));
    let [input, stdout, stderr] =
        [&mut input, &mut stdout, &mut stderr].map(|file| file.as_mut().expect("memory files can always be made"));
    input.write_all(stdin)?;
    input.rewind()?;
    command.stdin(Stdio::from(input.try_clone()?));
    command.stdout(Stdio::from(stdout.try_clone()?));
    command.stderr(Stdio::from(stderr.try_clone()?));

    let root = spawn(command, isolation, Filter::new(calls))?;
    let (events, killed, status) = Session::new(root, calls, decide).run();
    Ok(Outcome { events, killed, status, stdout: content(stdout)?, stderr: content(stderr)? })
}

/// Runs `command` undisturbed and returns its file-system changes in order.
///
/// # Errors
/// When the command cannot be started.
pub fn events_of(command: Command, stdin: &[u8]) -> io::Result<(Vec<Event>, Outcome)> {
    let mut events = Vec::new();
    let outcome = trace(command, stdin, Isolation::None, &mut |event| {
        events.push(event.clone());
        Action::Continue
    })?;
    Ok((events, outcome))
}

/// Starts the command stopped at its `exec`, traced by this thread.
fn spawn(mut command: Command, isolation: Isolation, filter: Filter) -> io::Result<Pid> {
    let container = isolation == Isolation::Container;
    let prepare = move || {
        if container {
            mount_own_proc()?;
        }
        // A shell that started the tests in the background has it ignored, and git then survives a SIGINT without its locks.
        for told in [Signal::SIGINT, Signal::SIGTERM] {
            // SAFETY: no handler is installed.
            unsafe { signal(told, SigHandler::SigDfl) }?;
        }
        nix::sys::ptrace::traceme()?;
        filter.install()
    };
    // SAFETY: the closure only makes system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
    let child = if container { in_new_pid_namespace(|| command.spawn())? } else { command.spawn()? };
    Ok(Pid::from_raw(child.id().cast_signed()))
}

/// Calls `start` so that the next child of this thread is the init of a new pid namespace.
fn in_new_pid_namespace<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let home = File::open("/proc/thread-self/ns/pid")?;
    unshare(CloneFlags::CLONE_NEWPID)
        .map_err(|_| io::Error::new(io::ErrorKind::PermissionDenied, "no right to make a pid namespace"))?;
    let started = start();
    setns(home, CloneFlags::CLONE_NEWPID)?;
    started
}

/// Shows the tree only its own processes, as a container does.
fn mount_own_proc() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE)?;
    mount(c"proc", c"/proc", 0)
}

fn mount(what: &CStr, place: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: all strings end in a NUL byte and outlive the call; no data is passed.
    let result = unsafe { libc::mount(what.as_ptr(), place.as_ptr(), what.as_ptr(), flags, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn content(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
