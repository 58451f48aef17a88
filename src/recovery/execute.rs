//! Carries a plan out. Every step is idempotent and checks what it finds, so that it can be cut anywhere.
//!
//! Reflogs of deleted refs come back *before* the refs (git would begin new ones), reflog entries of what never
//! happened go *after* them, and the marker goes last: while it exists, recovery comes back.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::durable;
use crate::fs::named as fs;
use crate::fs::{FileId, absent_is_none, read_small};
use crate::git::command;
use crate::git::command::RefWrite;
use crate::git::reflog;
use crate::git::reflog::{LogLine, Tail};
use crate::git::refs::RefSnapshot;
use crate::git::{RefName, RefStore, Repository, Value};
use crate::locks::holders::CLOCK_MARGIN;
use crate::locks::judge::{Judge, LockFile, RECOVERY_LOCK};
use crate::recovery::branch_rename::Groups;
use crate::recovery::evidence::{LogOutcome, Unfinished};
use crate::recovery::plan::{Plan, RefState, Verdict};
use crate::recovery::report::{Finding, TxFinding, plural};
use crate::recovery::{Mode, Session, quarantine_name};
use crate::staging::stage;
use crate::state::TxId;
use crate::state::TxKind;
use crate::state::directory::StateDir;
use crate::state::marker::{Entry, Listing, State};
use crate::wal::{Begin, Body, Flush, Log, Outcome, Record};

/// The name below `tx/<id>/` of the saved reflog of the `index`-th ref.
#[must_use]
pub fn saved_log_name(index: usize) -> String {
    format!("reflog.{index}")
}

/// Something that is in the way right now; the transaction stays for the next run.
#[derive(Debug)]
pub(super) struct InTheWay(pub String);

impl std::fmt::Display for InTheWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InTheWay {}

