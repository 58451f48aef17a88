//! Getting git to call us, and what `install` writes down. Nothing here prints or reads the environment.

pub mod alias;
pub mod chaining;
pub mod configured;
pub mod fsync;
pub mod hooks;
pub mod installed;
pub mod names;
pub mod path;
pub mod places;
pub mod preferences;
pub mod protect;
pub mod settings;
pub mod shim;
pub mod submodules;
pub mod template;
pub mod unprotect;
