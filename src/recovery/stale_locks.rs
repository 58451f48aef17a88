//! Locks of the dead: moved to quarantine, but for an `index.lock` that belongs to a finished commit, which goes into place.

use std::path::{Path, PathBuf};

use crate::fs::{FileId, moving};
use crate::git::reflog::RENAMED_LOG;
use crate::git::{RefStore, Repository};
use crate::locks::{self, DeadLock, Depth, Holder, InTheWay, Judge, Known, KnownDead, LockFile, Verdict};
use crate::process::owner::{self, Liveness};
use crate::recovery::action::Action;
use crate::recovery::case::{Case, head_move};
use crate::recovery::perform::perform;
use crate::recovery::removed_index::{self, Found};
use crate::recovery::report::{Finding, LockFinding, Report};
use crate::recovery::site::{Mode, Site};
use crate::recovery::worktree_add;
use crate::staging::own;
use crate::state::TxId;
use crate::state::marker::{self, Listing};
use crate::wal::Begin;

/// Moves the locks of the dead aside; an index.lock that belongs to a finished commit goes into place.
pub(crate) fn mend(site: &Site<'_>, judge: &mut Judge<'_>, cases: &[Case], report: &mut Report) -> anyhow::Result<()> {
    // It has always been there: a git that works in a repository like this is told nothing.
    let is_told = site.options.mode == Mode::Command;
    for link in locks::links(site.repo)?.into_iter().filter(|_| is_told) {
        let name = site.repo.relative(&link);
        report.notes.push(format!("{name} is a symbolic link: what lies behind it is left as it is, locks included"));
    }
    for lock in locks::find(site.repo, Depth::Everything)? {
        let path = site.repo.relative(&lock.path);
        let dead = match judge.judge(lock)? {
            Verdict::Dead(dead) => dead,
            Verdict::Held(holder) => {
                report.locks.push(LockFinding::held(path, holder));
                continue;
            }
        };
        let proof = dead.proof().to_owned();
        let finding = match mend_one(site, dead, &path, cases, report) {
            // It stops none of the others, and a person can do what we may not.
            Err(error) if moving::is_permanent(&error) => {
                let because =
                    format!("{proof}; {error:#}: `git txn recover`, run by a user who may remove it, ends it");
                LockFinding { path, finding: Finding::NeedsHuman, because, owner: Liveness::Dead, held: false }
            }
            done => done?,
        };
        report.locks.push(finding);
    }
    Ok(())
}

/// The same, with half-made worktrees, in a repository that has no log: what is known of locks is who could hold them.
pub(crate) fn mend_without_log(site: &Site<'_>, report: &mut Report) -> anyhow::Result<()> {
    let known = Known {
        dead: KnownDead::new(),
        named: KnownDead::new(),
        ancestors: owner::ancestors()?,
        owners: Vec::new(),
        steady_since: None,
        force: site.options.force,
        seen: None,
    };
    let mut judge = Judge::new(site.repo, known);
    mend(site, &mut judge, &[], report)?;
    let renamed = site.repo.common_dir.join(RENAMED_LOG);
    if let Some(id) = FileId::at(&renamed)?
        && let Verdict::Held(holder) = judge.could_anybody_hold(LockFile { path: renamed, id })
    {
        report.busy.push(format!("a branch may be being renamed: {}", holder.because));
    }
    worktree_add::mend(site, &mut judge, report)
}

fn mend_one(
    site: &Site<'_>,
    dead: DeadLock,
    path: &str,
    cases: &[Case],
    report: &mut Report,
) -> anyhow::Result<LockFinding> {
    let because = dead.proof().to_owned();
    let found = |finding| LockFinding { path: path.to_owned(), finding, because, owner: Liveness::Dead, held: false };
    if is_index_of_one(site, &dead, cases)? {
        perform(site, vec![Action::FinishLock { lock: dead, keep: None }])?;
        return Ok(found(Finding::Finished));
    }
    let trimmed = perform(site, vec![Action::TrimUnfinishedMove(dead.file().clone())])?;
    report.notes.extend(trimmed.lines);
    if let Some(id) = needed_later(site, dead.file(), cases)? {
        let because = format!("{id} has it as its new index, and died just now");
        return Ok(LockFinding::held(path.to_owned(), Holder { liveness: Liveness::Unknowable, because }));
    }
    let gone = !perform(site, vec![Action::RemoveLock(dead)])?.is_void;
    Ok(found(if gone { Finding::Removed } else { Finding::Left }))
}

