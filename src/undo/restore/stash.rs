//! Undo and redo of what moves changes into the list of stashes, or out of it.
//!
//! A stash is a commit `W`, whose tree is the worktree, on HEAD, with the index as its second parent and untracked files as its
//! third one. So all that it took is in it:
//!
//! ```text
//!            index                                          files that differ, and those that were not tracked
//!  push      before: W^2    after: HEAD, with -k: W^2       before: W, W^3   after: as the index then
//!  pop       stays; only where W and W^2 are as HEAD        before: none     after: W^3
//! ```
//! The list is the log of refs/stash. It has to be the one that the operation, or its undo, left, to the last byte.
//!
//! Of a file that was as in HEAD, or gone, while something else was staged, `W` says what was staged: so the hook keeps the names of
//! the files that are not as staged.
//!
//! Limits: a pop of files that are tracked is not reversed. No hook is called before it: of such a file it is unknown whether it was
//! there, as a sparse checkout or a deletion leaves it, and what was staged for it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::apply::swap::LogSwap;
use crate::git::cat_file::Batch;
use crate::git::index::{self, Tree};
use crate::git::index_file::Entry;
use crate::git::reflog::{LogLine, is_one_line};
use crate::git::update_refs::RefWrite;
use crate::git::{Git, Oid, Plumbing, RefStore, Repository, Value};
use crate::staging::own::{Whole, read_log};
use crate::staging::worktree::Worktree;
use crate::undo::kept::Kept;
use crate::undo::refusal::Refusal;
use crate::undo::restore::paths::{self, Leaf, Trees};
use crate::undo::restore::{Follow, Restore};
use crate::undo::stash::{Kind, StashStep};
use crate::undo::{Direction, Step};
use crate::util::text::escape;

/// Plans it, and changes nothing.
pub(super) fn plan(
    repo: &Repository,
    git: &Git,
    (step, stash): (&Step, StashStep),
    kept: &Kept,
    follow: Follow,
) -> anyhow::Result<Restore> {
    let git = git.at(&repo.git_dir);
    let [write] = step.writes.as_slice() else { return refused(step, "it changed more than the list of stashes") };
    let stash_log = Some(log(repo, step, stash, write, kept)?);
    require_whole(repo, &git, step, stash_log.as_ref().and_then(|log| log.after.as_deref()))?;
    if stash.kind == Kind::Drop {
        return Ok(Restore { stash_log, ..Restore::default() });
    }
    if follow == Follow::RefsOnly {
        return refused(step, "a stash goes with index and files: it cannot be reversed with `--keep-worktree`");
    }
    if let Some(what) = index::in_progress(&repo.git_dir) {
        return Err(Refusal::InProgress(step.id, what).into());
    }
    if kept.state_files.is_some() || kept.is_of_itself {
        return refused(step, "a merge or the like was in progress, and would not be as before");
    }
    let is_undo = step.direction == Direction::Undo;
    let is_push = stash.kind != Kind::Pop;
    let commit = if is_undo == is_push { &write.from } else { &write.to };
    let Some(found) = Stash::read(&git, commit)? else { return refused(step, "git cannot read the stash any more") };
    let worktree = Worktree::open(repo, &git)?;
    let now = staged(&git, step, &repo.git_dir.join("index"))?;
    let place = Place { repo, git: &git, step, stash: &found, now };
    let changes = match stash.kind {
        Kind::Push { keeps_index, some } => place.push(kept, keeps_index, some)?,
        _ => place.pop()?,
    };
    let Changes { index, files } = if is_undo { changes } else { changes.reversed() };
    if files.have_other_attributes() {
        return refused(step, "`.gitattributes` changes with the files");
    }
    let (index, files) = paths::plan_apart(repo, &git, &worktree, step, &index, &files)?;
    let mut changed: Vec<_> = files.iter().map(|file| file.path.clone()).collect();
    changed.sort();
    // git may have stopped halfway: what its undo found as it was before stays so.
    if !is_undo && kept.files_undone.as_ref() != Some(&changed) {
        return refused(step, "its undo has changed other files than it would");
    }
    let head_now = RefStore::new(repo).head()?.map(|head| head.value);
    Ok(Restore { index, files, stash_log, head_now, ..Restore::default() })
}

fn refused<T>(step: &Step, why: &str) -> anyhow::Result<T> {
    Err(Refusal::NotReversible(step.id, why.to_owned()).into())
}

