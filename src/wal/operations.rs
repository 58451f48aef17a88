//! Which transactions of a log are one operation: those of gits with the same root. A pure function of the log.
//!
//! A run with its parts, an apply, an undo: each is an operation of its own, and its transactions say so themselves.

use std::collections::HashMap;

use crate::process::owner::Process;
use crate::state::{TxId, TxKind};
use crate::wal::{Begin, Body, Record};

/// So long after its last transaction a process counts as at the next operation, in seconds: one that waits for commands
/// (an editor, a shell) has an hour.
const PAUSE: u64 = 3600;

/// The operations of a log.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    first: HashMap<TxId, TxId>,
}

/// A root: boot, pid namespace, process.
type Key<'l> = (&'l str, u64, Process);

impl Operations {
    /// Groups the transactions of `records`.
    pub(crate) fn of(records: &[Record]) -> Operations {
        let mut latest: HashMap<Key<'_>, (TxId, u64)> = HashMap::new();
        let mut first = HashMap::new();
        for record in records {
            let (Some(id), Body::Begin(begin)) = (record.tx, &record.body) else { continue };
            if !is_shared(begin) {
                continue;
            }
            let (operation, last) = latest.entry(key(begin)).or_insert((id, record.time));
            if record.time.saturating_sub(*last) > PAUSE {
                *operation = id;
            }
            *last = record.time;
            first.insert(id, *operation);
        }
        Operations { first }
    }

    /// The operation of a transaction, by its first one.
    pub(crate) fn id(&self, transaction: TxId) -> TxId {
        self.first.get(&transaction).copied().unwrap_or(transaction)
    }
}

/// Can other transactions belong to the same operation?
fn is_shared(begin: &Begin) -> bool {
    begin.origin == TxKind::Hook && begin.part_of.is_none() && begin.reverses.is_none()
}

fn key(begin: &Begin) -> Key<'_> {
    let place = &begin.owner.place;
    let process = begin.root.as_ref().map_or(begin.owner.process, |root| root.process);
    (&place.boot, place.pidns, process)
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
