//! What the transactions of a run did to refs: a pure function of the log.
//!
//! A part is a transaction that the run's command made; the hook has linked it. Of refs that somebody else moved in
//! between, the run gives back what that one had made of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::git::refs::RefSnapshot;
use crate::git::{RefName, Value};
use crate::state::{TxId, TxKind};
use crate::wal::{Begin, Body, Outcome, Record};

/// One ref that a run moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    /// The ref.
    pub name: RefName,
    /// What it was before; where it goes back to.
    pub before: Value,
    /// Where the run left it.
    pub after: Value,
    /// Every value that the run gave it or found there.
    pub values: Vec<Value>,
    /// The size of its reflog when the run first touched it.
    pub log: Option<u64>,
    /// Somebody else moved it after the run's last word.
    pub taken_over: bool,
    /// Somebody else moved it between two parts.
    pub interrupted: bool,
}

/// Does the ref belong to what a run takes back by its log? HEADs and pseudo-refs go with the worktree.
pub(crate) fn is_shared(name: &RefName) -> bool {
    name.is_below_refs()
}

/// The parts of the run `id`, oldest first, with what each changed and whether that came to be.
pub(crate) fn of(records: &[Record], id: TxId) -> Vec<(TxId, &Begin)> {
    let mut parts = Vec::new();
    for record in records {
        if let (Some(tx), Body::Begin(begin)) = (record.tx, &record.body)
            && begin.part_of == Some(id)
        {
            parts.push((tx, begin.as_ref()));
        }
    }
    parts
}

/// The HEADs that the run `id` moved or made, of whichever worktree.
pub(crate) fn heads(records: &[Record], id: TxId) -> HashSet<RefName> {
    let moved = of(records, id).into_iter().flat_map(|(_, begin)| begin.refs.iter().map(|c| c.name.clone()));
    // Up to 2.45 git makes a worktree's HEAD outside of any transaction, but tells the post-checkout hook.
    let checked_out = records.iter().filter_map(|record| match &record.body {
        Body::Checkout(checkout) if checkout.part_of == Some(id) => checkout.head.as_ref().map(|h| h.name.clone()),
        _ => None,
    });
    moved.chain(checked_out).filter(RefName::is_head).collect()
}

/// What the run `id` did to refs, in the order in which it first touched them.
pub(crate) fn moves(records: &[Record], id: TxId) -> Vec<Move> {
    let begun = records.iter().position(|r| r.tx == Some(id) && matches!(r.body, Body::Begin(_))).unwrap_or(0);
    let records = &records[begun..];
    let end = records.iter().position(|r| r.tx == Some(id) && is_over(&r.body)).unwrap_or(records.len());
    moves_in(&records[..end], |_, begin| begin.part_of == Some(id))
}

/// The same of transactions that are one operation.
pub(crate) fn moves_of(records: &[Record], is_part: impl Fn(TxId) -> bool) -> Vec<Move> {
    let is_of_one = |record: &Record| record.tx.is_some_and(&is_part);
    let begun = records.iter().position(is_of_one).unwrap_or(0);
    let end = records.iter().rposition(is_of_one).map_or(begun, |last| last + 1);
    moves_in(&records[begun..end], |tx, _| is_part(tx))
}

/// What others do when the last part has ended is nothing that could be taken back: it is not in `records`.
fn moves_in(records: &[Record], is_part: impl Fn(TxId, &Begin) -> bool) -> Vec<Move> {
    let mut open: HashMap<TxId, &Begin> = HashMap::new();
    let mut net = Net::default();
    for record in records {
        let Some(tx) = record.tx else { continue };
        match &record.body {
            Body::Begin(begin) | Body::Decided(begin) => {
                // Before it is decided our own transaction has not looked at reflogs.
                let looked = begin.origin == TxKind::Hook || matches!(record.body, Body::Decided(_));
                if is_part(tx, begin) && looked {
                    net.touch(begin);
                }
                open.insert(tx, begin);
            }
            Body::Committed { refs } | Body::Recovered { refs, outcome: Outcome::Committed, .. } => {
                let Some(begin) = open.remove(&tx) else { continue };
                if is_part(tx, begin) { net.part(begin, refs) } else { net.foreign(begin, refs) }
            }
            _ => {}
        }
    }
    let mut moves: Vec<(usize, Move)> = net.moves.into_values().collect();
    moves.retain(|(_, m)| m.before != m.after || m.taken_over);
    moves.sort_by_key(|(order, _)| *order);
    moves.into_iter().map(|(_, m)| m).collect()
}

