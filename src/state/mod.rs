//! `.jin/`: the state directory, its locks, the markers in it and what `install` wrote down.

pub(crate) mod directory;
pub(crate) mod flock;
pub(crate) mod id;
pub(crate) mod identity;
pub(crate) mod kept;
pub(crate) mod kind;
pub(crate) mod marker;
mod mend;
pub(crate) mod notes;
pub(crate) mod quarantine;
pub(crate) mod settings;
pub(crate) mod told;

pub(crate) use directory::StateDir;
pub(crate) use flock::{Busy, Wait};
pub(crate) use id::TxId;
pub(crate) use identity::RepositoryId;
pub(crate) use kind::TxKind;
pub(crate) use notes::Durability;
pub(crate) use settings::WatchMode;
