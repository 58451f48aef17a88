//! A repository whose log has every kind of record, written by real commands, and one transaction that was killed half way.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use jin_txn::internals::StateDir;
use jin_txn::{FileId, Repository};
use serde_json::{Value, json};

use crate::support::hanging::{Case, Hanging};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Repo, text};
use crate::support::snapshot::{Refs, Snapshot, walk};

pub const KINDS: [&str; 10] = [
    "begin",
    "committed",
    "aborted",
    "moved",
    "recovered",
    "checkout",
    "baseline",
    "checkpoint",
    "decided",
    "from-the-future",
];

/// The template, and what recovery makes of it when nothing is damaged.
pub struct Scene {
    pub repo: Repo,
    /// As the killed git left it.
    pub torn: Refs,
    /// As it was before the killed git.
    pub whole: Refs,
}

impl Scene {
    pub fn new() -> Scene {
        let case = Case::new();
        fill(&case);
        let whole = Snapshot::of(&case.repo).refs;
        case.hang().kill();
        let_the_clock_tick(&case.repo.git_dir());
        let torn = Snapshot::of(&case.repo).refs;
        assert_ne!(whole, torn, "without a torn state this proves nothing");
        Scene { repo: case.repo, torn, whole }
    }

    /// The only segment.
    pub fn segment(repo: &Repo) -> PathBuf {
        let segments: Vec<PathBuf> = walk(&repo.git_dir().join(".jin/wal"), &|_| true).into_iter().collect();
        assert_eq!(segments.len(), 1, "one segment");
        segments[0].clone()
    }

    /// The marker of the killed transaction.
    pub fn marker(repo: &Repo) -> PathBuf {
        let entries = fs::read_dir(repo.git_dir().join(".jin")).expect("there is a state directory").flatten();
        let mut markers = entries.map(|e| e.path()).filter(|p| p.display().to_string().contains(".transaction_"));
        let marker = markers.next().expect("one transaction is unfinished");
        assert_eq!(markers.next(), None, "only one is");
        marker
    }

    /// A copy whose log and marker name the files of the copy, as if all had happened there.
    pub fn copy(&self) -> Repo {
        let copy = self.repo.copy();
        let ids = moved_identities(&self.repo.git_dir(), &copy.git_dir());
        let state = copy.git_dir().join(".jin");
        let birth = serde_json::to_value(state_dir(&copy).birth().expect("it can be looked at")).expect("it is JSON");
        let segment = Scene::segment(&copy);
        let log = fs::read_to_string(&segment).expect("the log is text");
        let line = |line: &str| {
            let mut record: Value = serde_json::from_str(&line[9..]).expect("a record is JSON");
            relocate(&mut record, &ids);
            if record["type"] == "checkpoint" {
                record["data"]["state_dir"] = birth.clone();
            }
            with_checksum(&record)
        };
        let log: String = log.lines().map(line).collect();
        fs::write(&segment, &log).expect("it can be written");
        let marker = Scene::marker(&copy);
        let mut content: Value = serde_json::from_slice(&fs::read(&marker).expect("it is there")).expect("it is JSON");
        relocate(&mut content, &ids);
        fs::write(&marker, content.to_string()).expect("it can be written");
        note_size(&state, log.len());
        copy
    }
}

