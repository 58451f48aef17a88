//! What a hook knows of locks at `prepared`: git, which waits for it, holds those of the refs that it is about to change.
//!
//! git closes the lock of a ref as soon as it has it, so that nobody sees who holds it. The log and a marker tell it of a logged
//! transaction, a moment later; of the deletion of a note, which is not logged, nothing else does.

use std::path::PathBuf;

use crate::fs::FileId;
use crate::git::RefStore;
use crate::hook::announce;
use crate::hook::call::Call;
use crate::observe::{Locks, Observed};

/// The most locks that are told of.
const MOST: usize = 16;

impl Call<'_> {
    /// Tells the watch of this git, and of the locks that it holds for certain.
    pub(super) fn testify(&self, seen: &Observed) -> anyhow::Result<()> {
        let caller = &self.environment.watch;
        if caller.is_silent() {
            return Ok(());
        }
        let Some(locks) = self.locks_held(seen)? else { return Ok(()) };
        announce::at_work(caller, &self.repo, self.git()?.process(), locks);
        Ok(())
    }

    /// `None` for a call of which nothing needs to be known.
    fn locks_held(&self, seen: &Observed) -> anyhow::Result<Option<Vec<(PathBuf, FileId)>>> {
        let refs = RefStore::new(&self.repo);
        let packed = self.repo.common_dir.join("packed-refs.lock");
        if !seen.changes.is_empty() {
            if Locks::of(&self.git()?.argv) != Locks::Own {
                return Ok(Some(Vec::new()));
            }
            let changed = seen.changes.iter().map(|c| (&c.name, c.lock));
            let watched = seen.watched.iter().map(|w| (&w.name, w.lock));
            let of_refs = changed.chain(watched).filter_map(|(name, lock)| Some((refs.lock(name), lock?)));
            let of_packed = seen.packed_lock.map(|lock| (packed, lock));
            return Ok(Some(of_packed.into_iter().chain(of_refs).take(MOST).collect()));
        }
        let deletes = self.payload.lines().all(|line| line.deletes());
        let mut paths = Vec::new();
        if deletes && self.payload.is_of_notes() && self.payload.count() < MOST {
            // git holds packed-refs.lock for a deletion, even where it finds that nothing is packed.
            paths.push(packed);
            for line in self.payload.lines() {
                paths.push(refs.lock(&refs.canonical(line.name)?));
            }
        } else if !deletes && Locks::of(&self.git()?.argv) == Locks::OfOthers {
            paths.extend([self.repo.common_dir.join("packed-refs.new"), packed]);
        } else {
            return Ok(None);
        }
        let found = paths.into_iter().map(|path| Ok(FileId::at(&path)?.map(|id| (path, id))));
        Ok(Some(found.collect::<std::io::Result<Vec<_>>>()?.into_iter().flatten().collect()))
    }
}
