//! Taking a finished transaction back, and doing it again.
//!
//! Both are transactions of their own: one `git update-ref` session that every hook sees, ours included, and that expects
//! every ref where the other transaction left it. So it happens wholly or not at all, whatever kills it, and never over
//! what somebody did since.
//!
//! ```text
//!          commit, fetch, ...              undo                    redo
//! done:    tx-1 tx-2 tx-3        ─────▶    tx-1 tx-2     ─────▶    tx-1 tx-2 tx-3
//! undone:                                  tx-3
//! ```
//! Refs move, and the files of a transaction that declared some; nothing else does: index and worktree stay as they are,
//! as after `git reset --soft`. Files go back to what the transaction that replaced them has kept.
//!
//! Limit: what has no value to go back to in the log (reftables) and what is more than a value (the stash, whose list is
//! its reflog; HEAD from branch to branch, which goes with the worktree) is not reversed.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::apply::{Expected, Transaction};
use crate::fs::beneath::RelPath;
use crate::git::refs::RefSnapshot;
use crate::git::update_refs::{RefWrite, write_refs_with_hooks};
use crate::git::{Git, RefName, RefStore, Repository, Value};
use crate::run::child_transactions;
use crate::staging::stage::{self, Source};
use crate::state::{StateDir, TxId, TxKind};
use crate::util::text::unescape;
use crate::wal::{Begin, Body, FileChange, FileImage, Outcome, Record, Reversal};

/// Refs that `doctor` makes and deletes again: nobody's work, so never the newest transaction to take back.
pub(crate) const SCRATCH: &str = "refs/jin-txn/";

const HEAD_MOVED: &str = "it moved HEAD from branch to branch: `git switch` takes the worktree along";

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Back.
    Undo,
    /// Forward again.
    Redo,
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The transaction that is reversed.
    pub id: TxId,
    /// What it was.
    pub operation: String,
    /// Which way.
    pub direction: Direction,
    /// Its refs, from where they have to be to where they go.
    pub writes: Vec<RefWrite>,
    /// Its files, the same way, and where the content lies that they go back to.
    pub files: Vec<FileStep>,
    /// The worktree's git directory, as the log has it.
    worktree: String,
    /// The run that this is part of.
    pub part_of: Option<TxId>,
}

/// One file that goes back, or forward again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileStep {
    /// Its path in the worktree.
    pub path: RelPath,
    /// What it has to be.
    pub from: Option<FileImage>,
    /// What it becomes.
    pub to: Option<FileImage>,
    /// Which transactions replaced that content, and as which of their files: they have kept it.
    kept_by: Vec<(TxId, usize)>,
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
    /// A run in which refs changed that no hook saw.
    Unseen(TxId, RefName),
    /// Refs moved on since.
    Moved(TxId, Vec<(RefName, Value)>),
    /// A branch that a worktree has checked out would cease to be.
    CheckedOut(TxId, RefName),
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
            Refusal::CheckedOut(id, name) => {
                write!(
                    f,
                    "{id} is not reversed: {name} would cease to be, and is checked out; switch to another branch first"
                )
            }
        }
    }
}

/// The transactions of a log that can be reversed.
struct History<'l> {
    steps: HashMap<TxId, Result<Changes<'l>, Refusal>>,
    done: Vec<TxId>,
    undone: Vec<TxId>,
    /// What the parts of runs did that have not ended.
    parts: HashMap<TxId, Vec<Part<'l>>>,
}

struct Changes<'l> {
    begin: &'l Begin,
    refs: Vec<(RefName, Value, Value)>,
    files: &'l [FileChange],
}

/// A finished transaction of a run: it counts as soon as the run does, and with it.
enum Part<'l> {
    Step(Result<Changes<'l>, Refusal>),
    Reversal(Reversal),
}

