//! The gits that work in a repository at this moment: whose end makes room for a recovery that was refused as busy.
//!
//! Only names are compared, and no file of another process is looked at: a network file system that does not answer stops nobody.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::git::Repository;
use crate::process::owner::{self, Process, Stat};

/// The gits that work in `repo` at this moment, as far as they can be seen: who is in the way of a recovery.
pub(crate) fn gits_at_work(repo: &Repository) -> Vec<Process> {
    let places = places(repo);
    let pids = owner::all_pids().unwrap_or_default();
    let gits = pids.into_iter().filter_map(Stat::of).filter(|stat| !stat.is_gone() && owner::may_be_git(stat));
    gits.filter(|git| uses(git.pid, &places).unwrap_or(false)).map(|git| git.process()).collect()
}

/// The git directory, and the worktrees.
fn places(repo: &Repository) -> Vec<PathBuf> {
    let main = repo.common_dir.parent().filter(|_| repo.common_dir.ends_with(".git")).map(Path::to_owned);
    let linked = fs::read_dir(repo.common_dir.join("worktrees")).into_iter().flatten().flatten();
    let linked = linked.filter_map(|entry| {
        let text = fs::read(entry.path().join("gitdir")).ok()?;
        // A relative one is relative to the git directory.
        let path = entry.path().join(std::ffi::OsStr::from_bytes(text.trim_ascii_end()));
        let dir = path.parent()?;
        Some(fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()))
    });
    std::iter::once(repo.common_dir.clone()).chain(main).chain(linked).collect()
}

/// Does this process have its directory, or anything open, in one of `places`?
fn uses(pid: u32, places: &[PathBuf]) -> io::Result<bool> {
    let is_there = |path: &Path| places.iter().any(|place| path.starts_with(place));
    Ok(is_there(&fs::read_link(format!("/proc/{pid}/cwd"))?)
        || owner::open_files(pid)?.iter().any(|(_, path)| is_there(path)))
}
