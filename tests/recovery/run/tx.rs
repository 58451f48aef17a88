//! `git tx`: which commands are transactions, and what of a refused one stays.

use std::fs;

use super::restoring::guarded;
use crate::support::crash::run_jin;
use crate::support::repo::{Options, Repo, text, write_file};

fn tx(repo: &Repo, arguments: &[&str]) -> (i32, String) {
    let output = repo.try_git(["tx"].iter().chain(arguments));
    (output.status.code().unwrap_or(-1), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

#[test]
fn a_command_that_only_reads_is_no_transaction_and_another_is_one() {
    let repo = guarded();
    let runs = || repo.logged().iter().filter(|operation| operation.contains("jin-txn run")).count();
    for (arguments, code, transactions) in [
        (&["log", "--oneline", "-n1"][..], 0, 0),
        (&["-C", "dir", "status", "--short"], 0, 0),
        (&["show", "no-such-thing"], 128, 0),
        (&["diff", "--output=patch", "HEAD~1"], 0, 1),
        (&["tag", "made"], 0, 2),
    ] {
        let alone = (transactions == 0).then(|| repo.try_git(arguments));
        let (ended, said) = tx(&repo, arguments);
        assert_eq!((ended, runs()), (code, transactions), "{arguments:?}: {said}");
        if let Some(git) = alone {
            assert_eq!(said, format!("{}{}", text(&git.stdout), text(&git.stderr)), "{arguments:?}: git alone speaks");
        }
    }
}

#[test]
fn a_refused_commit_keeps_its_message_and_that_of_anothers_open_editor() {
    let repo = guarded();
    write_file(&repo.git_dir().join("hooks/commit-msg"), "#!/bin/sh\nexit 1\n", 0o755);
    repo.write("file", "three\n");
    let (code, said) = tx(&repo, &["commit", "-am", "an hour of thought"]);
    assert_eq!(code, 1, "{said}");
    let draft = || fs::read_to_string(repo.git_dir().join("COMMIT_EDITMSG")).expect("it is there");
    assert_eq!(draft(), "an hour of thought\n");
    assert_eq!(run_jin(&repo, &["run", "--", "sh", "-c", "echo typed >>.git/COMMIT_EDITMSG; exit 9"]).0, 9);
    assert_eq!(draft(), "an hour of thought\ntyped\n", "whoever has typed it");
}

#[test]
fn a_refused_push_says_that_the_remote_keeps_what_it_has() {
    let repo = guarded();
    let remote = repo.new_sibling("remote.git", Options { bare: true, ..Options::default() });
    let url = remote.path().display().to_string();
    repo.git(["push", "-q", &url, "main:taken"]);
    let (code, said) = tx(&repo, &["push", "-q", &url, "HEAD~1:refs/heads/new", "HEAD~1:taken"]);
    assert_eq!(code, 1, "{said}");
    assert_ne!(remote.read(["rev-parse", "new"]), "", "one ref was accepted");
    assert!(said.contains("this repository goes back to how it was"), "{said}");
    assert!(said.contains("what the remote has accepted stays there"), "{said}");
}