/// The log of refs/stash as it is, and as it becomes.
fn log(repo: &Repository, step: &Step, stash: StashStep, write: &RefWrite, kept: &Kept) -> anyhow::Result<LogSwap> {
    let now = read_log(&Whole::StashLog.path(repo, &repo.git_dir))?;
    let other = || Refusal::NotReversible(step.id, "the list of stashes is not as it left it".to_owned());
    let read = |path: &Option<std::path::PathBuf>| -> anyhow::Result<Option<Vec<u8>>> {
        Ok(path.as_deref().map(read_log).transpose()?.flatten())
    };
    let is_undo = step.direction == Direction::Undo;
    let after = match (stash.kind, is_undo) {
        (Kind::Push { .. }, true) => {
            let len = usize::try_from(stash.log.unwrap_or(0))?;
            let (before, line) = now.as_deref().and_then(|log| log.split_at_checked(len)).ok_or_else(other)?;
            let is_it = is_one_line(line, &write.to, &write.from) && ends_with(before, &write.to);
            is_it.then(|| before.to_vec()).ok_or_else(other)?
        }
        (Kind::Push { .. }, false) => {
            let whole = read(&kept.stash_log_undone)?.ok_or_else(other)?;
            let line = whole.strip_prefix(now.as_deref().unwrap_or_default()).ok_or_else(other)?;
            let is_it = is_one_line(line, &write.from, &write.to);
            is_it.then(|| whole.clone()).ok_or_else(other)?
        }
        (Kind::Pop | Kind::Drop, true) => {
            let unknown = || Refusal::NotReversible(step.id, "what the list of stashes was is not kept".to_owned());
            let then = read(&kept.stash_log)?.ok_or_else(unknown)?;
            let is_it = ends_with(&then, &write.to) && is_whole(&then, stash.log);
            (is_it && now.as_ref().is_none_or(Vec::is_empty)).then_some(then).ok_or_else(unknown)?
        }
        (Kind::Pop | Kind::Drop, false) => {
            let is_it = now.is_some() && now == read(&kept.stash_log)?;
            is_it.then(Vec::new).ok_or_else(other)?
        }
    };
    Ok(LogSwap { before: now, after: (write.to != Value::Absent).then_some(after) })
}

/// Refuses when commits of the list that comes back are gone, or what belongs to them: no ref keeps what was dropped.
fn require_whole(repo: &Repository, git: &Git, step: &Step, list: Option<&[u8]>) -> anyhow::Result<()> {
    let lines = list.unwrap_or_default().split(|byte| *byte == b'\n').filter_map(LogLine::parse);
    let entries: Vec<Oid> = lines.filter_map(|line| Oid::parse(line.new)).collect();
    if entries.is_empty() {
        return Ok(());
    }
    let there = head(repo)?.map(|head| format!("^{head}\n"));
    let stdin: String = entries.iter().map(|oid| format!("{oid}\n")).chain(there).collect();
    // A commit-graph may know commits whose objects are gone.
    let walk = git.command(Plumbing::Walk).config("core.commitGraph", "false").stdin(stdin).run()?;
    if walk.success {
        return Ok(());
    }
    refused(step, "commits of the list of stashes that would come back are gone, as `git gc` removes what was dropped")
}

/// HEAD's commit.
fn head(repo: &Repository) -> anyhow::Result<Option<Oid>> {
    let refs = RefStore::new(repo);
    let value = match refs.head()?.map(|head| head.value) {
        Some(Value::Symref(branch)) => refs.read(&branch)?.value,
        Some(value) => value,
        None => return Ok(None),
    };
    Ok(value.oid().copied())
}

/// Is the newest entry of the log this value? No entry is none.
fn ends_with(log: &[u8], value: &Value) -> bool {
    let newest = log.strip_suffix(b"\n").and_then(|log| log.rsplit(|byte| *byte == b'\n').next());
    let newest = newest.and_then(LogLine::parse);
    match value {
        Value::Oid(oid) => newest.is_some_and(|line| line.new == oid.hex().as_bytes()),
        _ => log.is_empty(),
    }
}

/// Is this the log that was deleted? Where `drop` had emptied it before the hook was called, it had one entry.
fn is_whole(log: &[u8], size: Option<u64>) -> bool {
    match size {
        Some(size) if size > 0 => log.len() as u64 == size,
        _ => log.iter().filter(|byte| **byte == b'\n').count() == 1,
    }
}

/// What a stash has.
struct Stash {
    head: Oid,
    head_tree: Tree,
    index: Tree,
    work: Tree,
    untracked: Tree,
}

