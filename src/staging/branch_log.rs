//! The reflog of a branch that a transaction of ours renames: it goes with the branch.
//!
//! ```text
//!  .jin/tx/<id>/branch-log.new   the reflog of the new name. Its second name is `refs/heads/<new>.lock`
//!  .jin/tx/<id>/branch-log.old   a copy of the reflog of the old name, which git deletes with it
//! ```
//! git has begun a reflog for the new name when it has made that. Under the lock of the ref this reflog gives way to the staged one,
//! and what another process has logged since stays behind it.
//!
//! A reflog without entries stands for none.

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::access::Purpose;
use crate::fs::{FileId, durable, named as fs, with_suffix};
use crate::git::reflog::{LogLine, is_one_line};
use crate::git::{RefStore, Repository, Value};
use crate::staging::own::{goes_on, read_log};
use crate::staging::place::Placed;
use crate::state::{StateDir, TxId};
use crate::wal::{Begin, BranchLog, RefChange};

/// The name under which the reflog of the name that went is kept.
pub(crate) const OLD: &str = "branch-log.old";

/// Where the new one is staged.
pub(crate) fn staged(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("branch-log.new")
}

/// Stages the reflog `after`, and keeps `before`, which is at `path`. With its directory the new one may be missing: it gets the
/// access of the other one, or of HEAD.
pub(crate) fn stage(
    repo: &Repository,
    (state, id): (&StateDir, TxId),
    path: &Path,
    before: Option<&[u8]>,
    after: Option<&[u8]>,
) -> io::Result<Option<FileId>> {
    let head = repo.common_dir.join("HEAD");
    let model = if before.is_some() { path } else { &head };
    let write = |to: &Path, content: &[u8]| fs::sync_data(to, &durable::create_for(model, to, content)?);
    if let Some(before) = before {
        write(&state.tx(id).join(OLD), before)?;
    }
    let staged = staged(state, id);
    write(&staged, after.unwrap_or_default())?;
    FileId::at(&staged)
}

/// Puts the reflog into place. Call it while holding the lock of the ref.
pub(crate) fn place(
    repo: &Repository,
    (state, id): (&StateDir, TxId),
    begin: &Begin,
    log: &BranchLog,
) -> io::Result<Placed> {
    let staged = staged(state, id);
    if !FileId::at(&staged)?.is_some_and(|now| now.is_same_file(&log.after)) {
        return Ok(Placed::Already);
    }
    let refs = RefStore::new(repo);
    let path = refs.log(&log.to);
    let Some(change) = begin.refs.iter().find(|change| change.name == log.to) else {
        return Ok(Placed::Left("its branch was not made".to_owned()));
    };
    remove_directories(&path, &refs.log(&log.from))?;
    let new = read_log(&staged)?.unwrap_or_default();
    let now = read_log(&path)?;
    let Some(since) = since(now.as_deref().unwrap_or_default(), &new, change, &begin.message) else {
        return Ok(Placed::Left("another process has changed it".to_owned()));
    };
    let both = [new.as_slice(), since].concat();
    if both.is_empty() {
        durable::remove_file(&path)?;
    } else if now.as_deref() != Some(both.as_slice()) {
        let whole = with_suffix(staged.clone(), ".whole");
        durable::remove_file(&whole)?;
        fs::sync_data(&whole, &durable::create_for(&staged, &whole, &both)?)?;
        make_directory(&path)?;
        durable::rename(&whole, &path)?;
    }
    durable::remove_file(&staged)?;
    Ok(Placed::Now)
}

/// What was logged behind the line about the branch that came; `None` where anything else is in the log. It may be in place already.
fn since<'n>(now: &'n [u8], new: &[u8], change: &RefChange, message: &str) -> Option<&'n [u8]> {
    if now.is_empty() {
        return Some(now);
    }
    let end = now.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (first, rest) = now.split_at(end);
    // git writes one blank where a message has more.
    fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
        text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
    }
    let is_own = is_one_line(first, &Value::Absent, &change.after)
        && LogLine::parse(first).is_some_and(|line| words(line.message).eq(words(message.as_bytes())));
    let since = if is_own { rest } else { now.strip_prefix(new)? };
    goes_on(since, &change.after).then_some(since)
}

/// git removes empty directories that are in the way of a reflog; here those of the name that went may be.
fn remove_directories(path: &Path, gone: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    for directory in gone.ancestors().skip(1).take_while(|directory| directory.starts_with(path)) {
        durable::remove_dir_if_empty(directory)?;
    }
    Ok(())
}

fn make_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| durable::make_dirs(parent, Purpose::Git))
}
