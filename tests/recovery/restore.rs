//! Undo and redo put back index, files and HEAD together with the refs, or change nothing.

mod attacked;
mod refused;
mod several;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use insta::assert_snapshot;

use crate::support::crash::{self, run_jin, unseen_git, value};
use crate::support::observe::shown;
use crate::support::repo::{Git, Options, Repo};
use crate::support::worktree::Whole;

/// `main` and `topic` have diverged, `ahead` is ahead of `main`. A file is changed and one is not tracked, and nobody touches them.
fn diverged() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.do_not_wait_for_locks();
    repo.write("file", "one\n");
    repo.write("gone", "soon\n");
    repo.write("mine", "before\n");
    repo.write("dir/deep/program", "#!/bin/sh\n");
    repo.commit_all("one");
    repo.git(["branch", "topic"]);
    repo.write("file", "two\n");
    repo.commit_all("two");
    repo.git(["checkout", "-q", "-b", "ahead"]);
    fs::remove_file(repo.path().join("gone")).unwrap();
    fs::remove_dir_all(repo.path().join("dir")).unwrap();
    symlink("file", repo.path().join("link")).unwrap();
    repo.write("new/deep/file", "new\n");
    repo.commit_all("ahead");
    repo.git(["checkout", "-q", "topic"]);
    repo.write("topic", "topic\n");
    fs::set_permissions(repo.path().join("dir/deep/program"), fs::Permissions::from_mode(0o755)).unwrap();
    repo.commit_all("on topic");
    repo.write("topic", "more\n");
    repo.commit_all("more on topic");
    repo.git(["checkout", "-q", "main"]);
    repo.write("mine", "local\n");
    repo.write("not-tracked", "mine\n");
    repo
}

/// Commands whose undo brings everything back.
const EXACT: &[&[&str]] = &[
    &["merge", "-q", "--no-edit", "topic"],
    &["merge", "-q", "ahead"],
    &["pull", "-q", "--ff-only", ".", "ahead"],
    &["pull", "-q", "--no-rebase", "--no-edit", ".", "topic"],
    &["cherry-pick", "topic~1", "topic"],
    &["revert", "--no-edit", "HEAD"],
    &["merge", "-q", "--no-ff", "-m", "about update-ref and commit", "topic"],
    &["reset", "-q", "--keep", "ahead"],
    &["reset", "-q", "--kee", "ahead"],
    &["reset", "-q", "--soft", "HEAD~1"],
    &["reset", "-q", "HEAD~1"],
    &["commit", "-q", "--allow-empty", "-m", "x"],
    &["commit", "-q", "--amend", "-m", "y"],
];

/// These move HEAD itself. Up to 2.45 only the hook that is called afterwards is told.
const SWITCHES: &[&[&str]] = &[
    &["switch", "-q", "topic"],
    &["checkout", "-q", "topic~1"],
    &["checkout", "-q", "--detach"],
    &["switch", "-q", "-c", "fresh", "ahead"],
    &["checkout", "-q", "-b", "other", "topic"],
];

fn exact_commands() -> Vec<&'static [&'static str]> {
    EXACT.iter().chain(SWITCHES).copied().collect()
}

fn assert_undone_and_redone(repo: &Repo, before: &Whole, after: &Whole, what: &str) {
    for round in 0..2 {
        for (direction, state) in [("undo", before), ("redo", after)] {
            let (code, said) = run_jin(repo, &[direction]);
            assert_eq!((code, &Whole::of(repo)), (0, state), "{what}: {direction} {round}: {said}");
        }
    }
    crash::assert_fsck(repo);
    assert_eq!(run_jin(repo, &["check"]).0, 0, "{what}");
}

/// The newest transaction that moved a ref.
fn newest(repo: &Repo) -> String {
    crash::transactions(repo).first().expect("there is one")["id"].as_str().expect("it has an id").to_owned()
}

#[test]
fn refs_head_index_and_files_of_everyday_commands_go_back_and_forth_together() {
    for command in exact_commands() {
        let repo = diverged();
        repo.git(["tag", "unrelated"]);
        let before = Whole::of(&repo);
        repo.git(command);
        let after = Whole::of(&repo);
        assert_ne!(before, after, "{command:?} changes something");
        assert_undone_and_redone(&repo, &before, &after, &format!("{command:?}"));
    }
}

