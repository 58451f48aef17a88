//! Ends one transaction: the actions that follow from the decision, and how it is told.

use crate::fs::moving;
use crate::git::reflog;
use crate::locks::InTheWay;
use crate::recovery::action::{Action, Snapshot};
use crate::recovery::decide::{self, Decision, Question, RefEvidence, RefState};
use crate::recovery::evidence::Unfinished;
use crate::recovery::history::LogOutcome;
use crate::recovery::perform::perform;
use crate::recovery::progress::{Progress, Verb};
use crate::recovery::report::{Finding, Report, TxFinding, plural};
use crate::recovery::site::{Mode, Site};
use crate::recovery::{reflog_plan, roll_forward};
use crate::state::marker::State;
use crate::wal::{Begin, Outcome};

use crate::recovery::case::Case;
/// How a transaction is told.
struct Told {
    finding: Finding,
    /// Is there nothing to say when nothing was done?
    only_if_done: bool,
}

/// Ends one transaction, by what was decided.
pub(crate) fn end(site: &Site<'_>, case: &Case, report: &mut Report) -> anyhow::Result<()> {
    let Some((actions, told)) = plan(site, case)? else { return Ok(()) };
    let done = perform(site, actions);
    let Some(progress) = or_leave(site, &case.tx, done, report)? else { return Ok(()) };
    let finding = if progress.left_some { Finding::NeedsHuman } else { told.finding };
    report.refs_moved.extend(progress.refs_moved);
    if !(told.only_if_done && progress.lines.is_empty()) {
        report.transactions.push(finding_of(&case.tx, finding, progress.lines, false));
    }
    Ok(())
}

/// The actions; `None` when nothing is to be done or said.
fn plan(site: &Site<'_>, case: &Case) -> anyhow::Result<Option<(Vec<Action>, Told)>> {
    let Case { tx, decision, .. } = case;
    let entry = tx.entry.clone();
    let told = |finding| Told { finding, only_if_done: false };
    let quiet = |finding| Told { finding, only_if_done: true };
    let close = |state| Action::Close { entry: entry.clone(), state };
    let mut actions = Vec::new();
    let told = match (decision, &tx.begin) {
        (Decision::Wait, _) => return Ok(None),
        (Decision::AskHuman(question), begin) if *question != Question::ThirdParty || begin.is_none() => {
            ask(tx, *question, &mut actions);
            told(Finding::NeedsHuman)
        }
        (Decision::CleanUp, None) if tx.marker.is_none() => {
            // Unreadable and unknown to the log: nothing began, but what it was is kept.
            actions.push(Action::SetMarkerAside(entry));
            quiet(Finding::RolledBack)
        }
        (Decision::CleanUp, Some(begin)) if tx.ending == LogOutcome::Committed => {
            actions.extend(reflog_plan::drop_deleted(begin));
            actions.push(close(State::Committed));
            quiet(Finding::Finished)
        }
        (Decision::CleanUp, _) | (_, None) => {
            actions.push(close(State::Failed));
            quiet(Finding::RolledBack)
        }
        (_, Some(begin)) => {
            let ending = Ending::of(case);
            if tx.decided {
                actions.extend(roll_forward::actions(site, case, begin)?);
            } else {
                actions.extend(of_watched(site, case, begin));
            }
            if case.decision == Decision::RecordCommitted {
                actions.push(Action::RenewStanding { git_dir: tx.git_dir(site.repo) });
            }
            actions.extend(record(case, begin, &ending));
            told(ending.finding)
        }
    };
    Ok(Some((actions, told)))
}

/// How a transaction ends that was unfinished.
struct Ending {
    finding: Finding,
    outcome: Outcome,
    state: State,
}

impl Ending {
    fn of(case: &Case) -> Ending {
        let (finding, outcome, state) = match case.decision {
            Decision::RecordCommitted | Decision::RollForward => {
                (Finding::Committed, Outcome::Committed, State::Committed)
            }
            Decision::RecordOvertaken => (Finding::RolledBack, Outcome::Acknowledged, State::Failed),
            Decision::AskHuman(_) => (Finding::NeedsHuman, Outcome::NeedsHuman, State::Failed),
            _ => (Finding::RolledBack, Outcome::RolledBack, State::Failed),
        };
        Ending { finding, outcome, state }
    }
}

/// A transaction of git: its reflogs, its refs, its reflogs.
fn of_watched(site: &Site<'_>, case: &Case, begin: &Begin) -> Vec<Action> {
    let id = case.tx.id();
    let logs = !begin.reftable;
    let mut actions = Vec::new();
    if case.decision == Decision::RollBack && logs {
        actions.extend(reflog_plan::restore(site, id, begin));
    }
    if !case.writes.is_empty() {
        let git_dir = case.tx.git_dir(site.repo);
        let message = format!("{}rolled back {id}", reflog::OUR_MESSAGE);
        actions.push(Action::WriteRefs { git_dir, writes: case.writes.clone(), message, verb: Verb::Back });
    }
    actions.extend(describe(case).into_iter().chain(tell_left(begin)).map(Action::Tell));
    if case.decision == Decision::RollBack && logs {
        actions.extend(reflog_plan::trim(begin));
    }
    if case.decision == Decision::RecordCommitted && logs {
        actions.extend(reflog_plan::drop_deleted(begin));
    }
    actions
}

