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

use crate::fs::{FileId, read_ref};
use crate::git::reflog::{self, RENAMED_LOG};
use crate::git::update_refs::RefWrite;
use crate::git::{ConfigQuery, Oid, Plumbing, RefName, RefStore, Value};
use crate::locks::{Holder, InTheWay, Judge, LockFile, Verdict};
use crate::process::owner::ExecContext;
use crate::recovery::action::{Action, Snapshot};
use crate::recovery::case::Case;
use crate::recovery::decide::{Decision, RenameStage};
use crate::recovery::evidence::Unfinished;
use crate::recovery::history::LogOutcome;
use crate::recovery::perform::perform;
use crate::recovery::progress::Verb;
use crate::recovery::reflogs::{Phantom, Told, Trim};
use crate::recovery::report::{Finding, Report};
use crate::recovery::site::{Mode, Site};
use crate::recovery::{ending, reflog_plan};
use crate::state::marker::{Listing, Marker, Phase, State};
use crate::state::{TxId, quarantine};
use crate::util::text::shell_quoted;
use crate::wal::{Begin, Outcome};

use look::{LogPlace, Situation};

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
pub(crate) fn group(cases: &[Case]) -> Groups<'_> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for tx in cases.iter().map(|case| &case.tx).filter(|tx| is_open(tx)) {
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

/// Ends the transactions of a rename.
pub(crate) fn end(
    site: &Site<'_>,
    group: &Group<'_>,
    judge: &mut Judge<'_>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let on_its_way = site.repo.common_dir.join(RENAMED_LOG);
    if let Some(id) = FileId::at(&on_its_way)? {
        // A git that renames right now moves the same file: nothing can be concluded before it is done.
        if let Verdict::Held(Holder { because, .. }) = judge.could_anybody_hold(LockFile { path: on_its_way, id }) {
            if site.options.mode == Mode::Command {
                let held = Err(InTheWay(format!("a rename may be under way: {because}")).into());
                ending::or_leave(site, group.source, held, report)?;
            }
            return Ok(());
        }
    }
    let done = finish(site, group, report);
    if let Err(error) = done {
        ending::or_leave(site, group.source, Err(error), report)?;
    }
    Ok(())
}

fn finish(site: &Site<'_>, group: &Group<'_>, report: &mut Report) -> anyhow::Result<()> {
    let Some(begin) = &group.source.begin else { return Ok(()) };
    let Some(situation) = look::look(site, begin, group)? else { return Ok(()) };
    if situation.stage == (RenameStage::Between { lost: true }) && !situation.completed {
        report.notes.push(situation.gone());
    }
    let (actions, ending) = match situation.decision() {
        Decision::RollBack => (go_back(site, group, begin, &situation)?, Ending::BACK),
        Decision::RollForward => (go_forward(site, &situation)?, Ending::FORWARD),
        _ => (Vec::new(), Ending::FORWARD),
    };
    let undecided = group.source.ending == LogOutcome::None;
    let progress = perform(site, actions)?;
    report.refs_moved.extend(progress.refs_moved);
    let quiet = progress.lines.is_empty() && !undecided;
    // A recovery that was killed may have brought the old name back before it could log that: the log still has it deleted.
    let is_news = !quiet || situation.stage == RenameStage::Unclear;
    perform(site, conclude(group, begin, &ending, &progress.lines, is_news))?;
    report.transactions.push(ending::finding_of(group.source, ending.finding, progress.lines, quiet));
    Ok(())
}

/// How the transactions of a rename end.
struct Ending {
    finding: Finding,
    outcome: Outcome,
    state: State,
}

impl Ending {
    const BACK: Ending = Ending { finding: Finding::RolledBack, outcome: Outcome::RolledBack, state: State::Failed };
    const FORWARD: Ending = Ending { finding: Finding::Finished, outcome: Outcome::Committed, state: State::Committed };
}

