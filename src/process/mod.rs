//! Processes: who makes a transaction, is it alive, and what is it told to do.

pub(crate) mod caller;
pub(crate) mod credentials;
pub(crate) mod git_argv;
pub(crate) mod owner;
pub(crate) mod redact;
