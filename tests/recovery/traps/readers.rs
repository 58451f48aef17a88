//! Commands that only read, and take locks all the same: of the refs in which textconv caches, or of what they make.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{guarded, leave_stale_lock};
use crate::support::crash::{self, assert_recovers, is_ref_rename, recover, run_jin, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Repo};
use crate::support::tracer::{self, Action, Event, Isolation, Role};
use crate::support::wait::wait_until;

const CACHE: &str = "refs/notes/textconv/x";

/// A repository with two versions of a file that is converted, and the conversion cached.
fn converting() -> Repo {
    let repo = guarded();
    repo.git(["config", "core.lockfilePid", "false"]);
    repo.write(".gitattributes", "*.bin diff=x\n");
    for content in ["one\n", "two\n"] {
        repo.write("a.bin", content);
        repo.commit_all("a version");
    }
    repo.git(["config", "diff.x.textconv", "cat"]);
    repo.git(["config", "diff.x.cachetextconv", "true"]);
    repo
}

/// With the guard looking away nothing but the arguments tell what it may hold.
#[test]
fn a_live_reader_keeps_the_lock_of_its_cache() {
    let readers = [
        &["log", "-p"][..],
        &["show"],
        &["blame", "a.bin"],
        &["grep", "--textconv", "two", "HEAD"],
        &["cat-file", "--textconv", "HEAD:a.bin"],
    ];
    for reader in readers {
        let repo = converting();
        let lock = repo.git_dir().join(format!("{CACHE}.lock"));
        let mut looked = false;
        let mut decide = |event: &Event| {
            if !looked && event.role == Role::Git && is_ref_rename(event) {
                looked = true;
                let_the_clock_tick(&repo.git_dir());
                let mut recover = crash::jin(&repo, &["recover", "--force"]);
                // From a thread of its own: the tracer waits for all children of this one.
                let recovered = std::thread::scope(|scope| scope.spawn(|| recover.output()).join());
                let output = recovered.expect("it ends").expect("it starts");
                assert_eq!(output.status.code(), Some(5), "{reader:?} is at work");
                assert!(lock.exists(), "{reader:?} lost its lock");
            }
            Action::Continue
        };
        let mut command = crash::git(&repo, reader);
        command.env("JIN_TXN", "off").env("GIT_PAGER", "cat");
        tracer::trace(command, b"", Isolation::None, &mut decide).expect("git starts");
        assert!(looked && !value(&repo, CACHE).is_empty(), "{reader:?} has written its cache");
        assert_recovers(&repo);
    }
}

/// The hook that a reader calls recovers what others left, and nothing of the reader's.
#[test]
fn the_hook_of_a_reader_leaves_its_lock_alone() {
    let repo = converting();
    leave_stale_lock(&repo, "HEAD.lock");
    repo.git(["log", "-p"]);
    assert_ne!(value(&repo, CACHE), "", "the cache is written");
    assert_recovers(&repo);
}

/// A pager waits for its reader, and the log for the pager: for hours, which must not keep everything else from recovering.
#[test]
fn a_reader_that_waits_for_its_pager_keeps_no_other_lock() {
    let repo = converting();
    for n in 0..40 {
        repo.write("large", &format!("{n}\n").repeat(4000));
        repo.commit_all("a version");
    }
    let mut log = crash::git(&repo, &["log", "-p", "--no-textconv"]);
    let mut log = log.stdout(Stdio::piped()).spawn().expect("git starts");
    let is_writing = || {
        let call = fs::read_to_string(format!("/proc/{}/wchan", log.id())).unwrap_or_default();
        call.contains("pipe")
    };
    wait_until("the pipe is full", is_writing);
    leave_stale_lock(&repo, "index.lock");
    let (code, said) = recover(&repo);
    drop(log.stdout.take());
    log.kill().and_then(|()| log.wait()).expect("it is our child");
    assert_eq!(code, 0, "{said}");
    assert!(!repo.git_dir().join("index.lock").exists(), "{said}");
}

/// It has no repository but the one that it makes, and its current directory is elsewhere.
#[test]
fn a_live_clone_keeps_the_locks_of_what_it_makes_and_no_others() {
    let repo = guarded();
    let made_at = Instant::now();
    repo.write(".gitattributes", "file filter=wait\n");
    repo.commit_all("filtered");
    let (gate, started) = (repo.scratch().join("gate"), repo.scratch().join("started"));
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO can be made");
    let smudge = format!("filter.wait.smudge=echo >{}; cat {}", started.display(), gate.display());
    wait_until("the repository is certainly older than the clone", || made_at.elapsed() > Duration::from_millis(2500));
    let mut clone = repo.command(Git::under_test().program.as_os_str());
    clone.args(["-c", "core.lockfilePid=false", "clone", "-q", "-c", &smudge, ".", "../made"]);
    let mut clone = clone.spawn().expect("git starts");
    wait_until("it checks out", || started.exists());
    let made = repo.sibling("made");
    leave_stale_lock(&made, "refs/heads/may-be-its.lock");
    let (code, said) = run_jin(&made, &["recover"]);
    let kept = made.git_dir().join("refs/heads/may-be-its.lock").exists();
    leave_stale_lock(&repo, "refs/heads/nobody.lock");
    let (old_code, old_said) = recover(&repo);
    drop(fs::File::options().write(true).open(&gate).expect("somebody reads it"));
    clone.wait().expect("it is our child");
    assert!(code == 5 && kept, "{code} {said}");
    assert_eq!(old_code, 0, "{old_said}");
    assert_recovers(&repo);
}

/// Before it knows the branch, git writes a HEAD that names none.
#[test]
fn a_bare_clone_that_waits_for_its_remote_is_not_taken_for_a_repository_without_head() {
    let repo = guarded();
    let (gate, asked) = (repo.scratch().join("gate"), repo.scratch().join("asked"));
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO can be made");
    let serve = format!(": >{}; cat {} && git-upload-pack", asked.display(), gate.display());
    let url = format!("file://{}", repo.git_dir().display());
    let mut clone = repo.command(Git::under_test().program.as_os_str());
    let mut clone = clone.args(["clone", "-q", "--bare", "-u", &serve, &url, "../made"]).spawn().expect("git starts");
    let made = repo.sibling("made");
    wait_until("the clone asks for refs", || asked.exists());
    let head = fs::read_to_string(made.path().join("HEAD")).expect("it can be read");
    let (code, said) = run_jin(&made, &["recover"]);
    drop(fs::File::options().write(true).open(&gate).expect("somebody reads it"));
    assert!(clone.wait().expect("it is our child").success());
    assert!(head.starts_with("ref: "), "{head}");
    assert!((code == 0 || code == 5) && !said.contains("HEAD"), "{code} {said}");
}
