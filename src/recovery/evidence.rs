//! What can be known about an unfinished transaction: read from the disk and from the log.
//!
//! Authorship is proven by identity, never by equal values: git renames a lock into place, so the loose file of
//! a ref that the transaction wrote *is* its lock: same inode, size and mtime.

use std::path::PathBuf;

use crate::fs::FileId;
use crate::git::refs::ResolvedRef;
use crate::git::{Git, RefFormat, RefName, RefStore, Repository, Value, reflog, update_refs};
use crate::recovery::decide::{RefEvidence, RefState};
use crate::recovery::expected_refs::{ExpectedRefs, RefStatus};
use crate::recovery::history::{History, LogOutcome};
use crate::state::TxId;
use crate::state::marker::{Entry, Marker, Phase};
use crate::wal::{Begin, Body, Record, RefChange};

/// A transaction whose owner is dead and whose marker is still there.
#[derive(Debug)]
pub(crate) struct Unfinished {
    /// Its marker file.
    pub entry: Entry,
    /// The marker's content; `None` when it is damaged.
    pub marker: Option<Marker>,
    /// Its `begin` record; `None` when it was never logged.
    pub begin: Option<Box<Begin>>,
    /// How the log says it ended.
    pub ending: LogOutcome,
    /// We made it, it is behind its commit point, and the log does not say that it ended.
    pub decided: bool,
    /// Its refs, when the log does not know how it ended.
    pub refs: Vec<RefEvidence>,
}

impl Unfinished {
    /// Is it behind its commit point, and has it still to be finished?
    pub(crate) fn is_to_be_finished(&self) -> bool {
        self.decided && self.ending == LogOutcome::None
    }

    /// The transaction.
    pub(crate) fn id(&self) -> TxId {
        self.entry.id
    }

    /// It may have had a record that the log does not have (any more).
    pub(crate) fn lost_its_record(&self) -> bool {
        self.begin.is_none() && self.marker.as_ref().is_none_or(|m| m.phase == Phase::Prepared)
    }

    /// We made it, and the log does not say that it was decided: it may have, in a part that is damaged.
    pub(crate) fn may_have_lost_its_decision(&self) -> bool {
        let made = self.begin.as_ref().is_some_and(|b| b.origin == crate::state::TxKind::Apply);
        made && !self.decided && self.ending == LogOutcome::None
    }

    /// What the owner was asked to do.
    pub(crate) fn operation(&self) -> &str {
        match (&self.begin, &self.marker) {
            (Some(begin), _) => &begin.operation,
            (None, Some(marker)) => &marker.operation,
            (None, None) => "unknown operation",
        }
    }

    /// The git directory of the worktree that it was made in.
    pub(crate) fn git_dir(&self, repo: &Repository) -> PathBuf {
        let inside = self.begin.as_ref().map_or("", |b| b.worktree.as_str());
        let dir = safe_worktree(inside).map_or_else(|| repo.common_dir.clone(), |d| repo.common_dir.join(d));
        if dir.join("HEAD").exists() { dir } else { repo.common_dir.clone() }
    }
}

/// `worktrees/<name>`, or nothing: the log never leads out of the repository.
fn safe_worktree(text: &str) -> Option<PathBuf> {
    let bytes = crate::util::text::unescape(text)?;
    let name = RefName::parse(&bytes).ok()?;
    name.as_bytes().starts_with(b"worktrees/").then(|| name.as_path().to_owned())
}

/// Everything that can be asked about an unfinished transaction.
pub(crate) struct EvidenceSources<'w> {
    /// The repository.
    pub repo: &'w Repository,
    /// The git to ask about a reftable, in the common directory.
    pub git: &'w Git,
    /// The log.
    pub history: &'w History<'w>,
    /// After a reboot: what the log expects of every ref.
    pub expected: Option<&'w ExpectedRefs<'w>>,
}

impl EvidenceSources<'_> {
    /// The evidence about every ref of the transaction `id`, whose `begin` is the record at `begin_at`.
    pub(crate) fn of_refs(&self, id: TxId, begin_at: usize, begin: &Begin) -> anyhow::Result<Vec<RefEvidence>> {
        if self.repo.ref_format == RefFormat::Reftable {
            return of_reftable(self.git, begin);
        }
        let refs = RefStore::new(self.repo);
        let mut evidence = Vec::with_capacity(begin.refs.len());
        for change in &begin.refs {
            let now = refs.read(&change.name)?;
            let history = self.history;
            let later: Vec<&Record> = history.later(&change.name, begin_at).filter(|r| r.tx != Some(id)).collect();
            let rejected = begin.batched && history.is_lock_of_another(id, change);
            // Identity comes before the order of the log: a file that is this transaction's lock is its work, whatever
            // was written down about the ref meanwhile.
            let state = match (is_renamed_lock(change, &now), overwritten(change, history, &later)) {
                _ if rejected => RefState::Unapplied,
                (true, _) => RefState::Applied,
                (false, Some(state)) => state,
                (false, None) if self.was_taken_back(change, &now)? => RefState::Unapplied,
                (false, None) => authorship(change, &now, &later, &refs)?,
            };
            evidence.push(RefEvidence {
                name: change.name.clone(),
                before: change.before.clone(),
                after: change.after.clone(),
                now: now.value,
                state,
            });
        }
        // git's order holds for what a dying git did, not for what a disk kept.
        if self.expected.is_none() {
            doubt_deletions(&mut evidence);
        }
        Ok(evidence)
    }

    /// The power cut left an older state than the one that the transaction was built on; that is redone later.
    pub(super) fn was_taken_back(&self, change: &RefChange, now: &ResolvedRef) -> anyhow::Result<bool> {
        let Some(expected) = self.expected.filter(|_| now.value != change.after) else { return Ok(false) };
        let packed = FileId::at(&self.repo.common_dir.join("packed-refs"))?;
        Ok(expected.standing(self.repo, &change.name, now, packed)? == RefStatus::Outdated)
    }
}

