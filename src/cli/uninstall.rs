//! `jin-txn uninstall`

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::install::{HOOKS, Installed, hooks_dir, is_ours, local, set_local};
use super::{Session, exit_code, fsync, real_git, shim};
use crate::durable;
use crate::git::Repository;
use crate::recovery;
use crate::state_dir::{Durability, StateDir};

/// Take jin-txn out of a repository again
///
/// Hooks and configuration are as they were before `install`. The log and the quarantine stay in .git/.jin unless
/// you say --purge.
#[derive(clap::Args)]
pub struct Args {
    /// Remove .git/.jin as well: the log, and everything in quarantine
    #[arg(long)]
    purge: bool,

    /// Instead of a repository: take the `git` that `install --shim` has put into DIR away
    #[arg(long, value_name = "DIR", conflicts_with = "purge")]
    shim: Option<PathBuf>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    if let Some(dir) = &args.shim {
        return shim::uninstall(session, dir);
    }
    let repo = session.repository()?;
    let state = StateDir::of(&repo);
    anyhow::ensure!(state.exists(), "{} is not protected", repo.common_dir.display());
    let report = recovery::recover(&repo, &session.recovery_options()?)?;
    for line in report.headlines() {
        session.say(&line);
    }
    if args.purge && (report.needs_human() || report.is_busy()) {
        for line in super::status::describe(&report) {
            session.say(&line);
        }
        anyhow::ensure!(exit_code(&report) == super::exit::DONE, "something is unfinished: nothing was removed");
    }
    let hooks = hooks_dir(&repo);
    for name in HOOKS {
        let path = hooks.join(name);
        if is_ours(&path) {
            durable::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    if let Some(installed) = Installed::load(&state)? {
        if installed.made_hooks_dir {
            durable::remove_dir_if_empty(&hooks)?;
        }
        restore_config(&repo, &installed)?;
        if state.durability() == Durability::Full {
            // The configuration that git wrote is durable before what could put it back is gone.
            durable::sync_filesystem(&fs::File::open(state.path())?).context("cannot sync the file system")?;
        }
        Installed::forget(&state)?;
    }
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
    Ok(super::exit::DONE)
}

/// Byte for byte when nobody changed the configuration since; else our settings alone go.
fn restore_config(repo: &Repository, installed: &Installed) -> anyhow::Result<()> {
    let config = repo.common_dir.join("config");
    let now = fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
    if let (Some(before), Some(after)) = (&installed.config_before, &installed.config_after)
        && now == *after
    {
        // git's own protocol: whoever changes the configuration holds config.lock.
        let permissions = fs::metadata(&config)?.permissions();
        let lock = repo.common_dir.join("config.lock");
        durable::create_new(&lock, before.as_bytes())
            .and_then(|file| file.set_permissions(permissions).and_then(|()| file.sync_all()))
            .with_context(|| format!("cannot write {}", lock.display()))?;
        return Ok(durable::rename(&lock, &config)?);
    }
    let git = real_git()?;
    if local(&git, repo, "alias.txn")?.is_some_and(|alias| alias.contains("jin-txn")) {
        set_local(&git, repo, "alias.txn", None)?;
    }
    if let Some(ours) = &installed.fsync
        && local(&git, repo, "core.fsync")?.as_deref() == Some(fsync::SETTING)
    {
        set_local(&git, repo, "core.fsync", ours.before.as_deref())?;
    }
    Ok(())
}
