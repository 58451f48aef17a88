//! What `check` and `recover` say and exit with, beside a git that really hangs or really died in the middle of a transaction.

use std::fs;

use crate::support::hanging::Case;
use crate::support::observe::{assert_same, shown, tree};
use crate::support::repo::{Git, text};

#[test]
fn check_exits_0_when_all_is_clean() {
    let case = Case::new();
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["check"])), @r"
    clean: nothing is unfinished
    --- stderr
    --- exit 0
    ");
}

#[test]
fn check_exits_3_when_git_was_killed_and_says_what_recovery_would_do() {
    let case = Case::torn();
    let before = tree(&case.repo.git_dir());
    let output = case.repo.jin_txn(["check"]);
    assert_same(&before, &tree(&case.repo.git_dir()), "check changed something");
    insta::assert_snapshot!(shown(&case.repo, &output), @"
    tx-1: interrupted; `git txn recover` rolls it back (`git update-ref --stdin`, pid [PID]). Afterwards:
      refs/heads/alpha is back at [ID]
      refs/heads/beta is back at [ID]
      trimmed the reflog of refs/heads/alpha
      trimmed the reflog of refs/heads/beta
    refs/heads/gamma.lock: stale (the log has it as the lock of a process that is dead)
    refs/heads/omega.lock: stale (the log has it as the lock of a process that is dead)
    hint: run `git txn recover`
    --- stderr
    --- exit 3
    ");
}

#[test]
fn check_exits_3_for_a_stale_lock_alone() {
    let case = Case::new();
    fs::write(case.repo.git_dir().join("index.lock"), "").expect("a lock can be left");
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["check"])), @"
    index.lock: stale (no process is left that could hold it)
    hint: run `git txn recover`
    --- stderr
    --- exit 3
    ");
}

#[test]
fn check_sees_the_reflog_that_a_refused_rename_left_and_recover_puts_it_back() {
    let case = Case::new();
    let log = case.repo.git_dir().join("logs/refs/heads/alpha");
    fs::rename(&log, case.repo.git_dir().join("logs/refs/.tmp-renamed-log")).expect("it can be moved");
    assert_eq!(case.code(&["check"]), Some(3), "recover would do something");
    assert_eq!(case.code(&["recover"]), Some(0), "it can be recovered");
    assert_eq!(case.code(&["check"]), Some(0), "nothing is left");
}

#[test]
fn check_exits_5_beside_a_live_git() {
    let case = Case::new();
    let hanging = case.hang();
    let output = case.repo.jin_txn(["check"]);
    hanging.let_go();
    // From 2.54 on git itself says who holds a lock.
    let mut said = shown(&case.repo, &output);
    for branch in ["gamma", "omega"] {
        let by_git = format!("pid [PID] holds it, says [DIR]/repo/.git/refs/heads/{branch}~pid.lock");
        said = said.replace(&by_git, "[GIT] update-ref --stdin (pid [PID]) is running and may hold it");
    }
    insta::assert_snapshot!(said, @"
    refs/heads/gamma.lock: held ([GIT] update-ref --stdin (pid [PID]) is running and may hold it)
    refs/heads/omega.lock: held ([GIT] update-ref --stdin (pid [PID]) is running and may hold it)
    tx-1 (`git update-ref --stdin`, pid [PID]) is at work
    hint: wait until it is done, then look again
    --- stderr
    --- exit 5
    ");
    assert_eq!(case.code(&["check"]), Some(0), "it is clean once git is done");
}

#[test]
fn recover_leaves_a_live_transaction_alone_and_git_finishes_it() {
    let case = Case::new();
    let hanging = case.hang();
    let (locks, values) = (case.locks(), case.values());
    let output = case.repo.jin_txn(["recover"]);
    let (locks_after, values_after) = (case.locks(), case.values());
    hanging.let_go();
    assert!(!locks.is_empty(), "git holds locks while it hangs");
    assert_eq!((locks_after, values_after), (locks, values), "recover touched the work of a live git");
    assert_eq!(output.status.code(), Some(5), "recover says that somebody is at work: {}", text(&output.stderr));
    assert_eq!(case.values(), ["new"; 4], "git finished all four");
    assert_eq!(case.code(&["check"]), Some(0), "nothing is left");
    let log = text(&case.repo.jin_txn(["log"]).stdout).into_owned();
    assert!(log.contains("committed"), "the log has it as committed: {log}");
}

#[test]
fn another_git_works_on_other_branches_beside_a_live_transaction() {
    let case = Case::new();
    let hanging = case.hang();
    let other = case.repo.try_git(["branch", "other"]);
    hanging.let_go();
    assert!(other.status.success(), "a live transaction blocks nobody else: {}", text(&other.stderr));
    assert!(other.stderr.is_empty(), "nor does it make noise: {}", text(&other.stderr));
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_it_would_do() {
    let case = Case::torn();
    let before = tree(&case.repo.git_dir());
    let output = case.repo.jin_txn(["recover", "--dry-run"]);
    let after = tree(&case.repo.git_dir());
    insta::assert_snapshot!(shown(&case.repo, &output), @"
    tx-1: interrupted; `git txn recover` rolls it back (`git update-ref --stdin`, pid [PID]). Afterwards:
      refs/heads/alpha is back at [ID]
      refs/heads/beta is back at [ID]
      trimmed the reflog of refs/heads/alpha
      trimmed the reflog of refs/heads/beta
    refs/heads/gamma.lock: stale (the log has it as the lock of a process that is dead)
    refs/heads/omega.lock: stale (the log has it as the lock of a process that is dead)
    hint: run `git txn recover`
    --- stderr
    --- exit 0
    ");
    assert_same(&before, &after, "a dry run changed something");
}

#[test]
fn recover_takes_a_torn_transaction_back_and_the_second_time_has_nothing_to_do() {
    let case = Case::torn();
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["recover"])), @"
    --- stderr
    jin-txn: rolled back tx-1 (`git update-ref --stdin`, pid [PID]): refs/heads/alpha is back at [ID], refs/heads/beta is back at [ID], trimmed the reflog of refs/heads/alpha and 1 more; see `git txn show tx-1`
    jin-txn: moved 2 stale locks to quarantine: refs/heads/gamma.lock, refs/heads/omega.lock
    --- exit 0
    ");
    assert_eq!(case.values(), ["old"; 4], "all four are where they were");
    assert!(case.locks().is_empty(), "no lock is left: {:?}", case.locks());
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["recover"])), @"
    --- stderr
    jin-txn: nothing to recover
    --- exit 0
    ");
    case.repo.git(["fsck", "--full"]);
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["show", "tx-1"])), @"
    tx-1  rolled back
    operation  git update-ref --stdin
    begun      [TIME] by pid [PID] on [HOST]
    recovered  [TIME]
               refs/heads/alpha is back at [ID]
               refs/heads/beta is back at [ID]
               trimmed the reflog of refs/heads/alpha
               trimmed the reflog of refs/heads/beta
    refs/heads/alpha
      before  [ID]
      after   [ID]
      + 77e0cd7 two
    refs/heads/beta
      before  [ID]
      after   [ID]
      + 77e0cd7 two
    refs/heads/gamma
      before  [ID]
      after   [ID]
      + 77e0cd7 two
    refs/heads/omega
      before  [ID]
      after   [ID]
      + 77e0cd7 two
    --- stderr
    --- exit 0
    ");
}

