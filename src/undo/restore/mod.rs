//! What undo and redo do to a worktree: which of its index entries and files change, and where HEAD goes.
//!
//! ```text
//!  moves of HEAD, in the order in which they are reversed     effect of each: stays, index, files
//!  ──▶ from which tree to which tree ──▶ per path: what is there now? ──▶ new index, files to write, or a refusal
//! ```
//! A move that did not touch the worktree when it was made (`commit`, `reset --soft`) does not when it is reversed. Everything is
//! looked at before anything is changed, and a single path that is not as the operation left it refuses all.
//!
//! Limits: a repository without a worktree has refs only. HEAD of a reftable is not moved from branch to branch.

mod config;
mod effect;
mod paths;
mod rename;
mod staged;
mod stash;
mod states;

use crate::apply::rename::LogMove;
use crate::apply::swap::{LogSwap, StateSwap};
use crate::fs::FileId;
use crate::fs::beneath::RelPath;
use crate::git::filtered::ATTRIBUTES_OF_A_COMMIT;
use crate::git::index::{self, Tree};
use crate::git::update_refs::RefWrite;
use crate::git::{Git, Oid, RefName, RefStore, Repository, Value};
use crate::staging::worktree::{NoWorktree, Worktree};
use crate::undo::history::LogPlace;
use crate::undo::kept::Kept;
use crate::undo::refusal::Refusal;
use crate::undo::{Direction, Step};
use crate::wal::{FileImage, FileMode};

use config::NewConfig;
use effect::{Effect, Move};

/// What is to be done to the worktree.
#[derive(Debug, Clone, Default)]
pub(crate) struct Restore {
    /// The new index.
    pub index: Option<NewIndex>,
    /// Files.
    pub files: Vec<FileRestore>,
    /// The commit of which files have the attributes, where those of the worktree change as well.
    pub attributes: Option<Oid>,
    /// State files that come or go. Then there is a new index.
    pub states: Vec<StateSwap>,
    /// The new configuration.
    pub config: Option<NewConfig>,
    /// The log of refs/stash, where entries of it come or go.
    pub stash_log: Option<LogSwap>,
    /// The reflog of a branch that gets another name.
    pub branch_log: Option<LogMove>,
    /// HEAD, where it is not one of the refs that git writes.
    pub head: Option<Head>,
    /// What HEAD is, on which all of it was planned.
    pub head_now: Option<Value>,
    /// HEAD's commit changes, and index and files stay.
    pub is_soft: bool,
}

impl Restore {
    /// Is it nothing but refs, which one session of git writes?
    pub(super) fn is_of_refs(&self) -> bool {
        self.index.is_none()
            && self.states.is_empty()
            && self.config.is_none()
            && self.stash_log.is_none()
            && self.branch_log.is_none()
            && self.files.is_empty()
            && self.head.is_none()
    }
}

/// The index that the worktree gets.
#[derive(Debug, Clone)]
pub(crate) struct NewIndex {
    /// The one that it was made of.
    pub before: Option<FileId>,
    /// The new one.
    pub content: Vec<u8>,
    /// How many of its entries change.
    pub changed: usize,
}

/// One file that is written or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileRestore {
    pub path: RelPath,
    /// What is there.
    pub from: Option<FileImage>,
    /// The blob that is checked out.
    pub to: Option<(FileMode, Oid)>,
}

/// Where HEAD is, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub from: Value,
    pub to: Value,
    pub from_commit: Option<Oid>,
    pub to_commit: Option<Oid>,
    /// What HEAD's reflog says of it, where that is not a switch of branches.
    pub message: Option<String>,
}

/// How much of a worktree follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    /// Index and files, as they did when the operation was made.
    AsMade,
    /// Refs alone.
    RefsOnly,
}

/// Plans it, and changes nothing.
pub(crate) fn plan(repo: &Repository, git: &Git, step: &Step, kept: &Kept, follow: Follow) -> anyhow::Result<Restore> {
    if let Some(rename) = &step.rename {
        return match kept.why_not(step.direction, false) {
            Some(why) => Err(Refusal::NotReversible(step.id, why.to_owned()).into()),
            None => rename::plan(repo, git, (step, rename), kept),
        };
    }
    let worktree = match step.stash {
        Some(stash) => stash::plan(repo, git, (step, stash), kept, follow)?,
        None => of_worktree(repo, git, step, kept, follow)?,
    };
    let with_index = follow == Follow::AsMade && worktree.head_now.is_some();
    if let Some(why) = kept.why_not(step.direction, with_index) {
        return Err(Refusal::NotReversible(step.id, why.to_owned()).into());
    }
    Ok(Restore { config: config::plan(repo, git, step, kept)?, ..worktree })
}

