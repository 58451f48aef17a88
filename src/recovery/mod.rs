//! Recovery: find what is unfinished, decide, mend, record.
//!
//! First law: recovery never makes it worse. Where the evidence is not conclusive it touches nothing, says so,
//! and keeps what a human needs. It is idempotent: killed anywhere and run again it comes to the same end.
//!
//! ```text
//! evidence ──▶ plan (pure) ──▶ locks ──▶ reflogs back ──▶ refs (compare-and-swap) ──▶ reflogs trimmed
//!                                                             ──▶ record + fsync ──▶ marker away
//! ```
//! One runner at a time, under `recovery.lock`, which the git children inherit.

mod branch_rename;
pub mod evidence;
mod execute;
pub mod expected_refs;
pub mod plan;
mod power_cut;
mod report;
mod roll_forward;
mod run_rollback;
mod worktree_add;

pub use worktree_add::any_unfinished as any_unfinished_worktree;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::fs::FileId;
use crate::git::{RefName, RefStore, Repository};
use crate::locks::judge as locks;
use crate::locks::judge::{Depth, Judge, KnownDead, LockFile, LockVerdict};
use crate::process::owner;
use crate::process::owner::{ExecContext, Liveness, Process};
use crate::state::TxId;
use crate::state::TxKind;
use crate::state::directory::{StateDir, Wait};
use crate::state::marker;
use crate::state::marker::{Entry, Listing, Marker, Phase, State, Temporary};
use crate::util::clock::unix_time;
use crate::wal::{Log, Record, Scan};

use evidence::{EvidenceSources, History, LogOutcome, Unfinished};
pub use execute::saved_log_name;
use expected_refs::ExpectedRefs;
use plan::{Plan, Verdict};
pub use report::{Finding, LockFinding, Report, TxFinding, plural};

/// Who asks for recovery, and so which locks are in our own way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// A command of ours: nothing is locked by those above us.
    Command,
    /// A hook, before git locks.
    Preparing,
    /// A hook, while git holds the locks of these refs: what would have to write one of them must wait.
    Prepared {
        /// The refs that git has locked.
        refs: Vec<RefName>,
    },
    /// A hook, after git released its locks.
    AfterTransaction,
}

/// How to recover.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who asks.
    pub mode: Mode,
    /// The git to run.
    pub git_program: PathBuf,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// A human vouches that owners who cannot be seen are dead.
    pub force: bool,
    /// How long to wait for another runner, and for a hook that outlived its git.
    pub wait: Wait,
    /// Runs that are to be taken back although files have changed since they died: a human says so.
    pub take_back: Option<TxId>,
    /// The environment says that objects lie elsewhere, too: what is missing here is not lost.
    pub objects_elsewhere: bool,
    /// A transaction of this very process that is to be settled: it counts as dead.
    pub own: Option<TxId>,
}

impl Options {
    /// For a hook: wait for nothing.
    #[must_use]
    pub fn new(git_program: PathBuf) -> Options {
        Options {
            mode: Mode::Command,
            git_program,
            dry_run: false,
            force: false,
            wait: Wait::No,
            take_back: None,
            objects_elsewhere: false,
            own: None,
        }
    }
}

/// Is anybody still working on the transaction of `marker`?
#[must_use]
pub fn liveness_of(marker: &Marker, here: &ExecContext, state: &StateDir) -> Liveness {
    let local = crate::fs::durable::is_local_disk(state.path());
    let of = |process: Process| marker.owner.liveness(process, here, local);
    let liveness = of(marker.owner.process).and(of(marker.hook_process));
    if marker.origin != TxKind::Run || marker.owner.place.boot != here.boot {
        return liveness;
    }
    // What cannot be asked counts as alive.
    crate::run::liveness(state, marker.id, liveness).unwrap_or(Liveness::Unknowable)
}

/// Did the writer of a marker die before it could rename it into place?
#[must_use]
pub fn is_abandoned(temporary: &Temporary, here: &ExecContext, state: &StateDir) -> bool {
    // The name does not say which machine it was, nor which boot.
    if !crate::fs::durable::is_local_disk(state.path()) {
        return false;
    }
    let place = ExecContext { pidns: temporary.pidns, ..here.clone() };
    let writer = owner::Owner { process: temporary.writer, place };
    writer.liveness(temporary.writer, here, true) == Liveness::Dead
}

