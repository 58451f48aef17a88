//! Where git makes lock files.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fs::FileId;
use crate::fs::door::{self, Kind};
use crate::fs::named as fs;
use crate::git::Repository;

/// A lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Which file it is.
    pub id: FileId,
}

/// Locks that block nearly every command; looked at in every check.
pub(crate) fn well_known(repo: &Repository) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = ["index.lock", "HEAD.lock"].iter().map(|n| repo.git_dir.join(n)).collect();
    let shared = ["packed-refs.lock", "packed-refs.new", "config.lock", "shallow.lock", "reftable/tables.list.lock"];
    paths.extend(shared.iter().map(|n| repo.common_dir.join(n)));
    paths
}

/// How far to look for locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What can block a command: everything but the reflogs, which are locked together with their refs.
    Blocking,
    /// Everywhere that git makes locks.
    Everything,
}

/// Finds all lock files of the repository, where git makes them and nowhere else: other repositories (submodules) and
/// other tools keep files of such names below a git directory, too. Behind a link are somebody else's.
pub(crate) fn find(repo: &Repository, depth: Depth) -> io::Result<Vec<LockFile>> {
    let mut found = Vec::new();
    for git_dir in repo.all_git_dirs() {
        collect(&git_dir, Below::No, is_top_level_lock, &mut found)?;
        collect(&git_dir.join("refs"), Below::Yes, |_| true, &mut found)?;
        for dir in FLAT {
            collect(&git_dir.join(dir), Below::No, |_| true, &mut found)?;
        }
        if depth == Depth::Everything {
            collect(&git_dir.join("logs"), Below::Yes, |_| true, &mut found)?;
        }
    }
    for dir in OF_OBJECTS {
        collect(&repo.common_dir.join(dir), Below::No, |_| true, &mut found)?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The directories in which git makes the locks that [`find`] finds with [`Depth::Blocking`].
pub(crate) fn directories(repo: &Repository) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for git_dir in repo.all_git_dirs() {
        found.push(git_dir.clone());
        with_those_below(git_dir.join("refs"), &mut found)?;
        found.extend(FLAT.map(|dir| git_dir.join(dir)));
    }
    found.extend(OF_OBJECTS.map(|dir| repo.common_dir.join(dir)));
    found.retain(|dir| dir.symlink_metadata().is_ok_and(|found| found.is_dir()));
    Ok(found)
}

/// `dir`, and all directories below it.
pub(crate) fn with_those_below(dir: PathBuf, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = door::entries(&dir)?.unwrap_or_default();
    let below: Vec<PathBuf> =
        entries.into_iter().filter(|(_, kind)| *kind == Kind::Directory).map(|(name, _)| dir.join(name)).collect();
    found.push(dir);
    below.into_iter().try_for_each(|dir| with_those_below(dir, found))
}

/// Does git make a lock of this name in this directory, one of [`directories`]?
pub(crate) fn is_lock_of_git(repo: &Repository, dir: &Path, name: &OsStr) -> bool {
    let is_git_dir = dir == repo.common_dir || dir.parent() == Some(&repo.common_dir.join("worktrees"));
    is_lock_name(name) && (!is_git_dir || is_top_level_lock(name.as_bytes()))
}

/// Directories of a worktree's git directory that have locks right in them.
const FLAT: [&str; 5] = ["reftable", "info", "sequencer", "rebase-merge", "rebase-apply"];

/// The same of the common directory.
const OF_OBJECTS: [&str; 4] = ["objects", "objects/info", "objects/info/commit-graphs", "objects/pack"];

/// Directories of git's that are links: what lies behind them is not looked at.
pub(crate) fn links(repo: &Repository) -> io::Result<Vec<PathBuf>> {
    let git_dirs = repo.all_git_dirs().into_iter();
    let below = git_dirs.flat_map(|dir| ["refs", "logs", "reftable", "worktrees"].map(|name| dir.join(name)));
    let worktrees = repo.common_dir.join("worktrees");
    let entries = door::entries(&worktrees)?.unwrap_or_default().into_iter().map(|(name, _)| worktrees.join(name));
    let is_link = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    Ok(below.chain(entries).filter(is_link).collect())
}

/// Are the directories below searched as well?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    Yes,
    No,
}

fn collect(
    dir: &Path,
    below: Below,
    known: impl Fn(&[u8]) -> bool + Copy,
    found: &mut Vec<LockFile>,
) -> io::Result<()> {
    for (name, kind) in door::entries(dir)?.unwrap_or_default() {
        let path = dir.join(&name);
        if below == Below::Yes && kind == Kind::Directory {
            collect(&path, below, known, found)?;
        }
        if kind == Kind::File && is_lock_name(&name) && known(name.as_bytes()) {
            // It may be gone by now: git is at work.
            found.extend(FileId::at(&path)?.map(|id| LockFile { path, id }));
        }
    }
    Ok(())
}

/// Is this the name of a lock?
pub(super) fn is_lock_name(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".lock") || name == "packed-refs.new"
}

/// Locks right in a git directory: of files that git has there, of pseudo-refs (`ORIG_HEAD`), and their pid files.
fn is_top_level_lock(name: &[u8]) -> bool {
    const FILES: [&[u8]; 9] = [
        b"index",
        b"config",
        b"config.worktree",
        b"packed-refs",
        b"shallow",
        b"gc.pid",
        b"maintenance",
        b"description",
        b"logs",
    ];
    if name == b"packed-refs.new" {
        return true;
    }
    let stem = name.strip_suffix(b".lock").unwrap_or(name);
    let stem = stem.strip_suffix(b"~pid").unwrap_or(stem);
    let pseudo_ref = !stem.is_empty() && stem.iter().all(|b| b.is_ascii_uppercase() || b"_-".contains(b));
    // `index.stash.<pid>` and `next-index-<pid>` are made for the time of one command.
    FILES.contains(&stem) || pseudo_ref || stem.starts_with(b"index.") || stem.starts_with(b"next-index-")
}

/// Is this the path of a lock?
pub(super) fn is_lock_path(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b".lock") || path.ends_with("packed-refs.new")
}
