//! Where the watch of a user listens, and what else it has outside of repositories.
//!
//! ```text
//! $XDG_RUNTIME_DIR/jin-txn/           of this user, closed to all others; without one /tmp/jin-txn-<uid>/
//!   <place>.socket                    announcements
//!   <place>.lock                      flock of the watch
//!   <place>.json                      what it does, for `watch --status`
//!   <place>.tried                     when a hook last started one that does not run, or why it started none
//! ```
//! `<place>` is `<mnt>-<pid>-<sum>`: the inodes of the mount and pid namespaces, and a checksum of the user namespace, the effective
//! capabilities and the directory of the user's notes. These are what a process can see, and which repositories are its user's. A
//! hook speaks only to a watch that has the same, and starts its own where there is none.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::fs::{durable, named as fs};
use crate::hook::announce::fits_socket;
use crate::trust::Notes;
use crate::util::checksum::{append, crc32c};

/// The files of one watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    directory: PathBuf,
    name: String,
    /// The directory is one of the user's session.
    pub(crate) is_of_session: bool,
}

impl Address {
    /// Of a user with this `XDG_RUNTIME_DIR` and these notes, in the surroundings of this process. `None` where there is no place
    /// for it.
    pub(crate) fn of(runtime: Option<&OsString>, notes: &Notes) -> Option<Address> {
        let named = runtime.map(PathBuf::from).filter(|dir| dir.is_absolute() && is_own(dir));
        let is_of_session = named.is_some();
        let uid = rustix::process::geteuid().as_raw();
        let directory = named.map_or_else(|| format!("/tmp/jin-txn-{uid}").into(), |dir| dir.join("jin-txn"));
        let namespace = |kind: &str| std::fs::metadata(format!("/proc/self/ns/{kind}")).ok().map(|it| it.ino());
        let sum = crc32c(notes.named_directory().as_os_str().as_bytes());
        let sum = append(sum, &namespace("user").unwrap_or_default().to_le_bytes());
        let sum = append(sum, &capabilities().to_le_bytes());
        let name = format!("{:x}-{:x}-{sum:x}", namespace("mnt")?, namespace("pid")?);
        let address = Address { directory, name, is_of_session };
        fits_socket(&address.socket()).then_some(address)
    }

    /// Makes the directory; an error when it cannot be ours alone.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        durable::create_dirs(&self.directory, 0o700)?;
        if is_own(&self.directory) {
            return Ok(());
        }
        Err(io::Error::other("it is open to others, or another user's"))
    }

    /// Is the directory there, and this user's alone? Nothing is sent to a socket, and nothing read, anywhere else.
    pub(crate) fn is_usable(&self) -> bool {
        is_own(&self.directory)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.file("socket")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.file("lock")
    }

    pub(crate) fn status(&self) -> PathBuf {
        self.file("json")
    }

    pub(crate) fn tried(&self) -> PathBuf {
        self.file("tried")
    }

    fn file(&self, what: &str) -> PathBuf {
        self.directory.join(format!("{}.{what}", self.name))
    }
}

/// The effective ones: with fewer of them fewer processes can be looked into.
fn capabilities() -> u64 {
    rustix::thread::capabilities(None).map_or(0, |sets| sets.effective.bits())
}

/// A directory of this user that is closed to all others. `sudo -E` keeps the variable of another user.
fn is_own(directory: &Path) -> bool {
    fs::symlink_metadata(directory).is_ok_and(|found| {
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0
    })
}
