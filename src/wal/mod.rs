//! The write-ahead log: what a transaction is about to do, on disk before it may do it.
//!
//! [`record`] and [`files`] are the format and [`scan`] reads a segment (no I/O), [`log`] appends and scans, [`rotate`]
//! rotates and drops.
//!
//! A record counts only if its checksum matches. A bad *tail* (nothing valid behind it) is a torn write:
//! it is cut off. A bad line with valid ones behind it is damage, and so is a number that is missing: it is reported, never
//! skipped in silence.

pub mod rotate;
pub mod files;
mod head;
pub mod log;
pub mod record;
pub mod scan;

pub use files::{FileChange, FileImage, FileMode};
pub use log::{Flush, Log};
pub use record::{Begin, Body, Checkout, Lsn, Outcome, Record, RefChange, Rename, Reversal, Watched};
pub use scan::{Damage, Scan};
