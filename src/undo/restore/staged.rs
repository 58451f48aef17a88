//! What a commit had staged itself: `commit -a`, `commit PATH`.
//!
//! ```text
//!  undo   entries that differ from the index that the commit found, and are as it committed them ──▶ as it found them
//!  redo   entries that are as the commit found them ──▶ as it committed them
//! ```
//! Where anything else is staged by now the index stays: what was committed is staged then, and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::fs::FileId;
use crate::git::index_file::{self, Entry, Found};
use crate::git::index_write::encode;
use crate::git::{Git, Repository, index};
use crate::staging::worktree::Worktree;
use crate::undo::kept::Kept;
use crate::undo::restore::NewIndex;
use crate::undo::restore::effect::Effect;
use crate::undo::restore::paths::{self, Leaf, Trees};
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
        if let Some(index) = resolved(repo, worktree, trees)? {
            return Ok(Some(index));
        }
        return match paths::plan(repo, git, worktree, step, trees, Effect::Index) {
            Err(error) if error.is::<Refusal>() => Ok(None),
            planned => planned.map(|(index, _)| index),
        };
    }
    let Some(before) = &kept.index_before else { return Ok(None) };
    let Some((then, _)) = index::read(git, before)? else { return Ok(None) };
    let Some((content, file)) = index_file::content(&repo.git_dir.join("index"))? else { return Ok(None) };
    let Found::Entries(now) = index_file::entries(&content) else { return Ok(None) };
    let (then, mut new) = (by_path(&then), by_path(&now));
    let mut paths: Vec<&[u8]> = then.keys().chain(new.keys()).copied().collect();
    paths.sort_unstable();
    paths.dedup();
    let mut changed = 0;
    for path in paths {
        let was = then.get(path).map_or(&[][..], Vec::as_slice);
        let is = new.get(path).map_or(&[][..], Vec::as_slice);
        if was.iter().map(what).eq(is.iter().map(what)) {
            continue;
        }
        // Of a conflict the commit has made one entry, or none.
        if !is_leaf(is, trees.from.get(path)) {
            return Ok(None);
        }
        changed += 1;
        // The file has another content by now than when the stat data were taken.
        new.insert(path, was.iter().map(what).collect());
    }
    Ok((changed > 0).then(|| index_of(new, worktree, file, changed)))
}

/// The index as it is, so that its lock is held meanwhile.
pub(super) fn same(repo: &Repository, worktree: &Worktree, step: &Step) -> anyhow::Result<Option<NewIndex>> {
    let Some((content, file)) = index_file::content(&repo.git_dir.join("index"))? else { return Ok(None) };
    let Found::Entries(entries) = index_file::entries(&content) else {
        let why = "the index is split or sparse, or cannot be read";
        return Err(Refusal::NotReversible(step.id, why.to_owned()).into());
    };
    Ok(Some(index_of(by_path(&entries), worktree, file, 0)))
}

/// The index with what a commit makes of conflicts, and of what it stages itself; `None` where nothing conflicts.
fn resolved(repo: &Repository, worktree: &Worktree, trees: &Trees) -> anyhow::Result<Option<NewIndex>> {
    let Some((content, file)) = index_file::content(&repo.git_dir.join("index"))? else { return Ok(None) };
    let Found::Entries(now) = index_file::entries(&content) else { return Ok(None) };
    if now.iter().all(|entry| entry.stage == 0) {
        return Ok(None);
    }
    let mut new = by_path(&now);
    let mut changed = 0;
    for (path, entries) in &mut new {
        let conflicts = entries.iter().any(|entry| entry.stage != 0);
        let (from, to) = (trees.from.get(*path), trees.to.get(*path));
        if conflicts || (is_leaf(entries, from) && from != to) {
            *entries = to.iter().map(|leaf| paths::plain(path, leaf)).collect();
            changed += 1;
        }
    }
    Ok(Some(index_of(new, worktree, file, changed)))
}

fn index_of(entries: BTreeMap<&[u8], Vec<Entry>>, worktree: &Worktree, file: FileId, changed: usize) -> NewIndex {
    let entries: Vec<Entry> = entries.into_values().flatten().collect();
    NewIndex { before: Some(file), content: encode(&entries, worktree.hash, Some(&file)), changed }
}

fn by_path(entries: &[Entry]) -> BTreeMap<&[u8], Vec<Entry>> {
    let mut found: BTreeMap<&[u8], Vec<Entry>> = BTreeMap::new();
    entries.iter().for_each(|entry| found.entry(&entry.path).or_default().push(entry.clone()));
    found
}

/// Are these the entries of a path that the tree has as this?
fn is_leaf(entries: &[Entry], leaf: Option<&Leaf>) -> bool {
    match entries {
        [] => leaf.is_none(),
        [one] => one.stage == 0 && Some(&(one.mode, one.oid)) == leaf,
        _ => false,
    }
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
    let is_too_much = |(key, _): &(&(&[u8], u8), &Entry)| trees.differ_at(key.0) && !then.contains_key(*key);
    let others = then.iter().filter(|(key, entry)| made.get(*key) != Some(*entry));
    refuse(step, others.chain(made.iter().filter(is_too_much)).map(|(key, _)| key.0).collect())
}

/// Refuses an undo of `git reset` when the last index that is known was not that of the commit: of no path a reset leaves what was
/// staged.
pub(super) fn require_clean(git: &Git, step: &Step, trees: &Trees, kept: &Kept) -> anyhow::Result<()> {
    let known = kept.index_before.as_ref().or(kept.index_last_known.as_ref());
    let then = known.map(|path| index::read(git, path)).transpose()?.flatten();
    let Some((then, _)) = then else {
        let why = "what was staged before it is unknown: `--keep-worktree` takes back the refs alone";
        return Err(Refusal::NotReversible(step.id, why.to_owned()).into());
    };
    let then = by_path(&then);
    let is_clean = |path: &&[u8]| {
        let entries = then.get(*path).map_or(&[][..], Vec::as_slice);
        is_leaf(entries, trees.to.get(*path)) && entries.iter().all(|entry| !entry.intent_to_add)
    };
    let paths = then.keys().copied().chain(trees.to.keys().map(Vec::as_slice));
    refuse(step, paths.filter(|path| !is_clean(path)).collect())
}

/// Refuses when there are such paths.
fn refuse(step: &Step, paths: BTreeSet<&[u8]>) -> anyhow::Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = paths.into_iter().map(|path| escape(path).into_owned()).collect();
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
