//! Taking finished transactions back, and doing them again.

mod attacked;
mod every_command;
mod every_stash;
mod keeping;
mod renames;

use insta::assert_snapshot;

use crate::support::crash::{self, assert_recovers, run_jin, spare_commit, transactions, unseen_git, value};
use crate::support::observe::shown;
use crate::support::repo::{Options, Repo};
use crate::support::table;
use crate::support::tracer::{self, Action, Event, Isolation};

/// How many places of an undo are killed by default; `JIN_KILL=all` takes all.
const PLACES: usize = 10;

fn guarded() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.do_not_wait_for_locks();
    repo.write("file", "one\n");
    repo.commit_all("one");
    repo.write("file", "two\n");
    repo.commit_all("two");
    repo
}

/// Ten transactions of different kinds.
fn ten_transactions(repo: &Repo) -> Vec<String> {
    let other = spare_commit(repo, "other");
    let many: String = (0..4).map(|n| format!("create refs/custom/{n} {other}\n")).collect();
    let fewer = format!("update refs/custom/0 {}\ndelete refs/custom/1\n", value(repo, "HEAD"));
    let mut states = vec![repo.read(["for-each-ref"])];
    let run = |script: &str| {
        let (code, said) = run_jin(repo, &["run", "--", "sh", "-ec", script]);
        assert_eq!(code, 0, "{said}");
    };
    let steps: [&dyn Fn(); 10] = [
        &|| drop(repo.commit_all("three")),
        &|| drop(repo.git(["branch", "topic", "HEAD~1"])),
        &|| drop(repo.git(["tag", "v1"])),
        &|| run("git commit -q --allow-empty -m a; git tag -a -m annotated v2; git commit -q --allow-empty -m b"),
        &|| drop(repo.git_with_input(["update-ref", "--stdin"], &many)),
        &|| drop(repo.git(["branch", "-q", "-f", "topic", "HEAD"])),
        &|| run("git commit -q --amend --allow-empty -m amended; git tag gone; git tag -d gone; git branch -f topic"),
        &|| drop(repo.git(["tag", "-d", "v1"])),
        &|| {
            repo.write("change", &fewer);
            assert_eq!(run_jin(repo, &["apply", "change"]).0, 0);
        },
        &|| drop(repo.git(["branch", "-q", "-D", "topic"])),
    ];
    for step in steps {
        step();
        states.push(repo.read(["for-each-ref"]));
    }
    states
}

#[test]
fn ten_undos_walk_back_through_ten_transactions_and_ten_redos_return() {
    let repo = guarded();
    let states = ten_transactions(&repo);
    for (step, state) in states.iter().enumerate().rev().skip(1) {
        let (code, said) = run_jin(&repo, &["undo"]);
        assert_eq!((code, repo.read(["for-each-ref"])), (0, state.clone()), "undo to {step}: {said}");
    }
    for (step, state) in states.iter().enumerate().skip(1) {
        let (code, said) = run_jin(&repo, &["redo"]);
        assert_eq!((code, repo.read(["for-each-ref"])), (0, state.clone()), "redo to {step}: {said}");
    }
    assert_eq!(run_jin(&repo, &["redo"]).0, 1, "nothing is undone any more");
    crash::assert_fsck(&repo);
}

