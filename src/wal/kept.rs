//! What a hook has kept for the undo of an operation, or could not keep. What is kept is swept in the end: without this, what has been
//! swept could not be told from what there never was.

use serde::{Deserialize, Serialize};

/// One kind of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptPart {
    /// The state files of what was in progress.
    States,
    /// There were some, and they could not be kept.
    StatesLost,
    /// There were some, which the operation itself, or its run, had made.
    StatesOfItself,
    /// The index before it.
    Index,
    /// The index that the operation before had left.
    LastIndex,
    /// Configuration sections of branches.
    Sections,
    /// There may have been some, and they could not be kept.
    SectionsLost,
    /// The log of refs/stash before it.
    StashLog,
    /// The names of files that were not as the index had them.
    Modified,
    /// Nothing, but git had put changes away (`--autostash`): what was staged is not in the index.
    Autostash,
    /// Nothing, but git worked in another worktree than that of the repository.
    Elsewhere,
}