/// Records and markers of both deletions; the first one's last, since by it the rename is found again.
fn conclude(group: &Group<'_>, begin: &Begin, ending: &Ending, lines: &[String], is_news: bool) -> Vec<Action> {
    let Ending { outcome, state, .. } = *ending;
    let all = |begin: &Begin| Snapshot::All(Box::new(begin.clone()));
    let mut actions = Vec::new();
    if is_news {
        actions.extend(lines.iter().cloned().map(Action::Tell));
        actions.push(Action::Record { id: group.source.id(), outcome, refs: all(begin) });
    }
    if let Some((target, begin)) = group.target.and_then(|t| Some((t, t.begin.as_ref()?))) {
        actions.push(Action::Forget);
        actions.push(Action::Record { id: target.id(), outcome, refs: all(begin) });
        actions.push(Action::Close { entry: target.entry.clone(), state });
    }
    actions.push(Action::Close { entry: group.source.entry.clone(), state });
    actions
}

/// The old name (and an overwritten new one) and their reflogs as they were.
fn go_back(
    site: &Site<'_>,
    group: &Group<'_>,
    begin: &Begin,
    situation: &Situation<'_>,
) -> anyhow::Result<Vec<Action>> {
    let refs = RefStore::new(site.repo);
    let Situation { old, value, log, log_file, .. } = situation;
    let mut actions = Vec::new();
    let from = match log {
        LogPlace::OnItsWay => Some(site.repo.common_dir.join(RENAMED_LOG)),
        LogPlace::Of(name) if *name != old.name => Some(refs.log(name)),
        _ => None,
    };
    // The reflog first: git would begin a new one.
    if let Some(from) = from {
        let ino = log_file.map_or(0, |log| log.ino);
        actions.push(Action::MoveReflog { from, ino, to: refs.log(&old.name) });
    }
    let mut writes = Vec::new();
    if situation.stage != RenameStage::OldIsThere {
        writes.push(RefWrite { name: old.name.clone(), from: Value::Absent, to: value.clone() });
    }
    let target = group.target.and_then(|t| Some((t, t.begin.as_ref()?)));
    if let Some((target, begin)) = target {
        actions.extend(reflog_plan::restore(site, target.id(), begin));
        for change in begin.refs.iter().filter(|c| c.after == Value::Absent && !c.name.is_head()) {
            if let (Value::Absent, Some(before)) = (refs.read(&change.name)?.value, &change.before) {
                writes.push(RefWrite { name: change.name.clone(), from: Value::Absent, to: before.clone() });
            }
        }
    }
    if !writes.is_empty() {
        let (git_dir, id) = (group.source.git_dir(site.repo), group.source.id());
        let message = format!("{}rolled back {id}", reflog::OUR_MESSAGE);
        actions.push(Action::WriteRefs { git_dir, writes, message, verb: Verb::Renamed });
    }
    let trim = |name: &RefName, size| {
        Action::TrimReflog(Trim { name: name.clone(), size, phantom: Phantom::Renamed, told: Told::No })
    };
    actions.extend(begin.watched.iter().map(|watched| trim(&watched.name, watched.log)));
    actions.extend(target.iter().flat_map(|(_, begin)| &begin.refs).map(|change| trim(&change.name, change.log)));
    // What there is now has begun with us.
    let gone = matches!(log, LogPlace::Lost | LogPlace::OfAnother);
    let size = log_file.filter(|_| !gone).map(|l| l.size);
    // Last: while our own entry is there, the next recovery knows that this one was not done.
    actions.push(trim(&old.name, size));
    Ok(actions)
}

