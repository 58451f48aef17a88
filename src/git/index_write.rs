//! A new index from the entries of an old one.
//!
//! It is written here and not by git: git compares files with the index that it writes, and runs the filters of those that
//! may have changed since. What is left as it is keeps its stat data and flags; a changed entry has no stat data, so that git
//! compares the content when it next looks.
//!
//! Limit: extensions are left out. Those of [`DROPPED`] are caches, which git makes anew; an index with another one is not
//! rewritten.

use crate::fs::FileId;
use crate::git::hash::Hash;
use crate::git::index_file::{Entry, StatData};
use std::io::Write;

/// Extensions that only say again, or faster, what the entries say; and the conflicts that were resolved.
pub(crate) const DROPPED: [&[u8; 4]; 6] = [b"TREE", b"REUC", b"UNTR", b"FSMN", b"EOIE", b"IEOT"];

const NO_STAT: StatData = StatData { ctime: (0, 0), mtime: (0, 0), dev: 0, ino: 0, uid: 0, gid: 0, size: 0 };

/// The bytes of an index with these entries, sorted by path and stage, which were read from the index `of`.
///
/// A file that was changed in the second in which that index was written, or later, may have changed behind its stat data: git
/// knows by the time of the index that it has to compare the content, and the new index is younger. So such an entry loses them.
pub(crate) fn encode(entries: &[Entry], hash: Hash, of: Option<&FileId>) -> Vec<u8> {
    let written = of.map_or(0, |of| of.mtime / 1_000_000_000);
    let is_racy = |stat: &StatData| i64::from(stat.mtime.0) >= written;
    let extended = entries.iter().any(is_extended);
    let count = u32::try_from(entries.len()).expect("they were read from an index, or a tree: a count has 32 bits");
    let mut bytes = b"DIRC".to_vec();
    bytes.extend_from_slice(&(if extended { 3_u32 } else { 2 }).to_be_bytes());
    bytes.extend_from_slice(&count.to_be_bytes());
    for entry in entries {
        push(&mut bytes, entry, entry.stat.filter(|stat| !is_racy(stat)).unwrap_or(NO_STAT));
    }
    let mut sum = hash.start();
    sum.write_all(&bytes).expect("a hash takes all that is written");
    bytes.extend_from_slice(sum.finish().as_bytes());
    bytes
}

fn is_extended(entry: &Entry) -> bool {
    entry.skip_worktree || entry.intent_to_add
}

fn push(bytes: &mut Vec<u8>, entry: &Entry, stat: StatData) {
    let begin = bytes.len();
    let numbers = [
        stat.ctime.0,
        stat.ctime.1,
        stat.mtime.0,
        stat.mtime.1,
        stat.dev,
        stat.ino,
        entry.mode,
        stat.uid,
        stat.gid,
        stat.size,
    ];
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
    bytes.extend_from_slice(entry.oid.as_bytes());
    let len = u16::try_from(entry.path.len().min(0x0fff)).expect("it is at most 0x0fff");
    let flag = |set: bool, bit: u16| if set { bit } else { 0 };
    let extended = is_extended(entry);
    let flags = flag(entry.assume_valid, 0x8000) | flag(extended, 0x4000) | u16::from(entry.stage) << 12 | len;
    bytes.extend_from_slice(&flags.to_be_bytes());
    if extended {
        let more = flag(entry.skip_worktree, 0x4000) | flag(entry.intent_to_add, 0x2000);
        bytes.extend_from_slice(&more.to_be_bytes());
    }
    bytes.extend_from_slice(&entry.path);
    // One to eight NULs, up to a multiple of eight.
    let padded = (bytes.len() + 1 - begin).next_multiple_of(8);
    bytes.resize(begin + padded, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::index_file::{Found, content, entries};
    use std::path::Path;
    use std::process::Command;

    fn git(dir: &Path, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.current_dir(dir).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let output = git.output().expect("git runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn git_reads_a_rewritten_index_as_the_one_that_it_was_made_of() {
        for format in ["sha1", "sha256"] {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path();
            git(dir, &["init", "-q", &format!("--object-format={format}")]);
            for name in ["a", "a.b", "seven77", "sixteen-letters-"] {
                crate::fs::durable::create_new(&dir.join(name), name.as_bytes()).unwrap();
            }
            git(dir, &["add", "a", "a.b", "seven77"]);
            git(dir, &["add", "-N", "sixteen-letters-"]);
            git(dir, &["update-index", "--assume-unchanged", "a"]);
            git(dir, &["update-index", "--skip-worktree", "a.b"]);
            let index = dir.join(".git/index");
            let shown = || git(dir, &["ls-files", "--debug", "-v", "-s"]);
            let before = shown();
            let (old, _) = content(&index).unwrap().unwrap();
            let Found::Entries(entries) = entries(&old) else { panic!("it can be read") };
            let later = FileId { ino: 0, size: 0, mtime: i64::MAX, ctime: 0 };
            let hash = if format == "sha1" { Hash::Sha1 } else { Hash::Sha256 };
            crate::fs::durable::remove_file(&index).unwrap();
            crate::fs::durable::create_new(&index, &encode(&entries, hash, Some(&later))).unwrap();
            assert_eq!(shown(), before, "{format}");
            git(dir, &["fsck"]);
        }
    }
}
