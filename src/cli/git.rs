//! `jin-txn git`, and the shim that is called under the name `git`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;

use super::{PATIENCE, Session, exit, real_git};
use crate::git::Repository;
use crate::recovery::{self, Options};
use crate::state_dir::{Busy, StateDir, Wait};

/// Check, recover if need be, then run git with these arguments
///
/// git gets the arguments, the terminal and the environment unchanged, and its exit code is passed through.
#[derive(clap::Args)]
pub struct Args {
    /// git's arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let mut git_args = Vec::new();
    if let Some(dir) = &session.git_dir
        && std::env::var_os("GIT_DIR").is_none()
    {
        git_args.extend([OsString::from("--git-dir"), dir.into()]);
    }
    git_args.extend(args.args.iter().cloned());
    check_and_exec(&session.directory, &git_args)
}

/// Called as `git`: the arguments are git's, ours are none.
#[must_use]
pub fn shim(args: &[OsString]) -> ExitCode {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    match check_and_exec(&here, args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(super::print_error(&error)),
    }
}

fn check_and_exec(here: &Path, args: &[OsString]) -> anyhow::Result<u8> {
    let git = real_git()?;
    if std::env::var_os("JIN_TXN").is_none_or(|v| v != "off") {
        // Whatever goes wrong in front of git must not take git away from the user.
        if let Err(error) = clear_the_way(here, args, &git) {
            tell(&format!("jin-txn: warning: {error:#}"));
        }
    }
    let mut command = Command::new(&git);
    command.args(args).current_dir(here);
    if super::alias_git_dir_is_redundant(here) {
        command.env_remove("GIT_DIR");
    }
    let error = command.env_remove("GIT_PREFIX").exec();
    Err(error).with_context(|| format!("cannot run {}", git.display()))
}

fn clear_the_way(here: &Path, args: &[OsString], git: &Path) -> anyhow::Result<u8> {
    let Some(repo) = repository_of(here, args) else { return Ok(exit::DONE) };
    if !StateDir::of(&repo).exists() || repo.is_foreign()? || !recovery::needs_recovery(&repo)? {
        return Ok(exit::DONE);
    }
    let options = Options {
        wait: Wait::UpTo(PATIENCE),
        objects_elsewhere: super::objects_elsewhere(),
        ..Options::new(git.to_owned())
    };
    match recovery::recover(&repo, &options) {
        Ok(report) => {
            for line in report.headlines() {
                tell(&line);
            }
            Ok(exit::DONE)
        }
        // Somebody else is recovering: git itself finds out what that leaves.
        Err(error) if error.is::<Busy>() => Ok(exit::BUSY),
        Err(error) => Err(error),
    }
}

/// git runs even when nobody can be told anything.
fn tell(line: &str) {
    use std::io::Write;
    if writeln!(std::io::stderr(), "{}", super::printable(line)).is_err() {
        // A closed or full stderr is the user's choice.
    }
}

/// The repository that git will find with these arguments; `None` when there is none.
fn repository_of(here: &Path, args: &[OsString]) -> Option<Repository> {
    let mut at = here.to_owned();
    let mut git_dir = std::env::var_os("GIT_DIR").map(PathBuf::from);
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        match text.as_ref() {
            "-C" => at.push(words.next()?),
            "--git-dir" => git_dir = Some(PathBuf::from(words.next()?)),
            "-c" | "--work-tree" | "--namespace" | "--config-env" | "--super-prefix" | "--attr-source" => {
                words.next();
            }
            _ if text.starts_with("--git-dir=") => git_dir = text.strip_prefix("--git-dir=").map(PathBuf::from),
            _ if text.starts_with('-') => {}
            _ => break,
        }
    }
    Repository::of_environment(git_dir.as_deref(), &at).ok()
}
