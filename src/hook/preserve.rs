//! What a hook keeps or makes durable before git goes on, because git is about to take it away or never syncs it.

use std::io::ErrorKind;

use anyhow::Context;

use crate::fs::{FileId, absent_is_none, durable, named as fs};
use crate::git::reflog::RENAMED_LOG;
use crate::git::refs::{RefSnapshot, ResolvedRef};
use crate::git::{RefName, RefStore, Value};
use crate::hook::call::Call;
use crate::hook::recover::{REPLACED_INDEX, SAVED_INDEX, saved_log_name};
use crate::observe::Observed;
use crate::process::owner::ExecContext;
use crate::run::child_transactions::is_shared;
use crate::run::snapshot;
use crate::state::{Durability, TxId};
use crate::util::text::shown;
use crate::wal::{Body, Flush, Rename};

impl Call<'_> {
    /// pack-refs writes `packed-refs`, renames it into place, and then removes loose files: three steps that a power cut
    /// must not take back in another order. Its content is synced before the rename, its name before the first removal.
    pub(super) fn order_packing(&self, seen: &Observed) -> anyhow::Result<()> {
        let new = self.repo.common_dir.join("packed-refs.new");
        let written = FileId::at(&new)?.is_some();
        if (!written && seen.pruned.is_empty()) || self.state.durability() == Durability::Process {
            return Ok(());
        }
        if written {
            durable::fsync_file(&new).with_context(|| format!("cannot sync {}", shown(&new)))?;
        }
        let packed = FileId::at(&self.repo.common_dir.join("packed-refs"))?;
        if let Some(packed) = packed.filter(|_| !seen.pruned.is_empty())
            && !self.state.is_known_durable(&packed)
        {
            durable::fsync_dir(&self.repo.common_dir).context("cannot sync the git directory")?;
            self.state.note_durable(&packed)?;
        }
        Ok(())
    }

    /// pack-refs erases the identity that proves who wrote a ref: log where it went, while it is known.
    pub(super) fn note_moved(&self, seen: &Observed) -> anyhow::Result<()> {
        let moved = |(name, was): &(RefName, ResolvedRef)| RefSnapshot {
            name: name.clone(),
            value: was.value.clone(),
            file: was.loose,
        };
        let refs = seen.pruned.iter().map(moved).collect();
        let place = ExecContext::here()?;
        self.log(&place).append(None, &Body::Moved { refs }, Flush::Yes)?;
        Ok(())
    }

    /// git replaces its configuration without syncing it: keep a second name for the file that is there now, which the barrier
    /// makes durable.
    pub(super) fn save_config(&self) -> anyhow::Result<()> {
        let (config, saved) = (self.repo.common_dir.join("config"), self.state.saved_config());
        let found = absent_is_none(fs::symlink_metadata(&config))?.filter(fs::Metadata::is_file);
        let now = found.as_ref().map(FileId::of);
        if now.is_none_or(|now| now.size == 0) || now == FileId::at(&saved)? {
            return Ok(());
        }
        durable::remove_file_here(&saved)?;
        match durable::keep_second_here(&config, &saved) {
            // Another hook was faster, or git is replacing it right now: the next transaction keeps it.
            // A link leads to what is not this repository's; what is no file is no configuration.
            Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                Ok(())
            }
            other => other.context("cannot keep the configuration"),
        }
    }

    /// On SIGINT and SIGTERM git removes `index.lock`, which is the only copy of the index of a commit whose refs are done, and a
    /// person may do the same by hand: keep a second name for it, and one for the index that it replaces.
    pub(super) fn save_index(&self, id: TxId, seen: &Observed) -> anyhow::Result<()> {
        let Some(lock) = seen.index_lock.filter(|lock| lock.size > 0) else { return Ok(()) };
        let dir = self.state.make_tx(id)?;
        for (name, saved) in [("index.lock", SAVED_INDEX), ("index", REPLACED_INDEX)] {
            match durable::hard_link(&self.repo.git_dir.join(name), &dir.join(saved)) {
                // There is no index before the first commit, and no second name where the file system has none.
                Err(_) if name == "index" => {}
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(_) if FileId::at(&dir.join(saved))?.is_none_or(|saved| !saved.is_same_file(&lock)) => return Ok(()),
                other => other.context("cannot keep the index")?,
            }
        }
        Ok(())
    }

    /// git removes the reflogs of deleted refs before the refs: keep a second name for each.
    pub(super) fn save_reflogs(&self, id: TxId, seen: &Observed) -> anyhow::Result<()> {
        let refs = RefStore::new(&self.repo);
        let mut deleted = seen.changes.iter().enumerate().filter(|(_, c)| c.after == Value::Absent && c.log.is_some());
        let Some(first) = deleted.next() else { return Ok(()) };
        let dir = self.state.make_tx(id)?;
        for (index, change) in std::iter::once(first).chain(deleted) {
            let saved = dir.join(saved_log_name(index));
            match durable::keep_second(&refs.log(&change.name), &saved) {
                // What is no file, or lies behind a link, is no reflog of this repository.
                Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::InvalidInput) => {}
                other => other.with_context(|| format!("cannot save the reflog of {}", change.name))?,
            }
        }
        Ok(())
    }

    /// A rolled back run gets its reflogs back as well: the first of its transactions that touches one gives it a second name.
    pub(super) fn save_reflogs_of_run(
        &self,
        run: TxId,
        seen: &Observed,
        rename: Option<&Rename>,
    ) -> anyhow::Result<()> {
        let refs = RefStore::new(&self.repo);
        for change in seen.changes.iter().filter(|c| is_shared(&c.name)) {
            let moving = rename.is_some_and(|r| r.log.is_some()) && change.log.is_none();
            let log = if moving { self.repo.common_dir.join(RENAMED_LOG) } else { refs.log(&change.name) };
            snapshot::keep_reflog(&log, &self.state, run, change.name.clone())?;
        }
        Ok(())
    }
}
