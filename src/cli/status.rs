//! `jin-txn status`

use std::io::IsTerminal;
use std::path::Path;

use serde::Serialize;

use crate::cli::watch::{self, Standing};
use crate::cli::{Session, everywhere, exit, exit_code, notes, progress, real_git};
use crate::git::Repository;
use crate::recovery::{self, Finding, Report};
use crate::setup::{fsync, hooks};
use crate::state::{Durability, StateDir, told};
use crate::util::text::shown;

/// Say whether the repository is protected, and what is unfinished
///
/// The exit code is that of `check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Every repository that you have protected (see `list`); the exit code is the gravest, 1 where one could not be looked at
    #[arg(long)]
    all: bool,
}

#[derive(Serialize)]
struct Status {
    git_dir: String,
    protected: bool,
    problems: Vec<String>,
    durability: Durability,
    weaknesses: Vec<String>,
    hindrances: Vec<String>,
    wal_bytes: u64,
    #[serde(flatten)]
    found: Described,
}

/// A report as JSON has it.
#[derive(Serialize)]
pub(crate) struct Described {
    version: u32,
    state: &'static str,
    #[serde(flatten)]
    report: Report,
}

impl Described {
    /// Describes `report`, of a command that ends with `code`.
    pub(crate) fn new(report: &Report, code: u8) -> Described {
        let state = state_name(code);
        let mut report = report.clone();
        report.transactions.retain(|t| !t.quiet);
        Described { version: 1, state, report }
    }
}

#[derive(Serialize)]
struct Statuses {
    version: u32,
    repositories: Vec<Status>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    if args.all {
        return run_everywhere(session);
    }
    let repo = session.repository()?;
    let (status, report) = look(session, &repo)?;
    if session.json {
        session.print_json(&status)?;
    } else {
        show(session, &repo, &status, &report)?;
    }
    Ok(code_of(&report, &status.problems))
}

/// The exit code of `check` and `status`.
pub(super) fn code_of(report: &Report, problems: &[String]) -> u8 {
    match exit_code(report) {
        exit::DONE if !problems.is_empty() => exit::UNPROTECTED,
        code => code,
    }
}

fn run_everywhere(session: &Session) -> anyhow::Result<u8> {
    let mut repositories = Vec::new();
    let code = everywhere::each(session, |_, repo| {
        let (status, report) = look(session, &repo)?;
        if !session.json {
            show(session, &repo, &status, &report)?;
        }
        let code = code_of(&report, &status.problems);
        repositories.push(status);
        Ok(code)
    })?;
    if session.json {
        session.print_json(&Statuses { version: 1, repositories })?;
    } else if repositories.is_empty() && code == exit::DONE {
        session.say(everywhere::NONE);
    }
    Ok(code)
}

fn look(session: &Session, repo: &Repository) -> anyhow::Result<(Status, Report)> {
    let problems = hooks::why_unprotected(&real_git()?, repo)?;
    let options = session.recovery_options()?;
    let report = progress::while_recovering(!session.quiet, repo, || recovery::check(repo, &options))?;
    let weaknesses = if problems.is_empty() {
        fsync::weaknesses(&real_git()?, repo)?.iter().map(ToString::to_string).collect()
    } else {
        Vec::new()
    };
    let hindrances = if problems.is_empty() { hooks::hindrances(&real_git()?, repo)? } else { Vec::new() };
    let status = Status {
        git_dir: repo.common_dir.display().to_string(),
        protected: problems.is_empty(),
        found: Described::new(&report, code_of(&report, &problems)),
        problems,
        durability: StateDir::of(repo).durability(),
        weaknesses,
        hindrances,
        wal_bytes: wal_bytes(&StateDir::of(repo).wal()),
    };
    Ok((status, report))
}

