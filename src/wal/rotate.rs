//! Rotation and retention.
//!
//! A full segment is followed by a new one whose first record, a `checkpoint`, says what was unfinished; everything else
//! before it is durable, so that a reboot has to verify only what came after.
//! Segments go when the log is larger or older than [`Settings`] say, oldest
//! first, and never while a transaction is unfinished that they speak of.

use std::io;

use anyhow::Context;

use crate::fs::{durable, named as fs};
use crate::state::marker::{Listing, State};
use crate::state::settings::Settings;
use crate::state::{StateDir, TxId, kept};
use crate::util::clock::unix_time;
use crate::util::text::shown;
use crate::wal::codec;
use crate::wal::head::Head;
use crate::wal::record::{Body, Lsn};
use crate::wal::segments;

/// Begins a new segment, and drops old ones. Under `append.lock`.
pub(super) fn rotate(state: &StateDir, boot: &str, head: &mut Head) -> anyhow::Result<()> {
    let name = head.next_lsn;
    begin_segment(state, boot, head, name)?;
    drop_old(state)
}

/// Begins the segment `name`. A name that is smaller than the number of its first record says that records are missing.
pub(super) fn begin_segment(state: &StateDir, boot: &str, head: &mut Head, name: Lsn) -> anyhow::Result<()> {
    // What the finished transactions did is durable before a checkpoint says so.
    durable::sync_filesystem_of(state.path()).context("cannot sync the file system")?;
    let mut line = Vec::new();
    checkpoint(state, boot)?.encode()?.write(head.next_lsn, None, unix_time(), &mut line)?;
    let path = segments::path(state, name);
    // One that a crash, or a full disk, left before the head was told of it: nobody has appended to it.
    durable::remove_file(&path)?;
    // File, then directory: a record in a segment without a durable name would be lost with it.
    let cannot = || format!("cannot begin the log segment {}", shown(&path));
    durable::create_new(&path, &line).and_then(|file| fs::sync_all(&path, &file)).with_context(cannot)?;
    durable::fsync_dir(&state.wal())?;
    head.segment = name;
    head.next_lsn += 1;
    head.size = line.len() as u64;
    Ok(head.store(state)?)
}

/// A `checkpoint` of here and now. In flight is what its marker says may not have ended: the log may know better.
pub(super) fn checkpoint(state: &StateDir, boot: &str) -> io::Result<Body> {
    let markers = Listing::read(state.path())?.markers;
    let in_flight = markers.into_iter().filter(|m| m.state != State::Committed).map(|m| m.id).collect();
    Ok(Body::Checkpoint { in_flight, boot: boot.to_owned(), state_dir: state.birth()? })
}

fn drop_old(state: &StateDir) -> anyhow::Result<()> {
    let unfinished: Vec<TxId> = Listing::read(state.path())?.markers.into_iter().map(|m| m.id).collect();
    let segments = segments::list(state)?;
    let mut sizes = Vec::new();
    for first in &segments {
        sizes.push(fs::metadata(segments::path(state, *first))?.len());
    }
    let mut total: u64 = sizes.iter().sum();
    let Settings { retained_seconds, retained_bytes, .. } = state.settings();
    let oldest_kept = unix_time().saturating_sub(retained_seconds);
    // The newest segment is in use; a segment is as old as the first record of the next one.
    for (index, size) in sizes.iter().enumerate().take(segments.len().saturating_sub(1)) {
        let too_old = started(state, segments[index + 1])?.is_some_and(|time| time < oldest_kept);
        if (total <= retained_bytes && !too_old) || mentions(state, segments[index], &unfinished)? {
            break;
        }
        durable::remove_file(&segments::path(state, segments[index]))?;
        total -= size;
    }
    Ok(kept::sweep(state)?)
}

/// The time of the first record of a segment.
fn started(state: &StateDir, segment: Lsn) -> anyhow::Result<Option<u64>> {
    let content = segments::content(state, segment)?;
    let first = content.lines().next().and_then(|(_, line)| line.strip_suffix(b"\n"));
    Ok(first.and_then(|line| codec::decode(line).ok()).map(|r| r.time))
}

fn mentions(state: &StateDir, segment: Lsn, ids: &[TxId]) -> anyhow::Result<bool> {
    if ids.is_empty() {
        return Ok(false);
    }
    let content = segments::content(state, segment)?;
    let lines = content.lines().map(|(_, line)| line.strip_suffix(b"\n").unwrap_or(line));
    let headers = lines.filter_map(|line| codec::decode_header(line).ok());
    Ok(headers.filter_map(|h| h.tx).any(|tx| ids.contains(&tx)))
}
