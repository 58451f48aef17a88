//! Is this git the child of one of our own transactions?
//!
//! Then that transaction logs everything, and our hook has nothing to do; hooks of others run and may refuse. The variable
//! alone proves nothing: it is inherited by whatever a hook starts, and anybody may set it.
//!
//! A git of ours whose transaction was killed changes nothing any more: recovery writes what is missing, and a transaction of this git
//! in the log would look like somebody else's.

use crate::hook::Environment;
use crate::process::caller;
use crate::process::owner::{self, ExecContext, Stat};
use crate::state::marker::{self, Listing, State};
use crate::state::{TxId, TxKind};

/// Who has started this git?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartedBy {
    /// A transaction of ours that is in progress.
    Ours,
    /// The same, whose process is gone.
    OursThatDied,
    Other,
}

/// Was this git started by a transaction of ours that is in progress?
pub(super) fn started_by(environment: &Environment, listing: &Listing) -> anyhow::Result<StartedBy> {
    let Some(id) = environment.within else { return Ok(StartedBy::Other) };
    let Some((git, _)) = caller::nearest_git()? else { return Ok(StartedBy::Other) };
    has_started(listing, id, &git)
}

/// The marker of `id` has to be there, to name this very process as its child, and an ancestor of it as its owner.
fn has_started(listing: &Listing, id: TxId, git: &Stat) -> anyhow::Result<StartedBy> {
    let Some(entry) = listing.markers.iter().find(|m| m.id == id && m.state == State::InProgress) else {
        return Ok(StartedBy::Other);
    };
    let marker = match entry.read() {
        Err(error) if marker::is_unreadable(&error) => return Err(error),
        other => other.ok().flatten(),
    };
    let Some(marker) = marker else { return Ok(StartedBy::Other) };
    let is_child = marker.hook_process == git.process();
    if marker.origin != TxKind::Apply || !is_child || !ExecContext::here()?.is_same(&marker.owner.place) {
        return Ok(StartedBy::Other);
    }
    let lives = owner::ancestors()?.iter().any(|a| a.process() == marker.owner.process);
    Ok(if lives { StartedBy::Ours } else { StartedBy::OursThatDied })
}
