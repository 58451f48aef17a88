//! Any command as one transaction.

#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

mod support;

#[path = "run/kills.rs"]
mod kills;

#[path = "run/processes.rs"]
mod processes;

#[path = "run/restoring.rs"]
mod restoring;
