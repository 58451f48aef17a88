//! What is to become of what the dead left: one pure function of the evidence, and one table that tests it.
//!
//! *Forward or back* is decided here and nowhere else. Whoever gathers evidence (transactions, renames, worktrees, runs,
//! power cuts) passes it in as a value; whoever acts gets a [`Decision`].
//!
//! | evidence about a transaction of git, ref by ref | decision |
//! | --- | --- |
//! | all applied | record it as committed |
//! | none applied | roll back (there is nothing to write) |
//! | some applied, the others as before | roll back |
//! | a single ref, moved on by another writer | record that it was overtaken |
//! | some applied, one of them over what was no value (an empty file) | manual resolution; the others are rolled back |
//! | another writer's value among several | manual resolution; what is provably ours is rolled back only when something else is provably not applied |
//!
//! Behind the commit point of a transaction of ours the direction is forward: what is missing is written, another
//! writer's value stays and needs manual resolution.

use crate::git::objects::Whole;
use crate::git::update_refs::RefWrite;
use crate::git::{RefName, Value};
use crate::process::owner::Liveness;
use crate::recovery::expected_refs::RefStatus;
use crate::recovery::history::LogOutcome;

/// How one ref of an unfinished transaction is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefState {
    /// The transaction wrote it, proved by identity.
    Applied,
    /// It has its before-image, or the transaction provably did not write it.
    Unapplied,
    /// The transaction wrote it, and a later one wrote it again.
    Overwritten,
    /// It has another writer's value.
    ThirdParty,
}

/// One ref with its images and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefEvidence {
    /// Canonical name.
    pub name: RefName,
    /// Before-image.
    pub before: Option<Value>,
    /// After-image.
    pub after: Value,
    /// The value now.
    pub now: Value,
    /// What that means.
    pub state: RefState,
}

/// How far a cut `git branch -m` came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RenameStage {
    /// The old name is there: its reflog goes back to it.
    OldIsThere,
    /// Neither name is there.
    Between {
        /// The reflog is lost as well, and no other rename explains that.
        lost: bool,
    },
    /// The new name is there.
    NewIsThere,
    /// Nothing can be concluded, or nothing is left to do.
    Unclear,
}

/// What is left of a cut `git worktree add`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorktreeContent {
    /// Nothing was checked out.
    Empty,
    /// Files, or an index: a person may have worked there since.
    Used,
}

/// What is known of a run whose processes are gone, in the order in which it was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEvidence {
    /// The log has no record of it; the part in which it may stand is whole, or damaged.
    NoRecord {
        /// Is the log damaged?
        log_is_damaged: bool,
    },
    /// The runner kept it, and could not log that.
    KeptUnlogged,
    /// The log says how it ended.
    Ended(LogOutcome),
    /// What is needed to take it back is missing, or files have changed since its last process died.
    Obstructed(Question),
    /// Everything is there.
    Restorable,
}

/// What is known about a transaction, a ref or a worktree that the dead left.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Evidence<'e> {
    /// A marker, and no record.
    NeverLogged {
        /// The log is damaged, and may have had a record.
        record_may_be_lost: bool,
    },
    /// The log says how the transaction ended.
    Ended {
        /// How.
        how: LogOutcome,
        /// Its `index.lock` is still there, and could not be judged.
        index_is_pending: bool,
    },
    /// A transaction of ours, not known to be decided: git had written nothing.
    BeforeCommitPoint {
        /// The log is damaged, and may have had the decision.
        decision_may_be_lost: bool,
    },
    /// A transaction of ours behind its commit point.
    BehindCommitPoint(&'e [RefEvidence]),
    /// A transaction that git made.
    Watched(&'e [RefEvidence]),
    /// A `git branch -m`.
    Rename {
        /// How far it came.
        stage: RenameStage,
        /// The log has seen the new name since.
        completed: bool,
    },
    /// A `git worktree add`.
    WorktreeAdd {
        /// Is the process that makes it alive?
        maker: Liveness,
        /// What is there.
        content: WorktreeContent,
    },
    /// A run.
    Run(RunEvidence),
    /// A ref after a reboot.
    AfterPowerCut {
        /// How it stands to the log.
        status: RefStatus,
        /// Are the objects of the value there that it has, or is to have?
        objects: Whole,
    },
    /// An index that cannot be read after a reboot.
    UnreadableIndex {
        /// Its lock is there.
        locked: bool,
        /// A merge, rebase or the like is in progress.
        in_progress: bool,
    },
}

/// Why a person has to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// It was asked before; the answer is outstanding.
    AskedBefore,
    /// Another writer's value is in the way of a clean end, or what was there before is no value that can be written.
    ThirdParty,
    /// The record may be lost in a damaged part of the log.
    RecordLost,
    /// The decision may be lost in a damaged part of the log.
    DecisionLost,
    /// Of a run: the log is damaged and may not have all that it did.
    LogDamaged,
    /// Of a run: its snapshot cannot be read.
    SnapshotUnreadable,
    /// Of a run: its worktree is gone.
    WorktreeGone,
    /// Of a run: its worktree was moved.
    WorktreeMoved,
    /// Of a run: the repository is stored in another way than when it began.
    OtherFormat,
    /// Of a run: files have changed since it died.
    ChangedSince,
    /// After a power cut: no whole value is known, or the index cannot be rebuilt.
    NothingWhole,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It ended, or never began: only its marker and staged files are left.
    CleanUp,
    /// All of it is there: that is recorded.
    RecordCommitted,
    /// Its only ref has moved on since: it is whole either way, and closed.
    RecordOvertaken,
    /// Back to the before-images.
    RollBack,
    /// On to the after-images.
    RollForward,
    /// Another writer's work: it stays, and is the new baseline.
    Adopt,
    /// A person decides.
    AskHuman(Question),
    /// Nothing can be done now; the next run looks again.
    Wait,
}

