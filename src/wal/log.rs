//! Appending to the log and scanning it.
//!
//! Append, tail check and truncation happen under `append.lock`; the `fdatasync` follows after the lock is
//! released, so that writers do not wait for each other's disk. `log-head` remembers where the log ends: when
//! it agrees with the last segment's length (the usual case), nothing is read before appending. When it does
//! not (a crash in between, another boot), the rest is checked and a torn tail is cut off.
//!
//! A failed write or fsync poisons the segment: nobody appends to it again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::absent_is_none;
use crate::fs::durable;
use crate::fs::named as fs;
use crate::state::TxId;
use crate::state::directory::{SMALL, StateDir, Wait};
use crate::state::marker::Listing;
use crate::util::checksum;
use crate::util::clock;
use crate::wal::rotate;
use crate::wal::head::{Head, POISONED};
use crate::wal::record;
use crate::wal::record::{Body, Encoded, Lsn, Record, TOO_LARGE};
use crate::wal::scan::{Bounds, Damage, Scan, lines, read_segment};

/// Must a record be on disk before the call returns?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Yes, and with it everything else on the file system: what the record speaks of must be there, too.
    Barrier,
    /// Yes: something is about to happen, or to be forgotten, because of it.
    Yes,
    /// No: nothing depends on it.
    No,
}

/// The log of one repository.
#[derive(Debug, Clone)]
pub struct Log<'s> {
    state: &'s StateDir,
    boot: String,
    wait: Wait,
}

/// A record that was appended, and not yet synced.
struct Written {
    lsn: Lsn,
    file: File,
    segment: Lsn,
}

impl<'s> Log<'s> {
    /// The log in `state`. `boot` is this boot's id: what was remembered in another one is checked again.
    #[must_use]
    pub fn new(state: &'s StateDir, boot: &str, wait: Wait) -> Self {
        Log { state, boot: boot.to_owned(), wait }
    }

    pub(super) fn state(&self) -> &StateDir {
        self.state
    }

    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Makes sure that there is a log to append to.
    ///
    /// # Errors
    /// The state directory cannot be written, or the append lock cannot be had in time.
    pub fn open(&self) -> anyhow::Result<()> {
        self.state.while_appending(self.wait, || self.load_head().map(|_| ()))
    }

    /// A new transaction id.
    ///
    /// # Errors
    /// The state directory cannot be written, or the append lock cannot be had in time.
    pub fn next_id(&self) -> anyhow::Result<TxId> {
        self.state.while_appending(self.wait, || {
            let mut head = self.load_head()?;
            let id = TxId(head.next_tx);
            head.next_tx += 1;
            self.store_head(&head)?;
            Ok(id)
        })
    }

    /// Appends a record.
    ///
    /// # Errors
    /// The log cannot be written or synced (the segment is then never trusted again), or the append lock
    /// cannot be had in time.
    pub fn append(&self, tx: Option<TxId>, body: &Body, sync: Flush) -> anyhow::Result<Lsn> {
        self.append_if(tx, body, sync, || true)?.context("an unconditional record was not appended")
    }

    /// Appends a record if `wanted` still says so under the lock; `None` when it did not.
    ///
    /// # Errors
    /// As for [`Log::append`].
    pub fn append_if(
        &self,
        tx: Option<TxId>,
        body: &Body,
        sync: Flush,
        wanted: impl FnOnce() -> bool,
    ) -> anyhow::Result<Option<Lsn>> {
        let encoded = body.encode()?;
        let written = self
            .state
            .while_appending(self.wait, || if wanted() { self.write(tx, &encoded).map(Some) } else { Ok(None) })?;
        let Some(Written { lsn, file, segment }) = written else { return Ok(None) };
        let synced = match sync {
            Flush::Barrier => durable::sync_filesystem(&file).and_then(|()| self.sync_objects_elsewhere()),
            Flush::Yes => file.sync_data(),
            Flush::No => Ok(()),
        };
        synced.or_else(|error| self.not_synced(segment, error))?;
        Ok(Some(lsn))
    }

