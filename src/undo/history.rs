//! Which transactions of a log can be reversed, and what each changed: a pure function of the log.

use std::collections::HashMap;

use crate::fs::Birth;
use crate::git::refs::RefSnapshot;
use crate::git::{RefName, Value};
use crate::run::child_transactions::{self, Move};
use crate::state::{TxId, TxKind};
use crate::undo::goes_on_by_itself;
use crate::undo::refusal::Refusal;
use crate::undo::rename::{self, RenameStep};
use crate::undo::stash::{self, Kind, StashStep};
use crate::wal::{Begin, Body, Checkout, Doer, FileChange, Operations, Outcome, Place, Record, Reversal};

/// Refs that `doctor` makes and deletes again: nobody's work, so never the newest transaction to take back.
const SCRATCH: &str = "refs/jin-txn/";

const FILES: &str = "it replaced what index or worktree had, and no hook was called before";

const HEAD_UNKNOWN: &str = "it moved HEAD, and the log does not say from where";

const OF_A_REFTABLE: &str = "the log has no earlier values of a reftable";

const NO_REF: &str = "it changed no ref";

/// The transactions of a log that can be reversed.
pub(super) struct History<'l> {
    /// Operations, by their first transaction.
    pub(super) steps: HashMap<TxId, Result<Changes<'l>, Refusal>>,
    pub(super) done: Vec<TxId>,
    pub(super) undone: Vec<TxId>,
    /// What was undone, and an operation that was done behind that.
    since: Vec<(TxId, TxId)>,
    pub(super) operations: Operations<'l>,
    /// The first transaction of each.
    begins: HashMap<TxId, &'l Begin>,
    /// Who made those that have none.
    doers: HashMap<TxId, &'l Doer>,
    /// What the parts of operations did.
    parts: HashMap<TxId, Vec<Part<'l>>>,
    head: Option<&'l RefSnapshot>,
}

/// What one of them changed.
pub(super) struct Changes<'l> {
    /// The worktree's git directory, as the log has it.
    pub(super) worktree: &'l str,
    /// The command line.
    pub(super) operation: &'l str,
    /// Each ref, before and after.
    pub(super) refs: Vec<(RefName, Value, Value)>,
    pub(super) files: &'l [FileChange],
    /// The moves of the worktree's HEAD, oldest first.
    pub(super) heads: Vec<HeadRecord>,
    pub(super) stash: Option<StashStep>,
    pub(super) rename: Option<RenameStep>,
}

/// One transaction that moved HEAD, or the branch that HEAD meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeadRecord {
    /// The value of HEAD, or of its branch.
    pub before: Value,
    pub after: Value,
    /// The size of HEAD's reflog before: the line behind it says why HEAD moved. A move outside of any transaction has none.
    pub log: LogPlace,
    /// The command line of the git that did it.
    pub operation: String,
    /// An `apply` made it.
    pub is_ours: bool,
}

/// Where a reflog has the line about a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogPlace {
    /// Behind that size; `None` when there was no reflog.
    Behind(Option<u64>),
    /// It is unknown where.
    Unknown,
}

