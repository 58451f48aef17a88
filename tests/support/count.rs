//! Counts what hook calls cost: system calls, bytes read, peak memory. Figures that are the same on every machine, under any
//! load, unlike times.
//!
//! A small tracer of its own, that stops at every system call and changes nothing (`tracer` stops at few, and may kill).
#![allow(unsafe_code, reason = "tracing is made of system calls")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// One call of our hook.
#[derive(Clone, Debug, Default)]
pub struct HookCall {
    /// What git called it with: `prepared`, ...
    pub state: String,
    /// System calls from exec to exit, without the reads of stdin.
    pub syscalls: usize,
    /// Bytes that it read.
    pub read: u64,
    /// Peak resident memory in bytes.
    pub peak: u64,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// System calls as well, which stops at each of them.
    Syscalls,
    /// Peak memory only.
    Memory,
}

#[derive(Default)]
struct Process {
    call: Option<HookCall>,
    inside: bool,
}

/// Runs `command` with the file `input` as its stdin and returns the calls of our hook in the order in which they ended.
pub fn hook_calls(mut command: Command, input: &Path, depth: Depth) -> Vec<HookCall> {
    let input = File::open(input).expect("the input can be opened");
    command.stdin(Stdio::from(input)).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: both calls are async-signal-safe and touch no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            ptrace::traceme()?;
            nix::sys::signal::raise(Signal::SIGSTOP)?;
            Ok(())
        });
    }
    follow(command, depth)
}

fn follow(mut command: Command, depth: Depth) -> Vec<HookCall> {
    // `spawn` would wait for the exec, before which the child stops.
    let root = fork(&mut command);
    let any = Some(WaitPidFlag::__WALL | WaitPidFlag::from_bits_retain(libc::__WNOTHREAD));
    waitpid(root, any).expect("the child stops before its exec");
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(root, options).expect("the child can be traced");
    go_on(root, depth, None);
    let (mut processes, mut ended) = (HashMap::<Pid, Process>::new(), Vec::new());
    while let Ok(status) = waitpid(Pid::from_raw(-1), any) {
        match status {
            WaitStatus::PtraceSyscall(pid) => {
                let process = processes.entry(pid).or_default();
                process.inside = !process.inside;
                if let Some(call) = &mut process.call {
                    count(pid, call, process.inside);
                }
                go_on(pid, depth, None);
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == Event::PTRACE_EVENT_EXEC as i32 {
                    processes.insert(pid, Process { call: hook(pid), inside: true });
                } else if event == Event::PTRACE_EVENT_EXIT as i32
                    && let Some(mut call) = processes.get_mut(&pid).and_then(|p| p.call.take())
                {
                    call.peak = peak(pid);
                    ended.push(call);
                }
                go_on(pid, depth, None);
            }
            // A new process begins with a stop that is no signal of anybody's.
            WaitStatus::Stopped(pid, signal) => {
                go_on(pid, depth, Some(signal).filter(|s| !matches!(s, Signal::SIGSTOP | Signal::SIGTRAP)));
            }
            WaitStatus::Exited(pid, code) if pid == root => assert_eq!(code, 0, "the command succeeds"),
            _ => {}
        }
    }
    ended
}

fn fork(command: &mut Command) -> Pid {
    // SAFETY: the child executes at once, and only what `exec` does without allocating after `fork` matters here: this thread
    // holds no lock.
    match unsafe { nix::unistd::fork() }.expect("a process can be made") {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            let error = command.exec();
            eprintln!("cannot start the command: {error}");
            // SAFETY: ends the child without running anything of its parent's.
            unsafe { libc::_exit(127) }
        }
    }
}

fn go_on(pid: Pid, depth: Depth, signal: Option<Signal>) {
    let gone = match depth {
        Depth::Syscalls => ptrace::syscall(pid, signal),
        Depth::Memory => ptrace::cont(pid, signal),
    };
    // It may have been killed meanwhile: then its end is the next that we hear.
    gone.ok();
}

fn count(pid: Pid, call: &mut HookCall, entering: bool) {
    if entering {
        call.syscalls += 1;
        return;
    }
    let registers = ptrace::getregs(pid).expect("a stopped process has registers");
    let (number, result) = (registers.orig_rax.cast_signed(), registers.rax.cast_signed());
    if number == libc::SYS_read && registers.rdi == 0 {
        // Git writes to the hook line by line: how many of the lines a read finds is the scheduler's.
        call.syscalls -= 1;
    }
    if [libc::SYS_read, libc::SYS_pread64].contains(&number) {
        call.read += u64::try_from(result).unwrap_or(0);
    }
}

fn hook(pid: Pid) -> Option<HookCall> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let ours = exe.file_name()?.to_str()?.starts_with("jin-txn");
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let state = arguments.split('\0').nth(1)?.to_owned();
    ours.then(|| HookCall { state, ..HookCall::default() })
}

fn peak(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.expect("the process still has its memory") * 1024
}
