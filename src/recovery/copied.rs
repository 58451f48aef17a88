//! A `.jin` that was copied or unpacked: its log is about files of another repository, and its markers about the work of others.
//!
//! ```text
//!  note of this very directory? ──no──▶ checkpoint of it? ──no──▶ everything to quarantine ──▶ new id, new log, one line told
//!           │ yes                            │ yes
//!           ▼                                ▼
//!        nothing to do                    nothing to do
//! ```
//! Nothing of it is redone or rolled back. What `install` wrote down stays: settings, and what to take back. Killed anywhere and
//! run again it comes to the same end: without note and checkpoint it is a copy still.
//!
//! A repository that was moved within its file system keeps everything: inode and time of birth are the same.

use std::path::Path;

use anyhow::Context;

use crate::fs::access::Purpose;
use crate::fs::{durable, moving, named as fs};
use crate::git::Repository;
use crate::process::owner;
use crate::recovery::history;
use crate::recovery::site::{Options, PATIENCE};
use crate::state::marker::{Listing, State};
use crate::state::{StateDir, Wait, quarantine};
use crate::util::text::shown;
use crate::wal::{Body, Flush, Log, Record};

/// What stays: the locks that are being held, what `install` wrote down, and the place to which everything else goes.
const KEPT: [&str; 7] =
    ["append.lock", "recovery.lock", "files.lock", "quarantine", "install.json", "durability", "settings"];

/// Is the state directory a copy?
pub(crate) fn is_copied(state: &StateDir, listing: &Listing) -> anyhow::Result<bool> {
    if !state.exists() || state.is_known_by(listing.verified.as_deref())? {
        return Ok(false);
    }
    if fs::symlink_metadata(state.wal()).is_err() {
        return Ok(true);
    }
    let scan = log(state)?.scan_until(|records| newest_checkpoint(records).is_some())?;
    match newest_checkpoint(&scan.records) {
        Some(Body::Checkpoint { state_dir, .. }) => Ok(!state.is_the_one(*state_dir)?),
        _ => Ok(true),
    }
}

fn log(state: &StateDir) -> anyhow::Result<Log<'_>> {
    Ok(Log::new(state, &owner::boot_id()?, Wait::UpTo(PATIENCE)))
}

fn newest_checkpoint(records: &[Record]) -> Option<&Body> {
    records.iter().rev().map(|record| &record.body).find(|body| matches!(body, Body::Checkpoint { .. }))
}

/// What is told of a copy with unfinished work; of any other nothing, since nothing is missing.
pub(super) fn line(listing: &Listing) -> Option<String> {
    // What is committed is done: only the cleanup behind it was not.
    listing.markers.iter().any(|marker| marker.state != State::Committed).then(|| {
        ".jin was copied from another place with unfinished work in it: nothing of that is redone or rolled back here; run \
         `git txn recover` in the original, then copy again (here it takes away stale locks only)"
            .into()
    })
}

/// Moves a copied state directory's content to quarantine, and begins a new log. What is to be told.
pub(crate) fn set_aside(repo: &Repository, options: &Options) -> anyhow::Result<Vec<String>> {
    let state = StateDir::of(repo);
    // The usual case needs no lock.
    if !is_copied(&state, &Listing::read(state.path())?)? {
        return Ok(Vec::new());
    }
    state.create_missing([state.wal(), state.quarantine()])?;
    state.verify()?;
    state.while_recovering(options.wait, || {
        let listing = Listing::read(state.path())?;
        if !is_copied(&state, &listing)? {
            return Ok(Vec::new());
        }
        let log = log(&state)?;
        // A note of where another log ended would make a gap of all that is not there.
        let noted = fs::symlink_metadata(state.path().join("log-head")).is_ok();
        if listing.markers.is_empty() && !noted && fs::read_dir(state.wal())?.next().is_none() {
            // Nothing happened there: whoever made it, or set it aside, has not begun the log yet.
            state.make_id()?;
            return log.open().map(|()| Vec::new());
        }
        // Without a checkpoint that can be read a damaged log cannot be told from a copied one.
        let damage = history::describe_damage(&log.scan()?);
        let aside = quarantine::free_path(&state, "copied")?;
        move_all(&state, &aside).with_context(|| format!("cannot set {} aside", shown(state.path())))?;
        log.open().context("cannot begin a log")?;
        let damaged =
            || damage.first().map(|first| format!("the log says nothing of this directory, and is damaged: {first}"));
        let told = line(&listing).or_else(damaged).map(|line| format!("{line}; it is in {}", shown(&aside)));
        let action = format!("the state directory was copied: what it had is in {}", shown(&aside));
        log.append(None, &Body::Baseline { as_of: 0, actions: vec![action], refs: Vec::new() }, Flush::No)?;
        Ok(told.into_iter().collect())
    })
}

fn move_all(state: &StateDir, aside: &Path) -> anyhow::Result<()> {
    durable::make_dirs(aside, Purpose::State)?;
    // Nobody appends to the log meanwhile.
    state.while_appending(Wait::UpTo(PATIENCE), || {
        for entry in fs::read_dir(state.path())? {
            let entry = entry?;
            if KEPT.iter().all(|kept| entry.file_name() != *kept) {
                moving::move_new(&entry.path(), &aside.join(entry.file_name()))?;
            }
        }
        state.create_missing([state.wal(), state.tx_root()])?;
        state.make_id()?;
        Ok(durable::fsync_dir(state.path())?)
    })
}
