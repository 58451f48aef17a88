//! Where git looks for the hooks of a repository, worktree by worktree, and whose that place is.

use std::path::{Component, Path, PathBuf};
use std::{fmt, fs};

use anyhow::Context;

use crate::git::{Config, ConfigQuery, Git, Plumbing, Repository};
use crate::util::text::shown;

/// Where hooks lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HooksLocation {
    /// The repository's own directory; it need not exist.
    Own(PathBuf),
    /// Not ours to write to.
    Shared(Shared),
}

/// A hooks directory with tracked files, or one that other repositories use as well, or may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Where it lies.
    pub directory: PathBuf,
    /// What leads there.
    pub set_by: SetBy,
    why: String,
}

/// What leads git to a hooks directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetBy {
    /// The repository's own configuration.
    Repository,
    /// A variable of this environment: `git -c`, or `GIT_CONFIG_COUNT`.
    Environment,
    /// The configuration of the user or of the machine, or a link.
    Elsewhere,
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// The places of the main worktree and of all linked ones, without repetitions.
pub(crate) fn of_all_worktrees(git: &Path, repo: &Repository) -> anyhow::Result<Vec<HooksLocation>> {
    let mut places = Vec::new();
    for git_dir in repo.all_git_dirs() {
        let place = of(git, repo, &git_dir, None)?;
        if !places.contains(&place) {
            places.push(place);
        }
    }
    Ok(places)
}

/// The place of the worktree that `repo` is, whose configuration is `config`.
pub(crate) fn of_this_worktree(git: &Path, repo: &Repository, config: &Config) -> anyhow::Result<HooksLocation> {
    of(git, repo, &repo.git_dir, Some(config))
}

/// The place of the worktree that has `git_dir`, with its configuration, if that has been read.
pub(crate) fn of(
    git: &Path,
    repo: &Repository,
    git_dir: &Path,
    known: Option<&Config>,
) -> anyhow::Result<HooksLocation> {
    let is_set = known.is_none_or(|config| config.get("core.hookspath").is_some());
    let with_environment = known.is_some_and(Config::has_environment);
    let set = is_set.then(|| hooks_path(git, git_dir, with_environment)).transpose()?.flatten();
    let Some((scope, value)) = set else {
        let usual = repo.common_dir.join("hooks");
        let directory = require_directory(&usual)?;
        let inside = directory.starts_with(&repo.common_dir);
        return Ok(if inside {
            HooksLocation::Own(directory)
        } else {
            let why = format!("{} is a link to {}, outside of the repository", shown(&usual), shown(&directory));
            HooksLocation::Shared(Shared { directory, set_by: SetBy::Elsewhere, why })
        });
    };
    let base = worktree_of(git, repo, git_dir)?.unwrap_or_else(|| git_dir.to_owned());
    let path = normal(&base.join(&value));
    let set = |by: &str| format!("core.hooksPath is set to `{}` ({by})", crate::util::text::one_line(&value));
    if scope == "command" {
        let why = set("environment: `git -c`, GIT_CONFIG_COUNT or GIT_CONFIG_PARAMETERS");
        return Ok(HooksLocation::Shared(Shared { directory: path, set_by: SetBy::Environment, why }));
    }
    let set = || set(&format!("{scope} configuration"));
    if !matches!(scope.as_str(), "local" | "worktree") {
        let why = format!("{}: that directory is not this repository's own", set());
        return Ok(HooksLocation::Shared(Shared { directory: path, set_by: SetBy::Elsewhere, why }));
    }
    let directory = require_directory(&path).with_context(set)?;
    if !belongs(repo, &directory) {
        // Who else uses it cannot be told, and each of those repositories would be protected unasked.
        let missing = if directory.is_dir() { "" } else { ", and does not exist" };
        let place = match repository_around(&directory) {
            Some(other) => format!("in another repository ({})", shown(&other)),
            None => "outside of the repository".to_owned(),
        };
        let why = format!("{}: that is {place}{missing}", set());
        return Ok(HooksLocation::Shared(Shared { directory, set_by: SetBy::Repository, why }));
    }
    if has_tracked_files(git, &directory)? {
        let why = format!("{}: others manage the files there", set());
        return Ok(HooksLocation::Shared(Shared { directory, set_by: SetBy::Repository, why }));
    }
    Ok(HooksLocation::Own(directory))
}

/// Does a directory, which need not exist, lie in the git directory or in a worktree of the repository, and not in another
/// repository below? A worktree is one whose `.git` leads back here: what `core.worktree` and the files of a linked worktree
/// name may be anybody's.
pub(crate) fn belongs(repo: &Repository, directory: &Path) -> bool {
    let (Some(directory), Some(common_dir)) = (real(directory), real(&repo.common_dir)) else { return false };
    for dir in directory.ancestors() {
        if dir == common_dir {
            return true;
        }
        if fs::symlink_metadata(dir.join(".git")).is_ok() {
            return Repository::open(&dir.join(".git")).is_ok_and(|around| around.common_dir == repo.common_dir);
        }
        if dir.join("HEAD").exists() && dir.join("objects").is_dir() {
            return false;
        }
    }
    false
}