/// What others made of refs.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// Their last word on each ref since the run began.
    pub since: HashMap<RefName, Value>,
    /// The same, with what stood in the log before: a transaction that ended while the snapshot was taken stands there.
    ever: HashMap<RefName, Value>,
    /// What transactions will make of refs that have not ended.
    open: HashMap<RefName, Vec<Value>>,
}

impl Others {
    /// Is the ref as they left it?
    pub(crate) fn explain(&self, name: &RefName, now: &Value) -> bool {
        let (said, open) = (self.ever.get(name), self.open.get(name));
        said == Some(now) || open.is_some_and(|values| values.contains(now))
    }
}

/// What others than the run `id` made of refs, until it ended.
pub(crate) fn others(records: &[Record], id: TxId) -> Others {
    let mut others = Others::default();
    let mut begun: HashMap<TxId, &Begin> = HashMap::new();
    let mut open: HashSet<TxId> = HashSet::new();
    let goes_back = |r: &&Record| matches!(r.body, Body::Recovered { outcome: Outcome::RolledBack, .. });
    let taken_back: HashSet<TxId> = records.iter().filter(goes_back).filter_map(|r| r.tx).collect();
    let mut has_begun = false;
    for record in records {
        let is_own = record.tx == Some(id);
        if is_own && has_begun && is_over(&record.body) {
            break;
        }
        has_begun |= is_own && matches!(record.body, Body::Begin(_));
        let mut say = |name: &RefName, value: &Value| {
            others.ever.insert(name.clone(), value.clone());
            if has_begun {
                others.since.insert(name.clone(), value.clone());
            }
        };
        match &record.body {
            Body::Begin(begin) | Body::Decided(begin) => {
                if let Some(tx) = record.tx.filter(|tx| *tx != id && begin.part_of != Some(id)) {
                    begun.insert(tx, begin);
                    open.insert(tx);
                }
            }
            Body::Baseline { refs, .. } => refs.iter().for_each(|s| say(&s.name, &s.value)),
            // Recovery may have the last word on what the hook had seen committed: half of a rename goes back.
            Body::Committed { refs } | Body::Recovered { refs, .. } => {
                let Some((tx, begin)) = record.tx.and_then(|tx| Some((tx, begun.get(&tx)?))) else { continue };
                let is_first = open.remove(&tx);
                // The name that a rename overwrites is deleted, and then made again.
                let made_again = begin.overwritten().filter(|_| matches!(record.body, Body::Committed { .. }));
                let settled = refs.iter().filter(|s| made_again != Some(&s.name));
                settled.for_each(|s| say(&s.name, &s.value));
                // Later words say nothing of the new name, which may be another's by then.
                if let Some((old, new)) = begin.renamed().filter(|_| is_first && !taken_back.contains(&tx))
                    && let Some(before) = &old.before
                {
                    say(new, before);
                }
            }
            body if body.is_terminal() => {
                if let Some(tx) = record.tx {
                    open.remove(&tx);
                }
            }
            _ => {}
        }
    }
    for begin in open.iter().map(|tx| begun[tx]) {
        for change in &begin.refs {
            others.open.entry(change.name.clone()).or_default().push(change.after.clone());
        }
        // Its hook may have been killed before it said that the deletion is done, and its git have gone on.
        if let Some((old, new)) = begin.renamed() {
            others.open.entry(new.clone()).or_default().extend(old.before.clone());
        }
    }
    others
}

