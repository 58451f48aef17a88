//! Locks that were seen in the hands of processes while those lived.
//!
//! Whoever has a file open for writing, under the name of a lock, while the lock exists, holds that lock. When all of them are
//! dead and the lock is still that very file, nobody holds it: a proof that asks for no process that cannot be seen, and so holds
//! in a container, too. It is for a program that is there while git lives: [`crate::watch`].
//!
//! A commit closes `index.lock` before it runs its hooks and the editor, names it to them in `GIT_INDEX_FILE`, and waits for them
//! with the lock held. So while a child lives that was told this name, its parent holds the file that has the name.
//!
//! Only processes that look like git count. A git-like process above a holder counts as a holder, too: between `fork` and
//! `exec` a child has its parent's files open, and the parent may have closed the lock by the time that it is looked at.
//!
//! Limit: a holder that opened and closed its lock before anybody looked is not seen.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::fs::FileId;
use crate::locks::find::LockFile;
use crate::locks::holders::is_at_work;
use crate::process::owner::{self, ExecContext, Process, Stat};
use crate::util::text::{escape, unescape};

/// Device and inode: which file it is, as long as it exists.
pub(crate) type Inode = (u64, u64);

/// How far above a holder other holders are looked for.
const GENERATIONS: usize = 16;

/// A lock whose holders were seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenLock {
    /// Its path, escaped.
    path: String,
    /// The file, after its last holder had died.
    id: FileId,
    /// Who held it.
    holders: Vec<Process>,
    /// It may have been another's: it goes only if nobody who can be seen could hold it.
    doubtful: bool,
}

impl SeenLock {
    /// `holders` are those who were seen with the lock, which is still `id`.
    pub(crate) fn new(path: &Path, id: FileId, holders: Vec<Process>, doubtful: bool) -> SeenLock {
        SeenLock { path: escape(path.as_os_str().as_bytes()).into_owned(), id, holders, doubtful }
    }

    fn is(&self, lock: &LockFile) -> bool {
        use std::os::unix::ffi::OsStringExt;
        let path = unescape(&self.path).map(|bytes| PathBuf::from(std::ffi::OsString::from_vec(bytes)));
        self.id == lock.id && path.is_some_and(|path| path == lock.path)
    }

    fn holders_are_dead(&self) -> bool {
        !self.holders.is_empty() && !self.holders.iter().any(|holder| Stat::may_live(*holder))
    }
}

/// What somebody who was there has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen(pub(crate) Vec<SeenLock>);

impl Seen {
    /// Was `lock` seen in the hands of processes that are all dead, and has nobody that we can see the file open now?
    pub(crate) fn proves_dead(&self, lock: &LockFile) -> io::Result<bool> {
        if !self.0.iter().any(|seen| seen.is(lock) && !seen.doubtful && seen.holders_are_dead()) {
            return Ok(false);
        }
        let Ok(found) = fs::symlink_metadata(&lock.path) else { return Ok(false) };
        let open = anybody_with(&lock.path, (found.dev(), found.ino()))?;
        Ok(!open)
    }
}

impl Seen {
    /// Did one name it who is dead, and may have been wrong?
    pub(crate) fn names(&self, lock: &LockFile) -> bool {
        self.0.iter().any(|seen| seen.is(lock) && seen.doubtful && seen.holders_are_dead())
    }
}

/// Which processes are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hurry {
    /// Those whose name says git: a lock may be closed in a moment.
    Yes,
    /// All: a wrapper, or an emulator, has another name.
    No,
}

/// Processes that hold one of `locks` at this moment: the place in `locks`, and who. `first` are asked before all others, then
/// the youngest; nobody is asked any more when each lock has a holder.
pub(crate) fn holders_of(locks: &[(&Path, Inode)], first: &[u32], hurry: Hurry) -> Vec<(usize, Process)> {
    let mut found = Vec::new();
    let mut open: Vec<usize> = (0..locks.len()).collect();
    let mut pids = owner::all_pids().unwrap_or_default();
    pids.sort_unstable();
    let others = pids.into_iter().rev().filter(|pid| !first.contains(pid));
    for pid in first.iter().copied().chain(others) {
        if open.is_empty() {
            break;
        }
        if hurry == Hurry::Yes && !is_named_git(pid) {
            continue;
        }
        let held: Vec<usize> = written_by(pid, locks);
        if held.is_empty() {
            continue;
        }
        let Some(stat) = Stat::of(pid).filter(|stat| !stat.is_gone() && owner::may_be_git(stat)) else { continue };
        let holders = with_those_above(stat);
        for index in held {
            open.retain(|other| *other != index);
            found.extend(holders.iter().map(|holder| (index, *holder)));
        }
    }
    found
}

