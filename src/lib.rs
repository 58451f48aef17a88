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
//! The program `jin-txn` is the main user of this crate. For other programs there is [`Transaction`]: refs *and* files, all of
//! them or none, as `jin-txn apply` makes them. How the crate is built, with its invariants, is in `ARCHITECTURE.md`.

#![forbid(unsafe_code)]
// What users of the library need is re-exported below; everything else is for this crate.
#![cfg_attr(not(test), warn(unreachable_pub))]

mod apply;
mod cli;
mod fs;
mod git;
mod hook;
mod locks;
mod observe;
mod process;
mod recovery;
mod rescue;
mod run;
mod setup;
mod staging;
mod state;
mod trust;
mod undo;
mod util;
mod wal;
mod watch;

pub use apply::queue::{Clash, Deref, Expected};
pub use apply::unmet::{Unmet, UnmetItem};
pub use apply::{Committed, Prepared, Transaction};
pub use fs::beneath::path::{BadPath, RelPath};
pub use fs::identity::FileId;
pub use git::name::{BadName, RefName};
pub use git::oid::Oid;
pub use git::refs::Value;
pub use git::repository::{NotFound, RefFormat, Repository};
pub use staging::stage::Source;
pub use staging::worktree::NoWorktree;
pub use state::flock::Busy;
pub use state::id::TxId;
pub use wal::files::{FileChange, FileImage, FileMode};
pub use wal::record::RefChange;

#[doc(hidden)]
pub use cli::entry::main;

/// Formats and readers, for our own tests and fuzzers: anything in here may change at any time.
#[doc(hidden)]
pub mod internals {
    pub use crate::apply::language::{Ends, Item, Parser};
    pub use crate::apply::manifest;
    pub use crate::cli::accepts;
    pub use crate::git::config_files::include_paths;
    pub use crate::git::index_file::{Found as IndexFound, entries as index_entries};
    pub use crate::git::packed_refs::PackedRefs;
    pub use crate::git::refs::RefSnapshot;
    pub use crate::observe::payload::Payload;
    pub use crate::process::owner::{ExecContext, Owner, Process};
    pub use crate::run::manifest::Manifest as Snapshot;
    pub use crate::state::directory::StateDir;
    pub use crate::state::kind::TxKind;
    pub use crate::state::marker::{Marker, PayloadKey, Phase};
    pub use crate::util::text::{escape, unescape};
    pub use crate::wal::codec;
    pub use crate::wal::record::{Begin, Body, Checkout, Outcome, Record, Reversal, Watched};
    pub use crate::wal::scan::{Bounds, Scan, read_segment};
}
