//! What knows nothing of git or of transactions.

pub mod checksum;
pub mod clock;
pub mod env;
pub mod text;
