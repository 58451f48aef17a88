//! `jin-txn install`

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::cli::{Session, fsync, require_git, shim, submodules, template};
use crate::fs::absent_is_none;
use crate::fs::durable;
use crate::git::{Config, Git, Repository};
use crate::process::owner;
use crate::setup::hooks::InstallMethod;
use crate::setup::preferences::Preferences;
use crate::setup::settings;
use crate::setup::settings::Settings;
use crate::setup::{chaining as beside, configured, hooks};
use crate::state::directory::{Durability, StateDir, Wait};
use crate::wal::Log;

/// Protect a repository: link the hooks, set up `git txn`
///
/// Hooks of others that have the same names go on to run, after ours. Running it again repairs and upgrades. `jin-txn
/// uninstall` puts everything back.
#[derive(clap::Args)]
pub struct Args {
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

/// What install found, so that uninstall can put it back byte for byte.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Installed {
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
pub(super) struct HooksDirectory {
    pub path: PathBuf,
    /// The directories that we made, the innermost first.
    pub made: Vec<PathBuf>,
    /// Its modification time (Unix seconds and nanoseconds).
    pub modified: Option<(i64, i64)>,
}

impl HooksDirectory {
    pub(super) fn at(path: &Path) -> HooksDirectory {
        let missing = path.ancestors().take_while(|dir| fs::symlink_metadata(dir).is_err());
        let modified = fs::metadata(path).ok().map(|m| (m.mtime(), m.mtime_nsec()));
        HooksDirectory { path: path.to_owned(), made: missing.map(Path::to_owned).collect(), modified }
    }
}

impl Installed {
    fn path(state: &StateDir) -> PathBuf {
        state.path().join("install.json")
    }

