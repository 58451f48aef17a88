//! Repairs of what is no ref: objects, index, reflogs, locks, the configuration.

use std::fs;

use insta::assert_snapshot;

use super::{MAIN, assert_settled, guarded, jin_after_reboot, object_file, overwrite, quarantined};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, text};
use crate::support::snapshot::Snapshot;

#[test]
fn a_corrupt_object_that_no_ref_needs_goes_and_can_be_written_again() {
    let repo = guarded();
    let write =
        || text(&repo.git_with_input(["hash-object", "-w", "--stdin"], "some content\n").stdout).trim().to_owned();
    let blob = write();
    overwrite(&object_file(&repo, &blob), b"");
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @r"
    --- stderr
    jin-txn: moved 1 corrupt object to quarantine
    --- exit 0
    ");
    assert!(!object_file(&repo, &blob).exists());
    assert_eq!(write(), blob);
    assert!(object_file(&repo, &blob).exists(), "the same object can be written again");
    assert_settled(&repo);
}

#[test]
fn an_unreadable_index_is_rebuilt() {
    let repo = guarded();
    let before = Snapshot::of(&repo);
    overwrite(&repo.git_dir().join("index"), &[0; 104]);
    assert!(!repo.try_git(["status"]).status.success(), "git cannot read it");
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @r"
    --- stderr
    jin-txn: rebuilt index from HEAD: it was unreadable; nothing in the worktree was touched
    --- exit 0
    ");
    assert_eq!(Snapshot::of(&repo).index, before.index);
    assert_eq!(Snapshot::of(&repo).worktree, before.worktree);
    assert_settled(&repo);
}

#[test]
fn an_index_that_is_rebuilt_keeps_out_of_the_worktree_what_a_sparse_checkout_keeps_out() {
    for rules in [&["--cone", "in"][..], &["--no-cone", "/*", "!/out/", "/out/but/"]] {
        let repo = guarded();
        for name in ["in/file", "out/file", "out/but/file", "top"] {
            repo.write(name, "x\n");
        }
        repo.commit_all("directories");
        repo.git([&["sparse-checkout", "set"], rules].concat());
        if Git::under_test().is_at_least(2, 41) {
            // Deleted, not kept out.
            fs::remove_file(repo.path().join("in/file")).expect("it can be removed");
        }
        let before = repo.read(["ls-files", "-v"]);
        assert!(before.contains("S out/file") && before.contains("H in/file"), "{before}");
        overwrite(&repo.git_dir().join("index"), &[0; 104]);
        let said = jin_after_reboot(&repo, &["recover"]);
        assert!(said.contains("rebuilt index from HEAD"), "{said}");
        assert_eq!(repo.read(["ls-files", "-v"]), before, "{rules:?}");
    }
}

#[test]
fn an_unreadable_index_of_a_merge_is_reported_and_left() {
    let repo = guarded();
    repo.git(["checkout", "-q", "-b", "topic", "HEAD~1"]);
    repo.write("file", "other\n");
    repo.commit_all("other");
    assert!(!repo.try_git(["merge", "main"]).status.success(), "a conflict was meant");
    overwrite(&repo.git_dir().join("index"), b"");
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @r"
    --- stderr
    jin-txn: warning: index is unreadable in the middle of a merge: remove it and run `git reset`, which gives that up
    --- exit 4
    ");
    assert_eq!(fs::read(repo.git_dir().join("index")).expect("it is there"), b"");
}

#[test]
fn a_reflog_with_nuls_at_its_end_is_trimmed_and_the_tail_is_kept() {
    let repo = guarded();
    let log = repo.git_dir().join("logs").join(MAIN);
    let sound = fs::read(&log).expect("there is a reflog");
    overwrite(&log, &[&sound[..], b"0123 half a line", &[0; 64]].concat());
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @r"
    --- stderr
    jin-txn: trimmed the reflog of refs/heads/main: the power cut had damaged its end
    --- exit 0
    ");
    assert_eq!(fs::read(&log).expect("there is a reflog"), sound);
    assert_eq!(quarantined(&repo), ["reflog-tail.refs%heads%main"]);
    assert_settled(&repo);
}

#[test]
fn a_lock_from_before_the_reboot_goes() {
    let repo = guarded();
    fs::write(repo.git_dir().join("index.lock"), "").expect("it can be written");
    fs::write(repo.git_dir().join("refs/heads/main.lock"), "").expect("it can be written");
    let_the_clock_tick(&repo.git_dir());
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @r"
    --- stderr
    jin-txn: moved 2 stale locks to quarantine: index.lock, refs/heads/main.lock
    --- exit 0
    ");
    assert_settled(&repo);
}

#[test]
fn an_empty_configuration_is_as_the_last_transaction_found_it() {
    let repo = guarded();
    let config = repo.git_dir().join("config");
    let before = fs::read(&config).expect("there is a configuration");
    fs::remove_file(&config).expect("git replaces it");
    fs::write(&config, "").expect("it can be written");
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @r"
    --- stderr
    jin-txn: config was empty after the reboot: it is as the last transaction found it
    --- exit 0
    ");
    assert_eq!(fs::read(&config).expect("there is a configuration"), before);
    assert_settled(&repo);
}
