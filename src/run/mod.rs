//! Any command as one transaction: `jin-txn run`.
//!
//! ```text
//!  marker ──▶ snapshot ──▶ log `begin`, fsync ──▶ the command ──┬─ exit 0 ──▶ log `committed`, fsync ──▶ clean up
//!    │           │                │                   │         └─ else ────▶ restore ──▶ log `recovered` ──▶ clean up
//!    a crash: nothing was run     a crash: once nobody of it is alive, the next command of ours restores
//! ```
//! [`mark`] tells who belongs to a run, [`snapshot`] keeps what was there, [`child_transactions`] tells from the log what the run did to
//! refs, [`child`] runs the command. Restoring is recovery's: [`crate::recovery`].
//!
//! Everything that a restore replaces or removes is in quarantine afterwards.
//!
//! Limit: what the command does outside of the repository (network, other directories, databases) is its own. So is what it
//! does to submodules, and to ignored files. What it does to refs behind the hooks goes back where it is known to be its
//! work ([`unlogged`], [`guard`]), and is told where not. Where `refs` or `logs` are symbolic links (`git-new-workdir`)
//! nothing is run.

pub(crate) mod child;
pub(crate) mod child_transactions;
pub(crate) mod git_dir;
pub(crate) mod guard;
pub(crate) mod look;
pub(crate) mod manifest;
pub(crate) mod mark;
pub(crate) mod objects;
pub(crate) mod snapshot;
pub(crate) mod unlogged;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::fs::beneath::{self, Parent, RelPath};
use crate::fs::{absent_is_none, durable, named as fs};
use crate::git::refs::RefSnapshot;
use crate::git::{Config, Git, RefFormat, RefName, RefStore, Repository, Value};
use crate::process::owner::{ExecContext, Liveness};
use crate::state::marker::{self, Entry, Listing, Marker, State};
use crate::state::{Durability, StateDir, TxId, TxKind, Wait};
use crate::util::text::shown;
use crate::wal::{Begin, Body, Flush, Log, Record, Seal};

use manifest::{Content, Kept, Manifest};
use mark::{Lease, Mark};

/// How long to wait for the append lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// A run that has begun: its snapshot is on disk, its command may start.
#[must_use = "a run that is neither committed nor restored is restored by the next command"]
#[derive(Debug)]
pub(crate) struct Run<'r> {
    state: &'r StateDir,
    entry: Entry,
    lease: Lease,
    /// Every ref when it began.
    refs: BTreeMap<RefName, Value>,
    /// What tells its processes.
    pub mark: Mark,
    /// What of the git directory could not be kept, and so stays as the command leaves it.
    pub not_kept: Vec<RelPath>,
}

/// What is to be run, as it is written down.
#[derive(Debug, Clone)]
pub(crate) struct Intent<'i> {
    /// The command line, fit to be shown.
    pub operation: &'i str,
    /// What the user says about it.
    pub message: Option<&'i str>,
    /// The worktree's root; `None` in a bare repository.
    pub worktree: Option<&'i Path>,
    /// The git to ask.
    pub git: &'i Git,
    /// The worktree's configuration.
    pub config: &'i Config,
    /// Where git attributes may lie that are not of this repository.
    pub attributes: &'i [PathBuf],
    /// The environment that the command gets turns hooks off.
    pub hooks_off: bool,
}

/// Another run is at work in this worktree.
#[derive(Debug, thiserror::Error)]
#[error("{id} (`{operation}`) is at work in this worktree")]
pub(crate) struct Occupied {
    /// That run.
    pub id: TxId,
    /// What it does.
    pub operation: String,
}

