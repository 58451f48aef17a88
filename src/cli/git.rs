//! `jin-txn git`, the function that `shell-init` defines, and the shim that is called under the name `git`.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::cli::unasked::{self, Standing};
use crate::cli::{PATIENCE, Session, exit, path_variable};
use crate::git::Repository;
use crate::git::repository::Found;
use crate::recovery::{self, Options};
use crate::setup::path;
use crate::setup::shim::{CGI, SERVER_PROGRAMS};
use crate::state::{Busy, StateDir, Wait, told};
use crate::util::text::{one_line, shown};

/// Check, recover if need be, then run git with these arguments
///
/// git gets the arguments, the terminal and the environment unchanged, and its exit code is passed through. Whatever comes
/// after the word `git` is git's, `-C`, `-v` and `--help` included.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// git's arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(super) args: Vec<OsString>,
}

/// Ends our own options after the word `git`, so that none of git's is taken for one of them.
pub(super) fn keep_together(mut args: Vec<OsString>) -> Vec<OsString> {
    let mut at = 0;
    while let Some(word) = args.get(at).map(|a| a.to_string_lossy().into_owned()) {
        match word.as_str() {
            "-C" | "--git-dir" | "--color" => at += 2,
            "git" => {
                if args.get(at + 1).is_some_and(|next| next != "--") {
                    args.insert(at + 1, "--".into());
                }
                break;
            }
            _ if word.starts_with('-') => at += 1,
            _ => break,
        }
    }
    args
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

/// Is `name` one that the shim is called by?
pub(super) fn is_shim_name(name: &OsStr) -> bool {
    name == "git" || SERVER_PROGRAMS.iter().any(|program| name == *program)
}

/// Called under the name `called_as`: the arguments are git's, ours are none.
pub(super) fn shim(called_as: &OsStr, args: &[OsString]) -> ExitCode {
    let command = called_as.to_str().and_then(|name| name.strip_prefix("git-"));
    let git_args: Vec<OsString> = command.map(OsString::from).into_iter().chain(args.iter().cloned()).collect();
    ended(check_and_exec(&here(), &git_args))
}

/// Called by the function `git` of the user's shell.
pub(super) fn from_shell(args: &[OsString]) -> ExitCode {
    // Prompts and completions call git as well, and throw its messages away: nothing is recovered behind the user's back.
    if stderr_is_thrown_away() { ended(exec(&here(), args)) } else { ended(check_and_exec(&here(), args)) }
}

fn here() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}

fn ended(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(super::print_error(&error, crate::cli::color::When::Auto)),
    }
}

/// Is it `/dev/null`? (Device 1:3 on every Linux.)
fn stderr_is_thrown_away() -> bool {
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| stat.st_rdev == rustix::fs::makedev(1, 3))
}

fn check_and_exec(here: &Path, args: &[OsString]) -> anyhow::Result<u8> {
    if !crate::cli::is_off() {
        // Whatever goes wrong in front of git must not take git away from the user.
        if let Err(error) = recover_before_locking(here, args) {
            tell(&format!("jin-txn: warning: {error:#}"));
        }
    }
    exec(here, args)
}

fn exec(here: &Path, args: &[OsString]) -> anyhow::Result<u8> {
    let next = path::next_git(&path_variable(), &std::env::var(path::CHAIN).unwrap_or_default())?;
    let mut command = Command::new(&next.program);
    command.args(args).current_dir(here).env(path::CHAIN, next.chain);
    if crate::cli::alias_git_dir_is_redundant(here) {
        command.env_remove("GIT_DIR");
    }
    let error = command.env_remove("GIT_PREFIX").exec();
    Err(error).with_context(|| format!("cannot run {}", shown(&next.program)))
}

