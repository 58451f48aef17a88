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

mod readable;
mod refs;
mod tails;

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::durable;
use crate::fs::named as fs;
use crate::fs::{FileId, absent_is_none, read_small};
use crate::git::objects::Closure;
use crate::git::refs::RefSnapshot;
use crate::git::refs::ResolvedRef;
use crate::git::{RefFormat, RefName, RefStore, Value};
use crate::recovery::Session;
use crate::recovery::evidence::Unfinished;
use crate::recovery::execute::free_name;
use crate::recovery::expected_refs::{ExpectedRefs, LastKnown, RefStatus};
use crate::recovery::quarantine_name;
use crate::state::TxId;
use crate::wal::{Body, Lsn, Record};

/// Times in the log are whole seconds.
const MARGIN: u64 = 2;

/// A ref that was, or is to be, written.
struct Repair {
    name: RefName,
    now: ResolvedRef,
    to: Value,
    /// The transaction that was acknowledged with that value.
    tx: Option<TxId>,
    /// It goes back, not forward: that is told as a loss.
    is_loss: bool,
}

impl Repair {
    fn told(&self) -> Option<String> {
        let Repair { name, now, to, tx, is_loss } = self;
        let tx = tx.map_or_else(String::new, |tx| format!(" ({tx})"));
        let now = &now.value;
        let told = match (to, now) {
            (Value::Absent, now) => {
                format!("{name} is deleted again{tx}; the power cut had brought it back at {}", shown(now))
            }
            (to, Value::Absent) => format!("{name} is {} again{tx}; the power cut had taken it away", shown(to)),
            (to, Value::Broken) => {
                format!("{name} is {} again{tx}; the power cut had left it without sense", shown(to))
            }
            (to, now) => {
                format!("{name} is {} again{tx}; the power cut had taken it back to {}", shown(to), shown(now))
            }
        };
        (!is_loss).then_some(told)
    }
}

