//! Lets system calls of a program, and of all that it starts, fail.

#![allow(unsafe_code, reason = "a seccomp filter is installed between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, c_long, c_ushort, sock_filter};

/// Lets every call of `syscall` (a `libc::SYS_` number) by `command` fail with `errno`.
pub fn failing(mut command: Command, syscall: c_long, errno: i32) -> Command {
    let number = u32::try_from(syscall).expect("system call numbers are small");
    let errno = u32::try_from(errno).expect("error numbers are positive");
    let step = |code: u32, jf: u8, k: u32| sock_filter { code: code as u16, jt: 0, jf, k };
    let program = [
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        step(BPF_JMP | BPF_JEQ | BPF_K, 1, number),
        step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: program.len() as c_ushort, filter: program.as_ptr().cast_mut() };
        // SAFETY: the pointer leads to an array that outlives the call; the kernel copies it.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure only makes system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(install) };
    command
}
