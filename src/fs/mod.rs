//! Files: reading with errors that name them, writing durably, and never leaving a directory by a link.

pub(crate) mod access;
pub(crate) mod beneath;
pub(crate) mod create;
pub(crate) mod door;
pub(crate) mod durable;
pub(crate) mod identity;
pub(crate) mod moving;
pub(crate) mod named;

pub(crate) use identity::{Birth, FileId, read_ref, read_small, unreadable_is_none, with_suffix};

pub(crate) use identity::absent_is_none;
