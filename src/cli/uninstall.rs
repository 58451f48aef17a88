//! `jin-txn uninstall`

use std::path::{Path, PathBuf};

use crate::cli::{Session, exit, exit_code, notes, real_git};
use crate::fs::durable;
use crate::git::Repository;
use crate::recovery;
use crate::setup::unprotect::{is_installed, unprotect};
use crate::setup::{shim, submodules, template};
use crate::state::{Busy, StateDir};
use crate::util::text::shown;

/// Take jin-txn out of a repository again
///
/// Hooks and configuration are as they were before `install`. The log and the quarantine stay in .git/.jin unless
/// you say --purge.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Remove .git/.jin as well: the log, and everything in quarantine
    #[arg(long)]
    purge: bool,

    /// With --purge: also where something is unfinished or cannot be recovered. What recovery needs for it is lost then
    #[arg(long, requires = "purge")]
    force: bool,

    /// Take it out of the submodules as well, and of theirs
    #[arg(long)]
    recurse_submodules: bool,

    /// Take back `install --template`; repositories that were made meanwhile stay protected
    #[arg(long, conflicts_with_all = ["purge", "recurse_submodules"])]
    template: bool,

    /// Instead of a repository: take the `git` that `install --shim` has put into DIR away
    #[arg(long, value_name = "DIR", conflicts_with_all = ["purge", "recurse_submodules", "template"])]
    shim: Option<PathBuf>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    if let Some(dir) = &args.shim {
        let dir = shim::uninstall(&session.directory.join(dir))?;
        session.say(&format!("jin-txn: removed the shim from {}", shown(&dir)));
        return Ok(exit::DONE);
    }
    let git = real_git()?;
    if args.template {
        let left = template::uninstall(&git, &template::UserFiles::new(|name| std::env::var_os(name)))?;
        tell_of_left(session, &left);
        session.say("jin-txn: new repositories are not protected any more; existing ones stay as they are");
        return Ok(exit::DONE);
    }
    let repo = session.repository()?;
    let mut repos = vec![repo];
    if args.recurse_submodules {
        let protected = |repo: &Repository| StateDir::of(repo).exists();
        repos.extend(submodules::of(&git, &repos[0])?.into_iter().filter(protected));
    }
    repos.iter().try_for_each(|repo| take_out(session, args, &git, repo))?;
    Ok(exit::DONE)
}

const GO_ON: &str =
    "hint: `jin-txn uninstall --purge --force` removes .git/.jin all the same, and with it what recovery needs";

fn take_out(session: &Session, args: &Args, git: &Path, repo: &Repository) -> anyhow::Result<()> {
    let state = StateDir::of(repo);
    if state.exists() {
        recover_first(session, args, repo)?;
    } else {
        // Who has removed it wants to be rid of the rest as well.
        anyhow::ensure!(is_installed(git, repo)?, "{} is not protected", shown(&repo.common_dir));
    }
    tell_of_left(session, &unprotect(git, repo)?);
    notes().iter().for_each(|notes| notes.forget(&state));
    let mut line = format!("jin-txn: {} is no longer protected", shown(&repo.common_dir));
    if args.purge {
        durable::remove_tree(state.path())?;
    } else if state.exists() {
        line += &format!("; the log stays in {}", shown(state.path()));
    }
    session.say(&line);
    Ok(())
}

/// Nothing is to stay unfinished. What cannot be recovered keeps nobody from taking us out: it stays in `.jin`.
fn recover_first(session: &Session, args: &Args, repo: &Repository) -> anyhow::Result<()> {
    let report = match recovery::recover_with_log(repo, &session.recovery_options()?) {
        Err(error) if (!args.purge || args.force) && !error.is::<Busy>() => {
            session.say(&format!("jin-txn: warning: nothing was recovered: {error:#}"));
            return Ok(());
        }
        Err(error) if error.is::<Busy>() => return Err(error),
        Err(error) => anyhow::bail!("nothing was removed, because recovery failed: {error:#}\n{GO_ON}"),
        Ok(report) => report,
    };
    for line in report.headlines() {
        session.say(&line);
    }
    if args.purge && (report.needs_human() || report.is_busy()) {
        for line in crate::cli::status::describe(&report) {
            session.say(&line);
        }
        let is_done = exit_code(&report) == exit::DONE;
        anyhow::ensure!(is_done || args.force, "nothing was removed, because something is unfinished\n{GO_ON}");
    }
    Ok(())
}

/// Hooks that had stepped aside, and whose place is taken.
pub(super) fn tell_of_left(session: &Session, left: &[PathBuf]) {
    for left in left {
        let left = shown(left);
        session.say(&format!("jin-txn: another hook is in its place now, so {left} stays where it is"));
    }
}
