//! One unfinished transaction with what was found and what was decided about it, and the actions that follow.

use std::io;
use std::path::Path;

use crate::fs::FileId;
use crate::git::update_refs::RefWrite;
use crate::git::{Oid, RefName, RefStore, Repository, Value};
use crate::recovery::decide::{self, Decision, Evidence};
use crate::recovery::evidence::Unfinished;
use crate::recovery::history::LogOutcome;
use crate::recovery::site::Site;
use crate::wal::Begin;

/// A transaction, the decision about it, and the refs that it writes.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) tx: Unfinished,
    pub(crate) decision: Decision,
    pub(crate) writes: Vec<RefWrite>,
}

impl Case {
    /// Decides from what was found. `log_is_damaged`: what the log does not say may have been lost.
    pub(crate) fn new(tx: Unfinished, log_is_damaged: bool) -> Case {
        let evidence = evidence(&tx, log_is_damaged, false);
        let (decision, writes) = (decide::decide(&evidence), decide::writes(&evidence));
        Case { tx, decision, writes }
    }

    /// Of a committed transaction whose index is not in place yet, because its lock could not be judged.
    pub(crate) fn wait_for_index(&mut self, log_is_damaged: bool) {
        self.decision = decide::decide(&evidence(&self.tx, log_is_damaged, true));
    }

    /// It cannot be ended now: its index has to be put back first.
    pub(crate) fn wait(&mut self) {
        self.decision = Decision::Wait;
    }

    /// The refs that are written, or would be.
    pub(crate) fn written(&self) -> impl Iterator<Item = &RefName> {
        self.writes.iter().map(|write| &write.name)
    }

    /// Does the transaction count as applied in whole?
    pub(crate) fn is_applied(&self) -> bool {
        self.tx.ending == LogOutcome::Committed || self.decision == Decision::RecordCommitted
    }
}

fn evidence(tx: &Unfinished, log_is_damaged: bool, index_is_pending: bool) -> Evidence<'_> {
    match &tx.begin {
        // Whatever the log says of its end: without the record what it left cannot be finished.
        None if log_is_damaged && tx.lost_its_record() && tx.ending != LogOutcome::NeedsHuman => {
            Evidence::NeverLogged { record_may_be_lost: true }
        }
        _ if tx.ending != LogOutcome::None => Evidence::Ended { how: tx.ending, index_is_pending },
        None => Evidence::NeverLogged { record_may_be_lost: false },
        Some(_) if tx.decided => Evidence::BehindCommitPoint(&tx.refs),
        Some(begin) if begin.origin == crate::state::TxKind::Apply => {
            Evidence::BeforeCommitPoint { decision_may_be_lost: log_is_damaged }
        }
        Some(_) => Evidence::Watched(&tx.refs),
    }
}

/// Where the transaction moved what the worktree's HEAD points to: before and after.
pub(crate) fn head_move(repo: &Repository, git_dir: &Path, begin: &Begin) -> anyhow::Result<Option<(Value, Oid)>> {
    let worktree = Repository { git_dir: git_dir.to_owned(), ..repo.clone() };
    let refs = RefStore::new(&worktree);
    let head = refs.canonical(b"HEAD")?;
    let moved = match refs.read(&head)?.value {
        Value::Symref(target) => target,
        _ => head,
    };
    let change = begin.refs.iter().find(|c| c.name == moved);
    Ok(change.and_then(|c| Some((c.before.clone()?, *c.after.oid()?))))
}

/// `commit -a` had not yet renamed its index into place, and the lock could not be judged.
pub(crate) fn index_is_pending(site: &Site<'_>, tx: &Unfinished) -> io::Result<bool> {
    let Some(begin) = &tx.begin else { return Ok(false) };
    let lock = tx.git_dir(site.repo).join("index.lock");
    Ok(begin.index_lock.zip(FileId::at(&lock)?).is_some_and(|(recorded, now)| now.is_same_file(&recorded)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::decide::Question;
    use crate::state::TxId;
    use crate::state::marker::{Entry, State};

    /// What is left of it cannot be finished, nor called finished, whatever else the log says.
    #[test]
    fn a_transaction_whose_record_may_be_lost_is_for_a_person_however_it_ended() {
        use LogOutcome::{Closed, Committed, NeedsHuman, None as Unknown};
        for (ending, is_damaged, decision) in [
            (Unknown, true, Decision::AskHuman(Question::RecordLost)),
            (Committed, true, Decision::AskHuman(Question::RecordLost)),
            (Closed, true, Decision::AskHuman(Question::RecordLost)),
            (NeedsHuman, true, Decision::AskHuman(Question::AskedBefore)),
            (Unknown, false, Decision::CleanUp),
            (Committed, false, Decision::CleanUp),
            (Closed, false, Decision::CleanUp),
            (NeedsHuman, false, Decision::AskHuman(Question::AskedBefore)),
        ] {
            let entry = Entry::new("/nonexistent".as_ref(), State::Committed, TxId(1));
            let tx = Unfinished { entry, marker: None, begin: None, ending, decided: false, refs: Vec::new() };
            assert_eq!(Case::new(tx, is_damaged).decision, decision, "{ending:?}, damaged: {is_damaged}");
        }
    }
}
