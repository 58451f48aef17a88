//! Which transactions of a log are one operation: those of gits with the same root, and those of one sequence (a rebase, am,
//! cherry-pick, revert or bisect that stops and is continued). A pure function of the log.
//!
//! A run with its parts, an apply, an undo: each is an operation of its own, and its transactions say so themselves.
//!
//! A `checkout` record is part of an operation, or one of its own: `checkout -- FILE`, `reset --hard` to where HEAD is, and up to
//! git 2.45 every switch of branches move no ref in a transaction.

use std::collections::{HashMap, HashSet};

use crate::git::{RefName, Value};
use crate::process::operation::{Root, command_of};
use crate::process::owner::{Owner, Process};
use crate::state::{TxId, TxKind};
use crate::wal::{Begin, Body, Checkout, Doer, Outcome, Record, Sequence};

/// So long after its last transaction a process counts as at the next operation, in seconds: one that waits for commands
/// (an editor, a shell) has an hour.
const PAUSE: u64 = 3600;

/// Commands that a sequence consists of. Whatever else somebody does while one has stopped is an operation of its own.
const SEQUENTIAL: [&str; 8] = ["am", "bisect", "cherry-pick", "commit", "pull", "rebase", "reset", "revert"];

/// The operations of a log.
#[derive(Debug, Default)]
pub(crate) struct Operations<'l> {
    first: HashMap<TxId, TxId>,
    /// What `checkout` records say, by operation, in the order of the log.
    pub(crate) checkouts: Vec<CheckedOut<'l>>,
}

/// What a `checkout` record says.
#[derive(Debug)]
pub(crate) struct CheckedOut<'l> {
    /// The operation.
    pub(crate) operation: TxId,
    /// Unix time in seconds.
    pub(crate) time: u64,
    /// Who made it.
    pub(crate) by: &'l Doer,
    pub(crate) what: Place,
}

/// What a checkout did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Files of the worktree, or the index, were replaced; HEAD stays.
    Files,
    /// HEAD moved outside of any transaction. `before` is what the log knew of it.
    Head { name: RefName, before: Option<Value>, after: Value },
}

/// A root: boot, pid namespace, process.
type Key<'l> = (&'l str, u64, Process);

#[derive(Default)]
struct Grouping<'l> {
    by_root: HashMap<Key<'l>, (TxId, u64)>,
    by_sequence: HashMap<(&'l str, &'l Sequence), TxId>,
    heads: HashMap<RefName, Value>,
    /// Renames of branches, from and to. git takes the HEADs along outside of any transaction.
    renames: HashMap<TxId, (Value, Value)>,
    /// Those that were committed.
    renamed: HashSet<TxId>,
    found: Operations<'l>,
}

impl<'l> Operations<'l> {
    /// Groups the transactions of `records`.
    pub(crate) fn of(records: &'l [Record]) -> Operations<'l> {
        let mut grouping = Grouping::default();
        for record in records {
            match (&record.body, record.tx) {
                (Body::Begin(begin) | Body::Decided(begin), Some(id)) => grouping.begin(id, begin, record.time),
                (Body::Committed { refs } | Body::Recovered { refs, .. } | Body::Baseline { refs, .. }, _) => {
                    let heads = refs.iter().filter(|now| now.name.is_head());
                    grouping.heads.extend(heads.map(|now| (now.name.clone(), now.value.clone())));
                    grouping.rename(record);
                }
                (Body::Checkout(checkout), _) => grouping.checkout(checkout, record.time),
                _ => {}
            }
        }
        grouping.found
    }

    /// The operation of a transaction, by its first one.
    pub(crate) fn id(&self, transaction: TxId) -> TxId {
        self.first.get(&transaction).copied().unwrap_or(transaction)
    }
}

impl<'l> Grouping<'l> {
    fn begin(&mut self, id: TxId, begin: &'l Begin, time: u64) {
        if let Some(head) = &begin.head {
            self.heads.insert(head.name.clone(), head.value.clone());
        }
        let moves_heads = begin.rename.as_ref().is_some_and(|rename| !rename.alone);
        if let Some((old, new)) = begin.renamed().filter(|_| moves_heads) {
            self.renames.insert(id, (Value::Symref(old.name.clone()), Value::Symref(new.clone())));
        }
        if is_shared(begin) {
            let (operation, sequence) =
                (begin.root.as_ref().map_or(&begin.operation, |r| &r.operation), &begin.sequence);
            let is_part = command_of(operation).is_some_and(|command| SEQUENTIAL.contains(&command.as_str()));
            let sequence = sequence.as_ref().filter(|_| is_part).map(|it| (begin.worktree.as_str(), it));
            self.group(id, key(&begin.owner, begin.root.as_ref()), sequence, time);
        }
    }

