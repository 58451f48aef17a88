//! What is written for a transaction behind its commit point, besides its refs: staged files, and HEAD's reflog.

use std::path::Path;

use crate::fs::FileId;
use crate::git::{RefName, RefStore, Repository, Value, reflog};
use crate::locks::{InTheWay, while_holding};
use crate::recovery::files::while_locked;
use crate::recovery::progress::Progress;
use crate::recovery::site::Site;
use crate::staging::own::{self, Whole};
use crate::staging::place::{Placed, Placing};
use crate::staging::worktree::Worktree;
use crate::staging::{branch_log, stage, states};
use crate::state::{TxId, kept};
use crate::wal::{Begin, FileChange, NewFile, RefChange};

/// An entry that the log of HEAD's branch has, and HEAD's own log, which ends at `size`, lacks.
pub(crate) struct MissingEntry {
    pub(crate) head: RefName,
    pub(crate) size: Option<u64>,
    pub(crate) line: Vec<u8>,
}

/// Looks whether git was killed between the two logs.
pub(crate) fn missing_head_entry(site: &Site<'_>, begin: &Begin) -> anyhow::Result<Option<MissingEntry>> {
    let refs = RefStore::new(site.repo);
    for head in begin.watched.iter().filter(|w| w.name.is_head()) {
        let Value::Symref(branch) = refs.read(&head.name)?.value else { continue };
        let Some(change) = begin.refs.iter().find(|c| c.name == branch) else { continue };
        let Some(line) = reflog::line_at(&refs.log(&branch), change.log)? else { continue };
        let is_ours = reflog::LogLine::parse(&line).is_some_and(|l| l.message == begin.message.as_bytes());
        if is_ours && FileId::at(&refs.log(&head.name))?.map(|id| id.size) == head.log {
            return Ok(Some(MissingEntry { head: head.name.clone(), size: head.log, line }));
        }
    }
    Ok(None)
}

/// Puts the staged files into place; what another writer made of them stays, and needs manual resolution.
pub(crate) fn place_files(
    site: &Site<'_>,
    id: TxId,
    git_dir: &Path,
    begin: &Begin,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    if let Some(log) = &begin.new_branch_log {
        let put = || Ok(branch_log::place(site.repo, (site.state, id), begin, log)?);
        let placed = while_locked(site, &log.to, put)?;
        tell_placed(&format!("the reflog of {}", log.to), placed, progress);
    }
    for (whole, change) in own::whole_files(begin) {
        place_whole(site, id, git_dir, (whole, &change), &begin.refs, progress)?;
    }
    for name in states::place(site.state, id, git_dir, &begin.states)? {
        progress.left_some = true;
        progress.lines.push(format!("{name} is left alone: somebody else has made it"));
    }
    for (change, placed) in redo_files(site, id, git_dir, begin)? {
        match placed {
            Placed::Now if change.after.is_some() => progress.lines.push(format!("wrote {}", change.path)),
            Placed::Now => progress.lines.push(format!("removed {}", change.path)),
            Placed::Already => {}
            Placed::Left(why) => {
                progress.left_some = true;
                progress.lines.push(format!("{} is left alone: {why}", change.path));
            }
        }
    }
    let repo = Repository { git_dir: git_dir.to_owned(), ..site.repo.clone() };
    kept::renew_after_undo(&repo, site.state)?;
    if progress.lines.is_empty() {
        progress.lines.push("all of it had been applied".to_owned());
    }
    Ok(())
}

fn place_whole(
    site: &Site<'_>,
    id: TxId,
    git_dir: &Path,
    (whole, change): (Whole, &NewFile),
    refs: &[RefChange],
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let path = whole.path(site.repo, git_dir);
    let put = || own::place(site.state, id, &site.git.at(git_dir), (whole, &path), change, refs);
    let placed = while_holding(site.repo, &whole.lock(site.repo, git_dir), put)?;
    tell_placed(&site.repo.relative(&path), placed, progress);
    Ok(())
}

fn tell_placed(name: &str, placed: Placed, progress: &mut Progress) {
    match placed {
        Placed::Now => progress.lines.push(format!("wrote {name}")),
        Placed::Already => {}
        Placed::Left(why) => {
            progress.left_some = true;
            progress.lines.push(format!("{name} is left alone: {why}"));
        }
    }
}

fn redo_files<'b>(
    site: &Site<'_>,
    id: TxId,
    git_dir: &Path,
    begin: &'b Begin,
) -> anyhow::Result<Vec<(&'b FileChange, Placed)>> {
    if begin.files.is_empty() {
        return Ok(Vec::new());
    }
    let left = |why: &str| begin.files.iter().map(|f| (f, Placed::Left(why.to_owned()))).collect();
    // A worktree that is gone must not be mistaken for the main one.
    if begin.worktree.is_empty() != (git_dir == site.repo.common_dir) {
        return Ok(left("its worktree is gone"));
    }
    let repo = Repository { git_dir: git_dir.to_owned(), ..site.repo.clone() };
    let Ok(worktree) = Worktree::open(&repo, &site.git.at(&repo.git_dir)) else {
        return Ok(left("its worktree cannot be opened"));
    };
    let Some(stage) = stage::open(site.state, id)? else { return Ok(left("what was staged is lost")) };
    let placing = Placing { worktree: &worktree, stage: &stage, read_at: None };
    let mut placed = Vec::with_capacity(begin.files.len());
    for (index, change) in begin.files.iter().enumerate() {
        let done = placing.place(index, change);
        let done = done.map_err(|error| InTheWay(format!("cannot write {}: {error}", change.path)))?;
        placed.push((change, done));
    }
    Ok(placed)
}
