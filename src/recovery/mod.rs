//! Recovery: find what is unfinished, decide, mend, record.
//!
//! First law: recovery never makes it worse. Where the evidence is not conclusive it touches nothing, says so,
//! and keeps what a human needs. It is idempotent: killed anywhere and run again it comes to the same end.
//!
//! ```text
//! find_dead ──▶ evidence ──▶ DECIDE (pure) ──▶ actions (values) ──▶ performed, or told in a dry run
//! ```
//! *Where is it decided whether a transaction goes forward or back?* In [`decide`]. What is done follows in [`action`] and [`perform`];
//! [`pipeline`] has the order. One runner at a time, under `recovery.lock`, which the git children inherit.

// In reading order.
mod action;
mod branch_rename;
mod case;
pub(crate) mod copied;
mod decide;
mod ending;
pub(crate) mod evidence;
pub(crate) mod expected_refs;
mod find_dead;
mod gather;
mod halfway;
mod history;
mod perform;
mod pipeline;
mod power_cut;
mod report;
mod roll_forward;
mod run_rollback;
mod site;
mod stale_locks;
mod worktree_add;
// What is done to single things.
mod close;
mod credible;
mod files;
mod progress;
mod reflog_plan;
mod reflogs;
mod removed_index;
mod renew_log;
mod staged;
mod take_apart;

pub(crate) use action::Action;
pub(crate) use credible::could_make_it;
pub(crate) use files::replace_if;
pub(crate) use find_dead::{is_abandoned, liveness_of, way_out};
pub(crate) use halfway::{explain as explain_worktree, was_recovered};
pub(crate) use perform::perform;
pub(crate) use power_cut::is_verified;
pub(crate) use power_cut::lost::LostIndex;
pub(crate) use reflogs::saved_log_name;
pub(crate) use removed_index::{REPLACED_INDEX, SAVED_INDEX};
pub(crate) use renew_log::recover_with_log;
pub(crate) use report::{Finding, Report, TxFinding, plural};
pub(crate) use site::{Mode, Options, Site};
pub(crate) use stale_locks::mend_without_log;
pub(crate) use worktree_add::any_unfinished as any_unfinished_worktree;

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::git::Repository;
use crate::locks::{self, Depth};
use crate::process::owner::{self, ExecContext};
use crate::state::marker::{Listing, State};
use crate::state::{StateDir, TxId, Wait, kept};
use crate::wal::Log;

use history::{History, LogOutcome};
use site::PATIENCE;

/// Looks for anything unfinished without mending it: markers of the dead, and locks.
pub(crate) fn check(repo: &Repository, options: &Options) -> anyhow::Result<Report> {
    let dry = Options { dry_run: true, ..options.clone() };
    let state = StateDir::of(repo);
    if copied::is_copied(&state, &Listing::read(state.path())?)? {
        // What its log says, damage included, is about another repository.
        return pipeline::run(repo, &state, &dry);
    }
    if !needs_recovery(repo)? {
        let damage = if state.exists() { damage(&state)? } else { Vec::new() };
        return Ok(Report { damage, ..Report::default() });
    }
    if !state.exists() {
        return pipeline::run(repo, &state, &dry);
    }
    state.verify()?;
    let mut report = look(repo, &state, &dry)?;
    // Recovery reads what it needs; who looks wants to know of all of it.
    let told = damage(&state)?;
    report.damage.retain(|line| !told.contains(line));
    report.damage.splice(0..0, told);
    Ok(report)
}

