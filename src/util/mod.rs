//! What knows nothing of git or of transactions.

pub(crate) mod checksum;
pub(crate) mod clock;
pub(crate) mod date;
pub(crate) mod env;
pub(crate) mod quoted;
pub(crate) mod text;
