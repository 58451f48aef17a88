//! How the processes of a run are told: they have its mark in their environment, and its lock file open.
//!
//! Either alone is lost now and then: some programs close what they inherit, some clean their environment. A run is
//! alive while anybody has either, but for daemons that are [known](crate::process::daemon) to write nothing here.
//!
//! Limit: a process that has neither, and whose ancestors are gone, cannot be told from any other. Of processes of other
//! users the environment cannot be read.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::process::credentials::Writers;
use crate::process::owner::{self, Liveness, Process, Stat};
use crate::process::{daemon, redact};
use crate::state::marker::{Entry, State};
use crate::state::{StateDir, TxId, flock};

/// The file that the tree of a run has open and locked, below its directory; its time says when it was last known to live.
const ALIVE: &str = "alive";

/// Out of the way of shells, which number from 3 (and bash from 255).
const HIGH: i32 = 400;

/// Between the start of a process and the time of a file, in nanoseconds: who started that long before is no part of a run.
const MARGIN: i64 = 2_000_000_000;

/// A run, told from those of other repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The run.
    pub id: TxId,
    /// Inode of the repository's state directory.
    pub state_dir: u64,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.id, self.state_dir)
    }
}

impl Mark {
    /// The mark of the run `id`.
    pub(crate) fn of(state: &StateDir, id: TxId) -> io::Result<Mark> {
        Ok(Mark { id, state_dir: state.birth()?.ino })
    }

    /// What [`RUN`](crate::util::env::RUN) is for the processes of this run, when it was `outer` before.
    pub(crate) fn within(&self, outer: Option<&str>) -> String {
        match outer {
            Some(outer) if !outer.is_empty() => format!("{outer} {self}"),
            _ => self.to_string(),
        }
    }
}

/// The run of the repository that `variable` names, if it does: the innermost.
pub(crate) fn named_in(variable: &str, state: &StateDir) -> Option<TxId> {
    let own = state.birth().ok()?.ino;
    let marks = variable.split(' ').filter_map(|word| {
        let (id, inode) = word.split_once('@')?;
        Some(Mark { id: id.parse().ok()?, state_dir: inode.parse().ok()? })
    });
    marks.rev().find(|m| m.state_dir == own).map(|m| m.id)
}

fn path(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join(ALIVE)
}

/// The open lock of a run that is being made: children inherit the second of the two files.
#[derive(Debug)]
pub(crate) struct Lease {
    file: File,
    _inherited: OwnedFd,
}

impl Lease {
    /// Takes the lock of the run `id`, whose directory exists.
    pub(crate) fn take(state: &StateDir, id: TxId) -> io::Result<Lease> {
        let file = flock::create_locked(&path(state, id))?;
        let inherited = rustix::io::fcntl_dupfd_cloexec(&file, HIGH)?;
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty())?;
        Ok(Lease { file, _inherited: inherited })
    }

    /// Notes that the run is alive now.
    pub(crate) fn beat(&self) -> io::Result<()> {
        self.file.set_modified(std::time::SystemTime::now())
    }
}

/// Notes that the run is alive now, for one that has no runner any more.
pub(crate) fn beat_for(state: &StateDir, id: TxId) -> io::Result<()> {
    crate::fs::durable::set_modified(&path(state, id), crate::util::clock::now())
}

/// When the run was last known to live, in nanoseconds since the epoch; `None` when its directory is gone.
pub(crate) fn last_beat(state: &StateDir, id: TxId) -> io::Result<Option<i64>> {
    Ok(crate::fs::FileId::at(&path(state, id))?.map(|id| id.mtime))
}

/// Does any process hold the lock of the run `id`?
pub(crate) fn is_held(state: &StateDir, id: TxId) -> io::Result<bool> {
    flock::is_held(&path(state, id))
}

/// A process of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// The process.
    pub process: Process,
    /// Its command line, fit to be shown.
    pub what: String,
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", self.what, self.process.pid)
    }
}

/// The processes of a run, as far as they are seen.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Those that may be at work.
    pub at_work: Vec<Member>,
    /// Who has its lock open, of all that are seen.
    holders: usize,
    /// What cannot be looked into, and may belong to the run.
    hidden: usize,
}