impl Stash {
    /// `None` when the commit is no stash, or is not there any more.
    fn read(git: &Git, commit: &Value) -> anyhow::Result<Option<Stash>> {
        let Some(commit) = commit.oid() else { return Ok(None) };
        let Some(work) = index::tree(git, commit)? else { return Ok(None) };
        let text = Batch::start(git)?.content(&commit.hex())?;
        let header = text.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
        let parents: Vec<Oid> =
            header.filter_map(|line| line.strip_prefix(b"parent ")).filter_map(Oid::parse).collect();
        let (head, staged, untracked) = match parents.as_slice() {
            [head, staged] => (head, staged, None),
            [head, staged, untracked] => (head, staged, Some(untracked)),
            _ => return Ok(None),
        };
        let untracked = untracked.map_or(Ok(Some(Tree::new())), |commit| index::tree(git, commit))?;
        let (head_tree, staged) = (index::tree(git, head)?, index::tree(git, staged)?);
        let (Some(head_tree), Some(index), Some(untracked)) = (head_tree, staged, untracked) else { return Ok(None) };
        Ok(Some(Stash { head: *head, head_tree, index, work, untracked }))
    }
}

/// What undo changes: from what the operation left to what it found.
struct Changes {
    index: Trees,
    files: Trees,
}

impl Changes {
    fn reversed(self) -> Changes {
        let reversed = |trees: Trees| Trees { from: trees.to, to: trees.from };
        Changes { index: reversed(self.index), files: reversed(self.files) }
    }
}

/// Where a stash is reversed.
struct Place<'p> {
    repo: &'p Repository,
    git: &'p Git,
    step: &'p Step,
    stash: &'p Stash,
    /// The index.
    now: Vec<Entry>,
}

