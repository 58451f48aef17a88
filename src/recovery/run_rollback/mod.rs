//! A run that failed or died: everything goes back to where its snapshot has it.
//!
//! ```text
//! snapshot, log ──▶ what differs ──▶ whose is it? ──▶ objects ──▶ git directory, worktree, index ──▶ refs, HEAD ──▶ reflogs
//!                                        │                                         ──▶ sync ──▶ records ──▶ snapshot, marker away
//!                                        └─ changed after the run died: a human decides, nothing is touched
//! ```
//! Every step compares before it writes, and moves aside before it replaces: cut anywhere and done again it comes to the
//! same end. `index.lock` is ours meanwhile, so that no git works on what is half restored.

mod place;
mod refs;
mod worktree;

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use anyhow::Context;

use crate::fs::absent_is_none;
use crate::fs::durable;
use crate::fs::named as fs;
use crate::git::refs::RefSnapshot;
use crate::git::{RefName, Repository, Value};
use crate::process::owner::{ExecContext as Here, Liveness};
use crate::recovery::evidence::{History, LogOutcome};
use crate::recovery::execute::InTheWay;
use crate::recovery::report::{Finding, TxFinding, plural};
use crate::recovery::{Session, liveness_of, quarantine_name};
use crate::run::manifest::Manifest;
use crate::run::{child_transactions, mark, objects, snapshot};
use crate::state::TxId;
use crate::state::marker::{Entry, Marker, State};
use crate::wal::{Begin, Body, Flush, Outcome, Record};

use refs::{RefPlan, Stash};
use worktree::{Difference, RestoreContext, modified};

/// A run is known to live until its last heartbeat, and one comes every half second: what changed this much later
/// (nanoseconds) was changed by somebody else.
const AFTERWARDS: i64 = 3_000_000_000;

/// The note that a restore has begun, below the run's directory: its own writes are no sign of somebody else.
const RESTORING: &str = "restoring";

/// A run that is to be taken back.
struct DeadRun<'l> {
    id: TxId,
    begin: &'l Begin,
    records: &'l [Record],
    manifest: Manifest,
    repo: Repository,
}

