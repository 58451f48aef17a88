//! Which process could hold a lock?
//!
//! A candidate may write to the repository by its credentials (see [`Writers`]), and either looks like git (or is named by the
//! marker of a transaction) and is not known to work elsewhere, or has the lock open. A git-like process of those that we cannot look into is a candidate. One that started two seconds after the lock was
//! made is none, unless the clock has been set since: that would make a holder look too young. When we do not see all
//! processes of the machine, or other machines may use the disk, nothing is proved; and when looking at one failed, not even
//! a human's word makes up for it.
//!
//! Limit: what another user's process has open is not shown to us. One that is not named git, and has a lock open, is not seen.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{fs, io};

use crate::fs::FileId;
use crate::git::Repository;
use crate::locks::find::{LockFile, is_lock_path};
use crate::locks::works_here::{stands_here, works_here};
use crate::process::caller;
use crate::process::credentials::Writers;
use crate::process::git_argv::{changes_no_index, is_lockless, may_take};
use crate::process::owner::{self, ExecContext, Liveness, Process, Stat};
use crate::process::redact;

/// What is uncertain when a process's start is compared with a file's time: a start is rounded down to a tick (10 ms),
/// a file's time lags by up to another one.
pub(crate) const CLOCK_MARGIN: i64 = 30_000_000;

/// Whoever started that much later than a lock was made did not make it; asked only while the clock is known to be steady.
const YOUNGER: i64 = 2_000_000_000;

/// Who may hold a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// [`Liveness::Alive`] or [`Liveness::Unknowable`].
    pub(crate) liveness: Liveness,
    /// The evidence, in one line for people.
    pub(crate) because: String,
}

struct Candidate {
    pid: u32,
    started: i64,
    what: String,
    argv: Vec<String>,
}

struct Open {
    pid: u32,
    path: PathBuf,
    id: Option<FileId>,
}

/// The processes that could hold a lock of one repository, at one moment.
pub(crate) struct Processes {
    candidates: Vec<Candidate>,
    open: Vec<Open>,
    ancestors: Vec<Candidate>,
    sees_everything: bool,
    /// A process could not be looked at for another reason than that we may not.
    trouble: Option<io::Error>,
    local_disk: bool,
    scanned_at: i64,
    steady_since: Option<i64>,
}

impl Processes {
    /// Looks at every process once. `owners` are known to make transactions here. `steady_since`: from when on (realtime,
    /// nanoseconds) file times and process starts can be compared, if at all.
    pub(crate) fn scan(
        repo: &Repository,
        ancestors: &[Stat],
        owners: &[Process],
        steady_since: Option<i64>,
    ) -> Processes {
        let myself = std::process::id();
        let mut scan = Processes {
            candidates: Vec::new(),
            open: Vec::new(),
            ancestors: ancestors.iter().filter(|s| is_at_work(s, owners)).map(Candidate::new).collect(),
            sees_everything: ExecContext::here().is_ok_and(|place| place.sees_everything()),
            trouble: None,
            local_disk: crate::fs::durable::is_local_disk(&repo.common_dir),
            scanned_at: crate::util::clock::now(),
            steady_since,
        };
        let writers = Writers::of(&repo.common_dir);
        let mut known = BTreeSet::from([myself]);
        // Who handed its work to a child and ended before we came to it: its child is in a second list.
        for _ in 0..2 {
            let pids = owner::all_pids().unwrap_or_else(|error| scan.not_seen(error));
            let new: Vec<u32> = pids.into_iter().filter(|pid| !known.contains(pid)).collect();
            for &pid in &new {
                // Not only git: a program with a library of git in it may run us while it holds a lock.
                let is_above = ancestors.iter().any(|a| a.pid == pid);
                let seen = if is_above { scan.note_open_locks(pid) } else { scan.look_at(pid, repo, &writers, owners) };
                seen.unwrap_or_else(|error| scan.not_seen(error));
            }
            known.extend(new);
        }
        scan
    }

    fn not_seen<T: Default>(&mut self, error: io::Error) -> T {
        if error.kind() == io::ErrorKind::PermissionDenied {
            self.sees_everything = false;
        } else {
            self.trouble.get_or_insert(error);
        }
        T::default()
    }

