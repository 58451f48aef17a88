//! What a transaction is about to do, read from the disk while git holds its locks.
//!
//! The payload says what the caller expected, not what is there; lock files say what git will do:
//! an update's lock holds the new value, a deletion's is empty, and so is the lock of an update that writes
//! nothing (same value, or HEAD that is only logged). What changes no visible value is not logged.

use std::io;

pub mod payload;

use crate::fs::FileId;
use crate::fs::{read_small, with_suffix};
use crate::git::refs::{BadName, ResolvedRef};
use crate::git::{RefFormat, RefName, RefStore, Repository, Value};
use crate::observe::payload::{Line, Payload};
use crate::wal::{RefChange, Rename, Watched};

/// A transaction as observed at `prepared`.
#[derive(Debug, Default)]
pub struct Observed {
    /// Refs whose visible value changes.
    pub changes: Vec<RefChange>,
    /// Refs that are locked or logged only.
    pub watched: Vec<Watched>,
    /// Loose files that are about to go because `packed-refs` has the same value.
    pub pruned: Vec<(RefName, ResolvedRef)>,
    /// Loose files that are about to go although `packed-refs` does not have their value: deleted and made again since it was
    /// packed, with the same value, which is all that git asks for.
    pub lost: Vec<RefName>,
    /// `packed-refs.lock`, when git had to take it for a deletion.
    pub packed_lock: Option<FileId>,
    /// `index.lock` of the worktree.
    pub index_lock: Option<FileId>,
}

/// What the command line says about the locks of the refs that a payload lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locks {
    /// They are this git's.
    Own,
    /// git may have rejected some of the updates, whose locks are somebody else's.
    Batched,
    /// They are all somebody else's, who may have moved the ref on: only `packed-refs` is written.
    OfOthers,
}

impl Locks {
    /// Of the git with this command line.
    #[must_use]
    pub fn of(argv: &[String]) -> Locks {
        match () {
            () if crate::process::git_argv::packs_refs(argv) => Locks::OfOthers,
            () if may_be_batched(argv) => Locks::Batched,
            () => Locks::Own,
        }
    }
}

