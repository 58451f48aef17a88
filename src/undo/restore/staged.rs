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
use crate::util::text::escape;

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
    let mut new: BTreeMap<(&[u8], u8), Entry> = now.iter().map(|entry| (key(entry), entry.clone())).collect();
    let mut paths: Vec<(&[u8], u8)> = then.keys().chain(new.keys()).copied().collect();
    paths.sort_unstable();
    paths.dedup();
    let mut changed = 0;
    for path in paths {
        let (was, is) = (then.get(&path), new.get(&path));
        if was.map(|entry| what(entry)) == is.map(what) {
            continue;
        }
        let is_committed = is.map(|entry| (entry.mode, entry.oid)) == trees.from.get(path.0).copied();
        if !is_committed || path.1 != 0 {
            return Ok(None);
        }
        changed += 1;
        match was {
            // The file has another content by now than when the stat data were taken.
            Some(entry) => drop(new.insert(path, what(entry))),
            None => drop(new.remove(&path)),
        }
    }
    let entries: Vec<Entry> = new.into_values().collect();
    Ok((changed > 0).then(|| NewIndex {
        before: Some(file),
        content: encode(&entries, worktree.hash, Some(&file)),
        changed,
    }))
}

/// Refuses where undo would make another index than the operation found: what was staged then, and is nowhere now.
///
/// Where git had replaced the index before its first hook, the one that the operation before had left is all there is: it says
/// what was staged only for paths that the operation changed, because git refuses to change others.
pub(super) fn require_same(
    repo: &Repository,
    git: &Git,
    step: &Step,
    trees: &Trees,
    kept: &Kept,
    new: Option<&NewIndex>,
) -> anyhow::Result<()> {
    let (Some(before), is_exact) =
        (kept.index_before.as_ref().or(kept.index_last_known.as_ref()), kept.index_before.is_some())
    else {
        return Ok(());
    };
    let Some((then, _)) = index::read(git, before)? else { return Ok(()) };
    let content = match new {
        Some(new) => new.content.clone(),
        None => index_file::content(&repo.git_dir.join("index"))?.map(|(content, _)| content).unwrap_or_default(),
    };
    let Found::Entries(made) = index_file::entries(&content) else { return Ok(()) };
    let is_asked = |entry: &&Entry| is_exact || trees.differ_at(&entry.path);
    let then: BTreeMap<(&[u8], u8), Entry> =
        then.iter().filter(is_asked).map(|entry| (key(entry), what(entry))).collect();
    let made: BTreeMap<(&[u8], u8), Entry> =
        made.iter().filter(is_asked).map(|entry| (key(entry), what(entry))).collect();
    let others = then.iter().filter(|(key, entry)| made.get(*key) != Some(*entry)).map(|(key, _)| key.0);
    let mut names: Vec<String> = others.map(|path| escape(path).into_owned()).collect();
    names.dedup();
    if names.is_empty() {
        return Ok(());
    }
    let why = format!("what was staged before it would not come back: {}", names.join(", "));
    Err(Refusal::NotReversible(step.id, why).into())
}

fn key(entry: &Entry) -> (&[u8], u8) {
    (&entry.path, entry.stage)
}

/// All but the stat data.
fn what(entry: &Entry) -> Entry {
    Entry { stat: None, ..entry.clone() }
}
