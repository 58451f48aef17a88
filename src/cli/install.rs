//! `jin-txn install`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::preferences::Preferences;
use super::{Session, fsync, require_git, shim};
use crate::durable;
use crate::git::refs::absent_is_none;
use crate::git::{Repository, command};
use crate::owner;
use crate::state_dir::{Durability, StateDir, Wait};
use crate::wal::Log;

/// The hooks that we are.
pub(super) const HOOKS: [&str; 2] = ["reference-transaction", "post-checkout"];

/// Protect a repository: link the hooks, set up `git txn`
///
/// Running it again repairs and upgrades. `jin-txn uninstall` puts everything back.
#[derive(clap::Args)]
pub struct Args {
    /// The repository (default: the one we are in)
    #[arg(value_name = "REPO")]
    repo: Option<PathBuf>,

    /// What to survive: power cuts (full), or killed processes only (process). Default: what was chosen before, else full
    #[arg(long, value_name = "WHAT")]
    durability: Option<DurabilityArg>,

    /// Instead of a repository: put a `git` into DIR that checks and recovers before it becomes git
    #[arg(long, value_name = "DIR", conflicts_with_all = ["repo", "durability"])]
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
    /// The hooks directory did not exist.
    pub made_hooks_dir: bool,
    /// The configuration before and after.
    pub config_before: Option<String>,
    pub config_after: Option<String>,
    /// We set `core.fsync`; what the repository's own configuration said before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fsync: Option<Fsync>,
}

/// `core.fsync` in the repository's own configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Fsync {
    pub before: Option<String>,
}

impl Installed {
    fn path(state: &StateDir) -> PathBuf {
        state.path().join("install.json")
    }

