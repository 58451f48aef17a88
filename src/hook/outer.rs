//! Is this git the child of one of our own transactions?
//!
//! Then that transaction logs everything, and our hook has nothing to do; hooks of others run and may refuse. The variable
//! alone is believed by nobody: it is inherited by whatever a hook starts, and anybody may set it.

use crate::marker::{Listing, State};
use crate::owner::{self, Place, Stat};
use crate::state_dir::TxId;
use crate::wal::Origin;

/// Does the transaction `id` speak for this git? Its marker has to be there, to name this very process as its child, and
/// an ancestor of it as its owner.
pub(super) fn speaks_for(listing: &Listing, id: TxId, git: &Stat) -> bool {
    let Some(entry) = listing.markers.iter().find(|m| m.id == id && m.state == State::InProgress) else {
        return false;
    };
    let Ok(Some(marker)) = entry.read() else { return false };
    let is_child = marker.helper == git.process();
    let is_below = || owner::ancestors().iter().any(|a| a.process() == marker.owner.process);
    marker.origin == Origin::Apply && is_child && Place::here().is_ok_and(|p| p == marker.owner.place) && is_below()
}
