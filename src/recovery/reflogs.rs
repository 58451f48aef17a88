//! Reflogs after a crash: entries of what never happened go, reflogs of deletions that did not happen come back.
//!
//! git appends to a reflog while it holds the ref's lock, so whoever cuts one holds that lock.

use std::io;
use std::path::Path;

use anyhow::Context;

use crate::fs::access::Purpose;
use crate::fs::{FileId, durable, named as fs, read_small, unreadable_is_none};
use crate::git::reflog::{self, LogLine, Tail};
use crate::git::{RefName, RefStore, Repository, Value};
use crate::locks::holders::CLOCK_MARGIN;
use crate::locks::{InTheWay, LockFile};
use crate::recovery::files::while_locked;
use crate::recovery::site::Site;
use crate::state::quarantine;
use crate::util::text::shown;

/// The name below `tx/<id>/` of the saved reflog of the `index`-th ref.
pub(crate) fn saved_log_name(index: usize) -> String {
    format!("reflog.{index}")
}

/// Entries at the end of a reflog that may be cut off: they tell of what did not happen, or of our taking it back.
#[derive(Debug, Clone)]
pub(crate) enum Phantom {
    /// Of an update between these object names, or of a switch to this branch.
    Update { pair: Option<(String, String)>, switched_to: Option<RefName> },
    /// HEAD is logged for the branch that it points to: of one of these updates.
    Head(Vec<(String, String)>),
    /// Of a rename.
    Renamed,
    /// With this message, which arrives somewhere.
    Arrival(Vec<u8>),
    /// Ours alone.
    Ours,
}

impl Phantom {
    pub(crate) fn includes(&self, line: &LogLine<'_>) -> bool {
        match self {
            Phantom::Update { pair, switched_to } => {
                let switched = switched_to.is_some() && reflog::moved_to(line) == *switched_to;
                line.is_ours() || switched || pair.as_ref().is_some_and(|p| is_pair(p, line))
            }
            Phantom::Head(pairs) => line.is_ours() || pairs.iter().any(|p| is_pair(p, line)),
            Phantom::Renamed => line.is_ours() || line.message.starts_with(b"Branch: renamed "),
            Phantom::Arrival(message) => line.message == *message && line.new.iter().any(|b| *b != b'0'),
            Phantom::Ours => line.is_ours(),
        }
    }
}

/// Is the cutting of a reflog told?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Yes,
    No,
}

/// A reflog to be cut to its recorded size, as far as only phantom entries stand behind it.
#[derive(Debug, Clone)]
pub(crate) struct Trim {
    pub(crate) name: RefName,
    /// `None`: it had none.
    pub(crate) size: Option<u64>,
    pub(crate) phantom: Phantom,
    pub(crate) told: Told,
}

impl Trim {
    fn is_due(&self, site: &Site<'_>) -> io::Result<bool> {
        let log = RefStore::new(site.repo).log(&self.name);
        Ok(matches!(reflog::tail(&log, self.size, |line| self.phantom.includes(line))?, Tail::Known(_)))
    }

    fn line(&self) -> Option<String> {
        (self.told == Told::Yes).then(|| trimmed_line(&self.name))
    }

    /// What it would do.
    pub(crate) fn expected(&self, site: &Site<'_>) -> anyhow::Result<Option<String>> {
        Ok(if self.is_due(site)? { self.line() } else { None })
    }

    /// Under the ref's lock: git appends to the reflog while it holds that.
    pub(crate) fn execute(&self, site: &Site<'_>) -> anyhow::Result<Option<String>> {
        if !self.is_due(site)? {
            return Ok(None);
        }
        let log = RefStore::new(site.repo).log(&self.name);
        let cut = while_locked(site, &self.name, || {
            cut_tail(site, &self.name, &log, self.size, |line| self.phantom.includes(line))
        })?;
        Ok(if cut { self.line() } else { None })
    }
}

fn trimmed_line(name: &RefName) -> String {
    format!("trimmed the reflog of {name}")
}

/// Cuts a reflog to `size` when only known entries stand behind it; they are kept in quarantine.
fn cut_tail(
    site: &Site<'_>,
    name: &RefName,
    log: &Path,
    size: Option<u64>,
    known: impl Fn(&LogLine<'_>) -> bool,
) -> anyhow::Result<bool> {
    let Tail::Known(bytes) = reflog::tail(log, size, known)? else { return Ok(false) };
    quarantine::keep(site.state, &format!("reflog-tail.{name}"), &bytes)
        .with_context(|| format!("cannot keep the end of the reflog of {name}"))?;
    match size {
        Some(size) => durable::truncate(log, size)?,
        None => durable::remove_file(log)?,
    }
    Ok(true)
}

/// Is a saved reflog to be put back?
pub(crate) fn is_missing(site: &Site<'_>, saved: &Path, name: &RefName) -> io::Result<bool> {
    let log = RefStore::new(site.repo).log(name);
    Ok(FileId::at(saved)?.is_some() && fs::symlink_metadata(log).is_err())
}

pub(crate) fn put_back_line(name: &RefName) -> String {
    format!("put back the reflog of {name}")
}

/// Gives a saved reflog its place again; the saved name goes with the transaction's other files.
pub(crate) fn put_back(site: &Site<'_>, saved: &Path, name: &RefName) -> anyhow::Result<Option<String>> {
    if !is_missing(site, saved, name)? {
        return Ok(None);
    }
    let log = RefStore::new(site.repo).log(name);
    if let Some(parent) = log.parent() {
        durable::make_dirs(parent, Purpose::Git)?;
    }
    match durable::hard_link(saved, &log) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(e).with_context(|| format!("cannot restore {}", shown(&log)))
        }
        _ => Ok(Some(put_back_line(name))),
    }
}

