//! Any command as one transaction.

mod afterwards;
mod behind_hooks;
mod every_command;
mod formats;
mod left_running;
mod processes;
pub mod restoring;
mod review;
