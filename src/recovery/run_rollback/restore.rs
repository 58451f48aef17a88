//! Restores what a run changed, under `index.lock`: every step compares before it writes, and moves aside before it replaces.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::Context;

use crate::fs::{absent_is_none, durable, named as fs};
use crate::git::refs::RefSnapshot;
use crate::locks::{InTheWay, while_holding};
use crate::recovery::decide::{Decision, Evidence, Question, RunEvidence, decide};
use crate::recovery::power_cut::repair::short;
use crate::recovery::progress::Progress;
use crate::recovery::report::plural;
use crate::recovery::run_rollback::dead_run::DeadRun;
use crate::recovery::run_rollback::refs::{self, RefPlan, Stash};
use crate::recovery::run_rollback::worktree::{Difference, RestoreContext, modified};
use crate::recovery::site::Site;
use crate::run::{child_transactions, mark, objects, snapshot};
use crate::state::{TxId, quarantine};
use crate::wal::{Body, Flush, Outcome};

/// A run is known to live until its last heartbeat, and one comes every half second: what changed this much later
/// (nanoseconds) was changed by another process.
const AFTERWARDS: i64 = 3_000_000_000;

/// The note that a restore has begun, below the run's directory: its own writes are no sign of another process.
const RESTORING: &str = "restoring";

/// What differs, which refs go back, and what that means.
struct Look {
    found: Difference,
    plan: RefPlan,
    /// After which time (if any) a change is another process's.
    limit: Option<i64>,
    decision: Decision,
}

fn look_at(site: &Site<'_>, run: &DeadRun) -> anyhow::Result<Look> {
    let found = context(site, run).difference()?;
    let moves = child_transactions::moves(&run.records, run.id);
    let stash = Stash::look(&run.repo, site.state, &run.records, run.id, &run.manifest)?;
    let plan = refs::plan(&run.repo, &moves, run.begin.head.as_ref(), &run.manifest.reflogs, &stash)?;
    let limit = limit(site, run)?;
    let changed = limit.is_some_and(|limit| found.newest > limit);
    let evidence = if changed { RunEvidence::Obstructed(Question::ChangedSince) } else { RunEvidence::Restorable };
    let decision = decide(&Evidence::Run(evidence));
    Ok(Look { found, plan, limit, decision })
}

fn context<'s>(site: &'s Site<'_>, run: &'s DeadRun) -> RestoreContext<'s> {
    RestoreContext {
        repo: &run.repo,
        git: site.git.at(&run.repo.git_dir),
        manifest: &run.manifest,
        run: site.state.tx(run.id),
        copies: snapshot::copies_dir(site.state, run.id),
        aside: aside(site, run.id),
    }
}

/// When the tree was last known to live. Its runner says so itself while it takes back its own run, and a person may.
fn limit(site: &Site<'_>, run: &DeadRun) -> anyhow::Result<Option<i64>> {
    let id = Some(run.id);
    if site.options.own == id || site.options.take_back == id {
        return Ok(None);
    }
    let beat = mark::last_beat(site.state, run.id)?.unwrap_or(0);
    let children: HashSet<TxId> = child_transactions::of(&run.records, run.id).into_iter().map(|(tx, _)| tx).collect();
    let logged = run.records.iter().filter(|r| r.tx.is_some_and(|tx| children.contains(&tx))).map(|r| r.time).max();
    let logged = i64::try_from(logged.unwrap_or(0)).unwrap_or(0).saturating_mul(1_000_000_000);
    let restoring = modified(&site.state.tx(run.id).join(RESTORING));
    Ok(Some(beat.max(logged).max(restoring) + AFTERWARDS))
}

/// Where everything goes that makes way: the same place in every attempt.
fn aside(site: &Site<'_>, id: TxId) -> PathBuf {
    let name = format!("run.{id}");
    let dir = site.state.quarantine();
    let there = absent_is_none(fs::read_dir(&dir)).ok().flatten().into_iter().flatten().flatten();
    let known = there.map(|e| e.path()).find(|path| {
        path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once('-')).is_some_and(|(_, n)| n == name)
    });
    known.unwrap_or_else(|| dir.join(quarantine::name(&name)))
}

/// What restoring would do.
pub(crate) fn tell(site: &Site<'_>, run: &DeadRun, progress: &mut Progress) -> anyhow::Result<()> {
    let Look { found, plan, decision, .. } = look_at(site, run)?;
    progress.is_void = decision != Decision::RollBack;
    progress.lines.extend(told(&found, &plan));
    Ok(())
}

