//! Taking the snapshot that a run can be taken back to.
//!
//! Kept are copies of what git could not give back: files that differ from the index, untracked files, the index, HEAD and
//! the other files of the git directory (see [`git_dir`] for what stays out). Not copied are tracked files that are as the index has them
//! (their blobs are in the repository), and ignored files: those get a second name, because git replaces an ignored file
//! without asking when another branch tracks it.
//!
//! The objects that all this needs are kept from a `git gc` in the run by second names.
//!
//! Limit: contents of submodules and nested repositories, owners, times and extended attributes are not kept; of ignored
//! files only the first [`IGNORED`] have a second name, the others are known by name.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::access::Purpose;
use crate::fs::beneath::{Kind, RelPath, Root};
use crate::fs::{FileId, absent_is_none, durable, named as fs};
use crate::git::{RefName, RefStore, Repository, Value};
use crate::run::look::{Status, Tracked};
use crate::run::manifest::{Content, Ignored, Kept, KeptLog, Manifest, path_text};
use crate::run::{Intent, git_dir, guard, objects};
use crate::state::{StateDir, TxId};
use crate::util::text::shown;

/// How many ignored files get a second name.
pub(crate) const IGNORED: usize = 1000;

/// How many refs get a second name for their reflogs.
const REFLOGS: usize = 1000;

/// A file that changes while it is copied is copied again, that often.
const TRIES: usize = 5;

/// Where copies of the run `id` lie.
pub(crate) fn copies_dir(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("copies")
}

