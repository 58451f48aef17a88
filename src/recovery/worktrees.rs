//! `git worktree add` cut anywhere.
//!
//! git writes `worktrees/<name>/locked` with the text `initializing` first and removes it last. A worktree that
//! stays like that is locked for ever, its branch counts as checked out, and `git fsck` complains.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Session, execute, quarantine_name};
use crate::durable;
use crate::git::Repository;
use crate::git::locks::{Judge, LockFile};
use crate::git::refs::{FileId, read_small};
use crate::owner::Liveness;

/// The text that git writes.
const INITIALIZING: &[u8] = b"initializing";

/// Is there a worktree that is being made, or was when its maker died?
pub(super) fn any_unfinished(repo: &Repository) -> bool {
    unfinished(repo).is_ok_and(|found| !found.is_empty())
}

fn unfinished(repo: &Repository) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for dir in repo.all_git_dirs().into_iter().skip(1) {
        let initializing = read_small(&dir.join("locked"))?.is_some_and(|(text, _)| text.trim_ascii() == INITIALIZING);
        if initializing || is_empty(&dir) {
            found.push(dir);
        }
    }
    Ok(found)
}

/// git makes the directory before it writes the first file into it.
fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Moves worktrees to quarantine whose maker is dead.
pub(super) fn mend(session: &mut Session<'_>, judge: &mut Judge<'_>) -> anyhow::Result<()> {
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
        session.report.notes.push(format!("moved {name} to quarantine: `git worktree add` died while making it"));
        if !session.options.dry_run {
            take_apart(session, &dir)?;
        }
    }
    Ok(())
}

fn take_apart(session: &Session<'_>, dir: &Path) -> anyhow::Result<()> {
    let worktree = read_small(&dir.join("gitdir"))?.map(|(text, _)| worktree_of(&text));
    let aside = execute::free_name(&session.state.quarantine(), &quarantine_name(&session.repo.relative(dir)))?;
    durable::rename_new(dir, &aside).with_context(|| format!("cannot move {} to quarantine", dir.display()))?;
    // git makes this directory together with the first worktree.
    durable::remove_dir_if_empty(&session.repo.common_dir.join("worktrees"))?;
    // The new worktree itself goes only when there is nothing in it but git's link back.
    if let Some(worktree) = worktree {
        let only_link = fs::read_dir(&worktree).is_ok_and(|entries| entries.flatten().all(|e| e.file_name() == ".git"));
        let link = worktree.join(".git");
        if only_link && fs::symlink_metadata(&link).is_ok_and(|m| m.is_file()) {
            durable::remove_file(&link)?;
        }
        if only_link && worktree.is_dir() {
            durable::remove_dir_if_empty(&worktree)?;
        }
    }
    Ok(())
}

/// `gitdir` holds the path of the worktree's `.git` file.
fn worktree_of(text: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let link = Path::new(std::ffi::OsStr::from_bytes(text.trim_ascii()));
    link.parent().unwrap_or(link).to_owned()
}