fn of_worktree(repo: &Repository, git: &Git, step: &Step, kept: &Kept, follow: Follow) -> anyhow::Result<Restore> {
    let Some(head) = head_of(repo, step)? else { return Ok(Restore::default()) };
    let worktree = match Worktree::open(repo, git) {
        Ok(worktree) => worktree,
        Err(error) if error.is::<NoWorktree>() => {
            // Somebody has worked here, wherever that was.
            if follow == Follow::AsMade && repo.git_dir.join("index").exists() {
                let why = "where its worktree is cannot be told from here: `--keep-worktree` takes back the refs alone";
                return Err(Refusal::NotReversible(step.id, why.to_owned()).into());
            }
            return Ok(Restore { head: head.if_symbolic(), ..Restore::default() });
        }
        Err(error) => return Err(error),
    };
    if let (Some(what), Direction::Undo) = (index::in_progress(&repo.git_dir), step.direction) {
        return Err(Refusal::InProgress(step.id, what).into());
    }
    let moves = moves(repo, step, &head)?;
    // A rebase makes such files as it begins; only a commit ends what somebody else had begun.
    let states = states::plan(repo, step, &moves, kept)?;
    if let (Some(what), Follow::RefsOnly) = (states.first(), follow) {
        let why = format!("{} goes with index and files: it cannot be reversed with `--keep-worktree`", what.name);
        return Err(Refusal::NotReversible(step.id, why).into());
    }
    let range = range(step, &moves, &head)?;
    let symbolic = head.if_symbolic();
    let is_soft = head.from_commit != head.to_commit;
    let soft = Restore { head: symbolic, head_now: Some(head.from.clone()), is_soft, ..Restore::default() };
    let git = git.at(&repo.git_dir);
    let (effect, from, to) = match (range, follow) {
        (Some(range), Follow::AsMade) => range,
        (None, Follow::AsMade) if moves.iter().all(|m| m.commits) => {
            let trees =
                paths::Trees { from: tree(&git, step, head.from_commit)?, to: tree(&git, step, head.to_commit)? };
            let index = match staged::plan(repo, &git, &worktree, step, &trees, kept)? {
                None if !states.is_empty() => staged::same(repo, &worktree, step)?,
                index => index,
            };
            let is_soft = index.as_ref().is_none_or(|index| index.changed == 0);
            return Ok(Restore { is_soft, index, states, ..soft });
        }
        _ => return Ok(soft),
    };
    let trees = paths::Trees { from: tree(&git, step, from)?, to: tree(&git, step, to)? };
    let attributes = to.filter(|_| effect == Effect::Follows && trees.have_other_attributes());
    if attributes.is_some() && git.version()? < ATTRIBUTES_OF_A_COMMIT {
        let (major, minor) = ATTRIBUTES_OF_A_COMMIT;
        let why =
            format!("`.gitattributes` changes with the files, and only git {major}.{minor} or newer checks that out");
        return Err(Refusal::NotReversible(step.id, why).into());
    }
    let (index, files) = paths::plan(repo, &git, &worktree, step, &trees, effect)?;
    if step.direction == Direction::Undo {
        staged::require_same(repo, &git, step, &trees, kept, index.as_ref())?;
        if moves.iter().any(|m| m.resets) {
            staged::require_clean(&git, step, &trees, kept)?;
        }
    }
    Ok(Restore { index, files, attributes, is_soft: false, ..soft })
}

