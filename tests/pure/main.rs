//! What needs no git: formats, the layout of the sources, the fuzzers' corpora, the documentation.

#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

mod docs;
mod encoding;
mod fuzz_corpus;
mod layers;
mod messages;