    pub(super) fn load(state: &StateDir) -> anyhow::Result<Option<Installed>> {
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

    fn store(&self, state: &StateDir) -> anyhow::Result<()> {
        Ok(durable::replace(&Self::path(state), &serde_json::to_vec_pretty(self)?)?)
    }

    pub(super) fn forget(state: &StateDir) -> anyhow::Result<()> {
        Ok(durable::remove_file(&Self::path(state))?)
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

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    if let Some(dir) = &args.shim {
        return shim::install(session, dir);
    }
    let git = require_git()?;
    let binary = hooks::this_binary()?;
    if let Some(directory) = &args.template {
        template::install(session, &git, &binary, directory.as_deref())?;
        return Ok(super::exit::DONE);
    }
    let repo = match &args.repo {
        Some(dir) => session.repository_at(&session.directory.join(dir))?,
        None => session.repository()?,
    };
    let mut repos = vec![repo];
    if args.recurse_submodules {
        repos.extend(submodules::of(&git, &repos[0])?);
    }
    let mut outcomes = Vec::new();
    for repo in &repos {
        outcomes.push(protect(session, &git, repo, &binary, args.durability)?);
    }
    match outcomes.as_slice() {
        [outcome] if session.json => session.print_json(outcome)?,
        outcomes if session.json => session.print_json(&outcomes)?,
        _ => session.say("jin-txn: `git txn status` looks after it, `git txn uninstall` puts everything back"),
    }
    Ok(super::exit::DONE)
}

fn protect(
    session: &Session,
    git: &Path,
    repo: &Repository,
    binary: &Utf8Path,
    durability: Option<DurabilityArg>,
) -> anyhow::Result<Outcome> {
    let way = hooks::choose(git, repo, binary)?;
    let names = hooks::names(git, repo)?;
    refuse_alias(git, repo)?;
    let preferences = Preferences::read(git, repo)?;
    if let Some(problem) = preferences.invalid.first() {
        anyhow::bail!("{problem}\nhint: nothing was changed; `git config` it");
    }

    let state = StateDir::of(repo);
    state.create().with_context(|| format!("cannot create {}", state.path().display()))?;
    let boot = owner::boot_id()?;
    Log::new(&state, &boot, Wait::UpTo(super::PATIENCE)).open().context("cannot begin the log")?;
    // A hook manager that writes through our link would write into the program.
    durable::make_read_only(binary.as_std_path()).with_context(|| format!("cannot protect {binary}"))?;

    let mut installed = Installed::load(&state)?.unwrap_or_default();
    installed.version = 2;
    installed.git_dir.clone_from(&repo.common_dir);
    let directories = if let InstallMethod::Directories(directories) = &way { directories.as_slice() } else { &[] };
    let is_new = |directory: &&PathBuf| installed.hooks.iter().all(|known| known.path != **directory);
    let new: Vec<HooksDirectory> = directories.iter().filter(is_new).map(|path| HooksDirectory::at(path)).collect();
    installed.hooks.extend(new);
    installed.store(&state)?;
    let durability = match durability {
        Some(DurabilityArg::Full) => Durability::Full,
        Some(DurabilityArg::Process) => Durability::Process,
        None => state.durability(),
    };
    state.set_durability(durability)?;
    state.set_settings(&preferences.settings)?;
    configure(git, repo, binary, durability, &way, &mut installed, &state)?;
    // The hooks last: from here on every transaction is logged.
    let mut hooks = Vec::new();
    for directory in directories {
        durable::create_dirs(directory, 0o777)?;
        for name in names {
            beside::put(directory, name, binary)?;
            hooks.push(directory.join(name).display().to_string());
        }
        durable::fsync_dir(directory)?;
    }
    // Where git does not look any more nothing of ours stays.
    let is_used = |known: &HooksDirectory| directories.contains(&known.path);
    let (now, before): (Vec<_>, Vec<_>) = installed.hooks.iter().cloned().partition(is_used);
    for directory in &before {
        crate::cli::uninstall::leave(session, directory)?;
    }
    if !before.is_empty() {
        installed.hooks = now;
        installed.store(&state)?;
    }
    if durability == Durability::Full {
        // What git wrote just now (the configuration) it did not sync.
        durable::sync_filesystem_of(state.path()).context("cannot sync the file system")?;
    }
    session.say(&format!("jin-txn: {} is protected", repo.common_dir.display()));
    tell_of_others(session, &way);
    Ok(Outcome {
        version: 1,
        git_dir: repo.common_dir.display().to_string(),
        binary: binary.to_owned(),
        hooks,
        durability,
    })
}

fn tell_of_others(session: &Session, way: &InstallMethod) {
    match way {
        InstallMethod::Directories(directories) => {
            for (directory, name) in directories.iter().flat_map(|d| hooks::ALL_NAMES.map(|name| (d, name))) {
                let aside = beside::aside_directory(directory).join(name);
                if fs::symlink_metadata(&aside).is_ok() {
                    let aside = crate::util::text::shown(&aside);
                    session.say(&format!("jin-txn: the {name} hook that was there runs after ours ({aside})"));
                } else if beside::is_in_front(directory, name) {
                    session.say(&format!("jin-txn: the {name} hook that was there has ours in front of its lines"));
                }
            }
        }
        InstallMethod::Configuration => {
            session
                .say("jin-txn: the hooks directory is not ours to write to: the repository's configuration calls us");
        }
        InstallMethod::Called => session.say("jin-txn: the hooks that are there call us"),
    }
}

/// The alias, what `durability` needs of git, and hooks in the configuration.
fn configure(
    git: &Path,
    repo: &Repository,
    binary: &Utf8Path,
    durability: Durability,
    way: &InstallMethod,
    installed: &mut Installed,
    state: &StateDir,
) -> anyhow::Result<()> {
    let mut wanted = vec![("alias.txn".to_owned(), alias(binary))];
    // An alias of that name that the user has already stays.
    if wants(git, repo, installed, "alias.tx", Option::is_none)? {
        wanted.push(("alias.tx".to_owned(), format!("{} run -- git", alias(binary))));
    }
    if durability == Durability::Full && wants(git, repo, installed, "core.fsync", |v| !fsync::is_strong(v))? {
        wanted.push(("core.fsync".to_owned(), fsync::SETTING.to_owned()));
    }
    // git says in a file beside each lock who holds it.
    let knows = Git::new(git).version()? >= hooks::CONFIG_HOOKS;
    if wants(git, repo, installed, "core.lockfilePid", |value| knows && value.is_none())? {
        wanted.push(("core.lockfilePid".to_owned(), "true".to_owned()));
    }
    if *way == InstallMethod::Configuration {
        wanted.extend(configured::wanted(binary));
    }
    let file = settings::File { git, path: repo.common_dir.join("config") };
    let mut own = std::mem::take(&mut installed.settings);
    own.apply(&file, &wanted, |now| {
        installed.settings = now.clone();
        installed.store(state)
    })
}

/// Is a setting ours still, or does git's own reading of it (`lacking`) call for ours?
fn wants(
    git: &Path,
    repo: &Repository,
    installed: &Installed,
    key: &str,
    lacking: impl Fn(&Option<String>) -> bool,
) -> anyhow::Result<bool> {
    let own = settings::local(git, &repo.common_dir, key)?;
    Ok(installed.settings.is_still_ours(key, own.as_deref()) || lacking(&Git::new(git).at(&repo.git_dir).config(key)?))
}

/// What `git txn` runs.
pub(super) fn alias(binary: &Utf8Path) -> String {
    format!("!{}", crate::util::text::shell_quoted(binary.as_str()))
}

fn refuse_alias(git: &Path, repo: &Repository) -> anyhow::Result<()> {
    let current = settings::local(git, &repo.common_dir, "alias.txn")?.unwrap_or_default();
    anyhow::ensure!(
        current.is_empty() || is_our_alias(&current),
        "there is an alias `txn` already: `{}`\nhint: nothing was changed; rename it",
        current.escape_debug()
    );
    Ok(())
}

pub(super) fn is_our_alias(alias: &str) -> bool {
    alias.starts_with('!') && alias.contains("jin-txn")
}

/// Why the repository is not protected; empty when it is.
pub(super) fn problems(repo: &Repository) -> anyhow::Result<Vec<String>> {
    let git = crate::cli::real_git()?;
    match Config::read(&Git::new(&git).at(&repo.git_dir)) {
        Ok(config) => problems_by(&git, repo, &config),
        Err(error) => Ok(vec![error.to_string()]),
    }
}

/// As [`problems`], when the configuration has been read.
pub(super) fn problems_by(git: &Path, repo: &Repository, config: &Config) -> anyhow::Result<Vec<String>> {
    if !StateDir::of(repo).exists() {
        return Ok(vec!["it has no .jin directory: run `jin-txn install`".to_owned()]);
    }
    hooks::problems(git, repo, config)
}
