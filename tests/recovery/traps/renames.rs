//! Renames that meet: git has one place for all reflogs that are on their way, `logs/refs/.tmp-renamed-log`, and makes the new
//! name without asking any hook.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::guarded;
use crate::support::crash::{self, assert_recovers, recover, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Repo, text};
use crate::support::snapshot::Snapshot;
use crate::support::tracer::{self, Action, Event, Isolation, Role};
use crate::support::wait::wait_until;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// What the branches are, empty where there is none.
fn branches<const N: usize>(repo: &Repo, names: [&str; N]) -> [String; N] {
    names.map(|name| value(repo, &format!("refs/heads/{name}")))
}

/// Kills `git branch -m OLD NEW` when its reflog is on its way and nothing else has happened: no hook was called.
fn kill_behind_its_first_step(repo: &Repo, old: &str, new: &str) {
    let mut taken = false;
    crash::kill_at(crash::git(repo, &["branch", "-m", old, new]), "", Action::KillTree, |event| {
        let was_taken = taken;
        taken |= crash::is_rename_to(event, "logs/refs/.tmp-renamed-log");
        was_taken
    });
    assert!(repo.git_dir().join("logs/refs/.tmp-renamed-log").exists(), "it was cut behind its first step");
}

/// The branch has been renamed, and is being renamed back: its old name is that of the git that is about to make it, not of the
/// first rename, of which nobody has tidied up yet. Brought back, it is in that git's way, which then brings `b` back.
#[test]
fn a_branch_that_is_just_being_renamed_back_is_not_taken_for_a_rename_that_was_cut() {
    for logged in ["true", "false"] {
        let repo = guarded();
        repo.git(["config", "core.logAllRefUpdates", logged]);
        repo.git(["branch", "a"]);
        let before = value(&repo, "refs/heads/a");
        repo.git(["branch", "-m", "a", "b"]);
        let mut seen = None;
        let mut decide = |event: &Event| {
            let makes_a = event.path.as_deref().is_some_and(|path| path.ends_with("refs/heads/a.lock"));
            if seen.is_none() && event.role == Role::Git && makes_a {
                assert_eq!(value(&repo, "refs/heads/b"), "", "the deletion is done");
                let (_, said) = thread::scope(|it| it.spawn(|| recover(&repo)).join().expect("it ends"));
                seen = Some((said, value(&repo, "refs/heads/a")));
            }
            Action::Continue
        };
        let rename = crash::git(&repo, &["branch", "-m", "b", "a"]);
        let outcome = tracer::trace(rename, b"", Isolation::None, &mut decide).expect("git starts");
        let (said, found) = seen.expect("git makes the new name");
        assert_eq!(found, "", "logged: {logged}: recovery leaves the name to the git that makes it: {said}");
        assert!(outcome.status.success(), "{outcome:?}");
        assert_eq!(branches(&repo, ["a", "b"]), [before, String::new()], "logged: {logged}");
        assert_recovers(&repo);
    }
}

/// The second rename finds no reflog to move; the one that lies on its way is not its own.
#[test]
fn a_rename_behind_one_that_was_cut_before_it_was_logged_stays() {
    for quickly in [true, false] {
        let repo = guarded();
        repo.git(["branch", "a"]);
        let before = value(&repo, "refs/heads/a");
        kill_behind_its_first_step(&repo, "a", "b");
        if !quickly {
            let_the_clock_tick(&repo.git_dir());
        }
        repo.git(["branch", "-m", "a", "b"]);
        let_the_clock_tick(&repo.git_dir());
        assert_recovers(&repo);
        assert_eq!(branches(&repo, ["a", "b"]), [String::new(), before], "quickly: {quickly}");
    }
}

#[test]
fn a_branch_that_is_deleted_while_the_reflog_of_another_one_lies_on_its_way_stays_deleted() {
    let repo = guarded();
    repo.git(["branch", "a"]);
    repo.git(["branch", "other"]);
    let before = value(&repo, "refs/heads/a");
    kill_behind_its_first_step(&repo, "a", "b");
    repo.git(["branch", "-D", "other"]);
    let_the_clock_tick(&repo.git_dir());
    assert_recovers(&repo);
    assert_eq!(branches(&repo, ["a", "b", "other"]), [before, String::new(), String::new()]);
    assert!(repo.git_dir().join("logs/refs/heads/a").exists(), "its reflog is back");
}