/// Looks for anything unfinished without mending it: markers of the dead, and locks.
///
/// # Errors
/// The repository or its state cannot be read.
pub fn check(repo: &Repository, options: &Options) -> anyhow::Result<Report> {
    let dry = Options { dry_run: true, ..options.clone() };
    let state = StateDir::of(repo);
    if !needs_recovery(repo)? {
        let damage = if state.exists() { damage(&state)? } else { Vec::new() };
        return Ok(Report { damage, ..Report::default() });
    }
    if !state.exists() {
        return Session::run(repo, &state, &dry);
    }
    state.verify()?;
    let mut report = state.while_recovering(dry.wait, || Session::run(repo, &state, &dry))?;
    // Recovery reads what it needs; who looks wants to know of all of it.
    let told = damage(&state)?;
    report.damage.retain(|line| !told.contains(line));
    report.damage.splice(0..0, told);
    Ok(report)
}

/// The cheap question, asked before every command: is there a marker or a lock at all?
///
/// # Errors
/// A directory cannot be read.
pub fn needs_recovery(repo: &Repository) -> anyhow::Result<bool> {
    let listing = Listing::read(StateDir::of(repo).path())?;
    Ok(!listing.markers.is_empty()
        || !listing.temporary.is_empty()
        || !is_verified(&listing, &StateDir::of(repo))?
        || !locks::find(repo, Depth::Blocking)?.is_empty()
        || worktree_add::any_unfinished(repo)
        || repo.common_dir.join(crate::git::reflog::RENAMED_LOG).exists())
}

/// Has this boot looked after what the one before left? Where there is no state directory there is nothing to look at, and
/// on a file system that several machines share another boot id may be another machine's: there nothing is looked at.
///
/// # Errors
/// The boot id or the state directory cannot be read.
pub fn is_verified(listing: &Listing, state: &StateDir) -> anyhow::Result<bool> {
    let noted = match &listing.verified {
        Some(note) => *note == state.verified_name(&owner::boot_id()?)?,
        None => !state.exists(),
    };
    Ok(noted || !crate::fs::durable::is_local_disk(state.path()))
}

/// Damaged places of the log, one line each.
fn damage(state: &StateDir) -> anyhow::Result<Vec<String>> {
    let boot = owner::boot_id()?;
    Ok(describe_damage(&Log::new(state, &boot, Wait::UpTo(Duration::from_secs(10))).scan()?))
}

fn describe_damage(scan: &Scan) -> Vec<String> {
    scan.damage.iter().map(ToString::to_string).collect()
}

/// Recovers whatever the dead left unfinished.
///
/// # Errors
/// The state cannot be read or written, or another runner is at work ([`crate::state::directory::Busy`]).
pub fn recover(repo: &Repository, options: &Options) -> anyhow::Result<Report> {
    let state = StateDir::of(repo);
    if options.dry_run {
        return check(repo, options);
    }
    state.make_ready()?;
    state.while_recovering(options.wait, || Session::run(repo, &state, options))
}

/// Does a transaction of the dead, of which the log does not know how it ended, name a ref that the git of this hook has locked?
/// For a hook that cannot recover it, because another process is doing that: who changed such a ref meanwhile would hide how far
/// the dead one came. Looks only, without `recovery.lock`.
///
/// # Errors
/// The state or the log cannot be read.
pub fn is_in_the_way(repo: &Repository, options: &Options) -> anyhow::Result<bool> {
    let Mode::Prepared { refs } = &options.mode else { return Ok(false) };
    let state = StateDir::of(repo);
    let place = ExecContext::here()?;
    let mut session = Session::new(repo, &state, options, &place);
    let dead = session.find_dead(&Listing::read(state.path())?, &place)?.watched;
    let records = session.read_log(&dead, false)?.0;
    let history = History::new(&records);
    let names_one = |(entry, marker): &(Entry, Option<Marker>)| match history.begin(entry.id) {
        Some((at, begin)) if begin.rename.is_some() || history.ending(entry.id, at) == LogOutcome::None => {
            let watched = begin.watched.iter().map(|w| &w.name);
            begin.refs.iter().map(|c| &c.name).chain(watched).any(|name| refs.contains(name))
        }
        Some(_) => false,
        // Of what nothing is known it cannot be excluded.
        None => marker.is_none(),
    };
    Ok(dead.iter().any(names_one))
}

