//! Runs in unusual places: other worktrees, other git directories, others at work meanwhile.

use std::fs;

use super::restoring::{guarded, kill_script, run_script};
use crate::support::crash::{self, assert_fsck, run_jin, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Options, Repo, jin_txn, text};
use crate::support::scenes::Whole;

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
fn a_quarantine_that_somebody_has_emptied_and_removed_is_made_again() {
    let repo = guarded();
    let quarantine = repo.git_dir().join(".jin/quarantine");
    let before = Whole::of(&repo);
    kill_script(&repo, "echo three >file; git commit -qam three; : now");
    fs::remove_dir_all(&quarantine).expect("there is one");
    assert_eq!(run_jin(&repo, &["check"]).0, 3, "who only looks does not miss it");
    let (code, said) = run_jin(&repo, &["recover"]);
    let now = Whole::of(&repo);
    assert!(code == 0 && now == before, "{said}\n{}", now.differences(&before));
    assert!(quarantine.is_dir(), "what made way has to be somewhere");

    // Nobody's work is there, and nothing of this one's runs.
    fs::remove_dir_all(repo.git_dir().join(".jin/tx")).expect("there is one");
    fs::remove_dir_all(&quarantine).expect("there is one");
    assert_eq!(run_script(&repo, "git tag v1").0, 0);
    assert_eq!(run_jin(&repo, &["recover"]), (0, "jin-txn: nothing to recover\n".to_owned()));
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
        let_the_clock_tick(&repo.git_dir());
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
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = run_jin(&repo, &["recover"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(head(&repo, "worktrees/linked/HEAD"), before);
    assert_eq!(value(&repo, "worktrees/linked/refs/bisect/bad"), "");
    assert_fsck(&repo);
}

/// Runs a failing script with `variables` in the environment of `jin-txn`, in `directory`.
fn run_failing(
    repo: &Repo,
    directory: &std::path::Path,
    variables: &[(&str, &std::path::Path)],
    script: &str,
) -> String {
    let mut command = crash::jin(repo, &["run", "--", "sh", "-ec"]);
    command.arg(format!("{script}\nexit 9")).current_dir(directory).envs(variables.iter().copied());
    let output = command.output().expect("jin-txn starts");
    let said = text(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(9), "{said}");
    said
}

#[test]
fn the_worktree_that_the_environment_names_is_the_one_that_is_restored() {
    let repo = guarded();
    repo.git(["config", "core.worktree", repo.path().to_str().expect("the path is text")]);
    let other = repo.scratch().join("other");
    fs::create_dir_all(other.join("dir")).expect("a directory can be made");
    for file in ["file", "dir/inner"] {
        fs::copy(repo.path().join(file), other.join(file)).expect("it can be copied");
    }
    fs::write(other.join("untracked"), "mine\n").expect("a file can be made");
    repo.write("untracked", "in the configured worktree\n");
    let variables = [("GIT_DIR", repo.git_dir()), ("GIT_WORK_TREE", other.clone())];
    let variables = variables.each_ref().map(|(name, path)| (*name, path.as_path()));
    run_failing(&repo, &other, &variables, "echo bad >untracked; echo bad >file; echo new >new");
    let read = |name: &str| fs::read_to_string(other.join(name)).expect("it is there");
    assert_eq!((read("untracked").as_str(), read("file").as_str()), ("mine\n", "two\n"));
    assert!(!other.join("new").exists());
    assert_eq!(fs::read_to_string(repo.path().join("untracked")).expect("it is there"), "in the configured worktree\n");
}

#[test]
fn a_git_directory_with_another_name_in_the_worktree_is_no_untracked_file() {
    let repo = guarded();
    let moved = repo.path().join("gitdir");
    fs::rename(repo.path().join(".git"), &moved).expect("it can be moved");
    let variables = [("GIT_DIR", moved.as_path()), ("GIT_WORK_TREE", repo.path())];
    let git = |arguments: &[&str]| {
        let mut command = crash::git(&repo, arguments);
        let output = command.current_dir(repo.path()).envs(variables).output().expect("git starts");
        text(&output.stdout).trim().to_owned()
    };
    let before = git(&["rev-parse", "HEAD"]);
    run_failing(&repo, repo.path(), &variables, "echo bad >file; git commit -qam bad");
    assert_eq!(git(&["rev-parse", "HEAD"]), before);
    assert_eq!(git(&["status", "--porcelain"]), "?? gitdir/");
    assert!(!moved.join("index.lock").exists());
}

#[test]
fn a_stash_that_somebody_else_makes_meanwhile_stays() {
    // The command that is no part of the run stands for somebody in another worktree.
    let theirs = "cd ../linked; echo theirs >file; env -u JIN_TXN_RUN git stash push -q -m theirs; cd ../repo";
    for (own, code, left) in
        [("true", 9, vec!["theirs", "old"]), ("git stash push -q -m own", 4, vec!["own", "theirs", "old"])]
    {
        let repo = guarded();
        linked(&repo);
        let theirs = theirs.replace("../repo", repo.path().to_str().expect("the path is text"));
        repo.write("file", "old\n");
        repo.git(["stash", "push", "-q", "-m", "old"]);
        let (ended, said) = run_script(&repo, &format!("{theirs}; echo own >file; {own}; exit 9"));
        assert_eq!(ended, code, "{said}");
        let list = repo.read(["stash", "list", "--format=%gs"]);
        let names: Vec<&str> = list.lines().map(|line| line.rsplit(' ').next().unwrap_or_default()).collect();
        assert_eq!(names, left, "{said}");
        assert_eq!(repo.read(["status", "--porcelain"]), "");
    }
}

/// The run that failed, by what was said about it.
fn run_id(said: &str) -> String {
    let words: Vec<&str> = said.split(' ').collect();
    let at = words.iter().position(|word| *word == "failed").expect("it says what failed");
    words[at - 1].to_owned()
}

#[test]
fn a_worktree_that_is_moved_is_no_place_to_restore_to_and_a_human_decides() {
    let repo = guarded();
    repo.git(["worktree", "add", "-q", "-b", "linked", "../linked"]);
    let linked = repo.sibling("linked");
    linked.write("mine", "mine\n");
    let script = "echo bad >mine; cd ..; mv linked elsewhere; exit 9";
    let (code, said) = run_script(&linked, script);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("is not at") && said.contains("--take-back"), "{said}");
    assert!(!repo.scratch().join("linked").exists(), "nothing is made where it was");
    fs::rename(repo.scratch().join("elsewhere"), linked.path()).expect("it can be moved back");
    let (code, said) = run_jin(&repo, &["recover", "--take-back", &run_id(&said)]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::read_to_string(linked.path().join("mine")).expect("it is there"), "mine\n");
}

/// A run that waits for a human, with the only copy of a file in its snapshot, and its id.
fn waiting() -> (Repo, String) {
    let repo = guarded();
    repo.git(["worktree", "add", "-q", "-b", "linked", "../linked"]);
    let linked = repo.sibling("linked");
    linked.write("mine", "nowhere else\n");
    let (code, said) = run_script(&linked, "cd ../repo; git worktree remove --force ../linked; exit 9");
    assert_eq!(code, 4, "{said}");
    (repo, run_id(&said))
}

/// Whether the only copy is somewhere below a directory of ours.
fn has_it(repo: &Repo, directory: &str) -> bool {
    let files = crate::support::snapshot::walk(&repo.git_dir().join(directory), &|_| true);
    files.iter().any(|path| fs::read(path).is_ok_and(|bytes| bytes == b"nowhere else\n"))
}

#[test]
fn acknowledging_a_run_keeps_its_snapshot() {
    let (repo, id) = waiting();
    let (code, said) = run_jin(&repo, &["recover", "--acknowledge", &id]);
    assert_eq!(code, 0, "{said}");
    assert!(has_it(&repo, ".jin/quarantine"), "the only copy is in quarantine");
    repo.git(["tag", "git-works"]);
}

#[test]
fn a_name_that_git_would_not_check_out_is_left_alone() {
    let repo = guarded();
    repo.write("git~1", "mine\n");
    let (code, said) = run_script(&repo, "echo x >file; echo y >'sub.git~1'; exit 9");
    assert_eq!(code, 9, "{said}");
    assert_eq!(fs::read_to_string(repo.path().join("git~1")).expect("it is there"), "mine\n");
    assert_eq!(fs::read_to_string(repo.path().join("file")).expect("it is there"), "two\n");
}

#[test]
fn the_repository_that_is_named_is_the_one_that_the_command_works_on() {
    let repo = guarded();
    let other = repo.new_sibling("other", Options { guarded: true, ..Options::default() });
    other.commit_all("one");
    let git_dir = repo.git_dir().display().to_string();
    let output = other.jin_txn(["--git-dir", &git_dir, "run", "--", "sh", "-c", "git tag t; exit 9"]);
    assert_eq!(output.status.code(), Some(9), "{}", text(&output.stderr));
    assert_eq!((value(&repo, "t"), value(&other, "t")), (String::new(), String::new()));
}

#[test]
fn nobody_takes_the_hooks_away_while_a_run_is_at_work() {
    let repo = guarded();
    let bin = jin_txn().display().to_string();
    let (code, said) = run_script(&repo, &format!("{bin} uninstall || true; git tag t; exit 9"));
    assert_eq!(code, 9, "{said}");
    assert!(said.contains("is at work: nothing was removed"), "{said}");
    assert_eq!(value(&repo, "t"), "");
}

#[test]
fn acknowledging_that_is_killed_anywhere_never_loses_the_snapshot() {
    use crate::support::tracer::{self, Action, Isolation};
    let acknowledge = |repo: &Repo, id: &str, fatal: usize| {
        let command = crash::jin(repo, &["recover", "--acknowledge", id]);
        let mut decide = |event: &tracer::Event| if event.n == fatal { Action::KillTree } else { Action::Continue };
        tracer::trace(command, b"", Isolation::None, &mut decide).expect("jin-txn starts").events
    };
    let (repo, id) = waiting();
    let events = acknowledge(&repo, &id, 0);
    for fatal in 1..=events {
        let (repo, id) = waiting();
        acknowledge(&repo, &id, fatal);
        run_jin(&repo, &["recover"]);
        assert!(has_it(&repo, ".jin"), "killed at {fatal} of {events}: the only copy is gone");
    }
}
