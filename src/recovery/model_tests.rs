//! Evidence and plan against a model that knows everything: random transactions, crashes, third parties, `pack-refs` and
//! recoveries that are killed themselves, on real files, without git.
//!
//! The model notes who wrote each ref last. Recovery sees only what the disk and the log show.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::fs::FileId;
use crate::git::refs::RefSnapshot;
use crate::git::{Git, Oid, RefFormat, RefName, RefStore, Repository, Value};
use crate::process::owner::{ExecContext, Owner, Process};
use crate::recovery::decide::{self, Decision, Evidence, decide};
use crate::recovery::evidence::EvidenceSources;
use crate::recovery::history::History;
use crate::state::{TxId, TxKind};
use crate::wal::{Begin, Body, Outcome, Record, RefChange};
use proptest::prelude::*;

const REFS: usize = 4;
const VALUES: usize = 3;

/// What happens. Values are few, so that refs move away and back.
#[derive(Clone, Debug)]
enum Step {
    /// A logged transaction; with `cut` it dies after so many of its changes, at most all of them.
    Logged { changes: BTreeMap<usize, Option<usize>>, cut: Option<usize> },
    /// A writer that no hook sees.
    Unseen { name: usize, to: Option<usize> },
    /// `git pack-refs --all`.
    Pack,
    /// Recovery; with `cut` it dies after so many writes.
    Recover { cut: Option<usize> },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop_oneof![4 => (0..VALUES).prop_map(Some), 1 => Just(None)];
    let changes = prop::collection::btree_map(0..REFS, value.clone(), 1..=REFS);
    let step = prop_oneof![
        4 => (changes, prop::option::weighted(0.6, 0..=REFS)).prop_map(|(changes, cut)| Step::Logged { changes, cut }),
        2 => (0..REFS, value).prop_map(|(name, to)| Step::Unseen { name, to }),
        1 => Just(Step::Pack),
        2 => prop::option::weighted(0.4, 0..=REFS).prop_map(|cut| Step::Recover { cut }),
    ];
    prop::collection::vec(step, 1..24)
}

/// Who wrote a ref.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Nobody,
    Transaction(u64),
    Somebody,
    Recovery,
}

/// A transaction that died.
struct Dead {
    id: u64,
    /// The refs whose locks it left.
    locked: BTreeSet<usize>,
    /// The refs that it has written.
    wrote: BTreeSet<usize>,
    all: BTreeSet<usize>,
}

struct World {
    dir: tempfile::TempDir,
    repo: Repository,
    log: Vec<Record>,
    writers: [Writer; REFS],
    /// Refs that anybody else has written, or was about to write, since a transaction began.
    touched: BTreeMap<u64, BTreeSet<usize>>,
    dead: Vec<Dead>,
    next_tx: u64,
    clock: u64,
}

fn name(n: usize) -> RefName {
    RefName::parse(format!("refs/heads/b{n}").as_bytes()).expect("a valid name")
}

fn value(v: Option<usize>) -> Value {
    let oid = |v: usize| Oid::parse(format!("{:040x}", v + 1).as_bytes()).expect("a valid name");
    v.map_or(Value::Absent, |v| Value::Oid(oid(v)))
}

impl World {
    fn new() -> World {
        let base = std::env::var_os("JIN_TEST_TMP").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::tempdir_in(base).expect("a directory can be made");
        fs::create_dir_all(dir.path().join("refs/heads")).expect("a directory can be made");
        let common = dir.path().to_owned();
        let repo = Repository { git_dir: common.clone(), common_dir: common, ref_format: RefFormat::Files };
        let (writers, touched) = ([Writer::Nobody; REFS], BTreeMap::new());
        World { dir, repo, log: Vec::new(), writers, touched, dead: Vec::new(), next_tx: 1, clock: 0 }
    }

    fn say(&mut self, tx: Option<u64>, body: Body) {
        let lsn = self.log.len() as u64 + 1;
        self.log.push(Record { lsn, tx: tx.map(TxId), time: 1, body });
    }

    fn value(&self, n: usize) -> Value {
        RefStore::new(&self.repo).read(&name(n)).expect("it can be read").value
    }

    fn path(&self, n: usize, suffix: &str) -> PathBuf {
        self.dir.path().join(format!("refs/heads/b{n}{suffix}"))
    }

