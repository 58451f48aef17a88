//! Performs actions, or, in a dry run, tells them.
//!
//! Both come from the same list, so that a dry run cannot drift from the real one: [`perform`] is the only place that
//! asks which of the two it is. Every action is idempotent and checks what it finds, so that it can be cut anywhere.

use std::collections::HashSet;
use std::path::Path;

use crate::fs::{FileId, door, durable};
use crate::git::refs::RefSnapshot;
use crate::git::update_refs::RefWrite;
use crate::git::{Plumbing, RefName, Repository, Value};
use crate::locks::InTheWay;
use crate::recovery::action::{Action, Snapshot};
use crate::recovery::files::{keep_copy, replace_file, set_aside, write_refs};
use crate::recovery::power_cut::redo;
use crate::recovery::progress::Progress;
use crate::recovery::run_rollback::restore;
use crate::recovery::site::Site;
use crate::recovery::{close, reflogs, staged, take_apart};
use crate::state::marker::State;
use crate::state::{kept, quarantine};
use crate::wal::{Body, Flush, Outcome, rename_message};

/// Performs actions one after the other, or tells them.
pub(crate) fn perform(site: &Site<'_>, actions: Vec<Action>) -> anyhow::Result<Progress> {
    let mut progress = Progress::default();
    for action in actions {
        if site.options.dry_run {
            action.tell(site, &mut progress)?;
        } else {
            match action.execute(site, &mut progress) {
                // What lies behind a link is not this repository's, and no reason to leave the rest undone.
                Err(error) if door::is_linked(&error) => {
                    progress.left_some = true;
                    progress.lines.push(format!("{error:#}"));
                }
                done => done?,
            }
        }
    }
    Ok(progress)
}

impl Action {
    /// What it would do: looks, and changes nothing.
    fn tell(self, site: &Site<'_>, progress: &mut Progress) -> anyhow::Result<()> {
        match self {
            Action::Tell(line) => progress.lines.push(line),
            Action::PutReflogBack { saved, name } => {
                progress.lines.extend(reflogs::is_missing(site, &saved, &name)?.then(|| reflogs::put_back_line(&name)));
            }
            Action::TrimReflog(trim) => progress.lines.extend(trim.expected(site)?),
            Action::DropReflog { name, size } => {
                progress.lines.extend(reflogs::is_left(site, &name, size)?.then(|| reflogs::dropped_line(&name)));
            }
            Action::WriteRefs { writes, verb, .. } => progress.wrote(&writes, verb),
            Action::FollowRename { old, new, .. } => progress.lines.push(follows_line(&old, &new)),
            Action::RenameSection { old, new } => progress.lines.push(section_line(&old, &new)),
            Action::PlaceFiles { begin, .. } if !begin.files.is_empty() => {
                progress.lines.push(format!("{} of its files are looked at one by one", begin.files.len()));
            }
            Action::Redo(repairs) => progress.repaired.extend(repairs),
            Action::CutReflog(damaged) => progress.lines.push(damaged.line()),
            Action::WriteStaged(lost) => progress.lines.push(lost.expected()),
            Action::RebuildIndex(lost) => lost.tell(progress),
            Action::RestoreRun(run) => restore::tell(site, &run, progress)?,
            _ => {}
        }
        Ok(())
    }

