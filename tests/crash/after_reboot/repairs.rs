//! Each repair of a ref or of HEAD, from the damaged repository to the message.

use std::fs;
use std::time::{Duration, SystemTime};

use insta::assert_snapshot;

use super::{
    MAIN, OldFile, assert_settled, guarded, jin_after_reboot, lose, object_file, overwrite, quarantined, run,
    run_after_reboot, set_time, undo_rename,
};
use crate::support::crash::{self, spare_commit, unseen_git, value};
use crate::support::reboot;
use crate::support::repo::{Git, Repo, text};
use crate::support::snapshot::Snapshot;
use crate::support::tracer::Action;

/// Some refs with the values that they have now.
fn now<const N: usize>(repo: &Repo, names: [&str; N]) -> Vec<(String, String)> {
    names.map(|name| (name.to_owned(), value(repo, name))).to_vec()
}

fn update(names: &[&str], to: &str) -> String {
    names.iter().map(|name| format!("update {name} {to}\n")).collect()
}

const TOPIC: &str = "refs/heads/topic";

const FIVE: [&str; 5] =
    ["refs/heads/five/1", "refs/heads/five/2", "refs/heads/five/3", "refs/heads/five/4", "refs/heads/five/5"];

/// Lets a disk lose something of a repository, recovers after a reboot, and asserts what is said and that the refs which `damage`
/// returns have their values again.
fn assert_redone(says: &str, exit: i32, damage: fn(&Repo) -> Vec<(String, String)>) {
    let repo = guarded();
    let wanted = damage(&repo);
    let found = || wanted.iter().map(|(name, _)| (name.clone(), value(&repo, name))).collect::<Vec<_>>();
    let lines: String = says.lines().map(|line| format!("jin-txn: {line}\n")).collect();
    assert_eq!(jin_after_reboot(&repo, &["recover"]), format!("--- stderr\n{lines}--- exit {exit}"));
    assert_eq!(found(), wanted);
    assert_settled(&repo);
}

/// A test for each row: what recovery says, how it ends, what a power cut does.
macro_rules! redone {
    ($($test:ident $says:literal $exit:literal $damage:expr)*) => {
        $(#[test]
        fn $test() {
            assert_redone($says, $exit, $damage);
        })*
    };
}

