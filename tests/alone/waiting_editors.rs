//! A `git commit -a` that waits in its editor holds a complete `index.lock` which nobody has open. However it was
//! started, it must not lose it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::alone;
use crate::support::crash::{assert_recovers, run_jin, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Options, Repo};

fn guarded() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.write("file", "one\n");
    repo.commit_all("base");
    repo
}

/// A commit in its editor. The editor says through one FIFO that it is there, and waits at another.
struct Waiting {
    git: Child,
    go: PathBuf,
}

impl Waiting {
    /// Starts `git ARGUMENTS commit -a` in `directory`.
    fn start(repo: &Repo, directory: &Path, arguments: &[&str]) -> Self {
        let (here, go) = (repo.scratch().join("editor-is-here"), repo.scratch().join("editor-may-go"));
        for fifo in [&here, &go] {
            mkfifo(fifo, Mode::S_IRWXU).expect("a FIFO can be made");
        }
        let editor = repo.scratch().join("editor");
        let script = format!(
            "#!/bin/sh\necho here >'{}'\nread -r line <'{}'\necho done >\"$1\"\n",
            here.display(),
            go.display()
        );
        fs::write(&editor, script).expect("the editor can be written");
        let mut command = repo.command(Git::under_test().program.as_os_str());
        command.current_dir(directory).args(arguments).args(["commit", "-a"]);
        command.env("GIT_EDITOR", format!("sh '{}'", editor.display()));
        let git = command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("git starts");
        let mut said = String::new();
        File::open(&here).expect("the FIFO is there").read_to_string(&mut said).expect("the editor says so");
        assert_eq!(said, "here\n", "the editor is open");
        Waiting { git, go }
    }

    /// The user closes the editor.
    fn finish(mut self) -> bool {
        let mut go = File::options().write(true).open(&self.go).expect("the editor waits");
        go.write_all(b"go\n").expect("it reads");
        self.git.wait().expect("git ends").success()
    }
}

/// Recovery leaves the lock alone while the editor is open, and the commit succeeds.
fn is_not_robbed(repo: &Repo, directory: &Path, arguments: &[&str], index_lock: &Path) {
    let before = value(repo, "refs/heads/main");
    let waiting = Waiting::start(repo, directory, arguments);
    let held = fs::read(index_lock).expect("git holds index.lock");
    let (code, said) = run_jin(repo, &["recover"]);
    assert_eq!(fs::read(index_lock).ok(), Some(held), "a live git was robbed of its lock: {said}");
    assert_eq!(code, 5, "a live git is in the way: {said}");
    assert!(waiting.finish(), "the commit succeeds");
    assert_ne!(value(repo, "refs/heads/main"), before, "and is there");
    assert_recovers(repo);
}

fn with_subdirectory() -> Repo {
    let repo = guarded();
    repo.write("sub/file", "one\n");
    repo.commit_all("with a subdirectory");
    repo.write("file", "two\n");
    repo
}

#[test]
fn a_commit_from_a_subdirectory_with_an_outer_repository_around_is_not_robbed() {
    let _alone = alone();
    let outer = Repo::new(Options::default());
    let repo = outer.new_sibling("repo/inner", Options { guarded: true, ..Options::default() });
    repo.write("sub/file", "one\n");
    repo.commit_all("base");
    repo.write("sub/file", "two\n");
    let sub = repo.path().join("sub");
    is_not_robbed(&repo, &sub, &["-C", ".."], &repo.git_dir().join("index.lock"));
}

#[test]
fn a_commit_with_a_relative_git_dir_is_not_robbed() {
    let _alone = alone();
    let repo = with_subdirectory();
    let sub = repo.path().join("sub");
    is_not_robbed(&repo, &sub, &["--git-dir=../.git", "--work-tree=.."], &repo.git_dir().join("index.lock"));
}

#[test]
fn a_commit_in_a_worktree_that_the_configuration_names_is_not_robbed() {
    let _alone = alone();
    let repo = with_subdirectory();
    let worktree = repo.scratch().join("elsewhere");
    fs::create_dir_all(worktree.join("sub")).expect("a directory can be made");
    fs::write(worktree.join("file"), "three\n").expect("a file can be made");
    fs::write(worktree.join("sub/file"), "one\n").expect("a file can be made");
    repo.git(["config", "core.worktree", &worktree.display().to_string()]);
    let git_dir = repo.git_dir();
    let before = value(&repo, "refs/heads/main");
    let waiting = Waiting::start(&repo, &git_dir, &[]);
    let (code, said) = run_jin(&repo, &["recover"]);
    assert!(git_dir.join("index.lock").exists(), "a live git was robbed of its lock: {said}");
    assert_eq!(code, 5, "a live git is in the way: {said}");
    assert!(waiting.finish(), "the commit succeeds");
    assert_ne!(value(&repo, "refs/heads/main"), before, "and is there");
}

#[test]
fn files_of_other_tools_that_are_called_lock_stay() {
    let _alone = alone();
    let repo = guarded();
    let tool = repo.git_dir().join("mytool");
    fs::create_dir_all(tool.join("state.lock")).expect("a directory can be made");
    fs::write(tool.join("Cargo.lock"), "x").expect("a file can be made");
    fs::create_dir_all(repo.git_dir().join("worktrees/x/modules/s")).expect("a directory can be made");
    let inner = repo.git_dir().join("worktrees/x/modules/s/index.lock");
    fs::write(&inner, "somebody's").expect("a file can be made");
    let stale = repo.git_dir().join("config.lock");
    fs::write(&stale, "").expect("a file can be made");
    let_the_clock_tick(&repo.git_dir());
    let (_, said) = run_jin(&repo, &["recover"]);
    assert!(!stale.exists(), "the stale lock is gone: {said}");
    assert!(tool.join("state.lock").is_dir() && tool.join("Cargo.lock").exists(), "another tool's stay: {said}");
    assert!(inner.exists(), "a submodule of a worktree is another repository: {said}");
}

#[test]
fn a_worktree_that_a_user_locked_with_gits_own_reason_stays_locked() {
    let _alone = alone();
    let repo = guarded();
    let linked = repo.scratch().join("linked");
    repo.git(["worktree", "add", "-q", &linked.display().to_string()]);
    let_the_clock_tick(&repo.git_dir());
    repo.git(["worktree", "lock", "--reason", "initializing", &linked.display().to_string()]);
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = run_jin(&repo, &["recover"]);
    assert_eq!(code, 0, "nothing is wrong: {said}");
    assert!(repo.git_dir().join("worktrees/linked/locked").exists(), "the user's lock stays: {said}");
}
