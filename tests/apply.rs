//! `jin-txn apply`: refs and files as one transaction, whatever is asked of it and whatever kills it.
//!
//! `JIN_KILL=all cargo test --test apply -- --nocapture` kills at every point and prints how many there were.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it says")]
#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

#[path = "apply/bad_input.rs"]
mod bad_input;
#[path = "apply/crashes.rs"]
mod crashes;
#[path = "apply/scene.rs"]
mod scene;
#[path = "apply/schema.rs"]
mod schema;
mod support;
#[path = "apply/undo.rs"]
mod undo;
#[path = "apply/usual.rs"]
mod usual;
