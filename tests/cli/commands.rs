//! What a user meets at the command line: help, usage errors, `-q`, `-C`, the demo, and commands that only look.

use std::fs;
use std::process::Stdio;

use crate::support::hanging::Case;
use crate::support::observe::{assert_same, shown, tree};
use crate::support::repo::{Options, Repo, jin_txn, text};

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
