//! Values that the log has not seen: nobody else's work is overwritten, deleted or brought back.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{Torn, guarded, leave_stale_lock};
use crate::support::crash::{self, assert_fsck, assert_recovers, recover, run_jin, spare_commit, transactions, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Options, Repo, text};
use crate::support::snapshot::Snapshot;
use crate::support::tracer::Action;

#[test]
fn a_branch_renamed_away_and_back_stays() {
    let repo = guarded();
    for branch in ["a", "other"] {
        repo.git(["branch", branch]);
    }
    repo.git(["branch", "-m", "a", "b"]);
    repo.git(["branch", "-m", "b", "a"]);
    let before = Snapshot::of(&repo);
    leave_stale_lock(&repo, "refs/heads/nobody.lock");
    assert_recovers(&repo);
    assert_eq!(Snapshot::of(&repo), before, "the log says that `a` was deleted, the repository knows better");
    repo.git(["branch", "-m", "a", "b"]);
    leave_stale_lock(&repo, "refs/heads/nobody.lock");
    assert_recovers(&repo);
    assert_eq!(value(&repo, "refs/heads/a"), "", "`a` does not come back");
    assert_ne!(value(&repo, "refs/heads/b"), "", "`b` stays");
}

#[test]
fn a_stash_list_that_was_popped_stays_as_it_is() {
    let torn_in = guarded();
    for number in 1..=3 {
        torn_in.write("file", &format!("change {number}\n"));
        torn_in.git(["stash", "push", "-q", "-m", &format!("number {number}")]);
    }
    torn_in.git(["stash", "pop", "-q"]);
    torn_in.git(["checkout", "-q", "file"]);
    torn_in.git(["stash", "drop", "-q", "stash@{1}"]);
    let stashes = |repo: &Repo| (repo.read(["stash", "list"]), value(repo, "refs/stash"));
    let before = stashes(&torn_in);
    let torn = Torn::of(torn_in);
    assert_recovers(&torn.repo);
    torn.assert_rolled_back();
    assert_eq!(stashes(&torn.repo), before, "the stash list has nothing to do with the crash");
}

#[test]
fn a_value_that_somebody_moved_away_and_back_is_theirs() {
    let torn = Torn::new();
    let third = spare_commit(&torn.repo, "third");
    crash::unseen_git(&torn.repo, &["update-ref", "refs/heads/b1", &third]);
    crash::unseen_git(&torn.repo, &["update-ref", "refs/heads/b1", &torn.new]);
    let (code, said) = recover(&torn.repo);
    assert_eq!(code, 4, "b1 has the value that the update wanted, but somebody else wrote it: {said}");
    assert_eq!(torn.value("b1"), torn.new, "their value stays");
    assert_eq!(torn.new_ones(), 1, "what is provably the update's own is taken back");
}

#[test]
fn a_third_partys_value_stays_and_a_human_closes_the_transaction() {
    let torn = Torn::new();
    let third = spare_commit(&torn.repo, "third");
    crash::unseen_git(&torn.repo, &["update-ref", "refs/heads/b2", &third]);
    for round in ["first", "second"] {
        let (code, said) = recover(&torn.repo);
        assert_eq!(code, 4, "the {round} recovery leaves the decision to a human: {said}");
        assert_eq!(torn.value("b2"), third, "their value stays");
    }
    assert_eq!(run_jin(&torn.repo, &["check"]).0, 4, "it waits");
    torn.repo.git(["commit", "-q", "--allow-empty", "-m", "work goes on meanwhile"]);

    let waiting: Vec<_> = transactions(&torn.repo).into_iter().filter(|it| it["state"] == "needs you").collect();
    assert_eq!(waiting.len(), 1, "one transaction waits: {waiting:?}");
    let id = waiting[0]["id"].as_str().map_or_else(|| waiting[0]["id"].to_string(), str::to_owned);
    let (code, said) = run_jin(&torn.repo, &["recover", "--acknowledge", &id]);
    assert_eq!(code, 0, "{said}");
    assert_recovers(&torn.repo);
    assert_eq!(torn.value("b2"), third, "their value still stays");
}

#[test]
fn pack_refs_after_a_torn_update_does_not_make_it_permanent() {
    packed_while_torn(&["pack-refs", "--all"]);
}

#[test]
fn gc_after_a_torn_update_does_not_make_it_permanent() {
    packed_while_torn(&["gc", "--quiet", "--prune=now"]);
}

