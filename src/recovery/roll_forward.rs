//! Transactions that we made and that died: before their commit point nothing had happened, behind it they are finished.
//!
//! ```text
//!  locks ──▶ half-written reflogs ──▶ refs (compare-and-swap) ──▶ HEAD's reflog ──▶ files ──▶ sync ──▶ record ──▶ marker
//! ```
//! Every ref and file is looked at by itself: it has its after-image (done), or still its before-image (it is written), or
//! something else (it is somebody else's, left and reported). So it does not matter where we are killed in here.
//!
//! Files are finished by our own commands only: a hook runs in the middle of somebody's command, which may be about to
//! write the same files.

use anyhow::Context;

use crate::fs::FileId;
use crate::fs::durable;
use crate::git::refs::ResolvedRef;
use crate::git::{RefFormat, RefStore, Repository, Value, command, reflog};
use crate::recovery::evidence::{EvidenceSources, Unfinished};
use crate::recovery::execute::InTheWay;
use crate::recovery::plan::{Plan, RefEvidence, RefState, Verdict};
use crate::recovery::report::Finding;
use crate::recovery::{Mode, Session};
use crate::staging::place::{Placed, Placing};
use crate::staging::stage;
use crate::staging::worktree::Worktree;
use crate::state::TxId;
use crate::state::TxKind;
use crate::state::marker::State;
use crate::wal::{Begin, Body, FileChange, Flush, Outcome, Record, RefChange};

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
        let values = command::read_refs_at_once(witnesses.program, &repo.common_dir, &names)?;
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

/// What to do about a transaction behind its commit point.
pub(crate) fn plan(refs: &[RefEvidence]) -> Plan {
    let is_left = refs.iter().any(|r| r.state == RefState::ThirdParty);
    let missing = refs.iter().filter(|r| r.state == RefState::Unapplied);
    // A file without sense is replaced by the verification after a reboot, which has the same word from the log.
    let writes = missing.filter(|r| r.now != Value::Broken).map(|r| command::RefWrite {
        name: r.name.clone(),
        from: r.now.clone(),
        to: r.after.clone(),
    });
    let verdict = if is_left { Verdict::NeedsHuman } else { Verdict::Commit };
    Plan { verdict, writes: writes.collect() }
}

/// A hook must not finish these: they write files.
pub(crate) fn needs_a_command<'u>(unfinished: &'u [Unfinished], mode: &Mode) -> Option<&'u Unfinished> {
    let writes_files = |u: &&Unfinished| u.is_to_be_finished() && u.begin.as_ref().is_some_and(|b| !b.files.is_empty());
    unfinished.iter().find(writes_files).filter(|_| *mode != Mode::Command)
}

/// What a hook says that must not go on; behind the change there is nothing to say.
pub(crate) fn refusal(waiting: &Unfinished, mode: &Mode) -> Option<String> {
    let (id, operation) = (waiting.id(), waiting.operation());
    let line =
        format!("{id} (`{operation}`) was interrupted while it wrote files: run `git txn recover`, then this again");
    (*mode != Mode::AfterTransaction).then_some(line)
}

