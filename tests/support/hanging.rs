//! A real git that hangs in the middle of a transaction until it is killed or let go.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use nix::sys::stat::Mode;

use super::invariants;
use super::repo::{Git, Options, Repo};
use super::wait::wait_until;

const BRANCHES: [&str; 4] = ["alpha", "beta", "gamma", "omega"];

/// A protected repository with four branches at one commit, and the commit after that.
pub struct Case {
    pub repo: Repo,
    pub old: String,
    pub new: String,
}

impl Case {
    pub fn new() -> Self {
        let repo = Repo::new(Options::default());
        let old = repo.commit_all("one");
        for branch in BRANCHES {
            repo.git(["branch", branch]);
        }
        let new = repo.commit_all("two");
        repo.install_guard();
        Self { repo, old, new }
    }

    /// A git that has moved alpha and beta and hangs at gamma, whose reflog is a FIFO that nobody reads.
    pub fn hang(&self) -> Hanging {
        let log = self.repo.git_dir().join("logs/refs/heads/gamma");
        let aside = self.repo.scratch().join("reflog-aside");
        fs::rename(&log, &aside).expect("the reflog can be moved aside");
        nix::unistd::mkfifo(&log, Mode::from_bits_truncate(0o600)).expect("a FIFO can be made");
        let mut command = self.repo.command(Git::under_test().program.as_os_str());
        command.args(["update-ref", "--stdin"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut git = command.spawn().expect("git starts");
        let lines = BRANCHES.map(|branch| format!("update refs/heads/{branch} {} {}\n", self.new, self.old));
        let mut stdin = git.stdin.take().expect("git has a stdin");
        stdin.write_all(lines.concat().as_bytes()).expect("git reads its input");
        drop(stdin);
        wait_until("git comes to the third branch", || {
            assert!(git.try_wait().expect("git can be asked").is_none(), "git hangs and does not end");
            self.value("beta") == self.new
        });
        Hanging { git, log, aside }
    }

    /// The same, and then the power of SIGKILL.
    pub fn torn() -> Self {
        let case = Self::new();
        case.hang().kill();
        assert_eq!(case.values(), ["new", "new", "old", "old"], "the transaction is torn");
        case
    }

    pub fn value(&self, branch: &str) -> String {
        let path = self.repo.git_dir().join("refs/heads").join(branch);
        fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    }

    /// Which branches are at the new commit, and which at the old one.
    pub fn values(&self) -> [&'static str; 4] {
        BRANCHES.map(|branch| match self.value(branch) {
            value if value == self.old => "old",
            value if value == self.new => "new",
            _ => "neither",
        })
    }

    pub fn locks(&self) -> Vec<PathBuf> {
        invariants::locks(&self.repo.git_dir())
    }

    pub fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.repo.jin_txn(arguments).status.code()
    }
}

pub struct Hanging {
    git: Child,
    log: PathBuf,
    aside: PathBuf,
}

impl Hanging {
    pub fn kill(mut self) {
        self.git.kill().expect("git can be killed");
        self.git.wait().expect("git can be waited for");
        fs::rename(&self.aside, &self.log).expect("the reflog can be put back");
    }

    /// Reads the FIFO, so that git goes on, and waits for its end.
    pub fn let_go(mut self) {
        let mut entry = Vec::new();
        let mut fifo = fs::File::open(&self.log).expect("the FIFO can be read");
        fifo.read_to_end(&mut entry).expect("git writes its entry");
        let status = self.git.wait().expect("git can be waited for");
        let mut log = OpenOptions::new().append(true).open(&self.aside).expect("the reflog is there");
        log.write_all(&entry).expect("the entry can be added");
        fs::rename(&self.aside, &self.log).expect("the reflog can be put back");
        assert!(status.success(), "git finishes: {status}");
    }
}

impl Drop for Hanging {
    /// A test that failed must not leave a git behind that is in the way of the others.
    fn drop(&mut self) {
        self.git.kill().ok();
        self.git.wait().ok();
    }
}
