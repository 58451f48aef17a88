//! The door to everything below a git directory: no symbolic link is followed, neither on the way to a file nor at its name.
//!
//! The paths of a repository are canonical when it is found, so that a link in one of them lies below the git directory or has
//! been put there since. Every path is resolved once: [`place`] opens the directory that an entry lies in, and everything
//! else is done in that open directory, on a name without a slash. A directory that is swapped for a link meanwhile is
//! either refused or not used at all.
//!
//! ```text
//!  place("/r/.git/logs/HEAD") ──▶ Place(open "/r/.git/logs", "HEAD") ── stat, rename, link, unlink
//!          openat2(RESOLVE_NO_SYMLINKS), or step by step with O_NOFOLLOW
//! ```
//!
//! Limit: a directory that is swapped for another directory is used.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use crate::fs::identity::{FileId, absent_is_none};
use crate::fs::named::at;

/// Opens directories for reading only: they can be synced.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens directories that are only passed through, or have names added and taken away: nobody needs to be allowed to list them.
const PASSED: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How much of a directory is listed at a time, in bytes.
const LISTING: usize = 1 << 13;

/// What kind of thing an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A fifo, a socket, a device.
    Other,
}

/// An entry, itself: links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission bits (the lower twelve).
    pub mode: u32,
    /// Its identity within its file system.
    pub id: FileId,
    /// Its file system, within this boot.
    pub device: u64,
}

/// A path that leads through a symbolic link: the inner error of an [`io::Error`] of the kind
/// [`io::ErrorKind::InvalidInput`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is a symbolic link or lies behind one: it is left as it is; put the real one there", crate::util::text::shown(.0))]
pub(crate) struct Linked(PathBuf);

/// Is this the refusal to follow a link?
pub(crate) fn is_linked(error: &anyhow::Error) -> bool {
    let is_linked = |error: &io::Error| error.get_ref().is_some_and(|inner| inner.is::<Linked>());
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is_linked))
}

fn refused(path: &Path, errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP => io::Error::new(io::ErrorKind::InvalidInput, Linked(path.to_owned())),
        other => at::<()>(path, Err(other.into())).expect_err("an error stays one"),
    }
}

/// Opens `path`, resolved from `base`, without following a link anywhere; `how` may forbid more.
pub(super) fn resolve(
    base: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    how: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(base, path, flags, mode, how | ResolveFlags::NO_SYMLINKS) {
            // A rename at the wrong moment.
            Err(Errno::AGAIN) => {}
            // Before Linux 5.6, and where a filter of system calls does not know it.
            Err(Errno::NOSYS | Errno::PERM) => return walk(base, path, flags, mode),
            other => return other,
        }
    }
}

/// The same step by step.
pub(super) fn walk(base: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let start = if path.is_absolute() { "/" } else { "." };
    let named = |c: &Component<'_>| matches!(c, Component::Normal(_) | Component::ParentDir);
    let mut names = path.components().filter(named).peekable();
    if names.peek().is_none() {
        return rustix::fs::openat(base, start, flags, mode);
    }
    let mut dir = rustix::fs::openat(base, start, PASSED, Mode::empty())?;
    while let Some(name) = names.next() {
        let name = name.as_os_str();
        let (flags, mode) = if names.peek().is_some() { (PASSED, Mode::empty()) } else { (flags, mode) };
        dir = match rustix::fs::openat(&dir, name, flags | OFlags::NOFOLLOW, mode) {
            // With O_DIRECTORY a link is reported as no directory.
            Err(Errno::NOTDIR) if is_link(&dir, name) => return Err(Errno::LOOP),
            other => other?,
        };
    }
    Ok(dir)
}

fn is_link(dir: &OwnedFd, name: &OsStr) -> bool {
    let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    found.is_ok_and(|s| FileType::from_raw_mode(s.st_mode).is_symlink())
}

/// Opens `path`; a FIFO or a device keeps nobody waiting.
pub(crate) fn open(path: &Path, flags: OFlags, mode: u32) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = resolve(CWD, path, flags, Mode::from_raw_mode(mode), ResolveFlags::empty());
    opened.map(File::from).map_err(|errno| refused(path, errno))
}

