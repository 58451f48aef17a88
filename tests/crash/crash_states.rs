//! Power cuts: whatever a weak file system leaves of a recorded run, recovery makes whole.
//!
//! `support/states` has the model, the invariants, the limits, and the variables that make these tests check more.
//!
//! With `JIN_STATES` set, `leaving_out_a_sync_is_noticed` asks about the syncs of all operations, else of two.

use std::process::Command;

use crate::support::crash::{git, is_ref_rename, jin, nth, unseen_git};
use crate::support::point::let_the_clock_tick;
use crate::support::reboot;
use crate::support::repo::{Options, Repo};
use crate::support::snapshot::{self, Refs};
use crate::support::states::recording::Recording;
use crate::support::states::{Case, Rule};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[test]
fn a_program_after_a_reboot_sees_the_other_boot_id_and_nobody_else_does() {
    if !reboot::is_possible() {
        return println!("skipped: no right to make a mount namespace");
    }
    let ours = std::fs::read_to_string(BOOT_ID).expect("the kernel has a boot id");
    let boot_id = reboot::new_boot_id();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("cat {BOOT_ID}; sh -c 'cat {BOOT_ID}'")]);
    let mut shell = reboot::after(shell, &boot_id);
    for _ in 0..2 {
        let output = shell.output().expect("the shell starts");
        let seen = String::from_utf8(output.stdout).expect("a boot id is text");
        assert_eq!(seen, format!("{boot_id}\n{boot_id}\n"), "the program and its children see it");
    }
    assert_eq!(std::fs::read_to_string(BOOT_ID).expect("the kernel has a boot id"), ours, "we do not");
}

#[test]
fn a_state_in_which_everything_survives_is_what_the_run_left() {
    let Case { recording, .. } = update_ref();
    let left = snapshot::contents(recording.repo.path());
    let tree = |prefix| recording.tree(prefix, &std::collections::BTreeMap::new());
    recording.materialise(&tree(0)).expect("a state can be put on the disk");
    assert_eq!(snapshot::Snapshot::of(&recording.repo), recording.before, "nothing has happened");
    recording.repo.git(["commit", "-q", "--allow-empty", "-m", "something else"]);
    recording.materialise(&tree(recording.steps.len())).expect("a state can be put on the disk");
    assert_eq!(snapshot::contents(recording.repo.path()), left, "whatever happened in between");
}

