//! The command line. One file per command: its arguments (the doc comments are the help) and its run.
//! Only this layer prints, reads the environment and knows exit codes.

pub(crate) mod apply;
pub(crate) mod check;
mod color;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod entry;
mod everywhere;
pub(crate) mod git;
mod help;
pub(crate) mod install;
pub(crate) mod list;
pub(crate) mod log;
mod log_filter;
pub(crate) mod manual;
mod pager;
mod progress;
pub(crate) mod quarantine;
pub(crate) mod recover;
pub(crate) mod rescue;
pub(crate) mod run;
mod session;
pub(crate) mod shell_init;
pub(crate) mod show;
pub(crate) mod status;
mod unasked;
pub(crate) mod undo;
pub(crate) mod uninstall;
pub(crate) mod wal;
pub(crate) mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use clap::{FromArgMatches, Parser, Subcommand};

use crate::git::{Git, Repository, exec};
use crate::recovery::Report;
use crate::setup::path;
use crate::trust::{Notes, User};
use crate::util::text::shown;

pub(crate) use crate::util::date::utc;
pub(crate) use session::Session;
use session::print_error;

/// Exit codes, the same for every command.
pub(crate) mod exit {
    /// Done, or clean.
    pub(crate) const DONE: u8 = 0;
    /// The command failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// An interrupted transaction or a stale lock waits for recovery.
    pub(crate) const INTERRUPTED: u8 = 3;
    /// A human has to decide.
    pub(crate) const NEEDS_HUMAN: u8 = 4;
    /// A live or unknowable owner is in the way.
    pub(crate) const BUSY: u8 = 5;
    /// Nothing is unfinished, but git does not call our hooks.
    pub(crate) const UNPROTECTED: u8 = 6;
}

/// How long commands wait for another recovery, and for a hook that outlived its git.
const PATIENCE: Duration = Duration::from_secs(10);

/// Crash-safe transactions for Git.
///
/// Writes every ref transaction to a write-ahead log before git may apply it, and after a crash brings the
/// repository to where each transaction happened wholly or not at all.
#[derive(Parser)]
#[command(name = "jin-txn", version, max_term_width = 100)]
struct Cli {
    /// Run as if started in DIR
    #[arg(short = 'C', value_name = "DIR", global = true)]
    directory: Option<PathBuf>,

    /// The git directory to work on
    #[arg(long, value_name = "DIR", global = true)]
    git_dir: Option<PathBuf>,

    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,

    /// Say nothing but errors; `check`, `status` and `recover` then answer by their exit code alone
    #[arg(short, long, global = true)]
    quiet: bool,

    /// Say more
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,

    /// Colour: auto (on terminals, unless NO_COLOR is set or git's color.ui is false; the default), always, never
    #[arg(long, value_name = "WHEN", global = true, value_enum, default_value_t)]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    color: color::When,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Install(install::Args),
    Uninstall(uninstall::Args),
    Status(status::Args),
    List(list::Args),
    Check(check::Args),
    Recover(recover::Args),
    Rescue(rescue::Args),
    Quarantine(quarantine::Args),
    Log(log::Args),
    Show(show::Args),
    Undo(undo::UndoArgs),
    Redo(undo::RedoArgs),
    Run(run::Args),
    Apply(apply::Args),
    Git(git::Args),
    Doctor(doctor::Args),
    Watch(watch::Args),
    Wal(wal::Args),
    ShellInit(shell_init::Args),
    Completions(manual::CompletionArgs),
    Man(manual::ManArgs),
    Demo(demo::Args),
}

/// Parses and runs the command line.
fn run(called_as: OsString, args: Vec<OsString>) -> ExitCode {
    let color = color::When::of(&args);
    let cli = match plain_check(&args).map_or_else(|| parse(called_as, args, color), Ok) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(explain(&error, color)),
    };
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(print_error(&error, color)),
    }
}

