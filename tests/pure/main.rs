//! What needs no git: formats, the recovery plan against a model, the fuzzers' corpora, the documentation.

#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

mod docs;
mod encoding;
mod fuzz_corpus;
mod plan_model;
