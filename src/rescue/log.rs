//! One reflog, read.

use std::path::PathBuf;

use crate::fs::{absent_is_none, named as fs};
use crate::git::Oid;
use crate::git::reflog::LogLine;

/// A reflog.
#[derive(Debug)]
pub(crate) struct Log {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// `None` where no regular file is.
    pub(crate) content: Option<Vec<u8>>,
}

impl Log {
    /// Reads it.
    pub(crate) fn read(path: PathBuf) -> anyhow::Result<Log> {
        let is_file = absent_is_none(fs::symlink_metadata(&path))?.is_some_and(|found| found.is_file());
        let content = if is_file { absent_is_none(fs::read(&path))? } else { None };
        Ok(Log { path, content })
    }

    /// Its lines, as they are.
    pub(crate) fn lines(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.content.as_deref().unwrap_or_default().split_inclusive(|byte| *byte == b'\n')
    }

    /// Its values, the newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = Oid> {
        let values = self.lines().rev().filter_map(sound).flat_map(|(old, new)| [new, old]);
        values.filter(|oid| !oid.is_null())
    }

    /// The last line, unless what is left of it cannot be read: nobody knows then what followed.
    pub(crate) fn last_line(&self) -> Option<&[u8]> {
        self.lines().next_back().filter(|line| sound(line).is_some())
    }

    /// All of them.
    pub(crate) fn values(&self) -> Vec<Oid> {
        self.newest_first().collect()
    }

    /// The value that the last entry leads to.
    pub(crate) fn newest(&self) -> Option<Oid> {
        self.newest_first().next()
    }

    /// Its whole lines without their line feeds, the newest first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = LogLine<'_>> {
        self.lines().rev().filter(|line| sound(line).is_some()).filter_map(|line| LogLine::parse(line.trim_ascii_end()))
    }
}

/// The values of a whole line.
pub(crate) fn sound(line: &[u8]) -> Option<(Oid, Oid)> {
    let line = line.strip_suffix(b"\n").filter(|line| !line.contains(&0))?;
    let line = LogLine::parse(line)?;
    Oid::parse(line.old).zip(Oid::parse(line.new))
}
