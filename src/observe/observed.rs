//! A transaction as it was observed.

use crate::fs::FileId;
use crate::git::RefName;
use crate::git::refs::ResolvedRef;
use crate::wal::{RefChange, Watched};

/// A transaction as observed at `prepared`.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// Refs whose visible value changes.
    pub changes: Vec<RefChange>,
    /// Refs that are locked or logged only.
    pub watched: Vec<Watched>,
    /// Loose files that are about to go because `packed-refs` has the same value.
    pub pruned: Vec<(RefName, ResolvedRef)>,
    /// Loose files that are about to go although `packed-refs` does not have their value: deleted and made again since it was
    /// packed, with the same value, which is all that git asks for.
    pub lost: Vec<RefName>,
    /// Names that we would not make, as text: they are git's alone.
    pub left: Vec<String>,
    /// `packed-refs.lock`, when git had to take it for a deletion.
    pub packed_lock: Option<FileId>,
    /// `index.lock` of the worktree.
    pub index_lock: Option<FileId>,
}
