//! The write-ahead log: what a transaction is about to do, on disk before it may do it.
//!
//! [`record`] and [`files`] are the format (no I/O), [`log`] appends and scans, [`checkpoint`] rotates and drops.
//!
//! A record counts only if its checksum matches. A bad *tail* (nothing valid behind it) is a torn write:
//! it is cut off. A bad line with valid ones behind it is damage: it is reported, never skipped in silence.

pub mod checkpoint;
pub mod files;
mod head;
pub mod log;
pub mod record;

pub use files::{FileChange, FileImage, FileMode};
pub use log::{Log, Scan, Sync};
pub use record::{
    Begin, Birth, Body, Checkout, Lsn, Origin, Outcome, Record, RefChange, Rename, Reversal, Settled, Watched,
};
