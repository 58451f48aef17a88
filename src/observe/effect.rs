//! What a transaction does to one ref: from git's line, what is there, and the lock.

use std::io;

use crate::fs::{FileId, read_ref, read_small, with_suffix};
use crate::git::refs::ResolvedRef;
use crate::git::{Oid, RefName, RefStore, Repository, Value};
use crate::observe::command_line::Locks;
use crate::observe::observed::Observed;
use crate::observe::payload::{Line, Payload};
use crate::wal::{RefChange, Watched};

/// One line of the payload, with what is on disk.
pub(super) struct Update<'u> {
    line: Line<'u>,
    name: RefName,
    before: ResolvedRef,
    lock: Option<FileId>,
}

impl Update<'_> {
    pub(super) fn deletes_nothing(&self) -> bool {
        self.line.deletes() && self.before.value == Value::Absent
    }

    /// A batched update that git rejected because the value is not the expected one still appears in the payload.
    fn was_rejected(&self) -> bool {
        let is_other = |current: &Oid| current.hex().as_bytes() != self.line.old;
        self.line.expects_a_value() && self.before.value.oid().is_some_and(is_other)
    }
}

enum Effect {
    Nothing,
    /// It is locked, and perhaps logged.
    LockOnly,
    /// Its loose file goes, `packed-refs` has the value.
    Prune,
    /// Its loose file goes, and `packed-refs` does not have the value.
    Loss,
    Change {
        after: Value,
        packed: bool,
    },
}

/// Reads the refs of a transaction under git's locks.
pub(super) struct Observer<'o> {
    repo: &'o Repository,
    payload: &'o Payload<'o>,
    refs: RefStore<'o>,
    packed_lock: Option<FileId>,
    pub(super) locks: Locks,
}

