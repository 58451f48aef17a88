//! Restores what a run changed, under `index.lock`: every step compares before it writes, and moves aside before it replaces.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::Context;

use crate::fs::door::{self, Kind};
use crate::fs::{absent_is_none, durable, named as fs};
use crate::git::refs::RefSnapshot;
use crate::git::{RefStore, Value};
use crate::locks::{InTheWay, while_holding};
use crate::recovery::decide::{Decision, Evidence, Question, RunEvidence, decide};
use crate::recovery::power_cut::repair::short;
use crate::recovery::progress::Progress;
use crate::recovery::report::{plural, short_list};
use crate::recovery::run_rollback::dead_run::DeadRun;
use crate::recovery::run_rollback::refs::{self, RefPlan};
use crate::recovery::run_rollback::worktree::{Difference, RestoreContext, Restored, modified};
use crate::recovery::site::Site;
use crate::run::unlogged::{self, Unlogged};
use crate::run::{child_transactions, guard, mark, objects, snapshot};
use crate::state::{TxId, kept, quarantine};
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
    /// Hooks were off in the run.
    is_blind: bool,
    /// After which time (if any) a change is another process's.
    limit: Option<i64>,
    decision: Decision,
}

fn look_at(site: &Site<'_>, run: &DeadRun) -> anyhow::Result<Look> {
    // Who looks moves nothing aside.
    let context = context(site, run, PathBuf::new());
    let found = context.difference()?;
    let mut records = run.records.clone();
    let unlogged = unlogged::find(&run.repo, &run.manifest.refs, &site.log, &mut records, run.id)?
        .ok_or_else(|| InTheWay("other processes keep changing refs".to_owned()))?;
    let is_blind = is_blind(site, run, &unlogged)?;
    let plan = refs::plan(site, run, &records, &unlogged, is_blind)?;
    let limit = limit(site, run)?;
    let changed = match limit {
        Some(limit) => found.newest > limit || context.staged_at()? > limit,
        None => false,
    };
    let evidence = if changed { RunEvidence::Obstructed(Question::ChangedSince) } else { RunEvidence::Restorable };
    let decision = decide(&Evidence::Run(evidence));
    Ok(Look { found, plan, is_blind, limit, decision })
}

/// Had the run turned hooks off? What it did to its own branch is proof: index and worktree are the run's to move.
fn is_blind(site: &Site<'_>, run: &DeadRun, unlogged: &[Unlogged]) -> anyhow::Result<bool> {
    if guard::is_noted(site.state, run.id)? {
        return Ok(true);
    }
    if unlogged.is_empty() {
        return Ok(false);
    }
    let heads = [run.begin.head.clone(), RefStore::new(&run.repo).head()?].map(|head| head.map(|head| head.value));
    let is_own = |change: &Unlogged| heads.contains(&Some(Value::Symref(change.name.clone())));
    if run.manifest.worktree.is_some() && unlogged.iter().any(|change| !change.is_untold && is_own(change)) {
        return Ok(true);
    }
    Ok(run.manifest.guard.is_changed(super::configuration(site, &run.repo).as_ref())?)
}

