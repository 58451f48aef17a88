//! Lock files: where git makes them, and whether their owner is dead.
//!
//! A lock goes only with proof, never by age. Proofs, any of which serves:
//! - recovery made it (its content says so, and recovery has one runner);
//! - the log has the identity of this very file as the lock of a dead owner's transaction;
//! - no process could hold it: see [`super::processes`].
//!
//! Limit: a program that is not git and holds a lock without keeping it open cannot be seen.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fs::named as fs;
use crate::fs::{FileId, absent_is_none, read_small};
use crate::git::repository::Repository;
use crate::locks::holders::Processes;
use crate::process::owner::{Liveness, Stat};

/// The content of locks that recovery takes, so that a later recovery knows them.
pub const RECOVERY_LOCK: &[u8] = b"jin-txn recovery\n";

/// A lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Which file it is.
    pub id: FileId,
}

/// Is the owner of a lock dead, and how do we know?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockVerdict {
    /// Dead: it may go.
    pub owner: Liveness,
    /// One line for people.
    pub because: String,
}

/// Locks that block nearly every command; looked at in every check.
#[must_use]
pub fn well_known(repo: &Repository) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = ["index.lock", "HEAD.lock"].iter().map(|n| repo.git_dir.join(n)).collect();
    let shared = ["packed-refs.lock", "packed-refs.new", "config.lock", "shallow.lock", "reftable/tables.list.lock"];
    paths.extend(shared.iter().map(|n| repo.common_dir.join(n)));
    paths
}

/// How far to look for locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What can block a command: everything but the reflogs, which are locked together with their refs.
    Blocking,
    /// Everywhere that git makes locks.
    Everything,
}

/// Finds all lock files of the repository, where git makes them and nowhere else: other repositories (submodules) and
/// other tools keep files of such names below a git directory, too.
///
/// # Errors
/// A directory cannot be read.
pub fn find(repo: &Repository, depth: Depth) -> io::Result<Vec<LockFile>> {
    let mut found = Vec::new();
    for git_dir in repo.all_git_dirs() {
        collect(&git_dir, Below::No, is_top_level_lock, &mut found)?;
        collect(&git_dir.join("refs"), Below::Yes, |_| true, &mut found)?;
        for dir in ["reftable", "info", "sequencer", "rebase-merge", "rebase-apply"] {
            collect(&git_dir.join(dir), Below::No, |_| true, &mut found)?;
        }
        if depth == Depth::Everything {
            collect(&git_dir.join("logs"), Below::Yes, |_| true, &mut found)?;
        }
    }
    for dir in ["objects", "objects/info", "objects/info/commit-graphs", "objects/pack"] {
        collect(&repo.common_dir.join(dir), Below::No, |_| true, &mut found)?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
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
    let Some(entries) = absent_is_none(fs::read_dir(dir))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if below == Below::Yes && kind.is_dir() {
            collect(&entry.path(), below, known, found)?;
        }
        let name = entry.file_name();
        if kind.is_file() && is_lock_name(&name) && known(name.as_bytes()) {
            // It may be gone by now: git is at work.
            found.extend(FileId::at(&entry.path())?.map(|id| LockFile { path: entry.path(), id }));
        }
    }
    Ok(())
}

fn is_lock_name(name: &OsStr) -> bool {
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

/// Identities of locks that the log has for dead owners, by path.
pub type KnownDead = HashMap<PathBuf, FileId>;

/// Judges locks; scans the processes once, and again for locks that are younger than the scan.
pub struct Judge<'r> {
    repo: &'r Repository,
    known_dead: KnownDead,
    ancestors: Vec<Stat>,
    steady_since: Option<i64>,
    processes: Option<Processes>,
    force: bool,
}

impl<'r> Judge<'r> {
    /// A judge for `repo`. `ancestors`: the processes above us, whose own locks are alive. `steady_since`: see
    /// [`Processes::scan`].
    #[must_use]
    pub fn new(repo: &'r Repository, known_dead: KnownDead, ancestors: Vec<Stat>, steady_since: Option<i64>) -> Self {
        Judge { repo, known_dead, ancestors, steady_since, processes: None, force: false }
    }

    /// A human vouches that owners who cannot be seen are dead.
    #[must_use]
    pub fn forced(self, force: bool) -> Self {
        Judge { force, ..self }
    }

    /// Is the owner of `lock` dead?
    ///
    /// # Errors
    /// The lock cannot be read.
    pub fn judge(&mut self, lock: &LockFile) -> io::Result<LockVerdict> {
        let dead = |because: &str| LockVerdict { owner: Liveness::Dead, because: because.to_owned() };
        if read_small(&lock.path)?.is_some_and(|(content, _)| content == RECOVERY_LOCK) {
            return Ok(dead("an earlier recovery made it and did not finish"));
        }
        if self.known_dead.get(&lock.path) == Some(&lock.id) {
            return Ok(dead("the log has it as the lock of a process that is dead"));
        }
        if let Some(verdict) = self.told_by_pid_file(lock)? {
            return Ok(verdict);
        }
        Ok(self.could_anybody_hold(lock))
    }

    /// Could any process have made this file at its ctime and still be at work?
    pub fn could_anybody_hold(&mut self, lock: &LockFile) -> LockVerdict {
        let (repo, ancestors, steady) = (self.repo, &self.ancestors, self.steady_since);
        if self.processes.as_ref().is_some_and(|seen| seen.are_older_than(lock)) {
            self.processes = None;
        }
        let processes = self.processes.get_or_insert_with(|| Processes::scan(repo, ancestors, steady));
        let mut verdict = processes.holder_of(lock);
        if self.force && verdict.owner == Liveness::Unknowable {
            verdict = LockVerdict { owner: Liveness::Dead, because: format!("{}; forced", verdict.because) };
        }
        verdict
    }

    /// `core.lockfilePid`: `X~pid.lock` names the holder of `X.lock`, and its own. A live pid proves life; a dead one, or one that
    /// cannot be looked at, proves nothing (the file may be older than the lock, or come from another pid namespace).
    fn told_by_pid_file(&self, lock: &LockFile) -> io::Result<Option<LockVerdict>> {
        let name = lock.path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        let Some(base) = name.strip_suffix(b".lock") else { return Ok(None) };
        let base = base.strip_suffix(b"~pid").unwrap_or(base);
        let beside = lock.path.with_file_name(OsStr::from_bytes(&[base, b"~pid.lock"].concat()));
        let Some((content, _)) = read_small(&beside)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&content);
        let pid: Option<u32> = text.trim().strip_prefix("pid ").and_then(|p| p.parse().ok());
        let alive = pid.and_then(Stat::of).filter(|s| !s.is_gone() && crate::process::owner::may_be_git(s));
        Ok(alive.map(|s| LockVerdict {
            owner: Liveness::Alive,
            because: format!("pid {} holds it, says {}", s.pid, beside.display()),
        }))
    }
}
