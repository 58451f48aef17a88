//! All repositories that a user has protected: `list`, `status --all`, `recover --all`.

use std::fs;
use std::process::Output;

use crate::support::hanging::Case;
use crate::support::observe::shown;
use crate::support::repo::{Options, Repo, give_to, text};
use serde_json::Value;

fn json(output: &Output) -> Value {
    serde_json::from_str(&text(&output.stdout)).unwrap_or_else(|error| panic!("not JSON ({error}): {output:?}"))
}

fn guarded() -> Options {
    Options { guarded: true, ..Options::default() }
}

/// A torn repository, one with a stale lock, a bare one, and one that was removed after it was protected.
fn several() -> Case {
    let case = Case::torn();
    let repo = &case.repo;
    let locked = repo.new_sibling("locked", guarded());
    fs::write(locked.git_dir().join("config.lock"), "").expect("a lock can be left");
    repo.new_sibling("zz-bare.git", Options { bare: true, ..guarded() });
    let gone = repo.new_sibling("gone", guarded());
    fs::remove_dir_all(gone.path()).expect("it can be removed");
    case
}

#[test]
fn list_names_what_is_protected_with_its_state_and_leaves_out_what_is_gone() {
    let case = several();
    let listed = json(&case.repo.jin_txn(["list", "--json"]));
    assert_eq!(listed["version"], 1);
    let rows: Vec<_> = listed["repositories"].as_array().expect("a list").iter().collect();
    let told: Vec<_> = rows.iter().map(|row| (row["path"].as_str().expect("a path"), &row["state"])).collect();
    let path = |name: &str| case.repo.scratch().join(name).display().to_string();
    let expected = [("locked", "interrupted"), ("repo", "interrupted"), ("zz-bare.git", "clean")];
    assert_eq!(told.len(), expected.len(), "{listed:#}");
    for (told, (name, state)) in told.iter().zip(expected) {
        assert_eq!((told.0, told.1.as_str()), (path(name).as_str(), Some(state)), "{listed:#}");
    }
    assert!(rows.iter().all(|row| row["wal_bytes"].is_u64()), "{listed:#}");
    let lines = text(&case.repo.jin_txn(["list"]).stdout).into_owned();
    let line = lines.lines().find(|line| line.ends_with("zz-bare.git")).expect("it is listed");
    assert!(line.starts_with("clean ") && line.contains("bytes") || line.contains("KiB"), "{line}");
}

