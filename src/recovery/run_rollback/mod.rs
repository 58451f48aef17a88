//! A run that failed or died: everything goes back to where its snapshot has it.
//!
//! ```text
//! snapshot, log ──▶ what differs ──▶ whose is it? ──▶ objects ──▶ git directory, worktree, index ──▶ refs, HEAD ──▶ reflogs
//!                                        │                                         ──▶ sync ──▶ records ──▶ snapshot, marker away
//!                                        └─ changed after the run died: a human decides, nothing is touched
//! ```
//! Every step compares before it writes, and moves aside before it replaces: cut anywhere and done again it comes to the
//! same end. `index.lock` is ours meanwhile, so that no git works on what is half restored.

pub(crate) mod dead_run;
mod place;
mod refs;
pub(crate) mod restore;
mod worktree;

use std::path::Path;
use std::{fs, io};

use crate::fs::moving;
use crate::git::{Config, RefName, Repository};
use crate::locks::InTheWay;
use crate::recovery::action::{Action, Snapshot};
use crate::recovery::decide::{Decision, Evidence, Question, RunEvidence, decide};
use crate::recovery::history::{History, LogOutcome};
use crate::recovery::perform::perform;
use crate::recovery::report::{Finding, Report, TxFinding};
use crate::recovery::run_rollback::dead_run::DeadRun;
use crate::recovery::site::Site;
use crate::run::manifest::Manifest;
use crate::run::snapshot;
use crate::state::TxId;
use crate::state::marker::{Entry, State};
use crate::util::text::shown;
use crate::wal::{Begin, Body, Outcome, Record, Scan};

/// What was found of a run.
enum Found {
    /// It can be taken back.
    Restorable(Box<DeadRun>),
    /// Something else: with the reasons for a person, and its record.
    Other { evidence: RunEvidence, why: Vec<String>, begin: Option<Box<Begin>>, asked: bool },
    /// Its runner is the first to look, and could not read something.
    Unreadable(anyhow::Error),
}

/// Takes a run back whose processes are gone, or cleans up behind one that ended.
pub(crate) fn end(site: &Site<'_>, entry: Entry, report: &mut Report) -> anyhow::Result<()> {
    // Its runner may have said last how it ended.
    let Some(entry) = entry.now()? else { return Ok(()) };
    let is_begin = |r: &Record| r.tx == Some(entry.id) && matches!(r.body, Body::Begin(_));
    let scan = site.log.scan_until(|records| records.iter().any(is_begin))?;
    match look(site, &entry, scan)? {
        Found::Restorable(run) => roll_back(site, entry, run, report),
        Found::Unreadable(error) => Err(error),
        Found::Other { evidence, why, begin, asked } => {
            let run = Told { entry, begin: begin.as_deref(), asked };
            match decide(&Evidence::Run(evidence)) {
                Decision::AskHuman(_) => ask(site, run, why, report),
                Decision::RecordCommitted => {
                    let id = run.entry.id;
                    let line = "it was kept when the log could not be written".to_owned();
                    let actions = vec![
                        Action::Tell(line),
                        Action::Record { id, outcome: Outcome::Committed, refs: Snapshot::None },
                        Action::CloseRun { entry: run.entry.clone(), state: State::Committed },
                    ];
                    let lines = perform(site, actions)?.lines;
                    run.find(Finding::Committed, lines, report);
                    Ok(())
                }
                _ => {
                    let kept = evidence == RunEvidence::Ended(LogOutcome::Committed);
                    let state = if kept { State::Committed } else { State::Failed };
                    perform(site, vec![Action::CloseRun { entry: run.entry, state }]).map(|_| ())
                }
            }
        }
    }
}

