//! What the tests with real processes and real crashes share.
//!
//! `tracer` kills a tree of processes at a chosen file-system change. `repo` builds hermetic repositories, `operations` lists
//! the commands that are killed, `snapshot` says what a repository holds, `invariants` judges what a crash left behind,
//! `point` runs one crash, `crash` one at a place that has a name, `table` runs many and prints them.
//! `reboot` shows a program another boot, `faults` lets its system calls fail, `hanging` has a git that hangs in the middle, `hostile` a repository in which somebody forges,
//! `terminal` types into a program at a terminal, `http` serves repositories, `observe` says what a person sees of a run, and
//! what it changed, `states` enumerates what a power cut may leave, `scenes` has runs to be killed, `count` tells what hook calls
//! cost, `workers` run commands that somebody kills at random, `wait` waits for other processes, `watch` has a watch, `apply` has a transaction of
//! refs and files.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

pub mod apply;
pub mod count;
pub mod crash;
pub mod faults;
pub mod hanging;
pub mod hostile;
pub mod http;
pub mod invariants;
pub mod observe;
pub mod operations;
pub mod point;
pub mod probes;
pub mod reboot;
pub mod repo;
pub mod scenes;
pub mod snapshot;
pub mod states;
pub mod table;
pub mod terminal;
pub mod tracer;
pub mod wait;
pub mod watch;
pub mod workers;
pub mod worktree;
