//! `jin-txn check`

use crate::cli::unasked::{self, Standing};
use crate::cli::{Session, exit, exit_code, progress, user};
use crate::git::repository::Found;
use crate::recovery::{self, Report};
use crate::state::StateDir;
use crate::state::marker::Listing;
use crate::trust::ownership;
use crate::util::text::shown;

/// Look for interrupted transactions and stale locks, and change nothing
///
/// Exit code: 0 clean; 3 something was interrupted and waits for recovery; 4 a human has to decide; 5 a live (or
/// unknowable) transaction or lock is in the way. In a repository that you have not protected (see `install`) only names are
/// looked at: 3 where something may be unfinished, else 0.
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
    if !matches!(unasked::standing(session.locate())?, Standing::Protected(_)) {
        return look_at_names(session, &session.locate()?);
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

/// Of a repository without a note. Who is told that something may be unfinished can run `jin-txn recover` in any case: it finds
/// out whether that is so, and who is still at work.
fn look_at_names(session: &Session, found: &Found) -> anyhow::Result<u8> {
    let place = shown(&found.repo.common_dir);
    // Only of a repository of somebody else git is asked.
    ownership::require_trusted(found, user(), &crate::cli::real_git()?)?;
    // Where not even the names can be read, nothing is known.
    Listing::read(StateDir::of(&found.repo).path())?;
    let advice = unasked::advice(found);
    let report = Report { notes: advice.iter().cloned().collect(), ..Report::default() };
    if session.json {
        session.print_json(&crate::cli::status::Described::new(&report, exit_code(&report)))?;
    } else {
        let unknown = || format!("{place} is not protected by you: only names were looked at");
        session.print(&advice.unwrap_or_else(unknown));
    }
    Ok(exit_code(&report))
}

/// The word for a prompt. Only when the cheap question finds something is the evidence gathered.
fn prompt(session: &Session) -> anyhow::Result<&'static str> {
    let Standing::Protected(found) = unasked::standing(session.locate())? else { return Ok("") };
    if crate::cli::is_off() {
        return Ok("jin:off");
    }
    if !recovery::needs_recovery(&found.repo)? || unasked::is_refused(&found)? {
        return Ok("");
    }
    Ok(match exit_code(&recovery::check(&found.repo, &session.recovery_options()?)?) {
        exit::DONE => "",
        exit::INTERRUPTED => "jin:interrupted",
        exit::NEEDS_HUMAN => "jin:needs-human",
        _ => "jin:busy",
    })
}
