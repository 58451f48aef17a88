//! What recovery found and did: a value that every surface prints in its own way.

use std::path::PathBuf;

use serde::Serialize;

use crate::git::RefName;
use crate::locks::Holder;
use crate::process::owner::{Liveness, Owner};
use crate::state::TxId;

/// What was done about something that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Finding {
    /// All of it was there: recorded as committed.
    Committed,
    /// Taken back, or nothing of it had happened.
    RolledBack,
    /// A human has to look.
    NeedsHuman,
    /// Work that was left half done was completed.
    Finished,
    /// Moved into quarantine.
    Removed,
    /// Left alone: its owner is alive, cannot be seen, or stands in the way right now.
    Left,
}

/// An unfinished transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TxFinding {
    /// Its id.
    pub id: TxId,
    /// What the owner was asked to do.
    pub operation: String,
    /// The owner's pid, when known.
    pub pid: Option<u32>,
    /// How it ended.
    pub finding: Finding,
    /// What was done, a line each.
    pub actions: Vec<String>,
    /// Nothing was visible to the user, so nothing is said.
    #[serde(skip)]
    pub quiet: bool,
}

/// A lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LockFinding {
    /// Path below the git directory.
    pub path: String,
    /// What was done.
    pub finding: Finding,
    /// The evidence.
    pub because: String,
    /// What is known of its owner.
    pub owner: Liveness,
    /// Is its owner alive or unknowable?
    pub held: bool,
}

/// Everything that one run of recovery found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Unfinished transactions of the dead.
    pub transactions: Vec<TxFinding>,
    /// Lock files.
    pub locks: Vec<LockFinding>,
    /// Transactions whose owner is alive or cannot be seen.
    pub busy: Vec<String>,
    /// Damaged places of the log.
    pub damage: Vec<String>,
    /// What could not be kept after a power cut.
    pub losses: Vec<String>,
    /// Anything else worth a line.
    pub notes: Vec<String>,
    /// Refs that were given another value.
    #[serde(skip)]
    pub refs_moved: Vec<RefName>,
    /// Git directories of worktrees whose index was finished, or cannot be: a git that is at work there builds on the old one.
    #[serde(skip)]
    pub indexes_finished: Vec<PathBuf>,
    /// git holds locks that the plan needs: recovery is due when it has released them.
    #[serde(skip)]
    pub must_wait: bool,
}

impl Report {
    /// Is there nothing that recovery would have to mend?
    pub(crate) fn is_clean(&self) -> bool {
        let quiet = self.transactions.iter().all(|t| t.quiet);
        quiet && self.locks.is_empty() && self.busy.is_empty() && !self.needs_human() && self.notes.is_empty()
    }

    /// Does something wait for recovery? (of a dry run)
    pub(crate) fn has_work(&self) -> bool {
        let open = |t: &TxFinding| !t.quiet && !matches!(t.finding, Finding::NeedsHuman | Finding::Left);
        self.transactions.iter().any(open)
            || self.locks.iter().any(|l| l.finding != Finding::Left)
            || !self.notes.is_empty()
    }

    /// Must a human decide something?
    pub(crate) fn needs_human(&self) -> bool {
        !self.damage.is_empty()
            || !self.losses.is_empty()
            || self.transactions.iter().any(|t| t.finding == Finding::NeedsHuman)
            || self.locks.iter().any(|l| l.finding == Finding::NeedsHuman)
    }

    /// Is there a transaction that a person has to close, or recovery to try again?
    pub(crate) fn is_waiting(&self) -> bool {
        self.transactions.iter().any(|t| !t.quiet && matches!(t.finding, Finding::NeedsHuman | Finding::Left))
    }

    /// Is somebody at work, or not to be seen, whose transaction or lock is in the way?
    pub(crate) fn is_busy(&self) -> bool {
        let held = self.locks.iter().any(|l| l.held);
        held || !self.busy.is_empty() || self.transactions.iter().any(|t| t.finding == Finding::Left)
    }

    /// One line per transaction, lock without a transaction, and note, for stderr.
    pub(crate) fn headlines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.transactions.iter().filter(|t| !t.quiet).map(TxFinding::headline).collect();
        let removed: Vec<&str> = self.paths(Finding::Removed).collect();
        if !removed.is_empty() {
            lines.push(format!(
                "jin-txn: moved {} stale {} to quarantine: {}",
                removed.len(),
                plural(removed.len(), "lock"),
                short_list(&removed)
            ));
        }
        for path in self.paths(Finding::Finished) {
            lines.push(format!("jin-txn: finished the commit's index: {path} is now in place"));
        }
        let stuck = self.told_locks().filter(|l| l.finding == Finding::NeedsHuman);
        lines.extend(stuck.map(|l| format!("jin-txn: {} is stale and stays: {}", l.path, l.because)));
        lines.extend(self.notes.iter().map(|note| format!("jin-txn: {note}")));
        lines.extend(self.losses.iter().map(|loss| format!("jin-txn: warning: {loss}")));
        lines.extend(self.damage.iter().map(|d| format!("jin-txn: warning: the log is damaged: {d}")));
        lines
    }

    fn paths(&self, finding: Finding) -> impl Iterator<Item = &str> {
        self.told_locks().filter(move |l| l.finding == finding).map(|l| l.path.as_str())
    }

    /// The locks that are worth a word: not the note beside one that says who holds it (`core.lockfilePid`).
    pub(crate) fn told_locks(&self) -> impl Iterator<Item = &LockFinding> {
        let is_beside_another = |path: &str| {
            let lock = path.strip_suffix("~pid.lock").map(|base| format!("{base}.lock"));
            lock.is_some_and(|lock| self.locks.iter().any(|other| other.path == lock))
        };
        self.locks.iter().filter(move |lock| !is_beside_another(&lock.path))
    }
}

impl LockFinding {
    /// A lock that is left alone.
    pub(crate) fn held(path: String, Holder { liveness, because }: Holder) -> LockFinding {
        LockFinding { path, finding: Finding::Left, because, owner: liveness, held: true }
    }
}

impl TxFinding {
    fn headline(&self) -> String {
        let Self { id, operation, finding, actions, .. } = self;
        let pid = self.pid.map_or_else(String::new, |p| format!(", pid {p}"));
        let what = match finding {
            Finding::Committed | Finding::Finished => "completed",
            Finding::RolledBack => "rolled back",
            Finding::NeedsHuman => "needs manual resolution:",
            Finding::Removed | Finding::Left => "cannot recover yet:",
        };
        let done = if actions.is_empty() { String::new() } else { format!(": {}", short_list(actions)) };
        format!("jin-txn: {what} {id} (`{operation}`{pid}){done}; see `git txn show {id}`")
    }
}

/// `1 lock`, `2 locks`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

pub(super) fn short_list<T: AsRef<str>>(items: &[T]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = items.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = items.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

pub(super) fn busy(id: TxId, operation: &str, owner: &Owner, liveness: Liveness) -> String {
    let (pid, host) = (owner.process.pid, &owner.place.host);
    match liveness {
        Liveness::Unknowable => {
            format!("{id} (`{operation}`, pid {pid} on {host}) may be alive: its process cannot be seen from here")
        }
        _ => format!("{id} (`{operation}`, pid {pid}) is at work"),
    }
}