impl Tree {
    /// Does any of the run live, whose runner is dead and whose lock `is_held`? Daemons that its gits have left inherit the lock, and
    /// say nothing. Behind them may be what cannot be looked into.
    pub(crate) fn liveness(&self, is_held: bool) -> Liveness {
        match (self.at_work.is_empty(), is_held) {
            (true, false) => Liveness::Dead,
            (true, true) if self.holders > 0 && self.hidden == 0 => Liveness::Dead,
            (true, true) if self.holders > 0 => Liveness::Unknowable,
            _ => Liveness::Alive,
        }
    }
}

/// The processes of a run that may be at work: those that carry its mark or have its lock open, and the descendants of `runner`.
pub(crate) fn members(state: &StateDir, mark: Mark, runner: Option<Process>) -> io::Result<Vec<Member>> {
    tree(state, mark, runner).map(|tree| tree.at_work)
}

/// As [`members`], with what is known of the others.
pub(crate) fn tree(state: &StateDir, mark: Mark, runner: Option<Process>) -> io::Result<Tree> {
    let myself = std::process::id();
    let lock = path(state, mark.id);
    let began =
        crate::fs::FileId::at(&Entry::new(state.path(), State::InProgress, mark.id).path)?.map_or(0, |id| id.mtime);
    let mut stats = Vec::new();
    for pid in owner::all_pids()? {
        let looked = owner::unless_hidden(Stat::look(pid))?.flatten();
        stats.extend(looked.filter(|stat| !stat.is_gone()));
    }
    // Anybody may copy the mark of a run into the environment of a process of his own.
    let writers = Writers::of(state.path());
    let (mut tree, mut found) = (Tree::default(), Vec::new());
    for stat in &stats {
        let is_runner = runner.is_some_and(|r| r == stat.process());
        if stat.pid == myself || is_runner || stat.is_kernel_thread() {
            continue;
        }
        let below = runner.is_some_and(|r| descends(stat, r, &stats));
        let holds = has_open(stat.pid, &lock)?;
        if below || holds || (carries(stat.pid, mark)? && writers.include(stat.pid)) {
            tree.holders += usize::from(holds);
            found.push(stat);
        } else if is_hidden(stat.pid)
            && owner::realtime_of_start(stat.start) + MARGIN > began
            && writers.include(stat.pid)
        {
            tree.hidden += 1;
        }
    }
    // What a daemon has started (an agent's dialog, a master's connection) is part of it.
    let daemons: Vec<Process> = found.iter().map(|s| s.process()).filter(|p| daemon::is_known(p.pid)).collect();
    let is_of = |stat: &Stat, daemon: &Process| *daemon == stat.process() || descends(stat, *daemon, &stats);
    found.retain(|stat| !daemons.iter().any(|daemon| is_of(stat, daemon)));
    tree.at_work = found.into_iter().map(|stat| Member { process: stat.process(), what: what(stat) }).collect();
    Ok(tree)
}

/// May we not see what it has open?
fn is_hidden(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn descends(stat: &Stat, from: Process, all: &[Stat]) -> bool {
    let mut parent = stat.parent;
    for _ in 0..all.len() {
        if parent == from.pid {
            return true;
        }
        match all.iter().find(|s| s.pid == parent) {
            Some(above) => parent = above.parent,
            None => return false,
        }
    }
    false
}

fn carries(pid: u32, mark: Mark) -> io::Result<bool> {
    let environment = owner::unless_hidden(fs::read(format!("/proc/{pid}/environ")))?.unwrap_or_default();
    let mut variables = environment.split(|b| *b == 0);
    let value = variables.find_map(|v| v.strip_prefix(crate::util::env::RUN.as_bytes())?.strip_prefix(b"="));
    Ok(value.is_some_and(|v| v.split(|b| *b == b' ').any(|word| word == mark.to_string().as_bytes())))
}

fn has_open(pid: u32, lock: &Path) -> io::Result<bool> {
    Ok(owner::open_files(pid)?.iter().any(|(_, path)| path == lock))
}

fn what(stat: &Stat) -> String {
    let argv = owner::argv(stat.pid).unwrap_or_default();
    let text = if argv.is_empty() { stat.comm.clone() } else { redact::command_line(&argv) };
    crate::util::text::shortened(&text, 80)
}