impl<'l> History<'l> {
    fn of(records: &'l [Record]) -> History<'l> {
        let mut begins: HashMap<TxId, &Begin> = HashMap::new();
        let mut history =
            History { steps: HashMap::new(), done: Vec::new(), undone: Vec::new(), parts: HashMap::new() };
        for record in records {
            let Some(id) = record.tx else { continue };
            let settled = match &record.body {
                Body::Begin(begin) | Body::Decided(begin) => {
                    begins.insert(id, begin);
                    continue;
                }
                Body::Committed { refs } | Body::Recovered { refs, outcome: Outcome::Committed, .. } => refs,
                _ => continue,
            };
            // A second ending (recovery of what was committed) says nothing new.
            let Some(begin) = begins.remove(&id) else { continue };
            let is_settled = |name: &RefName| settled.iter().any(|s| s.name == *name);
            match (begin.origin, begin.reverses, begin.part_of) {
                (TxKind::Run, ..) => history.end_run(id, begin, records, settled),
                (_, Some(reversal), None) => history.reverse(reversal),
                (_, Some(reversal), Some(run)) => {
                    history.parts.entry(run).or_default().push(Part::Reversal(reversal));
                }
                (_, None, Some(run)) => {
                    let step = changes(id, begin, is_settled);
                    history.parts.entry(run).or_default().push(Part::Step(step));
                }
                (_, None, None) => {
                    history.steps.insert(id, changes(id, begin, is_settled));
                    history.done.push(id);
                }
            }
        }
        history
    }

    fn reverse(&mut self, reversal: Reversal) {
        match reversal {
            Reversal::Undo(other) => {
                self.done.retain(|tx| *tx != other);
                self.undone.push(other);
            }
            Reversal::Redo(other) => {
                self.undone.retain(|tx| *tx != other);
                self.done.push(other);
            }
        }
    }

    /// A run was kept: all of its parts are one step, over which each ref went from where the first found it.
    fn end_run(&mut self, id: TxId, begin: &'l Begin, records: &'l [Record], unseen: &[RefSnapshot]) {
        let mut refusal = None;
        for part in self.parts.remove(&id).unwrap_or_default() {
            match part {
                Part::Reversal(reversal) => self.reverse(reversal),
                Part::Step(Ok(changes)) if changes.refs.iter().any(|(name, ..)| name.is_head()) => {
                    refusal.get_or_insert("it moved a detached HEAD".to_owned());
                }
                Part::Step(Err(Refusal::NotReversible(_, why))) => {
                    refusal.get_or_insert(why);
                }
                Part::Step(_) => {}
            }
        }
        // Up to 2.45 git moves HEAD outside of any transaction, and tells the post-checkout hook.
        let moved_head = |record: &Record| match (&record.body, &begin.head) {
            (Body::Checkout(now), Some(before)) if now.part_of == Some(id) => {
                now.head.as_ref().is_some_and(|now| now.name == before.name && now.value != before.value)
            }
            _ => false,
        };
        if records.iter().any(moved_head) {
            refusal.get_or_insert(HEAD_MOVED.to_owned());
        }
        let moves = child_transactions::moves(records, id);
        let refs: Vec<_> = moves.into_iter().map(|m| (m.name, m.before, m.after)).collect();
        let step = match refusal {
            _ if !unseen.is_empty() => Err(Refusal::Unseen(id, unseen[0].name.clone())),
            Some(why) => Err(Refusal::NotReversible(id, why)),
            None if refs.is_empty() => Err(Refusal::NotReversible(id, "it changed no ref".to_owned())),
            // Files of a run are the worktree's, as those of any command.
            None => Ok(Changes { begin, refs, files: &[] }),
        };
        self.steps.insert(id, step);
        self.done.push(id);
    }
}

fn changes<'l>(id: TxId, begin: &'l Begin, is_settled: impl Fn(&RefName) -> bool) -> Result<Changes<'l>, Refusal> {
    let not = |why: &str| Err(Refusal::NotReversible(id, why.to_owned()));
    if begin.rename.is_some() {
        return not("it renamed a branch, whose new name no transaction made: `git branch -m` renames it back");
    }
    if begin.refs.iter().all(|c| c.name.as_bytes().starts_with(SCRATCH.as_bytes())) {
        return not("it was a trial of `jin-txn doctor`");
    }
    if let Some(name) = begin.left.first() {
        return not(&format!("it changed `{name}`, a name that jin-txn does not write"));
    }
    let mut refs = Vec::new();
    for change in begin.refs.iter().filter(|c| is_settled(&c.name)) {
        let name = change.name.as_bytes();
        if name == b"refs/stash" {
            return not("the list of stashes is in the reflog, which no ref update brings back");
        }
        match (&change.before, &change.after) {
            (None, _) => return not("the log has no earlier values of a reftable"),
            (Some(Value::Symref(_)), _) | (_, Value::Symref(_)) if change.name.is_head() => {
                return not(HEAD_MOVED);
            }
            (Some(before @ (Value::Oid(_) | Value::Absent)), after @ (Value::Oid(_) | Value::Absent)) => {
                // Pseudo-refs (ORIG_HEAD) belong to the command, not to its result.
                if name.starts_with(b"refs/") || change.name.is_head() {
                    refs.push((change.name.clone(), before.clone(), after.clone()));
                }
            }
            _ => return not("it changed a symbolic ref"),
        }
    }
    let files = begin.files.as_slice();
    if refs.is_empty() && files.is_empty() { not("it changed no ref") } else { Ok(Changes { begin, refs, files }) }
}

