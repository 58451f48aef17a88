//! # jin-txn: crash-safe transactions for Git
//!
//! git applies a ref transaction ref by ref; killed in between it leaves some refs changed, others not, and lock
//! files that block the next command. This crate logs every ref transaction before git may apply it, and after a
//! crash brings the repository to where the transaction happened wholly or not at all.
//!
//! ```text
//!             git calls                       git calls
//!             `prepared`                      `committed`
//!   locks ───▶ log `begin`, fsync ───▶ git ───▶ log `committed`, fsync ───▶ clean up
//!     │              │                  │                    │
//!  a crash        a crash            a crash              a crash
//!  here: stale    here: nothing      here: all applied?   here: clean up
//!  locks go       happened: locks    committed. Some?
//!                 go                 rolled back
//! ```
//!
//! Read the modules in this order: [`named`] (errors that name files), [`durable`] (the only door to disk), [`beneath`] (the same for a
//! worktree), [`checksum`], [`owner`]
//! (who is alive), [`git`] (how repositories look), [`settings`], [`state_dir`], [`marker`], [`wal`] (what we keep), [`hook`] (the
//! protocol with git), [`recovery`] (evidence, plan, execution), [`txn`] (declared refs and files as one transaction), [`run`]
//! (any command as one), [`undo`]. [`cli`] is the surface.
//!
//! # Invariants
//! - I1 nothing executes before its record is durable
//! - I2 after recovery every transaction is wholly before or wholly after
//! - I3 no acknowledged transaction is lost: to a killed process always, to a power cut on ext4, XFS and btrfs
//! - I4 no ref names an object that is missing or corrupt
//! - I5 no lock of a dead owner remains where proof is possible; no lock of a live one is touched
//! - I6 recovery twice is recovery once; killed anywhere and run again it comes to the same end
//! - I7 somebody else's value is never overwritten; no ref is deleted without proof
//! - I8 uncommitted work is never lost by us
//! - I9 damage of the log never goes unnoticed and never panics
//! - I10 nothing outside of the git directory and the worktree is written, whatever the log says
//! - I11 a healthy repository sees no output
//! - I12 log, markers and quarantine stay bounded

#![forbid(unsafe_code)]

pub mod apply;
pub mod cli;
pub mod fs;
pub mod git;
pub mod hook;
pub mod locks;
pub mod observe;
pub mod process;
pub mod recovery;
pub mod run;
pub mod setup;
pub mod staging;
pub mod state;
pub mod undo;
pub mod util;
pub mod wal;
