//! Which `.jin` is it? A random id, and what tells the directory from its copies.
//!
//! The id is for the notes of users, and means nothing without one. That a `.jin` is no copy is told by inode and time of
//! birth: the name of its note `verified.<boot>.<inode>.<birth>` has them, and each checkpoint of its log. Who packs an archive
//! cannot know what the directory will have where it is unpacked.
//!
//! Limit: where the file system has no stable time of birth (overlayfs, network) the inode alone has to do.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use crate::fs::{Birth, durable, named as fs};
use crate::state::directory::StateDir;

/// Prefix of the note that this boot has verified what the one before left.
pub(crate) const VERIFIED: &str = "verified.";

/// A random name for a repository, which we wrote into `.jin/id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RepositoryId(u128);

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl RepositoryId {
    const LEN: usize = 32;

    /// Reads what is displayed, and nothing else.
    pub(crate) fn parse(text: &[u8]) -> Option<RepositoryId> {
        let plain = text.len() == Self::LEN && text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let text = std::str::from_utf8(text).ok().filter(|_| plain)?;
        u128::from_str_radix(text, 16).ok().map(RepositoryId)
    }

    /// The id of `state`; `None` where there is none.
    pub(crate) fn read(state: &StateDir) -> Option<RepositoryId> {
        const LONGEST: u64 = 64;
        RepositoryId::parse(durable::read_own(&path(state), LONGEST).ok()?.trim_ascii_end())
    }

    fn random() -> io::Result<RepositoryId> {
        const PATH: &str = "/dev/urandom";
        let mut bytes = [0; 16];
        fs::at(PATH, File::open(PATH).and_then(|mut file| file.read_exact(&mut bytes)))?;
        Ok(RepositoryId(u128::from_ne_bytes(bytes)))
    }
}

fn path(state: &StateDir) -> PathBuf {
    state.path().join("id")
}

impl StateDir {
    /// Gives the directory an id, if it has none.
    pub(crate) fn make_id(&self) -> io::Result<()> {
        if RepositoryId::read(self).is_some() {
            return Ok(());
        }
        // Whole or not at all; one that is there is no id. Who may not work here does not learn it: on a file system of his own
        // he could copy everything else.
        durable::replace(&path(self), format!("{}\n", RepositoryId::random()?).as_bytes())
    }

    /// Is it the directory that `recorded` speaks of, and no copy?
    pub(crate) fn is_the_one(&self, recorded: Birth) -> io::Result<bool> {
        let here = self.birth()?;
        let is_it = !here.is_another(&recorded);
        Ok(is_it || (here.ino == recorded.ino && !durable::has_stable_births(self.path())))
    }

    /// Says the note of the last verification (its name) that it was made in this very directory?
    pub(crate) fn is_known_by(&self, verified: Option<&str>) -> io::Result<bool> {
        let noted = verified.and_then(|name| name.strip_prefix(VERIFIED)?.split_once('.'));
        let Some((_boot, noted)) = noted else { return Ok(false) };
        let mut numbers = noted.split('.');
        let Some(ino) = numbers.next().and_then(|ino| ino.parse().ok()) else { return Ok(false) };
        self.is_the_one(Birth { ino, born: numbers.next().and_then(|born| born.parse().ok()) })
    }
}

/// A birth in the name of a note.
pub(super) fn birth_name(birth: Birth) -> String {
    format!("{}.{}", birth.ino, birth.born.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_birth_that_is_not_known_tells_no_two_directories_apart() {
        let scratch = tempfile::tempdir().unwrap();
        for part in ["refs", "objects"] {
            durable::create_dirs(&scratch.path().join(part), 0o777).unwrap();
        }
        durable::create_new(&scratch.path().join("HEAD"), b"ref: refs/heads/main\n").unwrap();
        let state = StateDir::of(&crate::git::Repository::open(scratch.path()).unwrap());
        state.create().unwrap();
        let ino = state.birth().unwrap().ino;
        for (note, is_known) in [
            (format!("{VERIFIED}boot.{ino}.0"), true),
            (format!("{VERIFIED}boot.{ino}"), true),
            (format!("{VERIFIED}boot.{}.0", ino + 1), false),
            (format!("{VERIFIED}boot.x.0"), false),
        ] {
            assert_eq!(state.is_known_by(Some(&note)).unwrap(), is_known, "{note}");
        }
        assert!(state.is_the_one(Birth { ino, born: None }).unwrap(), "another build did not know it");
    }

    #[test]
    fn an_id_is_32_small_hexadecimal_digits() {
        let text = "00112233445566778899aabbccddeeff";
        assert_eq!(RepositoryId::parse(text.as_bytes()).map(|id| id.to_string()).as_deref(), Some(text));
        for other in
            ["", "0", "../../../../../../../../etc/cron", "+0112233445566778899aabbccddeeff", &text.to_uppercase()]
        {
            assert_eq!(RepositoryId::parse(other.as_bytes()), None, "{other}");
        }
    }
}
