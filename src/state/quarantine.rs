//! Names in `.jin/quarantine/`, where recovery keeps whatever it moves aside or replaces.

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::{absent_is_none, named as fs};
use crate::state::directory::StateDir;
use crate::util::clock::unix_time;

/// The name of what is moved aside now: when, and what it was.
pub(crate) fn name(what: &str) -> String {
    format!("{}-{}", unix_time(), what.replace('/', "%"))
}

/// A free path in the quarantine for `what`.
pub(crate) fn free_path(state: &StateDir, what: &str) -> io::Result<PathBuf> {
    free_name(&state.quarantine(), &name(what))
}

/// `name` in `dir`, numbered when it is taken.
pub(crate) fn free_name(dir: &Path, name: &str) -> io::Result<PathBuf> {
    let mut number = 1;
    let mut path = dir.join(name);
    while absent_is_none(fs::symlink_metadata(&path))?.is_some() {
        number += 1;
        path = dir.join(format!("{name}.{number}"));
    }
    Ok(path)
}
