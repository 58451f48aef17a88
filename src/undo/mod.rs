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
//! Refs move, with index, files and HEAD as far as the operation took those along ([`restore`]), and the files of a transaction
//! that declared some: those go back to what the transaction that replaced them has kept.
//!
//! Limit: what has no value to go back to in the log (reftables) and what is more than a value (the list of stashes, but for
//! [`stash`]) is not reversed.

mod end_state;
mod history;
mod in_use;
pub(crate) mod kept;
mod refusal;
mod rename;
pub(crate) mod restore;
pub(crate) mod several;
mod stash;

use std::collections::HashSet;
use std::path::PathBuf;

use crate::apply::swap::{FileSwap, HeadSwap};
use crate::apply::{Expected, Transaction};
use crate::fs::beneath::RelPath;
use crate::git::refs::RefSnapshot;
use crate::git::repository::NotFound;
use crate::git::update_refs::{self, RefWrite, write_refs_with_hooks};
use crate::git::{Git, Plumbing, RefName, RefStore, Repository, Value, name};
use crate::process::operation::command_of;
use crate::process::owner::{self, ExecContext, Owner, Stat};
use crate::staging::own::moving_message;
use crate::staging::stage::{self, Source};
use crate::state::{StateDir, TxId};
use crate::util::text::unescape;
use crate::wal::{Begin, Body, FileChange, FileImage, Record, Reversal};

use history::{HeadRecord, History};
use in_use::{in_progress, used_elsewhere};
use rename::RenameStep;
use restore::{Head, Restore};
use stash::StashStep;

pub(crate) use in_use::checked_out;
pub(crate) use refusal::{Direction, Refusal};

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
    /// The moves of HEAD that are reversed, or made again, in this order.
    pub heads: Vec<HeadRecord>,
    /// What it did to the list of stashes.
    pub stash: Option<StashStep>,
    /// The branch that it renamed.
    pub rename: Option<RenameStep>,
    /// Its transactions, oldest first.
    pub transactions: Vec<TxId>,
    /// Those of its command, if it is a run.
    pub parts: Vec<TxId>,
    /// The worktree's git directory, as the log has it.
    worktree: String,
    /// The run that this is part of.
    pub part_of: Option<TxId>,
}

