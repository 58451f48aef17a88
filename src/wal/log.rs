//! Appending to the log and scanning it.
//!
//! Append, tail check and truncation happen under `append.lock`; the `fdatasync` follows after the lock is
//! released, so that writers do not wait for each other's disk. `log-head` remembers where the log ends: when
//! it agrees with the last segment's length (the usual case), nothing is read before appending. When it does
//! not (a crash in between, another boot), the rest is checked and a torn tail is cut off. Readers take no lock.
//!
//! A failed write or fsync poisons the segment: nobody appends to it again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;

use crate::fs::{absent_is_none, durable, named as fs};
use crate::state::marker::Listing;
use crate::state::{StateDir, TxId, Wait};
use crate::util::clock;
use crate::util::text::shown;
use crate::wal::codec::{Encoded, TOO_LARGE};
use crate::wal::head::{self, BootSum, Head, Note};
use crate::wal::record::{Body, Lsn, Record};
use crate::wal::rotate;
use crate::wal::scan::Scan;
use crate::wal::segments::{self, Extent};

/// Must a record be on disk before the call returns?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Yes, and with it everything else on the file system: what the record speaks of must be there, too.
    Barrier,
    /// Yes: something is about to happen, or to be forgotten, because of it.
    Yes,
    /// No: nothing depends on it.
    No,
}

/// How often the log is read when writers change its segments meanwhile.
const READINGS: usize = 10;

/// The log of one repository.
#[derive(Debug, Clone)]
pub(crate) struct Log<'s> {
    pub(super) state: &'s StateDir,
    pub(super) boot: String,
    pub(super) wait: Wait,
}

#[expect(clippy::disallowed_methods, reason = "`not_synced` names the segment")]
fn sync_unnamed(segment: &File) -> io::Result<()> {
    segment.sync_data()
}

/// A record that was appended, and not yet synced.
struct Written {
    lsn: Lsn,
    file: File,
    segment: Lsn,
}

impl<'s> Log<'s> {
    /// The log in `state`. `boot` is this boot's id: what was remembered in another one is checked again.
    pub(crate) fn new(state: &'s StateDir, boot: &str, wait: Wait) -> Self {
        Log { state, boot: boot.to_owned(), wait }
    }

    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Makes sure that there is a log to append to.
    pub(crate) fn open(&self) -> anyhow::Result<()> {
        self.state.while_appending(self.wait, || self.load_head().map(|_| ()))
    }

    /// A new transaction id.
    pub(crate) fn next_id(&self) -> anyhow::Result<TxId> {
        self.state.while_appending(self.wait, || {
            let mut head = self.load_head()?;
            let id = TxId(head.next_tx);
            head.next_tx += 1;
            head.store(self.state)?;
            Ok(id)
        })
    }

    /// Appends a record.
    pub(crate) fn append(&self, tx: Option<TxId>, body: &Body, flush: Flush) -> anyhow::Result<Lsn> {
        self.append_if(tx, body, flush, || true)?.context("an unconditional record was not appended")
    }

    /// Appends a record if `wanted` still says so under the lock; `None` when it did not.
    pub(crate) fn append_if(
        &self,
        tx: Option<TxId>,
        body: &Body,
        flush: Flush,
        wanted: impl FnOnce() -> bool,
    ) -> anyhow::Result<Option<Lsn>> {
        let encoded = body.encode()?;
        let written = self
            .state
            .while_appending(self.wait, || if wanted() { self.write(tx, &encoded).map(Some) } else { Ok(None) })?;
        let Some(Written { lsn, file, segment }) = written else { return Ok(None) };
        let synced = match flush {
            Flush::Barrier => durable::sync_filesystem(&file).and_then(|()| self.sync_objects_elsewhere()),
            Flush::Yes => sync_unnamed(&file),
            Flush::No => Ok(()),
        };
        synced.or_else(|error| self.not_synced(segment, error))?;
        Ok(Some(lsn))
    }