    pub(super) fn load(state: &StateDir) -> anyhow::Result<Option<Installed>> {
        let path = Self::path(state);
        let Some(bytes) = absent_is_none(fs::read(&path))? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", path.display()))
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
    let repo = match &args.repo {
        Some(dir) => Repository::discover(&session.directory.join(dir))
            .or_else(|_| Repository::open(&session.directory.join(dir)))?,
        None => session.repository()?,
    };
    let binary = this_binary()?;
    refuse_hooks_path(&git, &repo)?;
    let hooks = hooks_dir(&repo);
    for name in HOOKS {
        refuse_foreign(&hooks.join(name), name)?;
    }
    refuse_alias(&current_alias(&git, &repo)?)?;

    let preferences = Preferences::read(&git, &repo)?;
    if let Some(problem) = preferences.invalid.first() {
        anyhow::bail!("{problem}\nhint: nothing was changed; `git config` it");
    }

    let state = StateDir::of(&repo);
    state.create().with_context(|| format!("cannot create {}", state.path().display()))?;
    let boot = owner::boot_id()?;
    Log::new(&state, &boot, Wait::UpTo(super::PATIENCE)).open().context("cannot begin the log")?;

    let mut installed = Installed::load(&state)?.unwrap_or_default();
    installed.version = 1;
    if !hooks.is_dir() {
        installed.made_hooks_dir = true;
        installed.store(&state)?;
        durable::create_dirs(&hooks, 0o777)?;
    }
    let durability = match args.durability {
        Some(DurabilityArg::Full) => Durability::Full,
        Some(DurabilityArg::Process) => Durability::Process,
        None => state.durability(),
    };
    configure(&git, &repo, &binary, durability, &mut installed, &state)?;
    state.set_durability(durability)?;
    state.set_settings(&preferences.settings)?;
    // The hooks last: from here on every transaction is logged.
    for name in HOOKS {
        let link = hooks.join(name);
        if fs::read_link(&link).ok().as_deref() != Some(binary.as_std_path()) {
            durable::symlink(binary.as_std_path(), &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
    }
    durable::fsync_dir(&hooks)?;
    if durability == Durability::Full {
        // What git wrote just now (the configuration) it did not sync.
        durable::sync_filesystem(&fs::File::open(state.path())?).context("cannot sync the file system")?;
    }

    if session.json {
        let hooks = HOOKS.iter().map(|n| hooks.join(n).display().to_string()).collect();
        session.print_json(&Outcome {
            version: 1,
            git_dir: repo.common_dir.display().to_string(),
            binary,
            hooks,
            durability,
        })?;
    } else {
        session.say(&format!("jin-txn: {} is protected", repo.common_dir.display()));
        session.say("jin-txn: `git txn status` looks after it, `git txn uninstall` puts everything back");
    }
    Ok(super::exit::DONE)
}

/// The hooks and the alias point to this very file, by its absolute path.
pub(super) fn this_binary() -> anyhow::Result<Utf8PathBuf> {
    let exe = std::env::current_exe().context("cannot find out where this program lies")?;
    let exe = Utf8PathBuf::from_path_buf(exe);
    exe.map_err(|path| anyhow::anyhow!("the path of this program is no UTF-8: {}", path.display()))
}

pub(super) fn hooks_dir(repo: &Repository) -> PathBuf {
    repo.common_dir.join("hooks")
}

/// Hooks that git would not look for in the repository: ours would never be called.
fn refuse_hooks_path(git: &Path, repo: &Repository) -> anyhow::Result<()> {
    // Our own children run with core.hooksPath set, which `config --get` would show: list the files only.
    let listed =
        command::run(git, &repo.git_dir, &["config", "--show-scope", "--get-all", "core.hooksPath"], b"", None)?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let Some(set) = text.lines().find(|line| !line.starts_with("command\t")) else { return Ok(()) };
    let (scope, path) = set.split_once('\t').unwrap_or(("some", set));
    anyhow::bail!(
        "core.hooksPath is set to `{}` ({scope} configuration): git does not look into the repository's hooks\n\
         hint: copy hooks/reference-transaction and hooks/post-checkout of jin-txn there, or unset it",
        path.escape_debug()
    )
}

fn refuse_foreign(path: &Path, name: &str) -> anyhow::Result<()> {
    if fs::symlink_metadata(path).is_err() || is_ours(path) {
        return Ok(());
    }
    anyhow::bail!(
        "there is a `{name}` hook already: {}\n\
         hint: nothing was changed; move it away, or call `jin-txn hook {name} \"$@\"` from it",
        path.display()
    )
}

/// A link to a jin-txn, wherever that lies (or lay).
pub(super) fn is_ours(path: &Path) -> bool {
    let is_this = |target: &PathBuf| std::env::current_exe().is_ok_and(|exe| exe == *target);
    let is_named = |target: &PathBuf| target.file_name().is_some_and(|n| n.to_string_lossy().starts_with("jin-txn"));
    fs::read_link(path).is_ok_and(|target| is_named(&target) || is_this(&target))
}

/// The alias, and what `durability` needs of git: everything in one change, so that it can be taken back in one.
fn configure(
    git: &Path,
    repo: &Repository,
    binary: &Utf8PathBuf,
    durability: Durability,
    installed: &mut Installed,
    state: &StateDir,
) -> anyhow::Result<()> {
    let config = repo.common_dir.join("config");
    let read = || fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()));
    let alias = format!("!{}", shell_quoted(binary.as_str()));
    let current = current_alias(git, repo)?;
    let own_fsync = local(git, repo, "core.fsync")?;
    let fsync = match (durability, &installed.fsync) {
        // A stronger setting of the user's stays.
        (Durability::Full, _) if fsync::is_strong(&command::config(git, repo, "core.fsync")?) => own_fsync.clone(),
        (Durability::Full, _) => Some(fsync::SETTING.to_owned()),
        (Durability::Process, Some(ours)) if own_fsync.as_deref() == Some(fsync::SETTING) => ours.before.clone(),
        (Durability::Process, _) => own_fsync.clone(),
    };
    if current == alias && fsync == own_fsync {
        return Ok(());
    }
    let before = read()?;
    if installed.config_after.as_ref() != Some(&before) {
        installed.config_before = current.is_empty().then_some(before);
    }
    if fsync.as_deref() == Some(fsync::SETTING) && installed.fsync.is_none() {
        installed.fsync = Some(Fsync { before: own_fsync.clone() });
    }
    // What will be put back is durable before the configuration changes.
    installed.store(state)?;
    if current != alias {
        set_local(git, repo, "alias.txn", Some(&alias))?;
    }
    if fsync != own_fsync {
        set_local(git, repo, "core.fsync", fsync.as_deref())?;
    }
    installed.config_after = Some(read()?);
    installed.store(state)
}

/// A setting in the repository's own configuration.
pub(super) fn local(git: &Path, repo: &Repository, key: &str) -> anyhow::Result<Option<String>> {
    let set = command::run(git, &repo.common_dir, &["config", "--local", "--get", key], b"", None)?;
    Ok(set.success.then(|| String::from_utf8_lossy(&set.stdout).trim_end().to_owned()))
}

/// Changes, or removes, a setting in the repository's own configuration.
pub(super) fn set_local(git: &Path, repo: &Repository, key: &str, value: Option<&str>) -> anyhow::Result<()> {
    let args = match value {
        Some(value) => vec!["config", "--local", "--replace-all", key, value],
        None => vec!["config", "--local", "--unset-all", key],
    };
    let ran = command::run(git, &repo.common_dir, &args, b"", None)?;
    anyhow::ensure!(ran.success, "cannot change `{key}` in the repository's configuration: {}", ran.stderr);
    Ok(())
}

fn current_alias(git: &Path, repo: &Repository) -> anyhow::Result<String> {
    Ok(local(git, repo, "alias.txn")?.unwrap_or_default())
}

fn refuse_alias(current: &str) -> anyhow::Result<()> {
    let ours = current.is_empty() || (current.starts_with('!') && current.contains("jin-txn"));
    anyhow::ensure!(
        ours,
        "there is an alias `txn` already: `{}`\nhint: nothing was changed; rename it",
        current.escape_debug()
    );
    Ok(())
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Why the repository is not protected; empty when it is.
pub(super) fn problems(repo: &Repository) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    if !StateDir::of(repo).exists() {
        problems.push("it has no .jin directory: run `jin-txn install`".to_owned());
        return Ok(problems);
    }
    for name in HOOKS {
        let path = hooks_dir(repo).join(name);
        if fs::symlink_metadata(&path).is_err() {
            problems.push(format!("the {name} hook is missing: run `jin-txn install`"));
        } else if !is_ours(&path) {
            problems.push(format!("the {name} hook is somebody else's: {}", path.display()));
        } else if !path.exists() {
            problems.push(format!("the {name} hook points to a jin-txn that is gone: run `jin-txn install`"));
        }
    }
    if let Err(error) = refuse_hooks_path(&super::real_git()?, repo) {
        problems.push(error.to_string().lines().next().unwrap_or_default().to_owned());
    }
    Ok(problems)
}
