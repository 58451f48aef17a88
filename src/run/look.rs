//! What differs between a worktree and an index, as far as a snapshot and its restoring ask.
//!
//! Tracked files are compared here, not by `git status`: that runs the repository's filters. A file with the stat data that
//! the index has for it is unchanged; any other is read, and its raw bytes are compared with the blob. A file that a filter
//! converts may so count as changed when it is not: then a copy more is kept.
//!
//! Most indexes can be answered for without git: nothing is flagged, and nothing converts what is checked out.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::beneath::RelPath;
use crate::fs::{FileId, absent_is_none, durable, named as fs};
use crate::git::cat_file::sizes;
use crate::git::hash::Hash;
use crate::git::index_file::{Entry, StatData};
use crate::git::{Config, Git, Oid, Plumbing, Repository, index};
use crate::run::Intent;
use crate::util::text::shown;

/// A tracked path that differs from the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The path.
    pub path: RelPath,
    /// The index's mode and blob for it; `None` while it is in conflict, or has no content yet.
    pub indexed: Option<(u32, String)>,
}

/// What differs in a worktree.
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
    /// Compares with `index` instead of the worktree's own if it is given.
    pub(crate) fn read(repo: &Repository, git: &Git, worktree: &Path, index: Option<&Path>) -> anyhow::Result<Status> {
        let git = git.at(&repo.git_dir).worktree(worktree);
        let index = index.map_or_else(|| repo.git_dir.join("index"), Path::to_owned);
        let list = |what: Plumbing<'_>| git.command(what).index(&index).run_ok();
        let (untracked, ignored, changed) = std::thread::scope(|scope| {
            let untracked = scope.spawn(|| list(Plumbing::Untracked));
            let ignored = scope.spawn(|| list(Plumbing::Ignored));
            let changed = changed(&git, worktree, &index);
            let ended = "listing files does not panic";
            (untracked.join().expect(ended), ignored.join().expect(ended), changed)
        });
        let git_dirs = git_dirs_below(repo, worktree)?;
        let mut status = Status { changed: changed?, git_dirs, ..Status::default() };
        for path in untracked?.split(0) {
            if let Some((path, is_dir)) = status.taken(path) {
                if is_dir { status.opaque.push(path) } else { status.untracked.push(path) }
            }
        }
        let ignored = ignored?;
        let mut ignored: Vec<&[u8]> = ignored.split(0).collect();
        ignored.sort_unstable();
        for (n, path) in ignored.iter().enumerate() {
            // A directory of which only everything in it is ignored: that is listed, too.
            if path.ends_with(b"/") && ignored.get(n + 1).is_some_and(|next| next.starts_with(path)) {
                continue;
            }
            if let Some((path, is_dir)) = status.taken(path) {
                if is_dir { status.ignored_dirs.push(path) } else { status.ignored.push(path) }
            }
        }
        Ok(status)
    }

    /// The path, and whether it is a directory; `None` when it is nobody's to touch: a git directory, or a name that git
    /// itself would not check out (`git~1`).
    fn taken(&self, listed: &[u8]) -> Option<(RelPath, bool)> {
        let (path, is_dir) = listed.strip_suffix(b"/").map_or((listed, false), |dir| (dir, true));
        let is_gits = self.git_dirs.iter().any(|git_dir| overlap(path, git_dir));
        RelPath::parse(path).ok().filter(|_| !is_gits).map(|path| (path, is_dir))
    }
}

fn entries(git: &Git, index: &Path) -> anyhow::Result<(Vec<Entry>, i64)> {
    let unreadable = || {
        format!(
            "{} cannot be read as an index\nhint: move it away; then `git reset` makes it anew, and what was staged is as in HEAD",
            shown(index)
        )
    };
    index::read(git, index)?.with_context(unreadable)
}

