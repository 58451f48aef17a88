//! Errors of the file system that name the file.
//!
//! The system says what went wrong, not with what. What reads files does it through here, under the name `fs`; what
//! writes them is [`crate::fs::durable`], which uses [`at`] as well. The kind of an error stays what it was.

use std::fs::ReadDir;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use rustix::fs::{Mode, OFlags};

pub(crate) use std::fs::{DirEntry, Metadata, Permissions};

/// An error with the file that it is about.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", crate::util::text::shown(&self.path), self.error)
    }
}

impl std::error::Error for Named {}

/// Names `path` in an error that names nothing yet.
pub(crate) fn at<T>(path: impl AsRef<Path>, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| match error.get_ref() {
        Some(_) => error,
        None => io::Error::new(error.kind(), Named { path: path.as_ref().to_owned(), error }),
    })
}

/// As [`std::fs::read`].
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    at(&path, std::fs::read(&path))
}

/// As [`std::fs::read_to_string`].
pub(crate) fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    at(&path, std::fs::read_to_string(&path))
}

/// As [`std::fs::read_dir`].
pub(crate) fn read_dir(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    at(&path, std::fs::read_dir(&path))
}

/// Opens a directory to be listed with [`rustix::fs::RawDir`].
pub(crate) fn open_dir(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    at(&path, rustix::fs::open(path.as_ref(), flags, Mode::empty()).map_err(Into::into))
}

/// As [`std::fs::read_link`].
pub(crate) fn read_link(path: impl AsRef<Path>) -> io::Result<PathBuf> {
    at(&path, std::fs::read_link(&path))
}

/// As [`std::fs::metadata`].
pub(crate) fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    at(&path, std::fs::metadata(&path))
}

/// As [`std::fs::symlink_metadata`].
pub(crate) fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    at(&path, std::fs::symlink_metadata(&path))
}

/// As [`std::fs::canonicalize`].
pub(crate) fn canonicalize(path: impl AsRef<Path>) -> io::Result<PathBuf> {
    at(&path, std::fs::canonicalize(&path))
}

/// As [`std::fs::File::open`].
pub(crate) fn open(path: impl AsRef<Path>) -> io::Result<std::fs::File> {
    at(&path, std::fs::File::open(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_file_once_and_keeps_its_kind() {
        let error = at("/second", read("/proc/self/none")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), "/proc/self/none: No such file or directory (os error 2)");
    }
}
