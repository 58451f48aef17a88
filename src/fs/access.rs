//! Who may use a file that we make.
//!
//! The directory says: a class (group, others) that may write there may read and write the file; one that may not gets
//! nothing. That is what `core.sharedRepository` means, whatever the umask. What is git's keeps the modes of git, and gets
//! as much as its directory gives. As root the file goes to the owner of the directory: root's files in a repository of
//! somebody else would refuse every later command of its owner.
//!
//! All of it is set on the open descriptor before the file has a name.
//!
//! Limit: a file system without modes or owners, and a root without `CAP_CHOWN`, leave the file as it was made.

use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};

use crate::fs::door::Place;
use crate::fs::named::{self, at};

const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const PERMISSIONS: u32 = 0o7777;

/// What a new file or directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// State of ours.
    State,
    /// A part of the git directory: as the umask says, and shared as its directory is.
    Git,
    /// A program: whoever may enter its directory may run it.
    Program,
}

/// The directory that a file is made in.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Access {
    /// What the directory of `path` gives.
    pub(crate) fn at(path: &Path) -> io::Result<Access> {
        Ok(Access::of(&named::metadata(parent(path))?))
    }

    /// What the directory of an opened place gives.
    pub(super) fn in_directory(place: &Place) -> io::Result<Access> {
        let (mode, uid, gid) = place.directory()?;
        Ok(Access { mode, uid, gid })
    }

    /// What an open directory gives.
    pub(crate) fn of(directory: &Metadata) -> Access {
        Access { mode: directory.mode(), uid: directory.uid(), gid: directory.gid() }
    }

    /// Is a file of ours right there as the system makes it?
    pub(crate) fn is_plain(&self) -> bool {
        self.mode & (0o2000 | GROUP_WRITES | OTHERS_WRITE) == 0 && self.uid == rustix::process::geteuid().as_raw()
    }

    /// The classes that may write to the directory, as permission to read and to write.
    fn writers(&self) -> u32 {
        let group = if self.mode & GROUP_WRITES == 0 { 0 } else { 0o060 };
        let others = if self.mode & OTHERS_WRITE == 0 { 0 } else { 0o006 };
        group | others
    }

    /// The mode of a file of our state.
    pub(crate) fn own_file(&self) -> u32 {
        0o600 | self.writers()
    }

    /// The mode for a new file or directory that the system has made with `made`.
    fn mode(&self, purpose: Purpose, made: &Metadata) -> u32 {
        let readable = match purpose {
            Purpose::State => self.writers(),
            // The group of a repository that is shared for reading has the directories with its own id.
            Purpose::Git if self.writers() == 0 && self.mode & 0o2000 == 0 => 0,
            Purpose::Git => self.mode & 0o066,
            Purpose::Program => return 0o700 | (self.mode & 0o777),
        };
        let base = if purpose == Purpose::State { 0o600 } else { made.mode() & 0o777 };
        if !made.is_dir() {
            return base | readable;
        }
        let inherited = (made.mode() | if self.writers() == 0 { 0 } else { self.mode }) & 0o2000;
        base | 0o700 | readable | (readable & 0o044) >> 2 | inherited
    }

    /// Gives an open file or directory, which has no name yet, the access that a file of its `purpose` has in this directory.
    pub(crate) fn give(&self, file: &File, purpose: Purpose) -> io::Result<()> {
        let made = file.metadata()?;
        set_mode(file, &made, self.mode(purpose, &made))?;
        self.give_to_owner(file, &made)
    }

    /// The mode of a program that replaces another file: its own, and whoever may write to the directory may run it.
    pub(crate) fn program_over(&self, old: &Metadata) -> u32 {
        let writers = self.writers();
        old.mode() & 0o777 | 0o700 | writers | (writers & 0o044) >> 2
    }

    /// As [`Access::give`], for a program that replaces `old`, if there is one.
    pub(crate) fn give_program(&self, file: &File, old: Option<&Metadata>) -> io::Result<()> {
        let Some(old) = old else { return self.give(file, Purpose::Program) };
        let made = file.metadata()?;
        set_mode(file, &made, self.program_over(old))?;
        self.give_to_owner(file, &made)
    }

    /// What root makes belongs to the owner of the directory; what a group shares belongs to that group.
    fn give_to_owner(&self, file: &File, made: &Metadata) -> io::Result<()> {
        let is_shared = made.uid() == 0 && self.uid != 0 || self.mode & GROUP_WRITES != 0;
        let gid = if is_shared { self.gid } else { made.gid() };
        set_owner(file, made, (self.uid, gid))
    }
}