impl<'l> Changes<'l> {
    /// Of an operation that has no transaction.
    fn of_checkout(by: &'l Doer) -> Changes<'l> {
        let operation = by.root.as_ref().map_or(&by.operation, |root| &root.operation);
        let (refs, heads) = (Vec::new(), Vec::new());
        Changes { worktree: &by.worktree, operation, refs, files: &[], heads, stash: None, rename: None }
    }

    /// Of a rename that these transactions made, if they did. Its new name and HEAD may have changed outside of them.
    fn of_rename(begins: &[&'l Begin]) -> Result<Option<Changes<'l>>, String> {
        let (Some(rename), Some(begin)) = (rename::of(begins)?, begins.first()) else { return Ok(None) };
        let RenameStep { old, new, value, .. } = &rename;
        let symref = |name: &RefName| Value::Symref(name.clone());
        let mut refs = vec![(old.clone(), value.clone(), Value::Absent), (new.clone(), Value::Absent, value.clone())];
        refs.extend(rename.head.iter().map(|head| (head.clone(), symref(old), symref(new))));
        let (worktree, operation) = (begin.worktree.as_str(), command(begin));
        let rename = Some(rename);
        Ok(Some(Changes { worktree, operation, refs, files: &[], heads: Vec::new(), stash: None, rename }))
    }

    /// HEAD has moved as well, outside of any transaction.
    fn with_checkout(mut self, by: &Doer, name: &RefName, before: &Value, after: &Value) -> Changes<'l> {
        self.refs.push((name.clone(), before.clone(), after.clone()));
        self.heads.push(HeadRecord {
            before: before.clone(),
            after: after.clone(),
            log: LogPlace::Unknown,
            operation: by.operation.clone(),
            is_ours: false,
        });
        self
    }
}

/// The notes of a checkout are transactions, too.
fn is_without_refs(step: &Result<Changes<'_>, Refusal>) -> bool {
    matches!(step, Err(Refusal::NotReversible(_, why)) if why == NO_REF)
}

/// The move of HEAD in a transaction.
fn head_record(begin: &Begin, settled: &[RefSnapshot]) -> Option<HeadRecord> {
    let head = begin.head.as_ref()?;
    let of = |name: &RefName| begin.refs.iter().find(|c| c.name == *name && is_settled(name, settled));
    let (change, log) = match (of(&head.name), &head.value) {
        (Some(change), _) => (change, change.log),
        (None, Value::Symref(branch)) => {
            let log = begin.watched.iter().find(|w| w.name == head.name).and_then(|w| w.log);
            (of(branch)?, log)
        }
        _ => return None,
    };
    Some(HeadRecord {
        before: change.before.clone()?,
        after: change.after.clone(),
        log: LogPlace::Behind(log),
        operation: begin.operation.clone(),
        is_ours: begin.origin == TxKind::Apply,
    })
}

/// What a part of an operation did. One of a run counts as soon as the run does, and with it.
enum Part<'l> {
    Made {
        begin: &'l Begin,
        settled: &'l [RefSnapshot],
    },
    /// HEAD, as a checkout left it. Up to 2.45 git moves it from branch to branch outside of any transaction.
    CheckedOut(&'l RefSnapshot),
    Reversal(Reversal),
}

impl<'l> History<'l> {
    /// `head` is this worktree's HEAD as it is now.
    pub(super) fn of(records: &'l [Record], head: Option<&'l RefSnapshot>) -> History<'l> {
        let mut begins: HashMap<TxId, &Begin> = HashMap::new();
        let mut history = History {
            steps: HashMap::new(),
            done: Vec::new(),
            undone: Vec::new(),
            since: Vec::new(),
            operations: Operations::of(records),
            begins: HashMap::new(),
            doers: HashMap::new(),
            parts: HashMap::new(),
            head,
        };
        for record in records {
            if let Body::Checkout(Checkout { by: Some(by), .. }) = &record.body {
                history.check_out(by);
            }
            if let Body::Checkout(now) = &record.body
                && let (Some(run), Some(head)) = (now.part_of, &now.head)
            {
                history.parts.entry(run).or_default().push(Part::CheckedOut(head));
            }
            let Some(id) = record.tx else { continue };
            let settled = match &record.body {
                Body::Begin(begin) | Body::Decided(begin) => {
                    begins.insert(id, begin);
                    continue;
                }
                Body::Committed { refs } | Body::Recovered { refs, outcome: Outcome::Committed, .. } => refs,
                _ => continue,
            };
            // A second ending (recovery of what was committed) says nothing new.
            let Some(begin) = begins.remove(&id) else { continue };
            if begin.refs.iter().all(|c| c.name.as_bytes().starts_with(SCRATCH.as_bytes()))
                && begin.origin == TxKind::Hook
            {
                continue;
            }
            history.begins.entry(history.operations.id(id)).or_insert(begin);
            match (begin.origin, begin.reverses, begin.part_of) {
                (TxKind::Run, ..) => history.end_run(id, begin, records, settled),
                (_, Some(reversal), None) => history.reverse(reversal),
                (_, Some(reversal), Some(run)) => {
                    history.parts.entry(run).or_default().push(Part::Reversal(reversal));
                }
                (_, None, Some(run)) => {
                    history.parts.entry(run).or_default().push(Part::Made { begin, settled });
                }
                (TxKind::Hook, None, None) => {
                    let operation = history.operations.id(id);
                    history.parts.entry(operation).or_default().push(Part::Made { begin, settled });
                    history.do_newest(operation);
                }
                (_, None, None) => {
                    history.steps.insert(id, changes(begin, settled).map_err(|why| not_reversible(id, &why)));
                    history.do_newest(id);
                }
            }
        }
        history.sum_up(records);
        history
    }

    /// The command line of an operation.
    pub(super) fn command(&self, id: TxId) -> Option<&'l str> {
        let doer = || self.doers.get(&id).map(|by| by.root.as_ref().map_or(&by.operation, |r| &r.operation).as_str());
        self.begins.get(&id).map(|begin| command(begin)).or_else(doer)
    }

    /// A checkout that no transaction tells.
    fn check_out(&mut self, by: &'l Doer) {
        let operation = self.operations.id(by.id);
        if self.operations.checkouts.iter().any(|it| it.by.id == by.id) {
            self.doers.entry(operation).or_insert(by);
            self.do_newest(operation);
        }
    }