impl<'r> Run<'r> {
    /// Takes the snapshot and logs the run.
    pub(crate) fn begin(repo: &Repository, state: &'r StateDir, intent: &Intent<'_>) -> anyhow::Result<Run<'r>> {
        let place = ExecContext::here()?;
        let log = Log::new(state, &place.boot, Wait::UpTo(PATIENCE));
        let inside = repo.recorded_worktree();
        refuse_links(repo)?;
        refuse_another(state, &inside, None)?;
        let id = log.next_id()?;
        let marker =
            Marker { worktree: Some(inside.clone()), ..Marker::of_this_process(id, TxKind::Run, intent.operation)? };
        // The marker first: whatever is left of a snapshot that is cut goes with it.
        let entry = marker.create(state.path())?;
        // Another one may have looked at the same moment: both see each other now.
        if let Err(error) = refuse_another(state, &inside, Some(id)) {
            entry.remove()?;
            return Err(error);
        }
        let begun = || -> anyhow::Result<(Lease, Manifest)> {
            state.make_tx(id)?;
            let lease = Lease::take(state, id).context("cannot make the run's lock")?;
            let manifest = snapshot::take(repo, state, id, intent)?;
            if intent.hooks_off {
                guard::note(state, id)?;
            }
            let seal = Seal { sha256: manifest.store(state, id)?, state_dir: state.birth()? };
            let barrier = state.durability() == Durability::Full;
            let begin = Begin {
                worktree: inside.clone(),
                worktree_birth: repo.worktree_birth(),
                head: RefStore::new(repo).head()?,
                message: intent.message.unwrap_or_default().to_owned(),
                barrier,
                snapshot: Some(seal),
                ..Begin::new(TxKind::Run, &marker.operation, marker.owner.clone(), marker.hook_process)
            };
            let sync = if barrier { Flush::Barrier } else { Flush::Yes };
            log.append(Some(id), &Body::Begin(Box::new(begin)), sync)?;
            Ok((lease, manifest))
        };
        match begun() {
            Ok((lease, manifest)) => {
                let unread = |kept: &&Kept| {
                    kept.content == Content::Opaque && kept.id.is_none() && !git_dir::is_known_by_name(&kept.path)
                };
                let not_kept =
                    manifest.own.iter().chain(&manifest.shared).filter(unread).map(|kept| kept.path.clone()).collect();
                let mark = Mark::of(state, id)?;
                Ok(Run { state, entry, lease, refs: manifest.refs, mark, not_kept })
            }
            Err(error) => {
                if log.append(Some(id), &Body::Aborted, Flush::No).is_err() {
                    // Then recovery finds a run that changed nothing.
                }
                close(state, entry, State::Failed)?;
                Err(error)
            }
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> TxId {
        self.entry.id
    }

    /// Notes that it is alive now.
    pub(crate) fn beat(&self) -> io::Result<()> {
        self.lease.beat()
    }

    /// The refs that changed while it was at work, and that no hook saw.
    pub(crate) fn unseen(&self, repo: &Repository) -> anyhow::Result<Vec<RefSnapshot>> {
        let repo = Repository { git_dir: repo.git_dir.clone(), ..Repository::open(&repo.common_dir)? };
        if repo.ref_format != RefFormat::Files || RefStore::new(&repo).all()? == self.refs {
            return Ok(Vec::new());
        }
        let place = ExecContext::here()?;
        let log = Log::new(self.state, &place.boot, Wait::UpTo(PATIENCE));
        let is_begin = |r: &Record| r.tx == Some(self.id()) && matches!(r.body, Body::Begin(_));
        let mut records = log.scan_until(|records| records.iter().any(is_begin))?.records;
        let refs = RefStore::new(&repo);
        let found = unlogged::find(&repo, &self.refs, &log, &mut records, self.id())?
            .context("other processes keep changing refs")?;
        let now = |change: unlogged::Unlogged| {
            let now = refs.read(&change.name)?;
            Ok(RefSnapshot { name: change.name, value: now.value, file: now.loose })
        };
        found.into_iter().map(now).collect()
    }

    /// Keeps everything that the command did; `unseen` is what no hook saw of it. Returns what is left to recovery, which logs that it is kept and cleans up.
    pub(crate) fn commit(mut self, unseen: Vec<RefSnapshot>) -> anyhow::Result<Option<anyhow::Error>> {
        let logged = ExecContext::here().map_err(Into::into).and_then(|place| {
            let log = Log::new(self.state, &place.boot, Wait::UpTo(PATIENCE));
            // What else it did to refs its parts have told.
            log.append(Some(self.id()), &Body::Committed { refs: unseen }, Flush::Yes)
        });
        let Err(trouble) = logged else {
            return Ok(close(self.state, self.entry, State::Committed).err());
        };
        // The command has succeeded and its effects are there: its marker can say so too, and a full disk takes a rename.
        match self.entry.become_state(State::Committed).and_then(|()| durable::fsync_dir(self.state.path())) {
            Ok(()) => Ok(Some(trouble)),
            Err(also) => Err(trouble.context(format!("its marker cannot say that it is kept ({also})"))),
        }
    }
}

/// A run that is at work, in whichever worktree.
pub(crate) fn at_work(state: &StateDir) -> anyhow::Result<Option<TxId>> {
    Ok(all_at_work(state)?.first().map(|marker| marker.id))
}

fn all_at_work(state: &StateDir) -> anyhow::Result<Vec<Marker>> {
    let mut runs = Vec::new();
    for entry in Listing::read(state.path())?.markers.into_iter().filter(|m| m.state == State::InProgress) {
        match entry.read() {
            // It may be one.
            Err(error) if marker::is_unreadable(&error) => return Err(error),
            Ok(Some(marker)) if marker.origin == TxKind::Run => runs.push(marker),
            _ => {}
        }
    }
    Ok(runs)
}

/// Below a link nothing is written, so that what a run changes there could not be taken back.
fn refuse_links(repo: &Repository) -> anyhow::Result<()> {
    let dirs =
        [&repo.common_dir, &repo.git_dir].into_iter().flat_map(|dir| ["refs", "logs"].map(|name| dir.join(name)));
    for dir in dirs {
        let is_link = absent_is_none(fs::symlink_metadata(&dir))?.is_some_and(|found| found.is_symlink());
        anyhow::ensure!(
            !is_link,
            "{} is a symbolic link: what a run does behind it could not be taken back\n\
             hint: nothing was run; put the real directory there, or use `git worktree add`",
            shown(&dir)
        );
    }
    Ok(())
}

/// Only one run at a time can take back a worktree.
fn refuse_another(state: &StateDir, worktree: &str, own: Option<TxId>) -> anyhow::Result<()> {
    let is_here = |marker: &Marker| Some(marker.id) != own && marker.worktree.as_deref() == Some(worktree);
    match all_at_work(state)?.into_iter().find(is_here) {
        Some(marker) => Err(Occupied { id: marker.id, operation: marker.operation }.into()),
        None => Ok(()),
    }
}

/// The run is over: its snapshot goes, then its marker.
pub(crate) fn close(state: &StateDir, mut entry: Entry, to: State) -> anyhow::Result<()> {
    if entry.state == State::InProgress {
        entry.settle(to)?;
    }
    durable::remove_tree(&state.tx(entry.id))?;
    entry.remove()?;
    Ok(())
}

/// The run is closed as it is: its snapshot goes to quarantine.
pub(crate) fn put_away(repo: &Repository, state: &StateDir, id: TxId) -> anyhow::Result<()> {
    objects::forget_packs(repo, state, id)?;
    let to = state.quarantine().join(format!("{}-snapshot.{id}", crate::util::clock::unix_time()));
    match durable::rename_new(&state.tx(id), &to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Is anybody of the run alive, whose runner is known to be `owner`?
pub(crate) fn liveness(state: &StateDir, id: TxId, owner: Liveness) -> io::Result<Liveness> {
    if owner != Liveness::Dead {
        return Ok(owner);
    }
    // Asked first: whoever lets go of it in between is not missed in the list.
    let is_held = mark::is_held(state, id)?;
    let liveness = mark::tree(state, Mark::of(state, id)?, None)?.liveness(is_held);
    if liveness != Liveness::Dead {
        // Nobody else says so when the runner is dead. It is only a hint: where it cannot be given, a human may be asked.
        mark::beat_for(state, id).ok();
    }
    Ok(liveness)
}

/// A path that lies behind a link, or in what is no directory, has nothing at it.
pub(crate) fn reachable(parent: io::Result<Option<Parent>>) -> io::Result<Option<Parent>> {
    match parent {
        Err(error) if beneath::refusal(&error).is_some() => Ok(None),
        other => other,
    }
}
