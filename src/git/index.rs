//! What an index says: is it readable, what is staged, does a lock that a dead `git commit` left belong to its commit?
//!
//! `commit -a` writes the new index into `index.lock`, commits, and renames the lock into place. When it dies in
//! between, the lock is right and the index is old: then the lock is renamed into place.
//!
//! The file is read here. Of a split or sparse index git is asked (`ls-files --stage`, which compares nothing with files).

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;

use crate::fs::unreadable_is_none;
use crate::git::hash::Hash;
use crate::git::index_file::{self, Entry, Found};
use crate::git::{Git, Oid, Plumbing, Value};

/// The entries of a tree: mode and object by path.
pub(crate) type Tree = HashMap<Vec<u8>, (u32, Oid)>;

/// Does the index file `lock` belong to the commit `new` (made on top of `old`)? Its checksum must be right, and
/// every path that the commit changed must be in it as the commit has it.
pub(crate) fn belongs_to(git: &Git, lock: &Path, old: &Value, new: &Oid) -> anyhow::Result<bool> {
    let Some((content, _)) = unreadable_is_none(index_file::content(lock))? else { return Ok(false) };
    if !has_valid_checksum(&content, new.hex().len() / 2)? {
        return Ok(false);
    }
    let before = match old {
        Value::Oid(old) => tree(git, old)?,
        _ => Some(Tree::new()),
    };
    let (Some(before), Some(after)) = (before, tree(git, new)?) else { return Ok(false) };
    let Some(staged) = entries(git, lock, &content)? else { return Ok(false) };
    let staged: Tree = staged.into_iter().filter(|e| !e.intent_to_add).map(with_stage).collect();
    let has_changed = |path: &Vec<u8>| before.get(path) != after.get(path);
    let mut paths = before.keys().chain(after.keys());
    Ok(!paths.any(|path| has_changed(path) && staged.get(path) != after.get(path)))
}

/// A path in conflict has a mode that no tree has.
fn with_stage(entry: Entry) -> (Vec<u8>, (u32, Oid)) {
    let mode = if entry.stage == 0 { entry.mode } else { 0 };
    (entry.path, (mode, entry.oid))
}

/// The entries of a commit's tree; `None` where it cannot be read.
pub(crate) fn tree(git: &Git, commit: &Oid) -> anyhow::Result<Option<Tree>> {
    let listed = git.run(Plumbing::Tree(&commit.hex()))?;
    if !listed.success {
        return Ok(None);
    }
    // `<mode> SP <type> SP <oid> TAB <path>`
    let entry = |line: &[u8]| {
        let (head, path) = split_at(line, b'\t')?;
        let mut words = head.split(|b| *b == b' ');
        let mode = match octal(words.next()?)? {
            // Old trees have other permissions, too; the index has these two.
            file if file & 0o170_000 == 0o100_000 => {
                if file & 0o100 == 0 {
                    0o100_644
                } else {
                    0o100_755
                }
            }
            other => other,
        };
        Some((path.to_owned(), (mode, Oid::parse(words.nth(1)?)?)))
    };
    Ok(listed.split(0).map(entry).collect())
}

fn split_at(line: &[u8], end: u8) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|b| *b == end)?;
    Some((&line[..at], &line[at + 1..]))
}

fn octal(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// The entries of the index at `path` with this content; `None` when it cannot be read.
fn entries(git: &Git, path: &Path, content: &[u8]) -> anyhow::Result<Option<Vec<Entry>>> {
    match index_file::entries(content) {
        Found::Entries(entries) => Ok(Some(entries)),
        Found::Garbage => Ok(None),
        Found::Partial => {
            let listed = git.command(Plumbing::Flagged).index(path).run()?;
            if !listed.success {
                return Ok(None);
            }
            let read = listed.split(0).map(|line| flagged_entry(line).context("git ls-files says a cut line"));
            read.collect::<anyhow::Result<_>>().map(Some)
        }
    }
}

/// `<tag> SP <mode> SP <oid> SP <stage> TAB <path>`
fn flagged_entry(line: &[u8]) -> Option<Entry> {
    let (head, path) = split_at(line, b'\t')?;
    let mut words = head.split(|b| *b == b' ');
    let tag = *words.next()?.first()?;
    let mode = octal(words.next()?)?;
    let oid = Oid::parse(words.next()?)?;
    let stage = words.next()?.first()? - b'0';
    Some(Entry {
        stat: None,
        mode,
        oid,
        stage,
        assume_valid: tag.is_ascii_lowercase(),
        skip_worktree: tag.eq_ignore_ascii_case(&b'S'),
        intent_to_add: false,
        path: path.to_owned(),
    })
}

/// The entries of the index at `path`, and when it was written, in nanoseconds since the epoch; none when there is no index.
/// `None` when it cannot be read: its checksum must be right.
pub(crate) fn read(git: &Git, path: &Path) -> anyhow::Result<Option<(Vec<Entry>, i64)>> {
    let Some((content, file)) = index_file::content(path)? else { return Ok(Some((Vec::new(), 0))) };
    if !is_whole(&content)? {
        return Ok(None);
    }
    Ok(entries(git, path, &content)?.map(|entries| (entries, file.mtime)))
}

/// Have two indexes the same paths, with the same modes and objects?
pub(crate) fn has_same_entries(git: &Git, one: &Path, other: &Path) -> anyhow::Result<bool> {
    let is_readable =
        |path: &Path| Ok::<_, io::Error>(unreadable_is_none(index_file::content(path).map(Some))?.is_some());
    if !is_readable(one)? || !is_readable(other)? {
        return Ok(false);
    }
    let (Some((one, _)), Some((other, _))) = (read(git, one)?, read(git, other)?) else { return Ok(false) };
    let is_same = |(a, b): (&Entry, &Entry)| (a.mode, a.oid, a.stage, &a.path) == (b.mode, b.oid, b.stage, &b.path);
    Ok(one.len() == other.len() && one.iter().zip(&other).all(is_same))
}

/// The trees that an index says it stands for (its `TREE` extension): git takes them for granted.
pub(crate) fn cached_trees(path: &Path) -> io::Result<Vec<Oid>> {
    let Some((content, _)) = index_file::content(path)? else { return Ok(Vec::new()) };
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

/// Is this the content of an index, with the right checksum?
pub(crate) fn is_whole(content: &[u8]) -> io::Result<bool> {
    Ok(has_valid_checksum(content, 20)? || has_valid_checksum(content, 32)?)
}

/// The last bytes of an index are the hash of all before them; zeros when `index.skipHash` is set.
fn has_valid_checksum(content: &[u8], hash_len: usize) -> io::Result<bool> {
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
