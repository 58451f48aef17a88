//! What the watch stands on: its lock, and the file of its program.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::state::flock;

/// The lock of the watch; `None` when there is one already. Whoever asks whether one runs has the lock for a moment, too, and one
/// that is about to end for a few more.
pub(super) fn hold(path: &Path) -> io::Result<Option<File>> {
    const TRIES: u32 = 25;
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 0..TRIES {
        if let Some(lock) = flock::try_hold(path)? {
            return Ok(Some(lock));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}

/// How a watch was started.
#[derive(Default)]
pub(crate) struct Term {
    /// The process of the hook that has started it.
    pub(crate) hook: Option<u32>,
    /// Only the repository with this common directory, and those whose gits tell of themselves; `None` for all of the user.
    pub(crate) common_dir: Option<PathBuf>,
    /// How long it stays when no git is at work any more; `None` for ever.
    pub(crate) until_idle: Option<Duration>,
}

/// What the watch stands on.
pub(super) struct Ground {
    /// Held as long as it runs; under this name no other file may be found, or a second one runs.
    lock: File,
    /// The program that it is, and which file that was.
    pub(super) program: PathBuf,
    file: Option<(u64, u64)>,
    /// The hook that has started it, until that has ended.
    pub(super) started_by: Option<u32>,
    pub(super) term: Term,
}

impl Ground {
    pub(super) fn new(lock: File, term: Term) -> io::Result<Ground> {
        let program = std::env::current_exe()?;
        let file = identity(&program);
        Ok(Ground { lock, program, file, started_by: term.hook, term })
    }

    /// Is the lock file still the one at `path`?
    pub(super) fn is_locked_at(&self, path: &Path) -> bool {
        let held = self.lock.metadata().ok().as_ref().map(which);
        held.is_some() && std::fs::symlink_metadata(path).ok().as_ref().map(which) == held
    }

    /// Is the file of the program another one by now, or gone?
    pub(super) fn is_replaced(&self) -> bool {
        self.file.is_some() && identity(&self.program) != self.file
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().as_ref().map(which)
}

fn which(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}
