//! `jin-txn recover`

use serde::Serialize;

use crate::cli::status::Described;
use crate::cli::{Session, everywhere, exit, exit_code, progress};
use crate::git::Repository;
use crate::recovery::{self, Options, Report};
use crate::state::TxId;
use crate::util::text::shown;

/// Recover interrupted transactions and remove stale locks
///
/// What was applied wholly is recorded as committed, what was applied partly is rolled back, and locks of dead
/// processes go to quarantine in .git/.jin/quarantine. Somebody else's values are never touched. A damaged log is set
/// aside there, and a new one begun, when nothing is unfinished. Running it again changes nothing.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Treat owners that cannot be seen (other container or host) as dead: only if you know that they are
    #[arg(long)]
    force: bool,

    /// Close a transaction that waits for you, as it is
    #[arg(long, value_name = "ID", conflicts_with = "dry_run")]
    acknowledge: Option<TxId>,

    /// Restore what this run found, although files have changed since it died; those go to quarantine
    #[arg(long, value_name = "ID", conflicts_with = "acknowledge")]
    take_back: Option<TxId>,

    /// Every repository that you have protected (see `list`); the exit code is the gravest, 1 where one could not be recovered
    #[arg(long, conflicts_with_all = ["acknowledge", "take_back"])]
    all: bool,
}

/// What was found in one of all repositories.
#[derive(Serialize)]
struct Recovered {
    path: String,
    #[serde(flatten)]
    found: Described,
}

#[derive(Serialize)]
struct RecoveredAll {
    version: u32,
    repositories: Vec<Recovered>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    if args.all {
        return recover_everywhere(session, args);
    }
    let repo = session.repository()?;
    let options =
        Options { dry_run: args.dry_run, force: args.force, take_back: args.take_back, ..session.recovery_options()? };
    if let Some(id) = args.acknowledge {
        recovery::acknowledge(&repo, id, &options)?;
        session.say(&format!("jin-txn: closed {id}"));
        return Ok(exit::DONE);
    }
    let (report, code) = recover(session, &repo, &options)?;
    if session.json {
        session.print_json(&described(&options, &report, code))?;
    } else {
        tell(session, &repo, &options, &report, code)?;
        if !options.dry_run && report.is_clean() {
            session.say("jin-txn: nothing to recover");
        }
    }
    Ok(code)
}

/// One after the other; a heading where there is something to say.
fn recover_everywhere(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let options = Options { dry_run: args.dry_run, force: args.force, ..session.recovery_options()? };
    let (mut repositories, mut is_calm) = (Vec::new(), true);
    let gravest = everywhere::each(session, |path, repo| {
        let (report, code) = recover(session, &repo, &options)?;
        if !session.json && !report.is_clean() {
            session.say(&format!("jin-txn: in {}:", shown(path)));
            tell(session, &repo, &options, &report, code)?;
            is_calm = false;
        }
        repositories.push(Recovered { path: path.display().to_string(), found: described(&options, &report, code) });
        Ok(code)
    })?;
    if session.json {
        session.print_json(&RecoveredAll { version: 1, repositories })?;
    } else if repositories.is_empty() && gravest == exit::DONE {
        session.say(everywhere::NONE);
    } else if is_calm {
        session.say(&format!("jin-txn: nothing to recover (repositories: {})", repositories.len()));
    }
    Ok(gravest)
}

/// Recovers, or looks; the exit code for it.
fn recover(session: &Session, repo: &Repository, options: &Options) -> anyhow::Result<(Report, u8)> {
    let report = progress::while_recovering(!session.quiet, repo, || recovery::recover_with_log(repo, options))?;
    let code = match (options.dry_run, exit_code(&report)) {
        // What waited has been recovered.
        (false, exit::INTERRUPTED) if report.is_busy() => exit::BUSY,
        (_, exit::INTERRUPTED) => exit::DONE,
        (_, other) => other,
    };
    Ok((report, code))
}

fn described(options: &Options, report: &Report, code: u8) -> Described {
    Described::new(report, if options.dry_run { exit_code(report) } else { code })
}

fn tell(session: &Session, repo: &Repository, options: &Options, report: &Report, code: u8) -> anyhow::Result<()> {
    if options.dry_run {
        for line in crate::cli::status::describe(report) {
            session.print_unless_quiet(&line);
        }
        return Ok(());
    }
    for line in report.headlines().into_iter().chain(super::status::obstacles(report)) {
        session.say(&line);
    }
    if session.verbose {
        for action in report.transactions.iter().filter(|t| !t.quiet).flat_map(|t| &t.actions) {
            session.say(&format!("  {action}"));
        }
        for lock in report.locks.iter().filter(|l| !l.held) {
            session.say(&format!("  {}: {}", lock.path, lock.because));
        }
    }
    // Where a person has to decide something else comes first.
    if !report.is_clean() && !report.needs_human() {
        for line in recovery::explain_worktree(repo, &options.git_program)? {
            session.say(&line_of(&line));
        }
    }
    // What the report only tells has come to its end.
    if matches!(code, exit::NEEDS_HUMAN | exit::BUSY)
        && let Some(hint) = super::status::next_step(report)
        && report.is_waiting()
    {
        session.say(&hint);
    }
    Ok(())
}

/// A hint stands by itself.
fn line_of(line: &str) -> String {
    if line.starts_with("hint: ") { line.to_owned() } else { format!("jin-txn: {line}") }
}
