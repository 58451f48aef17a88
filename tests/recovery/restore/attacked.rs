//! What a hostile reading of undo has found.

use std::fs;
use std::time::SystemTime;

use super::{diverged, newest};
use crate::support::crash::run_jin;

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
