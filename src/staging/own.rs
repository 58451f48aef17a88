//! The index of a worktree, its HEAD, the configuration and the log of refs/stash, replaced as whole files.
//!
//! ```text
//!  .jin/tx/<id>/index.new   the new one. Its second name is `index.lock`: whoever holds that lock holds it by this file
//!  .jin/tx/<id>/index.old   a second name of the one that it replaces
//!  .jin/tx/<id>/config.new, config.old   the same of the configuration
//!  .jin/tx/<id>/stash.new, stash.old     the same of the log of refs/stash. `stash.old` is a copy: git appends in place
//! ```
//! It is put into place by a rename of the first name, so that what is staged is what is not in place yet.
//!
//! The log of refs/stash is the list of stashes. Who drops entries locks it by `logs/refs/stash.lock`, as we do; who adds one
//! moves refs/stash: behind the change of that by the transaction such entries stay, behind those that it puts into place.
//!
//! Of a configuration only what it says of branches is ever replaced, whatever was staged.

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::{FileId, absent_is_none, durable, named as fs, with_suffix};
use crate::git::index::has_same_entries;
use crate::git::{Git, Repository, Value, branch_config, reflog};
use crate::staging::place::Placed;
use crate::state::directory::SMALL;
use crate::state::{StateDir, TxId};
use crate::wal::{Begin, NewFile, RefChange};

/// A file that is replaced as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    Index,
    Config,
    StashLog,
}

/// The name under which the configuration that was replaced is kept.
pub(crate) const OLD_CONFIG: &str = "config.old";

/// The same of the index.
pub(crate) const OLD_INDEX: &str = "index.old";

/// The same of the log of refs/stash.
pub(crate) const OLD_STASH_LOG: &str = "stash.old";

/// The most that a log of refs/stash may have, in bytes.
const LARGEST_LOG: u64 = 64 << 20;

impl Whole {
    /// Where it is: the index of the worktree with this git directory.
    pub(crate) fn path(self, repo: &Repository, git_dir: &Path) -> PathBuf {
        match self {
            Whole::Index => git_dir.join("index"),
            Whole::Config => repo.common_dir.join("config"),
            Whole::StashLog => repo.common_dir.join("logs/refs/stash"),
        }
    }

    /// The lock that git takes for it.
    pub(crate) fn lock(self, repo: &Repository, git_dir: &Path) -> PathBuf {
        with_suffix(self.path(repo, git_dir), ".lock")
    }

    /// Where the new one is staged.
    pub(crate) fn staged(self, state: &StateDir, id: TxId) -> PathBuf {
        state.tx(id).join(match self {
            Whole::Index => "index.new",
            Whole::Config => "config.new",
            Whole::StashLog => "stash.new",
        })
    }

    fn old(self, state: &StateDir, id: TxId) -> PathBuf {
        state.tx(id).join(match self {
            Whole::Index => OLD_INDEX,
            Whole::Config => OLD_CONFIG,
            Whole::StashLog => OLD_STASH_LOG,
        })
    }
}

/// The files that a transaction replaces as a whole, in the order in which they are put into place.
pub(crate) fn whole_files(begin: &Begin) -> impl Iterator<Item = (Whole, NewFile)> {
    let stash = begin.new_stash_log.map(|log| (Whole::StashLog, log));
    let config = begin.new_config.map(|config| (Whole::Config, config));
    stash.into_iter().chain(config).chain(begin.new_index.map(|index| (Whole::Index, index)))
}

