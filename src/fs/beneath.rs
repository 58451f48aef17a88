//! A directory below which every path is resolved without leaving it.
//!
//! Between a look at a path and its use somebody may put a symbolic link where a directory was. So no path is ever
//! resolved twice: [`Root::parent`] opens the directory that an entry lies in, following no link on the way, and everything
//! else is done relative to that open directory, on a name without a slash. Whatever is swapped in afterwards, the open
//! directory stays the one that was found.
//!
//! ```text
//!  Root ── parent("a/b/c") ──▶ Parent(open "a/b", "c") ── stat, open, create, rename, unlink, fsync
//!            openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS), or step by step with O_NOFOLLOW
//! ```
//!
//! Limit: a directory that is moved out of the root while it is open is still written to, as by every program.
//! An ancestor that somebody else may write to can be renamed at any time.

pub(crate) mod path;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

pub(crate) use path::RelPath;

use crate::fs::access;
use crate::fs::door::{DIRECTORY, open_dir, open_regular, rename_new, resolve, stat_at};
pub(crate) use crate::fs::door::{Kind, Stat};
use crate::fs::named::at;

/// The open root.
#[derive(Debug)]
pub(crate) struct Root {
    dir: OwnedFd,
    path: Arc<Path>,
}

/// The open directory that an entry lies in, and the entry's name in it.
#[derive(Debug)]
pub(crate) struct Parent {
    dir: OwnedFd,
    name: OsString,
    path: RelPath,
    root: Arc<Path>,
}

/// How a renamed entry takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RenameMode {
    /// Whatever is there is replaced.
    Replace,
    /// Something there is an error ([`io::ErrorKind::AlreadyExists`]).
    NoReplace,
    /// What is there takes the place where the renamed entry was; nothing there is an error.
    Exchange,
}

/// A path that leads somewhere else: the inner error of an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {why}")]
pub(crate) struct Refused {
    /// The path.
    pub path: RelPath,
    /// What is in the way.
    pub why: Obstacle,
}

/// What is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Obstacle {
    /// One of the directories on the way is a symbolic link.
    #[error("lies behind a symbolic link")]
    Symlink,
    /// One of the directories on the way is a file.
    #[error("lies below something that is not a directory")]
    NotADirectory,
    /// The way leads out of the root.
    #[error("leads out of the worktree")]
    Outside,
}

/// The refusal in an error of this module, if it is one.
pub(crate) fn refusal(error: &io::Error) -> Option<&Refused> {
    error.get_ref()?.downcast_ref()
}

fn refused(root: &Path, path: &RelPath, errno: Errno) -> io::Error {
    let why = match errno {
        Errno::LOOP => Obstacle::Symlink,
        Errno::NOTDIR => Obstacle::NotADirectory,
        Errno::XDEV => Obstacle::Outside,
        other => return named(&root.join(path.as_path()), other),
    };
    io::Error::other(Refused { path: path.clone(), why })
}

/// The error with the path that it is about.
fn named(path: &Path, error: impl Into<io::Error>) -> io::Error {
    at::<()>(path, Err(error.into())).expect_err("an error stays one")
}

impl Root {
    /// Opens `dir`, which may be reached through links: the root is where the caller says.
    pub(crate) fn open(dir: &Path) -> io::Result<Root> {
        let open = at(dir, rustix::fs::open(dir, DIRECTORY, Mode::empty()).map_err(Into::into))?;
        Ok(Root { dir: open, path: dir.into() })
    }

    /// Opens `dir`, which has to be there itself: no link is followed.
    pub(crate) fn open_itself(dir: &Path) -> io::Result<Root> {
        Ok(Root { dir: open_dir(dir)?, path: dir.into() })
    }