/// Everything that can be known before anything is restored.
fn look(site: &Site<'_>, entry: &Entry, scan: Scan) -> anyhow::Result<Found> {
    let id = entry.id;
    let wanted = site.options.take_back == Some(id);
    let history = History::new(&scan.records);
    let Some((at, begin)) = history.begin(id) else {
        let log_is_damaged = !scan.damage.is_empty();
        let why = vec![
            "its record is lost in a damaged part of the log: nothing of it is taken back".to_owned(),
            format!("`git txn recover --acknowledge {id}` leaves everything as it is now"),
        ];
        let evidence = RunEvidence::NoRecord { log_is_damaged };
        return Ok(Found::Other { evidence, why, begin: None, asked: was_asked(&scan.records, id) });
    };
    let ending = history.ending(id, at);
    let begin = begin.clone();
    let asked = was_asked(&scan.records, id);
    let other = |evidence, why| Ok(Found::Other { evidence, why, begin: Some(Box::new(begin.clone())), asked });
    match ending {
        LogOutcome::None if entry.state == State::Committed => return other(RunEvidence::KeptUnlogged, Vec::new()),
        LogOutcome::Committed | LogOutcome::Closed => return other(RunEvidence::Ended(ending), Vec::new()),
        LogOutcome::NeedsHuman if !wanted => {
            let why = format!(
                "it needs manual resolution: `git txn recover --take-back {id}` restores what it found, \
                 `git txn recover --acknowledge {id}` leaves everything as it is now"
            );
            return other(RunEvidence::Ended(ending), vec![why]);
        }
        _ if !scan.damage.is_empty() && !wanted => {
            let why = vec![
                "the log is damaged: it may not have all that the run did to refs, so nothing was taken back"
                    .to_owned(),
                format!(
                    "`git txn recover --take-back {id}` restores what is known, `--acknowledge {id}` leaves all as it is"
                ),
            ];
            return other(RunEvidence::Obstructed(Question::LogDamaged), why);
        }
        _ => {}
    }
    let snapshot = Manifest::load(site.state, id, begin.snapshot.as_ref())
        .and_then(|manifest| snapshot::verify(&manifest, site.state, id).map(|()| manifest));
    let manifest = match snapshot {
        Ok(manifest) => manifest,
        // Its runner is the first who looks: what cannot be read now may be readable for the next one.
        Err(error) if site.options.own == Some(id) && may_pass(&error) => return Ok(Found::Unreadable(error)),
        Err(error) => {
            let why = vec![
                format!("{error:#}; nothing was taken back"),
                format!("`git txn recover --acknowledge {id}` leaves everything as it is now"),
            ];
            return other(RunEvidence::Obstructed(Question::SnapshotUnreadable), why);
        }
    };
    let Some(repo) = worktree_of(site, &begin) else {
        let why = "its worktree is gone: refs that it moved stay where they are".to_owned();
        return other(RunEvidence::Obstructed(Question::WorktreeGone), vec![why]);
    };
    if let Some(misfit) = manifest.guard.misfit(&repo, configuration(site, &repo).as_ref())? {
        let why = vec![
            format!("{misfit}, so nothing was taken back: what was kept does not fit"),
            format!(
                "`git txn recover --acknowledge {id}` leaves everything as it is now; change that back, and \
                 `git txn recover --take-back {id}` restores what it found"
            ),
        ];
        return other(RunEvidence::Obstructed(Question::OtherFormat), why);
    }
    if !manifest.is_in_place() {
        let where_it_was = manifest.worktree().unwrap_or_default();
        let why = vec![
            format!("its worktree is not at {} any more, so nothing was taken back", shown(&where_it_was)),
            format!("move it back there, then `git txn recover --take-back {id}`; or `--acknowledge {id}`"),
        ];
        return other(RunEvidence::Obstructed(Question::WorktreeMoved), why);
    }
    if let Some(worktree) = manifest.worktree().filter(|_| site.options.own != Some(id))
        && !leads_back(site, &repo, &worktree)?
    {
        let why = vec![
            format!("{} is not a worktree of this repository, so nothing was taken back", shown(&worktree)),
            format!(
                "if it is one by GIT_WORK_TREE, set core.worktree to it, then `git txn recover --take-back {id}`; \
                 or `--acknowledge {id}`"
            ),
        ];
        return other(RunEvidence::Obstructed(Question::WorktreeMoved), why);
    }
    Ok(Found::Restorable(Box::new(DeadRun { id, begin, records: scan.records, manifest, repo })))
}

/// Is the directory, which a snapshot names, a worktree of `repo`: by its `.git`, or by the configuration?
fn leads_back(site: &Site<'_>, repo: &Repository, worktree: &Path) -> anyhow::Result<bool> {
    let is_same = |one: &Path, other: &Path| match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    };
    let link = worktree.join(".git");
    if fs::symlink_metadata(&link).is_ok() {
        return Ok(Repository::open(&link).is_ok_and(|found| is_same(&found.git_dir, &repo.git_dir)));
    }
    let set = site.git.at(&repo.git_dir).config("core.worktree")?;
    Ok(set.is_some_and(|set| is_same(&repo.git_dir.join(set), worktree)))
}

/// The configuration of a worktree as it is now; `None` when git cannot read it.
fn configuration(site: &Site<'_>, repo: &Repository) -> Option<Config> {
    Config::read(&site.git.at(&repo.git_dir)).ok()
}

