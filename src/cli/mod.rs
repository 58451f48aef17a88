//! The command line. One file per command: its arguments (the doc comments are the help) and its run.
//! Only this layer prints, reads the environment and knows exit codes.

pub mod apply;
pub mod check;
mod color;
pub mod demo;
pub mod doctor;
pub mod git;
pub mod install;
pub mod log;
pub mod manual;
mod progress;
pub mod recover;
pub mod run;
pub mod shell_init;
pub mod show;
pub mod status;
pub mod undo;
pub mod uninstall;
pub mod wal;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::git::repository::NotFound;
use crate::git::{Config, Repository, command};
use crate::recovery::{Options, Report};
use crate::setup::path;
use crate::state::{Busy, Wait};
use crate::util::text::{json, one_line};

/// Exit codes, the same for every command.
pub mod exit {
    /// Done, or clean.
    pub const DONE: u8 = 0;
    /// The command failed.
    pub const FAILED: u8 = 1;
    /// An interrupted transaction or a stale lock waits for recovery.
    pub const INTERRUPTED: u8 = 3;
    /// A human has to decide.
    pub const NEEDS_HUMAN: u8 = 4;
    /// A live or unknowable owner is in the way.
    pub const BUSY: u8 = 5;
}

/// The oldest git that has the reference-transaction hook.
const OLDEST_GIT: (u32, u32) = (2, 28);

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

    /// Say nothing but errors
    #[arg(short, long, global = true)]
    quiet: bool,

    /// Say more
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,

    /// Colour: auto (on terminals, unless NO_COLOR is set; the default), always, never
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
    Check(check::Args),
    Recover(recover::Args),
    Log(log::Args),
    Show(show::Args),
    Undo(undo::UndoArgs),
    Redo(undo::RedoArgs),
    Run(run::Args),
    Apply(apply::Args),
    Git(git::Args),
    Doctor(doctor::Args),
    Wal(wal::Args),
    ShellInit(shell_init::Args),
    Completions(manual::CompletionArgs),
    Man(manual::ManArgs),
    Demo(demo::Args),
}

/// What every command gets.
pub struct Session {
    /// Where we run, `-C` included.
    pub directory: PathBuf,
    /// `--git-dir` or `GIT_DIR`, absolute.
    pub git_dir: Option<PathBuf>,
    /// Print JSON.
    pub json: bool,
    /// Say nothing but errors.
    pub quiet: bool,
    /// Say more.
    pub verbose: bool,
    /// Colour what goes to stdout, and to stderr.
    color: color::When,
}

/// Parses and runs the command line.
#[must_use]
pub fn run(called_as: OsString, args: Vec<OsString>) -> ExitCode {
    let color = color::When::of(&args);
    let cli = match plain_check(&args).map_or_else(|| parse(called_as, args, color), Ok) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(print_error(&error, color)),
    }
}

fn parse(called_as: OsString, args: Vec<OsString>, color: color::When) -> Result<Cli, clap::Error> {
    let definition = Cli::command().color(color.for_clap());
    let matches = definition.try_get_matches_from(std::iter::once(called_as).chain(git::keep_together(args)))?;
    Cli::from_arg_matches(&matches)
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
    anyhow::ensure!(directory.is_dir(), "{} is not a directory", directory.display());
    let from_environment = || std::env::var_os("GIT_DIR").map(PathBuf::from);
    let git_dir = cli.git_dir.or_else(from_environment).map(|dir| directory.join(dir));
    let Cli { json, quiet, verbose, color, .. } = cli;
    let context = Session { directory, git_dir, json, quiet, verbose, color };
    match cli.command {
        Command::Install(args) => install::run(&context, &args),
        Command::Uninstall(args) => uninstall::run(&context, &args),
        Command::Status(args) => status::run(&context, &args),
        Command::Check(args) => check::run(&context, &args),
        Command::Recover(args) => recover::run(&context, &args),
        Command::Log(args) => log::run(&context, &args),
        Command::Show(args) => show::run(&context, &args),
        Command::Undo(args) => undo::undo(&context, &args),
        Command::Redo(args) => undo::redo(&context, &args),
        Command::Run(args) => run::run(&context, &args),
        Command::Apply(args) => apply::run(&context, &args),
        Command::Git(args) => git::run(&context, &args),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Wal(args) => wal::run(&context, &args),
        Command::ShellInit(args) => shell_init::run(&context, &args),
        Command::Completions(args) => manual::completions(&context, &args),
        Command::Man(args) => manual::man(&context, &args),
        Command::Demo(args) => demo::run(&context, &args),
    }
}

