//! Rotation and retention.
//!
//! A full segment is followed by a new one whose first record, a `checkpoint`, says what was unfinished; everything else
//! before it is durable, so that a reboot has to verify only what came after.
//! Segments go when the log is larger or older than [`Settings`] say, oldest
//! first, and never while a transaction is unfinished that they speak of.

use std::io;

use anyhow::Context;

use crate::fs::durable;
use crate::fs::named as fs;
use crate::state::TxId;
use crate::state::marker::{Listing, State};
use crate::state::settings::Settings;
use crate::util::clock::unix_time;
use crate::wal::head::Head;
use crate::wal::log::{LARGEST, Log};
use crate::wal::record;
use crate::wal::record::{Body, Lsn};

/// A segment is closed when it has this many bytes.
pub const SEGMENT_SIZE: u64 = 4 << 20;

/// Begins a new segment. Under `append.lock`.
pub(super) fn rotate(log: &Log<'_>, head: &mut Head) -> anyhow::Result<()> {
    begin_segment(log, head, head.next_lsn)?;
    let unsettled: Vec<TxId> = Listing::read(log.state().path())?.markers.into_iter().map(|m| m.id).collect();
    drop_old(log, &unsettled)
}

/// Begins the segment `name`. A name that is smaller than the number of its first record says that records are missing.
pub(super) fn begin_segment(log: &Log<'_>, head: &mut Head, name: Lsn) -> anyhow::Result<()> {
    let state = log.state();
    // What the finished transactions did is durable before a checkpoint says so.
    durable::sync_filesystem_of(state.path()).context("cannot sync the file system")?;
    let in_flight = in_flight(log)?;
    let body = body(log, in_flight)?;
    let path = log.segment_path(name);
    let mut line = Vec::new();
    body.encode()?.write(head.next_lsn, None, unix_time(), &mut line)?;
    // One that a crash, or a full disk, left before the head was told of it: nobody has appended to it.
    durable::remove_file(&path)?;
    // File, then directory: a record in a segment without a durable name would be lost with it.
    let cannot = || format!("cannot begin the log segment {}", path.display());
    durable::create_new(&path, &line).and_then(|f| fs::at(&path, f.sync_all())).with_context(cannot)?;
    durable::share_like_directory(&path)?;
    durable::fsync_dir(&state.wal())?;
    head.segment = name;
    head.next_lsn += 1;
    head.size = line.len() as u64;
    Ok(log.store_head(head)?)
}

/// A `checkpoint` of here and now.
///
/// # Errors
/// The state directory cannot be looked at.
pub fn body(log: &Log<'_>, in_flight: Vec<TxId>) -> io::Result<Body> {
    Ok(Body::Checkpoint { in_flight, boot: log.boot().to_owned(), state_dir: log.state().birth()? })
}

/// Transactions that may not have ended: those whose marker says so. The log may know better.
pub(super) fn in_flight(log: &Log<'_>) -> io::Result<Vec<TxId>> {
    let markers = Listing::read(log.state().path())?.markers;
    Ok(markers.into_iter().filter(|m| m.state != State::Committed).map(|m| m.id).collect())
}

fn drop_old(log: &Log<'_>, in_flight: &[TxId]) -> anyhow::Result<()> {
    let segments = log.segments()?;
    let mut sizes = Vec::new();
    for first in &segments {
        sizes.push(fs::metadata(log.segment_path(*first))?.len());
    }
    let mut total: u64 = sizes.iter().sum();
    let Settings { retained_seconds, retained_bytes, .. } = log.state().settings();
    let oldest_kept = unix_time().saturating_sub(retained_seconds);
    // The newest segment is in use; a segment is as old as the first record of the next one.
    for (index, size) in sizes.iter().enumerate().take(segments.len().saturating_sub(1)) {
        let too_old = started(log, segments[index + 1])?.is_some_and(|time| time < oldest_kept);
        if (total <= retained_bytes && !too_old) || mentions(log, segments[index], in_flight)? {
            break;
        }
        durable::remove_file(&log.segment_path(segments[index]))?;
        total -= size;
    }
    sweep_quarantine(log, oldest_kept)
}

/// The time of the first record of a segment.
fn started(log: &Log<'_>, segment: Lsn) -> anyhow::Result<Option<u64>> {
    let bytes = durable::read_own(&log.segment_path(segment), LARGEST)?;
    let first = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    Ok(record::decode(first).ok().map(|r| r.time))
}

fn mentions(log: &Log<'_>, segment: Lsn, ids: &[TxId]) -> anyhow::Result<bool> {
    if ids.is_empty() {
        return Ok(false);
    }
    let bytes = durable::read_own(&log.segment_path(segment), LARGEST)?;
    let headers = bytes.split(|b| *b == b'\n').filter_map(|line| record::decode_header(line).ok());
    Ok(headers.filter_map(|h| h.tx).any(|tx| ids.contains(&tx)))
}

/// What recovery moved aside is kept as long as the log that explains it.
fn sweep_quarantine(log: &Log<'_>, oldest_kept: u64) -> anyhow::Result<()> {
    let Some(entries) = crate::fs::absent_is_none(fs::read_dir(log.state().quarantine()))? else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let time = name.to_str().and_then(|n| n.split('-').next()?.parse::<u64>().ok());
        if time.is_some_and(|t| t < oldest_kept) {
            if entry.file_type()?.is_dir() {
                durable::remove_tree(&entry.path())?;
            } else {
                durable::remove_file(&entry.path())?;
            }
        }
    }
    Ok(())
}