    /// Times are apart, as they are where a disk is between two writers.
    fn make(&mut self, path: &PathBuf, content: &str) {
        self.clock += 1;
        let file = fs::File::create(path).expect("a file can be made");
        fs::write(path, content).expect("it can be written");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_000 + self.clock))
            .expect("its time can be set");
    }

    fn lock(&mut self, n: usize, to: &Value) -> FileId {
        let content = to.oid().map_or_else(String::new, |oid| format!("{oid}\n"));
        let lock = self.path(n, ".lock");
        self.make(&lock, &content);
        FileId::at(&lock).expect("it can be looked at").expect("it is there")
    }

    fn packed(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.dir.path().join("packed-refs")).unwrap_or_default();
        text.lines().filter_map(|l| l.split_once(' ')).map(|(v, n)| (n.to_owned(), v.to_owned())).collect()
    }

    fn write_packed(&mut self, entries: &BTreeMap<String, String>) {
        let text: String = entries.iter().map(|(name, value)| format!("{value} {name}\n")).collect();
        let path = self.dir.path().join("packed-refs");
        self.make(&path, &text);
    }

    /// The lock becomes the ref, or both go.
    fn put(&mut self, n: usize, to: &Value, writer: Writer) {
        if *to == Value::Absent {
            let mut packed = self.packed();
            if packed.remove(&name(n).to_string()).is_some() {
                self.write_packed(&packed);
            }
            fs::remove_file(self.path(n, "")).ok();
            fs::remove_file(self.path(n, ".lock")).expect("it was locked");
        } else {
            fs::rename(self.path(n, ".lock"), self.path(n, "")).expect("it was locked");
        }
        self.writers[n] = writer;
        for (tx, touched) in &mut self.touched {
            if writer != Writer::Transaction(*tx) && writer != Writer::Recovery {
                touched.insert(n);
            }
        }
    }

    fn is_locked(&self, n: usize) -> bool {
        self.dead.iter().any(|dead| dead.locked.contains(&n))
    }

    fn logged(&mut self, changes: &BTreeMap<usize, Option<usize>>, cut: Option<usize>) {
        let wanted = changes.iter().map(|(n, v)| (*n, value(*v)));
        let changes: Vec<(usize, Value)> = wanted.filter(|(n, to)| self.value(*n) != *to).collect();
        // git refuses what is locked, and then nothing happens.
        if changes.is_empty() || changes.iter().any(|(n, _)| self.is_locked(*n)) {
            return;
        }
        let id = self.next_tx;
        self.next_tx += 1;
        let mut refs = Vec::new();
        for (n, to) in &changes {
            let seen = RefStore::new(&self.repo).read(&name(*n)).expect("it can be read");
            let lock = Some(self.lock(*n, to));
            let (before, file) = (Some(seen.value), seen.loose);
            refs.push(RefChange { name: name(*n), before, after: to.clone(), file, lock, log: None });
        }
        let process = Process { pid: 1, start: 1 };
        let place = ExecContext { boot: "boot".into(), host: "host".into(), pidns: 1 };
        let begin = Begin { refs, ..Begin::new(TxKind::Hook, "git", Owner { process, place }, process) };
        self.say(Some(id), Body::Begin(Box::new(begin)));
        // Who means to write a ref on top of a dead transaction is in its way, whether or not it comes to that.
        self.touched.values_mut().for_each(|touched| touched.extend(changes.iter().map(|(n, _)| *n)));
        self.touched.insert(id, BTreeSet::new());
        // git makes all updates before its first deletion.
        let mut order = changes.clone();
        order.sort_by_key(|(_, to)| *to == Value::Absent);
        let until = cut.unwrap_or(usize::MAX).min(order.len());
        for (n, to) in &order[..until] {
            self.put(*n, to, Writer::Transaction(id));
        }
        if cut.is_none() {
            let refs = changes.iter().map(|(n, _)| self.settled(*n)).collect();
            self.say(Some(id), Body::Committed { refs });
            return;
        }
        let of = |part: &[(usize, Value)]| part.iter().map(|(n, _)| *n).collect::<BTreeSet<_>>();
        self.dead.push(Dead { id, locked: of(&order[until..]), wrote: of(&order[..until]), all: of(&order) });
    }

    fn settled(&self, n: usize) -> RefSnapshot {
        let seen = RefStore::new(&self.repo).read(&name(n)).expect("it can be read");
        RefSnapshot { name: name(n), value: seen.value, file: seen.loose }
    }

    fn pack(&mut self) {
        let loose: Vec<RefSnapshot> = (0..REFS).map(|n| self.settled(n)).filter(|s| s.file.is_some()).collect();
        let mut packed = self.packed();
        packed.extend(loose.iter().map(|s| (s.name.to_string(), s.value.to_string())));
        self.write_packed(&packed);
        // What is locked cannot be pruned.
        let free: Vec<usize> = (0..REFS).filter(|n| !self.is_locked(*n)).collect();
        let pruned: Vec<RefSnapshot> = free.iter().map(|n| self.settled(*n)).filter(|s| s.file.is_some()).collect();
        if !self.dead.is_empty() && !pruned.is_empty() {
            self.say(None, Body::Moved { refs: pruned });
        }
        free.iter().for_each(|n| drop(fs::remove_file(self.path(*n, ""))));
    }

    /// Recovers all that died, newest first; `false` when it was killed.
    fn recover(&mut self, mut cut: Option<usize>) -> Result<bool, TestCaseError> {
        while let Some(dead) = self.dead.last() {
            let id = dead.id;
            let history = History::new(&self.log);
            let (at, begin) = history.begin(TxId(id)).expect("it was logged");
            let git = Git::new("/nonexistent/git".as_ref());
            let witnesses = EvidenceSources { repo: &self.repo, git: &git, history: &history, expected: None };
            let evidence = witnesses.of_refs(TxId(id), at, begin).expect("the disk can be read");
            let (decision, writes) =
                (decide(&Evidence::Watched(&evidence)), decide::writes(&Evidence::Watched(&evidence)));
            let before: BTreeMap<String, Value> =
                begin.refs.iter().map(|c| (c.name.to_string(), c.before.clone().expect("it was read"))).collect();
            // The locks go first.
            for n in std::mem::take(&mut self.dead.last_mut().expect("it is there").locked) {
                fs::remove_file(self.path(n, ".lock")).expect("it left its lock");
            }
            // What was deleted comes back first, what was made goes last.
            let (missing, there): (Vec<_>, Vec<_>) = writes.iter().partition(|w| w.from == Value::Absent);
            let (updates, deletions): (Vec<_>, Vec<_>) = there.into_iter().partition(|w| w.to != Value::Absent);
            for write in [missing, updates, deletions].into_iter().flatten() {
                let n = (0..REFS).find(|n| name(*n) == write.name).expect("it is one of the refs");
                // What is not there has no author: who made it again and deleted it again has left nothing to know that by.
                let is_deleted_by_both =
                    write.from == Value::Absent && self.dead.last().is_some_and(|d| d.wrote.contains(&n));
                let is_its = self.writers[n] == Writer::Transaction(id) || is_deleted_by_both;
                prop_assert!(is_its, "only what it wrote itself is taken back, and {:?} wrote {}", self.writers[n], n);
                prop_assert_eq!(&self.value(n), &write.from, "from what is there");
                prop_assert_eq!(&write.to, &before[&write.name.to_string()], "to what was there before");
                if let Some(left) = &mut cut {
                    if *left == 0 {
                        return Ok(false);
                    }
                    *left -= 1;
                }
                self.lock(n, &write.to);
                self.put(n, &write.to, Writer::Recovery);
            }
            self.judge(decision)?;
            let outcome = match decision {
                Decision::RecordCommitted => Outcome::Committed,
                Decision::RollBack => Outcome::RolledBack,
                Decision::RecordOvertaken => Outcome::Acknowledged,
                Decision::AskHuman(_) => Outcome::NeedsHuman,
                other => return Err(TestCaseError::fail(format!("{other:?} about a transaction of git"))),
            };
            let is_word =
                |n: &usize| decision == Decision::RecordCommitted || writes.iter().any(|w| w.name == name(*n));
            let dead = self.dead.pop().expect("it is there");
            let refs = dead.all.iter().filter(|n| is_word(n)).map(|n| self.settled(*n)).collect();
            self.say(Some(id), Body::Recovered { outcome, actions: Vec::new(), refs });
        }
        Ok(true)
    }

    /// What the model, which knows everything, says of the decision on the newest dead transaction.
    fn judge(&self, decision: Decision) -> Result<(), TestCaseError> {
        let Dead { id, wrote, all, .. } = self.dead.last().expect("it is there");
        let is_its = |n: &usize| self.writers[*n] == Writer::Transaction(*id);
        let others = self.touched.get(id).is_some_and(|touched| !touched.is_disjoint(all));
        match decision {
            // Where a logged transaction went on from the value that it wanted it counts as applied, whoever wrote that.
            Decision::RecordCommitted => {
                let none = BTreeSet::new();
                let touched = self.touched.get(id).unwrap_or(&none);
                let lacks: Vec<_> = all.iter().filter(|n| !wrote.contains(n) && !touched.contains(n)).collect();
                prop_assert!(lacks.is_empty(), "tx-{} counts as whole, and {:?} were never written", id, lacks);
            }
            Decision::RollBack => {
                let left: Vec<_> = all.iter().filter(|n| is_its(n)).collect();
                prop_assert!(left.is_empty(), "tx-{} counts as taken back, and {:?} are still its own", id, left);
            }
            Decision::RecordOvertaken => prop_assert!(all.len() == 1 && others, "tx-{} was overtaken by nobody", id),
            Decision::AskHuman(_) => prop_assert!(others, "tx-{} is left to a human, and nobody interfered", id),
            other => prop_assert!(false, "{:?} about a transaction of git", other),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn recovery_agrees_with_a_model_that_knows_everything(steps in steps()) {
        lives(&steps)?;
    }
}

/// A repository in which all that happens, and a last recovery.
fn lives(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::new();
    for step in steps {
        match step {
            Step::Logged { changes, cut } => world.logged(changes, *cut),
            Step::Unseen { name, to } => {
                let to = value(*to);
                if !world.is_locked(*name) && world.value(*name) != to {
                    world.lock(*name, &to);
                    world.put(*name, &to, Writer::Somebody);
                }
            }
            Step::Pack => world.pack(),
            Step::Recover { cut } => drop(world.recover(*cut)?),
        }
    }
    prop_assert!(world.recover(None)?, "nobody kills the last one");
    let before: Vec<Value> = (0..REFS).map(|n| world.value(n)).collect();
    prop_assert!(world.recover(None)?);
    prop_assert_eq!(before, (0..REFS).map(|n| world.value(n)).collect::<Vec<_>>(), "twice is once");
    Ok(())
}

#[test]
fn a_value_that_somebody_packed_stays_theirs_although_the_dead_transaction_had_it_packed_before() {
    let torn = Step::Logged { changes: BTreeMap::from([(0, Some(0)), (1, Some(0))]), cut: Some(1) };
    let [away, back] = [1, 0].map(|to| Step::Unseen { name: 0, to: Some(to) });
    lives(&[torn, Step::Pack, away, back, Step::Pack]).expect("it is not taken back");
}

#[test]
fn a_transaction_and_its_recovery_that_are_cut_at_each_of_their_writes_end_as_the_model_says() {
    let kinds = [None, Some([None, Some(0)]), Some([Some(0), Some(1)]), Some([Some(0), None])];
    for (case, cuts) in (0..64).flat_map(|case| (0..16).map(move |cuts| (case, cuts))) {
        let changes: Vec<_> = (0..3).filter_map(|n| Some((n, kinds[(case >> (2 * n)) % 4]?))).collect();
        let (first, second) = (cuts / 4, cuts % 4);
        if first > changes.len() || second > first {
            continue;
        }
        let mut world = World::new();
        let there = changes.iter().filter(|(_, [from, _])| from.is_some()).map(|(n, [from, _])| (*n, *from)).collect();
        world.logged(&there, None);
        world.logged(&changes.iter().map(|(n, [_, to])| (*n, *to)).collect(), Some(first));
        let ended = world.recover(Some(second)).and_then(|_| world.recover(None));
        assert!(ended.is_ok_and(|ended| ended), "{changes:?} cut at {first}, recovery at {second}");
    }
}

/// `JIN_CASES`: how many histories are tried.
fn cases() -> u32 {
    std::env::var("JIN_CASES").map_or(1000, |text| text.parse().expect("JIN_CASES is a number"))
}