/// Is the reflog, of the recorded size, there of a ref that is not?
pub(crate) fn is_left(site: &Site<'_>, name: &RefName, size: Option<u64>) -> io::Result<bool> {
    let refs = RefStore::new(site.repo);
    let same = FileId::at(&refs.log(name))?.map(|id| id.size) == size;
    Ok(same && refs.read(name)?.value == Value::Absent)
}

pub(crate) fn dropped_line(name: &RefName) -> String {
    format!("removed the reflog of {name}, which is deleted")
}

pub(crate) fn drop_log(site: &Site<'_>, name: &RefName, size: Option<u64>) -> anyhow::Result<Option<String>> {
    if !is_left(site, name, size)? {
        return Ok(None);
    }
    while_locked(site, name, || {
        if is_left(site, name, size)? {
            let aside = quarantine::free_path(site.state, &format!("reflog.{name}"))?;
            durable::rename_new(&RefStore::new(site.repo).log(name), &aside)?;
        }
        Ok(Some(dropped_line(name)))
    })
}

/// git had written HEAD's branch, but not HEAD's log: the branch's own log has the entry.
pub(crate) fn complete(
    site: &Site<'_>,
    head: &RefName,
    size: Option<u64>,
    line: &[u8],
) -> anyhow::Result<Option<String>> {
    let log = RefStore::new(site.repo).log(head);
    while_locked(site, head, || {
        if FileId::at(&log)?.map(|id| id.size) == size {
            durable::append(&log, &[line, b"\n".as_slice()].concat())?;
        }
        Ok(Some(format!("completed the reflog of {head}")))
    })
}

/// A git that renames right now may have put its own reflog in the place of the one that was looked at.
pub(crate) fn move_renamed(site: &Site<'_>, from: &Path, ino: u64, to: &Path) -> anyhow::Result<()> {
    if FileId::at(from)?.is_none_or(|now| now.ino != ino) {
        return Err(InTheWay(format!("another process has replaced the reflog {}", site.repo.relative(from))).into());
    }
    if let Some(parent) = to.parent() {
        durable::make_dirs(parent, Purpose::Git)?;
    }
    match durable::rename_new(from, to) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Ok(durable::rename_new(from, &quarantine::free_path(site.state, "renamed-reflog")?)?)
        }
        other => other.with_context(|| format!("cannot move the reflog {} back", shown(from))),
    }
}

/// git (or a recovery before us) logs HEAD's arrival at the new name before HEAD moves: cut in between, the entry is
/// there already and would be there twice.
pub(crate) fn trim_arrival(site: &Site<'_>, git_dir: &Path, message: &[u8]) -> anyhow::Result<()> {
    let worktree = Repository { git_dir: git_dir.to_owned(), ..site.repo.clone() };
    let head = RefStore::new(&worktree).canonical(b"HEAD")?;
    let log = RefStore::new(site.repo).log(&head);
    let phantom = Phantom::Arrival(message.to_owned());
    let size = reflog::size_without_last(&log, usize::MAX, |line| phantom.includes(line))?;
    if size.is_some() {
        Trim { name: head, size, phantom, told: Told::No }.execute(site)?;
    }
    Ok(())
}

/// Up to 2.45 git moves HEAD outside of any transaction, and logs that before it renames `HEAD.lock`: while the dead
/// git's lock is there nobody else can have logged anything.
pub(crate) fn trim_unfinished_move(site: &Site<'_>, lock: &LockFile) -> anyhow::Result<Option<String>> {
    let Some(git_dir) = lock.path.parent().filter(|_| lock.path.ends_with("HEAD.lock")) else { return Ok(None) };
    let worktree = Repository { git_dir: git_dir.to_owned(), ..site.repo.clone() };
    let refs = RefStore::new(&worktree);
    let name = refs.canonical(b"HEAD")?;
    let log = refs.log(&name);
    let Some(logged) = FileId::at(&log)? else { return Ok(None) };
    let Some((written, _)) = unreadable_is_none(read_small(&lock.path))? else { return Ok(None) };
    let was_to_be = |to: &RefName| match Value::of_file(&written) {
        Value::Symref(target) => target == *to,
        _ => written.is_empty() && logged.mtime + CLOCK_MARGIN >= lock.id.ctime,
    };
    let now = refs.read(&name)?.value;
    let never_came = |line: &LogLine<'_>| {
        reflog::moved_to(line).is_some_and(|to| now != Value::Symref(to.clone()) && was_to_be(&to))
    };
    // A tail that is no entry is not this git's: the file system may have made it.
    if !reflog::ends_with(&log, never_came)? {
        return Ok(None);
    }
    let Some(size) = reflog::size_without_last(&log, 1, never_came)? else { return Ok(None) };
    Ok(cut_tail(site, &name, &log, Some(size), never_came)?.then(|| trimmed_line(&name)))
}

fn is_pair((old, new): &(String, String), line: &LogLine<'_>) -> bool {
    old.as_bytes() == line.old && new.as_bytes() == line.new
}
