//! The environment variables by which processes of ours know each other.

/// Set for the git of an `apply`: the transaction that its hooks belong to.
pub const WITHIN: &str = "JIN_TXN_TX";

/// Set for the git of an `undo` or `redo`: what it reverses.
pub const REVERSES: &str = "JIN_TXN_REVERSES";

/// Set for the processes of a run: its mark.
pub const RUN: &str = "JIN_TXN_RUN";
