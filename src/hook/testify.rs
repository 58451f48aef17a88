//! What a hook knows of locks at `prepared`: git, which waits for it, holds those of the refs that it is about to change.
//!
//! git closes the lock of a ref as soon as it has it, so that nobody sees who holds it. The log and a marker tell it of a logged
//! transaction, a moment later; of the deletion of a note and of a prune, which are not logged, nothing else does.

use std::io;
use std::path::PathBuf;

use crate::fs::FileId;
use crate::git::{RefStore, Value};
use crate::hook::announce;
use crate::hook::call::Call;
use crate::observe::{Locks, Observed};
use crate::process::owner::{self, ExecContext};

/// The most locks that are told of.
const MOST: usize = 32;

impl Call<'_> {
    /// Tells the watch of this git, and of the locks that it holds. Where that cannot be known nothing is told: git goes on.
    pub(super) fn testify(&self, seen: &Observed) {
        let caller = &self.environment.watch;
        let holds_none = seen.changes.is_empty() && seen.watched.is_empty() && !self.may_hold(seen);
        if holds_none || !announce::is_wanted(caller, &self.repo) {
            return;
        }
        let Ok(git) = self.git() else { return self.testify_as_orphan() };
        let kind = Locks::of(&git.argv);
        let Ok(locks) = self.locks_held(seen, kind) else { return };
        if !locks.is_empty() || !seen.changes.is_empty() {
            // Of a batched update some may be another git's.
            announce::at_work(caller, &self.repo, git.process(), locks, kind == Locks::Batched);
        }
    }

    /// git was killed while it started this hook, and nobody is left above: the locks of its refs are there. Whether each of them was
    /// its own, only its arguments could tell.
    pub(super) fn testify_as_orphan(&self) {
        let caller = &self.environment.watch;
        // In a container the first process may be a program with git's code in it.
        let on_host = || ExecContext::here().is_ok_and(|here| here.sees_everything());
        let is_orphan = || on_host() && owner::ancestors().is_ok_and(|above| above.iter().all(|it| it.pid == 1));
        if self.git().is_ok() || !announce::is_wanted(caller, &self.repo) || !is_orphan() {
            return;
        }
        let (Ok(myself), Ok(locks)) = (owner::myself(), self.locks_of_payload()) else { return };
        // This process ends in a moment, and stands for the one that has ended.
        announce::at_work(caller, &self.repo, myself, locks, true);
    }

    fn locks_of_payload(&self) -> anyhow::Result<Vec<(PathBuf, FileId)>> {
        let refs = RefStore::new(&self.repo);
        let mut paths = vec![self.repo.git_dir.join("HEAD.lock"), self.repo.common_dir.join("packed-refs.lock")];
        for line in self.payload.lines().take(MOST) {
            paths.push(refs.lock(&refs.canonical(line.name)?));
        }
        found(paths)
    }

    /// Of a transaction that changes nothing visible: is it one that takes locks all the same, a prune, the deletion of a note, or
    /// what fills `packed-refs`?
    fn may_hold(&self, seen: &Observed) -> bool {
        !seen.pruned.is_empty() || self.payload.is_of_notes() || self.payload.lines().any(|line| !line.deletes())
    }

    fn locks_held(&self, seen: &Observed, kind: Locks) -> anyhow::Result<Vec<(PathBuf, FileId)>> {
        let refs = RefStore::new(&self.repo);
        let deletes = self.payload.lines().all(|line| line.deletes());
        let of_notes = deletes && self.payload.is_of_notes();
        let mut paths: Vec<PathBuf> = seen.pruned.iter().take(MOST).map(|(name, _)| refs.lock(name)).collect();
        if of_notes {
            let names = self.payload.lines().take(MOST).map(|line| refs.canonical(line.name));
            paths.extend(names.collect::<Result<Vec<_>, _>>()?.iter().map(|name| refs.lock(name)));
        }
        // git holds packed-refs.lock for every deletion that is no prune, even where it finds that nothing is packed, and writes
        // packed-refs.new while it has that.
        let deleted = seen.changes.iter().any(|change| change.after == Value::Absent);
        if of_notes || deleted || (kind == Locks::OfOthers && !deletes) {
            paths.extend(["packed-refs.new", "packed-refs.lock"].map(|name| self.repo.common_dir.join(name)));
        }
        let mut locks = found(paths)?;
        let changed = seen.changes.iter().map(|c| (&c.name, c.lock));
        let watched = seen.watched.iter().map(|w| (&w.name, w.lock));
        locks.extend(changed.chain(watched).filter_map(|(name, lock)| Some((refs.lock(name), lock?))).take(MOST));
        Ok(locks)
    }
}

/// Those that are there.
fn found(paths: Vec<PathBuf>) -> anyhow::Result<Vec<(PathBuf, FileId)>> {
    let found = paths.into_iter().map(|path| Ok(FileId::at(&path)?.map(|id| (path, id))));
    Ok(found.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}
