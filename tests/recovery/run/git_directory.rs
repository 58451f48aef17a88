//! What a run that fails makes of the git directory: everything goes back, but for what is named as staying out.

use std::fs;
use std::path::Path;

use super::restoring::{assert_no_trace, guarded, run_script};
use crate::support::crash::{recover, run_jin};
use crate::support::repo::{Options, Repo};
use crate::support::scenes::Whole;

#[test]
fn state_of_a_git_that_nobody_knows_yet_goes_back() {
    let repo = guarded();
    let write = |name: &str, content: &str| {
        let path = repo.git_dir().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        fs::write(path, content).expect("it can be written");
    };
    write("history-rewrite/todo", "pick one\n");
    write("history-rewrite/deep/er/state", "1\n");
    write("svn/.metadata", "[svn]\n");
    write("branches/legacy", "../origin.git\n");
    assert_no_trace(
        &repo,
        "cd .git; rm -r history-rewrite/deep branches; echo x >history-rewrite/todo; echo y >history-rewrite/new
         mkdir -p another-one/deep; echo z >another-one/deep/file; rm svn/.metadata; ln -s /tmp svn/.metadata",
    );
    assert!(!repo.git_dir().join("another-one").exists(), "directories that the run made go when they are empty");
}

#[test]
fn hooks_and_large_files_of_the_git_directory_are_told_and_left() {
    let repo = guarded();
    let large = fs::File::create(repo.git_dir().join("large")).expect("it can be made");
    large.set_len(17 << 20).expect("it can be sparse");
    fs::write(repo.git_dir().join("hooks/pre-push"), "#!/bin/sh\n").expect("it can be written");
    let script = "echo 'exit 1' >>.git/hooks/pre-push; echo >.git/hooks/pre-commit; echo changed >>.git/large
                  git tag made; exit 9";
    let (code, said) = run_script(&repo, script);
    assert_eq!(code, 9, "{said}");
    let told = "in the git directory, left as the run made it: hooks/pre-commit, hooks/pre-push, large";
    assert!(said.contains(told), "{said}");
    assert_eq!(repo.try_git(["rev-parse", "-q", "--verify", "made"]).status.code(), Some(1), "the tag went: {said}");
    assert!(repo.git_dir().join("hooks/pre-commit").exists(), "no hook is written or taken away");
    assert_eq!(run_jin(&repo, &["check"]).0, 0);
    // What was not touched is not told.
    let (_, said) = run_script(&repo, "git tag made; exit 9");
    assert!(!said.contains("left as the run made it"), "{said}");
}

#[test]
fn objects_and_the_stores_of_extensions_stay_as_the_run_made_them() {
    let repo = guarded();
    let script = "mkdir -p .git/lfs/objects/ab .git/annex/objects .git/modules/sub/objects/pack
                  echo >.git/lfs/objects/ab/x; echo >.git/annex/objects/y; exit 9";
    let (code, said) = run_script(&repo, script);
    assert_eq!(code, 9, "{said}");
    for kept in ["lfs/objects/ab/x", "annex/objects/y"] {
        assert!(repo.git_dir().join(kept).exists(), "{kept}: nothing there refers to what went back");
    }
}

#[test]
fn a_worktree_that_lies_in_its_bare_repository_is_no_part_of_the_git_directory() {
    let repo = Repo::new(Options { bare: true, guarded: true, ..Options::default() });
    let outside = repo.new_sibling("outside", Options::default());
    outside.write("file", "one\n");
    outside.commit_all("one");
    outside.git(["push", "-q", &repo.path().display().to_string(), "HEAD:refs/heads/main"]);
    repo.git(["worktree", "add", "-q", "work", "main"]);
    let in_work = |script: &str| {
        let work = repo.path().join("work").display().to_string();
        run_jin(&repo, &["-C", &work, "run", "--", "sh", "-ec", script])
    };
    let file = repo.path().join("work/file");
    let read = |path: &Path| fs::read_to_string(path).expect("it is there");
    let mut before = Whole::of(&repo);
    before.git_dir.retain(|path, _| !path.starts_with("work"));
    // A run of the repository itself: the worktree's files are not its business.
    let (code, said) = run_script(&repo, "echo two >work/file; git tag made; exit 9");
    assert_eq!((code, read(&file).as_str()), (9, "two\n"), "{said}");
    let mut after = Whole::of(&repo);
    after.git_dir.retain(|path, _| !path.starts_with("work"));
    after.worktree.clone_from(&before.worktree);
    assert_eq!(after.differences(&before), "", "{said}");
    // A run of the worktree: they are.
    let (code, said) = in_work("echo three >file; git commit -qam three; exit 9");
    assert_eq!((code, read(&file).as_str()), (9, "two\n"), "{said}");
    assert_eq!(recover(&repo).0, 0);
}

