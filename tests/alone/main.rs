//! Tests that run one at a time: each has a git that hangs, or one in a mount namespace of its own, whose repository nobody
//! else can determine. Every recovery on the machine leaves locks alone because of it. So these stay in a binary of their own.

#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

mod collecting_garbage;
mod impatient;
mod scratch;
mod small_disk;
#[path = "../support/mod.rs"]
mod support;
mod waiting_editors;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by a test until it ends.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
