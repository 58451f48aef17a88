//! A clean reboot changes nothing, whoever was at work without our seeing it.

use std::fs;
use std::path::Path;

use super::{guarded, run_after_reboot};
use crate::support::crash::{assert_fsck, spare_commit, unseen_git, value};
use crate::support::observe::{self, Tree};
use crate::support::repo::{Repo, text};

/// A change that no hook saw, after some that it saw.
struct Unseen {
    name: &'static str,
    change: fn(&Repo),
}

const CHANGES: [Unseen; 18] = [
    Unseen {
        name: "a commit with the guard off",
        change: |repo| unseen_git(repo, &["commit", "-q", "--allow-empty", "-m", "x"]),
    },
    Unseen {
        name: "a branch reset with the guard off",
        change: |repo| unseen_git(repo, &["branch", "-q", "-f", "topic", "HEAD~1"]),
    },
    Unseen {
        name: "a branch deleted with the guard off",
        change: |repo| unseen_git(repo, &["branch", "-q", "-D", "topic"]),
    },
    Unseen {
        name: "the last branch of a directory deleted with the guard off",
        change: |repo| unseen_git(repo, &["branch", "-q", "-D", "deep/down"]),
    },
    Unseen {
        name: "a deleted branch made again with the guard off",
        change: |repo| unseen_git(repo, &["branch", "gone", "HEAD"]),
    },
    Unseen {
        name: "a packed branch deleted with the guard off",
        change: |repo| {
            repo.git(["pack-refs", "--all"]);
            unseen_git(repo, &["branch", "-q", "-D", "topic"]);
        },
    },
    Unseen {
        name: "refs packed with the guard off after a change with the guard off",
        change: |repo| {
            unseen_git(repo, &["branch", "-q", "-f", "topic", "HEAD~1"]);
            unseen_git(repo, &["pack-refs", "--all"]);
        },
    },
    Unseen {
        name: "a branch renamed away and back",
        change: |repo| {
            repo.git(["branch", "-m", "topic", "elsewhere"]);
            repo.git(["branch", "-m", "elsewhere", "topic"]);
        },
    },
    Unseen {
        name: "the current branch renamed away and back",
        change: |repo| {
            repo.git(["branch", "-m", "main", "elsewhere"]);
            repo.git(["branch", "-m", "elsewhere", "main"]);
        },
    },
    Unseen {
        name: "a stash popped off several",
        change: |repo| {
            for content in ["s1\n", "s2\n", "s3\n"] {
                repo.write("file", content);
                repo.git(["stash", "push", "-q"]);
            }
            repo.git(["stash", "pop", "-q"]);
        },
    },
    Unseen {
        name: "an older stash dropped",
        change: |repo| {
            for content in ["s1\n", "s2\n"] {
                repo.write("file", content);
                repo.git(["stash", "push", "-q"]);
            }
            repo.git(["stash", "drop", "-q", "stash@{1}"]);
        },
    },
    Unseen {
        name: "a branch copied",
        change: |repo| {
            repo.git(["branch", "-c", "topic", "copy"]);
        },
    },
    Unseen {
        name: "reflogs expired",
        change: |repo| {
            repo.git(["reflog", "expire", "--expire=now", "--all"]);
        },
    },
    Unseen {
        name: "a branch switched with the guard off",
        change: |repo| unseen_git(repo, &["switch", "-q", "topic"]),
    },
    Unseen {
        name: "HEAD detached and moved with the guard off",
        change: |repo| {
            repo.git(["checkout", "-q", "--detach"]);
            repo.git(["commit", "-q", "--allow-empty", "-m", "seen"]);
            unseen_git(repo, &["checkout", "-q", "main~1"]);
        },
    },
    Unseen {
        name: "a ref written in place by another program",
        change: |repo| {
            let other = value(repo, "HEAD~1");
            let path = repo.git_dir().join("refs/heads/topic");
            replace_like_a_library(&path, &format!("{other}\n"));
        },
    },
    Unseen {
        name: "a ref removed by another program",
        change: |repo| {
            fs::remove_file(repo.git_dir().join("refs/tags/seen")).expect("the tag was loose");
        },
    },
    Unseen {
        name: "everything packed and pruned by gc",
        change: |repo| {
            repo.git(["gc", "-q", "--prune=now"]);
        },
    },
];

fn replace_like_a_library(path: &Path, content: &str) {
    let lock = path.with_extension("lock");
    fs::write(&lock, content).expect("it can be written");
    fs::rename(lock, path).expect("it can be replaced");
}

fn lived_in() -> Repo {
    let repo = guarded();
    repo.git(["branch", "topic"]);
    repo.git(["branch", "deep/down"]);
    repo.git(["tag", "seen"]);
    repo.git(["branch", "gone"]);
    repo.git(["branch", "-q", "-D", "gone"]);
    let other = spare_commit(&repo, "other");
    repo.git(["update-ref", "refs/custom/x", &other]);
    repo
}

/// What a person has in the git directory: everything but our own state.
fn kept(repo: &Repo) -> Tree {
    let mut tree = observe::tree(&repo.git_dir());
    tree.retain(|path, _| !path.starts_with(".jin"));
    tree
}

#[test]
fn a_clean_reboot_changes_nothing_after_any_unseen_change() {
    for Unseen { name, change } in CHANGES {
        let repo = lived_in();
        change(&repo);
        let refs = repo.read(["for-each-ref"]);
        let stashes = text(&repo.try_git(["stash", "list"]).stdout).into_owned();
        let before = kept(&repo);
        // Three boots: what the first one took as the new state must hold in the next ones.
        for boot in 1..=3 {
            let output = run_after_reboot(&repo, &["recover"]);
            let said = text(&output.stderr);
            assert_eq!(
                (output.status.code(), &*said),
                (Some(0), "jin-txn: nothing to recover\n"),
                "{name}, boot {boot}"
            );
            observe::assert_same(&before, &kept(&repo), &format!("{name}, boot {boot}"));
        }
        assert_eq!(repo.read(["for-each-ref"]), refs, "{name}");
        assert_eq!(text(&repo.try_git(["stash", "list"]).stdout), stashes, "{name}");
        assert_fsck(&repo);
    }
}

#[test]
fn a_clean_reboot_is_found_clean_by_every_way_in() {
    let repo = lived_in();
    unseen_git(&repo, &["branch", "-q", "-D", "topic"]);
    let before = kept(&repo);
    for arguments in [&["check"][..], &["recover", "--dry-run"], &["git", "rev-parse", "HEAD"], &["recover"]] {
        let output = run_after_reboot(&repo, arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        observe::assert_same(&before, &kept(&repo), &format!("{arguments:?}"));
    }
}

/// As the user's own git shows it that history is whole.
#[test]
fn history_that_a_replacement_hides_is_not_lost() {
    let repo = lived_in();
    let whole = value(&repo, "HEAD");
    let commit = |arguments: &[&str], subject: &str| {
        repo.read([&["commit-tree", "-m", subject, "HEAD^{tree}"], arguments].concat())
    };
    let gone = commit(&[], "gone");
    let cut = commit(&["-p", &gone], "cut");
    let new = commit(&["-p", &cut], "new");
    repo.git(["update-ref", "refs/heads/topic", &whole]);
    repo.git(["replace", "--graft", &cut]);
    repo.git(["update-ref", "refs/heads/topic", &new]);
    fs::remove_file(super::object_file(&repo, &gone)).expect("it was loose");
    let output = run_after_reboot(&repo, &["recover"]);
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), "jin-txn: nothing to recover\n"));
    assert_eq!(value(&repo, "refs/heads/topic"), new);
}
