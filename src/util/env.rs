//! The environment variables by which processes of ours know each other.

/// Set for the git of an `apply`: the transaction that its hooks belong to.
pub(crate) const WITHIN: &str = "JIN_TXN_TX";

/// Set for the git of an `undo` or `redo`: what it reverses.
pub(crate) const REVERSES: &str = "JIN_TXN_REVERSES";

/// Set for the processes of a run: its mark.
pub(crate) const RUN: &str = "JIN_TXN_RUN";
