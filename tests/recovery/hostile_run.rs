//! A dead run whose snapshot, copies or marker somebody changed: nothing outside of the repository is read or written, and
//! nothing of it is lost.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::hostile_repository::parts;
use crate::support::crash::{git, jin};
use crate::support::hanging::Case;
use crate::support::hostile::{killed_run, outside, replace, run, tx_of_run, victims};
use crate::support::observe::{assert_same, shown, tree};
use crate::support::repo::Repo;

#[test]
fn a_killed_run_goes_back_when_nobody_interferes() {
    let repo = killed_run();
    let output = run(jin(&repo, &["recover"]), "recover");
    assert_eq!(output.status.code(), Some(0), "{}", shown(&repo, &output));
    assert_eq!(fs::read_to_string(repo.path().join("file")).expect("it is there"), "one\n");
    assert!(!repo.path().join("new").exists() && repo.try_git(["rev-parse", "by-the-run"]).status.code() != Some(0));
}

#[test]
fn a_snapshot_that_names_other_places_is_refused_or_stays_inside() {
    type Change = fn(&mut Value, &Repo);
    fn kept(path: &str) -> Value {
        json!({ "path": path, "content": { "file": { "mode": 0o755, "copy": 1 } } })
    }
    let changes: [(&str, Change); 12] = [
        ("a path above", |s, _| s["files"] = json!([kept("../victim")])),
        ("an absolute path", |s, repo| {
            s["files"] = json!([kept(&repo.scratch().join("victim").display().to_string())]);
        }),
        ("a hook of git", |s, _| s["files"] = json!([kept(".git/hooks/pre-commit")])),
        ("a hook of git, spelt otherwise", |s, _| s["files"] = json!([kept(".GIT/hooks/pre-commit")])),
        ("a hook by the files of the git directory", |s, _| s["own"] = json!([kept("hooks/pre-commit")])),
        ("a path through a link", |s, _| s["files"] = json!([kept("way/victim")])),
        ("a path that the snapshot itself makes a link", |s, repo| {
            let target = repo.scratch().display().to_string();
            let link = json!({ "path": "door", "content": { "link": { "target": target } } });
            s["files"] = json!([link, kept("door/victim")]);
        }),
        ("an escaped path", |s, _| s["files"] = json!([kept("\\x2e\\x2e/victim")])),
        ("another worktree", |s, repo| s["worktree"] = json!(repo.scratch().display().to_string())),
        ("another worktree with its inode", |s, repo| {
            s["worktree"] = json!(repo.scratch().display().to_string());
            s["root"] = json!(fs::metadata(repo.scratch()).expect("it is there").ino());
            s["files"] = json!([kept("victim")]);
        }),
        ("a linked worktree above", |s, _| s["linked"] = json!(["../../..", "/etc"])),
        (
            "a huge number",
            |s, _| s["files"] = json!([{ "path": "file", "content": { "file": { "mode": 4294967295_u32, "copy": 18446744073709551615_u64 } } }]),
        ),
    ];
    for (what, change) in changes {
        let repo = killed_run();
        victims(&repo);
        symlink("..", repo.path().join("way")).expect("a link can be made");
        let tx = tx_of_run(&repo);
        fs::write(tx.join("copies/1"), "#!/bin/sh\ntouch sprung\n").expect("it can be written");
        let path = tx.join("snapshot.json");
        let mut snapshot: Value = serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("it is JSON");
        change(&mut snapshot, &repo);
        // Who can write the log as well makes it fit: what is named has to lead nowhere all the same.
        seal(&repo, &tx, snapshot);
        let before = outside(&repo);
        let hooks = tree(&repo.git_dir().join("hooks"));
        let id = tx.file_name().and_then(|n| n.to_str()).expect("a transaction").to_owned();
        for arguments in [&["recover"][..], &["recover", "--take-back", &id]] {
            run(jin(&repo, arguments), what);
        }
        assert_same(&before, &outside(&repo), what);
        assert_same(&hooks, &tree(&repo.git_dir().join("hooks")), what);
        run(git(&repo, &["commit", "-q", "--allow-empty", "-m", "next"]), what);
        assert!(!repo.path().join("sprung").exists(), "{what}: nothing of it was executed");
    }
}

