//! Files of a transaction: staged before the commit point, put into place behind it.

pub mod image;
pub mod place;
pub mod stage;
pub mod worktree;