redone! {
    a_ref_that_is_three_generations_old_is_redone
    "refs/heads/main is [ID] again (tx-4); the power cut had taken it back to [ID]" 0 |repo| {
        let old = OldFile::keep(repo, MAIN);
        for n in 3..6 {
            repo.write("file", &format!("{n}\n"));
            repo.commit_all(&format!("{n}"));
        }
        let newest = now(repo, [MAIN]);
        old.comes_back();
        newest
    }

    an_empty_ref_is_redone
    "refs/heads/main is [ID] again (tx-1); the power cut had corrupted it" 0 |repo| {
        let newest = now(repo, [MAIN]);
        overwrite(&repo.git_dir().join(MAIN), b"");
        newest
    }

    a_ref_of_nuls_is_redone
    "refs/heads/main is [ID] again (tx-1); the power cut had corrupted it" 0 |repo| {
        let newest = now(repo, [MAIN]);
        overwrite(&repo.git_dir().join(MAIN), &[0; 41]);
        newest
    }

    a_branch_whose_rename_was_lost_is_made_again_from_its_lock
    "refs/heads/topic is [ID] again (tx-2); the power cut had taken it away" 0 |repo| {
        repo.git(["branch", "topic"]);
        let newest = now(repo, [TOPIC]);
        undo_rename(&repo.git_dir().join(TOPIC));
        // The directory changes, as it does when the next git locks another ref there.
        fs::write(repo.git_dir().join("refs/heads/x"), "").expect("it can be written");
        fs::remove_file(repo.git_dir().join("refs/heads/x")).expect("it is there");
        newest
    }

    a_commit_whose_rename_was_lost_is_there_again_from_its_lock
    "refs/heads/main is [ID] again (tx-2); the power cut had taken it back to [ID]" 0 |repo| {
        let old = OldFile::keep(repo, MAIN);
        repo.commit_all("three");
        let newest = now(repo, [MAIN]);
        undo_rename(&repo.git_dir().join(MAIN));
        old.comes_back();
        newest
    }

    a_branch_whose_creation_was_lost_is_made_again
    "refs/heads/topic is [ID] again (tx-2); the power cut had taken it away" 0 |repo| {
        repo.git(["branch", "topic"]);
        let newest = now(repo, [TOPIC]);
        lose(&repo.git_dir().join(TOPIC));
        newest
    }

    a_branch_whose_directory_was_lost_is_made_again
    "refs/heads/a/b/topic is [ID] again (tx-2); the power cut had taken it away" 0 |repo| {
        repo.git(["branch", "a/b/topic"]);
        let newest = now(repo, ["refs/heads/a/b/topic"]);
        fs::remove_dir_all(repo.git_dir().join("refs/heads/a")).expect("it was there");
        set_time(&repo.git_dir().join("refs/heads"), SystemTime::now() - Duration::from_secs(3600));
        newest
    }

    a_ref_of_a_linked_worktree_alone_is_made_again
    "worktrees/linked/refs/worktree/mark is [ID] again (tx-2); the power cut had taken it away" 0 |repo| {
        unseen_git(repo, &["worktree", "add", "-q", "../linked"]);
        repo.git(["-C", "../linked", "update-ref", "refs/worktree/mark", "HEAD"]);
        let newest = now(repo, ["worktrees/linked/refs/worktree/mark"]);
        undo_rename(&repo.git_dir().join("worktrees/linked/refs/worktree/mark"));
        newest
    }

    a_ref_of_a_linked_worktree_that_is_written_in_capitals_is_redone
    "worktrees/linked/refs/worktree/MARK is [ID] again (tx-3); the power cut had taken it back to [ID]" 0 |repo| {
        unseen_git(repo, &["worktree", "add", "-q", "../linked"]);
        repo.git(["-C", "../linked", "update-ref", "refs/worktree/MARK", "HEAD~1"]);
        let old = OldFile::keep(repo, "worktrees/linked/refs/worktree/MARK");
        repo.git(["-C", "../linked", "update-ref", "refs/worktree/MARK", "HEAD"]);
        let newest = now(repo, ["worktrees/linked/refs/worktree/MARK"]);
        old.comes_back();
        newest
    }

    a_deleted_branch_that_came_back_is_deleted_again
    "refs/heads/topic is deleted again (tx-4); the power cut had brought it back at [ID]" 0 |repo| {
        repo.git(["branch", "topic"]);
        repo.git(["branch", "-q", "-f", "topic", "HEAD~1"]);
        let old = OldFile::keep(repo, TOPIC);
        repo.git(["branch", "-q", "-D", "topic"]);
        let newest = now(repo, [TOPIC]);
        old.comes_back();
        newest
    }

    an_update_of_a_packed_ref_that_was_lost_is_redone
    "refs/heads/topic is [ID] again (tx-3); the power cut had taken it back to [ID]" 0 |repo| {
        repo.git(["branch", "topic", "HEAD~1"]);
        repo.git(["pack-refs", "--all"]);
        repo.git(["branch", "-q", "-f", "topic", "HEAD"]);
        let newest = now(repo, [TOPIC]);
        lose(&repo.git_dir().join(TOPIC));
        newest
    }

    the_deletion_of_a_packed_ref_that_was_lost_is_redone
    "refs/heads/topic is deleted again (tx-3); the power cut had brought it back at [ID]" 0 |repo| {
        repo.git(["branch", "topic", "HEAD~1"]);
        repo.git(["pack-refs", "--all"]);
        let old = OldFile::keep(repo, "packed-refs");
        repo.git(["branch", "-q", "-D", "topic"]);
        let newest = now(repo, [TOPIC]);
        old.comes_back();
        newest
    }

    an_acknowledged_update_of_five_refs_is_whole_again
    "refs/heads/five/5 is [ID] again (tx-3); the power cut had corrupted it\n\
     refs/heads/five/2 is [ID] again (tx-3); the power cut had taken it back to [ID]\n\
     refs/heads/five/4 is [ID] again (tx-3); the power cut had taken it back to [ID]" 0 |repo| {
        repo.git_with_input(["update-ref", "--stdin"], &update(&FIVE, &value(repo, "HEAD~1")));
        let old = [OldFile::keep(repo, FIVE[1]), OldFile::keep(repo, FIVE[3])];
        repo.git_with_input(["update-ref", "--stdin"], &update(&FIVE, &value(repo, "HEAD")));
        let newest = now(repo, FIVE);
        overwrite(&repo.git_dir().join(FIVE[4]), b"");
        old.into_iter().for_each(OldFile::comes_back);
        newest
    }

    an_older_detached_head_is_redone_like_a_branch
    "HEAD is [ID] again (tx-4); the power cut had taken it back to [ID]" 0 |repo| {
        repo.git(["checkout", "-q", "--detach"]);
        let old = OldFile::keep(repo, "HEAD");
        repo.commit_all("three");
        let newest = now(repo, ["HEAD"]);
        old.comes_back();
        newest
    }

    a_head_of_a_linked_worktree_is_redone_too
    "worktrees/linked/HEAD is [ID] again (tx-5); the power cut had taken it back to [ID]" 0 |repo| {
        repo.git(["worktree", "add", "-q", "--detach", "../linked"]);
        let old = OldFile::keep(repo, "worktrees/linked/HEAD");
        repo.sibling("linked").git(["commit", "-q", "--allow-empty", "-m", "three"]);
        let newest = now(repo, ["worktrees/linked/HEAD"]);
        old.comes_back();
        newest
    }

    damaged_packed_refs_are_set_aside_and_what_the_log_knows_is_redone
    "warning: packed-refs was damaged: it was made again from the log and the reflogs; what neither knows is lost" 4 |repo| {
        repo.git(["branch", "topic"]);
        repo.git(["pack-refs", "--all"]);
        let newest = now(repo, [TOPIC, MAIN]);
        overwrite(&repo.git_dir().join("packed-refs"), &[0; 100]);
        newest
    }

    an_unfinished_update_on_top_of_a_lost_one_comes_back_to_what_was_acknowledged
    "rolled back tx-4 (`git update-ref --stdin`, pid [PID]): refs/heads/a is back at [ID], trimmed the reflog of refs/heads/a, \
     trimmed the reflog of refs/heads/b; see `git txn show tx-4`\n\
     moved 1 stale lock to quarantine: refs/heads/b.lock\n\
     refs/heads/b is [ID] again (tx-3); the power cut had taken it back to [ID]" 0 |repo| {
        let names = ["refs/heads/a", "refs/heads/b"];
        let third = spare_commit(repo, "third");
        repo.git_with_input(["update-ref", "--stdin"], &update(&names, &value(repo, "HEAD~1")));
        let old = OldFile::keep(repo, names[1]);
        repo.git_with_input(["update-ref", "--stdin"], &update(&names, &value(repo, "HEAD")));
        let acknowledged = now(repo, names);
        let command = crash::git(repo, &["update-ref", "--stdin"]);
        crash::kill_at(command, &update(&names, &third), Action::KillTree, crash::nth(2, crash::is_ref_rename));
        old.comes_back();
        acknowledged
    }

    what_only_an_unseen_writer_wrote_and_lost_gives_way_to_what_the_log_knows
    "moved 1 corrupt object to quarantine\n\
     trimmed the reflog of HEAD: the power cut had damaged its end\n\
     trimmed the reflog of refs/heads/main: the power cut had damaged its end\n\
     warning: refs/heads/main: [ID] is lost; it is back at [ID], the newest intact value" 4 |repo| {
        let known = now(repo, [MAIN]);
        unseen_git(repo, &["commit", "-q", "--allow-empty", "-m", "unseen"]);
        overwrite(&object_file(repo, &value(repo, MAIN)), b"");
        known
    }
}

