//! Several operations at once: `undo --to`, and the choice at a terminal.

use insta::assert_snapshot;

use super::diverged;
use crate::support::crash::{run_jin, transactions, value};
use crate::support::observe::shown;
use crate::support::repo::{Repo, jin_txn};
use crate::support::terminal::Terminal;
use crate::support::worktree::Whole;

/// The operation with this command line: its first transaction.
fn id_of(repo: &Repo, command: &str) -> String {
    let all = transactions(repo);
    let found = all.iter().rfind(|t| t["operation"] == command).expect("it is logged");
    found["id"].as_str().expect("an id").to_owned()
}

#[test]
fn everything_newer_than_an_operation_goes_back_in_steps_or_stops_and_says_where() {
    let repo = diverged();
    repo.git(["tag", "start"]);
    let start = id_of(&repo, "git tag start");
    let before = Whole::of(&repo);
    repo.git(["merge", "-q", "ahead"]);
    repo.git(["branch", "side"]);
    repo.write("other", "other\n");
    repo.git(["add", "other"]);
    repo.git(["stash", "push", "-q", "other"]);
    let after = Whole::of(&repo);
    let show = |arguments: &[&str]| {
        let mut text = shown(&repo, &repo.jin_txn(arguments));
        for (number, command) in
            ["tag start", "merge -q ahead", "branch side", "stash push -q other"].iter().enumerate()
        {
            text = text.replace(&id_of(&repo, &format!("git {command}")), &format!("[TX{number}]"));
        }
        text
    };
    assert_snapshot!(show(&["undo", "-n", "--to", &start]), @r"
    --- stderr
    jin-txn: would undo [TX3] (`git stash push -q other`)
      refs/stash: [ID] -> absent
      index: 1 entry
      other: added
    jin-txn: would undo [TX2] (`git branch side`)
      refs/heads/side: [ID] -> absent
    jin-txn: would undo [TX1] (`git merge -q ahead`)
      refs/heads/main: [ID] -> [ID]
      index and files of the older ones are looked at when the newer ones are undone
    --- exit 0
    ");
    assert_eq!(Whole::of(&repo), after, "nothing was changed");
    // The file of the merge is another one: the two above it go back, and then it stops.
    repo.write("new/deep/file", "mine\n");
    assert_snapshot!(show(&["undo", "--to", &start]), @r"
    --- stderr
    jin-txn: undid [TX3] (`git stash push -q other`)
      refs/stash: [ID] -> absent
      index: 1 entry
      other: added
    jin-txn: undid [TX2] (`git branch side`)
      refs/heads/side: [ID] -> absent
    error: 2 of 3 operations are undone, and [TX1] is not
    caused by: [TX1] is not reversed, and nothing was changed: these paths are not as it left them
      new/deep/file: it has been changed
    hint: `git stash -u` puts changes away; `--keep-worktree` leaves index and files as they are
    --- exit 1
    ");
    repo.write("new/deep/file", "new\n");
    std::fs::remove_file(repo.path().join("other")).expect("the stash is undone");
    repo.git(["rm", "-q", "--cached", "other"]);
    let (code, said) = run_jin(&repo, &["undo", "--to", &start]);
    assert_eq!(code, 1, "nobody has seen what was taken out of the index: {said}");
    repo.git(["tag", "end"]);
    let (code, said) = run_jin(&repo, &["undo", "--to", &start]);
    assert_eq!((code, Whole::of(&repo)), (0, before), "{said}");
    assert_eq!(run_jin(&repo, &["undo", "--to", &start]).0, 1, "nothing is newer");
}

#[test]
fn what_the_log_knows_to_stay_keeps_everything_newer_from_going_back() {
    let repo = diverged();
    repo.git(["branch", "other"]);
    repo.git(["tag", "start"]);
    let start = id_of(&repo, "git tag start");
    repo.git(["branch", "-M", "topic", "other"]);
    repo.git(["tag", "end"]);
    let (code, said) = run_jin(&repo, &["undo", "--to", &start]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("renamed a branch"), "{said}");
    assert_ne!(value(&repo, "end"), "", "{said}");
}

#[test]
fn at_a_terminal_one_chooses_how_many_operations_go_back() {
    let repo = diverged();
    for tag in ["one", "two", "three"] {
        repo.git(["tag", tag]);
    }
    let ask = |answer: &str| {
        let mut command = repo.command(jin_txn().as_os_str());
        command.args(["undo", "-i"]);
        let mut terminal = Terminal::start(command);
        terminal.wait_for("git tag three");
        terminal.wait_for("Undo 1 to which?");
        terminal.type_line(answer);
        assert!(terminal.ended().success());
    };
    ask("");
    assert_ne!(value(&repo, "three"), "", "nothing was chosen");
    ask("2");
    assert_eq!(["one", "two", "three"].map(|tag| !value(&repo, tag).is_empty()), [true, false, false]);
    assert_snapshot!(shown(&repo, &repo.jin_txn(["undo", "-i"])), @r"
    --- stderr
    error: `--interactive` needs a terminal
    hint: nothing was changed; `git txn log` lists operations, and `git txn undo --to ID` takes back what is newer than one
    --- exit 2
    ");
}