    /// Was it made in this worktree, by the name of its git directory and by which directory that was? Names are used again.
    pub(super) fn is_of(&self, id: TxId, (name, birth): &(String, Option<Birth>)) -> bool {
        let begin = self.begins.get(&id).map(|begin| (&begin.worktree, begin.worktree_birth));
        let made_in = begin.or_else(|| self.doers.get(&id).map(|by| (&by.worktree, by.worktree_birth)));
        made_in.is_some_and(|(worktree, made_in)| {
            let is_another = made_in.zip(*birth).is_some_and(|(one, other)| one.is_another(&other));
            worktree == name && !is_another
        })
    }

    fn do_newest(&mut self, operation: TxId) {
        [&mut self.done, &mut self.undone].into_iter().for_each(|side| side.retain(|tx| *tx != operation));
        self.done.push(operation);
        self.since.extend(self.undone.iter().map(|undone| (*undone, operation)));
    }

    /// The operations that are neither runs nor transactions of ours.
    fn sum_up(&mut self, records: &'l [Record]) {
        for (id, parts) in std::mem::take(&mut self.parts) {
            let is_known = self.done.contains(&id) || self.undone.contains(&id);
            let Some(Part::Made { begin, settled }) = parts.first().filter(|_| is_known) else { continue };
            let step = if let [_] = parts.as_slice() {
                changes(begin, settled)
            } else {
                let moves = child_transactions::moves_of(records, |tx| self.operations.id(tx) == id);
                match moves.iter().find(|moved| moved.interrupted) {
                    Some(moved) => Err(format!("somebody else moved {} between its parts", moved.name)),
                    None => changes_of_all(begin, &moves, &parts, self.head),
                }
            };
            self.steps.insert(id, step.map_err(|why| not_reversible(id, &why)));
        }
        for checkout in &self.operations.checkouts {
            let id = checkout.operation;
            match &checkout.what {
                // `stash -k` checks out what was staged.
                Place::Files if self.keeps_index(id) => {}
                Place::Files => drop(self.steps.insert(id, Err(not_reversible(id, FILES)))),
                Place::Head { name, before: Some(before), after } => {
                    let step = self.steps.remove(&id).filter(|step| !is_without_refs(step));
                    let step = step.unwrap_or_else(|| Ok(Changes::of_checkout(checkout.by)));
                    self.steps.insert(id, step.map(|step| step.with_checkout(checkout.by, name, before, after)));
                }
                Place::Head { before: None, .. } => {
                    self.steps.insert(id, Err(not_reversible(id, HEAD_UNKNOWN)));
                }
            }
        }
    }

    fn keeps_index(&self, operation: TxId) -> bool {
        let keeps = |stash: StashStep| matches!(stash.kind, Kind::Push { keeps_index: true, .. });
        let step = self.steps.get(&operation).and_then(|step| step.as_ref().ok());
        step.and_then(|changes| changes.stash).is_some_and(keeps)
    }

    /// The newest operation of this worktree that came behind the undo of `undone` and still is done, but for those that go on by
    /// themselves.
    pub(super) fn newer_than_undo(&self, undone: TxId, worktree: &(String, Option<Birth>)) -> Option<TxId> {
        let is_own = |id: &&TxId| !goes_on_by_itself(self.command(**id).unwrap_or_default());
        let newer = self.since.iter().filter(|(it, _)| *it == undone).map(|(_, newer)| newer);
        newer.filter(|id| self.done.contains(id)).filter(is_own).rfind(|id| self.is_of(**id, worktree)).copied()
    }

    fn reverse(&mut self, reversal: Reversal) {
        let (Reversal::Undo(other) | Reversal::Redo(other)) = reversal;
        self.since.retain(|(undone, _)| *undone != other);
        match reversal {
            Reversal::Undo(other) => {
                self.done.retain(|tx| *tx != other);
                self.undone.push(other);
            }
            Reversal::Redo(other) => {
                self.undone.retain(|tx| *tx != other);
                self.done.push(other);
            }
        }
    }

    /// A run was kept: all of its parts are one step, over which each ref went from where the first found it to where the last
    /// left it. What a single part is does not matter.
    fn end_run(&mut self, id: TxId, begin: &'l Begin, records: &'l [Record], unseen: &[RefSnapshot]) {
        let parts = self.parts.remove(&id).unwrap_or_default();
        for part in &parts {
            if let Part::Reversal(reversal) = part {
                self.reverse(*reversal);
            }
        }
        let step = match unseen.first() {
            Some(unseen) => Err(Refusal::Unseen(id, unseen.name.clone())),
            None => {
                let moves = child_transactions::moves(records, id);
                changes_of_all(begin, &moves, &parts, self.head).map_err(|why| not_reversible(id, &why))
            }
        };
        self.steps.insert(id, step);
        self.do_newest(id);
    }
}

fn not_reversible(id: TxId, why: &str) -> Refusal {
    Refusal::NotReversible(id, why.to_owned())
}

