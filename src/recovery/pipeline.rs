//! The order of recovery: from markers to cases, from cases to actions.
//!
//! ```text
//!  markers, log ──▶ cases ──▶ [after a reboot: make readable, finish lost renames] ──▶ locks ──▶ transactions, newest
//!  first ──▶ stray reflog, half-made worktrees ──▶ sweep ──▶ [after a reboot: verify] ──▶ runs, newest first
//! ```
//! Nothing is touched while one of the cases has to wait for locks of the git that called us, or for a command.

use anyhow::Context;

use crate::git::{RefName, RefStore, Repository};
use crate::locks::{Judge, Known};
use crate::process::caller;
use crate::process::owner::{self, ExecContext, Owner, Process};
use crate::recovery::action::Action;
use crate::recovery::case::{self, Case};
use crate::recovery::decide::{Decision, Question};
use crate::recovery::evidence::{EvidenceSources, Unfinished};
use crate::recovery::expected_refs::ExpectedRefs;
use crate::recovery::find_dead::{self, Dead};
use crate::recovery::history::{self, History, LogOutcome};
use crate::recovery::perform::perform;
use crate::recovery::power_cut::Readable;
use crate::recovery::report::Report;
use crate::recovery::site::{Mode, Options, Site};
use crate::recovery::{
    branch_rename, close, copied, ending, gather, power_cut, roll_forward, run_rollback, stale_locks, worktree_add,
};
use crate::state::StateDir;
use crate::state::marker::Listing;

/// How often the log is read again because others are at work.
const LOOKS: usize = 3;

/// Looks and recovers, or, in a dry run, tells.
pub(crate) fn run(repo: &Repository, state: &StateDir, options: &Options) -> anyhow::Result<Report> {
    crate::git::openable::require(repo)?;
    let here = ExecContext::here().context("cannot read /proc: without it nobody's death can be proven")?;
    for _ in 0..LOOKS {
        if let Some(report) = attempt(&Site::new(repo, state, options, &here), &here, false)? {
            return Ok(report);
        }
    }
    attempt(&Site::new(repo, state, options, &here), &here, true)?.context("recovery has come to no end")
}

/// `None` when a person would have to decide about refs that others have moved while we looked, unless this is the `last`
/// try: every change is in the log before it is made, so the log, read again, says who moved them.
fn attempt(site: &Site<'_>, here: &ExecContext, last: bool) -> anyhow::Result<Option<Report>> {
    let mut report = Report::default();
    let mut listing = Listing::read(site.state.path())?;
    // Who only looks finds a copy as it is: nothing in it is about this repository.
    let is_copy = site.options.dry_run && copied::is_copied(site.state, &listing)?;
    if is_copy {
        report.notes.extend(copied::line(&listing));
        listing = Listing::default();
    }
    let mut dead = find_dead::find_dead(site, &listing, here, &mut report)?;
    let needs_boot_check = !is_copy && !power_cut::is_verified(&listing, site.state)?;
    let scan = find_dead::read_log(&site.log, &dead.transactions, needs_boot_check)?;
    report.damage = history::describe_damage(&scan);
    let history = History::new(&scan.records);
    find_dead::ask_records(site, &mut dead, &history, here, &mut report);
    let Dead { transactions, runs, living } = dead;
    let expected = needs_boot_check.then(|| ExpectedRefs::of(&scan.records, site.log.boot()));
    let sources = EvidenceSources { repo: site.repo, git: &site.git, history: &history, expected: expected.as_ref() };
    let unfinished = gather::gather(&sources, transactions)?;
    look_for_lost_records(site, &unfinished, &mut report)?;
    let mut cases = decide(unfinished, &report);
    let undecided = cases.iter().any(|case| case.decision == Decision::AskHuman(Question::ThirdParty));
    if undecided && !last && site.log.goes_on_behind(scan.records.last().map_or(0, |record| record.lsn))? {
        return Ok(None);
    }
    if let Some(waiting) = roll_forward::needs_a_command(&cases, &site.options.mode) {
        report.must_wait = true;
        report.notes.extend(roll_forward::refusal(waiting, &site.options.mode));
        return Ok(Some(report));
    }
    if must_wait(site, &cases, expected.as_ref())? {
        report.must_wait = true;
        return Ok(Some(report));
    }
    let known = Known {
        dead: stale_locks::known_dead(site.repo, &cases),
        named: stale_locks::named_by_markers(site.repo, &cases),
        ancestors: owner::ancestors()?,
        owners: owners(site, &living, here)?,
        steady_since: site.log.clock_is_steady_since()?,
        force: site.options.force,
        seen: site.options.seen.clone(),
    };
    let mut judge = Judge::new(site.repo, known);
    let mut readable = Readable::Yes;
    if let Some(expected) = &expected {
        readable = power_cut::make_readable(site, expected, &mut judge, &mut report)?;
        if readable == Readable::No {
            return Ok(Some(report));
        }
        power_cut::finish_lost_renames(site, expected, &cases, &mut report)?;
        // What has been set aside by now may have shown a ref.
        let mut unfinished: Vec<Unfinished> = cases.into_iter().map(|case| case.tx).collect();
        roll_forward::look_again(&sources, &mut unfinished)?;
        cases = decide(unfinished, &report);
    }
    if !knows_too_little(&cases, &report) {
        stale_locks::mend(site, &mut judge, &cases, &mut report)?;
        stale_locks::finish_removed(site, &mut cases, &mut report)?;
    }
    end_transactions(site, &mut cases, &mut judge, &mut report)?;
    branch_rename::mend_stray_log(site, &mut judge, &cases, &mut report)?;
    worktree_add::mend(site, &mut judge, &mut report)?;
    perform(site, vec![Action::Sweep(close::abandoned(site, &listing, here))])?;
    if expected.is_some() {
        power_cut::verify(site, readable, &mut report)?;
    }
    // Last: they build on refs and on a log that are as they should be. The newest first.
    for entry in runs.into_iter().rev() {
        run_rollback::end(site, entry, &mut report)?;
    }
    Ok(Some(report))
}