    /// Is this process a candidate, and what has it open? An error when that cannot be known.
    fn look_at(&mut self, pid: u32, repo: &Repository, writers: &Writers, owners: &[Process]) -> io::Result<()> {
        let stat = match Stat::look(pid) {
            Err(e) if e.kind() != io::ErrorKind::PermissionDenied && !writers.include(pid) => return Ok(()),
            looked => looked?,
        };
        let at_work = |stat: &Stat| !stat.is_gone() && !stat.is_kernel_thread();
        let Some(stat) = stat.filter(at_work) else { return Ok(()) };
        let is_owner = || is_owner(&stat, owners) && stands_here(&stat, repo);
        let may_be_it = || (owner::may_be_git(&stat) && works_here(&stat, repo)) || is_owner();
        if !writers.include(pid) {
            self.sees_everything &= !writers.may_be_mapped_to(pid) || !may_be_it();
            return Ok(());
        }
        // One that ends while we look leaves contradictory traces, and no lock that it will still use.
        if may_be_it() && Stat::may_live(stat.process()) {
            self.candidates.push(Candidate::new(&stat));
        }
        self.note_open_locks(pid)
    }

    fn note_open_locks(&mut self, pid: u32) -> io::Result<()> {
        for (link, path) in owner::open_files(pid)? {
            if is_lock_path(&path) {
                let id = fs::metadata(link).ok().map(|m| FileId::of(&m));
                self.open.push(Open { pid, path, id });
            }
        }
        Ok(())
    }

    /// Is what was seen too old to judge `lock`? A process that started since could have made it.
    pub(crate) fn are_older_than(&self, lock: &LockFile) -> bool {
        lock.id.ctime + CLOCK_MARGIN >= self.scanned_at
    }

    /// Who could hold `lock`? `None` when nobody is left that could.
    pub(crate) fn holder_of(&self, lock: &LockFile) -> Option<Holder> {
        let alive = |because| Some(Holder { liveness: Liveness::Alive, because });
        // A lock that is older than a process above us is not that one's own. Of index.lock even that is not
        // believed: git takes it before it calls any hook, so a command that uses the index has its own there.
        let is_index = lock.path.ends_with("index.lock");
        let steady = self.steady_since.is_some_and(|since| lock.id.ctime > since + YOUNGER);
        let since_boot = self.steady_since.is_some();
        let own = |a: &&Candidate| {
            !since_boot || lock.id.ctime >= a.started - CLOCK_MARGIN || (is_index && !changes_no_index(&a.argv))
        };
        if let Some(above) = self.ancestors.iter().filter(|a| may_take(&a.argv, &lock.path)).find(own) {
            return alive(format!("{} (pid {}), which runs this, may hold it", above.what, above.pid));
        }
        let holds = |o: &&Open| o.path == lock.path || o.id.is_some_and(|id| id.is_same_file(&lock.id));
        if let Some(open) = self.open.iter().find(holds) {
            return alive(format!("pid {} has it open", open.pid));
        }
        let too_young = |c: &Candidate| steady && c.started > lock.id.ctime + YOUNGER;
        let may_hold = |c: &&Candidate| may_take(&c.argv, &lock.path) && !too_young(c);
        if let Some(candidate) = self.candidates.iter().find(may_hold) {
            return alive(format!("{} (pid {}) is running and may hold it", candidate.what, candidate.pid));
        }
        if let Some(error) = &self.trouble {
            return alive(format!("not every process could be looked at: {error}"));
        }
        let unknown = |because: &str| Some(Holder { liveness: Liveness::Unknowable, because: because.to_owned() });
        if !self.local_disk {
            return unknown("the repository lies on a file system that other machines may use");
        }
        if !self.sees_everything {
            return unknown("not all processes of this machine can be seen from here");
        }
        None
    }
}

impl Candidate {
    fn new(stat: &Stat) -> Candidate {
        let argv = owner::argv(stat.pid).unwrap_or_default();
        let what = if argv.is_empty() { stat.comm.clone() } else { redact::command_line(&argv) };
        let what = crate::util::text::shortened(&what, 80);
        Candidate { pid: stat.pid, started: owner::realtime_of_start(stat.start), what, argv }
    }
}

/// Is it one that makes transactions here under another name than git's?
fn is_owner(stat: &Stat, owners: &[Process]) -> bool {
    owners.contains(&stat.process()) && !caller::is_runner(stat)
}

/// An ancestor that is git, or makes transactions as git does, and not merely running us as an alias.
pub(super) fn is_at_work(stat: &Stat, owners: &[Process]) -> bool {
    (owner::may_be_git(stat) || is_owner(stat, owners))
        && !owner::is_ourselves(stat.pid)
        && !is_lockless(&owner::argv(stat.pid).unwrap_or_default())
}
