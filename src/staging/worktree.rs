//! The worktree of a repository: where it lies, and what in it may be touched.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::beneath::{RelPath, Root};
use crate::fs::named as fs;
use crate::git::hash::Hash;
use crate::git::{ConfigQuery, Git, Plumbing, Repository};
use crate::util::text::shown;

/// An open worktree.
#[derive(Debug)]
pub(crate) struct Worktree {
    /// The open root.
    pub root: Root,
    /// How git names blobs here.
    pub hash: Hash,
    /// Where it lies.
    pub path: PathBuf,
    /// The git directories, when they lie in the worktree under another name than `.git`.
    own: Vec<PathBuf>,
}

/// The repository has no worktree, or none that can be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} has no worktree, so there are no files to change", git_dir.display())]
pub struct NoWorktree {
    git_dir: PathBuf,
}

impl Worktree {
    /// Opens the worktree of `repo`.
    ///
    /// A linked worktree says itself where it lies, the main one is what `core.worktree` says, or the directory that
    /// `.git` lies in. Nothing else is believed, the log least of all.
    pub(crate) fn open(repo: &Repository, git: &Git) -> anyhow::Result<Worktree> {
        let settings = Settings::read(&git.at(&repo.git_dir))?;
        let none = || NoWorktree { git_dir: repo.git_dir.clone() };
        let path = locate(repo, &settings)?.ok_or_else(none)?;
        let path = fs::canonicalize(&path).with_context(|| format!("cannot find the worktree {}", shown(&path)))?;
        let root = Root::open_itself(&path).with_context(|| format!("cannot open the worktree {}", shown(&path)))?;
        let inside = |dir: &PathBuf| dir.strip_prefix(&path).ok().map(Path::to_owned);
        let own = [&repo.common_dir, &repo.git_dir].into_iter().filter_map(inside).collect();
        Ok(Worktree { root, hash: settings.hash, path, own })
    }

    /// Does `path` lie in the git directory, whatever that is called?
    pub(crate) fn is_gits_own(&self, path: &RelPath) -> bool {
        self.own.iter().any(|dir| path.as_path().starts_with(dir) || dir.starts_with(path.as_path()))
    }
}

struct Settings {
    hash: Hash,
    is_bare: bool,
    worktree: Option<PathBuf>,
}

impl Settings {
    fn read(git: &Git) -> anyhow::Result<Settings> {
        let wanted = r"^(core\.(worktree|bare)|extensions\.objectformat)$";
        let ran = git.run(Plumbing::Config(ConfigQuery::Matching(wanted)))?;
        let mut settings = Settings { hash: Hash::Sha1, is_bare: false, worktree: None };
        for entry in ran.split(0) {
            let (key, value) = match entry.iter().position(|b| *b == b'\n') {
                Some(at) => (&entry[..at], &entry[at + 1..]),
                None => (entry, b"true".as_slice()),
            };
            match key {
                b"core.worktree" => settings.worktree = Some(std::ffi::OsStr::from_bytes(value).into()),
                b"core.bare" => settings.is_bare = matches!(value, b"true" | b"yes" | b"on" | b"1"),
                b"extensions.objectformat" if value == b"sha256" => settings.hash = Hash::Sha256,
                _ => {}
            }
        }
        Ok(settings)
    }
}

fn locate(repo: &Repository, settings: &Settings) -> io::Result<Option<PathBuf>> {
    if repo.worktree_name().is_some() {
        // `worktrees/<name>/gitdir` names the `.git` file of the worktree.
        let text = fs::read(repo.git_dir.join("gitdir"))?;
        let dot_git = repo.git_dir.join(std::ffi::OsStr::from_bytes(text.trim_ascii_end()));
        return Ok(dot_git.parent().map(Path::to_owned));
    }
    if let Some(path) = &settings.worktree {
        return Ok(Some(repo.git_dir.join(path)));
    }
    let dot_git = repo.common_dir.file_name().is_some_and(|name| name == ".git");
    Ok(repo.common_dir.parent().filter(|_| dot_git && !settings.is_bare).map(Path::to_owned))
}
