//! The log, read for recovery: what it says of each transaction and of each ref.

use std::collections::HashMap;

use crate::git::RefName;
use crate::state::TxId;
use crate::wal::{Begin, Body, Outcome, Record, RefChange, Scan};

/// How the log says that a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogOutcome {
    /// The log does not say.
    None,
    /// `committed`, or recovery found all of it applied.
    Committed,
    /// `aborted`, part of another one, or taken back by recovery.
    Closed,
    /// Recovery left it to a human.
    NeedsHuman,
}

/// The newest words of the log on each ref.
pub(crate) struct History<'l> {
    records: &'l [Record],
    by_ref: HashMap<&'l RefName, Vec<usize>>,
}

impl<'l> History<'l> {
    /// Indexes `records` (in the order of the log).
    pub(crate) fn new(records: &'l [Record]) -> Self {
        let mut by_ref: HashMap<&RefName, Vec<usize>> = HashMap::new();
        for (at, record) in records.iter().enumerate() {
            for name in names(&record.body) {
                by_ref.entry(name).or_default().push(at);
            }
        }
        History { records, by_ref }
    }

    /// The `begin` of a transaction, with its place.
    pub(crate) fn begin(&self, id: TxId) -> Option<(usize, &'l Begin)> {
        self.records.iter().enumerate().rev().find_map(|(at, record)| match &record.body {
            // What was read under the locks says more than what was read before.
            Body::Begin(begin) | Body::Decided(begin) if record.tx == Some(id) => Some((at, begin.as_ref())),
            _ => None,
        })
    }

    /// Is the transaction past its commit point?
    pub(crate) fn is_decided(&self, id: TxId) -> bool {
        self.records.iter().any(|r| r.tx == Some(id) && matches!(r.body, Body::Decided(_)))
    }

    /// How the log says that `id` ended, after its `begin`.
    pub(crate) fn ending(&self, id: TxId, begin_at: usize) -> LogOutcome {
        let mine = self.records[begin_at..].iter().rev().filter(|r| r.tx == Some(id));
        let ending = mine.filter_map(|r| match &r.body {
            Body::Committed { .. } => Some(LogOutcome::Committed),
            Body::Aborted | Body::Absorbed { .. } => Some(LogOutcome::Closed),
            Body::Recovered { outcome, .. } => Some(match outcome {
                Outcome::Committed => LogOutcome::Committed,
                Outcome::RolledBack | Outcome::Acknowledged => LogOutcome::Closed,
                Outcome::NeedsHuman => LogOutcome::NeedsHuman,
            }),
            _ => None,
        });
        ending.into_iter().next().unwrap_or(LogOutcome::None)
    }

    /// Did git give this transaction up before it changed anything?
    pub(super) fn was_aborted(&self, id: TxId) -> bool {
        self.records.iter().any(|r| r.tx == Some(id) && matches!(r.body, Body::Aborted))
    }

    /// Has another transaction, which holds all that it lists, the very lock that `id` lists for this ref? A batched one lists
    /// refs that it could not lock as well, and then the lock that is there is somebody else's.
    pub(super) fn is_lock_of_another(&self, id: TxId, change: &RefChange) -> bool {
        let places = self.by_ref.get(&change.name).map_or(&[][..], Vec::as_slice);
        places.iter().map(|place| &self.records[*place]).filter(|record| record.tx != Some(id)).any(|record| {
            let other = record.body.word().filter(|begin| !begin.batched);
            let same = |c: &RefChange| c.name == change.name && c.lock.is_some() && c.lock == change.lock;
            other.is_some_and(|begin| begin.refs.iter().any(same))
        })
    }

    /// Records after `at` that speak of `name`.
    pub(super) fn later(&self, name: &RefName, at: usize) -> impl Iterator<Item = &'l Record> {
        let places = self.by_ref.get(name).map_or(&[][..], Vec::as_slice);
        let records = self.records;
        places.iter().filter(move |p| **p > at).map(move |p| &records[*p])
    }
}

fn names(body: &Body) -> Vec<&RefName> {
    if let Some(begin) = body.word() {
        return begin.refs.iter().map(|c| &c.name).collect();
    }
    match body {
        Body::Committed { refs }
        | Body::Moved { refs }
        | Body::Recovered { refs, .. }
        | Body::Baseline { refs, .. } => refs.iter().map(|s| &s.name).collect(),
        _ => Vec::new(),
    }
}

/// Damaged places of the log, one line each.
pub(crate) fn describe_damage(scan: &Scan) -> Vec<String> {
    scan.damage.iter().map(ToString::to_string).collect()
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
