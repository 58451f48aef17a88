//! `git branch -m` cut anywhere.
//!
//! ```text
//! 1 logs/OLD ─▶ logs/refs/.tmp-renamed-log
//! 2 delete OLD        (a ref transaction: logged)      OLD gone, NEW not there: cut here, both names are lost
//! 3 -M: delete NEW    (a ref transaction: logged)
//! 4 .tmp-renamed-log ─▶ logs/NEW
//! 5 create NEW        (no transaction)
//! 6 HEADs from OLD to NEW, configuration branch.OLD to branch.NEW
//! ```
//! Before step 5 recovery goes back (OLD, an overwritten NEW and their reflogs), after it forward (HEADs,
//! configuration). [`look`] tells how far git came.

mod look;

use std::path::Path;

use anyhow::Context;

use crate::fs::durable;
use crate::fs::{FileId, read_small};
use crate::git::command;
use crate::git::command::RefWrite;
use crate::git::reflog;
use crate::git::reflog::LogLine;
use crate::git::reflog::RENAMED_LOG;
use crate::git::{RefName, RefStore, Repository, Value};
use crate::locks::judge::{Judge, LockFile};
use crate::process::owner::{ExecContext, Liveness};
use crate::recovery::evidence::{LogOutcome, Unfinished};
use crate::recovery::execute;
use crate::recovery::report::Finding;
use crate::recovery::{Mode, Session, quarantine_name};
use crate::state::TxId;
use crate::state::marker::{Listing, Marker, Phase, State};
use crate::wal::{Begin, Body, Flush, Outcome};

use look::{LogPlace, RenameStage, Situation};

/// The transactions of one rename.
pub(crate) struct Group<'u> {
    /// The deletion of the old name.
    pub source: &'u Unfinished,
    /// The deletion of the new name, when it existed (`-M`).
    target: Option<&'u Unfinished>,
}

/// All renames among the unfinished transactions.
pub(crate) struct Groups<'u>(Vec<Group<'u>>);

impl<'u> Groups<'u> {
    pub(crate) fn of(&self, id: TxId) -> Option<&Group<'u>> {
        self.0.iter().find(|g| g.source.id() == id || g.target.is_some_and(|t| t.id() == id))
    }
}

/// Is it part of a rename that is not settled?
pub(crate) fn is_open(tx: &Unfinished) -> bool {
    let renames = tx.begin.as_ref().is_some_and(|b| b.rename.is_some());
    renames && matches!(tx.ending, LogOutcome::None | LogOutcome::Committed)
}

/// Puts the deletions of one rename together: same process, same reflog on its way.
pub(crate) fn group(unfinished: &[Unfinished]) -> Groups<'_> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for tx in unfinished.iter().filter(|u| is_open(u)) {
        match groups.iter_mut().find(|g| g.target.is_none() && same_rename(g.source, tx)) {
            Some(group) => group.target = Some(tx),
            None => groups.push(Group { source: tx, target: None }),
        }
    }
    Groups(groups)
}

fn same_rename(a: &Unfinished, b: &Unfinished) -> bool {
    let key = |u: &Unfinished| {
        let begin = u.begin.as_ref()?;
        let ExecContext { boot, pidns, .. } = &begin.owner.place;
        let log = begin.rename.as_ref().and_then(|r| r.log).map(|l| l.ino);
        Some((begin.owner.process, boot.clone(), *pidns, log))
    };
    key(a) == key(b)
}

