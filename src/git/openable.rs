//! Could git open what it has to open here? A FIFO in the place of an index, a ref or `packed-refs` keeps it waiting for ever,
//! a device or a file of a terabyte fills its memory. Asked before recovery starts a git; git's own hooks need it not, since git
//! has opened all of this before.
//!
//! Limit: what is swapped in afterwards, and loose objects. Every git that we start has a time limit.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;

use crate::fs::door::{self, Kind};
use crate::fs::{absent_is_none, named as fs};
use crate::git::Repository;
use crate::util::text::shown;

/// The most that git maps into its memory, or reads block by block.
const LARGE: u64 = 4 << 30;

/// The most that git reads at once.
const SMALL: u64 = 1 << 20;

/// What every git opens, in every worktree.
const ALWAYS: [(&str, u64); 3] = [("HEAD", SMALL), ("commondir", SMALL), ("gitdir", SMALL)];

/// Files of the shared directory.
const SHARED: [(&str, u64); 6] = [
    ("packed-refs", LARGE),
    ("shallow", LARGE),
    ("info/exclude", LARGE),
    ("info/attributes", LARGE),
    ("info/grafts", LARGE),
    ("objects/info/commit-graph", LARGE),
];

/// Refuses a repository in which no git could even start.
///
/// # Errors
/// The first file that is in the way, and what to do about it.
pub(crate) fn require_start(repo: &Repository) -> anyhow::Result<()> {
    for git_dir in repo.all_git_dirs() {
        for (name, most) in ALWAYS {
            require_file(&git_dir.join(name), most)?;
        }
    }
    Ok(())
}

/// Refuses a repository in which git would wait for ever.
///
/// # Errors
/// As for [`require_start`].
pub(crate) fn require(repo: &Repository) -> anyhow::Result<()> {
    require_start(repo)?;
    for git_dir in repo.all_git_dirs() {
        require_file(&git_dir.join("index"), LARGE)?;
        require_below(&git_dir.join("refs"))?;
    }
    for (name, most) in SHARED {
        require_file(&repo.common_dir.join(name), most)?;
    }
    require_objects(repo)
}

/// Refuses object directories in which a git that borrows from them would wait for ever.
///
/// # Errors
/// As for [`require_start`].
pub(crate) fn require_objects(repo: &Repository) -> anyhow::Result<()> {
    require_file(&repo.common_dir.join("objects/info/alternates"), SMALL)?;
    for below in ["pack", "pack/multi-pack-index.d", "info", "info/commit-graphs"] {
        let dir = repo.common_dir.join("objects").join(below);
        if let Some((name, _)) = door::entries(&dir)?.unwrap_or_default().iter().find(|(_, kind)| *kind == Kind::Other)
        {
            return Err(refusal(&dir.join(name), "is not a regular file"));
        }
    }
    Ok(())
}

/// All loose refs.
fn require_below(dir: &Path) -> anyhow::Result<()> {
    for (name, kind) in door::entries(dir)?.unwrap_or_default() {
        let path = dir.join(name);
        match kind {
            Kind::Directory => require_below(&path)?,
            _ => require_file(&path, SMALL)?,
        }
    }
    Ok(())
}

/// git follows links here: what matters is where they lead.
fn require_file(path: &Path, most: u64) -> anyhow::Result<()> {
    let found = match fs::metadata(path) {
        // A link in a circle: git says so.
        Err(error) if error.raw_os_error().is_none() && error.kind() != std::io::ErrorKind::NotFound => return Ok(()),
        found => absent_is_none(found).with_context(|| format!("cannot look at {}", shown(path)))?,
    };
    match found {
        // Some have a link to `/dev/null` for what they want to be empty. (Device 1:3 on every Linux.)
        Some(found) if found.rdev() == rustix::fs::makedev(1, 3) => Ok(()),
        Some(found) if !found.is_file() && !found.is_dir() => Err(refusal(path, "is not a regular file")),
        Some(found) if found.is_file() && found.len() > most => {
            Err(refusal(path, "is far too large to be one of git's"))
        }
        _ => Ok(()),
    }
}

fn refusal(path: &Path, why: &str) -> anyhow::Error {
    anyhow::anyhow!("{} {why}: no git is started here\nhint: move it away, then run `jin-txn recover`", shown(path))
}