#[test]
fn what_a_commit_staged_itself_is_not_staged_after_its_undo_and_is_after_its_redo() {
    for command in [&["commit", "-q", "-a", "-m", "all"][..], &["commit", "-q", "-m", "one", "mine"]] {
        let repo = diverged();
        repo.write("file", "edited\n");
        repo.write("other", "staged\n");
        repo.git(["add", "other"]);
        let before = Whole::of(&repo);
        repo.git(command);
        assert_undone_and_redone(&repo, &before, &Whole::of(&repo), &format!("{command:?}"));
        let (code, said) = run_jin(&repo, &["undo"]);
        assert_eq!((code, Whole::of(&repo)), (0, before), "{said}");
    }
}

#[test]
fn a_merge_that_a_commit_ended_is_in_progress_again_after_its_undo_and_not_after_its_redo() {
    let repo = diverged();
    repo.write("topic", "in conflict\n");
    repo.git(["add", "topic"]);
    repo.git(["commit", "-q", "-m", "conflicts with topic"]);
    repo.try_git(["merge", "-q", "topic"]);
    repo.write("topic", "resolved\n");
    repo.git(["add", "topic"]);
    let (before, message) = (Whole::of(&repo), fs::read_to_string(repo.git_dir().join("MERGE_MSG")).unwrap());
    repo.git(["commit", "-q", "-m", "resolved"]);
    assert_undone_and_redone(&repo, &before, &Whole::of(&repo), "commit");
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!((code, Whole::of(&repo)), (0, before), "{said}");
    assert_eq!(fs::read_to_string(repo.git_dir().join("MERGE_MSG")).unwrap(), message);
    // Somebody else's merge is not taken for it.
    fs::write(repo.git_dir().join("MERGE_HEAD"), "another\n").unwrap();
    let before = Whole::of(&repo);
    let (code, said) = run_jin(&repo, &["redo"]);
    assert_eq!((code, Whole::of(&repo)), (1, before), "{said}");
    assert!(said.contains("a merge is in progress"), "{said}");
}