#[test]
fn a_run_is_undone_as_one_step_or_refused_for_what_one_of_its_parts_is() {
    let repo = guarded();
    let run = |script: &str| run_jin(&repo, &["run", "--", "sh", "-ec", script]);
    assert_eq!(run("git tag a; git tag b; git branch topic").0, 0);
    let (code, said) = run_jin(&repo, &["undo", "--dry-run"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said.lines().filter(|line| line.contains("-> absent")).count(), 3, "{said}");
    // A run that was taken back is nothing to undo.
    assert_eq!(run("git tag c; exit 9").0, 9);
    let failed = transactions(&repo)[0]["id"].as_str().expect("an id").to_owned();
    let (code, said) = run_jin(&repo, &["undo", &failed]);
    assert_eq!(code, 1, "{said}");
    // Nor are its parts, or those of one that was kept.
    for part in crash::wal(&repo).iter().filter(|r| r["type"] == "begin" && r["data"]["part_of"].is_string()) {
        let id = part["tx"].as_str().expect("an id");
        assert_eq!(run_jin(&repo, &["undo", id]).0, 1, "{id}");
    }
}

#[test]
fn undoing_a_commit_leaves_index_and_worktree_alone() {
    let repo = guarded();
    let before = value(&repo, "HEAD~1");
    repo.write("uncommitted", "mine\n");
    assert_snapshot!(shown(&repo, &repo.jin_txn(["undo"])), @r"
    --- stderr
    jin-txn: undid tx-2 (`git commit --quiet --allow-empty -m two`)
      refs/heads/main: [ID] -> [ID]
      index and files stay as they are: `git status` shows the difference
    --- exit 0
    ");
    assert_eq!(value(&repo, "HEAD"), before);
    assert_eq!(repo.read(["status", "--porcelain"]), "M  file\n?? uncommitted");
    assert_snapshot!(shown(&repo, &repo.jin_txn(["redo", "--dry-run"])), @r"
    --- stderr
    jin-txn: would redo tx-2 (`git commit --quiet --allow-empty -m two`)
      refs/heads/main: [ID] -> [ID]
      index and files stay as they are: `git status` shows the difference
    --- exit 0
    ");
    assert_eq!(repo.jin_txn(["redo"]).status.code(), Some(0));
    assert_eq!(repo.read(["status", "--porcelain"]), "?? uncommitted");
}

#[test]
fn what_is_undone_says_so_in_the_log() {
    let repo = guarded();
    repo.git(["tag", "v1"]);
    run_jin(&repo, &["undo"]);
    let states =
        || transactions(&repo).iter().map(|t| t["state"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>();
    assert_eq!(states(), ["committed", "undone", "committed", "committed"]);
    run_jin(&repo, &["redo"]);
    assert_eq!(states(), ["committed", "committed", "committed", "committed", "committed"]);
    assert!(repo.read(["reflog", "main"]).contains("two"), "the reflog is git's");
}

#[test]
fn a_transaction_whose_refs_moved_on_is_refused_with_their_names() {
    let repo = guarded();
    let (first, second) = (value(&repo, "HEAD~1"), value(&repo, "HEAD"));
    let input = |to: &str| ["a", "b", "c"].map(|n| format!("update refs/custom/{n} {to}\n")).concat();
    repo.git_with_input(["update-ref", "--stdin"], &input(&first));
    repo.git_with_input(["update-ref", "--stdin"], &input(&second));
    unseen_git(&repo, &["update-ref", "refs/custom/b", &first]);
    unseen_git(&repo, &["update-ref", "-d", "refs/custom/c"]);
    let before = repo.read(["for-each-ref"]);
    assert_snapshot!(shown(&repo, &repo.jin_txn(["undo"])), @r"
    --- stderr
    error: tx-4 is not reversed, and nothing was changed: refs have moved on since
      refs/custom/b is [ID] now
      refs/custom/c is absent now
    --- exit 1
    ");
    assert_eq!(repo.read(["for-each-ref"]), before, "nothing was changed");
}

#[test]
fn what_is_more_than_values_of_refs_is_refused_and_nothing_older_is_taken_back_instead() {
    let repo = guarded();
    repo.git(["tag", "v1"]);
    let refused = |command: &[&str], why: &str| {
        repo.git(command);
        let before = repo.read(["for-each-ref"]);
        let newest = transactions(&repo)[0]["id"].as_str().expect("an id").to_owned();
        for arguments in [&["undo"][..], &["undo", &newest]] {
            let (code, said) = run_jin(&repo, arguments);
            assert_eq!((code, repo.read(["for-each-ref"])), (1, before.clone()), "{command:?}, {arguments:?}: {said}");
            assert!(said.contains(why), "{command:?}, {arguments:?}: {said}");
        }
    };
    repo.write("file", "stashed\n");
    repo.git(["add", "file"]);
    repo.git(["update-ref", "-m", "words", "--create-reflog", "refs/stash", "HEAD"]);
    refused(&["update-ref", "-d", "refs/stash"], "the list of stashes is in the reflog");
    repo.git(["branch", "other"]);
    refused(&["branch", "-M", "main", "other"], "`git branch -m other main` renames it back");
    let tagged =
        transactions(&repo).iter().find(|t| t["operation"] == "git tag v1").expect("it is logged")["id"].clone();
    let (code, said) = run_jin(&repo, &["undo", tagged.as_str().expect("an id")]);
    assert_eq!((code, value(&repo, "v1").as_str()), (0, ""), "one that is named is taken back: {said}");
}

#[test]
fn a_command_with_all_the_transactions_of_what_it_starts_is_undone_as_one_step() {
    let repo = diverged();
    repo.git([
        "config",
        "alias.release",
        "!git tag v1 && sh -c 'git branch stable && git update-ref refs/heads/other HEAD'",
    ]);
    let hook = repo.git_dir().join("hooks/post-commit");
    std::fs::write(&hook, "#!/bin/sh\ngit tag from-hook\n").expect("it can be written");
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is there");
    for command in [
        &["release"][..],
        &["commit", "-q", "--allow-empty", "-m", "with a hook"],
        &["rebase", "-q", "main"],
        &["push", "-q", ".", "main:refs/heads/p1", "main:refs/heads/p2"],
    ] {
        let before = repo.read(["for-each-ref"]);
        repo.git(command);
        let after = repo.read(["for-each-ref"]);
        assert_ne!(before, after, "{command:?} changes something");
        let (code, said) = run_jin(&repo, &["undo"]);
        assert_eq!((code, repo.read(["for-each-ref"])), (0, before), "{command:?}: {said}");
        // A push is an operation of the repository that takes it.
        let name = if command[0] == "push" { "git-receive-pack".to_owned() } else { format!("git {}", command[0]) };
        assert!(said.contains(&format!("(`{name}")), "{command:?}: it is called what was typed: {said}");
        let (code, said) = run_jin(&repo, &["redo"]);
        assert_eq!((code, repo.read(["for-each-ref"])), (0, after), "{command:?}: {said}");
        repo.git(["reset", "-q", "--hard"]);
    }
}

#[test]
fn an_operation_of_another_worktree_is_not_the_newest_here_and_its_branch_is_not_moved_from_here() {
    let repo = guarded();
    repo.git(["worktree", "add", "-q", "../linked", "-b", "side"]);
    repo.git(["tag", "mine"]);
    let linked = repo.sibling("linked");
    linked.write("file", "side\n");
    linked.git(["commit", "-qam", "on the side"]);
    let side = value(&repo, "side");
    let newest = transactions(&repo)[0]["id"].as_str().expect("an id").to_owned();
    let (code, said) = run_jin(&repo, &["undo", &newest]);
    assert_eq!((code, value(&repo, "side")), (1, side.clone()), "{said}");
    assert!(said.contains("another worktree has refs/heads/side checked out"), "{said}");
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!((code, value(&repo, "side"), value(&repo, "mine")), (0, side.clone(), String::new()), "{said}");
    let (code, said) = run_jin(&linked, &["undo"]);
    assert_eq!(code, 0, "{said}");
    assert_ne!(value(&repo, "side"), side, "there it can be undone");
}

#[test]
fn an_operation_into_which_somebody_else_came_is_not_taken_back_by_half() {
    let repo = guarded();
    let script = "git commit -q --allow-empty -m A1; env -i HOME=\"$HOME\" PATH=/usr/local/bin:/usr/bin:/bin JIN_WATCH=off setsid -w git \
                  -c user.name=o -c user.email=o@x commit -q --allow-empty -m other; git commit -q --allow-empty -m A2";
    repo.git(["config", "alias.sync", &format!("!f() {{ {script}; }}; f")]);
    repo.git(["sync"]);
    let before = repo.read(["for-each-ref"]);
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!((code, repo.read(["for-each-ref"])), (1, before), "{said}");
    assert!(said.contains("somebody else moved refs/heads/main between its parts"), "{said}");
}

#[test]
fn undoing_the_first_commit_of_a_branch_leaves_it_unborn_with_everything_staged() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.write("file", "one\n");
    repo.git(["add", "file"]);
    repo.commit_all("one");
    let after = value(&repo, "HEAD");
    assert_snapshot!(shown(&repo, &repo.jin_txn(["undo"])), @r"
    --- stderr
    jin-txn: undid tx-1 (`git commit --quiet --allow-empty -m one`)
      refs/heads/main: [ID] -> absent
      index and files stay as they are: `git status` shows the difference
    --- exit 0
    ");
    assert_eq!((value(&repo, "HEAD"), repo.read(["status", "--porcelain"])), (String::new(), "A  file".to_owned()));
    assert_eq!((run_jin(&repo, &["redo"]).0, value(&repo, "HEAD")), (0, after));
    assert_eq!(repo.read(["status", "--porcelain"]), "");
}

#[test]
fn nothing_to_undo_and_an_unknown_transaction_are_said() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    assert_snapshot!(shown(&repo, &repo.jin_txn(["undo"])), @r"
    --- stderr
    error: there is nothing to undo in the log
    --- exit 1
    ");
    assert_snapshot!(shown(&repo, &repo.jin_txn(["redo"])), @r"
    --- stderr
    error: nothing has been undone
    --- exit 1
    ");
    assert_snapshot!(shown(&repo, &repo.jin_txn(["undo", "tx-99"])), @r"
    --- stderr
    error: tx-99 is no finished transaction that is not undone yet
    --- exit 1
    ");
}

#[test]
fn an_undo_that_is_killed_anywhere_happened_wholly_or_not_at_all() {
    killed_anywhere("undo of refs", || {
        let repo = guarded();
        let (first, second) = (value(&repo, "HEAD~1"), value(&repo, "HEAD"));
        let input = |to: &str| ["a", "b", "c", "d"].map(|n| format!("update refs/custom/{n} {to}\n")).concat();
        repo.git_with_input(["update-ref", "--stdin"], &input(&first));
        let before = repo.read(["for-each-ref"]);
        repo.git_with_input(["update-ref", "--stdin"], &input(&second));
        (repo, before)
    });
}

/// Kills the undo of the newest transaction of the `template`, which comes with what was before that.
fn killed_anywhere(what: &str, template: impl Fn() -> (Repo, String)) {
    let undo = |repo: &Repo, decide: &mut dyn FnMut(&Event) -> Action| {
        tracer::trace(crash::jin(repo, &["undo"]), b"", Isolation::None, decide).expect("jin-txn starts");
    };
    let (repo, undone) = template();
    let mut events = 0;
    undo(&repo, &mut |_| {
        events += 1;
        Action::Continue
    });
    assert_eq!(repo.read(["for-each-ref"]), undone);
    let stride = table::stride("JIN_KILL", usize::div_ceil(events, PLACES));
    let mut kills = 0;
    for (place, victims) in (1..=events).step_by(stride).flat_map(|n| [(n, Action::KillTree), (n, Action::KillOne)]) {
        let (repo, _) = template();
        let done = repo.read(["for-each-ref"]);
        undo(&repo, &mut |event| if event.n == place { victims } else { Action::Continue });
        assert_recovers(&repo);
        let found = repo.read(["for-each-ref"]);
        let which = if found == done { "redo" } else { "undo" };
        assert!(found == done || found == undone, "{victims:?} at {place} of {events}: {found}");
        // Either way the log knows where it is.
        let (code, said) = run_jin(&repo, &[if which == "undo" { "redo" } else { "undo" }]);
        assert_eq!(code, 0, "{victims:?} at {place} of {events}: {said}");
        assert_eq!(repo.read(["for-each-ref"]), if which == "undo" { done } else { undone.clone() });
        kills += 1;
    }
    println!("{what}: {kills} points at {} of {events} places, 0 bad\ntorture: kills={kills} violations=0", kills / 2);
}

/// Two branches that have diverged, and `topic` checked out.
fn diverged() -> Repo {
    let repo = guarded();
    repo.git(["switch", "-q", "-c", "topic", "HEAD~1"]);
    for name in ["t1", "t2"] {
        repo.write(name, name);
        repo.commit_all(name);
    }
    repo
}

/// Parts of them change only notes (ORIG_HEAD, AUTO_MERGE), and a rebase moves HEAD away and back.
#[test]
fn a_kept_merge_or_rebase_is_undone_and_redone_as_one_step() {
    let commands: [&[&str]; 4] = [
        &["rebase", "-q", "main"],
        &["merge", "-q", "--no-edit", "main"],
        &["pull", "-q", "--rebase", ".", "main"],
        &["reset", "-q", "--soft", "HEAD~1"],
    ];
    for command in commands {
        let repo = diverged();
        let before = repo.read(["for-each-ref"]);
        let arguments = [&["run", "--", "git"], command].concat();
        let (code, said) = run_jin(&repo, &arguments);
        assert_eq!(code, 0, "{said}");
        let after = repo.read(["for-each-ref"]);
        assert_ne!(before, after, "{command:?}");
        let (code, said) = run_jin(&repo, &["undo"]);
        assert_eq!(code, 0, "{command:?}: {said}");
        assert_eq!(repo.read(["for-each-ref"]), before, "{command:?}: {said}");
        assert_eq!(repo.read(["symbolic-ref", "HEAD"]), "refs/heads/topic", "{command:?}");
        let (code, said) = run_jin(&repo, &["redo"]);
        assert_eq!((code, repo.read(["for-each-ref"])), (0, after), "{command:?}: {said}");
    }
}

/// git refuses `a` and `a/b` in one session, also where one of them goes.
const IN_EACH_OTHERS_WAY: &str =
    "git branch -q -D a; git branch a/b main; git branch a/c main; git tag -d t; git tag t/u";

fn in_each_others_way() -> (Repo, String) {
    let repo = guarded();
    repo.git(["branch", "a", "HEAD~1"]);
    repo.git(["tag", "t", "HEAD~1"]);
    let before = repo.read(["for-each-ref"]);
    let (code, said) = run_jin(&repo, &["run", "--", "sh", "-ec", IN_EACH_OTHERS_WAY]);
    assert_eq!(code, 0, "{said}");
    (repo, before)
}

#[test]
fn a_kept_run_that_replaced_a_branch_by_branches_below_its_name_is_undone_and_redone() {
    let (repo, before) = in_each_others_way();
    let after = repo.read(["for-each-ref"]);
    assert_snapshot!(shown(&repo, &repo.jin_txn(["undo"])), @r"
    --- stderr
    jin-txn: undid tx-5 (`jin-txn run -- sh -ec 'git branch -q -D a; git branch a/b main; git branch a/c main; git tag -d t; git tag t/u'`)
      refs/heads/a: absent -> [ID]
      refs/heads/a/b: [ID] -> absent
      refs/heads/a/c: [ID] -> absent
      refs/tags/t: absent -> [ID]
      refs/tags/t/u: [ID] -> absent
    --- exit 0
    ");
    assert_eq!(repo.read(["for-each-ref"]), before);
    assert_eq!(run_jin(&repo, &["check"]).0, 0);
    assert_snapshot!(shown(&repo, &repo.jin_txn(["redo"])), @r"
    --- stderr
    jin-txn: redid tx-5 (`jin-txn run -- sh -ec 'git branch -q -D a; git branch a/b main; git branch a/c main; git tag -d t; git tag t/u'`)
      refs/heads/a: [ID] -> absent
      refs/heads/a/b: absent -> [ID]
      refs/heads/a/c: absent -> [ID]
      refs/tags/t: [ID] -> absent
      refs/tags/t/u: absent -> [ID]
    --- exit 0
    ");
    assert_eq!(repo.read(["for-each-ref"]), after);
    crash::assert_fsck(&repo);
}

#[test]
fn what_somebody_else_made_in_the_way_of_an_undo_stays_and_nothing_is_changed() {
    let (repo, _) = in_each_others_way();
    repo.git(["branch", "a/other"]);
    let before = repo.read(["for-each-ref"]);
    let run = transactions(&repo).iter().map(|t| t["id"].as_str().expect("an id").to_owned()).nth(1).expect("the run");
    assert_snapshot!(shown(&repo, &repo.jin_txn(["undo", &run])), @r"
    --- stderr
    error: tx-5 is not reversed, and nothing was changed: refs/heads/a/other is in the way of refs/heads/a
    --- exit 1
    ");
    assert_eq!(repo.read(["for-each-ref"]), before);
    assert_eq!(run_jin(&repo, &["check"]).0, 0);
}

#[test]
fn an_undo_of_refs_in_each_others_way_that_is_killed_anywhere_happened_wholly_or_not_at_all() {
    killed_anywhere("undo of refs in each other's way", in_each_others_way);
}
