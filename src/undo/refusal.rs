//! Why a transaction is not reversed.

use crate::git::{RefName, Value};
use crate::state::TxId;

/// So many paths are named.
const MOST_PATHS: usize = 20;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Back.
    Undo,
    /// Forward again.
    Redo,
}

/// Why a transaction is not reversed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is none left.
    NothingLeft(Direction),
    /// The log has no such finished transaction, or it is on the other side already.
    NotThere(TxId, Direction),
    /// It is more than values of refs.
    NotReversible(TxId, String),
    /// The newest operation, its command, and why it is more than values of refs: nothing older is taken back instead.
    Newest(TxId, String, String),
    /// The newest operation and its command: it fetched or pushed. And the one before.
    Transfer(TxId, String, Option<(TxId, String)>),
    /// A push: the other repository has it. And what takes it back there.
    Pushed(TxId, String, Vec<String>),
    /// What was undone, and the operation that came since, with its command.
    CameSince(TxId, TxId, String),
    /// The newest operation and its command, and what changed behind it that no hook saw.
    Behind(TxId, String, Vec<String>),
    /// A run in which refs changed that no hook saw.
    Unseen(TxId, RefName),
    /// Refs moved on since.
    Moved(TxId, Vec<(RefName, Value)>),
    /// The new name of a branch moved on since, and how a person renames it back.
    MovedSince(TxId, Vec<(RefName, Value)>, String),
    /// A ref would come where another one is in its way: its directory, or a ref below it.
    InTheWay(TxId, RefName, RefName),
    /// A branch would move that another worktree has checked out.
    CheckedOutElsewhere(TxId, RefName),
    /// A branch that a worktree has checked out would cease to be.
    CheckedOut(TxId, RefName),
    /// It moved HEAD of another worktree, of this name.
    OtherWorktree(TxId, RefName),
    /// The process that made it is at work still.
    StillRunning(TxId, u32),
    /// A merge, a rebase or the like is in progress in this worktree.
    InProgress(TxId, &'static str),
    /// What it did to index and files is unknown: why.
    UnknownMove(TxId, String),
    /// It moved a branch that was not checked out then, and is now.
    NowCheckedOut(TxId, String),
    /// Index entries and files that are not as it left them, and why each.
    Worktree(TxId, Vec<(String, String)>),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::NothingLeft(Direction::Undo) => f.write_str("there is nothing to undo in the log"),
            Refusal::NothingLeft(Direction::Redo) => f.write_str("nothing has been undone"),
            Refusal::NotThere(id, Direction::Undo) => {
                write!(f, "{id} is no finished transaction that is not undone yet")
            }
            Refusal::NotThere(id, Direction::Redo) => write!(f, "{id} is not undone"),
            Refusal::NotReversible(id, why) => write!(f, "{id} cannot be reversed: {why}"),
            Refusal::Newest(id, operation, why) => {
                write!(
                    f,
                    "the newest operation, {id} (`{operation}`), cannot be undone: {why}\n\
                     hint: nothing was changed; `git txn undo ID` takes an older one back, and `git txn log` lists them"
                )
            }
            Refusal::Transfer(id, operation, before) => {
                write!(
                    f,
                    "the newest operation, {id} (`{operation}`), moved what follows other repositories, and is undone only by its id\n\
                     hint: nothing was changed; `git txn undo {id}` takes it back"
                )?;
                before
                    .iter()
                    .try_for_each(|(id, operation)| write!(f, ", `git txn undo {id}` the one before (`{operation}`)"))
            }
            Refusal::Pushed(id, operation, commands) => {
                write!(
                    f,
                    "{id} (`{operation}`) is not reversed, and nothing was changed: the other repository has what was pushed"
                )?;
                commands.iter().try_for_each(|command| write!(f, "\nhint: `{command}` takes it back there"))
            }
            Refusal::CameSince(id, newer, operation) => {
                write!(
                    f,
                    "{id} is not done again, and nothing was changed: a new operation came since, {newer} (`{operation}`)\n\
                     hint: `git txn redo {id}` does it again all the same"
                )
            }
            Refusal::Behind(id, operation, found) => {
                write!(
                    f,
                    "{id} (`{operation}`) is not undone, and nothing was changed: something came behind it that no hook saw"
                )?;
                found.iter().try_for_each(|line| write!(f, "\n  {line}"))?;
                write!(f, "\nhint: `git txn undo {id}` takes it back all the same")
            }
            Refusal::Unseen(id, name) => {
                write!(
                    f,
                    "{id} cannot be reversed: refs changed in it that no hook saw ({name}), and what they were is not in the log\n\
                     hint: nothing was changed; `git reflog` may have what they were; to take back an older transaction, name it"
                )
            }
            Refusal::Moved(id, refs) => {
                write!(f, "{id} is not reversed, and nothing was changed: refs have moved on since")?;
                refs.iter().try_for_each(|(name, now)| write!(f, "\n  {name} is {now} now"))
            }
            Refusal::MovedSince(id, refs, hint) => {
                write!(f, "{}\nhint: {hint}", Refusal::Moved(*id, refs.clone()))
            }
            Refusal::InTheWay(id, name, other) => {
                write!(f, "{id} is not reversed, and nothing was changed: {other} is in the way of {name}")
            }
            Refusal::CheckedOutElsewhere(id, name) => {
                write!(
                    f,
                    "{id} is not reversed, and nothing was changed: another worktree has {name} checked out; run this there"
                )
            }
            Refusal::OtherWorktree(id, head) => {
                write!(f, "{id} is not reversed, and nothing was changed: it moved {head}; run this in that worktree")
            }
            Refusal::InProgress(id, what) => {
                let command = what.rsplit(' ').next().unwrap_or_default();
                write!(
                    f,
                    "{id} is not reversed, and nothing was changed: {what} is in progress in this worktree\n\
                     hint: `git {command} --abort` ends it, and throws away what was done since it stopped"
                )
            }
            Refusal::UnknownMove(id, why) => {
                write!(
                    f,
                    "{id} is not reversed, and nothing was changed: {why}\n\
                     hint: `git txn undo --keep-worktree {id}` takes its refs back, and leaves index and files"
                )
            }
            Refusal::StillRunning(id, pid) => {
                write!(
                    f,
                    "{id} is not reversed, and nothing was changed: its process {pid} is still running\n\
                     hint: wait until that has ended"
                )
            }
            Refusal::NowCheckedOut(id, branch) => {
                write!(
                    f,
                    "{id} is not reversed, and nothing was changed: it moved {branch}, which is checked out only now\n\
                     hint: switch to another branch first"
                )
            }
            Refusal::Worktree(id, paths) => {
                write!(f, "{id} is not reversed, and nothing was changed: these paths are not as it left them")?;
                paths.iter().take(MOST_PATHS).try_for_each(|(path, why)| write!(f, "\n  {path}: {why}"))?;
                if let Some(more) = paths.len().checked_sub(MOST_PATHS).filter(|more| *more > 0) {
                    write!(f, "\n  and {more} more")?;
                }
                write!(
                    f,
                    "\nhint: `git stash -u` puts changes away; `--keep-worktree` leaves index and files as they are"
                )
            }
            Refusal::CheckedOut(id, name) => {
                write!(
                    f,
                    "{id} is not reversed: {name} would cease to be, and is checked out; switch to another branch first"
                )
            }
        }
    }
}
