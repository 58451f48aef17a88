//! Taking the snapshot that a run can be taken back to.
//!
//! Kept are copies of what git could not give back: files that differ from the index, untracked files, the index, HEAD and
//! the other files of the git directory that commands change. Not copied are tracked files that are as the index has them
//! (their blobs are in the repository), and ignored files: those get a second name, because git replaces an ignored file
//! without asking when another branch tracks it.
//!
//! The objects that all this needs are kept from a `git gc` in the run: packs by a `.keep` file, loose ones by a second name.
//!
//! Limit: contents of submodules and nested repositories, owners, times and extended attributes are not kept; of ignored
//! files only the first [`IGNORED`] have a second name, the others are known by name.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::manifest::{Content, Ignored, Kept, KeptLog, Manifest, path_text};
use super::objects;
use crate::beneath::{Kind, RelPath, Root};
use crate::durable;
use crate::git::refs::absent_is_none;
use crate::git::{FileId, RefName, RefStore, Repository, command, index};
use crate::state_dir::{StateDir, TxId};

/// How many ignored files get a second name.
pub const IGNORED: usize = 1000;

/// Directories of a git directory that commands change as they go.
pub(crate) const CHANGING_DIRS: [&str; 4] = ["info", "rebase-apply", "rebase-merge", "sequencer"];

/// Otherwise git takes a file that a sparse checkout keeps out for one of the others as soon as it is there.
const EXPECT_FILES: &str = "sparse.expectFilesOutsideOfPatterns=true";

/// A file that changes while it is copied is copied again, that often.
const TRIES: usize = 5;

/// Where copies of the run `id` lie.
#[must_use]
pub fn copies_dir(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("copies")
}

/// Where reflogs of the run `id` have their second names.
#[must_use]
pub fn reflog_copy(state: &StateDir, id: TxId, name: &RefName) -> PathBuf {
    use sha1::Digest;
    let sum = sha1::Sha1::digest(name.as_bytes());
    let hex: String = sum.iter().map(|b| format!("{b:02x}")).collect();
    state.tx(id).join("reflogs").join(hex)
}

/// Is `name`, right in a git directory, a file that a run takes back with everything else?
pub(crate) fn is_kept_in_git_dir(name: &OsStr) -> bool {
    // HEAD is a ref; the index has a place of its own; the others are git's notes about its housekeeping.
    const NOT: [&[u8]; 6] = [b"HEAD", b"index", b"packed-refs", b"packed-refs.new", b"gc.pid", b"gc.log"];
    let name = name.as_bytes();
    !NOT.contains(&name) && !name.ends_with(b".lock")
}

/// Copies of one run, numbered.
struct Copies {
    dir: PathBuf,
    next: u64,
}

impl Copies {
    fn number(&mut self) -> (u64, PathBuf) {
        self.next += 1;
        (self.next, self.dir.join(self.next.to_string()))
    }

    /// Keeps what is at `path`.
    fn keep(&mut self, root: &Root, path: &RelPath) -> anyhow::Result<Kept> {
        let cannot = || format!("cannot keep {path}");
        for _ in 0..TRIES {
            let kept = |content, id| Kept { path: path.clone(), content, id };
            let Some(parent) = super::reachable(root.parent(path)).with_context(cannot)? else {
                return Ok(kept(Content::Absent, None));
            };
            let Some(stat) = parent.stat().with_context(cannot)? else { return Ok(kept(Content::Absent, None)) };
            match stat.kind {
                Kind::Directory | Kind::Other => return Ok(kept(Content::Opaque, None)),
                Kind::Symlink => {
                    let Some(target) = parent.read_link().with_context(cannot)? else { continue };
                    let target = crate::git::refs::escape(&target).into_owned();
                    return Ok(kept(Content::Link { target }, Some(stat.id)));
                }
                Kind::File => {
                    let Some(file) = parent.open().with_context(cannot)? else { continue };
                    let (copy, at) = self.number();
                    durable::copy_new(&file, &at, (stat.mode & 0o666) | 0o600).with_context(cannot)?;
                    if FileId::of(&file.metadata().with_context(cannot)?) == stat.id {
                        return Ok(kept(Content::File { mode: stat.mode, copy }, Some(stat.id)));
                    }
                    durable::remove_file(&at)?;
                }
            }
        }
        anyhow::bail!(
            "{path} changes all the time, so it cannot be kept\nhint: nothing was run; try again when it is at rest"
        )
    }

