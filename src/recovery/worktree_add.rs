//! `git worktree add` cut anywhere.
//!
//! git writes `worktrees/<name>/locked` with the text `initializing` first and removes it last. A worktree that
//! stays like that is locked for ever and its branch counts as checked out.
//!
//! When nothing has been checked out, the half-made entry goes to quarantine. When something has, somebody may have
//! worked there since: then only the lock goes, and it is a worktree like any other.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fs::{FileId, read_small};
use crate::git::Repository;
use crate::locks::{Judge, LockFile, Verdict};
use crate::process::owner::Liveness;
use crate::recovery::action::Action;
use crate::recovery::decide::{Decision, Evidence, WorktreeContent, decide};
use crate::recovery::perform::perform;
use crate::recovery::report::Report;
use crate::recovery::site::Site;
use crate::recovery::take_apart;
use crate::util::text::shown;

/// The text that git writes.
const INITIALIZING: &[u8] = b"initializing";

/// Is there a worktree that is being made, or was when its maker died?
pub(crate) fn any_unfinished(repo: &Repository) -> bool {
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

/// Ends the making of worktrees whose maker is dead.
pub(crate) fn mend(site: &Site<'_>, judge: &mut Judge<'_>, report: &mut Report) -> anyhow::Result<()> {
    for dir in unfinished(site.repo)? {
        let locked = dir.join("locked");
        let is_locked = locked.exists();
        let witness = if is_locked { locked } else { dir.clone() };
        let Some(id) = FileId::at(&witness)? else { continue };
        let name = site.repo.relative(&dir);
        let lock = match judge.could_anybody_hold(LockFile { path: witness, id }) {
            Verdict::Dead(lock) => lock,
            Verdict::Held(holder) => {
                report.busy.push(format!("{name} is being made: {}", holder.because));
                continue;
            }
        };
        // Only now: a git that was at work when the directory was found may have finished since.
        if !take_apart::is_unchanged(&lock)? {
            continue;
        }
        let worktree = read_small(&dir.join("gitdir"))?
            .filter(|(text, _)| !text.trim_ascii().is_empty())
            .map(|(text, _)| dir.join(worktree_of(&text)));
        let used = worktree.as_ref().is_some_and(|path| has_content(path)) || dir.join("index").exists();
        let content = if used { WorktreeContent::Used } else { WorktreeContent::Empty };
        let (note, action) = match decide(&Evidence::WorktreeAdd { maker: Liveness::Dead, content }) {
            Decision::RollForward if is_locked => {
                let path = worktree.as_ref().map_or_else(String::new, |p| format!(" at {}", shown(p)));
                let note = format!(
                    "unlocked {name}{path}: `git worktree add` died while filling it; `git status` there says what is missing"
                );
                (note, Action::RemoveLock(lock))
            }
            Decision::RollBack => {
                let note = format!("moved {name} to quarantine: `git worktree add` died while making it");
                (note, Action::TakeWorktreeApart { lock, dir, worktree })
            }
            _ => continue,
        };
        if !perform(site, vec![action])?.is_void {
            report.notes.push(note);
        }
    }
    Ok(())
}

/// Is there anything but git's link back to the repository?
fn has_content(worktree: &Path) -> bool {
    fs::read_dir(worktree).is_ok_and(|entries| entries.flatten().any(|e| e.file_name() != ".git"))
}

/// `gitdir` holds the path of the worktree's `.git` file.
fn worktree_of(text: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let link = Path::new(std::ffi::OsStr::from_bytes(text.trim_ascii()));
    link.parent().unwrap_or(link).to_owned()
}