/// Writes a snapshot with a record that names it, and copies that are those which it names.
fn seal(repo: &Repo, tx: &Path, mut snapshot: Value) {
    use sha2::Digest;
    for list in ["files", "own", "shared"] {
        for kept in snapshot[list].as_array_mut().into_iter().flatten() {
            let Some(copy) = kept["content"]["file"]["copy"].as_u64() else { continue };
            let Ok(found) = fs::metadata(tx.join("copies").join(copy.to_string())) else { continue };
            let modified = found.mtime() * 1_000_000_000 + found.mtime_nsec();
            kept["content"]["file"]["identity"] = json!([found.ino(), found.len(), modified, 0]);
        }
    }
    // The index is the first copy.
    snapshot["index"] = json!(null);
    let text = snapshot.to_string();
    let sum: String = sha2::Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(tx.join("snapshot.json"), text).expect("it can be written");
    let path = parts(repo).pop().expect("there is a segment");
    let log = fs::read_to_string(&path).expect("the log is text");
    let sealed = log.lines().map(|line| {
        let mut record: Value = serde_json::from_str(&line[9..]).expect("a record is JSON");
        if record["data"]["snapshot"].is_null() {
            return format!("{line}\n");
        }
        record["data"]["snapshot"]["sha256"] = json!(sum);
        let json = record.to_string();
        format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
    });
    fs::write(&path, sealed.collect::<String>()).expect("it can be written");
}

#[test]
fn a_copy_of_a_run_that_is_a_link_brings_nothing_in_from_outside() {
    let repo = killed_run();
    victims(&repo);
    let copies = tx_of_run(&repo).join("copies");
    let copies = fs::read_dir(copies).expect("it has copies").flatten().map(|copy| copy.path());
    let is_mine = |copy: &PathBuf| fs::read(copy).is_ok_and(|content| content == b"mine\n");
    let mine = copies.into_iter().find(is_mine).expect("the untracked file is kept");
    replace(&mine, |path| symlink(repo.scratch().join("victim"), path).expect("a link can be made"));
    fs::write(repo.path().join("untracked"), "changed\n").expect("it can be written");
    run(jin(&repo, &["recover"]), "recover");
    let inside = tree(repo.path())
        .into_values()
        .filter(|(mode, content)| mode & 0o170_000 == 0o100_000 && content == b"precious\n");
    assert_eq!(inside.count(), 0, "nothing from outside has come in");
}

#[test]
fn a_marker_of_a_run_that_is_damaged_does_not_cost_its_snapshot() {
    for (what, from, to) in [
        ("its origin is gone", "\"origin\":\"run\"", "\"nrigin\":\"run\""),
        ("it is no JSON", "{", "["),
        ("it is another process", "\"pid\":", "\"pid\":1"),
        ("it is of another time", "\"timestamp\":1", "\"timestamp\":9"),
        ("it is of another boot", "\"boot\":\"", "\"boot\":\"0"),
    ] {
        let repo = killed_run();
        let marker =
            crate::support::snapshot::walk(&repo.git_dir().join(".jin"), &|dir| dir.ends_with(Path::new(".jin")));
        let marker = marker.into_iter().find(|p| p.display().to_string().contains(".transaction_")).expect("a marker");
        let content = fs::read_to_string(&marker).expect("it can be read");
        fs::write(&marker, content.replacen(from, to, 1)).expect("it can be written");
        assert_ne!(content, fs::read_to_string(&marker).expect("it can be read"), "{what}");
        let output = run(jin(&repo, &["recover"]), what);
        let file = fs::read_to_string(repo.path().join("file")).expect("it is there");
        let tag = repo.try_git(["rev-parse", "-q", "--verify", "by-the-run"]).status.success();
        let went_back = file == "one\n" && !tag;
        let waits = file == "changed\n" && tag && output.status.code() != Some(0) && tx_of_run(&repo).exists();
        assert!(went_back || waits, "{what}: neither back nor waiting: {file:?} {tag} {}", shown(&repo, &output));
    }
}

#[test]
fn a_run_of_another_kind_of_transaction_is_not_believed() {
    // A live transaction of git, which is no run: a forged variable makes nothing a part of it.
    let case = Case::new();
    let hanging = case.hang();
    let ino = fs::metadata(case.repo.git_dir().join(".jin")).expect("it is there").ino();
    let id = case.repo.logged()[0].split(' ').next().expect("an id").to_owned();
    let mut command = git(&case.repo, &["update-ref", "refs/tags/t", "HEAD"]);
    command.env("JIN_TXN_RUN", format!("{id}@{ino}"));
    assert!(run(command, "JIN_TXN_RUN").status.success());
    let newest = case.repo.logged()[0].split(' ').next().expect("an id").to_owned();
    let told: Value = serde_json::from_slice(&case.repo.jin_txn(["show", &newest, "--json"]).stdout).expect("JSON");
    assert!(told["begin"].get("part_of").is_none(), "it is part of nothing: {told:#}");
    hanging.let_go();
}