/// Has a person been asked before?
fn was_asked(records: &[Record], id: TxId) -> bool {
    let asks = |r: &Record| matches!(&r.body, Body::Recovered { outcome: Outcome::NeedsHuman, .. });
    records.iter().any(|r| r.tx == Some(id) && asks(r))
}

/// The repository, as seen from the worktree that the run was made in.
fn worktree_of(site: &Site<'_>, begin: &Begin) -> Option<Repository> {
    let inside = crate::util::text::unescape(&begin.worktree)?;
    let git_dir = if inside.is_empty() {
        site.repo.common_dir.clone()
    } else {
        let name = RefName::parse(&inside).ok().filter(|n| n.as_bytes().starts_with(b"worktrees/"))?;
        site.repo.common_dir.join(name.as_path())
    };
    git_dir.is_dir().then(|| Repository { git_dir, ..site.repo.clone() })
}

fn roll_back(site: &Site<'_>, entry: Entry, run: Box<DeadRun>, report: &mut Report) -> anyhow::Result<()> {
    let (id, begin, asked) = (run.id, run.begin.clone(), was_asked(&run.records, run.id));
    let told = Told { entry, begin: Some(&begin), asked };
    let progress = match perform(site, vec![Action::RestoreRun(run)]) {
        Err(error) if error.is::<InTheWay>() || moving::is_permanent(&error) => {
            told.find(Finding::Left, vec![format!("{error:#}")], report);
            return Ok(());
        }
        done => done?,
    };
    report.refs_moved.extend(progress.refs_moved);
    if progress.is_void {
        let why = vec![
            "files have changed since its last process died, so nothing was taken back".to_owned(),
            format!(
                "`git txn recover --take-back {id}` restores what it found (and keeps what is there now in quarantine)"
            ),
            format!("`git txn recover --acknowledge {id}` leaves everything as it is now"),
        ];
        return ask(site, told, why, report);
    }
    if !progress.unrestored.is_empty() {
        return ask(site, told, unrestored(id, progress.unrestored, progress.lines), report);
    }
    let finding = if progress.left_some { Finding::NeedsHuman } else { Finding::RolledBack };
    told.find(finding, progress.lines, report);
    perform(site, vec![Action::CloseRun { entry: told.entry, state: State::Failed }]).map(|_| ())
}

/// Everything is restored that could be, and the snapshot stays until a person says that the rest is done, or to be left.
fn unrestored(id: TxId, mut failed: Vec<String>, done: Vec<String>) -> Vec<String> {
    const TOLD: usize = 20;
    let count = failed.len();
    failed.truncate(TOLD);
    if count > TOLD {
        failed.push(format!("and {} more", count - TOLD));
    }
    let mut lines = vec![
        format!("not everything could be restored: {}", failed.join("; ")),
        format!("`git txn recover --take-back {id}` tries that again, when you have made it possible"),
        format!("`git txn recover --acknowledge {id}` leaves it as it is now"),
    ];
    lines.extend(done);
    lines
}

/// How a run is told.
struct Told<'b> {
    entry: Entry,
    begin: Option<&'b Begin>,
    /// A person was asked before.
    asked: bool,
}

impl Told<'_> {
    fn find(&self, finding: Finding, actions: Vec<String>, report: &mut Report) {
        let id = self.entry.id;
        let (pid, operation) = match self.begin {
            Some(begin) => (Some(begin.owner.process.pid), begin.operation.clone()),
            // Its marker says as much as is known.
            None => match self.entry.read_now() {
                Ok(Some((_, marker))) => (Some(marker.owner.process.pid), marker.operation),
                _ => (None, "unknown operation".to_owned()),
            },
        };
        report.transactions.push(TxFinding { id, operation, pid, finding, actions, quiet: false });
    }
}

/// Records, once, that a person has to decide.
fn ask(site: &Site<'_>, run: Told<'_>, why: Vec<String>, report: &mut Report) -> anyhow::Result<()> {
    let id = run.entry.id;
    let mut actions: Vec<Action> = why.into_iter().map(Action::Tell).collect();
    if !run.asked {
        actions.push(Action::Record { id, outcome: Outcome::NeedsHuman, refs: Snapshot::None });
    }
    actions.push(Action::Mark { entry: run.entry.clone(), state: State::Failed });
    let lines = perform(site, actions)?.lines;
    run.find(Finding::NeedsHuman, lines, report);
    Ok(())
}

/// Could a file not be read, although it is there and may be what it should be?
fn may_pass(error: &anyhow::Error) -> bool {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kind.is_some_and(|kind| !matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::Other))
}