/// The git that holds the `index.lock` at `path`, because it waits for a child which was told that name. To be asked for a lock that
/// is there before and after: the child has lived all the time between.
pub(crate) fn waiting_holder(path: &Path, is_there: impl Fn() -> bool) -> Option<Vec<Process>> {
    // Elsewhere the git that holds it may be outside, and one that it has started, which was told the name itself, inside.
    if !path.ends_with("index.lock") || !ExecContext::here().is_ok_and(|here| here.sees_everything()) {
        return None;
    }
    let told = |process: &Stat| {
        let Ok(environ) = fs::read(format!("/proc/{}/environ", process.pid)) else { return false };
        let value = environ.split(|b| *b == 0).find_map(|v| v.strip_prefix(b"GIT_INDEX_FILE="));
        let Some(value) = value.map(|v| Path::new(std::ffi::OsStr::from_bytes(v))) else { return false };
        // git names it as it knows it, from the top of the worktree.
        let named = fs::read_link(format!("/proc/{}/cwd", process.pid)).map(|cwd| cwd.join(value));
        value.ends_with("index.lock") && named.is_ok_and(|named| is_same_place(&named, path))
    };
    for pid in owner::all_pids().ok()? {
        let Some(child) = Stat::of(pid).filter(|child| !child.is_gone() && child.parent > 0) else { continue };
        let Some(git) = Stat::of(child.parent).filter(|git| !git.is_gone() && is_at_work(git, &[])) else { continue };
        let still = || {
            Stat::of(pid).is_some_and(|now| now.process() == child.process() && now.parent == git.pid && !now.is_gone())
        };
        // A git that was told the name holds nothing: whoever told it does.
        if told(&child) && !told(&git) && is_there() && still() {
            return Some(with_those_above(git));
        }
    }
    None
}

fn is_same_place(one: &Path, other: &Path) -> bool {
    let inode = |path: &Path| fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()));
    inode(one).is_some_and(|one| Some(one) == inode(other))
}

fn is_named_git(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(b"git") || name.starts_with(b".git"))
}

/// Which of `locks` has this process open for writing?
fn written_by(pid: u32, locks: &[(&Path, Inode)]) -> Vec<usize> {
    const WRITING: u32 = 0o3;
    // git's own locks are closed when it starts something; what it has inherited (a script's redirection) is not, and is another's.
    const CLOSED_ON_EXEC: u32 = 0o2_000_000;
    let open = owner::open_files(pid).unwrap_or_default();
    let opened = open.into_iter().filter_map(|(link, path)| {
        let index = locks.iter().position(|(lock, inode)| has_same_name(&path, lock) && is_open(pid, &link, *inode))?;
        let flags = Descriptor::of(pid, &link)?.flags;
        (flags & WRITING != 0 && flags & CLOSED_ON_EXEC != 0).then_some(index)
    });
    opened.collect()
}

/// Is it what the lock is called? Another mount namespace may show another path.
fn has_same_name(path: &Path, lock: &Path) -> bool {
    path.file_name().is_some_and(|name| Some(name) == lock.file_name())
}

/// Is this descriptor of the file `inode`? The file is looked at last: one of a network file system that does not answer would stop
/// whoever looks at it.
fn is_open(pid: u32, link: &Path, inode: Inode) -> bool {
    let may_be_it = || Descriptor::of(pid, link).is_some_and(|it| it.inode.is_none_or(|number| number == inode.1));
    may_be_it() && fs::metadata(link).is_ok_and(|file| (file.dev(), file.ino()) == inode)
}

/// What `/proc/PID/fdinfo` says, without asking the file system.
struct Descriptor {
    flags: u32,
    /// From Linux 5.14 on.
    inode: Option<u64>,
}

impl Descriptor {
    fn of(pid: u32, link: &Path) -> Option<Descriptor> {
        let number = link.file_name()?.to_str()?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let flags = u32::from_str_radix(value("flags:")?, 8).ok()?;
        Some(Descriptor { flags, inode: value("ino:").and_then(|number| number.parse().ok()) })
    }
}

/// A process, and the gits above it.
fn with_those_above(stat: Stat) -> Vec<Process> {
    let mut holders = vec![stat.process()];
    let mut parent = stat.parent;
    for _ in 0..GENERATIONS {
        let Some(above) = Some(parent).filter(|pid| *pid > 0).and_then(Stat::of) else { break };
        parent = above.parent;
        if is_at_work(&above, &[]) {
            holders.push(above.process());
        }
    }
    holders
}

/// Has any process that we can look into this file open, which is called `path`?
fn anybody_with(path: &Path, inode: Inode) -> io::Result<bool> {
    for pid in owner::all_pids()? {
        let open = owner::open_files(pid)?;
        if open.iter().any(|(link, other)| has_same_name(other, path) && is_open(pid, link, inode)) {
            return Ok(true);
        }
    }
    Ok(false)
}