impl<'o> Observer<'o> {
    pub(super) fn new(repo: &'o Repository, payload: &'o Payload<'o>) -> io::Result<Observer<'o>> {
        let packed_lock = FileId::at(&repo.common_dir.join("packed-refs.lock"))?;
        Ok(Observer { repo, payload, refs: RefStore::under_locks(repo), packed_lock, locks: Locks::Own })
    }

    /// `None` for a name that we would not make.
    pub(super) fn look_at<'l>(&self, line: Line<'l>) -> anyhow::Result<Option<Update<'l>>> {
        let Ok(own) = self.refs.canonical(line.name) else { return Ok(None) };
        let name = self.resolve(&line, own)?;
        let before = self.refs.read(&name)?;
        let lock = FileId::at(&self.refs.lock(&name))?;
        Ok(Some(Update { line, name, before, lock }))
    }

    pub(super) fn observe(&self, update: Update<'_>, seen: &mut Observed) -> anyhow::Result<()> {
        let effect = self.effect(&update)?;
        let Update { name, before, lock, .. } = update;
        match effect {
            Effect::Nothing => {}
            Effect::Prune => seen.pruned.push((name, before)),
            Effect::Loss => seen.lost.push(name),
            Effect::LockOnly => seen.watched.push(Watched { log: self.log_size(&name)?, lock, name }),
            Effect::Change { after, packed } => {
                if packed {
                    seen.packed_lock = self.packed_lock;
                }
                let log = self.log_size(&name)?;
                seen.changes.push(RefChange { name, before: Some(before.value), after, file: before.loose, lock, log });
            }
        }
        Ok(())
    }

    fn effect(&self, update: &Update<'_>) -> anyhow::Result<Effect> {
        let effect = match (update.line.deletes(), self.locks) {
            (true, _) if update.deletes_nothing() => update.lock.map_or(Effect::Nothing, |_| Effect::LockOnly),
            (true, Locks::OfOthers) => self.effect_of_prune(update)?,
            (true, _) => self.effect_of_delete(update)?,
            (false, Locks::OfOthers) => Effect::Nothing,
            (false, _) => self.effect_of_update(update)?,
        };
        Ok(match effect {
            Effect::Change { .. } if self.locks == Locks::Batched && update.was_rejected() => Effect::Nothing,
            other => other,
        })
    }

    fn effect_of_delete(&self, update: &Update<'_>) -> anyhow::Result<Effect> {
        if self.is_logged_only(update)? {
            return Ok(Effect::LockOnly);
        }
        let Update { name, before, .. } = update;
        match (&update.lock, before.loose) {
            // `branch -D` up to 2.39 first takes all names out of packed-refs, in a transaction that holds
            // packed-refs.lock alone: a loose file still shows its value afterwards.
            (None, Some(_)) => Ok(Effect::Nothing),
            (None, None) => Ok(Effect::Change { after: Value::Absent, packed: true }),
            (Some(lock), _) if lock.size > 0 => Ok(Effect::Nothing),
            // git holds packed-refs.lock for every real deletion; without it this is a prune or a mere verification.
            (Some(_), _) if self.packed_lock.is_none() && is_prune(&self.refs, name, before)? => Ok(Effect::Prune),
            (Some(_), _) if self.packed_lock.is_none() => Ok(Effect::LockOnly),
            (Some(_), loose) => {
                let packed = loose.is_none() || self.refs.packed_value(name)?.is_some();
                Ok(Effect::Change { after: Value::Absent, packed })
            }
        }
    }

    /// A git that packs holds the ref's lock, and removes the loose file because `packed-refs` has it.
    fn effect_of_prune(&self, Update { name, before, lock, .. }: &Update<'_>) -> anyhow::Result<Effect> {
        match lock {
            Some(lock) if lock.size == 0 && before.loose.is_some() => {
                Ok(if is_prune(&self.refs, name, before)? { Effect::Prune } else { Effect::Loss })
            }
            _ => Ok(Effect::Nothing),
        }
    }

    fn effect_of_update(&self, Update { line, name, before, lock }: &Update<'_>) -> anyhow::Result<Effect> {
        let after = line.after();
        let Some(lock) = lock else { return Ok(Effect::Nothing) };
        if lock.size == 0 || before.value == after {
            return Ok(Effect::LockOnly);
        }
        // Reading every lock would cost a third of our time; only a batched update and one of `packed-refs` alone, which says
        // nothing about old values, may list one that is not git's.
        let doubtful = self.locks == Locks::Batched || (self.packed_lock.is_some() && !line.expects_a_value());
        if doubtful && read_small(&self.refs.lock(name))?.is_none_or(|(content, _)| Value::of_file(&content) != after) {
            return Ok(Effect::Nothing);
        }
        Ok(Effect::Change { after, packed: false })
    }

    /// git logs an update of the branch that HEAD points to in HEAD's reflog as well, by an extra HEAD line.
    fn is_logged_only(&self, Update { name, before, .. }: &Update<'_>) -> anyhow::Result<bool> {
        let Value::Symref(target) = &before.value else { return Ok(false) };
        if !name.is_head() {
            return Ok(false);
        }
        for line in self.payload.lines() {
            if self.refs.canonical(line.name).is_ok_and(|name| name == *target) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A `HEAD` line may mean another worktree's HEAD (`worktree add`, `branch -m` of a branch checked out
    /// elsewhere). Which one: the one that is locked.
    fn resolve(&self, line: &Line<'_>, own: RefName) -> anyhow::Result<RefName> {
        if line.name != b"HEAD" || FileId::at(&self.refs.lock(&own))?.is_some() {
            return Ok(own);
        }
        let after = line.after();
        if after == Value::Broken {
            return Ok(own);
        }
        for git_dir in self.repo.all_git_dirs() {
            let lock = with_suffix(git_dir.join("HEAD"), ".lock");
            let writes_it = read_small(&lock)?.is_some_and(|(content, _)| Value::of_file(&content) == after);
            if writes_it {
                let other = Repository { git_dir, ..self.repo.clone() };
                return Ok(RefStore::new(&other).canonical(b"HEAD")?);
            }
        }
        Ok(own)
    }

    /// From 2.51 on the extra HEAD line is hidden, but HEAD is locked and logged all the same.
    pub(super) fn watch_head(&self, seen: &mut Observed) -> anyhow::Result<()> {
        let head = self.refs.canonical(b"HEAD")?;
        let listed = seen.watched.iter().any(|w| w.name == head) || seen.changes.iter().any(|c| c.name == head);
        if listed {
            return Ok(());
        }
        let content = read_ref(&self.repo.git_dir.join("HEAD"))?;
        let Some(Value::Symref(target)) = content.map(|(text, _)| Value::of_file(&text)) else { return Ok(()) };
        if seen.changes.iter().any(|c| c.name == target) {
            let lock = FileId::at(&self.refs.lock(&head))?;
            seen.watched.push(Watched { log: self.log_size(&head)?, lock, name: head });
        }
        Ok(())
    }

    fn log_size(&self, name: &RefName) -> io::Result<Option<u64>> {
        Ok(FileId::at(&self.refs.log(name))?.map(|id| id.size))
    }
}

/// `packed-refs` has the value already: removing the loose file changes nothing that anybody sees.
pub(super) fn is_prune(refs: &RefStore<'_>, name: &RefName, before: &ResolvedRef) -> anyhow::Result<bool> {
    Ok(before.loose.is_some() && refs.packed_value(name)?.as_ref() == Some(&before.value))
}