    fn not_synced(&self, segment: Lsn, error: io::Error) -> anyhow::Result<()> {
        let path = self.segment_path(segment);
        let error = anyhow::Error::new(error).context(format!("the log {} cannot be synced to disk", path.display()));
        // The first trouble is the one to tell.
        match self.state.while_appending(self.wait, || self.poison(segment)) {
            Ok(()) => Err(error),
            Err(mark) => Err(error.context(format!("{mark:#}"))),
        }
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
    ///
    /// # Errors
    /// As for [`Log::append`].
    pub fn checkpoint(&self) -> anyhow::Result<()> {
        let sync = || {
            durable::sync_filesystem_of(self.state.path())
                .and_then(|()| self.sync_objects_elsewhere())
                .context("cannot sync the file system")
        };
        // Once without the lock: the second time there is little left to write while others wait.
        sync()?;
        let Written { file, segment, .. } = self.state.while_appending(self.wait, || {
            sync()?;
            let in_flight = rotate::in_flight(self)?;
            self.write(None, &rotate::body(self, in_flight)?.encode()?)
        })?;
        file.sync_data().or_else(|error| self.not_synced(segment, error))
    }

    fn write(&self, tx: Option<TxId>, encoded: &Encoded<'_>) -> anyhow::Result<Written> {
        let mut head = self.load_head()?;
        if head.size >= rotate::SEGMENT_SIZE {
            rotate::rotate(self, &mut head)?;
        }
        let path = self.segment_path(head.segment);
        let mut file = durable::open_own(&path, OpenOptions::new().append(true))
            .with_context(|| format!("cannot open the log {}", path.display()))?;
        let len = match encoded.write(head.next_lsn, tx, clock::unix_time(), &mut file) {
            Ok(len) => len,
            Err(e) => {
                let error = anyhow::Error::new(e).context(format!("cannot append to the log {}", path.display()));
                return match self.poison(head.segment) {
                    Ok(()) => Err(error),
                    Err(mark) => Err(error.context(format!("{mark:#}"))),
                };
            }
        };
        let lsn = head.next_lsn;
        head.next_lsn += 1;
        head.size += len;
        self.store_head(&head)?;
        Ok(Written { lsn, file, segment: head.segment })
    }

    /// The end of the log, repaired if need be. Under `append.lock`.
    pub(super) fn load_head(&self) -> anyhow::Result<Head> {
        let text = self.head_text()?;
        let remembered = text.as_deref().and_then(|text| self.parse_head(text));
        if let Some(mut head) = remembered.filter(|h| h.size != POISONED) {
            match absent_is_none(fs::metadata(self.segment_path(head.segment)))?.map(|m| m.len()) {
                Some(len) if len == head.size => return Ok(head),
                // A crash between the write and the note about it: check what was added.
                Some(len) if len > head.size => {
                    self.catch_up(&mut head)?;
                    self.store_head(&head)?;
                    return Ok(head);
                }
                _ => {}
            }
        }
        let distrusted = match (text, remembered) {
            (_, Some(head)) if head.size == POISONED => Some(head.segment),
            // All that could be made of it when nothing could be written any more.
            (Some(text), _) if text.is_empty() => self.segments()?.last().copied(),
            _ => None,
        };
        self.rebuild_head(remembered.filter(|h| h.size != POISONED), distrusted)
    }

    fn head_text(&self) -> io::Result<Option<Vec<u8>>> {
        absent_is_none(durable::read_own(&self.head_path(), SMALL))
    }

    fn parse_head(&self, text: &[u8]) -> Option<Head> {
        std::str::from_utf8(text).ok().and_then(|text| Head::parse(text, self.boot_sum()))
    }

    /// Where the log ends, as this boot has noted it.
    fn noted_head(&self) -> io::Result<Option<Head>> {
        Ok(self.head_text()?.and_then(|text| self.parse_head(&text)))
    }

    /// Are there records behind the record `last`, as far as is noted?
    ///
    /// # Errors
    /// The note cannot be read.
    pub fn goes_on_behind(&self, last: Lsn) -> io::Result<bool> {
        Ok(self.noted_head()?.is_some_and(|head| head.size != POISONED && head.next_lsn > last + 1))
    }

    fn boot_sum(&self) -> u32 {
        checksum::crc32c(self.boot.as_bytes())
    }

    /// Reads everything: the note is missing, from another boot, or speaks of more than there is. Segments from `distrusted` on
    /// could not be written or synced.
    fn rebuild_head(&self, remembered: Option<Head>, distrusted: Option<Lsn>) -> anyhow::Result<Head> {
        let boot = self.boot_sum();
        let (clock, since) = (clock::clock_offset() / 1_000_000, clock::now() / 1_000_000_000);
        let mut head = Head { boot, next_tx: 1, next_lsn: 1, segment: 0, size: 0, clock, since };
        for segment in self.segments()? {
            if distrusted.is_some_and(|first| segment >= first) {
                self.write_anew(segment)?;
            }
            head.segment = segment;
            head.size = 0;
            head.next_lsn = head.next_lsn.max(segment);
            self.catch_up(&mut head)?;
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
                rotate::begin_segment(self, &mut head, more.segment)?;
            }
        }
        if head.segment == 0 || distrusted.is_some() {
            rotate::rotate(self, &mut head)?;
        }
        if new {
            // Nothing happened before: there is nothing to look after.
            self.state.mark_verified(&self.boot)?;
        }
        self.store_head(&head)?;
        Ok(head)
    }

