//! Ways to be called: `git txn` from anywhere, `git txn git`, the POSIX hooks, and the shim that is called `git`.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::support::observe::shown;
use crate::support::repo::{Git, Options, Repo, jin_txn, text};

fn protected() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.write("sub/dir/file", "content\n");
    repo.write("other", "content\n");
    repo.commit_all("one");
    repo
}

fn git_in(repo: &Repo, directory: &Path, arguments: &[&str], input: &[u8]) -> Output {
    repo.run(Git::under_test().program.as_os_str(), directory, arguments, input)
}

fn logged(repo: &Repo) -> String {
    text(&repo.jin_txn(["log"]).stdout).into_owned()
}

#[test]
fn git_txn_works_from_a_subdirectory_and_from_a_linked_worktree() {
    let repo = protected();
    repo.git(["worktree", "add", "-q", "../linked"]);
    let linked = repo.sibling("linked");
    for directory in [repo.path().join("sub/dir"), linked.path().to_owned(), linked.path().join("sub")] {
        let output = git_in(&repo, &directory, &["txn", "status"], b"");
        assert_eq!(
            shown(&repo, &output),
            "protected: [DIR]/repo/.git\ndurability: full (power cuts)\nclean: nothing is unfinished\n--- stderr\n--- exit 0",
            "in {}",
            directory.display()
        );
    }
}

#[test]
fn the_worktree_around_a_directory_is_the_one_that_git_finds() {
    let repo = protected();
    repo.git(["worktree", "add", "-q", "../linked"]);
    repo.git(["clone", "-q", "--bare", ".", "../bare"]);
    repo.git(["init", "-q", "sub/nested"]);
    let there = repo.path();
    let scratch = there.parent().expect("a parent");
    symlink(there.join("sub"), scratch.join("link")).expect("a link");
    let inside = ["", "sub/dir", "sub/nested", "../linked", "../linked/sub/dir", "../link", "../link/dir"];
    for directory in inside.map(|name| there.join(name)) {
        let said = git_in(&repo, &directory, &["rev-parse", "--show-toplevel"], b"");
        let found = jin_txn::Repository::top_around(&directory).expect("a worktree");
        assert_eq!(found.display().to_string(), text(&said.stdout).trim_end(), "in {}", directory.display());
    }
    for directory in [".git", ".git/hooks", ".git/refs/heads", "../bare", "../bare/refs"].map(|name| there.join(name)) {
        assert_eq!(jin_txn::Repository::top_around(&directory), None, "in {}", directory.display());
    }
}

#[test]
fn git_of_ours_runs_where_the_user_is() {
    let repo = protected();
    repo.git(["worktree", "add", "-q", "../linked"]);
    let linked = repo.sibling("linked");
    for worktree in [&repo, &linked] {
        let here = worktree.path().join("sub/dir");
        let run = |arguments: &[&str]| {
            let output = git_in(&repo, &here, &[&["txn", "git"], arguments].concat(), b"");
            assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
            text(&output.stdout).trim().to_owned()
        };
        assert_eq!(run(&["ls-files"]), "file", "relative paths are the user's");
        assert_eq!(run(&["rev-parse", "--show-prefix"]), "sub/dir/", "git knows where the user is");
        assert_eq!(Path::new(&run(&["rev-parse", "--show-toplevel"])), worktree.path(), "and in which worktree");
        worktree.write("sub/dir/new", "new\n");
        run(&["add", "new"]);
        assert_eq!(run(&["diff", "--cached", "--name-only", "--relative"]), "new", "a relative path is added");
        assert_eq!(run(&["-C", "../..", "ls-files", "other"]), "other", "git's own -C counts from there");
    }
}

#[test]
fn git_of_ours_passes_exit_codes_stdin_and_stdout_through() {
    let repo = protected();
    for (arguments, code) in [
        (&["rev-parse", "--verify", "-q", "no-such-branch"][..], 1),
        (&["-c", "alias.x=!exit 42", "x"], 42),
        (&["no-such-command"], 1),
        (&["status", "--no-such-option"], 129),
        (&["--version"], 0),
        (&["-v"], 0),
        (&["-h"], 0),
        (&["-q", "status"], 129),
        (&["-C", ".", "rev-parse", "--git-dir"], 0),
    ] {
        let plain = git_in(&repo, repo.path(), arguments, b"");
        assert_eq!(plain.status.code(), Some(code), "that is what git says to {arguments:?}");
        for ours in [&["txn", "git"][..], &["txn", "-q", "git", "--"]] {
            let output = git_in(&repo, repo.path(), &[ours, arguments].concat(), b"");
            assert_eq!(output, plain, "{ours:?} {arguments:?} differs from git alone");
        }
    }
    let blob = git_in(&repo, repo.path(), &["txn", "git", "hash-object", "-w", "--stdin"], b"\0\xff binary\n");
    let id = text(&blob.stdout).trim().to_owned();
    let output = git_in(&repo, repo.path(), &["txn", "git", "cat-file", "blob", &id], b"");
    assert_eq!(output.stdout, b"\0\xff binary\n", "bytes go in and out unchanged");
}

