//! Getting git to call us, beside whoever else wants to be called.
//!
//! ```text
//! where git looks for hooks                              what install does
//! hooks/ of the repository, or a directory of its own    writes there; a hook of that name steps aside and runs after ours
//! a directory with tracked files, or outside of the      never writes there: git 2.54 and newer is told in the
//! repository, where others may look for hooks as well    repository's configuration, an older one is refused
//! ```
//! `reference-transaction` is a link to the program: it is called several times in every command. `post-checkout`, and
//! every hook that has another one behind it, is a small script: hook managers write through links, and what they would
//! overwrite is the program. Both let git go on when the program is gone.
//!
//! Limit: a hook manager that overwrites ours is noticed by `status` and `check`, not prevented.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use camino::Utf8Path;

use crate::git::{Config, Git, Repository, config_files};
use crate::setup::names::{ALL_NAMES, CONFIG_HOOKS, NAMES, RECEIVING, command_lines};
use crate::setup::places::{HooksLocation, SetBy};
use crate::setup::{chaining, configured, places};
use crate::state::StateDir;
use crate::util::text::{one_line, shown};

/// The hooks that we are in `repo`.
pub(crate) fn names(git: &Path, repo: &Repository) -> anyhow::Result<&'static [&'static str]> {
    Ok(names_by(&Config::read(&Git::new(git).at(&repo.git_dir))?))
}

fn names_by(config: &Config) -> &'static [&'static str] {
    if config.get("core.bare").is_some_and(|value| value == "true") { &ALL_NAMES } else { &NAMES }
}

/// How git will be brought to call us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InstallMethod {
    /// Hooks in these directories, one for each place where a worktree looks.
    Directories(Vec<PathBuf>),
    /// The repository's configuration.
    Configuration,
    /// Somebody else's hooks call us already.
    Called,
}

/// Chooses for all worktrees of a repository; nothing is changed.
pub(crate) fn choose(git: &Path, repo: &Repository, binary: &Utf8Path) -> anyhow::Result<InstallMethod> {
    let places = places::of_all_worktrees(git, repo)?;
    let mut directories = Vec::new();
    let mut shared = None;
    for place in places {
        match place {
            HooksLocation::Own(directory) if !directories.contains(&directory) => directories.push(directory),
            HooksLocation::Own(_) => {}
            HooksLocation::Shared(place) if calls_us(&place) => {
                shared = shared.or(Some((place, true)));
            }
            HooksLocation::Shared(place) => shared = Some((place, false)),
        }
    }
    match shared {
        None if directories.iter().any(|d| chaining::is_restless(d)) && Git::new(git).version()? >= CONFIG_HOOKS => {
            Ok(InstallMethod::Configuration)
        }
        None => {
            directories.iter().try_for_each(|directory| places::require_writable(directory))?;
            directories.iter().try_for_each(|directory| chaining::require_own_neighbour(directory))?;
            Ok(InstallMethod::Directories(directories))
        }
        Some((_, true)) => Ok(InstallMethod::Called),
        Some((place, false)) => {
            let version = Git::new(git).version()?;
            anyhow::ensure!(version >= CONFIG_HOOKS, "{}", refusal(&place, version, binary));
            Ok(InstallMethod::Configuration)
        }
    }
}

/// The essential hook is there; what post-checkout adds is a check and a note.
fn calls_us(place: &places::Shared) -> bool {
    chaining::is_ours(&place.directory.join(NAMES[0])) || chaining::calls_us(&place.directory, NAMES[0])
}

/// The lines are whole files, and also right as the end of a hook that is there.
fn refusal(place: &places::Shared, (major, minor): (u32, u32), binary: &Utf8Path) -> String {
    let mut text = format!(
        "{place}\n\
         hint: nothing was changed; git 2.54 and newer could be told in the repository's configuration, this is {major}.{minor}\n\
         hint: let these be hooks there, executable (or the ends of those that are there), then run `jin-txn install` again:"
    );
    for name in NAMES {
        let path = shown(&place.directory.join(name));
        let [guard, call] = command_lines(binary, name);
        text += &format!("\n\n  {path}:\n    #!/bin/sh\n    {guard}\n    {call} \"$@\"");
    }
    if place.set_by == SetBy::Repository {
        text += "\n\nhint: or use the repository's own hooks directory: `git config --unset core.hooksPath`";
    }
    text
}

/// Why the repository is not protected; empty when it is. The question is whether git calls us in the worktree that `repo` is and in
/// this environment: [`hindrances`] tells of other worktrees.
pub(crate) fn why_unprotected(git: &Path, repo: &Repository) -> anyhow::Result<Vec<String>> {
    match Config::read_as_user(&Git::new(git).at(&repo.git_dir)) {
        Ok(config) => why_unprotected_by(git, repo, &config),
        Err(error) => Ok(vec![error.to_string()]),
    }
}