/// The record, and what is cleaned up behind it.
fn record(case: &Case, begin: &Begin, ending: &Ending) -> Vec<Action> {
    let Ending { outcome, state, .. } = *ending;
    let (id, entry) = (case.tx.id(), case.tx.entry.clone());
    let all = || Snapshot::All(Box::new(begin.clone()));
    let is_whole = case.tx.decided || case.decision == Decision::RecordCommitted;
    // Of which refs is recovery the newest writer, or witness? Not of those that it left as they were.
    let refs = if is_whole { all() } else { Snapshot::Written(Box::new(begin.clone())) };
    vec![
        Action::Record { id, outcome, refs },
        Action::KeepFromReboot(Box::new(begin.clone())),
        Action::Conclude { entry, state },
    ]
}

/// The log knows too little, or a person was asked before: nothing is touched. That is recorded, once: it stays so when
/// the damaged part is gone from the log.
fn ask(tx: &Unfinished, question: Question, actions: &mut Vec<Action>) {
    let id = tx.id();
    let acknowledge = format!("`git txn recover --acknowledge {id}`");
    let lines = match question {
        Question::AskedBefore if tx.begin.is_some() => vec![format!("it needs manual resolution: {acknowledge}")],
        Question::DecisionLost => vec![
            "the log is damaged, and may have lost that it was decided: compare its refs and files yourself".to_owned(),
            format!("then close it: {acknowledge}"),
        ],
        _ => vec![
            "its record is lost in a damaged part of the log: compare its refs yourself".to_owned(),
            format!("then close it: {acknowledge}"),
        ],
    };
    actions.extend(lines.into_iter().map(Action::Tell));
    if tx.ending != LogOutcome::NeedsHuman {
        actions.push(Action::Record { id, outcome: Outcome::NeedsHuman, refs: Snapshot::None });
    }
    actions.push(Action::Mark { entry: tx.entry.clone(), state: State::Failed });
}

fn describe(case: &Case) -> Vec<String> {
    let refs = &case.tx.refs;
    let total = refs.len();
    let of_others = |state: RefState| refs.iter().filter(move |r| r.state == state);
    match case.decision {
        Decision::RecordCommitted => vec![format!("all {total} {} had been applied", plural(total, "ref"))],
        Decision::RollBack if case.writes.is_empty() => vec!["nothing had been applied".to_owned()],
        Decision::RecordOvertaken => vec!["its only ref has moved on since".to_owned()],
        Decision::AskHuman(_) => of_others(RefState::ThirdParty)
            .chain(of_others(RefState::Overwritten))
            .map(|r| format!("{} was moved by another process and is left as it is", r.name))
            .chain(refs.iter().filter(|r| decide::cannot_go_back(r)).map(stays))
            .collect(),
        _ => Vec::new(),
    }
}

/// What recovery never writes.
fn tell_left(begin: &Begin) -> Option<String> {
    let names = begin.left.join(", ");
    let told =
        format!("it was also to change refs that jin-txn does not write: check them and their locks yourself: {names}");
    (!begin.left.is_empty()).then_some(told)
}

fn stays(evidence: &RefEvidence) -> String {
    format!("{} stays at {}: its previous value is not a valid one", evidence.name, evidence.now)
}

/// What stands in the way is reported and left for the next run; anything else is an error.
pub(crate) fn or_leave(
    site: &Site<'_>,
    tx: &Unfinished,
    done: anyhow::Result<Progress>,
    report: &mut Report,
) -> anyhow::Result<Option<Progress>> {
    match done {
        Err(error) if error.is::<InTheWay>() => {
            // In a hook that is no news: the next command, or this one a moment later, does it.
            let quiet = site.options.mode != Mode::Command;
            report.transactions.push(finding_of(tx, Finding::Left, vec![format!("{error:#}")], quiet));
            Ok(None)
        }
        // It would fail again, and the others are not to wait for it.
        Err(error) if site.options.mode == Mode::Command && moving::is_permanent(&error) => {
            report.transactions.push(finding_of(tx, Finding::Left, vec![format!("{error:#}")], false));
            Ok(None)
        }
        done => done.map(Some),
    }
}

pub(crate) fn finding_of(tx: &Unfinished, finding: Finding, actions: Vec<String>, quiet: bool) -> TxFinding {
    let pid = tx.begin.as_ref().map(|b| b.owner.process.pid);
    TxFinding { id: tx.id(), operation: tx.operation().to_owned(), pid, finding, actions, quiet }
}