    /// A rename that was committed takes HEADs along; one that recovery took back brings them back.
    fn rename(&mut self, record: &Record) {
        let Some((tx, (old, new))) = record.tx.and_then(|tx| Some((tx, self.renames.get(&tx)?))) else { return };
        let goes_back = matches!(&record.body, Body::Recovered { outcome, .. } if *outcome != Outcome::Committed);
        // A second word that it was committed says nothing new.
        if !self.renamed.insert(tx) && !goes_back {
            return;
        }
        let (from, to) = if goes_back { (new, old) } else { (old, new) };
        self.heads.values_mut().filter(|head| *head == from).for_each(|head| *head = to.clone());
    }

    fn checkout(&mut self, checkout: &'l Checkout, time: u64) {
        let before = checkout.head.as_ref().and_then(|h| self.heads.insert(h.name.clone(), h.value.clone()));
        let Some(by) = checkout.by.as_deref().filter(|_| checkout.part_of.is_none()) else { return };
        let what = match &checkout.head {
            _ if !checkout.branch => Place::Files,
            Some(head) if before.as_ref() != Some(&head.value) => {
                Place::Head { name: head.name.clone(), before, after: head.value.clone() }
            }
            // A transaction has moved HEAD, or nothing has.
            _ => return,
        };
        self.group(by.id, key(&by.owner, by.root.as_ref()), None, time);
        let operation = self.found.id(by.id);
        self.found.checkouts.push(CheckedOut { operation, time, by, what });
    }

    fn group(&mut self, id: TxId, key: Key<'l>, sequence: Option<(&'l str, &'l Sequence)>, time: u64) {
        let (operation, last) = self.by_root.entry(key).or_insert((id, time));
        if time.saturating_sub(*last) > PAUSE {
            *operation = id;
        }
        *last = time;
        if let Some(sequence) = sequence {
            *operation = *self.by_sequence.entry(sequence).or_insert(*operation);
        }
        self.found.first.insert(id, *operation);
    }
}

/// Can other transactions belong to the same operation?
fn is_shared(begin: &Begin) -> bool {
    begin.origin == TxKind::Hook && begin.part_of.is_none() && begin.reverses.is_none()
}

fn key<'l>(owner: &'l Owner, root: Option<&Root>) -> Key<'l> {
    (&owner.place.boot, owner.place.pidns, root.map_or(owner.process, |root| root.process))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::operation::Root;
    use crate::process::owner::{ExecContext, Owner};

    fn begun(id: u64, time: u64, pid: u32, root: Option<u32>, boot: &str) -> Record {
        let process = |pid| Process { pid, start: 1 };
        let place = ExecContext { boot: boot.to_owned(), host: "h".to_owned(), pidns: 1 };
        let begin = Begin {
            root: root.map(|pid| Root { process: process(pid), operation: "git".to_owned() }),
            ..Begin::new(TxKind::Hook, "git", Owner { process: process(pid), place }, process(9))
        };
        Record { lsn: id, tx: Some(TxId(id)), time, body: Body::Begin(Box::new(begin)) }
    }

    #[test]
    fn a_sequence_that_stopped_and_was_continued_is_one_operation_and_what_else_was_done_meanwhile_is_not() {
        let of = |id, pid, operation: &str, ino: Option<u64>| {
            let mut record = begun(id, id, pid, None, "a");
            if let Body::Begin(begin) = &mut record.body {
                begin.operation = operation.to_owned();
                let birth = |ino| crate::fs::Birth { ino, born: Some(1) };
                begin.sequence = ino.map(|ino| Sequence { name: "rebase-merge".to_owned(), birth: birth(ino) });
            }
            record
        };
        let records = [
            of(1, 50, "git rebase main", None),
            of(2, 50, "git rebase main", Some(7)),
            of(3, 60, "git tag x", Some(7)),
            of(4, 70, "git commit -m resolved", Some(7)),
            of(5, 80, "git -c a=b rebase --continue", Some(7)),
            of(6, 80, "git -c a=b rebase --continue", None),
            of(7, 90, "git rebase other", Some(8)),
        ];
        let operations = Operations::of(&records);
        let found: Vec<u64> = (1..=7).map(|id| operations.id(TxId(id)).0).collect();
        assert_eq!(found, [1, 1, 3, 1, 1, 1, 7]);
    }

    #[test]
    fn transactions_of_one_root_are_one_operation_for_as_long_as_it_is_at_work() {
        let records = [
            begun(1, 0, 50, None, "a"),
            begun(2, 5, 60, Some(50), "a"),
            begun(3, 6, 70, None, "a"),
            begun(4, 3605, 50, None, "a"),
            begun(5, 7206, 50, None, "a"),
            begun(6, 7207, 50, None, "b"),
            begun(7, 7208, 61, Some(50), "a"),
        ];
        let operations = Operations::of(&records);
        let found: Vec<u64> = (1..=8).map(|id| operations.id(TxId(id)).0).collect();
        assert_eq!(found, [1, 1, 3, 1, 5, 6, 5, 8]);
    }
}