#[test]
fn a_sync_covers_what_it_promises_and_no_more() {
    let mut recording = Recording::of(history());
    let mut pending_after = |script: &str| {
        let mut shell = recording.repo.command("/bin/sh".as_ref());
        shell.args(["-c", script]);
        recording.run(shell, "");
        let pending = recording.pending(recording.steps.len(), None);
        pending
            .iter()
            .map(|step| recording.describe(*step).split(' ').nth(1).unwrap_or("").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(pending_after("echo content >new"), ["names", "contents"], "nothing was synced");
    assert_eq!(pending_after("sync new"), ["names"], "fsync of a file covers its contents");
    assert_eq!(pending_after("echo more >>new; sync ."), ["contents"], "fsync of a directory covers its names");
    assert_eq!(pending_after("mkdir dir2; echo content >dir2/new; sync -f ."), [""; 0], "syncfs covers everything");
}

#[test]
fn a_commit_survives_a_power_cut_or_never_was() {
    holds(&commit);
}

#[test]
fn an_update_of_many_refs_survives_a_power_cut_or_never_was() {
    holds(&update_ref);
}

#[test]
fn each_fetched_branch_survives_a_power_cut_or_never_was() {
    holds(&fetch);
}

#[test]
fn packing_refs_loses_none_in_a_power_cut() {
    holds(&pack_refs);
}

#[test]
fn a_recovery_survives_a_power_cut() {
    holds(&recovery);
}

#[test]
fn leaving_out_a_sync_is_noticed() {
    if !reboot::is_possible() {
        return println!("skipped: no right to make a mount namespace");
    }
    let cases: &[fn() -> Case] = match std::env::var_os("JIN_STATES") {
        Some(_) => &[update_ref, commit, pack_refs, fetch, recovery],
        None => &[update_ref, pack_refs],
    };
    for case in cases {
        let case = case();
        let unneeded = case.run_without_each_sync();
        // What a fetch or a recovery syncs several times over is covered by the next barrier.
        if !matches!(case.name, "fetch" | "recover") {
            assert_eq!(unneeded, Vec::<String>::new(), "{}: a sync that nothing depends on is a waste", case.name);
        }
    }
}

fn holds(case: &dyn Fn() -> Case) {
    if !reboot::is_possible() {
        return println!("skipped: no right to make a mount namespace");
    }
    let score = case().run();
    assert_eq!(score.bad, 0, "{} of {} states are bad", score.bad, score.checked);
}

/// A commit of what is staged, then one of what is modified.
fn commit() -> Case {
    let repo = history();
    repo.write("a.txt", "staged\n");
    repo.git(["add", "a.txt"]);
    repo.write("dir/b.txt", "modified\n");
    let mut recording = record(repo);
    recording.run(git(&recording.repo, &["commit", "-qm", "first"]), "");
    recording.run(git(&recording.repo, &["commit", "-qam", "second"]), "");
    Case { name: "commit", rule: Rule::Whole, recording }
}

fn update_ref() -> Case {
    let repo = history();
    let input = many_updates(&repo);
    let mut recording = record(repo);
    commit_first(&mut recording);
    recording.run(git(&recording.repo, &["update-ref", "--stdin"]), &input);
    Case { name: "update-ref", rule: Rule::Whole, recording }
}

fn fetch() -> Case {
    let repo = history();
    let upstream = repo.new_sibling("upstream.git", Options { bare: true, ..Options::default() });
    repo.git(["remote", "add", "origin", "../upstream.git"]);
    repo.git(["push", "-q", "origin", "refs/heads/*:refs/heads/*"]);
    repo.git(["fetch", "-q", "origin"]);
    for branch in ["another", "new", "younger"] {
        let commit = upstream.read(["commit-tree", "-p", "main", "-m", branch, "main^{tree}"]);
        upstream.git(["update-ref", &format!("refs/heads/{branch}"), &commit]);
    }
    let moved = upstream.read(["commit-tree", "-p", "topic", "-m", "moved", "topic^{tree}"]);
    upstream.git(["update-ref", "refs/heads/topic", &moved]);
    let mut recording = record(repo);
    commit_first(&mut recording);
    recording.run(git(&recording.repo, &["fetch", "-q", "origin"]), "");
    Case { name: "fetch", rule: Rule::EachRef, recording }
}

fn pack_refs() -> Case {
    let repo = history();
    repo.git(["pack-refs", "--all"]);
    for branch in ["loose-1", "loose-2", "dir/loose-3"] {
        repo.git(["branch", branch]);
    }
    repo.git(["update-ref", "refs/heads/topic", "main"]);
    let mut recording = record(repo);
    commit_first(&mut recording);
    recording.run(git(&recording.repo, &["pack-refs", "--all"]), "");
    Case { name: "pack-refs", rule: Rule::Whole, recording }
}

/// The recovery of an update that was killed half-way.
fn recovery() -> Case {
    let repo = history();
    let input = many_updates(&repo);
    let mut recording = record(repo);
    commit_first(&mut recording);
    let whole = updated(&recording.commands[0].refs, &input);
    let mut third = nth(3, is_ref_rename);
    recording.run_killed(git(&recording.repo, &["update-ref", "--stdin"]), &input, &mut third, whole);
    let_the_clock_tick(&recording.repo.git_dir());
    recording.run(jin(&recording.repo, &["recover"]), "");
    Case { name: "recover", rule: Rule::Whole, recording }
}

/// Two branches with different files and a tag.
fn history() -> Repo {
    let repo = Repo::new(Options::default());
    repo.write("a.txt", "one\n");
    repo.write("dir/b.txt", "one\n");
    repo.commit_all("base");
    repo.git(["tag", "v1"]);
    repo.git(["branch", "topic"]);
    repo.write("a.txt", "two\n");
    repo.commit_all("main");
    repo
}

fn record(repo: Repo) -> Recording {
    repo.install_guard();
    Recording::of(repo)
}

/// Work that is acknowledged before the operation begins.
fn commit_first(recording: &mut Recording) {
    recording.run(git(&recording.repo, &["commit", "-q", "--allow-empty", "-m", "first"]), "");
}

/// Makes loose and packed refs, and returns an input that updates, creates and deletes some.
fn many_updates(repo: &Repo) -> String {
    let [old, new] = ["v1", "main"].map(|name| repo.read(["rev-parse", name]));
    let mut input = String::from("start\n");
    for number in 1..=5 {
        repo.git(["branch", &format!("branch-{number}"), "v1"]);
        if number == 2 {
            unseen_git(repo, &["pack-refs", "--all"]);
        }
        input += &format!("update refs/heads/branch-{number} {new} {old}\n");
    }
    repo.git(["branch", "gone", "v1"]);
    input += &format!("create refs/heads/created {new}\ndelete refs/heads/gone {old}\nprepare\ncommit\n");
    input
}

/// The refs once an input of `update-ref` is done.
fn updated(refs: &Refs, input: &str) -> Refs {
    let mut refs = refs.clone();
    for line in input.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["update" | "create", name, new, ..] => drop(refs.insert(name.to_owned(), new.to_owned())),
            ["delete", name, ..] => drop(refs.remove(name)),
            _ => {}
        }
    }
    refs
}