/// The tracked paths that differ from the index.
pub(crate) fn changed(git: &Git, worktree: &Path, index: &Path) -> anyhow::Result<Vec<Changed>> {
    let (entries, written) = entries(git, index)?;
    let executable = git.config("core.fileMode")?.is_none_or(|value| value != "false");
    let trust = Trust {
        ctime: git.config("core.trustctime")?.is_none_or(|value| value != "false"),
        everything: git.config("core.checkStat")?.is_none_or(|value| !value.eq_ignore_ascii_case("minimal")),
    };
    let mut comparison = Comparison { worktree, written, executable, trust, dir: (Vec::new(), true) };
    let mut changed: Vec<Changed> = Vec::new();
    for entry in entries.iter().filter(|e| !e.assume_valid && !e.skip_worktree && e.mode != 0o160_000) {
        let path = RelPath::parse(&entry.path)?;
        let has_content = entry.stage == 0 && !entry.intent_to_add;
        if has_content && !comparison.differs(entry).with_context(|| format!("cannot look at {path}"))? {
            continue;
        }
        let indexed = has_content.then(|| (entry.mode, entry.oid.to_string()));
        // A path in conflict has up to three entries.
        if changed.last().is_none_or(|last| last.path != path) {
            changed.push(Changed { path, indexed });
        }
    }
    Ok(changed)
}

/// Compares files with the entries of an index, in its order.
struct Comparison<'w> {
    worktree: &'w Path,
    /// When the index was written: what is not older may have changed since without another time.
    written: i64,
    /// Does the file system know who may execute a file?
    executable: bool,
    /// Which of the index's stat data hold.
    trust: Trust,
    /// The directory of the last path, and whether no link is in it.
    dir: (Vec<u8>, bool),
}

impl Comparison<'_> {
    fn differs(&mut self, entry: &Entry) -> io::Result<bool> {
        if !self.is_beneath(&entry.path) {
            return Ok(true);
        }
        let path = self.worktree.join(std::ffi::OsStr::from_bytes(&entry.path));
        let Some(now) = absent_is_none(fs::symlink_metadata(&path))? else { return Ok(true) };
        let is_link = entry.mode == 0o120_000;
        let other_kind = if is_link { !now.is_symlink() } else { !now.is_file() };
        let other_mode = self.executable && !is_link && (entry.mode ^ now.permissions().mode()) & 0o100 != 0;
        if other_kind || other_mode {
            return Ok(true);
        }
        if entry.stat.is_some_and(|stat| is_same(&stat, &now, self.trust)) && FileId::of(&now).mtime < self.written {
            return Ok(false);
        }
        Ok(blob(&path, &now, &entry.oid)? != Some(entry.oid))
    }

    /// Is no directory on the way a link, or something else?
    fn is_beneath(&mut self, path: &[u8]) -> bool {
        let dir = path.iter().rposition(|b| *b == b'/').map_or(&[][..], |at| &path[..at]);
        if self.dir.0 != dir {
            let mut ends = dir.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([dir.len()]);
            let is_dir = |at: usize| {
                let whole = self.worktree.join(std::ffi::OsStr::from_bytes(&dir[..at]));
                fs::symlink_metadata(whole).is_ok_and(|m| m.is_dir())
            };
            self.dir = (dir.to_owned(), dir.is_empty() || ends.all(is_dir));
        }
        self.dir.1
    }
}

/// Which stat data of the index the user says hold: where another program changes the others, every file would have to be read.
#[derive(Debug, Clone, Copy)]
struct Trust {
    /// `core.trustctime`
    ctime: bool,
    /// `core.checkStat`: inode and owner too, and not only size and whole seconds.
    everything: bool,
}

/// Is the file as the index knows it? The times that the index has without nanoseconds are compared without.
fn is_same(stat: &StatData, now: &fs::Metadata, trust: Trust) -> bool {
    // The index has the lower 32 bits of everything.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let low = |value: i64| value as u32;
    let time = |known: (u32, u32), seconds: i64, nanos: i64| {
        known.0 == low(seconds) && (known.1 == 0 || known.1 == low(nanos) || !trust.everything)
    };
    let owner = || (stat.ino, stat.uid, stat.gid) == (low(now.ino().cast_signed()), now.uid(), now.gid());
    time(stat.mtime, now.mtime(), now.mtime_nsec())
        && (!trust.ctime || time(stat.ctime, now.ctime(), now.ctime_nsec()))
        && (!trust.everything || owner())
        // An entry without a size was made without looking at the file.
        && stat.size == low(now.len().cast_signed())
        && stat.size != 0
}

