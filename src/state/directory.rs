//! `.jin/` in the common git directory: its paths, its three locks, its id.
//!
//! `append.lock` is held for microseconds, `recovery.lock` by the one runner of recovery, `files.lock` by a transaction with
//! files from prepare to commit. All are `flock`s on files that are never deleted: a dead holder's lock is gone with it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::fs::Birth;
use crate::fs::FileId;
use crate::fs::durable;
use crate::fs::named as fs;
use crate::git::Repository;
use crate::state::TxId;
use crate::state::settings::Settings;

/// Name of the state directory below the common git directory.
pub const NAME: &str = ".jin";

const DURABILITY: &str = "durability";

const SETTINGS: &str = "settings";

const PACKED: &str = "packed-refs-synced";

/// Prefix of the note that this boot has looked after what the one before left.
pub const VERIFIED: &str = "verified.";

/// The most that a note or a marker has, in bytes.
pub const SMALL: u64 = 1 << 20;

const APPEND_LOCK: &str = "append.lock";
const RECOVERY_LOCK: &str = "recovery.lock";
const FILES_LOCK: &str = "files.lock";

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

/// What the guard survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Power cuts: git goes on only when objects and log are on disk.
    Full,
    /// Killed processes: git goes on when the log is on disk.
    Process,
}

/// A lock that could not be had in time.
#[derive(Debug)]
pub struct Busy {
    /// The lock file.
    pub path: PathBuf,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "another process holds {}", self.path.display())
    }
}

impl std::error::Error for Busy {}