#[test]
fn a_branch_that_somebody_else_moved_waits_for_a_human_and_is_never_overwritten() {
    let case = Case::torn();
    let tree = case.repo.read(["rev-parse", "HEAD^{tree}"]);
    let third = case.repo.read(["commit-tree", &tree, "-m", "third"]);
    let mut user = case.repo.command(Git::under_test().program.as_os_str());
    let moved = user.env("JIN_TXN", "off").args(["update-ref", "refs/heads/alpha", &third]).status();
    assert!(moved.is_ok_and(|status| status.success()), "the user moves alpha behind our back");

    let recovered = case.repo.jin_txn(["recover"]);
    assert_eq!(case.value("alpha"), third, "somebody else's value is never overwritten");
    insta::assert_snapshot!(shown(&case.repo, &recovered), @"
    --- stderr
    jin-txn: needs manual resolution: tx-1 (`git update-ref --stdin`, pid [PID]): refs/heads/beta is back at [ID], refs/heads/alpha was moved by another process and is left as it is; see `git txn show tx-1`
    jin-txn: moved 2 stale locks to quarantine: refs/heads/gamma.lock, refs/heads/omega.lock
    hint: `git txn show tx-1` tells what happened; `git txn recover --acknowledge tx-1` closes it as it is
    --- exit 4
    ");
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["check"])), @"
    tx-1: needs manual resolution (`git update-ref --stdin`, pid [PID])
      it needs manual resolution: `git txn recover --acknowledge tx-1`
    hint: `git txn show tx-1` tells what happened; `git txn recover --acknowledge tx-1` closes it as it is
    --- stderr
    --- exit 4
    ");
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["recover", "--acknowledge", "tx-1"])), @"
    --- stderr
    jin-txn: closed tx-1
    --- exit 0
    ");
    assert_eq!(case.code(&["check"]), Some(0), "it is closed");
}

#[test]
fn git_of_ours_recovers_first_and_then_runs_git() {
    let case = Case::torn();
    let output = case.repo.jin_txn(["git", "update-ref", "refs/heads/alpha", &case.new]);
    assert!(output.status.success(), "git runs: {}", text(&output.stderr));
    let message = text(&output.stderr);
    assert!(message.contains("rolled back tx-1"), "it says what it recovered: {message}");
    assert_eq!(case.values(), ["new", "old", "old", "old"], "recovered, then moved alpha");
    case.repo.git(["fsck", "--full"]);
}