/// `git txn` runs us at the top of the worktree and says in GIT_PREFIX where the user is: go there. What git set
/// for the alias is taken away, so that a git which we start finds the repository as the user's shell would.
pub(crate) fn leave_alias() -> anyhow::Result<PathBuf> {
    let top = std::env::current_dir().context("the current directory is gone")?;
    let Some(prefix) = std::env::var_os("GIT_PREFIX") else { return Ok(top) };
    let here = top.join(prefix);
    std::env::set_current_dir(&here).with_context(|| format!("cannot go to {}", here.display()))?;
    Ok(here)
}

/// Did git start us as an alias, and is its GIT_DIR only what discovery finds anyway?
pub(crate) fn alias_git_dir_is_redundant(here: &Path) -> bool {
    let (Some(_), Some(dir)) = (std::env::var_os("GIT_PREFIX"), std::env::var_os("GIT_DIR")) else { return false };
    let found = Repository::discover(here).map(|r| r.git_dir);
    found.is_ok_and(|found| std::fs::canonicalize(dir).is_ok_and(|given| given == found))
}

impl Session {
    /// The repository to work on.
    ///
    /// # Errors
    /// There is none, or it belongs to somebody else and git would not touch it either.
    pub fn repository(&self) -> anyhow::Result<Repository> {
        match &self.git_dir {
            // Who names the git directory is trusted to know it, by git too.
            Some(_) => Ok(self.locate()?),
            None => trusted(self.locate()?, &self.directory),
        }
    }

    /// The repository in, or around, `dir`.
    ///
    /// # Errors
    /// As for [`Session::repository`].
    pub fn repository_at(&self, dir: &Path) -> anyhow::Result<Repository> {
        trusted(Repository::discover(dir).or_else(|_| Repository::open(dir))?, dir)
    }

    /// The repository, whoever owns it.
    ///
    /// # Errors
    /// There is none.
    pub fn locate(&self) -> Result<Repository, NotFound> {
        match &self.git_dir {
            Some(dir) => Repository::open(dir),
            None => Repository::discover(&self.directory),
        }
    }

    /// Options for recovery by a command.
    ///
    /// # Errors
    /// There is no git.
    pub fn recovery_options(&self) -> anyhow::Result<Options> {
        let objects_elsewhere = objects_elsewhere();
        Ok(Options { wait: Wait::UpTo(PATIENCE), objects_elsewhere, ..Options::new(real_git()?) })
    }

    /// The root of the worktree that we are in; `None` in a bare repository.
    ///
    /// # Errors
    /// git finds no worktree.
    pub fn worktree(&self, git: &Path, config: &Config) -> anyhow::Result<Option<PathBuf>> {
        const DECIDING: [&str; 3] = ["GIT_WORK_TREE", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM"];
        let decided = self.git_dir.is_some()
            || DECIDING.iter().any(|name| std::env::var_os(name).is_some())
            || config.get("core.worktree").is_some()
            || config.get("core.bare").is_some_and(|bare| bare != "false");
        // Usually there is nothing to ask git for.
        match Repository::top_around(&self.directory).filter(|_| !decided) {
            Some(top) => Ok(Some(top)),
            None => command::top_level(git, &self.directory, self.git_dir.as_deref()),
        }
    }

    /// A line for people, on stderr.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            let mut stderr = std::io::stderr().lock();
            let colours = self.color.colours(&stderr);
            print_line(&mut stderr, line, colours);
        }
    }

    /// A line of data, on stdout.
    pub fn print(&self, line: &str) {
        let mut stdout = std::io::stdout().lock();
        let colours = self.color.colours(&stdout);
        print_line(&mut stdout, line, colours);
    }

    /// Text of our own for another program, on stdout: nothing of it is escaped, and no line feed is added.
    pub fn print_as_is(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// Data as JSON, on stdout.
    pub fn print_json(&self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        self.print_as_is(&(json(&serde_json::to_string_pretty(value)?).into_owned() + "\n"));
        Ok(())
    }
}

