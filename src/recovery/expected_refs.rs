//! What the log expects of every ref after a reboot: its newest value, and the files that an older state of our own
//! history would show.
//!
//! A power cut takes back what was not durable: a ref may show any earlier generation, be empty, or be gone. What was
//! written down proves that:
//! - a file that was a before-image, a lock or a result: whoever sees it sees our own past;
//! - the lock of an acknowledged transaction, still there: the rename that put it into place was lost. The barrier made
//!   the lock durable, so this is what a lost rename leaves;
//! - `packed-refs` as the transaction found it that deleted a ref from it.
//!
//! A file that was never written down is the work of a writer that we did not see, and stays. So does the absence of a
//! file, but for one case: a directory that has not changed since before the ref was made never had it.
//!
//! Refs of transactions that have not ended belong to those, and are not judged here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::fs::{FileId, absent_is_none};
use crate::git::refs::{RefSnapshot, ResolvedRef};
use crate::git::{RefName, RefStore, Repository, Value};
use crate::state::{TxId, TxKind};
use crate::wal::{Begin, Body, Outcome, Record};

/// The newest word of the log on a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastKnown {
    /// The value.
    pub value: Value,
    /// The loose file that showed it, as it was then.
    pub file: Option<FileId>,
    /// The transaction that wrote it, when it is known.
    pub tx: Option<TxId>,
    /// Its lock, which became the file.
    pub(crate) lock: Option<FileId>,
    /// `packed-refs` as it found it.
    packed: Option<FileId>,
    /// The place in the log of the `begin` that it comes from; a later one is newer, whichever record came first.
    rank: usize,
}

/// One ref in the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Generation {
    /// The newest word.
    pub word: Option<LastKnown>,
    /// Values before it, oldest first.
    pub earlier: Vec<Value>,
    files: Vec<FileId>,
}

/// How a ref stands to the newest word of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefStatus {
    /// It has that value, or the log has no word on it.
    AsLogged,
    /// It shows an older state of our own history, garbage, or nothing where the file was lost.
    Outdated,
    /// A writer that the log does not know changed it.
    Unseen,
    /// It belongs to a transaction that has not ended.
    Open,
}

/// What the log expects, from its last checkpoint on.
#[derive(Debug, Default)]
pub(crate) struct ExpectedRefs<'l> {
    /// By ref.
    pub refs: BTreeMap<&'l RefName, Generation>,
    /// What HEAD of each worktree was when it was last seen.
    pub heads: BTreeMap<RefName, Value>,
    /// Unix time of the newest moment at which everything was durable, as far as the log proves it.
    pub durable_until: u64,
    /// The times of the records never ran backwards.
    pub clock_is_steady: bool,
    /// The log has seen a `packed-refs` with something in it.
    pub had_packed_refs: bool,
    open: HashSet<&'l RefName>,
}

/// The transactions of a log, while it is read.
#[derive(Default)]
struct Reading<'l> {
    begins: HashMap<TxId, (usize, u64, &'l Begin)>,
    ended: HashSet<TxId>,
    decided: HashSet<TxId>,
}

impl<'l> Reading<'l> {
    fn begin(&self, record: &Record) -> Option<(usize, u64, &'l Begin)> {
        record.tx.and_then(|tx| self.begins.get(&tx).copied())
    }
}

