//! What git says about a worktree and its index, as far as a snapshot and its restoring ask.
//!
//! Most indexes can be answered for without git: nothing is flagged, and nothing converts what is checked out.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::beneath::RelPath;
use crate::fs::{absent_is_none, named as fs};
use crate::git::cat_file::sizes;
use crate::git::exec::Ran;
use crate::git::{Config, Git, Repository, index};
use crate::run::Intent;

/// Otherwise git takes a file that a sparse checkout keeps out for one of the others as soon as it is there.
const EXPECT_FILES: &str = "sparse.expectFilesOutsideOfPatterns";

/// A tracked path that differs from the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The path.
    pub path: RelPath,
    /// The index's mode and blob for it; `None` while it is in conflict.
    pub indexed: Option<(u32, String)>,
}

/// What `git status` says of a worktree.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// Tracked, and not as the index has it.
    pub changed: Vec<Changed>,
    /// Not tracked, not ignored.
    pub untracked: Vec<RelPath>,
    /// Untracked directories that are repositories of their own.
    pub opaque: Vec<RelPath>,
    /// Ignored files.
    pub ignored: Vec<RelPath>,
    /// Ignored directories.
    pub ignored_dirs: Vec<RelPath>,
    /// Git directories that lie in the worktree under another name than `.git`: to git they are untracked files.
    git_dirs: Vec<Vec<u8>>,
}

/// Paths, from the worktree's root, of the repository's git directories below it.
fn git_dirs_below(repo: &Repository, worktree: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let worktree = fs::canonicalize(worktree)?;
    let mut found = Vec::new();
    for dir in [&repo.common_dir, &repo.git_dir] {
        if let Ok(inside) = fs::canonicalize(dir)?.strip_prefix(&worktree) {
            found.push(inside.as_os_str().as_bytes().to_owned());
        }
    }
    Ok(found)
}

/// Is one path the other one, or does it lie below that?
fn overlap(one: &[u8], other: &[u8]) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

impl Status {
    /// Asks git, with `index` instead of the worktree's own if it is given.
    pub(crate) fn read(repo: &Repository, git: &Git, worktree: &Path, index: Option<&Path>) -> anyhow::Result<Status> {
        const ARGS: [&str; 7] = [
            "status",
            "--porcelain=v2",
            "-z",
            "--untracked-files=all",
            "--ignored=matching",
            "--no-renames",
            "--ignore-submodules=all",
        ];
        let ran = in_worktree(&git.at(&repo.git_dir).worktree(worktree), &ARGS, index)?;
        let mut status = Status { git_dirs: git_dirs_below(repo, worktree)?, ..Status::default() };
        for line in ran.split(0) {
            status.add(line).with_context(|| format!("git status says `{}`", line.escape_ascii()))?;
        }
        Ok(status)
    }

    fn add(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let (kind, rest) = line.split_at_checked(2).context("a cut line")?;
        match kind {
            b"? " | b"! " => {
                let (path, is_dir) = rest.strip_suffix(b"/").map_or((rest, false), |dir| (dir, true));
                if self.git_dirs.iter().any(|git_dir| overlap(path, git_dir)) {
                    return Ok(());
                }
                // A name that git itself would not check out (`git~1`): nobody's to touch.
                let Ok(path) = RelPath::parse(path) else { return Ok(()) };
                match (kind[0], is_dir) {
                    (b'?', false) => self.untracked.push(path),
                    (b'?', true) => self.opaque.push(path),
                    (_, false) => self.ignored.push(path),
                    (_, true) => self.ignored_dirs.push(path),
                }
            }
            b"1 " => {
                let mut words = rest.splitn(8, |b| *b == b' ');
                let mut word = || words.next().context("too few words");
                let (xy, sub) = (word()?, word()?);
                let (_, mode, _, _, blob, path) = (word()?, word()?, word()?, word()?, word()?, word()?);
                if xy.get(1) != Some(&b'.') && !sub.starts_with(b"S") {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let mode = u32::from_str_radix(&text(mode), 8).context("no mode")?;
                    let indexed = (mode != 0 && xy.get(1) != Some(&b'A')).then(|| (mode, text(blob)));
                    self.changed.push(Changed { path: RelPath::parse(path)?, indexed });
                }
            }
            b"u " => {
                let path = rest.splitn(10, |b| *b == b' ').nth(9).context("too few words")?;
                self.changed.push(Changed { path: RelPath::parse(path)?, indexed: None });
            }
            // Headers (`# `): nothing that we ask for.
            _ => {}
        }
        Ok(())
    }
}

/// What the index says about tracked files that `git status` does not.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    /// git does not look at them, or their bytes are not those of their blobs.
    pub(super) to_keep: Vec<RelPath>,
}

/// One line of `git ls-files -v -s`.
struct Entry {
    tag: u8,
    blob: String,
    path: RelPath,
}

fn in_worktree(git: &Git, args: &[&str], index: Option<&Path>) -> anyhow::Result<Ran> {
    let command = git.command(args.iter().copied()).config(EXPECT_FILES, "true");
    match index {
        Some(index) => command.index(index).run_ok(),
        None => command.run_ok(),
    }
}

