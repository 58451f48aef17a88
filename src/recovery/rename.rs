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
//! configuration). The reflog's inode tells how far git came and what NEW is; the command line is only asked for
//! branches without a reflog.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;

use super::evidence::{Ending, Unfinished};
use super::execute;
use super::report::Finding;
use super::{Mode, Session, quarantine_name};
use crate::durable;
use crate::git::command::{self, RefWrite};
use crate::git::locks::{Judge, LockFile};
use crate::git::reflog::{self, LogLine};
use crate::git::refs::{FileId, absent_is_none, read_small};
use crate::git::{RefName, RefStore, Repository, Value};
use crate::hook::observe::RENAMED_LOG;
use crate::marker::{Listing, Marker, Phase, State};
use crate::named as fs;
use crate::owner::{Liveness, Owner};
use crate::state_dir::TxId;
use crate::wal::{Begin, Body, Outcome, Record, RefChange, Rename, Sync};

/// The transactions of one rename.
pub(super) struct Group<'u> {
    /// The deletion of the old name.
    pub source: &'u Unfinished,
    /// The deletion of the new name, when it existed (`-M`).
    target: Option<&'u Unfinished>,
}

/// All renames among the unfinished transactions.
pub(super) struct Groups<'u>(Vec<Group<'u>>);

impl<'u> Groups<'u> {
    pub(super) fn of(&self, id: TxId) -> Option<&Group<'u>> {
        self.0.iter().find(|g| g.source.id() == id || g.target.is_some_and(|t| t.id() == id))
    }
}

/// What a record behind that of a rename says about it.
#[derive(Debug, PartialEq, Eq)]
enum Later {
    /// It was completed.
    Completed,
    /// Its new name was not there.
    NotThere,
    /// Nothing.
    Silent,
}

/// What has happened since a rename began.
#[derive(Default)]
struct Since {
    /// The new name was there.
    completed: bool,
    /// There was another rename: git has one place for all reflogs on their way, and replaces what lies there.
    replaced: bool,
}

/// Does the record show the new name that git makes without a word in the log? Whoever changes or packs it sees it. Where it is
/// not known, another rename moves on the reflog that has arrived there, and has grown by the note of its arrival.
fn told_by(record: &Record, rename: &Rename, owner: &Owner) -> Later {
    let is_new = |name: &RefName| rename.to.as_ref() == Some(name);
    let there = |value: &Value| if *value == Value::Absent { Later::NotThere } else { Later::Completed };
    match &record.body {
        Body::Begin(other) if other.owner != *owner => {
            let moved_on = other.rename.as_ref().and_then(|r| r.log).zip(rename.log);
            if rename.to.is_none() && moved_on.is_some_and(|(on, log)| on.ino == log.ino && on.size > log.size) {
                return Later::Completed;
            }
            let seen = other.refs.iter().find(|c| is_new(&c.name)).and_then(|c| c.before.as_ref());
            seen.map_or(Later::Silent, there)
        }
        Body::Moved { refs } => refs.iter().find(|s| is_new(&s.name)).map_or(Later::Silent, |s| there(&s.value)),
        _ => Later::Silent,
    }
}

/// Is it part of a rename that is not settled?
pub(super) fn is_open(tx: &Unfinished) -> bool {
    let renames = tx.begin.as_ref().is_some_and(|b| b.rename.is_some());
    renames && matches!(tx.ending, Ending::None | Ending::Committed)
}

/// Puts the deletions of one rename together: same process, same reflog on its way.
pub(super) fn group(unfinished: &[Unfinished]) -> Groups<'_> {
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
        u.begin.as_ref().map(|b| (b.owner.clone(), b.rename.as_ref().and_then(|r| r.log).map(|l| l.ino)))
    };
    key(a) == key(b)
}

/// Where the reflog is that was on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LogPlace {
    /// The branch had none.
    None,
    /// On its way.
    OnItsWay,
    /// On its way again: it has arrived and was written to since, and somebody has begun to rename the new name.
    OnItsWayAgain,
    /// It is the reflog of this ref.
    Of(RefName),
    /// It is the reflog of a ref that this rename has nothing to do with: two met, and it was the other's from the start.
    OfAnother,
    /// Nowhere to be found: rewritten by a gc, or another rename has put its own in its place.
    Lost,
}

/// What a cut rename needs.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// OLD is there: put its reflog back.
    Before,
    /// NEW is not there: OLD comes back.
    Back,
    /// NEW is there: finish.
    Forward(RefName),
    /// Nothing can be concluded, or nothing is left to do.
    Nothing,
}