impl<'l> ExpectedRefs<'l> {
    /// Reads `records`, in the order of the log; `boot` is the present one, in which alone a transaction may be alive.
    pub(crate) fn of(records: &'l [Record], boot: &str) -> ExpectedRefs<'l> {
        let mut this = ExpectedRefs { clock_is_steady: true, ..ExpectedRefs::default() };
        let mut reading = Reading::default();
        let mut newest = 0;
        for (at, record) in records.iter().enumerate() {
            this.clock_is_steady &= record.time + 1 >= newest;
            newest = newest.max(record.time);
            this.read(&mut reading, records, at);
        }
        let alive = reading
            .begins
            .iter()
            .filter(|(tx, (_, _, begin))| !reading.ended.contains(tx) && begin.owner.place.boot == boot);
        this.open = alive.flat_map(|(_, (_, _, begin))| begin.refs.iter().map(|c| &c.name)).collect();
        this
    }

    fn read(&mut self, reading: &mut Reading<'l>, records: &'l [Record], at: usize) {
        let record = &records[at];
        if record.body.is_terminal() {
            reading.ended.extend(record.tx);
        }
        match &record.body {
            Body::Begin(begun) => {
                reading.begins.extend(record.tx.map(|tx| (tx, (at, record.time, begun.as_ref()))));
                if record.body.word().is_some() {
                    self.note_begin(at, begun);
                }
            }
            // What was decided will be: it is the newest word, whether or not it came to be written.
            Body::Decided(begun) => {
                reading.begins.extend(record.tx.map(|tx| (tx, (at, record.time, begun.as_ref()))));
                reading.decided.extend(record.tx);
                self.note_decided(at, record.tx, begun);
            }
            Body::Committed { refs } => {
                let begin = reading.begin(record);
                self.note(begin.map_or(at, |b| b.0), record.tx, begin.map(|b| b.2), refs);
                // `prepared` returned, so its barrier held: everything up to there is durable.
                if let Some((_, began, _)) = begin.filter(|b| b.2.barrier) {
                    self.durable_until = self.durable_until.max(began);
                }
            }
            Body::Recovered { refs, outcome, .. } => {
                let begin = reading.begin(record);
                let applied = begin.map(|b| b.2).filter(|_| *outcome == Outcome::Committed);
                self.note(begin.map_or(at, |b| b.0), record.tx, applied, refs);
            }
            Body::Baseline { refs, as_of, .. } => {
                let rank = records[..at].iter().rposition(|r| r.lsn <= *as_of).unwrap_or(0);
                self.note(rank, None, None, refs);
            }
            Body::Moved { refs } => {
                for settled in refs {
                    self.refs.entry(&settled.name).or_default().files.extend(settled.file);
                }
            }
            Body::Checkpoint { in_flight, .. } => {
                self.refs.clear();
                self.durable_until = record.time;
                let open = in_flight.iter().filter(|tx| !reading.ended.contains(tx));
                for tx in open {
                    let Some((rank, _, begun)) = reading.begins.get(tx) else { continue };
                    if reading.decided.contains(tx) {
                        self.note_decided(*rank, Some(*tx), begun);
                    } else if begun.origin != TxKind::Apply {
                        self.note_begin(*rank, begun);
                    }
                }
            }
            Body::Checkout(checkout) => {
                self.heads.extend(checkout.head.iter().map(|h| (h.name.clone(), h.value.clone())));
            }
            // Its record came to the log, but was not trusted to be durable: nothing came of it.
            Body::Aborted if record.tx.is_some_and(|tx| reading.decided.contains(&tx)) => {
                if let Some((rank, _, begun)) = reading.begin(record) {
                    self.note_before(rank, begun);
                }
            }
            Body::Aborted | Body::Absorbed { .. } | Body::Unknown { .. } => {}
        }
    }

    /// The before-images were read under git's locks: they are the truth of that moment.
    fn note_begin(&mut self, rank: usize, begin: &'l Begin) {
        self.had_packed_refs |= begin.packed.is_some_and(|p| p.size > 0);
        self.heads.extend(begin.head.iter().map(|h| (h.name.clone(), h.value.clone())));
        for change in &begin.refs {
            let generation = self.refs.entry(&change.name).or_default();
            generation.files.extend(change.file);
            // Of a batched transaction it may be the lock of somebody else's update.
            generation.files.extend(change.lock.filter(|_| !begin.batched));
            let Some(before) = change.before.clone() else { continue };
            let same = generation.word.as_ref().filter(|w| w.value == before).cloned();
            let seen = LastKnown { value: before, file: change.file, tx: None, lock: None, packed: None, rank };
            generation.say(same.map_or(seen, |word| LastKnown { rank, ..word }));
        }
    }

    fn note_decided(&mut self, rank: usize, tx: Option<TxId>, begin: &'l Begin) {
        self.note_begin(rank, begin);
        for change in &begin.refs {
            let (lock, packed) = (change.lock, begin.packed);
            let generation = self.refs.entry(&change.name).or_default();
            generation.say(LastKnown { value: change.after.clone(), file: None, tx, lock, packed, rank });
        }
    }

    fn note_before(&mut self, rank: usize, begin: &'l Begin) {
        for change in &begin.refs {
            let Some(value) = change.before.clone() else { continue };
            let word = LastKnown { value, file: change.file, tx: None, lock: None, packed: None, rank };
            self.refs.entry(&change.name).or_default().say(word);
        }
    }

    fn note(&mut self, rank: usize, tx: Option<TxId>, applied: Option<&Begin>, refs: &'l [RefSnapshot]) {
        let locks: BTreeMap<&RefName, FileId> =
            applied.into_iter().flat_map(|b| &b.refs).filter_map(|c| Some((&c.name, c.lock?))).collect();
        for settled in refs {
            if settled.name.is_head() {
                self.heads.insert(settled.name.clone(), settled.value.clone());
            }
            let lock = locks.get(&settled.name).copied();
            let packed = applied.and_then(|b| b.packed);
            let generation = self.refs.entry(&settled.name).or_default();
            generation.files.extend(settled.file);
            generation.say(LastKnown { value: settled.value.clone(), file: settled.file, tx, lock, packed, rank });
        }
    }

    /// How `name`, found as `now`, stands to the log. `packed` is the identity of `packed-refs`.
    pub(crate) fn standing(
        &self,
        repo: &Repository,
        name: &RefName,
        now: &ResolvedRef,
        packed: Option<FileId>,
    ) -> io::Result<RefStatus> {
        if self.open.contains(name) {
            return Ok(RefStatus::Open);
        }
        let Some((generation, word)) = self.refs.get(name).and_then(|g| Some((g, g.word.as_ref()?))) else {
            return Ok(RefStatus::AsLogged);
        };
        let is_detached = name.is_head() && matches!(word.value, Value::Oid(_));
        let is_ours = |file: FileId| generation.files.iter().any(|f| f.is_same_file(&file));
        // What is no value cannot be written again.
        let outdated = if now.value == word.value || word.value == Value::Broken {
            return Ok(RefStatus::AsLogged);
        } else if now.value == Value::Broken {
            true
        } else if !name.is_below_refs() && !is_detached {
            // Which branch HEAD means, and what pseudo-refs say, goes with index and worktree, which are not ours: unless it is
            // the same commit, and the lock that was to become HEAD is still there.
            let is_same = name.is_head() && self.same_commit(repo, &now.value, &word.value)?;
            if !is_same || !now.loose.is_some_and(is_ours) || !self.rename_was_lost(repo, name)? {
                return Ok(RefStatus::AsLogged);
            }
            true
        } else if let Some(file) = now.loose {
            is_ours(file)
        } else if word.value == Value::Absent {
            packed.zip(word.packed).is_some_and(|(now, then)| now.is_same_file(&then))
        } else {
            self.rename_was_lost(repo, name)? || self.never_had(repo, name, word)?
        };
        Ok(if outdated { RefStatus::Outdated } else { RefStatus::Unseen })
    }

    /// Do two values of HEAD lead to the same commit, by the log's newest word on the branches that they name?
    fn same_commit(&self, repo: &Repository, one: &Value, other: &Value) -> io::Result<bool> {
        let leads_to = |value: &Value| match value {
            Value::Symref(branch) => match self.refs.get(branch).and_then(|g| g.word.as_ref()) {
                Some(word) => Ok(word.value.clone()),
                None => RefStore::new(repo).read(branch).map(|seen| seen.value),
            },
            other => Ok(other.clone()),
        };
        let one = leads_to(one)?;
        Ok(one.oid().is_some() && one == leads_to(other)?)
    }

    /// Is the lock that became the newest value still a lock?
    pub(crate) fn rename_was_lost(&self, repo: &Repository, name: &RefName) -> io::Result<bool> {
        let word = self.refs.get(name).and_then(|g| g.word.as_ref());
        let Some(lock) = word.and_then(|w| w.lock) else { return Ok(false) };
        Ok(FileId::at(&RefStore::new(repo).lock(name))?.is_some_and(|now| now.is_same_file(&lock)))
    }

    /// Nothing is there, and the directory has not changed since before the ref was made.
    fn never_had(&self, repo: &Repository, name: &RefName, word: &LastKnown) -> io::Result<bool> {
        let Some(file) = word.file.filter(|_| self.clock_is_steady) else { return Ok(false) };
        let path = RefStore::new(repo).file(name);
        let mut above = path.parent();
        while let Some(dir) = above.filter(|dir| dir.starts_with(&repo.common_dir)) {
            if let Some(metadata) = absent_is_none(std::fs::symlink_metadata(dir))? {
                let changed = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
                return Ok(changed <= file.ctime && file.ctime <= crate::util::clock::now());
            }
            above = dir.parent();
        }
        Ok(false)
    }
}

impl Generation {
    fn say(&mut self, word: LastKnown) {
        if self.word.as_ref().is_some_and(|w| w.rank > word.rank) {
            return;
        }
        if let Some(old) = self.word.replace(word)
            && self.word.as_ref().is_some_and(|w| w.value != old.value)
        {
            self.earlier.push(old.value);
        }
    }
}

#[cfg(test)]
#[path = "expected_refs_tests.rs"]
mod tests;