/// Where reflogs of the run `id` have their second names.
pub(crate) fn reflog_copy(state: &StateDir, id: TxId, name: &RefName) -> PathBuf {
    use sha1::Digest;
    let sum = sha1::Sha1::digest(name.as_bytes());
    let hex: String = sum.iter().map(|b| format!("{b:02x}")).collect();
    state.tx(id).join("reflogs").join(hex)
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
            let Some(parent) = crate::run::reachable(root.parent(path)).with_context(cannot)? else {
                return Ok(kept(Content::Absent, None));
            };
            let Some(stat) = parent.stat().with_context(cannot)? else { return Ok(kept(Content::Absent, None)) };
            match stat.kind {
                Kind::Directory | Kind::Other => return Ok(kept(Content::Opaque, None)),
                Kind::Symlink => {
                    let Some(target) = parent.read_link().with_context(cannot)? else { continue };
                    let target = crate::util::text::escape(&target).into_owned();
                    return Ok(kept(Content::Link { target }, Some(stat.id)));
                }
                Kind::File => {
                    let Some(file) = parent.open().with_context(cannot)? else { continue };
                    let (copy, at) = self.number();
                    let made = durable::copy_new(&file, &at).with_context(cannot)?;
                    if FileId::of(&file.metadata().with_context(cannot)?) == stat.id {
                        let identity = FileId::of(&made.metadata().with_context(cannot)?);
                        return Ok(kept(Content::File { mode: stat.mode, copy, identity }, Some(stat.id)));
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

/// Takes the snapshot for the run `id`, whose directory exists.
pub(crate) fn take(repo: &Repository, state: &StateDir, id: TxId, intent: &Intent<'_>) -> anyhow::Result<Manifest> {
    let mut copies = Copies { dir: copies_dir(state, id), next: 0 };
    for dir in [&copies.dir, &state.tx(id).join("reflogs")] {
        durable::make_dirs(dir, Purpose::State)?;
    }
    let mut manifest = Manifest { worktree: intent.worktree.map(path_text), ..Manifest::default() };
    if let Some(worktree) = intent.worktree {
        manifest.root = FileId::at(worktree)?.map(|root| root.ino);
    }
    manifest.index = keep_index(&mut copies, repo)?;
    manifest.own = keep_git_dir(&mut copies, &repo.git_dir, git_dir::own(&repo.git_dir)?)?;
    if repo.git_dir != repo.common_dir {
        manifest.shared = keep_git_dir(&mut copies, &repo.common_dir, git_dir::shared(&repo.common_dir)?)?;
    }
    manifest.guard = guard::look(repo, intent.config, intent.worktree)?;
    manifest.refs = RefStore::new(repo).all()?;
    manifest.reflogs = keep_reflogs(repo, state, id, &manifest.refs)?;
    manifest.stash = Some(RefStore::new(repo).read(&RefName::parse(b"refs/stash")?)?.value);
    manifest.linked = linked(repo);
    if let Some(worktree) = intent.worktree {
        keep_worktree(&mut copies, repo, worktree, intent, &mut manifest)?;
    }
    objects::protect(repo, state, id).context("cannot keep the repository's objects from a gc")?;
    Ok(manifest)
}

/// Names of linked worktrees.
pub(crate) fn linked(repo: &Repository) -> Vec<String> {
    let name = |dir: &PathBuf| dir.file_name().map(|n| crate::util::text::escape(n.as_bytes()).into_owned());
    repo.all_git_dirs().iter().skip(1).filter_map(name).collect()
}

/// git tells by the index's own time which of its entries cannot be trusted: the copy has it, too.
fn keep_index(copies: &mut Copies, repo: &Repository) -> anyhow::Result<Option<Kept>> {
    let path = RelPath::parse(b"index")?;
    let mut kept = copies.keep(&Root::open_itself(&repo.git_dir)?, &path)?;
    if let (Content::File { copy, identity, .. }, Some(id)) = (&mut kept.content, kept.id) {
        let copy = copies.dir.join(copy.to_string());
        durable::set_modified(&copy, id.mtime).context("cannot copy the index's time")?;
        *identity = FileId::at(&copy)?.context("the copy of the index is gone")?;
    }
    Ok(Some(kept))
}

/// Is what `manifest` names what [`take`] could have kept for the run `id`, and are its copies those that it made?
pub(crate) fn verify(manifest: &Manifest, state: &StateDir, id: TxId) -> anyhow::Result<()> {
    let Manifest { own, shared, index, files, .. } = manifest;
    let foreign = own
        .iter()
        .find(|kept| !git_dir::is_own(&kept.path) || (git_dir::is_hook(&kept.path) && kept.content != Content::Opaque));
    let foreign = foreign.or(shared.iter().find(|kept| !git_dir::is_shared(&kept.path)));
    let foreign = foreign.or(index.iter().find(|kept| kept.path.as_bytes() != b"index"));
    if let Some(foreign) = foreign {
        anyhow::bail!("its snapshot names {}, which no run keeps", foreign.path);
    }
    let copies = copies_dir(state, id);
    for kept in own.iter().chain(shared).chain(index).chain(files) {
        if let Content::File { copy, identity, .. } = &kept.content {
            let found = FileId::at(&copies.join(copy.to_string()))?;
            let is_it = found.is_some_and(|found| found.is_same_file(identity));
            anyhow::ensure!(is_it, "the copy of {} is not the one that its snapshot made", kept.path);
        }
    }
    Ok(())
}

/// What a snapshot has of these paths of a git directory.
fn keep_git_dir(copies: &mut Copies, git_dir: &Path, paths: Vec<RelPath>) -> anyhow::Result<Vec<Kept>> {
    let root = Root::open_itself(git_dir)?;
    let mut keep = |path: RelPath| -> anyhow::Result<Kept> {
        if let Some(id) = git_dir::identity_alone(git_dir, &path)? {
            return Ok(Kept { path, content: Content::Opaque, id: Some(id) });
        }
        match copies.keep(&root, &path) {
            // A colleague's, made with a umask of 077: no reason to run nothing.
            Err(error) if is_denied(&error) => Ok(Kept { path, content: Content::Opaque, id: None }),
            kept => kept,
        }
    };
    paths.into_iter().map(&mut keep).collect()
}

fn is_denied(error: &anyhow::Error) -> bool {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kind == Some(ErrorKind::PermissionDenied)
}

/// HEAD's, because up to 2.45 git moves it outside of any transaction, and the stash's, whose list it is; then those of other
/// refs, which expire, or which a run changes where no hook sees it. Those beyond [`REFLOGS`] are kept by the hook when the
/// run first touches them.
fn keep_reflogs(
    repo: &Repository,
    state: &StateDir,
    id: TxId,
    all: &BTreeMap<RefName, Value>,
) -> anyhow::Result<Vec<KeptLog>> {
    let refs = RefStore::new(repo);
    let always = [refs.canonical(b"HEAD")?, RefName::parse(b"refs/stash")?];
    let mut kept = Vec::new();
    for name in always.iter().chain(all.keys().filter(|name| !always.contains(name))) {
        let log = keep_reflog(&refs.log(name), state, id, name.clone())?;
        // Tags have none, and are many.
        if log.size.is_some() || !name.as_bytes().starts_with(b"refs/tags/") {
            kept.push(log);
        }
        if kept.len() > REFLOGS {
            break;
        }
    }
    Ok(kept)
}

/// Gives the reflog of `name`, which lies at `log`, a second name for the run `id`, unless it has one.
pub(crate) fn keep_reflog(log: &Path, state: &StateDir, id: TxId, name: RefName) -> anyhow::Result<KeptLog> {
    // Its size first: what is appended in between is not ours to take back.
    let size = FileId::at(log)?.map(|id| id.size);
    if size.is_some() {
        match durable::keep_second(log, &reflog_copy(state, id, &name)) {
            // What is no file, or lies behind a link, is no reflog of this repository: without a second name it stays as it is.
            Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::InvalidInput) => {}
            other => other.with_context(|| format!("cannot keep the reflog of {name}"))?,
        }
    }
    Ok(KeptLog { name, size })
}

fn keep_worktree(
    copies: &mut Copies,
    repo: &Repository,
    worktree: &Path,
    intent: &Intent<'_>,
    manifest: &mut Manifest,
) -> anyhow::Result<()> {
    let root = Root::open_itself(worktree).with_context(|| format!("cannot open {}", shown(worktree)))?;
    let (status, tracked) = std::thread::scope(|scope| {
        let tracked = scope.spawn(|| Tracked::read(repo, worktree, intent, intent.attributes));
        let status = Status::read(repo, intent.git, worktree, None);
        (status, tracked.join().expect("reading the index does not panic"))
    });
    let (status, mut tracked) = (status?, tracked?);
    let untracked_rules = status.untracked.iter().chain(&status.ignored).any(|p| p.name() == ".gitattributes");
    if untracked_rules && tracked.to_keep.is_empty() {
        tracked = Tracked::read(repo, worktree, intent, &[worktree.to_owned()])?;
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

/// The bits that this process takes from new files.
pub(crate) fn umask() -> u32 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let octal = text.lines().find_map(|line| line.strip_prefix("Umask:"));
    octal.and_then(|o| u32::from_str_radix(o.trim(), 8).ok()).unwrap_or(0o022)
}
