//! Undo and redo of `git branch -m`: refs, HEAD, reflog and section of the configuration change names together.
//!
//! git makes the new name outside of any transaction. That the rename made it is proved by its reflog: a line behind what there was
//! before tells of this very rename, at the value that the branch has. So a branch that has no reflog afterwards
//! is not renamed back.
//!
//! | | undo | redo |
//! | --- | --- | --- |
//! | reflog | the new name's without that line; all of it, if more was logged since | the old name's with that line again |
//! | section | gets the old name again where it stands, if it says what the hook has kept | the same, if it says what undo found |

use std::io;
use std::path::Path;

use crate::apply::rename::LogMove;
use crate::fs::door::{self, Kind};
use crate::fs::{FileId, absent_is_none, durable, named as fs};
use crate::git::branch_config::{self, Section, Setting, of_branch, settings};
use crate::git::reflog::{LogLine, is_one_line};
use crate::git::{Git, RefName, RefStore, Repository, Value, index};
use crate::staging::own::{goes_on, read_log};
use crate::state::directory::SMALL;
use crate::undo::kept::Kept;
use crate::undo::refusal::Refusal;
use crate::undo::rename::RenameStep;
use crate::undo::restore::config::NewConfig;
use crate::undo::restore::{Head, Restore};
use crate::undo::{Direction, Step};
use crate::util::text::escape;
use crate::wal::rename_message;

/// One rename that is reversed.
struct Reversed<'r> {
    step: &'r Step,
    rename: &'r RenameStep,
    kept: &'r Kept,
    from: &'r RefName,
    to: &'r RefName,
}

/// Plans it, and changes nothing.
pub(super) fn plan(
    repo: &Repository,
    git: &Git,
    (step, rename): (&Step, &RenameStep),
    kept: &Kept,
) -> anyhow::Result<Restore> {
    let (from, to) = match step.direction {
        Direction::Undo => (&rename.new, &rename.old),
        Direction::Redo => (&rename.old, &rename.new),
    };
    let reversed = Reversed { step, rename, kept, from, to };
    let Some(head_now) = RefStore::new(repo).head()?.map(|head| head.value) else {
        return reversed.refused("HEAD cannot be read");
    };
    // It would have a commit all at once, and the index none of its files.
    if head_now == Value::Symref(to.clone()) {
        return Err(Refusal::NowCheckedOut(step.id, to.to_string()).into());
    }
    if let (Some(what), Some(_)) = (index::in_progress(&repo.git_dir), &rename.head) {
        return Err(Refusal::InProgress(step.id, what).into());
    }
    let commit = rename.value.oid().copied();
    let symref = |name: &RefName| Value::Symref(name.clone());
    let head = rename.head.as_ref().map(|_| Head {
        from: symref(from),
        to: symref(to),
        from_commit: commit,
        to_commit: commit,
        message: Some(rename_message(from, to)),
    });
    let branch_log = Some(reversed.log(repo)?);
    let config = reversed.config(repo, &git.at(&repo.git_dir))?;
    Ok(Restore { branch_log, config, head, head_now: Some(head_now), ..Restore::default() })
}