#[test]
fn a_ref_that_is_redone_has_its_reflog_already_and_its_damaged_file_is_kept() {
    let repo = guarded();
    let logs = Snapshot::of(&repo).logs;
    overwrite(&repo.git_dir().join(MAIN), b"");
    assert_eq!(run_after_reboot(&repo, &["recover"]).status.code(), Some(0));
    assert_eq!(Snapshot::of(&repo).logs, logs, "the reflogs had it all: nothing is added");
    assert!(quarantined(&repo).contains(&"refs%heads%main".to_owned()), "{:?}", quarantined(&repo));
}

/// The end of a rebase: HEAD comes back from a commit to the branch that has it. Up to 2.45 git does that outside of any transaction.
#[test]
fn a_head_that_was_about_to_mean_a_branch_with_the_same_commit_means_it() {
    for (branch, is_redone) in [("main", true), ("topic", false)] {
        let repo = guarded();
        repo.git(["branch", "topic", "HEAD~1"]);
        repo.git(["checkout", "-q", "--detach"]);
        let old = OldFile::keep(&repo, "HEAD");
        repo.git(["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")]);
        undo_rename(&repo.git_dir().join("HEAD"));
        old.comes_back();
        assert_eq!(run_after_reboot(&repo, &["recover"]).status.code(), Some(0));
        let redone = is_redone && Git::under_test().is_at_least(2, 46);
        let head = repo.try_git(["symbolic-ref", "-q", "HEAD"]);
        assert_eq!(text(&head.stdout).trim(), if redone { "refs/heads/main" } else { "" }, "{branch}");
        if redone {
            assert_settled(&repo);
        }
    }
}

#[test]
fn an_empty_head_is_what_it_was() {
    let repo = guarded();
    repo.git(["checkout", "-q", "-b", "topic"]);
    repo.commit_all("three");
    overwrite(&repo.git_dir().join("HEAD"), b"");
    assert!(!repo.try_git(["status"]).status.success(), "git knows no such repository");
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @r"
    --- stderr
    jin-txn: HEAD was empty after the reboot: by the log it is ref: refs/heads/topic
    --- exit 0
    ");
    assert_eq!(repo.read(["symbolic-ref", "HEAD"]), "refs/heads/topic");
    assert_settled(&repo);
}

