//! Any command as one transaction.

mod processes;
mod restoring;
mod review;
