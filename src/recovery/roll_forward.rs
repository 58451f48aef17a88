//! Transactions that we made and that died: before their commit point nothing had happened, behind it they are finished.
//!
//! ```text
//!  locks ──▶ half-written reflogs ──▶ refs (compare-and-swap) ──▶ HEAD's reflog ──▶ index, files, HEAD ──▶ sync ──▶ record
//!  ──▶ marker
//! ```
//! Every ref and file is looked at by itself: it has its after-image (done), or still its before-image (it is written), or
//! something else (it is somebody else's, left and reported). So it does not matter where we are killed in here.
//!
//! Files are finished by our own commands only: a hook runs in the middle of somebody's command, which may be about to
//! write the same files.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Context;

use crate::git::refs::ResolvedRef;
use crate::git::update_refs::RefWrite;
use crate::git::{RefFormat, RefName, RefStore, Repository, Value, update_refs};
use crate::recovery::action::Action;
use crate::recovery::case::Case;
use crate::recovery::decide::{RefEvidence, RefState};
use crate::recovery::evidence::{EvidenceSources, Unfinished};
use crate::recovery::progress::Verb;
use crate::recovery::reflog_plan;
use crate::recovery::reflogs::Told;
use crate::recovery::site::{Mode, Site};
use crate::staging::own;
use crate::state::{TxId, TxKind};
use crate::wal::{Begin, BranchLog, Record, RefChange};

/// What is known of a transaction that we made and that has not ended.
pub(crate) struct Made {
    /// Its record, as far as it binds anybody.
    pub begin: Begin,
    /// Is it behind its commit point?
    pub decided: bool,
    /// Its refs, if it is.
    pub refs: Vec<RefEvidence>,
}

/// Gathers the evidence about one of our own transactions; `None` for somebody else's.
pub(crate) fn gather(
    witnesses: &EvidenceSources<'_>,
    id: TxId,
    begin_at: usize,
    begin: &Begin,
) -> anyhow::Result<Option<Made>> {
    if begin.origin != TxKind::Apply {
        return Ok(None);
    }
    if !witnesses.history.is_decided(id) {
        // What was read without locks proves nothing about refs, their logs and locks.
        let begin = Begin { refs: Vec::new(), watched: Vec::new(), files: Vec::new(), ..begin.clone() };
        return Ok(Some(Made { begin, decided: false, refs: Vec::new() }));
    }
    let refs = of_refs(witnesses, id, begin_at, begin)?;
    Ok(Some(Made { begin: begin.clone(), decided: true, refs }))
}

/// Looks again at the refs of those that are behind their commit point.
pub(crate) fn look_again(witnesses: &EvidenceSources<'_>, unfinished: &mut [Unfinished]) -> anyhow::Result<()> {
    for tx in unfinished.iter_mut().filter(|u| u.is_to_be_finished()) {
        let Some((at, begin)) = witnesses.history.begin(tx.id()) else { continue };
        tx.refs = of_refs(witnesses, tx.entry.id, at, begin)?;
    }
    Ok(())
}

fn of_refs(
    witnesses: &EvidenceSources<'_>,
    id: TxId,
    begin_at: usize,
    begin: &Begin,
) -> anyhow::Result<Vec<RefEvidence>> {
    let repo = witnesses.repo;
    let seen: Vec<ResolvedRef> = if repo.ref_format == RefFormat::Reftable {
        let names: Vec<_> = begin.refs.iter().map(|c| &c.name).collect();
        let values = update_refs::read_refs_at_once(witnesses.git, &names)?;
        values.into_iter().map(|value| ResolvedRef { value, loose: None, packed: None }).collect()
    } else {
        let refs = RefStore::new(repo);
        begin.refs.iter().map(|c| refs.read(&c.name)).collect::<std::io::Result<_>>()?
    };
    let mut evidence = Vec::with_capacity(begin.refs.len());
    for (change, now) in begin.refs.iter().zip(seen) {
        let later: Vec<&Record> =
            witnesses.history.later(&change.name, begin_at).filter(|r| r.tx != Some(id)).collect();
        let state = state_of(witnesses, change, &now, &later)?;
        let (name, before, after) = (change.name.clone(), change.before.clone(), change.after.clone());
        evidence.push(RefEvidence { name, before, after, now: now.value, state });
    }
    Ok(evidence)
}

fn state_of(
    witnesses: &EvidenceSources<'_>,
    change: &RefChange,
    now: &ResolvedRef,
    later: &[&Record],
) -> anyhow::Result<RefState> {
    if now.value == change.after {
        return Ok(RefState::Applied);
    }
    // A later logged transaction began where this one ends: it had been applied, and went on from there.
    for record in later.iter().filter(|r| r.tx.is_none_or(|tx| !witnesses.history.was_aborted(tx))) {
        let Some(next) = record.body.word().and_then(|b| b.refs.iter().find(|c| c.name == change.name)) else {
            continue;
        };
        let built_on_it = next.before.as_ref() == Some(&change.after);
        return Ok(if built_on_it { RefState::Overwritten } else { RefState::ThirdParty });
    }
    if change.before.as_ref() == Some(&now.value) || witnesses.was_taken_back(change, now)? {
        return Ok(RefState::Unapplied);
    }
    let refs = RefStore::new(witnesses.repo);
    let moved_on =
        witnesses.repo.ref_format == RefFormat::Files && crate::recovery::evidence::was_logged(change, &refs)?;
    Ok(if moved_on { RefState::Overwritten } else { RefState::ThirdParty })
}

