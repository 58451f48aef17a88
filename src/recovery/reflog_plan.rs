//! Which reflogs of a transaction are put back, cut or dropped.

use crate::git::{RefName, Value};
use crate::recovery::action::Action;
use crate::recovery::reflogs::{Phantom, Told, Trim, saved_log_name};
use crate::recovery::site::Site;
use crate::state::TxId;
use crate::wal::{Begin, RefChange, Watched};

/// Puts reflogs back that git removed for deletions of the transaction.
pub(crate) fn restore(site: &Site<'_>, id: TxId, begin: &Begin) -> Vec<Action> {
    let saved = |index| site.state.tx(id).join(saved_log_name(index));
    let back =
        |(index, change): (usize, &RefChange)| Action::PutReflogBack { saved: saved(index), name: change.name.clone() };
    begin.refs.iter().enumerate().map(back).collect()
}

/// Cuts entries off that tell of updates of the transaction.
pub(crate) fn trim(begin: &Begin) -> Vec<Action> {
    let trim =
        |name: &RefName, size, phantom| Action::TrimReflog(Trim { name: name.clone(), size, phantom, told: Told::Yes });
    let of_ref = |change: &RefChange| {
        let switched_to = if let Value::Symref(target) = &change.after { Some(target.clone()) } else { None };
        trim(&change.name, change.log, Phantom::Update { pair: hex_pair(change), switched_to })
    };
    let pairs: Vec<(String, String)> = begin.refs.iter().filter_map(hex_pair).collect();
    let of_head = |watched: &Watched| trim(&watched.name, watched.log, Phantom::Head(pairs.clone()));
    begin.refs.iter().map(of_ref).chain(begin.watched.iter().map(of_head)).collect()
}

/// Moves reflogs of deleted refs to quarantine that git had not yet removed.
pub(crate) fn drop_deleted(begin: &Begin) -> Vec<Action> {
    let deleted = begin.refs.iter().filter(|c| c.after == Value::Absent && c.log.is_some());
    deleted.map(|c| Action::DropReflog { name: c.name.clone(), size: c.log }).collect()
}

fn hex_pair(change: &RefChange) -> Option<(String, String)> {
    let before = change.before.as_ref()?;
    let zeros = before.oid().or(change.after.oid())?.null_like();
    let hex = |value: &Value| match value {
        Value::Oid(oid) => Some(oid.hex().to_owned()),
        Value::Absent => Some(zeros.clone()),
        _ => None,
    };
    Some((hex(before)?, hex(&change.after)?))
}
