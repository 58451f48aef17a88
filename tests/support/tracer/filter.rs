//! A seccomp program that stops a process only where it may change a file system.
//!
//! Everything else runs at full speed, which makes thousands of traced runs affordable. The program looks at the call's number
//! and, for `open` and `openat`, at the flags. It assumes native programs: a 32-bit one would be judged by the wrong table.

use std::io;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

use super::Calls;
use super::syscalls::{self, CREATING, Changes};

/// Offset of the call's number in the kernel's `seccomp_data`.
const NUMBER: u32 = 0;
/// Offset of the first argument; each takes eight bytes, the low half first on the little-endian machines we support.
const ARGUMENTS: u32 = 16;

/// A compiled filter, ready to be installed by a child between fork and exec.
pub struct Filter {
    program: Vec<sock_filter>,
}

impl Filter {
    /// Compiles the table of watched system calls.
    pub fn new(calls: Calls) -> Self {
        let mut program = vec![statement(BPF_LD | BPF_W | BPF_ABS, NUMBER)];
        for watched in syscalls::all(calls) {
            let number = u32::try_from(watched.number).expect("system call numbers are small");
            match watched.changes {
                // An open that changes nothing can fail all the same.
                Changes::WithFlags(_) if calls != Calls::Changing => program.extend(always(number)),
                Changes::WithFlags(argument) => program.extend(with_flags(number, argument)),
                Changes::Always | Changes::WithFlagsBehind(_) => program.extend(always(number)),
            }
        }
        program.push(allow());
        Self { program }
    }

    /// Installs the filter in the calling process, for itself and all its descendants. Allocates nothing.
    pub fn install(&self) -> io::Result<()> {
        let program =
            libc::sock_fprog { len: self.program.len() as libc::c_ushort, filter: self.program.as_ptr().cast_mut() };
        // SAFETY: the pointer leads to `self.program`, which outlives the call; the kernel copies it.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn always(number: u32) -> [sock_filter; 2] {
    [jump(BPF_JEQ, number, 0, 1), trace()]
}

fn with_flags(number: u32, argument: usize) -> [sock_filter; 5] {
    let offset = ARGUMENTS + 8 * argument as u32;
    [
        jump(BPF_JEQ, number, 0, 4),
        statement(BPF_LD | BPF_W | BPF_ABS, offset),
        jump(BPF_JSET, CREATING as u32, 0, 1),
        trace(),
        allow(),
    ]
}

fn trace() -> sock_filter {
    statement(BPF_RET | BPF_K, libc::SECCOMP_RET_TRACE)
}

fn allow() -> sock_filter {
    statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt, jf, k }
}
