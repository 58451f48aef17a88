//! Is an `index.lock` that a dead `git commit` left behind the index that belongs to its commit?
//!
//! `commit -a` writes the new index into `index.lock`, commits, and renames the lock into place. When it dies in
//! between, the lock is right and the index is old: then the lock is renamed into place.

use crate::fs::named as fs;
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use crate::git::hash::Hash;
use crate::git::{Git, Oid, Value};

/// Does the index file `lock` belong to the commit `new` (made on top of `old`)? Its checksum must be right, and
/// every path that the commit changed must be in it as the commit has it.
pub(crate) fn belongs_to(git: &Git, lock: &Path, old: &Value, new: &Oid) -> anyhow::Result<bool> {
    if !has_valid_checksum(lock, new.hex().len() / 2)? {
        return Ok(false);
    }
    let new = new.hex();
    let changed = match old {
        Value::Oid(old) => git.run(["diff-tree", "-r", "-z", "--name-only", &old.hex(), &new])?,
        _ => git.run(["ls-tree", "-r", "-z", "--name-only", "--full-tree", &new])?,
    };
    let differs = git.command(["diff-index", "--cached", "-z", "--name-only", &new]).index(lock).run()?;
    if !changed.success || !differs.success {
        return Ok(false);
    }
    let changed: HashSet<&[u8]> = changed.split(0).collect();
    Ok(!differs.split(0).any(|path| changed.contains(path)))
}

/// Have two indexes the same paths, with the same modes and objects?
pub(crate) fn has_same_entries(git: &Git, one: &Path, other: &Path) -> anyhow::Result<bool> {
    let entries = |index| Ok::<_, anyhow::Error>(git.command(["ls-files", "-s", "-z"]).index(index).run_ok()?.stdout);
    Ok(entries(one)? == entries(other)?)
}

/// Can git work with the index at `path`? Its checksum must be right, and git must be able to list it.
pub(crate) fn is_readable(git: &Git, path: &Path) -> anyhow::Result<bool> {
    if !path.exists() {
        return Ok(true);
    }
    if !has_valid_checksum(path, 20)? && !has_valid_checksum(path, 32)? {
        return Ok(false);
    }
    Ok(git.run(["ls-files", "-z"])?.success)
}

/// The trees that an index says it stands for (its `TREE` extension): git takes them for granted.
pub(crate) fn cached_trees(path: &Path) -> io::Result<Vec<Oid>> {
    let content = fs::read(path)?;
    let mut from = content.len();
    // Extensions follow the entries; the last `TREE` that can be read as one is one.
    while let Some(at) = content[..from].windows(4).rposition(|w| w == b"TREE") {
        for hash_len in [20, 32] {
            if let Some(trees) = read_trees(&content[at + 4..], hash_len) {
                return Ok(trees);
            }
        }
        from = at + 3;
    }
    Ok(Vec::new())
}

/// `<size, 4 bytes>`, then entries: `<path> NUL <count> SP <subtrees> LF <hash, unless the count is negative>`.
fn read_trees(extension: &[u8], hash_len: usize) -> Option<Vec<Oid>> {
    let size = u32::from_be_bytes(extension.get(..4)?.try_into().ok()?);
    let mut rest = extension.get(4..)?.get(..usize::try_from(size).ok()?)?;
    let mut trees = Vec::new();
    while !rest.is_empty() {
        let nul = rest.iter().position(|b| *b == 0)?;
        let end = nul + 1 + rest[nul + 1..].iter().position(|b| *b == b'\n')?;
        let counts = std::str::from_utf8(&rest[nul + 1..end]).ok()?;
        let entries: i64 = counts.split_once(' ')?.0.parse().ok()?;
        rest = &rest[end + 1..];
        if entries >= 0 {
            let hex: String = rest.get(..hash_len)?.iter().map(|b| format!("{b:02x}")).collect();
            trees.push(Oid::parse(hex.as_bytes())?);
            rest = &rest[hash_len..];
        }
    }
    Some(trees)
}

/// What one look at an index file tells, without git.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Glance {
    /// Some entries are flagged: git does not look at their files (assume-unchanged, skip-worktree).
    pub has_flagged: bool,
    /// Some path ends with `.gitattributes`.
    pub has_attributes: bool,
}

