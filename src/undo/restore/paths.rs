//! Path by path: what is in the index and in the worktree, and what becomes of it.
//!
//! ```text
//!  in the worktree   the old tree's content    the new tree's already    anything else, ignored files included
//!  ───────────────   ──────────────────────    ──────────────────────    ─────────────────────────────────────
//!                    becomes the new tree's    the index only            refused, with its name
//! ```
//! A file has the content of a blob when its bytes are what a checkout writes of the blob: filters and line endings count. Times
//! and sizes in the index prove nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::fs::beneath::{self, RelPath};
use crate::git::index::Tree;
use crate::git::index_file::{self, Entry, Found as Index};
use crate::git::index_write::{DROPPED, encode};
use crate::git::{Git, Oid, Repository};
use crate::staging::checkout::CheckedOut;
use crate::staging::image::{Found, look};
use crate::staging::worktree::Worktree;
use crate::undo::Step;
use crate::undo::refusal::Refusal;
use crate::undo::restore::effect::Effect;
use crate::undo::restore::{FileRestore, NewIndex};
use crate::util::text::escape;
use crate::wal::{FileImage, FileMode};

/// Where the worktree comes from, and where it goes.
pub(super) struct Trees {
    pub from: Tree,
    pub to: Tree,
}

impl Trees {
    pub(super) fn differ_at(&self, path: &[u8]) -> bool {
        self.from.get(path) != self.to.get(path)
    }

    fn differing(&self) -> BTreeSet<&Vec<u8>> {
        self.from.keys().chain(self.to.keys()).filter(|path| self.differ_at(path)).collect()
    }

    /// Does a file with attributes change?
    pub(super) fn have_other_attributes(&self) -> bool {
        let is_one = |path: &&Vec<u8>| path.rsplit(|b| *b == b'/').next() == Some(b".gitattributes");
        let mut paths = self.from.keys().chain(self.to.keys()).filter(is_one);
        paths.any(|path| self.from.get(path) != self.to.get(path))
    }
}

/// An entry of a tree.
pub(super) type Leaf = (u32, Oid);

const GITLINK: u32 = 0o160_000;

/// A path that keeps the operation from being reversed, and why.
type Obstacle = (String, String);

/// The new index, where it changes, and the files that change.
pub(super) fn plan(
    repo: &Repository,
    git: &Git,
    worktree: &Worktree,
    step: &Step,
    trees: &Trees,
    effect: Effect,
) -> anyhow::Result<(Option<NewIndex>, Vec<FileRestore>)> {
    let same = Trees { from: Tree::new(), to: Tree::new() };
    plan_apart(repo, git, worktree, step, trees, if effect == Effect::Follows { trees } else { &same })
}

/// The same where the files come from other trees than the index, and go to others.
pub(super) fn plan_apart(
    repo: &Repository,
    git: &Git,
    worktree: &Worktree,
    step: &Step,
    index: &Trees,
    files: &Trees,
) -> anyhow::Result<(Option<NewIndex>, Vec<FileRestore>)> {
    let mut obstacles = Vec::new();
    let differing = index.differing();
    let index = match differing.is_empty() {
        true => None,
        false => new_index(repo, worktree, step, index, &differing, &mut obstacles)?,
    };
    let differing = files.differing();
    let files = if differing.is_empty() {
        Vec::new()
    } else {
        let look = Looking {
            worktree,
            checked_out: CheckedOut::new(git, worktree, None),
            modes_are_kept: git.config("core.fileMode")?.as_deref() != Some("false"),
        };
        look.files(files, &differing, &mut obstacles)?
    };
    if obstacles.is_empty() { Ok((index, files)) } else { Err(Refusal::Worktree(step.id, obstacles).into()) }
}

