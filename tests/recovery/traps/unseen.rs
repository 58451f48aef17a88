//! Processes that cannot be looked at: nothing is known of them, and so nothing of theirs is touched.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::geteuid;

use super::live_owners::{Scene, update};
use super::{guarded, leave_stale_lock, updates};
use crate::support::crash::{assert_recovers, jin, recover, spare_commit, value, wal};
use crate::support::repo::{Git, Repo, jin_txn, text};
use crate::support::tracer::{self, Action, Calls, Event, Isolation, Role};

/// A table of open files that is full says nothing about a process that was to be looked at.
#[test]
fn whatever_file_cannot_be_opened_a_live_git_keeps_its_lock() {
    // Known by its marker, by its name, and by what it was called as.
    let kinds: [(&str, Start); 3] = [
        ("with a marker", update),
        ("without one", update_unguarded),
        ("under another name", update_under_another_name),
    ];
    for (kind, command) in kinds {
        let scene = Scene::new(command);
        let opened = scene.recover(&["recover"], None);
        assert!(opened.iter().any(|path| *path == scene.in_proc("stat")), "recovery looks at it: {opened:?}");
        // Nobody who says `--force` has seen what a full table hides.
        for arguments in [&["recover"][..], &["recover", "--force"]] {
            // The three differ in how the process is seen, and in nothing else.
            let chosen = |path: &&PathBuf| kind == "with a marker" || path.starts_with("/proc");
            for path in opened.iter().filter(chosen) {
                scene.recover(arguments, Some(path));
                assert!(
                    scene.live.lock().exists(),
                    "one {kind} lost its lock to {arguments:?} without {}",
                    path.display()
                );
            }
        }
        scene.finish();
    }
}

/// Makes a git that updates refs.
type Start = fn(&Repo) -> Command;

fn update_unguarded(repo: &Repo) -> Command {
    let mut command = update(repo);
    command.env("JIN_TXN", "off");
    command
}

fn update_under_another_name(repo: &Repo) -> Command {
    let program = repo.scratch().join("g.real");
    symlink(&Git::under_test().program, &program).expect("a link can be made");
    let mut command = repo.command(program.as_os_str());
    command.arg0("git").args(["update-ref", "--stdin"]).env("JIN_TXN", "off");
    command
}

impl Scene {
    /// What a recovery opens that has to do with this repository or this git, when it may not open `refused`.
    fn recover(&self, arguments: &[&str], refused: Option<&Path>) -> Vec<PathBuf> {
        let mut opened = Vec::new();
        let mut decide = |event: &Event| {
            let Some(path) = event.path.as_deref().filter(|_| event.syscall.starts_with("open")) else {
                return Action::Continue;
            };
            let is_about_it = path.starts_with(self.repo.git_dir()) || path.starts_with(self.in_proc(""));
            if (is_about_it || path == Path::new("/proc")) && !opened.iter().any(|known| known == path) {
                opened.push(path.to_owned());
            }
            if refused == Some(path) { Action::Fail(Errno::EMFILE) } else { Action::Continue }
        };
        // From a thread of its own: the tracer waits for all children of its thread.
        thread::scope(|scope| {
            let recover = jin(&self.repo, arguments);
            let trace = || tracer::trace_calls(recover, b"", Isolation::None, Calls::Looking, &mut decide);
            scope.spawn(trace).join().expect("the tracer does not panic").expect("it starts");
        });
        opened
    }

    pub fn in_proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.live.pid().to_string()).join(name)
    }
}

/// What belongs to other users is not shown in a `/proc` that hides it, and is there all the same.
#[test]
fn a_git_of_another_user_that_proc_hides_is_not_robbed() {
    const NOBODY: u32 = 65534;
    for (guard, command) in [("on", update as Start), ("off", update_unguarded)] {
        let scene = Scene::new(command);
        give_to(scene.repo.scratch(), NOBODY);
        let recovered = thread::scope(|scope| {
            let hidden = || {
                hide_others().ok()?;
                // Who took it for dead would wait for its FIFO.
                let mut recover = scene.repo.command("timeout".as_ref());
                recover.arg("20").arg(jin_txn()).arg("recover").uid(NOBODY).gid(NOBODY);
                recover.output().ok()
            };
            scope.spawn(hidden).join().expect("it ends")
        });
        give_to(scene.repo.scratch(), 0);
        // 126: it lies where that user may not go.
        let Some(output) = recovered.filter(|output| output.status.code() != Some(126)) else {
            return println!("skipped: no right to mount, or to become another user who may start the program");
        };
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "guard {guard}: it cannot be seen: {said}");
        assert!(scene.live.lock().exists(), "guard {guard}: its lock stays: {said}");
        let of_its_own = !said.contains("rolled back") && said.contains("may be alive") == (guard == "on");
        assert!(of_its_own, "guard {guard}: its transaction, if it has one, is nobody's to end: {said}");
        scene.finish();
    }
}

