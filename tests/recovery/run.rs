//! Any command as one transaction.

mod afterwards;
mod behind_hooks;
mod every_command;
mod formats;
mod git_directory;
mod killed;
mod left_running;
mod processes;
pub mod restoring;
mod review;
mod tx;
