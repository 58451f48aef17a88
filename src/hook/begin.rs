//! `prepared`, last part: from the observed transaction to its durable `begin`.
//!
//! Each step makes the value that the next one needs, so that no step can be left out or come too early:
//!
//! ```text
//! Change ──▶ Marked ──▶ Preserved ──▶ Logged ──▶ git goes on
//! ```
//! 1. The *marker* comes before the record: what is in flight has a name that one `readdir` finds. A record without a marker
//!    would be looked for by nobody.
//! 2. *Second names* come before the record is synced: the one barrier makes both durable, and behind it git may take the
//!    first names away at once.
//! 3. The *record* is durable before git goes on. It is not appended when the marker is gone: somebody took this process for
//!    dead and has cleaned up behind it.
//! 4. Inner transactions are *absorbed* only behind that: ended before the record is there, a crash would leave what they
//!    changed without a before-image.

use std::os::unix::ffi::OsStrExt;

use anyhow::Context;

use crate::fs::FileId;
use crate::git::{RefFormat, RefStore, Repository, Value};
use crate::hook::call::Call;
use crate::hook::keep::StateFile;
use crate::hook::markers::OwnMarker;
use crate::observe::{self, Locks, Observed};
use crate::process::git_argv;
use crate::process::operation::Root;
use crate::process::owner::ExecContext;
use crate::state::marker::{Entry, Marker, Phase};
use crate::state::{Durability, TxId, TxKind, kept};
use crate::util::text;
use crate::util::text::shown;
use crate::wal::{Begin, Body, Flush, KeptPart, Log, RefChange, Rename, Sequence};

/// What is about to happen.
struct Change {
    seen: Observed,
    rename: Option<Rename>,
    root: Option<Root>,
    sequence: Option<Sequence>,
    /// The state files of commands that have stopped.
    in_progress: Vec<StateFile>,
    part_of: Option<TxId>,
}

/// Its marker is published.
#[must_use]
struct Marked<'c> {
    call: &'c Call<'c>,
    log: Log<'c>,
    entry: Entry,
    marker: Marker,
}

/// What git takes away has a second name.
#[must_use]
struct Preserved<'m> {
    marked: &'m Marked<'m>,
    change: Change,
    kept: Vec<KeptPart>,
}

/// Its `begin` is durable.
#[must_use]
struct Logged<'m> {
    marked: &'m Marked<'m>,
}

impl Call<'_> {
    /// Logs the transaction, after which git may go on. `mine`: the markers of this git.
    pub(super) fn begin(&self, seen: Observed, mine: Vec<OwnMarker>) -> anyhow::Result<()> {
        let place = ExecContext::here()?;
        let change = self.change(seen)?;
        let marked = Marked::publish(self, place, &change, &mine)?;
        self.save_config()?;
        match marked.preserve(change).and_then(Preserved::log) {
            Ok(Some(logged)) => logged.absorb(mine),
            Ok(None) => {
                anyhow::bail!("another process removed the marker of {} while it was being logged", marked.entry.id)
            }
            Err(error) => {
                marked.withdraw()?;
                Err(error)
            }
        }
    }

    fn change(&self, seen: Observed) -> anyhow::Result<Change> {
        let git = self.git()?;
        // Another git may hold it, whose index is none of this transaction's.
        let is_own = |lock: &FileId| lock.ctime >= git.started_at() && git_argv::may_commit(&git.argv);
        let seen = Observed { index_lock: seen.index_lock.filter(is_own), ..seen };
        let rename = observe::rename_of(&self.repo, &seen.changes, &git.argv, git.started_at())?;
        let (root, in_progress) = (self.root()?, self.in_progress()?);
        let sequence = self.sequence(&in_progress);
        Ok(Change { seen, rename, root, sequence, in_progress, part_of: self.run()? })
    }
}

