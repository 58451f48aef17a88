//! `git worktree add` cut anywhere.
//!
//! git writes `worktrees/<name>/locked` with the text `initializing` first and removes it last. A worktree that
//! stays like that is locked for ever and its branch counts as checked out.
//!
//! When nothing has been checked out, the half-made entry goes to quarantine. When something has, somebody may have
//! worked there since: then only the lock goes, and it is a worktree like any other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::durable;
use crate::fs::{FileId, read_small};
use crate::git::Repository;
use crate::locks::judge::{Judge, LockFile};
use crate::process::owner::Liveness;
use crate::recovery::{Session, execute, quarantine_name};

/// The text that git writes.
const INITIALIZING: &[u8] = b"initializing";

/// Is there a worktree that is being made, or was when its maker died?
#[must_use]
pub fn any_unfinished(repo: &Repository) -> bool {
    unfinished(repo).is_ok_and(|found| !found.is_empty())
}

fn unfinished(repo: &Repository) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for dir in repo.all_git_dirs().into_iter().skip(1) {
        if is_initializing(&dir)? || is_empty(&dir) {
            found.push(dir);
        }
    }
    Ok(found)
}

/// The lock of `worktree add` is older than the files that it writes next; one that a user made with that very reason is
/// younger.
fn is_initializing(dir: &Path) -> anyhow::Result<bool> {
    let Some((text, lock)) = read_small(&dir.join("locked"))? else { return Ok(false) };
    let made = FileId::at(&dir.join("commondir"))?;
    Ok(text.trim_ascii() == INITIALIZING && made.is_none_or(|made| lock.mtime <= made.mtime))
}

/// git makes the directory before it writes the first file into it.
fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Moves worktrees to quarantine whose maker is dead.
pub(crate) fn mend(session: &mut Session<'_>, judge: &mut Judge<'_>) -> anyhow::Result<()> {
    for dir in unfinished(session.repo)? {
        let locked = dir.join("locked");
        let witness = if locked.exists() { locked } else { dir.clone() };
        let Some(id) = FileId::at(&witness)? else { continue };
        let verdict = judge.could_anybody_hold(&LockFile { path: witness, id });
        let name = session.repo.relative(&dir);
        if verdict.owner != Liveness::Dead {
            session.report.busy.push(format!("{name} is being made: {}", verdict.because));
            continue;
        }
        let worktree = read_small(&dir.join("gitdir"))?.map(|(text, _)| worktree_of(&text));
        let used = worktree.as_ref().is_some_and(|path| has_content(path)) || dir.join("index").exists();
        session.report.notes.push(if used {
            let path = worktree.as_ref().map_or_else(String::new, |p| format!(" at {}", p.display()));
            format!("unlocked {name}{path}: `git worktree add` died while filling it; `git status` there says what is missing")
        } else {
            format!("moved {name} to quarantine: `git worktree add` died while making it")
        });
        match (session.options.dry_run, used) {
            (true, _) => {}
            (false, true) => durable::remove_file(&dir.join("locked"))?,
            (false, false) => take_apart(session, &dir, worktree.as_deref())?,
        }
    }
    Ok(())
}

/// Is there anything but git's link back to the repository?
fn has_content(worktree: &Path) -> bool {
    fs::read_dir(worktree).is_ok_and(|entries| entries.flatten().any(|e| e.file_name() != ".git"))
}

fn take_apart(session: &Session<'_>, dir: &Path, worktree: Option<&Path>) -> anyhow::Result<()> {
    // Whose link it is must be known before its target moves away.
    let link = worktree.map(|w| w.join(".git"));
    let leads_here = |link: &PathBuf| {
        let target = crate::git::repository::gitfile_target(link).and_then(|t| fs::canonicalize(t).ok());
        target.is_some_and(|t| fs::canonicalize(dir).is_ok_and(|d| d == t))
    };
    let link = link.filter(leads_here);
    let aside = execute::free_name(&session.state.quarantine(), &quarantine_name(&session.repo.relative(dir)))?;
    durable::rename_new(dir, &aside).with_context(|| format!("cannot move {} to quarantine", dir.display()))?;
    // git makes this directory together with the first worktree.
    durable::remove_dir_if_empty(&session.repo.common_dir.join("worktrees"))?;
    if let Some(link) = link {
        durable::remove_file(&link)?;
    }
    if let Some(worktree) = worktree {
        durable::remove_dir_if_empty(worktree)?;
    }
    Ok(())
}

/// `gitdir` holds the path of the worktree's `.git` file.
fn worktree_of(text: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let link = Path::new(std::ffi::OsStr::from_bytes(text.trim_ascii()));
    link.parent().unwrap_or(link).to_owned()
}
