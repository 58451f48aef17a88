//! Damaged and hostile logs, markers and names: nothing outside is touched, nothing raw is printed, never a panic.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::support::observe::{COMMANDS, Tree, assert_same, calm, is_raw, look_and_recover, shown, tree};
use crate::support::repo::{Options, Repo, text};
use serde_json::{Value, json};

/// Changes the data of a record.
type ChangeData<'a> = &'a dyn Fn(&mut Value);

/// Changes a record and a marker.
type Change<'a> = &'a dyn Fn(&mut Value, &mut Value);

fn protected() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    repo.commit_all("two");
    repo
}

fn segment(repo: &Repo) -> PathBuf {
    let mut segments = fs::read_dir(repo.git_dir().join(".jin/wal")).expect("there is a log").flatten();
    segments.next().expect("with a segment").path()
}

fn records(repo: &Repo) -> Vec<Value> {
    let log = fs::read_to_string(segment(repo)).expect("the log is text");
    log.lines().map(|line| serde_json::from_str(&line[9..]).expect("a record is JSON")).collect()
}

/// Appends a record with a correct checksum.
fn forge(repo: &Repo, record: &Value) {
    let json = record.to_string();
    let line = format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()));
    let mut log = OpenOptions::new().append(true).open(segment(repo)).expect("the log can be opened");
    log.write_all(line.as_bytes()).expect("the log can be written");
}

/// A genuine `begin` under a new id, with something changed, and the marker of its dead owner.
fn forge_transaction(repo: &Repo, id: &str, change: impl FnOnce(&mut Value, &mut Value)) {
    let genuine = records(repo).into_iter().find(|record| record["type"] == "begin");
    let mut begin = genuine.expect("the log has a begin");
    begin["tx"] = json!(id);
    begin["lsn"] = json!(1000);
    let mut marker = json!({
        "id": id, "timestamp": begin["time"], "operation": begin["data"]["operation"], "phase": "prepared",
        "payload": { "crc": 0, "len": 0, "count": 1 },
    });
    for field in ["pid", "start", "boot", "host", "pidns", "hook_process"] {
        marker[field] = begin["data"][field].clone();
    }
    change(&mut begin, &mut marker);
    forge(repo, &begin);
    let path = repo.git_dir().join(format!(".jin/.transaction_in_progress.{id}"));
    fs::write(path, marker.to_string()).expect("the marker can be written");
}

#[test]
fn a_marker_that_is_no_json_goes_to_quarantine() {
    for (name, content) in [
        ("tx-50", &b"not json \x1b[31m"[..]),
        ("tx-51", b""),
        ("tx-52", b"{\"id\":\"tx-1\"}"),
        ("tx-18446744073709551615", b"\xff\xfe"),
    ] {
        let repo = protected();
        let marker = repo.git_dir().join(".jin/.transaction_in_progress.").display().to_string() + name;
        fs::write(&marker, content).expect("a marker can be written");
        assert_eq!(repo.jin_txn(["check"]).status.code(), Some(3), "{name} is noticed");
        look_and_recover(&repo);
        assert!(!Path::new(&marker).exists(), "{name} is out of the way");
        let kept = tree(&repo.git_dir().join(".jin/quarantine")).into_values().any(|(_, kept)| kept == content);
        assert!(kept, "{name}: what it was is kept");
        assert_eq!(repo.jin_txn(["check"]).status.code(), Some(0), "{name} is dealt with");
        repo.commit_all("three");
    }
}

#[test]
fn a_marker_of_a_transaction_that_the_log_does_not_know_is_taken_away() {
    let repo = protected();
    let log = fs::read(segment(&repo)).expect("it can be read");
    forge_transaction(&repo, "tx-99", |_, _| {});
    fs::write(segment(&repo), log).expect("the log can be put back");
    let refs = tree(&repo.git_dir().join("refs"));
    look_and_recover(&repo);
    assert!(crate::support::invariants::judge_markers(&repo).is_none(), "the marker is gone");
    assert_same(&refs, &tree(&repo.git_dir().join("refs")), "nothing had begun, nothing changes");
    repo.commit_all("three");
}

#[test]
fn garbage_in_the_middle_of_the_log_is_reported_and_the_rest_is_read() {
    let repo = protected();
    let log = fs::read(segment(&repo)).expect("it can be read");
    let lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
    let damaged = [&lines[..2], &[&b"\x1b[31mgarbage\0\n"[..]], &lines[3..]].concat().concat();
    fs::write(segment(&repo), damaged).expect("it can be written");
    let listed = repo.jin_txn(["log"]);
    calm(&listed);
    insta::assert_snapshot!(shown(&repo, &listed), @"
    tx-2     [TIME]  committed       1 ref  git commit --quiet --allow-empty -m two
    tx-1     [TIME]  begun           1 ref  git commit --quiet --allow-empty -m one
    --- stderr
    warning: the log is damaged: [DIR]/repo/.git/.jin/wal/[ID].wal at byte [N]: the line is cut
    --- exit 0
    ");
    for command in ["status", "check"] {
        let output = repo.jin_txn([command]);
        assert_eq!(output.status.code(), Some(4), "{command} reports the damage: {}", shown(&repo, &output));
    }
    look_and_recover(&repo);
    repo.commit_all("three");
}

#[test]
fn garbage_at_the_end_of_the_log_is_cut_off_in_silence_and_kept() {
    let repo = protected();
    let torn = &b"0badc0de {\"v\":1,\"lsn\":9,\"ty"[..];
    let mut log = OpenOptions::new().append(true).open(segment(&repo)).expect("the log can be opened");
    log.write_all(torn).expect("the log can be written");
    assert_eq!(repo.jin_txn(["status"]).status.code(), Some(0), "a torn tail is what a crash leaves, no damage");
    let output = repo.git(["branch", "topic"]);
    assert!(output.stderr.is_empty(), "it is repaired in silence: {}", text(&output.stderr));
    let kept = tree(&repo.git_dir().join(".jin/quarantine")).into_values().any(|(_, kept)| kept == torn);
    assert!(kept, "the bytes are kept");
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["log"])), @"
    tx-3     [TIME]  committed       1 ref  git branch topic
    tx-2     [TIME]  committed       1 ref  git commit --quiet --allow-empty -m two
    tx-1     [TIME]  committed       1 ref  git commit --quiet --allow-empty -m one
    --- stderr
    --- exit 0
    ");
}

