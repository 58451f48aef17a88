//! Several operations, one after the other: which those are, and whether they could go back as far as the log says.

use std::collections::HashMap;

use crate::git::refs::RefSnapshot;
use crate::git::{RefName, RefStore, Repository, Value};
use crate::state::TxId;
use crate::undo::history::History;
use crate::undo::refusal::{Direction, Refusal};
use crate::undo::{Step, plan, transfers};
use crate::wal::Record;

/// What is done in this worktree, newest first: operations with their command lines.
pub(crate) fn done(repo: &Repository, records: &[Record], head: Option<&RefSnapshot>) -> Vec<(TxId, String)> {
    let history = History::of(records, head);
    let here = (repo.recorded_worktree(), repo.worktree_birth());
    let own = history.done.iter().rev().filter(|id| history.is_of(**id, &here));
    own.map(|id| (*id, history.command(*id).unwrap_or_default().to_owned())).collect()
}

/// What is done in this worktree and newer than the operation `to`, newest first.
pub(crate) fn newer_than(
    repo: &Repository,
    records: &[Record],
    head: Option<&RefSnapshot>,
    to: TxId,
) -> Result<Vec<TxId>, Refusal> {
    let to = History::of(records, head).operations.id(to);
    let done = done(repo, records, head);
    let Some(at) = done.iter().position(|(id, _)| *id == to) else {
        return Err(Refusal::NotThere(to, Direction::Undo));
    };
    Ok(done.into_iter().take(at).map(|(id, _)| id).collect())
}

/// The steps that take these operations back, newest first. Each is known to the log, is undone without being named, and leaves
/// the refs as the next one has to find them. Index and files are looked at when it is an operation's turn.
pub(crate) fn chain(
    repo: &Repository,
    records: &[Record],
    head: Option<&RefSnapshot>,
    operations: &[TxId],
) -> anyhow::Result<Vec<Step>> {
    let history = History::of(records, head);
    let refs = RefStore::new(repo);
    let mut values: HashMap<RefName, Value> = HashMap::new();
    let mut steps = Vec::with_capacity(operations.len());
    for id in operations {
        let step = plan(repo, records, head, Direction::Undo, Some(*id))?;
        if transfers(&history, records, &step) {
            return Err(Refusal::Transfer(step.id, step.operation, None).into());
        }
        for write in &step.writes {
            let now = match values.get(&write.name) {
                Some(value) => value.clone(),
                None => refs.read(&write.name)?.value,
            };
            if now != write.from {
                return Err(Refusal::Moved(step.id, vec![(write.name.clone(), now)]).into());
            }
            values.insert(write.name.clone(), write.to.clone());
        }
        steps.push(step);
    }
    Ok(steps)
}