    /// The inode of the root.
    pub(crate) fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.dir)?.st_ino)
    }

    /// The file system of the root, within this boot.
    pub(crate) fn device(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.dir)?.st_dev)
    }

    /// Opens the directory that `path` lies in; `None` when it is not there.
    pub(crate) fn parent(&self, path: &RelPath) -> io::Result<Option<Parent>> {
        let dir = match path.parent() {
            None => self.open_dir(Path::new(".")),
            Some(parent) => self.open_dir(parent.as_path()),
        };
        match dir {
            Ok(dir) => {
                let (name, root) = (path.name().to_owned(), Arc::clone(&self.path));
                Ok(Some(Parent { dir, name, path: path.clone(), root }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(refused(&self.path, path, errno)),
        }
    }

    /// As [`Root::parent`], and makes the directories that are missing, with `mode` (before the umask). `made` gets each
    /// that was made, the outermost first, also when an error follows.
    pub(crate) fn make_parent(&self, path: &RelPath, mode: u32, made: &mut Vec<RelPath>) -> io::Result<Parent> {
        if let Some(parent) = self.parent(path)? {
            return Ok(parent);
        }
        for dir in path.ancestors() {
            let parent = self.parent(&dir)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            match rustix::fs::mkdirat(&parent.dir, parent.name.as_os_str(), Mode::from_raw_mode(mode)) {
                Ok(()) => {
                    made.push(dir);
                    parent.give_to_owner()?;
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(named(&self.path.join(dir.as_path()), errno)),
            }
        }
        self.parent(path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Removes the directories that `path` lies in while they are empty, the innermost first; says which went.
    pub(crate) fn remove_empty_parents(&self, path: &RelPath) -> io::Result<Vec<RelPath>> {
        let mut gone = Vec::new();
        for dir in path.ancestors().rev() {
            let is_there = self.parent(&dir)?.map_or(Ok(None), |parent| parent.stat())?.is_some();
            // One that went already (whoever removed it was stopped here) says nothing about those around it.
            if is_there && !self.remove_empty(&dir)? {
                break;
            }
            gone.extend(is_there.then_some(dir));
        }
        Ok(gone)
    }

    /// Removes the directory `dir` if it is empty; says whether it went.
    pub(crate) fn remove_empty(&self, dir: &RelPath) -> io::Result<bool> {
        let Some(parent) = self.parent(dir)? else { return Ok(false) };
        match rustix::fs::unlinkat(&parent.dir, parent.name.as_os_str(), AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR | Errno::BUSY) => Ok(false),
            Err(errno) => Err(named(&self.path.join(dir.as_path()), errno)),
        }
    }

    fn open_dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        resolve(self.dir.as_fd(), path, DIRECTORY, Mode::empty(), beneath)
    }
}

impl Parent {
    /// The entry's path with that of the root, for people.
    pub(crate) fn whole(&self) -> PathBuf {
        self.root.join(self.path.as_path())
    }

    fn named(&self, error: impl Into<io::Error>) -> io::Error {
        named(&self.whole(), error)
    }

    /// The entry; `None` when there is none.
    pub(crate) fn stat(&self) -> io::Result<Option<Stat>> {
        stat_at(self.dir.as_fd(), &self.name).map_err(|error| self.named(error))
    }

    /// The file system of the directory, within this boot.
    pub(crate) fn device(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.dir)?.st_dev)
    }

    /// Why no names can be added to the directory, or taken from it; `None` when they can.
    pub(crate) fn why_not_writable(&self) -> io::Result<Option<io::Error>> {
        use rustix::fs::Access;
        match rustix::fs::accessat(&self.dir, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) => Ok(None),
            Err(errno @ (Errno::ACCESS | Errno::ROFS | Errno::PERM)) => Ok(Some(errno.into())),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What the symbolic link says; `None` when there is nothing, or no link.
    pub(crate) fn read_link(&self) -> io::Result<Option<Vec<u8>>> {
        match rustix::fs::readlinkat(&self.dir, self.name.as_os_str(), Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(errno) => Err(self.named(errno)),
        }
    }

    /// Opens the regular file for reading; `None` when there is nothing, or something else. A fifo does not hang us.
    pub(crate) fn open(&self) -> io::Result<Option<File>> {
        open_regular(self.dir.as_fd(), &self.name).map_err(|error| self.named(error))
    }

    /// Makes a new, empty file with `mode` (before the umask).
    pub(crate) fn create_new(&self, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let made = rustix::fs::openat(&self.dir, self.name.as_os_str(), flags, mode);
        let file = made.map(File::from).map_err(|errno| self.named(errno))?;
        self.give_to_owner()?;
        Ok(file)
    }

    /// What root makes in a directory of somebody else belongs to them.
    fn give_to_owner(&self) -> io::Result<()> {
        access::give_to_owner_of((self.dir.as_fd(), &self.name)).map_err(|error| self.named(error))
    }

    /// Makes a symbolic link that says `target`, whatever that is.
    pub(crate) fn symlink(&self, target: &[u8]) -> io::Result<()> {
        let made = rustix::fs::symlinkat(OsStr::from_bytes(target), &self.dir, self.name.as_os_str());
        made.map_err(|errno| self.named(errno))?;
        self.give_to_owner()
    }

    /// Renames `name` in the directory `from` into place.
    pub(crate) fn put(&self, from: BorrowedFd<'_>, name: &OsStr, how: RenameMode) -> io::Result<()> {
        let flags = match how {
            RenameMode::Replace => RenameFlags::empty(),
            RenameMode::NoReplace => {
                return rename_new((from, name), (self.dir.as_fd(), &self.name)).map_err(|error| self.named(error));
            }
            RenameMode::Exchange => RenameFlags::EXCHANGE,
        };
        match rustix::fs::renameat_with(from, name, &self.dir, self.name.as_os_str(), flags) {
            Ok(()) => Ok(()),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if matches!(how, RenameMode::Exchange) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            Err(errno) => Err(self.named(errno)),
        }
    }

    /// Renames the entry away, to `name` in the directory `to`, where nothing may be.
    pub(crate) fn take_out(&self, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        rename_new((self.dir.as_fd(), &self.name), (to, name)).map_err(|error| self.named(error))
    }

    /// Gives the entry (a file or a link, itself) a second name, `name` in the directory `to`.
    pub(crate) fn link_to(&self, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let linked = rustix::fs::linkat(&self.dir, self.name.as_os_str(), to, name, AtFlags::empty());
        linked.map_err(|errno| self.named(errno))
    }

    /// Removes the file or link; one that is gone already is fine.
    pub(crate) fn unlink(&self) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.dir, self.name.as_os_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.named(errno)),
        }
    }

    /// Makes the names in the directory durable.
    pub(crate) fn fsync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.dir) {
            // Some file systems (network, FUSE) cannot sync a directory.
            Err(Errno::INVAL) => crate::fs::durable::sync_filesystem(&File::from(self.dir.try_clone()?)),
            Ok(()) => Ok(()),
            Err(errno) => Err(self.named(errno)),
        }
    }
}

impl AsFd for Parent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

#[cfg(test)]
mod tests;
