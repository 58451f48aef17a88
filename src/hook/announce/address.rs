//! Where the watch of a user listens, and what else it has outside of repositories.
//!
//! ```text
//! $XDG_RUNTIME_DIR/jin-txn/           of this user, closed to all others; without one /tmp/jin-txn-<uid>/
//!   <mnt>-<pid>.socket                announcements
//!   <mnt>-<pid>.lock                  flock of the watch
//!   <mnt>-<pid>.json                  what it does, for `watch --status`
//!   <mnt>-<pid>.tried                 when a hook last started one
//! ```
//! `<mnt>` and `<pid>` are the inodes of the namespaces: containers that share the directory have a watch each.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::fs::{durable, named as fs};
use crate::hook::announce::fits_socket;

/// The files of one watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    directory: PathBuf,
    name: String,
    /// The directory goes when the user's last session ends.
    pub(crate) ends_with_session: bool,
}

impl Address {
    /// Of a user with these variables, in these namespaces. `None` where there is no place for it.
    pub(crate) fn of(runtime: Option<&OsString>) -> Option<Address> {
        let named = runtime.map(PathBuf::from).filter(|dir| dir.is_absolute() && is_own(dir));
        let ends_with_session = named.is_some();
        let uid = rustix::process::geteuid().as_raw();
        let directory = named.map_or_else(|| format!("/tmp/jin-txn-{uid}").into(), |dir| dir.join("jin-txn"));
        let namespace = |kind: &str| std::fs::metadata(format!("/proc/self/ns/{kind}")).ok().map(|it| it.ino());
        let name = format!("{:x}-{:x}", namespace("mnt")?, namespace("pid")?);
        let address = Address { directory, name, ends_with_session };
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

/// A directory of this user that is closed to all others. `sudo -E` keeps the variable of another user.
fn is_own(directory: &Path) -> bool {
    fs::symlink_metadata(directory).is_ok_and(|found| {
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0
    })
}
