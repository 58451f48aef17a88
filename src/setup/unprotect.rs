//! `uninstall` in one repository.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::durable;
use crate::git::Repository;
use crate::setup::installed::{HooksDirectory, Installed};
use crate::setup::names::ALL_NAMES;
use crate::setup::places::HooksLocation;
use crate::setup::settings::File;
use crate::setup::{chaining, former, places};
use crate::state::{Durability, StateDir};

/// Is anything of ours there that works without a state directory: hooks, or settings?
pub(crate) fn is_installed(git: &Path, repo: &Repository) -> anyhow::Result<bool> {
    let has_hooks = |dir: &HooksDirectory| ALL_NAMES.iter().any(|name| chaining::is_ours(&dir.path.join(name)));
    let file = File { git, path: repo.common_dir.join("config") };
    Ok(directories(git, repo, None).iter().any(has_hooks) || former::settings(&file)? != Default::default())
}

/// Takes hooks and settings back. Says which hooks of others had to stay aside.
pub(crate) fn unprotect(git: &Path, repo: &Repository) -> anyhow::Result<Vec<PathBuf>> {
    let state = StateDir::of(repo);
    // What a run does without hooks cannot be taken back.
    if let Some(run) = crate::run::at_work(&state)? {
        anyhow::bail!("{run} is at work: nothing was removed\nhint: try again when it has ended");
    }
    let installed = Installed::load(repo, &state)?;
    let mut left = Vec::new();
    for directory in directories(git, repo, installed.as_ref()) {
        left.extend(directory.leave()?);
    }
    let file = File { git, path: repo.common_dir.join("config") };
    match installed {
        Some(installed) => installed.settings.take_back(&file)?,
        None => former::settings(&file)?.take_back(&file)?,
    }
    if state.durability() == Durability::Full {
        // The configuration that git wrote is durable before what could put it back is gone.
        durable::sync_filesystem_of(&repo.common_dir).context("cannot sync the file system")?;
    }
    Installed::forget(&state)?;
    Ok(left)
}

fn directories(git: &Path, repo: &Repository, installed: Option<&Installed>) -> Vec<HooksDirectory> {
    let mut directories = installed.map(|i| i.hooks.clone()).unwrap_or_default();
    // Hooks from a template, or from an installation that this repository is a copy of.
    for place in places::of_all_worktrees(git, repo).unwrap_or_default() {
        if let HooksLocation::Own(path) = place
            && directories.iter().all(|known| known.path != path)
        {
            directories.push(HooksDirectory { path, made: Vec::new(), modified: None });
        }
    }
    directories
}