/// Where HEAD goes; `None` when neither HEAD nor its branch is written.
fn head_of(repo: &Repository, step: &Step) -> anyhow::Result<Option<Head>> {
    let refs = RefStore::new(repo);
    let name = refs.canonical(b"HEAD")?;
    let from = refs.read(&name)?.value;
    let written = |name: &RefName| step.writes.iter().find(|write| write.name == *name);
    if let Some(other) = step.writes.iter().find(|write| write.name.is_head() && write.name != name) {
        return Err(Refusal::OtherWorktree(step.id, other.name.clone()).into());
    }
    let branch = |value: &Value| if let Value::Symref(branch) = value { Some(branch.clone()) } else { None };
    let is_moved = written(&name).is_some() || branch(&from).is_some_and(|branch| written(&branch).is_some());
    if !is_moved {
        return Ok(None);
    }
    let to = written(&name).map_or_else(|| from.clone(), |write| write.to.clone());
    let now = |value: &Value| -> anyhow::Result<Option<Oid>> {
        Ok(match branch(value) {
            Some(branch) => refs.read(&branch)?.value.oid().copied(),
            None => value.oid().copied(),
        })
    };
    let to_commit = match branch(&to).as_ref().and_then(written) {
        Some(write) => write.to.oid().copied(),
        None => now(&to)?,
    };
    let from_commit = now(&from)?;
    Ok(Some(Head { from, to, from_commit, to_commit, message: None }))
}

impl Head {
    /// Git's sessions move a detached HEAD, and none that is symbolic.
    fn if_symbolic(&self) -> Option<Head> {
        let is_symbolic = |value: &Value| matches!(value, Value::Symref(_));
        (self.from != self.to && (is_symbolic(&self.from) || is_symbolic(&self.to))).then(|| self.clone())
    }

    /// Is this one of the refs that go with HEAD itself?
    pub(super) fn is_written_by(&self, write: &RefWrite) -> bool {
        write.name.is_head() && write.from == self.from && write.to == self.to
    }
}

/// The moves in the order in which they are made now.
fn moves(repo: &Repository, step: &Step, head: &Head) -> anyhow::Result<Vec<Move>> {
    let refs = RefStore::new(repo);
    let log = refs.log(&refs.canonical(b"HEAD")?);
    if step.heads.is_empty() {
        let branch = if let Value::Symref(branch) = &head.from { branch.to_string() } else { "HEAD".to_owned() };
        return Err(Refusal::NowCheckedOut(step.id, branch).into());
    }
    // What the log knows of HEAD then may be older than its move, and the branch be renamed: everything would be removed.
    if let (Value::Symref(branch), None) = (&head.to, head.to_commit)
        && step.heads.iter().any(|record| record.log == LogPlace::Unknown)
    {
        return Err(Refusal::UnknownMove(step.id, format!("{branch}, which HEAD would mean, is not there")).into());
    }
    let mut moves = Vec::with_capacity(step.heads.len());
    for record in &step.heads {
        let read = effect::read(&log, record)?;
        let made = read.map_err(|why| Refusal::UnknownMove(step.id, why))?;
        moves.push(if step.direction == Direction::Undo { made.reversed() } else { made });
    }
    Ok(moves)
}

/// From which commit to which the worktree goes, and how much of it.
type Range = (Effect, Option<Oid>, Option<Oid>);

fn range(step: &Step, moves: &[Move], head: &Head) -> anyhow::Result<Option<Range>> {
    let effective = |m: &Move| m.effect != Effect::Stays;
    let (Some(first), Some(last)) = (moves.iter().position(effective), moves.iter().rposition(effective)) else {
        return Ok(None);
    };
    let effect = moves[first].effect;
    if moves.iter().any(|m| effective(m) && m.effect != effect) {
        let why = "it moved HEAD with the files and without them".to_owned();
        return Err(Refusal::UnknownMove(step.id, why).into());
    }
    let unknown = || Refusal::UnknownMove(step.id, "HEAD's reflog does not say over which commits it went".to_owned());
    let from = if first == 0 { head.from_commit } else { moves[first].from.ok_or_else(unknown)? };
    let to = if last + 1 == moves.len() { head.to_commit } else { moves[last].to.ok_or_else(unknown)? };
    Ok(Some((effect, from, to)))
}

/// The tree of a commit; the empty one where there is none.
fn tree(git: &Git, step: &Step, commit: Option<Oid>) -> anyhow::Result<Tree> {
    let Some(commit) = commit else { return Ok(Tree::new()) };
    let tree = index::tree(git, &commit)?;
    Ok(tree.ok_or_else(|| Refusal::NotReversible(step.id, format!("git cannot read the tree of {commit} any more")))?)
}
