//! Looking at one repository: whose work is unfinished there, and is anybody of them alive?
//!
//! The only evidence that it makes is who was seen with which lock. Everything else is read again by recovery.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::fs::{FileId, read_small, unreadable_is_none};
use crate::git::reflog::RENAMED_LOG;
use crate::locks::SeenLock;
use crate::locks::seen::{Hurry, Inode, holders_of, waiting_holder};
use crate::process::owner::{ExecContext, Process, Stat};
use crate::recovery::{any_unfinished_worktree, is_abandoned};
use crate::state::TxKind;
use crate::state::marker::Listing;
use crate::watch::repositories::{Key, Repo, Repositories};

/// How many looks at a lock are left after the first one.
const AFTER_FIRST: usize = 2;

/// Markers of one repository.
#[derive(Default)]
pub(crate) struct Markers {
    /// Processes that are at work.
    pub(crate) alive: Vec<Process>,
    /// Markers of the dead.
    pub(crate) dead: Vec<PathBuf>,
}

/// Reads the markers. Those of a run, of another boot, and of processes that cannot be seen from here are left out.
pub(crate) fn markers(repo: &Repo, here: &ExecContext) -> Markers {
    let mut found = Markers::default();
    let Ok(listing) = Listing::read(repo.state().path()) else { return found };
    for temporary in listing.temporary {
        if is_abandoned(&temporary, here, &repo.state()) {
            found.dead.push(temporary.path);
        } else if temporary.pidns == here.pidns {
            found.alive.push(temporary.writer);
        }
    }
    for entry in listing.markers {
        let Ok(Some((entry, marker))) = entry.read_now() else { continue };
        if marker.origin == TxKind::Run || !marker.owner.place.is_same(here) {
            continue;
        }
        let processes = [marker.owner.process, marker.hook_process];
        let alive: Vec<Process> = processes.into_iter().filter(|process| Stat::may_live(*process)).collect();
        if alive.is_empty() {
            found.dead.push(entry.path);
        }
        found.alive.extend(alive);
    }
    found
}

/// What git leaves outside of locks: a branch that is being renamed, a worktree that is being made. By whom, recovery finds out.
pub(crate) fn unfinished(repo: &Repo) -> Vec<PathBuf> {
    let renamed = Some(repo.repo.common_dir.join(RENAMED_LOG)).filter(|path| path.symlink_metadata().is_ok());
    let worktrees = Some(repo.repo.common_dir.join("worktrees")).filter(|_| any_unfinished_worktree(&repo.repo));
    renamed.into_iter().chain(worktrees).collect()
}

/// A lock of whose holders none is left.
pub(crate) struct Orphan {
    pub(crate) path: PathBuf,
    number: u64,
    id: FileId,
    holders: Vec<Process>,
    doubtful: bool,
    /// The command line of its holder.
    pub(crate) command: Option<String>,
}

/// The locks that were seen in the hands of processes which are all dead, as they are now.
pub(crate) fn orphans(repo: &mut Repo) -> Vec<Orphan> {
    let unknown = repo.locks.iter().filter(|(_, lock)| lock.holders.is_empty()).map(|(path, _)| path.clone());
    unknown.collect::<Vec<_>>().iter().for_each(|path| know_writer_of_note(repo, path));
    let dead = |holders: &[Process]| !holders.is_empty() && !holders.iter().any(|holder| Stat::may_live(*holder));
    let locks = repo.locks.iter().filter(|(path, lock)| dead(&lock.holders) && lock.is_at(path));
    let with_identity = locks.filter_map(|(path, lock)| {
        let id = FileId::at(path).ok()??;
        Some(Orphan {
            path: path.clone(),
            number: lock.number,
            id,
            holders: lock.holders.clone(),
            doubtful: lock.doubtful,
            command: lock.command.clone(),
        })
    });
    with_identity.collect()
}

impl Orphan {
    /// What was seen of it, if it is the same lock still. To be asked when all that has happened to names until its identity was
    /// read is known: a later file of this name may have the same inode.
    pub(crate) fn seen(self, repo: &Repo) -> Option<SeenLock> {
        let is_it = repo.locks.get(&self.path).is_some_and(|lock| lock.number == self.number);
        is_it.then(|| SeenLock::new(&self.path, self.id, self.holders, self.doubtful))
    }
}

/// Looks who holds the locks that are to be looked at now. Those who were found, by repository.
pub(crate) fn find_holders(repositories: &mut Repositories, first: &[u32]) -> Vec<(Key, Process)> {
    let now = Instant::now();
    let mut wanted: Vec<(Key, PathBuf, Inode)> = Vec::new();
    let mut hurry = Hurry::No;
    for (key, repo) in &mut repositories.all {
        repo.locks.retain(|path, lock| {
            let is_due = lock.looks.iter().any(|at| *at <= now);
            if is_due && lock.looks.len() > AFTER_FIRST {
                hurry = Hurry::Yes;
            }
            lock.looks.retain(|at| *at > now);
            // Most are gone by now.
            let stays = !is_due || lock.is_at(path);
            if is_due && stays {
                wanted.push((*key, path.clone(), lock.inode));
            }
            stays
        });
    }
    if wanted.is_empty() {
        return Vec::new();
    }
    let locks: Vec<(&Path, Inode)> = wanted.iter().map(|(_, path, inode)| (path.as_path(), *inode)).collect();
    let mut found = Vec::new();
    let mut held: Vec<(usize, Process)> = holders_of(&locks, first, hurry);
    for (index, (key, path, _)) in wanted.iter().enumerate() {
        let lock = repositories.all.get(key).and_then(|repo| repo.locks.get(path));
        let is_closed = !held.iter().any(|(of, _)| *of == index);
        if let Some(lock) = lock.filter(|lock| is_closed && lock.holders.is_empty() && lock.looks.len() < AFTER_FIRST) {
            let waiting = waiting_holder(path, || lock.is_at(path)).unwrap_or_default();
            held.extend(waiting.into_iter().map(|holder| (index, holder)));
        }
    }
    for (index, holder) in held {
        let (key, path, _) = &wanted[index];
        let lock = repositories.all.get_mut(key).and_then(|repo| repo.locks.get_mut(path));
        // Whoever has the file open now, and it has this name still: it is the lock's holder.
        if let Some(lock) = lock.filter(|lock| lock.is_at(path) && !lock.holders.contains(&holder)) {
            if std::mem::take(&mut lock.doubtful) {
                lock.holders.clear();
            }
            lock.hold(holder);
            found.push((*key, holder));
        }
    }
    found
}

/// `X~pid.lock` (`core.lockfilePid`), which git closes at once, is of those who were seen with `X.lock` if it has the pid of one.
fn know_writer_of_note(repo: &mut Repo, note: &Path) {
    let base = note.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix("~pid.lock"));
    let Some(lock) = base.and_then(|base| repo.locks.get(&note.with_file_name(format!("{base}.lock")))) else { return };
    let Ok(Some((text, _))) = unreadable_is_none(read_small(note)) else { return };
    let pid = std::str::from_utf8(&text).ok().and_then(|text| text.trim().strip_prefix("pid ")?.parse::<u32>().ok());
    let holders = lock.holders.clone();
    if holders.iter().any(|holder| Some(holder.pid) == pid)
        && let Some(lock) = repo.locks.get_mut(note).filter(|lock| lock.holders.is_empty() && lock.is_at(note))
    {
        holders.into_iter().for_each(|holder| lock.hold(holder));
    }
}