impl Session<'_> {
    /// Ends one transaction.
    pub(super) fn settle(
        &mut self,
        tx: &Unfinished,
        plan: &Plan,
        renames: &Groups<'_>,
        judge: &mut Judge<'_>,
        finished_index: &[TxId],
    ) -> anyhow::Result<()> {
        let Some(begin) = &tx.begin else { return self.settle_unlogged(tx) };
        if let Some(group) = renames.of(tx.id()) {
            // Every transaction of a rename ends with its first one, which is visited last.
            return if group.source.id() == tx.id() { self.settle_rename(group, judge) } else { Ok(()) };
        }
        match tx.ending {
            LogOutcome::Closed => self.close(tx.entry.clone(), State::Failed),
            LogOutcome::NeedsHuman => {
                self.find(
                    tx,
                    Finding::NeedsHuman,
                    vec![format!("it waits for you: `git txn recover --acknowledge {}`", tx.id())],
                    false,
                );
                Ok(())
            }
            LogOutcome::Committed => {
                let pending = self.index_still_pending(tx, begin)?;
                if pending && !finished_index.contains(&tx.id()) {
                    return Ok(());
                }
                let dropped = self.drop_reflogs(begin);
                match dropped {
                    Ok(actions) if actions.is_empty() => {}
                    Ok(actions) => self.find(tx, Finding::Finished, actions, false),
                    Err(error) => return self.or_leave(tx, Err(error)),
                }
                self.close(tx.entry.clone(), State::Committed)
            }
            LogOutcome::None if tx.decided => {
                let done = self.finish_decided(tx, begin, plan);
                self.or_leave(tx, done)
            }
            LogOutcome::None if tx.may_have_lost_its_decision() && !self.report.damage.is_empty() => {
                let why =
                    "the log is damaged, and may have lost that it was decided: compare its refs and files yourself";
                self.leave_undecided(tx, why)
            }
            LogOutcome::None => {
                let done = self.carry_out(tx, begin, plan);
                self.or_leave(tx, done)
            }
        }
    }

    /// What stands in the way is reported and left for the next run; anything else is an error.
    pub(super) fn or_leave(&mut self, tx: &Unfinished, done: anyhow::Result<()>) -> anyhow::Result<()> {
        match done {
            Err(error) if error.is::<InTheWay>() => {
                // In a hook that is no news: the next command, or this one a moment later, does it.
                let quiet = self.options.mode != Mode::Command;
                self.find(tx, Finding::Left, vec![format!("{error:#}")], quiet);
                Ok(())
            }
            other => other,
        }
    }

    fn settle_unlogged(&mut self, tx: &Unfinished) -> anyhow::Result<()> {
        if tx.ending == LogOutcome::NeedsHuman || (!self.report.damage.is_empty() && tx.lost_its_record()) {
            return self
                .leave_undecided(tx, "its record is lost in a damaged part of the log: compare its refs yourself");
        }
        if self.options.dry_run {
            return Ok(());
        }
        if tx.marker.is_none() {
            // Unreadable and unknown to the log: nothing began, but keep what it was.
            let aside = self.state.quarantine().join(quarantine_name(&format!("marker.{}", tx.id())));
            durable::rename_new(&tx.entry.path, &aside)?;
            return Ok(());
        }
        self.close(tx.entry.clone(), State::Failed)
    }

    /// The log knows too little: nothing is touched, and a human decides. That is recorded, once: it stays so when the
    /// damaged part is gone from the log.
    fn leave_undecided(&mut self, tx: &Unfinished, why: &str) -> anyhow::Result<()> {
        let actions = vec![why.to_owned(), format!("then close it: `git txn recover --acknowledge {}`", tx.id())];
        if !self.options.dry_run && tx.ending != LogOutcome::NeedsHuman {
            let body = Body::Recovered { outcome: Outcome::NeedsHuman, actions: actions.clone(), refs: Vec::new() };
            self.log.append(Some(tx.id()), &body, Flush::Yes)?;
        }
        let mut entry = tx.entry.clone();
        if !self.options.dry_run && entry.state == State::InProgress {
            entry.settle(State::Failed)?;
        }
        self.find(tx, Finding::NeedsHuman, actions, false);
        Ok(())
    }

    fn carry_out(&mut self, tx: &Unfinished, begin: &Begin, plan: &Plan) -> anyhow::Result<()> {
        let mut actions = describe(tx, plan);
        let (finding, outcome, state) = match plan.verdict {
            Verdict::Commit => (Finding::Committed, Outcome::Committed, State::Committed),
            Verdict::NothingApplied | Verdict::RollBack => (Finding::RolledBack, Outcome::RolledBack, State::Failed),
            Verdict::Overtaken => (Finding::RolledBack, Outcome::Acknowledged, State::Failed),
            Verdict::NeedsHuman => (Finding::NeedsHuman, Outcome::NeedsHuman, State::Failed),
        };
        let undoes = matches!(plan.verdict, Verdict::NothingApplied | Verdict::RollBack);
        if self.options.dry_run {
            self.find(tx, finding, actions, false);
            return Ok(());
        }
        if undoes && !begin.reftable {
            actions.extend(self.restore_reflogs(tx.id(), begin)?);
        }
        self.write(tx, &plan.writes)?;
        if undoes && !begin.reftable {
            actions.extend(self.trim_reflogs(begin)?);
        }
        if plan.verdict == Verdict::Commit && !begin.reftable {
            actions.extend(self.drop_reflogs(begin)?);
        }
        let refs = self.last_words(begin, plan)?;
        let recovered = Body::Recovered { outcome, actions: actions.clone(), refs };
        let as_of = self.log.append(Some(tx.id()), &recovered, Flush::Yes)?;
        if matches!(outcome, Outcome::NeedsHuman | Outcome::Acknowledged) {
            // What a human is to decide about, a reboot does not.
            let refs = self.settled_values(begin)?;
            self.log.append(None, &Body::Baseline { as_of, actions: Vec::new(), refs }, Flush::No)?;
        }
        let mut entry = tx.entry.clone();
        entry.settle(state)?;
        if plan.verdict != Verdict::NeedsHuman {
            self.close(entry, state)?;
        }
        self.find(tx, finding, actions, false);
        Ok(())
    }

    /// Compare-and-swap: a ref that moved since the evidence was taken stops all of it.
    pub(super) fn write(&self, tx: &Unfinished, writes: &[RefWrite]) -> anyhow::Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        let message = format!("{}rolled back {}", reflog::OUR_MESSAGE, tx.id());
        command::write_refs(&self.options.git_program, &tx.git_dir(self.repo), writes, &message)
            .map_err(|error| InTheWay(format!("{error:#}")).into())
    }

    /// Puts reflogs back that git removed for deletions that did not happen in the end.
    pub(super) fn restore_reflogs(&self, id: TxId, begin: &Begin) -> anyhow::Result<Vec<String>> {
        let refs = RefStore::new(self.repo);
        let mut actions = Vec::new();
        for (index, change) in begin.refs.iter().enumerate() {
            let saved = self.state.tx(id).join(saved_log_name(index));
            let log = refs.log(&change.name);
            if saved.exists() && fs::symlink_metadata(&log).is_err() {
                put_log_back(&saved, &log)?;
                actions.push(format!("put back the reflog of {}", change.name));
            }
        }
        Ok(actions)
    }

    /// Cuts entries off that tell of updates which did not happen, or of our taking them back.
    pub(super) fn trim_reflogs(&self, begin: &Begin) -> anyhow::Result<Vec<String>> {
        let mut actions = Vec::new();
        for change in &begin.refs {
            let target = if let Value::Symref(target) = &change.after { Some(target) } else { None };
            let pair = hex_pair(change);
            let known = |line: &LogLine<'_>| {
                let switched = target.is_some() && reflog::moved_to(line).as_ref() == target;
                line.is_ours() || switched || pair.as_ref().is_some_and(|p| is_pair(p, line))
            };
            actions.extend(self.trim_reflog(&change.name, change.log, known)?);
        }
        // HEAD is logged for the branch that it points to.
        let pairs: Vec<(String, String)> = begin.refs.iter().filter_map(hex_pair).collect();
        let known = |line: &LogLine<'_>| line.is_ours() || pairs.iter().any(|p| is_pair(p, line));
        for watched in &begin.watched {
            actions.extend(self.trim_reflog(&watched.name, watched.log, known)?);
        }
        Ok(actions)
    }

    /// Moves reflogs of deleted refs to quarantine that git had not yet removed: a new branch of that name would
    /// begin with them.
    pub(super) fn drop_reflogs(&self, begin: &Begin) -> anyhow::Result<Vec<String>> {
        let refs = RefStore::new(self.repo);
        let mut actions = Vec::new();
        for change in begin.refs.iter().filter(|c| c.after == Value::Absent && c.log.is_some()) {
            let log = refs.log(&change.name);
            let is_left = || -> io::Result<bool> {
                let same = FileId::at(&log)?.map(|id| id.size) == change.log;
                Ok(same && refs.read(&change.name)?.value == Value::Absent)
            };
            if !is_left()? {
                continue;
            }
            actions.push(format!("removed the reflog of {}, which is deleted", change.name));
            if self.options.dry_run {
                continue;
            }
            self.while_locked(&change.name, || {
                if is_left()? {
                    let aside = quarantine_name(&format!("reflog.{}", change.name));
                    durable::rename_new(&log, &free_name(&self.state.quarantine(), &aside)?)?;
                }
                Ok(())
            })?;
        }
        Ok(actions)
    }

    /// Under the ref's lock: git appends to the reflog while it holds that.
    pub(super) fn trim_reflog(
        &self,
        name: &RefName,
        recorded: Option<u64>,
        known: impl Fn(&LogLine<'_>) -> bool,
    ) -> anyhow::Result<Option<String>> {
        let refs = RefStore::new(self.repo);
        let log = refs.log(name);
        if !matches!(reflog::tail(&log, recorded, &known)?, Tail::Known(_)) {
            return Ok(None);
        }
        self.while_locked(name, || self.trim_locked(name, &log, recorded, known))
    }

    /// Runs `work` under git's lock of `name`; a lock that somebody else has is [`InTheWay`].
    pub(super) fn while_locked<T>(
        &self,
        name: &RefName,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let lock = RefStore::new(self.repo).lock(name);
        if let Some(parent) = lock.parent() {
            durable::create_dirs(parent, 0o777)?;
        }
        self.while_holding(&lock, work)
    }

    /// Runs `work` while the lock file `lock` is ours; one that somebody else has is [`InTheWay`].
    pub(super) fn while_holding<T>(&self, lock: &Path, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        match durable::create_new(lock, RECOVERY_LOCK) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(InTheWay(format!("{} is there", self.repo.relative(lock))).into());
            }
            Err(e) => return Err(e).with_context(|| format!("cannot lock {}", lock.display())),
        }
        let result = work();
        durable::remove_file(lock)?;
        result
    }

    /// Up to 2.45 git moves HEAD outside of any transaction, and logs that before it renames `HEAD.lock`: while the dead
    /// git's lock is there nobody else can have logged anything.
    pub(super) fn trim_unfinished_move(&self, lock: &LockFile) -> anyhow::Result<Option<String>> {
        let Some(git_dir) = lock.path.parent().filter(|_| lock.path.ends_with("HEAD.lock")) else { return Ok(None) };
        let worktree = Repository { git_dir: git_dir.to_owned(), ..self.repo.clone() };
        let refs = RefStore::new(&worktree);
        let name = refs.canonical(b"HEAD")?;
        let log = refs.log(&name);
        let Some(logged) = FileId::at(&log)? else { return Ok(None) };
        let written = read_small(&lock.path)?.map(|(content, _)| content).unwrap_or_default();
        let was_to_be = |to: &RefName| match Value::of_file(&written) {
            Value::Symref(target) => target == *to,
            _ => written.is_empty() && logged.mtime + CLOCK_MARGIN >= lock.id.ctime,
        };
        let now = refs.read(&name)?.value;
        let never_came = |line: &LogLine<'_>| {
            reflog::moved_to(line).is_some_and(|to| now != Value::Symref(to.clone()) && was_to_be(&to))
        };
        let Some(size) = reflog::size_without_last(&log, 1, never_came)? else { return Ok(None) };
        self.trim_locked(&name, &log, Some(size), never_came)
    }

    fn trim_locked(
        &self,
        name: &RefName,
        log: &Path,
        recorded: Option<u64>,
        known: impl Fn(&LogLine<'_>) -> bool,
    ) -> anyhow::Result<Option<String>> {
        let Tail::Known(bytes) = reflog::tail(log, recorded, known)? else { return Ok(None) };
        let aside = self.state.quarantine().join(quarantine_name(&format!("reflog-tail.{name}")));
        durable::replace(&aside, &bytes).with_context(|| format!("cannot keep {}", aside.display()))?;
        match recorded {
            Some(size) => durable::truncate(log, size)?,
            None => durable::remove_file(log)?,
        }
        Ok(Some(format!("trimmed the reflog of {name}")))
    }

    /// Of which refs is recovery the newest writer, or witness? Not of those that it left as they were.
    fn last_words(&self, begin: &Begin, plan: &Plan) -> anyhow::Result<Vec<RefSnapshot>> {
        let mut refs = self.settled_values(begin)?;
        if plan.verdict != Verdict::Commit {
            let written = plan.written();
            refs.retain(|r| written.contains(&r.name));
        }
        Ok(refs)
    }

    pub(super) fn settled_values(&self, begin: &Begin) -> anyhow::Result<Vec<RefSnapshot>> {
        settled_values(self.repo, begin)
    }

    /// `commit -a` had not yet renamed its index into place, and the lock could not be judged.
    fn index_still_pending(&self, tx: &Unfinished, begin: &Begin) -> io::Result<bool> {
        let lock = tx.git_dir(self.repo).join("index.lock");
        Ok(begin.index_lock.is_some() && FileId::at(&lock)? == begin.index_lock)
    }

    /// Removes what the transaction left in `.jin`: staged files first, the marker last.
    pub(super) fn close(&self, mut entry: Entry, state: State) -> anyhow::Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        if entry.state == State::InProgress {
            entry.settle(state)?;
        }
        match state {
            // What it replaced is kept, so that it can be undone.
            State::Committed => stage::put_away(self.state, entry.id)?,
            _ => durable::remove_tree(&self.state.tx(entry.id))?,
        }
        entry.remove()?;
        Ok(())
    }

    pub(super) fn find(&mut self, tx: &Unfinished, finding: Finding, actions: Vec<String>, quiet: bool) {
        let pid = tx.begin.as_ref().map(|b| b.owner.process.pid);
        let operation = tx.operation().to_owned();
        self.report.transactions.push(TxFinding { id: tx.id(), operation, pid, finding, actions, quiet });
    }
}

