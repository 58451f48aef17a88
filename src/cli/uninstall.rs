//! `jin-txn uninstall`

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::install::{HooksDirectory, Installed, is_our_alias};
use crate::cli::{Session, exit_code, fsync, real_git, shim, submodules, template};
use crate::fs::durable;
use crate::git::Repository;
use crate::recovery;
use crate::setup::settings;
use crate::setup::settings::Settings;
use crate::setup::{chaining as beside, hooks, places};
use crate::state::directory::{Durability, StateDir};

/// Take jin-txn out of a repository again
///
/// Hooks and configuration are as they were before `install`. The log and the quarantine stay in .git/.jin unless
/// you say --purge.
#[derive(clap::Args)]
pub struct Args {
    /// Remove .git/.jin as well: the log, and everything in quarantine
    #[arg(long)]
    purge: bool,

    /// Take it out of the submodules as well, and of theirs
    #[arg(long)]
    recurse_submodules: bool,

    /// Take back `install --template`; repositories that were made meanwhile stay protected
    #[arg(long, conflicts_with_all = ["purge", "recurse_submodules"])]
    template: bool,

    /// Instead of a repository: take the `git` that `install --shim` has put into DIR away
    #[arg(long, value_name = "DIR", conflicts_with_all = ["purge", "recurse_submodules", "template"])]
    shim: Option<PathBuf>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    if let Some(dir) = &args.shim {
        return shim::uninstall(session, dir);
    }
    let git = real_git()?;
    if args.template {
        template::uninstall(session, &git)?;
        return Ok(super::exit::DONE);
    }
    let repo = session.repository()?;
    let mut repos = vec![repo];
    if args.recurse_submodules {
        let protected = |repo: &Repository| StateDir::of(repo).exists();
        repos.extend(submodules::of(&git, &repos[0])?.into_iter().filter(protected));
    }
    repos.iter().try_for_each(|repo| take_out(session, args, &git, repo))?;
    Ok(super::exit::DONE)
}

fn take_out(session: &Session, args: &Args, git: &Path, repo: &Repository) -> anyhow::Result<()> {
    let state = StateDir::of(repo);
    anyhow::ensure!(state.exists(), "{} is not protected", repo.common_dir.display());
    let report = recovery::recover(repo, &session.recovery_options()?)?;
    for line in report.headlines() {
        session.say(&line);
    }
    if args.purge && (report.needs_human() || report.is_busy()) {
        for line in crate::cli::status::describe(&report) {
            session.say(&line);
        }
        anyhow::ensure!(exit_code(&report) == crate::cli::exit::DONE, "something is unfinished: nothing was removed");
    }
    // What a run does without hooks cannot be taken back.
    if let Some(run) = crate::run::at_work(&state)? {
        anyhow::bail!("{run} is at work: nothing was removed\nhint: try again when it has ended");
    }
    let installed = Installed::load(&state)?;
    let mut directories = installed.as_ref().map(|i| i.hooks.clone()).unwrap_or_default();
    // Hooks from a template, or from an installation that this repository is a copy of.
    let others = places::of_all_worktrees(git, repo, None).unwrap_or_default();
    for place in others {
        if let places::HooksLocation::Own(path) = place
            && directories.iter().all(|known| known.path != path)
        {
            directories.push(HooksDirectory { path, made: Vec::new(), modified: None });
        }
    }
    for directory in &directories {
        leave(session, directory)?;
    }
    let file = settings::File { git, path: repo.common_dir.join("config") };
    match installed {
        Some(installed) => installed.settings.take_back(&file)?,
        None => of_template(&file)?.take_back(&file)?,
    }
    if state.durability() == Durability::Full {
        // The configuration that git wrote is durable before what could put it back is gone.
        durable::sync_filesystem_of(state.path()).context("cannot sync the file system")?;
    }
    Installed::forget(&state)?;
    if args.purge {
        durable::remove_tree(state.path())?;
        session.say(&format!("jin-txn: {} is no longer protected", repo.common_dir.display()));
    } else {
        session.say(&format!(
            "jin-txn: {} is no longer protected; the log stays in {}",
            repo.common_dir.display(),
            state.path().display()
        ));
    }
    Ok(())
}

/// What a template put into a configuration, as far as it is there.
fn of_template(file: &settings::File<'_>) -> anyhow::Result<Settings> {
    let Some(alias) = file.get("alias.txn")?.filter(|alias| is_our_alias(alias)) else {
        return Ok(Settings::default());
    };
    let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Ok(Settings::made(vec![
        setting("alias.txn", &alias),
        setting("core.fsync", fsync::SETTING),
        setting("core.lockfilePid", "true"),
    ]))
}

/// Takes our hooks out of a directory, puts back those that had stepped aside, and leaves it as it was.
pub(super) fn leave(session: &Session, directory: &HooksDirectory) -> anyhow::Result<()> {
    let path = &directory.path;
    if !path.is_dir() {
        return Ok(());
    }
    let ours = hooks::ALL_NAMES.iter().any(|name| beside::is_ours(&path.join(name)));
    for name in hooks::ALL_NAMES {
        beside::take_back(path, name).with_context(|| format!("cannot take back {}", path.join(name).display()))?;
    }
    for left in beside::clear(path)? {
        let left = crate::util::text::shown(&left);
        session.say(&format!("jin-txn: another hook has taken that place since: {left} stays there"));
    }
    durable::fsync_dir(path)?;
    if let Some(modified) = directory.modified.filter(|_| ours) {
        durable::set_directory_modified(path, modified)?;
    }
    for made in &directory.made {
        durable::remove_dir_if_empty(made)?;
    }
    Ok(())
}
