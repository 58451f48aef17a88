//! `.jin/` in the common git directory: its paths, what has to be in it, its identity.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::access::Purpose;
use crate::fs::{Birth, durable, named as fs};
use crate::git::Repository;
use crate::state::TxId;
use crate::util::text::shown;

/// Name of the state directory below the common git directory.
pub(crate) const NAME: &str = ".jin";

/// What `rescue` uses where there is no state directory.
pub(crate) const RESCUE: &str = "jin-rescue";

/// The most that a note or a marker has, in bytes.
pub(crate) const SMALL: u64 = 1 << 20;

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

    /// The directory for what `rescue` replaces: the state directory, or one of its own where the repository is not protected.
    /// Without a log a state directory would be a damaged one.
    #[must_use]
    pub(crate) fn for_rescue(repo: &Repository) -> StateDir {
        let own = StateDir { path: repo.common_dir.join(RESCUE) };
        Some(Self::of(repo)).filter(Self::exists).unwrap_or(own)
    }

    /// Does it exist? A symbolic link or a file in its place does not count.
    #[must_use]
    pub fn exists(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|m| m.is_dir())
    }

    /// Creates the directory with its parts and makes their names durable.
    pub fn create(&self) -> anyhow::Result<()> {
        if !self.exists() {
            if fs::symlink_metadata(&self.path).is_ok() {
                anyhow::bail!(Self::in_the_way(&self.path));
            }
            durable::make_dirs(&self.path, Purpose::State)?;
        }
        self.create_missing([self.wal(), self.quarantine(), self.tx_root()])?;
        self.mend_access()?;
        self.create_locks()?;
        self.make_id()?;
        self.verify()?;
        durable::fsync_dir(&self.path)?;
        durable::fsync_dir(self.path.parent().unwrap_or(Path::new("/")))?;
        Ok(())
    }

    /// Creates the directory if there is none, and those of its parts that may be removed by hand: who lacks them has lost what
    /// was in them, and nothing else.
    pub fn make_ready(&self) -> anyhow::Result<()> {
        if !self.exists() {
            return self.create().with_context(|| format!("cannot create {}", shown(&self.path)));
        }
        if self.create_missing([self.quarantine(), self.tx_root()])? {
            durable::fsync_dir(&self.path)?;
        }
        Ok(self.verify()?)
    }

    pub(crate) fn create_missing(&self, parts: impl IntoIterator<Item = PathBuf>) -> io::Result<bool> {
        let mut created = false;
        for part in parts {
            if crate::fs::absent_is_none(fs::symlink_metadata(&part))?.is_none() {
                durable::make_dirs(&part, Purpose::State)?;
                created = true;
            }
        }
        Ok(created)
    }

    /// Refuses a state directory without a log, or whose parts are not directories: a link would lead us out of the repository.
    /// Who only looks can do without the parts that [`StateDir::make_ready`] makes again.
    pub fn verify(&self) -> io::Result<()> {
        let optional =
            [self.quarantine(), self.tx_root()].into_iter().filter(|part| fs::symlink_metadata(part).is_ok());
        Self::require_directories([self.path.clone(), self.wal()].into_iter().chain(optional))
    }

    /// Refuses a state directory whose log is missing or lies behind a link.
    pub fn require_log(&self) -> io::Result<()> {
        Self::require_directories([self.path.clone(), self.wal()])
    }

    fn require_directories(parts: impl IntoIterator<Item = PathBuf>) -> io::Result<()> {
        for part in parts {
            let Some(found) = crate::fs::absent_is_none(fs::symlink_metadata(&part))? else {
                let what = format!("{} is missing: `jin-txn recover` begins a new log", shown(&part));
                return Err(io::Error::new(io::ErrorKind::NotFound, what));
            };
            if !found.is_dir() {
                return Err(io::Error::other(Self::in_the_way(&part)));
            }
        }
        Ok(())
    }

    fn in_the_way(path: &Path) -> String {
        format!("{} is not a directory: look at it, move it away, then run `jin-txn recover`", shown(path))
    }

    /// What tells this directory from its copies.
    pub fn birth(&self) -> io::Result<Birth> {
        fs::at(&self.path, Birth::at(&self.path))
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

    /// What is kept of transactions that have ended, so that they can be undone.
    #[must_use]
    pub fn kept(&self) -> PathBuf {
        self.path.join("kept")
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
    pub fn make_tx(&self, id: TxId) -> io::Result<PathBuf> {
        let dir = self.tx(id);
        match fs::symlink_metadata(&dir) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(io::Error::other(Self::in_the_way(&dir))),
            Err(_) => durable::make_dirs(&dir, Purpose::State)?,
        }
        Ok(dir)
    }
}
