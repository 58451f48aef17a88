//! `jin-txn doctor`: does everything that protection rests on work, here and now?
//!
//! A check looks at one thing and says how to mend it, and starts nothing that the repository names; only `--run-hook` does. `--fix` mends what can be mended without losing anything: by
//! `install`, by recovery, and by giving the user write access to the state directory of their own. Then all is looked at
//! again.

mod checks;
mod locks;
mod surroundings;
mod trial;

use std::process::Command;

use anyhow::Context;
use serde::Serialize;

use crate::cli::{Session, exit, exit_code, real_git};
use crate::git::Repository;
use crate::recovery::{self, Report};
use crate::state::StateDir;
pub(super) use checks::size;

/// Check hooks, log, locks, durability and surroundings; say how to mend what is wrong
///
/// Exit code: 0 nothing is wrong; 3, 4, 5 as `check`; else 1 when a check failed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Mend what can be mended safely, and say what was done
    #[arg(long)]
    fix: bool,
    /// Run the installed hook for real, and with it whatever the repository's configuration has git run for a ref update: on
    /// a scratch ref below refs/jin-txn/doctor that is deleted again; `log` and `undo` leave that out
    #[arg(long)]
    run_hook: bool,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// Nothing is wrong, but something is not promised.
    Note,
    Failed,
    /// Something else has to be mended first.
    Skipped,
}

/// What `--fix` does about a failed check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fix {
    Permissions,
    Recover,
    Install,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    detail: Vec<String>,
    remedy: Option<String>,
    #[serde(skip)]
    fix: Option<Fix>,
}

impl Check {
    fn new(name: &'static str, status: Status, detail: impl Into<String>) -> Check {
        Check { name, status, detail: vec![detail.into()], remedy: None, fix: None }
    }

    fn ok(name: &'static str, detail: impl Into<String>) -> Check {
        Check::new(name, Status::Ok, detail)
    }

    fn note(name: &'static str, detail: impl Into<String>) -> Check {
        Check::new(name, Status::Note, detail)
    }

    fn skipped(name: &'static str, detail: impl Into<String>) -> Check {
        Check::new(name, Status::Skipped, detail)
    }

    fn failed(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { remedy: Some(remedy.into()), ..Check::new(name, Status::Failed, detail) }
    }

    fn and_say(mut self, lines: impl IntoIterator<Item = String>) -> Check {
        self.detail.extend(lines);
        self
    }

    fn mended_by(mut self, fix: Fix) -> Check {
        self.fix = Some(fix);
        self
    }
}

/// Everything that was looked at.
struct Findings {
    checks: Vec<Check>,
    locks: Vec<locks::Evidence>,
    report: Report,
}

#[derive(Serialize)]
struct Diagnosis<'d> {
    version: u32,
    git_dir: String,
    state: &'static str,
    checks: &'d [Check],
    locks: &'d [locks::Evidence],
    fixed: &'d [String],
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let repo = session.repository()?;
    let mut findings = examine(session, &repo, args.run_hook)?;
    let mut fixed = Vec::new();
    if args.fix {
        let mut fixes: Vec<Fix> = findings.checks.iter().filter_map(|c| c.fix).collect();
        fixes.sort_unstable();
        fixes.dedup();
        for fix in &fixes {
            fixed.extend(mend(session, &repo, *fix).unwrap_or_else(|error| vec![format!("not mended: {error:#}")]));
        }
        if !fixes.is_empty() {
            findings = examine(session, &repo, args.run_hook)?;
        }
    }
    let code = match exit_code(&findings.report) {
        exit::DONE if findings.checks.iter().any(|c| c.status == Status::Failed) => exit::FAILED,
        code => code,
    };
    if session.json {
        let state = crate::cli::status::state_name(exit_code(&findings.report));
        session.print_json(&Diagnosis {
            version: 1,
            git_dir: repo.common_dir.display().to_string(),
            state,
            checks: &findings.checks,
            locks: &findings.locks,
            fixed: &fixed,
        })?;
    } else {
        for line in &fixed {
            // What could not be mended is told even to those who want to hear little.
            match line.strip_prefix("not mended: ") {
                Some(why) => session.print(&format!("failed  {:<12} {why}", "fix")),
                None => session.say(&format!("jin-txn: {line}")),
            }
        }
        tell(session, &findings.checks);
    }
    Ok(code)
}