/// The reflog that tells how far the first one came is gone: the second one has put its own in its place.
#[test]
fn a_cut_rename_whose_reflog_the_next_one_has_replaced_gets_its_name_back() {
    let repo = guarded();
    repo.git(["branch", "a"]);
    repo.git(["branch", "other"]);
    let before = value(&repo, "refs/heads/a");
    crash::kill_at(crash::git(&repo, &["branch", "-m", "a", "b"]), "", Action::KillTree, |event| {
        crash::is_rename_to(event, "logs/refs/heads/b")
    });
    assert_eq!(branches(&repo, ["a", "b"]), [String::new(), String::new()], "without damage this proves nothing");
    repo.try_git(["branch", "-m", "other", "another"]);
    let_the_clock_tick(&repo.git_dir());
    assert_recovers(&repo);
    assert_eq!(branches(&repo, ["a", "b"]), [before.clone(), String::new()]);
    let others = branches(&repo, ["other", "another"]);
    assert!(others == [before.clone(), String::new()] || others == [String::new(), before], "{others:?}");
}

/// `git reflog expire`, which `git gc` runs and which calls no hook, writes each reflog anew: the one that had arrived at the name
/// that was never made is another file then, shorter or empty.
#[test]
fn a_cut_rename_whose_reflog_was_rewritten_since_gets_its_name_back() {
    for overwrites in [false, true] {
        for expire in ["--expire=never", "--expire=now"] {
            let repo = guarded();
            repo.git(["branch", "a"]);
            let before = value(&repo, "refs/heads/a");
            if overwrites {
                repo.git(["branch", "b", "HEAD~0"]);
            }
            let mut arrived = false;
            crash::kill_at(crash::git(&repo, &["branch", "-M", "a", "b"]), "", Action::KillTree, |event| {
                let had_arrived = arrived;
                arrived |= crash::is_rename_to(event, "logs/refs/heads/b");
                had_arrived
            });
            assert_eq!(
                branches(&repo, ["a", "b"]),
                [String::new(), String::new()],
                "without damage this proves nothing"
            );
            repo.git(["reflog", "expire", expire, "--all"]);
            let_the_clock_tick(&repo.git_dir());
            assert_recovers(&repo);
            let b = if overwrites { before.clone() } else { String::new() };
            assert_eq!(branches(&repo, ["a", "b"]), [before, b], "overwrites: {overwrites}, {expire}");
            assert!(repo.git_dir().join("logs/refs/heads/a").exists(), "its reflog is back: {overwrites}, {expire}");
            assert_eq!(repo.git_dir().join("logs/refs/heads/b").exists(), overwrites);
        }
    }
}

/// The log takes the reflog of the other one, which is on its way when its hook looks, for its own.
#[test]
fn a_cut_rename_that_met_another_one_gets_its_name_back() {
    let repo = guarded();
    repo.git(["branch", "a"]);
    repo.git(["branch", "other"]);
    let before = value(&repo, "refs/heads/a");
    let (stand, stands) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let repo = &repo;
        let mut start = Some(move || {
            scope.spawn(move || {
                let decide = &mut |event: &Event| {
                    if crash::is_rename_to(event, "logs/refs/heads/another") {
                        stand.send(()).expect("somebody waits");
                        may_go.recv_timeout(LONG).expect("somebody says so");
                    }
                    Action::Continue
                };
                let other = crash::git(repo, &["branch", "-m", "other", "another"]);
                tracer::trace(other, b"", Isolation::None, decide).expect("git starts");
            });
        });
        let mut taken = false;
        crash::kill_at(crash::git(repo, &["branch", "-m", "a", "b"]), "", Action::KillTree, |event| {
            if taken
                && event.role == Role::Git
                && let Some(start) = start.take()
            {
                start();
                stands.recv_timeout(LONG).expect("the other one comes to its new name");
            }
            taken |= crash::is_rename_to(event, "logs/refs/.tmp-renamed-log");
            crash::is_rename_to(event, "logs/refs/heads/b")
        });
        go.send(()).expect("it waits");
    });
    assert_eq!(branches(&repo, ["a", "b"]), [String::new(), String::new()], "without damage this proves nothing");
    let_the_clock_tick(&repo.git_dir());
    assert_recovers(&repo);
    assert_eq!(branches(&repo, ["a", "b"]), [before.clone(), String::new()]);
    assert_eq!(branches(&repo, ["other", "another"]), [String::new(), before]);
}

#[test]
fn a_branch_that_somebody_unseen_has_renamed_once_more_does_not_get_an_old_name_back() {
    let repo = guarded();
    repo.git(["branch", "a"]);
    let before = value(&repo, "refs/heads/a");
    repo.git(["branch", "-m", "a", "b"]);
    crash::unseen_git(&repo, &["branch", "-m", "b", "c"]);
    let_the_clock_tick(&repo.git_dir());
    assert_recovers(&repo);
    assert_eq!(branches(&repo, ["a", "b", "c"]), [String::new(), String::new(), before]);
}

#[test]
fn a_renamed_branch_that_somebody_unseen_has_deleted_does_not_get_its_old_name_back() {
    let repo = guarded();
    repo.git(["branch", "a"]);
    let before = value(&repo, "refs/heads/a");
    repo.git(["branch", "-m", "a", "b"]);
    crash::unseen_git(&repo, &["branch", "-q", "-D", "b"]);
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = recover(&repo);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("refs/heads/a was renamed, and its new name is gone, too"), "{said}");
    assert!(said.contains(&format!("`git update-ref refs/heads/a {before}`")), "{said}");
    assert_recovers(&repo);
    assert_eq!(branches(&repo, ["a", "b"]), [String::new(), String::new()]);
}