impl Session<'_> {
    /// What the log of the last boot expects of the refs.
    pub(crate) fn expectation<'l>(&self, records: &'l [Record]) -> ExpectedRefs<'l> {
        ExpectedRefs::of(records, self.log.boot())
    }

    /// Would the verification write one of `names`, or what all of them are read from?
    pub(crate) fn reboot_writes(&self, expected: &ExpectedRefs<'_>, names: &[RefName]) -> anyhow::Result<bool> {
        if self.packed_refs_are_damaged(expected)? {
            return Ok(true);
        }
        let refs = RefStore::new(self.repo);
        let packed = FileId::at(&self.repo.common_dir.join("packed-refs"))?;
        for name in names {
            if expected.standing(self.repo, name, &refs.read(name)?, packed)? == RefStatus::Outdated {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The lock of an acknowledged transaction is still there: what was lost is the rename, and the rename redoes it.
    /// Those of transactions that are behind their commit point are left to whoever finishes them: theirs may never have been renamed, nor logged by git.
    pub(crate) fn finish_lost_renames(
        &mut self,
        expected: &ExpectedRefs<'_>,
        unfinished: &[Unfinished],
    ) -> anyhow::Result<()> {
        let refs = RefStore::new(self.repo);
        let packed = FileId::at(&self.repo.common_dir.join("packed-refs"))?;
        for (name, generation) in &expected.refs {
            let is_open = |w: &&LastKnown| unfinished.iter().any(|u| u.is_to_be_finished() && w.tx == Some(u.id()));
            let Some(word) = generation.word.as_ref().filter(|w| !is_open(w)) else { continue };
            let now = refs.read(name)?;
            let lost = expected.rename_was_lost(self.repo, name)?
                && expected.standing(self.repo, name, &now, packed)? == RefStatus::Outdated;
            let lock = refs.lock(name);
            let has_it = || Ok::<_, std::io::Error>(read_small(&lock)?.map(|(text, _)| Value::of_file(&text)));
            if !lost || has_it()?.as_ref() != Some(&word.value) {
                continue;
            }
            let repair = Repair { name: (*name).clone(), now, to: word.value.clone(), tx: word.tx, is_loss: false };
            self.report.notes.extend(repair.told());
            if !self.options.dry_run {
                let file = refs.file(name);
                if repair.now.value == Value::Broken {
                    self.keep_copy(&file)?;
                }
                durable::rename(&lock, &file).with_context(|| format!("cannot redo {name}"))?;
            }
        }
        Ok(())
    }

    /// Verifies and repairs. What is in the way is reported, and the whole is done again next time.
    pub(crate) fn verify_after_reboot(&mut self) -> anyhow::Result<()> {
        let scan = self.log.scan_until(reaches_checkpoint)?;
        let expected = self.expectation(&scan.records);
        let as_of = scan.records.last().map_or(0, |r| r.lsn);
        if self.repo.ref_format != RefFormat::Files {
            return self.conclude(as_of, Vec::new());
        }
        let closure = self.closure(&expected)?;
        self.mend_reflogs(&expected, &closure)?;
        let refs = self.mend_refs(&expected, &closure)?;
        let indexes_are_done = self.mend_indexes(&expected, &closure)?;
        match refs {
            Some(refs) if indexes_are_done => self.conclude(as_of, refs),
            _ => Ok(()),
        }
    }

    /// The verification is done: its effects first, then the record, then the note.
    fn conclude(&mut self, as_of: Lsn, refs: Vec<RefSnapshot>) -> anyhow::Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        let actions: Vec<String> = self.report.notes.iter().chain(&self.report.losses).cloned().collect();
        if !actions.is_empty() || !refs.is_empty() {
            self.log.append(None, &Body::Baseline { as_of, actions, refs }, crate::wal::Flush::No)?;
        }
        self.log.checkpoint()?;
        Ok(self.state.mark_verified(self.log.boot())?)
    }

    /// A copied state directory speaks of files that are none of ours.
    pub(crate) fn is_copy(&self, expected: &ExpectedRefs<'_>) -> anyhow::Result<bool> {
        let here = self.state.birth()?;
        Ok(expected.state_dir.is_some_and(|there| {
            let other_time = there.born.zip(here.born).is_some_and(|(there, here)| there != here);
            there.ino != here.ino || other_time
        }))
    }

    /// Nothing in the log of a copy is about these files: begin anew.
    pub(crate) fn begin_anew(&mut self) -> anyhow::Result<()> {
        self.conclude(0, Vec::new())
    }

    /// Puts a second name, or a copy, of a file into quarantine.
    fn keep_copy(&self, path: &Path) -> anyhow::Result<()> {
        let aside = free_name(&self.state.quarantine(), &quarantine_name(&self.repo.relative(path)))?;
        durable::keep_second(path, &aside).with_context(|| format!("cannot keep {}", path.display()))
    }

    /// Replaces a file by one rename. It is written in our own directory: what a crash leaves of it is in nobody's way.
    fn put(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        let new = self.state.path().join("replacement");
        durable::remove_file(&new)?;
        durable::create_new(&new, bytes).and_then(|file| fs::at(&new, file.sync_all()))?;
        durable::rename(&new, path).with_context(|| format!("cannot replace {}", path.display()))?;
        durable::share_like_directory(path)?;
        Ok(())
    }

    fn set_aside(&self, path: &Path) -> anyhow::Result<()> {
        let aside = free_name(&self.state.quarantine(), &quarantine_name(&self.repo.relative(path)))?;
        durable::rename_new(path, &aside).with_context(|| format!("cannot move {} to quarantine", path.display()))
    }
}

/// Do the records reach back to a checkpoint, and to the beginning of everything that it found in flight?
pub(crate) fn reaches_checkpoint(records: &[Record]) -> bool {
    let newest = records.iter().rev().find_map(|record| match &record.body {
        Body::Checkpoint { in_flight, .. } => Some(in_flight),
        _ => None,
    });
    let begun = |id: &TxId| records.iter().any(|r| r.tx == Some(*id) && matches!(r.body, Body::Begin(_)));
    // One that was only announced has no record at all: what is older than the segment before cannot be needed.
    let segments = records.iter().filter(|r| matches!(r.body, Body::Checkpoint { .. })).count();
    newest.is_some_and(|in_flight| in_flight.iter().all(begun) || segments > MOST_SEGMENTS)
}

/// How many checkpoints to go back for a transaction that was in flight at the last one.
const MOST_SEGMENTS: usize = 4;

/// Was the file written when everything was durable already?
fn is_old(expected: &ExpectedRefs<'_>, file: FileId) -> bool {
    let limit = i64::try_from(expected.durable_until.saturating_sub(MARGIN)).unwrap_or(0) * 1_000_000_000;
    expected.clock_is_steady && file.ctime < limit
}

fn files_below(dir: &Path) -> anyhow::Result<Vec<(PathBuf, FileId)>> {
    let mut found = Vec::new();
    let Some(entries) = absent_is_none(fs::read_dir(dir))? else { return Ok(found) };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files_below(&entry.path())?);
        } else if let Some(id) = FileId::at(&entry.path())?.filter(|_| kind.is_file()) {
            found.push((entry.path(), id));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// A value as a ref file has it.
fn line(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Oid(oid) => Some(format!("{oid}\n").into_bytes()),
        Value::Symref(target) => Some([b"ref: ", target.as_bytes(), b"\n"].concat()),
        Value::Absent | Value::Broken => None,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Oid(oid) => oid.hex()[..10].to_owned(),
        other => other.to_string(),
    }
}