/// Stages the new content of `whole`, which is at `path`.
pub(crate) fn stage(state: &StateDir, id: TxId, whole: Whole, path: &Path, content: &[u8]) -> io::Result<FileId> {
    let staged = whole.staged(state, id);
    fs::sync_data(&staged, &durable::create_for(path, &staged, content)?)?;
    // Of the log that is kept on which the transaction was planned.
    if whole != Whole::StashLog {
        match durable::keep_second(path, &whole.old(state, id)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            kept => kept?,
        }
    }
    FileId::at(&staged)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Puts the new one into place at `path`, unless what is there is another one by now. Call it while holding its lock.
pub(crate) fn place(
    state: &StateDir,
    id: TxId,
    git: &Git,
    (whole, path): (Whole, &Path),
    change: &NewFile,
    refs: &[RefChange],
) -> anyhow::Result<Placed> {
    let staged = whole.staged(state, id);
    if !FileId::at(&staged)?.is_some_and(|staged| staged.is_same_file(&change.after)) {
        return Ok(Placed::Already);
    }
    let old = whole.old(state, id);
    if whole == Whole::StashLog {
        return Ok(place_log(path, &old, &staged, refs)?);
    }
    if !is_as_found(git, (whole, path), &old, change.before)? {
        return Ok(Placed::Left("another process has changed it".to_owned()));
    }
    if whole == Whole::Config {
        let branches = refs.iter().filter_map(|change| change.name.as_bytes().strip_prefix(b"refs/heads/"));
        let branches: Vec<&[u8]> = branches.collect();
        let (new, now) = (durable::read_own(&staged, SMALL)?, durable::read_own(path, SMALL)?);
        if !branch_config::differ_in_branches_only(git, &new, &now, &branches)? {
            return Ok(Placed::Left(
                "what was staged for it says more than the configuration of its branches".to_owned(),
            ));
        }
    }
    durable::rename(&staged, path)?;
    Ok(Placed::Now)
}

/// Is index or configuration still the one that the new one was made of, or one that says the same?
fn is_as_found(git: &Git, (whole, path): (Whole, &Path), old: &Path, before: Option<FileId>) -> anyhow::Result<bool> {
    let (now, before) = match (FileId::at(path)?, before) {
        (None, None) => return Ok(true),
        (Some(now), Some(before)) => (now, before),
        _ => return Ok(false),
    };
    if now.is_same_file(&before) {
        return Ok(true);
    }
    if whole == Whole::Index {
        return has_same_entries(git, path, old);
    }
    // A second name of what was written in place says what that says now.
    let is_in_place = now.ino == before.ino
        || FileId::at(old)?.is_some_and(|old| old.ino == before.ino && !old.is_same_file(&before));
    Ok(!is_in_place && durable::read_own(path, SMALL)? == durable::read_own(old, SMALL)?)
}

/// Puts the log of refs/stash into place. Another worktree may have made a stash since the ref moved: its entry stays, behind ours.
fn place_log(path: &Path, old: &Path, staged: &Path, refs: &[RefChange]) -> io::Result<Placed> {
    let [was, now, new] = [read_log(old)?, read_log(path)?, read_log(staged)?].map(Option::unwrap_or_default);
    let Some(change) = refs.iter().find(|change| change.name.as_bytes() == b"refs/stash") else {
        return Ok(Placed::Left("its ref was not changed".to_owned()));
    };
    let Some(since) = since_change(&now, &was, change) else {
        // A kill between the two steps below leaves this.
        let is_there = now.strip_prefix(new.as_slice()).is_some_and(|since| goes_on(since, &change.after));
        let left = || Placed::Left("another process has changed it".to_owned());
        return Ok(if is_there { Placed::Already } else { left() });
    };
    if since.is_empty() {
        durable::rename(staged, path)?;
        return Ok(Placed::Now);
    }
    let both = with_suffix(staged.to_owned(), ".both");
    durable::remove_file(&both)?;
    fs::sync_data(&both, &durable::create_for(path, &both, &[new, since].concat())?)?;
    durable::rename(&both, path)?;
    durable::remove_file(staged)?;
    Ok(Placed::Now)
}

/// What was added to the log behind the line of the transaction's own change; `None` where anything else is in it.
fn since_change(now: &[u8], was: &[u8], change: &RefChange) -> Option<Vec<u8>> {
    let rest = now.strip_prefix(was)?;
    let (own, since) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    let is_own = change.before.as_ref().is_some_and(|before| reflog::is_one_line(own, before, &change.after));
    let mut since = if is_own { since.to_vec() } else { rest.to_vec() };
    // Where there was no log git makes none for the change, and `git stash` then begins a new list.
    if let (Value::Oid(after), true) = (&change.after, now.len() == since.len()) {
        let old = since.split_at_mut_checked(after.hex().len()).map(|(old, _)| old);
        let old = old.filter(|old| old.iter().all(|digit| *digit == b'0'));
        old.into_iter().for_each(|old| old.copy_from_slice(after.hex().as_bytes()));
    }
    goes_on(&since, &change.after).then_some(since)
}

/// Is this whole lines of a log, of which the first goes on from this value, and each other one from the line before?
pub(crate) fn goes_on(lines: &[u8], from: &Value) -> bool {
    let Some(text) = lines.strip_suffix(b"\n") else { return lines.is_empty() };
    let mut at = match from {
        Value::Oid(oid) => oid.hex().as_bytes().to_vec(),
        _ => return false,
    };
    text.split(|byte| *byte == b'\n').all(|line| {
        let Some(line) = reflog::LogLine::parse(line) else { return false };
        std::mem::replace(&mut at, line.new.to_vec()) == line.old
    })
}

/// Is the log of refs/stash the one that the transaction was planned on?
pub(crate) fn is_stash_log_unchanged(state: &StateDir, id: TxId, repo: &Repository) -> io::Result<bool> {
    let found = [Whole::StashLog.path(repo, &repo.git_dir), Whole::StashLog.old(state, id)];
    let [now, was] = found.map(|path| read_log(&path));
    Ok(now?.unwrap_or_default() == was?.unwrap_or_default())
}

/// A reflog; `None` when there is none.
pub(crate) fn read_log(path: &Path) -> io::Result<Option<Vec<u8>>> {
    absent_is_none(durable::read_own(path, LARGEST_LOG))
}

/// Keeps the log of refs/stash on which the transaction was planned.
pub(crate) fn keep_stash_log(state: &StateDir, id: TxId, repo: &Repository, before: &[u8]) -> io::Result<()> {
    let old = Whole::StashLog.old(state, id);
    let file = durable::create_for(&Whole::StashLog.path(repo, &repo.git_dir), &old, before)?;
    fs::sync_data(&old, &file)
}

/// A git directory with the same common directory, in which branches are changed while somebody holds the real HEAD.
pub(crate) fn shadow(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("shadow")
}

/// The staged HEAD.
pub(crate) fn new_head(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("HEAD.new")
}

/// What a reflog says of a move of HEAD, in the words of `git checkout`: `git checkout -` goes by them.
pub(crate) fn moving_message(from: &Value, to: &Value) -> String {
    let short = |value: &Value| match value {
        Value::Symref(branch) => {
            let name = branch.to_string();
            name.strip_prefix("refs/heads/").map_or(name.clone(), str::to_owned)
        }
        other => other.to_string(),
    };
    format!("checkout: moving from {} to {}", short(from), short(to))
}
