//! What a transaction is to do: collected and checked for sense, without touching anything.

use std::collections::BTreeSet;

use crate::fs::beneath::RelPath;
use crate::git::refs::Value;
use crate::git::{Oid, RefName};
use crate::staging::stage::Source;
use crate::wal::FileMode;

/// What has to be there for the transaction to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// A ref with this value, or a file whose bytes are this blob.
    Exactly(Oid),
    /// A symbolic ref to this one.
    PointsTo(RefName),
    /// Whatever: it is not looked at.
    Anything,
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expected::Absent => f.write_str("absent"),
            Expected::Exactly(oid) => oid.fmt(f),
            Expected::PointsTo(target) => write!(f, "ref: {target}"),
            Expected::Anything => f.write_str("anything"),
        }
    }
}

/// Is a symbolic ref followed to what it points to?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deref {
    /// Yes: an update of `HEAD` is one of its branch.
    Yes,
    /// No: the symbolic ref itself is meant.
    No,
}

/// What becomes of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RefTo {
    /// This value.
    Value(Value),
    /// Nothing: it only has to be as expected, and stay so.
    Same,
}

/// One ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefItem {
    /// As the caller named it, from the worktree of the repository.
    pub name: RefName,
    pub to: RefTo,
    pub expected: Expected,
    pub deref: Deref,
}

/// What a file becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// These bytes.
    Of(Source),
    /// What a checkout would write of this blob.
    Checkout(Oid),
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileItem {
    pub path: RelPath,
    /// `None`: it is removed.
    pub to: Option<(FileMode, Content)>,
    pub expected: Expected,
}

/// Two items that cannot both happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// One ref twice.
    #[error("{0} is named twice")]
    Ref(RefName),
    /// One path twice.
    #[error("the file `{0}` is named twice")]
    File(RelPath),
    /// A file, and something below it.
    #[error("`{0}` cannot be a file while `{1}` is one in it")]
    Below(RelPath, RelPath),
}

/// Finds two operations on one path, and a file that another one's directory would have to be.
pub(crate) fn clash_of_files<'p>(paths: impl Iterator<Item = &'p RelPath>) -> Option<Clash> {
    let mut seen = BTreeSet::new();
    for path in paths {
        if !seen.insert(path.clone()) {
            return Some(Clash::File(path.clone()));
        }
    }
    for path in &seen {
        if let Some(file) = path.ancestors().find(|dir| seen.contains(dir)) {
            return Some(Clash::Below(file, path.clone()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_operations_on_one_path_are_found_whatever_lies_between_them() {
        for (paths, clash) in [
            (vec!["a", "b", "a/b/c"], Some("`a` cannot be a file while `a/b/c` is one in it")),
            // `a-b` sorts between `a` and `a/b`.
            (vec!["a/b", "a-b", "a"], Some("`a` cannot be a file while `a/b` is one in it")),
            (vec!["x", "y", "x"], Some("the file `x` is named twice")),
            (vec!["a/b", "a/c", "ab"], None),
        ] {
            let paths: Vec<RelPath> = paths.iter().map(|p| RelPath::parse(p.as_bytes()).unwrap()).collect();
            assert_eq!(clash_of_files(paths.iter()).map(|c| c.to_string()).as_deref(), clash, "{paths:?}");
        }
    }
}