fn new_index(
    repo: &Repository,
    worktree: &Worktree,
    step: &Step,
    trees: &Trees,
    differing: &BTreeSet<&Vec<u8>>,
    obstacles: &mut Vec<Obstacle>,
) -> anyhow::Result<Option<NewIndex>> {
    let path = repo.git_dir.join("index");
    let refused = |why: &str| Refusal::NotReversible(step.id, why.to_owned());
    let read = index_file::content(&path)?;
    let before = read.as_ref().map(|(_, file)| *file);
    let entries = match read.as_ref().map(|(content, _)| index_file::entries(content)) {
        None => Vec::new(),
        Some(Index::Entries(entries)) => entries,
        Some(Index::Partial) => return Err(refused("the index is split or sparse, and only git rewrites those").into()),
        Some(Index::Garbage) => return Err(refused("the index cannot be read").into()),
    };
    let extensions = read.map_or_else(Vec::new, |(content, _)| index_file::extensions(&content));
    if let Some(unknown) = extensions.iter().find(|signature| !DROPPED.contains(signature)) {
        let name = escape(unknown).into_owned();
        return Err(refused(&format!("the index has an extension, {name}, that jin-txn does not know")).into());
    }
    let mut at: BTreeMap<&Vec<u8>, Vec<&Entry>> = BTreeMap::new();
    entries.iter().for_each(|entry| at.entry(&entry.path).or_default().push(entry));
    let mut changed = 0;
    for path in differing {
        let (from, to) = (trees.from.get(*path), trees.to.get(*path));
        let staged = at.get(path).map_or(&[][..], Vec::as_slice);
        if let Some(why) = why_not_staged(staged, from, to) {
            obstacles.push((escape(path).into_owned(), why.to_owned()));
        }
        changed += usize::from(staged.first().map(|entry| (entry.mode, entry.oid)).as_ref() != to);
    }
    if changed == 0 {
        return Ok(None);
    }
    let stay = entries.iter().filter(|entry| !differing.contains(&entry.path));
    let come = differing.iter().filter_map(|path| Some(plain(path, trees.to.get(*path)?)));
    let mut new: Vec<Entry> = stay.cloned().chain(come).collect();
    new.sort_by(|a, b| (&a.path, a.stage).cmp(&(&b.path, b.stage)));
    obstacles.extend(clashes(&new));
    Ok(Some(NewIndex { before, content: encode(&new, worktree.hash, before.as_ref()), changed }))
}

pub(super) fn plain(path: &[u8], (mode, oid): &Leaf) -> Entry {
    Entry {
        stat: None,
        mode: *mode,
        oid: *oid,
        stage: 0,
        assume_valid: false,
        skip_worktree: false,
        intent_to_add: false,
        path: path.to_owned(),
    }
}

/// Why an index entry is not rewritten.
fn why_not_staged(staged: &[&Entry], from: Option<&Leaf>, to: Option<&Leaf>) -> Option<&'static str> {
    if [from, to].into_iter().flatten().any(|(mode, _)| *mode == GITLINK) {
        return Some("it is a submodule: `git submodule update` after a `git reset`");
    }
    let entry = match staged {
        [] => return (from.is_some() && to.is_some()).then_some("it is not in the index any more"),
        [entry] => entry,
        _ => return Some("it is in conflict"),
    };
    let now = (entry.mode, entry.oid);
    match () {
        () if entry.stage != 0 => Some("it is in conflict"),
        () if entry.skip_worktree => Some("a sparse checkout leaves it out"),
        () if entry.assume_valid => Some("it is marked as assume-unchanged"),
        () if entry.intent_to_add => Some("`git add -N` has announced it"),
        () if Some(&now) != from && Some(&now) != to => Some("something else is staged there"),
        () => None,
    }
}

/// Files that would be directories of others in the new index.
fn clashes(entries: &[Entry]) -> Vec<Obstacle> {
    let paths: BTreeSet<&[u8]> = entries.iter().map(|entry| entry.path.as_slice()).collect();
    let mut clashes = Vec::new();
    for path in &paths {
        let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &path[..at]);
        if let Some(file) = slashes.into_iter().find(|above| paths.contains(above)) {
            clashes.push((escape(path).into_owned(), format!("the file {} is in its way", escape(file))));
        }
    }
    clashes
}