    /// Gives an ignored file a second name.
    fn name(&mut self, from: &Path, path: RelPath) -> anyhow::Result<Option<Ignored>> {
        let Some(metadata) = absent_is_none(fs::symlink_metadata(from))? else { return Ok(None) };
        if !metadata.is_file() {
            return Ok(Some(Ignored { path, id: FileId::of(&metadata), copy: None }));
        }
        let (number, at) = self.number();
        // Another file system, or a file that the kernel's policy lets only its owner link: known by name then.
        let copy = durable::hard_link(from, &at).is_ok().then_some(number);
        // The link itself has changed the ctime.
        let Some(id) = FileId::at(from)? else { return Ok(None) };
        Ok(Some(Ignored { path, id, copy }))
    }
}

/// Takes the snapshot for the run `id`, whose directory exists. `attributes`: where git attributes may lie that are not of this
/// repository.
///
/// # Errors
/// Something cannot be read or kept. Nothing was changed then.
pub fn take(
    repo: &Repository,
    program: &Path,
    state: &StateDir,
    id: TxId,
    worktree: Option<&Path>,
    attributes: &[PathBuf],
) -> anyhow::Result<Manifest> {
    let mut copies = Copies { dir: copies_dir(state, id), next: 0 };
    for dir in [&copies.dir, &state.tx(id).join("reflogs")] {
        durable::create_dirs(dir, 0o777)?;
        durable::share_like_directory(dir)?;
    }
    let mut manifest = Manifest { worktree: worktree.map(path_text), ..Manifest::default() };
    manifest.index = keep_index(&mut copies, repo)?;
    manifest.own = keep_git_dir(&mut copies, &repo.git_dir, true)?;
    if repo.git_dir != repo.common_dir {
        manifest.shared = keep_git_dir(&mut copies, &repo.common_dir, false)?;
    }
    manifest.reflogs = keep_reflogs(repo, state, id)?;
    manifest.stash = Some(RefStore::new(repo).read(&RefName::parse(b"refs/stash")?)?.value);
    manifest.linked = linked(repo);
    if let Some(worktree) = worktree {
        keep_worktree(&mut copies, repo, program, worktree, attributes, &mut manifest)?;
    }
    objects::protect(repo, state, id).context("cannot keep the repository's objects from a gc")?;
    Ok(manifest)
}

/// Names of linked worktrees.
pub(crate) fn linked(repo: &Repository) -> Vec<String> {
    let name = |dir: &PathBuf| dir.file_name().map(|n| crate::git::refs::escape(n.as_bytes()).into_owned());
    repo.all_git_dirs().iter().skip(1).filter_map(name).collect()
}

/// git tells by the index's own time which of its entries cannot be trusted: the copy has it, too.
fn keep_index(copies: &mut Copies, repo: &Repository) -> anyhow::Result<Option<Kept>> {
    let path = RelPath::parse(b"index")?;
    let kept = copies.keep(&Root::open(&repo.git_dir)?, &path)?;
    if let (Content::File { copy, .. }, Some(id)) = (&kept.content, kept.id) {
        durable::set_modified(&copies.dir.join(copy.to_string()), id.mtime).context("cannot copy the index's time")?;
    }
    Ok(Some(kept))
}

/// Files right in a git directory (of the shared one only the configuration), and those of the directories that commands
/// change.
fn keep_git_dir(copies: &mut Copies, git_dir: &Path, own: bool) -> anyhow::Result<Vec<Kept>> {
    let root = Root::open(git_dir)?;
    git_dir_files(git_dir, own)?.iter().map(|path| copies.keep(&root, path)).collect()
}

/// What there is to keep in a git directory.
pub(crate) fn git_dir_files(git_dir: &Path, own: bool) -> anyhow::Result<Vec<RelPath>> {
    let mut found = Vec::new();
    if own {
        for entry in fs::read_dir(git_dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() && is_kept_in_git_dir(&entry.file_name()) {
                found.push(RelPath::parse(entry.file_name().as_bytes())?);
            }
        }
        for dir in CHANGING_DIRS {
            files_below(git_dir, &git_dir.join(dir), &mut found)?;
        }
    } else {
        found.push(RelPath::parse(b"config")?);
        files_below(git_dir, &git_dir.join("info"), &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn files_below(base: &Path, dir: &Path, found: &mut Vec<RelPath>) -> anyhow::Result<()> {
    let Some(entries) = absent_is_none(fs::read_dir(dir))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            files_below(base, &path, found)?;
        } else if !entry.file_name().as_bytes().ends_with(b".lock") {
            found.push(RelPath::parse(path.strip_prefix(base)?.as_os_str().as_bytes())?);
        }
    }
    Ok(())
}

/// HEAD's, because up to 2.45 git moves it outside of any transaction, and the stash's, whose list it is. Those of other
/// refs are kept by the hook when the run first touches them.
fn keep_reflogs(repo: &Repository, state: &StateDir, id: TxId) -> anyhow::Result<Vec<KeptLog>> {
    let refs = RefStore::new(repo);
    let mut kept = Vec::new();
    for name in [refs.canonical(b"HEAD")?, RefName::parse(b"refs/stash")?] {
        kept.push(keep_reflog(&refs.log(&name), state, id, name)?);
    }
    Ok(kept)
}

/// Gives the reflog of `name`, which lies at `log`, a second name for the run `id`, unless it has one.
///
/// # Errors
/// What the file system said.
pub fn keep_reflog(log: &Path, state: &StateDir, id: TxId, name: RefName) -> anyhow::Result<KeptLog> {
    // Its size first: what is appended in between is not ours to take back.
    let size = FileId::at(log)?.map(|id| id.size);
    if size.is_some() {
        match durable::keep_second(log, &reflog_copy(state, id, &name)) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.with_context(|| format!("cannot keep the reflog of {name}"))?,
        }
    }
    Ok(KeptLog { name, size })
}

