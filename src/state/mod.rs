//! `.jin/`: the state directory, its locks, the markers in it and what `install` wrote down.

pub mod directory;
pub mod id;
pub mod kind;
pub mod marker;
pub(crate) mod quarantine;
pub mod settings;

pub use id::TxId;
pub use kind::TxKind;
