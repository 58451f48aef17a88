//! What undo and redo refuse: then nothing is changed, and it is said what to do instead.

use std::fs;
use std::os::unix::fs::symlink;

use insta::assert_snapshot;

use super::{diverged, newest};
use crate::support::crash::{self, run_jin, value};
use crate::support::observe::shown;
use crate::support::repo::Repo;
use crate::support::worktree::Whole;

#[test]
fn a_branch_whose_configuration_would_stay_is_not_taken_away() {
    let repo = diverged();
    let before = Whole::of(&repo);
    repo.git(["switch", "-q", "--track", "-c", "fresh", "ahead"]);
    repo.git(["config", "branch.fresh.description", "words"]);
    let after = Whole::of(&repo);
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!((code, Whole::of(&repo)), (1, after), "{said}");
    assert!(said.contains("the configuration of the branch fresh has changed since"), "{said}");
    repo.git(["config", "--unset", "branch.fresh.description"]);
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!((code, Whole::of(&repo)), (0, before), "{said}");
}

#[test]
fn what_was_undone_is_not_done_again_behind_a_new_operation_unless_it_is_named() {
    let repo = diverged();
    repo.git(["merge", "-q", "ahead"]);
    let after = value(&repo, "HEAD");
    let (code, told) = run_jin(&repo, &["undo"]);
    assert_eq!(code, 0, "{told}");
    let merge = told.split(' ').find(|word| word.starts_with("tx-")).unwrap();
    repo.git(["tag", "v1"]);
    let before = Whole::of(&repo);
    let tag = newest(&repo);
    assert_snapshot!(shown(&repo, &repo.jin_txn(["redo"])).replace(merge, "[TX]").replace(&tag, "[NEW]"), @r"
    --- stderr
    error: [TX] is not done again, and nothing was changed: a new operation came since, [NEW] (`git tag v1`)
    hint: `git txn redo [TX]` does it again all the same
    --- exit 1
    ");
    assert_eq!(Whole::of(&repo), before);
    // The newer one undone and done again is newer still.
    for (arguments, code) in [(["undo"], 0), (["redo"], 0), (["redo"], 1)] {
        assert_eq!(run_jin(&repo, &arguments).0, code, "{arguments:?}");
    }
    assert_eq!(Whole::of(&repo), before);
    let (code, said) = run_jin(&repo, &["redo", merge]);
    assert_eq!((code, value(&repo, "HEAD")), (0, after), "{said}");
}

#[test]
fn a_push_is_not_undone_and_what_takes_it_back_in_the_other_repository_is_said() {
    let repo = diverged();
    repo.git(["init", "-q", "--bare", "../upstream.git"]);
    repo.git(["remote", "add", "origin", "../upstream.git"]);
    repo.git(["push", "-q", "origin", "main~1:refs/heads/main"]);
    repo.git(["push", "-q", "origin", "main"]);
    let before = Whole::of(&repo);
    let pushed = newest(&repo);
    assert_snapshot!(shown(&repo, &repo.jin_txn(["undo", &pushed])).replace(&pushed, "[TX]"), @r"
    --- stderr
    error: [TX] (`git push -q origin main`) is not reversed, and nothing was changed: the other repository has what was pushed
    hint: `git push --force-with-lease=main:[ID] origin [ID]:refs/heads/main` takes it back there
    --- exit 1
    ");
    let (_, said) = run_jin(&repo, &["undo", &pushed]);
    assert_eq!(Whole::of(&repo), before);
    // What is said works.
    let command = said.split('`').find(|part| part.starts_with("git push --force-with-lease")).expect("it is said");
    repo.git(command.split(' ').skip(1).collect::<Vec<_>>());
    let there = repo.read(["ls-remote", "origin", "refs/heads/main"]);
    assert!(there.starts_with(&value(&repo, "main~1")), "{there}");
}

/// What is said, and what is done before.
type Obstacle<'o> = (&'o str, &'o dyn Fn(&Repo));

/// What keeps a merge of `ahead` (which changes `gone`, `dir`, `link` and `new`) from being undone.
#[test]
fn a_path_that_is_not_as_the_operation_left_it_refuses_all_and_is_named() {
    let obstacles: &[Obstacle<'_>] = &[
        ("new/deep/file: it has been changed", &|repo| repo.write("new/deep/file", "edited\n")),
        ("link: it has been changed", &|repo| {
            fs::remove_file(repo.path().join("link")).unwrap();
            symlink("elsewhere", repo.path().join("link")).unwrap();
        }),
        ("gone: a file that is not tracked is in its place", &|repo| repo.write("gone", "somebody's\n")),
        ("gone: a file that is not tracked is in its place", &|repo| {
            repo.write(".git/info/exclude", "gone\n");
            repo.write("gone", "ignored\n");
        }),
        ("gone: something that is not a regular file is in its place", &|repo| {
            fs::create_dir(repo.path().join("gone")).unwrap();
        }),
        ("dir/deep/program: ", &|repo| repo.write("dir", "a file\n")),
        ("new/deep/file: something else is staged there", &|repo| {
            repo.write("new/deep/file", "staged\n");
            repo.git(["add", "new/deep/file"]);
            repo.write("new/deep/file", "new\n");
        }),
        ("new/deep/file: it is marked as assume-unchanged", &|repo| {
            repo.git(["update-index", "--assume-unchanged", "new/deep/file"]);
        }),
        ("new/deep/file: a sparse checkout leaves it out", &|repo| {
            repo.git(["update-index", "--skip-worktree", "new/deep/file"]);
        }),
        ("gone: `git add -N` has announced it", &|repo| {
            repo.write("gone", "soon\n");
            repo.git(["add", "-N", "gone"]);
        }),
    ];
    for (why, obstacle) in obstacles {
        let repo = diverged();
        repo.git(["merge", "-q", "ahead"]);
        obstacle(&repo);
        let before = Whole::of(&repo);
        // What is staged refuses a bare undo before that.
        assert_eq!((run_jin(&repo, &["undo"]).0, &Whole::of(&repo)), (1, &before), "{why}");
        let (code, said) = run_jin(&repo, &["undo", &newest(&repo)]);
        assert_eq!((code, Whole::of(&repo)), (1, before), "{why}: {said}");
        assert!(said.contains(why), "{why}: {said}");
        assert_eq!(run_jin(&repo, &["undo", "--dry-run"]).0, 1, "{why}");
    }
}

#[test]
fn a_split_index_and_a_submodule_are_refused() {
    let repo = diverged();
    repo.git(["merge", "-q", "ahead"]);
    repo.git(["update-index", "--split-index"]);
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the index is split or sparse"), "{said}");
    let repo = diverged();
    let commit = value(&repo, "HEAD");
    repo.git(["checkout", "-q", "--", "mine"]);
    repo.git(["checkout", "-q", "-b", "with-submodule"]);
    repo.git(["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
    repo.git(["commit", "-q", "-m", "a submodule"]);
    repo.git(["checkout", "-q", "main"]);
    repo.git(["merge", "-q", "with-submodule"]);
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("sub: it is a submodule"), "{said}");
}

#[test]
fn in_the_middle_of_a_merge_nothing_below_it_is_taken_back() {
    let repo = diverged();
    repo.git(["tag", "v1"]);
    repo.write("topic", "in conflict\n");
    repo.git(["add", "topic"]);
    repo.git(["commit", "-q", "-m", "conflicts with topic"]);
    repo.try_git(["merge", "-q", "topic"]);
    let before = Whole::of(&repo);
    assert_eq!(before.in_progress, ["MERGE_HEAD"]);
    let commit = crash::transactions(&repo)
        .iter()
        .find(|t| t["operation"].as_str().unwrap().contains("conflicts"))
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (code, said) = run_jin(&repo, &["undo", &commit]);
    assert_eq!((code, Whole::of(&repo)), (1, before), "{said}");
    assert!(said.contains("a merge is in progress") && said.contains("`git merge --abort`"), "{said}");
}
