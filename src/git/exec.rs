//! Every git that we start.
//!
//! A [`Git`] is a program and the repository that it works on; a [`Command`] is one of the closed list of [`Plumbing`] to be
//! done there. Which environment a child gets is decided in one place, [`Command::environment`], by what it is started for:
//!
//! ```text
//! for         repository variables   hooks, fsmonitor, fetches, prompts, replace refs   locks that it can do without
//! us          removed                off, and killed after a time                       not taken
//! a watched   removed                as the user has them; ours log the transaction     as the user has them
//!   write
//! a checkout  removed                as the user has them, filters above all            not taken
//! a fetch     removed                hooks and gc off; prompts and transports           not taken
//!                                    as the user has them, but for `ext` and the like
//! the user    kept                   as the user has them                               as the user has them
//! a question  removed, but for       none is called by `git config`                     none is taken by `git config`
//!   of the    configuration
//!   user's
//! ```
//!
//! Configuration goes through `GIT_CONFIG_COUNT`: `-c` ends a key at its first `=`, and a hook may have one in its name.
//!
//! Hooks in the configuration (git 2.54 and newer) can only be switched off by name. They are listed right before each git
//! that writes: with `includeIf.onbranch` the list depends on HEAD. The configuration files are looked at before
//! ([`config_files`]): a FIFO among them would keep it waiting.
//!
//! Limit: a git older than [`OLDEST`] does not know `GIT_CONFIG_COUNT`. The commands refuse it; the hooks take the git that
//! called them, and of such a one switch off the hooks directory only.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::git::plumbing::{self, ConfigQuery, Plumbing};
use crate::git::switched_off::{
    CONFIGURATION, FETCH, FETCH_CONFIG, NO_REPLACE_OBJECTS, OFF, OFF_IN_CONFIG, OURS, PATHSPECS, REPOSITORY,
};
use crate::git::{Oid, Repository, config_files};
use crate::util::text::{counted, shown};

/// The oldest git that is supported.
pub(crate) const OLDEST: (u32, u32) = (2, 31);

/// How long a git that was killed may take to be gone.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// A git program, and the repository that it works on.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    program: Arc<Path>,
    git_dir: Option<Arc<Path>>,
    worktree: Option<Arc<Path>>,
    replacing: bool,
}

impl Git {
    /// On no repository, or on the one around the current directory.
    pub(crate) fn new(program: &Path) -> Git {
        Git { program: program.into(), git_dir: None, worktree: None, replacing: false }
    }

    /// On the git directory `git_dir`.
    pub(crate) fn at(&self, git_dir: &Path) -> Git {
        Git { git_dir: Some(git_dir.into()), worktree: None, ..self.clone() }
    }

    /// In this worktree: otherwise `core.worktree` decides, and that may be another one.
    pub(crate) fn worktree(&self, path: &Path) -> Git {
        Git { worktree: Some(path.into()), ..self.clone() }
    }

    /// With `refs/replace/`: objects as the user's own git shows them.
    pub(crate) fn replacing(&self) -> Git {
        Git { replacing: true, ..self.clone() }
    }

    /// The git directory, if one was named.
    pub(crate) fn git_dir(&self) -> Option<&Path> {
        self.git_dir.as_deref()
    }

    /// The program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// A git that works for us.
    pub(crate) fn command(&self, plumbing: Plumbing<'_>) -> Command {
        Command {
            git: self.clone(),
            args: plumbing.arguments(),
            calls_hooks: plumbing.calls_hooks(),
            writes_index: plumbing.writes_index(),
            limit: plumbing.limit(),
            started_for: StartedFor::Us,
            config: Vec::new(),
            index: None,
            directory: self.worktree.clone(),
            stdin: Vec::new(),
        }
    }

    /// Runs a git that works for us, without input.
    pub(crate) fn run(&self, plumbing: Plumbing<'_>) -> anyhow::Result<Ran> {
        self.command(plumbing).run()
    }

