//! What `log` and `show` list, and the JSON of each command.

use std::process::Output;

use serde_json::Value;

use crate::support::hanging::Case;
use crate::support::observe::shown;
use crate::support::repo::{jin_txn, text};

fn json(output: &Output) -> Value {
    let stdout = text(&output.stdout);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {stdout}"))
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
