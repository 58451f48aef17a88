//! Locks of `.jin`: `flock`s on files that are never deleted, so that a dead holder's lock is gone with it.
//!
//! ```text
//! append.lock      held for microseconds, while the log is written
//! recovery.lock    held by the one process that recovers, and by the gits that it has started, should it be killed
//! files.lock       held by a transaction with files, from prepare to commit
//! tx/<id>/alive    held by all processes of a run
//! ```
//! Whoever may open a file may lock it, and block the repository. So these files can be opened only by those who may write to
//! the repository (see [`access`]).
//!
//! Limit: one of those can block the others.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use fd_lock::{RwLock, RwLockWriteGuard};

use crate::fs::access::{self, Access};
use crate::fs::{absent_is_none, durable, named};
use crate::process::owner::{self, Stat};
use crate::state::directory::StateDir;
use crate::util::text::{shortened, shown};

const APPEND_LOCK: &str = "append.lock";
const RECOVERY_LOCK: &str = "recovery.lock";
const FILES_LOCK: &str = "files.lock";

const OWNER: u32 = 0o600;

/// The pauses between two tries: `flock` has no timeout of its own.
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// How long to wait for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// At most this long.
    UpTo(Duration),
    /// As long as `jin.lockTimeout` says, which is looked up only when there is something to wait for.
    AsConfigured,
}

/// A lock that could not be had in time.
#[derive(Debug, thiserror::Error)]
#[error("{} holds {}", holder.as_deref().unwrap_or("another process"), path.display())]
pub struct Busy {
    /// The lock file.
    pub path: PathBuf,
    /// The process that has locked it, for people, where the kernel says which.
    pub holder: Option<String>,
}

impl Busy {
    fn of(path: &Path) -> Busy {
        Busy { path: path.to_owned(), holder: holder_of(path) }
    }
}

/// `/proc/locks` has the process that took a lock, the device and the inode:
/// `1: FLOCK  ADVISORY  WRITE 4711 08:01:131074 0 EOF`.
fn holder_of(path: &Path) -> Option<String> {
    let inode = named::metadata(path).ok()?.ino().to_string();
    let locks = named::read_to_string("/proc/locks").ok()?;
    let holder = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = words[..] else { return None };
        (file.rsplit(':').next() == Some(&inode)).then(|| pid.parse().ok()).flatten()
    };
    let stat = Stat::of(locks.lines().find_map(holder)?)?;
    let argv = owner::argv(stat.pid).unwrap_or_default();
    let what = if argv.is_empty() { stat.comm } else { argv.join(" ") };
    Some(format!("{} (pid {})", shortened(&what, 80), stat.pid))
}

#[derive(PartialEq, Eq)]
enum Inherit {
    Yes,
    No,
}

impl StateDir {
    /// Runs `work` under `append.lock`.
    ///
    /// # Errors
    /// [`Busy`] when the lock cannot be had in time; otherwise what `work` says.
    pub fn while_appending<T>(&self, wait: Wait, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        // Before anything is written: a part that is a link would lead out of the repository.
        self.require_log()?;
        self.open_lock(APPEND_LOCK, Inherit::No)?.held(|| self.limit(wait), |_held| work())
    }

    /// Runs `work` as the only process that recovers. Children of `work` inherit the lock: when this process is killed, it
    /// holds until the last of them is gone. When `work` returns it is released, in children that still run as well.
    ///
    /// # Errors
    /// [`Busy`] when another process recovers; otherwise what `work` says.
    pub fn while_recovering<T>(&self, wait: Wait, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.open_lock(RECOVERY_LOCK, Inherit::Yes)?.held(|| self.limit(wait), |_held| work())
    }

    /// Who recovers at the moment, as far as the kernel tells. Takes no lock, which a user who may only read could not, and which
    /// would keep others from recovering.
    #[must_use]
    pub fn recovering(&self) -> Option<Busy> {
        let path = self.path().join(RECOVERY_LOCK);
        holder_of(&path).map(|holder| Busy { path, holder: Some(holder) })
    }

    /// Lets nobody else prepare a transaction with files until the returned file is closed.
    ///
    /// # Errors
    /// [`Busy`] when the lock cannot be had in time.
    pub fn hold_files(&self, wait: Wait) -> anyhow::Result<File> {
        let mut lock = self.open_lock(FILES_LOCK, Inherit::No)?;
        lock.held(
            || self.limit(wait),
            |held| {
                until_closed(held);
                Ok(())
            },
        )?;
        Ok(lock.file.into_inner())
    }

    /// Makes those that every repository needs.
    pub(super) fn create_locks(&self) -> anyhow::Result<()> {
        [APPEND_LOCK, RECOVERY_LOCK].into_iter().try_for_each(|name| self.open_lock(name, Inherit::No).map(drop))
    }

