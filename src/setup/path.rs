//! Which git does PATH mean, when some programs of that name are ourselves?
//!
//! A program called git may be a link to this one, a copy of it, or a wrapper of somebody else's that looks for "the
//! next git" and finds us again. The first two are passed over. A wrapper is run like any git, and whom we ran stands in
//! [`CHAIN`] for those that it starts: one that only leads back here is passed over as well.
//!
//! Relative entries of PATH are passed over.
//!
//! Limit: a wrapper that is a script and means to be gone through more than [`SCRIPT_LIMIT`] times, one inside of the
//! other, is passed over from then on.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::process::owner::Stat;
use crate::util::text::shown;

/// Names, for the processes below, the gits that were run by us: words of `pid:device:inode`.
pub(crate) const CHAIN: &str = "JIN_TXN_CHAIN";

/// How often a program may stand above us that was asked for git and runs something else (an interpreter, say).
const SCRIPT_LIMIT: usize = 3;

/// How often a program may stand above us at all: git within git within git is rare.
const DEEPEST: usize = 32;

/// A file, told from others as long as it exists.
type Id = (u64, u64);

/// A program called git in PATH that is not this one.
#[derive(Debug, Clone)]
struct Candidate {
    program: PathBuf,
    id: Id,
}

/// A git that was run by us in a process above this one, or in this one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    pid: u32,
    id: Id,
}

/// The git to become.
#[derive(Debug)]
pub(crate) struct Next {
    pub program: PathBuf,
    /// The value of [`CHAIN`] for it.
    pub chain: String,
}

/// The first git in `path`, a list of directories as PATH, that is not this program under another name.
pub(crate) fn first_git(path: &OsStr) -> anyhow::Result<PathBuf> {
    Ok(candidates(path).next().context("there is no git in PATH: install git 2.31 or newer")?.program)
}

/// Every git in `path` that is not this program under another name.
pub(crate) fn all_gits(path: &OsStr) -> Vec<PathBuf> {
    candidates(path).map(|candidate| candidate.program).collect()
}

/// The git to become: the first in `path` that does not lead back to us. `chain` is the value of [`CHAIN`].
pub(crate) fn next_git(path: &OsStr, chain: &str) -> anyhow::Result<Next> {
    let chain = above_us(chain);
    let mut leads_back = None;
    for candidate in candidates(path) {
        if !chain.is_empty() && comes_back(&chain, &candidate) {
            leads_back = Some(candidate);
            continue;
        }
        return Ok(Next { chain: extended(&chain, &candidate), program: candidate.program });
    }
    let last = leads_back.context("there is no git in PATH: install git 2.31 or newer")?;
    anyhow::ensure!(
        chain.len() < DEEPEST,
        "{} leads back to jin-txn, and there is no other git in PATH",
        shown(&last.program)
    );
    Ok(Next { chain: extended(&chain, &last), program: last.program })
}

fn comes_back(chain: &[Link], candidate: &Candidate) -> bool {
    let links = || chain.iter().filter(|link| link.id == candidate.id);
    // It has become us in the same process: it looks for the next git, and that is not itself.
    if links().any(|link| link.pid == std::process::id()) {
        return true;
    }
    let running = |pid: u32| fs::metadata(format!("/proc/{pid}/exe")).map(|m| (m.dev(), m.ino())).ok();
    let scripts = links().filter(|link| running(link.pid).is_some_and(|id| id != candidate.id)).count();
    scripts >= SCRIPT_LIMIT || links().count() >= DEEPEST
}

fn extended(chain: &[Link], by: &Candidate) -> String {
    let own = Link { pid: std::process::id(), id: by.id };
    let words = chain.iter().chain([&own]).map(|Link { pid, id: (dev, ino) }| format!("{pid}:{dev}:{ino}"));
    words.collect::<Vec<_>>().join(" ")
}

/// The links of `text` that are this process or above it; the others are of processes that only passed it on.
fn above_us(text: &str) -> Vec<Link> {
    let mut pids = vec![std::process::id()];
    while let Some(stat) = pids.last().and_then(|pid| Stat::of(*pid)) {
        if stat.parent == 0 || pids.len() > 4 * DEEPEST {
            break;
        }
        pids.push(stat.parent);
    }
    text.split(' ').filter_map(parse_link).filter(|link| pids.contains(&link.pid)).collect()
}

fn parse_link(word: &str) -> Option<Link> {
    let mut numbers = word.split(':').map(|n| n.parse::<u64>().ok());
    let mut number = || numbers.next().flatten();
    Some(Link { pid: u32::try_from(number()?).ok()?, id: (number()?, number()?) })
}

/// Programs called git in `path` that are not this one, in order. A relative entry means a directory of whoever made the one
/// that we are in: it counts for nothing.
fn candidates(path: &OsStr) -> impl Iterator<Item = Candidate> {
    std::env::split_paths(path).filter(|dir| dir.is_absolute()).filter_map(|dir| {
        let program = dir.join("git");
        let metadata = fs::metadata(&program).ok()?;
        let runs = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
        let candidate = Candidate { id: (metadata.dev(), metadata.ino()), program };
        (runs && !is_this_program(&candidate.program)).then_some(candidate)
    })
}

/// Is `file` this program: the same file, a link to a jin-txn, or a copy?
pub(crate) fn is_this_program(file: &Path) -> bool {
    let (Ok(theirs), Ok(ours)) = (fs::metadata(file), fs::metadata("/proc/self/exe")) else { return false };
    if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
        return true;
    }
    let target = fs::canonicalize(file).ok();
    let named = target.and_then(|t| t.file_name().map(OsString::from));
    if named.is_some_and(|name| name.to_string_lossy().starts_with("jin-txn")) {
        return true;
    }
    theirs.is_file() && theirs.len() == ours.len() && same_content(file, Path::new("/proc/self/exe"))
}

fn same_content(one: &Path, other: &Path) -> bool {
    const BLOCK: usize = 1 << 16;
    let (Ok(mut one), Ok(mut other)) = (fs::File::open(one), fs::File::open(other)) else { return false };
    let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let Ok(read) = one.read(&mut left) else { return false };
        if read == 0 {
            return true;
        }
        if other.read_exact(&mut right[..read]).is_err() || left[..read] != right[..read] {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_keeps_what_stands_above_us_and_nothing_else() {
        let parent = Stat::of(std::process::id()).unwrap().parent;
        let me = std::process::id();
        let text = format!("{me}:1:2 4294967295:3:4 {parent}:5:6 x 7 8:9");
        assert_eq!(above_us(&text), [Link { pid: me, id: (1, 2) }, Link { pid: parent, id: (5, 6) }]);
        assert_eq!(above_us(""), []);
    }

    #[test]
    fn a_copy_is_this_program_and_another_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("git");
        fs::copy("/proc/self/exe", &copy).unwrap();
        assert!(is_this_program(&copy));
        assert!(!is_this_program(Path::new("/bin/sh")));
        assert!(!is_this_program(Path::new("/nowhere/git")));
    }
}
