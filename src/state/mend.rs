//! Access of what lies in the state directory already: made by a former version, by root, or before the repository was shared.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::fs::access;
use crate::fs::named::{self, at};
use crate::state::directory::StateDir;

impl StateDir {
    /// Gives the directories, the notes and the log the access that new ones would get. What belongs to somebody else is left,
    /// unless we are root.
    pub(super) fn mend_access(&self) -> io::Result<()> {
        let git_dir = named::open(access::parent(self.path()))?;
        let Some(state) = mend(&git_dir, file_name(self.path()))? else { return Ok(()) };
        mend_files(&state, self.path())?;
        for part in [self.wal(), self.quarantine(), self.tx_root()] {
            if let Some(directory) = mend(&state, file_name(&part))?
                && part == self.wal()
            {
                mend_files(&directory, &part)?;
            }
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

fn mend_files(directory: &File, path: &Path) -> io::Result<()> {
    for entry in named::read_dir(path)? {
        let entry = at(path, entry)?;
        if at(path, entry.file_type())?.is_file() {
            mend(directory, &entry.file_name())?;
        }
    }
    Ok(())
}

/// Opens what has this name in an open directory and mends it: what the owner of the directory could put there meanwhile, a
/// link or another name of a file outside, gets nothing. `None` when it is such, or cannot be opened.
fn mend(directory: &File, name: &OsStr) -> io::Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(opened) = rustix::fs::openat(directory, name, flags, Mode::empty()) else { return Ok(None) };
    let file = File::from(opened);
    let found = file.metadata()?;
    if !is_ours(&found) {
        return Ok(None);
    }
    access::Access::of(&directory.metadata()?).give(&file, access::Purpose::State)?;
    Ok(Some(file))
}

fn is_ours(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    found.is_dir() || (found.is_file() && found.nlink() == 1)
}
