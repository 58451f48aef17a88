//! What hooks keep of the moment before an operation, so that it can be undone.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::support::crash::{run_jin, transactions, wal};
use crate::support::repo::{Options, Repo};

fn guarded() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.do_not_wait_for_locks();
    repo.write("file", "one\n");
    repo.commit_all("one");
    repo.write("file", "two\n");
    repo.commit_all("two");
    repo
}

/// A merge of `topic`, which conflicts in `file`, has stopped.
fn stopped_merge(repo: &Repo) {
    repo.git(["switch", "-q", "-c", "topic", "HEAD~1"]);
    repo.write("file", "topic\n");
    repo.commit_all("topic");
    repo.git(["switch", "-q", "main"]);
    assert!(!repo.try_git(["merge", "-q", "topic"]).status.success(), "it conflicts");
}

/// Where the files of the operation are kept that ran `command` last.
fn kept_of(repo: &Repo, command: &str) -> std::path::PathBuf {
    let ran = |t: &&serde_json::Value| t["operation"].as_str().is_some_and(|o| o.starts_with(command));
    let all = transactions(repo);
    let ids: Vec<String> = all.iter().filter(ran).map(|t| t["id"].as_str().expect("an id").to_owned()).collect();
    // What holds index.lock has its marker, and its files beside it, until its git is known to have ended.
    let places = ["kept", "tx"].map(|name| repo.git_dir().join(".jin").join(name));
    let entries = places.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
    let is_of = |name: &str| ids.iter().any(|id| name == id || name.ends_with(&format!("-{id}")));
    let found = entries.filter(|e| is_of(&e.file_name().to_string_lossy())).map(|e| e.path());
    // The others have second names of the index, which recovery may want.
    let is_for_undo = |path: &std::path::PathBuf| {
        let names = fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.file_name());
        names.into_iter().any(|name| name != "index" && name != "index.replaced")
    };
    found.into_iter().find(is_for_undo).unwrap_or_else(|| panic!("nothing is kept of {command}"))
}

#[test]
fn the_commit_that_concludes_a_merge_keeps_the_state_files_that_git_removes() {
    let repo = guarded();
    stopped_merge(&repo);
    let head = fs::read(repo.git_dir().join("MERGE_HEAD")).expect("the merge has stopped");
    repo.write("file", "both\n");
    repo.git(["commit", "-q", "-a", "-m", "merged"]);
    assert!(!repo.git_dir().join("MERGE_HEAD").exists());
    let kept = kept_of(&repo, "git commit -q -a -m merged");
    assert_eq!(fs::read(kept.join("state/MERGE_HEAD")).expect("it is kept"), head);
    assert!(kept.join("state/MERGE_MSG").exists());
    let (_, said) = run_jin(&repo, &["-v", "show", transactions(&repo)[0]["id"].as_str().unwrap_or_default()]);
    assert!(said.contains("kept       the state files of what was in progress"), "{said}");
}

#[test]
fn the_index_before_a_commit_is_kept_with_what_was_staged_and_a_switch_keeps_the_one_before_it() {
    let repo = guarded();
    repo.write("staged", "staged\n");
    repo.git(["add", "staged"]);
    let inode = |path: &std::path::Path| fs::metadata(path).expect("it is there").ino();
    let before = inode(&repo.git_dir().join("index"));
    crate::support::point::let_the_clock_tick(&repo.git_dir());
    repo.write("file", "three\n");
    repo.git(["commit", "-q", "-m", "three", "-a"]);
    let kept = kept_of(&repo, "git commit -q -m three");
    let found: Vec<u64> = ["index.before", "index.replaced"].map(|n| kept.join(n)).iter().map(|p| inode(p)).collect();
    assert_eq!(found, [before, before]);
    let before = inode(&repo.git_dir().join("index"));
    assert_eq!(inode(&repo.git_dir().join(".jin/last.index")), before, "the commit has renewed the standing name");
    repo.git(["switch", "-q", "-c", "topic", "HEAD~1"]);
    assert_ne!(inode(&repo.git_dir().join("index")), before, "git has replaced it");
    let kept = kept_of(&repo, "git switch");
    assert_eq!(inode(&kept.join("index.last")), before);
}

#[test]
fn the_configuration_of_a_deleted_branch_and_its_log_are_kept() {
    let repo = guarded();
    for branch in ["one", "other"] {
        repo.git(["branch", branch]);
        repo.git(["config", &format!("branch.{branch}.description"), branch]);
    }
    let log = fs::read(repo.git_dir().join("logs/refs/heads/one")).expect("it has a log");
    repo.git(["branch", "-q", "-D", "one"]);
    let kept = kept_of(&repo, "git branch -q -D one");
    let sections = fs::read_to_string(kept.join("config.sections")).expect("it is kept");
    let sections = sections.split_once('\n').expect("where it stood is told first").1;
    assert_eq!(sections, "[branch \"one\"]\n\tdescription = one\n");
    let logs = fs::read_dir(&kept).expect("it is kept").flatten().map(|e| fs::read(e.path()).unwrap_or_default());
    assert!(logs.into_iter().any(|kept| kept == log), "the log is kept");
}

#[test]
fn a_rebase_of_many_commits_keeps_one_index_and_a_branch_keeps_nothing() {
    let repo = guarded();
    repo.git(["switch", "-q", "-c", "topic", "HEAD~1"]);
    for name in ["a", "b", "c", "d"] {
        repo.write(name, name);
        repo.commit_all(name);
    }
    repo.git(["rebase", "-q", "main"]);
    repo.git(["branch", "plain"]);
    repo.git(["tag", "plain"]);
    let kept = |command: &str| {
        let names: Vec<_> = fs::read_dir(repo.git_dir().join(".jin/kept")).expect("it is there").flatten().collect();
        let all = transactions(&repo);
        let ran = all.iter().filter(|t| t["operation"].as_str().is_some_and(|o| o.starts_with(command)));
        let is_kept = |id: &str| names.iter().any(|e| e.file_name().to_string_lossy().ends_with(&format!("-{id}")));
        ran.filter(|t| is_kept(t["id"].as_str().expect("an id"))).count()
    };
    assert_eq!((kept("git rebase"), kept("git switch")), (1, 1));
    assert_eq!((kept("git branch"), kept("git tag")), (0, 0));
}

#[test]
fn what_moves_no_ref_is_an_operation_that_is_not_passed_over() {
    let repo = guarded();
    let refused = |command: &[&str]| {
        repo.git(["tag", "-f", "older"]);
        repo.write("file", "changed\n");
        repo.git(command);
        let (code, said) = run_jin(&repo, &["undo"]);
        assert_eq!(code, 1, "{command:?}: {said}");
        assert!(said.contains(&format!("(`git {}", command[0])), "{command:?}: it is the newest: {said}");
        assert_ne!(crate::support::crash::value(&repo, "older"), "", "{command:?}: {said}");
    };
    refused(&["checkout", "-q", "--", "file"]);
    refused(&["restore", "file"]);
    refused(&["reset", "-q", "--hard"]);
    let unmoved = wal(&repo).iter().filter(|r| r["type"] == "checkout" && r["data"]["branch"] == false).count();
    assert_eq!(unmoved, 3);
    // Nothing happens when HEAD is there already.
    repo.git(["tag", "newest"]);
    repo.git(["checkout", "-q", "main"]);
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("git tag newest"), "{said}");
}
