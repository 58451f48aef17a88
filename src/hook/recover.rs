//! What a hook asks of recovery.
//!
//! A hook recovers only what needs no lock of the git that called it, and waits for another runner only where git would
//! build on what that one recovers.

use std::time::Duration;

use crate::git::{RefName, Repository};
use crate::hook::call::{Call, Event};
use crate::hook::{Environment, Reply, announce};
use crate::recovery::{self, Mode, Options, copied};
use crate::state::{Busy, Wait};

pub(super) use crate::recovery::{
    REPLACED_INDEX, SAVED_INDEX, any_unfinished_worktree, could_make_it, is_abandoned, is_verified, liveness_of,
    saved_log_name,
};

/// How long a change waits for another process that recovers what the change would build on.
const LONGEST_RECOVERY: Duration = Duration::from_secs(2);

/// What recovery found and did.
#[derive(Default)]
pub(super) struct Recovered {
    pub(super) messages: Vec<String>,
    /// The refs that got another value.
    pub(super) refs_moved: Vec<RefName>,
    /// Something is left that git must not build on.
    pub(super) must_wait: bool,
    /// The index of this worktree was finished: a git that uses an index has read the old one.
    pub(super) index_finished: bool,
}

impl Call<'_> {
    /// Nobody has looked yet after what the last boot left.
    pub(super) fn needs_boot_check(&self) -> anyhow::Result<bool> {
        Ok(!is_verified(&self.listing, &self.state)?)
    }

    pub(super) fn recover_before_locks(&self) -> anyhow::Result<Recovered> {
        self.recover(Mode::Preparing)
    }

    /// While git holds the locks of `refs`.
    pub(super) fn recover_under_locks(&self, refs: Vec<RefName>) -> anyhow::Result<Recovered> {
        self.recover(Mode::Prepared { refs })
    }

    /// After git released its locks.
    pub(super) fn recover_if(&self, wanted: bool) -> anyhow::Result<Reply> {
        if !wanted {
            return Ok(Reply::go());
        }
        Ok(Reply::go_saying(self.recover(Mode::AfterTransaction)?.messages))
    }

    fn recover(&self, mode: Mode) -> anyhow::Result<Recovered> {
        if self.environment.quarantined && self.event != Event::Receiving {
            return Ok(Recovered::default());
        }
        let options = options(self.environment, mode);
        let done = match recovery::recover(&self.repo, &options) {
            Err(error) if error.is::<Busy>() && self.builds_on_recovery(&options)? => {
                if announce::is_wanted(&self.environment.watch, &self.repo) {
                    announce::let_go(&self.environment.watch, &self.repo);
                }
                recovery::recover(&self.repo, &Options { wait: Wait::UpTo(LONGEST_RECOVERY), ..options.clone() })
            }
            done => done,
        };
        match done {
            Ok(report) => {
                let (messages, must_wait) = (report.headlines(), report.must_wait);
                let index_finished = report.indexes_finished.contains(&self.repo.git_dir);
                Ok(Recovered { messages, refs_moved: report.refs_moved, must_wait, index_finished })
            }
            Err(error) if error.is::<Busy>() => {
                let must_wait = self.builds_on_recovery(&options)?;
                let line = "jin-txn: another process recovers what this change would build on".to_owned();
                let messages = if must_wait { vec![line] } else { Vec::new() };
                Ok(Recovered { messages, must_wait, ..Recovered::default() })
            }
            Err(error) => Err(error),
        }
    }
}

impl Call<'_> {
    /// After a reboot the refs of this very transaction may be older than what was acknowledged: nothing may be built on them
    /// before that is known. Nor on what the dead have changed in part.
    fn builds_on_recovery(&self, options: &Options) -> anyhow::Result<bool> {
        Ok(self.needs_boot_check()? || recovery::is_in_the_way(&self.repo, options)?)
    }
}

/// A state directory that was copied is emptied before anything in it is believed. What is to be told.
pub(super) fn set_copy_aside(repo: &Repository, environment: &Environment) -> anyhow::Result<Vec<String>> {
    let wait = Wait::UpTo(LONGEST_RECOVERY);
    let told = copied::set_aside(repo, &Options { wait, ..options(environment, Mode::AfterTransaction) })?;
    Ok(told.into_iter().map(|line| format!("jin-txn: {line}")).collect())
}

/// No lock of this git is left, and nothing is built on the result: another runner is not waited for.
pub(super) fn after_checkout(repo: &Repository, environment: &Environment) -> anyhow::Result<Vec<String>> {
    match recovery::recover(repo, &options(environment, Mode::AfterTransaction)) {
        Ok(report) => Ok(report.headlines()),
        Err(error) if error.is::<Busy>() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn options(environment: &Environment, mode: Mode) -> Options {
    let objects_elsewhere = environment.objects_elsewhere;
    Options { mode, objects_elsewhere, ..Options::new(environment.git_program.clone()) }
}
