//! libgit2 (git2) and gitoxide (gix) write refs where jin-txn guards: no hook sees them, and nothing of theirs is broken, taken
//! for an unfinished transaction's, or "repaired" away.

#![allow(clippy::disallowed_methods, reason = "tests may")]

#[path = "../../support/mod.rs"]
mod support;

use std::fs;

use support::crash::{assert_fsck, git, is_ref_rename, kill_at, nth, recover, run_jin, spare_commit, value};
use support::point::let_the_clock_tick;
use support::repo::{Options, Repo};
use support::tracer::Action;

/// One implementation of git.
#[derive(Clone, Copy, Debug)]
enum Writer {
    LibGit2,
    Gitoxide,
}

const WRITERS: [Writer; 2] = [Writer::LibGit2, Writer::Gitoxide];

impl Writer {
    fn set(self, repo: &Repo, name: &str, to: &str) {
        match self {
            Writer::LibGit2 => {
                let repo = git2::Repository::open(repo.path()).expect("libgit2 opens it");
                let oid = git2::Oid::from_str(to).expect("an object name");
                repo.reference(name, oid, true, "by libgit2").expect("libgit2 writes");
            }
            Writer::Gitoxide => {
                let repo = open_gix(repo);
                let oid = gix::ObjectId::from_hex(to.as_bytes()).expect("an object name");
                let any = gix::refs::transaction::PreviousValue::Any;
                repo.reference(name, oid, any, "by gitoxide").expect("gitoxide writes");
            }
        }
    }

    fn delete(self, repo: &Repo, name: &str) {
        match self {
            Writer::LibGit2 => {
                let repo = git2::Repository::open(repo.path()).expect("libgit2 opens it");
                repo.find_reference(name).expect("it is there").delete().expect("libgit2 deletes");
            }
            Writer::Gitoxide => {
                let repo = open_gix(repo);
                repo.find_reference(name).expect("it is there").delete().expect("gitoxide deletes");
            }
        }
    }

    fn commit(self, repo: &Repo, message: &str) -> String {
        match self {
            Writer::LibGit2 => {
                let repo = git2::Repository::open(repo.path()).expect("libgit2 opens it");
                let who = git2::Signature::now("Jin", "jin@example.com").expect("a signature");
                let head = repo.head().and_then(|h| h.peel_to_commit()).expect("there is a commit");
                let tree = head.tree().expect("with a tree");
                repo.commit(Some("HEAD"), &who, &who, message, &tree, &[&head]).expect("libgit2 commits").to_string()
            }
            Writer::Gitoxide => {
                let repo = open_gix(repo);
                let head = repo.head_commit().expect("there is a commit");
                let tree = head.tree_id().expect("with a tree").detach();
                repo.commit("HEAD", message, tree, [head.id]).expect("gitoxide commits").to_string()
            }
        }
    }
}

fn open_gix(repo: &Repo) -> gix::Repository {
    let options = gix::open::Options::isolated().config_overrides(["user.name=Jin", "user.email=jin@example.com"]);
    gix::open_opts(repo.path(), options).expect("gitoxide opens it")
}

fn guarded() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.do_not_wait_for_locks();
    repo.write("file", "one\n");
    repo.commit_all("base");
    repo
}