/// Opens the directory `path`.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    resolve(CWD, path, DIRECTORY, Mode::empty(), ResolveFlags::empty()).map_err(|errno| refused(path, errno))
}

/// What is in the directory `path`, itself: `None` when there is none, or a link or a file in its place.
pub(crate) fn entries(path: &Path) -> io::Result<Option<Vec<(OsString, Kind)>>> {
    use std::os::unix::ffi::OsStrExt;
    let dir = match resolve(CWD, path, DIRECTORY, Mode::empty(), ResolveFlags::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        opened => opened.map_err(|errno| refused(path, errno))?,
    };
    let mut found = Vec::new();
    let mut buffer = Vec::with_capacity(LISTING);
    let mut listing = RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        let entry = at(path, entry.map_err(Into::into))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        let kind = match entry.file_type() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            // Not every file system says.
            FileType::Unknown => match stat_at(dir.as_fd(), name)? {
                Some(stat) => stat.kind,
                None => continue,
            },
            _ => Kind::Other,
        };
        if name != "." && name != ".." {
            found.push((name.to_owned(), kind));
        }
    }
    Ok(Some(found))
}

/// The open directory that an entry lies in, and the entry's name in it.
#[derive(Debug)]
pub(crate) struct Place {
    dir: OwnedFd,
    name: OsString,
    path: PathBuf,
}

/// Opens the directory that `path` lies in.
pub(crate) fn place(path: &Path) -> io::Result<Place> {
    let name = path.file_name().ok_or_else(|| refused(path, Errno::INVAL))?.to_owned();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = resolve(CWD, parent, PASSED, Mode::empty(), ResolveFlags::empty());
    Ok(Place { dir: dir.map_err(|errno| refused(path, errno))?, name, path: path.to_owned() })
}

impl Place {
    fn named<T>(&self, result: rustix::io::Result<T>) -> io::Result<T> {
        result.map_err(|errno| refused(&self.path, errno))
    }

    /// The entry; `None` when there is none.
    pub(crate) fn stat(&self) -> io::Result<Option<Stat>> {
        at(&self.path, stat_at(self.dir.as_fd(), &self.name))
    }

    /// Opens the regular file for reading; `None` when there is nothing, or something else.
    pub(crate) fn open(&self) -> io::Result<Option<File>> {
        at(&self.path, open_regular(self.dir.as_fd(), &self.name))
    }

    /// The directory that it lies in, and its name there.
    pub(super) fn entry(&self) -> (BorrowedFd<'_>, &OsStr) {
        (self.dir.as_fd(), &self.name)
    }

    /// Mode, owner and group of the directory that it lies in.
    pub(super) fn directory(&self) -> io::Result<(u32, u32, u32)> {
        let found = self.named(rustix::fs::fstat(&self.dir))?;
        Ok((found.st_mode, found.st_uid, found.st_gid))
    }

    /// Creates it with `mode` (before the umask), for writing: where anything is already, a link included, there is none made.
    pub(super) fn create(&self, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.named(rustix::fs::openat(&self.dir, self.name.as_os_str(), flags, Mode::from_raw_mode(mode)))
            .map(File::from)
    }

