//! `.jin/`: the state directory, its locks, the markers in it and what `install` wrote down.

pub mod directory;
pub mod flock;
pub mod id;
pub mod kind;
pub mod marker;
pub mod notes;
pub(crate) mod quarantine;
pub mod settings;

pub use directory::StateDir;
pub use flock::{Busy, Wait};
pub use id::TxId;
pub use kind::TxKind;
pub use notes::Durability;
