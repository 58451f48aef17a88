//! The configuration of branches that come or go: a section goes with its branch, and comes back with it.
//!
//! | branch | undo | redo |
//! | --- | --- | --- |
//! | made by the operation | its section goes, if git has made it with the branch: an upstream | comes back, as undo found it |
//! | deleted by the operation | comes back, as the hook found it | goes again |
//!
//! What the section says now has to be what the operation, or its undo, left; else all is refused. A section comes back where it
//! stood. Nothing but these sections changes: that is compared as git reads it.

use crate::fs::{FileId, absent_is_none, durable};
use crate::git::branch_config::{self, Section, Setting, of_branch, settings};
use crate::git::{Git, RefStore, Repository, Value};
use crate::process::operation::words_of;
use crate::state::directory::SMALL;
use crate::undo::kept::Kept;
use crate::undo::refusal::Refusal;
use crate::undo::{Direction, Step};
use crate::util::text::escape;

/// The configuration that the repository gets.
#[derive(Debug, Clone)]
pub(crate) struct NewConfig {
    /// The one that it was made of.
    pub before: FileId,
    /// The new one.
    pub content: Vec<u8>,
    /// The branches whose sections change.
    pub branches: Vec<String>,
}

/// A branch that comes or goes.
struct Branch<'s> {
    name: &'s [u8],
    /// Has the operation made it?
    is_made: bool,
}

/// The configuration behind `step`; `None` when it stays.
pub(super) fn plan(repo: &Repository, git: &Git, step: &Step, kept: &Kept) -> anyhow::Result<Option<NewConfig>> {
    let branches = branches(repo, step)?;
    let path = repo.common_dir.join("config");
    let comes_or_goes = |name: &[u8]| {
        let writes = step.writes.iter().filter(|write| write.from == Value::Absent || write.to == Value::Absent);
        writes.into_iter().any(|write| write.name.as_bytes().strip_prefix(b"refs/heads/") == Some(name))
    };
    // Branches that were written and stay.
    let others: Vec<&[u8]> = kept.branches.iter().map(Vec::as_slice).filter(|name| !comes_or_goes(name)).collect();
    let is_nothing = branches.is_empty() && (others.is_empty() || step.direction == Direction::Redo);
    let (Some(before), false) = (FileId::at(&path)?, is_nothing) else { return Ok(None) };
    let text = absent_is_none(durable::read_own(&path, SMALL))?.unwrap_or_default();
    let git = git.at(&repo.git_dir);
    let now = settings(&git, &text)?;
    let names: Vec<&[u8]> = branches.iter().map(|branch| branch.name).collect();
    let found_by_operation = branch_config::only(&kept.config_sections, &names);
    let wanted = match (step.direction, &kept.config_undone) {
        (Direction::Redo, Some(undone)) => branch_config::sections(undone, &names),
        // The undo has changed nothing.
        (Direction::Undo, _) | (Direction::Redo, None) => found_by_operation.clone(),
    };
    let found = settings(&git, &lines(&found_by_operation))?;
    for branch in &branches {
        if !is_as_left(step, branch, &now, &found) {
            return Err(is_another(step, branch.name).into());
        }
    }
    if step.direction == Direction::Undo {
        let found = settings(&git, &lines(&kept.config_sections))?;
        if let Some(name) = others.iter().find(|name| of(&now, name) != of(&found, name)) {
            let why = format!(
                "the configuration of the branch {} was changed by it or since, and would not go back",
                escape(name)
            );
            return Err(Refusal::NotReversible(step.id, why).into());
        }
    }
    let (content, all_fit) = branch_config::with(branch_config::without(&text, &names), &wanted);
    if !all_fit && now.iter().any(|setting| setting.starts_with(b"include")) {
        let why = "the configuration includes others, and that of its branches would not stand where it stood";
        return Err(Refusal::NotReversible(step.id, why.to_owned()).into());
    }
    let (new, wanted) = (settings(&git, &content)?, settings(&git, &lines(&wanted))?);
    if of_others(&new, &names) != of_others(&now, &names) || !has_same(&new, &wanted, &names) {
        let why = "the configuration of its branches is not written as git writes it";
        return Err(Refusal::NotReversible(step.id, why.to_owned()).into());
    }
    if content == text {
        return Ok(None);
    }
    let changed = names.iter().filter(|name| of(&new, name) != of(&now, name));
    let branches = changed.map(|name| escape(name).into_owned()).collect();
    Ok(Some(NewConfig { before, content, branches }))
}