fn describe(tx: &Unfinished, plan: &Plan) -> Vec<String> {
    let names = |state: RefState| {
        let of_state = tx.refs.iter().filter(move |r| r.state == state);
        of_state.map(|r| r.name.to_string()).collect::<Vec<_>>()
    };
    let total = tx.refs.len();
    let mut actions: Vec<String> =
        plan.writes.iter().map(|w| format!("{} is back at {}", w.name, shorten(&w.to))).collect();
    match plan.verdict {
        Verdict::Commit => actions.push(format!("all {total} {} had been applied", plural(total, "ref"))),
        Verdict::NothingApplied => actions.push("nothing had been applied".to_owned()),
        Verdict::Overtaken => actions.push("its only ref has moved on since".to_owned()),
        Verdict::RollBack => {}
        Verdict::NeedsHuman => {
            for name in names(RefState::ThirdParty).into_iter().chain(names(RefState::Overwritten)) {
                actions.push(format!("{name} has been moved by somebody else and is left alone"));
            }
        }
    }
    actions
}

fn shorten(value: &Value) -> String {
    value.oid().map_or_else(|| value.to_string(), |oid| oid.hex()[..10].to_owned())
}

fn is_pair((old, new): &(String, String), line: &LogLine<'_>) -> bool {
    old.as_bytes() == line.old && new.as_bytes() == line.new
}