/// Closes a transaction that waits for a human, who has looked at it.
///
/// # Errors
/// There is no such transaction, or it does not wait.
pub fn acknowledge(repo: &Repository, id: TxId, options: &Options) -> anyhow::Result<()> {
    let state = StateDir::of(repo);
    state.while_recovering(options.wait, || {
        let waiting = Listing::read(state.path())?.markers.into_iter().find(|m| m.id == id && m.state == State::Failed);
        let entry = waiting.with_context(|| format!("{id} does not wait for anybody"))?;
        let place = ExecContext::here()?;
        let log = Log::new(&state, &place.boot, Wait::UpTo(Duration::from_secs(10)));
        execute::close_acknowledged(repo, &log, &state, entry)
    })
}

/// How often the log is read again because others are at work.
const LOOKS: usize = 3;

/// Markers of the dead.
struct Dead {
    watched: Vec<(Entry, Option<Marker>)>,
    runs: Vec<Entry>,
}

/// One run of recovery.
struct Session<'r> {
    repo: &'r Repository,
    state: &'r StateDir,
    options: &'r Options,
    log: Log<'r>,
    report: Report,
}

impl<'r> Session<'r> {
    fn new(repo: &'r Repository, state: &'r StateDir, options: &'r Options, place: &ExecContext) -> Self {
        let log = Log::new(state, &place.boot, Wait::UpTo(Duration::from_secs(10)));
        Session { repo, state, options, log, report: Report::default() }
    }

    fn run(repo: &'r Repository, state: &'r StateDir, options: &'r Options) -> anyhow::Result<Report> {
        for _ in 0..LOOKS {
            if let Some(report) = Session::look_and_recover(repo, state, options, false)? {
                return Ok(report);
            }
        }
        let last = Session::look_and_recover(repo, state, options, true)?;
        last.context("recovery has come to no end")
    }

    /// `None` when a human would have to decide about refs that others have moved while we looked, unless this is the `last` try:
    /// every change is in the log before it is made, so the log, read again, says who moved them.
    fn look_and_recover(
        repo: &'r Repository,
        state: &'r StateDir,
        options: &'r Options,
        last: bool,
    ) -> anyhow::Result<Option<Report>> {
        let place = ExecContext::here().context("cannot read /proc: without it nobody's death can be proven")?;
        let mut session = Session::new(repo, state, options, &place);
        let listing = Listing::read(state.path())?;
        let mut dead = session.find_dead(&listing, &place)?;
        let reboot = !is_verified(&listing, state)?;
        let scan = session.read_log(&dead.watched, reboot)?;
        session.report.damage = scan.1;
        let history = History::new(&scan.0);
        session.ask_records(&mut dead, &history, &place);
        let Dead { watched: dead, runs } = dead;
        let mut expected = reboot.then(|| session.expectation(&scan.0));
        if expected.as_ref().map_or(Ok(false), |e| session.is_copy(e))? {
            session.begin_anew()?;
            expected = None;
        }
        let witnesses =
            EvidenceSources { repo, program: &options.git_program, history: &history, expected: expected.as_ref() };
        let mut unfinished = session.gather(dead, &witnesses)?;
        session.look_for_lost_records(&unfinished)?;
        let plan_of = |u: &Unfinished| if u.decided { roll_forward::plan(&u.refs) } else { plan::plan(&u.refs) };
        let mut plans: Vec<Plan> = unfinished.iter().map(plan_of).collect();
        let undecided = plans.iter().any(|plan| plan.verdict == Verdict::NeedsHuman);
        if undecided && !last && session.log.goes_on_behind(scan.0.last().map_or(0, |record| record.lsn))? {
            return Ok(None);
        }
        if let Some(waiting) = roll_forward::needs_a_command(&unfinished, &options.mode) {
            session.report.must_wait = true;
            session.report.notes.extend(roll_forward::refusal(waiting, &options.mode));
            return Ok(Some(session.report));
        }

        if session.must_wait(&unfinished, &plans, expected.as_ref())? {
            session.report.must_wait = true;
            return Ok(Some(session.report));
        }
        let steady_since = session.log.clock_is_steady_since()?;
        let known = known_dead(repo, &unfinished);
        let mut judge = Judge::new(repo, known, owner::ancestors()?, steady_since).forced(options.force);
        if let Some(expected) = &expected {
            if !session.make_readable(expected, &mut judge)? {
                return Ok(Some(session.report));
            }
            session.finish_lost_renames(expected, &unfinished)?;
            // What has been set aside by now may have shown a ref.
            roll_forward::look_again(&witnesses, &mut unfinished)?;
            plans = unfinished.iter().map(plan_of).collect();
        }
        let finished_index = match session.damaged(&unfinished) {
            false => session.mend_locks(&mut judge, &unfinished, &plans)?,
            true => Vec::new(),
        };
        let renames = branch_rename::group(&unfinished);
        // Newest first: what a later transaction did is undone before what it was built on.
        for (transaction, plan) in unfinished.iter().zip(&plans).rev() {
            session.settle(transaction, plan, &renames, &mut judge, &finished_index)?;
        }
        branch_rename::mend_stray_log(&mut session, &mut judge, &unfinished)?;
        worktree_add::mend(&mut session, &mut judge)?;
        session.sweep(&listing, &place)?;
        if expected.is_some() {
            session.verify_after_reboot()?;
        }
        // Last: it builds on refs and on a log that are as they should be. The newest first.
        for entry in runs.into_iter().rev() {
            session.settle_run(entry)?;
        }
        Ok(Some(session.report))
    }