#[test]
fn what_another_process_has_open_in_the_git_directory_is_left_to_it_and_told() {
    use std::io::Write;
    let repo = guarded();
    let path = repo.git_dir().join("tool.log");
    let mut log = fs::File::create(&path).expect("it can be made");
    let (code, said) = run_script(&repo, "echo by the run >>.git/tool.log; exit 9");
    assert_eq!(code, 9, "{said}");
    log.write_all(b"by the tool\n").expect("it can be written");
    let found = fs::read_to_string(&path).expect("it is there");
    assert!(found.contains("by the tool"), "the tool still writes what everybody reads: {found}");
    assert!(said.contains("left as the run made it: tool.log"), "{said}");
}

#[test]
fn repositories_in_the_git_directory_and_directories_of_colleagues_are_left_alone() {
    use std::os::unix::fs::PermissionsExt;
    let repo = guarded();
    repo.git(["clone", "-q", "--bare", ".", ".git/mirror.git"]);
    let (code, said) = run_script(&repo, "git push -q .git/mirror.git HEAD:refs/heads/pushed; exit 9");
    assert_eq!(code, 9, "{said}");
    let pushed = repo.try_git(["--git-dir", ".git/mirror.git", "rev-parse", "-q", "--verify", "pushed"]);
    assert!(pushed.status.success(), "what another repository took stays there");
    let closed = repo.git_dir().join("closed");
    fs::create_dir(&closed).expect("it can be made");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("the mode can be set");
    let (code, said) = run_script(&repo, "git tag made; exit 9");
    assert_eq!(code, 9, "{said}");
    assert_eq!(repo.try_git(["rev-parse", "-q", "--verify", "made"]).status.code(), Some(1), "{said}");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("the mode can be set");
}

#[test]
fn a_run_that_fails_in_a_repository_with_a_split_index_leaves_an_index_that_can_be_read() {
    let repo = guarded();
    repo.write(".gitignore", "*.ign\n");
    repo.git(["add", ".gitignore"]);
    repo.git(["commit", "-q", "-m", "ignore"]);
    repo.git(["config", "core.splitIndex", "true"]);
    repo.git(["config", "splitIndex.maxPercentChange", "0"]);
    repo.git(["update-index", "--split-index"]);
    repo.write("a.ign", "kept\n");
    let script = "echo n >t; mv t a.ign; echo z >file; git add file; exit 9";
    let (code, said) = run_script(&repo, script);
    assert_eq!(code, 9, "{said}");
    assert_eq!(repo.read(["status", "--porcelain"]), "", "{said}");
    assert_eq!(repo.read(["diff", "--cached"]), "", "{said}");
    assert_eq!(run_jin(&repo, &["check"]).0, 0);
}

#[test]
fn a_submodule_whose_git_directory_a_failing_run_deleted_is_told() {
    let repo = guarded();
    fs::create_dir_all(repo.git_dir().join("modules/sub/objects")).expect("it can be made");
    let (code, said) = run_script(&repo, "rm -rf .git/modules/sub; exit 9");
    assert_eq!(code, 9, "{said}");
    assert!(!said.contains("it had changed nothing") && said.contains("modules/sub"), "{said}");
}