/// The refs that changed while the run `id`, which was kept, was at work, and that no hook saw.
pub(crate) fn unseen(records: &[Record], id: TxId) -> &[RefSnapshot] {
    let is_run = |r: &Record| r.tx == Some(id) && matches!(&r.body, Body::Begin(begin) if begin.origin == TxKind::Run);
    if !records.iter().any(is_run) {
        return &[];
    }
    let kept = records.iter().rev().find_map(|record| match &record.body {
        Body::Committed { refs } if record.tx == Some(id) => Some(refs.as_slice()),
        _ => None,
    });
    kept.unwrap_or_default()
}

fn is_over(body: &Body) -> bool {
    match body {
        Body::Recovered { outcome, .. } => *outcome != Outcome::NeedsHuman,
        other => other.is_terminal(),
    }
}

/// Has somebody else moved the ref `name` since the run `id` began?
pub(crate) fn is_moved_by_others(records: &[Record], id: TxId, name: &RefName) -> bool {
    let begun = records.iter().position(|r| r.tx == Some(id) && matches!(r.body, Body::Begin(_))).unwrap_or(0);
    let others: HashSet<TxId> = records[begun..]
        .iter()
        .filter_map(|r| match &r.body {
            Body::Begin(begin) | Body::Decided(begin) if begin.part_of != Some(id) => r.tx,
            _ => None,
        })
        .collect();
    records[begun..].iter().any(|r| match &r.body {
        Body::Committed { refs } | Body::Recovered { refs, outcome: Outcome::Committed, .. } => {
            r.tx.is_some_and(|tx| others.contains(&tx)) && refs.iter().any(|s| s.name == *name)
        }
        _ => false,
    })
}

#[derive(Default)]
struct Net {
    moves: BTreeMap<RefName, (usize, Move)>,
    logs: HashMap<RefName, Option<u64>>,
}

impl Net {
    /// The reflog as the first part found it, whatever became of that part.
    fn touch(&mut self, begin: &Begin) {
        for change in begin.refs.iter().filter(|c| is_shared(&c.name)) {
            // A branch that is being renamed has no reflog any more: it is on its way under another name.
            let renamed = begin.rename.as_ref().and_then(|r| r.log).map(|log| log.size);
            self.logs.entry(change.name.clone()).or_insert(change.log.or(renamed));
        }
    }

    fn part(&mut self, begin: &Begin, settled: &[RefSnapshot]) {
        let came_to_be = |name: &RefName| settled.iter().any(|s| s.name == *name);
        for change in begin.refs.iter().filter(|c| is_shared(&c.name) && came_to_be(&c.name)) {
            let Some(before) = change.before.clone() else { continue };
            if let Some(to) = begin.rename.as_ref().and_then(|r| r.to.clone()) {
                // Made outside of any transaction, with the value of the old one.
                self.moved(&to, &Value::Absent, &before);
            }
            self.moved(&change.name, &before, &change.after);
        }
    }

    fn moved(&mut self, name: &RefName, before: &Value, after: &Value) {
        let (order, log) = (self.moves.len(), self.logs.get(name).copied().flatten());
        let fresh = || Move {
            name: name.clone(),
            before: before.clone(),
            after: before.clone(),
            values: vec![before.clone()],
            log,
            taken_over: false,
            interrupted: false,
        };
        let (_, known) = self.moves.entry(name.clone()).or_insert_with(|| (order, fresh()));
        known.after = after.clone();
        known.taken_over = false;
        known.values.push(after.clone());
    }

