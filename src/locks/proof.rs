//! Is the owner of a lock dead? Only a proof in here makes a [`DeadLock`], and only a `DeadLock` can be removed or
//! finished: a lock without proof cannot be taken away, because that does not compile.
//!
//! A lock is never judged by its age. Proofs, any of which serves:
//! - recovery made it (its content says so, and recovery has one runner);
//! - the log has the identity of this very file as the lock of a transaction whose owner is dead;
//! - no process could hold it: see [`super::holders`];
//! - its holders were seen while they lived, and are dead: see [`super::seen`].
//!
//! Whoever recovers without being asked to, and not in the middle of a git command, does without the third: a program that is
//! not git may hold a lock without keeping it open.
//!
//! Limit: a program that is not git and holds a lock without keeping it open is not seen.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fs::{FileId, read_small, unreadable_is_none};
use crate::git::Repository;
use crate::locks::find::LockFile;
use crate::locks::holders::{Holder, Processes};
use crate::locks::seen::Seen;
use crate::process::credentials::Writers;
use crate::process::owner::{self, Liveness, Process, Stat};
use crate::util::text::shown;

/// The content of locks that recovery takes, so that a later recovery knows them.
pub(crate) const RECOVERY_LOCK: &[u8] = b"jin-txn recovery\n";

/// A lock whose owner is proved dead.
#[derive(Debug, Clone)]
#[must_use = "a dead lock blocks git until it is removed or finished"]
pub(crate) struct DeadLock {
    lock: LockFile,
    proof: String,
}

impl DeadLock {
    /// The file.
    pub(crate) fn file(&self) -> &LockFile {
        &self.lock
    }

    /// The proof, in one line for people.
    pub(crate) fn proof(&self) -> &str {
        &self.proof
    }

    /// The lock with which an acknowledged transaction wrote a ref: where it is still a lock, a power cut took back the rename
    /// that ended it, and its owner has died with the boot. `None` when another file is there.
    pub(crate) fn of_acknowledged(path: &Path, recorded: &FileId) -> io::Result<Option<DeadLock>> {
        let found = FileId::at(path)?.filter(|now| now.is_same_file(recorded));
        let proof = "an acknowledged transaction wrote it before the power cut";
        Ok(found.map(|id| DeadLock { lock: LockFile { path: path.to_owned(), id }, proof: proof.to_owned() }))
    }
}

/// What is known of a lock.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Its owner is dead.
    Dead(DeadLock),
    /// Its owner is alive, or that is unknown.
    Held(Holder),
}

/// Identities of locks that the log has for dead owners, by path.
pub(crate) type KnownDead = HashMap<PathBuf, FileId>;

/// What a [`Judge`] knows before it looks at any process.
pub(crate) struct Known {
    /// The log's.
    pub(crate) dead: KnownDead,
    /// The processes above us, whose own locks are alive.
    pub(crate) ancestors: Vec<Stat>,
    /// Processes that make transactions here, whatever they are called.
    pub(crate) owners: Vec<Process>,
    /// See [`Processes::scan`].
    pub(crate) steady_since: Option<i64>,
    /// A person vouches that owners who cannot be seen are dead.
    pub(crate) force: bool,
    /// Locks named by the markers of dead owners: `index.lock`, which the log does not have as one of a ref.
    pub(crate) named: KnownDead,
    /// Of the watch, which takes no lock only because nobody is left who could hold it: what it has seen.
    pub(crate) seen: Option<Seen>,
}

/// Judges locks; scans the processes once, and again for locks that are younger than the scan.
pub(crate) struct Judge<'r> {
    repo: &'r Repository,
    known: Known,
    processes: Option<Processes>,
}

impl<'r> Judge<'r> {
    pub(crate) fn new(repo: &'r Repository, known: Known) -> Self {
        Judge { repo, known, processes: None }
    }