    /// After a failed sync the kernel takes what it could not write for written: what can be read of the file is perhaps not
    /// on disk, and no later sync of it tells. Another file with the same content is.
    fn write_anew(&self, segment: Lsn) -> anyhow::Result<()> {
        let path = self.segment_path(segment);
        let bytes = fs::read(&path)?;
        durable::replace(&path, &bytes)?;
        durable::share_like_directory(&path)?;
        Ok(durable::fsync_dir(&self.state.wal())?)
    }

    /// Reads the head's segment from `head.size` on; cuts a torn tail off, into quarantine.
    fn catch_up(&self, head: &mut Head) -> anyhow::Result<()> {
        let path = self.segment_path(head.segment);
        let mut bytes = Vec::new();
        let mut file = open(&path)?;
        fs::at(&path, file.seek(SeekFrom::Start(head.size)))?;
        fs::at(&path, file.read_to_end(&mut bytes))?;
        let mut valid_until = 0;
        for (offset, line) in lines(&bytes) {
            let Some(line) = line.strip_suffix(b"\n") else { break };
            if let Ok(header) = record::decode_header(line) {
                valid_until = offset + line.len() + 1;
                head.next_lsn = head.next_lsn.max(header.lsn + 1);
                head.next_tx = head.next_tx.max(header.tx.map_or(0, |tx| tx.0 + 1));
            }
        }
        let torn = &bytes[valid_until..];
        head.size += valid_until as u64;
        if !torn.is_empty() {
            let aside = format!("{}-torn-tail-{:020}-{}", clock::unix_time(), head.segment, head.size);
            durable::replace(&self.state.quarantine().join(aside), torn)?;
            durable::truncate(&path, head.size)
                .with_context(|| format!("cannot cut the torn tail of {}", path.display()))?;
        }
        Ok(())
    }