/// What to write in order to reverse `wanted`, or else the newest transaction that can be.
pub(crate) fn plan(records: &[Record], direction: Direction, wanted: Option<TxId>) -> Result<Step, Refusal> {
    let history = History::of(records);
    let side = if direction == Direction::Undo { &history.done } else { &history.undone };
    // What was done behind the hooks is not passed over: what is older was not done last.
    let reversible = |id: &&TxId| matches!(history.steps.get(id), Some(Ok(_) | Err(Refusal::Unseen(..))));
    let id = match wanted {
        Some(id) if side.contains(&id) => id,
        Some(id) => return Err(Refusal::NotThere(id, direction)),
        None => *side.iter().rev().find(reversible).ok_or(Refusal::NothingLeft(direction))?,
    };
    let changes = match history.steps.get(&id) {
        Some(Ok(changes)) => changes,
        Some(Err(refusal)) => return Err(refusal.clone()),
        None => return Err(Refusal::NotThere(id, direction)),
    };
    let write = |(name, before, after): &(RefName, Value, Value)| {
        let (from, to) = if direction == Direction::Undo { (after, before) } else { (before, after) };
        RefWrite { name: name.clone(), from: from.clone(), to: to.clone() }
    };
    let writes = changes.refs.iter().map(write).collect();
    let file = |change: &FileChange| {
        let (from, to) =
            if direction == Direction::Undo { (change.after, change.before) } else { (change.before, change.after) };
        FileStep { path: change.path.clone(), from, to, kept_by: to.map_or_else(Vec::new, |to| keepers(records, to)) }
    };
    let files = changes.files.iter().map(file).collect();
    let (operation, worktree) = (changes.begin.operation.clone(), changes.begin.worktree.clone());
    Ok(Step { id, operation, direction, writes, files, worktree, part_of: None })
}

/// The transactions that have kept a file that was `image` when they replaced or removed it, newest first.
fn keepers(records: &[Record], image: FileImage) -> Vec<(TxId, usize)> {
    let mut keepers = Vec::new();
    for record in records.iter().rev() {
        if let (Some(id), Body::Decided(begin)) = (record.tx, &record.body) {
            let places = begin.files.iter().enumerate().filter(|(_, f)| f.before == Some(image));
            keepers.extend(places.map(|(index, _)| (id, index)));
        }
    }
    keepers
}

/// Is every ref where the step expects it, and does no checked-out branch cease to be?
pub(crate) fn check(repo: &Repository, step: &Step) -> anyhow::Result<()> {
    let refs = RefStore::new(repo);
    let mut moved = Vec::new();
    for write in &step.writes {
        let now = refs.read(&write.name)?.value;
        if now != write.from {
            moved.push((write.name.clone(), now));
        }
    }
    // Where files are concerned the transaction itself says what has moved on, refs and files together.
    if !moved.is_empty() && step.files.is_empty() {
        return Err(Refusal::Moved(step.id, moved).into());
    }
    let heads = checked_out(repo)?;
    let lost = step.writes.iter().find(|w| w.to == Value::Absent && heads.contains(&w.name));
    lost.map_or(Ok(()), |w| Err(Refusal::CheckedOut(step.id, w.name.clone()).into()))
}

