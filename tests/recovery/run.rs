//! Any command as one transaction.

mod processes;
pub mod restoring;
mod review;