impl Session<'_> {
    /// Is nobody of the run left?
    pub(crate) fn run_is_over(&mut self, entry: &Entry, marker: &Marker, place: &Here) -> bool {
        if self.options.own == Some(entry.id) {
            return true;
        }
        match liveness_of(marker, place, self.state) {
            Liveness::Dead => true,
            Liveness::Unknowable if self.options.force => true,
            liveness => {
                self.report.busy.push(self.run_at_work(marker, liveness));
                false
            }
        }
    }

    fn run_at_work(&self, marker: &Marker, liveness: Liveness) -> String {
        const SHOWN: usize = 3;
        let line = crate::recovery::report::busy_line(marker, liveness);
        let Ok(mark) = mark::Mark::of(self.state, marker.id) else { return line };
        let Ok(members) = mark::members(self.state, mark, Some(marker.owner.process)) else { return line };
        let names: Vec<String> = members.iter().take(SHOWN).map(ToString::to_string).collect();
        if names.is_empty() { line } else { format!("{line}: {}", names.join(", ")) }
    }

    /// Takes a run back whose processes are gone, or cleans up behind one that ended.
    pub(crate) fn settle_run(&mut self, entry: Entry) -> anyhow::Result<()> {
        let id = entry.id;
        // Its runner may have said last how it ended.
        let Some(entry) = entry.now()? else { return Ok(()) };
        let is_begin = |r: &Record| r.tx == Some(id) && matches!(r.body, Body::Begin(_));
        let scan = self.log.scan_until(|records| records.iter().any(is_begin))?;
        let history = History::new(&scan.records);
        let Some((at, begin)) = history.begin(id) else {
            if !scan.damage.is_empty() {
                let why = "its record is lost in a damaged part of the log: nothing of it is taken back".to_owned();
                return self.leave_to_human(entry, None, &scan.records, vec![why]);
            }
            // The record comes before the command: nothing was run.
            return self.close_run(entry, State::Failed);
        };
        match history.ending(id, at) {
            LogOutcome::None if entry.state == State::Committed => return self.log_kept_run(entry, begin),
            LogOutcome::Committed => return self.close_run(entry, State::Committed),
            LogOutcome::Closed => return self.close_run(entry, State::Failed),
            LogOutcome::NeedsHuman if self.options.take_back != Some(id) => {
                let why = format!(
                    "it waits for you: `git txn recover --take-back {id}` restores what it found, \
                     `git txn recover --acknowledge {id}` leaves everything as it is now"
                );
                self.find_run(id, begin, Finding::NeedsHuman, vec![why]);
                return Ok(());
            }
            _ if !scan.damage.is_empty() && self.options.take_back != Some(id) => {
                let why = vec![
                    "the log is damaged: it may not have all that the run did to refs, so nothing was taken back"
                        .to_owned(),
                    format!(
                        "`git txn recover --take-back {id}` restores what is known, `--acknowledge {id}` leaves all as it is"
                    ),
                ];
                return self.leave_to_human(entry, Some(begin), &scan.records, why);
            }
            _ => {}
        }
        let manifest = match Manifest::load(self.state, id) {
            Ok(manifest) => manifest,
            // Its runner is the first who looks: what cannot be read now may be readable for the next one.
            Err(error) if self.options.own == Some(id) && may_pass(&error) => return Err(error),
            Err(error) => return self.leave_to_human(entry, Some(begin), &scan.records, vec![format!("{error:#}")]),
        };
        let Some(repo) = self.worktree_of(begin) else {
            let why = "its worktree is gone: refs that it moved stay where they are".to_owned();
            return self.leave_to_human(entry, Some(begin), &scan.records, vec![why]);
        };
        if !manifest.is_in_place() {
            let where_it_was = manifest.worktree().unwrap_or_default();
            let why = vec![
                format!("its worktree is not at {} any more, so nothing was taken back", where_it_was.display()),
                format!("move it back there, then `git txn recover --take-back {id}`; or `--acknowledge {id}`"),
            ];
            return self.leave_to_human(entry, Some(begin), &scan.records, why);
        }
        let over = DeadRun { id, begin, records: &scan.records, manifest, repo };
        let taken_back = self.roll_back_run(entry, &over);
        match taken_back {
            Err(error) if error.is::<InTheWay>() => {
                self.find_run(id, begin, Finding::Left, vec![format!("{error:#}")]);
                Ok(())
            }
            other => other,
        }
    }

    /// The run was kept when the log could not be written: its marker says so.
    fn log_kept_run(&mut self, entry: Entry, begin: &Begin) -> anyhow::Result<()> {
        let actions = vec!["it was kept when the log could not be written".to_owned()];
        if !self.options.dry_run {
            let body = Body::Recovered { outcome: Outcome::Committed, actions: actions.clone(), refs: Vec::new() };
            self.log.append(Some(entry.id), &body, Flush::Yes)?;
        }
        self.find_run(entry.id, begin, Finding::Committed, actions);
        self.close_run(entry, State::Committed)
    }

    /// The repository, as seen from the worktree that the run was made in.
    fn worktree_of(&self, begin: &Begin) -> Option<Repository> {
        let inside = crate::util::text::unescape(&begin.worktree)?;
        let git_dir = if inside.is_empty() {
            self.repo.common_dir.clone()
        } else {
            let name = RefName::parse(&inside).ok().filter(|n| n.as_bytes().starts_with(b"worktrees/"))?;
            self.repo.common_dir.join(name.as_path())
        };
        git_dir.is_dir().then(|| Repository { git_dir, ..self.repo.clone() })
    }

    fn roll_back_run(&mut self, entry: Entry, over: &DeadRun<'_>) -> anyhow::Result<()> {
        let index_lock = over.repo.git_dir.join("index.lock");
        if self.options.dry_run {
            let (found, plan, _) = self.look_at_run(over)?;
            let actions = told(&found, &plan);
            self.find_run(over.id, over.begin, Finding::RolledBack, actions);
            return Ok(());
        }
        // Nobody is to work on what is half restored.
        let outcome = self.while_holding(&index_lock, || self.restore_run(over))?;
        match outcome {
            Restored::NotOurs(why) => self.leave_to_human(entry, Some(over.begin), over.records, why),
            Restored::Done { actions, left } => {
                let finding = if left { Finding::NeedsHuman } else { Finding::RolledBack };
                self.find_run(over.id, over.begin, finding, actions);
                self.close_run(entry, State::Failed)
            }
        }
    }

    /// What differs, which refs go back, and after which time (if any) a change is somebody else's.
    fn look_at_run(&self, over: &DeadRun<'_>) -> anyhow::Result<(Difference, RefPlan, Option<i64>)> {
        let found = self.scene(over).difference()?;
        let moves = child_transactions::moves(over.records, over.id);
        let manifest = &over.manifest;
        let stash = Stash::look(&over.repo, self.state, over.records, over.id, manifest)?;
        let plan = refs::plan(&over.repo, &moves, over.begin.head.as_ref(), &manifest.reflogs, &stash)?;
        Ok((found, plan, self.limit(over)?))
    }

    fn scene<'s>(&'s self, over: &'s DeadRun<'_>) -> RestoreContext<'s> {
        RestoreContext {
            repo: &over.repo,
            program: &self.options.git_program,
            manifest: &over.manifest,
            run: self.state.tx(over.id),
            copies: snapshot::copies_dir(self.state, over.id),
            aside: self.aside(over.id),
        }
    }

    /// When the tree was last known to live. Its runner says so itself while it takes back its own run, and a human may.
    fn limit(&self, over: &DeadRun<'_>) -> anyhow::Result<Option<i64>> {
        let id = Some(over.id);
        if self.options.own == id || self.options.take_back == id {
            return Ok(None);
        }
        let beat = mark::last_beat(self.state, over.id)?.unwrap_or(0);
        let parts: HashSet<TxId> =
            child_transactions::of(over.records, over.id).into_iter().map(|(tx, _)| tx).collect();
        let logged = over.records.iter().filter(|r| r.tx.is_some_and(|tx| parts.contains(&tx))).map(|r| r.time).max();
        let logged = i64::try_from(logged.unwrap_or(0)).unwrap_or(0).saturating_mul(1_000_000_000);
        let restoring = modified(&self.state.tx(over.id).join(RESTORING));
        Ok(Some(beat.max(logged).max(restoring) + AFTERWARDS))
    }

    /// Where everything goes that makes way: the same place in every attempt.
    fn aside(&self, id: TxId) -> PathBuf {
        let name = format!("run.{id}");
        let dir = self.state.quarantine();
        let there = absent_is_none(fs::read_dir(&dir)).ok().flatten().into_iter().flatten().flatten();
        let known = there.map(|e| e.path()).find(|path| {
            path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once('-')).is_some_and(|(_, n)| n == name)
        });
        known.unwrap_or_else(|| dir.join(quarantine_name(&name)))
    }

    fn restore_run(&self, over: &DeadRun<'_>) -> anyhow::Result<Restored> {
        let program = &self.options.git_program;
        let (found, plan, limit) = self.look_at_run(over)?;
        if limit.is_some_and(|limit| found.newest > limit) {
            return Ok(Restored::NotOurs(vec![
                "files have changed since its last process died, so nothing was taken back".to_owned(),
                format!(
                    "`git txn recover --take-back {}` restores what it found (and keeps what is there now in quarantine)",
                    over.id
                ),
                format!("`git txn recover --acknowledge {}` leaves everything as it is now", over.id),
            ]));
        }
        let aside = self.aside(over.id);
        let note = self.state.tx(over.id).join(RESTORING);
        let beat = || -> anyhow::Result<()> {
            if absent_is_none(fs::symlink_metadata(&note))?.is_none() {
                durable::create_new(&note, b"")?;
            }
            Ok(durable::set_modified(&note, crate::util::clock::now())?)
        };
        beat()?;
        objects::restore(&over.repo, program, self.state, over.id)?;
        let (put, moved) = self.scene(over).restore(&found, limit, &beat)?;
        let heads = child_transactions::heads(over.records, over.id);
        let retired = self.retire_worktrees(&over.manifest.linked, &heads, &aside)?;
        let settled = self.restore_refs(over.id, &over.repo, &plan, &aside).map_err(in_the_way)?;
        if absent_is_none(fs::symlink_metadata(&aside))?.is_some() {
            durable::fsync_dir(&self.state.quarantine())?;
        }
        // Files, names and refs are on disk before the log says so.
        durable::sync_filesystem_of(self.state.path()).context("cannot sync the file system")?;
        if let Some(worktree) = over.manifest.worktree() {
            durable::sync_filesystem_of(&worktree).context("cannot sync the file system")?;
        }
        let mut actions = told(&found, &plan);
        if put + moved > 0 {
            actions.push(format!("{put} put back, {moved} moved aside"));
        }
        actions.extend(retired);
        if aside.is_dir() {
            actions.push(format!("what made way is in {}", aside.display()));
        }
        self.log_restored(over, &actions, settled, !plan.left.is_empty())?;
        Ok(Restored::Done { actions, left: !plan.left.is_empty() })
    }

    /// The refs' newest word first: were only the end logged, a reboot would redo what the parts had done.
    fn log_restored(
        &self,
        over: &DeadRun<'_>,
        actions: &[String],
        refs: Vec<RefSnapshot>,
        left: bool,
    ) -> anyhow::Result<()> {
        let as_of = over.records.last().map_or(0, |r| r.lsn);
        self.log.append(None, &Body::Baseline { as_of, actions: Vec::new(), refs }, Flush::No)?;
        let outcome = if left { Outcome::Acknowledged } else { Outcome::RolledBack };
        let recovered = Body::Recovered { outcome, actions: actions.to_vec(), refs: Vec::new() };
        self.log.append(Some(over.id), &recovered, Flush::Yes)?;
        Ok(())
    }

    /// Records, once, that a human has to decide.
    fn leave_to_human(
        &mut self,
        mut entry: Entry,
        begin: Option<&Begin>,
        records: &[Record],
        why: Vec<String>,
    ) -> anyhow::Result<()> {
        let id = entry.id;
        let known = records
            .iter()
            .any(|r| r.tx == Some(id) && matches!(&r.body, Body::Recovered { outcome: Outcome::NeedsHuman, .. }));
        if !self.options.dry_run && !known {
            let body = Body::Recovered { outcome: Outcome::NeedsHuman, actions: why.clone(), refs: Vec::new() };
            self.log.append(Some(id), &body, Flush::Yes)?;
            entry.become_state(State::Failed)?;
        }
        match begin {
            Some(begin) => self.find_run(id, begin, Finding::NeedsHuman, why),
            None => self.report.notes.push(format!("{id} needs you: {}", why.join("; "))),
        }
        Ok(())
    }

    fn close_run(&self, entry: Entry, state: State) -> anyhow::Result<()> {
        if self.options.dry_run { Ok(()) } else { crate::run::close(self.state, entry, state) }
    }

    fn find_run(&mut self, id: TxId, begin: &Begin, finding: Finding, actions: Vec<String>) {
        let (pid, operation) = (Some(begin.owner.process.pid), begin.operation.clone());
        self.report.transactions.push(TxFinding { id, operation, pid, finding, actions, quiet: false });
    }
}

enum Restored {
    /// Somebody else has been at work since.
    NotOurs(Vec<String>),
    /// Everything is as before, but for refs that somebody else moved.
    Done { actions: Vec<String>, left: bool },
}

/// Could a file not be read, although it is there and may be what it should be?
fn may_pass(error: &anyhow::Error) -> bool {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kind.is_some_and(|kind| !matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::Other))
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

fn short(value: &Value) -> String {
    value.oid().map_or_else(|| value.to_string(), |oid| oid.hex()[..10].to_owned())
}