#[test]
fn a_symbolic_head_that_is_older_stays_with_its_index_and_worktree() {
    let repo = guarded();
    let old = OldFile::keep(&repo, "HEAD");
    repo.git(["checkout", "-q", "-b", "topic"]);
    old.comes_back();
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @r"
    --- stderr
    jin-txn: nothing to recover
    --- exit 0
    ");
    assert_eq!(repo.read(["symbolic-ref", "HEAD"]), MAIN);
    assert_settled(&repo);
}

#[test]
fn a_value_whose_commit_is_lost_gives_way_to_the_newest_that_is_whole() {
    let repo = guarded();
    let whole = value(&repo, MAIN);
    repo.write("file", "three\n");
    let lost = repo.commit_all("three");
    overwrite(&object_file(&repo, &lost), b"");
    assert_snapshot!(jin_after_reboot(&repo, &["recover"]), @r"
    --- stderr
    jin-txn: moved 1 corrupt object to quarantine
    jin-txn: trimmed the reflog of HEAD: the power cut had damaged its end
    jin-txn: trimmed the reflog of refs/heads/main: the power cut had damaged its end
    jin-txn: warning: refs/heads/main: [ID] is lost; it is back at [ID], the newest intact value
    --- exit 4
    ");
    assert_eq!(value(&repo, MAIN), whole);
    assert_settled(&repo);
}

#[test]
fn a_value_with_a_missing_blob_gives_way_as_well() {
    let repo = guarded();
    let whole = value(&repo, MAIN);
    repo.write("file", "three\n");
    repo.commit_all("three");
    let blob = value(&repo, "HEAD:file");
    fs::remove_file(object_file(&repo, &blob)).expect("the blob was loose");
    assert_eq!(run_after_reboot(&repo, &["recover"]).status.code(), Some(4), "something is lost: a human should know");
    assert_eq!(value(&repo, MAIN), whole);
    repo.git(["add", "--all"]);
    assert_settled(&repo);
}

#[test]
fn a_copy_of_the_repository_redoes_nothing() {
    let repo = guarded();
    let old = OldFile::keep(&repo, MAIN);
    repo.commit_all("three");
    old.comes_back();
    let shown = value(&repo, MAIN);
    let copy = repo.copy_as_it_is();
    assert_snapshot!(jin_after_reboot(&copy, &["recover"]), @r"
    --- stderr
    jin-txn: nothing to recover
    --- exit 0
    ");
    assert_eq!(value(&copy, MAIN), shown, "the log of a copy is about other files");
    assert_settled(&copy);
}

#[test]
fn what_would_be_done_is_told_without_doing_it() {
    let repo = guarded();
    let old = OldFile::keep(&repo, MAIN);
    repo.commit_all("three");
    old.comes_back();
    let shown = value(&repo, MAIN);
    assert_snapshot!(jin_after_reboot(&repo, &["check"]), @r"
    refs/heads/main is [ID] again (tx-2); the power cut had taken it back to [ID]
    hint: run `git txn recover`
    --- stderr
    --- exit 3
    ");
    assert_snapshot!(jin_after_reboot(&repo, &["recover", "--dry-run"]), @r"
    refs/heads/main is [ID] again (tx-2); the power cut had taken it back to [ID]
    hint: run `git txn recover`
    --- stderr
    --- exit 0
    ");
    assert_eq!(value(&repo, MAIN), shown);
}

#[test]
fn the_next_plain_commit_is_refused_once_when_its_branch_was_behind() {
    let repo = guarded();
    let old = OldFile::keep(&repo, MAIN);
    repo.write("file", "three\n");
    let newest = repo.commit_all("three");
    old.comes_back();
    let boot = reboot::new_boot_id();
    let commit = || run(reboot::after(crash::git(&repo, &["commit", "-q", "--allow-empty", "-m", "four"]), &boot));
    let first = commit();
    assert!(!first.status.success(), "it was built on a state that is not the newest");
    let said = text(&first.stderr);
    assert!(said.contains("refs/heads/main is ") && said.contains("run your command again"), "{said}");
    assert_eq!(value(&repo, MAIN), newest);
    let second = commit();
    assert!(second.status.success(), "{}", text(&second.stderr));
    assert_eq!(value(&repo, "HEAD~1"), newest);
    assert_settled(&repo);
}

#[test]
fn the_next_shimmed_commit_just_works() {
    let repo = guarded();
    let old = OldFile::keep(&repo, MAIN);
    repo.write("file", "three\n");
    let newest = repo.commit_all("three");
    old.comes_back();
    let output = run_after_reboot(&repo, &["git", "commit", "-q", "--allow-empty", "-m", "four"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(value(&repo, "HEAD~1"), newest);
    assert_settled(&repo);
}
