//! All that knows git's own files: where a repository lies, how refs, reflogs and locks look on disk.
//!
//! Reading happens here without child processes (hooks are called several times in every command); refs are *written* only by
//! git itself ([`update_refs`]), and every git is started by [`exec`].

pub(crate) mod branch_config;
pub(crate) mod cat_file;
pub(crate) mod config;
pub(crate) mod config_files;
pub(crate) mod exec;
pub(crate) mod filtered;
pub(crate) mod hash;
pub(crate) mod index;
pub(crate) mod index_file;
pub(crate) mod index_write;
pub(crate) mod name;
pub(crate) mod objects;
pub(crate) mod oid;
pub(crate) mod openable;
pub(crate) mod packed_refs;
pub(crate) mod plumbing;
pub(crate) mod reflog;
pub(crate) mod refs;
pub(crate) mod repository;
mod switched_off;
pub(crate) mod update_refs;

pub(crate) use config::Config;
pub(crate) use exec::Git;
pub(crate) use oid::Oid;
pub(crate) use plumbing::{ConfigQuery, Plumbing};
pub(crate) use refs::{RefName, RefStore, Value};
pub(crate) use repository::{RefFormat, Repository};
pub(crate) use switched_off::CONFIGURATION;