fn decide(unfinished: Vec<Unfinished>, report: &Report) -> Vec<Case> {
    unfinished.into_iter().map(|tx| Case::new(tx, !report.damage.is_empty())).collect()
}

/// Newest first: what a later transaction did is undone before what it was built on.
fn end_transactions(
    site: &Site<'_>,
    cases: &mut [Case],
    judge: &mut Judge<'_>,
    report: &mut Report,
) -> anyhow::Result<()> {
    for case in cases.iter_mut().filter(|case| case.tx.ending == LogOutcome::Committed) {
        if case::index_is_pending(site, &case.tx)? {
            case.wait_for_index(!report.damage.is_empty());
        }
    }
    let renames = branch_rename::group(cases);
    for case in cases.iter().rev() {
        match renames.of(case.tx.id()) {
            // Every transaction of a rename ends with its first one, which is visited last.
            Some(group) if group.source.id() == case.tx.id() => branch_rename::end(site, group, judge, report)?,
            Some(_) => {}
            None => ending::end(site, case, report)?,
        }
    }
    Ok(())
}

/// Who makes transactions now: as living markers say, and whoever called this hook, which may have no marker yet. They hold
/// locks, whatever they are called.
fn owners(site: &Site<'_>, living: &[Owner], here: &ExecContext) -> anyhow::Result<Vec<Process>> {
    let of_markers = living.iter().filter(|owner| owner.place.is_same(here)).map(|owner| owner.process);
    let caller = match site.options.mode {
        Mode::Command => None,
        _ => caller::of_hook()?,
    };
    Ok(of_markers.chain(caller.map(|(stat, _)| stat.process())).collect())
}

/// A marker names one lock of its transaction. Where that has become its ref there was a record, whatever the log says.
fn look_for_lost_records(site: &Site<'_>, unfinished: &[Unfinished], report: &mut Report) -> anyhow::Result<()> {
    for transaction in unfinished.iter().filter(|u| u.lost_its_record()) {
        let probe = transaction.marker.as_ref().and_then(|m| m.probe.as_ref());
        let Some((path, lock)) = probe else { continue };
        let name = crate::util::text::unescape(path).and_then(|path| RefName::parse(path.strip_suffix(b".lock")?).ok());
        let Some(name) = name else { continue };
        let file = crate::fs::FileId::at(&RefStore::new(site.repo).file(&name))?;
        if file.is_some_and(|file| file.is_same_file(lock)) {
            let id = transaction.id();
            report.damage.push(format!("{name} was written by {id}, of which the log has no record"));
        }
    }
    Ok(())
}

/// The log is damaged where a transaction's record should be: what is known is too little to remove anything.
fn knows_too_little(cases: &[Case], report: &Report) -> bool {
    let may_miss_something = |case: &Case| case.tx.lost_its_record() || case.tx.may_have_lost_its_decision();
    !report.damage.is_empty() && cases.iter().any(may_miss_something)
}

/// git holds the locks of refs that recovery would have to write.
fn must_wait(site: &Site<'_>, cases: &[Case], expected: Option<&ExpectedRefs<'_>>) -> anyhow::Result<bool> {
    let Mode::Prepared { refs } = &site.options.mode else { return Ok(false) };
    if let Some(expected) = expected
        && power_cut::writes_one_of(site, expected, refs)?
    {
        return Ok(true);
    }
    let renamed = cases.iter().filter(|case| branch_rename::is_open(&case.tx)).flat_map(|case| &case.tx.refs);
    let written = cases.iter().flat_map(Case::written);
    Ok(written.chain(renamed.map(|r| &r.name)).any(|name| refs.contains(name)))
}
