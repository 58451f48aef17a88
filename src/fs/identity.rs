//! Which file is it? Names are reused, inodes too: a file is told by inode, size and times together.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, retry_on_intr};
use serde::{Deserialize, Serialize};

use crate::fs::named as fs;

/// Identity of a file: a later file with the same inode differs in size or times.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[i64; 4]", into = "[i64; 4]")]
pub struct FileId {
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime: i64,
    /// Status change time, nanoseconds since the epoch.
    pub ctime: i64,
}

impl From<[i64; 4]> for FileId {
    fn from([ino, size, mtime, ctime]: [i64; 4]) -> Self {
        FileId { ino: ino.cast_unsigned(), size: size.cast_unsigned(), mtime, ctime }
    }
}

impl From<FileId> for [i64; 4] {
    fn from(id: FileId) -> Self {
        [id.ino.cast_signed(), id.size.cast_signed(), id.mtime, id.ctime]
    }
}

impl FileId {
    /// The identity in `metadata`.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> FileId {
        FileId {
            ino: metadata.ino(),
            size: metadata.len(),
            mtime: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
            ctime: metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec(),
        }
    }

    /// The identity of what lies at `path` (links are not followed); `None` when nothing does.
    ///
    /// # Errors
    /// What the file system said, other than "not there".
    pub fn at(path: &Path) -> io::Result<Option<FileId>> {
        absent_is_none(fs::symlink_metadata(path)).map(|m| m.as_ref().map(FileId::of))
    }

    /// The same file, perhaps renamed since: a rename keeps inode, size and mtime, but not ctime.
    #[must_use]
    pub fn is_same_file(&self, other: &FileId) -> bool {
        (self.ino, self.size, self.mtime) == (other.ino, other.size, other.mtime)
    }
}

/// What tells a directory from its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Birth {
    /// Inode number.
    pub ino: u64,
    /// When it was made, in nanoseconds since the epoch, where the file system knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<i64>,
}

impl Birth {
    /// Of what lies at `path`; links are not followed.
    pub(crate) fn at(path: &Path) -> io::Result<Birth> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        // The standard library asks for the time of birth with some C libraries only.
        let found = match rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted) {
            // An old kernel, or a container whose filter does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {
                return Ok(Birth { ino: fs::symlink_metadata(path)?.ino(), born: None });
            }
            found => found?,
        };
        let time = i128::from(found.stx_btime.tv_sec) * 1_000_000_000 + i128::from(found.stx_btime.tv_nsec);
        let is_known = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME) && time != 0;
        Ok(Birth { ino: found.stx_ino, born: i64::try_from(time).ok().filter(|_| is_known) })
    }
}

/// "Not there" in all its forms is `None`.
pub(crate) fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What another user made with a umask of 077 says nothing.
pub(crate) fn unreadable_is_none<T>(result: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        other => other,
    }
}

/// Reads a file that should be small, with its identity; `None` when there is no such *file*. What is neither a file nor a
/// directory is as an empty file: nothing is read from it.
pub(crate) fn read_small(path: &Path) -> io::Result<Option<(Vec<u8>, FileId)>> {
    read_opened(path, OFlags::empty())
}

/// As [`read_small`], of a ref: a link that says `refs/...` is how git once wrote symbolic refs, and goes on to read them.
pub(crate) fn read_ref(path: &Path) -> io::Result<Option<(Vec<u8>, FileId)>> {
    let is_link = |error: &io::Error| error.kind() == io::ErrorKind::InvalidInput;
    match read_opened(path, OFlags::NOFOLLOW) {
        Err(error) if is_link(&error) => {}
        found => return found,
    }
    let target = absent_is_none(fs::read_link(path))?.map(|target| target.into_os_string().into_encoded_bytes());
    match (target.filter(|target| target.starts_with(b"refs/")), FileId::at(path)?) {
        (Some(target), Some(id)) => Ok(Some(([b"ref: ", target.as_slice(), b"\n"].concat(), id))),
        _ => read_small(path),
    }
}

fn read_opened(path: &Path, more: OFlags) -> io::Result<Option<(Vec<u8>, FileId)>> {
    // NONBLOCK: a FIFO in the place of a ref must not hang us.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
    let opened = match retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())) {
        Err(Errno::LOOP) if more.contains(OFlags::NOFOLLOW) => Err(io::ErrorKind::InvalidInput.into()),
        // A socket, or a device without a driver.
        Err(Errno::NXIO | Errno::NODEV) => return Ok(FileId::at(path)?.map(|id| (Vec::new(), id))),
        other => other.map(File::from).map_err(io::Error::from),
    };
    let Some(mut file) = absent_is_none(fs::at(path, opened))? else {
        return Ok(None);
    };
    let metadata = fs::at(path, file.metadata())?;
    if !metadata.is_file() {
        return Ok((!metadata.is_dir()).then(|| (Vec::new(), FileId::of(&metadata))));
    }
    let mut buffer = [0; 4096];
    let mut len = 0;
    // At the size that the file had nothing more is to be expected: no read for the end alone.
    while len < buffer.len() && (len == 0 || (len as u64) < metadata.len()) {
        match file.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return fs::at(path, Err(e)),
        }
    }
    Ok(Some((buffer[..len].to_vec(), FileId::of(&metadata))))
}

/// `path` with `suffix` appended to its last component.
pub(crate) fn with_suffix(path: PathBuf, suffix: &str) -> PathBuf {
    let mut name = path.into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

impl Birth {
    /// Are these two directories? Some file systems do not know, or say 0, when one was made.
    #[must_use]
    pub fn is_another(&self, other: &Birth) -> bool {
        let known = |birth: &Birth| birth.born.filter(|born| *born != 0);
        let other_time = known(self).zip(known(other)).is_some_and(|(one, other)| one != other);
        self.ino != other.ino || other_time
    }
}
