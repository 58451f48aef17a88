//! Commands that call the hook in odd ways: the log tells what happened, and a healthy repository stays silent.

use super::{guarded, leave_stale_lock};
use crate::support::crash::{
    self, assert_recovers, is_ref_rename, is_rename_to, kill_at, nth, spare_commit, transactions, value, wal,
};
use crate::support::repo::{Git, Options, Repo, text};
use crate::support::tracer::Action;

#[test]
fn deleting_a_packed_ref_is_one_transaction() {
    for loose_too in [false, true] {
        let repo = guarded();
        repo.git(["branch", "topic"]);
        repo.git(["pack-refs", "--all"]);
        if loose_too {
            let new = spare_commit(&repo, "new");
            repo.git(["update-ref", "refs/heads/topic", &new]);
        }
        let before = transactions(&repo).len();
        silently(&repo, &["branch", "-q", "-D", "topic"]);
        let all = transactions(&repo);
        let new = &all[..all.len() - before];
        assert_eq!(new.len(), 1, "git calls the hook for packed-refs and for the ref: {new:?}");
        assert_eq!(new[0]["state"], "committed");
        assert_eq!(new[0]["refs"], 1);
        assert_recovers(&repo);
    }
}

#[test]
fn a_fetch_with_one_rejected_ref_is_logged_without_error() {
    let repo = guarded();
    let upstream = repo.new_sibling("upstream.git", Options { bare: true, ..Options::default() });
    repo.git(["push", "-q", "../upstream.git", "main:refs/heads/dir/file", "main:refs/heads/fine"]);
    repo.git(["remote", "add", "origin", "../upstream.git"]);
    // `dir` and `dir/file` cannot both be refs: git rejects that one and takes the other.
    repo.git(["update-ref", "refs/remotes/origin/dir", "main"]);
    let fetch = repo.try_git(["fetch", "-q", "origin"]);
    assert!(!fetch.status.success(), "one ref is rejected");
    assert!(!text(&fetch.stderr).contains("jin-txn"), "that is nothing to report: {}", text(&fetch.stderr));
    if Git::under_test().is_at_least(2, 51) {
        assert_ne!(value(&repo, "refs/remotes/origin/fine"), "", "the other ref is there");
    }
    let states: Vec<_> = transactions(&repo).iter().map(|it| it["state"].to_string()).collect();
    assert!(!states.iter().any(|state| state.contains("begun")), "every transaction has an end: {states:?}");
    assert_recovers(&repo);
    assert_eq!(value(&upstream, "refs/heads/fine"), value(&repo, "main"));
}

#[test]
fn making_a_worktree_does_not_speak_of_our_own_head() {
    let repo = guarded();
    silently(&repo, &["worktree", "add", "-q", "-b", "linked", "../linked"]);
    let linked = repo.sibling("linked");
    silently(&linked, &["commit", "-q", "--allow-empty", "-m", "there"]);
    let log = wal(&repo);
    let mains = log.iter().filter(|record| changes(record).contains(&"HEAD".to_owned())).count();
    assert_eq!(mains, 0, "HEAD of the main worktree has not moved: {log:#?}");
    leave_stale_lock(&repo, "refs/heads/nobody.lock");
    assert_recovers(&repo);
    assert_eq!(repo.read(["symbolic-ref", "HEAD"]), "refs/heads/main");
    assert_eq!(linked.read(["symbolic-ref", "HEAD"]), "refs/heads/linked");
}

#[test]
fn renaming_a_branch_of_another_worktree_moves_that_worktrees_head() {
    let repo = guarded();
    repo.git(["worktree", "add", "-q", "-b", "linked", "../linked"]);
    let linked = repo.sibling("linked");
    silently(&repo, &["branch", "-m", "linked", "renamed"]);
    assert_eq!(linked.read(["symbolic-ref", "HEAD"]), "refs/heads/renamed");
    let log = wal(&repo);
    let mains = log.iter().filter(|record| changes(record).contains(&"HEAD".to_owned())).count();
    assert_eq!(mains, 0, "HEAD of the main worktree has not moved: {log:#?}");
    assert_recovers(&repo);
}

#[test]
fn a_cut_rename_of_a_branch_of_another_worktree_leaves_that_worktree_usable() {
    for at in ["the new name", "the head"] {
        let repo = guarded();
        repo.git(["worktree", "add", "-q", "-b", "linked", "../linked"]);
        let linked = repo.sibling("linked");
        let commit = value(&repo, "refs/heads/linked");
        kill_at(crash::git(&repo, &["branch", "-m", "linked", "renamed"]), "", Action::KillTree, |event| match at {
            "the head" => is_rename_to(event, "worktrees/linked/HEAD"),
            _ => is_ref_rename(event) && is_rename_to(event, "refs/heads/renamed"),
        });
        assert_recovers(&repo);
        assert_eq!(linked.read(["rev-parse", "HEAD"]), commit, "killed at {at}: the worktree is where it was");
        let heads = [value(&repo, "refs/heads/linked"), value(&repo, "refs/heads/renamed")];
        assert_eq!(heads.iter().filter(|it| **it == commit).count(), 1, "one of both names is there: {heads:?}");
        linked.git(["commit", "-q", "--allow-empty", "-m", "work goes on"]);
        assert_eq!(repo.read(["symbolic-ref", "HEAD"]), "refs/heads/main", "our own HEAD is not concerned");
    }
}

#[test]
fn a_commit_on_a_detached_head_is_a_transaction_of_head() {
    let repo = guarded();
    repo.git(["switch", "-q", "--detach"]);
    let before = transactions(&repo).len();
    silently(&repo, &["commit", "-q", "--allow-empty", "-m", "detached"]);
    let all = transactions(&repo);
    assert_eq!(all.len() - before, 1, "one transaction: {all:?}");
    assert_eq!((&all[0]["state"], &all[0]["refs"]), (&"committed".into(), &1.into()));

    let head = repo.read(["rev-parse", "HEAD"]);
    let commit = ["commit", "-q", "--allow-empty", "-m", "cut"];
    kill_at(crash::git(&repo, &commit), "", Action::KillTree, nth(1, |event| is_rename_to(event, ".git/HEAD")));
    assert_recovers(&repo);
    assert_eq!(repo.read(["rev-parse", "HEAD"]), head, "HEAD had not moved");
    assert_eq!(repo.read(["log", "-g", "-1", "--format=%H"]), head, "and its reflog does not say otherwise");
}

/// Runs git, which must succeed, and asserts that the guard says nothing.
fn silently(repo: &Repo, arguments: &[&str]) {
    let output = repo.git(arguments);
    assert_eq!(text(&output.stderr), "", "a healthy repository sees no output of `git {}`", arguments.join(" "));
}

/// The refs that a `begin` record says are changed.
fn changes(record: &serde_json::Value) -> Vec<String> {
    let refs = (record["type"] == "begin").then(|| record["data"]["refs"].as_array()).flatten();
    refs.into_iter().flatten().filter_map(|change| change["ref"].as_str().map(str::to_owned)).collect()
}
