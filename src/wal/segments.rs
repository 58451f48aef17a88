//! Segments, the files of the log: `wal/<number of the first record, 20 digits>.wal`.
//!
//! All but the newest are complete. Of the newest only what lies before the end in `log-head` is known to be whole.
//!
//! A record begins before [`SEGMENT_SIZE`]: what lies behind the last one that does is not read, however long somebody has made
//! the file.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::{absent_is_none, durable, named as fs};
use crate::state::{StateDir, quarantine};
use crate::util::text::shown;
use crate::wal::codec;
use crate::wal::head::Head;
use crate::wal::record::{Lsn, Record};
use crate::wal::scan::{Bounds, Content, Damage, Scan, read_content};

/// A segment is closed when it has this many bytes.
pub(super) const SEGMENT_SIZE: u64 = 4 << 20;

/// The most that a record has, in bytes: it may be of a million refs.
const LARGEST: u64 = 1 << 30;

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
    let bytes = durable::read_own(&path, SEGMENT_SIZE + LARGEST)?;
    put(state, &path, &bytes)
}

/// Reads the head's segment from `head.size` on, and moves the head behind its last valid record; cuts a torn tail off, into
/// quarantine.
pub(super) fn catch_up(state: &StateDir, head: &mut Head) -> anyhow::Result<()> {
    let path = path(state, head.segment);
    let file = open(&path)?;
    let len = fs::at(&path, file.metadata())?.len();
    let content = fs::at(&path, read_content_of(&file, head.size, len))?;
    let mut valid_until = head.size;
    for (offset, line) in content.lines() {
        let Some(record) = line.strip_suffix(b"\n") else { continue };
        if let Ok(header) = codec::decode_header(record) {
            valid_until = offset + line.len() as u64;
            head.next_lsn = head.next_lsn.max(header.lsn + 1);
            head.next_tx = head.next_tx.max(header.tx.map_or(0, |tx| tx.0 + 1));
        }
    }
    head.size = valid_until;
    if valid_until == len {
        return Ok(());
    }
    let aside = format!("torn-tail-{:020}-{valid_until}", head.segment);
    let cannot = || format!("cannot cut the torn tail of {}", shown(&path));
    if content.foreign.is_none() {
        let torn = usize::try_from(valid_until - content.offset)?;
        quarantine::keep(state, &aside, content.bytes.get(torn..).unwrap_or_default())?;
        return durable::truncate(&path, valid_until).with_context(cannot);
    }
    // Nobody knows how much of it there is: it goes aside as it is.
    anyhow::ensure!(valid_until <= SEGMENT_SIZE + LARGEST, "{} is too long for a segment", shown(&path));
    let mut whole = Vec::new();
    fs::at(&path, read_more(&file, &mut whole, 0, valid_until))?;
    let aside = quarantine::free_path(state, &aside)?;
    match durable::hard_link(&path, &aside) {
        // No links on this file system: cut in between, the segment is missing, and that shows.
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            durable::rename_new(&path, &aside).with_context(cannot)?
        }
        _ => {}
    }
    put(state, &path, &whole).with_context(cannot)
}

/// Puts another file with these bytes in the place of a segment.
fn put(state: &StateDir, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    durable::replace(path, bytes)?;
    Ok(durable::fsync_dir(&state.wal())?)
}

/// How long the log is at one moment. What writers append later is not looked at.
pub(super) struct Extent {
    /// Each segment with its length, oldest first.
    segments: Vec<(Lsn, u64)>,
    noted: Option<Head>,
}

impl Extent {
    /// Of `segments`, which were listed after `noted`, the end of the log, was read.
    pub(super) fn read(state: &StateDir, segments: &[Lsn], noted: Option<Head>) -> io::Result<Extent> {
        let with_len = |first: &Lsn| Ok((*first, fs::metadata(path(state, *first))?.len()));
        let segments: io::Result<_> = segments.iter().map(with_len).collect();
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
        .with_context(|| format!("cannot open the log {}", shown(path)))
}

/// Reads the first `len` bytes of a segment.
fn read(path: &Path, len: u64, bounds: Bounds) -> anyhow::Result<Scan> {
    Ok(read_content(path, &read_whole(path, len)?, bounds))
}

/// What a segment holds.
pub(super) fn content(state: &StateDir, first: Lsn) -> anyhow::Result<Content<'static>> {
    read_whole(&path(state, first), u64::MAX)
}

fn read_whole(path: &Path, most: u64) -> anyhow::Result<Content<'static>> {
    let file = open(path)?;
    let len = fs::at(path, file.metadata())?.len().min(most);
    read_content_of(&file, 0, len).with_context(|| format!("cannot read the log {}", shown(path)))
}

/// Reads what a segment holds between `from` and `len`, as far as it can be records of ours.
fn read_content_of(file: &File, from: u64, len: u64) -> io::Result<Content<'static>> {
    let bytes = read_records(file, from, len.max(from))?;
    let read_until = from + bytes.len() as u64;
    let foreign = (read_until < len).then_some(read_until);
    Ok(Content { offset: from, bytes: Cow::Owned(bytes), foreign, end: len })
}

/// Reads from `start` to `end`: the records that begin before [`SEGMENT_SIZE`], the last one to its end.
fn read_records(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    const CHUNK: u64 = 1 << 20;
    let mut bytes = Vec::new();
    read_more(file, &mut bytes, start, end.min(SEGMENT_SIZE.max(start + CHUNK)))?;
    // Of the last line only what has a record's beginning.
    let mut line = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    while line < bytes.len() && codec::is_beginning(&bytes[line..]) {
        let from = start + bytes.len() as u64;
        let more = (end - from).min(CHUNK);
        if more == 0 || bytes.len() as u64 > LARGEST {
            break;
        }
        let known = bytes.len();
        if read_more(file, &mut bytes, from, from + more)? == 0 {
            break;
        }
        if let Some(feed) = bytes[known..].iter().position(|b| *b == b'\n') {
            bytes.truncate(known + feed + 1);
            line = bytes.len();
        }
    }
    Ok(bytes)
}

/// Appends what lies between two offsets, as far as it is there; says how much that is.
fn read_more(file: &File, bytes: &mut Vec<u8>, from: u64, to: u64) -> io::Result<usize> {
    let (known, len) = (bytes.len(), usize::try_from(to - from).map_err(io::Error::other)?);
    bytes.try_reserve(len).map_err(io::Error::other)?;
    bytes.resize(known + len, 0);
    let mut filled = known;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], from + (filled - known) as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(filled - known)
}