/// Gives a file that is about to replace `old` its mode and, as far as we may, its owner.
pub(crate) fn copy(old: &Metadata, file: &File) -> io::Result<()> {
    let made = file.metadata()?;
    set_mode(file, &made, old.mode() & PERMISSIONS)?;
    set_owner(file, &made, (old.uid(), old.gid()))
}

/// A git that we start as root in the repository of somebody else leaves root's files there. Gives `path` below the directory
/// `root`, and the directories that lead to it, to the owner of `root`: each only if it is root's, under no other name, and
/// reached by no link, so that nothing is given away that lies elsewhere.
///
/// Limit: nothing is given before Linux 5.6, which does not know how to follow no links.
pub(crate) fn give_back(root: &Path, path: &Path) -> io::Result<()> {
    if rustix::process::geteuid().as_raw() != 0 {
        return Ok(());
    }
    let root = named::open(root)?;
    let owner = root.metadata()?;
    if owner.uid() == 0 {
        return Ok(());
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for path in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        let Ok(opened) = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve) else { continue };
        let file = File::from(opened);
        let made = at(path, file.metadata())?;
        if made.is_dir() || (made.is_file() && made.nlink() == 1) {
            at(path, set_owner(&file, &made, (owner.uid(), if made.uid() == 0 { owner.gid() } else { made.gid() })))?;
        }
    }
    Ok(())
}

/// Sets a mode if it is another one, where that is ours to set.
pub(crate) fn set_mode(file: &File, found: &Metadata, mode: u32) -> io::Result<()> {
    if found.mode() & PERMISSIONS == mode {
        return Ok(());
    }
    unless_refused(file.set_permissions(Permissions::from_mode(mode)))
}

/// Sets the group of a file, and as root its owner.
fn set_owner(file: &File, found: &Metadata, (uid, gid): (u32, u32)) -> io::Result<()> {
    let uid = (found.uid() == 0 && uid != 0).then_some(uid);
    let gid = (found.gid() != gid).then_some(gid);
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    unless_refused(std::os::unix::fs::fchown(file, uid, gid))
}

/// The directory that `path` lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

/// What root has just made as `name` in the open `directory` goes to the owner of that. It is held by a descriptor, so that no
/// other file can be put in its place, and what has a second name or is mounted there is not given away.
pub(super) fn give_to_owner_of((directory, name): (BorrowedFd<'_>, &OsStr)) -> io::Result<()> {
    if rustix::process::geteuid().as_raw() != 0 {
        return Ok(());
    }
    let owner = rustix::fs::fstat(directory)?;
    if owner.st_uid == 0 {
        return Ok(());
    }
    let made = rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let found = rustix::fs::fstat(&made)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    if found.st_uid != 0 || found.st_dev != owner.st_dev || (!kind.is_dir() && found.st_nlink != 1) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
    unless_refused(rustix::fs::chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).map_err(Into::into))
}

/// File systems without modes or owners say no, and so does the kernel to a root without `CAP_CHOWN`.
fn unless_refused(result: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    match result {
        Err(e) if matches!(e.kind(), PermissionDenied | Unsupported | InvalidInput | ReadOnlyFilesystem) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_that_may_write_to_the_directory_may_use_the_file_and_no_other() {
        let scratch = tempfile::tempdir().unwrap();
        let file = File::create_new(scratch.path().join("file")).unwrap();
        let directory = named::open(scratch.path()).unwrap();
        for (parent, own, own_dir, gits, program) in [
            (0o755, 0o600, 0o700, 0o600, 0o755),
            (0o700, 0o600, 0o700, 0o600, 0o700),
            (0o2750, 0o600, 0o700, 0o640, 0o750),
            (0o2775, 0o660, 0o2770, 0o664, 0o775),
            (0o2770, 0o660, 0o2770, 0o660, 0o770),
            (0o777, 0o666, 0o777, 0o666, 0o777),
            (0o707, 0o606, 0o707, 0o606, 0o707),
        ] {
            file.set_permissions(Permissions::from_mode(0o600)).unwrap();
            directory.set_permissions(Permissions::from_mode(0o700)).unwrap();
            let (made, made_dir) = (file.metadata().unwrap(), directory.metadata().unwrap());
            let access = Access { mode: parent, uid: made.uid(), gid: made.gid() };
            let found = (
                access.mode(Purpose::State, &made),
                access.mode(Purpose::State, &made_dir),
                access.mode(Purpose::Git, &made),
                access.mode(Purpose::Program, &made),
            );
            let octal = |(a, b, c, d): (u32, u32, u32, u32)| format!("{a:o} {b:o} {c:o} {d:o}");
            assert_eq!(octal(found), octal((own, own_dir, gits, program)), "in a directory with mode {parent:o}");
        }
    }
}