/// As [`why_unprotected`], when the configuration has been read. Where git calls us, the first transaction makes the state
/// directory: so it is in what a template has made.
pub(crate) fn why_unprotected_by(git: &Path, repo: &Repository, config: &Config) -> anyhow::Result<Vec<String>> {
    let problems = problems(git, repo, config)?;
    if !problems.is_empty() && !StateDir::of(repo).exists() {
        return Ok(vec!["it has no .jin directory: run `jin-txn install`".to_owned()]);
    }
    Ok(problems)
}

/// Does git certainly call us? Our hooks are in the usual directory, and no configuration may name another one. Starts no
/// program; `users` are the configuration files that are not the repository's.
pub(crate) fn certainly_call_us(repo: &Repository, users: &[PathBuf]) -> bool {
    let usual = repo.common_dir.join("hooks");
    let is_own = std::fs::symlink_metadata(&usual).is_ok_and(|found| found.is_dir());
    is_own
        && NAMES.iter().all(|name| is_this_program(&usual.join(name)) || chaining::problem(&usual, name).is_none())
        && config_files::may_name_hooks(repo, users).is_ok_and(|may| !may)
}

/// Does a link lead to the very program that runs? Then nothing of it has to be read.
fn is_this_program(hook: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino(), found.mode()));
    identity(hook).is_some_and(|found| found.2 & 0o111 != 0 && Some(found) == identity(Path::new("/proc/self/exe")))
}

/// Why git does not call us; empty when it does. `config` is that of the worktree that `repo` is.
fn problems(git: &Path, repo: &Repository, config: &Config) -> anyhow::Result<Vec<String>> {
    let configured = configured::state(config);
    // Most repositories have no hooks there: then no version matters.
    let version = if configured == configured::State::Absent { None } else { Some(Git::new(git).version()?) };
    if version >= Some(CONFIG_HOOKS) {
        match configured {
            configured::State::Works => return Ok(Vec::new()),
            configured::State::Dangling(program) => {
                return Ok(vec![format!(
                    "the hooks in the configuration call {}, which is gone: run `jin-txn install`",
                    one_line(&program)
                )]);
            }
            configured::State::Absent => {}
        }
    }
    Ok(problems_at(places::of_this_worktree(git, repo, config), version))
}

/// Why git does not call us, when this is where it looks for hooks.
fn problems_at(place: anyhow::Result<HooksLocation>, version: Option<(u32, u32)>) -> Vec<String> {
    match place {
        Err(error) => error.to_string().lines().next().map(str::to_owned).into_iter().collect(),
        Ok(HooksLocation::Own(directory)) => {
            NAMES.iter().filter_map(|name| chaining::problem(&directory, name)).collect()
        }
        Ok(HooksLocation::Shared(place)) if calls_us(&place) => Vec::new(),
        Ok(HooksLocation::Shared(place)) => vec![match (place.set_by, version) {
            (SetBy::Environment, _) => format!("{place}: git commands with this setting are not logged"),
            (_, Some((major, minor))) => format!(
                "{place}, and git {major}.{minor} does not know the hooks in the configuration: use git 2.54 or newer"
            ),
            (_, None) => format!("{place}: run `jin-txn install`"),
        }],
    }
}

/// What does not work although git calls us, with what to do: other worktrees in which git does not call us, what others have
/// in our hooks and git does not run, and the hook that only helps.
pub(crate) fn hindrances(git: &Path, repo: &Repository) -> anyhow::Result<Vec<String>> {
    let config = Config::read(&Git::new(git).at(&repo.git_dir))?;
    let names = names_by(&config);
    let (is_old, is_configured) =
        (Git::new(git).version()? < CONFIG_HOOKS, configured::state(&config) != configured::State::Absent);
    let needed = names.contains(&RECEIVING) && !is_configured && is_old;
    let annex = ["smudge", "process"].iter().any(|key| config.get(&format!("filter.annex.{key}")).is_some());
    let mut found = if is_configured && !is_old { Vec::new() } else { other_worktrees(git, repo) };
    for place in places::of_all_worktrees(git, repo).unwrap_or_default() {
        let HooksLocation::Own(directory) = place else { continue };
        found.extend(names.iter().filter_map(|name| chaining::hindered(&directory, name)));
        found.extend(annex.then(|| chaining::annex_hindered(&directory)).flatten());
        found.extend(needed.then(|| chaining::problem(&directory, RECEIVING)).flatten());
    }
    Ok(found)
}

/// Other worktrees of the repository in which git does not call us.
fn other_worktrees(git: &Path, repo: &Repository) -> Vec<String> {
    let others = repo.all_git_dirs().into_iter().filter(|git_dir| *git_dir != repo.git_dir);
    let problems = others.flat_map(|git_dir| {
        let name = match git_dir.file_name() {
            Some(name) if git_dir != repo.common_dir => format!("the worktree `{}`", one_line(&name.to_string_lossy())),
            _ => "the main worktree".to_owned(),
        };
        let problems = problems_at(places::of(git, repo, &git_dir, None), None);
        problems.into_iter().map(move |problem| format!("{name} is not protected: {problem}"))
    });
    problems.collect()
}
