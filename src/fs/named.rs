//! Errors of the file system that name the file.
//!
//! The system says what went wrong, not with what. What reads files does it through here, under the name `fs`; what
//! writes them is [`crate::fs::durable`], which uses [`at`] as well. The kind of an error stays what it was.

use std::fs::{File, ReadDir};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;

use crate::util::text::shown;

pub(crate) use std::fs::{DirEntry, Metadata, Permissions};

/// An error with the file that it is about.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", shown(&self.path), self.error)
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

/// Makes content and metadata of the open file `path` durable.
#[expect(clippy::disallowed_methods, reason = "this is the place where the file is named")]
pub(crate) fn sync_all(path: impl AsRef<Path>, file: &File) -> io::Result<()> {
    at(path, file.sync_all())
}

/// Makes the content of the open file `path` durable.
#[expect(clippy::disallowed_methods, reason = "this is the place where the file is named")]
pub(crate) fn sync_data(path: impl AsRef<Path>, file: &File) -> io::Result<()> {
    at(path, file.sync_data())
}

/// More than this is read of no file at once: what is larger is damaged, or made to fill the memory.
const MOST: u64 = 1 << 30;

/// As [`std::fs::read`], of a regular file of a sensible size.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = open(&path)?;
    let mut bytes = Vec::new();
    read_at_most(path.as_ref(), &file, &mut bytes)?;
    Ok(bytes)
}

/// As [`std::fs::read_to_string`], of a regular file of a sensible size.
pub(crate) fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let no_text = |_| io::Error::new(io::ErrorKind::InvalidData, format!("{} is not UTF-8", shown(path.as_ref())));
    String::from_utf8(read(&path)?).map_err(no_text)
}

/// Reads to the end, which has to come before [`MOST`] bytes.
pub(crate) fn read_at_most(path: &Path, file: &File, bytes: &mut Vec<u8>) -> io::Result<()> {
    let metadata = at(path, file.metadata())?;
    if !metadata.is_file() {
        return Err(not_regular(path));
    }
    // A file of `/proc` says that it is empty.
    let len = metadata.len();
    let read = if len > MOST { MOST + 1 } else { at(path, file.take(MOST + 1).read_to_end(bytes))? as u64 };
    if read > MOST {
        return Err(io::Error::other(format!("{} is larger than {MOST} bytes", shown(path))));
    }
    Ok(())
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

/// As [`std::fs::File::open`], of a regular file or a directory: a FIFO or a device keeps nobody waiting.
pub(crate) fn open(path: impl AsRef<Path>) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = retry_on_intr(|| rustix::fs::open(path.as_ref(), flags, Mode::empty()));
    let file = at(&path, opened.map(File::from).map_err(Into::into))?;
    let metadata = at(&path, file.metadata())?;
    if metadata.is_file() || metadata.is_dir() {
        return Ok(file);
    }
    Err(not_regular(path.as_ref()))
}

fn not_regular(path: &Path) -> io::Error {
    io::Error::other(format!("{} is not a regular file", shown(path)))
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
