//! Notes: which repositories this user has protected. They lie outside of every repository.
//!
//! `$XDG_STATE_HOME/jin-txn/<id>` is one JSON object for the repository whose `.jin/id` has that id. An archive may bring any
//! `.jin/id`; it cannot bring the note, nor the inode and the time of birth that the note names.
//!
//! A note fits when the id and the inode are equal, and the time of birth; or, where that is not known or not stable
//! (overlayfs changes it at copy-up), the path. Device numbers are left out: btrfs and overlayfs change them.
//!
//! Notes are written only into directories of the user: no HOME, a read-only one, or one of another user (sudo) means that
//! there is no note. That is never a failure.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fs::{Birth, absent_is_none, durable, named as fs};
use crate::state::{RepositoryId, StateDir};
use crate::util::text::{escape, unescape};

/// The most notes that are kept.
const MOST: usize = 10_000;

/// The most that a note has, in bytes.
const LONGEST: u64 = 64 << 10;

/// The notes of one user.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    directory: PathBuf,
}

/// One note.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    version: u32,
    /// The state directory, escaped.
    path: String,
    #[serde(flatten)]
    birth: Birth,
}

impl Note {
    fn of(state: &StateDir) -> io::Result<Note> {
        let path = escape(path_bytes(state.path())).into_owned();
        Ok(Note { version: 1, path, birth: state.birth()? })
    }

    fn decode(bytes: &[u8]) -> Option<Note> {
        serde_json::from_slice(bytes).ok().filter(|note: &Note| note.version == 1)
    }

    fn path(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        unescape(&self.path).map(|bytes| std::ffi::OsString::from_vec(bytes).into())
    }

    /// Is the directory that has `here` the one that was noted? `is_stable`: times of birth do not change there.
    fn fits(&self, here: &Note, is_stable: bool) -> bool {
        let (noted, found) = (self.birth, here.birth);
        let same_birth = noted.born.is_some() && noted.born == found.born;
        let other_birth = noted.born.is_some() && found.born.is_some() && noted.born != found.born;
        noted.ino == found.ino && (same_birth || (self.path == here.path && !(is_stable && other_birth)))
    }
}

