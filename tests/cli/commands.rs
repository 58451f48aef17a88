//! What a user meets at the command line: exit codes, words, JSON, and a git that really hangs or really dies in the
//! middle of a transaction.

use std::fs;
use std::process::{Output, Stdio};

use crate::support::hanging::Case;
use crate::support::observe::{assert_same, shown, tree};
use crate::support::repo::{Git, Options, Repo, jin_txn, text};
use serde_json::Value;

fn json(output: &Output) -> Value {
    let stdout = text(&output.stdout);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {stdout}"))
}

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
fn every_json_output_parses_and_is_versioned() {
    let case = Case::torn();
    let states = [
        (&["status"][..], "interrupted"),
        (&["show", "tx-1"], "begun"),
        (&["check"], "interrupted"),
        (&["recover", "--dry-run"], "interrupted"),
        (&["recover"], "clean"),
        (&["check"], "clean"),
        (&["show", "tx-1"], "rolled back"),
    ];
    let mut wrong = Vec::new();
    for (arguments, state) in states {
        let value = json(&case.repo.jin_txn([&["--json"], arguments].concat()));
        if value["state"] != state || value["version"] != 1 {
            wrong
                .push(format!("{arguments:?}: version {}, state {}, not 1, {state}", value["version"], value["state"]));
        }
    }
    assert!(wrong.is_empty(), "each tells its version and the state: {wrong:#?}");
    let log = json(&case.repo.jin_txn(["log", "--json"]));
    assert_eq!(log["version"], 1, "{log:#}");
    assert_eq!(log["transactions"][0]["id"], "tx-1", "{log:#}");
    let install = json(&case.repo.jin_txn(["install", "--json"]));
    assert_eq!(install["binary"], jin_txn().display().to_string(), "{install:#}");
}

#[test]
fn log_lists_the_newest_first_and_no_more_than_asked_for() {
    let case = Case::new();
    for branch in ["one", "two", "three"] {
        case.repo.git(["branch", branch]);
    }
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["log"])), @"
    tx-3     [TIME]  committed       1 ref  git branch three
    tx-2     [TIME]  committed       1 ref  git branch two
    tx-1     [TIME]  committed       1 ref  git branch one
    --- stderr
    --- exit 0
    ");
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["log", "-n", "1"])), @"
    tx-3     [TIME]  committed       1 ref  git branch three
    --- stderr
    --- exit 0
    ");
    let listed = json(&case.repo.jin_txn(["log", "-n", "2", "--json"]));
    assert_eq!(listed["transactions"].as_array().map(Vec::len), Some(2), "{listed:#}");
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["log", "-n", "0"])), @"
    --- stderr
    --- exit 0
    ");
}