#[test]
fn what_they_write_stays_through_every_command_and_a_verification() {
    for writer in WRITERS {
        let repo = guarded();
        for branch in ["moved", "gone", "back"] {
            repo.git(["branch", branch]);
        }
        let (old, new) = (value(&repo, "HEAD"), spare_commit(&repo, "theirs"));
        writer.set(&repo, "refs/heads/moved", &new);
        writer.set(&repo, "refs/heads/made", &new);
        writer.delete(&repo, "refs/heads/gone");
        writer.set(&repo, "refs/heads/back", &new);
        writer.set(&repo, "refs/heads/back", &old);
        let head = writer.commit(&repo, "theirs, too");
        let judge = |when: &str| {
            let found = ["HEAD", "refs/heads/moved", "refs/heads/made", "refs/heads/gone", "refs/heads/back"];
            let found = found.map(|name| value(&repo, name));
            assert_eq!(found, [&head, &new, &new, "", &old].map(str::to_owned), "{writer:?}, {when}");
            assert_fsck(&repo);
        };
        assert_eq!(run_jin(&repo, &["status"]).0, 0, "{writer:?}: nothing is unfinished");
        assert_eq!(recover(&repo).0, 0);
        judge("after recovery");
        // As after a reboot: everything that the log speaks of is compared with what is there.
        let notes = fs::read_dir(repo.git_dir().join(".jin")).expect("it is there").flatten().map(|e| e.path());
        let verified = notes.into_iter().find(|p| p.display().to_string().contains("/verified.")).expect("a note");
        fs::remove_file(verified).expect("it can be removed");
        let (code, said) = recover(&repo);
        assert_eq!(code, 0, "{writer:?}: {said}");
        judge("after a verification");
        repo.git(["pack-refs", "--all"]);
        repo.git(["branch", "next"]);
        repo.git(["gc", "-q", "--prune=now"]);
        judge("after a gc");
        repo.git(["commit", "-q", "--allow-empty", "-m", "ours"]);
        assert_eq!(value(&repo, "HEAD~"), head, "{writer:?}: git builds on it");
        let undo = run_jin(&repo, &["undo"]);
        assert_eq!(undo.0, 0, "{writer:?}: {}", undo.1);
        judge("after an undo of ours");
    }
}

#[test]
fn what_they_write_over_a_torn_update_is_theirs() {
    for writer in WRITERS {
        let repo = guarded();
        let (old, new) = (value(&repo, "HEAD"), spare_commit(&repo, "new"));
        let third = spare_commit(&repo, "theirs");
        let branches = ["b1", "b2", "b3", "b4"];
        let mut input = String::new();
        for branch in branches {
            repo.git(["branch", branch]);
            input += &format!("update refs/heads/{branch} {new} {old}\n");
        }
        kill_at(git(&repo, &["update-ref", "--stdin"]), &input, Action::KillTree, nth(3, is_ref_rename));
        let_the_clock_tick(&repo.git_dir());
        writer.set(&repo, "refs/heads/b1", &third);
        // Away and back to the very value that the update wanted: not the update's, all the same.
        writer.set(&repo, "refs/heads/b2", &third);
        writer.set(&repo, "refs/heads/b2", &new);
        let (code, said) = recover(&repo);
        assert_eq!(code, 4, "{writer:?}: a human decides: {said}");
        let found = branches.map(|b| value(&repo, &format!("refs/heads/{b}")));
        assert_eq!(found, [&third, &new, &old, &old].map(Clone::clone), "{writer:?}: {said}");
        writer.set(&repo, "refs/heads/b3", &third);
        assert_eq!(recover(&repo).0, 4);
        assert_eq!(value(&repo, "refs/heads/b3"), third, "{writer:?}: nothing of theirs is in our way");
        assert_fsck(&repo);
    }
}

#[test]
fn a_lock_that_libgit2_holds_stays() {
    let repo = guarded();
    repo.git(["branch", "held"]);
    let new = spare_commit(&repo, "theirs");
    let theirs = git2::Repository::open(repo.path()).expect("libgit2 opens it");
    let mut transaction = theirs.transaction().expect("a transaction");
    transaction.lock_ref("refs/heads/held").expect("libgit2 locks");
    let lock = repo.git_dir().join("refs/heads/held.lock");
    assert!(lock.exists(), "it is a lock like git's");
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = recover(&repo);
    println!("recovery exits with {code}: {said}");
    assert!(lock.exists(), "the lock of the living stays: {said}");
    let oid = git2::Oid::from_str(&new).expect("an object name");
    transaction.set_target("refs/heads/held", oid, None, "by libgit2").expect("it can be set");
    transaction.commit().expect("libgit2 commits");
    assert_eq!(value(&repo, "refs/heads/held"), new);
}