impl Notes {
    /// Where the notes of a user with these variables are; `None` without a place for them.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<Notes> {
        let base = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = base("XDG_STATE_HOME").or_else(|| base("HOME").map(|home| home.join(".local/state")))?;
        Some(Notes { directory: state.join("jin-txn") })
    }

    /// Is there a note that fits?
    pub(crate) fn cover(&self, state: &StateDir) -> bool {
        let Some(id) = RepositoryId::read(state) else { return false };
        let (Some(note), Ok(here)) = (self.read(&id.to_string()), Note::of(state)) else { return false };
        let fits = note.fits(&here, durable::has_stable_births(state.path()));
        if fits && note.path != here.path {
            // It was moved: the note goes along, or it would be dropped as one of a path that is gone.
            self.remember(state);
        }
        fits
    }

    /// The same as the environment names it, for whoever only compares.
    pub(crate) fn named_directory(&self) -> &Path {
        &self.directory
    }

    /// The directory that has them.
    pub(crate) fn directory(&self) -> PathBuf {
        durable::real(&self.directory)
    }

    /// The state directories that this user has notes for, by the names of the notes.
    pub(crate) fn all(&self) -> Vec<(String, PathBuf)> {
        let Ok(entries) = fs::read_dir(self.directory()) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| self.path_of(&name).map(|path| (name, path))).collect()
    }

    /// The state directory that the note `name` is about.
    pub(crate) fn path_of(&self, name: &str) -> Option<PathBuf> {
        is_note_name(name).then(|| self.read(name)?.path()).flatten()
    }

    /// The git directories that the notes name, in the order of their paths, without those that are gone. Whether the note
    /// fits what is there, [`Notes::cover`] says.
    pub(crate) fn git_dirs(&self) -> Vec<PathBuf> {
        let states = self.all().into_iter().map(|(_, state)| state).filter(|state| state.is_dir());
        let mut found: Vec<PathBuf> = states.filter_map(|state| Some(state.parent()?.to_owned())).collect();
        found.sort();
        found.dedup();
        found
    }

    /// Writes the note for a repository, where it can be. Drops notes of repositories that are gone.
    pub(crate) fn remember(&self, state: &StateDir) {
        // Once more: another process may have dropped the last note, and the empty directory with it, in between.
        if self.try_remember(state).is_err() && self.try_remember(state).is_err() {
            // No note: the surfaces ask for a command then, and the hooks go on as before.
        }
    }

    /// Drops the note for a repository, and notes of repositories that are gone. The directory goes with the last note.
    pub(crate) fn forget(&self, state: &StateDir) {
        if self.try_forget(state).is_err() {
            // It names a directory that is no repository of ours any more: the next note that is written drops it.
        }
    }

    fn try_forget(&self, state: &StateDir) -> io::Result<()> {
        if !self.is_own() {
            return Ok(());
        }
        let directory = self.directory();
        if let Some(id) = RepositoryId::read(state) {
            durable::remove_file(&directory.join(id.to_string()))?;
        }
        self.drop_old("", &escape(path_bytes(state.path())))?;
        durable::remove_dir_if_empty(&directory).map(drop)
    }

    fn try_remember(&self, state: &StateDir) -> io::Result<()> {
        let Some(id) = RepositoryId::read(state) else { return Ok(()) };
        if !owns_nearest(&self.directory) {
            return Ok(());
        }
        let note = Note::of(state)?;
        // A home may be reached through links.
        let directory = durable::real(&self.directory);
        durable::create_dirs(&directory, 0o700)?;
        if !self.is_own() {
            return Ok(());
        }
        let name = id.to_string();
        self.drop_old(&name, &note.path)?;
        durable::replace(&directory.join(name), &serde_json::to_vec(&note)?)
    }

    /// Drops notes whose directory is gone or is another repository by now, and the oldest when there are too many.
    fn drop_old(&self, keep: &str, path: &str) -> io::Result<()> {
        let mut kept = Vec::new();
        let directory = durable::real(&self.directory);
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().filter(|name| is_note_name(name)).map(str::to_owned) else {
                continue;
            };
            let note = self.read(&name);
            let is_there = note.and_then(|note| note.path().filter(|_| note.path != path)).is_some_and(|p| p.is_dir());
            if name == keep || is_there {
                kept.push((entry.metadata()?.mtime(), name));
            } else {
                durable::remove_file(&entry.path())?;
            }
        }
        kept.sort();
        let surplus = kept.len().saturating_sub(MOST - 1);
        kept.iter().take(surplus).try_for_each(|(_, name)| durable::remove_file(&directory.join(name)))
    }

    /// A note that this user wrote, and nobody else could have.
    fn read(&self, name: &str) -> Option<Note> {
        if !self.is_own() {
            return None;
        }
        let path = durable::real(&self.directory).join(name);
        let metadata = absent_is_none(fs::symlink_metadata(&path)).ok()??;
        let bytes = is_private(&metadata).then(|| durable::read_own(&path, LONGEST).ok()).flatten()?;
        Note::decode(&bytes)
    }

    fn is_own(&self) -> bool {
        fs::symlink_metadata(&self.directory).is_ok_and(|found| found.is_dir() && is_private(&found))
    }
}

/// It belongs to this user, and nobody else may write to it.
fn is_private(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

/// Does the nearest directory above `path` that exists, or `path` itself, belong to this user?
fn owns_nearest(path: &Path) -> bool {
    let found = path.ancestors().find_map(|dir| fs::metadata(dir).ok());
    found.is_some_and(|found| found.uid() == rustix::process::geteuid().as_raw())
}

fn is_note_name(name: &str) -> bool {
    RepositoryId::parse(name.as_bytes()).is_some()
}

fn path_bytes(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_fits_the_directory_that_it_was_written_for() {
        let note = |path: &str, ino, born| Note { version: 1, path: path.into(), birth: Birth { ino, born } };
        let noted = note("/a", 7, Some(1));
        for (name, here, is_stable, fits) in [
            ("the same", note("/a", 7, Some(1)), true, true),
            ("moved", note("/b", 7, Some(1)), true, true),
            ("another inode", note("/a", 8, Some(1)), true, false),
            ("another birth", note("/a", 7, Some(2)), true, false),
            ("another birth by copy-up", note("/a", 7, Some(2)), false, true),
            ("another birth elsewhere", note("/b", 7, Some(2)), false, false),
            ("no birth known", note("/a", 7, None), true, true),
            ("no birth known, elsewhere", note("/b", 7, None), true, false),
        ] {
            assert_eq!(noted.fits(&here, is_stable), fits, "{name}");
        }
    }

    #[test]
    fn only_absolute_paths_are_places_for_notes() {
        let of = |xdg: Option<&str>, home: Option<&str>| {
            let value = |name: &str| if name == "HOME" { home } else { xdg };
            Notes::of(|name| value(name).map(Into::into)).map(|notes| notes.directory)
        };
        assert_eq!(of(Some("/s"), Some("/h")), Some("/s/jin-txn".into()));
        assert_eq!(of(Some("s"), Some("/h")), Some("/h/.local/state/jin-txn".into()));
        assert_eq!(of(None, Some("h")), None);
        assert_eq!(of(None, None), None);
    }
}
