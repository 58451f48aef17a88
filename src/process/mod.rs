//! Processes: who makes a transaction, is it alive, what is it told to do, and what
//! does it see of the file system.

pub(crate) mod caller;
pub(crate) mod credentials;
pub(crate) mod daemon;
pub(crate) mod git_argv;
pub(crate) mod operation;
pub(crate) mod owner;
pub(crate) mod redact;
pub(crate) mod view;
pub(crate) mod words;
