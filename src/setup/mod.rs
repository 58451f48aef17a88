//! Getting git to call us, and what `install` writes down. Nothing here prints or reads the environment.

pub(crate) mod alias;
pub(crate) mod chaining;
pub(crate) mod configured;
pub(crate) mod former;
pub(crate) mod fsync;
pub(crate) mod hooks;
pub(crate) mod installed;
pub(crate) mod names;
pub(crate) mod path;
pub(crate) mod places;
pub(crate) mod preferences;
pub(crate) mod protect;
pub(crate) mod settings;
pub(crate) mod shim;
pub(crate) mod submodules;
pub(crate) mod template;
pub(crate) mod unprotect;
pub(crate) mod watch_unit;
