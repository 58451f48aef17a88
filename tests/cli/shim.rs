//! `install --shim`: a directory ahead of git in PATH, for CI and servers. Whatever else is in PATH, git runs, and once.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::hanging::Case;
use crate::support::observe::{assert_same, shown, tree};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Options, Repo, jin_txn, text};

const NAMES: [&str; 5] = ["git", "git-receive-pack", "git-upload-pack", "git-upload-archive", "git-http-backend"];

fn real_directory() -> &'static Path {
    Git::under_test().program.parent().expect("a program lies in a directory")
}

/// PATH with these directories ahead of the git under test.
fn path(ahead: &[&Path]) -> OsString {
    let behind = [real_directory(), Path::new("/usr/bin"), Path::new("/bin")];
    std::env::join_paths(ahead.iter().copied().chain(behind)).expect("no colons")
}

/// Runs a line in `sh` with a PATH, at most 20 seconds long: a shim that calls itself would not end.
fn sh(repo: &Repo, path: &OsString, line: &str) -> Output {
    let mut shell = repo.command("timeout".as_ref());
    shell.args(["20", "/bin/sh", "-c", line]).env("PATH", path).stdin(Stdio::null());
    shell.output().expect("a shell starts")
}

fn version() -> String {
    format!("git version {}", Git::under_test().version)
}

fn installed(repo: &Repo) -> PathBuf {
    let directory = repo.scratch().join("shim");
    let output = repo.jin_txn(["install", "--shim", &directory.display().to_string()]);
    assert!(output.status.success(), "it can be installed: {}", text(&output.stderr));
    directory
}

fn write_program(file: &Path, content: &str) {
    fs::create_dir_all(file.parent().expect("a file lies in a directory")).expect("the directory can be made");
    // By another process: a file that is open for writing here, or in a child just being started, cannot be run.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", content]).arg(file);
    assert!(shell.status().is_ok_and(|status| status.success()), "the program can be written");
}

#[test]
fn it_links_git_and_the_programs_of_servers_and_takes_them_away_again() {
    let repo = Repo::new(Options::default());
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["install", "--shim", "../new/shim"])), @"
    --- stderr
    jin-txn: [DIR]/new/shim has a `git` that recovers first, then runs [GIT]
    hint: put it first: export PATH=[DIR]/new/shim:$PATH
    --- exit 0
    ");
    let directory = repo.scratch().join("new/shim");
    for name in NAMES {
        assert_eq!(fs::read_link(directory.join(name)).expect("it is a link"), jin_txn(), "{name}");
    }
    let mut again = repo.command(jin_txn().as_os_str());
    again.args(["install", "--shim"]).arg(&directory).env("PATH", path(&[&directory]));
    insta::assert_snapshot!(shown(&repo, &again.output().expect("it runs")), @"
    --- stderr
    jin-txn: [DIR]/new/shim has a `git` that recovers first, then runs [GIT]
    --- exit 0
    ");
    fs::write(directory.join("mine"), "mine").expect("the user has a file there");
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["uninstall", "--shim", "../new/shim"])), @"
    --- stderr
    jin-txn: removed the shim from [DIR]/new/shim
    --- exit 0
    ");
    let left: Vec<_> = tree(&directory).into_keys().collect();
    assert_eq!(left, [Path::new(""), Path::new("mine")], "what is not ours stays");
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["uninstall", "--shim", "../new/shim"])), @"
    --- stderr
    error: there is no shim of jin-txn in [DIR]/new/shim
    --- exit 1
    ");
    assert!(!repo.git_dir().join(".jin").exists(), "the repository is not protected by it");
}

#[test]
fn a_program_of_somebody_else_is_never_replaced() {
    let repo = Repo::new(Options::default());
    for name in NAMES {
        for is_link in [false, true] {
            let directory = repo.scratch().join(format!("{name}-{is_link}"));
            write_program(&directory.join("other"), "#!/bin/sh\n");
            if is_link {
                symlink("other", directory.join(name)).expect("a link can be made");
            } else {
                write_program(&directory.join(name), "#!/bin/sh\n");
            }
            let before = tree(&directory);
            let output = repo.jin_txn(["install", "--shim", &directory.display().to_string()]);
            assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output.stderr));
            assert!(text(&output.stderr).contains(&format!("there is a `{name}` already")), "{}", text(&output.stderr));
            let output = repo.jin_txn(["uninstall", "--shim", &directory.display().to_string()]);
            assert_eq!(output.status.code(), Some(1), "{name}: nothing to take away: {}", text(&output.stderr));
            assert_same(&before, &tree(&directory), name);
        }
    }
}