fn keep_worktree(
    copies: &mut Copies,
    repo: &Repository,
    program: &Path,
    worktree: &Path,
    attributes: &[PathBuf],
    manifest: &mut Manifest,
) -> anyhow::Result<()> {
    let root = Root::open(worktree).with_context(|| format!("cannot open {}", worktree.display()))?;
    let (status, tracked) = std::thread::scope(|scope| {
        let tracked = scope.spawn(|| Tracked::read(repo, program, worktree, attributes));
        let status = Status::read(repo, program, worktree, None);
        (status, tracked.join().expect("reading the index does not panic"))
    });
    let (status, mut tracked) = (status?, tracked?);
    let untracked_rules = status.untracked.iter().chain(&status.ignored).any(|p| p.name() == ".gitattributes");
    if untracked_rules && tracked.to_keep.is_empty() {
        tracked = Tracked::read(repo, program, worktree, &[worktree.to_owned()])?;
    }
    let mut keep: Vec<RelPath> = status.changed.into_iter().map(|c| c.path).collect();
    keep.extend(status.untracked);
    keep.append(&mut tracked.to_keep);
    keep.sort();
    keep.dedup();
    for path in &keep {
        let kept = copies.keep(&root, path)?;
        if kept.content == Content::Opaque {
            manifest.by_name.push(path.clone());
        }
        manifest.files.push(kept);
    }
    manifest.by_name.extend(status.opaque);
    for path in status.ignored {
        let from = worktree.join(path.as_path());
        if manifest.ignored.len() < IGNORED {
            manifest.ignored.extend(copies.name(&from, path)?);
        } else {
            manifest.by_name.push(path);
        }
    }
    for dir in status.ignored_dirs {
        name_below(copies, worktree, &worktree.join(dir.as_path()), manifest)?;
        manifest.by_name.push(dir);
    }
    Ok(())
}

/// Second names for the files below an ignored directory, as long as there are not too many.
fn name_below(copies: &mut Copies, worktree: &Path, dir: &Path, manifest: &mut Manifest) -> anyhow::Result<()> {
    let Some(entries) = absent_is_none(fs::read_dir(dir))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if manifest.ignored.len() >= IGNORED {
            break;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            name_below(copies, worktree, &entry.path(), manifest)?;
        } else if let Ok(path) = RelPath::parse(entry.path().strip_prefix(worktree)?.as_os_str().as_bytes())
            && kind.is_file()
        {
            manifest.ignored.extend(copies.name(&entry.path(), path)?);
        }
    }
    Ok(())
}

/// A tracked path that differs from the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The path.
    pub path: RelPath,
    /// The index's mode and blob for it; `None` while it is in conflict.
    pub indexed: Option<(u32, String)>,
}