    /// Markers that nobody works on any more. The others are reported.
    fn find_dead(&mut self, listing: &Listing, place: &ExecContext) -> anyhow::Result<Dead> {
        let (mut dead, mut runs) = (Vec::new(), Vec::new());
        for entry in &listing.markers {
            let (entry, marker) = match entry.read_now() {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                // Of what cannot be read nothing is known: not even whether a run waits behind it.
                Err(error) if marker::is_unreadable(&error) => return Err(error),
                Err(error) => {
                    self.report.notes.push(format!("{error:#}"));
                    dead.push((entry.clone(), None));
                    continue;
                }
            };
            if marker.origin == TxKind::Run {
                // Only our own commands restore files, never a hook under the hands of its git.
                if self.options.mode == Mode::Command && self.run_is_over(&entry, &marker, place) {
                    runs.push(entry);
                }
                continue;
            }
            let Some((entry, marker, liveness)) = self.judge(entry, marker, place)? else { continue };
            match liveness {
                Liveness::Dead => dead.push((entry, Some(marker))),
                Liveness::Unknowable if self.options.force => dead.push((entry, Some(marker))),
                liveness => self.report.busy.push(report::busy_line(&marker, liveness)),
            }
        }
        Ok(Dead { watched: dead, runs })
    }

    /// Does somebody work on it? It may be another marker by the time that its owner is found dead: then that one is judged.
    /// `None` when it has ended well since the markers were listed: nothing is left of it.
    fn judge(
        &self,
        mut entry: Entry,
        mut marker: Marker,
        place: &ExecContext,
    ) -> anyhow::Result<Option<(Entry, Marker, Liveness)>> {
        loop {
            let is_own = self.options.own == Some(entry.id);
            let liveness = if is_own { Liveness::Dead } else { self.wait_for_orphan(&marker, place) };
            if liveness != Liveness::Dead {
                return Ok(Some((entry, marker, liveness)));
            }
            match entry.read_now()? {
                None => return Ok(None),
                Some((now, last)) if last == marker => return Ok(Some((now, last, liveness))),
                Some(later) => (entry, marker) = later,
            }
        }
    }

