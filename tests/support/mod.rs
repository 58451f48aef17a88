//! What the tests with real processes and real crashes share.
//!
//! `tracer` kills a tree of processes at a chosen file-system change. `repo` builds hermetic repositories, `operations` lists
//! the commands that are killed, `snapshot` says what a repository holds, `invariants` judges what a crash left behind,
//! `point` runs one crash, `table` runs many and prints them.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

pub mod tracer;

pub mod repo;

pub mod snapshot;

pub mod operations;

pub mod invariants;

pub mod probes;

pub mod point;

pub mod table;
