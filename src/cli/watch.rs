//! `jin-txn watch`

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::cli::{Session, exit, exit_code, notes, real_git, utc};
use crate::hook::announce::start::{Tried, start_if_wanted};
use crate::hook::announce::{Address, Caller};
use crate::setup::watch_unit::Unit;
use crate::state::WatchMode;
use crate::util::text::{counted, shown};
use crate::watch::status::Status;
use crate::watch::{self, Request, Term};

/// Recover by itself when a git dies
///
/// Watches every repository that you have protected, and recovers as soon as a git that was at work there is gone: its locks
/// go, and what it left half done is finished or taken back. With `jin.watch` or JIN_WATCH set to
/// `auto` or `on` the first git command starts it; here it runs until it is interrupted.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Say whether it runs, and what it did last
    #[arg(long, group = "what")]
    status: bool,

    /// End the one that runs
    #[arg(long, group = "what")]
    stop: bool,

    /// Start it with every session of yours, by systemd
    #[arg(long, group = "what")]
    install: bool,

    /// Take that back
    #[arg(long, group = "what")]
    uninstall: bool,

    /// End when no git has been at work for so long
    #[arg(long, value_name = "SECONDS", conflicts_with = "what")]
    until_idle: Option<u64>,

    /// As the hook with this process ID starts it
    #[arg(long, hide = true, value_name = "PID")]
    started: Option<u32>,

    /// Only the repository with this common directory, and those whose gits tell of themselves
    #[arg(long, hide = true, value_name = "DIR")]
    of: Option<PathBuf>,

    /// Recover what stdin names
    #[arg(long, hide = true)]
    recover: bool,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    if args.recover {
        return recover();
    }
    if args.started.is_some() {
        watch::detach()?;
    }
    if args.install || args.uninstall {
        return unit(session, args.install);
    }
    let address = address()?;
    if args.status {
        return tell(session, &address);
    }
    if args.stop {
        return stop(session, &address);
    }
    let notes = notes().context("there is no HOME: the list of your repositories is not found")?;
    let ready = |status: &Status| {
        if args.started.is_none() {
            session.say(&format!("jin-txn: watching (pid {}); ^C ends it", status.pid));
        }
    };
    let until_idle = args.until_idle.map(Duration::from_secs);
    let term = Term { hook: args.started, common_dir: args.of.clone(), until_idle };
    if watch::serve(&address, &notes, term, ready)? || args.started.is_some() {
        return Ok(exit::DONE);
    }
    anyhow::bail!("the watch runs already: `jin-txn watch --status` says more")
}

fn caller() -> Caller {
    Caller::of(|name| std::env::var_os(name))
}

/// Why nobody could reach a watch.
const NO_PLACE: &str = "HOME is not set, XDG_RUNTIME_DIR is too long for a socket, or /proc is not mounted";

fn address() -> anyhow::Result<Address> {
    caller().address().with_context(|| {
        format!(
            "no watch can run here, and nothing was changed: {NO_PLACE}\n\
             hint: set HOME, or a shorter XDG_RUNTIME_DIR, then run this again\n\
             hint: repositories are protected without a watch, too: after a git was killed, `git txn recover` recovers"
        )
    })
}

fn unit(session: &Session, install: bool) -> anyhow::Result<u8> {
    let unit = Unit::of(|name| std::env::var_os(name)).context("there is no HOME for a unit")?;
    let path = shown(&unit.path());
    if install {
        unit.install(&std::env::current_exe()?)?;
        session.say(&format!("jin-txn: the watch starts with your next session ({path})"));
        session.say("hint: `systemctl --user daemon-reload` and `systemctl --user start jin-txn-watch` start it now");
    } else if unit.uninstall()? {
        session.say(&format!("jin-txn: {path} is gone"));
        session.say("hint: `systemctl --user daemon-reload`, and `jin-txn watch --stop` ends the one that runs");
    } else {
        session.say("jin-txn: there is no such unit");
    }
    Ok(exit::DONE)
}

/// How a repository with these settings recovers by itself; `None` where nothing is to be said, because the environment says that
/// nobody wants it.
pub(super) fn standing(set: WatchMode) -> Option<Standing> {
    let caller = caller();
    if !caller.mode.unwrap_or(set).is_wanted() {
        return None;
    }
    let Some(address) = caller.address() else { return Some(Standing::Hindered(NO_PLACE)) };
    if let Some(status) = Status::read(&address) {
        return Some(Standing::Runs(status));
    }
    Some(caller.hindrance(&address, set).map_or(Standing::NotYet, Standing::Hindered))
}

/// Starts the watch as a hook of this repository would.
pub(super) fn start(set: WatchMode, common_dir: &Path) {
    let caller = caller();
    if let Some(address) = caller.address().filter(|address| !caller.is_silent() && Status::read(address).is_none()) {
        start_if_wanted(&caller, &address, set, common_dir);
    }
}

/// Does the watch run?
pub(super) enum Standing {
    Runs(Status),
    /// The next command that changes a ref starts it.
    NotYet,
    /// It does not run, and nobody starts it.
    Hindered(&'static str),
}

impl Standing {
    /// In words, a line each.
    pub(super) fn describe(&self) -> Vec<String> {
        match self {
            Standing::Runs(status) => describe(status),
            Standing::NotYet => vec!["watch: none runs; the next git command that changes a ref starts it".to_owned()],
            Standing::Hindered(why) => vec![format!("watch: none runs, and none is started: {why}")],
        }
    }
}

fn tell(session: &Session, address: &Address) -> anyhow::Result<u8> {
    let status = Status::read(address);
    if session.json {
        session.print_json(&status)?;
        return Ok(if status.is_some() { exit::DONE } else { exit::FAILED });
    }
    let Some(status) = status else {
        session.print("no watch runs");
        if let Some(why) = Tried::read(address).map(|tried| tried.why).filter(|why| !why.is_empty()) {
            session.print(&format!("  the last time that a hook looked, it did not start one: {why}"));
        }
        return Ok(exit::FAILED);
    };
    for line in describe(&status) {
        session.print(&line);
    }
    Ok(exit::DONE)
}

/// What the watch does, a line each.
pub(super) fn describe(status: &Status) -> Vec<String> {
    let Status { pid, since, repositories, .. } = status;
    let repositories = counted(*repositories as u64, "repository");
    let mut lines = vec![format!("watch: pid {pid} since {}, {repositories}", utc(*since))];
    if status.limit_reached {
        lines.push("  some directories are not watched: raise fs.inotify.max_user_watches, or pack refs".to_owned());
    }
    if let Some(done) = &status.last {
        lines.push(format!("  last recovery: {} at {}", done.repository, utc(done.at)));
    }
    lines
}

fn stop(session: &Session, address: &Address) -> anyhow::Result<u8> {
    let Some(status) = Status::read(address) else {
        session.say("jin-txn: no watch runs");
        return Ok(exit::DONE);
    };
    anyhow::ensure!(status.stop()?, "the watch (pid {}) does not end", status.pid);
    session.say(&format!("jin-txn: ended the watch (pid {})", status.pid));
    session.say("hint: the next git command may start it again; `git config --global jin.watch off`, and `jin-txn install`, keep it away");
    Ok(exit::DONE)
}

/// The child that recovers.
fn recover() -> anyhow::Result<u8> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    let request: Request = serde_json::from_slice(&text)?;
    let notes = notes().context("there is no HOME")?;
    let report = watch::recover(&request, &notes, real_git()?)?;
    Ok(report.as_ref().map_or(exit::DONE, exit_code))
}