    /// A file without a name in its directory; `None` where the file system knows none.
    pub(super) fn create_unnamed(&self, mode: u32) -> io::Result<Option<File>> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.dir, ".", flags, Mode::from_raw_mode(mode)) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(Errno::NOTSUP | Errno::ISDIR | Errno::NOSYS | Errno::INVAL) => Ok(None),
            Err(errno) => self.named(Err(errno)),
        }
    }

    /// Gives a file without a name this one; `false` where that cannot be.
    pub(super) fn give_to(&self, file: &File) -> io::Result<bool> {
        use std::os::fd::AsRawFd;
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        match rustix::fs::linkat(CWD, open, &self.dir, self.name.as_os_str(), AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => self.named(Err(Errno::EXIST)),
            Err(_) => Ok(false),
        }
    }

    /// Opens the directory that it is.
    pub(super) fn open_directory(&self) -> io::Result<File> {
        self.named(rustix::fs::openat(&self.dir, self.name.as_os_str(), DIRECTORY | OFlags::NOFOLLOW, Mode::empty()))
            .map(File::from)
    }

    /// Renames the directory to `to`, where nothing may be; where the system cannot make sure of that, no file may be.
    pub(super) fn rename_new_directory(&self, to: &Place) -> io::Result<()> {
        let (from, name) = (self.name.as_os_str(), to.name.as_os_str());
        match rustix::fs::renameat_with(&self.dir, from, &to.dir, name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.rename(to),
            other => to.named(other),
        }
    }

    /// Renames it to `to`, where nothing may be.
    pub(crate) fn rename_new(&self, to: &Place) -> io::Result<()> {
        let renamed = rename_new((self.dir.as_fd(), &self.name), (to.dir.as_fd(), &to.name));
        renamed.map_err(|error| if error.get_ref().is_some() { error } else { name_one_of(self, to, error) })
    }

    /// Renames it over what is at `to`.
    pub(crate) fn rename(&self, to: &Place) -> io::Result<()> {
        to.named(rustix::fs::renameat(&self.dir, self.name.as_os_str(), &to.dir, to.name.as_os_str()))
    }

    /// Gives it (a file or a link, itself) the second name `to`.
    pub(crate) fn link(&self, to: &Place) -> io::Result<()> {
        let (from, name) = (self.name.as_os_str(), to.name.as_os_str());
        to.named(rustix::fs::linkat(&self.dir, from, &to.dir, name, AtFlags::empty()))
    }

    /// Makes it a symbolic link that says `target`.
    pub(crate) fn symlink(&self, target: &Path) -> io::Result<()> {
        self.named(rustix::fs::symlinkat(target, &self.dir, self.name.as_os_str()))
    }

    /// Removes the file or link.
    pub(crate) fn unlink(&self) -> io::Result<()> {
        self.named(rustix::fs::unlinkat(&self.dir, self.name.as_os_str(), AtFlags::empty()))
    }

    /// Makes it a directory with `mode` (before the umask); nothing may be there.
    pub(crate) fn make_dir(&self, mode: u32) -> io::Result<()> {
        self.named(rustix::fs::mkdirat(&self.dir, self.name.as_os_str(), Mode::from_raw_mode(mode)))
    }

    /// Removes the directory, which has to be empty.
    pub(crate) fn remove_dir(&self) -> io::Result<()> {
        self.named(rustix::fs::unlinkat(&self.dir, self.name.as_os_str(), AtFlags::REMOVEDIR))
    }

    /// Removes it with everything below.
    pub(crate) fn remove_tree(&self) -> io::Result<()> {
        self.named(remove_tree(self.dir.as_fd(), &self.name))
    }
}

/// As for the rename by paths: the missing one is the first, everything else is about the second.
fn name_one_of(from: &Place, to: &Place, error: io::Error) -> io::Error {
    let about = if error.kind() == io::ErrorKind::NotFound { from } else { to };
    at::<()>(&about.path, Err(error)).expect_err("an error stays one")
}

fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    let inner = rustix::fs::openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    let (mut names, mut buffer) = (Vec::new(), Vec::with_capacity(LISTING));
    let mut listing = RawDir::new(&inner, buffer.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        names.push(entry?.file_name().to_owned());
    }
    for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
        use std::os::unix::ffi::OsStrExt;
        match remove_tree(inner.as_fd(), OsStr::from_bytes(name.to_bytes())) {
            // Somebody else removes it as well.
            Err(Errno::NOENT) => {}
            other => other?,
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Renames, and replaces nothing.
pub(super) fn rename_new(from: (BorrowedFd<'_>, &OsStr), to: (BorrowedFd<'_>, &OsStr)) -> io::Result<()> {
    match rustix::fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        // File systems (and old kernels) that cannot: a second name refuses to replace as well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            rustix::fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty())?;
            Ok(rustix::fs::unlinkat(from.0, from.1, AtFlags::empty())?)
        }
        other => Ok(other?),
    }
}

