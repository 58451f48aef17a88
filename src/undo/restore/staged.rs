//! What a commit had staged itself: `commit -a`, `commit PATH`.
//!
//! ```text
//!  undo   entries that differ from the index that the commit found, and are as it committed them ──▶ as it found them
//!  redo   entries that are as the commit found them ──▶ as it committed them
//! ```
//! Where anything else is staged by now the index stays: what was committed is staged then, and nothing is lost.

use std::collections::BTreeMap;

use crate::git::index_file::{self, Entry, Found};
use crate::git::index_write::encode;
use crate::git::{Git, Repository, index};
use crate::staging::worktree::Worktree;
use crate::undo::kept::Kept;
use crate::undo::restore::NewIndex;
use crate::undo::restore::effect::Effect;
use crate::undo::restore::paths::{self, Trees};
use crate::undo::{Direction, Refusal, Step};

/// The index without, or again with, what the commit has staged; `None` where it stays.
pub(super) fn plan(
    repo: &Repository,
    git: &Git,
    worktree: &Worktree,
    step: &Step,
    trees: &Trees,
    kept: &Kept,
) -> anyhow::Result<Option<NewIndex>> {
    if step.direction == Direction::Redo {
        return match paths::plan(repo, git, worktree, step, trees, Effect::Index) {
            Err(error) if error.is::<Refusal>() => Ok(None),
            planned => planned.map(|(index, _)| index),
        };
    }
    let Some(before) = &kept.index_before else { return Ok(None) };
    let Some((then, _)) = index::read(git, before)? else { return Ok(None) };
    let Some((content, file)) = index_file::content(&repo.git_dir.join("index"))? else { return Ok(None) };
    let Found::Entries(now) = index_file::entries(&content) else { return Ok(None) };
    let then: BTreeMap<(&[u8], u8), &Entry> = then.iter().map(|entry| (key(entry), entry)).collect();
    let mut new: BTreeMap<(&[u8], u8), &Entry> = now.iter().map(|entry| (key(entry), entry)).collect();
    let mut paths: Vec<(&[u8], u8)> = then.keys().chain(new.keys()).copied().collect();
    paths.sort_unstable();
    paths.dedup();
    let mut changed = 0;
    for path in paths {
        let (was, is) = (then.get(&path), new.get(&path));
        if was.map(|entry| what(entry)) == is.map(|entry| what(entry)) {
            continue;
        }
        let is_committed = is.map(|entry| (entry.mode, entry.oid)) == trees.from.get(path.0).copied();
        if !is_committed || path.1 != 0 {
            return Ok(None);
        }
        changed += 1;
        match was {
            Some(entry) => drop(new.insert(path, entry)),
            None => drop(new.remove(&path)),
        }
    }
    let entries: Vec<Entry> = new.into_values().cloned().collect();
    Ok((changed > 0).then(|| NewIndex { before: Some(file), content: encode(&entries, worktree.hash), changed }))
}

fn key(entry: &Entry) -> (&[u8], u8) {
    (&entry.path, entry.stage)
}

/// All but the stat data.
fn what(entry: &Entry) -> Entry {
    Entry { stat: None, ..entry.clone() }
}
