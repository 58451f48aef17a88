//! A watch of one test: in the foreground, with a runtime directory of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use super::repo::{Repo, jin_txn};
use super::wait::wait_until;

/// A running watch; ended at the end.
pub struct Watch {
    pub pid: u32,
    pub runtime: PathBuf,
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The runtime directory of a test.
pub fn runtime(repo: &Repo) -> PathBuf {
    let runtime = repo.scratch().join("run");
    fs::create_dir_all(&runtime).expect("it can be made");
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).expect("it is ours");
    runtime
}

/// The same command, that may speak to the watch, and start it.
pub fn with_watch(repo: &Repo, mut command: Command) -> Command {
    command.env("JIN_WATCH", "on").env("XDG_RUNTIME_DIR", runtime(repo)).env_remove("CI");
    command
}

impl Watch {
    /// Starts one and waits until it has looked at everything.
    pub fn start(repo: &Repo) -> Self {
        let mut command = with_watch(repo, repo.command(jin_txn().as_os_str()));
        command.arg("watch").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // The tracer waits for all children of its thread: this one is another thread's.
        let (started, pid) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let mut child = command.spawn().expect("the watch starts");
            started.send(child.id()).expect("somebody waits for it");
            ended.recv().ok();
            child.kill().ok();
            child.wait().ok();
        });
        let pid = pid.recv().expect("the watch starts");
        let watch = Self { pid, runtime: runtime(repo), end: Some(end), thread: Some(thread) };
        watch.wait_until_idle();
        watch
    }

    /// What it says about itself.
    pub fn status(&self) -> Option<serde_json::Value> {
        let directory = fs::read_dir(self.runtime.join("jin-txn")).ok()?;
        let file = directory.flatten().find(|entry| entry.path().extension().is_some_and(|it| it == "json"))?;
        serde_json::from_slice(&fs::read(file.path()).ok()?).ok()
    }

    /// Waits until it waits for events, and no child of it works.
    pub fn wait_until_idle(&self) {
        // Nothing that has happened already can be unknown to it when it has waited in several looks in a row.
        const LOOKS: usize = 8;
        let mut idle = 0;
        wait_until("the watch is idle", || {
            idle = if self.is_waiting() && self.status().is_some() { idle + 1 } else { 0 };
            idle >= LOOKS
        });
    }

    /// Waits until it has seen what has happened up to now: it waits again, for whatever time. A busy machine only makes that later.
    pub fn wait_until_it_has_looked(&self) {
        const LOOKS: usize = 3;
        let mut waiting = 0;
        wait_until("the watch has looked", || {
            let syscall = fs::read_to_string(format!("/proc/{}/syscall", self.pid)).unwrap_or_default();
            waiting = if syscall.starts_with("281 ") { waiting + 1 } else { 0 };
            waiting >= LOOKS
        });
    }

    /// Kills it, and the child that recovers, if there is one.
    pub fn kill_with_children(&self) {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap_or_default();
        for pid in std::iter::once(self.pid.to_string()).chain(children.split_whitespace().map(str::to_owned)) {
            Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status().expect("kill runs");
        }
    }

    fn is_waiting(&self) -> bool {
        let process = PathBuf::from(format!("/proc/{}", self.pid));
        let read = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
        let children = read(&format!("task/{}/children", self.pid));
        // `epoll_pwait`, without a time at which it wakes: nothing is to be looked at again.
        let syscall = read("syscall");
        let words: Vec<&str> = syscall.split(' ').collect();
        let waits = words.first() == Some(&"281") && words.get(4) == Some(&"0xffffffffffffffff");
        children.trim().is_empty() && waits
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
