//! What became of refs during a run that the log does not explain: the snapshot compared with what is there.
//!
//! | the ref is | what that means |
//! | --- | --- |
//! | as before, or as the run's own transactions left it | the log says it all |
//! | as another transaction left it | another's |
//! | a symbolic one, or was; a new name with the value of a ref that the run deleted; the copy of a branch | the run's: git tells no hook about these, so that the log cannot know, and nobody else is known to be at work |
//! | anything else | the run's when it had turned hooks off, and unknown when not |
//!
//! The list of stashes is not judged here: git changes it without any transaction.

use std::collections::{BTreeMap, BTreeSet};

use crate::fs::absent_is_none;
use crate::fs::named as fs;
use crate::git::{RefName, RefStore, Repository, Value};
use crate::run::child_transactions::{self, Move, Others};
use crate::state::TxId;
use crate::wal::{Body, Log, Record};

/// A ref that changed, and the log does not say who changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unlogged {
    /// The ref.
    pub name: RefName,
    /// What it was, as far as it is known.
    pub before: Value,
    /// What it is.
    pub now: Value,
    /// What the run's first transaction on it found there, when that is not what it was, and the log has the rest.
    pub logged: Option<Value>,
    /// git tells no hook about a change of this kind.
    pub is_untold: bool,
}

/// Compares the refs of a snapshot with those that are there. Others go on meanwhile: `records` are read again until they say nothing
/// new of what was found. A change that is seen was logged before it was made. `None`: they never ceased to.
pub(crate) fn find(
    repo: &Repository,
    kept: &BTreeMap<RefName, Value>,
    log: &Log<'_>,
    records: &mut Vec<Record>,
    id: TxId,
) -> anyhow::Result<Option<Vec<Unlogged>>> {
    const TRIES: usize = 20;
    let is_begin = |record: &Record| record.tx == Some(id) && matches!(record.body, Body::Begin(_));
    for _ in 0..TRIES {
        let now = RefStore::new(repo).all()?;
        let moves = child_transactions::moves(records, id);
        let is_copy = |name: &RefName| is_copy(repo, name);
        let found = compare(kept, &now, &moves, &child_transactions::others(records, id), is_copy);
        if found.is_empty() {
            return Ok(Some(found));
        }
        let last = records.last().map_or(0, |record| record.lsn);
        *records = log.scan_until(|records| records.iter().any(is_begin))?.records;
        let mut newer = records.iter().filter(|record| record.lsn > last);
        if !newer.any(|record| found.iter().any(|change| names(record, &change.name))) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Is this transaction about the ref?
fn names(record: &Record, name: &RefName) -> bool {
    match &record.body {
        Body::Begin(begin) | Body::Decided(begin) => {
            let new_name = begin.rename.as_ref().and_then(|rename| rename.to.as_ref());
            begin.refs.iter().any(|change| change.name == *name) || new_name == Some(name)
        }
        Body::Committed { refs } | Body::Recovered { refs, .. } => refs.iter().any(|now| now.name == *name),
        _ => false,
    }
}

fn compare(
    kept: &BTreeMap<RefName, Value>,
    now: &BTreeMap<RefName, Value>,
    moves: &[Move],
    others: &Others,
    is_copy: impl Fn(&RefName) -> bool,
) -> Vec<Unlogged> {
    let moved: BTreeMap<&RefName, &Move> = moves.iter().map(|m| (&m.name, m)).collect();
    let names: BTreeSet<&RefName> = kept.keys().chain(now.keys()).chain(moved.keys().copied()).collect();
    // What other worktrees have of their own is not looked at.
    let is_seen =
        |name: &RefName| name.as_bytes().starts_with(b"refs/") || kept.contains_key(name) || now.contains_key(name);
    let mut found = Vec::new();
    for name in names.into_iter().filter(|name| name.as_bytes() != b"refs/stash" && is_seen(name)) {
        let value = |all: &BTreeMap<RefName, Value>| all.get(name).cloned().unwrap_or(Value::Absent);
        let is = value(now);
        let others_word = others.since.get(name).cloned();
        let (before, logged) = match moved.get(name) {
            Some(moved) => {
                // What the run's first transaction found there may be its own work already.
                let before = if others_word.is_some() { moved.before.clone() } else { value(kept) };
                let is_logged = moved.values.contains(&is);
                if is_logged && before == moved.before {
                    continue;
                }
                (before, is_logged.then(|| moved.before.clone()))
            }
            None if others.explain(name, &is) => continue,
            None => {
                let before = others_word.unwrap_or_else(|| value(kept));
                if is == before {
                    continue;
                }
                (before, None)
            }
        };
        let is_symbolic =
            [Some(&is), Some(&before), logged.as_ref()].iter().any(|v| matches!(v, Some(Value::Symref(_))));
        let is_renamed = || moves.iter().any(|m| m.after == Value::Absent && m.values.contains(&is));
        let is_untold = is_symbolic || (is != Value::Absent && (is_renamed() || is_copy(name)));
        found.push(Unlogged { name: name.clone(), before, now: is, logged, is_untold });
    }
    found
}

/// Was it last written by `git branch -c`, as its reflog says?
fn is_copy(repo: &Repository, name: &RefName) -> bool {
    let log = absent_is_none(fs::read(RefStore::new(repo).log(name))).ok().flatten().unwrap_or_default();
    let last = log.trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let message = last.iter().position(|b| *b == b'\t').map_or(&[][..], |at| &last[at + 1..]);
    [b"Branch: copied ".as_slice(), b"Branch: renamed "].iter().any(|prefix| message.starts_with(prefix))
}
