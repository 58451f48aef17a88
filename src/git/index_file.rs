//! The index as a file: its entries, read without git.
//!
//! ```text
//! "DIRC"  version (2, 3, 4)  count | entries | extensions | checksum
//! entry   ctime mtime dev ino mode uid gid size, 40 bytes | object | flags | from version 3 on perhaps more flags | path
//! path    ends with NUL, padded to a multiple of eight;  version 4: how much of the path before goes, the new end, NUL
//! ```
//! Limit: of a split index a part lies elsewhere, and a sparse index has directories as entries: git reads those.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::fs::{FileId, absent_is_none, named as fs};
use crate::git::Oid;
use crate::util::text::shown;

/// The largest index that is read: ten million files.
const MOST: u64 = 1 << 30;

/// What the index knows of a file on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatData {
    /// Seconds and nanoseconds.
    pub ctime: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (u32, u32),
    /// The lower 32 bits.
    pub dev: u32,
    /// The lower 32 bits.
    pub ino: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The lower 32 bits.
    pub size: u32,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `None` when git was asked.
    pub stat: Option<StatData>,
    /// As in trees: 0o100644, 0o100755, 0o120000, 0o160000.
    pub mode: u32,
    /// The content.
    pub oid: Oid,
    /// 0; 1 to 3 in a conflict.
    pub stage: u8,
    /// git does not look at the file: assume-unchanged.
    pub assume_valid: bool,
    /// git does not look at the file: a sparse checkout leaves it out.
    pub skip_worktree: bool,
    /// `git add -N`: there is no content yet.
    pub intent_to_add: bool,
    /// From the root of the worktree.
    pub path: Vec<u8>,
}

/// What there is in the place of an index.
#[derive(Debug)]
pub enum Found {
    /// Its entries.
    Entries(Vec<Entry>),
    /// A split or sparse index: the entries are to be had from git.
    Partial,
    /// No index.
    Garbage,
}

/// The content and the identity of the index at `path`; `None` when there is none. What is no regular file is an error.
pub(crate) fn content(path: &Path) -> io::Result<Option<(Vec<u8>, FileId)>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(io::Error::from);
    let Some(file) = absent_is_none(fs::at(path, opened))? else { return Ok(None) };
    let metadata = fs::at(path, file.metadata())?;
    let refused = |why: &str| io::Error::other(format!("{} is {why}: move it away", shown(path)));
    if !metadata.is_file() {
        return Err(refused("not a regular file"));
    }
    if metadata.len() > MOST {
        return Err(refused("larger than any index"));
    }
    let mut content = Vec::new();
    fs::at(path, file.take(MOST).read_to_end(&mut content))?;
    Ok(Some((content, FileId::of(&metadata))))
}

/// Reads the entries of an index with this content.
#[must_use]
pub fn entries(content: &[u8]) -> Found {
    if !content.starts_with(b"DIRC") {
        return Found::Garbage;
    }
    let read = [20, 32].into_iter().filter_map(|hash_len| Reader::new(content, hash_len).read());
    read.reduce(|one, other| if matches!(one, Found::Garbage) { other } else { one }).unwrap_or(Found::Garbage)
}

/// The signatures of the extensions of an index that can be read.
pub(crate) fn extensions(content: &[u8]) -> Vec<[u8; 4]> {
    let read = |hash_len| {
        let mut reader = Reader::new(content, hash_len);
        reader.read().map(|_| reader.extensions)
    };
    [20, 32].into_iter().find_map(read).unwrap_or_default()
}

struct Reader<'c> {
    content: &'c [u8],
    at: usize,
    hash_len: usize,
    extensions: Vec<[u8; 4]>,
}

