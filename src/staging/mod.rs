//! Files of a transaction: staged before the commit point, put into place behind it.

pub(crate) mod branch_log;
pub(crate) mod checkout;
pub(crate) mod image;
pub(crate) mod own;
pub(crate) mod place;
pub(crate) mod stage;
pub(crate) mod states;
pub(crate) mod worktree;