/// The second rename takes the reflog on its way again before any hook is called.
#[test]
fn a_renamed_branch_whose_next_rename_was_cut_before_it_was_logged_does_not_get_its_old_name_back() {
    let repo = guarded();
    repo.git(["branch", "a"]);
    repo.git(["branch", "-m", "a", "b"]);
    let before = Snapshot::of(&repo);
    kill_behind_its_first_step(&repo, "b", "c");
    let_the_clock_tick(&repo.git_dir());
    assert_recovers(&repo);
    assert_eq!(Snapshot::of(&repo), before, "the branch is `b`, with its reflog");
}

#[test]
fn renaming_a_branch_away_and_back_is_no_news() {
    let repo = guarded();
    repo.git(["branch", "a"]);
    for [old, new] in [["a", "b"], ["b", "a"]] {
        let rename = repo.git(["branch", "-m", old, new]);
        assert_eq!(text(&rename.stderr), "", "a healthy repository sees no output of `git branch -m {old} {new}`");
    }
}

/// The branch had neither name when the run began: the run did not make it.
#[test]
fn a_cut_rename_that_is_taken_back_while_a_run_is_at_work_stays_when_the_run_fails() {
    let repo = guarded();
    repo.git(["branch", "first"]);
    repo.git(["branch", "-m", "first", "a"]);
    let before = value(&repo, "refs/heads/a");
    let script = "echo x >begun; while test ! -e go; do sleep 0.02; done; git commit -q --allow-empty -m x; exit 9";
    let (code, said) = thread::scope(|scope| {
        let mut run = None;
        crash::kill_at(crash::git(&repo, &["branch", "-m", "a", "b"]), "", Action::KillTree, |event| {
            let makes_b =
                event.role == Role::Git && event.path.as_deref().is_some_and(|it| it.ends_with("heads/b.lock"));
            if makes_b {
                assert_eq!(branches(&repo, ["a", "b"]), [String::new(), String::new()]);
                run = Some(scope.spawn(|| crash::run_jin(&repo, &["run", "--", "sh", "-c", script])));
                wait_until("the run has begun", || repo.path().join("begun").exists());
            }
            makes_b
        });
        let recovered = recover(&repo);
        assert_eq!(branches(&repo, ["a", "b"]), [before.clone(), String::new()], "{recovered:?}");
        repo.write("go", "");
        run.expect("it was started").join().expect("it ends")
    });
    assert_eq!(code, 9, "{said}");
    assert_eq!(branches(&repo, ["a", "b"]), [before, String::new()], "{said}");
    assert_recovers(&repo);
}

#[test]
fn a_branch_that_somebody_else_renames_over_another_one_stays_when_a_run_fails_meanwhile() {
    let repo = guarded();
    repo.git(["branch", "old", "HEAD"]);
    repo.git(["commit", "-q", "--allow-empty", "-m", "second"]);
    repo.git(["branch", "theirs", "HEAD"]);
    let theirs = value(&repo, "refs/heads/theirs");
    let script = "env -u JIN_TXN_RUN git branch -M theirs old; git commit -q --allow-empty -m x; exit 9";
    let (code, said) = crash::run_jin(&repo, &["run", "--", "sh", "-ec", script]);
    assert_eq!(branches(&repo, ["theirs", "old"]), [String::new(), theirs], "{said}");
    assert_eq!(code, 9, "{said}");
    assert_recovers(&repo);
}

/// git calls no hook behind its rename, so that recovery looks at it again with the next command.
#[test]
fn a_head_that_means_the_old_name_of_a_renamed_branch_since_is_left_there() {
    for command in [&["checkout", "-q", "--orphan", "a"][..], &["symbolic-ref", "HEAD", "refs/heads/a"]] {
        let repo = guarded();
        repo.git(["branch", "a"]);
        repo.git(["branch", "-m", "a", "b"]);
        repo.git(command);
        repo.git(["tag", "t", "main"]);
        assert_eq!(repo.read(["symbolic-ref", "HEAD"]), "refs/heads/a", "{command:?}");
    }
}

#[test]
fn a_section_that_git_reads_and_does_not_rename_leaves_nothing_unfinished() {
    let repo = guarded();
    repo.git(["branch", "a"]);
    let config = repo.git_dir().join("config");
    let text = std::fs::read_to_string(&config).expect("it can be read") + "[Branch \"a\"]\n\tdescription = mine\n";
    std::fs::write(&config, text).expect("it can be written");
    repo.git(["branch", "-m", "a", "b"]);
    assert_recovers(&repo);
    assert_eq!(repo.read(["config", "branch.a.description"]), "mine");
}