#[test]
fn git_of_ours_can_be_told_another_repository() {
    let repo = protected();
    let other = repo.new_sibling("other.git", Options { bare: true, ..Options::default() });
    let git_dir = other.path().display().to_string();
    for arguments in [["-C", &git_dir, "git"], ["--git-dir", &git_dir, "git"]] {
        let output = repo.jin_txn(arguments.into_iter().chain(["rev-parse", "--is-bare-repository"]));
        assert_eq!(text(&output.stdout).trim(), "true", "{arguments:?}: {}", text(&output.stderr));
    }
}

/// A repository whose hooks are the POSIX ones, and a git that finds the binary as `JIN_TXN_BIN` says.
struct PosixHooks {
    repo: Repo,
    binary: Option<PathBuf>,
}

impl PosixHooks {
    fn new(binary: Option<PathBuf>) -> Self {
        let repo = Repo::new(Options::default());
        let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks");
        repo.git(["config", "core.hooksPath", &hooks.display().to_string()]);
        Self { repo, binary }
    }

    fn git(&self, arguments: &[&str]) -> Output {
        let mut git = self.repo.command(Git::under_test().program.as_os_str());
        let variable = self.binary.iter().map(|binary| ("JIN_TXN_BIN", binary));
        git.args(arguments).envs(variable).stdin(Stdio::null()).output().expect("git runs")
    }
}