    /// Asks what the configuration says, with what the environment adds to it (`git -c`, `GIT_CONFIG_COUNT`): the answer is that
    /// of the user's own git.
    pub(crate) fn ask_as_user(&self, query: ConfigQuery<'_>) -> anyhow::Result<Ran> {
        let command = self.command(Plumbing::Config(query));
        Command { started_for: StartedFor::Question, ..command }.run()
    }

    /// The value of a configuration setting, `None` when it is not set.
    pub(crate) fn config(&self, key: &str) -> anyhow::Result<Option<String>> {
        let ran = self.run(Plumbing::Config(ConfigQuery::Value(key)))?;
        Ok(ran.success.then(|| String::from_utf8_lossy(&ran.stdout).trim_end().to_owned()))
    }

    /// The root of the worktree that `directory` lies in, as the user's own git would find it; `None` in a bare repository.
    pub(crate) fn top_level(&self, directory: &Path) -> anyhow::Result<Option<PathBuf>> {
        let ask = |what: Plumbing<'_>| self.command(what).for_user(directory).run();
        let top = ask(Plumbing::TopLevel)?;
        if top.success {
            let path = top.stdout.strip_suffix(b"\n").unwrap_or(&top.stdout);
            return Ok(Some(OsStr::from_bytes(path).into()));
        }
        if ask(Plumbing::IsBare)?.stdout.trim_ascii() == b"true" {
            return Ok(None);
        }
        anyhow::bail!("{}", top.stderr.trim_start_matches("fatal: "))
    }

    /// The version of the program, as `(major, minor)`.
    pub(crate) fn version(&self) -> anyhow::Result<(u32, u32)> {
        let ran = Git::new(&self.program).run(Plumbing::Version);
        let ran = ran.with_context(|| format!("cannot run {}: is git installed?", shown(&self.program)))?;
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        let mut numbers = text.trim().strip_prefix("git version ").unwrap_or_default().split('.');
        let mut number = || numbers.next().and_then(|n| n.parse().ok());
        number().zip(number()).with_context(|| {
            let mut said = String::new();
            for c in text.chars().take(80) {
                write!(said, "{}", c.escape_debug()).expect("writing to a string cannot fail");
            }
            format!("`{} version` says {said}, which is not a git version", shown(&self.program))
        })
    }
}

#[derive(Debug, Clone)]
enum StartedFor {
    Us,
    /// A ref transaction with all hooks: by this variable ours know what it belongs to.
    WatchedWrite(&'static str, String),
    /// What a checkout would write, with the attributes of a commit.
    Checkout(Option<Oid>),
    /// A fetch into a repository of ours.
    Fetch,
    User,
    /// What the configuration says for the user's own git.
    Question,
}

/// A git that has not been started.
#[derive(Debug, Clone)]
#[must_use = "nothing is started yet"]
pub(crate) struct Command {
    git: Git,
    args: Vec<OsString>,
    calls_hooks: bool,
    writes_index: bool,
    limit: Duration,
    started_for: StartedFor,
    config: Vec<(OsString, OsString)>,
    index: Option<PathBuf>,
    directory: Option<Arc<Path>>,
    stdin: Vec<u8>,
}

/// What a git printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code 0.
    pub success: bool,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
}

impl Ran {
    /// What was printed, cut at each `end`; nothing for nothing.
    pub(crate) fn split(&self, end: u8) -> impl Iterator<Item = &[u8]> {
        self.stdout.split(move |b| *b == end).filter(|part| !part.is_empty())
    }
}

impl Command {
    /// With this index instead of the worktree's own.
    pub(crate) fn index(mut self, path: &Path) -> Command {
        self.index = Some(path.to_owned());
        self
    }

    /// With this setting.
    pub(crate) fn config(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Command {
        self.config.push((key.into(), value.into()));
        self
    }

    /// With this input.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Command {
        self.stdin = bytes.into();
        self
    }

    /// Started in this directory.
    pub(crate) fn directory(mut self, path: &Path) -> Command {
        self.directory = Some(path.into());
        self
    }

