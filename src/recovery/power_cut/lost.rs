//! Ends of reflogs, indexes and staged objects that a power cut took, and what is done about each.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;

use crate::fs::{durable, named as fs};
use crate::git::{Oid, RefName, reflog};
use crate::recovery::files::{set_aside, while_locked};
use crate::recovery::progress::Progress;
use crate::recovery::site::Site;
use crate::state::quarantine;

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
    pub(crate) blobs: Vec<(Oid, String)>,
    /// Are trees lost that the index stands for?
    pub(crate) trees: bool,
    pub(crate) count: usize,
}

impl LostObjects {
    pub(crate) fn expected(&self) -> String {
        format!("{} names {} objects that are lost", self.shown, self.count)
    }

    /// Writes them again: blobs if the files still have that content, and the trees.
    pub(crate) fn write(&self, site: &Site<'_>, progress: &mut Progress) -> anyhow::Result<()> {
        let Some(worktree) = worktree_of(&self.git_dir) else { return Ok(()) };
        let git = site.git.at(&self.git_dir);
        for (oid, name) in &self.blobs {
            let args = ["hash-object", "-w", "--", name];
            let written = git.worktree(&worktree).run(args)?;
            if Oid::parse(written.stdout.trim_ascii()) != Some(*oid) {
                progress.losses.push(format!("{}: what was staged of {name} is lost: `git add` it again", self.shown));
            }
        }
        if self.trees {
            // It makes missing trees anew. What cannot be a tree (a conflict) needs none.
            git.run(["write-tree"])?;
        }
        progress.lines.push(format!("wrote objects again that {} names and that were lost", self.shown));
        Ok(())
    }
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

    /// Moves it to quarantine and makes it anew from HEAD.
    pub(crate) fn rebuild(&self, site: &Site<'_>, progress: &mut Progress) -> anyhow::Result<()> {
        let Some(worktree) = worktree_of(&self.git_dir) else {
            progress.losses.push(self.homeless());
            return Ok(());
        };
        set_aside(site, &self.path)?;
        // With a path it moves no ref and writes no reflog.
        let git = site.git.at(&self.git_dir).worktree(&worktree).replacing();
        let ran = git.run(["reset", "--quiet", "--", ":/"])?;
        if ran.success {
            progress.lines.push(self.line());
        } else {
            progress.losses.push(format!("{} was unreadable and is in quarantine: {}", self.shown, ran.stderr));
        }
        Ok(())
    }
}

/// The directory that an index is about.
fn worktree_of(git_dir: &Path) -> Option<PathBuf> {
    if git_dir.file_name()? == ".git" {
        return git_dir.parent().map(Path::to_owned);
    }
    let text = fs::read_to_string(git_dir.join("gitdir")).ok()?;
    Path::new(text.trim_end()).parent().map(Path::to_owned).filter(|dir| dir.is_dir())
}
