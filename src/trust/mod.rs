//! Whom we trust: the user who runs us, and no file of a repository.
//!
//! ```text
//! a hook                       asks nothing: git has accepted the repository
//! a command that is typed      ownership: the user's own repository, or one that git accepts
//! a surface that nobody asked  ownership and a note: install, or a hook that made .jin, wrote it for this user
//! ```

pub(crate) mod notes;
pub(crate) mod ownership;

pub(crate) use notes::Notes;
pub(crate) use ownership::User;