/// The transaction whose index this lock is, when it was at work as the markers were read: it is recovered the next time,
/// and its index with it.
fn needed_later(site: &Site<'_>, lock: &LockFile, cases: &[Case]) -> anyhow::Result<Option<TxId>> {
    if !lock.path.ends_with("index.lock") {
        return Ok(None);
    }
    for entry in Listing::read(site.state.path())?.markers {
        if cases.iter().any(|case| case.tx.id() == entry.id) {
            continue;
        }
        let index = match entry.read_now() {
            Err(error) if marker::is_unreadable(&error) => return Err(error),
            // A damaged one says nothing.
            found => found.ok().flatten().and_then(|(_, marker)| marker.index_lock),
        };
        let is_it =
            |(path, id): (String, FileId)| id.is_same_file(&lock.id) && site.repo.common_dir.join(path) == lock.path;
        if index.is_some_and(is_it) {
            return Ok(Some(entry.id));
        }
    }
    Ok(None)
}

/// Is this lock the new index of a transaction that was applied in whole?
fn is_index_of_one(site: &Site<'_>, lock: &DeadLock, cases: &[Case]) -> anyhow::Result<bool> {
    let file = lock.file();
    for case in cases.iter().filter(|case| case.is_applied()) {
        let Some(begin) = &case.tx.begin else { continue };
        let git_dir = case.tx.git_dir(site.repo);
        let is_it = begin.index_lock.is_some_and(|recorded| recorded.is_same_file(&file.id));
        if !is_it || file.path != git_dir.join("index.lock") {
            continue;
        }
        let Some((before, after)) = head_move(site.repo, &git_dir, begin)? else { continue };
        if crate::git::index::belongs_to(&site.git.at(&git_dir), &file.path, &before, &after)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts indexes of finished commits into place of which git had removed the lock. Transactions for which that cannot be done now
/// are left for the next time.
pub(crate) fn finish_removed(site: &Site<'_>, cases: &mut [Case], report: &mut Report) -> anyhow::Result<()> {
    for case in cases.iter_mut().rev().filter(|case| case.is_applied()) {
        let what = format!("{} (`{}`)", case.tx.id(), case.tx.operation());
        let git_dir = case.tx.git_dir(site.repo);
        let found = removed_index::find(site, case)?;
        if !matches!(found, Found::Nothing) && !removed_index::is_possible(site)? {
            case.wait();
            continue;
        }
        match found {
            Found::Nothing => continue,
            Found::Overtaken => report.notes.push(format!(
                "{what} is done, but git was interrupted and removed its index, and something was staged since: the next \
                 commit takes it back in what `git diff --cached` shows; `git reset` keeps it"
            )),
            Found::Removed(removed) => match perform(site, vec![Action::FinishIndex(removed)]) {
                Err(error) if error.is::<InTheWay>() => {
                    case.wait();
                    continue;
                }
                done => {
                    done?;
                    report.notes.push(format!("{what} is done: git was interrupted and had removed its index"));
                }
            },
        }
        report.indexes_finished.push(git_dir);
    }
    Ok(())
}

/// Locks that the log has for transactions of the dead. Of a batched one they may be another process's.
pub(crate) fn known_dead(repo: &Repository, cases: &[Case]) -> KnownDead {
    let refs = RefStore::new(repo);
    let mut known = KnownDead::new();
    let begun = cases.iter().filter_map(|case| Some((&case.tx, case.tx.begin.as_ref()?)));
    for (tx, begin) in begun.filter(|(_, begin)| !begin.batched) {
        let changed = begin.refs.iter().map(|c| (&c.name, c.lock));
        let watched = begin.watched.iter().map(|w| (&w.name, w.lock));
        known.extend(changed.chain(watched).filter_map(|(name, lock)| Some((refs.lock(name), lock?))));
        known.extend(own_locks(repo, &tx.git_dir(repo), begin));
        let packed = if begin.reftable { "reftable/tables.list.lock" } else { "packed-refs.lock" };
        known.extend(begin.packed_lock.map(|lock| (repo.common_dir.join(packed), lock)));
    }
    known
}

/// `index.lock`, `config.lock`, `HEAD.lock` and the lock of a renamed branch of a transaction of ours: second names of what it had staged. A name more or less changes the
/// ctime of a file.
fn own_locks(repo: &Repository, git_dir: &Path, begin: &Begin) -> Vec<(PathBuf, FileId)> {
    let whole = own::whole_files(begin).map(|(whole, change)| (whole.lock(repo, git_dir), change.after));
    let branch = begin.new_branch_log.as_ref().map(|log| (RefStore::new(repo).lock(&log.to), log.after));
    let locks = whole.chain(begin.new_head.map(|head| (git_dir.join("HEAD.lock"), head))).chain(branch);
    let as_now = |(path, file): (PathBuf, FileId)| {
        let now = FileId::at(&path).ok().flatten().filter(|now| now.is_same_file(&file))?;
        Some((path, now))
    };
    locks.filter_map(as_now).collect()
}

/// `index.lock` of transactions of the dead, as their markers name it.
pub(crate) fn named_by_markers(repo: &Repository, cases: &[Case]) -> KnownDead {
    let markers = cases.iter().filter_map(|case| case.tx.marker.as_ref());
    let locks = markers.filter_map(|marker| marker.index_lock.as_ref());
    locks.map(|(path, lock)| (repo.common_dir.join(path), *lock)).collect()
}