    fn execute(self, site: &Site<'_>, progress: &mut Progress) -> anyhow::Result<()> {
        match self {
            Action::Tell(line) => progress.lines.push(line),
            Action::PutReflogBack { saved, name } => {
                progress.lines.extend(reflogs::put_back(site, &saved, &name)?);
            }
            Action::Forget => progress.lines.clear(),
            Action::MoveReflog { from, ino, to } => reflogs::move_renamed(site, &from, ino, &to)?,
            Action::TrimReflog(trim) => progress.lines.extend(trim.execute(site)?),
            Action::DropReflog { name, size } => progress.lines.extend(reflogs::drop_log(site, &name, size)?),
            Action::CompleteHeadLog(begin) => {
                if let Some(missing) = staged::missing_head_entry(site, &begin)? {
                    progress.lines.extend(reflogs::complete(site, &missing.head, missing.size, &missing.line)?);
                }
            }
            Action::WriteRefs { git_dir, writes, message, verb } => {
                write_refs(site, &git_dir, &writes, &message)?;
                progress.wrote(&writes, verb);
            }
            Action::FollowRename { git_dir, old, new } => {
                follow_rename(site, &git_dir, &old, &new)?;
                progress.lines.push(follows_line(&old, &new));
            }
            Action::RenameSection { old, new } => {
                let ran = site.git.run(Plumbing::RenameSection { old: &old, new: &new })?;
                let is_locked = || FileId::at(&site.repo.common_dir.join("config.lock"));
                if !ran.success && is_locked()?.is_some() {
                    return Err(InTheWay(format!("git config refused: {}", ran.stderr)).into());
                }
                // `[Branch "old"]` is a section that git reads and does not rename: so would the command itself have left it.
                let stays = || format!("the settings of {old} stay: {}", ran.stderr.trim());
                progress.lines.push(if ran.success { section_line(&old, &new) } else { stays() });
            }
            Action::PlaceFiles { id, git_dir, begin } => {
                staged::place_files(site, id, &git_dir, &begin, progress)?;
            }
            Action::RenewStanding { git_dir } => {
                let repo = Repository { git_dir, ..site.repo.clone() };
                kept::renew_standing(&repo, site.state, None)?;
            }
            Action::Sync => durable::sync_filesystem_of(site.state.path())?,
            Action::Record { id, outcome, refs } => {
                let outcome = if progress.left_some { Outcome::NeedsHuman } else { outcome };
                let refs = refs.take(site, &progress.refs_moved)?;
                let body = Body::Recovered { outcome, actions: progress.lines.clone(), refs };
                progress.recorded = Some((site.log.append(Some(id), &body, Flush::Yes)?, outcome));
            }
            Action::KeepFromReboot(begin) => {
                if let Some((as_of, Outcome::NeedsHuman | Outcome::Acknowledged)) = progress.recorded {
                    let refs = close::refs_now(site.repo, &begin)?;
                    let body = Body::Baseline { as_of, actions: Vec::new(), refs };
                    site.log.append(None, &body, Flush::No)?;
                }
            }
            Action::Mark { mut entry, state } => entry.settle(state)?,
            Action::SetMarkerAside(entry) => {
                let aside = site.state.quarantine().join(quarantine::name(&format!("marker.{}", entry.id)));
                durable::rename_new(&entry.path, &aside)?;
            }
            Action::Conclude { mut entry, state } => {
                let waits = matches!(progress.recorded, Some((_, Outcome::NeedsHuman)));
                let state = if waits { State::Failed } else { state };
                entry.settle(state)?;
                if !waits {
                    close::close(site, entry, state)?;
                }
            }
            Action::Close { entry, state } => close::close(site, entry, state)?,
            Action::CloseRun { entry, state } => crate::run::close(site.state, entry, state)?,
            Action::Sweep(abandoned) => close::sweep(site, &abandoned)?,
            Action::RestoreRun(run) => restore::restore(site, &run, progress)?,
            Action::RemoveLock(lock) => progress.is_void = !lock.remove(site.state, site.repo)?,
            Action::FinishLock { lock, keep } => {
                if let Some(path) = keep {
                    keep_copy(site, &path)?;
                }
                lock.finish()?;
            }
            Action::FinishIndex(removed) => removed.finish(site)?,
            Action::TrimUnfinishedMove(lock) => progress.lines.extend(reflogs::trim_unfinished_move(site, &lock)?),
            Action::SetAside(path) => set_aside(site, &path)?,
            Action::TakeWorktreeApart { lock, dir, worktree } => {
                progress.is_void = !take_apart::take_apart(site, &lock, &dir, worktree.as_deref())?;
            }
            Action::ReplaceFile { path, content, lock } => replace_file(site, &path, &content, lock.as_deref())?,
            Action::Redo(repairs) => redo::redo(site, repairs, progress)?,
            Action::CutReflog(damaged) => match damaged.cut(site) {
                // A live git appends to it right now: its end is not what the power cut left.
                Err(error) if error.is::<InTheWay>() => {}
                done => {
                    done?;
                    progress.lines.push(damaged.line());
                }
            },
            Action::WriteStaged(lost) => lost.write(site, progress)?,
            Action::RebuildIndex(lost) => lost.rebuild(site, progress)?,
            Action::EndBootCheck { as_of, lines, refs } => {
                // Its effects first, then the record, then the note.
                if !lines.is_empty() || !refs.is_empty() {
                    site.log.append(None, &Body::Baseline { as_of, actions: lines, refs }, Flush::No)?;
                }
                site.log.checkpoint()?;
                site.state.mark_verified(site.log.boot())?;
            }
        }
        Ok(())
    }
}

impl Snapshot {
    fn take(self, site: &Site<'_>, written: &[RefName]) -> anyhow::Result<Vec<RefSnapshot>> {
        match self {
            Snapshot::None => Ok(Vec::new()),
            Snapshot::All(begin) => close::refs_now(site.repo, &begin),
            Snapshot::Written(begin) => {
                let written: HashSet<&RefName> = written.iter().collect();
                let mut refs = close::refs_now(site.repo, &begin)?;
                refs.retain(|r| written.contains(&r.name));
                Ok(refs)
            }
        }
    }
}

fn follow_rename(site: &Site<'_>, git_dir: &Path, old: &RefName, new: &RefName) -> anyhow::Result<()> {
    let message = rename_message(old, new);
    reflogs::trim_arrival(site, git_dir, message.as_bytes())?;
    let to = Value::Symref(new.clone());
    let write = RefWrite { name: RefName::parse(b"HEAD")?, from: Value::Symref(old.clone()), to };
    write_refs(site, git_dir, &[write], &message)
}

fn follows_line(old: &RefName, new: &RefName) -> String {
    format!("HEAD follows {old} to {new}")
}

fn section_line(old: &str, new: &str) -> String {
    format!("the configuration {old} is now {new}")
}