impl Session<'_> {
    pub(crate) fn settle_rename(&mut self, group: &Group<'_>, judge: &mut Judge<'_>) -> anyhow::Result<()> {
        let on_its_way = self.repo.common_dir.join(RENAMED_LOG);
        if let Some(id) = FileId::at(&on_its_way)? {
            // A git that renames right now moves the same file: nothing can be concluded before it is done.
            let verdict = judge.could_anybody_hold(&LockFile { path: on_its_way, id });
            if verdict.owner != Liveness::Dead {
                if self.options.mode != Mode::Command {
                    return Ok(());
                }
                let why = execute::InTheWay(format!("a rename may be under way: {}", verdict.because));
                return self.or_leave(group.source, Err(why.into()));
            }
        }
        let done = self.finish_rename(group);
        self.or_leave(group.source, done)
    }

    fn finish_rename(&mut self, group: &Group<'_>) -> anyhow::Result<()> {
        let Some(begin) = &group.source.begin else { return Ok(()) };
        let Some(mut situation) = self.look(begin, group)? else { return Ok(()) };
        if matches!(situation.way, RenameStage::Before | RenameStage::Back) {
            let since = self.since(group.source.id(), begin)?;
            // Lost with the new name: deleted by somebody unseen, unless another rename is to blame.
            let vanished = situation.way == RenameStage::Back && situation.log == LogPlace::Lost && !since.replaced;
            if vanished && !since.completed {
                self.report.notes.push(situation.gone());
            }
            if since.completed || vanished {
                situation.way = RenameStage::Nothing;
            }
        }
        let (actions, outcome, state) = match &situation.way {
            RenameStage::Before | RenameStage::Back => {
                (self.go_back(group, begin, &situation)?, Outcome::RolledBack, State::Failed)
            }
            RenameStage::Forward(new) => (self.go_forward(&situation, new)?, Outcome::Committed, State::Committed),
            RenameStage::Nothing => (Vec::new(), Outcome::Committed, State::Committed),
        };
        let finding = if state == State::Failed { Finding::RolledBack } else { Finding::Finished };
        let undecided = group.source.ending == LogOutcome::None;
        let quiet = actions.is_empty() && !undecided;
        if !self.options.dry_run {
            if !quiet {
                let refs = self.settled_values(begin)?;
                let body = Body::Recovered { outcome, actions: actions.clone(), refs };
                self.log.append(Some(group.source.id()), &body, Flush::Yes)?;
            }
            if let Some(target) = group.target {
                self.close_target(target, outcome, state)?;
            }
            self.close(group.source.entry.clone(), state)?;
        }
        self.find(group.source, finding, actions, quiet);
        Ok(())
    }

    fn close_target(&self, target: &Unfinished, outcome: Outcome, state: State) -> anyhow::Result<()> {
        let begin = target.begin.as_ref().context("a rename without its record")?;
        let refs = self.settled_values(begin)?;
        self.log.append(Some(target.id()), &Body::Recovered { outcome, actions: Vec::new(), refs }, Flush::Yes)?;
        self.close(target.entry.clone(), state)
    }

    /// OLD (and an overwritten NEW) and their reflogs as they were.
    fn go_back(&self, group: &Group<'_>, begin: &Begin, situation: &Situation<'_>) -> anyhow::Result<Vec<String>> {
        let refs = RefStore::new(self.repo);
        let Situation { old, value, log, .. } = situation;
        let mut actions = Vec::new();
        let from = match log {
            LogPlace::OnItsWay => Some(self.repo.common_dir.join(RENAMED_LOG)),
            LogPlace::Of(name) if *name != old.name => Some(refs.log(name)),
            _ => None,
        };
        let mut writes = Vec::new();
        if situation.way == RenameStage::Back {
            writes.push(RefWrite { name: old.name.clone(), from: Value::Absent, to: value.clone() });
        }
        let target = group.target.and_then(|t| Some((t, t.begin.as_ref()?)));
        if let Some((_, begin)) = target {
            for change in begin.refs.iter().filter(|c| c.after == Value::Absent && !c.name.is_head()) {
                if let (Value::Absent, Some(before)) = (refs.read(&change.name)?.value, &change.before) {
                    writes.push(RefWrite { name: change.name.clone(), from: Value::Absent, to: before.clone() });
                }
            }
        }
        actions.extend(writes.iter().map(|w| format!("{} is back", w.name)));
        if self.options.dry_run {
            return Ok(actions);
        }
        // The reflog first: git would begin a new one.
        if let Some(from) = from {
            let ino = begin.rename.as_ref().and_then(|r| r.log).map_or(0, |log| log.ino);
            self.move_log(&from, ino, &refs.log(&old.name))?;
        }
        if let Some((target, begin)) = target {
            actions.extend(self.restore_reflogs(target.id(), begin)?);
        }
        self.write(group.source, &writes)?;
        // What there is now has begun with us.
        let gone = matches!(log, LogPlace::Lost | LogPlace::OfAnother);
        let size = begin.rename.as_ref().and_then(|r| r.log).filter(|_| !gone).map(|l| l.size);
        let known = |line: &LogLine<'_>| line.is_ours() || line.message.starts_with(b"Branch: renamed ");
        for watched in &begin.watched {
            self.trim_reflog(&watched.name, watched.log, known)?;
        }
        if let Some((_, begin)) = target {
            for change in &begin.refs {
                self.trim_reflog(&change.name, change.log, known)?;
            }
        }
        // Last: while our own entry is there, the next recovery knows that this one was not done.
        self.trim_reflog(&old.name, size, known)?;
        Ok(actions)
    }

    /// A git that renames right now may have put its own reflog in the place of the one that was looked at.
    fn move_log(&self, from: &Path, ino: u64, to: &Path) -> anyhow::Result<()> {
        if FileId::at(from)?.is_none_or(|now| now.ino != ino) {
            let what = format!("{} is another reflog by now", self.repo.relative(from));
            return Err(execute::InTheWay(what).into());
        }
        if let Some(parent) = to.parent() {
            durable::create_dirs(parent, 0o777)?;
        }
        match durable::rename_new(from, to) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let aside = execute::free_name(&self.state.quarantine(), &quarantine_name("renamed-reflog"))?;
                durable::rename_new(from, &aside)?;
                Ok(())
            }
            other => other.with_context(|| format!("cannot move the reflog {} back", from.display())),
        }
    }

    /// What `git branch -m` does after the new name exists.
    fn go_forward(&self, situation: &Situation<'_>, new: &RefName) -> anyhow::Result<Vec<String>> {
        let old = &situation.old.name;
        let program = &self.options.git_program;
        let message = format!("Branch: renamed {old} to {new}");
        let mut actions = Vec::new();
        for git_dir in self.repo.all_git_dirs() {
            let head = read_small(&git_dir.join("HEAD"))?.map(|(text, _)| Value::of_file(&text));
            if head != Some(Value::Symref(old.clone())) {
                continue;
            }
            actions.push(format!("HEAD follows {old} to {new}"));
            if !self.options.dry_run {
                self.trim_arrival(&git_dir, message.as_bytes())?;
                command::write_symref(program, &git_dir, b"HEAD", new, &message)
                    .map_err(|error| execute::InTheWay(format!("{error:#}")))?;
            }
        }
        actions.extend(self.rename_section(old, new)?);
        Ok(actions)
    }

    /// git (or a recovery before us) logs HEAD's arrival at the new name before HEAD moves: cut in between, the entry is
    /// there already and would be there twice.
    fn trim_arrival(&self, git_dir: &Path, message: &[u8]) -> anyhow::Result<()> {
        let worktree = Repository { git_dir: git_dir.to_owned(), ..self.repo.clone() };
        let head = RefStore::new(&worktree).canonical(b"HEAD")?;
        let log = RefStore::new(self.repo).log(&head);
        let arrives = |line: &LogLine<'_>| line.message == message && line.new.iter().any(|b| *b != b'0');
        let Some(size) = reflog::size_without_last(&log, usize::MAX, arrives)? else { return Ok(()) };
        self.trim_reflog(&head, Some(size), arrives)?;
        Ok(())
    }

    fn rename_section(&self, old: &RefName, new: &RefName) -> anyhow::Result<Option<String>> {
        let branch = |name: &RefName| {
            let short = name.as_bytes().strip_prefix(b"refs/heads/")?;
            Some(format!("branch.{}", std::str::from_utf8(short).ok()?))
        };
        let (Some(old), Some(new)) = (branch(old), branch(new)) else { return Ok(None) };
        let (program, git_dir) = (&self.options.git_program, &self.repo.common_dir);
        let listed = command::run(program, git_dir, &["config", "--local", "--list", "--name-only"], b"", None)?;
        let prefix = format!("{old}.");
        // Only the last dot ends the section's name: a branch name may hold dots itself.
        let has_section = String::from_utf8_lossy(&listed.stdout)
            .lines()
            .any(|key| key.strip_prefix(&prefix).is_some_and(|variable| !variable.contains('.')));
        if !has_section {
            return Ok(None);
        }
        if !self.options.dry_run {
            let ran =
                command::run(program, git_dir, &["config", "--local", "--rename-section", &old, &new], b"", None)?;
            if !ran.success {
                return Err(execute::InTheWay(format!("git config refused: {}", ran.stderr)).into());
            }
        }
        Ok(Some(format!("the configuration {old} is now {new}")))
    }
}