/// Is all that it did known as values of refs that we write?
fn require_known(begin: &Begin) -> Result<(), String> {
    match begin.left.first() {
        Some(name) => Err(format!("it changed `{name}`, a name that jin-txn does not write")),
        None => Ok(()),
    }
}

/// What a transaction changed, or why that is more than values of refs.
fn changes<'l>(begin: &'l Begin, settled: &[RefSnapshot]) -> Result<Changes<'l>, String> {
    require_known(begin)?;
    if let Some(renamed) = Changes::of_rename(&[begin])? {
        return Ok(renamed);
    }
    let mut refs = Vec::new();
    for change in begin.refs.iter().filter(|c| is_settled(&c.name, settled)) {
        let before = change.before.as_ref().ok_or(OF_A_REFTABLE)?;
        refs.extend(change_of(&change.name, before, &change.after)?);
    }
    let stash = stash::of(&[begin])?;
    let (files, heads) = (begin.files.as_slice(), head_record(begin, settled).into_iter().collect());
    if refs.is_empty() && files.is_empty() {
        Err(NO_REF.to_owned())
    } else {
        let (worktree, operation) = (begin.worktree.as_str(), command(begin));
        Ok(Changes { worktree, operation, refs, files, heads, stash, rename: None })
    }
}

fn command(begin: &Begin) -> &str {
    begin.root.as_ref().map_or(&begin.operation, |root| &root.operation)
}

/// The same of an operation with these parts.
fn changes_of_all<'l>(
    begin: &'l Begin,
    moves: &[Move],
    parts: &[Part<'l>],
    head: Option<&RefSnapshot>,
) -> Result<Changes<'l>, String> {
    let mut heads: HashMap<&RefName, (&Value, &Value)> = HashMap::new();
    let mut moves_of_head = Vec::new();
    for part in parts {
        match part {
            Part::Made { begin, settled } => {
                require_known(begin)?;
                moves_of_head.extend(head_record(begin, settled));
                for change in begin.refs.iter().filter(|c| is_settled(&c.name, settled)) {
                    let before = change.before.as_ref().ok_or(OF_A_REFTABLE)?;
                    if change.name.is_head() {
                        heads.entry(&change.name).or_insert((before, before)).1 = &change.after;
                    }
                }
            }
            Part::CheckedOut(head) => {
                let before = begin.head.as_ref().filter(|before| before.name == head.name).unwrap_or(head);
                heads.entry(&head.name).or_insert((&before.value, &before.value)).1 = &head.value;
            }
            Part::Reversal(_) => {}
        }
    }
    let made = parts.iter().filter_map(|part| if let Part::Made { begin, .. } = part { Some(*begin) } else { None });
    let made: Vec<&Begin> = made.collect();
    if let Some(renamed) = Changes::of_rename(&made)? {
        return Ok(renamed);
    }
    let stash = stash::of(&made)?;
    let mut refs = Vec::new();
    let is_back = |name: &RefName, before: &Value| head.is_some_and(|now| now.name == *name && now.value == *before);
    for (name, (before, after)) in heads.into_iter().filter(|(_, (before, after))| before != after) {
        match (before, after) {
            // Up to 2.45 a rebase that has detached HEAD takes it back to its branch outside of any transaction.
            (Value::Symref(_), Value::Oid(_)) if is_back(name, before) => continue,
            _ => refs.push((name.clone(), before.clone(), after.clone())),
        }
    }
    for moved in moves {
        refs.extend(change_of(&moved.name, &moved.before, &moved.after)?);
    }
    // Files are the worktree's, as those of any command.
    if refs.is_empty() {
        Err(NO_REF.to_owned())
    } else {
        let (worktree, operation) = (begin.worktree.as_str(), command(begin));
        Ok(Changes { worktree, operation, refs, files: &[], heads: moves_of_head, stash, rename: None })
    }
}

fn is_settled(name: &RefName, settled: &[RefSnapshot]) -> bool {
    settled.iter().any(|s| s.name == *name)
}

/// The change of one ref, if it is one of values. Notes (ORIG_HEAD, AUTO_MERGE) belong to the command, not to its result.
fn change_of(name: &RefName, before: &Value, after: &Value) -> Result<Option<(RefName, Value, Value)>, String> {
    let is_note = !name.is_below_refs() && !name.is_head();
    match (before, after) {
        _ if is_note => Ok(None),
        (Value::Symref(_), Value::Symref(_) | Value::Oid(_)) | (Value::Oid(_), Value::Symref(_)) if name.is_head() => {
            Ok(Some((name.clone(), before.clone(), after.clone())))
        }
        (Value::Oid(_) | Value::Absent, Value::Oid(_) | Value::Absent) => {
            Ok(Some((name.clone(), before.clone(), after.clone())))
        }
        _ => Err("it changed a symbolic ref".to_owned()),
    }
}
