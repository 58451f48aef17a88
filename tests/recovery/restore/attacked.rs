//! What a hostile reading of undo has found.

use std::fs;
use std::io::Write;
use std::time::SystemTime;

use super::{diverged, newest};
use crate::support::crash::{jin, kill_at, recover, run_jin};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::Repo;
use crate::support::tracer::{Action, Event};

/// git compares an entry whose file was changed in the second in which the index was written: by its stat data the file may be the
/// one that was added, and is not. The index that undo writes is younger.
#[test]
fn an_edit_within_the_second_in_which_the_index_was_written_shows_after_an_undo() {
    let repo = diverged();
    repo.git(["config", "core.trustctime", "false"]);
    repo.write("racy", "bb\n");
    repo.git(["add", "racy"]);
    repo.git(["commit", "-q", "-m", "racy", "racy"]);
    repo.git(["merge", "-q", "--no-edit", "topic"]);
    let file = repo.path().join("racy");
    let then = fs::metadata(&file).unwrap().modified().unwrap();
    let set = |path: &std::path::Path, time: SystemTime| {
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap()
    };
    repo.write("racy", "cc\n");
    set(&file, then);
    set(&repo.git_dir().join("index"), then);
    assert!(repo.read(["status", "--porcelain"]).contains("M racy"), "git itself sees it");
    let (code, said) = run_jin(&repo, &["undo", &newest(&repo)]);
    assert_eq!(code, 0, "{said}");
    assert!(repo.read(["status", "--porcelain"]).contains("M racy"), "the edit is seen: {said}");
}

/// HEAD's lock is git's only while it changes the branch that HEAD means: another command may have moved HEAD before.
#[test]
fn a_head_that_moves_while_an_undo_prepares_stops_it_before_anything_is_changed() {
    let repo = diverged();
    repo.git(["merge", "-q", "--no-edit", "topic"]);
    let merged = newest(&repo);
    repo.git(["branch", "side"]);
    let head = repo.read(["rev-parse", "HEAD"]);
    repo.write(".git/info/attributes", "* filter=moves\n");
    repo.git(["config", "filter.moves.smudge", "JIN_TXN=off git symbolic-ref HEAD refs/heads/side; cat"]);
    let staged = repo.read(["ls-files", "-s"]);
    let (code, said) = run_jin(&repo, &["undo", &merged]);
    assert!(code != 0 && said.contains("HEAD has just moved"), "{code} {said}");
    assert_eq!(repo.read(["rev-parse", "main", "side"]), format!("{head}\n{head}"), "{said}");
    assert_eq!(repo.read(["ls-files", "-s"]), staged, "{said}");
    assert_eq!(repo.read(["symbolic-ref", "HEAD"]), "refs/heads/side");
}

/// `git init --separate-git-dir` writes nothing that leads from the git directory to the worktree.
#[test]
fn where_the_worktree_cannot_be_found_an_undo_does_not_leave_it_behind_silently() {
    let repo = diverged();
    repo.git(["merge", "-q", "--no-edit", "topic"]);
    let (head, status) = (repo.read(["rev-parse", "HEAD"]), repo.read(["status", "--porcelain"]));
    repo.git(["init", "-q", "--separate-git-dir=../elsewhere", "."]);
    let (code, said) = run_jin(&repo, &["undo", &newest(&repo)]);
    assert!(code != 0 && said.contains("--keep-worktree"), "{code} {said}");
    assert_eq!((repo.read(["rev-parse", "HEAD"]), repo.read(["status", "--porcelain"])), (head, status));
}

/// A second name of a file that is written in place says what the file says now, not what it said.
#[test]
fn a_configuration_that_was_edited_in_place_behind_a_killed_undo_is_not_replaced() {
    let (repo, _) = killed_before_the_configuration();
    let path = repo.git_dir().join("config");
    let edit = "[branch \"main\"]\n\tdescription = by hand\n# a comment\n";
    let text = fs::read_to_string(&path).expect("there is a configuration") + edit;
    fs::File::options().append(true).open(&path).and_then(|mut file| file.write_all(edit.as_bytes())).unwrap();
    let (_, said) = recover(&repo);
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "{said}");
    assert!(said.contains("another process has changed it"), "{said}");
}

/// Who repeats an undo that was killed does not want two.
#[test]
fn an_undo_that_is_repeated_after_a_kill_takes_nothing_older_back() {
    let (repo, older) = killed_before_the_configuration();
    let (code, said) = run_jin(&repo, &["undo"]);
    assert!(code == 1 && said.contains("has just been completed"), "{code} {said}");
    assert_eq!(repo.read(["for-each-ref"]), older, "{said}");
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!(code, 0, "the same again takes the next step: {said}");
}

/// A branch that was made with an upstream, whose undo was killed when all was decided; and the refs before it.
fn killed_before_the_configuration() -> (Repo, String) {
    let repo = diverged();
    repo.git(["tag", "older"]);
    let older = repo.read(["for-each-ref"]);
    repo.git(["branch", "-q", "--track", "new", "topic"]);
    let is_placed = |event: &Event| {
        event.syscall.starts_with("rename") && event.path2.as_ref().is_some_and(|path| path.ends_with(".git/config"))
    };
    kill_at(jin(&repo, &["undo"]), "", Action::KillTree, is_placed);
    let_the_clock_tick(&repo.git_dir());
    (repo, older)
}
