//! What `install` found, written down so that `uninstall` can put it back.
//!
//! The note lies in the repository, and so anybody may have written it. It is believed as far as `install` could have written
//! it there: directories of this very repository, settings that `install` makes, and values that it replaces.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::fs::{absent_is_none, durable};
use crate::git::Repository;
use crate::setup::names::ALL_NAMES;
use crate::setup::settings::Settings;
use crate::setup::{alias, chaining, configured, fsync, places};
use crate::state::StateDir;
use crate::state::directory::SMALL;
use crate::util::text::shown;

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
        chaining::require_own_neighbour(path)?;
        let ours = ALL_NAMES.iter().any(|name| chaining::is_ours(&path.join(name)));
        for name in ALL_NAMES {
            let cannot = || format!("cannot take back {}", shown(&path.join(name)));
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

    /// Is it a directory that `install` could have put hooks into? Of those that it says were made only such remain.
    fn is_credible(&mut self, repo: &Repository) -> bool {
        let Ok(real) = fs::canonicalize(&self.path) else { return false };
        self.path = real;
        let is_inside = |dir: &Path| dir != repo.common_dir && places::belongs(repo, dir);
        self.made.retain(|dir| self.path.starts_with(dir) && is_inside(dir));
        is_inside(&self.path)
    }
}

/// The value that `install` may have found where it made the setting `key`; `None`: it makes no such setting.
fn credible_before(key: &str, before: Option<String>) -> Option<Option<String>> {
    match key {
        "core.fsync" => Some(before.filter(|value| fsync::is_value(value))),
        // These are made only where nothing was, or something of ours.
        alias::KEY | alias::RUN_KEY | "core.lockfilePid" => Some(None),
        _ => configured::is_key(key).then_some(None),
    }
}

impl Installed {
    fn path(state: &StateDir) -> PathBuf {
        state.path().join("install.json")
    }

    pub(crate) fn load(repo: &Repository, state: &StateDir) -> anyhow::Result<Option<Installed>> {
        let path = Self::path(state);
        let cannot = || {
            let hint = "hint: if it is damaged, remove it and run `jin-txn install`, then this again";
            format!("cannot read what `install` noted\n{hint}")
        };
        let Some(bytes) = absent_is_none(durable::read_own(&path, SMALL)).with_context(cannot)? else {
            return Ok(None);
        };
        let mut installed: Installed = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged", shown(&path)))
            .with_context(cannot)?;
        installed.move_to(&repo.common_dir);
        installed.hooks.retain_mut(|known| known.is_credible(repo));
        installed.settings.believe(credible_before);
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