struct Situation<'b> {
    old: &'b RefChange,
    value: Value,
    log: LogPlace,
    way: Way,
}

impl Situation<'_> {
    /// Neither name is there, and nothing proves that it was cut.
    fn gone(&self) -> String {
        let (name, value) = (&self.old.name, &self.value);
        format!(
            "{name} was renamed, and its new name is gone, too: if that was not you, `git update-ref {name} {value}` brings it back"
        )
    }
}

impl Session<'_> {
    pub(super) fn settle_rename(&mut self, group: &Group<'_>, judge: &mut Judge<'_>) -> anyhow::Result<()> {
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
        if matches!(situation.way, Way::Before | Way::Back) {
            let since = self.since(group.source.id(), begin)?;
            // Lost with the new name: deleted by somebody unseen, unless another rename is to blame.
            let vanished = situation.way == Way::Back && situation.log == LogPlace::Lost && !since.replaced;
            if vanished && !since.completed {
                self.report.notes.push(situation.gone());
            }
            if since.completed || vanished {
                situation.way = Way::Nothing;
            }
        }
        let (actions, outcome, state) = match &situation.way {
            Way::Before | Way::Back => (self.go_back(group, begin, &situation)?, Outcome::RolledBack, State::Failed),
            Way::Forward(new) => (self.go_forward(&situation, new)?, Outcome::Committed, State::Committed),
            Way::Nothing => (Vec::new(), Outcome::Committed, State::Committed),
        };
        let finding = if state == State::Failed { Finding::RolledBack } else { Finding::Finished };
        let undecided = group.source.ending == Ending::None;
        let quiet = actions.is_empty() && !undecided;
        if !self.options.dry_run {
            if !quiet {
                let refs = self.settled_values(begin)?;
                let body = Body::Recovered { outcome, actions: actions.clone(), refs };
                self.log.append(Some(group.source.id()), &body, Sync::Yes)?;
            }
            if let Some(target) = group.target {
                self.close_target(target, outcome, state)?;
            }
            self.close(group.source.entry.clone(), state)?;
        }
        self.find(group.source, finding, actions, quiet);
        Ok(())
    }

    /// What the log tells about it since. Asked after the look: a deletion that it has seen is in the log by then.
    fn since(&self, id: TxId, begin: &Begin) -> anyhow::Result<Since> {
        let Some(rename) = &begin.rename else { return Ok(Since::default()) };
        let begins = |record: &Record| record.tx == Some(id) && matches!(record.body, Body::Begin(_));
        let scan = self.log.scan_until(|records| records.iter().any(begins))?;
        let later = || scan.records.iter().skip_while(|record| !begins(record)).skip(1);
        let first = later().map(|record| told_by(record, rename, &begin.owner)).find(|told| *told != Later::Silent);
        let renames = |record: &Record| match &record.body {
            Body::Begin(other) => other.rename.is_some() && other.owner != begin.owner,
            _ => false,
        };
        let replaced = later().any(renames) || FileId::at(&self.repo.common_dir.join(RENAMED_LOG))?.is_some();
        Ok(Since { completed: first == Some(Later::Completed), replaced })
    }

    fn close_target(&self, target: &Unfinished, outcome: Outcome, state: State) -> anyhow::Result<()> {
        let begin = target.begin.as_ref().context("a rename without its record")?;
        let refs = self.settled_values(begin)?;
        self.log.append(Some(target.id()), &Body::Recovered { outcome, actions: Vec::new(), refs }, Sync::Yes)?;
        self.close(target.entry.clone(), state)
    }

    fn look<'b>(&self, begin: &'b Begin, group: &Group<'_>) -> anyhow::Result<Option<Situation<'b>>> {
        let refs = RefStore::new(self.repo);
        let Some(old) = renamed(begin) else { return Ok(None) };
        let Some(value) = old.before.clone() else { return Ok(None) };
        let target = group.target.and_then(|t| renamed(t.begin.as_ref()?));
        let mut log = self.find_log(begin, target)?;
        let told = target.map(|t| &t.name).or(begin.rename.as_ref().and_then(|r| r.to.as_ref()));
        let elsewhere = match &log {
            LogPlace::Of(name) => (*name != old.name && told != Some(name)).then(|| refs.log(name)),
            LogPlace::OnItsWayAgain => Some(self.repo.common_dir.join(RENAMED_LOG)),
            _ => None,
        };
        if let (Some(path), Some(told)) = (elsewhere, told)
            && !notes_arrival(&path, begin, &old.name, told)?
        {
            log = LogPlace::OfAnother;
        }
        let new = match (&log, target) {
            (LogPlace::Of(name), None) => (*name != old.name).then(|| name.clone()),
            _ => told.cloned(),
        };
        let found_old = refs.read(&old.name)?;
        // The very file that was to be deleted; one that was made since belongs to somebody who wanted that name.
        let never_deleted = found_old.loose == old.file && group.source.ending == Ending::None;
        // Or the one that an earlier recovery brought back, and died before it had trimmed the reflogs.
        let brought_back = || reflog::ends_with_ours(&refs.log(&old.name));
        let is_back = found_old.value == value && (never_deleted || brought_back()?);
        let now_old = found_old.value;
        let now_new = new.as_ref().map(|n| refs.read(n)).transpose()?.map(|s| s.value);
        let is_there = now_new.as_ref().is_some_and(|v| *v != Value::Absent);
        let arrived = match &log {
            LogPlace::Of(name) => new.as_ref() == Some(name) && is_there,
            // Without its reflog nothing tells who made the new name: that it exists is enough not to bring the old back.
            LogPlace::None | LogPlace::Lost | LogPlace::OfAnother => is_there,
            // git makes the new name after that. A reflog that lay there already is not this one's.
            LogPlace::OnItsWay => target.is_none() && now_new.as_ref() == Some(&value),
            LogPlace::OnItsWayAgain => false,
        };
        let way = if is_back {
            Way::Before
        } else if now_old != Value::Absent {
            Way::Nothing
        } else if arrived {
            new.map_or(Way::Nothing, Way::Forward)
        } else if log == LogPlace::OnItsWayAgain || (log == LogPlace::Lost && new.is_none()) {
            // Renamed in full, and the new name taken up since by a rename that was cut before it was logged. Or there is
            // neither the reflog nor a name to go by: nothing proves a cut of this one.
            Way::Nothing
        } else {
            Way::Back
        };
        Ok(Some(Situation { old, value, log, way }))
    }

    fn find_log(&self, begin: &Begin, target: Option<&RefChange>) -> anyhow::Result<LogPlace> {
        let Some(log) = begin.rename.as_ref().and_then(|r| r.log) else { return Ok(LogPlace::None) };
        let is_it =
            |path: &Path| absent_is_none(fs::symlink_metadata(path)).map(|m| m.is_some_and(|m| m.ino() == log.ino));
        let on_its_way = self.repo.common_dir.join(RENAMED_LOG);
        if is_it(&on_its_way)? {
            // git writes to it only under the new name.
            let has_grown = FileId::at(&on_its_way)?.is_some_and(|now| now.size > log.size);
            return Ok(if has_grown { LogPlace::OnItsWayAgain } else { LogPlace::OnItsWay });
        }
        if let Some(name) = target.map(|t| &t.name)
            && is_it(&RefStore::new(self.repo).log(name))?
        {
            return Ok(LogPlace::Of(name.clone()));
        }
        let mut todo = vec![self.repo.common_dir.join("logs/refs")];
        while let Some(dir) = todo.pop() {
            let Some(entries) = absent_is_none(fs::read_dir(&dir))? else { continue };
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    todo.push(path);
                } else if is_it(&path)? {
                    return Ok(name_of_log(self.repo, &path).map_or(LogPlace::Lost, LogPlace::Of));
                }
            }
        }
        Ok(LogPlace::Lost)
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
        if situation.way == Way::Back {
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

/// The ref whose deletion is half of a rename.
fn renamed(begin: &Begin) -> Option<&RefChange> {
    begin.refs.iter().find(|c| c.after == Value::Absent && !c.name.is_head())
}

/// Has the reflog, wherever it is by now, come from `old` by way of `new`? git notes that where it had ended.
fn notes_arrival(log: &Path, begin: &Begin, old: &RefName, new: &RefName) -> std::io::Result<bool> {
    let size = begin.rename.as_ref().and_then(|r| r.log).map(|log| log.size);
    let renamed = format!("Branch: renamed {old} to {new}");
    reflog::goes_on_with(log, size, |line| line.message == renamed.as_bytes())
}

fn name_of_log(repo: &Repository, log: &Path) -> Option<RefName> {
    use std::os::unix::ffi::OsStrExt;
    let name = log.strip_prefix(repo.common_dir.join("logs")).ok()?;
    RefName::parse(name.as_os_str().as_bytes()).ok()
}

/// git died between moving the reflog away and the first hook call (2.53 and older): nothing was logged. The
/// reflog belongs to the one ref that has its newest value and no reflog.
pub(super) fn mend_stray_log(
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
        if entry.read().map_or(true, |marker| marker.as_ref().is_some_and(may_be)) {
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
