//! The index of every worktree: one that cannot be read is made of HEAD; entries whose content is lost become HEAD's, or go.
//!
//! Limit: a split or sparse index is not looked into.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fs::door;
use crate::fs::{FileId, absent_is_none, named as fs, read_small};
use crate::git::cat_file::present;
use crate::git::index_file::{self, Entry, Found};
use crate::git::{Oid, Repository, hash::Hash, index, index_write};
use crate::recovery::LostIndex;
use crate::rescue::claims::Claims;
use crate::rescue::config::Settings;
use crate::rescue::heads::Heads;
use crate::rescue::histories::Histories;
use crate::rescue::plan::Plan;
use crate::rescue::view::View;

/// So many lost paths are named.
const SHOWN: usize = 20;

/// The indexes of all worktrees.
pub(crate) struct Indexes {
    all: Vec<Index>,
    hash: Hash,
}

/// An index.
pub(crate) struct Index {
    git_dir: PathBuf,
    path: PathBuf,
    /// The worktree that it is about.
    pub(crate) worktree: PathBuf,
    /// What is in it.
    pub(crate) content: Content,
    /// The trees that it says it stands for.
    trees: Vec<Oid>,
    file: Option<FileId>,
}

/// What is in an index.
pub(crate) enum Content {
    /// There is none.
    Absent,
    /// It cannot be read.
    Unreadable,
    /// Only git can read all of it.
    Partial,
    /// Its entries.
    Entries(Vec<Entry>),
}

impl Index {
    /// The entries, as far as they were read.
    pub(crate) fn entries(&self) -> &[Entry] {
        if let Content::Entries(entries) = &self.content { entries } else { &[] }
    }
}

