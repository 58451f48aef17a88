//! Commands that look take no lock and write nothing: they work on a read-only file system, and for a user who may only read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use insta::assert_snapshot;

use crate::support::hanging::Case;
use crate::support::observe::{calm, shown};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Repo, jin_txn};
use crate::support::wait::wait_until;

/// Every command that only looks.
const LOOKING: [&[&str]; 10] = [
    &["check"],
    &["check", "--json"],
    &["check", "--prompt"],
    &["status"],
    &["log", "-v"],
    &["show", "tx-1"],
    &["recover", "--dry-run"],
    &["wal", "verify"],
    &["wal", "dump"],
    &["doctor"],
];

/// A user who is in no group but his own, which the repository is given to.
const READER: &str = "46101";

/// What is there to look at: its name, and how it is made.
type State = (&'static str, fn() -> Repo);

const STATES: [State; 5] = [
    ("clean", clean),
    ("no state directory", without_state),
    ("an unfinished transaction", || Case::torn().repo),
    ("a stale lock", stale_lock),
    ("a damaged log", damaged),
];

fn clean() -> Repo {
    let case = Case::new();
    case.repo.git(["tag", "v1"]);
    case.repo
}

fn without_state() -> Repo {
    let repo = clean();
    fs::remove_dir_all(repo.git_dir().join(".jin")).expect("it can be removed");
    repo
}

fn stale_lock() -> Repo {
    let repo = clean();
    fs::write(repo.git_dir().join("index.lock"), "").expect("it can be written");
    repo
}

fn damaged() -> Repo {
    let repo = clean();
    let wal = fs::read_dir(repo.git_dir().join(".jin/wal")).expect("there is a log").flatten().next();
    let segment = wal.expect("it has a segment").path();
    let mut bytes = fs::read(&segment).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).expect("it can be written");
    repo
}

/// Everything of the repository that a write would change.
type Inodes = BTreeMap<PathBuf, (u64, i64, i64, i64, i64, u64)>;

fn inodes(root: &Path) -> Inodes {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let m = fs::symlink_metadata(&path).expect("it is there");
        if m.is_dir() {
            waiting.extend(fs::read_dir(&path).expect("it can be listed").flatten().map(|entry| entry.path()));
        }
        found.insert(path, (m.ino(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec(), m.size()));
    }
    found
}

#[track_caller]
fn assert_untouched(before: &Inodes, repo: &Repo, what: &str) {
    let now = inodes(repo.path());
    let changed: Vec<_> = before.keys().chain(now.keys()).filter(|path| before.get(*path) != now.get(*path)).collect();
    assert!(changed.is_empty(), "{what}: something was written: {changed:?}");
}

fn run(mut command: Command) -> Output {
    command.stdin(std::process::Stdio::null()).output().expect("it starts")
}

/// The program, in a mount namespace of its own in which the repository is read-only.
fn on_a_read_only_file_system(repo: &Repo, arguments: &[&str]) -> Output {
    const SCRIPT: &str = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && cd \"$0\" && exec \"$@\"";
    let mut command = repo.command("unshare".as_ref());
    command.args(["-m", "sh", "-c", SCRIPT]).arg(repo.path()).arg(jin_txn()).args(arguments);
    run(command)
}

/// The program as the group that the repository lets read.
fn as_a_reader(repo: &Repo, arguments: &[&str]) -> Output {
    let mut command = repo.command("setpriv".as_ref());
    command.args([&format!("--reuid={READER}"), &format!("--regid={READER}"), "--clear-groups"]);
    command.arg(jin_txn()).args(arguments);
    run(command)
}

fn shell(repo: &Repo, script: &str) {
    let mut command = repo.command("sh".as_ref());
    command.args(["-c", script]).current_dir(repo.scratch());
    assert!(run(command).status.success(), "{script}");
}

/// Git takes the repository for the reader's, who may read all of it, `.jin` included, and write nothing.
fn open_to_the_reader(repo: &Repo) {
    shell(repo, "chmod 755 . && git config --file home/gitconfig safe.directory '*' && chmod -R a+rX home/gitconfig");
    shell(repo, &format!("chgrp -R {READER} repo home && chmod -R g=rX,o= repo home"));
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: only root can mount, and act as several users");
    }
    root
}

/// All but whether this very user can write here, and who may hold a lock: that is told by the processes of others, into which
/// only they and root may look.
fn told_of_the_log(shown: &str) -> Vec<&str> {
    const ABOUT_THE_USER: [&str; 7] = ["  state ", "mend: ", "prompt, shell", "  space ", "lock", "hint: ", "--- exit"];
    shown.lines().filter(|line| ABOUT_THE_USER.iter().all(|word| !line.contains(word))).collect()
}

