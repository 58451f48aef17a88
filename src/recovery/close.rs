//! What is left of a transaction in `.jin` when it has ended: staged files first, the marker last.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::fs::{absent_is_none, durable, named as fs};
use crate::git::refs::RefSnapshot;
use crate::git::{RefStore, Repository};
use crate::process::owner::ExecContext;
use crate::recovery::find_dead::is_abandoned;
use crate::recovery::site::Site;
use crate::staging::stage;
use crate::state::marker::{Entry, Listing, State};
use crate::state::{StateDir, TxId, TxKind};
use crate::wal::{Begin, Body, Flush, Outcome, Record, RefChange};

/// Removes what the transaction left in `.jin`.
pub(crate) fn close(site: &Site<'_>, mut entry: Entry, state: State) -> anyhow::Result<()> {
    if entry.state == State::InProgress {
        entry.settle(state)?;
    }
    match state {
        // What it replaced is kept, so that it can be undone.
        State::Committed => stage::put_away(site.state, entry.id)?,
        _ => durable::remove_tree(&site.state.tx(entry.id))?,
    }
    Ok(entry.remove()?)
}

/// Markers that were never published: their writers died before they could.
pub(crate) fn abandoned(site: &Site<'_>, listing: &Listing, here: &ExecContext) -> Vec<PathBuf> {
    // Of a disk that other machines may use a person has to say that nobody writes it any more.
    let vouched = site.options.force && !durable::is_local_disk(site.state.path());
    let dead = listing.temporary.iter().filter(|t| vouched || is_abandoned(t, here, site.state));
    dead.map(|temporary| temporary.path.clone()).collect()
}

/// Removes them, and staged files without a marker: a crash while cleaning up.
pub(crate) fn sweep(site: &Site<'_>, abandoned: &[PathBuf]) -> anyhow::Result<()> {
    abandoned.iter().try_for_each(|path| durable::remove_file(path))?;
    sweep_staged(site.state)
}

fn sweep_staged(state: &StateDir) -> anyhow::Result<()> {
    let Some(entries) = absent_is_none(fs::read_dir(state.tx_root()))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let id =
            name.to_str().map(id_of).and_then(|text| text.parse().ok().filter(|id: &TxId| *id.to_string() == *text));
        // The marker is written first and removed last; read after the staged files were seen.
        let used = |id: TxId| Ok::<_, io::Error>(Listing::read(state.path())?.markers.iter().any(|m| m.id == id));
        if let Some(id) = id
            && !used(id)?
        {
            // One without its name yet is empty, and may be closed to us: its maker was about to give it to the group.
            if name.as_bytes().starts_with(b".") {
                durable::remove_dir_if_empty(&entry.path())?;
            } else {
                durable::remove_tree(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// The id in the name of a directory of staged files, also of one that was about to get that name.
fn id_of(name: &str) -> &str {
    name.strip_prefix('.').and_then(|name| name.split_once(".jin-tmp.")).map_or(name, |(id, _)| id)
}

/// A person has seen a transaction that needed manual resolution: its refs stay as they are, also after a reboot, and its
/// marker goes.
pub(crate) fn acknowledge(site: &Site<'_>, entry: Entry) -> anyhow::Result<()> {
    let is_begin = |r: &Record| r.tx == Some(entry.id) && matches!(r.body, Body::Begin(_) | Body::Decided(_));
    let scan = site.log.scan_until(|records| records.iter().any(is_begin))?;
    let begin = scan.records.iter().rfind(|r| is_begin(r)).and_then(|r| match &r.body {
        Body::Begin(begin) | Body::Decided(begin) => Some(begin),
        _ => None,
    });
    let refs = begin.map_or(Ok(Vec::new()), |begin| refs_now(site.repo, begin))?;
    // What is kept may be nowhere else by now. Before the record: behind it recovery would throw it away.
    match begin {
        Some(begin) if begin.origin == TxKind::Run => crate::run::put_away(site.repo, site.state, entry.id)?,
        _ => stage::put_away(site.state, entry.id)?,
    }
    // First what a reboot is to find: cut behind this, the transaction still waits, and nobody touches its refs.
    let as_of = scan.records.last().map_or(0, |r| r.lsn);
    site.log.append(None, &Body::Baseline { as_of, actions: Vec::new(), refs }, Flush::No)?;
    let body = Body::Recovered { outcome: Outcome::Acknowledged, actions: Vec::new(), refs: Vec::new() };
    site.log.append(Some(entry.id), &body, Flush::Yes)?;
    Ok(entry.remove()?)
}

/// The refs of a transaction as they are now.
pub(crate) fn refs_now(repo: &Repository, begin: &Begin) -> anyhow::Result<Vec<RefSnapshot>> {
    if begin.reftable {
        return Ok(Vec::new());
    }
    let refs = RefStore::new(repo);
    let now = |change: &RefChange| {
        let now = refs.read(&change.name)?;
        Ok(RefSnapshot { name: change.name.clone(), value: now.value, file: now.loose })
    };
    begin.refs.iter().map(now).collect::<io::Result<_>>().map_err(Into::into)
}