    fn not_synced(&self, segment: Lsn, error: io::Error) -> anyhow::Result<()> {
        let path = segments::path(self.state, segment);
        let error = anyhow::Error::new(error).context(format!("the log {} cannot be synced to disk", shown(&path)));
        Err(first_of(error, self.state.while_appending(self.wait, || self.poison(segment))))
    }

    /// `objects` may be a link to another file system.
    fn sync_objects_elsewhere(&self) -> io::Result<()> {
        let state = self.state.path();
        let objects = state.parent().unwrap_or(Path::new("/")).join("objects");
        if fs::metadata(&objects)?.dev() == fs::metadata(state)?.dev() {
            return Ok(());
        }
        durable::sync_filesystem_of(&objects)
    }

    /// Makes everything on the file system durable, and notes that.
    pub(crate) fn checkpoint(&self) -> anyhow::Result<()> {
        let sync = || {
            durable::sync_filesystem_of(self.state.path())
                .and_then(|()| self.sync_objects_elsewhere())
                .context("cannot sync the file system")
        };
        // Once without the lock: the second time there is little left to write while others wait.
        sync()?;
        let Written { file, segment, .. } = self.state.while_appending(self.wait, || {
            sync()?;
            self.write(None, &rotate::checkpoint(self.state, &self.boot)?.encode()?)
        })?;
        sync_unnamed(&file).or_else(|error| self.not_synced(segment, error))
    }

    fn write(&self, tx: Option<TxId>, encoded: &Encoded<'_>) -> anyhow::Result<Written> {
        let mut head = self.load_head()?;
        if head.size >= segments::SEGMENT_SIZE {
            rotate::rotate(self.state, &self.boot, &mut head)?;
        }
        let path = segments::path(self.state, head.segment);
        let mut file = durable::open_own(&path, OpenOptions::new().append(true))
            .with_context(|| format!("cannot open the log {}", shown(&path)))?;
        let len = match encoded.write(head.next_lsn, tx, clock::unix_time(), &mut file) {
            Ok(len) => len,
            Err(e) => {
                let error = anyhow::Error::new(e).context(format!("cannot append to the log {}", shown(&path)));
                return Err(first_of(error, self.poison(head.segment)));
            }
        };
        let lsn = head.next_lsn;
        head.next_lsn += 1;
        head.size += len;
        head.store(self.state)?;
        Ok(Written { lsn, file, segment: head.segment })
    }

    /// The end of the log, repaired if need be. Under `append.lock`.
    pub(super) fn load_head(&self) -> anyhow::Result<Head> {
        match self.note()? {
            Note::End(mut head) => {
                match absent_is_none(fs::metadata(segments::path(self.state, head.segment)))?.map(|m| m.len()) {
                    Some(len) if len == head.size => Ok(head),
                    // A crash between the write and the note about it: check what was added.
                    Some(len) if len > head.size => {
                        segments::catch_up(self.state, &mut head)?;
                        head.store(self.state)?;
                        Ok(head)
                    }
                    _ => self.rebuild_head(Some(head), None),
                }
            }
            Note::PoisonedFrom(segment) => self.rebuild_head(None, Some(segment)),
            Note::Emptied => self.rebuild_head(None, segments::list(self.state)?.last().copied()),
            Note::None => self.rebuild_head(None, None),
        }
    }

    pub(super) fn note(&self) -> io::Result<Note> {
        Note::read(self.state, BootSum::of(&self.boot))
    }

    /// Are there records behind the record `last`, as far as is noted?
    pub(crate) fn goes_on_behind(&self, last: Lsn) -> io::Result<bool> {
        Ok(self.note()?.end().is_some_and(|head| head.next_lsn > last + 1))
    }

