//! Taking locks away, and taking them.
//!
//! A dead lock goes to quarantine by a rename, and the inode that arrived there is checked: between the proof and the
//! rename its holder's successor may have made a new one of that name, which goes back.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::{FileId, durable, moving};
use crate::git::Repository;
use crate::locks::proof::{DeadLock, RECOVERY_LOCK};
use crate::state::{StateDir, quarantine};
use crate::util::text::shown;

/// Something that is in the way right now; what it concerns stays for the next run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InTheWay(pub(crate) String);

impl DeadLock {
    /// Moves the lock into quarantine; `false` when it was gone, or another one, by then.
    pub(crate) fn remove(self, state: &StateDir, repo: &Repository) -> anyhow::Result<bool> {
        let lock = self.file();
        let is_it = |id: Option<FileId>| id.is_some_and(|id| id.ino == lock.id.ino && id.mtime == lock.id.mtime);
        // Its holder may have been alive when it was found, have finished since, and died before it was judged: then the one that
        // is there is another's. That of the dead stays what it is.
        if !is_it(FileId::at(&lock.path)?) {
            return Ok(false);
        }
        let aside = quarantine::free_path(state, &repo.relative(&lock.path))?;
        let cannot = || format!("cannot move {} to quarantine", shown(&lock.path));
        let mut found = aside.clone();
        let moved = match durable::rename_new(&lock.path, &aside) {
            // Another disk: out of the way first, by a rename that can be taken back as well.
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
                found = lock.path.with_file_name(format!(".jin-aside-{}.lock", lock.id.ino));
                durable::rename_new(&lock.path, &found)
            }
            other => other,
        };
        match moved {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.with_context(cannot)?,
        }
        if is_it(FileId::at(&found)?) {
            if found != aside {
                moving::move_new(&found, &aside).with_context(cannot)?;
            }
            return Ok(true);
        }
        // Somebody took the dead one's away and made a new lock of that name in between: it is theirs, it goes back.
        durable::hard_link(&found, &lock.path)
            .with_context(|| format!("moved a live lock aside and cannot put it back: it is {}", shown(&found)))?;
        durable::remove_file(&found)?;
        Ok(false)
    }

    /// Renames the lock into place, as its owner was about to.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let path = &self.file().path;
        durable::rename(path, &locked_file(path)).with_context(|| format!("cannot rename {} into place", shown(path)))
    }
}

/// The file that a lock is the lock of.
fn locked_file(lock: &Path) -> PathBuf {
    lock.with_extension("")
}

/// Runs `work` while the lock file `lock` is ours; one that somebody else has is [`InTheWay`].
pub(crate) fn while_holding<T>(
    repo: &Repository,
    lock: &Path,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    match durable::create_new(lock, RECOVERY_LOCK) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(InTheWay(format!("{} is there", repo.relative(lock))).into());
        }
        Err(e) => return Err(e).with_context(|| format!("cannot lock {}", shown(lock))),
    }
    let result = work();
    durable::remove_file(lock)?;
    result
}