    /// A marker has no checksum. The record of its transaction has one, and says who makes it and what it is.
    fn ask_records(&mut self, dead: &mut Dead, history: &History<'_>, place: &ExecContext) {
        let local = crate::fs::durable::is_local_disk(self.state.path());
        for (entry, marker) in std::mem::take(&mut dead.watched) {
            let begin = history.begin(entry.id).map(|(_, begin)| begin);
            let Some(begin) = begin.filter(|_| self.options.own != Some(entry.id)) else {
                dead.watched.push((entry, marker));
                continue;
            };
            if marker.as_ref().is_some_and(|marker| !names_owner_of(marker, begin)) {
                self.report.damage.push(format!("{} and its record name different processes", entry.path.display()));
                dead.watched.push((entry, marker));
                continue;
            }
            let of = |process: Process| begin.owner.liveness(process, place, local);
            let mut liveness = of(begin.owner.process).and(of(begin.hook_process));
            if begin.origin == TxKind::Run {
                liveness = crate::run::liveness(self.state, entry.id, liveness).unwrap_or(Liveness::Unknowable);
            }
            if liveness != Liveness::Dead && !(liveness == Liveness::Unknowable && self.options.force) {
                self.report.busy.push(report::busy(entry.id, &begin.operation, &begin.owner, liveness));
            } else if begin.origin != TxKind::Run {
                dead.watched.push((entry, marker));
            } else if self.options.mode == Mode::Command {
                dead.runs.push(entry);
            }
        }
    }

