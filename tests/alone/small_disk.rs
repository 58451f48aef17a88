//! A disk that is full, or nearly: the repositories lie in a mount namespace of their own, as nobody else does.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::{fs, thread};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::alone;
use crate::support::observe::{calm, shown};
use crate::support::repo::{Options, Repo, text};
use crate::support::snapshot::Snapshot;

/// Calls `test` with a guarded repository on a file system of `size`, and the root of that.
///
/// The mount is seen by a thread of its own and its children alone, and goes with them.
fn on_a_disk_of(size: &str, test: impl FnOnce(&Repo, &Path) + Send) {
    let work = || {
        let repo = Repo::new(Options::default());
        let disk = repo.scratch().join("disk");
        fs::create_dir(&disk).expect("it can be made");
        let mount = |arguments: &[&str]| Command::new("mount").args(arguments).status().is_ok_and(|s| s.success());
        let options = format!("size={size}");
        let place = disk.display().to_string();
        if unshare(CloneFlags::CLONE_NEWNS).is_err()
            || !mount(&["--make-rprivate", "/"])
            || !mount(&["-t", "tmpfs", "-o", &options, "tmpfs", &place])
        {
            println!("skipped: a small disk cannot be mounted here");
            return;
        }
        test(&repo.new_sibling("disk/repo", Options { guarded: true, ..Options::default() }), &disk);
        let status = Command::new("umount").arg(&disk).status();
        assert!(status.is_ok_and(|status| status.success()), "nobody uses the disk any more");
    };
    thread::scope(|scope| scope.spawn(work).join().expect("the disk was no problem"));
}

#[test]
fn a_full_disk_refuses_changes_and_loses_nothing() {
    let _alone = alone();
    on_a_disk_of("2m", fill_and_free);
}

fn fill_and_free(repo: &Repo, disk: &Path) {
    repo.commit_all("one");
    repo.git(["branch", "topic"]);
    let before = Snapshot::of(repo);
    let filler = disk.join("filler");
    let mut file = fs::File::create(&filler).expect("it can be made");
    while file.write_all(&[b'x'; 4096]).is_ok() {}
    drop(file);
    for arguments in [
        &["update-ref", "-d", "refs/heads/topic"][..],
        &["commit", "-q", "--allow-empty", "-m", "two"],
        &["branch", "other"],
    ] {
        let output = repo.try_git(arguments);
        calm(&output);
        assert!(!output.status.success(), "{arguments:?} needs space that is not there");
        assert_eq!(Snapshot::of(repo), before, "{arguments:?} failed and changed something");
        if arguments[0] == "update-ref" {
            // This one needs no space but ours.
            assert!(text(&output.stderr).contains("JIN_TXN=off"), "it is our veto: {}", text(&output.stderr));
        }
    }
    // git moves the reflog before it asks whether it may rename.
    calm(&repo.try_git(["branch", "-m", "topic", "renamed"]));
    assert_eq!(Snapshot::of(repo).refs, before.refs, "a refused rename changed a ref");
    for arguments in ["status", "check", "log", "recover"] {
        calm(&repo.jin_txn([arguments]));
    }
    fs::remove_file(&filler).expect("space can be freed");
    let recovered = repo.jin_txn(["recover"]);
    assert_eq!(recovered.status.code(), Some(0), "{}", shown(repo, &recovered));
    assert_eq!(Snapshot::of(repo), before, "nothing is lost");
    repo.git(["fsck", "--full"]);
    repo.commit_all("two");
    repo.git(["branch", "-D", "topic"]);
    let status = repo.jin_txn(["status"]);
    assert_eq!(status.status.code(), Some(0), "all is well again: {}", shown(repo, &status));
    let log = text(&repo.jin_txn(["log"]).stdout).into_owned();
    assert!(log.lines().next().is_some_and(|line| line.contains("branch -D topic")), "it is logged: {log}");
}

#[test]
fn little_space_is_told_before_it_is_none() {
    let _alone = alone();
    on_a_disk_of("8m", |repo, _| {
        let output = repo.jin_txn(["doctor", "--json"]);
        let diagnosis: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let with = |status: &str| {
            let checks = diagnosis["checks"].as_array().expect("a list").iter();
            checks.filter(|c| c["status"] == status).map(|c| c["name"].as_str().expect("a name")).collect::<Vec<_>>()
        };
        assert_eq!(with("failed"), ["space"], "{diagnosis:#}");
        assert_eq!(output.status.code(), Some(1));
        assert!(with("note").contains(&"file system"), "a tmpfs promises less: {diagnosis:#}");
    });
}