#[test]
fn whatever_is_in_path_git_runs_and_once() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    let shim = installed(&repo);
    let here = |name: &str| repo.scratch().join(name);
    let (copied, linked, wrapper) = (here("copied"), here("linked"), here("wrapper"));
    for (directory, option) in [(&copied, "-L"), (&linked, "-P")] {
        fs::create_dir(directory).expect("it can be made");
        let status = Command::new("cp").arg(option).arg(shim.join("git")).arg(directory.join("git")).status();
        assert!(status.is_ok_and(|status| status.success()), "the shim can be copied");
    }
    let hard = here("hard");
    fs::create_dir(&hard).expect("it can be made");
    fs::hard_link(copied.join("git"), hard.join("git")).expect("a second name can be given");
    // Each looks for the next git that is not itself: found is the shim, wherever it stands.
    let search =
        "for d in $(echo \"$PATH\" | tr : ' '); do [ \"$d/git\" -ef \"$0\" ] || [ ! -x \"$d/git\" ] || break; done";
    let exec = format!("#!/bin/sh\n{search}\necho through >>{}\nexec \"$d/git\" \"$@\"\n", here("passed").display());
    let spawn =
        format!("#!/bin/sh\n{search}\necho through >>{}\n\"$d/git\" \"$@\"\nexit $?\n", here("passed").display());
    write_program(&wrapper.join("git"), &exec);
    write_program(&here("spawning").join("git"), &spawn);
    let spawning = here("spawning");
    let rows: &[(&str, &[&Path])] = &[
        ("the shim", &[&shim]),
        ("twice", &[&shim, &shim]),
        ("with a slash", &[&shim, &shim.join("")]),
        ("a copy of it behind", &[&shim, &copied]),
        ("a copy of it ahead", &[&copied, &shim]),
        ("a copy alone", &[&copied]),
        ("links and copies", &[&linked, &shim, &hard, &copied, &linked]),
        ("a wrapper behind", &[&shim, &wrapper]),
        ("a wrapper ahead", &[&wrapper, &shim]),
        ("a wrapper that starts git behind", &[&shim, &spawning]),
        ("a wrapper that starts git ahead", &[&spawning, &shim]),
        ("two wrappers", &[&shim, &spawning, &wrapper, &copied]),
        ("relative", &[Path::new("../shim"), &wrapper]),
    ];
    for (name, ahead) in rows {
        let path = path(ahead);
        for (line, expected) in [
            ("git version", version()),
            ("git -c alias.x='!git -c alias.y=\"!git -c alias.z=version z\" y' x", version()),
            ("git rev-parse --verify -q nothing; echo $?", "1".to_owned()),
            (
                "git no-such-command 2>&1 | head -n 1",
                "git: 'no-such-command' is not a git command. See 'git --help'.".to_owned(),
            ),
        ] {
            let output = sh(&repo, &path, line);
            assert_eq!(text(&output.stdout).trim(), expected, "{name}: `{line}`: {}", text(&output.stderr));
        }
        fs::remove_file(here("passed")).ok();
        sh(&repo, &path, "git version");
        let passed = fs::read_to_string(here("passed")).unwrap_or_default().lines().count();
        let wrappers = ahead.iter().filter(|d| d.ends_with("wrapper") || d.ends_with("spawning")).count();
        assert!(passed >= usize::from(wrappers > 0), "{name}: wrappers are run, too");
        assert!(passed <= 8 * wrappers, "{name}: and not over and over: {passed} times");
    }
}