fn tell(session: &Session, checks: &[Check]) {
    for check in checks {
        let word = match check.status {
            Status::Ok => "ok",
            Status::Note => "note",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
        };
        if session.quiet && matches!(check.status, Status::Ok | Status::Note) {
            continue;
        }
        let (first, more) = check.detail.split_first().map_or(("", &[][..]), |(first, more)| (first, more));
        session.print(&format!("{word:<8}{:<12} {first}", check.name));
        for line in more {
            session.print(&format!("{:<21}{line}", ""));
        }
        if let Some(remedy) = &check.remedy {
            session.print(&format!("{:<21}mend: {remedy}", ""));
        }
    }
}

/// A check that cannot be made has failed; the others are made all the same.
fn made(name: &'static str, check: anyhow::Result<Check>) -> Check {
    check.unwrap_or_else(|error| Check::failed(name, format!("{error:#}"), "mend what failed above first"))
}

fn examine(session: &Session, repo: &Repository, run_hook: bool) -> anyhow::Result<Findings> {
    let git = real_git()?;
    let state = StateDir::of(repo);
    let mut checks = vec![checks::state(repo, &state)];
    checks.push(made("config", checks::config(&git, repo, &state)));
    let readable = checks.iter().all(|c| c.status != Status::Failed || c.name != "config" || c.fix.is_some());
    checks.push(made("binary", checks::binary()));
    checks.push(surroundings::gits(&git));
    if readable {
        checks.push(made("hooks", checks::hooks(repo)));
        checks.push(made("alias", checks::git_txn(&git, repo)));
        checks.push(made("durability", checks::durability(&git, repo)));
        checks.extend(surroundings::watch(&state));
    }
    let (report, locks) = match unfinished(session, repo, &state) {
        Ok((report, locks)) => {
            checks.push(checks::unfinished(&report));
            checks.push(checks::locks(&locks, &report));
            checks.push(checks::log(&state, &report));
            (report, locks)
        }
        Err(error) => {
            checks.push(made("unfinished", Err(error)));
            (Report::default(), Vec::new())
        }
    };
    checks.push(checks::quarantine(&state));
    let prepared = |name: &str| checks.iter().any(|c| c.name == name && c.status == Status::Ok);
    if !run_hook {
        checks.push(Check::note(
            "hook run",
            "not asked for: `jin-txn doctor --run-hook` runs it, and what else git runs here",
        ));
    } else if report.is_clean() && ["state", "hooks", "unfinished"].into_iter().all(prepared) {
        match trial::run(session, &git, repo, &state) {
            Ok(trials) => checks.extend(trials),
            Err(error) => checks.push(made("hook run", Err(error))),
        }
    } else {
        checks.push(Check::skipped("hook run", "something above has to be mended first"));
    }
    checks.push(surroundings::file_system(&state, repo));
    checks.push(made("clock", surroundings::clock(&state)));
    checks.push(made("space", surroundings::space(repo)));
    Ok(Findings { checks, locks, report })
}

fn unfinished(
    session: &Session,
    repo: &Repository,
    state: &StateDir,
) -> anyhow::Result<(Report, Vec<locks::Evidence>)> {
    if state.exists() {
        state.verify()?;
    }
    let report = recovery::check(repo, &session.recovery_options()?)?;
    let locks = locks::evidence(repo, state, &report)?;
    Ok((report, locks))
}

/// Mends one thing; says what was done.
fn mend(session: &Session, repo: &Repository, fix: Fix) -> anyhow::Result<Vec<String>> {
    match fix {
        Fix::Permissions => {
            let mended = checks::make_writable(&StateDir::of(repo))?;
            Ok(vec![format!("gave you write access to {mended} in .jin")])
        }
        Fix::Recover => {
            let report = recovery::recover_with_log(repo, &session.recovery_options()?)?;
            let lines = report.headlines().into_iter().chain(super::status::obstacles(&report));
            Ok(lines.map(|line| line.trim_start_matches("jin-txn: ").to_owned()).collect())
        }
        Fix::Install => {
            let program = std::env::current_exe().context("cannot find the path of this program")?;
            let mut install = Command::new(program);
            install.arg("--git-dir").arg(&repo.git_dir).args(["--quiet", "install"]).current_dir(&session.directory);
            let output = install.output().context("cannot start `jin-txn install`")?;
            let said = String::from_utf8_lossy(&output.stderr);
            let why = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
            anyhow::ensure!(output.status.success(), "`jin-txn install` refuses: {why}");
            Ok(vec!["ran `jin-txn install`".to_owned()])
        }
    }
}