/// Branches that a worktree has checked out.
pub(crate) fn checked_out(repo: &Repository) -> anyhow::Result<Vec<RefName>> {
    let mut branches = Vec::new();
    for git_dir in repo.all_git_dirs() {
        let worktree = Repository { git_dir, ..repo.clone() };
        if let Some(Value::Symref(branch)) = RefStore::new(&worktree).head()?.map(|h| h.value) {
            branches.push(branch);
        }
    }
    Ok(branches)
}

/// Writes it, all or nothing.
pub(crate) fn carry_out(repo: &Repository, git: &Git, step: &Step) -> anyhow::Result<()> {
    let reversal = match step.direction {
        Direction::Undo => Reversal::Undo(step.id),
        Direction::Redo => Reversal::Redo(step.id),
    };
    let message = format!("{reversal} ({})", step.operation);
    if !step.files.is_empty() {
        return carry_out_files(repo, git, step, reversal, &message);
    }
    let text = reversal.to_string();
    write_refs_with_hooks(&git.at(&repo.git_dir), &step.writes, &message, (crate::util::env::REVERSES, &text))
}

/// The same as a transaction of ours, with files.
fn carry_out_files(repo: &Repository, git: &Git, step: &Step, reversal: Reversal, message: &str) -> anyhow::Result<()> {
    let prepared = transaction(repo, git, step, reversal, message)?.prepare()?;
    for file in &step.files {
        let after = prepared.files().iter().find(|f| f.path == file.path).and_then(|f| f.after);
        if after != file.to {
            let why = format!("the kept content of `{}` is damaged", file.path);
            prepared.abort()?;
            return Err(Refusal::NotReversible(step.id, why).into());
        }
    }
    let done = prepared.commit()?;
    anyhow::ensure!(
        done.left.is_empty(),
        "{} is done but for what somebody else changed at the last moment: {}",
        done.id,
        done.left.join("; ")
    );
    Ok(())
}

/// Could a step with files be done? Changes nothing.
pub(crate) fn check_files(repo: &Repository, git: &Git, step: &Step) -> anyhow::Result<()> {
    if step.files.is_empty() {
        return Ok(());
    }
    transaction(repo, git, step, Reversal::Undo(step.id), "")?.check().map(|_| ())
}

fn transaction(
    repo: &Repository,
    git: &Git,
    step: &Step,
    reversal: Reversal,
    message: &str,
) -> anyhow::Result<Transaction> {
    let gone = || Refusal::NotReversible(step.id, "the worktree that it was made in is gone".to_owned());
    let inside = unescape(&step.worktree).ok_or_else(gone)?;
    let inside = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&inside);
    let repo = Repository::open(&repo.common_dir.join(inside)).map_err(|_| gone())?;
    let state = StateDir::of(&repo);
    let mut transaction = Transaction::begin(&repo, &format!("jin-txn {reversal}"))
        .with_git(git.program())
        .with_message(message)
        .that_reverses(reversal)
        .in_run(step.part_of);
    for RefWrite { name, from, to } in &step.writes {
        let expected = from.oid().map_or(Expected::Absent, |oid| Expected::Exactly(*oid));
        match to.oid() {
            Some(oid) => transaction.update_itself(name.clone(), *oid, expected),
            None => transaction.delete_itself(name.clone(), expected),
        };
    }
    for file in &step.files {
        let expected = file.from.map_or(Expected::Absent, |image| Expected::Exactly(image.blob));
        let path = file.path.clone();
        match file.to {
            Some(image) => {
                let lost = || {
                    let why = format!("the earlier content of `{path}` is not kept any more");
                    Refusal::NotReversible(step.id, why)
                };
                let kept = kept(&state, &file.kept_by)?.ok_or_else(lost)?;
                transaction.write(path, image.mode, Source::Exactly(kept), expected)
            }
            None => transaction.remove(path, expected),
        };
    }
    Ok(transaction)
}

fn kept(state: &StateDir, by: &[(TxId, usize)]) -> std::io::Result<Option<PathBuf>> {
    for (id, index) in by {
        let Some(dir) = stage::kept(state, *id)? else { continue };
        for name in [stage::second_name(*index), stage::name(*index)] {
            let path = dir.join(name.as_path());
            if std::fs::symlink_metadata(&path).is_ok() {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}
