//! Taking apart what a cut `git worktree add` has made.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context;

use crate::fs::{FileId, durable, moving};
use crate::locks::DeadLock;
use crate::recovery::site::Site;
use crate::state::quarantine;
use crate::util::text::shown;

/// Is the file (or, before git has made it, the directory) still the one that was judged?
pub(crate) fn is_unchanged(lock: &DeadLock) -> io::Result<bool> {
    let judged = lock.file();
    Ok(FileId::at(&judged.path)?.is_some_and(|now| now.is_same_file(&judged.id)))
}

/// Moves the entry of a worktree to quarantine, and removes what git made elsewhere for it where that is empty; `false`
/// when it was another one by then.
pub(crate) fn take_apart(
    site: &Site<'_>,
    lock: &DeadLock,
    dir: &Path,
    worktree: Option<&Path>,
) -> anyhow::Result<bool> {
    // Nothing but an entry of a worktree is ever moved.
    if dir.parent() != Some(&site.repo.common_dir.join("worktrees")) || !is_unchanged(lock)? {
        return Ok(false);
    }
    // Whose link it is must be known before its target moves away.
    let link = worktree.map(|w| w.join(".git"));
    let leads_here = |link: &PathBuf| {
        let target = crate::git::repository::gitfile_target(link).and_then(|t| fs::canonicalize(t).ok());
        target.is_some_and(|t| fs::canonicalize(dir).is_ok_and(|d| d == t))
    };
    let link = link.filter(leads_here);
    let aside = quarantine::free_path(site.state, &site.repo.relative(dir))?;
    moving::move_new(dir, &aside).with_context(|| format!("cannot move {} to quarantine", shown(dir)))?;
    // git makes this directory together with the first worktree.
    durable::remove_dir_if_empty(&site.repo.common_dir.join("worktrees"))?;
    // Only what leads here is git's doing: the entry may name any directory.
    if let (Some(link), Some(worktree)) = (link, worktree) {
        let (link, worktree) = (durable::real(&link), durable::real(worktree));
        durable::remove_file(&link)?;
        durable::remove_dir_if_empty(&worktree)?;
    }
    Ok(true)
}