/// HEAD stays on a branch that is unborn again, and so does what is configured for it.
fn branches<'s>(repo: &Repository, step: &'s Step) -> anyhow::Result<Vec<Branch<'s>>> {
    let head = RefStore::new(repo).head()?.map(|head| head.value);
    let head_moves = step.writes.iter().any(|write| write.name.is_head());
    let mut found = Vec::new();
    for write in &step.writes {
        let is_unborn = !head_moves && head == Some(Value::Symref(write.name.clone()));
        let comes_or_goes = write.from == Value::Absent || write.to == Value::Absent;
        if let Some(name) = write.name.as_bytes().strip_prefix(b"refs/heads/").filter(|_| comes_or_goes && !is_unborn) {
            found.push(Branch { name, is_made: (write.to == Value::Absent) == (step.direction == Direction::Undo) });
        }
    }
    Ok(found)
}

fn lines(sections: &[Section]) -> Vec<u8> {
    sections.iter().flat_map(|section| section.lines.iter().copied()).collect()
}

fn of<'s>(settings: &'s [Setting], branch: &[u8]) -> Vec<(&'s [u8], &'s [u8])> {
    settings.iter().filter_map(|setting| of_branch(setting, branch)).collect()
}

fn of_others<'s>(settings: &'s [Setting], names: &[&[u8]]) -> Vec<&'s Setting> {
    settings.iter().filter(|setting| !names.iter().any(|name| of_branch(setting, name).is_some())).collect()
}

fn has_same(one: &[Setting], other: &[Setting], names: &[&[u8]]) -> bool {
    names.iter().all(|name| of(one, name) == of(other, name))
}

/// Says the section of the branch what the operation left, or its undo? `found` is what the operation found.
fn is_as_left(step: &Step, branch: &Branch<'_>, now: &[Setting], found: &[Setting]) -> bool {
    let (now, found) = (of(now, branch.name), of(found, branch.name));
    match (step.direction, branch.is_made) {
        (Direction::Redo, _) => now == found,
        // `update-ref -d` leaves it.
        (Direction::Undo, false) => now.is_empty() || now == found,
        (Direction::Undo, true) => now == found || has_got_upstream(step, &now, &found),
    }
}

/// Is the difference the upstream that git gives a branch which it makes from another one? The operation names that one.
fn has_got_upstream(step: &Step, now: &[(&[u8], &[u8])], found: &[(&[u8], &[u8])]) -> bool {
    const OF_UPSTREAM: [&[u8]; 3] = [b"remote", b"merge", b"rebase"];
    let others = |settings: &[(&[u8], &[u8])]| -> Vec<(Vec<u8>, Vec<u8>)> {
        let others = settings.iter().filter(|(name, _)| !OF_UPSTREAM.contains(name));
        others.map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    };
    let once = OF_UPSTREAM.iter().all(|name| now.iter().filter(|(it, _)| it == name).count() <= 1);
    let Some((_, merge)) = now.iter().find(|(name, _)| *name == b"merge") else { return false };
    let short = String::from_utf8_lossy(merge.strip_prefix(b"refs/heads/").unwrap_or(merge)).into_owned();
    let commands = std::iter::once(&step.operation).chain(step.heads.iter().map(|head| &head.operation));
    let names_it = |word: &String| *word == short || word.ends_with(&format!("/{short}"));
    once && others(now) == others(found) && commands.flat_map(|line| words_of(line)).any(|word| names_it(&word))
}

fn is_another(step: &Step, branch: &[u8]) -> Refusal {
    let short = escape(branch);
    let why = format!(
        "the configuration of the branch {short} has changed since, and that would be lost\n\
         hint: `git config --remove-section branch.{short}` removes it, and then this can be reversed"
    );
    Refusal::NotReversible(step.id, why)
}