/// What `name` in the open directory `dir` is; `None` when there is nothing.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Stat>> {
    use rustix::fs::FileType;
    let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from);
    let Some(found) = absent_is_none(found)? else { return Ok(None) };
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink,
        FileType::Directory => Kind::Directory,
        _ => Kind::Other,
    };
    // The types of these fields differ from platform to platform.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap)]
    let nanoseconds = |seconds, rest| seconds as i64 * 1_000_000_000 + rest as i64;
    let id = FileId {
        ino: found.st_ino,
        size: found.st_size.cast_unsigned(),
        mtime: nanoseconds(found.st_mtime, found.st_mtime_nsec),
        ctime: nanoseconds(found.st_ctime, found.st_ctime_nsec),
    };
    Ok(Some(Stat { kind, mode: found.st_mode & 0o7777, id, device: found.st_dev }))
}

/// Opens the regular file `name` in the open directory `dir`; `None` when there is nothing, or something else.
pub(crate) fn open_regular(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => {
            let file = File::from(file);
            Ok(file.metadata()?.is_file().then_some(file))
        }
        // Nothing there; a link; a socket or a device without a driver.
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may write directly")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_anywhere_on_a_path_is_refused_with_and_without_openat2() {
        let scratch = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(scratch.path()).unwrap();
        fs::create_dir_all(root.join("outside/dir")).unwrap();
        fs::write(root.join("outside/dir/file"), "precious").unwrap();
        fs::create_dir(root.join("inside")).unwrap();
        symlink("../outside", root.join("inside/link")).unwrap();
        symlink("../outside/dir/file", root.join("inside/file")).unwrap();
        for path in ["inside/link/dir/file", "inside/file", "inside/link"] {
            let path = root.join(path);
            let error = anyhow::Error::from(open(&path, OFlags::RDONLY, 0).unwrap_err());
            assert!(is_linked(&error), "{}: {error:#}", path.display());
            let walked = walk(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            assert_eq!(walked.unwrap_err(), Errno::LOOP, "{}, step by step", path.display());
        }
        assert!(is_linked(&place(&root.join("inside/link/dir")).unwrap_err().into()));
        assert_eq!(entries(&root.join("inside/link")).unwrap(), None, "what lies behind a link is not listed");
        assert!(open(&root.join("outside/dir/file"), OFlags::RDONLY, 0).is_ok());
        assert!(walk(CWD, &root.join("outside/dir/file"), OFlags::RDONLY, Mode::empty()).is_ok());
    }

    #[test]
    fn a_directory_that_may_be_passed_and_not_listed_is_passed() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let closed = fs::canonicalize(scratch.path()).unwrap().join("closed");
        fs::create_dir_all(closed.join("dir")).unwrap();
        fs::write(closed.join("dir/file"), "").unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o311)).unwrap();
        // Root may list everything, so that only others see a difference.
        assert!(walk(CWD, &closed.join("dir/file"), OFlags::RDONLY, Mode::empty()).is_ok());
        let (from, to) = (place(&closed.join("dir/file")).unwrap(), place(&closed.join("file")).unwrap());
        from.rename_new(&to).unwrap();
        let dir = rustix::fs::open(closed.join("dir"), DIRECTORY, Mode::empty()).unwrap();
        let same = walk(dir.as_fd(), Path::new("."), DIRECTORY, Mode::empty()).unwrap();
        rustix::fs::fsync(&same).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_tree_is_removed_and_what_its_links_lead_to_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(scratch.path()).unwrap();
        fs::create_dir_all(root.join("tree/a/b")).unwrap();
        fs::create_dir(root.join("outside")).unwrap();
        fs::write(root.join("outside/file"), "precious").unwrap();
        fs::write(root.join("tree/a/file"), "").unwrap();
        symlink("../../../outside", root.join("tree/a/b/link")).unwrap();
        place(&root.join("tree")).unwrap().remove_tree().unwrap();
        assert!(!root.join("tree").exists() && root.join("outside/file").exists());
    }
}
