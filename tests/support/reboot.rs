//! Runs a program as after a reboot: it sees another boot id.
//!
//! The program gets a mount namespace of its own in which a file with the other id lies over the kernel's. Everything it
//! starts sees the same; the rest of the machine sees nothing of it.
//!
//! ```ignore
//! let boot_id = reboot::new_boot_id();
//! let output = reboot::after(crash::jin(&repo, &["recover"]), &boot_id).output()?;
//! let output = reboot::after(crash::git(&repo, &["commit", "-qam", "next"]), &boot_id).output()?;
//! ```
//!
//! Limits: processes, clocks and the time since boot go on as before. Needs root or unprivileged user namespaces; without
//! them starting the program fails ([`is_possible`] tells).

#![allow(unsafe_code, reason = "namespaces are made between fork and exec")]

use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{getgid, getuid, unlink, write};

const BOOT_ID: &CStr = c"/proc/sys/kernel/random/boot_id";

/// Returns a boot id that no boot had.
pub fn new_boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel makes UUIDs");
    id.trim().to_owned()
}

/// Lets `command` see `boot_id`, whenever and however often it is started.
pub fn after(mut command: Command, boot_id: &str) -> Command {
    let content = format!("{boot_id}\n");
    let source = unused_path();
    let outsider =
        (!getuid().is_root()).then(|| [getuid().as_raw(), getgid().as_raw()].map(|id| format!("{id} {id} 1")));
    let prepare = move || {
        match &outsider {
            None => unshare(CloneFlags::CLONE_NEWNS)?,
            Some([user, group]) => {
                unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUSER)?;
                put(c"/proc/self/setgroups", OFlag::O_WRONLY, b"deny")?;
                put(c"/proc/self/uid_map", OFlag::O_WRONLY, user.as_bytes())?;
                put(c"/proc/self/gid_map", OFlag::O_WRONLY, group.as_bytes())?;
            }
        }
        mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE)?;
        put(&source, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, content.as_bytes())?;
        let mounted = mount(&source, BOOT_ID, libc::MS_BIND);
        unlink(source.as_c_str())?;
        mounted
    };
    // SAFETY: the closure only makes system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
    command
}

/// Runs what `command` makes as after a reboot.
///
/// Gits of other tests may be in the way for a moment: from another mount namespace they cannot always be told from ours.
pub fn output_after(mut command: impl FnMut() -> Command) -> Output {
    let start = Instant::now();
    loop {
        let output = after(command(), &new_boot_id()).output().expect("the program starts in a namespace of its own");
        let said = String::from_utf8_lossy(&output.stderr);
        let is_held = said.contains(" is running and may hold it") || said.contains("its repository cannot be told");
        if !is_held || start.elapsed() > Duration::from_secs(10) {
            return output;
        }
    }
}

/// Says whether this process may give a program another boot id.
pub fn is_possible() -> bool {
    after(Command::new("/bin/true"), &new_boot_id()).status().is_ok_and(|status| status.success())
}

/// A name for the file that lies over the kernel's; the child makes it and removes it before it runs the program.
fn unused_path() -> CString {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let base = env::var_os("JIN_TEST_TMP").map_or_else(env::temp_dir, PathBuf::from);
    let base = base.canonicalize().expect("the scratch directory exists");
    let name = format!("jin-boot-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    CString::new(OsString::from(base.join(name)).into_vec()).expect("a path has no NUL byte")
}

fn put(path: &CStr, flags: OFlag, content: &[u8]) -> io::Result<()> {
    let file = open(path, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o644))?;
    let written = write(&file, content)?;
    if written == content.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn mount(what: &CStr, place: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: all strings end in a NUL byte and outlive the call; no data is passed.
    let result = unsafe { libc::mount(what.as_ptr(), place.as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