    /// Somebody else's word on a ref that the run had moved: whatever the run does next is built on that.
    fn foreign(&mut self, begin: &Begin, settled: &[RefSnapshot]) {
        for change in begin.refs.iter().filter(|c| settled.iter().any(|s| s.name == c.name)) {
            // Who gives it the value that it has (`git refs migrate`) moves nothing.
            if let Some((_, known)) = self.moves.get_mut(&change.name).filter(|(_, known)| known.after != change.after)
            {
                known.before = change.after.clone();
                known.after = change.after.clone();
                known.values = vec![change.after.clone()];
                (known.taken_over, known.interrupted) = (true, true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::Oid;
    use crate::process::owner::{ExecContext, Owner, Process};
    use crate::wal::RefChange;

    fn oid(digit: char) -> Value {
        Value::Oid(Oid::parse(digit.to_string().repeat(40).as_bytes()).unwrap())
    }

    fn name(text: &str) -> RefName {
        RefName::parse(text.as_bytes()).unwrap()
    }

    fn begin(origin: TxKind, part_of: Option<u64>, changes: &[(&str, Value, Value)]) -> Body {
        let process = Process { pid: 1, start: 1 };
        let change = |(n, before, after): &(&str, Value, Value)| RefChange {
            name: name(n),
            before: Some(before.clone()),
            after: after.clone(),
            file: None,
            lock: None,
            log: Some(7),
        };
        Body::Begin(Box::new(Begin {
            refs: changes.iter().map(change).collect(),
            part_of: part_of.map(TxId),
            ..Begin::new(
                origin,
                "git",
                Owner { process, place: ExecContext { boot: "b".into(), host: "h".into(), pidns: 1 } },
                process,
            )
        }))
    }

    /// The run that a transaction is part of, and what it changed.
    type Committed<'c> = (Option<u64>, &'c [(&'c str, Value, Value)]);

    /// A log with the run tx-1, and one committed transaction after the other.
    fn log(transactions: &[Committed<'_>]) -> Vec<Record> {
        let record = |lsn, tx, body| Record { lsn, tx: Some(TxId(tx)), time: 0, body };
        let mut records = vec![record(1, 1, begin(TxKind::Run, None, &[]))];
        for (index, (part_of, changes)) in transactions.iter().enumerate() {
            let tx = 2 + index as u64;
            let refs = changes.iter().map(|(n, _, to)| RefSnapshot { name: name(n), value: to.clone(), file: None });
            records.push(record(2 * tx, tx, begin(TxKind::Hook, *part_of, changes)));
            records.push(record(2 * tx + 1, tx, Body::Committed { refs: refs.collect() }));
        }
        records
    }

    #[test]
    fn a_ref_goes_back_over_all_parts_to_where_the_first_found_it() {
        let (a, b, c) = (oid('a'), oid('b'), oid('c'));
        let records = log(&[
            (Some(1), &[("refs/heads/x", a.clone(), b.clone())]),
            (Some(1), &[("refs/heads/x", b, c.clone()), ("refs/heads/y", Value::Absent, a.clone())]),
        ]);
        let found = moves(&records, TxId(1));
        let ends: Vec<_> = found.iter().map(|m| (m.name.to_string(), m.before.clone(), m.after.clone())).collect();
        assert_eq!(ends, [("refs/heads/x".into(), a.clone(), c), ("refs/heads/y".into(), Value::Absent, a)]);
        assert_eq!(found[0].log, Some(7));
    }

    #[test]
    fn what_is_back_where_it_was_is_no_move_and_other_runs_are_none_of_ours() {
        let (a, b) = (oid('a'), oid('b'));
        let records = log(&[
            (Some(1), &[("refs/heads/x", a.clone(), b.clone())]),
            (Some(1), &[("refs/heads/x", b.clone(), a.clone())]),
            (Some(9), &[("refs/heads/z", a.clone(), b.clone())]),
            (None, &[("refs/heads/w", a, b)]),
        ]);
        assert_eq!(moves(&records, TxId(1)), []);
    }

    #[test]
    fn what_somebody_else_made_of_a_ref_in_between_is_what_it_goes_back_to() {
        let (a, b, c, d) = (oid('a'), oid('b'), oid('c'), oid('d'));
        let steps: [Committed<'_>; 3] = [
            (Some(1), &[("refs/heads/x", a, b.clone())]),
            (None, &[("refs/heads/x", b, c.clone())]),
            (Some(1), &[("refs/heads/x", c.clone(), d.clone())]),
        ];
        let found = moves(&log(&steps[..2]), TxId(1));
        assert!(found[0].taken_over, "the other has the last word");
        let found = moves(&log(&steps), TxId(1));
        assert_eq!((&found[0].before, &found[0].after, found[0].taken_over), (&c, &d, false));
    }
}
