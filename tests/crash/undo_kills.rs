//! Undo and redo of what index, files and HEAD follow: killed anywhere they happened wholly or not at all.

use std::fs;

use crate::support::crash::{git, is_ref_rename, jin, recover, run_jin};
use crate::support::invariants;
use crate::support::repo::{Options, Repo};
use crate::support::table::{start, stride};
use crate::support::tracer::{self, Action, Event, Isolation, Role};
use crate::support::worktree::Whole;

/// Points of each kind by default; `JIN_KILL=all` takes all.
const SAMPLE: usize = 6;

/// A repository in which the last operation changes refs, index and files.
fn scene(operation: &[&str]) -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.do_not_wait_for_locks();
    repo.write("file", "one\n");
    repo.write("gone", "soon\n");
    repo.write("mine", "before\n");
    repo.commit_all("one");
    repo.git(["checkout", "-q", "-b", "ahead"]);
    fs::remove_file(repo.path().join("gone")).expect("it is there");
    repo.write("file", "two\n");
    repo.write("new/deep/file", "new\n");
    repo.commit_all("two");
    repo.git(["checkout", "-q", "main"]);
    repo.write("mine", "local\n");
    repo.git(["branch", "other"]);
    repo.git(["config", "branch.other.description", "words"]);
    repo.git(operation);
    repo
}

/// A repository in which the last operation ended a merge.
fn ended_merge() -> Repo {
    let repo = scene(&["checkout", "-q", "-b", "side", "main~0"]);
    for (branch, content) in [("side", "side\n"), ("main", "main\n")] {
        repo.git(["checkout", "-q", branch]);
        repo.write("file", content);
        repo.git(["commit", "-q", "-m", branch, "file"]);
    }
    repo.try_git(["merge", "-q", "side"]);
    repo.write("file", "both\n");
    repo.git(["add", "file"]);
    repo.git(["commit", "-q", "-m", "both"]);
    repo
}

fn kill_everywhere(operation: &[&str], direction: &str) {
    kill_everywhere_in(&scene(operation), &format!("{operation:?}"), direction);
}

fn kill_everywhere_in(template: &Repo, operation: &str, direction: &str) {
    kill_everywhere_with(template, operation, direction, &[]);
}

/// Everything that a person has, and the reflogs of these branches.
fn state(repo: &Repo, logged: &[&str]) -> (Whole, Vec<Option<String>>) {
    let log = |name: &&str| fs::read_to_string(repo.git_dir().join("logs/refs/heads").join(name)).ok();
    (Whole::of(repo), logged.iter().map(log).collect())
}

fn kill_everywhere_with(template: &Repo, operation: &str, direction: &str, logged: &[&str]) {
    if direction == "redo" {
        assert_eq!(run_jin(template, &["undo"]).0, 0);
    }
    let before = state(template, logged);
    let model = template.copy();
    let (events, outcome) = tracer::events_of(jin(&model, &[direction]), b"").expect("it starts");
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    let after = state(&model, logged);
    assert_ne!(before, after);
    let (mut ends, mut bad) = ((0, 0), Vec::new());
    for action in [Action::KillTree, Action::KillGit, Action::KillHook] {
        let step = stride("JIN_KILL", events.len().div_ceil(SAMPLE));
        let first = start(&format!("{operation}{direction}{action:?}"), step, "JIN_KILL_SEED");
        for event in events.iter().skip(first).step_by(step) {
            let repo = template.copy();
            let mut decide = |now: &Event| if now.n == event.n { action } else { Action::Continue };
            tracer::trace(jin(&repo, &[direction]), b"", Isolation::None, &mut decide).expect("it starts");
            let (code, said) = recover(&repo);
            let found = state(&repo, logged);
            let mut violations = invariants::judge_recovery(&repo);
            violations.extend(invariants::judge_locks(&repo, &|_| true));
            violations.extend(invariants::judge_markers(&repo));
            match (code, violations.is_empty()) {
                (0, true) if found == before => ends.0 += 1,
                (0, true) if found == after => ends.1 += 1,
                _ => {
                    let near = if found.0.refs == before.0.refs { &before } else { &after };
                    bad.push(format!(
                        "{event} ({action:?}): {code}, {said}\n{violations:?}\n{found:#?}\nnear {near:#?}"
                    ));
                }
            }
            repo.discard();
        }
    }
    println!("torture: kills={} violations={}", ends.0 + ends.1 + bad.len(), bad.len());
    println!("{direction} of {operation}: {ends:?}, {} bad of {} points", bad.len(), events.len());
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
    assert!(
        std::env::var_os("JIN_KILL").is_some() || ends.0 > 0 && ends.1 > 0,
        "both sides of the commit point: {ends:?}"
    );
}

#[test]
fn an_undo_of_a_merge_that_is_killed_leaves_refs_index_and_files_wholly_before_or_after() {
    kill_everywhere(&["merge", "-q", "ahead"], "undo");
}

