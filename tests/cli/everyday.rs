//! A healthy repository behaves as if we were not there: forty everyday commands print the same, end the same, and leave the
//! same behind; with one git, and with several that take turns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::support::repo::{Git, Options, Repo, jin_txn, text};
use crate::support::terminal::Terminal;

/// What a user types, one line each; each continues where the one before it stopped.
const LINES: [&str; 46] = [
    "git status",
    "echo two >file && git diff",
    "git add file",
    "git diff --cached",
    "git commit -m 'two'",
    "git commit --amend -m 'two, amended'",
    "git log --oneline --decorate",
    "git branch topic",
    "git branch -v",
    "git switch topic",
    "echo topic >other && git add other && git commit -m 'on topic'",
    "git checkout main",
    "git checkout nowhere",
    "git merge topic",
    "git merge --no-ff -m 'again' topic",
    "git tag v1",
    "git tag -a v2 -m 'the second'",
    "git tag v1",
    "git show --stat v2",
    "git branch -m topic renamed",
    "git branch -d renamed",
    "git switch -c conflict HEAD~1",
    "echo theirs >file && git commit -a -m 'theirs'",
    "git switch main",
    "echo ours >file && git commit -a -m 'ours'",
    "git merge conflict",
    "git status --short --branch",
    "git merge --abort",
    "git rebase conflict",
    "git rebase --abort",
    "git cherry-pick conflict",
    "git cherry-pick --abort",
    "git revert --no-edit HEAD",
    "git reset --hard HEAD~1",
    "echo dirty >file && git stash",
    "git stash list",
    "git stash pop",
    "git restore file",
    "git worktree add ../linked conflict",
    "git worktree remove ../linked",
    "git push ../remote.git main v1",
    "git fetch ../remote.git main",
    "git pull --rebase ../remote.git main",
    "git update-ref refs/heads/plumbing HEAD && git update-ref -d refs/heads/plumbing",
    "git pack-refs --all && git gc --quiet && git fsck --no-progress",
    "git reflog && git for-each-ref && git ls-files --stage && git rev-parse HEAD",
];

fn case(guarded: bool) -> Repo {
    let repo = Repo::new(Options::default());
    repo.write("file", "one\n");
    repo.commit_all("one");
    let remote = repo.new_sibling("remote.git", Options { bare: true, ..Options::default() });
    if guarded {
        repo.install_guard();
        remote.install_guard();
    }
    repo
}

/// Runs a line, and says all that a user can see of it. Paths are named; nothing else is left out.
fn seen(repo: &Repo, git: &Path, line: &str) -> String {
    let mut shell = repo.command("/bin/sh".as_ref());
    let directory = git.parent().expect("a program lies in a directory").display();
    shell.args(["-c", line]).env("PATH", format!("{directory}:/usr/bin:/bin")).stdin(Stdio::null());
    let output = shell.output().expect("a shell starts");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let said = format!("$ {line}\n{stdout}--- stderr\n{stderr}--- {}\n", output.status);
    said.replace(&repo.scratch().display().to_string(), "[DIR]")
}

#[test]
fn everyday_commands_print_the_same_with_and_without_the_guard() {
    let (plain, guarded) = (case(false), case(true));
    let git = &Git::under_test().program;
    for line in LINES {
        assert_eq!(seen(&guarded, git, line), seen(&plain, git, line), "`{line}` shows that we are there");
        for look in ["git status --porcelain=v2 --branch --show-stash", "git for-each-ref", "git ls-files --stage"] {
            assert_eq!(seen(&guarded, git, look), seen(&plain, git, look), "after `{line}`");
        }
    }
    let logged = text(&guarded.jin_txn(["log", "--transactions", "-n", "1000"]).stdout).lines().count();
    assert!(logged > 30, "and yet all of it was logged: {logged} transactions");
    assert_eq!(guarded.jin_txn(["check"]).status.code(), Some(0), "and nothing is unfinished");
}

/// One git of each version: those in PATH, the usual places, and what `JIN_TEST_GITS` names.
fn all_gits() -> Vec<(PathBuf, String)> {
    let directories = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let named =
        env::var_os("JIN_TEST_GITS").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let usual = ["/usr/bin", "/usr/local/bin"].map(PathBuf::from);
    let programs = directories.into_iter().chain(usual).map(|dir| dir.join("git")).chain(named);
    let mut versions = BTreeSet::new();
    let version_of = |program: &PathBuf| {
        let output = Command::new(program).arg("version").output().ok()?;
        Some(text(&output.stdout).trim().strip_prefix("git version ")?.to_owned())
    };
    let with_version = programs.filter_map(|program| Some((version_of(&program)?, program)));
    with_version.filter_map(|(v, program)| versions.insert(v.clone()).then_some((program, v))).collect()
}