/// git died between moving the reflog away and the first hook call (2.53 and older): nothing was logged. The
/// reflog belongs to the one ref that has its newest value and no reflog.
pub(crate) fn mend_stray_log(
    session: &mut Session<'_>,
    judge: &mut Judge<'_>,
    unfinished: &[Unfinished],
) -> anyhow::Result<()> {
    let path = session.repo.common_dir.join(RENAMED_LOG);
    let Some(id) = FileId::at(&path)? else { return Ok(()) };
    let on_its_way = |tx: &Unfinished| tx.begin.as_ref().and_then(|b| b.rename.as_ref()?.log);
    let claims = |tx: &&Unfinished| on_its_way(tx).is_some_and(|log| (log.ino, log.size) == (id.ino, id.size));
    // What has been settled just now needs it no more.
    let is_unsettled = |tx: &&Unfinished| is_open(tx) && tx.entry.path.exists();
    let claimed = unfinished.iter().filter(is_unsettled).any(|tx| claims(&tx)) || may_be_under_way(session)?;
    if claimed {
        return Ok(());
    }
    let verdict = judge.could_anybody_hold(&LockFile { path: path.clone(), id });
    if verdict.owner != Liveness::Dead {
        if session.options.mode == Mode::Command {
            session.report.busy.push(format!("a branch may be being renamed: {}", verdict.because));
        }
        return Ok(());
    }
    let home = home_of_log(session, &path)?;
    let note = match &home {
        Some(name) => format!("put the reflog of {name} back, which a rename had moved away"),
        None => format!("moved a reflog that a rename left behind to quarantine: {RENAMED_LOG}"),
    };
    session.report.notes.push(note);
    if session.options.dry_run {
        return Ok(());
    }
    let log = home.map(|name| RefStore::new(session.repo).log(&name));
    let to =
        log.map_or_else(|| execute::free_name(&session.state.quarantine(), &quarantine_name("renamed-reflog")), Ok)?;
    match session.move_log(&path, id.ino, &to) {
        Err(error) if error.is::<execute::InTheWay>() => Ok(()),
        done => done,
    }
}