    /// Is the owner of `lock` dead?
    pub(crate) fn judge(&mut self, lock: LockFile) -> io::Result<Verdict> {
        let dead = |lock, proof: &str| Ok(Verdict::Dead(DeadLock { lock, proof: proof.to_owned() }));
        if unreadable_is_none(read_small(&lock.path))?.is_some_and(|(content, _)| content == RECOVERY_LOCK) {
            return dead(lock, "an earlier recovery made it and did not finish");
        }
        if self.known.dead.get(&lock.path) == Some(&lock.id) {
            return dead(lock, "the log has it as the lock of a process that is dead");
        }
        if let Some(holder) = named_by_pid_file(&lock, self.repo)? {
            return Ok(Verdict::Held(holder));
        }
        match &self.known.seen {
            Some(seen) if seen.proves_dead(&lock)? => dead(lock, "its holder was seen, and is dead"),
            Some(seen) => {
                let is_named = seen.names(&lock);
                Ok(self.judge_unseen(lock, is_named))
            }
            None => Ok(self.could_anybody_hold(lock)),
        }
    }

    /// A lock whose holder the watch has not seen. One that the dead have named, in a marker or to the watch, goes unless somebody
    /// else could hold it who can be seen.
    fn judge_unseen(&mut self, lock: LockFile, is_named: bool) -> Verdict {
        let is_named = is_named || self.known.named.get(&lock.path).is_some_and(|named| named.is_same_file(&lock.id));
        if !is_named {
            let because = "no process was seen to hold it: `git txn recover` checks which one could".to_owned();
            return Verdict::Held(Holder { liveness: Liveness::Unknowable, because });
        }
        match self.could_anybody_hold(lock.clone()) {
            Verdict::Held(Holder { liveness: Liveness::Unknowable, .. }) => {
                Verdict::Dead(DeadLock { lock, proof: "a process that is dead named it".to_owned() })
            }
            verdict => verdict,
        }
    }

    /// Could any process have made this file at its ctime and still be at work?
    pub(crate) fn could_anybody_hold(&mut self, lock: LockFile) -> Verdict {
        let Known { ancestors, owners, steady_since, .. } = &self.known;
        if self.processes.as_ref().is_some_and(|seen| seen.are_older_than(&lock)) {
            self.processes = None;
        }
        let scan = || Processes::scan(self.repo, ancestors, owners, *steady_since);
        let processes = self.processes.get_or_insert_with(scan);
        match processes.holder_of(&lock) {
            None => Verdict::Dead(DeadLock { lock, proof: "no process is left that could hold it".to_owned() }),
            Some(Holder { liveness: Liveness::Unknowable, because }) if self.known.force => {
                Verdict::Dead(DeadLock { lock, proof: format!("{because}; forced") })
            }
            Some(holder) => Verdict::Held(holder),
        }
    }
}

/// `core.lockfilePid`: `X~pid.lock` names the holder of `X.lock`, and its own. A live pid proves life; a dead one, or one that
/// cannot be looked at, proves nothing (the file may be older than the lock, or come from another pid namespace).
fn named_by_pid_file(lock: &LockFile, repo: &Repository) -> io::Result<Option<Holder>> {
    let name = lock.path.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let Some(base) = name.strip_suffix(b".lock") else { return Ok(None) };
    let base = base.strip_suffix(b"~pid").unwrap_or(base);
    let beside = lock.path.with_file_name(OsStr::from_bytes(&[base, b"~pid.lock"].concat()));
    let Some((content, _)) = unreadable_is_none(read_small(&beside))? else { return Ok(None) };
    let text = String::from_utf8_lossy(&content);
    let pid: Option<u32> = text.trim().strip_prefix("pid ").and_then(|p| p.parse().ok());
    let could_hold = |s: &Stat| !s.is_gone() && owner::may_be_git(s) && Writers::of(&repo.common_dir).include(s.pid);
    let alive = pid.and_then(Stat::of).filter(could_hold);
    Ok(alive.map(|s| Holder {
        liveness: Liveness::Alive,
        because: format!("pid {} holds it, says {}", s.pid, shown(&beside)),
    }))
}