    pub(super) fn store_head(&self, head: &Head) -> io::Result<()> {
        // In place: one small write is not torn by a killed process, and after a power cut the boot id tells.
        let path = self.head_path();
        let mut options = OpenOptions::new();
        let file = match durable::open_own(&path, options.write(true).mode(0o666)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let file = durable::open_own(&path, options.create(true).truncate(false))?;
                durable::share_like_directory(&path)?;
                file
            }
            other => fs::at(&path, other)?,
        };
        fs::at(&path, file.write_all_at(head.format().as_bytes(), 0))
    }

    /// Nobody appends to `segment` again, or trusts what it says to be on disk. Under `append.lock`.
    fn poison(&self, segment: Lsn) -> anyhow::Result<()> {
        let earlier = self.noted_head()?.filter(|head| head.size == POISONED).map_or(segment, |head| head.segment);
        let (boot, first) = (self.boot_sum(), segment.min(earlier));
        let poisoned = Head { boot, next_tx: 0, next_lsn: 0, segment: first, size: POISONED, clock: 0, since: 0 };
        let marked = self.store_head(&poisoned);
        // A disk that is full may take this: it needs no space.
        marked.or_else(|_| durable::empty(&self.head_path())).context("the log cannot be marked as failed")
    }

    /// Since when (realtime, nanoseconds) the clock has not been set, as far back as is known; `None` when it has been:
    /// then the start of a process and the time of a file cannot be compared.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn clock_is_steady_since(&self) -> io::Result<Option<i64>> {
        const STEP: i64 = 1500;
        let steady = self.noted_head()?.filter(|h| (clock::clock_offset() / 1_000_000 - h.clock).abs() < STEP);
        Ok(steady.map(|h| h.since.saturating_mul(1_000_000_000)))
    }

    fn head_path(&self) -> PathBuf {
        self.state.path().join("log-head")
    }

    pub(super) fn segment_path(&self, first: Lsn) -> PathBuf {
        self.state.wal().join(format!("{first:020}.wal"))
    }

    /// The first record's number of every segment, oldest first.
    pub(super) fn segments(&self) -> io::Result<Vec<Lsn>> {
        let Some(entries) = absent_is_none(fs::read_dir(self.state.wal()))? else { return Ok(Vec::new()) };
        let mut segments = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let first: Option<Lsn> = name.to_str().and_then(|n| n.strip_suffix(".wal")?.parse().ok());
            segments.extend(first);
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// Every record of the log.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn scan(&self) -> anyhow::Result<Scan> {
        self.scan_while(|_| true)
    }

    /// The newest segments, going back until `enough` is satisfied by what was read so far.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn scan_until(&self, mut enough: impl FnMut(&[Record]) -> bool) -> anyhow::Result<Scan> {
        self.scan_while(|records| !enough(records))
    }

    fn scan_while(&self, mut go_on: impl FnMut(&[Record]) -> bool) -> anyhow::Result<Scan> {
        // Writers may be appending: what lies beyond the length under the lock is not looked at.
        let (segments, noted) = self.state.while_appending(self.wait, || {
            let with_len = |first| Ok((first, fs::metadata(self.segment_path(first))?.len()));
            let segments: io::Result<Vec<(Lsn, u64)>> = self.segments()?.into_iter().map(with_len).collect();
            Ok((segments?, self.noted_head()?.filter(|head| head.size != POISONED)))
        })?;
        let mut scan = Scan::default();
        // The number behind the last record, where it is known: first from the note, then from each segment's name.
        let mut end = noted.map(|head| head.next_lsn);
        let mut newest = true;
        if let Some(head) = noted.filter(|head| segments.last().is_none_or(|(first, _)| *first < head.segment)) {
            let why = format!("the segment is gone, and with it all records up to {}", head.next_lsn - 1);
            scan.damage.push(Damage { segment: self.segment_path(head.segment), offset: 0, why });
            (end, newest) = (Some(head.segment), false);
        }
        for (first, len) in segments.into_iter().rev() {
            scan.prepend(read(&self.segment_path(first), len, Bounds { first, end, newest })?);
            (end, newest) = (Some(first), false);
            if !go_on(&scan.records) {
                break;
            }
        }
        Ok(scan)
    }
}

/// The most that a segment has, in bytes: it is closed long before, but one record may be of a million refs.
pub(super) const LARGEST: u64 = 1 << 30;

fn open(path: &Path) -> anyhow::Result<File> {
    durable::open_own(path, OpenOptions::new().read(true))
        .with_context(|| format!("cannot open the log {}", path.display()))
}