    /// Reads everything: the note is missing, from another boot, or speaks of more than there is. Segments from `distrusted` on
    /// could not be written or synced.
    pub(super) fn rebuild_head(&self, remembered: Option<Head>, distrusted: Option<Lsn>) -> anyhow::Result<Head> {
        let mut head = self.empty_head(0);
        for segment in segments::list(self.state)? {
            if distrusted.is_some_and(|first| segment >= first) {
                segments::write_anew(self.state, segment)?;
            }
            head.segment = segment;
            head.size = 0;
            head.next_lsn = head.next_lsn.max(segment);
            segments::catch_up(self.state, &mut head)?;
        }
        for marker in Listing::read(self.state.path())?.markers.iter().filter(|m| m.id.0 < TOO_LARGE) {
            head.next_tx = head.next_tx.max(marker.id.0 + 1);
        }
        let new = head.segment == 0 && remembered.is_none() && distrusted.is_none();
        if let Some(more) = remembered {
            // Numbers that were given are not given again: the gap shows, as long as the log is kept, what is missing.
            head.next_tx = head.next_tx.max(more.next_tx);
            head.next_lsn = head.next_lsn.max(more.next_lsn);
            if head.segment < more.segment {
                rotate::begin_segment(self.state, &self.boot, &mut head, more.segment)?;
            }
        }
        if head.segment == 0 || distrusted.is_some() {
            rotate::rotate(self.state, &self.boot, &mut head)?;
        }
        if new {
            // Nothing happened before: there is nothing to look after.
            self.state.mark_verified(&self.boot)?;
        }
        head.store(self.state)?;
        Ok(head)
    }

    /// The end of a log that has lost its only segment; `0`: that never had one.
    pub(super) fn empty_head(&self, segment: Lsn) -> Head {
        let boot = BootSum::of(&self.boot);
        let (clock, since) = (clock::clock_offset() / 1_000_000, clock::now() / 1_000_000_000);
        Head { boot, next_tx: 1, next_lsn: segment + 1, segment, size: 0, clock, since }
    }

    fn poison(&self, segment: Lsn) -> anyhow::Result<()> {
        head::poison(self.state, BootSum::of(&self.boot), segment)
    }

    /// Since when (realtime, nanoseconds) the clock has not been set, as far back as is known; `None` when it has been:
    /// then the start of a process and the time of a file cannot be compared.
    pub(crate) fn clock_is_steady_since(&self) -> io::Result<Option<i64>> {
        const STEP: i64 = 1500;
        let steady = self.note()?.end().filter(|h| (clock::clock_offset() / 1_000_000 - h.clock).abs() < STEP);
        Ok(steady.map(|h| h.since.saturating_mul(1_000_000_000)))
    }

    /// Every record of the log.
    pub(crate) fn scan(&self) -> anyhow::Result<Scan> {
        self.scan_while(|_| true)
    }

    /// The newest segments, going back until `enough` is satisfied by what was read so far.
    pub(crate) fn scan_until(&self, mut enough: impl FnMut(&[Record]) -> bool) -> anyhow::Result<Scan> {
        self.scan_while(|records| !enough(records))
    }

    /// Takes no lock: a reader may have no right to, or a read-only file system. What was noted before the segments are listed is in
    /// them. So trouble is damage only if note and segments are still the same behind it; else a writer has begun, replaced or
    /// dropped a segment, and it is read again.
    fn scan_while(&self, mut go_on: impl FnMut(&[Record]) -> bool) -> anyhow::Result<Scan> {
        self.state.require_log()?;
        let seen = || anyhow::Ok((self.note()?, segments::list(self.state)?));
        let mut before = seen()?;
        for _ in 1..READINGS {
            let scanned = self.read_from(&before, &mut go_on);
            if scanned.as_ref().is_ok_and(|scan| scan.damage.is_empty()) {
                return scanned;
            }
            let after = seen()?;
            if after == before {
                return scanned;
            }
            before = after;
        }
        self.read_from(&before, &mut go_on)
    }

    fn read_from(
        &self,
        (note, segments): &(Note, Vec<Lsn>),
        go_on: impl FnMut(&[Record]) -> bool,
    ) -> anyhow::Result<Scan> {
        Extent::read(self.state, segments, note.end())?.scan(self.state, go_on)
    }
}

/// The first trouble is the one to tell, whether the segment could be marked as failed or not.
fn first_of(error: anyhow::Error, marked: anyhow::Result<()>) -> anyhow::Error {
    match marked {
        Ok(()) => error,
        Err(mark) => error.context(format!("{mark:#}")),
    }
}

#[cfg(test)]
mod tests;