    /// A hook that outlived its git is done in a moment: a command waits for it.
    fn wait_for_orphan(&self, marker: &Marker, place: &ExecContext) -> Liveness {
        let local = crate::fs::durable::is_local_disk(self.state.path());
        let start = Instant::now();
        loop {
            let liveness = liveness_of(marker, place, self.state);
            let owner = marker.owner.liveness(marker.owner.process, place, local);
            let Wait::UpTo(limit) = self.options.wait else { return liveness };
            if liveness != Liveness::Alive || owner != Liveness::Dead || start.elapsed() > limit {
                return liveness;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The part of the log that speaks of the dead. A marker is written before its record, so segments that
    /// ended long before the oldest marker cannot.
    fn read_log(&self, dead: &[(Entry, Option<Marker>)], reboot: bool) -> anyhow::Result<(Vec<Record>, Vec<String>)> {
        const CLOCK_MARGIN: u64 = 3600;
        let logged = |m: &Option<Marker>| m.as_ref().is_none_or(|m| m.phase == Phase::Prepared);
        let wanted: Vec<_> = dead.iter().filter(|(_, m)| logged(m)).collect();
        if wanted.is_empty() && !reboot {
            return Ok((Vec::new(), Vec::new()));
        }
        // What the marker says, and what the file says: neither alone is believed.
        let written = |(entry, marker): &&(Entry, Option<Marker>)| {
            let modified = std::fs::symlink_metadata(&entry.path).map_or(0, |m| m.mtime());
            marker.as_ref().map_or(0, |m| m.timestamp.min(u64::try_from(modified).unwrap_or(0)))
        };
        let oldest = wanted.iter().map(written).min().unwrap_or(0);
        let scan = self.log.scan_until(|records| {
            let found = |entry: &Entry| History::new(records).begin(entry.id).is_some();
            let old_enough = records.first().is_some_and(|r| r.time + CLOCK_MARGIN < oldest);
            let far_enough = !reboot || power_cut::reaches_checkpoint(records);
            far_enough && (old_enough || wanted.iter().all(|(entry, _)| found(entry)))
        })?;
        let damage = describe_damage(&scan);
        Ok((scan.records, damage))
    }

    fn gather(
        &self,
        dead: Vec<(Entry, Option<Marker>)>,
        witnesses: &EvidenceSources<'_>,
    ) -> anyhow::Result<Vec<Unfinished>> {
        let history = witnesses.history;
        let mut unfinished = Vec::new();
        for (entry, marker) in dead {
            let is_its = |begin: &crate::wal::Begin| marker.as_ref().is_none_or(|m| names_owner_of(m, begin));
            let Some((at, begin)) = history.begin(entry.id).filter(|(_, begin)| is_its(begin)) else {
                let (ending, decided, refs) = (history.ending(entry.id, 0), false, Vec::new());
                unfinished.push(Unfinished { entry, marker, begin: None, ending, decided, refs });
                continue;
            };
            let ending = history.ending(entry.id, at);
            if ending == LogOutcome::None
                && let Some(made) = roll_forward::gather(witnesses, entry.id, at, begin)?
            {
                let roll_forward::Made { begin, decided, refs } = made;
                unfinished.push(Unfinished { entry, marker, begin: Some(Box::new(begin)), ending, decided, refs });
                continue;
            }
            let refs = match ending {
                LogOutcome::None => witnesses.of_refs(entry.id, at, begin)?,
                _ => Vec::new(),
            };
            let (begin, decided) = (Some(Box::new(begin.clone())), false);
            unfinished.push(Unfinished { entry, marker, begin, ending, decided, refs });
        }
        Ok(unfinished)
    }

    /// A marker names one lock of its transaction. Where that has become its ref there was a record, whatever the log says.
    fn look_for_lost_records(&mut self, unfinished: &[Unfinished]) -> anyhow::Result<()> {
        for transaction in unfinished.iter().filter(|u| u.lost_its_record()) {
            let probe = transaction.marker.as_ref().and_then(|m| m.probe.as_ref());
            let Some((path, lock)) = probe else { continue };
            let name =
                crate::util::text::unescape(path).and_then(|path| RefName::parse(path.strip_suffix(b".lock")?).ok());
            let Some(name) = name else { continue };
            let file = crate::fs::FileId::at(&RefStore::new(self.repo).file(&name))?;
            if file.is_some_and(|file| file.is_same_file(lock)) {
                let id = transaction.id();
                self.report.damage.push(format!("{name} was written by {id}, of which the log has no record"));
            }
        }
        Ok(())
    }

    /// The log is damaged where a transaction's record should be: what is known is too little to remove anything.
    fn damaged(&self, unfinished: &[Unfinished]) -> bool {
        !self.report.damage.is_empty()
            && unfinished.iter().any(|tx| tx.lost_its_record() || tx.may_have_lost_its_decision())
    }

    /// git holds the locks of refs that recovery would have to write.
    fn must_wait(
        &self,
        unfinished: &[Unfinished],
        plans: &[Plan],
        expected: Option<&ExpectedRefs<'_>>,
    ) -> anyhow::Result<bool> {
        let Mode::Prepared { refs } = &self.options.mode else { return Ok(false) };
        if let Some(expected) = expected
            && self.reboot_writes(expected, refs)?
        {
            return Ok(true);
        }
        let writes = plans.iter().flat_map(|p| &p.writes);
        let renamed = unfinished.iter().filter(|u| branch_rename::is_open(u)).flat_map(|u| &u.refs);
        Ok(writes.map(|w| &w.name).chain(renamed.map(|r| &r.name)).any(|name| refs.contains(name)))
    }

    /// Moves the locks of the dead aside; an index.lock that belongs to a finished commit goes into place.
    fn mend_locks(
        &mut self,
        judge: &mut Judge<'_>,
        unfinished: &[Unfinished],
        plans: &[Plan],
    ) -> anyhow::Result<Vec<TxId>> {
        let mut finished = Vec::new();
        for lock in locks::find(self.repo, Depth::Everything)? {
            let verdict = judge.judge(&lock)?;
            if verdict.owner != Liveness::Dead {
                self.report.locks.push(report::lock_finding(self.repo, &lock, &verdict, Finding::Left));
                continue;
            }
            if let Some(id) = self.index_to_finish(&lock, unfinished, plans)? {
                if !self.options.dry_run {
                    execute::finish_index(&lock)?;
                }
                self.report.locks.push(report::lock_finding(self.repo, &lock, &verdict, Finding::Finished));
                finished.push(id);
                continue;
            }
            if !self.options.dry_run {
                self.report.notes.extend(self.trim_unfinished_move(&lock)?);
            }
            if let Some(id) = self.needed_later(&lock, unfinished)? {
                let because = format!("{id} has it as its new index, and died just now");
                let verdict = LockVerdict { owner: Liveness::Unknowable, because };
                self.report.locks.push(report::lock_finding(self.repo, &lock, &verdict, Finding::Left));
                continue;
            }
            let gone = self.options.dry_run || execute::quarantine_lock(self.state, self.repo, &lock)?;
            let finding = if gone { Finding::Removed } else { Finding::Left };
            self.report.locks.push(report::lock_finding(self.repo, &lock, &verdict, finding));
        }
        Ok(finished)
    }

    /// The transaction whose index this lock is, when it was at work as the markers were read: it is recovered the next time,
    /// and its index with it.
    fn needed_later(&self, lock: &LockFile, unfinished: &[Unfinished]) -> anyhow::Result<Option<TxId>> {
        if !lock.path.ends_with("index.lock") {
            return Ok(None);
        }
        for entry in Listing::read(self.state.path())?.markers {
            if unfinished.iter().any(|transaction| transaction.id() == entry.id) {
                continue;
            }
            let index = match entry.read_now() {
                Err(error) if marker::is_unreadable(&error) => return Err(error),
                // A damaged one says nothing.
                found => found.ok().flatten().and_then(|(_, marker)| marker.index_lock),
            };
            let is_it = |(path, id): (String, FileId)| id == lock.id && self.repo.common_dir.join(path) == lock.path;
            if index.is_some_and(is_it) {
                return Ok(Some(entry.id));
            }
        }
        Ok(None)
    }

    /// The committed transaction whose new index this lock is.
    fn index_to_finish(
        &self,
        lock: &LockFile,
        unfinished: &[Unfinished],
        plans: &[Plan],
    ) -> anyhow::Result<Option<TxId>> {
        for (transaction, plan) in unfinished.iter().zip(plans) {
            let Some(begin) = &transaction.begin else { continue };
            let git_dir = transaction.git_dir(self.repo);
            let recorded = begin.index_lock == Some(lock.id) && lock.path == git_dir.join("index.lock");
            let applied = match transaction.ending {
                LogOutcome::Committed => true,
                LogOutcome::None => plan.verdict == Verdict::Commit,
                LogOutcome::Closed | LogOutcome::NeedsHuman => false,
            };
            if !recorded || !applied {
                continue;
            }
            let Some((before, after)) = head_move(self.repo, &git_dir, begin)? else { continue };
            let program = &self.options.git_program;
            if crate::git::index::belongs_to(program, &git_dir, &lock.path, &before, &after)? {
                return Ok(Some(transaction.id()));
            }
        }
        Ok(None)
    }

    /// Markers that were never published, and staged files without a marker.
    fn sweep(&mut self, listing: &Listing, place: &ExecContext) -> anyhow::Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        // Of a disk that other machines may use a human has to say that nobody writes it any more.
        let vouched = self.options.force && !crate::fs::durable::is_local_disk(self.state.path());
        for temporary in listing.temporary.iter().filter(|t| vouched || is_abandoned(t, place, self.state)) {
            crate::fs::durable::remove_file(&temporary.path)?;
        }
        execute::sweep_staged(self.state)
    }
}

/// Where the transaction moved what the worktree's HEAD points to: before and after.
fn head_move(
    repo: &Repository,
    git_dir: &Path,
    begin: &crate::wal::Begin,
) -> anyhow::Result<Option<(crate::git::Value, crate::git::Oid)>> {
    use crate::git::Value;
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

/// Locks that the log has for transactions of the dead. Of a batched one they may be somebody else's.
fn known_dead(repo: &Repository, unfinished: &[Unfinished]) -> KnownDead {
    let refs = RefStore::new(repo);
    let mut known = KnownDead::new();
    for begin in unfinished.iter().filter_map(|u| u.begin.as_ref()).filter(|b| !b.batched) {
        let changed = begin.refs.iter().map(|c| (&c.name, c.lock));
        let watched = begin.watched.iter().map(|w| (&w.name, w.lock));
        known.extend(changed.chain(watched).filter_map(|(name, lock)| Some((refs.lock(name), lock?))));
        let packed = if begin.reftable { "reftable/tables.list.lock" } else { "packed-refs.lock" };
        known.extend(begin.packed_lock.map(|lock| (repo.common_dir.join(packed), lock)));
    }
    known
}

/// Is the process that the marker names the one that the record names?
fn names_owner_of(marker: &Marker, begin: &crate::wal::Begin) -> bool {
    let who = |owner: &owner::Owner| (owner.process, owner.place.boot.clone(), owner.place.pidns);
    who(&marker.owner) == who(&begin.owner)
}

fn quarantine_name(what: &str) -> String {
    format!("{}-{}", unix_time(), what.replace('/', "%"))
}
