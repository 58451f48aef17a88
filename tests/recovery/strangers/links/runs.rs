//! A run where a part of the git directory is a link.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::{protected, run};
use crate::support::crash::assert_fsck;
use crate::support::observe::shown;
use crate::support::repo::{Repo, jin_txn};

#[test]
fn a_failed_run_with_a_gc_goes_back_where_objects_lie_on_another_disk() {
    // Another file system if there is one; else another directory.
    let disks = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    for disk in disks {
        let repo = protected();
        repo.git(["checkout", "-q", "-b", "topic"]);
        repo.write("file", "only there\n");
        repo.commit_all("only there");
        repo.git(["checkout", "-q", "main"]);
        let elsewhere = tempfile::tempdir_in(disk).expect("it can be made");
        let objects = repo.git_dir().join("objects");
        move_dir(&objects, &elsewhere.path().join("objects"));
        symlink(elsewhere.path().join("objects"), &objects).expect("a link can be made");
        let script = "git commit -q --allow-empty -m gone; git branch -D topic; git reflog expire --expire=now --all;
            git gc -q --prune=now; exit 9";
        let output = run(&repo, &jin_txn(), &["run", "--", "sh", "-c", script], "", "run");
        assert_eq!(output.status.code(), Some(9), "{}", shown(&repo, &output));
        repo.git(["rev-parse", "topic"]);
        assert_fsck(&repo);
        repo.commit_all("and nothing is refused");
    }
}

fn move_dir(from: &std::path::Path, to: &std::path::Path) {
    let moved = std::process::Command::new("mv").args([from, to]).status();
    assert!(moved.is_ok_and(|status| status.success()), "it can be moved");
}

#[test]
fn a_run_keeps_nothing_that_lies_behind_a_link_in_the_git_directory() {
    let repo: Repo = protected();
    let elsewhere = repo.scratch().join("elsewhere");
    fs::create_dir_all(elsewhere.join(".git")).expect("it can be made");
    fs::write(elsewhere.join(".git/x"), "not ours\n").expect("it can be written");
    for name in ["rebase-apply", "sequencer"] {
        symlink(&elsewhere, repo.git_dir().join(name)).expect("a link can be made");
    }
    let output = run(&repo, &jin_txn(), &["run", "--", "git", "tag", "x"], "", "run");
    assert_eq!(output.status.code(), Some(0), "{}", shown(&repo, &output));
    let output = run(&repo, &jin_txn(), &["run", "--", "sh", "-c", "git tag -d x; exit 9"], "", "run");
    assert_eq!(output.status.code(), Some(9), "{}", shown(&repo, &output));
    assert_eq!(fs::read_to_string(elsewhere.join(".git/x")).expect("it is there"), "not ours\n");
}
