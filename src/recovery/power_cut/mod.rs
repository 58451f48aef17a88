//! After a reboot, once: what did the power cut take back?
//!
//! ```text
//!  make readable            finish renames        settle what was          verify
//!  HEAD, packed-refs, ────▶ whose locks are ────▶ unfinished        ─────▶ reflogs, refs, ──▶ sync ──▶ baseline,
//!  corrupt objects          still there           (as after any crash)     index                       checkpoint, note
//! ```
//! Refs that show an older state of our own history are redone to the newest word of the log, deletions included; those
//! that an unseen writer moved stay, and are the new baseline. A value with a hole behind it gives way to the newest one
//! that is whole. Everything that is replaced is kept in quarantine.
//!
//! Killed anywhere and run again it comes to the same end: no step takes away what the next one decides by. A name that
//! has to be there is replaced, never first removed. What is in the way, or cannot be told, is left, and the note that
//! this boot has looked is only made when nothing was.
//!
//! Limit: objects are checked as far as refs need them or as loose files; a pack is trusted as git is, by its index.

pub(crate) mod lost;
mod readable;
pub(crate) mod redo;
mod refs;
pub(crate) mod repair;
mod tails;

use std::path::{Path, PathBuf};

use crate::fs::door::{self, Kind};
use crate::fs::{FileId, read_small};
use crate::git::refs::RefSnapshot;
use crate::git::{RefFormat, RefName, RefStore, Value};
use crate::locks::DeadLock;
use crate::process::owner;
use crate::recovery::action::Action;
use crate::recovery::case::Case;
use crate::recovery::expected_refs::{ExpectedRefs, LastKnown, RefStatus};
use crate::recovery::history::reaches_checkpoint;
use crate::recovery::perform::perform;
use crate::recovery::power_cut::repair::Repair;
use crate::recovery::report::Report;
use crate::recovery::site::Site;
use crate::state::StateDir;
use crate::state::marker::Listing;
use crate::wal::Lsn;

pub(crate) use readable::{Readable, make_readable, packed_refs_are_damaged};

/// Times in the log are whole seconds.
const MARGIN: u64 = 2;

/// Has this boot looked after what the one before left? Where there is no state directory there is nothing to look at, and
/// on a file system that several machines share another boot id may be another machine's: there nothing is looked at.
pub(crate) fn is_verified(listing: &Listing, state: &StateDir) -> anyhow::Result<bool> {
    let noted = match &listing.verified {
        Some(note) => *note == state.verified_name(&owner::boot_id()?)?,
        None => !state.exists(),
    };
    Ok(noted || !crate::fs::durable::is_local_disk(state.path()))
}

/// Would the verification write one of `names`, or what all of them are read from?
pub(crate) fn writes_one_of(site: &Site<'_>, expected: &ExpectedRefs<'_>, names: &[RefName]) -> anyhow::Result<bool> {
    if packed_refs_are_damaged(site, expected)? {
        return Ok(true);
    }
    let refs = RefStore::new(site.repo);
    let packed = FileId::at(&site.repo.common_dir.join("packed-refs"))?;
    for name in names {
        if expected.standing(site.repo, name, &refs.read(name)?, packed)? == RefStatus::Outdated {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The lock of an acknowledged transaction is still there: what was lost is the rename, and the rename redoes it.
/// Those of transactions that are behind their commit point are left to whoever finishes them: theirs may never have been
/// renamed, nor logged by git.
pub(crate) fn finish_lost_renames(
    site: &Site<'_>,
    expected: &ExpectedRefs<'_>,
    cases: &[Case],
    report: &mut Report,
) -> anyhow::Result<()> {
    let refs = RefStore::new(site.repo);
    let packed = FileId::at(&site.repo.common_dir.join("packed-refs"))?;
    for (name, generation) in &expected.refs {
        let is_open = |w: &&LastKnown| cases.iter().any(|c| c.tx.is_to_be_finished() && w.tx == Some(c.tx.id()));
        let Some(word) = generation.word.as_ref().filter(|w| !is_open(w)) else { continue };
        let Some(lock) =
            word.lock.map(|lock| DeadLock::of_acknowledged(&refs.lock(name), &lock)).transpose()?.flatten()
        else {
            continue;
        };
        let now = refs.read(name)?;
        let written = read_small(&refs.lock(name))?.map(|(text, _)| Value::of_file(&text));
        if expected.standing(site.repo, name, &now, packed)? != RefStatus::Outdated
            || written.as_ref() != Some(&word.value)
        {
            continue;
        }
        let keep = (now.value == Value::Broken).then(|| refs.file(name));
        let repair = Repair { name: (*name).clone(), now, to: word.value.clone(), tx: word.tx, is_loss: false };
        perform(site, vec![Action::FinishLock { lock, keep }])?;
        report.moved(&repair);
        report.notes.extend(repair.told());
    }
    Ok(())
}

/// Verifies and repairs. What is in the way is reported, and the whole is done again next time.
pub(crate) fn verify(site: &Site<'_>, readable: Readable, report: &mut Report) -> anyhow::Result<()> {
    let scan = site.log.scan_until(reaches_checkpoint)?;
    let expected = ExpectedRefs::of(&scan.records, site.log.boot());
    let as_of = scan.records.last().map_or(0, |r| r.lsn);
    if site.repo.ref_format != RefFormat::Files {
        return if readable == Readable::Yes { end(site, as_of, report, Vec::new()) } else { Ok(()) };
    }
    let closure = refs::closure(site, &expected)?;
    tails::mend_reflogs(site, &expected, &closure, report)?;
    let refs = refs::mend_refs(site, &expected, &closure, report)?;
    let indexes_are_done = tails::mend_indexes(site, &expected, &closure, report)?;
    match refs {
        Some(refs) if indexes_are_done && readable == Readable::Yes => end(site, as_of, report, refs),
        _ => Ok(()),
    }
}

/// The verification is done.
fn end(site: &Site<'_>, as_of: Lsn, report: &Report, refs: Vec<RefSnapshot>) -> anyhow::Result<()> {
    let lines = report.notes.iter().chain(&report.losses).cloned().collect();
    perform(site, vec![Action::EndBootCheck { as_of, lines, refs }]).map(|_| ())
}

impl Report {
    /// A ref was given another value, back or forward.
    fn moved(&mut self, repair: &Repair) {
        self.refs_moved.push(repair.name.clone());
    }
}

/// Was the file written when everything was durable already?
fn is_old(expected: &ExpectedRefs<'_>, file: FileId) -> bool {
    let limit = i64::try_from(expected.durable_until.saturating_sub(MARGIN)).unwrap_or(0) * 1_000_000_000;
    expected.clock_is_steady && file.ctime < limit
}

fn files_below(dir: &Path) -> anyhow::Result<Vec<(PathBuf, FileId)>> {
    let mut found = Vec::new();
    for (name, kind) in door::entries(dir)?.unwrap_or_default() {
        let path = dir.join(name);
        if kind == Kind::Directory {
            found.extend(files_below(&path)?);
        } else if let Some(id) = FileId::at(&path)?.filter(|_| kind == Kind::File) {
            found.push((path, id));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
