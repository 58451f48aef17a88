//! The index of a commit that is done, of which git has removed the lock.
//!
//! `commit -a` writes its index into `index.lock`, moves the refs, and renames the lock into place. On SIGINT and SIGTERM git
//! removes the lock, and a person may do so by hand, as git advises: then the refs show the commit, the index is the one of
//! before, and the next commit takes this one back without a word. The hook has given the lock a second name.
//!
//! The index is put into place only where that takes nothing from anybody: HEAD is still at the commit, nothing is in progress,
//! and the index is the very file that git was about to replace, or has the same entries (`git status` writes it again with new
//! stat data). The one that is replaced goes to quarantine.
//!
//! Limits: who stages the exact reverse of a commit by hand, before any other command that has hooks, leaves the same, and gets
//! the index of the commit; where somebody has staged something else since the commit was cut, the index is left; a file system
//! without hard links has no second names.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::{FileId, durable};
use crate::git::{Oid, RefStore, Repository, Value, index};
use crate::locks::holders::CLOCK_MARGIN;
use crate::locks::{InTheWay, while_holding};
use crate::process::{git_argv, owner};
use crate::recovery::case::{Case, head_move};
use crate::recovery::files::keep_copy;
use crate::recovery::site::{Mode, Site};
use crate::state::TxId;
use crate::util::text::shown;

/// The second name of `index.lock`, in the directory of its transaction.
pub(crate) const SAVED_INDEX: &str = "index";

/// The second name of the index that it was to replace.
pub(crate) const REPLACED_INDEX: &str = "index.replaced";

/// The index of a finished commit, which is not in place.
#[derive(Debug)]
pub(crate) struct RemovedIndex {
    id: TxId,
    pub(crate) git_dir: PathBuf,
    saved: PathBuf,
    /// The index that it replaces, `None` where there was none.
    now: Option<FileId>,
}

/// The index of this transaction, if it is one.
pub(crate) fn find(site: &Site<'_>, case: &Case) -> anyhow::Result<Option<RemovedIndex>> {
    let Some((begin, lock)) = case.tx.begin.as_ref().and_then(|begin| Some((begin, begin.index_lock?))) else {
        return Ok(None);
    };
    let (id, git_dir) = (case.tx.id(), case.tx.git_dir(site.repo));
    let saved = site.state.tx(id).join(SAVED_INDEX);
    let is_it = |found: Option<FileId>| found.is_some_and(|found| found.is_same_file(&lock));
    if !is_it(FileId::at(&saved)?) || is_it(FileId::at(&git_dir.join("index.lock"))?) {
        return Ok(None);
    }
    let Some((before, after)) = head_move(site.repo, &git_dir, begin)? else { return Ok(None) };
    let now = FileId::at(&git_dir.join("index"))?;
    let git = site.git.at(&git_dir);
    if !is_at(site.repo, &git_dir, &after)?
        || !is_the_replaced(site, id, &git_dir, (now, begin.index))?
        || index::has_same_entries(&git, &git_dir.join("index"), &saved)?
        || !index::belongs_to(&git, &saved, &before, &after)?
    {
        return Ok(None);
    }
    Ok(Some(RemovedIndex { id, git_dir, saved, now }))
}

/// Is the index the one that the commit was about to replace?
fn is_the_replaced(
    site: &Site<'_>,
    id: TxId,
    git_dir: &Path,
    (now, recorded): (Option<FileId>, Option<FileId>),
) -> anyhow::Result<bool> {
    let (Some(now), Some(recorded)) = (now, recorded) else { return Ok(now == recorded) };
    if now.is_same_file(&recorded) {
        return Ok(true);
    }
    let replaced = site.state.tx(id).join(REPLACED_INDEX);
    if index::in_progress(git_dir).is_some() || FileId::at(&replaced)?.is_none_or(|kept| !kept.is_same_file(&recorded))
    {
        return Ok(false);
    }
    index::has_same_entries(&site.git.at(git_dir), &git_dir.join("index"), &replaced)
}

/// Is HEAD of the worktree still at this commit?
fn is_at(repo: &Repository, git_dir: &Path, commit: &Oid) -> anyhow::Result<bool> {
    let worktree = Repository { git_dir: git_dir.to_owned(), ..repo.clone() };
    let refs = RefStore::new(&worktree);
    let head = refs.read(&refs.canonical(b"HEAD")?)?.value;
    let value = if let Value::Symref(target) = &head { refs.read(target)?.value } else { head };
    Ok(value.oid() == Some(commit))
}

impl RemovedIndex {
    /// Renames the saved index into place, under `index.lock`: ours, or that of the git which waits for this hook and is refused.
    pub(crate) fn finish(self, site: &Site<'_>) -> anyhow::Result<()> {
        let (index, lock) = (self.git_dir.join("index"), self.git_dir.join("index.lock"));
        let put = || {
            anyhow::ensure!(FileId::at(&index)? == self.now, InTheWay(format!("{} has just changed", shown(&index))));
            if self.now.is_some() {
                keep_copy(site, &index)?;
            }
            durable::rename(&self.saved, &index).with_context(|| format!("cannot finish the index of {}", self.id))
        };
        if self.is_locked_by_caller(site)? { put() } else { while_holding(site.repo, &lock, put) }
    }

    /// Is `index.lock` held by the git that called this hook? A git that commits in this worktree has it, or nobody could.
    fn is_locked_by_caller(&self, site: &Site<'_>) -> anyhow::Result<bool> {
        if !matches!(site.options.mode, Mode::Preparing | Mode::Prepared { .. }) || self.git_dir != site.repo.git_dir {
            return Ok(false);
        }
        let Some(lock) = FileId::at(&self.git_dir.join("index.lock"))? else { return Ok(false) };
        let Some((git, argv)) = owner::nearest_git()? else { return Ok(false) };
        Ok(!git_argv::changes_no_index(&argv) && lock.ctime >= owner::realtime_of_start(git.start) - CLOCK_MARGIN)
    }
}
