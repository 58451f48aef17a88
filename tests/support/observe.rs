//! What a person sees of a run, and what a run changed on disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::repo::{Git, Repo, jin_txn, text};

/// Stdout, stderr and exit code, with paths, object ids, pids and times named.
pub fn shown(repo: &Repo, output: &Output) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let named = |bytes: &[u8]| {
        let text = text(bytes).replace(&jin_txn().display().to_string(), "[BIN]");
        let text = text.replace(&Git::under_test().program.display().to_string(), "[GIT]");
        let text = text.replace(&repo.scratch().display().to_string(), "[DIR]");
        name_what_varies(&text.replace(&format!(" on {host}\n"), " on [HOST]\n"))
    };
    let code = output.status.code().map_or_else(|| output.status.to_string(), |code| code.to_string());
    format!("{}--- stderr\n{}--- exit {code}", named(&output.stdout), named(&output.stderr))
}

fn name_what_varies(text: &str) -> String {
    let is_time = |rest: &str| {
        let shape: String = rest.chars().take(20).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        shape == "0000-00-00 00:00:00Z"
    };
    let (mut named, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let letters = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(letters.max(first.len_utf8()));
        let is_hex = word.len() >= 10 && word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let is_number = word.bytes().all(|b| b.is_ascii_digit());
        (named, rest) = match word {
            _ if is_time(rest) => (named + "[TIME]", &rest[20..]),
            _ if is_hex => (named + "[ID]", after),
            _ if is_number && named.ends_with("pid ") => (named + "[PID]", after),
            _ if is_number && named.ends_with("at byte ") => (named + "[N]", after),
            _ => (named + word, after),
        };
    }
    named
}

/// Everything below a directory: by name, the mode with the content, the target or the length.
pub type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// Reads a tree without following links.
pub fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let content = if metadata.is_dir() {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            Vec::new()
        } else if metadata.is_symlink() {
            fs::read_link(&path).map(|target| target.into_os_string().into_encoded_bytes()).unwrap_or_default()
        } else if metadata.is_file() {
            fs::read(&path).unwrap_or_default()
        } else {
            Vec::new()
        };
        let name = path.strip_prefix(root).expect("it lies below the root").to_owned();
        tree.insert(name, (metadata.mode(), content));
    }
    tree
}

/// When the files and links below a directory were last modified, by name.
pub fn times(root: &Path) -> BTreeMap<PathBuf, (i64, i64)> {
    let modified = |name: &PathBuf| {
        let metadata = fs::symlink_metadata(root.join(name)).expect("it is there");
        (metadata.mtime(), metadata.mtime_nsec())
    };
    tree(root).into_keys().map(|name| (name.clone(), modified(&name))).collect()
}

/// Gives everything below a directory a time long ago, so that what is written again shows.
pub fn age(directory: &Path) {
    let touch = ["-exec", "touch", "-h", "-d", "2001-02-03 04:05:06.7", "{}", "+"];
    let status = Command::new("find").arg(directory).args(touch).status();
    assert!(status.is_ok_and(|status| status.success()), "times can be set");
}

/// Asserts that two trees are the same byte for byte, and names what is not.
///
/// # Panics
/// When they differ.
#[track_caller]
pub fn assert_same(before: &Tree, after: &Tree, reason: &str) {
    let names = before.keys().chain(after.keys());
    let changed: Vec<_> = names.filter(|name| before.get(*name) != after.get(*name)).collect();
    assert!(changed.is_empty(), "{reason}: {changed:?}");
}

/// Every command that looks, and then recovery.
pub const COMMANDS: [&[&str]; 6] =
    [&["status"], &["check"], &["log"], &["show", "tx-1"], &["recover", "--dry-run"], &["recover"]];

/// Asserts what holds for every answer: no panic, and nothing that speaks to a terminal.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn calm(output: &Output) {
    let said = [&output.stdout[..], &output.stderr].concat();
    assert!(!text(&said).contains("panicked"), "it panicked: {}", text(&said));
    assert!(!is_raw(output), "a control character is printed raw: {}", said.escape_ascii());
    assert!(output.status.code().is_some(), "it was killed: {}", output.status);
}

/// Does it hold a character that a terminal acts upon?
pub fn is_raw(output: &Output) -> bool {
    let said = [&output.stdout[..], &output.stderr].concat();
    text(&said).chars().any(|c| c.is_control() && c != '\n' && c != '\t')
}

/// Runs all commands that look, and then recovery; all must be calm.
///
/// # Panics
/// When one is not.
#[track_caller]
pub fn look_and_recover(repo: &Repo) {
    for arguments in COMMANDS {
        calm(&repo.jin_txn(arguments));
    }
}
