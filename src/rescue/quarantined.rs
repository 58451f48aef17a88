//! What is in quarantine: listed, put back, let go.
//!
//! A name in quarantine says when, and which path (`%` for `/`, `%:` for `%`). Only paths that are git's own are put back, as a copy: what is there
//! then goes to quarantine itself.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::fs::door::{self, Kind};
use crate::fs::{absent_is_none, durable, named as fs, with_suffix};
use crate::git::Repository;
use crate::rescue::Request;
use crate::rescue::carry_out::{KEEP, put_back};
use crate::state::StateDir;
use crate::state::directory::RESCUE;
use crate::util::text::shown;

/// One thing in quarantine.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Its name there.
    pub(crate) name: String,
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// When it came, in seconds since the epoch.
    pub(crate) time: u64,
    /// Its size in bytes; `None` for a directory.
    pub(crate) size: Option<u64>,
    /// The path below the git directory that it had, where its name says so.
    pub(crate) original: Option<PathBuf>,
}

/// Everything in quarantine, the oldest first.
pub(crate) fn items(repo: &Repository) -> anyhow::Result<Vec<Item>> {
    let dirs = [StateDir::of(repo).quarantine(), repo.common_dir.join(RESCUE).join("quarantine")];
    let mut items = Vec::new();
    for dir in dirs {
        // What is behind a link is nothing of ours.
        let is_ours = |dir: &Path| fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir());
        if !dir.parent().is_some_and(is_ours) {
            continue;
        }
        let entries = door::entries(&dir)?.unwrap_or_default();
        for (name, kind) in &entries {
            let path = dir.join(name);
            let Some(name) = name.to_str() else { continue };
            let Some((time, what)) = name.split_once('-').and_then(|(time, what)| Some((time.parse().ok()?, what)))
            else {
                continue;
            };
            let size =
                absent_is_none(fs::symlink_metadata(&path))?.filter(|_| *kind == Kind::File).map(|found| found.len());
            let is_there = |shorter: &str| entries.iter().any(|(other, _)| other == shorter);
            let is_number = |text: &str| text.parse::<u32>().is_ok();
            // The second of a name in one second has a number behind it, which no name of a ref can have there.
            let original = match what.rsplit_once('~') {
                Some((shorter, number)) if is_number(number) => original(shorter),
                _ => original(what),
            };
            // Earlier versions wrote a number that a branch may have as well: nobody knows which of the two it is.
            let is_unclear = |(shorter, number): (&str, &str)| {
                number != "1" && is_number(number) && is_there(&format!("{time}-{shorter}"))
            };
            let original = original.filter(|_| !what.rsplit_once('.').is_some_and(is_unclear));
            items.push(Item { name: name.to_owned(), original, path, time, size });
        }
    }
    items.sort_by(|one, other| (one.time, &one.name).cmp(&(other.time, &other.name)));
    Ok(items)
}

/// The path of something of git's.
fn original(what: &str) -> Option<PathBuf> {
    const PLACES: [&str; 4] = ["refs", "logs", "objects", "worktrees"];
    const FILES: [&str; 6] = ["config", "index", "packed-refs", "shallow", "config.worktree", "packed-refs.new"];
    let path = PathBuf::from(what.replace("%:", "\0").replace('%', "/").replace('\0', "%"));
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let first = path.components().next()?.as_os_str().to_str()?;
    let is_alone = path.components().count() == 1;
    let is_note = first.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let is_known = if is_alone { FILES.contains(&first) || is_note } else { PLACES.contains(&first) };
    let is_lock = OsStr::new(what).as_bytes().ends_with(b".lock");
    (is_plain && is_known && !is_lock && !what.contains("%%")).then_some(path)
}

/// Puts a copy of it back to where it was.
///
/// # Errors
/// Its place is not known, it is no file, or somebody holds the lock of what is there.
pub(crate) fn restore(repo: &Repository, request: &Request, item: &Item) -> anyhow::Result<PathBuf> {
    let Some(original) = &item.original else {
        anyhow::bail!("{} does not say where it was\nhint: copy it yourself from {}", item.name, shown(&item.path));
    };
    let is_file = absent_is_none(fs::symlink_metadata(&item.path))?.is_some_and(|found| found.is_file());
    anyhow::ensure!(is_file, "{} is no file\nhint: move it yourself from {}", item.name, shown(&item.path));
    let (path, content) = (repo.common_dir.join(original), fs::read(&item.path)?);
    let lock = lock_of(repo, original);
    put_back(repo, request, path.clone(), content, lock)?;
    Ok(path)
}

/// git locks refs, not their reflogs, and no objects.
fn lock_of(repo: &Repository, original: &Path) -> Option<PathBuf> {
    if original.starts_with("objects") {
        return None;
    }
    let of = original.strip_prefix("logs").unwrap_or(original);
    Some(with_suffix(repo.common_dir.join(of), ".lock"))
}

/// Removes it for good.
///
/// # Errors
/// What the file system says.
pub(crate) fn drop_item(item: &Item) -> anyhow::Result<()> {
    Ok(durable::remove_tree(&item.path)?)
}

/// Lets gc have packs again that `rescue` keeps from it; how many.
///
/// # Errors
/// What the file system says.
pub(crate) fn release_packs(repo: &Repository) -> anyhow::Result<usize> {
    let dir = repo.common_dir.join("objects/pack");
    let mut count = 0;
    for (name, _) in door::entries(&dir)?.unwrap_or_default() {
        let path = dir.join(&name);
        if path.extension().is_some_and(|e| e == "keep") && fs::read(&path).is_ok_and(|content| content == KEEP) {
            durable::remove_file(&path)?;
            count += 1;
        }
    }
    Ok(count)
}