impl<'c> Marked<'c> {
    fn publish(
        call: &'c Call<'c>,
        place: ExecContext,
        change: &Change,
        mine: &[OwnMarker],
    ) -> anyhow::Result<Marked<'c>> {
        let log = call.log(&place);
        let announced = mine.iter().find(|own| own.is_announced());
        let id = announced.map_or_else(|| log.next_id(), |own| Ok(own.entry.id))?;
        let index_lock = |lock| (call.repo.relative(&call.repo.git_dir.join("index.lock")), lock);
        let marker = Marker {
            probe: probe(&call.repo, &change.seen),
            index_lock: change.seen.index_lock.map(index_lock),
            follow_up: change.rename.is_some() || change.seen.changes.iter().any(leaves_reflog),
            ..call.marker(id, place, Phase::Prepared)?
        };
        let dir = call.state.path();
        let published = if announced.is_some() { marker.update(dir) } else { marker.create(dir) };
        let entry = published.with_context(|| format!("cannot write a marker into {}", shown(dir)))?;
        Ok(Marked { call, log, entry, marker })
    }

    fn preserve(&self, change: Change) -> anyhow::Result<Preserved<'_>> {
        self.call.save_reflogs(self.entry.id, &change.seen)?;
        self.call.save_index(self.entry.id, &change.seen)?;
        let kept = self.call.save_for_undo(
            self.entry.id,
            &self.marker,
            change.root.as_ref(),
            &change.seen,
            &change.in_progress,
            change.part_of,
        )?;
        if let Some(run) = change.part_of {
            self.call.save_reflogs_of_run(run, &change.seen, change.rename.as_ref())?;
        }
        Ok(Preserved { marked: self, change, kept })
    }

    /// git is refused. The record may be there although its sync failed: it gets an end, if the log can be written.
    fn withdraw(self) -> anyhow::Result<()> {
        if self.log.append(Some(self.entry.id), &Body::Aborted, Flush::No).is_err() {
            // Then it stays a transaction without an end, of which recovery finds that nothing was applied.
        }
        Ok(self.entry.remove()?)
    }
}

impl<'m> Preserved<'m> {
    /// Appends `begin` and waits until it is durable; `None` when somebody has removed the marker.
    fn log(self) -> anyhow::Result<Option<Logged<'m>>> {
        let marked = self.marked;
        let begin = self.record()?;
        // The barrier takes the objects along, the locks with the new values, and the marker.
        let flush = if begin.barrier { Flush::Barrier } else { Flush::Yes };
        let still_ours = || marked.entry.path.exists();
        let lsn = marked.log.append_if(Some(marked.entry.id), &Body::Begin(Box::new(begin)), flush, still_ours)?;
        Ok(lsn.map(|_| Logged { marked }))
    }

    fn record(self) -> anyhow::Result<Begin> {
        let Marked { call, marker, .. } = self.marked;
        let Change { seen, rename, root, sequence, part_of, .. } = self.change;
        let repo = &call.repo;
        Ok(Begin {
            worktree: repo.recorded_worktree(),
            worktree_birth: repo.worktree_birth(),
            reftable: repo.ref_format == RefFormat::Reftable,
            batched: Locks::of(&call.git()?.argv) == Locks::Batched,
            refs: seen.changes,
            watched: seen.watched,
            left: seen.left,
            packed_lock: seen.packed_lock,
            index_lock: seen.index_lock,
            index: seen.index_lock.map_or(Ok(None), |_| FileId::at(&repo.git_dir.join("index")))?,
            rename,
            packed: FileId::at(&repo.common_dir.join("packed-refs"))?,
            head: RefStore::new(repo).head()?,
            reverses: call.environment.reverses,
            part_of,
            root,
            sequence,
            kept: self.kept,
            barrier: call.state.durability() == Durability::Full,
            ..Begin::new(TxKind::Hook, &marker.operation, marker.owner.clone(), marker.hook_process)
        })
    }
}

impl Logged<'_> {
    /// Transactions of the same process whose locks are still held are parts of this one.
    fn absorb(self, mine: Vec<OwnMarker>) -> anyhow::Result<()> {
        let Marked { call, log, entry: Entry { id: by, .. }, .. } = self.marked;
        for own in mine {
            if own.entry.id == *by || !own.is_begun() || !own.is_locked(&call.repo) {
                continue;
            }
            if !call.conclude(log, &own.marker, &Body::Absorbed { by: *by }, Flush::No)? {
                return Ok(());
            }
            kept::put_away(&call.state, own.entry.id)?;
            own.entry.remove()?;
        }
        Ok(())
    }
}

/// Deleted under `packed-refs.lock` alone: git removes the reflog only in a later transaction.
fn leaves_reflog(change: &RefChange) -> bool {
    change.after == Value::Absent && change.lock.is_none() && change.log.is_some()
}

/// A lock that git keeps until the transaction is over.
fn probe(repo: &Repository, seen: &Observed) -> Option<(String, FileId)> {
    let refs = RefStore::new(repo);
    // packed-refs.lock is none: git may keep it from one transaction to the next.
    let (path, lock) = seen.changes.iter().find_map(|c| Some((refs.lock(&c.name), c.lock?)))?;
    let relative = path.strip_prefix(&repo.common_dir).unwrap_or(&path);
    Some((text::escape(relative.as_os_str().as_bytes()).into_owned(), lock))
}
