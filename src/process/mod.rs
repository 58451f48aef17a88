//! Processes: who makes a transaction, is it alive, and what is it told to do.

pub mod git_argv;
pub mod owner;
