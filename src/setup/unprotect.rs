//! `uninstall` in one repository.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::durable;
use crate::git::Repository;
use crate::setup::installed::{HooksDirectory, Installed};
use crate::setup::places::HooksLocation;
use crate::setup::settings::{File, Settings};
use crate::setup::{alias, fsync, places};
use crate::state::{Durability, StateDir};

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
        None => of_template(&file)?.take_back(&file)?,
    }
    if state.durability() == Durability::Full {
        // The configuration that git wrote is durable before what could put it back is gone.
        durable::sync_filesystem_of(state.path()).context("cannot sync the file system")?;
    }
    Installed::forget(&state)?;
    Ok(left)
}

fn directories(git: &Path, repo: &Repository, installed: Option<&Installed>) -> Vec<HooksDirectory> {
    let mut directories = installed.map(|i| i.hooks.clone()).unwrap_or_default();
    // Hooks from a template, or from an installation that this repository is a copy of.
    for place in places::of_all_worktrees(git, repo, None).unwrap_or_default() {
        if let HooksLocation::Own(path) = place
            && directories.iter().all(|known| known.path != path)
        {
            directories.push(HooksDirectory { path, made: Vec::new(), modified: None });
        }
    }
    directories
}

/// What a template put into a configuration, as far as it is there.
fn of_template(file: &File<'_>) -> anyhow::Result<Settings> {
    let Some(alias) = file.get(alias::KEY)?.filter(|alias| alias::is_ours(alias)) else {
        return Ok(Settings::default());
    };
    let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Ok(Settings::made(vec![
        setting(alias::KEY, &alias),
        setting("core.fsync", fsync::SETTING),
        setting("core.lockfilePid", "true"),
    ]))
}
