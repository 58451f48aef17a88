//! Runs in unusual places: other worktrees, other git directories, others at work meanwhile.

use std::fs;

use super::restoring::{guarded, kill_script};
use crate::support::crash::{self, assert_fsck, run_jin, value};
use crate::support::repo::Repo;

/// A linked worktree on the branch `side`.
fn linked(repo: &Repo) -> std::path::PathBuf {
    let path = repo.scratch().join("linked");
    repo.git(["worktree", "add", "-q", "-b", "side", path.to_str().expect("the path is text")]);
    path
}

fn head(repo: &Repo, of: &str) -> String {
    fs::read_to_string(repo.git_dir().join(of)).expect("there is a HEAD")
}

#[test]
fn a_run_is_taken_back_where_it_was_made_whoever_recovers_from_where() {
    for detached in [false, true] {
        let repo = guarded();
        repo.git(["branch", "other", "HEAD~1"]);
        if detached {
            repo.git(["switch", "-q", "--detach"]);
        }
        let linked = linked(&repo);
        let heads = [head(&repo, "HEAD"), head(&repo, "worktrees/linked/HEAD")];
        kill_script(&repo, "git switch -q other; git bisect start >../out; git bisect bad >../out; : now");
        assert_ne!(head(&repo, "HEAD"), heads[0], "without a move this test proves nothing");
        crate::support::point::let_the_clock_tick(&repo.git_dir());
        let (code, said) = run_jin(&repo, &["-C", linked.to_str().expect("the path is text"), "recover"]);
        assert_eq!(code, 0, "{said}");
        assert_eq!([head(&repo, "HEAD"), head(&repo, "worktrees/linked/HEAD")], heads);
        assert_eq!(value(&repo, "refs/bisect/bad"), "");
        assert_eq!(repo.read(["status", "--porcelain"]), "");
    }
}

#[test]
fn a_run_of_a_linked_worktree_is_taken_back_from_the_main_one() {
    let repo = guarded();
    let linked = linked(&repo);
    let before = head(&repo, "worktrees/linked/HEAD");
    let script =
        "cd ../linked; git switch -q --detach; git bisect start >../out; git bisect bad >../out; kill -9 $PPID $$";
    let mut command = crash::jin(&repo, &["-C", linked.to_str().expect("the path is text"), "run", "--", "sh", "-ec"]);
    let killed = command.arg(script).status().expect("jin-txn starts");
    assert!(!killed.success());
    assert_ne!(head(&repo, "worktrees/linked/HEAD"), before, "without a move this test proves nothing");
    crate::support::point::let_the_clock_tick(&repo.git_dir());
    let (code, said) = run_jin(&repo, &["recover"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(head(&repo, "worktrees/linked/HEAD"), before);
    assert_eq!(value(&repo, "worktrees/linked/refs/bisect/bad"), "");
    assert_fsck(&repo);
}
