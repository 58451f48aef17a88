//! All that knows git's own files: where a repository lies, how refs, reflogs and locks look on disk.
//!
//! Reading happens here without child processes (hooks are called several times in every command); refs are *written* only by
//! git itself ([`update_refs`]), and every git is started by [`exec`].

pub mod cat_file;
pub mod config;
pub mod exec;
pub mod hash;
pub mod index;
pub mod name;
pub mod objects;
pub mod oid;
pub mod packed_refs;
pub mod reflog;
pub mod refs;
pub mod repository;
pub mod update_refs;

pub use config::Config;
pub use exec::Git;
pub use oid::Oid;
pub use refs::{RefName, RefStore, Value};
pub use repository::{RefFormat, Repository};
