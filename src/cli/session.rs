//! What every command gets: where it works, and how it speaks.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::{PATIENCE, color, exit, objects_elsewhere, real_git};
use crate::git::repository::NotFound;
use crate::git::{Config, Git, Repository};
use crate::recovery::Options;
use crate::state::{Busy, Wait};
use crate::util::text::{json, one_line};

/// What every command gets.
pub(crate) struct Session {
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
    pub(super) color: color::When,
}

impl Session {
    /// The repository to work on.
    pub(crate) fn repository(&self) -> anyhow::Result<Repository> {
        match &self.git_dir {
            // Who names the git directory is trusted to know it, by git too.
            Some(_) => Ok(self.locate()?),
            None => trusted(self.locate()?, &self.directory),
        }
    }

    /// The repository in, or around, `dir`.
    pub(crate) fn repository_at(&self, dir: &Path) -> anyhow::Result<Repository> {
        trusted(Repository::discover(dir).or_else(|_| Repository::open(dir))?, dir)
    }

    /// The repository, whoever owns it.
    pub(crate) fn locate(&self) -> Result<Repository, NotFound> {
        match &self.git_dir {
            Some(dir) => Repository::open(dir),
            None => Repository::discover(&self.directory),
        }
    }

    /// Options for recovery by a command.
    pub(crate) fn recovery_options(&self) -> anyhow::Result<Options> {
        let objects_elsewhere = objects_elsewhere();
        Ok(Options { wait: Wait::UpTo(PATIENCE), objects_elsewhere, ..Options::new(real_git()?) })
    }

    /// The root of the worktree that we are in; `None` in a bare repository.
    pub(crate) fn worktree(&self, git: &Path, config: &Config) -> anyhow::Result<Option<PathBuf>> {
        const DECIDING: [&str; 3] = ["GIT_WORK_TREE", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM"];
        let decided = self.git_dir.is_some()
            || DECIDING.iter().any(|name| std::env::var_os(name).is_some())
            || config.get("core.worktree").is_some()
            || config.get("core.bare").is_some_and(|bare| bare != "false");
        // Usually there is nothing to ask git for.
        match Repository::top_around(&self.directory).filter(|_| !decided) {
            Some(top) => Ok(Some(top)),
            None => {
                let git = self.git_dir.iter().fold(Git::new(git), |git, dir| git.at(dir));
                git.top_level(&self.directory)
            }
        }
    }

    /// A line for people, on stderr.
    pub(crate) fn say(&self, line: &str) {
        if !self.quiet {
            print_line(&mut self.color.stream(std::io::stderr().lock()), line);
        }
    }

    /// A line of data, on stdout.
    pub(crate) fn print(&self, line: &str) {
        print_line(&mut self.color.stream(std::io::stdout().lock()), line);
    }

    /// Text of our own for another program, on stdout: nothing of it is escaped, and no line feed is added.
    pub(crate) fn print_as_is(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// Data as JSON, on stdout.
    pub(crate) fn print_json(&self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        self.print_as_is(&(json(&serde_json::to_string_pretty(value)?).into_owned() + "\n"));
        Ok(())
    }
}

/// safe.directory is git's to judge, where it finds a repository by itself.
fn trusted(repo: Repository, found_from: &Path) -> anyhow::Result<Repository> {
    if repo.is_foreign()? {
        let from = found_from.to_str().with_context(|| format!("{} is no UTF-8", found_from.display()))?;
        let asked = Git::new(&real_git()?).run(["-C", from, "rev-parse", "--git-dir"])?;
        anyhow::ensure!(asked.success, "{}", asked.stderr);
    }
    Ok(repo)
}

/// A closed pipe (`jin-txn log | head`) is no error.
fn print_line(out: &mut impl Write, line: &str) {
    if writeln!(out, "{}", color::paint(&one_line(line))).is_err() {
        std::process::exit(0);
    }
}

/// Says what went wrong, and what to do. The exit code for it.
pub(super) fn print_error(error: &anyhow::Error, color: color::When) -> u8 {
    let mut stderr = color.stream(std::io::stderr().lock());
    let causes = error.chain().skip(1).map(|cause| format!("caused by: {cause}"));
    let hint = hint(error).map(|hint| format!("hint: {hint}"));
    // The line breaks of an error are its own: names in it are on one line.
    for text in std::iter::once(format!("error: {error}")).chain(causes).chain(hint) {
        text.split('\n').for_each(|line| print_line(&mut stderr, line));
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
