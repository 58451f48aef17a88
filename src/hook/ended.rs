//! `committed` and `aborted`: git is done. How it ended is read from the refs, logged, and cleaned up, the marker last.

use crate::fs::FileId;
use crate::git::reflog::RENAMED_LOG;
use crate::git::refs::RefSnapshot;
use crate::git::{RefFormat, RefStore};
use crate::hook::Reply;
use crate::hook::call::Call;
use crate::hook::markers::OwnMarker;
use crate::process::owner::Stat;
use crate::state::kept;
use crate::state::marker::{Entry, Marker, State};
use crate::wal::{Body, Flush, Log};

impl Call<'_> {
    /// git has changed the refs; what it did is read from them, not from the payload.
    pub(super) fn committed(&self) -> anyhow::Result<Reply> {
        self.note_reset()?;
        if self.nothing_is_in_flight() {
            return Ok(Reply::go());
        }
        let markers = self.sort_markers()?;
        // An inner transaction is done, its outer one with the same payload is not.
        if markers.mine.iter().any(|own| self.is_this(own) && own.is_locked(&self.repo)) {
            return Ok(Reply::go());
        }
        for own in markers.mine {
            if self.is_this(&own) {
                let committed = Body::Committed { refs: self.refs_with_new_value()? };
                let OwnMarker { entry, marker } = own;
                // Before the record: an operation that has ended left this index, whenever we are killed.
                self.renew_standing(marker.index_lock.as_ref().map(|_| self.repo.git_dir.join("index.lock")))?;
                let Some(entry) = self.end(entry, &marker, &committed)? else { return Ok(Reply::go()) };
                // git renames `index.lock` into place only after this call: where it is gone by now, git has removed it, and is dying.
                if !marker.follow_up && marker.index_lock.is_none() {
                    self.forget(entry)?;
                }
            } else if self.is_only_announced(&own) || self.is_followed_up(&own) {
                self.forget(own.entry)?;
            }
        }
        self.recover_if(markers.dead)
    }

    /// git gave up and released its locks.
    pub(super) fn aborted(&self) -> anyhow::Result<Reply> {
        if self.nothing_is_in_flight() {
            return self.recover_if(self.needs_boot_check()?);
        }
        let markers = self.sort_markers()?;
        for own in markers.mine {
            if self.is_this(&own) {
                // All of it may be there, whatever the call says: recovery logs that when the owner is gone.
                if own.is_locked(&self.repo) || self.is_applied()? {
                    continue;
                }
                let ended = self.end(own.entry, &own.marker, &Body::Aborted)?;
                let Some(entry) = ended else { return Ok(Reply::go()) };
                self.forget(entry)?;
            } else if self.is_only_announced(&own) {
                self.forget(own.entry)?;
            }
        }
        self.recover_if(markers.dead || self.needs_boot_check()?)
    }

    /// The record of the end is durable before the marker says it; `None` when git is dead.
    fn end(&self, mut entry: Entry, marker: &Marker, how: &Body) -> anyhow::Result<Option<Entry>> {
        if !self.conclude(&self.log(&marker.owner.place), marker, how, Flush::Yes)? {
            return Ok(None);
        }
        entry.settle(if matches!(how, Body::Committed { .. }) { State::Committed } else { State::Failed })?;
        Ok(Some(entry))
    }

    /// Logs how the transaction of `marker` ended, unless its git is dead: then that is recovery's to say. It is asked under the
    /// log's lock, and recovery reads the log after it has found git dead, so one of the two knows of the other.
    pub(super) fn conclude(&self, log: &Log<'_>, marker: &Marker, how: &Body, flush: Flush) -> anyhow::Result<bool> {
        let lives = || Stat::may_live(marker.owner.process);
        Ok(log.append_if(Some(marker.id), how, flush, lives)?.is_some())
    }

    /// The same transaction, called again.
    fn is_this(&self, own: &OwnMarker) -> bool {
        own.is_begun_with(self.payload.key)
    }

    /// `branch -D` up to 2.39 deletes a packed ref first, and its reflog in a second transaction with the same payload.
    fn is_followed_up(&self, own: &OwnMarker) -> bool {
        let renaming = || self.repo.common_dir.join(RENAMED_LOG).exists();
        own.entry.state == State::Committed && own.marker.payload == self.payload.key && !renaming()
    }

    /// An announcement whose transaction never came to `prepared`, or came to nothing; kept while the locks of
    /// this call exist, because then this call is an inner one.
    fn is_only_announced(&self, own: &OwnMarker) -> bool {
        own.is_announced() && !self.any_lock_left()
    }

    fn any_lock_left(&self) -> bool {
        let refs = RefStore::new(&self.repo);
        self.payload.lines().any(|line| {
            let name = refs.canonical(line.name);
            name.is_ok_and(|n| matches!(FileId::at(&refs.lock(&n)), Ok(Some(_))))
        })
    }

    /// Has every ref its new value? Only git can read those of a reftable.
    fn is_applied(&self) -> anyhow::Result<bool> {
        let readable = self.repo.ref_format == RefFormat::Files;
        Ok(readable && self.refs_with_new_value()?.len() == self.payload.count())
    }

    /// The refs as they are now, for those that have the new value.
    fn refs_with_new_value(&self) -> anyhow::Result<Vec<RefSnapshot>> {
        let refs = RefStore::new(&self.repo);
        let mut found = Vec::with_capacity(self.payload.count());
        for line in self.payload.lines() {
            let (Ok(name), after) = (refs.canonical(line.name), line.after()) else { continue };
            if self.repo.ref_format == RefFormat::Reftable {
                found.push(RefSnapshot { name, value: after, file: None });
                continue;
            }
            let now = refs.read(&name)?;
            if now.value == after {
                found.push(RefSnapshot { name, value: now.value, file: now.loose });
            }
        }
        Ok(found)
    }

    /// The transaction is over: its files go, the marker last.
    fn forget(&self, entry: Entry) -> anyhow::Result<()> {
        if entry.state != State::InProgress {
            kept::put_away(&self.state, entry.id)?;
        }
        Ok(entry.remove()?)
    }
}
