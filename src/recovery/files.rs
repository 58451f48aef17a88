//! Replacing, keeping and locking single files.

use std::path::Path;

use anyhow::Context;

use crate::fs::access::{self, Purpose};
use crate::fs::{FileId, absent_is_none, durable, moving, named as fs};
use crate::git::update_refs::{self, RefWrite};
use crate::git::{RefName, RefStore, Repository};
use crate::locks::{InTheWay, while_holding};
use crate::recovery::site::Site;
use crate::state::quarantine;
use crate::util::text::shown;

/// Compare-and-swap: a ref that moved since the evidence was taken stops all of it.
pub(crate) fn write_refs(site: &Site<'_>, git_dir: &Path, writes: &[RefWrite], message: &str) -> anyhow::Result<()> {
    if writes.is_empty() {
        return Ok(());
    }
    let worktree = Repository { git_dir: git_dir.to_owned(), ..site.repo.clone() };
    let refs = RefStore::new(&worktree);
    for write in writes {
        // git would open a FIFO there and wait, while it holds the lock of the ref.
        let log = refs.log(&refs.canonical(write.name.as_bytes())?);
        if absent_is_none(fs::symlink_metadata(&log))?.is_some_and(|found| !found.is_file() && !found.is_dir()) {
            let name = site.repo.relative(&log);
            return Err(InTheWay(format!("{name} is not a regular file: move it away, then recover again")).into());
        }
    }
    let written = update_refs::write_refs(&site.git.at(git_dir), writes, message);
    // Also what a git left that was refused.
    give_back(site, git_dir, writes)?;
    written.map_err(|error| InTheWay(format!("{error:#}")).into())
}

/// As root in a repository of somebody else: its owner has to be able to write these refs and reflogs.
fn give_back(site: &Site<'_>, git_dir: &Path, writes: &[RefWrite]) -> anyhow::Result<()> {
    let common_dir = &site.repo.common_dir;
    let names = writes.iter().map(|write| write.name.as_path()).chain([Path::new("HEAD")]);
    for path in names.flat_map(|name| [name.to_owned(), Path::new("logs").join(name)]) {
        access::give_back(common_dir, &path)?;
        access::give_back(git_dir, &path)?;
    }
    Ok(access::give_back(common_dir, Path::new("packed-refs"))?)
}

/// Puts a second name, or a copy, of a file into quarantine.
pub(crate) fn keep_copy(site: &Site<'_>, path: &Path) -> anyhow::Result<()> {
    let aside = quarantine::free_path(site.state, &site.repo.relative(path))?;
    durable::keep_second(path, &aside).with_context(|| format!("cannot keep {}", shown(path)))
}

/// Moves a file to quarantine.
pub(crate) fn set_aside(site: &Site<'_>, path: &Path) -> anyhow::Result<()> {
    let aside = quarantine::free_path(site.state, &site.repo.relative(path))?;
    moving::move_new(path, &aside).with_context(|| format!("cannot move {} to quarantine", shown(path)))
}

/// Replaces a file by one rename. It is written in our own directory: what a crash leaves of it is in nobody's way.
pub(crate) fn put(site: &Site<'_>, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let new = site.state.path().join("replacement");
    durable::remove_file(&new)?;
    durable::create_for(path, &new, bytes).and_then(|file| crate::fs::named::sync_all(&new, &file))?;
    durable::rename(&new, path).with_context(|| format!("cannot replace {}", shown(path)))?;
    Ok(())
}

/// Replaces a file, keeping what was there, while the lock is held.
pub(crate) fn replace_file(site: &Site<'_>, path: &Path, content: &[u8], lock: Option<&Path>) -> anyhow::Result<()> {
    if FileId::at(path)?.is_some() {
        keep_copy(site, path)?;
    }
    match lock {
        Some(lock) => while_holding(site.repo, lock, || put(site, path, content)),
        None => put(site, path, content),
    }
}

/// Replaces a file, or moves it to quarantine where there is no new content, if `check` still allows it when the lock is held.
pub(crate) fn replace_if(
    site: &Site<'_>,
    (path, content): (&Path, Option<&[u8]>),
    lock: Option<&Path>,
    check: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let work = || {
        check()?;
        match content {
            None => set_aside(site, path),
            Some(_) if FileId::at(path)?.is_some() => keep_copy(site, path),
            Some(_) => Ok(()),
        }?;
        content.map_or(Ok(()), |content| put(site, path, content))
    };
    match lock {
        Some(lock) => while_holding(site.repo, lock, work),
        None => work(),
    }
}

/// Runs `work` under git's lock of `name`; a lock that another process has is [`InTheWay`].
pub(crate) fn while_locked<T>(
    site: &Site<'_>,
    name: &RefName,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let lock = RefStore::new(site.repo).lock(name);
    if let Some(parent) = lock.parent() {
        durable::make_dirs(parent, Purpose::Git)?;
    }
    while_holding(site.repo, &lock, work)
}
