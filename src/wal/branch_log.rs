//! The reflog of a branch that is renamed by a transaction of ours.

use serde::{Deserialize, Serialize};

use crate::fs::FileId;
use crate::git::RefName;

/// The branch `from` goes, and `to` comes with this reflog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BranchLog {
    /// The name that goes.
    pub from: RefName,
    /// The name that comes.
    pub to: RefName,
    /// The new reflog: staged, and under its second name `refs/heads/<to>.lock`. An empty one stands for none.
    pub after: FileId,
}

impl BranchLog {
    /// What HEAD's reflog says when HEAD follows, in the words of `git branch -m`.
    #[must_use]
    pub fn message(&self) -> String {
        message(&self.from, &self.to)
    }
}

/// What git writes into the reflogs of a branch that it renames.
pub(crate) fn message(from: &RefName, to: &RefName) -> String {
    format!("Branch: renamed {from} to {to}")
}