/// safe.directory is git's to judge, where it finds a repository by itself.
fn trusted(repo: Repository, found_from: &Path) -> anyhow::Result<Repository> {
    if repo.is_foreign()? {
        let from = found_from.to_str().with_context(|| format!("{} is no UTF-8", found_from.display()))?;
        let asked = command::run_plain(&real_git()?, &["-C", from, "rev-parse", "--git-dir"])?;
        anyhow::ensure!(asked.success, "{}", asked.stderr);
    }
    Ok(repo)
}

/// A closed pipe (`jin-txn log | head`) is no error.
fn print_line(out: &mut impl Write, line: &str, colours: bool) {
    let line = one_line(line);
    let line = if colours { color::paint(&line) } else { line.as_ref().into() };
    if writeln!(out, "{line}").is_err() {
        std::process::exit(0);
    }
}

fn print_error(error: &anyhow::Error, color: color::When) -> u8 {
    let mut stderr = std::io::stderr().lock();
    let colours = color.colours(&stderr);
    let causes = error.chain().skip(1).map(|cause| format!("caused by: {cause}"));
    let hint = hint(error).map(|hint| format!("hint: {hint}"));
    // The line breaks of an error are its own: names in it are on one line.
    for text in std::iter::once(format!("error: {error}")).chain(causes).chain(hint) {
        text.split('\n').for_each(|line| print_line(&mut stderr, line, colours));
    }
    if error.is::<Busy>() { exit::BUSY } else { exit::FAILED }
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    if error.is::<Busy>() {
        return Some("another jin-txn is at work; try again in a moment");
    }
    if error.is::<NotFound>() {
        return Some("run this inside a git repository, or name one with -C DIR");
    }
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>())?;
    match io.kind() {
        std::io::ErrorKind::PermissionDenied => Some("check who owns the repository's .git/.jin directory"),
        std::io::ErrorKind::StorageFull => Some("free some space, then try again"),
        _ => None,
    }
}

/// The exit code of a command that looked, or recovered.
#[must_use]
pub fn exit_code(report: &Report) -> u8 {
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

/// Does the environment name other places for objects?
#[must_use]
pub fn objects_elsewhere() -> bool {
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

/// The git that a hook's own git is.
#[must_use]
pub fn git_of_hook() -> PathBuf {
    std::env::var_os("GIT_EXEC_PATH").map_or_else(|| PathBuf::from("git"), |dir| PathBuf::from(dir).join("git"))
}

/// The first git in PATH that is not this program under another name.
///
/// # Errors
/// There is none.
pub fn real_git() -> anyhow::Result<PathBuf> {
    path::first_git(&path_variable())
}

fn path_variable() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// Refuses a git that has no reference-transaction hook.
pub(crate) fn require_git() -> anyhow::Result<PathBuf> {
    let program = real_git()?;
    let (major, minor) = command::version(&program)?;
    anyhow::ensure!(
        (major, minor) >= OLDEST_GIT,
        "{} is git {major}.{minor}: jin-txn needs 2.28 or newer, which calls the reference-transaction hook",
        program.display()
    );
    Ok(program)
}

/// `2026-11-22 20:18:05Z`.
#[must_use]
pub fn utc(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Civil date from days since 1970-01-01, counted in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        for (unix, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_709_251_200, "2024-03-01 00:00:00Z"),
            (1_795_378_685, "2026-11-22 20:18:05Z"),
        ] {
            assert_eq!(utc(unix), text);
        }
    }

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
    }
}