#[test]
fn what_is_configured_for_a_branch_goes_and_comes_back_with_it_beside_what_changed_since() {
    let repo = diverged();
    repo.git(["config", "branch.topic.description", "words of \"topic\""]);
    repo.git(["config", "user.email", "a@example.com"]);
    let found = fs::read_to_string(repo.git_dir().join("config")).unwrap();
    repo.git(["branch", "-q", "-D", "topic"]);
    let deleted = fs::read_to_string(repo.git_dir().join("config")).unwrap();
    for (direction, text) in [("undo", &found), ("redo", &deleted), ("undo", &found)] {
        let (code, said) = run_jin(&repo, &[direction]);
        assert_eq!((code, &fs::read_to_string(repo.git_dir().join("config")).unwrap()), (0, text), "{said}");
    }
    // The list of what is to be compared with is that of the undo.
    let (code, said) = run_jin(&repo, &["redo"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("configuration: branch.topic"), "{said}");
    repo.git(["config", "a.b", "c"]);
    let (code, said) = run_jin(&repo, &["undo", &said_id(&said)]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(repo.read(["config", "branch.topic.description"]), "words of \"topic\"");
    assert_eq!(repo.read(["config", "a.b"]), "c");
}

/// The operation that was undone or done again.
fn said_id(said: &str) -> String {
    said.split(' ').find(|word| word.starts_with("tx-")).expect("it is named").to_owned()
}

#[test]
fn a_rebase_of_ten_and_a_pull_that_rebases_are_one_step_back_with_index_and_files() {
    for command in [&["rebase", "-q", "main"][..], &["pull", "-q", "--rebase", ".", "main"]] {
        let repo = diverged();
        repo.git(["checkout", "-q", "topic", "--", "mine"]);
        repo.git(["checkout", "-q", "topic"]);
        for n in 0..10 {
            repo.write(&format!("n{n}"), "x\n");
            repo.git(["add", &format!("n{n}")]);
            repo.commit_all(&format!("n{n}"));
        }
        repo.write("not-tracked-either", "mine\n");
        let before = Whole::of(&repo);
        repo.git(command);
        assert_undone_and_redone(&repo, &before, &Whole::of(&repo), &format!("{command:?}"));
    }
}

#[test]
fn patches_that_were_applied_are_taken_back_with_their_files() {
    let repo = diverged();
    let patches = repo.read(["format-patch", "-2", "--stdout", "topic"]) + "\n";
    let before = Whole::of(&repo);
    repo.git_with_input(["am", "-q"], &patches);
    assert_undone_and_redone(&repo, &before, &Whole::of(&repo), "am");
}

#[test]
fn ten_undos_and_ten_redos_walk_over_a_mixed_day_of_work_with_equal_states_at_each_step() {
    let repo = diverged();
    let mut states = vec![Whole::of(&repo)];
    let steps: [&[&str]; 10] = [
        &["merge", "-q", "ahead"],
        &["tag", "v1"],
        &["commit", "-q", "--allow-empty", "-m", "empty"],
        &["reset", "-q", "--keep", "HEAD~2"],
        &["merge", "-q", "--no-edit", "topic"],
        &["switch", "-q", "-c", "aside"],
        &["revert", "--no-edit", "-m", "1", "HEAD"],
        &["commit", "-q", "--amend", "-m", "amended"],
        &["reset", "-q", "--soft", "HEAD~1"],
        &["branch", "-q", "-f", "other", "topic"],
    ];
    for step in steps {
        repo.git(step);
        states.push(Whole::of(&repo));
    }
    for (step, state) in states.iter().enumerate().rev().skip(1) {
        let (code, said) = run_jin(&repo, &["undo"]);
        assert_eq!((code, &Whole::of(&repo)), (0, state), "undo to {step}: {said}");
    }
    for (step, state) in states.iter().enumerate().skip(1) {
        let (code, said) = run_jin(&repo, &["redo"]);
        assert_eq!((code, &Whole::of(&repo)), (0, state), "redo to {step}: {said}");
    }
    crash::assert_fsck(&repo);
}

#[test]
fn with_keep_worktree_refs_go_back_and_index_and_files_stay() {
    let repo = diverged();
    let before = Whole::of(&repo);
    repo.git(["merge", "-q", "ahead"]);
    let after = Whole::of(&repo);
    let (code, said) = run_jin(&repo, &["undo", "--keep-worktree"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(Whole::of(&repo), Whole { refs: before.refs, ..after });
}

/// A filter that turns letters around, line endings that are no blob's, and attributes that change with the files.
#[test]
fn files_are_compared_and_written_as_a_checkout_writes_them() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.git(["config", "filter.turn.smudge", "tr a-z b-za"]);
    repo.git(["config", "filter.turn.clean", "tr b-za a-z"]);
    repo.write(".gitattributes", "*.turned filter=turn\n*.crlf text eol=crlf\n");
    repo.write("a.turned", "abc\n");
    repo.write("a.crlf", "one\r\n");
    repo.commit_all("one");
    repo.git(["checkout", "-q", "-b", "other"]);
    repo.write("a.turned", "bcd\n");
    repo.write("a.crlf", "two\r\n");
    repo.write("b.turned", "xyz\n");
    repo.commit_all("two");
    repo.write(".gitattributes", "*.crlf text eol=lf\n*.turned -filter\n");
    repo.commit_all("other attributes");
    repo.git(["checkout", "-q", "main"]);
    for target in ["other~1", "other"] {
        if target == "other" && !Git::under_test().is_at_least(2, 41) {
            continue;
        }
        let before = Whole::of(&repo);
        repo.git(["merge", "-q", target]);
        let after = Whole::of(&repo);
        assert_eq!(repo.read(["status", "--porcelain"]), "");
        assert_undone_and_redone(&repo, &before, &after, target);
        let (code, said) = run_jin(&repo, &["undo"]);
        assert_eq!((code, Whole::of(&repo)), (0, before), "{said}");
        assert_eq!(repo.read(["status", "--porcelain"]), "");
    }
}

#[test]
fn what_happens_elsewhere_in_between_neither_stops_an_undo_nor_is_touched_by_it() {
    let repo = diverged();
    repo.git(["worktree", "add", "-q", "../linked", "-b", "side"]);
    let before = Whole::of(&repo);
    repo.git(["merge", "-q", "ahead"]);
    let linked = repo.sibling("linked");
    linked.write("file", "side\n");
    linked.git(["commit", "-qam", "on the side"]);
    // As a program does that fetches by itself.
    unseen_git(&repo, &["update-ref", "refs/remotes/origin/main", "topic"]);
    let (side, theirs) = (Whole::of(&linked), value(&repo, "refs/remotes/origin/main"));
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!(code, 0, "{said}");
    let found = Whole::of(&repo);
    assert_eq!((found.head, found.index, found.files), (before.head, before.index, before.files), "{said}");
    assert_eq!(value(&repo, "refs/remotes/origin/main"), theirs);
    let side_now = Whole::of(&linked);
    assert_eq!((side_now.head, side_now.index, side_now.files), (side.head, side.index, side.files));
}

#[test]
fn a_switch_that_was_undone_is_where_git_checkout_goes_back_to() {
    let repo = diverged();
    repo.git(["switch", "-q", "topic"]);
    let told = run_jin(&repo, &["undo", "-n"]).1;
    let id = told.split(' ').find(|word| word.starts_with("tx-")).unwrap().to_owned();
    assert_snapshot!(shown(&repo, &repo.jin_txn(["undo", "-n"])).replace(&id, "[TX]"), @r"
    --- stderr
    jin-txn: would undo [TX] (`git switch -q topic`)
      HEAD: ref: refs/heads/topic -> ref: refs/heads/main
      index: 3 entries
      dir/deep/program: changed
      file: changed
      topic: removed
    --- exit 0
    ");
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(repo.read(["reflog", "-1", "--format=%gs", "HEAD"]), "checkout: moving from topic to main");
    repo.git(["checkout", "-q", "-"]);
    assert_eq!(repo.read(["symbolic-ref", "HEAD"]), "refs/heads/topic");
}

#[test]
fn an_undo_says_what_becomes_of_refs_index_and_files_before_and_after() {
    let repo = diverged();
    repo.git(["merge", "-q", "ahead"]);
    let told = run_jin(&repo, &["undo", "-n"]).1;
    let id = told.split(' ').find(|word| word.starts_with("tx-")).unwrap().to_owned();
    let shown = |arguments: &[&str]| shown(&repo, &repo.jin_txn(arguments)).replace(&id, "[TX]");
    let before = Whole::of(&repo);
    assert_snapshot!(shown(&["undo", "-n"]), @r"
    --- stderr
    jin-txn: would undo [TX] (`git merge -q ahead`)
      refs/heads/main: [ID] -> [ID]
      index: 4 entries
      dir/deep/program: added
      gone: added
      link: removed
      new/deep/file: removed
    --- exit 0
    ");
    assert_eq!(Whole::of(&repo), before, "nothing was changed");
    assert_snapshot!(shown(&["--json", "undo"]), @r#"
    {
      "version": 1,
      "id": "[TX]",
      "operation": "git merge -q ahead",
      "direction": "undo",
      "done": true,
      "refs": [
        {
          "ref": "refs/heads/main",
          "from": "[ID]",
          "to": "[ID]"
        }
      ],
      "index": 4,
      "files": [
        "dir/deep/program",
        "gone",
        "link",
        "new/deep/file"
      ]
    }
    --- stderr
    --- exit 0
    "#);
    repo.write("link", "mine\n");
    repo.write("new", "mine\n");
    assert_snapshot!(shown(&["redo"]), @r"
    --- stderr
    error: [TX] is not reversed, and nothing was changed: these paths are not as it left them
      link: a file that is not tracked is in its place
      new/deep/file: `new/deep/file` lies below something that is not a directory
    hint: `git stash -u` puts changes away; `--keep-worktree` leaves index and files as they are
    --- exit 1
    ");
}
