//! What a repository holds: refs, HEADs, reflogs, branch configuration, index, worktree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::repo::{Repo, text};

/// Refs by full name, and each worktree's `HEAD` by its path in the git directory. A value is an object id or `ref: <target>`.
pub type Refs = BTreeMap<String, String>;

/// The state of a repository as far as a crash may damage it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub refs: Refs,
    /// Reflogs by path below `logs/`; empty with reftable.
    pub logs: BTreeMap<String, String>,
    /// The `branch.*` configuration.
    pub branch_config: String,
    /// `git ls-files --stage`, or git's complaint.
    pub index: Result<String, String>,
    /// Files of the worktree by relative path.
    pub worktree: BTreeMap<PathBuf, Vec<u8>>,
}

impl Snapshot {
    pub fn of(repo: &Repo) -> Self {
        Self {
            refs: refs(repo),
            logs: logs(&repo.git_dir()),
            branch_config: text(&repo.try_git(["config", "--local", "--get-regexp", "^branch\\."]).stdout).into_owned(),
            index: index(repo),
            worktree: repo.worktree().map(files_of_worktree).unwrap_or_default(),
        }
    }
}

/// The format that [`parse_refs`] reads.
pub const REF_FORMAT: &str = "%(refname) %(if)%(symref)%(then)ref: %(symref)%(else)%(objectname)%(end)";

fn refs(repo: &Repo) -> Refs {
    let listing = repo.try_git(["for-each-ref", &format!("--format={REF_FORMAT}")]);
    let mut refs = parse_refs(&text(&listing.stdout));
    if repo.uses_reftable() {
        let symbolic = repo.try_git(["symbolic-ref", "-q", "HEAD"]);
        let head = if symbolic.status.success() {
            format!("ref: {}", text(&symbolic.stdout).trim())
        } else {
            text(&repo.try_git(["rev-parse", "HEAD"]).stdout).trim().to_owned()
        };
        refs.insert("HEAD".to_owned(), head);
    } else {
        refs.extend(heads(&repo.git_dir()));
    }
    refs
}

/// Reads lines of `<name> SP <value>`.
pub fn parse_refs(listing: &str) -> Refs {
    listing
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn heads(git_dir: &Path) -> Refs {
    let linked = fs::read_dir(git_dir.join("worktrees")).into_iter().flatten().flatten();
    let names = linked.map(|entry| format!("worktrees/{}/HEAD", entry.file_name().display()));
    names
        .chain(["HEAD".to_owned()])
        .filter_map(|name| {
            let value = fs::read_to_string(git_dir.join(&name)).ok()?;
            Some((name, value.trim().to_owned()))
        })
        .collect()
}

fn logs(git_dir: &Path) -> BTreeMap<String, String> {
    let mut logs = BTreeMap::new();
    let is_log = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        !name.ends_with(b".lock") && !name.starts_with(b".tmp-renamed-log")
    };
    for path in walk(&git_dir.join("logs"), &|_| true).into_iter().filter(is_log) {
        if let Ok(content) = fs::read(&path)
            && let Ok(name) = path.strip_prefix(git_dir.join("logs"))
        {
            logs.insert(name.display().to_string(), text(&content).into_owned());
        }
    }
    logs
}

fn index(repo: &Repo) -> Result<String, String> {
    let listing = repo.try_git(["ls-files", "--stage"]);
    if listing.status.success() || repo.worktree().is_none() {
        Ok(text(&listing.stdout).into_owned())
    } else {
        Err(text(&listing.stderr).into_owned())
    }
}

fn files_of_worktree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walk(root, &|path| path != root.join(".git"));
    files
        .into_iter()
        .filter_map(|path| {
            let content = fs::read(&path).ok()?;
            Some((path.strip_prefix(root).ok()?.to_owned(), content))
        })
        .collect()
}

/// Returns all files below a directory, leaving out the directories that `enter` rejects.
pub fn walk(root: &Path, enter: &dyn Fn(&Path) -> bool) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.insert(path);
            } else if enter(&path) {
                waiting.push(path);
            }
        }
    }
    found
}

/// Names, modes and contents of everything below a directory.
pub fn contents(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut contents = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let bytes = if metadata.is_dir() { Vec::new() } else { fs::read(&path).unwrap_or_default() };
            if metadata.is_dir() {
                waiting.push(path.clone());
            }
            contents.insert(path, (metadata.mode(), bytes));
        }
    }
    contents
}