#[test]
fn recover_all_recovers_each_and_says_where_and_then_all_are_clean() {
    let case = several();
    let repo = &case.repo;
    assert_eq!(repo.jin_txn(["status", "--all"]).status.code(), Some(3), "something waits");
    let told = json(&repo.jin_txn(["recover", "--all", "--dry-run", "--json"]));
    let states: Vec<_> =
        told["repositories"].as_array().expect("a list").iter().map(|it| it["state"].clone()).collect();
    assert_eq!(states, ["interrupted", "interrupted", "clean"], "{told:#}");
    insta::assert_snapshot!(shown(repo, &repo.jin_txn(["recover", "--all"])), @"
    --- stderr
    jin-txn: in [DIR]/locked:
    jin-txn: moved 1 stale lock to quarantine: config.lock
    jin-txn: in [DIR]/repo:
    jin-txn: rolled back tx-1 (`git update-ref --stdin`, pid [PID]): refs/heads/alpha is back at [ID], refs/heads/beta is back at [ID], trimmed the reflog of refs/heads/alpha and 1 more; see `git txn show tx-1`
    jin-txn: moved 2 stale locks to quarantine: refs/heads/gamma.lock, refs/heads/omega.lock
    --- exit 0
    ");
    assert_eq!(case.values(), ["old"; 4], "the torn update went back");
    assert!(!repo.sibling("locked").git_dir().join("config.lock").exists(), "and the lock is gone");
    insta::assert_snapshot!(shown(repo, &repo.jin_txn(["recover", "--all"])), @"
    --- stderr
    jin-txn: nothing to recover (repositories: 3)
    --- exit 0
    ");
    let status = repo.jin_txn(["status", "--all"]);
    assert_eq!(status.status.code(), Some(0));
    assert_eq!(text(&status.stdout).matches("clean: nothing is unfinished").count(), 3, "{}", shown(repo, &status));
    assert_eq!(json(&repo.jin_txn(["status", "--all", "--json"]))["repositories"].as_array().map(Vec::len), Some(3));
}

#[test]
fn nothing_is_done_where_the_note_does_not_fit_and_the_others_are_recovered_all_the_same() {
    let case = several();
    let repo = &case.repo;
    // Somebody has put another repository there, with everything that can be copied.
    let locked = repo.sibling("locked");
    let aside = repo.scratch().join("aside");
    fs::rename(locked.path(), &aside).expect("it can be moved");
    let copied = std::process::Command::new("cp").arg("-a").arg(&aside).arg(locked.path()).status();
    assert!(copied.is_ok_and(|status| status.success()), "it can be copied");
    fs::remove_dir_all(&aside).expect("it can be removed");
    let output = repo.jin_txn(["recover", "--all"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(repo, &output));
    assert!(locked.git_dir().join("config.lock").exists(), "another repository is left alone");
    assert_eq!(case.values(), ["old"; 4], "{}", shown(repo, &output));
    let listed = text(&repo.jin_txn(["list"]).stdout).into_owned();
    let first: Vec<_> = listed.lines().take(2).map(str::trim_start).collect();
    assert!(first[0].starts_with("unknown") && first[0].ends_with("/locked"), "{listed}");
    assert_eq!(first[1], "another repository is there than the one that was protected: `jin-txn install` protects it");
    insta::assert_snapshot!(shown(repo, &repo.jin_txn(["status", "--all"])), @"
    protected: [DIR]/repo/.git
    durability: full (power cuts)
    clean: nothing is unfinished
    protected: [DIR]/zz-bare.git
    durability: full (power cuts)
    clean: nothing is unfinished
    --- stderr
    error: [DIR]/locked
    caused by: another repository is there than the one that was protected: `jin-txn install` protects it
    --- exit 1
    ");
}

#[test]
fn a_repository_that_was_given_away_is_not_touched() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give a repository to somebody else");
        return;
    }
    let case = several();
    let locked = case.repo.sibling("locked");
    give_to(46_001, locked.path());
    let output = case.repo.jin_txn(["recover", "--all"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&case.repo, &output));
    assert!(locked.git_dir().join("config.lock").exists(), "git refuses it, and so do we");
}

#[test]
fn with_no_repository_and_no_place_for_notes_that_is_what_is_said() {
    let repo = Repo::new(Options::default());
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["list"])), @"
    --- stderr
    jin-txn: no repository is protected by you; `jin-txn install` in one protects it
    --- exit 0
    ");
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["recover", "--all"])), @"
    --- stderr
    jin-txn: no repository is protected by you; `jin-txn install` in one protects it
    --- exit 0
    ");
    let homeless = |arguments: &[&str]| {
        let mut command = repo.command(crate::support::repo::jin_txn().as_os_str());
        command.args(arguments).env_remove("HOME").env_remove("XDG_STATE_HOME");
        shown(&repo, &command.output().expect("it starts"))
    };
    insta::assert_snapshot!(homeless(&["list"]), @"
    --- stderr
    error: there is no HOME, and no XDG_STATE_HOME: without one of them there are no notes
    --- exit 1
    ");
    insta::assert_snapshot!(homeless(&["watch", "--status"]), @"
    --- stderr
    error: no watch can run here, and nothing was changed: HOME is not set, XDG_RUNTIME_DIR is too long for a socket, or /proc is not mounted
    hint: set HOME, or a shorter XDG_RUNTIME_DIR, then run this again
    hint: repositories are protected without a watch, too: after a git was killed, `git txn recover` recovers
    --- exit 1
    ");
    let both = repo.jin_txn(["--git-dir", ".git", "status", "--all"]);
    assert_eq!(both.status.code(), Some(1), "{}", shown(&repo, &both));
}
