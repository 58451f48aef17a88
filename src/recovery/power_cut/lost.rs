//! Ends of reflogs, indexes and staged objects that a power cut took, and what is done about each.

use std::collections::HashSet;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;

use crate::fs::beneath::{RelPath, Root};
use crate::fs::{FileId, durable, named as fs};
use crate::git::cat_file::sizes;
use crate::git::hash::Hash;
use crate::git::{Git, Oid, Plumbing, RefName, index, reflog};
use crate::locks::while_holding;
use crate::recovery::files::{set_aside, while_locked};
use crate::recovery::progress::Progress;
use crate::recovery::site::Site;
use crate::run::reachable;
use crate::state::quarantine;
use crate::util::text::counted;

/// A reflog with NULs, half a line or entries about lost objects at its end.
#[derive(Debug)]
pub(crate) struct DamagedReflog {
    pub(crate) name: RefName,
    pub(crate) path: PathBuf,
    pub(crate) lost: Rc<HashSet<Oid>>,
}

impl DamagedReflog {
    pub(crate) fn sound_size(&self) -> std::io::Result<Option<u64>> {
        reflog::sound_size(&self.path, |oid| !self.lost.contains(oid))
    }

    pub(crate) fn line(&self) -> String {
        format!("trimmed the reflog of {}: the power cut had damaged its end", self.name)
    }

    /// Cuts the damaged end off, and keeps it in quarantine.
    pub(crate) fn cut(&self, site: &Site<'_>) -> anyhow::Result<()> {
        while_locked(site, &self.name, || {
            let Some(size) = self.sound_size()? else { return Ok(()) };
            let content = fs::read(&self.path)?;
            let tail = content.get(usize::try_from(size).unwrap_or(usize::MAX)..).unwrap_or_default();
            quarantine::keep(site.state, &format!("reflog-tail.{}", self.name), tail)
                .with_context(|| format!("cannot keep the end of the reflog of {}", self.name))?;
            Ok(durable::truncate(&self.path, size)?)
        })
    }
}

/// An index that names objects which are lost.
#[derive(Debug)]
pub(crate) struct LostObjects {
    pub(crate) git_dir: PathBuf,
    /// The index, as it is shown.
    pub(crate) shown: String,
    /// Lost blobs that are staged, with their paths.
    pub(crate) blobs: Vec<(Oid, Vec<u8>)>,
    /// Are trees lost that the index stands for?
    pub(crate) trees: bool,
    pub(crate) count: usize,
}

impl LostObjects {
    pub(crate) fn expected(&self) -> String {
        format!("{} names {}, lost in the crash", self.shown, counted(self.count as u64, "object"))
    }

    /// Writes them again: blobs if the files still have that content, and the trees.
    pub(crate) fn write(&self, site: &Site<'_>, progress: &mut Progress) -> anyhow::Result<()> {
        let Some(worktree) = worktree_of(&self.git_dir) else { return Ok(()) };
        let git = site.git.at(&self.git_dir).worktree(&worktree);
        let root = Root::open(&worktree)?;
        let before = progress.losses.len();
        for (oid, path) in &self.blobs {
            let is_stored = match content_of(&root, path, oid)? {
                // Where a corrupt one is in the way git takes that for the object, and stores nothing.
                Some(content) => {
                    git.command(Plumbing::StoreBlob).stdin(content).run()?.success
                        && sizes(&git, std::iter::once(*oid))? != [None]
                }
                None => false,
            };
            if !is_stored {
                let name = String::from_utf8_lossy(path);
                progress.losses.push(format!("{}: what was staged of {name} is lost: `git add` it again", self.shown));
            }
        }
        if self.trees {
            write_trees(site, &git, &self.git_dir.join("index"))?;
        }
        if progress.losses.len() == before {
            progress.lines.push(format!("wrote objects again that {} names and that were lost", self.shown));
        }
        Ok(())
    }
}

/// Makes missing trees of the index at `path` anew, through an index of ours. What cannot be a tree (a conflict) needs none.
fn write_trees(site: &Site<'_>, git: &Git, path: &Path) -> anyhow::Result<()> {
    let Some((entries, _)) = index::read(git, path)? else { return Ok(()) };
    let mut input = Vec::new();
    for entry in entries.iter().filter(|e| !e.intent_to_add) {
        input.extend_from_slice(format!("{:o} {} {}\t", entry.mode, entry.oid, entry.stage).as_bytes());
        input.extend_from_slice(&entry.path);
        input.push(0);
    }
    let ours = own_index(site)?;
    git.command(Plumbing::FillIndex).index(&ours).stdin(input).run_ok()?;
    git.command(Plumbing::WriteTree).index(&ours).run()?;
    Ok(durable::remove_file(&ours)?)
}

/// A name for an index of ours, where nothing is.
fn own_index(site: &Site<'_>) -> anyhow::Result<PathBuf> {
    let ours = site.state.path().join("new-index");
    durable::remove_file(&ours)?;
    durable::remove_file(&ours.with_extension("lock"))?;
    Ok(ours)
}

