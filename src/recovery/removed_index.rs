//! The index of a commit that is done, of which git has removed the lock.
//!
//! `commit -a` writes its index into `index.lock`, moves the refs, and renames the lock into place. On SIGINT and SIGTERM git
//! removes the lock, and a person may do so by hand, as git advises: then the refs show the commit, the index is the one of
//! before, and the next commit takes this one back without a word. The hook has given the lock a second name.
//!
//! The index is put into place only where that takes nothing from anybody: HEAD is still at the commit, and the
//! index is the very file that git was about to replace, or one with the same entries that was written later (`git status`
//! writes it again with new stat data). The one that is replaced goes to quarantine.
//!
//! That the commit was cut, and has not ended well, is told by times: the rename of `index.lock` changes the ctime of both
//! files at once, so that of the old index is never later than that of the new one. Where git has removed the lock, whoever
//! replaces the old index does so afterwards.
//!
//! Limits: where somebody has staged something else since the commit was cut, that is told and the index is left; an index that
//! was written again within [`SAME_MOMENT`] is left; a file system without hard links has no second names.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::{FileId, durable};
use crate::git::{Oid, RefStore, Repository, Value, index};
use crate::locks::holders::CLOCK_MARGIN;
use crate::locks::{InTheWay, while_holding};
use crate::process::caller;
use crate::process::git_argv;
use crate::process::owner::{self, Stat};
use crate::recovery::case::{Case, head_move};
use crate::recovery::files::keep_copy;
use crate::recovery::site::{Mode, Site};
use crate::state::TxId;
use crate::util::text::shown;

/// The second name of `index.lock`, in the directory of its transaction.
pub(crate) const SAVED_INDEX: &str = "index";

/// The second name of the index that it was to replace.
pub(crate) const REPLACED_INDEX: &str = "index.replaced";

/// Two times of one rename are no further apart, in nanoseconds: two ticks of the slowest kernel's clock.
const SAME_MOMENT: i64 = 20_000_000;

/// The index of a finished commit, which is not in place.
#[derive(Debug)]
pub(crate) struct RemovedIndex {
    id: TxId,
    pub(crate) git_dir: PathBuf,
    saved: PathBuf,
    /// The index that it replaces, `None` where there was none.
    now: Option<FileId>,
}

/// What became of the index of a finished commit.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is in place, or the repository has gone on.
    Nothing,
    /// It can be put into place.
    Removed(RemovedIndex),
    /// Something else has been staged since: a commit would take that one back.
    Overtaken,
}

/// Looks for the index of this transaction.
pub(crate) fn find(site: &Site<'_>, case: &Case) -> anyhow::Result<Found> {
    let Some((begin, lock)) = case.tx.begin.as_ref().and_then(|begin| Some((begin, begin.index_lock?))) else {
        return Ok(Found::Nothing);
    };
    let (id, git_dir) = (case.tx.id(), case.tx.git_dir(site.repo));
    let (saved, index) = (site.state.tx(id).join(SAVED_INDEX), git_dir.join("index"));
    let kept = FileId::at(&saved)?.filter(|kept| kept.is_same_file(&lock));
    let is_locked = FileId::at(&git_dir.join("index.lock"))?.is_some_and(|found| found.is_same_file(&lock));
    let (Some(kept), false) = (kept, is_locked) else { return Ok(Found::Nothing) };
    let Some((before, after)) = head_move(site.repo, &git_dir, begin)? else { return Ok(Found::Nothing) };
    let now = FileId::at(&index)?;
    let git = site.git.at(&git_dir);
    let replaced = site.state.tx(id).join(REPLACED_INDEX);
    if !is_at(site.repo, &git_dir, &after)?
        || !was_cut(&kept, now, begin.index, FileId::at(&replaced)?)
        || index::belongs_to(&git, &index, &before, &after)?
        || !index::belongs_to(&git, &saved, &before, &after)?
    {
        return Ok(Found::Nothing);
    }
    let is_old = now.is_some_and(|now| begin.index.is_some_and(|old| now.is_same_file(&old)));
    if now.is_none() || is_old || index::has_same_entries(&git, &index, &replaced)? {
        return Ok(Found::Removed(RemovedIndex { id, git_dir, saved, now }));
    }
    Ok(Found::Overtaken)
}

/// Has git removed the lock, instead of renaming it over the old index?
fn was_cut(kept: &FileId, now: Option<FileId>, old: Option<FileId>, replaced: Option<FileId>) -> bool {
    match (now, old) {
        (None, None) => true,
        (Some(now), Some(old)) if now.is_same_file(&old) => true,
        (Some(_), Some(old)) => {
            replaced.is_some_and(|kept_old| kept_old.is_same_file(&old) && kept_old.ctime > kept.ctime + SAME_MOMENT)
        }
        _ => false,
    }
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

    /// Is `index.lock` held by the git that called this hook, and is refused?
    fn is_locked_by_caller(&self, site: &Site<'_>) -> anyhow::Result<bool> {
        let Caller::Commits(git) = Caller::of(site)? else { return Ok(false) };
        let lock = FileId::at(&self.git_dir.join("index.lock"))?.filter(|_| self.git_dir == site.repo.git_dir);
        Ok(lock.is_some_and(|lock| lock.ctime >= owner::realtime_of_start(git.start) - CLOCK_MARGIN))
    }
}

/// The git that called, as far as it reads or writes the index.
enum Caller {
    /// None, or one that uses no index.
    UsesNone,
    /// A commit that is about to move refs, and that the hook can still refuse.
    Commits(Stat),
    /// One that has read the index already: put into place now, it would be overwritten, or taken for the git's own work.
    HasRead,
}

impl Caller {
    fn of(site: &Site<'_>) -> anyhow::Result<Caller> {
        if site.options.mode == Mode::Command {
            return Ok(Caller::UsesNone);
        }
        let Some((git, argv)) = caller::nearest_git()? else { return Ok(Caller::HasRead) };
        Ok(match &site.options.mode {
            _ if git_argv::changes_no_index(&argv) => Caller::UsesNone,
            Mode::Prepared { refs } if git_argv::may_commit(&argv) && refs.iter().any(|name| !name.is_note()) => {
                Caller::Commits(git)
            }
            _ => Caller::HasRead,
        })
    }
}

/// May indexes be put into place now?
pub(crate) fn is_possible(site: &Site<'_>) -> anyhow::Result<bool> {
    Ok(!matches!(Caller::of(site)?, Caller::HasRead))
}