/// Why the payload could not be read.
#[derive(Debug)]
pub enum Problem {
    /// A name or value that cannot be.
    Invalid(BadName),
    /// A file that cannot be read.
    Io(io::Error),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Problem::Invalid(e) => e.fmt(f),
            Problem::Io(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Problem {}

impl From<io::Error> for Problem {
    fn from(e: io::Error) -> Self {
        Problem::Io(e)
    }
}

impl From<BadName> for Problem {
    fn from(e: BadName) -> Self {
        Problem::Invalid(e)
    }
}

enum Effect {
    Nothing,
    LockOnly,
    Prune,
    Loss,
    Change { after: Value, packed: bool },
}

/// Observes the transaction at `prepared`: locks are held, nothing is changed yet. `whose` are the locks? That is asked only
/// once, and not at all when no ref is there: git deletes pseudo-refs that are none in every commit.
///
/// # Errors
/// The payload or the disk cannot be read, or what `whose` says.
pub fn observe(
    repo: &Repository,
    payload: &Payload<'_>,
    whose: impl FnOnce() -> io::Result<Locks>,
) -> Result<Observed, Problem> {
    if repo.ref_format == RefFormat::Reftable {
        return observe_reftable(repo, payload);
    }
    let refs = RefStore::under_locks(repo);
    // Nearly always every line is a change; growing on the way would leave holes behind.
    let mut seen = Observed { changes: Vec::with_capacity(payload.count()), ..Observed::default() };
    let packed_lock = FileId::at(&repo.common_dir.join("packed-refs.lock"))?;
    let mut whose = Some(whose);
    let mut locks = Locks::Own;
    for line in payload.lines() {
        let name = resolve(repo, &refs, &line)?;
        let before = refs.read(&name)?;
        let lock = FileId::at(&refs.lock(&name))?;
        let deletes_nothing = Line::is_null(line.new) && before.value == Value::Absent;
        if let Some(whose) = whose.take_if(|_| !deletes_nothing) {
            locks = whose()?;
        }
        let effect = match (Line::is_null(line.new), &before.value) {
            (true, Value::Absent) => lock.map_or(Effect::Nothing, |_| Effect::LockOnly),
            (true, _) if locks == Locks::OfOthers => effect_of_prune(&refs, &name, &before, lock.as_ref())?,
            (true, _) => effect_of_delete(&refs, payload, &name, &before, lock.as_ref(), packed_lock.is_some())?,
            (false, _) if locks == Locks::OfOthers => Effect::Nothing,
            (false, _) => {
                let doubtful = locks == Locks::Batched || (packed_lock.is_some() && Line::is_null(line.old));
                effect_of_update(&refs, &line, &name, &before, lock.as_ref(), doubtful)?
            }
        };
        match effect {
            Effect::Nothing => {}
            Effect::Prune => seen.pruned.push((name, before)),
            Effect::Loss => seen.lost.push(name),
            Effect::LockOnly => seen.watched.push(Watched { log: log_size(&refs, &name)?, lock, name }),
            Effect::Change { .. } if locks == Locks::Batched && was_rejected(&line, &before) => {}
            Effect::Change { after, packed } => {
                if packed {
                    seen.packed_lock = packed_lock;
                }
                let log = log_size(&refs, &name)?;
                seen.changes.push(RefChange { name, before: Some(before.value), after, file: before.loose, lock, log });
            }
        }
    }
    if !seen.changes.is_empty() {
        watch_head(repo, &refs, &mut seen)?;
        seen.index_lock = FileId::at(&repo.git_dir.join("index.lock"))?;
    }
    Ok(seen)
}

/// Of a reftable only git can read values, and a hook starts no git: what the payload says is what we have. The
/// table's lock stands for the locks of all refs.
fn observe_reftable(repo: &Repository, payload: &Payload<'_>) -> Result<Observed, Problem> {
    let refs = RefStore::under_locks(repo);
    let mut seen = Observed::default();
    for line in payload.lines() {
        let deletes = Line::is_null(line.new);
        // HEAD beside a branch is only logged; deletions of pseudo-refs accompany every commit and are mostly none.
        let beside = line.name == b"HEAD" && payload.lines().any(|l| l.name != b"HEAD" && l.new == line.new);
        if beside || (deletes && !line.name.starts_with(b"refs/")) {
            continue;
        }
        let (name, after) = (refs.canonical(line.name)?, Value::of_payload(line.new)?);
        seen.changes.push(RefChange { name, before: None, after, file: None, lock: None, log: None });
    }
    if !seen.changes.is_empty() {
        seen.packed_lock = FileId::at(&repo.common_dir.join("reftable/tables.list.lock"))?;
        seen.index_lock = FileId::at(&repo.git_dir.join("index.lock"))?;
    }
    Ok(seen)
}

/// Could this transaction, still without locks, change anything? (`preparing`)
///
/// # Errors
/// The payload or the disk cannot be read.
pub fn may_change(repo: &Repository, payload: &Payload<'_>) -> Result<bool, Problem> {
    let refs = RefStore::new(repo);
    let packed_locked = FileId::at(&repo.common_dir.join("packed-refs.lock"))?.is_some();
    for line in payload.lines() {
        let name = refs.canonical(line.name)?;
        let before = refs.read(&name)?;
        let stays = if Line::is_null(line.new) {
            before.value == Value::Absent || (!packed_locked && is_prune(&refs, &name, &before)?)
        } else {
            before.value == Value::of_payload(line.new)?
        };
        if !stays {
            return Ok(true);
        }
    }
    Ok(false)
}

fn effect_of_delete(
    refs: &RefStore<'_>,
    payload: &Payload<'_>,
    name: &RefName,
    before: &ResolvedRef,
    lock: Option<&FileId>,
    packed_locked: bool,
) -> Result<Effect, Problem> {
    if is_logged_only(refs, payload, name, before)? {
        return Ok(Effect::LockOnly);
    }
    match (lock, before.loose) {
        // `branch -D` up to 2.39 first takes all names out of packed-refs, in a transaction that holds
        // packed-refs.lock alone: a loose file still shows its value afterwards.
        (None, Some(_)) => Ok(Effect::Nothing),
        (None, None) => Ok(Effect::Change { after: Value::Absent, packed: true }),
        (Some(lock), _) if lock.size > 0 => Ok(Effect::Nothing),
        // git holds packed-refs.lock for every real deletion; without it this is a prune or a mere verification.
        (Some(_), _) if !packed_locked && is_prune(refs, name, before)? => Ok(Effect::Prune),
        (Some(_), _) if !packed_locked => Ok(Effect::LockOnly),
        (Some(_), loose) => {
            let packed = loose.is_none() || refs.packed_value(name)?.is_some();
            Ok(Effect::Change { after: Value::Absent, packed })
        }
    }
}

/// A git that packs holds the ref's lock, and removes the loose file because `packed-refs` has it.
fn effect_of_prune(
    refs: &RefStore<'_>,
    name: &RefName,
    before: &ResolvedRef,
    lock: Option<&FileId>,
) -> Result<Effect, Problem> {
    match lock {
        Some(lock) if lock.size == 0 && before.loose.is_some() => {
            Ok(if is_prune(refs, name, before)? { Effect::Prune } else { Effect::Loss })
        }
        _ => Ok(Effect::Nothing),
    }
}

fn effect_of_update(
    refs: &RefStore<'_>,
    line: &Line<'_>,
    name: &RefName,
    before: &ResolvedRef,
    lock: Option<&FileId>,
    doubtful: bool,
) -> Result<Effect, Problem> {
    let after = Value::of_payload(line.new)?;
    let Some(lock) = lock else { return Ok(Effect::Nothing) };
    if lock.size == 0 || before.value == after {
        return Ok(Effect::LockOnly);
    }
    // Reading every lock would cost a third of our time; only a batched update and one of `packed-refs` alone, which says
    // nothing about old values, may list one that is not git's.
    if doubtful && read_small(&refs.lock(name))?.is_none_or(|(content, _)| Value::of_file(&content) != after) {
        return Ok(Effect::Nothing);
    }
    Ok(Effect::Change { after, packed: false })
}

/// A batched update that git rejected because the value is not the expected one still appears in the payload.
fn was_rejected(line: &Line<'_>, before: &ResolvedRef) -> bool {
    !Line::is_null(line.old) && before.value.oid().is_some_and(|current| current.hex().as_bytes() != line.old)
}

/// `packed-refs` has the value already: removing the loose file changes nothing that anybody sees.
fn is_prune(refs: &RefStore<'_>, name: &RefName, before: &ResolvedRef) -> Result<bool, Problem> {
    Ok(before.loose.is_some() && refs.packed_value(name)?.as_ref() == Some(&before.value))
}

/// git logs an update of the branch that HEAD points to in HEAD's reflog as well, by an extra HEAD line.
fn is_logged_only(
    refs: &RefStore<'_>,
    payload: &Payload<'_>,
    name: &RefName,
    before: &ResolvedRef,
) -> Result<bool, Problem> {
    let Value::Symref(target) = &before.value else { return Ok(false) };
    if !name.is_head() {
        return Ok(false);
    }
    for line in payload.lines() {
        if refs.canonical(line.name)? == *target {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A `HEAD` line may mean another worktree's HEAD (`worktree add`, `branch -m` of a branch checked out
/// elsewhere). Which one: the one that is locked.
fn resolve(repo: &Repository, refs: &RefStore<'_>, line: &Line<'_>) -> Result<RefName, Problem> {
    let own = refs.canonical(line.name)?;
    if line.name != b"HEAD" || FileId::at(&refs.lock(&own))?.is_some() {
        return Ok(own);
    }
    let after = Value::of_payload(line.new)?;
    for git_dir in repo.all_git_dirs() {
        let lock = with_suffix(git_dir.join("HEAD"), ".lock");
        let writes_it = read_small(&lock)?.is_some_and(|(content, _)| Value::of_file(&content) == after);
        if writes_it {
            let other = Repository { git_dir, ..repo.clone() };
            return Ok(RefStore::new(&other).canonical(b"HEAD")?);
        }
    }
    Ok(own)
}

/// From 2.51 on the extra HEAD line is hidden, but HEAD is locked and logged all the same.
fn watch_head(repo: &Repository, refs: &RefStore<'_>, seen: &mut Observed) -> Result<(), Problem> {
    let head = refs.canonical(b"HEAD")?;
    let listed = seen.watched.iter().any(|w| w.name == head) || seen.changes.iter().any(|c| c.name == head);
    if listed {
        return Ok(());
    }
    let content = read_small(&repo.git_dir.join("HEAD"))?;
    let Some(Value::Symref(target)) = content.map(|(text, _)| Value::of_file(&text)) else { return Ok(()) };
    if seen.changes.iter().any(|c| c.name == target) {
        let lock = FileId::at(&refs.lock(&head))?;
        seen.watched.push(Watched { log: log_size(refs, &head)?, lock, name: head });
    }
    Ok(())
}

fn log_size(refs: &RefStore<'_>, name: &RefName) -> io::Result<Option<u64>> {
    Ok(FileId::at(&refs.log(name))?.map(|id| id.size))
}

/// Is this deletion half of a rename by the git that git_started_at at `git_started_at` (nanoseconds since the epoch)? The reflog that it has
/// moved away is proof, unless it lies there for longer than that git is at work; without one only the command line can tell.
///
/// # Errors
/// The disk cannot be read.
pub fn rename_of(
    repo: &Repository,
    changes: &[RefChange],
    argv: &[String],
    git_started_at: i64,
) -> Result<Option<Rename>, Problem> {
    let mut deleted = changes.iter().filter(|c| !c.name.is_head());
    let (Some(change), None) = (deleted.next(), deleted.next()) else { return Ok(None) };
    if change.after != Value::Absent || !change.name.as_bytes().starts_with(b"refs/") {
        return Ok(None);
    }
    let log =
        FileId::at(&repo.common_dir.join(crate::git::reflog::RENAMED_LOG))?.filter(|log| log.ctime >= git_started_at);
    let to = new_branch_name(argv);
    let renames = match (&log, &to) {
        (Some(_), Some(_)) => true,
        // A branch that is merely deleted has its reflog until git has deleted it.
        (Some(_), None) | (None, Some(_)) => change.log.is_none(),
        (None, None) => false,
    };
    Ok(renames.then_some(Rename { log, to }))
}

/// The new name in `git branch -m [<old>] <new>`.
fn new_branch_name(argv: &[String]) -> Option<RefName> {
    let at = argv.iter().position(|a| a == "branch")?;
    let is_move = |a: &&String| matches!(a.as_str(), "-m" | "-M" | "--move") || a.starts_with("-fm");
    argv[at..].iter().find(is_move)?;
    let last = argv.last().filter(|a| !a.starts_with('-'))?;
    RefName::parse(format!("refs/heads/{last}").as_bytes()).ok()
}

/// Commands whose updates git may apply one by one.
fn may_be_batched(argv: &[String]) -> bool {
    let program = argv.first().map_or("", |a| a.rsplit('/').next().unwrap_or(a));
    let batching = ["fetch", "pull", "push", "receive-pack", "remote", "--batch-updates"];
    program == "git-receive-pack" || argv.iter().skip(1).any(|a| batching.contains(&a.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_name_of_a_rename_is_read_from_the_command_line() {
        let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let to = |line: &str| new_branch_name(&argv(line)).map(|n| n.to_string());
        assert_eq!(to("git branch -m old new").as_deref(), Some("refs/heads/new"));
        assert_eq!(to("git branch -M new").as_deref(), Some("refs/heads/new"));
        assert_eq!(to("git branch -D old"), None);
        assert_eq!(to("git commit -m branch"), None);
    }

    #[test]
    fn whose_the_locks_are_is_read_from_the_command_line() {
        let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, locks) in [
            ("git fetch origin", Locks::Batched),
            ("git-receive-pack /srv/x.git", Locks::Batched),
            ("git update-ref --stdin --batch-updates", Locks::Batched),
            ("git update-ref --stdin", Locks::Own),
            ("git commit -m pack-refs", Locks::Own),
            ("git -C pack-refs commit", Locks::Own),
            ("git refs migrate", Locks::Own),
            ("/usr/bin/git -c gc.auto=0 pack-refs --all", Locks::OfOthers),
            ("git refs optimize", Locks::OfOthers),
        ] {
            assert_eq!(Locks::of(&argv(line)), locks, "{line}");
        }
    }
}
