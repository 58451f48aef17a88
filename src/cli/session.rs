//! What every command gets: where it works, and how it speaks.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::cli::{PATIENCE, color, exit, objects_elsewhere, real_git, user};
use crate::git::repository::{Found, NotFound};
use crate::git::{Config, Git, Repository, openable};
use crate::recovery::Options;
use crate::state::{Busy, Wait};
use crate::trust::ownership;
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
        self.opened(self.locate()?)
    }

    /// A repository that was found, when it may be worked on.
    pub(crate) fn opened(&self, found: Found) -> anyhow::Result<Repository> {
        // Before any git is asked for anything here.
        openable::require_start(&found.repo)?;
        match &self.git_dir {
            // Who names the git directory is trusted to know it, by git too.
            Some(_) => ownership::require_linked(&found.repo)?,
            None => ownership::require_trusted(&found, user(), &real_git()?)?,
        }
        self.heed_color_setting(&found.repo)?;
        Ok(found.repo)
    }

    /// Git's `color.ui`, where it can make a difference: on a terminal.
    fn heed_color_setting(&self, repo: &Repository) -> anyhow::Result<()> {
        let is_seen = std::io::stdout().is_terminal() || std::io::stderr().is_terminal();
        if self.color != color::When::Auto || !is_seen {
            return Ok(());
        }
        // A configuration that git cannot read has its own message, of the command that needs it.
        if let Ok(Some(value)) = Git::new(&real_git()?).at(&repo.git_dir).config("color.ui") {
            color::heed(&value);
        }
        Ok(())
    }

    /// The repository in, or around, `dir`.
    pub(crate) fn repository_at(&self, dir: &Path) -> anyhow::Result<Repository> {
        let found = Repository::find(dir).or_else(|_| Repository::open(dir).map(Found::named))?;
        ownership::require_trusted(&found, user(), &real_git()?)?;
        Ok(found.repo)
    }

    /// The repository, whoever owns it.
    pub(crate) fn locate(&self) -> Result<Found, NotFound> {
        match &self.git_dir {
            Some(dir) => Repository::open(dir).map(Found::named),
            None => Repository::find(&self.directory),
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
            tell(line, self.color);
        }
    }

    /// What failed while the command goes on, on stderr.
    pub(crate) fn complain(&self, error: &anyhow::Error) {
        print_error(error, self.color);
    }

    /// A line of data, on stdout.
    pub(crate) fn print(&self, line: &str) {
        delivered(print_line(&mut self.color.stream(std::io::stdout().lock()), line), self.color);
    }

    /// A line on stdout of a command whose exit code says the same.
    pub(crate) fn print_unless_quiet(&self, line: &str) {
        if !self.quiet {
            self.print(line);
        }
    }

    /// Text of our own for another program, on stdout: nothing of it is escaped, and no line feed is added.
    pub(crate) fn print_as_is(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        delivered(out.write_all(text.as_bytes()).and_then(|()| out.flush()), self.color);
    }

    /// Data as JSON, on stdout.
    pub(crate) fn print_json(&self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        self.print_as_is(&(json(&serde_json::to_string_pretty(value)?).into_owned() + "\n"));
        Ok(())
    }
}

fn print_line(out: &mut impl Write, line: &str) -> std::io::Result<()> {
    writeln!(out, "{}", color::paint(&one_line(line)))
}

/// A line on stderr.
fn tell(line: &str, color: color::When) {
    if print_line(&mut color.stream(std::io::stderr().lock()), line).is_err() {
        // Nobody is left to tell, and that is no reason to stop halfway.
    }
}

/// What a command was asked for has to arrive. That a reader has seen enough (`jin-txn log | head`) is no error; a full disk is one.
pub(super) fn delivered(printed: std::io::Result<()>, color: color::When) {
    match printed {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(exit::DONE.into()),
        Err(error) => {
            let error = anyhow::Error::new(error).context("cannot write to standard output");
            std::process::exit(print_error(&error, color).into());
        }
    }
}

/// Says what went wrong, and what to do. The exit code for it.
pub(super) fn print_error(error: &anyhow::Error, color: color::When) -> u8 {
    let causes = error.chain().skip(1).map(|cause| format!("caused by: {cause}"));
    let hint = hint(error).map(|hint| format!("hint: {hint}"));
    // The line breaks of an error are its own: names in it are on one line.
    for text in std::iter::once(format!("error: {error}")).chain(causes).chain(hint) {
        text.split('\n').for_each(|line| tell(line, color));
    }
    if error.is::<Busy>() { exit::BUSY } else { exit::FAILED }
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    if error.is::<Busy>() {
        return Some("another jin-txn is at work; try again in a moment");
    }
    if error.downcast_ref::<NotFound>().is_some_and(|e| !matches!(e, NotFound::Unreadable(_))) {
        return Some("run this inside a git repository, or name one with -C DIR");
    }
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>())?;
    match io.kind() {
        std::io::ErrorKind::PermissionDenied => Some("check who owns the repository's .git/.jin directory"),
        std::io::ErrorKind::StorageFull => Some("free some space, then try again"),
        _ => None,
    }
}
