//! `.jin/quarantine/`, where recovery keeps whatever it moves aside or replaces: its names, and its bounds.

use std::cmp::Reverse;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::fs::door::{self, Kind};
use crate::fs::{absent_is_none, durable, named as fs};
use crate::state::directory::StateDir;
use crate::state::settings::Settings;
use crate::util::checksum::crc32c;
use crate::util::clock::unix_time;

/// No longer than this is what a name says of what was moved: a file name has at most 255 bytes, and gets a number before
/// and perhaps one behind it.
const LONGEST: usize = 200;

/// The name of what is moved aside now: when, and what it was.
pub(crate) fn name(what: &str) -> String {
    format!("{}-{}", unix_time(), flat(what))
}

/// A path as one name: `%` for `/`, and `%:` for `%`, which no name of a ref has. Of a long one it has the end, and a checksum of the
/// whole.
pub(crate) fn flat(path: &str) -> String {
    cut(&path.replace('%', "\0").replace('/', "%").replace('\0', "%:"), path)
}

fn cut(name: &str, whole: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let mut from = name.len() - LONGEST;
    while !name.is_char_boundary(from) {
        from += 1;
    }
    format!("{:08x}%{}", crc32c(whole.as_bytes()), &name[from..])
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
            made => return made.and_then(|file| fs::sync_all(path, &file)),
        }
    }
}

/// Removes what is older than `jin.retention` says, and the oldest of what is more than it says. What came last stays.
pub(super) fn sweep_dir(state: &StateDir, dir: &Path) -> io::Result<()> {
    let Settings { retained_seconds, retained_bytes, .. } = state.settings();
    let oldest_kept = unix_time().saturating_sub(retained_seconds);
    let mut kept = Vec::new();
    for (name, kind) in door::entries(dir)?.into_iter().flatten() {
        let Some(time) = name.to_str().and_then(|n| n.split('-').next()?.parse::<u64>().ok()) else { continue };
        let path = dir.join(&name);
        let Some(found) = absent_is_none(fs::symlink_metadata(&path))? else { continue };
        kept.push(((time, found.ctime(), found.ctime_nsec()), path, kind));
    }
    kept.sort_by_key(|(came, ..)| Reverse(*came));
    let mut bytes = 0_u64;
    for (at, ((time, ..), path, kind)) in kept.iter().enumerate() {
        bytes = bytes.saturating_add(size(path, *kind)?);
        if at > 0 && (*time < oldest_kept || bytes > retained_bytes) {
            match durable::remove_tree(path) {
                // Another user's directories came here by a rename, and are his to empty.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

/// What would be free if it went: a second name of a file that is in use takes nothing.
fn size(path: &Path, kind: Kind) -> io::Result<u64> {
    if kind != Kind::Directory {
        let found = absent_is_none(fs::symlink_metadata(path))?;
        return Ok(found.filter(|found| found.nlink() == 1).map_or(0, |found| found.len()));
    }
    let entries = match door::entries(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(0),
        entries => entries?.into_iter().flatten(),
    };
    entries.map(|(name, kind)| size(&path.join(name), kind)).sum()
}

/// `name` in `dir`, numbered when it is taken. There is always room for the number.
pub(crate) fn free_name(dir: &Path, name: &str) -> io::Result<PathBuf> {
    const ROOM: usize = 235;
    let name = &if name.len() > ROOM { cut(name, name) } else { name.to_owned() };
    let mut number = 1;
    let mut path = dir.join(name);
    while absent_is_none(fs::symlink_metadata(&path))?.is_some() {
        number += 1;
        path = dir.join(format!("{name}~{number}"));
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