/// The state directory of one repository.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// The state directory of `repo`, whether or not it exists.
    #[must_use]
    pub fn of(repo: &Repository) -> StateDir {
        StateDir { path: repo.common_dir.join(NAME) }
    }

    /// Does it exist? A symbolic link or a file in its place does not count.
    #[must_use]
    pub fn exists(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|m| m.is_dir())
    }

    /// Creates the directory with its parts and makes their names durable.
    ///
    /// # Errors
    /// Something else lies there, or the file system refuses.
    pub fn create(&self) -> anyhow::Result<()> {
        if !self.exists() {
            if fs::symlink_metadata(&self.path).is_ok() {
                anyhow::bail!("{} is not a directory", self.path.display());
            }
            durable::create_dirs(&self.path, 0o777)?;
            durable::share_like_directory(&self.path)?;
        }
        self.create_missing([self.wal(), self.quarantine(), self.tx_root()])?;
        for lock in [APPEND_LOCK, RECOVERY_LOCK] {
            self.open_lock(lock, Inherit::No)?;
        }
        self.verify()?;
        durable::fsync_dir(&self.path)?;
        durable::fsync_dir(self.path.parent().unwrap_or(Path::new("/")))?;
        Ok(())
    }

    /// Creates the directory if there is none, and those of its parts that may be removed by hand: who lacks them has lost what
    /// was in them, and nothing else.
    ///
    /// # Errors
    /// The log is missing; something else lies where a part should be; what the file system said.
    pub fn make_ready(&self) -> anyhow::Result<()> {
        if !self.exists() {
            return self.create().with_context(|| format!("cannot create {}", self.path.display()));
        }
        if self.create_missing([self.quarantine(), self.tx_root()])? {
            durable::fsync_dir(&self.path)?;
        }
        Ok(self.verify()?)
    }

    fn create_missing(&self, parts: impl IntoIterator<Item = PathBuf>) -> io::Result<bool> {
        let mut created = false;
        for part in parts {
            if crate::fs::absent_is_none(fs::symlink_metadata(&part))?.is_none() {
                durable::create_dirs(&part, 0o777)?;
                durable::share_like_directory(&part)?;
                created = true;
            }
        }
        Ok(created)
    }

    /// Refuses a state directory without a log, or whose parts are not directories: a link would lead us out of the repository.
    /// Who only looks can do without the parts that [`StateDir::make_ready`] makes again.
    ///
    /// # Errors
    /// Which part is none.
    pub fn verify(&self) -> io::Result<()> {
        let optional =
            [self.quarantine(), self.tx_root()].into_iter().filter(|part| fs::symlink_metadata(part).is_ok());
        Self::require_directories([self.path.clone(), self.wal()].into_iter().chain(optional))
    }

    fn require_directories(parts: impl IntoIterator<Item = PathBuf>) -> io::Result<()> {
        for part in parts {
            let Some(found) = crate::fs::absent_is_none(fs::symlink_metadata(&part))? else {
                let what = format!("{} is missing: `jin-txn doctor` says what to do", part.display());
                return Err(io::Error::new(io::ErrorKind::NotFound, what));
            };
            if !found.is_dir() {
                return Err(io::Error::other(format!("{} is not a directory", part.display())));
            }
        }
        Ok(())
    }

    /// What was chosen at `install`; [`Durability::Full`] when nothing was, or nothing readable.
    #[must_use]
    pub fn durability(&self) -> Durability {
        match durable::read_own(&self.path.join(DURABILITY), SMALL) {
            Ok(text) if text.trim_ascii() == b"process" => Durability::Process,
            _ => Durability::Full,
        }
    }

    /// Chooses.
    ///
    /// # Errors
    /// What the file system said.
    pub fn set_durability(&self, durability: Durability) -> io::Result<()> {
        let text = match durability {
            Durability::Full => "full\n",
            Durability::Process => "process\n",
        };
        durable::replace(&self.path.join(DURABILITY), text.as_bytes())
    }

    /// What `install` has written down of the user's configuration.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let text =
            durable::read_own(&self.path.join(SETTINGS), SMALL).ok().and_then(|text| String::from_utf8(text).ok());
        text.map_or_else(Settings::default, |text| Settings::parse(&text))
    }

    /// Writes settings down; the defaults need no file.
    ///
    /// # Errors
    /// What the file system said.
    pub fn set_settings(&self, settings: &Settings) -> io::Result<()> {
        if *settings == self.settings() {
            return Ok(());
        }
        durable::replace(&self.path.join(SETTINGS), settings.to_string().as_bytes())
    }

    /// Is the name of the `packed-refs` that has the identity `packed` known to be durable?
    #[must_use]
    pub fn is_known_durable(&self, packed: &FileId) -> bool {
        durable::read_own(&self.path.join(PACKED), SMALL).is_ok_and(|known| known == packed_line(packed))
    }

    /// Notes that it is: a hint that saves a sync for each of the files that git removes next.
    ///
    /// # Errors
    /// What the file system said.
    pub fn note_durable(&self, packed: &FileId) -> io::Result<()> {
        let tmp = format!("{PACKED}.{}", std::process::id());
        durable::publish(&self.path, &tmp, PACKED, &packed_line(packed))
    }

    /// What tells this directory from its copies.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn birth(&self) -> io::Result<Birth> {
        let metadata = fs::symlink_metadata(&self.path)?;
        let born = metadata.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(Birth { ino: metadata.ino(), born: born.and_then(|d| i64::try_from(d.as_nanos()).ok()) })
    }

    /// The name of the file that says: what the last boot left has been looked at in the boot `boot`. It names the
    /// directory as well, so that a copy has to be looked at again.
    ///
    /// # Errors
    /// The directory cannot be looked at.
    pub fn verified_name(&self, boot: &str) -> io::Result<String> {
        Ok(format!("{VERIFIED}{boot}.{}", self.birth()?.ino))
    }

    /// Notes that what the last boot left has been looked at.
    ///
    /// # Errors
    /// What the file system said.
    pub fn mark_verified(&self, boot: &str) -> io::Result<()> {
        let name = self.verified_name(boot)?;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let old = entry.file_name();
            if old.to_str().is_some_and(|n| n.starts_with(VERIFIED) && n != name) {
                durable::remove_file(&entry.path())?;
            }
        }
        match durable::create_new(&self.path.join(name), b"") {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// git's configuration as the last transaction found it.
    #[must_use]
    pub fn saved_config(&self) -> PathBuf {
        self.path.join("config.saved")
    }

    /// The log's segments.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// What recovery moved aside.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.path.join("quarantine")
    }

    /// Staged files of all transactions.
    #[must_use]
    pub fn tx_root(&self) -> PathBuf {
        self.path.join("tx")
    }

    /// Staged files of one transaction.
    #[must_use]
    pub fn tx(&self, id: TxId) -> PathBuf {
        self.tx_root().join(id.to_string())
    }

    /// Makes the directory for files of one transaction, if there is none.
    ///
    /// # Errors
    /// Something else lies there, or what the file system said.
    pub fn make_tx(&self, id: TxId) -> io::Result<PathBuf> {
        let dir = self.tx(id);
        match fs::symlink_metadata(&dir) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(io::Error::other(format!("{} is not a directory", dir.display()))),
            Err(_) => {
                durable::create_dirs(&dir, 0o777)?;
                durable::share_like_directory(&dir)?;
            }
        }
        Ok(dir)
    }

    /// Runs `work` under `append.lock`.
    ///
    /// # Errors
    /// [`Busy`] when the lock cannot be had in time; otherwise what `work` says.
    pub fn while_appending<T>(&self, wait: Wait, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        // Before anything is written: a part that is a link would lead out of the repository.
        Self::require_directories([self.path.clone(), self.wal()])?;
        let lock = self.open_lock(APPEND_LOCK, Inherit::No)?;
        let _held = self.acquire(lock, wait, APPEND_LOCK)?;
        work()
    }

    /// Runs `work` as the only runner of recovery. Children of `work` inherit the lock, so that it holds
    /// until the last of them is gone, whatever happens to this process.
    ///
    /// # Errors
    /// [`Busy`] when another runner is at it; otherwise what `work` says.
    pub fn while_recovering<T>(&self, wait: Wait, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let lock = self.open_lock(RECOVERY_LOCK, Inherit::Yes)?;
        let _held = self.acquire(lock, wait, RECOVERY_LOCK)?;
        work()
    }

    /// Lets nobody else prepare a transaction with files until the returned file is closed.
    ///
    /// # Errors
    /// [`Busy`] when somebody else does not let go in time; else what the file system said.
    pub fn hold_files(&self, wait: Wait) -> anyhow::Result<File> {
        let lock = self.open_lock(FILES_LOCK, Inherit::No)?;
        self.lock(&lock, wait, FILES_LOCK)?;
        Ok(lock)
    }

    fn open_lock(&self, name: &str, inherit: Inherit) -> anyhow::Result<File> {
        let cannot = || format!("cannot write {}", self.path.join(name).display());
        self.try_open_lock(name, inherit).with_context(cannot)
    }

    fn try_open_lock(&self, name: &str, inherit: Inherit) -> io::Result<File> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o666);
        let file = match durable::open_own(&path, &mut options) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let file = durable::open_own(&path, options.create(true).truncate(false))?;
                durable::share_like_directory(&path)?;
                file
            }
            other => other?,
        };
        if inherit == Inherit::Yes {
            rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
        }
        Ok(file)
    }

    fn acquire(&self, lock: File, wait: Wait, name: &str) -> anyhow::Result<Held> {
        self.lock(&lock, wait, name)?;
        Ok(Held(lock))
    }

    fn lock(&self, lock: &File, wait: Wait, name: &str) -> anyhow::Result<()> {
        // flock has no timeout of its own; holders keep these locks for microseconds.
        let mut pause = Duration::from_micros(50);
        let mut started = None;
        loop {
            match flock(lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(errno) => {
                    let cannot = format!("cannot lock {}", self.path.join(name).display());
                    return Err(anyhow::Error::new(io::Error::from(errno)).context(cannot));
                }
            }
            let limit = match wait {
                Wait::No => Duration::ZERO,
                Wait::UpTo(limit) => limit,
                Wait::AsConfigured => self.settings().lock_timeout,
            };
            if started.get_or_insert_with(Instant::now).elapsed() >= limit {
                return Err(Busy { path: self.path.join(name) }.into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// A lock that is held. It is released when this ends, in children that have it open, too.
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        if flock(&self.0, FlockOperation::Unlock).is_err() {
            // Closing the file does it.
        }
    }
}

fn packed_line(packed: &FileId) -> Vec<u8> {
    format!("{} {} {}\n", packed.ino, packed.size, packed.mtime).into_bytes()
}

#[derive(PartialEq, Eq)]
enum Inherit {
    Yes,
    No,
}