/// A hook must not finish these: they write files.
pub(crate) fn needs_a_command<'c>(cases: &'c [Case], mode: &Mode) -> Option<&'c Unfinished> {
    let is_of_worktree = |b: &Begin| {
        !b.files.is_empty()
            || own::whole_files(b).next().is_some()
            || b.new_head.is_some()
            || b.new_branch_log.is_some()
    };
    let writes_files =
        |u: &&Unfinished| u.is_to_be_finished() && u.begin.as_ref().is_some_and(|begin| is_of_worktree(begin));
    cases.iter().map(|case| &case.tx).find(writes_files).filter(|_| *mode != Mode::Command)
}

/// What a hook says that must not go on; after the change there is nothing to say.
pub(crate) fn refusal(waiting: &Unfinished, mode: &Mode) -> Option<String> {
    let (id, operation) = (waiting.id(), waiting.operation());
    let line =
        format!("{id} (`{operation}`) was interrupted while it wrote files: run `git txn recover`, then this again");
    (*mode != Mode::AfterTransaction).then_some(line)
}

/// Finishes a transaction behind its commit point, up to its record.
pub(crate) fn actions(site: &Site<'_>, case: &Case, begin: &Begin) -> anyhow::Result<Vec<Action>> {
    let git_dir = case.tx.git_dir(site.repo);
    let mut actions = Vec::new();
    if !begin.reftable && !case.writes.is_empty() {
        // git logs an update before it writes it: the entry of what it did not come to write is there already.
        let head_branch = head_branch(site, &git_dir)?;
        let mut trims = reflog_plan::trim(&unwritten(begin, case, head_branch.as_ref()));
        trims.iter_mut().for_each(|action| {
            if let Action::TrimReflog(trim) = action {
                trim.told = Told::No;
            }
        });
        actions.extend(trims);
    }
    // HEAD goes last, and until then no branch may be logged as the one that it means.
    let of_head = |write: &RefWrite| begin.new_head.is_some() && write.name.is_head();
    let (heads, writes): (Vec<_>, Vec<_>) = case.writes.iter().cloned().partition(of_head);
    if !writes.is_empty() {
        let shadow = own::shadow(site.state, case.tx.id());
        let refs_at = if begin.new_head.is_some() && shadow.is_dir() { shadow } else { git_dir.clone() };
        let message = begin.message.clone();
        actions.push(Action::WriteRefs { git_dir: refs_at, writes, message, verb: Verb::Now });
    }
    let left = case.tx.refs.iter().filter(|r| r.state == RefState::ThirdParty);
    actions.extend(left.map(|r| Action::Tell(format!("{} was moved by another process and is left as it is", r.name))));
    if !begin.reftable {
        actions.push(Action::CompleteHeadLog(Box::new(begin.clone())));
        actions.extend(reflog_plan::drop_deleted(begin));
    }
    actions.push(Action::PlaceFiles { id: case.tx.id(), git_dir: git_dir.clone(), begin: Box::new(begin.clone()) });
    if let [head] = heads.as_slice() {
        let moving = || own::moving_message(&head.from, &head.to);
        let message = begin.new_branch_log.as_ref().map_or_else(moving, BranchLog::message);
        // Its name is that of this worktree there.
        let name = RefName::parse(b"HEAD").expect("git calls it so");
        let writes = vec![RefWrite { name, ..head.clone() }];
        actions.push(Action::WriteRefs { git_dir, writes, message, verb: Verb::Now });
    }
    // The new names before the record that says so.
    actions.push(Action::Sync);
    Ok(actions)
}

fn head_branch(site: &Site<'_>, git_dir: &Path) -> anyhow::Result<Option<crate::git::RefName>> {
    let worktree = Repository { git_dir: git_dir.to_owned(), ..site.repo.clone() };
    let head = RefStore::new(&worktree).head().context("cannot read HEAD")?;
    Ok(head.and_then(|h| if let Value::Symref(branch) = h.value { Some(branch) } else { None }))
}

/// The record of what is to be written only: of the rest the reflogs are complete.
fn unwritten(begin: &Begin, case: &Case, head_branch: Option<&crate::git::RefName>) -> Begin {
    let written: HashSet<&crate::git::RefName> = case.writes.iter().map(|write| &write.name).collect();
    let head_moves = head_branch.is_some_and(|branch| written.contains(branch));
    let mut only = begin.clone();
    only.refs.retain(|c| written.contains(&c.name));
    only.watched.retain(|w| w.name.is_head() && head_moves);
    only
}
