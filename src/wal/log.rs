//! Appending to the log and scanning it.
//!
//! Append, tail check and truncation happen under `append.lock`; the `fdatasync` follows after the lock is
//! released, so that writers do not wait for each other's disk. `next-id` remembers where the log ends: when
//! it agrees with the last segment's length (the usual case), nothing is read before appending. When it does
//! not (a crash in between, another boot), the rest is checked and a torn tail is cut off.
//!
//! A failed write or fsync poisons the segment: nobody appends to it again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::checkpoint;
use super::head::{Head, POISONED};
use super::record::{self, Body, Encoded, Lsn, Record, TOO_LARGE};
use super::scan::{Bounds, Damage, Scan, lines, read_segment};
use crate::durable;
use crate::git::refs::absent_is_none;
use crate::marker::Listing;
use crate::owner;
use crate::state_dir::{SMALL, StateDir, TxId, Wait};

/// Must a record be on disk before the call returns?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
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
    pub fn append(&self, tx: Option<TxId>, body: &Body, sync: Sync) -> anyhow::Result<Lsn> {
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
        sync: Sync,
        wanted: impl FnOnce() -> bool,
    ) -> anyhow::Result<Option<Lsn>> {
        let encoded = body.encode()?;
        let written = self
            .state
            .while_appending(self.wait, || if wanted() { self.write(tx, &encoded).map(Some) } else { Ok(None) })?;
        let Some((lsn, segment)) = written else { return Ok(None) };
        let synced = match sync {
            Sync::Barrier => durable::sync_filesystem(&segment).and_then(|()| self.sync_objects_elsewhere()),
            Sync::Yes => segment.sync_data(),
            Sync::No => Ok(()),
        };
        if let Err(e) = synced {
            self.state.while_appending(self.wait, || self.poison())?;
            return Err(e).context("the log cannot be synced to disk");
        }
        Ok(Some(lsn))
    }

    /// `objects` may be a link to another file system.
    fn sync_objects_elsewhere(&self) -> io::Result<()> {
        let state = self.state.path();
        let objects = state.parent().unwrap_or(Path::new("/")).join("objects");
        if fs::metadata(&objects)?.dev() == fs::metadata(state)?.dev() {
            return Ok(());
        }
        durable::sync_filesystem(&File::open(objects)?)
    }

    /// Makes everything on the file system durable, and notes that.
    ///
    /// # Errors
    /// As for [`Log::append`].
    pub fn checkpoint(&self) -> anyhow::Result<()> {
        let sync = || {
            durable::sync_filesystem(&File::open(self.state.path())?)
                .and_then(|()| self.sync_objects_elsewhere())
                .context("cannot sync the file system")
        };
        // Once without the lock: the second time there is little left to write while others wait.
        sync()?;
        let segment = self.state.while_appending(self.wait, || {
            sync()?;
            let in_flight = checkpoint::in_flight(self)?;
            Ok(self.write(None, &checkpoint::body(self, in_flight)?.encode()?)?.1)
        })?;
        segment.sync_data().context("the log cannot be synced to disk")
    }

    fn write(&self, tx: Option<TxId>, encoded: &Encoded) -> anyhow::Result<(Lsn, File)> {
        let mut head = self.load_head()?;
        if head.size >= checkpoint::SEGMENT_SIZE {
            checkpoint::rotate(self, &mut head)?;
        }
        let path = self.segment_path(head.segment);
        let mut segment = durable::open_own(&path, OpenOptions::new().append(true))
            .with_context(|| format!("cannot open the log {}", path.display()))?;
        let line = encoded.line(head.next_lsn, tx, unix_time())?;
        if let Err(e) = segment.write_all(&line) {
            self.poison()?;
            return Err(e).with_context(|| format!("cannot append to the log {}", path.display()));
        }
        let lsn = head.next_lsn;
        head.next_lsn += 1;
        head.size += line.len() as u64;
        self.store_head(&head)?;
        Ok((lsn, segment))
    }

    /// The end of the log, repaired if need be. Under `append.lock`.
    pub(super) fn load_head(&self) -> anyhow::Result<Head> {
        let remembered = self.noted_head()?;
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
        self.rebuild_head(remembered)
    }

    /// Where the log ends, as this boot has noted it.
    fn noted_head(&self) -> io::Result<Option<Head>> {
        let text = absent_is_none(durable::read_own(&self.head_path(), SMALL))?.unwrap_or_default();
        Ok(std::str::from_utf8(&text).ok().and_then(|t| Head::parse(t, self.boot_sum())))
    }

    fn boot_sum(&self) -> u32 {
        crc32c::crc32c(self.boot.as_bytes())
    }

    /// Reads everything: the note is missing, from another boot, or speaks of more than there is.
    fn rebuild_head(&self, remembered: Option<Head>) -> anyhow::Result<Head> {
        let poisoned = remembered.is_some_and(|h| h.size == POISONED);
        let boot = self.boot_sum();
        let (clock, since) = (owner::clock_offset() / 1_000_000, owner::now() / 1_000_000_000);
        let mut head = Head { boot, next_tx: 1, next_lsn: 1, segment: 0, size: 0, clock, since };
        for segment in self.segments()? {
            head.segment = segment;
            head.size = 0;
            head.next_lsn = head.next_lsn.max(segment);
            self.catch_up(&mut head)?;
        }
        for marker in Listing::read(self.state.path())?.markers.iter().filter(|m| m.id.0 < TOO_LARGE) {
            head.next_tx = head.next_tx.max(marker.id.0 + 1);
        }
        let new = head.segment == 0 && remembered.is_none();
        if let Some(more) = remembered.filter(|h| h.size != POISONED) {
            // Numbers that were given are not given again: the gap shows, as long as the log is kept, what is missing.
            head.next_tx = head.next_tx.max(more.next_tx);
            head.next_lsn = head.next_lsn.max(more.next_lsn);
            if head.segment < more.segment {
                checkpoint::begin_segment(self, &mut head, more.segment)?;
            }
        }
        if head.segment == 0 || poisoned {
            checkpoint::rotate(self, &mut head)?;
        }
        if new {
            // Nothing happened before: there is nothing to look after.
            self.state.mark_verified(&self.boot)?;
        }
        self.store_head(&head)?;
        Ok(head)
    }

    /// Reads the head's segment from `head.size` on; cuts a torn tail off, into quarantine.
    fn catch_up(&self, head: &mut Head) -> anyhow::Result<()> {
        let path = self.segment_path(head.segment);
        let mut bytes = Vec::new();
        let mut file = open(&path)?;
        file.seek(SeekFrom::Start(head.size))?;
        file.read_to_end(&mut bytes)?;
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
            let aside = format!("{}-torn-tail-{:020}-{}", unix_time(), head.segment, head.size);
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
            other => other?,
        };
        file.write_all_at(head.format().as_bytes(), 0)
    }

    fn poison(&self) -> anyhow::Result<()> {
        let boot = self.boot_sum();
        let poisoned = Head { boot, next_tx: 0, next_lsn: 0, segment: 0, size: POISONED, clock: 0, since: 0 };
        self.store_head(&poisoned).context("cannot mark the log as failed")
    }

    /// Since when (realtime, nanoseconds) the clock has not been set, as far back as is known; `None` when it has been:
    /// then the start of a process and the time of a file cannot be compared.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn clock_is_steady_since(&self) -> io::Result<Option<i64>> {
        const STEP: i64 = 1500;
        let steady = self.noted_head()?.filter(|h| (owner::clock_offset() / 1_000_000 - h.clock).abs() < STEP);
        Ok(steady.map(|h| h.since.saturating_mul(1_000_000_000)))
    }

    fn head_path(&self) -> PathBuf {
        self.state.path().join("next-id")
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

/// Unix time in seconds.
#[must_use]
pub fn unix_time() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
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
                self.log().append(Some(TxId(n + 1)), &Body::Aborted, Sync::No).unwrap();
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
            let lsn = fixture.log().append(None, &Body::Aborted, Sync::No).unwrap();
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
        fixture.log().poison().unwrap();
        fixture.fill(1);
        assert_ne!(fixture.segment(), before, "a new segment was begun");
        assert_eq!(fixture.lsns(), [1, 2, 3, 4]);
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
                fixture.log().append(None, &filler, Sync::No).unwrap();
            }
            let log = fixture.log();
            let total: u64 =
                log.segments().unwrap().iter().map(|s| fs::metadata(log.segment_path(*s)).unwrap().len()).sum();
            let most = settings.retained_bytes + 2 * checkpoint::SEGMENT_SIZE;
            assert!(total <= most, "{total} bytes after 100 MiB, {settings}");
            assert!(total > settings.retained_bytes / 2, "and no more goes than has to: {total} bytes, {settings}");
            assert!(log.scan().unwrap().damage.is_empty());
        }
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