fn hex_pair(change: &crate::wal::RefChange) -> Option<(String, String)> {
    let before = change.before.as_ref()?;
    let zeros = before.oid().or(change.after.oid())?.null_like();
    let hex = |value: &Value| match value {
        Value::Oid(oid) => Some(oid.hex().to_owned()),
        Value::Absent => Some(zeros.clone()),
        _ => None,
    };
    Some((hex(before)?, hex(&change.after)?))
}

/// Gives a saved reflog its place again; the saved name goes with the transaction's other files.
pub(super) fn put_log_back(saved: &Path, log: &Path) -> anyhow::Result<()> {
    if let Some(parent) = log.parent() {
        durable::create_dirs(parent, 0o777)?;
    }
    match durable::hard_link(saved, log) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(e).with_context(|| format!("cannot restore {}", log.display()))
        }
        _ => Ok(()),
    }
}

/// Renames `index.lock` into place, as the dead `git commit` was about to.
pub(super) fn finish_index(lock: &LockFile) -> anyhow::Result<()> {
    let index = lock.path.with_extension("");
    durable::rename(&lock.path, &index).with_context(|| format!("cannot rename {} into place", lock.path.display()))
}

/// Moves a lock into quarantine; `false` when it was gone or another one by then.
pub(super) fn quarantine_lock(state: &StateDir, repo: &Repository, lock: &LockFile) -> anyhow::Result<bool> {
    let is_it = |id: Option<FileId>| id.is_some_and(|id| id.ino == lock.id.ino && id.mtime == lock.id.mtime);
    // Its holder may have been alive when it was found, have finished since, and died before it was judged: then the one that
    // is there is another's. That of the dead stays what it is.
    if !is_it(FileId::at(&lock.path)?) {
        return Ok(false);
    }
    let aside = free_name(&state.quarantine(), &quarantine_name(&repo.relative(&lock.path)))?;
    match durable::rename_new(&lock.path, &aside) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.with_context(|| format!("cannot move {} to quarantine", lock.path.display()))?,
    }
    if is_it(FileId::at(&aside)?) {
        return Ok(true);
    }
    // Somebody took the dead one's away and made a new lock of that name in between: it is theirs, it goes back.
    durable::hard_link(&aside, &lock.path)
        .with_context(|| format!("moved a live lock aside and cannot put it back: it is {}", aside.display()))?;
    durable::remove_file(&aside)?;
    Ok(false)
}

