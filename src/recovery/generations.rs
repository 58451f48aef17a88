//! What the log expects of every ref after a reboot: its newest value, and the files that an older state of our own
//! history would show.
//!
//! A power cut takes back what was not durable: a ref may show any earlier generation, be empty, or be gone. Files that
//! were written down as before-images, locks or results prove that: whoever sees one of them sees our own past. A file
//! that was never written down is the work of a writer that we did not see, and stays.
//!
//! Limit: a ref that is gone without a trace is judged by its directory, whose entries and time every journaling file
//! system keeps in step: changed later than the ref was written, it lost the ref to somebody; else to the power cut.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::git::refs::Seen;
use crate::git::{FileId, RefName, RefStore, Repository, Value};
use crate::owner;
use crate::state_dir::TxId;
use crate::wal::{Begin, Birth, Body, Record, Settled};

/// The newest word of the log on a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The value.
    pub value: Value,
    /// The loose file that showed it, as it was then.
    pub file: Option<FileId>,
    /// The transaction that wrote it, when it is known.
    pub tx: Option<TxId>,
    /// The place in the log of the `begin` that it comes from; a later one is newer, whichever record came first.
    rank: usize,
}

/// One ref in the log.
#[derive(Debug, Clone, Default)]
pub struct Generation {
    /// The newest word.
    pub word: Option<Word>,
    /// Values before it, oldest first.
    pub earlier: Vec<Value>,
    files: Vec<FileId>,
}

/// How a ref stands to the newest word of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has that value, or the log has no word on it.
    AsLogged,
    /// It shows an older state of our own history, garbage, or nothing where the file was lost.
    Outdated,
    /// A writer that the log does not know changed it.
    Unseen,
}

/// What the log expects, from its last checkpoint on.
#[derive(Debug, Default)]
pub struct Generations<'l> {
    /// By ref.
    pub refs: BTreeMap<&'l RefName, Generation>,
    packed: Vec<FileId>,
    /// What HEAD of each worktree was when it was last seen.
    pub heads: BTreeMap<RefName, Value>,
    /// `packed-refs` was damaged: what only it had is lost, not deleted.
    pub packed_is_lost: bool,
    /// Unix time of the newest moment at which everything was durable, as far as the log proves it.
    pub durable_until: u64,
    /// The times of the records never ran backwards.
    pub clock_is_steady: bool,
    /// The state directory that the last checkpoint was written in.
    pub state_dir: Option<Birth>,
}