/// Usage errors, and help that was asked for.
fn explain(error: &clap::Error, color: color::When) -> u8 {
    let printed = error.print();
    if !error.use_stderr() {
        session::delivered(printed, color);
    }
    u8::try_from(error.exit_code()).unwrap_or(exit::FAILED)
}

fn parse(called_as: OsString, args: Vec<OsString>, color: color::When) -> Result<Cli, clap::Error> {
    let definition = help::definition().color(color.for_clap());
    let matches = definition.try_get_matches_from(std::iter::once(called_as).chain(git::keep_together(args)))?;
    Cli::from_arg_matches(&matches)
}

/// Does the command line take these arguments? The documentation is checked with it.
///
/// # Errors
/// What clap says of them.
pub fn accepts(args: Vec<OsString>) -> Result<(), String> {
    match parse("jin-txn".into(), args, color::When::Never) {
        Err(error) if error.exit_code() != 0 => Err(error.to_string()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Scripts and prompts ask this all the time, and clap needs as long to learn all commands as the answer takes.
fn plain_check(args: &[OsString]) -> Option<Cli> {
    let words: Vec<&str> = args.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
    let (quiet, prompt) = match words[..] {
        ["check"] => (false, false),
        ["check", "-q" | "--quiet"] | ["-q" | "--quiet", "check"] => (true, false),
        ["check", "--prompt"] => (false, true),
        _ => return None,
    };
    let command = Command::Check(check::Args { prompt });
    let color = color::When::Auto;
    Some(Cli { directory: None, git_dir: None, json: false, quiet, verbose: false, color, command })
}

fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    let here = leave_alias()?;
    let directory = cli.directory.as_ref().map_or_else(|| here.clone(), |dir| here.join(dir));
    anyhow::ensure!(directory.is_dir(), "{} is not a directory", crate::util::text::shown(&directory));
    let from_environment = || std::env::var_os("GIT_DIR").map(PathBuf::from);
    let git_dir = cli.git_dir.or_else(from_environment).map(|dir| directory.join(dir));
    let Cli { json, quiet, verbose, color, .. } = cli;
    let context = Session { directory, git_dir, json, quiet, verbose, color };
    match cli.command {
        Command::Install(args) => install::run(&context, &args),
        Command::Uninstall(args) => uninstall::run(&context, &args),
        Command::Status(args) => status::run(&context, &args),
        Command::List(args) => list::run(&context, &args),
        Command::Check(args) => check::run(&context, &args),
        Command::Recover(args) => recover::run(&context, &args),
        Command::Rescue(args) => rescue::run(&context, &args),
        Command::Quarantine(args) => quarantine::run(&context, &args),
        Command::Log(args) => log::run(&context, &args),
        Command::Show(args) => show::run(&context, &args),
        Command::Undo(args) => undo::undo(&context, &args),
        Command::Redo(args) => undo::redo(&context, &args),
        Command::Run(args) => run::run(&context, &args),
        Command::Apply(args) => apply::run(&context, &args),
        Command::Git(args) => git::run(&context, &args),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Watch(args) => watch::run(&context, &args),
        Command::Wal(args) => wal::run(&context, &args),
        Command::ShellInit(args) => shell_init::run(&context, &args),
        Command::Completions(args) => manual::completions(&context, &args),
        Command::Man(args) => manual::man(&context, &args),
        Command::Demo(args) => demo::run(&context, &args),
    }
}

/// `git txn` runs us at the top of the worktree and says in GIT_PREFIX where the user is: go there. What git set
/// for the alias is taken away, so that a git which we start finds the repository as the user's shell would.
fn leave_alias() -> anyhow::Result<PathBuf> {
    let top = std::env::current_dir().context("the current directory is gone")?;
    let Some(prefix) = std::env::var_os("GIT_PREFIX") else { return Ok(top) };
    let here = top.join(prefix);
    std::env::set_current_dir(&here).with_context(|| format!("cannot go to {}", crate::util::text::shown(&here)))?;
    Ok(here)
}

/// Did git start us as an alias, and is its GIT_DIR only what discovery finds anyway?
fn alias_git_dir_is_redundant(here: &Path) -> bool {
    let (Some(_), Some(dir)) = (std::env::var_os("GIT_PREFIX"), std::env::var_os("GIT_DIR")) else { return false };
    let found = Repository::discover(here).map(|r| r.git_dir);
    found.is_ok_and(|found| std::fs::canonicalize(dir).is_ok_and(|given| given == found))
}

/// The exit code of a command that looked, or recovered.
pub(crate) fn exit_code(report: &Report) -> u8 {
    if report.needs_human() {
        exit::NEEDS_HUMAN
    } else if report.has_work() {
        exit::INTERRUPTED
    } else if report.is_busy() {
        exit::BUSY
    } else {
        exit::DONE
    }
}

/// Does the environment say that we are to look away?
fn is_off() -> bool {
    std::env::var_os("JIN_TXN").is_some_and(|value| value == "off")
}

/// Does the environment name other places for objects?
fn objects_elsewhere() -> bool {
    let place = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let [quarantine, objects, alternates] =
        ["GIT_QUARANTINE_PATH", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"].map(place);
    match (objects, alternates) {
        (None, None) => false,
        // What is being pushed waits there, and everything else is where it always is.
        (Some(objects), Some(usual)) if Some(&objects) == quarantine.as_ref() => {
            let own = place("GIT_DIR").and_then(|dir| std::fs::canonicalize(dir.join("objects")).ok());
            own.is_none() || std::fs::canonicalize(usual).ok() != own
        }
        _ => true,
    }
}

/// The notes of the user who runs us.
fn notes() -> Option<Notes> {
    Notes::of(|name| std::env::var_os(name))
}

/// The user who runs us.
fn user() -> User {
    User::new(std::env::var("SUDO_UID").ok().as_deref())
}

/// The git that a hook's own git is.
fn git_of_hook() -> PathBuf {
    std::env::var_os("GIT_EXEC_PATH").map_or_else(|| PathBuf::from("git"), |dir| PathBuf::from(dir).join("git"))
}

/// The first git in PATH that is not this program under another name.
fn real_git() -> anyhow::Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let found = path::first_git(&path_variable())?;
    Ok(FOUND.get_or_init(|| found).clone())
}

fn path_variable() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// Refuses a git that has no reference-transaction hook.
fn require_git() -> anyhow::Result<PathBuf> {
    let program = real_git()?;
    let (major, minor) = Git::new(&program).version()?;
    anyhow::ensure!(
        (major, minor) >= exec::OLDEST,
        "{} is git {major}.{minor}: jin-txn needs 2.31 or newer",
        shown(&program)
    );
    Ok(program)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_plain_check_is_what_clap_makes_of_it() {
        let said = |cli: Cli| {
            let Cli { directory, git_dir, json, quiet, verbose, color, command } = cli;
            let Command::Check(check::Args { prompt }) = command else { panic!("it is a check") };
            (directory, git_dir, json, quiet, verbose, color, prompt)
        };
        for words in [
            &["check"][..],
            &["check", "-q"],
            &["check", "--quiet"],
            &["-q", "check"],
            &["--quiet", "check"],
            &["check", "--prompt"],
        ] {
            let args: Vec<OsString> = words.iter().map(OsString::from).collect();
            let plain = plain_check(&args).expect("it is one");
            let parsed = parse("jin-txn".into(), args, color::When::Auto).expect("clap knows it");
            assert_eq!(said(plain), said(parsed), "{words:?}");
        }
        for words in [&["check", "check"][..], &["--prompt", "check"], &["check", "-q", "-q"], &["checks"], &[]] {
            let args: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert!(plain_check(&args).is_none(), "{words:?} is for clap to judge");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        help::definition().debug_assert();
    }
}