impl Session<'_> {
    /// Finishes a transaction behind its commit point.
    pub(crate) fn finish_decided(&mut self, tx: &Unfinished, begin: &Begin, plan: &Plan) -> anyhow::Result<()> {
        let mut actions: Vec<String> =
            plan.writes.iter().map(|w| format!("{} is now {}", w.name, short(&w.to))).collect();
        let left: Vec<_> = tx.refs.iter().filter(|r| r.state == RefState::ThirdParty).collect();
        actions.extend(left.iter().map(|r| format!("{} has been moved by somebody else and is left alone", r.name)));
        let mut verdict = plan.verdict;
        if self.options.dry_run {
            if !begin.files.is_empty() {
                actions.push(format!("{} of its files are looked at one by one", begin.files.len()));
            }
            let finding = if verdict == Verdict::NeedsHuman { Finding::NeedsHuman } else { Finding::Committed };
            self.find(tx, finding, actions, false);
            return Ok(());
        }
        self.redo_refs(tx, begin, plan)?;
        if !begin.reftable {
            actions.extend(self.complete_head_log(begin)?);
            actions.extend(self.drop_reflogs(begin)?);
        }
        for (change, placed) in self.redo_files(tx, begin)? {
            match placed {
                Placed::Now if change.after.is_some() => actions.push(format!("wrote {}", change.path)),
                Placed::Now => actions.push(format!("removed {}", change.path)),
                Placed::Already => {}
                Placed::Left(why) => {
                    verdict = Verdict::NeedsHuman;
                    actions.push(format!("{} is left alone: {why}", change.path));
                }
            }
        }
        if actions.is_empty() {
            actions.push("all of it had been applied".to_owned());
        }
        // The new names before the record that says so.
        durable::sync_filesystem_of(self.state.path())?;
        let (finding, outcome, state) = match verdict {
            Verdict::NeedsHuman => (Finding::NeedsHuman, Outcome::NeedsHuman, State::Failed),
            _ => (Finding::Committed, Outcome::Committed, State::Committed),
        };
        let refs = self.settled_values(begin)?;
        let recovered = Body::Recovered { outcome, actions: actions.clone(), refs: refs.clone() };
        let as_of = self.log.append(Some(tx.id()), &recovered, Flush::Yes)?;
        let mut entry = tx.entry.clone();
        entry.settle(state)?;
        if outcome == Outcome::NeedsHuman {
            // What a human is to decide about, a reboot does not.
            self.log.append(None, &Body::Baseline { as_of, actions: Vec::new(), refs }, Flush::No)?;
        } else {
            self.close(entry, state)?;
        }
        self.find(tx, finding, actions, false);
        Ok(())
    }

    fn redo_refs(&self, tx: &Unfinished, begin: &Begin, plan: &Plan) -> anyhow::Result<()> {
        if plan.writes.is_empty() {
            return Ok(());
        }
        let git_dir = tx.git_dir(self.repo);
        if !begin.reftable {
            // git logs an update before it writes it: the entry of what it did not come to write is there already.
            self.trim_reflogs(&only(begin, plan, &self.head_branch(&git_dir)?))?;
        }
        command::write_refs(&self.options.git_program, &git_dir, &plan.writes, &begin.message)
            .map_err(|error| InTheWay(format!("{error:#}")).into())
    }

    /// git had written HEAD's branch, but not HEAD's log: the branch's own log has the entry.
    fn complete_head_log(&self, begin: &Begin) -> anyhow::Result<Option<String>> {
        let refs = RefStore::new(self.repo);
        for head in begin.watched.iter().filter(|w| w.name.is_head()) {
            let Value::Symref(branch) = refs.read(&head.name)?.value else { continue };
            let Some(change) = begin.refs.iter().find(|c| c.name == branch) else { continue };
            let log = refs.log(&head.name);
            let is_missing = || Ok::<_, std::io::Error>(FileId::at(&log)?.map(|id| id.size) == head.log);
            let Some(line) = reflog::line_at(&refs.log(&branch), change.log)? else { continue };
            let is_ours = reflog::LogLine::parse(&line).is_some_and(|l| l.message == begin.message.as_bytes());
            if !is_ours || !is_missing()? {
                continue;
            }
            self.while_locked(&head.name, || {
                if is_missing()? {
                    durable::append(&log, &[&line, b"\n".as_slice()].concat())?;
                }
                Ok(())
            })?;
            return Ok(Some(format!("completed the reflog of {}", head.name)));
        }
        Ok(None)
    }

    fn redo_files<'b>(&self, tx: &Unfinished, begin: &'b Begin) -> anyhow::Result<Vec<(&'b FileChange, Placed)>> {
        if begin.files.is_empty() {
            return Ok(Vec::new());
        }
        let left = |why: &str| begin.files.iter().map(|f| (f, Placed::Left(why.to_owned()))).collect();
        let git_dir = tx.git_dir(self.repo);
        // A worktree that is gone must not be mistaken for the main one.
        if begin.worktree.is_empty() != (git_dir == self.repo.common_dir) {
            return Ok(left("its worktree is gone"));
        }
        let repo = Repository { git_dir, ..self.repo.clone() };
        let Ok(worktree) = Worktree::open(&repo, &self.options.git_program) else {
            return Ok(left("its worktree cannot be opened"));
        };
        let Some(stage) = stage::open(self.state, tx.id())? else { return Ok(left("what was staged is lost")) };
        let placing = Placing { worktree: &worktree, stage: &stage, read_at: None };
        let mut placed = Vec::with_capacity(begin.files.len());
        for (index, change) in begin.files.iter().enumerate() {
            let done = placing.place(index, change);
            let done = done.map_err(|error| InTheWay(format!("cannot write {}: {error}", change.path)))?;
            placed.push((change, done));
        }
        Ok(placed)
    }

    fn head_branch(&self, git_dir: &std::path::Path) -> anyhow::Result<Option<crate::git::RefName>> {
        let worktree = Repository { git_dir: git_dir.to_owned(), ..self.repo.clone() };
        let head = RefStore::new(&worktree).head().context("cannot read HEAD")?;
        Ok(head.and_then(|h| if let Value::Symref(branch) = h.value { Some(branch) } else { None }))
    }
}