#[test]
fn log_lists_what_moves_no_ref_too_and_finds_operations_by_ref_command_and_time() {
    let case = Case::new();
    case.repo.write("file", "one\n");
    case.repo.git(["add", "file"]);
    case.repo.git(["commit", "-q", "-m", "one"]);
    case.repo.git(["branch", "one"]);
    case.repo.git(["tag", "one"]);
    case.repo.write("file", "two\n");
    case.repo.git(["restore", "file"]);
    let list = |arguments: &[&str]| -> Vec<String> {
        let log = text(&case.repo.jin_txn([&["log"], arguments].concat()).stdout).into_owned();
        log.lines().map(|line| line.split("  ").last().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(list(&[]), ["git restore file", "git tag one", "git branch one", "git commit -q -m one"]);
    assert_eq!(list(&["--ref", "one"]), ["git tag one", "git branch one"]);
    assert_eq!(list(&["--ref", "refs/tags/one"]), ["git tag one"]);
    assert_eq!(list(&["--command", "commit"]), ["git commit -q -m one"]);
    assert_eq!(list(&["--since", "1 hour ago"]).len(), 4);
    assert_eq!(list(&["--since", "1999-01-01"]).len(), 4);
    assert_eq!(list(&["--since", "2999-01-01"]).len(), 0);
    let relative = text(&case.repo.jin_txn(["log", "--date", "relative"]).stdout).into_owned();
    // The columns are aligned: one second is shorter than two seconds.
    assert!(relative.lines().all(|line| line.contains(" ago  ") && line.contains("  committed ")), "{relative}");
    let listed = json(&case.repo.jin_txn(["log", "--json", "--ref", "refs/heads/one"]));
    assert_eq!(listed["operations"][0]["moves"][0]["ref"], "refs/heads/one", "{listed:#}");
    assert_eq!(listed["operations"][0]["moves"][0]["before"], "absent", "{listed:#}");
    let newest = text(&case.repo.jin_txn(["show"]).stdout).into_owned();
    assert!(newest.contains("operation  git tag one"), "{newest}");
}

#[test]
fn show_tells_one_transaction_and_refuses_what_it_does_not_know() {
    let case = Case::new();
    case.repo.git(["branch", "-D", "alpha"]);
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["show", "tx-1"])), @"
    tx-1  committed
    operation  git branch -D alpha
    begun      [TIME] by pid [PID] on [HOST]
    refs/heads/alpha
      before  [ID]
      after   absent
    --- stderr
    --- exit 0
    ");
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["show", "tx-99"])), @"
    --- stderr
    error: tx-99 is not in the log of [DIR]/repo/.git; `git txn log` lists what is
    --- exit 1
    ");
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["show", "nonsense"])), @"
    --- stderr
    error: invalid value 'nonsense' for '[ID]': `nonsense` is not a transaction id (such as tx-7)

    For more information, try '--help'.
    --- exit 2
    ");
}

#[test]
fn commands_that_look_change_nothing() {
    let case = Case::torn();
    let before = tree(&case.repo.git_dir());
    for arguments in [&["status"][..], &["check"], &["log"], &["show", "tx-1"], &["--help"], &["recover", "--dry-run"]]
    {
        case.repo.jin_txn(arguments);
        assert_same(&before, &tree(&case.repo.git_dir()), &format!("{arguments:?} changed something"));
    }
}

#[test]
fn commands_that_look_create_nothing_in_an_unprotected_repository() {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    let before = tree(&repo.git_dir());
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["status"])), @r"
    not protected: [DIR]/repo/.git
      it has no .jin directory: run `jin-txn install`
    clean: nothing is unfinished
    --- stderr
    --- exit 6
    ");
    for arguments in [&["status"][..], &["check"], &["log"], &["show", "tx-1"], &["recover", "--dry-run"]] {
        repo.jin_txn(arguments);
        assert_same(&before, &tree(&repo.git_dir()), &format!("{arguments:?} changed something"));
    }
}

#[test]
fn quiet_is_quiet() {
    let case = Case::torn();
    for arguments in [&["recover", "-q"][..], &["install", "-q"], &["uninstall", "-q"]] {
        let output = case.repo.jin_txn(arguments);
        assert!(output.status.success(), "{arguments:?} works: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?} says {output:?}");
    }
}