/// `aside` is where everything goes that makes way.
fn context<'s>(site: &'s Site<'_>, run: &'s DeadRun, aside: PathBuf) -> RestoreContext<'s> {
    RestoreContext {
        repo: &run.repo,
        git: site.git.at(&run.repo.git_dir),
        manifest: &run.manifest,
        run: site.state.tx(run.id),
        copies: snapshot::copies_dir(site.state, run.id),
        aside,
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

/// The directories in quarantine for what made way for the run, one for each attempt: for people to look into.
fn asides(site: &Site<'_>, id: TxId) -> Vec<String> {
    let name = format!("run.{id}");
    let dir = site.state.quarantine();
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    let is_one = |file: &OsStr| {
        let (time, rest) = file.to_str().and_then(|n| n.split_once('-')).unwrap_or_default();
        let number = rest.strip_prefix(&name);
        is_number(time) && number.is_some_and(|n| n.is_empty() || n.strip_prefix('.').is_some_and(is_number))
    };
    let found = door::entries(&dir).ok().flatten().into_iter().flatten();
    let mut found: Vec<PathBuf> =
        found.filter(|(file, kind)| *kind == Kind::Directory && is_one(file)).map(|(file, _)| dir.join(file)).collect();
    found.sort();
    found.iter().map(|path| path.display().to_string()).collect()
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
    let lock = run.repo.git_dir.join("index.lock");
    let restored = while_holding(site.repo, &lock, || restore_locked(site, run, progress));
    // Nothing is done behind a link, and the run waits until the real directory is there again.
    restored.map_err(|error| if door::is_linked(&error) { in_the_way(error) } else { error })
}

fn restore_locked(site: &Site<'_>, run: &DeadRun, progress: &mut Progress) -> anyhow::Result<()> {
    let Look { found, plan, is_blind, limit, decision } = look_at(site, run)?;
    if decision != Decision::RollBack {
        progress.is_void = true;
        return Ok(());
    }
    let aside = quarantine::make_dir(site.state, &format!("run.{}", run.id))?;
    let note = site.state.tx(run.id).join(RESTORING);
    let beat = || -> anyhow::Result<()> {
        if absent_is_none(fs::symlink_metadata(&note))?.is_none() {
            durable::create_new(&note, b"")?;
        }
        Ok(durable::set_modified(&note, crate::util::clock::now())?)
    };
    beat()?;
    if is_blind {
        // The configuration goes back before the refs do, and then it does not say so any more.
        guard::note(site.state, run.id)?;
    }
    let context = context(site, run, aside.clone());
    let mut done = Restored::default();
    done.attempt_twice(|| objects::restore(&run.repo, &site.git.at(&run.repo.git_dir), site.state, run.id))?;
    let has_objects = done.failed.is_empty();
    let mut git_dir = Restored::default();
    context.restore_git_dir(&found, &mut git_dir)?;
    if !git_dir.failed.is_empty() {
        git_dir.failed.clear();
        context.restore_git_dir(&context.difference()?, &mut git_dir)?;
    }
    done.failed.append(&mut git_dir.failed);
    let heads = child_transactions::heads(&run.records, run.id);
    let mut retired = Vec::new();
    done.attempt_twice(|| refs::retire_worktrees(site, &run.manifest.linked, &heads, &aside, &mut retired))?;
    // Before the files: blobs are read as checkouts wrote them, without what the run has put in their place (`git replace`).
    match refs::restore_refs(site, run, &plan, &aside, &mut done) {
        // git will not write a ref to an object that is not there.
        Err(error) if !has_objects => done.failed.push(format!("{error:#}")),
        restored => restored.map_err(in_the_way)?,
    }
    let settled = refs::settled(site, &plan)?;
    let mut files = Restored::default();
    context.restore_files(&found, limit, &beat, &mut files)?;
    let (put, moved) = (files.put, files.moved);
    if !files.failed.is_empty() {
        // Some only failed because of what was in their way until now.
        files.failed.clear();
        context.restore_files(&context.difference()?, limit, &beat, &mut files)?;
    }
    done.failed.append(&mut files.failed);
    durable::remove_dir_if_empty(&aside)?;
    durable::fsync_dir(&site.state.quarantine())?;
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
    if is_blind && run.manifest.guard.is_changed(super::configuration(site, &run.repo).as_ref())? {
        progress.lines.insert(0, "git does not call the hooks that it did: run `jin-txn install`".to_owned());
    }
    let asides = asides(site, run.id);
    if !asides.is_empty() {
        progress.lines.push(format!("what made way is in {}", asides.join(" and ")));
    }
    let leaves_config = run.manifest.guard.linked_config_is_changed(&run.repo)?;
    if leaves_config {
        progress.lines.insert(0, "the configuration is a link, and what was changed through it is left".to_owned());
    }
    progress.left_some = leaves_config || !plan.left.is_empty() || !plan.unseen.is_empty();
    progress.refs_moved.extend(plan.writes.iter().map(|write| write.name.clone()));
    progress.unrestored = done.failed;
    log_restored(site, run, settled, progress)
}

/// The refs' last known values first: were only the end logged, a reboot would redo what the child transactions had done.
fn log_restored(site: &Site<'_>, run: &DeadRun, refs: Vec<RefSnapshot>, progress: &Progress) -> anyhow::Result<()> {
    let as_of = run.records.last().map_or(0, |r| r.lsn);
    site.log.append(None, &Body::Baseline { as_of, actions: Vec::new(), refs }, Flush::No)?;
    if !progress.unrestored.is_empty() {
        // It has not ended: a person is asked.
        return Ok(());
    }
    let outcome = if progress.left_some { Outcome::Acknowledged } else { Outcome::RolledBack };
    let recovered = Body::Recovered { outcome, actions: progress.lines.clone(), refs: Vec::new() };
    site.log.append(Some(run.id), &recovered, Flush::Yes)?;
    Ok(kept::renew_standing(&run.repo, site.state, None)?)
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
    if !found.left.is_empty() {
        let names: Vec<String> = found.left.iter().map(ToString::to_string).collect();
        actions.push(format!("in the git directory, left as the run made it: {}", short_list(&names)));
    }
    let unseen = plan.unseen.iter();
    actions.extend(unseen.map(|name| format!("no hook saw who moved {name}, which is left alone")));
    actions.extend(plan.left.iter().map(|name| format!("{name} was moved by another process and is left as it is")));
    actions
}
