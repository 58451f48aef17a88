//! Crashes: a tracer kills real git and jin-txn at file-system changes, and recovery has to make whole what is left.

#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

mod after_reboot;
mod apply_kills;
mod classical_points;
mod concurrency;
mod crash_states;
mod halfway;
mod kill_table;
mod run_kills;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod tracer;
mod undo_kills;
mod watch_kills;
