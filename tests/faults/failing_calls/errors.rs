//! Which call can fail in which way, and for how long.

use std::fmt;

use nix::errno::Errno;

use crate::support::tracer::{Action, Event};

/// What happens to a call instead of what it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Error(Errno),
    /// A write takes half of its bytes.
    Short,
}

use Fault::{Error, Short};

const MAKING: &[Fault] =
    &[Error(Errno::EIO), Error(Errno::ENOSPC), Error(Errno::EDQUOT), Error(Errno::EROFS), Error(Errno::EACCES)];
const OPENING_NEW: &[Fault] = &[
    Error(Errno::EIO),
    Error(Errno::ENOSPC),
    Error(Errno::EDQUOT),
    Error(Errno::EROFS),
    Error(Errno::EACCES),
    Error(Errno::EMFILE),
];
const OPENING_TO_WRITE: &[Fault] =
    &[Error(Errno::EIO), Error(Errno::EROFS), Error(Errno::EACCES), Error(Errno::EMFILE)];
const OPENING_TO_READ: &[Fault] = &[Error(Errno::EIO), Error(Errno::EACCES), Error(Errno::EMFILE)];
const WRITING: &[Fault] = &[Error(Errno::EIO), Error(Errno::ENOSPC), Error(Errno::EDQUOT), Error(Errno::EINTR), Short];
const SYNCING: &[Fault] = &[Error(Errno::EIO), Error(Errno::ENOSPC), Error(Errno::EDQUOT)];
const REMOVING: &[Fault] = &[Error(Errno::EIO), Error(Errno::EROFS), Error(Errno::EACCES)];
const CUTTING: &[Fault] = &[Error(Errno::EIO), Error(Errno::EINTR)];
/// Ours never wait, so no signal interrupts them.
const LOCKING: &[Fault] = &[Error(Errno::ENOLCK)];

impl Fault {
    /// The ways in which a call can fail.
    pub fn possible(event: &Event) -> &'static [Fault] {
        match event.syscall {
            "open" | "openat" | "openat2" if event.flags & libc::O_CREAT != 0 => OPENING_NEW,
            "open" | "openat" | "openat2" if event.flags & libc::O_ACCMODE != libc::O_RDONLY => OPENING_TO_WRITE,
            "open" | "openat" | "openat2" => OPENING_TO_READ,
            "write" | "pwrite64" => WRITING,
            "fsync" | "fdatasync" | "syncfs" | "sync_file_range" => SYNCING,
            "rename" | "renameat" | "renameat2" | "link" | "linkat" | "symlink" | "symlinkat" | "mkdir" | "mkdirat" => {
                MAKING
            }
            "unlink" | "unlinkat" | "rmdir" | "fchmod" | "fchmodat" | "chmod" | "utimensat" => REMOVING,
            "ftruncate" | "truncate" => CUTTING,
            "flock" => LOCKING,
            _ => SYNCING,
        }
    }

    pub fn action(self) -> Action {
        match self {
            Error(errno) => Action::Fail(errno),
            Short => Action::Shorten,
        }
    }

    /// The words for it, as a message has them.
    pub fn words(self) -> Option<String> {
        match self {
            Error(errno) => Some(std::io::Error::from(errno).to_string()),
            Short => None,
        }
    }

    /// A condition of a disk, and not only of one call.
    pub fn may_last(self) -> bool {
        matches!(self, Error(Errno::EIO | Errno::ENOSPC | Errno::EROFS))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error(errno) => write!(f, "{errno:?}"),
            Short => f.write_str("short"),
        }
    }
}

/// Which calls fail, from the chosen one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// That one.
    Once,
    /// Every later one of ours that can fail so.
    Ours,
    /// Every later one, git's as well.
    Everybody,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reach::Once => "once",
            Reach::Ours => "ours",
            Reach::Everybody => "everybody",
        })
    }
}