/// The content of the blob `oid`, if the file at `path` has it: as it is, or with LF for CR LF, as git stores text. No filter is
/// run.
fn content_of(root: &Root, path: &[u8], oid: &Oid) -> anyhow::Result<Option<Vec<u8>>> {
    let hash = Hash::of(oid);
    let Ok(path) = RelPath::parse(path) else { return Ok(None) };
    let Some(place) = reachable(root.parent(&path))? else { return Ok(None) };
    if let Some(target) = place.read_link()? {
        return Ok(Some(target).filter(|target| hash.blob(target) == *oid));
    }
    let Some(mut file) = place.open()? else { return Ok(None) };
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    if hash.blob(&content) != *oid {
        let mut bytes = content.iter().copied().peekable();
        let mut text = Vec::with_capacity(content.len());
        while let Some(byte) = bytes.next() {
            if byte != b'\r' || bytes.peek() != Some(&b'\n') {
                text.push(byte);
            }
        }
        content = text;
    }
    Ok(Some(content).filter(|content| hash.blob(content) == *oid))
}

/// An index that cannot be read.
#[derive(Debug)]
pub(crate) struct LostIndex {
    pub(crate) git_dir: PathBuf,
    pub(crate) path: PathBuf,
    pub(crate) shown: String,
}

impl LostIndex {
    fn homeless(&self) -> String {
        format!("{} is unreadable: remove it and run `git reset` in the worktree", self.shown)
    }

    fn line(&self) -> String {
        format!("rebuilt {} from HEAD: it was unreadable; nothing in the worktree was touched", self.shown)
    }

    pub(crate) fn tell(&self, progress: &mut Progress) {
        match worktree_of(&self.git_dir) {
            None => progress.losses.push(self.homeless()),
            Some(_) => progress.lines.push(self.line()),
        }
    }

    /// Makes it anew from HEAD, and keeps the unreadable one in quarantine.
    pub(crate) fn rebuild(&self, site: &Site<'_>, progress: &mut Progress) -> anyhow::Result<()> {
        let Some(worktree) = worktree_of(&self.git_dir) else {
            progress.losses.push(self.homeless());
            return Ok(());
        };
        let new = own_index(site)?;
        let git = site.git.at(&self.git_dir).worktree(&worktree).replacing();
        let made = while_holding(site.repo, &self.git_dir.join("index.lock"), || {
            if let Err(error) = index_of_head(&git, &worktree, &new) {
                return Ok(Err(error));
            }
            if FileId::at(&self.path)?.is_some() {
                set_aside(site, &self.path)?;
            }
            durable::share_as(&new, &self.path)?;
            durable::rename(&new, &self.path)?;
            Ok(Ok(()))
        })?;
        match made {
            Ok(()) => progress.lines.push(self.line()),
            Err(why) => {
                durable::remove_file(&new)?;
                progress.losses.push(format!("{} is unreadable, and cannot be made from HEAD: {why:#}", self.shown));
            }
        }
        Ok(())
    }
}

/// Makes an index of HEAD's tree at `new`; the worktree is only looked at for what a sparse checkout keeps out of it.
fn index_of_head(git: &Git, worktree: &Path, new: &Path) -> anyhow::Result<()> {
    let head = git.run(Plumbing::Resolve("HEAD^{tree}"))?;
    let tree = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    // A branch without a commit has no tree.
    git.command(Plumbing::ReadTree(Some(tree.as_str()).filter(|_| head.success))).index(new).run_ok()?;
    if git.config("core.sparseCheckout")?.as_deref() != Some("true") {
        return Ok(());
    }
    let paths = git.command(Plumbing::Tracked(None)).index(new).run_ok()?.stdout;
    let inside = git.command(Plumbing::SparsePaths).stdin(paths.clone()).run()?;
    let knows_rules = inside.success;
    let inside: HashSet<&[u8]> = inside.split(0).collect();
    // Before 2.41 git does not say what a sparse checkout keeps out: it is what is not there.
    let is_there = |path: &[u8]| {
        let path = worktree.join(std::ffi::OsStr::from_bytes(path));
        fs::symlink_metadata(path).is_ok()
    };
    let mut kept_out = Vec::new();
    for path in paths.split(|b| *b == 0).filter(|path| !path.is_empty()) {
        if !inside.contains(path) && (knows_rules || !is_there(path)) {
            kept_out.extend_from_slice(path);
            kept_out.push(0);
        }
    }
    git.command(Plumbing::SkipWorktree).index(new).stdin(kept_out).run_ok()?;
    Ok(())
}

/// The directory that an index is about.
fn worktree_of(git_dir: &Path) -> Option<PathBuf> {
    if git_dir.file_name()? == ".git" {
        return git_dir.parent().map(Path::to_owned);
    }
    let text = fs::read_to_string(git_dir.join("gitdir")).ok()?;
    // A relative one is relative to the git directory.
    git_dir.join(text.trim_end()).parent().map(Path::to_owned).filter(|dir| dir.is_dir())
}