/// `name` in `dir`, numbered when it is taken.
pub(super) fn free_name(dir: &Path, name: &str) -> io::Result<PathBuf> {
    let mut number = 1;
    let mut path = dir.join(name);
    while absent_is_none(fs::symlink_metadata(&path))?.is_some() {
        number += 1;
        path = dir.join(format!("{name}.{number}"));
    }
    Ok(path)
}

/// Staged files of transactions without a marker: a crash while cleaning up.
pub(super) fn sweep_staged(state: &StateDir) -> anyhow::Result<()> {
    let Some(entries) = absent_is_none(fs::read_dir(state.tx_root()))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let id: Option<TxId> = name.to_str().and_then(|n| n.parse().ok()).filter(|id: &TxId| *id.to_string() == *name);
        // The marker is written first and removed last; read after the staged files were seen.
        let used = |id: TxId| Ok::<_, io::Error>(Listing::read(state.path())?.markers.iter().any(|m| m.id == id));
        if let Some(id) = id
            && !used(id)?
        {
            durable::remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// A human has seen a transaction that waited: its refs stay as they are, also after a reboot, and its marker goes.
pub(super) fn close_acknowledged(
    repo: &Repository,
    log: &Log<'_>,
    state: &StateDir,
    entry: Entry,
) -> anyhow::Result<()> {
    let is_begin = |r: &Record| r.tx == Some(entry.id) && matches!(r.body, Body::Begin(_) | Body::Decided(_));
    let scan = log.scan_until(|records| records.iter().any(is_begin))?;
    let refs = match scan.records.iter().rfind(|r| is_begin(r)).map(|r| &r.body) {
        Some(Body::Begin(begin) | Body::Decided(begin)) => settled_values(repo, begin)?,
        _ => Vec::new(),
    };
    // What is kept may be nowhere else by now. Before the record: behind it recovery would throw it away.
    match scan.records.iter().rfind(|r| is_begin(r)).map(|r| &r.body) {
        Some(Body::Begin(begin)) if begin.origin == TxKind::Run => crate::run::put_away(repo, state, entry.id)?,
        _ => stage::put_away(state, entry.id)?,
    }
    // First what a reboot is to find: cut behind this, the transaction still waits, and nobody touches its refs.
    let as_of = scan.records.last().map_or(0, |r| r.lsn);
    log.append(None, &Body::Baseline { as_of, actions: Vec::new(), refs }, Flush::No)?;
    let body = Body::Recovered { outcome: Outcome::Acknowledged, actions: Vec::new(), refs: Vec::new() };
    log.append(Some(entry.id), &body, Flush::Yes)?;
    entry.remove()?;
    Ok(())
}

/// The refs of a transaction as they are now.
fn settled_values(repo: &Repository, begin: &Begin) -> anyhow::Result<Vec<RefSnapshot>> {
    if begin.reftable {
        return Ok(Vec::new());
    }
    let refs = RefStore::new(repo);
    let settle = |change: &crate::wal::RefChange| {
        let now = refs.read(&change.name)?;
        Ok(RefSnapshot { name: change.name.clone(), value: now.value, file: now.loose })
    };
    begin.refs.iter().map(settle).collect::<io::Result<_>>().map_err(Into::into)
}