impl<'l> Generations<'l> {
    /// Reads `records`, in the order of the log.
    #[must_use]
    pub fn of(records: &'l [Record]) -> Generations<'l> {
        let mut this = Generations { clock_is_steady: true, ..Generations::default() };
        let mut begins: HashMap<TxId, (usize, u64, &'l Begin)> = HashMap::new();
        let mut newest = 0;
        for (at, record) in records.iter().enumerate() {
            this.clock_is_steady &= record.time + 1 >= newest;
            newest = newest.max(record.time);
            let begin = record.tx.and_then(|tx| begins.get(&tx).copied());
            match &record.body {
                Body::Begin(begun) => {
                    begins.extend(record.tx.map(|tx| (tx, (at, record.time, begun.as_ref()))));
                    this.note_begin(at, begun);
                }
                Body::Committed { refs } => {
                    let (rank, began, begun) = begin.map_or((at, 0, None), |(rank, time, b)| (rank, time, Some(b)));
                    this.note(rank, record.tx, refs);
                    // `prepared` returned, so its barrier held: everything up to there is durable.
                    if begun.is_some_and(|b| b.barrier) {
                        this.durable_until = this.durable_until.max(began);
                    }
                }
                Body::Recovered { refs, .. } => this.note(begin.map_or(at, |b| b.0), record.tx, refs),
                Body::Baseline { refs, as_of, .. } => {
                    let rank = records[..at].iter().rposition(|r| r.lsn <= *as_of).unwrap_or(0);
                    this.note(rank, None, refs);
                }
                Body::Moved { refs } => {
                    for settled in refs {
                        this.refs.entry(&settled.name).or_default().files.extend(settled.file);
                    }
                }
                Body::Checkpoint { in_flight, state_dir, .. } => {
                    this.refs.clear();
                    this.packed.clear();
                    this.durable_until = record.time;
                    this.state_dir = Some(*state_dir);
                    for (rank, _, begun) in in_flight.iter().filter_map(|tx| begins.get(tx)) {
                        this.note_begin(*rank, begun);
                    }
                }
                Body::Checkout { head, .. } => {
                    this.heads.extend(head.iter().map(|h| (h.name.clone(), h.value.clone())));
                }
                Body::Aborted | Body::Absorbed { .. } | Body::Unknown { .. } => {}
            }
        }
        this
    }

    /// The before-images were read under git's locks: they are the truth of that moment.
    fn note_begin(&mut self, rank: usize, begin: &'l Begin) {
        self.packed.extend(begin.packed);
        self.heads.extend(begin.head.iter().map(|h| (h.name.clone(), h.value.clone())));
        for change in &begin.refs {
            let generation = self.refs.entry(&change.name).or_default();
            generation.files.extend(change.file);
            // Of a batched transaction it may be the lock of somebody else's update.
            generation.files.extend(change.lock.filter(|_| !begin.batched));
            let Some(before) = change.before.clone() else { continue };
            let tx = generation.word.as_ref().filter(|w| w.value == before).and_then(|w| w.tx);
            generation.say(Word { value: before, file: change.file, tx, rank });
        }
    }

    fn note(&mut self, rank: usize, tx: Option<TxId>, refs: &'l [Settled]) {
        for settled in refs {
            if settled.name.is_head() {
                self.heads.insert(settled.name.clone(), settled.value.clone());
            }
            let generation = self.refs.entry(&settled.name).or_default();
            generation.files.extend(settled.file);
            generation.say(Word { value: settled.value.clone(), file: settled.file, tx, rank });
        }
    }

    /// How `name`, found as `now`, stands to the log. `packed` is the identity of `packed-refs`.
    ///
    /// # Errors
    /// A directory cannot be looked at.
    pub fn standing(
        &self,
        repo: &Repository,
        name: &RefName,
        now: &Seen,
        packed: Option<FileId>,
    ) -> io::Result<Standing> {
        let Some((generation, word)) = self.refs.get(name).and_then(|g| Some((g, g.word.as_ref()?))) else {
            return Ok(Standing::AsLogged);
        };
        let in_refs = name.as_bytes().starts_with(b"refs/");
        let is_detached = name.is_head() && matches!(word.value, Value::Oid(_));
        Ok(if now.value == word.value {
            Standing::AsLogged
        } else if now.value == Value::Broken {
            Standing::Outdated
        } else if !in_refs && !is_detached {
            // Which branch HEAD means, and what pseudo-refs say, goes with index and worktree, which are not ours.
            Standing::AsLogged
        } else if let Some(file) = now.loose {
            if generation.files.iter().any(|f| f.is_same_file(&file)) { Standing::Outdated } else { Standing::Unseen }
        } else if now.value != Value::Absent {
            let is_old = packed.is_some_and(|p| self.packed.iter().any(|known| known.is_same_file(&p)));
            if is_old { Standing::Outdated } else { Standing::Unseen }
        } else if self.was_lost(repo, name, word)? {
            Standing::Outdated
        } else {
            Standing::Unseen
        })
    }

    /// Nothing is there: did the power cut take the file, or somebody?
    fn was_lost(&self, repo: &Repository, name: &RefName, word: &Word) -> io::Result<bool> {
        if self.packed_is_lost {
            return Ok(true);
        }
        let Some(file) = word.file else { return Ok(false) };
        let path = RefStore::new(repo).file(name);
        let mut above = path.parent();
        while let Some(dir) = above.filter(|dir| dir.starts_with(&repo.common_dir)) {
            if let Some(metadata) = crate::git::refs::absent_is_none(std::fs::symlink_metadata(dir))? {
                let changed = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
                // A clock that was set tells nothing: then a ref too many is better than a ref too few.
                let tells = self.clock_is_steady && changed <= owner::now();
                return Ok(!tells || changed <= file.ctime);
            }
            above = dir.parent();
        }
        Ok(true)
    }
}

impl Generation {
    fn say(&mut self, word: Word) {
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
mod tests {
    use super::*;
    use crate::git::Oid;
    use crate::owner::{Owner, Place, Process};
    use crate::wal::RefChange;

    fn oid(digit: &str) -> Value {
        Value::Oid(Oid::parse(digit.repeat(40).as_bytes()).unwrap())
    }

    fn main() -> RefName {
        RefName::parse(b"refs/heads/main").unwrap()
    }

    fn begin(before: &str, after: &str, barrier: bool) -> Body {
        let change =
            RefChange { name: main(), before: Some(oid(before)), after: oid(after), file: None, lock: None, log: None };
        let process = Process { pid: 1, start: 1 };
        Body::Begin(Box::new(Begin {
            origin: "hook".into(),
            operation: "git".into(),
            owner: Owner { process, place: Place { boot: "b".into(), host: "h".into(), pidns: 1 } },
            helper: process,
            worktree: String::new(),
            reftable: false,
            batched: false,
            refs: vec![change],
            watched: Vec::new(),
            packed_lock: None,
            index_lock: None,
            rename: None,
            packed: None,
            head: None,
            barrier,
        }))
    }

    fn committed(value: &str) -> Body {
        Body::Committed { refs: vec![Settled { name: main(), value: oid(value), file: None }] }
    }

    fn checkpoint(in_flight: &[u64]) -> Body {
        let in_flight = in_flight.iter().map(|id| TxId(*id)).collect();
        Body::Checkpoint { in_flight, boot: "b".into(), state_dir: Birth { ino: 1, born: None } }
    }

    fn records(bodies: Vec<(u64, Body)>) -> Vec<Record> {
        let number = |(at, (tx, body)): (usize, (u64, Body))| Record {
            lsn: at as Lsn + 1,
            tx: Some(TxId(tx)),
            time: 100 * (at as u64 + 1),
            body,
        };
        bodies.into_iter().enumerate().map(number).collect()
    }

    use crate::wal::Lsn;

    #[test]
    fn the_newest_word_is_of_the_transaction_that_locked_last() {
        for (name, bodies, word) in [
            ("one", vec![(1, begin("a", "b", false)), (1, committed("b"))], "b"),
            ("begun only", vec![(1, begin("a", "b", false))], "a"),
            (
                "two, whose endings came in the other order",
                vec![
                    (1, begin("a", "b", false)),
                    (2, begin("b", "c", false)),
                    (2, committed("c")),
                    (1, committed("b")),
                ],
                "c",
            ),
            ("an unseen change before", vec![(1, committed("b")), (2, begin("f", "c", false))], "f"),
            ("a baseline", vec![(1, begin("a", "b", false)), (1, committed("b")), (0, baseline(2, "d"))], "d"),
            (
                "a baseline that was read before the transaction began",
                vec![(1, committed("a")), (2, begin("a", "b", false)), (2, committed("b")), (0, baseline(1, "a"))],
                "b",
            ),
            ("in flight at the checkpoint", vec![(1, begin("a", "b", false)), (0, checkpoint(&[1]))], "a"),
        ] {
            let records = records(bodies);
            let generations = Generations::of(&records);
            let found = generations.refs.get(&main()).and_then(|g| g.word.as_ref()).map(|w| w.value.clone());
            assert_eq!(found, Some(oid(word)), "{name}");
        }
    }

    fn baseline(as_of: Lsn, value: &str) -> Body {
        let refs = vec![Settled { name: main(), value: oid(value), file: None }];
        Body::Baseline { as_of, actions: Vec::new(), refs }
    }

    #[test]
    fn what_a_checkpoint_made_durable_is_not_looked_at_again() {
        let records = records(vec![(1, begin("a", "b", false)), (1, committed("b")), (0, checkpoint(&[]))]);
        let generations = Generations::of(&records);
        assert!(generations.refs.is_empty());
        assert_eq!(generations.durable_until, 300);
    }

    #[test]
    fn a_barrier_counts_only_when_git_went_on_behind_it() {
        let until = |bodies| {
            let records = records(bodies);
            Generations::of(&records).durable_until
        };
        assert_eq!(until(vec![(0, checkpoint(&[])), (1, begin("a", "b", true))]), 100, "the sync may have failed");
        assert_eq!(until(vec![(0, checkpoint(&[])), (1, begin("a", "b", true)), (1, committed("b"))]), 200);
        assert_eq!(until(vec![(0, checkpoint(&[])), (1, begin("a", "b", false)), (1, committed("b"))]), 100);
    }

    #[test]
    fn a_clock_that_was_set_back_is_noticed() {
        let mut records = records(vec![(1, begin("a", "b", false)), (1, committed("b"))]);
        assert!(Generations::of(&records).clock_is_steady);
        records[1].time = 10;
        assert!(!Generations::of(&records).clock_is_steady);
    }
}
