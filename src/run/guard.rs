//! What led git to our hooks when a run began, and whether that is still so; how the repository is stored.
//!
//! A run may turn hooks off: by the configuration (`core.hooksPath`, as husky's install does), by changing or removing the
//! hook, by `JIN_TXN=off`. Then the log does not have what it did to refs, and the snapshot alone tells. Settings and hook
//! are compared with the snapshot; a hook that is called with `JIN_TXN=off` leaves a note in the run's directory.
//!
//! Limit: what is turned off and on again within the run, or for one command (`-c core.hooksPath=...`), shows only by what
//! it did to the branch that the worktree has checked out.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fs::{FileId, absent_is_none, durable, named as fs};
use crate::git::{Config, RefFormat, Repository};
use crate::run::manifest::{Guard, path_text};
use crate::state::{StateDir, TxId};
use crate::util::text::unescape;

/// The note, below the run's directory.
const BLIND: &str = "blind";

/// The hook that is called for refs.
const HOOK: &str = "reference-transaction";

/// Looks, for the worktree whose configuration `config` is.
pub(super) fn look(repo: &Repository, config: &Config, worktree: Option<&Path>) -> anyhow::Result<Guard> {
    let linked_config = linked_config(repo)?;
    let hook = hook(repo, config, worktree);
    let hook_id = hook.as_deref().map_or(Ok(None), FileId::at)?;
    Ok(Guard {
        settings: settings(config),
        hook: hook.as_deref().map(path_text),
        hook_id,
        linked_config,
        formats: formats(config),
    })
}

/// Where git looks for it, unless that is in a home directory.
fn hook(repo: &Repository, config: &Config, worktree: Option<&Path>) -> Option<PathBuf> {
    let directory = match config.get("core.hookspath") {
        Some(set) if set.starts_with('~') => return None,
        Some(set) => worktree.unwrap_or(&repo.git_dir).join(set),
        None => repo.common_dir.join("hooks"),
    };
    Some(directory.join(HOOK))
}

fn settings(config: &Config) -> Vec<String> {
    config.all_local(|key| key == "core.hookspath" || key.starts_with("hook."))
}

fn formats(config: &Config) -> Vec<String> {
    config.all_local(|key| matches!(key, "extensions.refstorage" | "extensions.objectformat"))
}

/// The file that the configuration leads to, where it is a link (`git-new-workdir`). Changes through it do not go back.
fn linked_config(repo: &Repository) -> io::Result<Option<FileId>> {
    let path = repo.common_dir.join("config");
    let is_link = absent_is_none(fs::symlink_metadata(&path))?.is_some_and(|found| found.is_symlink());
    // One that leads nowhere is a link all the same.
    let target =
        || Ok(absent_is_none(std::fs::metadata(&path))?.map_or_else(FileId::default, |found| FileId::of(&found)));
    is_link.then(target).transpose()
}

impl Guard {
    /// Was git led away from our hooks since? `config` is what the worktree's configuration is now, if it can be read.
    pub(crate) fn is_changed(&self, config: Option<&Config>) -> io::Result<bool> {
        if config.is_none_or(|config| settings(config) != self.settings) {
            return Ok(true);
        }
        let Some(hook) = self.hook.as_deref().and_then(unescape) else { return Ok(false) };
        Ok(FileId::at(Path::new(OsStr::from_bytes(&hook)))? != self.hook_id)
    }

    /// Why the repository is not stored any more as it was when the run began: nothing of what was kept fits then.
    pub(crate) fn misfit(&self, repo: &Repository, config: Option<&Config>) -> io::Result<Option<&'static str>> {
        let now = Repository::open(&repo.common_dir).map(|repo| repo.ref_format);
        if now.is_ok_and(|format| format != RefFormat::Files) {
            return Ok(Some("its refs are stored in another format now (extensions.refStorage)"));
        }
        if config.is_some_and(|config| formats(config) != self.formats) {
            return Ok(Some(
                "its configuration names other formats now (extensions.refStorage, extensions.objectFormat)",
            ));
        }
        let is_new_link = self.linked_config.is_none() && linked_config(repo)?.is_some();
        Ok(is_new_link.then_some("its configuration is a link now"))
    }

    /// Has the run changed a configuration that was a link?
    pub(crate) fn linked_config_is_changed(&self, repo: &Repository) -> io::Result<bool> {
        Ok(self.linked_config.is_some() && linked_config(repo)? != self.linked_config)
    }
}

/// Notes that hooks are, or were, off in the run `id`.
pub(crate) fn note(state: &StateDir, id: TxId) -> io::Result<()> {
    match durable::create_new(&state.tx(id).join(BLIND), b"") {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Is that noted?
pub(crate) fn is_noted(state: &StateDir, id: TxId) -> io::Result<bool> {
    Ok(FileId::at(&state.tx(id).join(BLIND))?.is_some())
}