#[test]
fn a_log_that_names_files_outside_leads_nowhere() {
    let hostile: [(&str, ChangeData<'_>); 6] = [
        ("a ref above", &|data| data["refs"][0]["ref"] = json!("refs/../../victim")),
        ("a ref with an absolute path", &|data| data["refs"][0]["ref"] = json!("/etc/victim")),
        ("an escaped ref", &|data| data["refs"][0]["ref"] = json!("refs/\\x2e\\x2e/\\x2e\\x2e/victim")),
        ("a watched ref", &|data| data["watched"] = json!([{ "ref": "../victim", "log": 0 }])),
        ("a symref", &|data| data["refs"][0]["before"] = json!("ref: ../../victim")),
        ("a worktree", &|data| data["worktree"] = json!("worktrees/../../../home")),
    ];
    for (name, change) in hostile {
        let repo = protected();
        for victim in ["victim", "repo/victim", "repo/.git/victim"] {
            fs::write(repo.scratch().join(victim), "precious\n").expect("a file can be written");
        }
        let outside = || -> Tree {
            let all = tree(repo.scratch()).into_iter();
            all.filter(|(path, _)| !path.starts_with("repo/.git/.jin")).collect()
        };
        forge_transaction(&repo, "tx-99", |begin, _| change(&mut begin["data"]));
        forge(&repo, &json!({ "v": 1, "lsn": 1001, "time": 0, "type": "from-the-future", "data": {} }));
        let before = outside();
        look_and_recover(&repo);
        // A genuine after-image that is there counts as applied; git's own files may move, nobody else's.
        let (before, after) = (without_git(before), without_git(outside()));
        assert_same(&before, &after, name);
        repo.git(["fsck", "--full"]);
    }
}

fn without_git(tree: Tree) -> Tree {
    let theirs = |path: &Path| !path.starts_with("repo/.git") || path.ends_with("victim");
    tree.into_iter().filter(|(path, _)| theirs(path)).collect()
}

/// When this process was started, as its owner records have it.
fn my_start() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("it can be read");
    let fields = stat.rsplit(") ").next().expect("fields follow the name");
    fields.split(' ').nth(19).and_then(|field| field.parse().ok()).expect("field 22 is a number")
}

#[test]
fn nothing_from_the_log_or_a_marker_is_printed_raw() {
    let evil = "git \u{1b}]0;owned\u{7}\u{1b}[2J\r\u{9b}31m";
    let hostile: [(&str, Change<'_>); 5] = [
        ("a ref", &|begin, _| begin["data"]["refs"][0]["ref"] = json!(format!("refs/heads/{evil}"))),
        ("an operation", &|begin, _| begin["data"]["operation"] = json!(evil)),
        ("a host", &|begin, _| begin["data"]["host"] = json!(evil)),
        ("a type", &|begin, _| begin["type"] = json!(evil)),
        ("a live marker", &|_, marker| {
            marker["operation"] = json!(evil);
            marker["host"] = json!(evil);
            marker["pid"] = json!(std::process::id());
            marker["start"] = json!(my_start());
        }),
    ];
    let mut raw = Vec::new();
    let mut look = |repo: &Repo, name: &str| {
        let printed_raw = COMMANDS.iter().filter(|command| is_raw(&repo.jin_txn(**command)));
        raw.extend(printed_raw.map(|command| format!("{name} by `{}`", command.join(" "))));
    };
    for (name, change) in hostile {
        let repo = protected();
        forge_transaction(&repo, "tx-1", change);
        look(&repo, name);
    }
    let repo = protected();
    for (name, outcome, action) in [("an action", "rolled-back", evil), ("an outcome", evil, "")] {
        let data = json!({ "outcome": outcome, "actions": [action], "refs": [] });
        forge(&repo, &json!({ "v": 1, "lsn": 1000, "tx": "tx-1", "time": 0, "type": "recovered", "data": data }));
        forge(&repo, &json!({ "v": 1, "lsn": 1001, "time": 0, "type": "aborted", "data": {} }));
        look(&repo, name);
    }
    assert!(raw.is_empty(), "printed raw: {raw:#?}");
}

#[test]
fn the_name_of_a_stale_lock_is_not_printed_raw() {
    let repo = protected();
    let name = std::ffi::OsStr::from_bytes(b"evil\x1b[31m\xff.lock");
    fs::write(repo.git_dir().join("refs/heads").join(name), "").expect("a lock can be left");
    look_and_recover(&repo);
}