/// Is there a transaction that may be half of a rename, and of which somebody is still alive? Its git may be dead, and its hook
/// not: then it is settled when that is gone, too.
fn may_be_under_way(session: &Session<'_>) -> anyhow::Result<bool> {
    for entry in Listing::read(session.state.path())?.markers.iter().filter(|entry| entry.state != State::Failed) {
        let may_be = |marker: &Marker| marker.follow_up || marker.phase == Phase::Preparing;
        // One that cannot be read may be anything; one that is gone was settled just now.
        if entry.read_now().map_or(true, |found| found.is_some_and(|(_, marker)| may_be(&marker))) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn home_of_log(session: &Session<'_>, log: &Path) -> anyhow::Result<Option<RefName>> {
    let Some(newest) = reflog::newest_value(log)? else { return Ok(None) };
    let Some(oid) = crate::git::Oid::parse(newest.as_bytes()) else { return Ok(None) };
    let args = ["for-each-ref", "--format=%(refname)", "--points-at", &oid.hex()];
    let listed = command::run(&session.options.git_program, &session.repo.common_dir, &args, b"", None)?;
    let refs = RefStore::new(session.repo);
    let mut homes = Vec::new();
    for line in listed.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let Ok(name) = RefName::parse(line) else { continue };
        let logless = FileId::at(&refs.log(&name))?.is_none();
        let may_be_logged =
            name.as_bytes().starts_with(b"refs/heads/") || name.as_bytes().starts_with(b"refs/remotes/");
        if logless && may_be_logged && refs.read(&name)?.value == Value::Oid(oid) {
            homes.push(name);
        }
    }
    Ok(if homes.len() == 1 { homes.pop() } else { None })
}