/// What `git branch -m` does after the new name exists. Another program that renames refs with git's code does nothing more.
fn go_forward(site: &Site<'_>, situation: &Situation<'_>) -> anyhow::Result<Vec<Action>> {
    let (old, Some(new)) = (&situation.old.name, &situation.new) else { return Ok(Vec::new()) };
    if situation.alone {
        return Ok(Vec::new());
    }
    let mut actions = Vec::new();
    for git_dir in site.repo.all_git_dirs() {
        let Some((text, file)) = read_ref(&git_dir.join("HEAD"))? else { continue };
        // A HEAD that was written since then means a branch that is to be made: `git checkout --orphan` calls no hook before that.
        let is_of_before = situation.old.lock.is_none_or(|lock| file.mtime <= lock.mtime);
        if is_of_before && Value::of_file(&text) == Value::Symref(old.clone()) {
            actions.push(Action::FollowRename { git_dir, old: old.clone(), new: new.clone() });
        }
    }
    let branch = |name: &RefName| {
        let short = name.as_bytes().strip_prefix(b"refs/heads/")?;
        Some(format!("branch.{}", std::str::from_utf8(short).ok()?))
    };
    if let (Some(old), Some(new)) = (branch(old), branch(new))
        && has_section(site, &old)?
    {
        actions.push(Action::RenameSection { old, new });
    }
    Ok(actions)
}

fn has_section(site: &Site<'_>, section: &str) -> anyhow::Result<bool> {
    let listed = site.git.run(Plumbing::Config(ConfigQuery::LocalNames))?;
    let prefix = format!("{section}.");
    // Only the last dot ends the section's name: a branch name may hold dots itself.
    Ok(String::from_utf8_lossy(&listed.stdout)
        .lines()
        .any(|key| key.strip_prefix(&prefix).is_some_and(|variable| !variable.contains('.'))))
}

/// git died between moving the reflog away and the first hook call (2.53 and older): nothing was logged. The
/// reflog belongs to the one ref that has its newest value and no reflog.
pub(crate) fn mend_stray_log(
    site: &Site<'_>,
    judge: &mut Judge<'_>,
    cases: &[Case],
    report: &mut Report,
) -> anyhow::Result<()> {
    let path = site.repo.common_dir.join(RENAMED_LOG);
    let Some(id) = FileId::at(&path)? else { return Ok(()) };
    let on_its_way = |tx: &Unfinished| tx.begin.as_ref().and_then(|b| b.rename.as_ref()?.log);
    let claims = |tx: &Unfinished| on_its_way(tx).is_some_and(|log| (log.ino, log.size) == (id.ino, id.size));
    // What has been settled just now needs it no more.
    let is_unsettled = |tx: &&Unfinished| is_open(tx) && tx.entry.path.exists();
    if cases.iter().map(|case| &case.tx).filter(is_unsettled).any(claims) || may_be_under_way(site)? {
        return Ok(());
    }
    if let Verdict::Held(holder) = judge.could_anybody_hold(LockFile { path: path.clone(), id }) {
        if site.options.mode == Mode::Command {
            report.busy.push(format!("a branch rename may be under way: {}", holder.because));
        }
        return Ok(());
    }
    let home = home_of_log(site, &path)?;
    let lost = if home.is_none() { lost_branch(site, &path)? } else { None };
    let aside = quarantine::free_path(site.state, "renamed-reflog")?;
    report.notes.push(match (&home, &lost) {
        (Some(name), _) => format!("put the reflog of {name} back, which a rename had moved away"),
        (None, Some(Lost { name: Some(name), .. })) => {
            format!("{name} is back: a rename died when neither name was there")
        }
        (None, Some(Lost { oid, likely, .. })) => format!(
            "a rename of a branch died when neither name was there: {}it was {oid}, `git branch {} {oid}` brings it back; its reflog \
             is in quarantine",
            likely.as_ref().map(|name| format!("HEAD means {name}, which is missing: if that is the one, ")).unwrap_or_default(),
            likely.as_ref().map_or_else(|| "NAME".to_owned(), short_name),
        ),
        (None, None) => format!("moved a reflog that a rename left behind to quarantine: {RENAMED_LOG}"),
    });
    let name = home.or_else(|| lost.as_ref().and_then(|lost| lost.name.clone()));
    let to = name.as_ref().map_or(aside, |name| RefStore::new(site.repo).log(name));
    let mut actions = vec![Action::MoveReflog { from: path, ino: id.ino, to }];
    if let Some(Lost { name: Some(name), oid, .. }) = lost {
        let message = format!("{}a rename died", reflog::OUR_MESSAGE);
        let writes = vec![RefWrite { name, from: Value::Absent, to: Value::Oid(oid) }];
        actions.push(Action::WriteRefs { git_dir: site.repo.common_dir.clone(), writes, message, verb: Verb::Back });
    }
    match perform(site, actions) {
        Err(error) if error.is::<InTheWay>() => Ok(()),
        done => {
            report.refs_moved.extend(done?.refs_moved);
            Ok(())
        }
    }
}

