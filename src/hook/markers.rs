//! The markers in the state directory, by owner: this git, a live process, a dead one.

use crate::fs::FileId;
use crate::git::Repository;
use crate::hook::Reply;
use crate::hook::call::Call;
use crate::hook::recover::{is_abandoned, liveness_of};
use crate::process::owner::{ExecContext, Liveness, Process};
use crate::run::mark;
use crate::state::marker::{self, Entry, Listing, Marker, PayloadKey, Phase, State};
use crate::state::{StateDir, TxId, TxKind};
use crate::util::text;

#[derive(Default)]
pub(super) struct Markers {
    pub(super) mine: Vec<OwnMarker>,
    /// There is one whose owner is dead.
    pub(super) dead: bool,
    /// There is one whose owner, another one than this git, is or may be alive.
    pub(super) others: bool,
    /// Transactions that are not finished, and will not be by recovery from this hook: they need their objects.
    pub(super) unfinished: Vec<Waiting>,
    /// A run whose processes are all dead: nothing may be built on what it left.
    pub(super) dead_run: Option<Unfinished>,
}

pub(super) struct Unfinished {
    pub(super) id: TxId,
    pub(super) operation: String,
}

/// A transaction of another process that has not ended.
pub(super) struct Waiting {
    pub(super) marker: Marker,
    pub(super) for_whom: ForWhom,
}

/// Whom it waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ForWhom {
    /// Its process lives.
    Owner,
    /// Its process cannot be seen.
    Unseen,
    /// A person has to decide.
    Person,
}

/// A marker of the git that called this hook.
pub(super) struct OwnMarker {
    pub(super) entry: Entry,
    pub(super) marker: Marker,
}

impl OwnMarker {
    /// `preparing` wrote it, and `prepared` has not been called since.
    pub(super) fn is_announced(&self) -> bool {
        self.entry.state == State::InProgress && self.marker.phase == Phase::Preparing
    }

    /// `prepared` wrote it, and no call has ended the transaction.
    pub(super) fn is_begun(&self) -> bool {
        self.entry.state == State::InProgress && self.marker.phase == Phase::Prepared
    }

    /// It is begun, with the payload of this call.
    pub(super) fn is_begun_with(&self, payload: PayloadKey) -> bool {
        self.is_begun() && self.marker.payload == payload
    }

    /// git still holds a lock that it took for this transaction.
    pub(super) fn is_locked(&self, repo: &Repository) -> bool {
        let Some((path, lock)) = &self.marker.probe else { return false };
        let path = text::unescape(path).map(|p| repo.common_dir.join(super::os_path(&p)));
        path.is_some_and(|path| matches!(FileId::at(&path), Ok(Some(now)) if now == *lock))
    }
}

impl Call<'_> {
    /// Nobody has a marker, so this transaction has none, and no owner needs to be known.
    pub(super) fn nothing_is_in_flight(&self) -> bool {
        self.listing.markers.is_empty() && self.listing.temporary.is_empty()
    }

    pub(super) fn sort_markers(&self) -> anyhow::Result<Markers> {
        let mut sorted = Markers::default();
        if self.nothing_is_in_flight() {
            return Ok(sorted);
        }
        let git = self.git()?.process();
        let here = ExecContext::here()?;
        sorted.dead = self.listing.temporary.iter().any(|t| is_abandoned(t, &here, &self.state));
        for entry in &self.listing.markers {
            match entry.read_now() {
                Ok(Some((entry, marker))) if marker.owner.process == git && marker.owner.place.is_same(&here) => {
                    sorted.mine.push(OwnMarker { entry, marker });
                }
                Ok(Some((entry, marker))) => self.sort_in(&mut sorted, entry, marker, &here)?,
                Ok(None) => {}
                // It may be this very git's.
                Err(error) if marker::is_unreadable(&error) => return Err(error),
                Err(_) => sorted.dead = true,
            }
        }
        Ok(sorted)
    }

    /// Sorts a marker that is not this git's. It may be gone since the markers were listed: its transaction has ended well.
    fn sort_in(&self, to: &mut Markers, entry: Entry, marker: Marker, here: &ExecContext) -> anyhow::Result<()> {
        let liveness = || liveness_of(&marker, here, &self.state);
        if marker.origin == TxKind::Run {
            // It names no refs: its child transactions do.
            let is_above = || Ok::<_, anyhow::Error>(self.run()? == Some(entry.id));
            let is_dead = entry.state == State::InProgress && !is_above()? && liveness() == Liveness::Dead;
            if is_dead && entry.now()?.is_some_and(|now| now.state == State::InProgress) {
                to.dead_run = Some(Unfinished { id: entry.id, operation: marker.operation });
            }
            return Ok(());
        }
        match liveness() {
            Liveness::Dead if entry.now()?.is_none() => {}
            // What needs manual resolution does not become more urgent with every command.
            Liveness::Dead if entry.state == State::Failed => {
                to.unfinished.push(Waiting { marker, for_whom: ForWhom::Person });
            }
            Liveness::Dead => to.dead = true,
            living => {
                to.others = true;
                let for_whom = if living == Liveness::Alive { ForWhom::Owner } else { ForWhom::Unseen };
                to.unfinished.push(Waiting { marker, for_whom });
            }
        }
        Ok(())
    }

    /// The run that started this git, if one did and is in progress.
    pub(super) fn run(&self) -> anyhow::Result<Option<TxId>> {
        use anyhow::Context;
        let named = self.environment.runs.as_deref().and_then(|runs| mark::named_in(runs, &self.state));
        let in_progress = |m: &&Entry| Some(m.id) == named && m.state == State::InProgress;
        let Some(entry) = self.listing.markers.iter().find(in_progress) else { return Ok(None) };
        // Anybody may set the variable: it counts only together with the marker.
        let marker = entry.read().context("cannot tell whether this change is part of a run")?;
        Ok(marker.filter(|m| m.origin == TxKind::Run).map(|m| m.id))
    }
}

impl Markers {
    /// A hook never restores files: the git that called it works on them.
    pub(super) fn refuse_after_run(&self) -> Option<Reply> {
        let Unfinished { id, operation } = self.dead_run.as_ref()?;
        Some(Reply::veto(vec![
            format!("jin-txn: {id} (`{operation}`) was interrupted, and what it did waits to be taken back"),
            "jin-txn: hint: run `git txn recover`, then your command again".to_owned(),
        ]))
    }
}

/// After a checkout: is there a marker of a dead owner, other than `git`, that a hook can recover?
pub(super) fn any_dead(listing: &Listing, git: Option<Process>, here: &ExecContext, state: &StateDir) -> bool {
    let is_dead = |entry: &Entry| match entry.read_now() {
        Ok(Some((entry, marker))) => {
            // A hook cannot roll a run back, and whether it lives takes a look at every process.
            let recoverable = marker.origin != TxKind::Run && entry.state != State::Failed;
            let is_mine = git.is_some_and(|git| git == marker.owner.process);
            !is_mine && recoverable && liveness_of(&marker, here, state) == Liveness::Dead
        }
        Ok(None) => false,
        Err(_) => true,
    };
    listing.markers.iter().any(is_dead)
}
