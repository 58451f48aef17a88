//! What the watch has recovered while nobody looked is told once, to whoever of this user has a terminal next.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::crash::git;
use crate::support::repo::{Options, Repo, jin_txn, text, write_file};
use crate::support::terminal::Terminal;
use crate::support::wait::wait_until;
use crate::support::watch::{Watch, with_watch};

const WEEK: u64 = 7 * 24 * 3600;

/// A protected repository whose files git reads slowly, through a filter that says when it has begun.
fn scene() -> Repo {
    let repo = Repo::new(Options::default());
    repo.write("f", "one\n");
    repo.commit_all("one");
    repo.install_guard();
    let filter = repo.scratch().join("filter");
    write_file(&filter, &format!("#!/bin/sh\n: >{}\nexec sleep 1000\n", began(&repo).display()), 0o755);
    repo.write("g", "two\n");
    repo.write(".gitattributes", "g filter=slow\n");
    repo
}

fn began(repo: &Repo) -> PathBuf {
    repo.scratch().join("began")
}

/// `git add` is killed in the middle, with all that it has started, and the watch takes its lock.
fn kill_add(repo: &Repo, watch: &Watch, more: &[String]) {
    let filter = format!("filter.slow.clean={}", repo.scratch().join("filter").display());
    let mut command = with_watch(repo, repo.command("setsid".as_ref()));
    let add = git(repo, &["-c", &filter, "add", "g"]);
    command.arg(add.get_program()).args(add.get_args()).args(more).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("git starts");
    wait_until("git reads", || began(repo).exists());
    watch.wait_until_idle();
    Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status().expect("kill runs");
    child.wait().expect("git was ours");
    wait_until("the lock is gone", || !repo.git_dir().join("index.lock").exists());
    watch.wait_until_idle();
}

/// The names in the state directory that wait to be told.
fn waiting(repo: &Repo) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(repo.git_dir().join(".jin")).expect("it is protected").flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("told."))).collect()
}

/// What a command shows at a terminal.
fn at_terminal(repo: &Repo, command: &Command) -> String {
    let mut shell = repo.command("sh".as_ref());
    shell.args(["-c", "\"$@\"; echo ended $?", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut terminal = Terminal::start(shell);
    let shown = terminal.wait_for("ended 0\n");
    terminal.ended();
    shown
}

fn commit(repo: &Repo) -> Command {
    git(repo, &["-c", "filter.slow.clean=cat", "commit", "-q", "--allow-empty", "-m", "next"])
}

#[test]
fn what_was_killed_is_told_once_at_a_terminal() {
    for by in ["a hook", "status"] {
        let repo = scene();
        let watch = Watch::start(&repo);
        kill_add(&repo, &watch, &[]);
        let left = waiting(&repo);
        assert_eq!(left.len(), 1, "{left:?}");
        let found = fs::metadata(&left[0]).expect("it is there");
        assert_eq!((found.mode() & 0o777, found.uid()), (0o600, nix::unistd::geteuid().as_raw()));
        // A program that reads what git says is told nothing.
        let quiet = commit(&repo).output().expect("git starts");
        assert!(quiet.status.success() && quiet.stderr.is_empty(), "{}", text(&quiet.stderr));
        assert_eq!(waiting(&repo), left);
        let command = || {
            if by == "status" {
                let mut command = repo.command(jin_txn().as_os_str());
                command.arg("status");
                command
            } else {
                commit(&repo)
            }
        };
        let shown = at_terminal(&repo, &command());
        let told: Vec<&str> =
            shown.lines().filter(|line| line.contains("killed") || line.contains("quarantine")).collect();
        let told = told.join("\n").replace(&repo.scratch().display().to_string(), "SCRATCH").replace('\r', "");
        let at = told.find(", at ").map_or(0, |at| at + 5);
        let time = told[at..].find('Z').map_or(at, |end| at + end + 1);
        insta::allow_duplicates! { insta::assert_snapshot!(told.replace(&told[at..time], "TIME"), @r"
        jin-txn: `git -c filter.slow.clean=*** add g` was killed before it was done, at TIME: run it again
        jin-txn: moved 1 stale lock to quarantine: index.lock
        ") }
        assert!(waiting(&repo).is_empty());
        assert!(!at_terminal(&repo, &command()).contains("killed"), "{by}: once");
    }
}

#[test]
fn only_what_is_new_and_this_users_is_told_and_only_printable_characters() {
    let repo = scene();
    let user = nix::unistd::geteuid().as_raw();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let rows = [
        ("new", format!("told.{user}.{now}.1"), "jin-txn: new \u{1b}[2Jline\n"),
        ("old", format!("told.{user}.{}.1", now - WEEK - 60), "jin-txn: old\n"),
        ("another's", format!("told.{}.{now}.1", user + 1), "jin-txn: another's\n"),
    ];
    for (_, name, content) in &rows {
        fs::write(repo.git_dir().join(".jin").join(name), content).expect("it can be written");
    }
    let shown = at_terminal(&repo, &commit(&repo));
    assert!(shown.contains(r"jin-txn: new \u{1b}[2Jline"), "{shown}");
    assert!(!shown.contains("old") && !shown.contains("another's"), "{shown}");
    let left = waiting(&repo);
    assert!(left.len() == 1 && left[0].ends_with(&rows[2].1), "{left:?}");
}

#[test]
fn what_happened_is_told_in_its_order_and_a_directory_is_in_nobodys_way() {
    let repo = scene();
    let user = nix::unistd::geteuid().as_raw();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let state = repo.git_dir().join(".jin");
    fs::create_dir(state.join(format!("told.{user}.{now}.1"))).expect("it can be made");
    for (part, line) in [(5, "first"), (100, "second")] {
        fs::write(state.join(format!("told.{user}.{now}.{part}")), format!("jin-txn: {line}\n"))
            .expect("it is written");
    }
    let shown = at_terminal(&repo, &commit(&repo));
    let at = |line: &str| shown.find(line).unwrap_or_else(|| panic!("{line} is not in {shown}"));
    assert!(at("first") < at("second"), "{shown}");
}

#[test]
fn a_command_of_many_words_that_was_killed_is_told_too() {
    let repo = scene();
    let watch = Watch::start(&repo);
    let names: Vec<String> = (0..2000).map(|number| format!(":(exclude)a-file-of-many-{number}")).collect();
    kill_add(&repo, &watch, &names);
    let shown = at_terminal(&repo, &commit(&repo));
    assert!(shown.contains("jin-txn: `git -c filter.slow.clean=*** add g"), "{shown}");
    assert!(waiting(&repo).is_empty());
}