#[test]
fn whoever_looks_on_a_read_only_file_system_sees_what_the_owner_sees_and_nothing_is_written() {
    if !is_root() {
        return;
    }
    for (state, make) in STATES {
        let repo = make();
        let_the_clock_tick(&repo.git_dir());
        let before = inodes(repo.path());
        for arguments in LOOKING {
            let owner = repo.jin_txn(arguments);
            calm(&owner);
            let owner = shown(&repo, &owner);
            let reader = shown(&repo, &on_a_read_only_file_system(&repo, arguments));
            let what = format!("{arguments:?} with {state}");
            if arguments == ["doctor"] {
                assert_eq!(told_of_the_log(&owner), told_of_the_log(&reader), "{what}");
            } else {
                assert_eq!(owner, reader, "{what}");
            }
            assert_untouched(&before, &repo, &what);
        }
        repo.discard();
    }
}

#[test]
fn a_user_who_may_only_read_sees_the_same_and_nothing_is_written() {
    if !is_root() {
        return;
    }
    for (state, make) in STATES {
        let repo = make();
        open_to_the_reader(&repo);
        let_the_clock_tick(&repo.git_dir());
        let before = inodes(repo.path());
        for arguments in LOOKING {
            let what = format!("{arguments:?} with {state}");
            let owner = shown(&repo, &repo.jin_txn(arguments));
            let reader = as_a_reader(&repo, arguments);
            calm(&reader);
            let reader = shown(&repo, &reader);
            // Of a repository that he has not protected himself, `check` looks at names alone.
            if arguments[0] != "check" {
                assert_eq!(told_of_the_log(&owner), told_of_the_log(&reader), "{what}");
            }
            assert_untouched(&before, &repo, &what);
        }
        repo.discard();
    }
}

#[test]
fn a_user_who_may_not_read_the_state_directory_is_told_which_one() {
    if !is_root() {
        return;
    }
    let repo = Case::torn().repo;
    open_to_the_reader(&repo);
    shell(&repo, "chmod go= repo/.git/.jin");
    let before = inodes(repo.path());
    let mut all = String::new();
    for arguments in LOOKING.into_iter().filter(|arguments| arguments != &["doctor"]) {
        let output = as_a_reader(&repo, arguments);
        calm(&output);
        all += &format!("$ jin-txn {}\n{}\n", arguments.join(" "), shown(&repo, &output));
        assert_untouched(&before, &repo, &format!("{arguments:?}"));
    }
    assert_snapshot!(all, @r"
    $ jin-txn check
    --- stderr
    error: [DIR]/repo/.git/.jin: Permission denied (os error 13)
    hint: check who owns the repository's .git/.jin directory
    --- exit 1
    $ jin-txn check --json
    --- stderr
    error: [DIR]/repo/.git/.jin: Permission denied (os error 13)
    hint: check who owns the repository's .git/.jin directory
    --- exit 1
    $ jin-txn check --prompt
    --- stderr
    --- exit 0
    $ jin-txn status
    --- stderr
    error: [DIR]/repo/.git/.jin: Permission denied (os error 13)
    hint: check who owns the repository's .git/.jin directory
    --- exit 1
    $ jin-txn log -v
    --- stderr
    error: [DIR]/repo/.git/.jin/wal: Permission denied (os error 13)
    hint: check who owns the repository's .git/.jin directory
    --- exit 1
    $ jin-txn show tx-1
    --- stderr
    error: [DIR]/repo/.git/.jin/wal: Permission denied (os error 13)
    hint: check who owns the repository's .git/.jin directory
    --- exit 1
    $ jin-txn recover --dry-run
    --- stderr
    error: [DIR]/repo/.git/.jin: Permission denied (os error 13)
    hint: check who owns the repository's .git/.jin directory
    --- exit 1
    $ jin-txn wal verify
    --- stderr
    error: [DIR]/repo/.git/.jin/wal: Permission denied (os error 13)
    hint: check who owns the repository's .git/.jin directory
    --- exit 1
    $ jin-txn wal dump
    --- stderr
    error: [DIR]/repo/.git/.jin/wal: Permission denied (os error 13)
    hint: check who owns the repository's .git/.jin directory
    --- exit 1
    ");
    let doctor = shown(&repo, &as_a_reader(&repo, &["doctor"]));
    assert!(doctor.contains("failed  unfinished   [DIR]/repo/.git/.jin/wal: Permission denied"), "{doctor}");
    assert_untouched(&before, &repo, "doctor");
}

/// What another process recovers at the moment is looked at when it has done so.
#[test]
fn whoever_looks_waits_for_the_one_who_recovers() {
    let repo = Case::torn().repo;
    let_the_clock_tick(&repo.git_dir());
    let alone = shown(&repo, &repo.jin_txn(["check"]));
    let lock = fs::File::open(repo.git_dir().join(".jin/recovery.lock")).expect("it is there");
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock).expect("nobody has it");
    let mut look = repo.command(jin_txn().as_os_str());
    look.arg("check").stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut look = look.spawn().expect("it starts");
    let call = format!("/proc/{}/syscall", look.id());
    wait_until("it sleeps", || {
        assert_eq!(look.try_wait().expect("it can be asked"), None, "it does not answer meanwhile");
        fs::read_to_string(&call).is_ok_and(|text| text.starts_with(&format!("{} ", libc::SYS_clock_nanosleep)))
    });
    drop(held);
    assert_eq!(shown(&repo, &look.wait_with_output().expect("it ends")), alone);
}
