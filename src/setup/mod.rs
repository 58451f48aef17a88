//! Getting git to call us, and what `install` writes down.

pub mod chaining;
pub mod configured;
pub mod hooks;
pub mod places;
pub mod preferences;
pub mod settings;