/// The record without what needs no writing: of that the logs are complete.
fn only(begin: &Begin, plan: &Plan, head_branch: &Option<crate::git::RefName>) -> Begin {
    let written = plan.written();
    let head_moves = head_branch.as_ref().is_some_and(|branch| written.contains(branch));
    let mut only = begin.clone();
    only.refs.retain(|c| written.contains(&c.name));
    only.watched.retain(|w| w.name.is_head() && head_moves);
    only
}

fn short(value: &Value) -> String {
    match value {
        Value::Oid(oid) => format!("at {}", &oid.hex()[..10]),
        Value::Absent => "deleted".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::RefState::{Applied, Overwritten, ThirdParty, Unapplied};
    use super::*;
    use crate::git::{Oid, RefName};

    #[test]
    fn the_plan_behind_the_commit_point() {
        let oid = |digit: &str| Value::Oid(Oid::parse(digit.repeat(40).as_bytes()).unwrap());
        let rows: &[(&str, &[RefState], Verdict, usize)] = &[
            ("killed before git wrote anything", &[Unapplied, Unapplied], Verdict::Commit, 2),
            ("killed between two renames", &[Applied, Unapplied], Verdict::Commit, 1),
            ("killed after the last", &[Applied, Applied], Verdict::Commit, 0),
            ("moved on since, by a transaction that built on it", &[Overwritten, Unapplied], Verdict::Commit, 1),
            ("somebody else's value is left, the rest is written", &[ThirdParty, Unapplied], Verdict::NeedsHuman, 1),
            ("only files", &[], Verdict::Commit, 0),
        ];
        for (name, states, verdict, writes) in rows {
            let refs: Vec<RefEvidence> = states
                .iter()
                .enumerate()
                .map(|(n, state)| RefEvidence {
                    name: RefName::parse(format!("refs/heads/b{n}").as_bytes()).unwrap(),
                    before: Some(oid("a")),
                    after: oid("b"),
                    now: oid("a"),
                    state: *state,
                })
                .collect();
            let plan = plan(&refs);
            assert_eq!((plan.verdict, plan.writes.len()), (*verdict, *writes), "{name}");
            assert!(plan.writes.iter().all(|w| w.to == oid("b")), "{name}: it goes forward");
        }
    }
}