#[test]
fn gits_of_different_versions_take_turns_in_one_repository() {
    let gits = all_gits();
    if gits.len() < 2 {
        println!("skipped: there is only one git here (JIN_TEST_GITS=/path/to/git:... names more)");
        return;
    }
    let (plain, guarded) = (case(false), case(true));
    for (round, line) in LINES.into_iter().enumerate() {
        let (git, version) = &gits[round % gits.len()];
        let said = seen(&guarded, git, line);
        assert_eq!(said, seen(&plain, git, line), "git {version}: `{line}` shows that we are there");
        assert!(!said.contains("jin-txn"), "git {version}: {said}");
    }
    for (git, version) in &gits {
        let status = seen(&guarded, git, &format!("'{}' status", jin_txn().display()));
        assert!(status.contains("\nprotected"), "git {version}: {status}");
        assert!(status.contains("clean: nothing is unfinished"), "git {version}: {status}");
    }
    let log = text(&guarded.jin_txn(["log", "-n", "1000"]).stdout).into_owned();
    assert!(log.lines().all(|line| !line.contains(" begun ")), "every transaction has an end: {log}");
}

#[test]
fn what_one_git_leaves_another_recovers() {
    let gits = all_gits();
    if gits.len() < 2 {
        println!("skipped: there is only one git here (JIN_TEST_GITS=/path/to/git:... names more)");
        return;
    }
    for (next, version) in &gits {
        let case = crate::support::hanging::Case::torn();
        let recovered = seen(&case.repo, next, &format!("'{}' recover", jin_txn().display()));
        assert_eq!(case.values(), ["old"; 4], "recovered with git {version}: {recovered}");
        let said = seen(&case.repo, next, "git branch after && git commit --allow-empty -q -m after");
        assert!(said.ends_with("--- stderr\n--- exit status: 0\n"), "git {version} goes on: {said}");
    }
}

fn local(repo: &Repo, key: &str) -> Option<String> {
    let found = repo.try_git(["config", "--local", "--get", key]);
    found.status.success().then(|| text(&found.stdout).trim().to_owned())
}

#[test]
fn locks_say_who_holds_them_where_git_can_and_the_users_own_setting_stays() {
    let new = Git::under_test().is_at_least(2, 54);
    for before in [None, Some("false"), Some("true")] {
        let repo = Repo::new(Options::default());
        before.into_iter().for_each(|value| drop(repo.git(["config", "core.lockfilePid", value])));
        let config = || fs::read(repo.git_dir().join("config")).expect("there is a configuration");
        let pristine = config();
        repo.install_guard();
        repo.install_guard();
        let expected = before.or(new.then_some("true"));
        assert_eq!(local(&repo, "core.lockfilePid").as_deref(), expected, "before: {before:?}");
        assert!(repo.jin_txn(["uninstall"]).status.success(), "before: {before:?}");
        assert_eq!(config(), pristine, "before: {before:?}, byte for byte");
    }
    let repo = Repo::new(Options::default());
    repo.git(["config", "--global", "core.lockfilePid", "false"]);
    repo.install_guard();
    assert_eq!(local(&repo, "core.lockfilePid"), None, "what the user has set for all repositories counts as well");
}

#[test]
fn installing_again_with_an_older_or_a_newer_git_takes_back_what_each_has_set() {
    let gits = all_gits();
    let repo = Repo::new(Options::default());
    let pristine = fs::read(repo.git_dir().join("config")).expect("there is a configuration");
    for round in 0..2 {
        for (git, version) in &gits {
            let said = seen(&repo, git, &format!("'{}' install", jin_txn().display()));
            assert!(said.ends_with("--- exit status: 0\n"), "round {round}, git {version}: {said}");
        }
    }
    let (git, _) = &gits[gits.len() - 1];
    let said = seen(&repo, git, &format!("'{}' uninstall --purge", jin_txn().display()));
    assert!(said.ends_with("--- exit status: 0\n"), "{said}");
    assert_eq!(fs::read(repo.git_dir().join("config")).expect("there is one"), pristine, "byte for byte");
}

/// A program that a repository names is not run; the user's is, as git runs it.
#[test]
fn the_log_on_a_terminal_goes_through_the_pager_of_the_user_and_not_of_the_repository() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.git(["commit", "-q", "--allow-empty", "-m", "a b"]);
    repo.git(["config", "core.pager", "touch .git/pwned; sed s/^/repository:/"]);
    let page = |pagers: &[(&str, &str)]| {
        let mut command = repo.command(jin_txn().as_os_str());
        command.arg("log").env("TERM", "xterm").envs(pagers.iter().copied());
        let mut terminal = Terminal::start(command);
        let shown = terminal.wait_for("git commit -q --allow-empty -m 'a b'");
        assert!(terminal.ended().success(), "{shown}");
        shown
    };
    let pager = |name: &str| format!("sed s/^/{name}:/");
    let (one, other) = (pager("one"), pager("other"));
    assert!(page(&[("GIT_PAGER", &one), ("PAGER", &other)]).starts_with("one:tx-1"));
    assert!(page(&[("PAGER", &other)]).starts_with("other:tx-1"));
    assert!(page(&[("GIT_PAGER", "cat")]).starts_with("tx-1"));
    assert!(page(&[("GIT_PAGER", "no-such-pager")]).starts_with("tx-1"), "without it all is shown all the same");
    repo.git(["config", "--global", "core.pager", &pager("user")]);
    assert!(page(&[("PAGER", &other)]).starts_with("user:tx-1"));
    assert!(!repo.git_dir().join("pwned").exists());
}
