//! `install` in one repository.
//!
//! What is changed is written down before it is changed. The hooks come last: from then on every transaction is logged.

use std::path::{Path, PathBuf};

use anyhow::Context;
use camino::Utf8Path;

use crate::fs::access::Purpose;
use crate::fs::durable;
use crate::git::{Git, Repository};
use crate::process::owner;
use crate::recovery::{Options, copied};
use crate::setup::hooks::InstallMethod;
use crate::setup::installed::{HooksDirectory, Installed};
use crate::setup::names::CONFIG_HOOKS;
use crate::setup::preferences::Preferences;
use crate::setup::{alias, chaining, configured, former, fsync, hooks, settings};
use crate::state::{Durability, StateDir, Wait};
use crate::util::text::{one_line, shown};
use crate::wal::Log;

/// What to protect, and with what.
pub(crate) struct Request<'r> {
    pub git: &'r Path,
    pub repo: &'r Repository,
    pub binary: &'r Utf8Path,
    /// What to survive; `None`: what was chosen before.
    pub durability: Option<Durability>,
    /// How long to wait for the log.
    pub wait: Wait,
}

/// What was done.
pub(crate) struct Protected {
    pub method: InstallMethod,
    pub hooks: Vec<PathBuf>,
    pub durability: Durability,
    /// Hooks of others that had to stay aside where ours are not used any more.
    pub left: Vec<PathBuf>,
    /// What is to be told of a state directory that was copied.
    pub copied: Vec<String>,
}

/// Protects a repository, or repairs its protection.
pub(crate) fn protect(request: &Request<'_>) -> anyhow::Result<Protected> {
    let Request { git, repo, binary, .. } = *request;
    let method = hooks::choose(git, repo, binary)?;
    let names = hooks::names(git, repo)?;
    refuse_alias(git, repo)?;
    let preferences = Preferences::read(git, repo)?;
    if let Some(problem) = preferences.invalid.first() {
        anyhow::bail!("{problem}\nhint: nothing was changed; `git config` it");
    }

    // A copy keeps neither the id of the original, which a note of the user is about, nor its log.
    let copied = copied::set_aside(repo, &Options { wait: request.wait, ..Options::new(git.to_owned()) })?;
    let state = StateDir::of(repo);
    state.create().with_context(|| format!("cannot create {}", shown(state.path())))?;
    Log::new(&state, &owner::boot_id()?, request.wait).open().context("cannot begin the log")?;
    // A hook manager that writes through our link would write into the program.
    durable::make_read_only(binary.as_std_path()).with_context(|| format!("cannot protect {binary}"))?;
    let durability = request.durability.unwrap_or_else(|| state.durability());
    let installed = match Installed::load(repo, &state)? {
        Some(installed) => installed,
        // What a template, or an installation without a note, has made is ours as well.
        None => {
            let file = settings::File { git, path: repo.common_dir.join("config") };
            Installed { settings: former::settings(&file)?, ..Installed::default() }
        }
    };
    let mut work = Work { request, method, durability, installed, state };
    work.note_directories()?;
    work.state.set_durability(durability)?;
    work.state.set_settings(&preferences.settings)?;
    work.configure()?;
    let hooks = work.put_hooks(names)?;
    let left = work.leave_unused()?;
    if durability == Durability::Full {
        // What git wrote just now (the configuration) it did not sync.
        durable::sync_filesystem_of(work.state.path()).context("cannot sync the file system")?;
    }
    Ok(Protected { method: work.method, hooks, durability, left, copied })
}

struct Work<'r> {
    request: &'r Request<'r>,
    method: InstallMethod,
    durability: Durability,
    installed: Installed,
    state: StateDir,
}

impl Work<'_> {
    fn directories(&self) -> &[PathBuf] {
        if let InstallMethod::Directories(directories) = &self.method { directories } else { &[] }
    }

    fn note_directories(&mut self) -> anyhow::Result<()> {
        self.installed.version = 3;
        self.installed.git_dir.clone_from(&self.request.repo.common_dir);
        let is_new = |directory: &&PathBuf| self.installed.hooks.iter().all(|known| known.path != **directory);
        let new: Vec<_> = self.directories().iter().filter(is_new).map(|path| HooksDirectory::at(path)).collect();
        self.installed.hooks.extend(new);
        self.installed.store(&self.state)
    }

    /// The alias, what `durability` needs of git, and hooks in the configuration.
    fn configure(&mut self) -> anyhow::Result<()> {
        let Request { git, repo, binary, .. } = *self.request;
        let mut wanted = vec![(alias::KEY.to_owned(), alias::command(binary))];
        // An alias of that name that the user has already stays.
        if self.wants(alias::RUN_KEY, Option::is_none)? {
            wanted.push((alias::RUN_KEY.to_owned(), format!("{} run -- git", alias::command(binary))));
        }
        if self.durability == Durability::Full && self.wants("core.fsync", |value| !fsync::is_strong(value))? {
            wanted.push(("core.fsync".to_owned(), fsync::SETTING.to_owned()));
        }
        // git says in a file beside each lock who holds it.
        let knows = Git::new(git).version()? >= CONFIG_HOOKS;
        if self.wants("core.lockfilePid", |value| knows && value.is_none())? {
            wanted.push(("core.lockfilePid".to_owned(), "true".to_owned()));
        }
        if self.method == InstallMethod::Configuration {
            wanted.extend(configured::wanted(binary));
        }
        let file = settings::File { git, path: repo.common_dir.join("config") };
        let mut own = std::mem::take(&mut self.installed.settings);
        own.apply(&file, &wanted, |now| {
            self.installed.settings = now.clone();
            self.installed.store(&self.state)
        })
    }

    /// Is a setting ours still, or does git's own reading of it (`lacking`) call for ours?
    fn wants(&self, key: &str, lacking: impl Fn(&Option<String>) -> bool) -> anyhow::Result<bool> {
        let Request { git, repo, .. } = *self.request;
        let own = settings::local(git, &repo.common_dir, key)?;
        Ok(self.installed.settings.is_still_ours(key, own.as_deref())
            || lacking(&Git::new(git).at(&repo.git_dir).config(key)?))
    }

    fn put_hooks(&self, names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        let mut hooks = Vec::new();
        for directory in self.directories() {
            durable::make_dirs(directory, Purpose::Git)?;
            for name in names {
                chaining::put(directory, name, self.request.binary)?;
                hooks.push(directory.join(name));
            }
            durable::fsync_dir(directory)?;
        }
        Ok(hooks)
    }

    /// Where git does not look any more nothing of ours stays.
    fn leave_unused(&mut self) -> anyhow::Result<Vec<PathBuf>> {
        let is_used = |known: &HooksDirectory| self.directories().contains(&known.path);
        let (used, unused): (Vec<_>, Vec<_>) = self.installed.hooks.iter().cloned().partition(is_used);
        let mut left = Vec::new();
        for directory in &unused {
            left.extend(directory.leave()?);
        }
        if !unused.is_empty() {
            self.installed.hooks = used;
            self.installed.store(&self.state)?;
        }
        Ok(left)
    }
}

fn refuse_alias(git: &Path, repo: &Repository) -> anyhow::Result<()> {
    let current = settings::local(git, &repo.common_dir, alias::KEY)?.unwrap_or_default();
    anyhow::ensure!(
        current.is_empty() || alias::is_ours(&current),
        "there is an alias `txn` already: `{}`\nhint: nothing was changed; rename it",
        one_line(&current)
    );
    Ok(())
}
