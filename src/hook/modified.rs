//! Which tracked files are not as the index has them, when a stash is about to be made.
//!
//! A stash has the file of a staged path only where that differs from HEAD: of a file that was taken back to HEAD, while something
//! else is staged, it says that it is as staged. So the names of those files are kept. git has refreshed the index just before:
//! a file with the stat data of its entry has its content. Where a file may have changed within the tick of the clock in which
//! the index was written, the contents are compared.
//!
//! Limit: of more than [`MOST`] entries nothing is kept, and undo refuses; so it does when git works in another worktree than that of the
//! repository.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::fs::{FileId, absent_is_none, durable, named as fs};
use crate::git::hash::Hash;
use crate::git::index_file::{self, Entry, Found};
use crate::state::directory::SMALL;

/// The most entries that are compared.
const MOST: usize = 500_000;

/// The paths of the index whose files are not as it has them, each with a NUL behind it; `None` where that is unknown.
pub(super) fn list(git_dir: &Path) -> io::Result<Option<Vec<u8>>> {
    if !is_root_of(Path::new(""), git_dir)? {
        return Ok(None);
    }
    let Some((content, index)) = index_file::content(&git_dir.join("index"))? else { return Ok(None) };
    let Found::Entries(entries) = index_file::entries(&content) else { return Ok(None) };
    if entries.len() > MOST {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in entries {
        if !is_as_staged(&entry, &index)? {
            found.extend_from_slice(&entry.path);
            found.push(0);
        }
    }
    Ok(Some(found))
}

/// Does git work in another worktree than that of this git directory? Only the environment sends it there. It calls its hooks at
/// the root of the worktree.
pub(super) fn is_elsewhere(git_dir: &Path) -> io::Result<bool> {
    let root = match (std::env::var_os("GIT_WORK_TREE"), std::env::var_os("GIT_DIR")) {
        (Some(root), _) => root,
        (None, Some(named)) if named != ".git" => ".".into(),
        (None, _) => return Ok(false),
    };
    Ok(!is_root_of(Path::new(&root), git_dir)?)
}

/// Is this the root of the worktree with this git directory?
fn is_root_of(root: &Path, git_dir: &Path) -> io::Result<bool> {
    let dot_git = &root.join(".git");
    let Some(found) = absent_is_none(fs::symlink_metadata(dot_git))? else { return Ok(false) };
    let inode =
        |path: &Path| Ok::<_, io::Error>(absent_is_none(fs::metadata(path))?.map(|found| (found.dev(), found.ino())));
    if found.is_dir() {
        return Ok(inode(dot_git)? == inode(git_dir)?);
    }
    let text = durable::read_own(dot_git, SMALL)?;
    let named =
        text.strip_prefix(b"gitdir: ").map(|path| Path::new(std::ffi::OsStr::from_bytes(path.trim_ascii_end())));
    Ok(match named {
        Some(named) => inode(&root.join(named))? == inode(git_dir)?,
        None => false,
    })
}

fn is_as_staged(entry: &Entry, index: &FileId) -> io::Result<bool> {
    let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
    let Ok(Some(file)) = absent_is_none(fs::symlink_metadata(path)) else { return Ok(false) };
    let Some(stat) = entry.stat else { return Ok(false) };
    let lower = |number: u64| u32::try_from(number & u64::from(u32::MAX)).expect("32 bits are left");
    let signed = |number: i64| lower(number.cast_unsigned());
    let is_same = stat.mtime == (signed(file.mtime()), signed(file.mtime_nsec()))
        && stat.ctime == (signed(file.ctime()), signed(file.ctime_nsec()))
        && (stat.ino, stat.size) == (lower(file.ino()), lower(file.size()));
    if !is_same {
        return Ok(false);
    }
    let written = file.mtime().saturating_mul(1_000_000_000).saturating_add(file.mtime_nsec());
    if written < index.mtime {
        return Ok(true);
    }
    let is_it = |bytes: Vec<u8>| Hash::of(&entry.oid).blob(&bytes) == entry.oid;
    Ok(file.is_file() && durable::read_own(path, SMALL).is_ok_and(is_it))
}
