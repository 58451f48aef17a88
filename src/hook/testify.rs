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

/// The most locks that are told of.
const MOST: usize = 32;

impl Call<'_> {
    /// Tells the watch of this git, and of the locks that it holds.
    pub(super) fn testify(&self, seen: &Observed) -> anyhow::Result<()> {
        let caller = &self.environment.watch;
        if caller.is_silent() {
            return Ok(());
        }
        let git = self.git()?;
        let kind = Locks::of(&git.argv);
        let locks = self.locks_held(seen, kind)?;
        if !locks.is_empty() || !seen.changes.is_empty() {
            // Of a batched update some may be another git's.
            announce::at_work(caller, &self.repo, git.process(), locks, kind == Locks::Batched);
        }
        Ok(())
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
        let found = paths.into_iter().map(|path| Ok(FileId::at(&path)?.map(|id| (path, id))));
        let mut locks: Vec<_> = found.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect();
        let changed = seen.changes.iter().map(|c| (&c.name, c.lock));
        let watched = seen.watched.iter().map(|w| (&w.name, w.lock));
        locks.extend(changed.chain(watched).filter_map(|(name, lock)| Some((refs.lock(name), lock?))).take(MOST));
        Ok(locks)
    }
}