fn show(session: &Session, repo: &Repository, status: &Status, report: &Report) -> anyhow::Result<()> {
    if status.protected {
        session.print_unless_quiet(&format!("protected: {}", status.git_dir));
    } else {
        session.print_unless_quiet(&format!("not protected: {}", status.git_dir));
        for problem in &status.problems {
            session.print_unless_quiet(&format!("  {problem}"));
        }
    }
    if status.protected {
        session.print_unless_quiet(match status.durability {
            Durability::Full => "durability: full (power cuts)",
            Durability::Process => {
                "durability: process (killed processes; `jin-txn install --durability full` for power cuts)"
            }
        });
    }
    if status.protected && notes().is_some_and(|notes| !notes.cover(&StateDir::of(repo))) {
        session.print_unless_quiet(
            "  prompt, shell function and shim do not recover by themselves here: `jin-txn install` allows it",
        );
    }
    if status.protected && std::io::stderr().is_terminal() {
        told::take(StateDir::of(repo).path()).iter().for_each(|line| session.say(line));
    }
    let watch = watch::standing(StateDir::of(repo).settings().watch).filter(|_| status.protected);
    for line in watch.iter().flat_map(Standing::describe) {
        session.print_unless_quiet(&line);
    }
    for weakness in &status.weaknesses {
        session.print_unless_quiet(&format!("  weakened: {weakness}"));
    }
    for hindrance in &status.hindrances {
        session.print_unless_quiet(&format!("  hooks: {hindrance}"));
    }
    if session.verbose {
        session.print_unless_quiet(&format!("git: {}", real_git()?.display()));
        session.print_unless_quiet(&format!("log: {} bytes in {}", status.wal_bytes, shown(&StateDir::of(repo).wal())));
    }
    for line in describe(report) {
        session.print_unless_quiet(&line);
    }
    // Whoever has just been told that a lock went, or a transaction, wants to know what is in the worktree.
    if !report.needs_human() && (!report.is_clean() || recovery::was_recovered(repo)?) {
        recovery::explain_worktree(repo, &real_git()?)?.iter().for_each(|line| session.print_unless_quiet(line));
    }
    Ok(())
}

/// The size of a log, in bytes.
pub(super) fn wal_bytes(wal: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(wal) else { return 0 };
    entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}

/// The word for an exit code of `check`.
pub(crate) fn state_name(code: u8) -> &'static str {
    match code {
        crate::cli::exit::DONE => "clean",
        crate::cli::exit::INTERRUPTED => "interrupted",
        crate::cli::exit::NEEDS_HUMAN => "needs-human",
        crate::cli::exit::UNPROTECTED => "unprotected",
        _ => "busy",
    }
}

/// A report in words: what is there, and what to do next.
pub(crate) fn describe(report: &Report) -> Vec<String> {
    if report.is_clean() {
        return vec!["clean: nothing is unfinished".to_owned()];
    }
    let mut lines = Vec::new();
    for tx in report.transactions.iter().filter(|t| !t.quiet) {
        let what = match tx.finding {
            Finding::Committed | Finding::Finished => "interrupted; `git txn recover` completes it",
            Finding::RolledBack => "interrupted; `git txn recover` rolls it back",
            Finding::NeedsHuman => "needs manual resolution",
            Finding::Removed | Finding::Left => "interrupted, cannot be recovered right now",
        };
        let pid = tx.pid.map_or_else(String::new, |p| format!(", pid {p}"));
        let goes_on = tx.finding != Finding::NeedsHuman && !tx.actions.is_empty();
        let then = if goes_on { ". Afterwards:" } else { "" };
        lines.push(format!("{}: {what} (`{}`{pid}){then}", tx.id, tx.operation));
        lines.extend(tx.actions.iter().map(|action| format!("  {action}")));
    }
    for lock in report.told_locks() {
        let what = match lock.finding {
            Finding::Finished => "complete; `git txn recover` renames it into place",
            _ if lock.held => "held",
            _ => "stale",
        };
        lines.push(format!("{}: {what} ({})", lock.path, lock.because));
    }
    lines.extend(report.busy.iter().cloned());
    lines.extend(report.notes.iter().cloned());
    lines.extend(report.losses.iter().cloned());
    lines.extend(report.damage.iter().map(|d| format!("the log is damaged: {d}")));
    lines.extend(next_step(report));
    lines
}

/// What recovery had to leave, in words.
pub(crate) fn obstacles(report: &Report) -> Vec<String> {
    let held = report.told_locks().filter(|l| l.held).map(|l| format!("jin-txn: left {} alone: {}", l.path, l.because));
    held.chain(report.busy.iter().map(|b| format!("jin-txn: {b}"))).collect()
}

/// What to do next: a command that ends what is left, or brings it further.
pub(super) fn next_step(report: &Report) -> Option<String> {
    let with = |finding: Finding| report.transactions.iter().find(|t| t.finding == finding && !t.quiet).map(|t| t.id);
    match exit_code(report) {
        crate::cli::exit::INTERRUPTED => Some("hint: run `git txn recover`".to_owned()),
        crate::cli::exit::NEEDS_HUMAN => Some(match with(Finding::NeedsHuman) {
            Some(id) => format!(
                "hint: `git txn show {id}` tells what happened; `git txn recover --acknowledge {id}` closes it as it is"
            ),
            None if report.damage.is_empty() => "hint: run `git txn recover`".to_owned(),
            None => "hint: `git txn recover` sets a damaged log aside and begins a new one".to_owned(),
        }),
        crate::cli::exit::BUSY => Some(match with(Finding::Left) {
            Some(id) => {
                format!("hint: `git txn recover` tries again; `git txn recover --acknowledge {id}` closes it as it is")
            }
            None => "hint: wait until it is done, then look again".to_owned(),
        }),
        _ => None,
    }
}