/// What recovery would do, without `recovery.lock`: who looks may have no right to it, or a read-only file system. What another
/// process is recovering is looked at when it is done.
fn look(repo: &Repository, state: &StateDir, dry: &Options) -> anyhow::Result<Report> {
    const PAUSE: Duration = Duration::from_millis(20);
    let (start, limit) = (Instant::now(), state.limit(dry.wait));
    loop {
        let is_last = start.elapsed() >= limit;
        match state.recovering() {
            Some(busy) if is_last => return Err(busy.into()),
            Some(_) => {}
            None => {
                let found = pipeline::run(repo, state, dry);
                if is_last || (state.recovering().is_none() && is_still_there(state, found.as_ref().ok())?) {
                    return found;
                }
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// A transaction that was found may have been recovered while we looked at what belongs to it.
fn is_still_there(state: &StateDir, found: Option<&Report>) -> anyhow::Result<bool> {
    let markers = Listing::read(state.path())?.markers;
    let mut told = found.iter().flat_map(|report| &report.transactions);
    Ok(told.all(|told| markers.iter().any(|marker| marker.id == told.id)))
}

/// The cheap question, asked before every command: is there a marker or a lock at all?
pub(crate) fn needs_recovery(repo: &Repository) -> anyhow::Result<bool> {
    let state = StateDir::of(repo);
    let listing = Listing::read(state.path())?;
    Ok(!listing.markers.is_empty()
        || !listing.temporary.is_empty()
        || !is_verified(&listing, &state)?
        || copied::is_copied(&state, &listing)?
        || !locks::find(repo, Depth::Blocking)?.is_empty()
        || worktree_add::any_unfinished(repo)
        || repo.common_dir.join(crate::git::reflog::RENAMED_LOG).exists())
}

/// Damaged places of the log, one line each.
fn damage(state: &StateDir) -> anyhow::Result<Vec<String>> {
    let boot = owner::boot_id()?;
    Ok(history::describe_damage(&Log::new(state, &boot, Wait::UpTo(PATIENCE)).scan()?))
}

/// Recovers whatever the dead left unfinished.
pub(crate) fn recover(repo: &Repository, options: &Options) -> anyhow::Result<Report> {
    let state = StateDir::of(repo);
    if options.dry_run {
        return check(repo, options);
    }
    let told = copied::set_aside(repo, options)?;
    state.make_ready()?;
    let mut report = state.while_recovering(options.wait, || {
        let report = pipeline::run(repo, &state, options)?;
        // A hook that found nothing has put nothing there.
        if options.mode == Mode::Command || !report.is_clean() {
            kept::sweep(&state)?;
        }
        Ok(report)
    })?;
    report.notes.splice(0..0, told);
    Ok(report)
}

/// Does a transaction of the dead, of which the log does not know how it ended, name a ref that the git of this hook has locked?
/// For a hook that cannot recover it, because another process is doing that: who changed such a ref meanwhile would hide how far
/// the dead one came. Looks only, without `recovery.lock`.
pub(crate) fn is_in_the_way(repo: &Repository, options: &Options) -> anyhow::Result<bool> {
    let Mode::Prepared { refs } = &options.mode else { return Ok(false) };
    let state = StateDir::of(repo);
    let here = ExecContext::here()?;
    let site = Site::new(repo, &state, options, &here);
    let listing = Listing::read(state.path())?;
    let dead = find_dead::find_dead(&site, &listing, &here, &mut Report::default())?.transactions;
    let records = find_dead::read_log(&site.log, &dead, false)?.records;
    let history = History::new(&records);
    let names_one = |found: &find_dead::DeadMarker| match history.begin(found.entry.id) {
        Some((at, begin)) if begin.rename.is_some() || history.ending(found.entry.id, at) == LogOutcome::None => {
            let watched = begin.watched.iter().map(|w| &w.name);
            begin.refs.iter().map(|c| &c.name).chain(watched).any(|name| refs.contains(name))
        }
        Some(_) => false,
        // Of what nothing is known it cannot be excluded.
        None => found.marker.is_none(),
    };
    Ok(dead.iter().any(names_one))
}

/// Closes a transaction as it is, when a person has looked at it: one that waits for that, or that nobody works on any more and
/// recovery cannot end.
pub(crate) fn acknowledge(repo: &Repository, id: TxId, options: &Options) -> anyhow::Result<()> {
    let state = StateDir::of(repo);
    state.while_recovering(options.wait, || {
        let here = ExecContext::here()?;
        // What a run has left running, nobody waits for who closes it as it is.
        let options = Options { take_back: Some(id), ..options.clone() };
        let site = Site::new(repo, &state, &options, &here);
        let mut listing = Listing::read(state.path())?;
        listing.markers.retain(|marker| marker.id == id);
        let entry = listing
            .markers
            .first()
            .cloned()
            .with_context(|| format!("{id} needs no manual resolution, so there is nothing to close"))?;
        if entry.state == State::Failed {
            return close::acknowledge(&site, entry);
        }
        let mut report = Report::default();
        find_dead::find_dead(&site, &listing, &here, &mut report)?;
        if let Some(line) = report.busy.first() {
            anyhow::bail!("{line}\nhint: wait until it is done");
        }
        // It has ended well while we looked, or is dead.
        entry.now()?.map_or(Ok(()), |entry| close::acknowledge(&site, entry))
    })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]
mod model_tests;