#[test]
fn the_repository_can_be_named_from_anywhere() {
    let case = Case::torn();
    let elsewhere = case.repo.scratch().join("home");
    let repo = case.repo.path().display().to_string();
    let git_dir = case.repo.git_dir().display().to_string();
    for arguments in [["-C", &repo, "check"], ["--git-dir", &git_dir, "check"]] {
        let output = case.repo.run(jin_txn().as_os_str(), &elsewhere, arguments, b"");
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn demo_kills_a_real_git_recovers_and_cleans_up() {
    let repo = Repo::new(Options::default());
    let temporary = repo.scratch().join("tmp");
    fs::create_dir(&temporary).expect("a directory can be made");
    let run = |arguments: &[&str]| {
        let mut command = repo.command(jin_txn().as_os_str());
        let output = command.args(arguments).env("TMPDIR", &temporary).stdin(Stdio::null()).output();
        output.expect("the demo starts")
    };
    insta::assert_snapshot!(shown(&repo, &run(&["demo"])), @"
    A repository with five branches, protected. One `git update-ref --stdin` moves all five at once.
    git is killed (SIGKILL) between the second and the third:

      alpha    [ID]  NEW
      beta     [ID]  NEW
      delta    [ID]  old
      gamma    [ID]  old
      omega    [ID]  old
      left behind: refs/heads/delta.lock
      left behind: refs/heads/gamma.lock
      left behind: refs/heads/omega.lock

    jin-txn recover:

    jin-txn: rolled back tx-1 (`git update-ref --stdin`, pid [PID]): refs/heads/alpha is back at [ID], refs/heads/beta is back at [ID], trimmed the reflog of refs/heads/alpha and 1 more; see `git txn show tx-1`
    jin-txn: moved 3 stale locks to quarantine: refs/heads/delta.lock, refs/heads/gamma.lock, refs/heads/omega.lock

    and now:

      alpha    [ID]  old
      beta     [ID]  old
      delta    [ID]  old
      gamma    [ID]  old
      omega    [ID]  old

    All five are where they were, no lock is left, `git fsck` is clean, and a commit works.
    --- stderr
    --- exit 0
    ");
    assert_eq!(fs::read_dir(&temporary).expect("it is there").count(), 0, "the demo cleans up after itself");
    assert!(!repo.scratch().join("home/.local").exists(), "and leaves no note of its repository");
    assert!(run(&["demo", "--keep"]).status.success(), "the demo works again");
    assert_eq!(fs::read_dir(&temporary).expect("it is there").count(), 1, "--keep keeps the repository");
}

#[test]
fn help_lists_the_commands_and_usage_errors_exit_2() {
    let repo = Repo::new(Options::default());
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["--help"])), @"
    Crash-safe transactions for Git.

    Writes every ref transaction to a write-ahead log before git may apply it, and after a crash brings
    the repository to where each transaction happened wholly or not at all.

    Usage: jin-txn [OPTIONS] <COMMAND>

    Protect repositories:
      install     Protect a repository: link the hooks, set up `git txn`
      uninstall   Take jin-txn out of a repository again
      doctor      Check hooks, log, locks, durability and surroundings; say how to mend what is wrong
      list        List the repositories that you have protected: state, size of the log, path
      watch       Recover by itself when a git dies
      shell-init  Print shell code that looks before each git command, and a prompt segment

    See what is unfinished, and recover it:
      status      Say whether the repository is protected, and what is unfinished
      check       Look for interrupted transactions and stale locks, and change nothing
      recover     Recover interrupted transactions and remove stale locks
      rescue      Make a damaged repository work again, also one that was never protected
      quarantine  See, put back or let go what recovery and rescue have replaced

    See what was done, and take it back:
      log         List operations, newest first
      show        Show one operation or transaction: who made it, what it changed, how it ended
      undo        Take back the newest operation, or one that you name
      redo        Do again what was undone last, or one that you name

    Run things as one transaction:
      run         Run any command as one transaction
      apply       Update refs and files as one crash-safe transaction
      git         Check, recover if need be, then run git with these arguments

    Learn more:
      help        Print this message or the help of the given subcommand(s)
      man         Show the manual page, or write all pages into a directory
      demo        Kill a real git in a scratch repository, show the damage, recover it, show the proof
      wal         Look at the write-ahead log itself: is it whole, what is in it
      completions Print a completion script

    Options:
      -C <DIR>
              Run as if started in DIR

          --git-dir <DIR>
              The git directory to work on

          --json
              Print data as JSON

      -q, --quiet
              Say nothing but errors; `check`, `status` and `recover` then answer by their exit code
              alone

      -v, --verbose
              Say more

          --color <WHEN>
              Colour: auto (on terminals, unless NO_COLOR is set or git's color.ui is false; the
              default), always, never

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Examples:
      jin-txn install     # protect the repository that you are in
      git txn status      # is it protected, is anything unfinished?
      git txn log         # the last operations, newest first
      git txn undo        # take back the newest one
      git tx rebase main  # a rebase that happens wholly or not at all
    --- stderr
    --- exit 0
    ");
    for arguments in
        [&["frobnicate"][..], &["log", "-n", "many"], &["show", "nonsense"], &[], &["check", "--frobnicate"]]
    {
        let output = repo.jin_txn(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} is a usage error: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}: usage errors go to stderr");
    }
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