/// Plain git packs the refs of a torn update, twice: the first try may be refused.
fn packed_while_torn(arguments: &[&str]) {
    let torn = Torn::new();
    let first = torn.repo.try_git(arguments);
    let again = torn.repo.try_git(arguments);
    let said = format!("{}{}", text(&first.stderr), text(&again.stderr));
    assert_recovers(&torn.repo);
    torn.assert_whole();
    assert!(torn.repo.try_git(arguments).status.success(), "after recovery it works; before it said: {said}");
    torn.assert_whole();
    assert_fsck(&torn.repo);
}

#[test]
fn a_reused_inode_makes_nobody_the_author() {
    const TRIES: usize = 200;
    // Without a reflog only the identity of the files tells who wrote what.
    let repo = guarded();
    repo.git(["config", "core.logAllRefUpdates", "false"]);
    fs::remove_dir_all(repo.git_dir().join("logs")).expect("the reflogs can be removed");
    let torn = Torn::of(repo);
    let third = spare_commit(&torn.repo, "third");
    let inode = || {
        let path = torn.repo.git_dir().join("refs/heads/b1");
        fs::metadata(path).expect("b1 is loose").ino()
    };
    let recorded = inode();
    let reused = (0..TRIES).any(|_| {
        crash::unseen_git(&torn.repo, &["update-ref", "refs/heads/b1", &third]);
        crash::unseen_git(&torn.repo, &["update-ref", "refs/heads/b1", &torn.new]);
        inode() == recorded
    });
    if !reused {
        println!("this file system does not hand the inode out again: {recorded}");
    }
    let_the_clock_tick(&torn.repo.git_dir());
    let (code, said) = recover(&torn.repo);
    assert_eq!(code, 4, "the same inode, size and value, but not the same file: {said}");
    assert_eq!(torn.value("b1"), torn.new, "their value stays");
}

#[test]
fn a_submodule_and_a_repository_inside_are_not_touched() {
    let upstream = guarded();
    let library = upstream.new_sibling("library", Options::default());
    library.commit_all("library");
    let path = library.path().display().to_string();
    upstream.git(["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &path, "sub"]);
    let inner = upstream.new_sibling("repo/inner", Options::default());
    inner.commit_all("inner");
    let modules = upstream.git_dir().join("modules/sub");
    for git_dir in [&modules, &inner.git_dir()] {
        for name in ["index.lock", "HEAD.lock", "refs/heads/main.lock"] {
            fs::write(git_dir.join(name), "").expect("a lock can be made");
        }
    }
    let contents = || [modules.clone(), inner.path().to_owned()].map(|it| crate::support::snapshot::contents(&it));
    let before = contents();
    leave_stale_lock(&upstream, "refs/heads/nobody.lock");
    let (code, said) = recover(&upstream);
    assert_eq!(code, 0, "{said}");
    assert!(!upstream.git_dir().join("refs/heads/nobody.lock").exists(), "its own lock goes");
    assert!(contents() == before, "what belongs to other repositories is their own recovery's");
}

#[test]
fn a_branch_that_somebody_made_after_the_crash_is_not_taken_for_the_transactions() {
    let repo = guarded();
    let commit = spare_commit(&repo, "x");
    let input = format!("create refs/heads/new-a {commit}\ncreate refs/heads/new-b {commit}\n");
    let update = crash::git(&repo, &["update-ref", "--stdin"]);
    crash::kill_at(update, &input, Action::KillTree, crash::is_ref_rename);
    for lock in ["new-a.lock", "new-b.lock"] {
        fs::remove_file(repo.git_dir().join("refs/heads").join(lock)).expect("the kill left it");
    }
    crash::unseen_git(&repo, &["branch", "new-a", &commit]);
    let (_, said) = recover(&repo);
    assert_eq!(
        value(&repo, "refs/heads/new-a"),
        commit,
        "it has the transaction's value, yet it is somebody else's: {said}"
    );
}

#[test]
fn a_mere_verification_is_no_deletion() {
    let repo = guarded();
    let (old, new) = (repo.read(["rev-parse", "HEAD"]), spare_commit(&repo, "x"));
    repo.git(["branch", "up"]);
    repo.git(["branch", "same"]);
    let input = format!("start\nupdate refs/heads/up {new} {old}\nverify refs/heads/same {old}\nprepare\ncommit\n");
    let update = crash::git(&repo, &["update-ref", "--stdin"]);
    // In `committed`, after git has done all of it.
    let mut renamed = false;
    crash::kill_at(update, &input, Action::KillTree, |event| {
        renamed |= crash::is_ref_rename(event);
        renamed && crash::is_log_call(event, "write")
    });
    assert_recovers(&repo);
    assert_eq!(value(&repo, "refs/heads/up"), new, "all of it had been done");
    assert_eq!(value(&repo, "refs/heads/same"), old, "and this was only looked at");
}
