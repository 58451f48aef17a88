//! The system calls that change a file system, and what each one is about.
//!
//! The table is the single place that says which calls count. `filter.rs` compiles it into a seccomp program, the tracer
//! reads the arguments by it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::Calls;

/// Where a system call says what it works on. Numbers are argument positions.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// An open file; counts only when it is a regular file or a directory (no pipe, socket, terminal).
    Fd(usize),
    /// A path relative to the working directory.
    Path(usize),
    /// A directory descriptor and a path relative to it.
    PathAt(usize, usize),
    /// Two paths: from, to.
    Paths(usize, usize),
    /// Two directory descriptors with their paths: from, to.
    PathsAt((usize, usize), (usize, usize)),
}

/// When a system call changes something.
#[derive(Clone, Copy, Debug)]
pub enum Changes {
    Always,
    /// Only with `O_CREAT`, `O_TRUNC` or `O_TMPFILE` in the flags at this argument.
    WithFlags(usize),
    /// As `WithFlags`, but the flags are the first word of the structure at this argument, out of a filter's reach.
    WithFlagsBehind(usize),
}

/// One watched system call.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pub number: i64,
    pub name: &'static str,
    pub target: Target,
    pub changes: Changes,
}

/// The open flags that make `open` change the file system.
pub const CREATING: i32 = libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);

macro_rules! watched {
    ($($call:ident $name:literal $target:expr, $changes:expr;)*) => {
        &[$(Watched { number: libc::$call, name: $name, target: $target, changes: $changes }),*]
    };
}

/// Calls that every architecture has.
const COMMON: &[Watched] = watched! {
    SYS_openat "openat" Target::PathAt(0, 1), Changes::WithFlags(2);
    SYS_openat2 "openat2" Target::PathAt(0, 1), Changes::WithFlagsBehind(2);
    SYS_write "write" Target::Fd(0), Changes::Always;
    SYS_pwrite64 "pwrite64" Target::Fd(0), Changes::Always;
    SYS_writev "writev" Target::Fd(0), Changes::Always;
    SYS_pwritev "pwritev" Target::Fd(0), Changes::Always;
    SYS_pwritev2 "pwritev2" Target::Fd(0), Changes::Always;
    SYS_ftruncate "ftruncate" Target::Fd(0), Changes::Always;
    SYS_fallocate "fallocate" Target::Fd(0), Changes::Always;
    SYS_copy_file_range "copy_file_range" Target::Fd(2), Changes::Always;
    SYS_sendfile "sendfile" Target::Fd(0), Changes::Always;
    SYS_fsync "fsync" Target::Fd(0), Changes::Always;
    SYS_fdatasync "fdatasync" Target::Fd(0), Changes::Always;
    SYS_syncfs "syncfs" Target::Fd(0), Changes::Always;
    SYS_sync_file_range "sync_file_range" Target::Fd(0), Changes::Always;
    SYS_syncfs "syncfs" Target::Fd(0), Changes::Always;
    SYS_fchmod "fchmod" Target::Fd(0), Changes::Always;
    SYS_fchmodat "fchmodat" Target::PathAt(0, 1), Changes::Always;
    SYS_fchown "fchown" Target::Fd(0), Changes::Always;
    SYS_truncate "truncate" Target::Path(0), Changes::Always;
    SYS_unlinkat "unlinkat" Target::PathAt(0, 1), Changes::Always;
    SYS_mkdirat "mkdirat" Target::PathAt(0, 1), Changes::Always;
    SYS_symlinkat "symlinkat" Target::PathAt(1, 2), Changes::Always;
    SYS_utimensat "utimensat" Target::PathAt(0, 1), Changes::Always;
    SYS_linkat "linkat" Target::PathsAt((0, 1), (2, 3)), Changes::Always;
    SYS_renameat2 "renameat2" Target::PathsAt((0, 1), (2, 3)), Changes::Always;
};

/// Calls that only older architectures have.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[Watched] = watched! {
    SYS_open "open" Target::Path(0), Changes::WithFlags(1);
    SYS_creat "creat" Target::Path(0), Changes::Always;
    SYS_rename "rename" Target::Paths(0, 1), Changes::Always;
    SYS_renameat "renameat" Target::PathsAt((0, 1), (2, 3)), Changes::Always;
    SYS_unlink "unlink" Target::Path(0), Changes::Always;
    SYS_rmdir "rmdir" Target::Path(0), Changes::Always;
    SYS_mkdir "mkdir" Target::Path(0), Changes::Always;
    SYS_link "link" Target::Paths(0, 1), Changes::Always;
    SYS_symlink "symlink" Target::Path(1), Changes::Always;
    SYS_chmod "chmod" Target::Path(0), Changes::Always;
    SYS_utime "utime" Target::Path(0), Changes::Always;
    SYS_utimes "utimes" Target::Path(0), Changes::Always;
};
#[cfg(target_arch = "aarch64")]
const LEGACY: &[Watched] = watched! {
    SYS_renameat "renameat" Target::PathsAt((0, 1), (2, 3)), Changes::Always;
};

