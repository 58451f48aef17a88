//! A repository in which somebody forges what jin-txn reads, and commands that have to come to an end there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::crash::jin;
use super::observe::{Tree, calm, tree};
use super::repo::{Options, Repo, jin_txn, text};
use super::wait::{comes_true, wait_until};

pub fn protected() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.write("file", "one\n");
    repo.commit_all("one");
    repo.commit_all("two");
    repo
}

pub fn state(repo: &Repo) -> PathBuf {
    repo.git_dir().join(".jin")
}

/// Runs to the end, which has to come soon.
pub fn run(mut command: Command, what: &str) -> Output {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program starts");
    if !comes_true(|| child.try_wait().expect("it can be asked").is_some()) {
        child.kill().ok();
        panic!("{what}: it hangs");
    }
    let output = child.wait_with_output().expect("it can be waited for");
    calm(&output);
    output
}

/// As [`run`], with fewer addresses than one of the floods has bytes.
pub fn run_in_little_memory(repo: &Repo, arguments: &[&str], what: &str) -> Output {
    let mut limited = repo.command("/bin/sh".as_ref());
    limited.args(["-c", "ulimit -v 900000; exec \"$@\"", "sh"]).arg(jin_txn()).args(arguments);
    let output = run(limited, what);
    assert!(!text(&output.stderr).contains("memory"), "{what}: {}", text(&output.stderr));
    output
}

pub fn change_json(path: &Path, change: impl FnOnce(&mut Value)) {
    let bytes = fs::read(path).expect("it is there");
    let mut json: Value = serde_json::from_slice(&bytes).expect("it is JSON");
    change(&mut json);
    fs::write(path, json.to_string()).expect("it can be written");
}

/// What lies outside of the repository, in the scratch directory.
pub fn outside(repo: &Repo) -> Tree {
    tree(repo.scratch())
        .into_iter()
        .filter(|(path, _)| !path.starts_with("repo") && !path.starts_with("home"))
        .collect()
}

/// Files and directories outside, as a hostile link would like to reach them.
pub fn victims(repo: &Repo) -> (PathBuf, PathBuf) {
    let (file, dir) = (repo.scratch().join("victim"), repo.scratch().join("victims"));
    fs::write(&file, "precious\n").expect("a file can be made");
    fs::create_dir(&dir).expect("a directory can be made");
    fs::write(dir.join("00000000000000000001.wal"), "precious, too\n").expect("a file can be made");
    (file, dir)
}

pub fn replace(path: &Path, with: impl FnOnce(&Path)) {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).expect("it can be removed"),
        Ok(_) => fs::remove_file(path).expect("it can be removed"),
        Err(_) => {}
    }
    with(path);
}

/// A run that was killed: its runner first, then whatever is left of it.
pub fn killed_run() -> Repo {
    let repo = protected();
    repo.write("untracked", "mine\n");
    let script =
        "echo changed >file; echo changed >untracked; echo more >new; git tag by-the-run; kill -9 $PPID; exit 1";
    let mut child = jin(&repo, &["run", "--", "sh", "-c", script]).spawn().expect("the program starts");
    child.wait().expect("it can be waited for");
    // The shell outlives its runner by a moment.
    wait_until("the shell has ended", || repo.jin_txn(["check"]).status.code() != Some(5));
    repo
}

pub fn tx_of_run(repo: &Repo) -> PathBuf {
    let entries = fs::read_dir(state(repo).join("tx")).expect("it is there").flatten().map(|e| e.path());
    entries.filter(|path| path.join("snapshot.json").exists()).min().expect("a run has a snapshot")
}