/// Decides.
pub(crate) fn decide(evidence: &Evidence<'_>) -> Decision {
    use Decision::{Adopt, AskHuman, CleanUp, RecordCommitted, RollBack, RollForward, Wait};
    match *evidence {
        Evidence::NeverLogged { record_may_be_lost: true } => AskHuman(Question::RecordLost),
        Evidence::NeverLogged { record_may_be_lost: false } => CleanUp,
        Evidence::Ended { how: LogOutcome::NeedsHuman, .. } => AskHuman(Question::AskedBefore),
        Evidence::Ended { how: LogOutcome::Committed, index_is_pending: true } => Wait,
        Evidence::Ended { .. } => CleanUp,
        Evidence::BeforeCommitPoint { decision_may_be_lost: true } => AskHuman(Question::DecisionLost),
        Evidence::BeforeCommitPoint { decision_may_be_lost: false } => RollBack,
        Evidence::BehindCommitPoint(refs) if count(refs, RefState::ThirdParty) > 0 => AskHuman(Question::ThirdParty),
        Evidence::BehindCommitPoint(_) => RollForward,
        Evidence::Watched(refs) => of_watched(refs),
        Evidence::Rename { stage, completed } => match stage {
            RenameStage::NewIsThere => RollForward,
            RenameStage::Unclear | RenameStage::Between { lost: true } => CleanUp,
            RenameStage::OldIsThere | RenameStage::Between { lost: false } if completed => CleanUp,
            RenameStage::OldIsThere | RenameStage::Between { lost: false } => RollBack,
        },
        Evidence::WorktreeAdd { maker: Liveness::Alive | Liveness::Unknowable, .. } => Wait,
        Evidence::WorktreeAdd { content: WorktreeContent::Empty, .. } => RollBack,
        Evidence::WorktreeAdd { content: WorktreeContent::Used, .. } => RollForward,
        Evidence::Run(run) => match run {
            RunEvidence::NoRecord { log_is_damaged: true } => AskHuman(Question::RecordLost),
            RunEvidence::NoRecord { log_is_damaged: false } => CleanUp,
            RunEvidence::KeptUnlogged => RecordCommitted,
            RunEvidence::Ended(LogOutcome::NeedsHuman) => AskHuman(Question::AskedBefore),
            RunEvidence::Ended(_) => CleanUp,
            RunEvidence::Obstructed(question) => AskHuman(question),
            RunEvidence::Restorable => RollBack,
        },
        Evidence::AfterPowerCut { status: RefStatus::Open, .. } => CleanUp,
        Evidence::AfterPowerCut { objects: Whole::No, .. } => RollBack,
        Evidence::AfterPowerCut { status: RefStatus::Outdated, objects: Whole::Unknown } => Wait,
        Evidence::AfterPowerCut { status: RefStatus::Outdated, objects: Whole::Yes } => RollForward,
        Evidence::AfterPowerCut { status: RefStatus::Unseen, .. } => Adopt,
        Evidence::AfterPowerCut { status: RefStatus::AsLogged, .. } => CleanUp,
        Evidence::UnreadableIndex { locked: true, .. } => Wait,
        Evidence::UnreadableIndex { in_progress: true, .. } => AskHuman(Question::NothingWhole),
        Evidence::UnreadableIndex { .. } => RollBack,
    }
}

fn of_watched(refs: &[RefEvidence]) -> Decision {
    let count = |state| count(refs, state);
    let (applied, unapplied) = (count(RefState::Applied), count(RefState::Unapplied));
    let (overwritten, third) = (count(RefState::Overwritten), count(RefState::ThirdParty));
    match (applied, unapplied, overwritten, third) {
        (0, _, 0, 0) => Decision::RollBack,
        (_, 0, _, 0) => Decision::RecordCommitted,
        _ if refs.iter().any(cannot_go_back) => Decision::AskHuman(Question::ThirdParty),
        (_, _, 0, 0) => Decision::RollBack,
        (0, 0, 0, 1) => Decision::RecordOvertaken,
        _ => Decision::AskHuman(Question::ThirdParty),
    }
}

fn count(refs: &[RefEvidence], state: RefState) -> usize {
    refs.iter().filter(|r| r.state == state).count()
}

/// The refs to write, each only if it still has the value that the evidence was taken from.
pub(crate) fn writes(evidence: &Evidence<'_>) -> Vec<RefWrite> {
    match (*evidence, decide(evidence)) {
        (Evidence::Watched(refs), Decision::RollBack | Decision::AskHuman(_))
            if count(refs, RefState::Unapplied) > 0 =>
        {
            refs.iter().filter(|r| r.state == RefState::Applied).filter_map(inverse_write).collect()
        }
        // A corrupted file is replaced by the verification after a reboot, which knows the same value from the log.
        (Evidence::BehindCommitPoint(refs), _) => {
            let missing = refs.iter().filter(|r| r.state == RefState::Unapplied && r.now != Value::Broken);
            missing.map(|r| RefWrite { name: r.name.clone(), from: r.now.clone(), to: r.after.clone() }).collect()
        }
        _ => Vec::new(),
    }
}

/// Was it applied over something that is no value, and so cannot be written again?
pub(crate) fn cannot_go_back(evidence: &RefEvidence) -> bool {
    evidence.state == RefState::Applied && evidence.before == Some(Value::Broken)
}

fn inverse_write(evidence: &RefEvidence) -> Option<RefWrite> {
    let to = evidence.before.clone().filter(|_| !cannot_go_back(evidence))?;
    Some(RefWrite { name: evidence.name.clone(), from: evidence.now.clone(), to })
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