/// The blob that the raw bytes of a file, or of a link, would be.
fn blob(path: &Path, now: &fs::Metadata, like: &Oid) -> io::Result<Option<Oid>> {
    let hash = Hash::of(like);
    if now.is_symlink() {
        return Ok(absent_is_none(fs::read_link(path))?.map(|target| hash.blob(target.as_os_str().as_bytes())));
    }
    let mut read = std::fs::OpenOptions::new();
    let Some((mut file, metadata)) = absent_is_none(durable::open_regular(path, read.read(true)))? else {
        return Ok(None);
    };
    hash.copy_blob(&mut file, metadata.len(), &mut io::sink())
}

/// What the index says about tracked files that `git status` does not.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    /// git does not look at them, or their bytes are not those of their blobs.
    pub(super) to_keep: Vec<RelPath>,
}

/// Paths that the index at `index` keeps out of the worktree (a sparse checkout).
pub(crate) fn skipped(repo: &Repository, git: &Git, worktree: &Path, index: &Path) -> anyhow::Result<Vec<RelPath>> {
    let (entries, _) = entries(&git.at(&repo.git_dir).worktree(worktree), index)?;
    Ok(entries.iter().filter(|e| e.skip_worktree).map(|e| RelPath::parse(&e.path)).collect::<Result<_, _>>()?)
}

impl Tracked {
    pub(super) fn read(
        repo: &Repository,
        worktree: &Path,
        intent: &Intent<'_>,
        attributes: &[PathBuf],
    ) -> anyhow::Result<Tracked> {
        let mut tracked = Tracked::default();
        let git = intent.git.at(&repo.git_dir).worktree(worktree);
        let (entries, _) = entries(&git, &repo.git_dir.join("index"))?;
        for entry in entries.iter().filter(|e| e.assume_valid || e.skip_worktree) {
            let path = RelPath::parse(&entry.path)?;
            if size(worktree, &path)?.is_some() {
                tracked.to_keep.push(path);
            }
        }
        // Most worktrees have nothing to ask git about.
        let outside = attributes.iter().chain([&repo.common_dir.join("info/attributes")]).any(|path| path.exists());
        let has_attributes = || entries.iter().any(|e| e.path.ends_with(b".gitattributes"));
        let settings = conversion_settings(intent.config);
        if !settings && !outside && !has_attributes() {
            return Ok(tracked);
        }
        let converted = converted(&git, settings)?;
        if converted.any {
            let all = entries.iter().filter(|e| e.stage == 0).map(|e| (e, RelPath::parse(&e.path)));
            let all = all.map(|(e, path)| Ok((e, path?))).collect::<anyhow::Result<Vec<_>>>()?;
            let asked: Vec<_> = all.into_iter().filter(|(_, path)| converted.may_be(path)).collect();
            // As a checkout writes them.
            let blobs = sizes(&git.replacing(), asked.iter().map(|(e, _)| e.oid))?;
            for ((_, path), blob) in asked.into_iter().zip(blobs) {
                let now = size(worktree, &path)?;
                if now.is_some() && (converted.is_filtered(&path) || now != blob) {
                    tracked.to_keep.push(path);
                }
            }
        }
        Ok(tracked)
    }
}

/// The size of what is there; `None` for nothing.
fn size(worktree: &Path, path: &RelPath) -> anyhow::Result<Option<u64>> {
    Ok(absent_is_none(fs::symlink_metadata(worktree.join(path.as_path())))?.map(|m| m.len()))
}

/// Is anything configured that makes the bytes of a file other than those of its blob?
pub(crate) fn may_convert<'p>(
    repo: &Repository,
    git: &Git,
    mut tracked: impl Iterator<Item = &'p Vec<u8>>,
) -> anyhow::Result<bool> {
    let is_set = |key: &str| anyhow::Ok(git.config(key)?.is_some_and(|value| value != "false"));
    Ok(is_set("core.autocrlf")?
        || is_set("core.attributesFile")?
        || repo.common_dir.join("info/attributes").exists()
        || tracked.any(|path| path.ends_with(b".gitattributes")))
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
        let ran = git.command(Plumbing::Tracked(Some(what))).run_ok()?;
        Ok(ran.split(0).map(RelPath::parse).collect::<Result<_, _>>()?)
    };
    let some = list(ANY)?;
    let filtered = if some.is_empty() { HashSet::new() } else { list(FILTERS)? };
    Ok(Converted { any: all || !some.is_empty(), all, some, filtered })
}
