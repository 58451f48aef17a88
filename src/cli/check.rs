//! `jin-txn check`

use crate::cli::status::{self, Described};
use crate::cli::unasked::{self, Standing};
use crate::cli::{Session, exit, exit_code, progress, user};
use crate::git::repository::Found;
use crate::recovery::{self, Report};
use crate::setup::names::NAMES;
use crate::state::StateDir;
use crate::state::marker::Listing;
use crate::trust::ownership;
use crate::util::text::shown;

/// Look for interrupted transactions and stale locks, and change nothing
///
/// Exit code: 0 clean; 3 something was interrupted and waits for recovery; 4 a human has to decide; 5 a live (or
/// unknowable) transaction or lock is in the way; 6 nothing is unfinished, but git does not call the hooks: they are missing,
/// replaced or not executable, this program is gone, or core.hooksPath leads elsewhere. In a repository that you have not
/// protected (see `install`) only names are looked at: 3 where something may be unfinished, 6 where nothing of jin-txn is
/// there, else 0.
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
    let Standing::Protected(found) = unasked::standing(session.locate())? else {
        return look_at_names(session, &session.locate()?);
    };
    let repo = session.opened(found)?;
    let options = session.recovery_options()?;
    let report = progress::while_recovering(!session.quiet, &repo, || recovery::check(&repo, &options))?;
    let problems = unasked::problems(&repo)?;
    let code = status::code_of(&report, &problems);
    if session.json {
        session.print_json(&Described::new(&report, code))?;
    } else {
        for problem in problems {
            session.say(&format!("jin-txn: not protected: {problem}"));
        }
        for line in status::describe(&report) {
            session.print_unless_quiet(&line);
        }
    }
    Ok(code)
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
    let is_ours = StateDir::of(&found.repo).exists() || has_hook(found);
    let code = match exit_code(&report) {
        exit::DONE if !is_ours => exit::UNPROTECTED,
        code => code,
    };
    if session.json {
        session.print_json(&Described::new(&report, code))?;
    } else {
        let unknown = || match code {
            exit::UNPROTECTED => format!("{place} is not protected: `jin-txn install` protects it"),
            _ => format!("{place} is not protected by you: only names were looked at"),
        };
        session.print_unless_quiet(&advice.unwrap_or_else(unknown));
    }
    Ok(code)
}

/// Has a template put a link to a program of our name there? No file is read.
fn has_hook(found: &Found) -> bool {
    let hook = found.repo.common_dir.join("hooks").join(NAMES[0]);
    std::fs::read_link(hook).is_ok_and(|program| program.file_name().is_some_and(|name| name == "jin-txn"))
}

/// The word for a prompt. Only when the cheap question finds something is the evidence gathered.
fn prompt(session: &Session) -> anyhow::Result<&'static str> {
    let Standing::Protected(found) = unasked::standing(session.locate())? else { return Ok("") };
    if crate::cli::is_off() {
        return Ok("jin:off");
    }
    let (repo, waits) = (&found.repo, recovery::needs_recovery(&found.repo)?);
    if (!waits && unasked::is_certainly_called(repo)) || unasked::is_refused(&found)? {
        return Ok("");
    }
    let code = if waits { exit_code(&recovery::check(repo, &session.recovery_options()?)?) } else { exit::DONE };
    Ok(match code {
        exit::DONE if unasked::problems(repo)?.is_empty() => "",
        exit::DONE => "jin:unprotected",
        exit::INTERRUPTED => "jin:interrupted",
        exit::NEEDS_HUMAN => "jin:needs-human",
        _ => "jin:busy",
    })
}
