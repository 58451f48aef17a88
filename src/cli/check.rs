//! `jin-txn check`

use crate::cli::{Session, exit, exit_code, progress};
use crate::recovery;
use crate::state::StateDir;

/// Look for interrupted transactions and stale locks, and change nothing
///
/// Exit code: 0 clean; 3 something was interrupted and waits for recovery; 4 a human has to decide; 5 a live (or
/// unknowable) transaction or lock is in the way.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For a prompt: one word, and nothing at all when there is nothing to say
    #[arg(long, hide = true)]
    pub(super) prompt: bool,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    if args.prompt {
        session.print_as_is(prompt(session)?);
        return Ok(exit::DONE);
    }
    let repo = session.repository()?;
    let options = session.recovery_options()?;
    let report = progress::while_recovering(!session.quiet, &repo, || recovery::check(&repo, &options))?;
    if session.json {
        session.print_json(&crate::cli::status::Described::new(&report, exit_code(&report)))?;
    } else {
        // To know that, git is asked for its configuration: not where nobody is told.
        let problems = if session.quiet {
            Vec::new()
        } else {
            crate::setup::hooks::why_unprotected(&crate::cli::real_git()?, &repo)?
        };
        for problem in problems {
            session.say(&format!("jin-txn: not protected: {problem}"));
        }
        for line in crate::cli::status::describe(&report) {
            session.print(&line);
        }
    }
    Ok(exit_code(&report))
}

/// The word for a prompt. Only when the cheap question finds something is the evidence gathered.
fn prompt(session: &Session) -> anyhow::Result<&'static str> {
    let Ok(repo) = session.locate() else { return Ok("") };
    if !StateDir::of(&repo).exists() || repo.is_foreign()? {
        return Ok("");
    }
    if std::env::var_os("JIN_TXN").is_some_and(|v| v == "off") {
        return Ok("jin:off");
    }
    if !recovery::needs_recovery(&repo)? {
        return Ok("");
    }
    Ok(match exit_code(&recovery::check(&repo, &session.recovery_options()?)?) {
        exit::DONE => "",
        exit::INTERRUPTED => "jin:interrupted",
        exit::NEEDS_HUMAN => "jin:needs-human",
        _ => "jin:busy",
    })
}