/// Looks at the index file at `path`; `None` when it is not understood.
pub(crate) fn glance(path: &Path) -> io::Result<Option<Glance>> {
    let Some(content) = crate::fs::absent_is_none(fs::read(path))? else { return Ok(Some(Glance::default())) };
    let has_flagged = [20, 32].into_iter().find_map(|hash_len| flagged(&content, hash_len));
    let has_attributes = find(&content, b".gitattributes");
    Ok(has_flagged.map(|has_flagged| Glance { has_flagged, has_attributes }))
}

fn find(content: &[u8], what: &[u8]) -> bool {
    let mut rest = content;
    while let Some(at) = rest.iter().position(|b| *b == what[0]) {
        if rest[at..].starts_with(what) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Walks over the entries: 40 bytes of stat data, the hash, flags, in versions from 3 on perhaps more flags, the name. `None`
/// when that does not lead to where extensions or the checksum begin, or when a part of the index lies elsewhere.
fn flagged(content: &[u8], hash_len: usize) -> Option<bool> {
    const ASSUME_VALID: u16 = 0x8000;
    const EXTENDED: u16 = 0x4000;
    const SKIP_WORKTREE: u16 = 0x4000;
    let number = |at: usize| Some(u32::from_be_bytes(content.get(at..at + 4)?.try_into().ok()?));
    let flags = |at: usize| Some(u16::from_be_bytes(content.get(at..at + 2)?.try_into().ok()?));
    let (version, count) = (number(4)?, number(8)?);
    if !content.starts_with(b"DIRC") || !(2..=4).contains(&version) {
        return None;
    }
    let (mut at, mut found) = (12, false);
    for _ in 0..count {
        let begin = at;
        at += 40 + hash_len;
        let word = flags(at)?;
        at += 2;
        found |= word & ASSUME_VALID != 0;
        if word & EXTENDED != 0 {
            found |= flags(at)? & SKIP_WORKTREE != 0;
            at += 2;
        }
        if version == 4 {
            while content.get(at)? & 0x80 != 0 {
                at += 1;
            }
            at += 1;
        }
        at += content.get(at..)?.iter().position(|b| *b == 0)? + 1;
        if version < 4 {
            // One to eight NULs, up to a multiple of eight.
            at = begin + (at - begin).next_multiple_of(8);
        }
    }
    while content.len().checked_sub(at)? > hash_len {
        let signature = content.get(at..at + 4)?;
        if !signature.iter().all(u8::is_ascii_alphabetic) || matches!(signature, b"link" | b"sdir") {
            return None;
        }
        at += 8 + usize::try_from(number(at + 4)?).ok()?;
    }
    (content.len() == at + hash_len).then_some(found)
}

/// What a command has left for later in this worktree, so that its index cannot be made anew.
pub(crate) fn in_progress(git_dir: &Path) -> Option<&'static str> {
    const STATES: [(&str, &str); 6] = [
        ("MERGE_HEAD", "a merge"),
        ("CHERRY_PICK_HEAD", "a cherry-pick"),
        ("REVERT_HEAD", "a revert"),
        ("rebase-merge", "a rebase"),
        ("rebase-apply", "a rebase"),
        ("sequencer", "a cherry-pick or revert"),
    ];
    STATES.iter().find(|(name, _)| git_dir.join(name).exists()).map(|(_, what)| *what)
}

/// The last bytes of an index are the hash of all before them; zeros when `index.skipHash` is set.
fn has_valid_checksum(index: &Path, hash_len: usize) -> io::Result<bool> {
    let content = fs::read(index)?;
    let Some((body, sum)) = content.len().checked_sub(hash_len).map(|at| content.split_at(at)) else {
        return Ok(false);
    };
    if !body.starts_with(b"DIRC") {
        return Ok(false);
    }
    if sum.iter().all(|b| *b == 0) {
        return Ok(true);
    }
    let mut hasher = if hash_len == 20 { Hash::Sha1 } else { Hash::Sha256 }.start();
    hasher.write_all(body)?;
    Ok(hasher.finish().as_bytes() == sum)
}