/// git makes all updates of a transaction before its first deletion: while an update is missing, a deleted ref was
/// deleted by somebody else.
fn doubt_deletions(evidence: &mut [RefEvidence]) {
    let updates_missing = evidence.iter().any(|e| e.after != Value::Absent && e.state == RefState::Unapplied);
    let deleted = |e: &&mut RefEvidence| e.after == Value::Absent && e.state == RefState::Applied;
    for deletion in evidence.iter_mut().filter(deleted).filter(|_| updates_missing) {
        deletion.state = RefState::ThirdParty;
    }
}

fn is_renamed_lock(change: &RefChange, now: &ResolvedRef) -> bool {
    now.value == change.after && now.loose.zip(change.lock).is_some_and(|(file, lock)| file.is_same_file(&lock))
}

/// A later logged transaction names the ref: whatever is there now is not this one's to write, and the later
/// one's before-image says whether this one had been applied.
fn overwritten(change: &RefChange, history: &History<'_>, later: &[&Record]) -> Option<RefState> {
    later.iter().find_map(|record| match &record.body {
        body if body.word().is_some() => {
            let begin = body.word()?;
            if record.tx.is_some_and(|tx| history.was_aborted(tx)) {
                return None;
            }
            let next = begin.refs.iter().find(|c| c.name == change.name)?;
            let applied = next.before.as_ref() == Some(&change.after) && change.before.as_ref() != Some(&change.after);
            Some(if applied { RefState::Overwritten } else { RefState::Unapplied })
        }
        Body::Recovered { refs, .. } => {
            let settled = refs.iter().find(|s| s.name == change.name)?;
            Some(if settled.value == change.after { RefState::Overwritten } else { RefState::Unapplied })
        }
        _ => None,
    })
}

fn authorship(
    change: &RefChange,
    now: &ResolvedRef,
    later: &[&Record],
    refs: &RefStore<'_>,
) -> anyhow::Result<RefState> {
    if change.before.as_ref() == Some(&now.value) {
        return Ok(RefState::Unapplied);
    }
    if now.value != change.after {
        return if was_logged(change, refs)? { Ok(RefState::Overwritten) } else { Ok(RefState::ThirdParty) };
    }
    if change.after == Value::Absent {
        return Ok(RefState::Applied);
    }
    let moved = now.loose.is_none() && was_moved(change, later);
    Ok(if moved { RefState::Applied } else { RefState::ThirdParty })
}

/// The file that pack-refs took into `packed-refs` last was this transaction's lock.
fn was_moved(change: &RefChange, later: &[&Record]) -> bool {
    let mut moved = later.iter().filter_map(|record| match &record.body {
        Body::Moved { refs } => refs.iter().find(|moved| moved.name == change.name),
        _ => None,
    });
    moved.next_back().is_some_and(|moved| {
        let is_lock = moved.file.zip(change.lock).is_some_and(|(file, lock)| file.is_same_file(&lock));
        moved.value == change.after && is_lock
    })
}

/// The reflog's first entry behind the recorded size is exactly this update, and others follow: it was applied, and
/// the ref went on from there.
pub(super) fn was_logged(change: &RefChange, refs: &RefStore<'_>) -> anyhow::Result<bool> {
    let Some((old, new, more)) = reflog::entry_at(&refs.log(&change.name), change.log)? else { return Ok(false) };
    let is = |value: Option<&Value>, hex: &str| match value {
        Some(Value::Oid(oid)) => *oid.hex() == *hex,
        Some(Value::Absent) => hex.bytes().all(|b| b == b'0'),
        _ => false,
    };
    let this = is(change.before.as_ref(), &old) && is(Some(&change.after), &new);
    Ok(this && more)
}

/// A table append is atomic: either all after-images are visible, or the transaction counts as not done.
fn of_reftable(git: &Git, begin: &Begin) -> anyhow::Result<Vec<RefEvidence>> {
    let names: Vec<&RefName> = begin.refs.iter().map(|c| &c.name).collect();
    let values = update_refs::read_refs(git, &names)?;
    let all_visible = begin.refs.iter().zip(&values).all(|(change, now)| change.after == *now);
    let state = if all_visible { RefState::Applied } else { RefState::Unapplied };
    let evidence = begin.refs.iter().zip(values).map(|(change, now)| RefEvidence {
        name: change.name.clone(),
        before: None,
        after: change.after.clone(),
        now,
        state,
    });
    Ok(evidence.collect())
}
