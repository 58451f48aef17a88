//! `jin-txn demo`: a real git, killed in the middle of a real transaction, in a scratch repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::cli::{Session, require_git};
use crate::fs::durable;
use crate::git::Repository;
use crate::locks::{Depth, find};
use crate::util::text::shown;

/// Kill a real git in a scratch repository, show the damage, recover it, show the proof
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Keep the scratch repository and say where it is
    #[arg(long)]
    keep: bool,
}

const BRANCHES: [&str; 5] = ["alpha", "beta", "delta", "gamma", "omega"];

/// git applies refs in the order of its input; it will wait for ever at this one.
const STUCK_AT: usize = 2;

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let git = require_git()?;
    let scratch = Scratch::new(git, args.keep)?;
    session.print("A repository with five branches, protected. One `git update-ref --stdin` moves all five at once.");
    let (old, new) = scratch.prepare()?;
    scratch.kill_in_mid_transaction(&old, &new)?;
    session.print("git is killed (SIGKILL) between the second and the third:");
    session.print("");
    let torn = scratch.show(session, &old)?;
    anyhow::ensure!(torn, "the kill left no torn transaction: please report this");

    ["", "jin-txn recover:", ""].into_iter().for_each(|line| session.print(line));
    let recovered = scratch.jin(&["recover"])?;
    recovered.trim_end().lines().for_each(|line| session.print(line));
    ["", "and now:", ""].into_iter().for_each(|line| session.print(line));
    let still_torn = scratch.show(session, &old)?;
    let fsck = scratch.git(&["fsck", "--full"]).is_ok();
    anyhow::ensure!(!still_torn && fsck, "the repository is not whole again: please report this");
    scratch.git(&["commit", "--allow-empty", "-q", "-m", "life goes on"])?;
    session.print("");
    session.print("All five are where they were, no lock is left, `git fsck` is clean, and a commit works.");
    if args.keep {
        session.print(&format!("The repository is {}", shown(&scratch.dir)));
    }
    Ok(super::exit::DONE)
}

struct Scratch {
    git: PathBuf,
    dir: PathBuf,
    keep: bool,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep && durable::remove_tree(&self.dir).is_err() {
            eprintln!("jin-txn: warning: cannot remove {}", shown(&self.dir));
        }
    }
}

impl Scratch {
    fn new(git: PathBuf, keep: bool) -> anyhow::Result<Scratch> {
        let nonce = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        let dir = std::env::temp_dir().join(format!("jin-txn-demo-{}-{nonce}", std::process::id()));
        let dir = durable::real(&dir);
        durable::create_dirs(&dir, 0o700).with_context(|| format!("cannot create {}", shown(&dir)))?;
        Ok(Scratch { git, dir, keep })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("GIT_")) {
            command.env_remove(name);
        }
        let identity = [("GIT_AUTHOR_NAME", "demo"), ("GIT_AUTHOR_EMAIL", "demo@localhost")];
        let committer = [("GIT_COMMITTER_NAME", "demo"), ("GIT_COMMITTER_EMAIL", "demo@localhost")];
        let quiet = [("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("LC_ALL", "C")];
        command.envs(identity).envs(committer).envs(quiet).env_remove("JIN_TXN").current_dir(&self.dir);
        // It would recover before anybody has seen what is to be recovered.
        command.env("JIN_WATCH", "off");
        // The note that `install` writes for the user goes with the repository.
        if !self.keep {
            command.env("XDG_STATE_HOME", self.dir.join(".git/state"));
        }
        command
    }

    fn output(&self, program: &Path, args: &[&str]) -> anyhow::Result<String> {
        let output =
            self.command(program).args(args).output().with_context(|| format!("cannot run {}", shown(program)))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "`{}` failed: {text}", args.join(" "));
        Ok(text)
    }

    fn git(&self, args: &[&str]) -> anyhow::Result<String> {
        self.output(&self.git, args)
    }

    fn jin(&self, args: &[&str]) -> anyhow::Result<String> {
        self.output(&std::env::current_exe()?, args)
    }

    fn prepare(&self) -> anyhow::Result<(String, String)> {
        self.git(&["init", "-q", "--template="])?;
        self.git(&["commit", "-q", "--allow-empty", "-m", "before"])?;
        for branch in BRANCHES {
            self.git(&["branch", branch])?;
        }
        let old = self.git(&["rev-parse", "HEAD"])?.trim().to_owned();
        self.git(&["commit", "-q", "--allow-empty", "-m", "after"])?;
        let new = self.git(&["rev-parse", "HEAD"])?.trim().to_owned();
        self.jin(&["install", "-q"])?;
        Ok((old, new))
    }

    /// The third branch's reflog is a FIFO that nobody reads: git waits there, two branches done.
    fn kill_in_mid_transaction(&self, old: &str, new: &str) -> anyhow::Result<()> {
        let log = self.dir.join(".git/logs/refs/heads").join(BRANCHES[STUCK_AT]);
        let aside = self.dir.join(".git/reflog-aside");
        durable::rename(&log, &aside)?;
        mknodat(CWD, &log, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        let mut git = self.start_update(old, new)?;
        let arrived = self.wait_for(BRANCHES[STUCK_AT - 1], new, &mut git);
        git.kill()?;
        git.wait()?;
        durable::rename(&aside, &log)?;
        arrived
    }

    fn start_update(&self, old: &str, new: &str) -> anyhow::Result<Child> {
        use std::io::Write;
        let mut command = self.command(&self.git);
        command.args(["update-ref", "--stdin"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut git = command.spawn().context("cannot start git")?;
        let mut stdin = git.stdin.take().context("git has no stdin")?;
        for branch in BRANCHES {
            writeln!(stdin, "update refs/heads/{branch} {new} {old}")?;
        }
        Ok(git)
    }

    fn wait_for(&self, branch: &str, value: &str, git: &mut Child) -> anyhow::Result<()> {
        let path = self.dir.join(".git/refs/heads").join(branch);
        let start = Instant::now();
        while fs::read_to_string(&path).unwrap_or_default().trim() != value {
            anyhow::ensure!(git.try_wait()?.is_none(), "git ended before it could be killed");
            anyhow::ensure!(start.elapsed() < Duration::from_secs(10), "git did not come to {branch} in 10 s");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Prints branches and locks; says whether the transaction is torn.
    fn show(&self, session: &Session, old: &str) -> anyhow::Result<bool> {
        let mut moved = 0;
        for branch in BRANCHES {
            let value = fs::read_to_string(self.dir.join(".git/refs/heads").join(branch))?;
            let is_old = value.trim() == old;
            moved += usize::from(!is_old);
            session.print(&format!("  {branch:<8} {}  {}", &value.trim()[..10], if is_old { "old" } else { "NEW" }));
        }
        let repo = Repository::open(&self.dir.join(".git"))?;
        let locks = find(&repo, Depth::Everything)?;
        for lock in locks.iter().filter(|lock| !lock.path.to_string_lossy().ends_with("~pid.lock")) {
            session.print(&format!("  left behind: {}", repo.relative(&lock.path)));
        }
        Ok((moved != 0 && moved != BRANCHES.len()) || !locks.is_empty())
    }
}