/// Looks at files.
struct Looking<'w> {
    worktree: &'w Worktree,
    checked_out: CheckedOut,
    modes_are_kept: bool,
}

impl Looking<'_> {
    fn files(
        mut self,
        trees: &Trees,
        differing: &BTreeSet<&Vec<u8>>,
        obstacles: &mut Vec<Obstacle>,
    ) -> anyhow::Result<Vec<FileRestore>> {
        let mut files = Vec::new();
        for path in differing {
            let (from, to) = (trees.from.get(*path), trees.to.get(*path));
            match self.file(path, from, to)? {
                Ok(file) => files.extend(file),
                Err(why) => obstacles.push((escape(path).into_owned(), why)),
            }
        }
        Ok(files)
    }

    /// What becomes of one file: nothing, a change, or a refusal.
    fn file(
        &mut self,
        path: &[u8],
        from: Option<&Leaf>,
        to: Option<&Leaf>,
    ) -> anyhow::Result<Result<Option<FileRestore>, String>> {
        let Ok(path) = RelPath::parse(path) else { return Ok(Err("jin-txn does not write such a path".to_owned())) };
        if self.worktree.is_gits_own(&path) {
            return Ok(Err("it lies in the git directory".to_owned()));
        }
        let found = match self.worktree.root.parent(&path) {
            Ok(Some(parent)) => look(&parent, self.worktree.hash)?,
            Ok(None) => Found::Nothing,
            Err(error) => match beneath::refusal(&error) {
                Some(refusal) => return Ok(Err(refusal.to_string())),
                None => return Err(error.into()),
            },
        };
        let target = match to.map(|(mode, oid)| (file_mode(*mode), *oid)) {
            Some((None, _)) => return Ok(Err("it has a mode that jin-txn does not write".to_owned())),
            Some((Some(mode), oid)) => Some((mode, oid)),
            None => None,
        };
        let image = match found {
            Found::Odd(_) => return Ok(Err("something that is not a regular file is in its place".to_owned())),
            Found::Nothing => None,
            Found::File(image, _) => Some(image),
        };
        if self.is_checked_out(&path, image, to)? {
            return Ok(Ok(None));
        }
        // The bytes of the blob itself are not lost, whatever a checkout would make of them.
        let is_blob =
            image.is_some_and(|image| from.is_some_and(|from| image.blob == from.1 && self.has_mode(image, from)));
        if is_blob || self.is_checked_out(&path, image, from)? {
            return Ok(Ok(Some(FileRestore { path, from: image, to: target })));
        }
        Ok(Err(match (image, from) {
            (None, _) => "it is gone from the worktree",
            (Some(_), None) => "a file that is not tracked is in its place",
            (Some(_), Some(_)) => "it has been changed",
        }
        .to_owned()))
    }

    /// Is this what a checkout of the entry leaves?
    fn is_checked_out(
        &mut self,
        path: &RelPath,
        image: Option<FileImage>,
        entry: Option<&Leaf>,
    ) -> anyhow::Result<bool> {
        let (image, entry) = match (image, entry) {
            (None, None) => return Ok(true),
            (Some(image), Some(entry)) => (image, entry),
            _ => return Ok(false),
        };
        let Some(mode) = file_mode(entry.0).filter(|_| self.has_mode(image, entry)) else { return Ok(false) };
        Ok(self.worktree.hash.blob(&self.checked_out.content(&entry.1, mode, path)?) == image.blob)
    }

    fn has_mode(&self, image: FileImage, entry: &Leaf) -> bool {
        let is_link = |mode: FileMode| mode == FileMode::Symlink;
        let Some(mode) = file_mode(entry.0) else { return false };
        if self.modes_are_kept { image.mode == mode } else { is_link(image.mode) == is_link(mode) }
    }
}

fn file_mode(mode: u32) -> Option<FileMode> {
    match mode {
        0o100_644 => Some(FileMode::Plain),
        0o100_755 => Some(FileMode::Executable),
        0o120_000 => Some(FileMode::Symlink),
        _ => None,
    }
}