impl<'c> Reader<'c> {
    fn new(content: &'c [u8], hash_len: usize) -> Reader<'c> {
        Reader { content, at: 4, hash_len, extensions: Vec::new() }
    }

    fn take(&mut self, len: usize) -> Option<&'c [u8]> {
        let taken = self.content.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn flags(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn read(&mut self) -> Option<Found> {
        let (version, count) = (self.number()?, self.number()?);
        if !(2..=4).contains(&version) {
            return None;
        }
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let before = entries.last().map_or(&[][..], |entry| &entry.path);
            let entry = self.entry(version, before)?;
            entries.push(entry);
        }
        while self.content.len().checked_sub(self.at)? > self.hash_len {
            let signature: [u8; 4] = self.take(4)?.try_into().ok()?;
            self.extensions.push(signature);
            if !signature.iter().all(u8::is_ascii_alphabetic) {
                return None;
            }
            let len = usize::try_from(self.number()?).ok()?;
            self.take(len)?;
            // In lower case: nobody may ignore it.
            if signature[0].is_ascii_lowercase() {
                return matches!(&signature, b"link" | b"sdir").then_some(Found::Partial);
            }
        }
        (self.content.len() == self.at + self.hash_len).then_some(Found::Entries(entries))
    }

    fn entry(&mut self, version: u32, before: &[u8]) -> Option<Entry> {
        const ASSUME_VALID: u16 = 0x8000;
        const EXTENDED: u16 = 0x4000;
        const SKIP_WORKTREE: u16 = 0x4000;
        const INTENT_TO_ADD: u16 = 0x2000;
        const LENGTH: u16 = 0x0fff;
        let begin = self.at;
        let ctime = (self.number()?, self.number()?);
        let mtime = (self.number()?, self.number()?);
        let (dev, ino, mode) = (self.number()?, self.number()?, self.number()?);
        let (uid, gid, size) = (self.number()?, self.number()?, self.number()?);
        let stat = Some(StatData { ctime, mtime, dev, ino, uid, gid, size });
        let oid = Oid::from_bytes(self.take(self.hash_len)?)?;
        let flags = self.flags()?;
        let more = if flags & EXTENDED == 0 { 0 } else { self.flags()? };
        let mut path = if version == 4 {
            let gone = self.varint()?;
            before.get(..before.len().checked_sub(gone)?)?.to_owned()
        } else {
            Vec::new()
        };
        let len = self.content.get(self.at..)?.iter().position(|b| *b == 0)?;
        path.extend_from_slice(self.take(len)?);
        self.at += 1;
        // The flags have the length of the path, as far as it fits: with the wrong length of a hash it is another one.
        if usize::from(flags & LENGTH) != path.len().min(usize::from(LENGTH)) {
            return None;
        }
        if version < 4 {
            // One to eight NULs, up to a multiple of eight.
            self.at = begin + (self.at - begin).next_multiple_of(8);
        }
        Some(Entry {
            stat,
            mode,
            oid,
            stage: u8::try_from(flags >> 12 & 3).ok()?,
            assume_valid: flags & ASSUME_VALID != 0,
            skip_worktree: more & SKIP_WORKTREE != 0,
            intent_to_add: more & INTENT_TO_ADD != 0,
            path,
        })
    }

    fn varint(&mut self) -> Option<usize> {
        let mut byte = self.take(1)?[0];
        let mut value = usize::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = self.take(1)?[0];
            value = value.checked_add(1)?.checked_mul(0x80)? + usize::from(byte & 0x7f);
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn git(dir: &Path, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.current_dir(dir).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let output = git.output().expect("git runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn every_version_is_read_as_git_reads_it_and_a_cut_one_is_none() {
        for (format, version) in [("sha1", 2), ("sha1", 4), ("sha256", 2), ("sha256", 4)] {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path();
            git(dir, &["init", "-q", &format!("--object-format={format}")]);
            for name in ["a", "a.b", "abc", "long-name-with-the-same-start", "long-name-with-the-same-end"] {
                crate::fs::durable::create_new(&dir.join(name), name.as_bytes()).unwrap();
            }
            crate::fs::durable::create_new(&dir.join("intended"), b"").unwrap();
            let check = |what: &str| {
                let (content, _) = content(&dir.join(".git/index")).unwrap().unwrap();
                let Found::Entries(entries) = entries(&content) else { panic!("{format} {version} {what}") };
                let shown = |e: &Entry| {
                    let tag = if e.skip_worktree { "S" } else { "H" };
                    let tag = if e.assume_valid { tag.to_lowercase() } else { tag.to_owned() };
                    format!("{tag} {:o} {} {}\t{}\n", e.mode, e.oid, e.stage, String::from_utf8_lossy(&e.path))
                };
                let all: String = entries.iter().map(shown).collect();
                assert_eq!(all, git(dir, &["ls-files", "-v", "-s"]), "{format} {version} {what}");
                assert_eq!(entries.iter().filter(|e| e.intent_to_add).count(), usize::from(what == "flags"));
                for end in 0..content.len() {
                    assert!(
                        matches!(super::entries(&content[..end]), Found::Garbage),
                        "{format} {version}, cut at {end}"
                    );
                }
            };
            git(
                dir,
                &["-c", &format!("index.version={version}"), "add", "a", "a.b", "abc", "long-name-with-the-same-start"],
            );
            check("plain");
            git(dir, &["add", "long-name-with-the-same-end"]);
            git(dir, &["add", "-N", "intended"]);
            git(dir, &["update-index", "--skip-worktree", "a.b"]);
            git(dir, &["update-index", "--assume-unchanged", "abc"]);
            check("flags");
            git(dir, &["update-index", "--split-index"]);
            let (content, _) = content(&dir.join(".git/index")).unwrap().unwrap();
            assert!(matches!(entries(&content), Found::Partial));
        }
    }
}
