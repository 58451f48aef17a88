//! What undo's records could be misread as: each case once took back, or kept, the wrong thing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use super::guarded;
use crate::support::crash::{self, run_jin, transactions, unseen_git, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Options, Repo, text};
use crate::support::tracer::{self, Action, Event, Isolation, Role};

/// A bare undo refuses, with these words, and moves no ref.
fn assert_refuses(repo: &Repo, words: &str) {
    let refs = repo.read(["for-each-ref"]);
    let (code, said) = run_jin(repo, &["undo"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(words), "{said}");
    assert_eq!(repo.read(["for-each-ref"]), refs);
}

fn in_directory(repo: &Repo, directory: &Path, program: &Path, arguments: &[&str]) -> (bool, String) {
    let output = repo.run(program.as_os_str(), directory, arguments, b"");
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.success(), said)
}

fn kept(repo: &Repo) -> Vec<PathBuf> {
    let found = fs::read_dir(repo.git_dir().join(".jin/kept")).into_iter().flatten().flatten();
    found.map(|entry| entry.path()).collect()
}

#[test]
fn an_alias_that_commits_and_pushes_is_undone_only_by_its_id() {
    let repo = guarded();
    repo.git(["init", "-q", "--bare", "../upstream.git"]);
    repo.git(["remote", "add", "origin", "../upstream.git"]);
    repo.git(["push", "-q", "-u", "origin", "main"]);
    repo.git(["config", "alias.ship", "!git commit -q -a -m ship && git push -q origin main"]);
    repo.write("file", "three\n");
    repo.git(["ship"]);
    assert_refuses(&repo, "moved what follows other repositories");
}

#[test]
fn a_directory_that_is_named_as_a_command_is_not_taken_for_it() {
    let repo = guarded();
    repo.git(["branch", "ahead"]);
    repo.git(["reset", "-q", "--hard", "HEAD~1"]);
    fs::create_dir(repo.path().join("x update-ref")).expect("it can be made");
    let before = crate::support::worktree::Whole::of(&repo);
    repo.git(["-C", "x update-ref", "merge", "-q", "ahead"]);
    let (code, said) = run_jin(&repo, &["undo"]);
    assert_eq!((code, crate::support::worktree::Whole::of(&repo)), (0, before), "{said}");
    let (_, listed) = run_jin(&repo, &["log", "-n", "5"]);
    assert!(listed.contains("git -C 'x update-ref' merge -q ahead"), "it can be typed: {listed}");
}

#[test]
fn what_was_done_in_another_worktree_by_the_environment_is_not_taken_back_here() {
    let repo = guarded();
    fs::create_dir(repo.path().join("../other")).expect("it can be made");
    fs::copy(repo.path().join("file"), repo.path().join("../other/file")).expect("it can be copied");
    let git = &crate::support::repo::Git::under_test().program;
    let git = git.to_str().expect("it is text");
    let place = format!("GIT_WORK_TREE={}/../other", repo.path().display());
    let reset = [place.as_str(), git, "reset", "-q", "--hard", "HEAD~1"];
    let (done, said) = in_directory(&repo, repo.path(), Path::new("/usr/bin/env"), &reset);
    assert!(done, "{said}");
    assert_refuses(&repo, "in another worktree");
}

