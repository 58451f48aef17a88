//! The write-ahead log: what a transaction is about to do, on disk before it may do it.
//!
//! | file | |
//! | --- | --- |
//! | `record`, `files`, `kept`, `branch_log` | what a record says |
//! | [`codec`] | a record as bytes; no I/O |
//! | `segments` | the files of the log: naming, finding, reading, the torn tail |
//! | [`scan`] | which records of a segment count, and what is missing; no I/O |
//! | `head` | `log-head`: where the log ends |
//! | `rotate` | a new segment; old ones go |
//! | `renew` | a damaged or lost log is set aside, and begun anew |
//! | `log` | appending, under `append.lock` |
//!
//! A record counts only if its checksum matches. A bad *tail* (nothing valid behind it) is a torn write:
//! it is cut off. A bad line with valid ones behind it is damage, and so is a number that is missing: both are reported.

mod branch_log;
pub mod codec;
pub(crate) mod files;
mod head;
mod kept;
mod log;
mod operations;
pub(crate) mod record;
mod renew;
mod rotate;
pub(crate) mod scan;
mod segments;

pub(crate) use branch_log::{BranchLog, message as rename_message};
pub(crate) use files::{FileChange, FileImage, FileMode};
pub(crate) use kept::KeptPart;
pub(crate) use log::{Flush, Log};
pub(crate) use operations::{CheckedOut, Operations, Place};
pub(crate) use record::{
    Begin, Body, Checkout, Doer, Lsn, NewFile, Outcome, Record, RefChange, Rename, Reversal, Seal, Sequence,
    StateChange, Watched,
};
pub(crate) use scan::Scan;