impl Indexes {
    /// Reads all of them.
    pub(crate) fn read(repo: &Repository, settings: &Settings) -> anyhow::Result<Indexes> {
        let mut all = Vec::new();
        for git_dir in repo.all_git_dirs() {
            let is_main = git_dir == repo.common_dir;
            let path = git_dir.join("index");
            let Some(worktree) = worktree_of(&git_dir).filter(|_| !is_main || !settings.is_bare) else { continue };
            let found = absent_is_none(fs::symlink_metadata(&path))?;
            let (content, trees, file) = match found {
                None => (Content::Absent, Vec::new(), None),
                Some(found) if !found.is_file() => (Content::Unreadable, Vec::new(), None),
                Some(_) => read(&path)?,
            };
            all.push(Index { git_dir, path, worktree, content, trees, file });
        }
        Ok(Indexes { all, hash: settings.hash })
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Index> {
        self.all.iter()
    }

    /// The objects that indexes name.
    pub(crate) fn objects(&self) -> impl Iterator<Item = Oid> {
        let staged = self.all.iter().flat_map(|index| index.entries().iter().filter(|e| is_content(e)).map(|e| e.oid));
        staged.chain(self.all.iter().flat_map(|index| index.trees.iter().copied()))
    }

    /// Plans what becomes of each.
    pub(crate) fn decide(
        &self,
        repo: &Repository,
        view: &View,
        claims: &Claims,
        heads: &Heads,
        histories: &mut Histories,
        plan: &mut Plan,
    ) -> anyhow::Result<()> {
        let named: Vec<Oid> = self.objects().collect();
        let there = present(&view.git, &named)?.unwrap_or_else(|| named.iter().copied().collect());
        for index in &self.all {
            let shown = repo.relative(&index.path);
            let head = heads.commit(&index.git_dir, claims, histories)?;
            let lost = || LostIndex { git_dir: index.git_dir.clone(), path: index.path.clone(), shown: shown.clone() };
            match &index.content {
                Content::Partial => {}
                Content::Absent if head.is_none() || !has_files(&index.worktree)? => {}
                Content::Absent => {
                    plan.found(
                        format!("{shown} is missing"),
                        "it is made of HEAD; what was staged has to be staged again",
                    );
                    plan.rebuild_index(lost());
                }
                Content::Unreadable => {
                    let repair = "it is made of HEAD; what was staged has to be staged again";
                    match index::in_progress(&index.git_dir) {
                        None => plan.found(format!("{shown} cannot be read"), repair),
                        Some(what) => {
                            let loss = format!("which paths {what} had resolved");
                            plan.lost(format!("{shown} cannot be read, in the middle of {what}"), repair, loss);
                        }
                    }
                    plan.rebuild_index(lost());
                }
                Content::Entries(entries) if histories.all_here() => {
                    self.mend(view, index, entries, (&shown, head.as_ref(), &there), plan)?;
                }
                Content::Entries(_) => {}
            }
        }
        Ok(())
    }

    /// Entries about lost objects become those of HEAD, or go.
    fn mend(
        &self,
        view: &View,
        index: &Index,
        entries: &[Entry],
        (shown, head, there): (&str, Option<&Oid>, &HashSet<Oid>),
        plan: &mut Plan,
    ) -> anyhow::Result<()> {
        let is_lost = |entry: &&Entry| is_content(entry) && !there.contains(&entry.oid);
        let lost: Vec<&Entry> = entries.iter().filter(is_lost).collect();
        if lost.is_empty() && index.trees.iter().all(|tree| there.contains(tree)) {
            return Ok(());
        }
        let tree = head.map(|head| index::tree(&view.git, head)).transpose()?.flatten().unwrap_or_default();
        let kept: Vec<Entry> = entries
            .iter()
            .filter_map(|entry| {
                if !is_lost(&entry) {
                    return Some(entry.clone());
                }
                let (mode, oid) = *tree.get(&entry.path).filter(|_| entry.stage == 0)?;
                Some(Entry { mode, oid, stat: None, ..entry.clone() })
            })
            .collect();
        plan.put_locked(index.path.clone(), index_write::encode(&kept, self.hash, index.file.as_ref()));
        if lost.is_empty() {
            plan.found(format!("{shown} stands for trees that are missing"), "it is written again without them");
            return Ok(());
        }
        let mut paths: Vec<String> =
            lost.iter().take(SHOWN).map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect();
        paths.extend((lost.len() > SHOWN).then(|| format!("and {} more", lost.len() - SHOWN)));
        let loss = format!("what was staged of {}: `git add` it again", paths.join(", "));
        plan.lost(
            format!("{shown} names {} objects that are missing", lost.len()),
            "those are as in HEAD, and of a conflict those sides go",
            loss,
        );
        Ok(())
    }
}

/// Submodules have their objects elsewhere, and what is only intended to be added has none.
fn is_content(entry: &Entry) -> bool {
    entry.mode != 0o160_000 && !entry.intent_to_add
}

fn read(path: &Path) -> anyhow::Result<(Content, Vec<Oid>, Option<FileId>)> {
    let Some((bytes, file)) = index_file::content(path)? else { return Ok((Content::Absent, Vec::new(), None)) };
    if !index::is_whole(&bytes)? {
        return Ok((Content::Unreadable, Vec::new(), None));
    }
    let content = match index_file::entries(&bytes) {
        Found::Entries(entries) => Content::Entries(entries),
        Found::Partial if is_shared_damaged(path, &bytes)? => Content::Unreadable,
        Found::Partial => Content::Partial,
        Found::Garbage => Content::Unreadable,
    };
    Ok((content, index::cached_trees(path)?, Some(file)))
}

/// Is the file damaged that a split index names as the one it is a part of?
fn is_shared_damaged(path: &Path, bytes: &[u8]) -> anyhow::Result<bool> {
    for (name, kind) in door::entries(crate::fs::access::parent(path))?.unwrap_or_default() {
        let oid = name.to_str().and_then(|name| Oid::parse(name.strip_prefix("sharedindex.")?.as_bytes()));
        let Some(oid) = oid.filter(|_| kind == door::Kind::File) else { continue };
        let is_named = bytes.windows(oid.as_bytes().len()).any(|part| part == oid.as_bytes());
        if is_named && !index::is_whole(&fs::read(path.with_file_name(&name))?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Is there anything but `.git`?
fn has_files(worktree: &Path) -> anyhow::Result<bool> {
    Ok(door::entries(worktree)?.unwrap_or_default().iter().any(|(name, _)| name != ".git"))
}

/// The directory that an index is about.
fn worktree_of(git_dir: &Path) -> Option<PathBuf> {
    if git_dir.file_name()? == ".git" {
        return git_dir.parent().map(Path::to_owned);
    }
    let (text, _) = read_small(&git_dir.join("gitdir")).ok()??;
    // A relative one is relative to the git directory (`worktree.useRelativePaths`).
    let link = git_dir.join(std::ffi::OsStr::from_bytes(text.trim_ascii()));
    // The worktree has to name this very git directory: otherwise it is somebody else's.
    let back = crate::git::repository::gitfile_target(&link)?;
    let is_ours = fs::canonicalize(back).is_ok_and(|back| back == git_dir);
    link.parent().filter(|_| is_ours).and_then(|dir| fs::canonicalize(dir).ok())
}
