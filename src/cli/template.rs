//! `install --template`: every repository that is made from now on is protected.
//!
//! git copies the template into each repository that `git init` and `git clone` make: our hooks, and the configuration
//! that `install` would set. The hooks create `.jin` when they are first called.
//!
//! Limit: `--template=`, `GIT_TEMPLATE_DIR` and a repository-less `init.templateDir` of another user go round it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use crate::cli::install::{HooksDirectory, alias};
use crate::cli::{Session, fsync};
use crate::fs::absent_is_none;
use crate::fs::durable;
use crate::git::Git;
use crate::setup::settings::{File, Settings};
use crate::setup::{chaining as beside, hooks, places};

/// What was set up, so that it can be taken back.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    directory: PathBuf,
    /// The whole directory is ours.
    made: bool,
    hooks: HooksDirectory,
    /// The directories that this record is in, as far as we made them.
    around: Vec<PathBuf>,
    /// The template's own configuration.
    config: Settings,
    /// The user's.
    global: Settings,
}

pub(super) fn install(session: &Session, git: &Path, binary: &Utf8Path, wanted: Option<&Path>) -> anyhow::Result<()> {
    let known = load()?;
    let global = File { git, path: global_config()? };
    let set = template_of_git(git)?;
    let directory = match (&known, wanted) {
        (Some(known), None) => known.directory.clone(),
        (_, Some(wanted)) => std::path::absolute(session.directory.join(wanted))?,
        (None, None) => match &set {
            Some(set) if is_own(git, set)? => set.clone(),
            _ => data_home()?.join("template"),
        },
    };
    anyhow::ensure!(
        known.as_ref().is_none_or(|known| known.directory == directory),
        "there is a template with our hooks already: {}\nhint: run `jin-txn uninstall --template` first",
        known.as_ref().map_or_else(String::new, |known| known.directory.display().to_string())
    );
    let hooks = directory.join("hooks");
    let is_new = fs::symlink_metadata(&directory).is_err();
    let around = record_path()?.parent().map_or_else(Vec::new, |parent| HooksDirectory::at(parent).made);
    let mut record = known.unwrap_or_else(|| Record {
        version: 1,
        directory: directory.clone(),
        made: is_new,
        hooks: HooksDirectory::at(&hooks),
        around,
        config: Settings::default(),
        global: Settings::default(),
    });
    anyhow::ensure!(is_new || directory.is_dir(), "{} is not a directory", directory.display());
    places::require_writable(&hooks)?;
    store(&record)?;
    if is_new {
        // What repositories got so far they go on to get.
        let base = set.clone().or(default_template(git)?).filter(|base| base.is_dir());
        durable::create_dirs(&directory, 0o777)?;
        if let Some(base) = &base {
            durable::copy_tree(base, &directory).with_context(|| format!("cannot copy {}", base.display()))?;
        }
    }
    durable::create_dirs(&hooks, 0o777)?;
    durable::make_read_only(binary.as_std_path()).with_context(|| format!("cannot protect {binary}"))?;
    for name in hooks::ALL_NAMES {
        beside::put(&hooks, name, binary)?;
    }
    let mut settings =
        vec![("alias.txn".to_owned(), alias(binary)), ("core.fsync".to_owned(), fsync::SETTING.to_owned())];
    if Git::new(git).version()? >= hooks::CONFIG_HOOKS {
        settings.push(("core.lockfilePid".to_owned(), "true".to_owned()));
    }
    let mut config = std::mem::take(&mut record.config);
    config.apply(&File { git, path: directory.join("config") }, &settings, |now| {
        record.config = now.clone();
        store(&record)
    })?;
    // git's configuration last: from here on new repositories are protected.
    let path = directory.to_str().with_context(|| format!("{} is no UTF-8", directory.display()))?;
    let points_here = set.as_ref() == Some(&directory) && !record.global.is_still_ours(KEY, Some(path));
    let wanted = if points_here { Vec::new() } else { vec![(KEY.to_owned(), path.to_owned())] };
    if let Some(parent) = global.path.parent() {
        durable::create_dirs(parent, 0o777)?;
    }
    let mut own = std::mem::take(&mut record.global);
    own.apply(&global, &wanted, |now| {
        record.global = now.clone();
        store(&record)
    })?;
    if let Some(set) = set.filter(|set| *set != directory) {
        session.say(&format!("jin-txn: init.templateDir was {}: its files were copied", set.display()));
    }
    session.say(&format!("jin-txn: what `git init` and `git clone` make is protected from now on ({path})"));
    session.say("jin-txn: `jin-txn uninstall --template` takes that back");
    Ok(())
}

