//! What a transaction is about to do, read from the disk while git holds its locks.
//!
//! The payload says what the caller expected, not what is there; lock files say what git will do:
//! an update's lock holds the new value, a deletion's is empty, and so is the lock of an update that writes
//! nothing (same value, or HEAD that is only logged). What changes no visible value is not logged.
//!
//! git passes every name that it is given. One that we would not make (`foo`, `refs/heads/a..b`) is left to git: it is written
//! down beside what else the transaction changes, and not acted upon.

mod command_line;
mod effect;
mod observed;
pub(crate) mod payload;

use crate::fs::FileId;
use crate::git::name::in_own_worktree;
use crate::git::reflog::RENAMED_LOG;
use crate::git::{RefFormat, RefStore, Repository, Value};
use crate::observe::effect::Observer;
use crate::observe::payload::Payload;
use crate::process::git_argv;
use crate::util::text;
use crate::wal::{RefChange, Rename};

pub(crate) use command_line::Locks;
pub(crate) use observed::Observed;

/// Observes the transaction at `prepared`: locks are held, nothing is changed yet. `locks` is called once, and not at all when
/// nothing but absent refs is deleted: git deletes absent pseudo-refs in every commit.
pub(crate) fn observe(
    repo: &Repository,
    payload: &Payload<'_>,
    locks: impl FnOnce() -> anyhow::Result<Locks>,
) -> anyhow::Result<Observed> {
    if repo.ref_format == RefFormat::Reftable {
        return observe_reftable(repo, payload);
    }
    // Nearly always every line is a change; growing on the way would leave holes behind.
    let mut seen = Observed { changes: Vec::with_capacity(payload.count()), ..Observed::default() };
    let mut observer = Observer::new(repo, payload)?;
    let mut locks = Some(locks);
    for line in payload.lines() {
        let Some(update) = observer.look_at(line)? else {
            seen.left.push(text::escape(line.name).into_owned());
            continue;
        };
        if let Some(locks) = locks.take_if(|_| !update.deletes_nothing()) {
            observer.locks = locks()?;
        }
        observer.observe(update, &mut seen)?;
    }
    if !seen.changes.is_empty() {
        observer.watch_head(&mut seen)?;
        seen.index_lock = FileId::at(&repo.git_dir.join("index.lock"))?;
    }
    Ok(seen)
}

/// Of a reftable only git can read values, and a hook starts no git: what the payload says is what we have. The
/// table's lock stands for the locks of all refs.
fn observe_reftable(repo: &Repository, payload: &Payload<'_>) -> anyhow::Result<Observed> {
    let refs = RefStore::under_locks(repo);
    let mut seen = Observed::default();
    for line in payload.lines() {
        // HEAD beside a branch is only logged; deletions of pseudo-refs accompany every commit and are mostly none.
        let beside = line.name == b"HEAD" && payload.lines().any(|l| l.name != b"HEAD" && l.new == line.new);
        if beside || (line.deletes() && !in_own_worktree(line.name).starts_with(b"refs/")) {
            continue;
        }
        match refs.canonical(line.name) {
            Ok(name) => {
                let after = line.after();
                seen.changes.push(RefChange { name, before: None, after, file: None, lock: None, log: None });
            }
            Err(_) => seen.left.push(text::escape(line.name).into_owned()),
        }
    }
    if !seen.changes.is_empty() {
        seen.packed_lock = FileId::at(&repo.common_dir.join("reftable/tables.list.lock"))?;
        seen.index_lock = FileId::at(&repo.git_dir.join("index.lock"))?;
    }
    Ok(seen)
}

/// Could this transaction, still without locks, change anything? (`preparing`)
pub(crate) fn may_change(repo: &Repository, payload: &Payload<'_>) -> anyhow::Result<bool> {
    let refs = RefStore::new(repo);
    let packed_locked = FileId::at(&repo.common_dir.join("packed-refs.lock"))?.is_some();
    for line in payload.lines() {
        let Ok(name) = refs.canonical(line.name) else { continue };
        let before = refs.read(&name)?;
        let stays = if line.deletes() {
            before.value == Value::Absent || (!packed_locked && effect::is_prune(&refs, &name, &before)?)
        } else {
            before.value == line.after()
        };
        if !stays {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Is this deletion half of a rename by the git that was started at `git_started_at` (nanoseconds since the epoch)? The reflog
/// that it has moved away is proof, unless it is older than that git; without one only the command line can tell.
pub(crate) fn rename_of(
    repo: &Repository,
    changes: &[RefChange],
    argv: &[String],
    git_started_at: i64,
) -> anyhow::Result<Option<Rename>> {
    let mut deleted = changes.iter().filter(|c| !c.name.is_head());
    let (Some(change), None) = (deleted.next(), deleted.next()) else { return Ok(None) };
    if change.after != Value::Absent || !change.name.as_bytes().starts_with(b"refs/") {
        return Ok(None);
    }
    let log = FileId::at(&repo.common_dir.join(RENAMED_LOG))?.filter(|log| log.ctime >= git_started_at);
    let to = command_line::new_branch_name(argv);
    let renames = match (&log, &to) {
        (Some(_), Some(_)) => true,
        // A branch that is merely deleted has its reflog until git has deleted it.
        (Some(_), None) | (None, Some(_)) => change.log.is_none(),
        (None, None) => false,
    };
    let alone = to.is_none() && !argv.is_empty() && !git_argv::is_of_git(argv);
    Ok(renames.then_some(Rename { log, to, alone }))
}