/// Restores the run, if it is still ours to take back. Nobody is to work on what is half restored: under `index.lock`.
pub(crate) fn restore(site: &Site<'_>, run: &DeadRun, progress: &mut Progress) -> anyhow::Result<()> {
    while_holding(site.repo, &run.repo.git_dir.join("index.lock"), || restore_locked(site, run, progress))
}

fn restore_locked(site: &Site<'_>, run: &DeadRun, progress: &mut Progress) -> anyhow::Result<()> {
    let Look { found, plan, limit, decision } = look_at(site, run)?;
    if decision != Decision::RollBack {
        progress.is_void = true;
        return Ok(());
    }
    let aside = aside(site, run.id);
    let note = site.state.tx(run.id).join(RESTORING);
    let beat = || -> anyhow::Result<()> {
        if absent_is_none(fs::symlink_metadata(&note))?.is_none() {
            durable::create_new(&note, b"")?;
        }
        Ok(durable::set_modified(&note, crate::util::clock::now())?)
    };
    beat()?;
    objects::restore(&run.repo, &site.git.at(&run.repo.git_dir), site.state, run.id)?;
    let (put, moved) = context(site, run).restore(&found, limit, &beat)?;
    let heads = child_transactions::heads(&run.records, run.id);
    let retired = refs::retire_worktrees(site, &run.manifest.linked, &heads, &aside)?;
    let settled = refs::restore_refs(site, run, &plan, &aside).map_err(in_the_way)?;
    if absent_is_none(fs::symlink_metadata(&aside))?.is_some() {
        durable::fsync_dir(&site.state.quarantine())?;
    }
    // Files, names and refs are on disk before the log says so.
    durable::sync_filesystem_of(site.state.path()).context("cannot sync the file system")?;
    if let Some(worktree) = run.manifest.worktree() {
        durable::sync_filesystem_of(&worktree).context("cannot sync the file system")?;
    }
    progress.lines.extend(told(&found, &plan));
    if put + moved > 0 {
        progress.lines.push(format!("{put} put back, {moved} moved aside"));
    }
    progress.lines.extend(retired);
    if aside.is_dir() {
        progress.lines.push(format!("what made way is in {}", aside.display()));
    }
    progress.left_some = !plan.left.is_empty();
    progress.refs_moved.extend(plan.writes.iter().map(|write| write.name.clone()));
    log_restored(site, run, settled, progress)
}

/// The refs' last known values first: were only the end logged, a reboot would redo what the child transactions had done.
fn log_restored(site: &Site<'_>, run: &DeadRun, refs: Vec<RefSnapshot>, progress: &Progress) -> anyhow::Result<()> {
    let as_of = run.records.last().map_or(0, |r| r.lsn);
    site.log.append(None, &Body::Baseline { as_of, actions: Vec::new(), refs }, Flush::No)?;
    let outcome = if progress.left_some { Outcome::Acknowledged } else { Outcome::RolledBack };
    let recovered = Body::Recovered { outcome, actions: progress.lines.clone(), refs: Vec::new() };
    site.log.append(Some(run.id), &recovered, Flush::Yes)?;
    Ok(())
}

/// git refused: a ref moved, or is locked, right now. The next attempt sees it.
fn in_the_way(error: anyhow::Error) -> anyhow::Error {
    if error.is::<InTheWay>() { error } else { InTheWay(format!("{error:#}")).into() }
}

fn told(found: &Difference, plan: &RefPlan) -> Vec<String> {
    let mut actions = Vec::new();
    if found.is_none() && plan.is_none() {
        actions.push("it had changed nothing".to_owned());
    }
    if !plan.writes.is_empty() {
        let count = plan.writes.len();
        let names: Vec<String> = plan.writes.iter().take(3).map(|w| format!("{} ({})", w.name, short(&w.to))).collect();
        let more = if count > 3 { format!(" and {} more", count - 3) } else { String::new() };
        actions.push(format!("{count} {} as before: {}{more}", plural(count, "ref"), names.join(", ")));
    }
    if found.count() > 0 {
        let count = found.count();
        actions.push(format!("{count} {} as before", plural(count, "file")));
    }
    if found.changes_config() {
        actions.push("the configuration as before".to_owned());
    }
    actions.extend(plan.left.iter().map(|name| format!("{name} has been moved by somebody else and is left alone")));
    actions
}
