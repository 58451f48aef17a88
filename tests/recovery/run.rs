//! Any command as one transaction.

mod behind_hooks;
mod formats;
mod processes;
pub mod restoring;
mod review;