#[test]
fn a_redo_of_a_merge_that_is_killed_leaves_refs_index_and_files_wholly_before_or_after() {
    kill_everywhere(&["merge", "-q", "ahead"], "redo");
}

#[test]
fn an_undo_of_a_new_branch_that_is_killed_leaves_head_and_all_else_wholly_before_or_after() {
    kill_everywhere(&["checkout", "-q", "-b", "fresh", "--track", "ahead"], "undo");
}

#[test]
fn a_redo_of_a_new_branch_that_is_killed_leaves_head_and_all_else_wholly_before_or_after() {
    kill_everywhere(&["checkout", "-q", "-b", "fresh", "--track", "ahead"], "redo");
}

#[test]
fn an_undo_of_a_deleted_branch_that_is_killed_leaves_it_and_its_configuration_wholly_before_or_after() {
    kill_everywhere(&["branch", "-q", "-D", "other"], "undo");
}

#[test]
fn an_undo_of_the_end_of_a_merge_that_is_killed_leaves_it_in_progress_or_not() {
    kill_everywhere_in(&ended_merge(), "the end of a merge", "undo");
}

#[test]
fn a_redo_of_the_end_of_a_merge_that_is_killed_leaves_it_in_progress_or_not() {
    kill_everywhere_in(&ended_merge(), "the end of a merge", "redo");
}

/// A repository with a stash of all kinds of changes, or two of them.
fn stashed(count: usize) -> Repo {
    let repo = scene(&["tag", "unrelated"]);
    for n in 0..count {
        repo.write("file", &format!("staged {n}\n"));
        repo.git(["add", "file"]);
        repo.write("file", &format!("work {n}\n"));
        repo.write("untracked/file", "mine\n");
        repo.git(["stash", "push", "-q", "-u"]);
    }
    repo
}

#[test]
fn an_undo_of_a_stash_that_is_killed_leaves_list_index_and_files_wholly_before_or_after() {
    kill_everywhere_in(&stashed(2), "a stash", "undo");
}

#[test]
fn a_redo_of_a_stash_that_is_killed_leaves_list_index_and_files_wholly_before_or_after() {
    kill_everywhere_in(&stashed(1), "a stash", "redo");
}

#[test]
fn an_undo_of_a_pop_that_is_killed_leaves_list_and_files_wholly_before_or_after() {
    let repo = stashed(1);
    repo.git(["stash", "drop", "-q"]);
    repo.write("new", "not tracked\n");
    repo.git(["stash", "push", "-q", "-u"]);
    repo.git(["stash", "pop", "-q"]);
    kill_everywhere_in(&repo, "a pop", "undo");
}

#[test]
fn an_undo_of_a_rename_that_is_killed_leaves_head_reflog_and_configuration_wholly_before_or_after() {
    let repo = scene(&["switch", "-q", "other"]);
    repo.git(["branch", "-m", "deep/name"]);
    kill_everywhere_with(&repo, "a rename", "undo", &["other", "deep/name"]);
}

#[test]
fn a_redo_of_a_rename_to_below_its_own_name_that_is_killed_leaves_it_wholly_before_or_after() {
    let repo = scene(&["switch", "-q", "other"]);
    repo.git(["branch", "-m", "other/one"]);
    kill_everywhere_with(&repo, "a rename below its own name", "redo", &["other", "other/one"]);
}

/// A hook that dies at the end of a transaction has logged it, or leaves that to recovery: in both cases the index is the one that
/// the commit left, and no difference to it.
#[test]
fn a_hook_that_is_killed_at_the_end_of_a_commit_does_not_keep_the_next_undo_away() {
    let template = scene(&["merge", "-q", "ahead"]);
    let commit = ["commit", "-q", "-a", "-m", "mine"];
    let before = Whole::of(&template);
    let model = template.copy();
    let (events, _) = tracer::events_of(git(&model, &commit), b"").expect("it starts");
    let done = events.iter().rposition(is_ref_rename).expect("the branch moves");
    let ends: Vec<&Event> = events[done..].iter().filter(|event| event.role == Role::Hook).collect();
    let step = stride("JIN_KILL", ends.len().div_ceil(SAMPLE));
    for event in ends.iter().step_by(step) {
        let repo = template.copy();
        let mut decide = |now: &Event| if now.n == event.n { Action::KillHook } else { Action::Continue };
        tracer::trace(git(&repo, &commit), b"", Isolation::None, &mut decide).expect("it starts");
        let (code, said) = recover(&repo);
        assert_eq!(code, 0, "{event}: {said}");
        let (code, said) = run_jin(&repo, &["undo"]);
        assert_eq!((code, Whole::of(&repo)), (0, before.clone()), "{event}: {said}");
        repo.discard();
    }
}
