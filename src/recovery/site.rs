//! Who asks for recovery and how, and where it works.

use std::path::PathBuf;
use std::time::Duration;

use crate::git::{Git, RefName, Repository};
use crate::locks::Seen;
use crate::process::owner::ExecContext;
use crate::state::{StateDir, TxId, Wait};
use crate::wal::Log;

/// Who asks for recovery, and so which locks are in our own way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A command of ours: nothing is locked by those above us.
    Command,
    /// A hook, before git locks.
    Preparing,
    /// A hook, while git holds the locks of these refs: what would have to write one of them must wait.
    Prepared {
        /// The refs that git has locked.
        refs: Vec<RefName>,
    },
    /// A hook, after git released its locks.
    AfterTransaction,
}

/// How to recover.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Who asks.
    pub mode: Mode,
    /// The git to run.
    pub git_program: PathBuf,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// A human vouches that owners who cannot be seen are dead.
    pub force: bool,
    /// How long to wait for another runner, and for a hook that outlived its git.
    pub wait: Wait,
    /// Runs that are to be taken back although files have changed since they died: a human says so.
    pub take_back: Option<TxId>,
    /// The environment says that objects lie elsewhere, too: what is missing here is not lost.
    pub objects_elsewhere: bool,
    /// A transaction of this very process that is to be settled: it counts as dead.
    pub own: Option<TxId>,
    /// Of the watch: the locks whose holders it has seen. It takes no others.
    pub seen: Option<Seen>,
}

impl Options {
    /// For a hook: wait for nothing.
    pub(crate) fn new(git_program: PathBuf) -> Options {
        Options {
            mode: Mode::Command,
            git_program,
            dry_run: false,
            force: false,
            wait: Wait::No,
            take_back: None,
            objects_elsewhere: false,
            own: None,
            seen: None,
        }
    }
}

/// How long recovery waits for the log.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Where recovery works, and how.
pub(crate) struct Site<'r> {
    pub(crate) repo: &'r Repository,
    pub(crate) state: &'r StateDir,
    pub(crate) options: &'r Options,
    pub(crate) log: Log<'r>,
    /// The git to run, in the common directory.
    pub(crate) git: Git,
}

impl<'r> Site<'r> {
    pub(crate) fn new(repo: &'r Repository, state: &'r StateDir, options: &'r Options, here: &ExecContext) -> Site<'r> {
        Site {
            repo,
            state,
            options,
            log: Log::new(state, &here.boot, Wait::UpTo(PATIENCE)),
            git: Git::new(&options.git_program).at(&repo.common_dir),
        }
    }
}