    /// How long that is.
    #[must_use]
    pub fn limit(&self, wait: Wait) -> Duration {
        match wait {
            Wait::No => Duration::ZERO,
            Wait::UpTo(limit) => limit,
            Wait::AsConfigured => self.settings().lock_timeout,
        }
    }

    fn open_lock(&self, name: &str, inherit: Inherit) -> anyhow::Result<LockFile> {
        let path = self.path().join(name);
        let file = open(&path, inherit).with_context(|| format!("cannot write {}", shown(&path)))?;
        Ok(LockFile { path, file: RwLock::new(file) })
    }
}

/// An open lock file.
struct LockFile {
    path: PathBuf,
    file: RwLock<File>,
}

impl LockFile {
    /// Runs `work` with the lock, which the guard releases: in all processes that have inherited it.
    fn held<T>(
        &mut self,
        limit: impl Fn() -> Duration,
        work: impl FnOnce(RwLockWriteGuard<'_, File>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut pause = FIRST_PAUSE;
        let mut started = None;
        loop {
            match self.file.try_write() {
                Ok(guard) => return work(guard),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(e).with_context(|| format!("cannot lock {}", shown(&self.path))),
            }
            if started.get_or_insert_with(Instant::now).elapsed() >= limit() {
                return Err(Busy::of(&self.path).into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Makes the lock file `path`, which must not exist, and locks it until it is closed here and in every child that has
/// inherited it.
pub(crate) fn create_locked(path: &Path) -> io::Result<File> {
    let file = durable::create_new(path, b"")?;
    let mut lock = RwLock::new(file);
    until_closed(named::at(path, lock.try_write())?);
    Ok(lock.into_inner())
}

/// Locks the file `path`, which is made if need be, until the returned file is closed. `None` when somebody else has it.
pub(crate) fn try_hold(path: &Path) -> io::Result<Option<File>> {
    let mut lock = RwLock::new(open(path, Inherit::No)?);
    match lock.try_write() {
        Ok(held) => until_closed(held),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(e) => return named::at(path, Err(e)),
    }
    Ok(Some(lock.into_inner()))
}

/// Does any process hold the lock file `path`? Not when there is none; that of another user cannot be asked.
pub(crate) fn is_held(path: &Path) -> io::Result<bool> {
    let opened = absent_is_none(durable::open_own(path, OpenOptions::new().read(true)))?;
    let Some(file) = opened else { return Ok(false) };
    match RwLock::new(file).try_read() {
        Ok(_) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

/// Without its guard a lock is released when the last process that has the file open closes it.
fn until_closed(guard: RwLockWriteGuard<'_, File>) {
    std::mem::forget(guard);
}

fn open(path: &Path, inherit: Inherit) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let mut opened = durable::open_regular(path, &mut options);
    if opened.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        match durable::create_new(path, b"") {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            // All use the one that has the name.
            _ => opened = durable::open_regular(path, &mut options),
        }
    }
    let (file, found) = opened?;
    mend_mode(&file, &found, path)?;
    if inherit == Inherit::Yes {
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
    }
    Ok(file)
}

/// A file that exists has the mode that a new one would get: others have no access, the group of a shared repository has.
fn mend_mode(file: &File, found: &Metadata, path: &Path) -> io::Result<()> {
    if found.mode() & 0o7777 == OWNER || found.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    access::set_mode(file, found, Access::at(path)?.own_file())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("it is there").mode() & 0o7777
    }

    #[test]
    fn a_lock_file_that_others_may_open_is_narrowed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        for (directory, before, after) in [
            (0o755, None, 0o600),
            (0o755, Some(0o644), 0o600),
            (0o755, Some(0o666), 0o600),
            (0o700, Some(0o660), 0o600),
            (0o2775, None, 0o660),
            (0o2775, Some(0o666), 0o660),
            (0o2777, Some(0o664), 0o666),
            (0o2775, Some(0o600), 0o600),
            (0o2775, Some(0o620), 0o660),
        ] {
            std::fs::set_permissions(dir.path(), Permissions::from_mode(directory)).unwrap();
            durable::remove_file(&path).unwrap();
            if let Some(before) = before {
                durable::create_new(&path, b"").unwrap().set_permissions(Permissions::from_mode(before)).unwrap();
            }
            open(&path, Inherit::No).unwrap();
            assert_eq!(mode(&path), after, "{before:?} in a directory with mode {directory:o}");
        }
    }

    #[test]
    fn what_is_locked_until_closed_stays_locked_in_a_copy_of_the_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alive");
        assert!(!is_held(&path).unwrap(), "there is none");
        let file = create_locked(&path).unwrap();
        let copy = file.try_clone().unwrap();
        drop(file);
        assert!(is_held(&path).unwrap(), "a child would hold it");
        drop(copy);
        assert!(!is_held(&path).unwrap());
    }
}
