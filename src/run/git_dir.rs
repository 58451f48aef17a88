//! What a snapshot keeps of a git directory: everything but what is named here. The next git writes somewhere new.
//!
//! ```text
//! kept       every other file, up to 16 MiB
//! by name    modules, rr-cache: what a run adds there goes as a whole
//! told       hooks, larger files: known by identity; what a run changes there is told and left
//! out        what is no file and no link; refs, reflogs, HEAD, index: they have their own places in a snapshot
//!            objects at any depth, lfs, annex: nothing in there is changed, things are added
//!            the state of other worktrees, of git's housekeeping, of daemons, and ours; locks
//!            texts that a person has typed or is typing: no git goes on by them, and another commit's editor may be open
//! ```

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::fs::beneath::{Kind, RelPath};
use crate::fs::{FileId, door};

/// Names right in a git directory that stay out. `shallow` says which objects are not there: that does not go back with refs.
const OUT: [&str; 20] = [
    "HEAD",
    "index",
    "refs",
    "logs",
    "reftable",
    "packed-refs",
    "packed-refs.new",
    "shallow",
    "lfs",
    "annex",
    "worktrees",
    "gc.pid",
    "gc.log",
    "fsmonitor--daemon",
    "fsmonitor--daemon.ipc",
    ".jin",
    "COMMIT_EDITMSG",
    "TAG_EDITMSG",
    "NOTES_EDITMSG",
    "EDIT_DESCRIPTION",
];

/// Directories of which a snapshot has the names in them.
const BY_NAME: [&str; 2] = ["modules", "rr-cache"];

/// The directory of programs that git runs: nothing in it is ever put back.
const HOOKS: &str = "hooks";

/// The largest file that is kept, in bytes.
const LARGEST: u64 = 16 << 20;

/// Directories of operations in progress: they go as soon as they are empty.
pub(crate) const OPERATIONS: [&str; 4] = ["rebase-apply", "rebase-merge", "sequencer", "NOTES_MERGE_WORKTREE"];

/// Is it something of which a snapshot has the name alone?
pub(crate) fn is_known_by_name(path: &RelPath) -> bool {
    BY_NAME.iter().any(|dir| path.as_path().starts_with(dir))
}

/// Is it a hook?
pub(crate) fn is_hook(path: &RelPath) -> bool {
    path.as_path().starts_with(HOOKS)
}

/// Can a snapshot speak of this path of a worktree's own git directory?
pub(crate) fn is_own(path: &RelPath) -> bool {
    let is_out = |part: &OsStr| part == "objects" || part.as_bytes().ends_with(b".lock");
    let first = path.as_path().components().next();
    let is_out_at_top = first.is_none_or(|first| OUT.iter().any(|name| first.as_os_str() == *name));
    !is_out_at_top && !path.as_path().iter().any(is_out) && !is_derived(path)
}

/// Can a snapshot speak of this path of the git directory that worktrees share? The rest is the main worktree's.
pub(crate) fn is_shared(path: &RelPath) -> bool {
    is_own(path) && (path.as_path().starts_with("info") || path.as_bytes() == b"config")
}

/// `info/refs` lists refs for dumb transports, and any gc writes it anew, through a file beside it: it is nobody's work, and
/// whoever wrote it last has the newer list.
fn is_derived(path: &RelPath) -> bool {
    let name = path.as_bytes().strip_prefix(b"info/");
    name.is_some_and(|name| name == b"refs" || name.starts_with(b"refs_"))
}

/// The paths of a worktree's own git directory that a snapshot speaks of, in order.
pub(crate) fn own(git_dir: &Path) -> anyhow::Result<Vec<RelPath>> {
    let mut found = Vec::new();
    walk(git_dir, None, &mut found)?;
    found.sort();
    Ok(found)
}

/// The same of the git directory that worktrees share.
pub(crate) fn shared(git_dir: &Path) -> anyhow::Result<Vec<RelPath>> {
    let mut found = vec![RelPath::parse(b"config")?];
    walk(git_dir, Some(RelPath::parse(b"info")?), &mut found)?;
    found.retain(is_shared);
    found.sort();
    Ok(found)
}

/// Behind a link lies nothing of this git directory.
fn walk(git_dir: &Path, below: Option<RelPath>, found: &mut Vec<RelPath>) -> anyhow::Result<()> {
    let dir = below.as_ref().map_or_else(|| git_dir.to_owned(), |below| git_dir.join(below.as_path()));
    let entries = match door::entries(&dir) {
        // A colleague's, of which the name is known. Of the whole git directory a snapshot would speak of nothing.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && below.is_some() => {
            found.extend(below);
            return Ok(());
        }
        entries => entries?.unwrap_or_default(),
    };
    for (name, kind) in entries {
        let path = match &below {
            Some(below) => RelPath::parse(&[below.as_bytes(), b"/", name.as_bytes()].concat()),
            None => RelPath::parse(name.as_bytes()),
        };
        // What has a name that we would not make is not ours to put back.
        let Some(path) = path.ok().filter(is_own) else { continue };
        let is_entry = below.as_ref().is_some_and(is_known_by_name);
        match kind {
            Kind::Directory if is_entry => found.push(path),
            // A worktree may lie in a bare repository, and other repositories anywhere.
            Kind::Directory if is_repository(&git_dir.join(path.as_path())) => {}
            Kind::Directory => walk(git_dir, Some(path), found)?,
            Kind::File | Kind::Symlink => found.push(path),
            // Sockets and pipes are somebody's who is at work.
            Kind::Other => {}
        }
    }
    Ok(())
}

fn is_repository(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).symlink_metadata().is_ok();
    has(".git") || (has("HEAD") && has("objects") && has("refs"))
}

/// Is it a part of a split index? The index goes back to the old ones; new ones are needed until then, and git expires them.
pub(crate) fn is_part_of_index(path: &RelPath) -> bool {
    path.as_bytes().starts_with(b"sharedindex.")
}

/// The identity of what is known by that alone; `None` of everything else.
pub(crate) fn identity_alone(git_dir: &Path, path: &RelPath) -> std::io::Result<Option<FileId>> {
    let id = FileId::at(&git_dir.join(path.as_path()))?;
    Ok(id.filter(|id| is_hook(path) || id.size > LARGEST))
}
