//! The reflog of a branch that is renamed: planned, staged, compared under git's locks, put into place.

use anyhow::Context;

use crate::apply::Open;
use crate::fs::access::Purpose;
use crate::fs::{durable, named as fs};
use crate::git::{RefName, RefStore, Repository};
use crate::staging::branch_log;
use crate::staging::own::read_log;
use crate::staging::place::Placed;
use crate::state::{StateDir, TxId};
use crate::wal::BranchLog;

/// A branch gets another name, and takes its reflog along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogMove {
    pub from: RefName,
    pub to: RefName,
    /// The reflog of `from`.
    pub before: Option<Vec<u8>>,
    /// The reflog that `to` gets.
    pub after: Option<Vec<u8>>,
}

impl LogMove {
    /// Stages the one and keeps the other.
    pub(super) fn stage(&self, repo: &Repository, state: &StateDir, id: TxId) -> anyhow::Result<BranchLog> {
        let path = RefStore::new(repo).log(&self.from);
        let staged = branch_log::stage(repo, (state, id), &path, self.before.as_deref(), self.after.as_deref())?;
        let after = staged.context("the staged reflog has gone")?;
        Ok(BranchLog { from: self.from.clone(), to: self.to.clone(), after })
    }

    /// While git has locked both names: are the reflogs those on which it was planned?
    pub(super) fn require_as_planned(&self, repo: &Repository) -> anyhow::Result<()> {
        let refs = RefStore::new(repo);
        let is_same = read_log(&refs.log(&self.from))? == self.before;
        // A directory of the other name may be there.
        let is_free = fs::symlink_metadata(refs.log(&self.to)).map_or(true, |found| found.is_dir());
        anyhow::ensure!(
            is_same && is_free,
            "the reflog of {} or {} has just changed\nhint: nothing was changed; run this again",
            self.from,
            self.to
        );
        Ok(())
    }
}

impl Open {
    /// Behind the change of the refs. git has appended to the reflog while it held the lock of the ref, and so do we.
    pub(super) fn place_branch_log(&mut self) -> anyhow::Result<()> {
        let Some(log) = &self.begin.new_branch_log else { return Ok(()) };
        let of_us = (&self.state, self.id);
        let file = RefStore::new(&self.repo).file(&log.to);
        file.parent().map_or(Ok(()), |parent| durable::make_dirs(parent, Purpose::Git))?;
        self.locks.take(&branch_log::staged(&self.state, self.id), &file)?;
        match branch_log::place(&self.repo, of_us, &self.begin, log)? {
            Placed::Left(why) => anyhow::bail!("the reflog of {}: {why}", log.to),
            Placed::Now | Placed::Already => Ok(()),
        }
    }
}