/// A branch of which a rename has left nothing but the reflog.
struct Lost {
    /// Its name, where that is proved.
    name: Option<RefName>,
    /// Its last value.
    oid: Oid,
    /// What else it may have been called.
    likely: Option<RefName>,
}

/// The name of a branch as an argument of `git branch`, quoted for the shell. git would take a name that begins with a hyphen for an
/// option: `--` goes before it.
fn short_name(branch: &RefName) -> String {
    let name = branch.to_string();
    let name = shell_quoted(name.trim_start_matches("refs/heads/"));
    if name.starts_with('-') { format!("-- {name}") } else { name.into_owned() }
}

/// The branch that had this reflog, where no ref has its value: the one that a HEAD means and that is not there, if HEAD's own reflog
/// proves it. A HEAD without a branch alone proves nothing: a new history may be beginning there.
fn lost_branch(site: &Site<'_>, log: &Path) -> anyhow::Result<Option<Lost>> {
    let newest = reflog::newest_value(log)?.and_then(|hex| Oid::parse(hex.as_bytes()));
    let Some(oid) = newest.filter(|oid| !oid.is_null()) else { return Ok(None) };
    let hex = oid.hex();
    let points_at = Plumbing::Refs { format: "%(refname)", below: None, points_at: Some(&hex) };
    if site.git.run(points_at)?.split(b'\n').next().is_some() {
        return Ok(None);
    }
    let refs = RefStore::new(site.repo);
    let mut likely = None;
    for git_dir in site.repo.all_git_dirs() {
        if let Some(Value::Symref(branch)) = read_ref(&git_dir.join("HEAD"))?.map(|(text, _)| Value::of_file(&text))
            && branch.as_bytes().starts_with(b"refs/heads/")
            && refs.read(&branch)?.value == Value::Absent
            && FileId::at(&refs.log(&branch))?.is_none()
        {
            let head_log = git_dir.join("logs/HEAD");
            if reflog::proves_branch(&head_log, &branch, &oid)? {
                return Ok(Some(Lost { name: Some(branch), oid, likely: None }));
            }
            // Without a logged move only what HEAD says now speaks for it.
            let is_there = reflog::newest_value(&head_log)?.is_some_and(|newest| newest == *oid.hex());
            if is_there && reflog::newest_branch(&head_log)?.is_none() {
                likely = Some(branch);
            }
        }
    }
    Ok(Some(Lost { name: None, oid, likely }))
}

/// Is there a transaction that may be half of a rename, and of which somebody is still alive? Its git may be dead, and its hook
/// not: then it is settled when that is gone, too.
fn may_be_under_way(site: &Site<'_>) -> anyhow::Result<bool> {
    for entry in Listing::read(site.state.path())?.markers.iter().filter(|entry| entry.state != State::Failed) {
        let may_be = |marker: &Marker| marker.follow_up || marker.phase == Phase::Preparing;
        // One that cannot be read may be anything; one that is gone was settled just now.
        if entry.read_now().map_or(true, |found| found.is_some_and(|(_, marker)| may_be(&marker))) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn home_of_log(site: &Site<'_>, log: &Path) -> anyhow::Result<Option<RefName>> {
    let Some(newest) = reflog::newest_value(log)? else { return Ok(None) };
    let Some(oid) = Oid::parse(newest.as_bytes()) else { return Ok(None) };
    let hex = oid.hex();
    let listed = site.git.run(Plumbing::Refs { format: "%(refname)", below: None, points_at: Some(&hex) })?;
    let refs = RefStore::new(site.repo);
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
