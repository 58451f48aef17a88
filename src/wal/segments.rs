//! Segments, the files of the log: `wal/<number of the first record, 20 digits>.wal`.
//!
//! All but the newest are complete. Of the newest only what lies before the end in `log-head` is known to be whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::{absent_is_none, durable, named as fs};
use crate::state::{StateDir, quarantine};
use crate::wal::codec;
use crate::wal::head::Head;
use crate::wal::record::{Lsn, Record};
use crate::wal::scan::{Bounds, Damage, Scan, lines, read_segment};

/// The most that a segment has, in bytes: it is closed long before, but one record may be of a million refs.
pub(super) const LARGEST: u64 = 1 << 30;

pub(super) fn path(state: &StateDir, first: Lsn) -> PathBuf {
    state.wal().join(format!("{first:020}.wal"))
}

/// The first record's number of every segment, oldest first.
pub(super) fn list(state: &StateDir) -> io::Result<Vec<Lsn>> {
    let Some(entries) = absent_is_none(fs::read_dir(state.wal()))? else { return Ok(Vec::new()) };
    let mut segments = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let first: Option<Lsn> = name.to_str().and_then(|n| n.strip_suffix(".wal")?.parse().ok());
        segments.extend(first);
    }
    segments.sort_unstable();
    Ok(segments)
}

/// After a failed sync the kernel takes what it could not write for written: what can be read of the file is perhaps not
/// on disk, and no later sync of it tells. Another file with the same content is.
pub(super) fn write_anew(state: &StateDir, segment: Lsn) -> anyhow::Result<()> {
    let path = path(state, segment);
    let bytes = fs::read(&path)?;
    durable::replace(&path, &bytes)?;
    Ok(durable::fsync_dir(&state.wal())?)
}

/// Reads the head's segment from `head.size` on, and moves the head behind its last valid record; cuts a torn tail off, into
/// quarantine.
pub(super) fn catch_up(state: &StateDir, head: &mut Head) -> anyhow::Result<()> {
    let path = path(state, head.segment);
    let mut bytes = Vec::new();
    let mut file = open(&path)?;
    fs::at(&path, file.seek(SeekFrom::Start(head.size)))?;
    fs::at(&path, file.read_to_end(&mut bytes))?;
    let mut valid_until = 0;
    for (offset, line) in lines(&bytes) {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        if let Ok(header) = codec::decode_header(line) {
            valid_until = offset + line.len() + 1;
            head.next_lsn = head.next_lsn.max(header.lsn + 1);
            head.next_tx = head.next_tx.max(header.tx.map_or(0, |tx| tx.0 + 1));
        }
    }
    head.size += valid_until as u64;
    let torn = &bytes[valid_until..];
    if !torn.is_empty() {
        let aside = format!("torn-tail-{:020}-{}", head.segment, head.size);
        quarantine::keep(state, &aside, torn)?;
        durable::truncate(&path, head.size)
            .with_context(|| format!("cannot cut the torn tail of {}", path.display()))?;
    }
    Ok(())
}

/// How long the log is at one moment. What writers append later is not looked at.
pub(super) struct Extent {
    /// Each segment with its length, oldest first.
    segments: Vec<(Lsn, u64)>,
    noted: Option<Head>,
}

impl Extent {
    /// Under `append.lock`. `noted` says where the log ends.
    pub(super) fn read(state: &StateDir, noted: Option<Head>) -> io::Result<Extent> {
        let with_len = |first| Ok((first, fs::metadata(path(state, first))?.len()));
        let segments: io::Result<_> = list(state)?.into_iter().map(with_len).collect();
        Ok(Extent { segments: segments?, noted })
    }

    /// Reads the newest segments, going back while `go_on` says so of what was read so far.
    pub(super) fn scan(self, state: &StateDir, mut go_on: impl FnMut(&[Record]) -> bool) -> anyhow::Result<Scan> {
        let mut scan = Scan::default();
        // The number behind the last record, where it is known: first from the note, then from each segment's name.
        let mut end = self.noted.map(|head| head.next_lsn);
        let mut newest = true;
        let is_gone = |head: &Head| self.segments.last().is_none_or(|(first, _)| *first < head.segment);
        if let Some(head) = self.noted.filter(is_gone) {
            let why = format!("the segment is gone, and with it all records up to {}", head.next_lsn - 1);
            scan.damage.push(Damage { segment: path(state, head.segment), offset: 0, why });
            (end, newest) = (Some(head.segment), false);
        }
        for (first, len) in self.segments.into_iter().rev() {
            scan.prepend(read(&path(state, first), len, Bounds { first, end, newest })?);
            (end, newest) = (Some(first), false);
            if !go_on(&scan.records) {
                break;
            }
        }
        Ok(scan)
    }
}

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
