//! Lock files: where git makes them, who could hold them, and when one may go.
//!
//! ```text
//! find ──▶ proof (holders) ──▶ DeadLock ──▶ remove | finish
//! ```
//! *Where may a lock be removed?* Only in [`remove`], and only with a `DeadLock`, which only [`proof`] makes.

pub(crate) mod at_work;
pub(crate) mod find;
pub(crate) mod holders;
pub(crate) mod proof;
pub(crate) mod remove;
pub(crate) mod seen;
pub(crate) mod works_here;

pub(crate) use find::{Depth, LockFile, find, links, well_known};
pub(crate) use holders::Holder;
pub(crate) use proof::{DeadLock, Judge, Known, KnownDead, Verdict};
pub(crate) use remove::{InTheWay, while_holding};
pub(crate) use seen::{Seen, SeenLock};