fn recover_before_locking(here: &Path, args: &[OsString]) -> anyhow::Result<u8> {
    // `git txn` is ourselves: `status` and its like only look.
    let words = || args.iter().map(|a| a.to_string_lossy().into_owned());
    if crate::process::git_argv::only_runs_us(&std::iter::once("git".to_owned()).chain(words()).collect::<Vec<_>>()) {
        return Ok(exit::DONE);
    }
    let Some(found) = repository_of(here, args) else { return Ok(exit::DONE) };
    let found = match unasked::standing(Ok(found))? {
        Standing::Protected(found) => found,
        // A server's user often has no home, and so no note; git runs the hooks of what it is about to write, and of that alone.
        Standing::Unknown(found) if receives(args) => found,
        Standing::Unknown(found) => {
            unasked::advice(&found).iter().for_each(|line| tell(&format!("jin-txn: {line}")));
            return Ok(exit::DONE);
        }
        Standing::None => return Ok(exit::DONE),
    };
    let state = StateDir::of(&found.repo);
    if std::io::stderr().is_terminal() {
        told::take(state.path()).iter().for_each(|line| tell(line));
    }
    if !recovery::needs_recovery(&found.repo)? || unasked::is_refused(&found)? {
        return Ok(exit::DONE);
    }
    let repo = found.repo;
    let options = Options {
        wait: Wait::UpTo(PATIENCE),
        objects_elsewhere: crate::cli::objects_elsewhere(),
        ..Options::new(super::real_git()?)
    };
    match crate::cli::progress::while_recovering(true, &repo, || recovery::recover(&repo, &options)) {
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

/// Does git take pushes, as a server?
fn receives(args: &[OsString]) -> bool {
    args.first().is_some_and(|command| {
        command == "receive-pack" || Some(command.to_string_lossy().as_ref()) == CGI.strip_prefix("git-")
    })
}

/// git runs even when nobody can be told anything.
fn tell(line: &str) {
    use std::io::Write;
    if writeln!(std::io::stderr(), "{}", one_line(line)).is_err() {
        // A closed or full stderr is the user's choice.
    }
}

/// The repository that git will find with these arguments; `None` when there is none.
fn repository_of(here: &Path, args: &[OsString]) -> Option<Found> {
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
            command if CGI.strip_prefix("git-") == Some(command) => {
                return served(&at, requested(|name| std::env::var_os(name))?.as_os_str());
            }
            command if SERVER_PROGRAMS.iter().any(|p| p.strip_prefix("git-") == Some(command)) => {
                return served(&at, words.next_back()?);
            }
            _ => break,
        }
    }
    match git_dir {
        Some(dir) => Repository::open(&at.join(dir)).ok().map(Found::named),
        None => Repository::find(&at).ok(),
    }
}

/// The repository that a web server's request is about, by git's rules, as far as it is one in which refs are read or
/// written.
fn requested(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let value = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = match value("GIT_PROJECT_ROOT") {
        Some(root) => {
            let asked = value("PATH_INFO")?;
            // git serves nothing that leads out of the root.
            let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
            if !asked.components().all(is_plain) {
                return None;
            }
            root.join(asked.strip_prefix("/").unwrap_or(&asked))
        }
        None => value("PATH_TRANSLATED")?,
    };
    ["info/refs", "git-receive-pack", "git-upload-pack"].iter().find_map(|service| {
        let depth = Path::new(service).components().count();
        path.ends_with(service).then(|| path.ancestors().nth(depth).map(Path::to_owned)).flatten()
    })
}

/// The repository that a server program means: git tries these names, in this order.
fn served(at: &Path, named: &OsStr) -> Option<Found> {
    let with = |suffix: &str| {
        let mut name = named.to_owned();
        name.push(suffix);
        at.join(name)
    };
    ["/.git", "", ".git/.git", ".git"]
        .into_iter()
        .find_map(|suffix| Repository::open(&with(suffix)).ok())
        .map(Found::named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_repository_that_git_would_serve() {
        /// The environment, and the repository.
        type Row<'r> = (&'r [(&'r str, &'r str)], Option<&'r str>);
        let rows: [Row; 9] = [
            (&[("GIT_PROJECT_ROOT", "/srv"), ("PATH_INFO", "/a/b.git/info/refs")], Some("/srv/a/b.git")),
            (&[("GIT_PROJECT_ROOT", "/srv/"), ("PATH_INFO", "/b.git/git-receive-pack")], Some("/srv/b.git")),
            (&[("GIT_PROJECT_ROOT", "/srv"), ("PATH_INFO", "b/git-upload-pack")], Some("/srv/b")),
            (&[("GIT_PROJECT_ROOT", ""), ("PATH_TRANSLATED", "/srv/b/info/refs")], Some("/srv/b")),
            (&[("GIT_PROJECT_ROOT", "/srv"), ("PATH_INFO", "/../etc/b/info/refs")], None),
            (&[("GIT_PROJECT_ROOT", "/srv"), ("PATH_TRANSLATED", "/srv/b/info/refs")], None),
            (&[("GIT_PROJECT_ROOT", "/srv"), ("PATH_INFO", "/b/HEAD")], None),
            (&[("GIT_PROJECT_ROOT", "/srv"), ("PATH_INFO", "/b/no-git-receive-pack")], None),
            (&[], None),
        ];
        for (variables, repository) in rows {
            let found = requested(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()));
            assert_eq!(found.as_deref(), repository.map(Path::new), "{variables:?}");
        }
    }

    #[test]
    fn what_comes_after_git_is_gits() {
        for (typed, meant) in [
            ("git -v", "git -- -v"),
            ("-q --git-dir x git --json", "-q --git-dir x git -- --json"),
            ("-C git git -C x log", "-C git git -- -C x log"),
            ("git -- -v", "git -- -v"),
            ("git", "git"),
            ("log git", "log git"),
            ("-C", "-C"),
        ] {
            let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(keep_together(words(typed)), words(meant), "{typed}");
        }
    }
}