pub(super) fn uninstall(session: &Session, git: &Path) -> anyhow::Result<()> {
    let record =
        load()?.context("there is no template with our hooks\nhint: `jin-txn uninstall` is for repositories")?;
    record.global.take_back(&File { git, path: global_config()? })?;
    crate::cli::uninstall::leave(session, &record.hooks)?;
    record.config.take_back(&File { git, path: record.directory.join("config") })?;
    if record.made {
        durable::remove_tree(&record.directory)?;
    }
    durable::remove_file(&record_path()?)?;
    for made in record.hooks.made.iter().chain(&record.around) {
        durable::remove_dir_if_empty(made)?;
    }
    session.say("jin-txn: new repositories are as git makes them; those that are there stay protected");
    Ok(())
}

const KEY: &str = "init.templateDir";

/// The directory that `init.templateDir` names now.
fn template_of_git(git: &Path) -> anyhow::Result<Option<PathBuf>> {
    let ran = Git::new(git).run(["config", "--type=path", "--get", KEY])?;
    let path = String::from_utf8(ran.stdout).context("init.templateDir is no UTF-8")?;
    Ok(ran.success.then(|| PathBuf::from(path.trim_end())))
}

fn default_template(git: &Path) -> anyhow::Result<Option<PathBuf>> {
    let ran = Git::new(git).run(["--exec-path"])?;
    let path = PathBuf::from(String::from_utf8_lossy(&ran.stdout).trim_end());
    // `<prefix>/libexec/git-core`, and `<prefix>/share/git-core/templates`.
    Ok(path.ancestors().nth(2).map(|prefix| prefix.join("share/git-core/templates")))
}

/// The user's own directory, and nobody versions it: not the system's, not one that is generated from elsewhere.
fn is_own(git: &Path, directory: &Path) -> anyhow::Result<bool> {
    let Ok(metadata) = fs::metadata(directory) else { return Ok(false) };
    let own = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    let system = ["/usr", "/etc", "/opt", "/nix"].iter().any(|system| directory.starts_with(system));
    Ok(own && !system && places::require_writable(directory).is_ok() && !places::has_tracked_files(git, directory)?)
}

/// Where git writes what is set for the user.
fn global_config() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("GIT_CONFIG_GLOBAL") {
        return Ok(path.into());
    }
    let usual = home()?.join(".gitconfig");
    let other = base("XDG_CONFIG_HOME", ".config")?.join("git/config");
    Ok(if !usual.exists() && other.exists() { other } else { usual })
}

fn home() -> anyhow::Result<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set: git would not know whose template this is")
}

fn base(variable: &str, below_home: &str) -> anyhow::Result<PathBuf> {
    let set = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    set.map_or_else(|| Ok(home()?.join(below_home)), Ok)
}

fn data_home() -> anyhow::Result<PathBuf> {
    Ok(base("XDG_DATA_HOME", ".local/share")?.join("jin-txn"))
}

fn record_path() -> anyhow::Result<PathBuf> {
    Ok(base("XDG_STATE_HOME", ".local/state")?.join("jin-txn/template.json"))
}

fn load() -> anyhow::Result<Option<Record>> {
    let path = record_path()?;
    let Some(bytes) = absent_is_none(fs::read(&path))? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", path.display()))
}

fn store(record: &Record) -> anyhow::Result<()> {
    let path = record_path()?;
    if let Some(parent) = path.parent() {
        durable::create_dirs(parent, 0o700)?;
    }
    Ok(durable::replace(&path, &serde_json::to_vec_pretty(record)?)?)
}
