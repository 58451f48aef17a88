//! `jin-txn install`

use std::fs;
use std::path::{Path, PathBuf};

use camino::Utf8PathBuf;
use serde::Serialize;

use crate::cli::watch::{self, Standing};
use crate::cli::{PATIENCE, Session, exit, notes, path_variable, real_git, require_git};
use crate::git::Repository;
use crate::setup::hooks::InstallMethod;
use crate::setup::names::{ALL_NAMES, this_binary};
use crate::setup::protect::{self, Protected};
use crate::setup::{chaining, shim, submodules, template};
use crate::state::{Durability, StateDir, Wait};
use crate::util::text::{shell_quoted, shown};

/// Protect a repository: link the hooks, set up `git txn`
///
/// Hooks of others that have the same names go on to run, after ours. Running it again repairs and upgrades. `jin-txn
/// uninstall` puts everything back.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The repository (default: the one we are in)
    #[arg(value_name = "REPO")]
    repo: Option<PathBuf>,

    /// What to survive: power cuts (full), or killed processes only (process). Default: what was chosen before, else full
    #[arg(long, value_name = "WHAT")]
    durability: Option<DurabilityArg>,

    /// Protect its submodules as well, and theirs
    #[arg(long)]
    recurse_submodules: bool,

    /// Protect every repository that `git init` and `git clone` make from now on, by the template in DIR (default: the
    /// one that git uses, if it is yours; else a new one)
    #[arg(long, value_name = "DIR", num_args = 0..=1, conflicts_with_all = ["repo", "recurse_submodules", "durability"])]
    template: Option<Option<PathBuf>>,

    /// Instead of a repository: put a `git` into DIR that checks and recovers before it becomes git
    #[arg(long, value_name = "DIR", conflicts_with_all = ["repo", "durability", "recurse_submodules", "template"])]
    shim: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum DurabilityArg {
    Full,
    Process,
}

impl From<DurabilityArg> for Durability {
    fn from(chosen: DurabilityArg) -> Durability {
        match chosen {
            DurabilityArg::Full => Durability::Full,
            DurabilityArg::Process => Durability::Process,
        }
    }
}

#[derive(Serialize)]
struct Outcome {
    version: u32,
    git_dir: String,
    binary: Utf8PathBuf,
    hooks: Vec<String>,
    durability: Durability,
}

#[derive(Serialize)]
struct ShimOutcome {
    version: u32,
    shims: Vec<String>,
    git: String,
    first_in_path: bool,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    if let Some(dir) = &args.shim {
        return install_shim(session, dir);
    }
    let git = require_git()?;
    let binary = this_binary()?;
    if let Some(directory) = &args.template {
        let directory = directory.as_ref().map(|dir| session.directory.join(dir));
        let files = template::UserFiles::new(|name| std::env::var_os(name));
        let made = template::install(template::Request { git: &git, binary: &binary, files: &files, directory })?;
        tell_of_template(session, &made);
        return Ok(exit::DONE);
    }
    let repo = match &args.repo {
        Some(dir) => session.repository_at(&session.directory.join(dir))?,
        None => session.repository()?,
    };
    let mut repos = vec![repo];
    if args.recurse_submodules {
        repos.extend(submodules::of(&git, &repos[0])?);
    }
    let (durability, wait) = (args.durability.map(Durability::from), Wait::UpTo(PATIENCE));
    let mut outcomes = Vec::new();
    for repo in &repos {
        let request = protect::Request { git: &git, repo, binary: &binary, durability, wait };
        let protected = protect::protect(&request)?;
        notes().iter().for_each(|notes| notes.remember(&StateDir::of(repo)));
        tell_of_others(session, &protected, &repo.common_dir);
        tell_of_watch(session, repo);
        outcomes.push(Outcome {
            version: 1,
            git_dir: repo.common_dir.display().to_string(),
            binary: binary.clone(),
            hooks: protected.hooks.iter().map(|hook| hook.display().to_string()).collect(),
            durability: protected.durability,
        });
    }
    match outcomes.as_slice() {
        [outcome] if session.json => session.print_json(outcome)?,
        outcomes if session.json => session.print_json(&outcomes)?,
        _ => session.say("jin-txn: `git txn status` shows its state; `git txn uninstall` takes the protection away"),
    }
    Ok(exit::DONE)
}

fn tell_of_others(session: &Session, protected: &Protected, git_dir: &Path) {
    protected.copied.iter().for_each(|line| session.say(&format!("jin-txn: {line}")));
    super::uninstall::tell_of_left(session, &protected.left);
    session.say(&format!("jin-txn: {} is protected", shown(git_dir)));
    match &protected.method {
        InstallMethod::Directories(directories) => {
            for (directory, name) in directories.iter().flat_map(|d| ALL_NAMES.map(|name| (d, name))) {
                let aside = chaining::aside_directory(directory).join(name);
                if fs::symlink_metadata(&aside).is_ok() {
                    let aside = shown(&aside);
                    session.say(&format!("jin-txn: the {name} hook that was there runs after ours ({aside})"));
                } else if chaining::is_in_front(directory, name) {
                    session.say(&format!("jin-txn: the {name} hook that was there has ours in front of its lines"));
                }
            }
        }
        InstallMethod::Configuration => {
            session
                .say("jin-txn: the hooks directory belongs to others: the hooks are in the repository's configuration");
        }
        InstallMethod::Called => session.say("jin-txn: the hooks that are there call us"),
    }
}

/// How it recovers by itself.
fn tell_of_watch(session: &Session, repo: &Repository) {
    let set = StateDir::of(repo).settings().watch;
    match watch::standing(set) {
        Some(Standing::Hindered(why)) => {
            session.say(&format!("jin-txn: no watch recovers by itself when a git is killed: {why}"));
        }
        Some(Standing::Runs(_)) => {
            session.say("jin-txn: the watch recovers by itself when a git is killed (`jin-txn watch --status`)");
        }
        Some(Standing::NotYet) => {
            watch::start(set, &repo.common_dir);
            session.say("jin-txn: a watch is started: when a git is killed, it recovers by itself");
            session.say("hint: `jin-txn watch --status` says whether it runs");
        }
        None => {}
    }
}

fn tell_of_template(session: &Session, made: &template::Template) {
    if let Some(copied) = &made.copied {
        session.say(&format!("jin-txn: init.templateDir was {}: its files were copied", shown(copied)));
    }
    let path = shown(&made.directory);
    session
        .say(&format!("jin-txn: repositories made by `git init` and `git clone` are protected from now on ({path})"));
    session.say("jin-txn: `jin-txn uninstall --template` takes that back");
}

fn install_shim(session: &Session, dir: &Path) -> anyhow::Result<u8> {
    let (binary, git) = (this_binary()?, real_git()?);
    let made = shim::install(&session.directory.join(dir), &binary, &path_variable())?;
    let (dir, git) = (shown(&made.directory), shown(&git));
    if session.json {
        let shims = made.links.iter().map(|link| link.display().to_string()).collect();
        let first_in_path = made.is_first_in_path;
        session.print_json(&ShimOutcome { version: 1, shims, git: git.to_string(), first_in_path })?;
        return Ok(exit::DONE);
    }
    session.say(&format!("jin-txn: {dir} has a `git` that recovers first, then runs {git}"));
    if !made.is_first_in_path {
        session.say(&format!("hint: put it first: export PATH={}:$PATH", shell_quoted(&dir.to_string())));
    }
    Ok(exit::DONE)
}
