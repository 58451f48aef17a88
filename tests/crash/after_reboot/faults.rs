//! When the disk, the clock or the kernel does not do its part.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use insta::assert_snapshot;

use super::{guarded, run, run_after_reboot, set_time};
use crate::support::crash::{self, assert_fsck, value};
use crate::support::faults::failing;
use crate::support::repo::{Repo, text};
use crate::support::{observe, reboot};

fn commit(repo: &Repo) -> Command {
    crash::git(repo, &["commit", "-q", "--allow-empty", "-m", "next"])
}

/// What a person sees, without git's own words about a veto, which change from version to version.
fn said_by_us(repo: &Repo, output: &Output) -> String {
    let shown = observe::shown(repo, output);
    shown.lines().filter(|line| !line.starts_with("fatal: ")).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn assert_the_next_commit_works(repo: &Repo) {
    let before = value(repo, "HEAD");
    let output = run(commit(repo));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(value(repo, "HEAD~1"), before);
    assert_eq!(text(&repo.jin_txn(["check"]).stdout), "clean: nothing is unfinished\n");
    assert_fsck(repo);
}

#[test]
fn a_disk_that_reports_an_error_at_the_barrier_stops_git_before_anything_changed() {
    let repo = guarded();
    let before = value(&repo, "HEAD");
    let output = run(failing(commit(&repo), libc::SYS_syncfs, libc::EIO));
    assert_snapshot!(said_by_us(&repo, &output), @r"
    --- stderr
    jin-txn: error: the log [DIR]/repo/.git/.jin/wal/[ID].wal cannot be synced to disk: Input/output error (os error 5)
    jin-txn: hint: this change was refused; to work without protection: JIN_TXN=off git ...
    --- exit 128
    ");
    assert_eq!(value(&repo, "HEAD"), before);
    assert_the_next_commit_works(&repo);
    let segments = fs::read_dir(repo.git_dir().join(".jin/wal")).expect("there is a log").count();
    assert_eq!(segments, 2, "a segment that could not be synced is never appended to again");
}

#[test]
fn a_kernel_without_syncfs_syncs_all_file_systems() {
    let repo = guarded();
    let output = run(failing(commit(&repo), libc::SYS_syncfs, libc::ENOSYS));
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    assert_the_next_commit_works(&repo);
}

#[test]
fn a_disk_that_reports_an_error_after_the_change_is_told_and_the_change_stands() {
    let repo = guarded();
    let before = value(&repo, "HEAD");
    let output = run(failing(commit(&repo), libc::SYS_fdatasync, libc::EIO));
    assert_snapshot!(observe::shown(&repo, &output), @r"
    --- stderr
    jin-txn: error: the log [DIR]/repo/.git/.jin/wal/[ID].wal cannot be synced to disk: Input/output error (os error 5)
    jin-txn: hint: this change is not protected; `git txn status` says more
    --- exit 0
    ");
    assert_eq!(value(&repo, "HEAD~1"), before, "git has changed the ref already");
    assert_eq!(repo.jin_txn(["recover"]).status.code(), Some(0));
    assert_the_next_commit_works(&repo);
}

#[test]
fn without_a_boot_id_nothing_is_guarded_and_so_nothing_is_changed() {
    let repo = guarded();
    let before = value(&repo, "HEAD");
    let output = run(reboot::after(commit(&repo), ""));
    assert_snapshot!(said_by_us(&repo, &output), @r"
    --- stderr
    jin-txn: error: /proc/sys/kernel/random/boot_id: this is not a boot id
    jin-txn: hint: this change was refused; to work without protection: JIN_TXN=off git ...
    --- exit 128
    ");
    assert_eq!(value(&repo, "HEAD"), before);
    assert_snapshot!(observe::shown(&repo, &run(reboot::after(crash::jin(&repo, &["check"]), ""))), @r"
    --- stderr
    error: /proc/sys/kernel/random/boot_id: this is not a boot id
    --- exit 1
    ");
    let mut unguarded = commit(&repo);
    unguarded.env("JIN_TXN", "off");
    assert!(run(reboot::after(unguarded, "")).status.success(), "the way round works");
    assert_the_next_commit_works(&repo);
}

#[test]
fn a_read_only_repository_is_left_as_it_is_and_that_is_told() {
    let repo = guarded();
    fs::write(repo.git_dir().join("refs/heads/main"), "").expect("it can be written");
    let before = observe::tree(&repo.git_dir());
    let directory = repo.path().display().to_string();
    let script =
        format!("mount --bind {directory} {directory} && mount -o remount,ro,bind {directory} && exec \"$0\" \"$@\"");
    let mut command = repo.command("/bin/sh".as_ref());
    command.current_dir(repo.scratch()).args(["-c", &script]).arg(crate::support::repo::jin_txn());
    command.args(["-C", &directory, "recover"]);
    // The namespace that has another boot id has mounts of its own, too.
    let output = run(reboot::after(command, &reboot::new_boot_id()));
    assert_snapshot!(observe::shown(&repo, &output), @r"
    --- stderr
    error: cannot write [DIR]/repo/.git/.jin/recovery.lock
    caused by: [DIR]/repo/.git/.jin/recovery.lock: Read-only file system (os error 30)
    --- exit 1
    ");
    observe::assert_same(&before, &observe::tree(&repo.git_dir()), "nothing was written");
    assert_eq!(
        run_after_reboot(&repo, &["recover"]).status.code(),
        Some(0),
        "as soon as it can be written, it is mended"
    );
    assert_the_next_commit_works(&repo);
}

#[test]
fn a_clock_that_ran_ahead_proves_nothing_but_a_lock_does() {
    let repo = guarded();
    for with_lock in [false, true] {
        let name = format!("refs/heads/topic-{with_lock}");
        repo.git(["update-ref", &name, "HEAD"]);
        let newest = value(&repo, &name);
        let file = repo.git_dir().join(&name);
        if with_lock {
            super::undo_rename(&file);
        } else {
            fs::remove_file(&file).expect("it was loose");
        }
        let directory: &Path = &repo.git_dir().join("refs/heads");
        set_time(directory, SystemTime::now() + Duration::from_secs(3600));
        assert_eq!(run_after_reboot(&repo, &["recover"]).status.code(), Some(0));
        let expected = if with_lock { newest } else { String::new() };
        assert_eq!(value(&repo, &name), expected, "with its lock: {with_lock}");
    }
}