/// What `git status` says of a worktree.
#[derive(Debug, Default)]
pub struct Status {
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
    ///
    /// # Errors
    /// git fails, or names a path that must not be touched.
    pub fn read(repo: &Repository, program: &Path, worktree: &Path, index: Option<&Path>) -> anyhow::Result<Status> {
        const ARGS: [&str; 10] = [
            "-c",
            EXPECT_FILES,
            "--no-optional-locks",
            "status",
            "--porcelain=v2",
            "-z",
            "--untracked-files=all",
            "--ignored=matching",
            "--no-renames",
            "--ignore-submodules=all",
        ];
        let ran = command::run_anywhere(program, &repo.git_dir, Some(worktree), &ARGS, b"", index)?;
        anyhow::ensure!(ran.success, "git status failed: {}", ran.stderr);
        let mut status = Status { git_dirs: git_dirs_below(repo, worktree)?, ..Status::default() };
        for line in ran.stdout.split(|b| *b == 0).filter(|line| !line.is_empty()) {
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
                let path = RelPath::parse(path)?;
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
struct Tracked {
    /// git does not look at them, or their bytes are not those of their blobs.
    to_keep: Vec<RelPath>,
}

/// One line of `git ls-files -v -s`.
struct Entry {
    tag: u8,
    blob: String,
    path: RelPath,
}

/// The index at `index` (or the worktree's own), entry by entry; what is in conflict is left out.
fn entries(repo: &Repository, program: &Path, worktree: &Path, index: Option<&Path>) -> anyhow::Result<Vec<Entry>> {
    let args = ["-c", EXPECT_FILES, "ls-files", "-v", "-s", "-z"];
    let ran = command::run_anywhere(program, &repo.git_dir, Some(worktree), &args, b"", index)?;
    anyhow::ensure!(ran.success, "git ls-files failed: {}", ran.stderr);
    let mut entries = Vec::new();
    for line in ran.stdout.split(|b| *b == 0).filter(|line| !line.is_empty()) {
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
///
/// # Errors
/// git fails.
pub fn skipped(repo: &Repository, program: &Path, worktree: &Path, index: &Path) -> anyhow::Result<Vec<RelPath>> {
    let all = entries(repo, program, worktree, Some(index))?;
    Ok(all.into_iter().filter(|e| e.tag.eq_ignore_ascii_case(&b'S')).map(|e| e.path).collect())
}

impl Tracked {
    fn read(repo: &Repository, program: &Path, worktree: &Path, attributes: &[PathBuf]) -> anyhow::Result<Tracked> {
        let mut tracked = Tracked::default();
        // Most indexes have nothing to ask git about.
        let glance = index::glance(&repo.git_dir.join("index")).context("cannot read the index")?;
        let outside = attributes.iter().chain([&repo.common_dir.join("info/attributes")]).any(|path| path.exists());
        let may_convert = outside || glance.is_none_or(|g| g.has_attributes);
        let settings = conversion_settings(repo, program)?;
        if glance.is_some_and(|g| !g.has_flagged) && !may_convert && !settings {
            return Ok(tracked);
        }
        let entries = entries(repo, program, worktree, None)?;
        let size = |entry: &Entry| {
            let metadata = absent_is_none(fs::symlink_metadata(worktree.join(entry.path.as_path())))?;
            anyhow::Ok(metadata.map(|m| m.len()))
        };
        for entry in entries.iter().filter(|e| e.tag.is_ascii_lowercase() || e.tag == b'S') {
            if size(entry)?.is_some() {
                tracked.to_keep.push(entry.path.clone());
            }
        }
        let converted = converted(repo, program, worktree, settings)?;
        if converted.any {
            let asked: Vec<&Entry> = entries.iter().filter(|e| converted.may_be(&e.path)).collect();
            let blobs = objects::sizes(repo, program, asked.iter().map(|e| e.blob.as_str()))?;
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
fn conversion_settings(repo: &Repository, program: &Path) -> anyhow::Result<bool> {
    let args = ["config", "--get-regexp", r"^core\.(autocrlf|attributesfile)$"];
    let ran = command::run(program, &repo.git_dir, &args, b"", None)?;
    Ok(String::from_utf8_lossy(&ran.stdout).lines().any(|line| line.strip_suffix(" false").is_none()))
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

fn converted(repo: &Repository, program: &Path, worktree: &Path, all: bool) -> anyhow::Result<Converted> {
    const FILTERS: &str = ":(exclude,attr:!filter !ident !working-tree-encoding)";
    const ANY: &str = ":(exclude,attr:!filter !ident !working-tree-encoding !text !eol !crlf)";
    let list = |what: &str| -> anyhow::Result<HashSet<RelPath>> {
        let args = ["ls-files", "-z", "--", what];
        let ran = command::run_anywhere(program, &repo.git_dir, Some(worktree), &args, b"", None)?;
        anyhow::ensure!(ran.success, "git ls-files failed: {}", ran.stderr);
        let paths = ran.stdout.split(|b| *b == 0).filter(|p| !p.is_empty()).map(RelPath::parse);
        Ok(paths.collect::<Result<_, _>>()?)
    };
    let some = list(ANY)?;
    let filtered = if some.is_empty() { HashSet::new() } else { list(FILTERS)? };
    Ok(Converted { any: all || !some.is_empty(), all, some, filtered })
}

/// The bits that this process takes from new files.
pub(crate) fn umask() -> u32 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let octal = text.lines().find_map(|line| line.strip_prefix("Umask:"));
    octal.and_then(|o| u32::from_str_radix(o.trim(), 8).ok()).unwrap_or(0o022)
}
