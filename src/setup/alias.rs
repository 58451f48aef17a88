//! `git txn`.

use std::path::PathBuf;

use camino::Utf8Path;

use crate::util::text::shell_quoted;

/// The setting.
pub(crate) const KEY: &str = "alias.txn";

/// The setting of `git tx`.
pub(crate) const RUN_KEY: &str = "alias.tx";

/// What `git txn` runs.
pub(crate) fn command(binary: &Utf8Path) -> String {
    format!("!{}", shell_quoted(binary.as_str()))
}

pub(crate) fn is_ours(alias: &str) -> bool {
    alias.starts_with('!') && alias.contains("jin-txn")
}

/// The program that an alias of ours runs.
pub(crate) fn program(alias: &str) -> Option<PathBuf> {
    shlex::split(alias.strip_prefix('!')?)?.into_iter().next().map(PathBuf::from)
}