    /// A ref transaction like any other: with the hooks, ours and the user's. `variable` is set for them.
    pub(crate) fn watched(mut self, variable: &'static str, value: &str) -> Command {
        self.started_for = StartedFor::WatchedWrite(variable, value.to_owned());
        self
    }

    /// It makes what the user's own checkout would.
    pub(crate) fn for_checkout(mut self, attributes: Option<&Oid>) -> Command {
        self.started_for = StartedFor::Checkout(attributes.copied());
        self
    }

    /// It fetches, from where its user says.
    pub(crate) fn for_fetch(mut self) -> Command {
        self.started_for = StartedFor::Fetch;
        self
    }

    /// It finds out what the user's own git would, in `directory`.
    fn for_user(mut self, directory: &Path) -> Command {
        self.started_for = StartedFor::User;
        self.directory(directory)
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        if matches!(self.started_for, StartedFor::Us) {
            // For a git before 2.31, which does not know the variables below.
            all.extend(["-c".into(), "core.hooksPath=/dev/null".into()]);
        }
        all.extend(plumbing::place(self.git.git_dir.as_deref(), self.git.worktree.as_deref()));
        all.extend(self.args.iter().cloned());
        all
    }

    /// The variables that are set, or removed (`None`), in the child.
    fn environment(&self) -> BTreeMap<OsString, Option<OsString>> {
        let mut environment = BTreeMap::from([("LC_ALL".into(), Some("C".into()))]);
        let mut config = self.config.clone();
        let removed = |names: &[&str]| names.iter().map(|name| (name.into(), None)).collect::<Vec<_>>();
        match &self.started_for {
            StartedFor::User => {}
            StartedFor::Question => {
                let is_local = |name: &&&str| !CONFIGURATION.contains(*name);
                environment.extend(REPOSITORY.iter().filter(is_local).map(|name| (name.into(), None)));
            }
            StartedFor::WatchedWrite(variable, value) => {
                environment.extend(removed(&REPOSITORY));
                environment.extend(removed(&OURS));
                environment.insert(variable.into(), Some(value.into()));
            }
            StartedFor::Checkout(attributes) => {
                environment.extend(removed(&REPOSITORY));
                environment.extend(removed(&["GIT_ATTR_SOURCE"]));
                environment
                    .extend(attributes.map(|oid| ("GIT_ATTR_SOURCE".into(), Some(oid.hex().to_string().into()))));
            }
            StartedFor::Fetch => {
                environment.extend(removed(&REPOSITORY));
                environment.extend(FETCH.map(|(name, value)| (name.into(), Some(value.into()))));
                config.extend(FETCH_CONFIG.map(|(key, value)| (key.into(), value.into())));
            }
            StartedFor::Us => {
                environment.extend(removed(&REPOSITORY));
                environment.extend(removed(&PATHSPECS));
                let off = OFF.iter().filter(|(name, _)| !(self.git.replacing && *name == NO_REPLACE_OBJECTS));
                environment.extend(off.map(|(name, value)| (name.into(), Some(value.into()))));
                config.extend(OFF_IN_CONFIG.map(|(key, value)| (key.into(), value.into())));
            }
        }
        if !config.is_empty() {
            environment.insert("GIT_CONFIG_COUNT".into(), Some(config.len().to_string().into()));
        }
        for (n, (key, value)) in config.into_iter().enumerate() {
            environment.insert(format!("GIT_CONFIG_KEY_{n}").into(), Some(key));
            environment.insert(format!("GIT_CONFIG_VALUE_{n}").into(), Some(value));
        }
        environment.extend(self.index.iter().map(|path| ("GIT_INDEX_FILE".into(), Some(path.into()))));
        environment
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> anyhow::Result<Ran> {
        self.make_ready()?;
        let program = self.git.program.clone();
        let output = self.output().with_context(|| format!("cannot run {}", shown(&program)))?;
        Ok(Ran {
            success: output.status.success(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Looks at what git opens at its start, and switches the hooks of the configuration off.
    fn make_ready(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.index.is_some() || !self.writes_index,
            "git may only write an index of ours: this is a bug"
        );
        if let Some(repo) = self.repository() {
            config_files::require_regular(&repo)?;
        }
        if self.calls_hooks && matches!(self.started_for, StartedFor::Us) {
            let listed = self.git.run(Plumbing::Config(ConfigQuery::NamesMatching(r"^hook\..*\.event$")))?;
            for key in listed.split(0) {
                if let Some(hook) = key.strip_suffix(b".event") {
                    self.config.push((OsString::from_vec([hook, b".enabled"].concat()), "false".into()));
                }
            }
        }
        Ok(())
    }

    /// The repository that git will find.
    fn repository(&self) -> Option<Repository> {
        let directory = self.directory.as_deref();
        match (&self.git.git_dir, &self.started_for, directory) {
            (Some(dir), ..) => Repository::open(dir).ok(),
            (None, StartedFor::User, Some(directory)) => {
                let named = std::env::var_os("GIT_DIR").map(PathBuf::from);
                Repository::of_environment(named.as_deref(), directory).ok()
            }
            (None, _, directory) => Repository::discover(directory?).ok(),
        }
    }

    fn output(self) -> anyhow::Result<Output> {
        let mut run = duct::cmd(self.git.program.as_os_str(), self.arguments());
        for (name, value) in self.environment() {
            run = match value {
                Some(value) => run.env(name, value),
                None => run.env_remove(name),
            };
        }
        let run = run.dir(self.start_directory()).stdin_bytes(self.stdin.clone()).stdout_capture().stderr_capture();
        if matches!(self.started_for, StartedFor::WatchedWrite(..) | StartedFor::Fetch) {
            // The user's hooks, and networks, take as long as they take, and may ask at the terminal.
            return Ok(run.unchecked().run()?);
        }
        // In a process group of its own, so that what it has started ends with it.
        let own_group = |command: &mut std::process::Command| {
            command.process_group(0);
            Ok(())
        };
        let running = run.before_spawn(own_group).unchecked().start()?;
        if running.wait_timeout(self.limit)?.is_none() {
            running.pids().into_iter().for_each(kill_group);
            running.wait_timeout(LAST_BREATH)?;
            return Err(self.hangs());
        }
        Ok(running.into_output()?)
    }

    fn hangs(&self) -> anyhow::Error {
        let name = self.args.first().cloned().unwrap_or_default();
        let place = self.git.git_dir.as_deref().unwrap_or(self.start_directory());
        anyhow::anyhow!(
            "git {} did not end within {} in {}, and was killed\nhint: look there for a FIFO, or a file system that does not answer",
            name.display(),
            counted(self.limit.as_secs(), "second"),
            shown(place)
        )
    }

    /// One that is about no repository finds none.
    fn start_directory(&self) -> &Path {
        let named = self.git.git_dir.is_some();
        self.directory.as_deref().unwrap_or(Path::new(if named { "." } else { "/" }))
    }

    /// Runs it to its end; that it fails is an error.
    pub(crate) fn run_ok(self) -> anyhow::Result<Ran> {
        let name = self.args.first().cloned().unwrap_or_default();
        let ran = self.run()?;
        anyhow::ensure!(ran.success, "git {} failed: {}", name.display(), ran.stderr);
        Ok(ran)
    }

    /// Starts it, with pipes for input and output.
    pub(crate) fn spawn(mut self, stderr: Stdio) -> anyhow::Result<Child> {
        self.make_ready()?;
        let mut command = std::process::Command::new(&*self.git.program);
        command.args(self.arguments());
        for (name, value) in self.environment() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(self.start_directory());
        if matches!(self.started_for, StartedFor::Us) {
            command.process_group(0);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        command.spawn().with_context(|| format!("cannot run {}", shown(&self.git.program)))
    }
}

/// Kills a git of ours and what it has started.
pub(super) fn kill_group(leader: u32) {
    if let Some(leader) = i32::try_from(leader).ok().and_then(rustix::process::Pid::from_raw)
        && rustix::process::kill_process_group(leader, rustix::process::Signal::KILL).is_err()
    {
        // It has ended by itself.
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
