//! What git calls: the `reference-transaction`, `post-checkout` and, where it is pushed to, `pre-receive` hooks.
//!
//! ```text
//! pre-receive        what `preparing` does before git 2.54: recover before git locks
//! preparing (2.54+)  recover if something is unfinished or a lock is stale; announce in a marker
//! prepared           read before-images; marker; log `begin` + fsync; only then let git go on
//! committed          judge from the refs; log `committed` + fsync; marker away
//! aborted            log `aborted`; marker away; recover what had to wait for these locks
//! post-checkout      the check; log the checkout
//! ```
//! Only `preparing` and `prepared` can veto. A hook that has nothing to do starts no process, writes
//! nothing and syncs nothing.
//!
//! Limit: what git changes without calling a hook (index, worktree, `stash drop` of an older entry, reflog
//! expiry, other implementations of git) is not seen here.

pub(crate) mod announce;
mod begin;
mod call;
pub(crate) mod chain;
pub(crate) mod dispatch;
mod ended;
mod keep;
mod markers;
mod modified;
mod nested;
mod post_checkout;
mod prepared;
mod preparing;
mod preserve;
mod recover;
mod testify;
mod unmoved;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::git::Repository;
use crate::git::repository::NotFound;
use crate::state::TxId;
use crate::trust::Notes;
use crate::wal::Reversal;

/// What a hook takes from its environment; read once, in `main`.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    /// `GIT_DIR`.
    pub git_dir: Option<PathBuf>,
    /// The current directory.
    pub cwd: PathBuf,
    /// The git program for recovery, absolute or a name to look up in `PATH`.
    pub git_program: PathBuf,
    /// Where this user's notes are: a hook that makes `.jin` writes one.
    pub notes: Option<Notes>,
    /// `GIT_QUARANTINE_PATH` is set: objects are not yet part of the repository, refs must not change.
    pub quarantined: bool,
    /// `GIT_OBJECT_DIRECTORY` or `GIT_ALTERNATE_OBJECT_DIRECTORIES` is set: objects lie elsewhere, too.
    pub objects_elsewhere: bool,
    /// Another git has started the one that calls.
    pub nested: bool,
    /// `JIN_TXN_REVERSES`: our own `undo` or `redo` started this git.
    pub reverses: Option<Reversal>,
    /// `JIN_TXN_RUN`: the runs that started this git.
    pub runs: Option<String>,
    /// Whether, and where, the watch is told of this git.
    pub watch: announce::Caller,
    /// `JIN_TXN_TX`: one of our own transactions may have started this git.
    pub within: Option<TxId>,
}

impl Environment {
    /// The repository that git called the hook for.
    pub(crate) fn repository(&self) -> Result<Repository, NotFound> {
        if self.git_dir.is_none()
            && let Some(repo) = Repository::in_current_dir(&self.cwd)
        {
            return Ok(repo);
        }
        Repository::of_environment(self.git_dir.as_deref(), &self.cwd)
    }

    /// Is the repository being made? `git init` calls hooks that come from its template before there is all that a git
    /// directory has, and nothing can be lost yet.
    pub(crate) fn repository_is_being_made(&self) -> bool {
        let git_dir = self.git_dir.as_ref().map(|dir| self.cwd.join(dir));
        let lacks = |dir: &PathBuf| ["HEAD", "objects", "refs"].iter().any(|n| dir.join(n).symlink_metadata().is_err());
        git_dir.is_some_and(|dir| dir.is_dir() && !dir.join("commondir").exists() && lacks(&dir))
    }
}

/// May git go on?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Yes.
    Go,
    /// No: nothing is changed.
    Veto,
}

/// The answer of a hook, with the lines to show. A healthy repository sees none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// May git go on?
    pub answer: Answer,
    /// Lines for stderr.
    pub messages: Vec<String>,
}

impl Reply {
    /// The exit code of the hook.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.answer {
            Answer::Go => 0,
            Answer::Veto => 1,
        }
    }

    /// Go on, in silence.
    pub(crate) fn go() -> Reply {
        Reply { answer: Answer::Go, messages: Vec::new() }
    }

    fn go_saying(messages: Vec<String>) -> Reply {
        Reply { answer: Answer::Go, messages }
    }

    fn veto(messages: Vec<String>) -> Reply {
        Reply { answer: Answer::Veto, messages }
    }
}

fn os_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
