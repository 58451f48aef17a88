//! What nobody waits for: notes beside the work, and what is known of other repositories.

use std::fs;

use insta::assert_snapshot;

use super::{OldFile, guarded, jin_after_reboot, object_file};
use crate::support::crash::{assert_fsck, spare_commit, value};
use crate::support::repo::{Options, Repo};

#[test]
fn a_note_that_is_older_than_the_log_says_gives_way_to_the_newest_value() {
    let repo = guarded();
    repo.git(["update-ref", "CHERRY_PICK_HEAD", "HEAD~1"]);
    let old = OldFile::keep(&repo, "CHERRY_PICK_HEAD");
    repo.git(["update-ref", "CHERRY_PICK_HEAD", "HEAD"]);
    let newest = value(&repo, "CHERRY_PICK_HEAD");
    repo.git(["branch", "waited-for"]);
    old.comes_back();
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @"
    --- stderr
    jin-txn: CHERRY_PICK_HEAD is [ID] again (tx-3); the power cut had taken it back to [ID]
    jin-txn: a cherry-pick is unfinished: `git cherry-pick --continue` goes on when all is resolved and staged, `git cherry-pick --abort` goes back
    --- exit 0
    ");
    assert_eq!(value(&repo, "CHERRY_PICK_HEAD"), newest);
}

#[test]
fn a_note_that_was_removed_and_comes_back_goes_again() {
    let repo = guarded();
    repo.git(["update-ref", "REVERT_HEAD", "HEAD"]);
    let old = OldFile::keep(&repo, "REVERT_HEAD");
    repo.git(["update-ref", "-d", "REVERT_HEAD"]);
    repo.git(["branch", "waited-for"]);
    old.comes_back();
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @"
    --- stderr
    jin-txn: REVERT_HEAD is deleted again (tx-3); the power cut had brought it back at [ID]
    --- exit 0
    ");
    assert!(!repo.git_dir().join("REVERT_HEAD").exists());
}

#[test]
fn a_note_without_sense_that_the_log_does_not_know_is_removed() {
    let repo = guarded();
    for name in ["AUTO_MERGE", "REBASE_HEAD"] {
        fs::write(repo.git_dir().join(name), [0; 41]).expect("a note can be written");
    }
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @"
    --- stderr
    jin-txn: AUTO_MERGE is gone: the power cut had taken its newest value
    jin-txn: REBASE_HEAD is gone: the power cut had taken its newest value
    --- exit 0
    ");
    assert!(!repo.git_dir().join("AUTO_MERGE").exists() && !repo.git_dir().join("REBASE_HEAD").exists());
    assert_fsck(&repo);
}

#[test]
fn a_note_whose_object_is_lost_goes_and_no_older_one_comes_back() {
    let repo = guarded();
    repo.git(["update-ref", "ORIG_HEAD", "HEAD"]);
    let lost = spare_commit(&repo, "lost");
    repo.git(["update-ref", "ORIG_HEAD", &lost]);
    fs::remove_file(object_file(&repo, &lost)).expect("it was loose");
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @"
    --- stderr
    jin-txn: ORIG_HEAD is gone: the power cut had taken its newest value
    --- exit 0
    ");
    assert!(!repo.git_dir().join("ORIG_HEAD").exists());
}

#[test]
fn a_fetched_branch_whose_objects_are_lost_is_what_it_was_before_the_fetch() {
    let repo = guarded();
    let (before, lost) = fetched(&repo);
    fs::remove_file(object_file(&repo, &lost)).expect("it was loose");
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @"
    --- stderr
    jin-txn: trimmed the reflog of refs/remotes/origin/one: the power cut had damaged its end
    jin-txn: refs/remotes/origin/one is back at [ID]: the power cut had taken its newest value
    --- exit 0
    ");
    assert_eq!(value(&repo, "refs/remotes/origin/one"), before);
    assert_fsck(&repo);
    repo.git(["fetch", "-q", "origin"]);
    assert_eq!(value(&repo, "refs/remotes/origin/one"), lost, "a fetch brings it again");
}

#[test]
fn what_the_log_has_only_the_beginning_of_is_kept() {
    let (of_note, of_fetch) = (guarded(), guarded());
    for value in ["HEAD~1", "HEAD"] {
        of_note.git(["update-ref", "ORIG_HEAD", value]);
    }
    fetched(&of_fetch);
    for (repo, name) in [(of_note, "ORIG_HEAD"), (of_fetch, "refs/remotes/origin/one")] {
        let newest = value(&repo, name);
        lose_the_last_record(&repo);
        let said = jin_after_reboot(&repo, &["recover"]);
        assert_eq!(said, "--- stderr\njin-txn: nothing to recover\n--- exit 0", "{name}");
        assert_eq!(value(&repo, name), newest, "{name}");
        assert_fsck(&repo);
    }
}

/// The record of an end is lost, for which nobody had waited. The marker is gone.
fn lose_the_last_record(repo: &Repo) {
    let segment = fs::read_dir(repo.git_dir().join(".jin/wal")).expect("there is a log").next();
    let segment = segment.expect("it has a segment").expect("it can be read").path();
    let log = fs::read_to_string(&segment).expect("the log is text");
    let last = log.rfind("\"type\":\"committed\"").expect("something has ended");
    let start = log[..last].rfind('\n').expect("it is not the first record") + 1;
    fs::write(&segment, &log[..start]).expect("the log can be cut");
}

/// Fetches a branch anew; returns what it was and what it is.
fn fetched(repo: &Repo) -> (String, String) {
    let upstream = repo.new_sibling("upstream.git", Options { bare: true, ..Options::default() });
    repo.git(["remote", "add", "origin", "../upstream.git"]);
    repo.git(["push", "-q", "origin", "HEAD:refs/heads/one"]);
    repo.git(["fetch", "-q", "origin"]);
    let before = value(repo, "refs/remotes/origin/one");
    let next = upstream.read(["commit-tree", "-p", "one", "-m", "next", "one^{tree}"]);
    upstream.git(["update-ref", "refs/heads/one", &next]);
    repo.git(["fetch", "-q", "origin"]);
    let after = value(repo, "refs/remotes/origin/one");
    assert_ne!(before, after, "it was fetched");
    (before, after)
}