/// Every kind of record, by real commands.
fn fill(case: &Case) {
    let Case { repo, old, new } = case;
    repo.write("file", "one\n");
    repo.commit_all("three");
    repo.git(["tag", "v1"]);
    repo.git(["switch", "-q", "-c", "topic"]);
    repo.commit_all("four");
    repo.git(["switch", "-q", "main"]);
    repo.git(["merge", "-q", "--no-edit", "topic"]);
    repo.git(["branch", "-D", "topic"]);
    let given_up = format!("start\ncreate refs/heads/never {new}\nprepare\nabort\n");
    repo.git_with_input(["update-ref", "--stdin"], &given_up);
    repo.git_with_input(["update-ref", "--stdin"], &format!("create refs/tags/a {old}\ncreate refs/tags/b {new}\n"));
    let apply = format!("create refs/tags/applied {new}\nwrite etc/app 100644 file absent\n");
    let applied = repo.run(crate::support::repo::jin_txn().as_os_str(), repo.path(), ["apply"], apply.as_bytes());
    assert!(applied.status.success(), "apply: {}", text(&applied.stderr));
    repo.jin(&["undo"]);
    repo.jin(&["run", "--", "git", "tag", "kept"]);
    let failed = repo.jin_txn(["run", "--", "sh", "-c", "git tag lost && exit 3"]);
    assert_eq!(failed.status.code(), Some(3), "the run fails: {}", text(&failed.stderr));
    // A pack-refs beside a transaction that is at work, which then dies.
    let hanging: Hanging = case.hang();
    repo.git(["pack-refs", "--all"]);
    hanging.kill();
    let_the_clock_tick(&repo.git_dir());
    repo.jin(&["recover"]);
    assert_eq!(case.values_by_git(), ["old"; 4], "the packed half is taken back, too");
    repo.git(["commit", "-q", "--allow-empty", "-m", "five"]);
    future(repo);
    repo.git(["tag", "last"]);
}

impl Case {
    fn values_by_git(&self) -> [&'static str; 4] {
        ["alpha", "beta", "gamma", "omega"].map(|branch| match self.repo.read(["rev-parse", branch]) {
            value if value == self.old => "old",
            value if value == self.new => "new",
            _ => "neither",
        })
    }
}

/// A record of a type that this version does not know, with the next number.
fn future(repo: &Repo) {
    let segment = Scene::segment(repo);
    let log = fs::read_to_string(&segment).expect("the log is text");
    let last: Value = serde_json::from_str(&log.lines().last().expect("a line")[9..]).expect("a record is JSON");
    let lsn = last["lsn"].as_u64().expect("a number") + 1;
    let record = json!({ "v": 1, "lsn": lsn, "time": last["time"], "type": "from-the-future", "data": {} });
    fs::write(&segment, log + &with_checksum(&record)).expect("it can be written");
}

/// A line of the log.
pub fn with_checksum(record: &Value) -> String {
    let json = record.to_string();
    format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
}

pub fn state_dir(repo: &Repo) -> StateDir {
    StateDir::of(&Repository::discover(repo.path()).expect("it is a repository"))
}

type Identity = (i64, i64, i64);

/// Identities of files of one git directory, with those of the same files in its copy.
fn moved_identities(from: &Path, to: &Path) -> HashMap<Identity, [i64; 4]> {
    let pairs = walk(from, &|_| true).into_iter().filter_map(|path| {
        let old: [i64; 4] = FileId::at(&path).ok()??.into();
        let new: [i64; 4] = FileId::at(&to.join(path.strip_prefix(from).ok()?)).ok()??.into();
        Some(((old[0], old[1], old[2]), new))
    });
    pairs.collect()
}

fn relocate(value: &mut Value, ids: &HashMap<Identity, [i64; 4]>) {
    match value {
        Value::Array(items) if items.len() == 4 && items.iter().all(Value::is_i64) => {
            let number = |n: usize| items[n].as_i64().expect("an integer");
            if let Some(new) = ids.get(&(number(0), number(1), number(2))) {
                *value = json!(new);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| relocate(item, ids)),
        Value::Object(fields) => fields.values_mut().for_each(|field| relocate(field, ids)),
        _ => {}
    }
}

/// The note about the end of the log, for a segment of another size.
fn note_size(state: &Path, size: usize) {
    let path = state.join("log-head");
    let note = fs::read_to_string(&path).expect("it is there");
    let mut words: Vec<String> = note.split_ascii_whitespace().map(str::to_owned).collect();
    words.pop();
    words[5] = format!("{size:020}");
    let text = words.join(" ");
    fs::write(path, format!("{text} {:08x}\n", crc32c::crc32c(text.as_bytes()))).expect("it can be written");
}

/// Kinds of records in a log, with how many there are.
pub fn kinds(log: &str) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for line in log.lines() {
        let record: Value = serde_json::from_str(&line[9..]).expect("a record is JSON");
        *kinds.entry(record["type"].as_str().expect("a type").to_owned()).or_default() += 1;
    }
    kinds
}