fn give_to(directory: &Path, user: u32) {
    let chown = Command::new("chown").args(["-hR", &format!("{user}:{user}")]).arg(directory).output();
    assert!(chown.is_ok_and(|output| output.status.success() || !geteuid().is_root()), "root can give files away");
}

/// Shows the calling thread, and what it starts, a `/proc` with processes of the same user only.
fn hide_others() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), Some("hidepid=2"))
}

/// Whatever has such a file open cannot be asked for its path, and has no lock.
#[test]
fn a_process_with_a_file_open_whose_path_is_too_long_keeps_no_lock() {
    let repo = guarded();
    let name = "d".repeat(200);
    let mut directory = OwnedFd::from(File::open(repo.scratch()).expect("it is there"));
    for _ in 0..25 {
        mkdirat(&directory, name.as_str(), Mode::S_IRWXU).expect("a directory can be made");
        directory = openat(&directory, name.as_str(), OFlag::O_DIRECTORY, Mode::empty()).expect("it can be opened");
    }
    let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
    let _open = openat(&directory, "file", flags, Mode::S_IRWXU).expect("a file can be made");
    leave_stale_lock(&repo, "refs/heads/nobody.lock");
    let recovered = recover(&repo);
    assert_eq!(recovered.0, 0, "{}", recovered.1);
    assert_recovers(&repo);
}

/// The hook of a git that an `apply` runs knows by `/proc` that it is spoken for.
#[test]
fn an_apply_whose_hooks_cannot_look_at_a_process_is_kept_wholly_or_not_at_all() {
    let of_hook = |event: &Event| {
        event.role == Role::Hook
            && event.syscall.starts_with("open")
            && event.path.as_deref().is_some_and(|path| path.starts_with("/proc"))
    };
    let mut nth = 1;
    loop {
        let repo = guarded();
        let old = repo.read(["rev-parse", "HEAD"]);
        let new = spare_commit(&repo, "new");
        repo.git(["branch", "one"]);
        repo.git(["branch", "two"]);
        let (mut count, before) = (0, by_hooks(&repo));
        let mut decide = |event: &Event| {
            let is_hook = event.exe.ends_with("jin-txn") && parent_is_git(event);
            count += usize::from(of_hook(event) && is_hook);
            if of_hook(event) && is_hook && count == nth { Action::Fail(Errno::ENFILE) } else { Action::Continue }
        };
        let input = updates(&["one", "two"], &new, &old);
        let apply = jin(&repo, &["apply"]);
        let outcome = tracer::trace_calls(apply, input.as_bytes(), Isolation::None, Calls::Looking, &mut decide);
        let outcome = outcome.expect("it starts");
        let expected = if outcome.status.success() { &new } else { &old };
        assert_eq!(by_hooks(&repo), before, "a hook logs once more what is logged already, at {nth}");
        assert_recovers(&repo);
        for branch in ["one", "two"] {
            let name = format!("refs/heads/{branch}");
            assert_eq!(value(&repo, &name), *expected, "{branch} at {nth}: {}", text(&outcome.stderr));
        }
        if count < nth {
            break;
        }
        nth += 1;
    }
    assert!(nth > 4, "a hook looks at its git, at what runs that, and at where it is");
}

/// How many transactions hooks have logged.
fn by_hooks(repo: &Repo) -> usize {
    wal(repo).into_iter().filter(|record| record["data"]["origin"] == "hook").count()
}

fn parent_is_git(event: &Event) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", event.pid)).unwrap_or_default();
    let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).unwrap_or_default();
    std::fs::read_to_string(format!("/proc/{parent}/comm")).is_ok_and(|comm| comm.trim() == "git")
}
