//! What injects or counts system calls. In a binary of its own: the figures and places are those of quiet surroundings.

#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

mod failing_calls;
mod price;
#[path = "../support/mod.rs"]
mod support;