impl Reversed<'_> {
    fn refused<T>(&self, why: &str) -> anyhow::Result<T> {
        let hint = match self.step.direction {
            Direction::Undo => self.rename.way_back(),
            Direction::Redo => "`git branch -m` renames it again".to_owned(),
        };
        let why = format!("{why}\nhint: nothing was changed; {hint}");
        Err(Refusal::NotReversible(self.step.id, why).into())
    }

    /// The reflog of the name that goes, and what that of the other one becomes.
    fn log(&self, repo: &Repository) -> anyhow::Result<LogMove> {
        let Reversed { rename, from, to, .. } = *self;
        let refs = RefStore::new(repo);
        let (path, other) = (refs.log(from), refs.log(to));
        if !is_free(&other, &path)? {
            return self.refused("a reflog is in the way of that of the name that would come");
        }
        if rename.log.is_some_and(|log| log.size == 0) {
            return self.refused("its reflog was empty, and would not be so again");
        }
        let before = read_log(&path)?;
        let undone = self.kept.branch_log_undone.as_deref().map(read_log).transpose()?.flatten();
        let after = match self.step.direction {
            Direction::Undo => {
                before.as_deref().and_then(|log| self.taken_back(log)).map(|log| log.map(<[u8]>::to_vec))
            }
            Direction::Redo => undone.as_deref().and_then(|log| self.made_again(log, before.as_deref())).map(Some),
        };
        let Some(after) = after else {
            return self.refused("its reflog does not prove that it renamed this branch, or is not as it was left");
        };
        Ok(LogMove { from: from.clone(), to: to.clone(), before, after })
    }

    /// The reflog as it goes back: without the line that tells of the rename. What was logged behind that stays, and so does all of
    /// it. `Some(None)`: there was no reflog.
    fn taken_back<'l>(&self, log: &'l [u8]) -> Option<Option<&'l [u8]>> {
        let (start, end) = self.line_in(log)?;
        let is_none = start == 0 && self.rename.log.is_none();
        Some(if end < log.len() { Some(log) } else { Some(&log[..start]).filter(|_| !is_none) })
    }

    /// The reflog as the rename, or its redo, leaves it: `undone` is what undo has found, `now` what was made of that.
    fn made_again(&self, undone: &[u8], now: Option<&[u8]>) -> Option<Vec<u8>> {
        let (left, now) = (self.taken_back(undone)?.unwrap_or_default(), now.unwrap_or_default());
        let since = now.strip_prefix(left)?;
        goes_on(since, &self.rename.value).then(|| [now, &undone[left.len()..]].concat())
    }

    /// Where the reflog has the last line that tells of this rename: behind what there was before.
    fn line_in(&self, log: &[u8]) -> Option<(usize, usize)> {
        let RenameStep { old, new, value, log: then, .. } = self.rename;
        let mut at = usize::try_from(then.map_or(0, |then| then.size)).ok()?;
        let behind = log.get(at..).filter(|behind| goes_on(behind, value))?;
        let message = rename_message(old, new);
        let mut found = None;
        for line in behind.split_inclusive(|byte| *byte == b'\n') {
            let told = LogLine::parse(line.trim_ascii_end()).is_some_and(|line| line.message == message.as_bytes());
            if told && is_one_line(line, value, value) {
                found = Some((at, at + line.len()));
            }
            at += line.len();
        }
        found
    }

    /// The configuration in which the section has the other name; `None` when there is no such section.
    fn config(&self, repo: &Repository, git: &Git) -> anyhow::Result<Option<NewConfig>> {
        let [from, to] = [short(self.from), short(self.to)];
        let path = repo.common_dir.join("config");
        let Some(before) = FileId::at(&path)? else { return Ok(None) };
        let text = absent_is_none(durable::read_own(&path, SMALL))?.unwrap_or_default();
        let (now, wanted) = (branch_config::sections(&text, &[from]), self.wanted());
        let said = settings(git, &text)?;
        let is_free = !said.iter().any(|setting| of_branch(setting, to).is_some())
            && branch_config::sections(&text, &[to]).is_empty();
        let is_odd = branch_config::has_others(&text, &[from, to]);
        if is_odd || !is_free || !branch_config::is_renamed((from, &now), (to, &wanted)) {
            return self.refused("the configuration of the branch is not just the section that was renamed");
        }
        if wanted.is_empty() {
            let is_none = !said.iter().any(|setting| of_branch(setting, from).is_some());
            return if is_none { Ok(None) } else { self.refused("the configuration of the branch has changed since") };
        }
        if said.iter().any(|setting| setting.starts_with(b"include")) {
            return self.refused("the configuration includes others, which may say more of the branch");
        }
        let content = branch_config::replaced(&text, &now, &wanted);
        if settings(git, &content)? != with_names(&said, from, to) {
            return self.refused("the configuration of the branch is not written as git writes it");
        }
        Ok(Some(NewConfig { before, content, branches: vec![escape(from).into_owned(), escape(to).into_owned()] }))
    }

    /// The sections under the name that comes.
    fn wanted(&self) -> Vec<Section> {
        match (self.step.direction, &self.kept.config_undone) {
            (Direction::Undo, _) => branch_config::only(&self.kept.config_sections, &[short(self.to)]),
            (Direction::Redo, Some(undone)) => branch_config::sections(undone, &[short(self.to)]),
            (Direction::Redo, None) => Vec::new(),
        }
    }
}

/// Can git begin a reflog there, once the one that goes is gone? Otherwise it would fail behind the commit point.
fn is_free(log: &Path, going: &Path) -> io::Result<bool> {
    let is_other = |path: &Path| path != going && fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir());
    if log.ancestors().any(is_other) {
        return Ok(false);
    }
    let mut directories = vec![log.to_owned()];
    while let Some(directory) = directories.pop().filter(|it| fs::symlink_metadata(it).is_ok_and(|it| it.is_dir())) {
        for (name, kind) in door::entries(&directory)?.into_iter().flatten() {
            let path = directory.join(name);
            match kind {
                Kind::Directory => directories.push(path),
                _ if path != going => return Ok(false),
                _ => {}
            }
        }
    }
    Ok(true)
}

/// The settings with those of the one branch under the name of the other.
fn with_names(settings: &[Setting], from: &[u8], to: &[u8]) -> Vec<Setting> {
    let other = |setting: &Setting| match of_branch(setting, from) {
        Some(_) => [b"branch.", to, &setting[b"branch.".len() + from.len()..]].concat(),
        None => setting.clone(),
    };
    settings.iter().map(other).collect()
}

fn short(name: &RefName) -> &[u8] {
    name.as_bytes().strip_prefix(b"refs/heads/").unwrap_or(name.as_bytes())
}