/// Calls that change nothing and can fail.
const FAILING: &[Watched] = watched! {
    SYS_flock "flock" Target::Fd(0), Changes::Always;
};

/// Every watched system call of this architecture.
pub fn all(calls: Calls) -> impl Iterator<Item = &'static Watched> {
    let failing = if calls == Calls::Changing { &[] } else { FAILING };
    COMMON.iter().chain(LEGACY).chain(failing)
}

/// A call in progress, as the kernel reports it at entry.
pub struct Call {
    pub pid: Pid,
    pub number: i64,
    pub args: [u64; 6],
    pub calls: Calls,
}

/// What a call that counts is about.
pub struct Change {
    pub syscall: &'static str,
    pub flags: i32,
    pub path: Option<PathBuf>,
    pub path2: Option<PathBuf>,
}

impl Call {
    /// Returns what this call changes, or `None` when it changes no file system.
    pub fn change(&self) -> Option<Change> {
        let watched = all(self.calls).find(|watched| watched.number == self.number)?;
        let flags = match watched.changes {
            Changes::Always => 0,
            Changes::WithFlags(argument) => self.args[argument] as i32,
            Changes::WithFlagsBehind(argument) => {
                u64::from_ne_bytes(self.memory(self.args[argument], 8)?.try_into().ok()?) as i32
            }
        };
        let is_open = !matches!(watched.changes, Changes::Always);
        if is_open && self.calls == Calls::Changing && flags & CREATING == 0 {
            return None;
        }
        let (path, path2) = match watched.target {
            Target::Fd(fd) => (Some(self.open_file(fd)?), None),
            Target::Path(path) => (self.path(libc::AT_FDCWD, path), None),
            Target::PathAt(fd, path) => (self.path(self.descriptor(fd), path), None),
            Target::Paths(from, to) => (self.path(libc::AT_FDCWD, from), self.path(libc::AT_FDCWD, to)),
            Target::PathsAt((from_fd, from), (to_fd, to)) => {
                (self.path(self.descriptor(from_fd), from), self.path(self.descriptor(to_fd), to))
            }
        };
        let looks = |path: &Path| self.calls == Calls::Looking && path.starts_with("/proc");
        if path.as_deref().is_some_and(|path| is_no_storage(path) && !looks(path)) {
            return None;
        }
        Some(Change { syscall: watched.name, flags, path, path2 })
    }

    /// Returns the descriptor at an argument: the low 32 bits, signed, as the kernel takes it.
    fn descriptor(&self, argument: usize) -> i32 {
        self.args[argument] as u32 as i32
    }

    fn open_file(&self, argument: usize) -> Option<PathBuf> {
        let link = format!("/proc/{}/fd/{}", self.pid, self.descriptor(argument));
        fs::read_link(link).ok().filter(|path| path.is_absolute())
    }

    /// Reads a path argument and makes it absolute; an empty one means the descriptor itself.
    fn path(&self, directory: i32, argument: usize) -> Option<PathBuf> {
        let base = match directory {
            libc::AT_FDCWD => format!("/proc/{}/cwd", self.pid),
            fd => format!("/proc/{}/fd/{fd}", self.pid),
        };
        let base = fs::read_link(base).unwrap_or_default();
        if self.args[argument] == 0 {
            return Some(base);
        }
        let mut bytes = self.memory(self.args[argument], 4096)?;
        bytes.truncate(bytes.iter().position(|&byte| byte == 0)?);
        Some(base.join(PathBuf::from(OsString::from_vec(bytes))))
    }

    /// Reads up to `length` bytes of the process's memory; fewer when an unmapped page follows.
    fn memory(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let memory = File::open(format!("/proc/{}/mem", self.pid)).ok()?;
        let mut bytes = vec![0; length];
        let read = memory.read_at(&mut bytes, address).ok()?;
        bytes.truncate(read);
        Some(bytes)
    }
}

/// Files that are not on any disk: devices, captured output, the process file system.
fn is_no_storage(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    [&b"/dev/"[..], b"/proc/", b"/memfd:"].iter().any(|prefix| bytes.starts_with(prefix))
        && !path.starts_with("/dev/shm")
}
