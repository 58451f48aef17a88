//! Files: reading with errors that name them, writing durably, and never leaving a directory by a link.

pub mod beneath;
pub mod durable;
pub mod identity;
pub mod named;

pub use identity::{Birth, FileId, read_small, with_suffix};

pub(crate) use identity::absent_is_none;