/// Reads the first `len` bytes of a segment.
fn read(path: &Path, len: u64, bounds: Bounds) -> anyhow::Result<Scan> {
    let mut bytes = Vec::new();
    let cannot = || format!("cannot read the log {}", path.display());
    anyhow::ensure!(len <= LARGEST, "{}: it is larger than {LARGEST} bytes", cannot());
    open(path)?.take(len).read_to_end(&mut bytes).with_context(cannot)?;
    Ok(read_segment(path, &bytes, bounds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::settings::Settings;
    use std::time::Duration;

    struct Fixture {
        _dir: tempfile::TempDir,
        state: StateDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let repo = crate::git::Repository {
                git_dir: dir.path().to_owned(),
                common_dir: dir.path().to_owned(),
                ref_format: crate::git::RefFormat::Files,
            };
            let state = StateDir::of(&repo);
            state.create().unwrap();
            Fixture { _dir: dir, state }
        }

        fn log(&self) -> Log<'_> {
            Log::new(&self.state, "boot", Wait::UpTo(Duration::from_secs(5)))
        }

        fn fill(&self, count: u64) {
            for n in 0..count {
                self.log().append(Some(TxId(n + 1)), &Body::Aborted, Flush::No).unwrap();
            }
        }

        fn segment(&self) -> PathBuf {
            let log = self.log();
            log.segment_path(*log.segments().unwrap().last().unwrap())
        }

        fn lsns(&self) -> Vec<Lsn> {
            self.log().scan().unwrap().records.iter().map(|r| r.lsn).collect()
        }
    }

    #[test]
    fn records_are_numbered_without_gaps_and_ids_are_never_given_twice() {
        let fixture = Fixture::new();
        fixture.fill(3);
        assert_eq!(fixture.lsns(), [1, 2, 3, 4], "a checkpoint and three records");
        assert_eq!(fixture.log().next_id().unwrap(), TxId(1));
        fs::remove_file_for_test(&fixture.log().head_path());
        assert_eq!(fixture.log().next_id().unwrap(), TxId(4), "the log itself knows the highest id");
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_cut_off_and_kept_aside() {
        let fixture = Fixture::new();
        fixture.fill(3);
        let whole = fs::read(fixture.segment()).unwrap();
        let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        for cut in last + 1..whole.len() {
            fs::write_for_test(&fixture.segment(), &whole[..cut]);
            fs::remove_file_for_test(&fixture.log().head_path());
            let lsn = fixture.log().append(None, &Body::Aborted, Flush::No).unwrap();
            assert_eq!(lsn, 4, "cut at {cut}: the torn record's number is free again");
            assert_eq!(fixture.lsns(), [1, 2, 3, 4], "cut at {cut}");
            assert!(fixture.log().scan().unwrap().damage.is_empty(), "a torn tail is no damage");
        }
        let kept = fs::read_dir(fixture.state.quarantine()).unwrap().count();
        assert!(kept > 0, "the torn bytes are kept");
    }

    #[test]
    fn a_bad_line_before_valid_ones_is_damage_and_the_valid_ones_still_count() {
        let fixture = Fixture::new();
        fixture.fill(3);
        let mut bytes = fs::read(fixture.segment()).unwrap();
        let second = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
        bytes[second + 20] ^= 1;
        fs::write_for_test(&fixture.segment(), &bytes);
        let scan = fixture.log().scan().unwrap();
        assert_eq!(scan.records.iter().map(|r| r.lsn).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!((scan.damage.len(), scan.damage[0].offset), (1, second as u64));
    }

    #[test]
    fn a_poisoned_segment_is_never_appended_to() {
        let fixture = Fixture::new();
        fixture.fill(1);
        let before = fixture.segment();
        fixture.log().poison(1).unwrap();
        fixture.fill(1);
        assert_ne!(fixture.segment(), before, "a new segment was begun");
        assert_eq!(fixture.lsns(), [1, 2, 3, 4]);
    }

    #[test]
    fn what_could_not_be_synced_is_written_anew_from_the_first_failure_on() {
        let fixture = Fixture::new();
        fixture.fill(1);
        let first = (fs::File::open(fixture.segment()).unwrap(), fixture.segment());
        // Somebody whose sync failed may find that others have begun a new segment since.
        fixture.log().poison(1).unwrap();
        fixture.fill(1);
        let second = (fs::File::open(fixture.segment()).unwrap(), fixture.segment());
        fixture.log().poison(1).unwrap();
        fixture.log().poison(3).unwrap();
        fixture.fill(1);
        for (old, path) in [first, second] {
            let (old, new) = (old.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
            assert_ne!(old, new, "{} is another file now", path.display());
        }
        assert_eq!(fixture.lsns(), [1, 2, 3, 4, 5, 6], "and nothing of it is lost");
        assert!(fixture.log().scan().unwrap().damage.is_empty());
    }

    #[test]
    fn an_emptied_note_distrusts_the_last_segment() {
        let fixture = Fixture::new();
        fixture.fill(1);
        let before = fixture.segment();
        durable::empty(&fixture.log().head_path()).unwrap();
        fixture.fill(1);
        assert_ne!(fixture.segment(), before, "a new segment was begun");
        assert_eq!(fixture.lsns(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_rotation_that_was_cut_before_it_was_noted_is_made_again() {
        let fixture = Fixture::new();
        let filler = Body::Checkout(record::Checkout { from: "x".repeat(5 << 20), ..record::Checkout::default() });
        fixture.log().append(None, &filler, Flush::No).unwrap();
        let note = fs::read(fixture.log().head_path()).unwrap();
        fixture.fill(1);
        let cut = fs::read(fixture.segment()).unwrap();
        let checkpoint = cut.iter().position(|b| *b == b'\n').unwrap() + 1;
        for left in [0, checkpoint / 2, checkpoint] {
            fs::write_for_test(&fixture.segment(), &cut[..left]);
            fs::write_for_test(&fixture.log().head_path(), &note);
            fixture.fill(1);
            assert_eq!(fixture.lsns(), [1, 2, 3, 4], "{left} bytes had been written");
        }
    }

    #[test]
    fn a_record_written_but_not_noted_is_found_again() {
        let fixture = Fixture::new();
        fixture.fill(1);
        let note = fs::read(fixture.log().head_path()).unwrap();
        fixture.fill(1);
        fs::write_for_test(&fixture.log().head_path(), &note);
        fixture.fill(1);
        assert_eq!(fixture.lsns(), [1, 2, 3, 4], "no number is used twice");
    }

    #[test]
    fn the_log_stays_as_small_as_it_is_told_to() {
        let mut smaller = Settings::default();
        smaller.set_retention("8m").unwrap();
        for settings in [Settings::default(), smaller] {
            let fixture = Fixture::new();
            fixture.state.set_settings(&settings).unwrap();
            let filler = Body::Checkout(record::Checkout { from: "x".repeat(1 << 20), ..record::Checkout::default() });
            for _ in 0..100 {
                fixture.log().append(None, &filler, Flush::No).unwrap();
            }
            let log = fixture.log();
            let total: u64 =
                log.segments().unwrap().iter().map(|s| fs::metadata(log.segment_path(*s)).unwrap().len()).sum();
            let most = settings.retained_bytes + 2 * rotate::SEGMENT_SIZE;
            assert!(total <= most, "{total} bytes after 100 MiB, {settings}");
            assert!(total > settings.retained_bytes / 2, "and no more goes than has to: {total} bytes, {settings}");
            assert!(log.scan().unwrap().damage.is_empty());
        }
    }

    #[test]
    fn what_was_moved_aside_goes_with_the_log_that_explains_it() {
        let fixture = Fixture::new();
        let quarantine = fixture.state.quarantine();
        let long_ago = clock::unix_time() - Settings::default().retained_seconds - 1;
        let names =
            ["run.tx-1", "index.lock"].map(|what| [long_ago, clock::unix_time()].map(|t| format!("{t}-{what}")));
        for [old, new] in &names {
            for name in [old, new] {
                durable::create_dirs(&quarantine.join(name).join("kept"), 0o777).unwrap();
            }
        }
        fs::write_for_test(&quarantine.join(format!("{long_ago}-file")), b"kept");
        let filler = Body::Checkout(record::Checkout { from: "x".repeat(1 << 20), ..record::Checkout::default() });
        while fixture.log().segments().unwrap().len() < 2 {
            fixture.log().append(None, &filler, Flush::No).unwrap();
        }
        let mut left: Vec<_> =
            fs::read_dir(&quarantine).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let mut expected: Vec<_> = names.map(|[_, new]| new).into();
        expected.sort();
        assert_eq!(left, expected);
    }

    /// Tests damage files on purpose; everything else goes through `durable`.
    mod fs {
        #![allow(clippy::disallowed_methods)]
        pub use std::fs::*;

        pub fn write_for_test(path: &std::path::Path, bytes: &[u8]) {
            std::fs::write(path, bytes).unwrap();
        }

        pub fn remove_file_for_test(path: &std::path::Path) {
            std::fs::remove_file(path).unwrap();
        }
    }
}
