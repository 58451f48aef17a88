//! Recovery and what it meets: live owners, third parties, damage, other ref formats; runs, `apply` and `undo` as they are used.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it says")]
#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

mod apply;
mod hostile_log;
mod hostile_repository;
mod hostile_run;
mod log_damage;
mod looking;
mod receiving;
mod reftable;
mod rescue;
mod restore;
mod run;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod told;
mod traps;
mod undo;
mod watch;
