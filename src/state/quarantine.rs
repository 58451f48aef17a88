//! Names in `.jin/quarantine/`, where recovery keeps whatever it moves aside or replaces.

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::{absent_is_none, durable, named as fs};
use crate::state::directory::StateDir;
use crate::util::checksum::crc32c;
use crate::util::clock::unix_time;

/// No longer than this is what a name says of what was moved: a file name has at most 255 bytes, and gets a number before
/// and perhaps one behind it.
const LONGEST: usize = 200;

/// The name of what is moved aside now: when, and what it was. Of a long path it has the end, and a checksum of the whole.
pub(crate) fn name(what: &str) -> String {
    let flat = what.replace('/', "%");
    let (mut from, is_long) = (flat.len().saturating_sub(LONGEST), flat.len() > LONGEST);
    while !flat.is_char_boundary(from) {
        from += 1;
    }
    let whole = if is_long { format!("{:08x}%", crc32c(what.as_bytes())) } else { String::new() };
    format!("{}-{whole}{}", unix_time(), &flat[from..])
}

/// A free path in the quarantine for `what`.
pub(crate) fn free_path(state: &StateDir, what: &str) -> io::Result<PathBuf> {
    free_name(&state.quarantine(), &name(what))
}

/// A new directory in the quarantine for `what`. One that is there, whatever it is, is left alone: the names can be foreseen.
pub(crate) fn make_dir(state: &StateDir, what: &str) -> io::Result<PathBuf> {
    loop {
        let path = free_path(state, what)?;
        match durable::create_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path),
        }
    }
}

/// Keeps `bytes` in the quarantine, durably, in a new file.
pub(crate) fn keep(state: &StateDir, what: &str, bytes: &[u8]) -> io::Result<()> {
    loop {
        let path = free_path(state, what)?;
        match durable::create_new(&path, bytes) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.and_then(|file| fs::at(path, file.sync_all())),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_of_a_short_path_all_and_of_a_long_one_the_end() {
        let behind_time = |what: &str| name(what).split_once('-').expect("the time comes first").1.to_owned();
        assert_eq!(behind_time("refs/heads/x.lock"), "refs%heads%x.lock");
        let long = |c: &str| format!("refs/heads/{}/{}.lock", c.repeat(140), "z".repeat(140));
        let (one, other) = (behind_time(&long("a")), behind_time(&long("b")));
        assert!(one.len() < 230 && one.ends_with("zz.lock"), "{one}");
        assert_ne!(one, other, "the whole path tells them apart");
        assert!(name(&"ä".repeat(200)).len() < 255, "and no character is cut");
    }
}