impl Place<'_> {
    fn push(&self, kept: &Kept, keeps_index: bool, some: bool) -> anyhow::Result<Changes> {
        let Stash { head, index, work, untracked, .. } = self.stash;
        if self::head(self.repo)?.as_ref() != Some(head) {
            return refused(self.step, "HEAD is another commit than that on which it was made");
        }
        let before = kept.index_before.as_deref().map(|path| staged(self.git, self.step, path)).transpose()?;
        self.require_no_flags(before.iter().flatten().chain(&self.now))?;
        if before.map(plain).as_ref() != Some(&Some(index.clone())) {
            return refused(self.step, "the index that it found is not the one that the stash has");
        }
        let left = self.left_by_push(kept, keeps_index, some)?;
        self.require_files_as_staged(kept, keeps_index, &left)?;
        let mut files = Trees { from: Tree::new(), to: Tree::new() };
        let mut change = |path: &Vec<u8>, after: Option<&Leaf>, before: Option<&Leaf>| {
            files.from.extend(after.map(|leaf| (path.clone(), *leaf)));
            files.to.extend(before.map(|leaf| (path.clone(), *leaf)));
        };
        for path in paths_of([index, work, &left]) {
            let (was, is) = (index.get(path), left.get(path));
            if work.get(path) != was || was != is {
                change(path, is, work.get(path));
            }
        }
        untracked.iter().for_each(|(path, leaf)| change(path, left.get(path), Some(leaf)));
        Ok(Changes { index: Trees { from: left, to: index.clone() }, files })
    }

    /// The index as the operation left it: HEAD's tree, or with `-k` what was staged. Of some paths it is seen in the index.
    fn left_by_push(&self, kept: &Kept, keeps_index: bool, some: bool) -> anyhow::Result<Tree> {
        let Stash { head_tree, index, work, .. } = self.stash;
        let left = match (self.step.direction, &kept.index_undone) {
            (Direction::Undo, _) => plain(self.now.clone()),
            (Direction::Redo, _) if kept.index_undone_lost => None,
            (Direction::Redo, Some(undone)) => plain(staged(self.git, self.step, undone)?),
            (Direction::Redo, None) => Some(index.clone()),
        };
        let Some(left) = left else { return refused(self.step, "the index that it left is in conflict, or not kept") };
        let is_left = |path: &Vec<u8>| {
            let (head, staged, is) = (head_tree.get(path), index.get(path), left.get(path));
            match (keeps_index, some) {
                (true, _) => is == staged,
                (false, true) => is == head || (is == staged && work.get(path) == staged),
                (false, false) => is == head,
            }
        };
        self.require(paths_of([head_tree, index, &left]).into_iter().filter(|path| !is_left(path)))?;
        if self.step.direction == Direction::Redo {
            let now = plain(self.now.clone()).unwrap_or_default();
            self.require(paths_of([index, &now]).into_iter().filter(|path| now.get(*path) != index.get(*path)))?;
        }
        Ok(left)
    }

    /// Refuses when a file is not in the stash: it was as in HEAD, or gone, and something else was staged.
    fn require_files_as_staged(&self, kept: &Kept, keeps_index: bool, left: &Tree) -> anyhow::Result<()> {
        let Stash { head_tree, index, work, .. } = self.stash;
        let is_asked = |path: &&Vec<u8>| {
            let staged = index.get(*path);
            let is_touched = keeps_index || left.get(*path) != staged;
            is_touched && staged != head_tree.get(*path) && staged == work.get(*path)
        };
        // The hook keeps it only in this very worktree.
        let Some(modified) = &kept.modified else {
            return refused(self.step, "which files were not as staged is not kept, or they were elsewhere");
        };
        let is_unknown = |path: &&Vec<u8>| modified.contains(path);
        let unknown = index.keys().filter(is_asked).filter(is_unknown);
        let why = |path: &Vec<u8>| {
            (escape(path).into_owned(), "the file was not as staged, and is not in the stash".to_owned())
        };
        let mut unknown: Vec<_> = unknown.map(why).collect();
        unknown.sort();
        if unknown.is_empty() { Ok(()) } else { Err(Refusal::Worktree(self.step.id, unknown).into()) }
    }

    fn pop(&self) -> anyhow::Result<Changes> {
        let Stash { head_tree, index, work, untracked, .. } = self.stash;
        if work != head_tree || index != head_tree {
            let why = "files that are tracked came out of the stash: whether these were there before it is unknown";
            return refused(self.step, why);
        }
        let Some(head) = head(self.repo)? else { return refused(self.step, "HEAD has no commit") };
        let Some(tree) = index::tree(self.git, &head)? else {
            return refused(self.step, "git cannot read HEAD's tree");
        };
        let Some(now) = plain(self.now.clone()) else { return refused(self.step, "the index has conflicts") };
        self.require(paths_of([&tree, &now]).into_iter().filter(|path| now.get(*path) != tree.get(*path)))?;
        let from = untracked.clone();
        let same = Trees { from: Tree::new(), to: Tree::new() };
        Ok(Changes { index: same, files: Trees { from, to: Tree::new() } })
    }

    /// Refuses when there are such paths: their entries in the index are not as they were left.
    fn require<'n>(&self, others: impl Iterator<Item = &'n Vec<u8>>) -> anyhow::Result<()> {
        let why = |path: &Vec<u8>| (escape(path).into_owned(), "something else is staged there".to_owned());
        let others: Vec<_> = others.map(why).collect();
        if others.is_empty() { Ok(()) } else { Err(Refusal::Worktree(self.step.id, others).into()) }
    }

    /// Refuses when entries have a flag: git looks at none of these files when it makes the stash, and writes them all the same.
    fn require_no_flags<'e>(&'e self, entries: impl Iterator<Item = &'e Entry>) -> anyhow::Result<()> {
        let has_one = |entry: &&Entry| entry.skip_worktree || entry.assume_valid || entry.intent_to_add;
        let flagged: BTreeSet<&Vec<u8>> = entries.filter(has_one).map(|entry| &entry.path).collect();
        let why = |path: &Vec<u8>| (escape(path).into_owned(), "it has a flag in the index".to_owned());
        let flagged: Vec<_> = flagged.into_iter().map(why).collect();
        if flagged.is_empty() { Ok(()) } else { Err(Refusal::Worktree(self.step.id, flagged).into()) }
    }
}

fn staged(git: &Git, step: &Step, index: &Path) -> anyhow::Result<Vec<Entry>> {
    match index::read(git, index)? {
        Some((entries, _)) => Ok(entries),
        None => refused(step, "the index cannot be read"),
    }
}

/// The entries as those of a tree; `None` when there are conflicts, or paths that were only announced.
fn plain(entries: Vec<Entry>) -> Option<Tree> {
    let is_plain = |entry: &Entry| entry.stage == 0 && !entry.intent_to_add;
    entries.iter().all(is_plain).then(|| entries.into_iter().map(|e| (e.path, (e.mode, e.oid))).collect())
}

fn paths_of<const N: usize>(trees: [&Tree; N]) -> BTreeSet<&Vec<u8>> {
    trees.into_iter().flat_map(|tree| tree.keys()).collect()
}