#[test]
fn a_stash_that_another_worktree_makes_while_the_list_comes_back_stays_in_it() {
    let repo = Repo::new(Options::default());
    repo.write("file", "one\n");
    repo.commit_all("one");
    repo.git(["worktree", "add", "-q", "-b", "side", "../linked"]);
    let go = repo.path().join("../go");
    // Behind the change of the ref, and before the list is put into place.
    let hook = format!(
        "#!/bin/sh\ngrep -q refs/stash && [ $1 = committed ] && rm '{}' 2> /dev/null || exit 0\n\
         unset $(git rev-parse --local-env-vars); cd '{}' && echo other > file && git stash push -q -m other\n",
        go.display(),
        repo.path().join("../linked").display()
    );
    let path = repo.git_dir().join("hooks/reference-transaction");
    fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("it can be made");
    fs::write(&path, hook).expect("it can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    repo.install_guard();
    for name in ["first", "second"] {
        repo.write("file", name);
        repo.git(["stash", "push", "-q", "-m", name]);
    }
    repo.git(["stash", "clear"]);
    fs::write(&go, "").expect("it can be written");
    let (code, said) = run_jin(&repo, &["undo"]);
    let listed = repo.read(["stash", "list", "--format=%gs"]);
    assert!(!go.exists(), "another worktree has made a stash: {said}");
    assert_eq!((code, listed.trim()), (0, "On side: other\nOn main: second\nOn main: first"), "{said}");
}

#[test]
fn a_pull_is_undone_though_it_fetches() {
    let repo = guarded();
    repo.git(["init", "-q", "--bare", "../upstream.git"]);
    repo.git(["remote", "add", "origin", "../upstream.git"]);
    repo.git(["push", "-q", "-u", "origin", "main"]);
    unseen_git(&repo, &["reset", "-q", "--hard", "HEAD~1"]);
    let before = value(&repo, "HEAD");
    repo.git(["update-ref", "-d", "refs/remotes/origin/main"]);
    repo.git(["pull", "-q", "origin", "main"]);
    assert_ne!(value(&repo, "HEAD"), before);
    let (code, said) = run_jin(&repo, &["undo"]);
    assert!(!said.contains("moved what follows other repositories"), "{code}: {said}");
}

#[test]
fn a_worktree_with_the_name_of_a_removed_one_has_none_of_its_operations() {
    let repo = guarded();
    let linked = repo.path().join("../linked");
    let git = |arguments: &[&str]| {
        let git = &crate::support::repo::Git::under_test().program;
        let (done, said) = in_directory(&repo, &linked, git, arguments);
        assert!(done, "{said}");
    };
    repo.git(["worktree", "add", "-q", "-b", "side", "../linked"]);
    git(&["commit", "-q", "--allow-empty", "-m", "work"]);
    repo.git(["worktree", "remove", "../linked"]);
    let work = value(&repo, "side");
    repo.git(["worktree", "add", "-q", "../linked", "side"]);
    let (done, said) = in_directory(&repo, &linked, &crate::support::repo::jin_txn(), &["undo"]);
    assert!(!done, "{said}");
    assert_eq!(value(&repo, "side"), work, "{said}");
    assert!(!said.contains("commit"), "nothing of the removed one is named: {said}");
}

#[test]
fn a_branch_that_this_worktree_rebases_is_not_moved() {
    let repo = guarded();
    repo.git(["switch", "-q", "-c", "topic"]);
    for text in ["three\n", "four\n"] {
        repo.write("file", text);
        repo.commit_all(text.trim());
    }
    let id = transactions(&repo)[0]["id"].as_str().expect("an id").to_owned();
    let topic = value(&repo, "topic");
    repo.git(["-c", "sequence.editor=sed -i 1s/pick/edit/", "rebase", "-q", "-i", "HEAD~2"]);
    assert!(repo.git_dir().join("rebase-merge/head-name").exists(), "it has stopped");
    let (code, said) = run_jin(&repo, &["undo", &id]);
    assert_eq!((code, value(&repo, "topic")), (1, topic), "{said}");
    assert!(said.contains("a rebase is in progress in this worktree"), "{said}");
}

#[test]
fn what_is_kept_has_its_bounds_whatever_the_ids_are() {
    let repo = guarded();
    repo.git(["config", "jin.retention", "64k"]);
    repo.install_guard();
    for number in 0..200 {
        repo.write(&format!("many/{number}"), "same\n");
    }
    repo.commit_all("many");
    // From here on the ids of commits are odd.
    repo.git(["tag", "odd"]);
    for number in 0..40 {
        repo.write("file", &format!("{number}\n"));
        repo.commit_all("next");
        repo.git(["tag", &format!("t{number}")]);
    }
    let is_odd = |path: &PathBuf| path.to_string_lossy().ends_with(['1', '3', '5', '7', '9']);
    assert!(is_odd(&kept(&repo)[0]), "{:?}", kept(&repo));
    let kept = kept(&repo).len();
    assert!(kept < 20, "{kept} are kept, of which 64 KiB hold three");
}

#[test]
fn what_stands_for_a_worktree_goes_when_that_is_gone() {
    let repo = guarded();
    repo.git(["worktree", "add", "-q", "-b", "side", "../linked"]);
    repo.git(["worktree", "add", "-q", "-b", "stays", "../stays"]);
    let standing = |name: &str| repo.git_dir().join(format!(".jin/last.index@{name}")).exists();
    assert!(standing("linked") && standing("stays"));
    repo.git(["worktree", "remove", "../linked"]);
    let (code, said) = run_jin(&repo, &["recover"]);
    assert_eq!((code, standing("linked"), standing("stays")), (0, false, true), "{said}");
}

#[test]
fn a_section_of_a_private_configuration_is_kept_privately() {
    let repo = guarded();
    repo.git(["branch", "topic"]);
    repo.git(["config", "core.sharedRepository", "group"]);
    repo.git(["config", "branch.topic.description", "secret"]);
    let find = ["find", ".git", "-type", "d", "-exec", "chmod", "2770", "{}", "+"];
    let (done, said) = in_directory(&repo, repo.path(), Path::new("/usr/bin/env"), &find);
    assert!(done, "{said}");
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(repo.git_dir().join("config"), private).expect("it is ours");
    repo.git(["branch", "-q", "-D", "topic"]);
    let kept = kept(&repo).into_iter().map(|dir| dir.join("config.sections")).find(|file| file.exists());
    let mode = fs::metadata(kept.expect("it is kept")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_configuration_and_an_index_that_are_written_in_place_make_a_bare_undo_refuse() {
    for (name, words) in [("config", "edited in place"), ("index", "the index: something")] {
        let repo = guarded();
        repo.git(["tag", "newest"]);
        let_the_clock_tick(&repo.git_dir());
        let path = repo.git_dir().join(name);
        let content = fs::read(&path).expect("it is there");
        fs::write(&path, &content).expect("it can be written");
        assert_refuses(&repo, words);
    }
}

#[test]
fn an_index_that_was_written_in_place_is_noticed_when_git_has_replaced_it_since() {
    let repo = guarded();
    repo.write("new", "new\n");
    repo.git(["add", "new"]);
    let index = repo.git_dir().join("index");
    let other = fs::read(&index).expect("it is there");
    repo.git(["rm", "-q", "--cached", "new"]);
    repo.git(["tag", "newest"]);
    let_the_clock_tick(&repo.git_dir());
    fs::write(&index, &other).expect("it can be written");
    repo.git(["update-index", "--force-write-index"]);
    assert_refuses(&repo, "the index: something");
}

#[test]
fn what_another_worktree_found_does_not_count_as_edited_in_place() {
    let repo = guarded();
    repo.git(["worktree", "add", "-q", "-b", "side", "../linked"]);
    repo.git(["tag", "newest"]);
    let_the_clock_tick(&repo.git_dir());
    repo.git(["config", "a.b", "c"]);
    let_the_clock_tick(&repo.git_dir());
    repo.git(["-C", "../linked", "commit", "-q", "--allow-empty", "-m", "side"]);
    let (code, said) = run_jin(&repo, &["undo"]);
    assert!(code == 0 && said.contains("git tag newest"), "{said}");
}

#[test]
fn worktrees_and_their_settings_that_changed_behind_it_make_a_bare_undo_refuse() {
    let after = |setup: &[&[&str]], command: &[&str], words: &str| {
        let repo = guarded();
        setup.iter().for_each(|command| drop(repo.git(*command)));
        repo.git(["tag", "newest"]);
        let_the_clock_tick(&repo.git_dir());
        repo.git(command);
        assert_refuses(&repo, words);
    };
    let two: [&[&str]; 2] =
        [&["worktree", "add", "-q", "-b", "a", "../a"], &["worktree", "add", "-q", "-b", "b", "../b"]];
    after(&two, &["worktree", "remove", "../a"], "worktrees (`git worktree`");
    after(&two, &["worktree", "move", "../a", "../c"], "worktrees/a/gitdir");
    after(
        &[&["config", "extensions.worktreeConfig", "true"]],
        &["config", "--worktree", "a.b", "c"],
        "config.worktree",
    );
    after(&[&["sparse-checkout", "set", "one"]], &["sparse-checkout", "set", "two"], "info/sparse-checkout");
}

#[test]
fn what_a_git_did_that_is_still_at_work_is_not_taken_back() {
    let repo = guarded();
    let mut said = None;
    let mut decide = |event: &Event| {
        let moves_head = event.path.as_deref().is_some_and(|path| path.ends_with(".git/HEAD.lock"));
        if said.is_none() && event.role == Role::Git && moves_head {
            assert_ne!(value(&repo, "refs/heads/n"), "", "the branch is made");
            said = Some(thread::scope(|it| it.spawn(|| run_jin(&repo, &["undo"])).join().expect("it ends")));
        }
        Action::Continue
    };
    let switch = crash::git(&repo, &["switch", "-q", "-c", "n"]);
    let outcome = tracer::trace(switch, b"", Isolation::None, &mut decide).expect("git starts");
    let (code, said) = said.expect("git moves HEAD");
    assert!(outcome.status.success() && code == 1 && said.contains("is still running"), "{code}: {said}");
    assert_eq!(repo.read(["rev-parse", "HEAD"]), value(&repo, "refs/heads/n"));
    assert_eq!(run_jin(&repo, &["undo"]).0, 0);
}
