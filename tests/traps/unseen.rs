//! Processes that cannot be looked at: nothing is known of them, and so nothing of theirs is touched.

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use super::guarded;
use super::live_owners::Hanging;
use super::support::crash::{self, assert_recovers, jin, spare_commit, value};
use super::support::point::let_the_clock_tick;
use super::support::repo::{Git, Repo, jin_txn, text};
use super::support::tracer::{self, Action, Calls, Event, Isolation};
use super::updates;

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
        let opened = scene.recover(None);
        assert!(opened.iter().any(|path| *path == scene.in_proc("stat")), "recovery looks at it: {opened:?}");
        for path in &opened {
            scene.recover(Some(path));
            assert!(scene.live.lock().exists(), "one {kind} has lost its lock without {}", path.display());
        }
        scene.finish();
    }
}

/// Makes a git that updates refs.
type Start = fn(&Repo) -> Command;

pub fn update(repo: &Repo) -> Command {
    crash::git(repo, &["update-ref", "--stdin"])
}

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

/// A git that hangs in the middle of an update.
pub struct Scene {
    pub repo: Repo,
    pub live: Hanging,
    new: String,
}

impl Scene {
    pub fn new(command: impl FnOnce(&Repo) -> Command) -> Self {
        let repo = guarded();
        // No file says who holds a lock: most gits write none.
        repo.git(["config", "core.lockfilePid", "false"]);
        let old = repo.read(["rev-parse", "HEAD"]);
        let new = spare_commit(&repo, "new");
        repo.git(["branch", "slow"]);
        let live = Hanging::start(&repo, command(&repo), "slow", &updates(&["slow"], &new, &old));
        let_the_clock_tick(&repo.git_dir());
        Self { repo, live, new }
    }

    /// What a `jin-txn recover` opens that has to do with this repository or this git, when it may not open `refused`.
    fn recover(&self, refused: Option<&Path>) -> Vec<PathBuf> {
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
            let recover = jin(&self.repo, &["recover"]);
            let trace = || tracer::trace_calls(recover, b"", Isolation::None, Calls::Looking, &mut decide);
            scope.spawn(trace).join().expect("the tracer does not panic").expect("it starts");
        });
        opened
    }

    pub fn in_proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.live.pid().to_string()).join(name)
    }

    fn finish(self) {
        self.live.finish();
        assert_eq!(value(&self.repo, "refs/heads/slow"), self.new, "it ends as if nothing had been");
        assert_recovers(&self.repo);
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