/// The index at `index` (or the worktree's own), entry by entry; what is in conflict is left out.
fn entries(git: &Git, index: Option<&Path>) -> anyhow::Result<Vec<Entry>> {
    let ran = in_worktree(git, &["ls-files", "-v", "-s", "-z"], index)?;
    let mut entries = Vec::new();
    for line in ran.split(0) {
        let tab = line.iter().position(|b| *b == b'\t').context("git ls-files says a line without a path")?;
        let head = std::str::from_utf8(&line[..tab])?;
        let mut words = head.split(' ');
        let mut word = || words.next().context("git ls-files says a cut line");
        let (tag, _, blob, stage) = (word()?, word()?, word()?, word()?);
        if stage == "0" {
            let path = RelPath::parse(&line[tab + 1..])?;
            let tag = tag.bytes().next().unwrap_or(b'H');
            entries.push(Entry { tag, blob: blob.to_owned(), path });
        }
    }
    Ok(entries)
}

/// Paths that the index at `index` keeps out of the worktree (a sparse checkout).
pub(crate) fn skipped(repo: &Repository, git: &Git, worktree: &Path, index: &Path) -> anyhow::Result<Vec<RelPath>> {
    let all = entries(&git.at(&repo.git_dir).worktree(worktree), Some(index))?;
    Ok(all.into_iter().filter(|e| e.tag.eq_ignore_ascii_case(&b'S')).map(|e| e.path).collect())
}

impl Tracked {
    pub(super) fn read(
        repo: &Repository,
        worktree: &Path,
        intent: &Intent<'_>,
        attributes: &[PathBuf],
    ) -> anyhow::Result<Tracked> {
        let mut tracked = Tracked::default();
        // Most indexes have nothing to ask git about.
        let glance = index::glance(&repo.git_dir.join("index")).context("cannot read the index")?;
        let outside = attributes.iter().chain([&repo.common_dir.join("info/attributes")]).any(|path| path.exists());
        let may_convert = outside || glance.is_none_or(|g| g.has_attributes);
        let settings = conversion_settings(intent.config);
        if glance.is_some_and(|g| !g.has_flagged) && !may_convert && !settings {
            return Ok(tracked);
        }
        let git = intent.git.at(&repo.git_dir).worktree(worktree);
        let entries = entries(&git, None)?;
        let size = |entry: &Entry| {
            let metadata = absent_is_none(fs::symlink_metadata(worktree.join(entry.path.as_path())))?;
            anyhow::Ok(metadata.map(|m| m.len()))
        };
        for entry in entries.iter().filter(|e| e.tag.is_ascii_lowercase() || e.tag == b'S') {
            if size(entry)?.is_some() {
                tracked.to_keep.push(entry.path.clone());
            }
        }
        let converted = converted(&git, settings)?;
        if converted.any {
            let asked: Vec<&Entry> = entries.iter().filter(|e| converted.may_be(&e.path)).collect();
            // As a checkout writes them.
            let blobs = sizes(&git.replacing(), asked.iter().map(|e| e.blob.as_str()))?;
            for (entry, blob) in asked.iter().zip(blobs) {
                let now = size(entry)?;
                if now.is_some() && (converted.is_filtered(&entry.path) || now != blob) {
                    tracked.to_keep.push(entry.path.clone());
                }
            }
        }
        Ok(tracked)
    }
}

/// Does the configuration convert line endings, or name a file of attributes?
fn conversion_settings(config: &Config) -> bool {
    ["core.autocrlf", "core.attributesfile"].iter().any(|key| config.get(key).is_some_and(|value| value != "false"))
}

/// Whose bytes in the worktree may not be those of the blob.
struct Converted {
    any: bool,
    /// All of them: the configuration says so.
    all: bool,
    some: HashSet<RelPath>,
    /// A filter may do anything, also keep the size.
    filtered: HashSet<RelPath>,
}

impl Converted {
    fn may_be(&self, path: &RelPath) -> bool {
        self.all || self.some.contains(path)
    }

    fn is_filtered(&self, path: &RelPath) -> bool {
        self.filtered.contains(path)
    }
}

fn converted(git: &Git, all: bool) -> anyhow::Result<Converted> {
    const FILTERS: &str = ":(exclude,attr:!filter !ident !working-tree-encoding)";
    const ANY: &str = ":(exclude,attr:!filter !ident !working-tree-encoding !text !eol !crlf)";
    let list = |what: &str| -> anyhow::Result<HashSet<RelPath>> {
        let ran = git.command(["ls-files", "-z", "--", what]).run_ok()?;
        Ok(ran.split(0).map(RelPath::parse).collect::<Result<_, _>>()?)
    };
    let some = list(ANY)?;
    let filtered = if some.is_empty() { HashSet::new() } else { list(FILTERS)? };
    Ok(Converted { any: all || !some.is_empty(), all, some, filtered })
}
