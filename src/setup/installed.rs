//! What `install` found, written down so that `uninstall` can put it back byte for byte.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::fs::{absent_is_none, durable};
use crate::setup::chaining;
use crate::setup::names::ALL_NAMES;
use crate::setup::settings::Settings;
use crate::state::StateDir;

/// The changes of one repository.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Installed {
    pub version: u32,
    /// The git directory that this is about: copies have another one.
    pub git_dir: PathBuf,
    /// The directories that we put hooks into.
    pub hooks: Vec<HooksDirectory>,
    /// The repository's configuration.
    pub settings: Settings,
}

/// A directory with hooks of ours, as it was before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HooksDirectory {
    pub path: PathBuf,
    /// The directories that we made, the innermost first.
    pub made: Vec<PathBuf>,
    /// Its modification time (Unix seconds and nanoseconds).
    pub modified: Option<(i64, i64)>,
}

impl HooksDirectory {
    pub(crate) fn at(path: &Path) -> HooksDirectory {
        let missing = path.ancestors().take_while(|dir| fs::symlink_metadata(dir).is_err());
        let modified = fs::metadata(path).ok().map(|m| (m.mtime(), m.mtime_nsec()));
        HooksDirectory { path: path.to_owned(), made: missing.map(Path::to_owned).collect(), modified }
    }

    /// Takes our hooks out, puts back those that had stepped aside, and leaves the directory as it was. Says what stays
    /// aside, because another hook has taken its place since.
    pub(crate) fn leave(&self) -> anyhow::Result<Vec<PathBuf>> {
        let path = &self.path;
        if !path.is_dir() {
            return Ok(Vec::new());
        }
        let ours = ALL_NAMES.iter().any(|name| chaining::is_ours(&path.join(name)));
        for name in ALL_NAMES {
            let cannot = || format!("cannot take back {}", path.join(name).display());
            chaining::take_back(path, name).with_context(cannot)?;
        }
        let left = chaining::clear(path)?;
        durable::fsync_dir(path)?;
        if let Some(modified) = self.modified.filter(|_| ours) {
            durable::set_directory_modified(path, modified)?;
        }
        for made in &self.made {
            durable::remove_dir_if_empty(made)?;
        }
        Ok(left)
    }
}

impl Installed {
    fn path(state: &StateDir) -> PathBuf {
        state.path().join("install.json")
    }

    pub(crate) fn load(state: &StateDir) -> anyhow::Result<Option<Installed>> {
        let path = Self::path(state);
        let Some(bytes) = absent_is_none(fs::read(&path))? else { return Ok(None) };
        let mut installed: Installed =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        installed.move_to(state.path().parent().unwrap_or(Path::new("/")));
        Ok(Some(installed))
    }

    /// In a repository that was copied, or moved, the hooks inside of it count; what lies elsewhere may be the original's.
    fn move_to(&mut self, git_dir: &Path) {
        let from = std::mem::replace(&mut self.git_dir, git_dir.to_owned());
        if from == git_dir {
            return;
        }
        let moved = |path: &PathBuf| Some(git_dir.join(path.strip_prefix(&from).ok()?));
        self.hooks.retain_mut(|known| {
            let Some(path) = moved(&known.path) else { return false };
            known.path = path;
            known.made = known.made.iter().filter_map(moved).collect();
            true
        });
    }

    pub(crate) fn store(&self, state: &StateDir) -> anyhow::Result<()> {
        Ok(durable::replace(&Self::path(state), &serde_json::to_vec_pretty(self)?)?)
    }

    pub(crate) fn forget(state: &StateDir) -> anyhow::Result<()> {
        Ok(durable::remove_file(&Self::path(state))?)
    }
}
