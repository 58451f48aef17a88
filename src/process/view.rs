//! The file system as another process sees it: from its root and its current directory, through its mounts.
//!
//! A path means something only together with a root and a mount namespace: in a chroot, a container or below a bind mount the
//! same path is another directory, and the same directory has another path. So paths of other processes are resolved here, step
//! by step, from what `/proc/PID/root` and `/proc/PID/cwd` lead to, and what is found is compared by device and inode.
//!
//! Limit: file systems that show one file under two devices (overlayfs and its upper directory, bindfs) are not seen through.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::fs::absent_is_none;

/// As many links as the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// Opens without any right but to pass: neither content nor listing.
const PASSED: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// A file or directory, by whatever path it is reached. Numbers of devices hold within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inode {
    device: u64,
    number: u64,
}

/// Something that was found.
#[derive(Debug)]
pub(crate) struct Found {
    opened: OwnedFd,
    /// Where its name is.
    directory: OwnedFd,
    /// Which one it is.
    pub(crate) inode: Inode,
    kind: FileType,
    names: u64,
}

/// What one process sees.
#[derive(Debug)]
pub(crate) struct View {
    root: Found,
    cwd: Found,
}

impl View {
    /// What the process `pid` sees.
    pub(crate) fn of(pid: u32) -> io::Result<View> {
        View::from(&PathBuf::from(format!("/proc/{pid}/root")), &PathBuf::from(format!("/proc/{pid}/cwd")))
    }

    /// What a process sees whose root and current directory are these.
    pub(crate) fn from(root: &Path, cwd: &Path) -> io::Result<View> {
        let open = |path: &Path| -> io::Result<Found> {
            let opened = rustix::fs::open(path, PASSED | OFlags::DIRECTORY, Mode::empty())?;
            let directory = opened.try_clone()?;
            Found::new(opened, directory)
        };
        Ok(View { root: open(root)?, cwd: open(cwd)? })
    }

    /// Its current directory.
    pub(crate) fn cwd(&self) -> &Found {
        &self.cwd
    }

    /// What `path` leads to from the directory `from`, links followed; `None` when there is nothing.
    pub(crate) fn open(&self, from: &Found, path: &Path) -> io::Result<Option<Found>> {
        absent_is_none(self.resolve(from, path))
    }

    /// The directory above; `None` above the root.
    pub(crate) fn above(&self, directory: &Found) -> io::Result<Option<Found>> {
        let found = self.resolve(directory, Path::new(".."))?;
        Ok((found.inode != directory.inode).then_some(found))
    }

    fn resolve(&self, from: &Found, path: &Path) -> io::Result<Found> {
        let mut at = from.again()?;
        let mut left = Vec::new();
        self.enter(path, &mut at, &mut left)?;
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." && at.inode == self.root.inode {
                continue;
            }
            let opened = rustix::fs::openat(&at.opened, &name, PASSED | OFlags::NOFOLLOW, Mode::empty())?;
            let next = Found::new(opened, at.opened.try_clone()?)?;
            if next.kind != FileType::Symlink {
                at = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = rustix::fs::readlinkat(&next.opened, "", Vec::new())?;
            self.enter(Path::new(&OsString::from_vec(target.into_bytes())), &mut at, &mut left)?;
        }
        Ok(at)
    }

    /// Puts the steps of `path` in front of those that are `left`, the next one last.
    fn enter(&self, path: &Path, at: &mut Found, left: &mut Vec<OsString>) -> io::Result<()> {
        if path.is_absolute() {
            *at = self.root.again()?;
        }
        let steps = path.components().rev().filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir));
        left.extend(steps.map(|step| step.as_os_str().to_owned()));
        Ok(())
    }
}

impl Found {
    fn new(opened: OwnedFd, directory: OwnedFd) -> io::Result<Found> {
        let stat = rustix::fs::fstat(&opened)?;
        let inode = Inode { device: stat.st_dev, number: stat.st_ino };
        #[allow(clippy::useless_conversion, reason = "its width differs between machines")]
        let names = u64::from(stat.st_nlink);
        Ok(Found { opened, directory, inode, kind: FileType::from_raw_mode(stat.st_mode), names })
    }

    fn again(&self) -> io::Result<Found> {
        Found::new(self.opened.try_clone()?, self.directory.try_clone()?)
    }

    /// The directory that has its name.
    pub(crate) fn directory(&self) -> io::Result<Found> {
        Found::new(self.directory.try_clone()?, self.directory.try_clone()?)
    }

    /// Is it a directory?
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Is there an entry of that name in this directory, be it a link that leads nowhere?
    pub(crate) fn has(&self, name: &str) -> io::Result<bool> {
        let stat = rustix::fs::statat(&self.opened, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        absent_is_none(stat.map_err(Into::into)).map(|found| found.is_some())
    }

    /// Has it been removed while somebody had it open?
    pub(crate) fn is_removed(&self) -> bool {
        self.names == 0
    }

    /// The content of a regular file, as far as `most`.
    pub(crate) fn read(&self, most: u64) -> io::Result<Vec<u8>> {
        if self.kind != FileType::RegularFile {
            return Err(io::Error::other("what should be a small file is none"));
        }
        let mut text = Vec::new();
        reopened(self.opened.as_fd())?.take(most).read_to_end(&mut text)?;
        Ok(text)
    }
}

/// A descriptor that can be read, for one that only names a file.
fn reopened(opened: BorrowedFd<'_>) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let name = format!("/proc/self/fd/{}", opened.as_raw_fd());
    Ok(rustix::fs::open(name, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_and_links_are_resolved_below_the_root_of_the_process() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        crate::fs::durable::create_dirs(&root.join("a/b"), 0o777).unwrap();
        crate::fs::durable::create_dirs(&scratch.path().join("outside"), 0o777).unwrap();
        crate::fs::durable::create_new(&root.join("a/file"), b"content").unwrap();
        for (target, link) in [("/a/b", "absolute"), ("../../a", "a/b/relative"), ("round", "round"), ("/nowhere", "x")]
        {
            symlink(target, root.join(link)).unwrap();
        }
        let view = View::from(&root, &root.join("a/b")).unwrap();
        let inode = |path: &str| View::from(&root, &root.join(path)).unwrap().cwd.inode;
        for (path, expected) in [
            ("/a", Some("a")),
            (".", Some("a/b")),
            ("..", Some("a")),
            ("../../../outside", None),
            ("../../..", Some(".")),
            ("/absolute/../b", Some("a/b")),
            ("relative/b", Some("a/b")),
            ("/x", None),
            ("/a/file/below", None),
        ] {
            let found = view.open(view.cwd(), Path::new(path)).unwrap();
            assert_eq!(found.map(|found| found.inode), expected.map(inode), "{path}");
        }
        assert!(view.open(view.cwd(), Path::new("/round")).is_err(), "what cannot be resolved is not absent");
        let file = view.open(view.cwd(), Path::new("../file")).unwrap().unwrap();
        assert_eq!((file.read(4).unwrap(), file.is_directory()), (b"cont".to_vec(), false));
        assert_eq!(file.directory().unwrap().inode, inode("a"));
        assert!(view.above(&view.root).unwrap().is_none(), "nothing is above the root");
    }
}