#[test]
fn without_any_other_git_it_says_so_and_does_not_call_itself() {
    let repo = Repo::new(Options::default());
    let shim = installed(&repo);
    let wrapper = repo.scratch().join("wrapper");
    write_program(&wrapper.join("git"), &format!("#!/bin/sh\n\"{}/git\" \"$@\"\n", shim.display()));
    let tools = repo.scratch().join("tools");
    fs::create_dir(&tools).expect("it can be made");
    let only = |directories: &[&Path]| std::env::join_paths(directories).expect("no colons");
    let run = |path: OsString| {
        let mut git = repo.command("/usr/bin/timeout".as_ref());
        git.arg("30").arg(shim.join("git")).arg("version").env("PATH", path);
        git.output().expect("timeout runs")
    };
    insta::assert_snapshot!(shown(&repo, &run(only(&[&shim, &tools]))), @"
    --- stderr
    error: there is no git in PATH: install git 2.31 or newer
    --- exit 1
    ");
    insta::assert_snapshot!(shown(&repo, &run(only(&[&shim, &wrapper]))), @"
    --- stderr
    error: [DIR]/wrapper/git leads back to jin-txn, and there is no other git in PATH
    --- exit 1
    ");
}

#[test]
fn where_git_keeps_its_programs_is_what_git_says() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    let shim = installed(&repo);
    for line in [
        "git --exec-path",
        "\"$(git --exec-path)\"/git-receive-pack -h 2>&1",
        "git receive-pack --http-backend-info-refs .",
        "git upload-pack --http-backend-info-refs .",
        "git --man-path",
        "git help -a",
    ] {
        let plain = sh(&repo, &path(&[]), line);
        let through = sh(&repo, &path(&[&shim]), line);
        assert_eq!(text(&through.stdout), text(&plain.stdout), "`{line}`: {}", text(&through.stderr));
        assert_eq!(through.status.code(), plain.status.code(), "`{line}`");
    }
    let environment = "git -c alias.x='!env' x | sort | grep -v '^_=\\|^PATH=\\|^JIN_TXN_CHAIN='";
    let plain = sh(&repo, &path(&[]), environment);
    let through = sh(&repo, &path(&[&shim]), environment);
    assert_eq!(text(&through.stdout), text(&plain.stdout), "git and what it starts have the user's environment");
}

#[test]
fn a_server_recovers_the_repository_that_it_is_asked_for() {
    for (named, program) in
        [("server.git", "git-receive-pack"), ("server", "git-receive-pack"), ("server.git", "git-upload-pack")]
    {
        let client = Case::new().repo;
        let server = client.new_sibling("server.git", Options { bare: true, guarded: true, ..Options::default() });
        let shim = installed(&client);
        let url = client.scratch().join(named);
        client.git(["push", "-q", "../server.git", "main"]);
        let lock = server.git_dir().join("HEAD.lock");
        fs::write(&lock, "").expect("a lock can be left");
        // A lock that is as young as the git which looks is left to the next one.
        let_the_clock_tick(&server.git_dir());
        let line = if program == "git-upload-pack" {
            format!("git fetch --upload-pack={}/{program} {} main", shim.display(), url.display())
        } else {
            format!("git push --receive-pack={}/{program} {} main:refs/heads/new", shim.display(), url.display())
        };
        let output = sh(&client, &path(&[]), &line);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{named}, {program}: {said}");
        assert!(said.contains("jin-txn: moved 1 stale lock to quarantine: HEAD.lock"), "{named}, {program}: {said}");
        assert!(!lock.exists(), "{named}, {program}");
    }
}

#[test]
fn git_txn_through_the_shim_looks_before_anything_is_recovered() {
    let case = Case::torn();
    let shim = installed(&case.repo);
    let looked = sh(&case.repo, &path(&[&shim]), "git txn check");
    assert_eq!(looked.status.code(), Some(3), "what is asked about is still there: {}", text(&looked.stdout));
    let plain = sh(&case.repo, &path(&[&shim]), "git status --short --branch");
    assert!(text(&plain.stderr).contains("rolled back tx-1"), "another command recovers: {}", text(&plain.stderr));
    assert_eq!(text(&plain.stdout), "## main\n");
}

#[test]
fn a_shim_that_cannot_be_made_says_why() {
    let repo = Repo::new(Options::default());
    fs::write(repo.scratch().join("file"), "").expect("it can be written");
    let output = repo.jin_txn(["install", "--shim", "../file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: cannot write to "), "{}", text(&output.stderr));
    let both = repo.jin_txn(["install", "--shim", "../shim", "."]);
    assert_eq!(both.status.code(), Some(2), "a repository and a shim are two things: {}", text(&both.stderr));
    let metadata = fs::metadata(repo.scratch().join("file")).expect("it is there");
    assert_eq!(metadata.permissions().mode() & 0o111, 0, "the file is what it was");
}
