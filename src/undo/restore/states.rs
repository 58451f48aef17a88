//! What was in progress when a commit ended it: a merge, a cherry-pick or a revert is in progress again when that commit is undone,
//! and is not when it is redone.
//!
//! Limit: several picks at once, and whatever else has a directory for its state, are not put back. AUTO_MERGE, with which
//! `git diff` shows what was done to the conflicts, does not come back.

use std::collections::BTreeMap;
use std::path::Path;

use crate::apply::swap::StateSwap;
use crate::fs::door::{self, Kind};
use crate::fs::{absent_is_none, durable};
use crate::git::Repository;
use crate::git::index;
use crate::process::operation::command_of;
use crate::state::directory::SMALL;
use crate::state::kept;
use crate::undo::kept::Kept;
use crate::undo::refusal::Refusal;
use crate::undo::restore::effect::Move;
use crate::undo::{Direction, Step};

type Files = BTreeMap<String, Vec<u8>>;

/// The state files that come or go with `step`, or why it is refused.
pub(super) fn plan(repo: &Repository, step: &Step, moves: &[Move], kept: &Kept) -> anyhow::Result<Vec<StateSwap>> {
    let ended = kept.state_files.as_deref().filter(|_| moves.iter().any(|m| m.commits));
    let ended = ended.map(|dir| restorable(dir, moves)).transpose()?;
    let refused = |why: &str| Err(Refusal::NotReversible(step.id, why.to_owned()).into());
    if step.direction == Direction::Undo {
        if kept.state_files.as_deref().is_some_and(|dir| ended.is_none() && !goes_on(step, dir)) {
            return refused("it ended what was in progress, and that would not be in progress again");
        }
        let began = kept.is_of_itself || moves.iter().any(|m| m.ends);
        if kept.state_files.is_none() && began && moves.iter().all(|m| m.commits) {
            return refused(
                "it ended a merge or the like of which nothing is kept: it began within this operation, or unseen",
            );
        }
    }
    match (ended, index::in_progress(&repo.git_dir), step.direction) {
        (Some(Some(files)), Some(_), Direction::Redo) if is_there(repo, &files)? => {
            Ok(files.into_keys().map(|name| StateSwap { name, content: None }).collect())
        }
        (_, Some(what), _) => Err(Refusal::InProgress(step.id, what).into()),
        (Some(Some(files)), None, Direction::Undo) if !is_any_there(repo, &files) => {
            Ok(files.into_iter().map(|(name, content)| StateSwap { name, content: Some(content) }).collect())
        }
        (Some(_), None, Direction::Undo) => {
            refused("it ended a merge, a cherry-pick or the like, which would not be in progress again")
        }
        (Some(Some(_)), None, Direction::Redo) => refused("what it ended is not in progress any more"),
        _ => Ok(Vec::new()),
    }
}

/// Is it the rest of a sequence, whose state it found?
fn goes_on(step: &Step, dir: &Path) -> bool {
    const COMMANDS: [&str; 6] = ["am", "bisect", "cherry-pick", "pull", "rebase", "revert"];
    let is_sequence = kept::SEQUENCES.iter().any(|name| dir.join(name).symlink_metadata().is_ok());
    is_sequence
        && step.parts.is_empty()
        && command_of(&step.operation).is_some_and(|it| COMMANDS.contains(&it.as_str()))
}

/// The files, if one commit ended what had these alone.
fn restorable(dir: &Path, moves: &[Move]) -> anyhow::Result<Option<Files>> {
    let mut files = Files::new();
    for (name, kind) in door::entries(dir)?.into_iter().flatten() {
        match name.to_str() {
            Some("AUTO_MERGE") => {}
            Some(name) if kind == Kind::File && kept::OF_A_COMMIT.contains(&name) => {
                files.insert(name.to_owned(), durable::read_own(&dir.join(name), SMALL)?);
            }
            _ => return Ok(None),
        }
    }
    let has = |name: &&&str| files.contains_key(**name);
    let is_one = ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"].iter().filter(has).count() == 1;
    Ok((is_one && moves.len() == 1).then_some(files))
}

fn is_there(repo: &Repository, files: &Files) -> anyhow::Result<bool> {
    for (name, content) in files {
        if absent_is_none(durable::read_own(&repo.git_dir.join(name), SMALL))?.as_ref() != Some(content) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_any_there(repo: &Repository, files: &Files) -> bool {
    files.keys().any(|name| repo.git_dir.join(name).symlink_metadata().is_ok())
}