impl Step {
    /// Is it more than one session of git can do: are there files, or refs that have to go before others can come?
    fn is_ours(&self) -> bool {
        let is_whole = self.stash.is_some() || self.rename.is_some();
        !self.files.is_empty() || is_whole || update_refs::are_in_each_others_way(&self.writes)
    }
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

/// What to write in order to reverse `wanted`, or else the newest operation of the worktree that `repo` is.
/// `head` is its HEAD as it is now.
pub(crate) fn plan(
    repo: &Repository,
    records: &[Record],
    head: Option<&RefSnapshot>,
    direction: Direction,
    wanted: Option<TxId>,
) -> Result<Step, Refusal> {
    let history = History::of(records, head);
    let side = if direction == Direction::Undo { &history.done } else { &history.undone };
    let wanted = wanted.map(|id| history.operations.id(id));
    let here = (repo.recorded_worktree(), repo.worktree_birth());
    // Nothing is passed over: what is older was not done last.
    let id = match wanted {
        Some(id) if side.contains(&id) => id,
        Some(id) => return Err(Refusal::NotThere(id, direction)),
        None => *side.iter().rfind(|id| history.is_of(**id, &here)).ok_or(Refusal::NothingLeft(direction))?,
    };
    if let (Direction::Redo, None, Some(newer)) = (direction, wanted, history.newer_than_undo(id, &here)) {
        let operation = history.command(newer).unwrap_or_default().to_owned();
        return Err(Refusal::CameSince(id, newer, operation));
    }
    let changes = match history.steps.get(&id) {
        Some(Ok(changes)) => changes,
        Some(Err(Refusal::NotReversible(_, why))) if wanted.is_none() => {
            let operation = history.command(id).unwrap_or_default().to_owned();
            return Err(Refusal::Newest(id, operation, why.clone()));
        }
        Some(Err(refusal)) => return Err(refusal.clone()),
        None => return Err(Refusal::NotThere(id, direction)),
    };
    let write = |(name, before, after): &(RefName, Value, Value)| {
        let (from, to) = if direction == Direction::Undo { (after, before) } else { (before, after) };
        RefWrite { name: name.clone(), from: from.clone(), to: to.clone() }
    };
    let writes: Vec<RefWrite> = changes.refs.iter().map(write).collect();
    if command_of(changes.operation).as_deref() == Some("push") {
        return Err(Refusal::Pushed(id, changes.operation.to_owned(), leases(&writes)));
    }
    let file = |change: &FileChange| {
        let (from, to) =
            if direction == Direction::Undo { (change.after, change.before) } else { (change.before, change.after) };
        FileStep { path: change.path.clone(), from, to, kept_by: to.map_or_else(Vec::new, |to| keepers(records, to)) }
    };
    let files = changes.files.iter().map(file).collect();
    let (operation, worktree) = (changes.operation.to_owned(), changes.worktree.to_owned());
    let mut heads = changes.heads.clone();
    if direction == Direction::Undo {
        heads.reverse();
    }
    let mut transactions: Vec<TxId> = records.iter().filter_map(|record| record.tx).collect();
    transactions.retain(|tx| history.operations.id(*tx) == id);
    transactions.dedup();
    let is_part = |record: &&Record| matches!(&record.body, Body::Begin(begin) if begin.part_of == Some(id));
    let parts = records.iter().filter(is_part).filter_map(|record| record.tx).collect();
    let (stash, rename) = (changes.stash, changes.rename.clone());
    Ok(Step {
        id,
        operation,
        direction,
        writes,
        files,
        heads,
        stash,
        rename,
        transactions,
        parts,
        worktree,
        part_of: None,
    })
}

/// What takes a push back in the other repository, as long as that still has what was pushed.
fn leases(writes: &[RefWrite]) -> Vec<String> {
    let hex = |value: &Value| value.oid().map_or_else(String::new, ToString::to_string);
    let command = |write: &RefWrite| {
        let name = write.name.to_string();
        let (remote, branch) = name.strip_prefix("refs/remotes/")?.split_once('/')?;
        let (is, was) = (hex(&write.from), hex(&write.to));
        Some(format!("git push --force-with-lease={branch}:{is} {remote} {was}:refs/heads/{branch}"))
    };
    writes.iter().filter_map(command).collect()
}

/// Do these move what follows other repositories, often without anybody asking?
fn goes_on_by_itself(operation: &str) -> bool {
    const BY_THEMSELVES: [&str; 4] = ["fetch", "maintenance", "push", "remote"];
    command_of(operation).is_some_and(|command| BY_THEMSELVES.contains(&command.as_str()))
}

/// A git whose transaction is done may be at work still: what it does next would stand on what is taken back.
pub(crate) fn require_ended(records: &[Record], step: &Step) -> anyhow::Result<()> {
    let (here, above) = (ExecContext::here()?, owner::ancestors()?);
    let at_work = |begin: &Begin| {
        let Owner { process, place } = &begin.owner;
        let is_above = above.iter().any(|ancestor| ancestor.process() == *process);
        place.is_same(&here) && !is_above && Stat::may_live(*process)
    };
    for record in records.iter().filter(|record| record.tx.is_some_and(|tx| step.transactions.contains(&tx))) {
        if let Body::Begin(begin) = &record.body
            && at_work(begin)
        {
            return Err(Refusal::StillRunning(step.id, begin.owner.process.pid).into());
        }
    }
    Ok(())
}

/// May the newest operation be taken back without being named? Nothing came behind it that no hook saw, and it is not what goes
/// on by itself.
pub(crate) fn require_newest(repo: &Repository, git: &Git, records: &[Record], step: &Step) -> anyhow::Result<()> {
    let operation = step.operation.clone();
    let history = History::of(records, None);
    if transfers(&history, records, step) {
        let here = (repo.recorded_worktree(), repo.worktree_birth());
        let before = history.done.iter().filter(|id| history.is_of(**id, &here)).rfind(|id| **id != step.id);
        let before = before.map(|id| (*id, history.command(*id).unwrap_or_default().to_owned()));
        return Err(Refusal::Transfer(step.id, operation, before).into());
    }
    let found = end_state::differences(repo, git, records, step.id)?;
    if found.is_empty() {
        return Ok(());
    }
    Err(Refusal::Behind(step.id, operation, found.iter().map(ToString::to_string).collect()).into())
}

/// Did any part of the operation move what follows other repositories? A pull fetches for the sake of its merge.
fn transfers(history: &History<'_>, records: &[Record], step: &Step) -> bool {
    let is_pull = command_of(&step.operation).as_deref() == Some("pull");
    let parts = records.iter().filter_map(|record| match (&record.body, record.tx) {
        (Body::Begin(begin), Some(tx)) if history.operations.id(tx) == step.id => Some(begin.operation.as_str()),
        _ => None,
    });
    goes_on_by_itself(&step.operation) || (!is_pull && parts.into_iter().any(goes_on_by_itself))
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
pub(crate) fn check(repo: &Repository, git: &Git, step: &Step) -> anyhow::Result<()> {
    let refs = RefStore::new(repo);
    let mut moved = Vec::new();
    for write in &step.writes {
        let now = refs.read(&write.name)?.value;
        if now != write.from {
            moved.push((write.name.clone(), now));
        }
    }
    // Where files are concerned the transaction itself says what has moved on, refs and files together.
    if let Some(hint) = step.rename.as_ref().and_then(|rename| rename.way_out_of(&moved)) {
        return Err(Refusal::MovedSince(step.id, moved, hint).into());
    }
    if !moved.is_empty() && step.files.is_empty() {
        return Err(Refusal::Moved(step.id, moved).into());
    }
    if let Some((name, other)) = find_in_the_way(repo, git, step)? {
        return Err(Refusal::InTheWay(step.id, name, other).into());
    }
    for (name, what) in in_progress(&repo.git_dir) {
        if step.writes.iter().any(|write| write.name == name) {
            return Err(Refusal::InProgress(step.id, what).into());
        }
    }
    let elsewhere = used_elsewhere(repo)?;
    if let Some(write) = step.writes.iter().find(|write| elsewhere.contains(&write.name)) {
        return Err(Refusal::CheckedOutElsewhere(step.id, write.name.clone()).into());
    }
    // It may cease to be if HEAD leaves it, or if HEAD was there before it was.
    let head = refs.canonical(b"HEAD")?;
    let is_left = step.writes.iter().any(|w| w.name == head) || !step.heads.is_empty();
    let heads = if is_left { Vec::new() } else { checked_out(repo)? };
    let lost = step.writes.iter().find(|w| w.to == Value::Absent && heads.contains(&w.name));
    lost.map_or(Ok(()), |w| Err(Refusal::CheckedOut(step.id, w.name.clone()).into()))
}

/// A ref that would come, and one that keeps it from that and does not go with this step.
fn find_in_the_way(repo: &Repository, git: &Git, step: &Step) -> anyhow::Result<Option<(RefName, RefName)>> {
    if !update_refs::are_in_each_others_way(&step.writes) {
        return Ok(None);
    }
    let all = git.at(&repo.git_dir).run(Plumbing::Refs { format: "%(refname)", below: None, points_at: None })?;
    let written: HashSet<&RefName> = step.writes.iter().map(|write| &write.name).collect();
    let there: Vec<RefName> = all.stdout.split(|b| *b == b'\n').filter_map(|line| RefName::parse(line).ok()).collect();
    let stay = there.iter().filter(|name| !written.contains(name));
    let come = step.writes.iter().filter(|write| write.to != Value::Absent).map(|write| &write.name);
    Ok(name::in_the_way(come, stay).map(|(name, other)| (name.clone(), other.clone())))
}

/// Writes it, all or nothing.
pub(crate) fn carry_out(repo: &Repository, git: &Git, step: &Step, restore: &Restore) -> anyhow::Result<()> {
    let reversal = match step.direction {
        Direction::Undo => Reversal::Undo(step.id),
        Direction::Redo => Reversal::Redo(step.id),
    };
    let message = format!("{reversal} ({})", step.operation);
    if step.is_ours() || !restore.is_of_refs() {
        carry_out_ours(transaction(repo, git, step, restore, reversal, &message)?, step)?;
    } else {
        let text = reversal.to_string();
        write_refs_with_hooks(&git.at(&repo.git_dir), &step.writes, &message, (crate::util::env::REVERSES, &text))?;
    }
    // The next undo compares with this.
    Ok(crate::state::kept::renew_after_undo(repo, &StateDir::of(repo))?)
}

/// The same as a transaction of ours.
fn carry_out_ours(transaction: Transaction, step: &Step) -> anyhow::Result<()> {
    let prepared = transaction.prepare()?;
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
pub(crate) fn check_files(repo: &Repository, git: &Git, step: &Step, restore: &Restore) -> anyhow::Result<()> {
    if !step.is_ours() {
        return Ok(());
    }
    let head = Restore { head: restore.head.clone(), ..Restore::default() };
    transaction(repo, git, step, &head, Reversal::Undo(step.id), "")?.check().map(|_| ())
}

fn transaction(
    repo: &Repository,
    git: &Git,
    step: &Step,
    restore: &Restore,
    reversal: Reversal,
    message: &str,
) -> anyhow::Result<Transaction> {
    let gone = || Refusal::NotReversible(step.id, "the worktree that it was made in is gone".to_owned());
    let inside = unescape(&step.worktree).ok_or_else(gone)?;
    let inside = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&inside);
    let repo = Repository::open(&repo.common_dir.join(inside)).map_err(|error| match error {
        NotFound::Unreadable(_) => anyhow::Error::from(error),
        _ => gone().into(),
    })?;
    let state = StateDir::of(&repo);
    let mut transaction = Transaction::begin(&repo, &format!("jin-txn {reversal}"))
        .with_git(git.program())
        .with_message(message)
        .that_reverses(reversal)
        .in_run(step.part_of);
    let of_git = |write: &&RefWrite| restore.head.as_ref().is_none_or(|head| !head.is_written_by(write));
    for RefWrite { name, from, to } in step.writes.iter().filter(of_git) {
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
    queue(&mut transaction, restore);
    Ok(transaction)
}

/// What happens to the worktree.
fn queue(transaction: &mut Transaction, restore: &Restore) {
    transaction.with_attributes_of(restore.attributes);
    for file in &restore.files {
        let expected = file.from.map_or(Expected::Absent, |image| Expected::Exactly(image.blob));
        match file.to {
            Some((mode, oid)) => transaction.check_out(file.path.clone(), mode, oid, expected),
            None => transaction.remove(file.path.clone(), expected),
        };
    }
    if let Some(index) = &restore.index {
        transaction.replace_index(FileSwap { before: index.before, content: index.content.clone() });
    }
    if let Some(config) = &restore.config {
        transaction.replace_config(FileSwap { before: Some(config.before), content: config.content.clone() });
    }
    if let Some(log) = restore.stash_log.clone() {
        transaction.replace_stash_log(log);
    }
    if let Some(log) = restore.branch_log.clone() {
        transaction.move_branch_log(log);
    }
    transaction.replace_states(restore.states.clone());
    if let Some(head) = restore.head_now.clone() {
        transaction.require_head(head);
    }
    if let Some(Head { from, to, from_commit, to_commit, message }) = restore.head.clone() {
        let message = message.unwrap_or_else(|| moving_message(&from, &to));
        transaction.move_head(HeadSwap { from, to, from_commit, to_commit, message });
    }
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