/// The nearest repository, with a worktree or without, in which `directory` lies.
fn repository_around(directory: &Path) -> Option<PathBuf> {
    let is_one = |dir: &&Path| {
        fs::symlink_metadata(dir.join(".git")).is_ok() || (dir.join("HEAD").exists() && dir.join("objects").is_dir())
    };
    real(directory)?.ancestors().find(is_one).map(Path::to_owned)
}

/// The path without links, as far as it is there.
fn real(path: &Path) -> Option<PathBuf> {
    let (there, canonical) = path.ancestors().find_map(|dir| Some((dir, fs::canonicalize(dir).ok()?)))?;
    Some(canonical.join(path.strip_prefix(there).ok()?))
}

/// The setting that counts, and where it comes from. Our own children run with core.hooksPath set on the command line,
/// which counts for nothing; what the environment of the user's own git says counts when that is asked for.
fn hooks_path(git: &Path, git_dir: &Path, with_environment: bool) -> anyhow::Result<Option<(String, String)>> {
    let (git, query) = (Git::new(git).at(git_dir), ConfigQuery::ScopedPaths("core.hooksPath"));
    let listed = if with_environment { git.ask_as_user(query)? } else { git.run(Plumbing::Config(query))? };
    let text = String::from_utf8(listed.stdout).context("core.hooksPath is not UTF-8")?;
    let words: Vec<&str> = text.split('\0').collect();
    let settings = words.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned()));
    Ok(settings.rev().find(|(scope, _)| with_environment || scope != "command"))
}

/// The directory at `path`, links followed; a missing one is as good as an empty one.
fn require_directory(path: &Path) -> anyhow::Result<PathBuf> {
    const NEXT: &str = "nothing was changed; put a directory there, or remove it";
    let shown = || crate::util::text::shown(path);
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(path.to_owned()) };
    match fs::canonicalize(path) {
        Ok(directory) if directory.is_dir() => Ok(directory),
        Ok(_) => anyhow::bail!("git looks for hooks in {}, which is not a directory\nhint: {NEXT}", shown()),
        Err(_) if metadata.is_symlink() => {
            anyhow::bail!("git looks for hooks in {}, which is a link to nowhere\nhint: {NEXT}", shown())
        }
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", shown())),
    }
}

/// Refuses before anything is changed what would fail in the middle.
pub(crate) fn require_writable(directory: &Path) -> anyhow::Result<()> {
    let existing = directory.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let may = rustix::fs::accessat(rustix::fs::CWD, existing, access, rustix::fs::AtFlags::EACCESS);
    may.map_err(|errno| {
        anyhow::anyhow!(
            "cannot write into {}: {errno}\nhint: nothing was changed; make it writable for you, then run this again",
            shown(existing)
        )
    })
}

/// Does somebody version, or manage, what lies in this directory? The one above counts too: managers keep what they generate
/// in a directory beside what they version (husky's `_`).
pub(crate) fn has_tracked_files(git: &Path, directory: &Path) -> anyhow::Result<bool> {
    let Some((repo, top)) = worktree_around(directory) else { return Ok(false) };
    let Ok(inside) = directory.strip_prefix(&top) else { return Ok(false) };
    if directory.starts_with(&repo.common_dir) {
        return Ok(false);
    }
    let candidates = [Some(inside), inside.parent().filter(|parent| !parent.as_os_str().is_empty())];
    for candidate in candidates.into_iter().flatten() {
        let path = candidate.to_str().context("the hooks directory is not UTF-8")?;
        let git = Git::new(git).at(&repo.git_dir).worktree(&top);
        let listed = git.run(Plumbing::Tracked(Some(&format!(":(literal){path}"))))?;
        if !listed.stdout.is_empty() {
            return Ok(true);
        }
    }
    // Before its first commit husky has nothing that is tracked.
    Ok(directory.join("husky.sh").exists() || directory.join("h").exists() && directory.ends_with("_"))
}

fn worktree_around(directory: &Path) -> Option<(Repository, PathBuf)> {
    let top = directory.ancestors().find(|dir| fs::symlink_metadata(dir.join(".git")).is_ok())?;
    let top = fs::canonicalize(top).ok()?;
    Some((Repository::open(&top.join(".git")).ok()?, top))
}

/// The worktree of a git directory, where hooks run; `None` when it is bare.
pub(crate) fn worktree_of(git: &Path, repo: &Repository, git_dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    if git_dir != repo.common_dir {
        let Ok(text) = fs::read_to_string(git_dir.join("gitdir")) else { return Ok(None) };
        return Ok(git_dir.join(text.trim_end()).parent().map(Path::to_owned));
    }
    let ask = |key| Git::new(git).at(git_dir).config(key);
    if let Some(worktree) = ask("core.worktree")? {
        return Ok(Some(normal(&git_dir.join(worktree))));
    }
    let bare = ask("core.bare")?.is_some_and(|value| value == "true");
    Ok((!bare && git_dir.file_name().is_some_and(|name| name == ".git"))
        .then(|| git_dir.parent().map(Path::to_owned))
        .flatten())
}

/// Without `.` and `..`, links not followed.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}