#[test]
fn the_posix_hooks_find_the_binary_and_log() {
    let hooks = PosixHooks::new(Some(jin_txn()));
    for arguments in [&["commit", "-q", "--allow-empty", "-m", "one"][..], &["branch", "topic"]] {
        let output = hooks.git(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stderr.is_empty(), "{arguments:?} is silent: {}", text(&output.stderr));
    }
    insta::assert_snapshot!(shown(&hooks.repo, &hooks.repo.jin_txn(["log"])), @"
    tx-2     [TIME]  committed       1 ref  git branch topic
    tx-1     [TIME]  committed       1 ref  git commit -q --allow-empty -m one
    --- stderr
    --- exit 0
    ");
}

#[test]
fn the_posix_hooks_find_the_binary_in_the_users_home() {
    let hooks = PosixHooks::new(None);
    let bin = hooks.repo.scratch().join("home/.local/bin");
    fs::create_dir_all(&bin).expect("the directory can be made");
    symlink(jin_txn(), bin.join("jin-txn")).expect("a link can be made");
    assert!(hooks.git(&["commit", "-q", "--allow-empty", "-m", "one"]).status.success(), "git works");
    assert_eq!(logged(&hooks.repo).lines().count(), 1, "it is logged: {}", logged(&hooks.repo));
}

#[test]
fn without_the_binary_the_posix_hooks_warn_and_git_goes_on() {
    let hooks = PosixHooks::new(Some("/nowhere/jin-txn".into()));
    insta::assert_snapshot!(shown(&hooks.repo, &hooks.git(&["commit", "-q", "--allow-empty", "-m", "one"])), @"
    --- stderr
    warning: cannot find /nowhere/jin-txn: this ref update is not protected (set JIN_TXN_BIN, or remove this hook)
    --- exit 0
    ");
    for arguments in [&["checkout", "-q", "-b", "topic"][..], &["branch", "-D", "main"], &["pack-refs", "--all"]] {
        let output = hooks.git(arguments);
        assert!(output.status.success(), "{arguments:?} is not blocked: {}", text(&output.stderr));
    }
    assert!(!hooks.repo.git_dir().join(".jin").exists(), "nothing of ours is made");
}

#[test]
fn a_posix_hook_vetoes_when_the_binary_does() {
    let hooks = PosixHooks::new(Some(jin_txn()));
    fs::write(hooks.repo.git_dir().join(".jin"), "in the way").expect("a file can be made");
    let output = hooks.git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    assert!(!output.status.success(), "the exit code of the binary is the hook's");
    assert!(text(&output.stderr).contains("JIN_TXN=off"), "and its words are shown: {}", text(&output.stderr));
}

/// A directory ahead in PATH where `git` is the binary under test, and what a user types there.
struct Shim {
    repo: Repo,
    directory: PathBuf,
}

impl Shim {
    fn new() -> Self {
        let repo = protected();
        let directory = repo.scratch().join("shim");
        fs::create_dir(&directory).expect("it can be made");
        symlink(jin_txn(), directory.join("git")).expect("a link can be made");
        Self { repo, directory }
    }

    fn path(&self) -> OsString {
        let real = Git::under_test().program.parent().expect("a program lies in a directory");
        std::env::join_paths([&self.directory, real, Path::new("/usr/bin"), Path::new("/bin")]).expect("no colons")
    }

    /// What a user's shell makes of a line.
    fn sh(&self, line: &str, input: &[u8]) -> Output {
        let mut shell = self.repo.command("/bin/sh".as_ref());
        shell.args(["-c", line]).env("PATH", self.path());
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().expect("a shell starts");
        child.stdin.take().expect("it has a stdin").write_all(input).expect("the input is taken");
        child.wait_with_output().expect("it can be waited for")
    }
}

#[test]
fn the_shim_is_git_to_the_user() {
    let shim = Shim::new();
    for line in [
        "git version",
        "git log --oneline",
        "cd sub/dir && git ls-files",
        "git -c core.abbrev=7 rev-parse --short HEAD",
        "git no-such-command",
        "git -c alias.x='!exit 42' x",
        "git -c alias.x='!git rev-parse --show-toplevel' x",
        "cd / && git rev-parse HEAD",
        "git txn log",
        "git",
    ] {
        let real = Git::under_test().program.parent().expect("a program lies in a directory").display();
        let plain = shim.sh(&format!("PATH={real}:/usr/bin:/bin; {line}"), b"");
        let through = shim.sh(line, b"");
        assert_eq!(shown(&shim.repo, &through), shown(&shim.repo, &plain), "`{line}` differs from git alone");
    }
    let hashed = shim.sh("git hash-object --stdin", b"content\n");
    assert_eq!(text(&hashed.stdout).trim().len(), 40, "stdin goes through: {}", text(&hashed.stderr));
}

#[test]
fn the_shim_clears_a_stale_lock_away_before_git_runs() {
    let shim = Shim::new();
    let lock = shim.repo.git_dir().join("index.lock");
    fs::write(&lock, "").expect("a lock can be left");
    let off = shim.sh("JIN_TXN=off git add .", b"");
    assert!(!off.status.success() && lock.exists(), "switched off it clears nothing: {}", text(&off.stderr));
    insta::assert_snapshot!(shown(&shim.repo, &shim.sh("cd sub && git add .", b"")), @"
    --- stderr
    jin-txn: moved 1 stale lock to quarantine: index.lock
    --- exit 0
    ");
    assert!(!lock.exists(), "the lock is out of the way");
    fs::write(&lock, "").expect("a lock can be left");
    let named = shim.sh("cd / && git -C \"$OLDPWD\" add .", b"");
    assert!(named.status.success(), "the shim understands -C: {}", text(&named.stderr));
}

#[test]
fn the_shim_does_not_call_itself_under_another_name() {
    let shim = Shim::new();
    let second = shim.repo.scratch().join("second");
    fs::create_dir(&second).expect("it can be made");
    symlink(shim.directory.join("git"), second.join("git")).expect("a link to the link can be made");
    fs::create_dir_all(shim.repo.scratch().join("third/git")).expect("a directory called git can be made");
    let not_executable = shim.repo.scratch().join("fourth");
    fs::create_dir(&not_executable).expect("it can be made");
    fs::write(not_executable.join("git"), "#!/bin/sh\nexit 1\n").expect("a file called git can be made");
    fs::set_permissions(not_executable.join("git"), fs::Permissions::from_mode(0o644)).expect("the mode can be set");
    let scratch = shim.repo.scratch().display();
    let output =
        shim.sh(&format!("PATH={scratch}/second:{scratch}/third:{scratch}/fourth:$PATH timeout 20 git version"), b"");
    let version = format!("git version {}", Git::under_test().version);
    assert_eq!(text(&output.stdout).trim(), version, "the first real git in PATH is run: {}", text(&output.stderr));

    let alone = shim.sh(&format!("PATH={}:{scratch}/second; git version", shim.directory.display()), b"");
    insta::assert_snapshot!(shown(&shim.repo, &alone), @"
    --- stderr
    error: there is no git in PATH: install git 2.31 or newer
    --- exit 1
    ");
}
