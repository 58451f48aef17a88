//! Gathers the evidence about the transactions of the dead.

use crate::recovery::evidence::{EvidenceSources, Unfinished};
use crate::recovery::find_dead::{DeadMarker, names_owner_of};
use crate::recovery::history::LogOutcome;
use crate::recovery::roll_forward;
use crate::wal::Begin;

/// Everything about the transactions of the dead.
pub(crate) fn gather(sources: &EvidenceSources<'_>, dead: Vec<DeadMarker>) -> anyhow::Result<Vec<Unfinished>> {
    dead.into_iter().map(|found| of_transaction(sources, found)).collect()
}

fn of_transaction(
    sources: &EvidenceSources<'_>,
    DeadMarker { entry, marker }: DeadMarker,
) -> anyhow::Result<Unfinished> {
    let is_its = |begin: &Begin| marker.as_ref().is_none_or(|m| names_owner_of(m, begin));
    let Some((at, begin)) = sources.history.begin(entry.id).filter(|(_, begin)| is_its(begin)) else {
        let ending = sources.history.ending(entry.id, 0);
        return Ok(Unfinished { entry, marker, begin: None, ending, decided: false, refs: Vec::new() });
    };
    let ending = sources.history.ending(entry.id, at);
    if ending == LogOutcome::None
        && let Some(made) = roll_forward::gather(sources, entry.id, at, begin)?
    {
        let roll_forward::Made { begin, decided, refs } = made;
        return Ok(Unfinished { entry, marker, begin: Some(Box::new(begin)), ending, decided, refs });
    }
    let refs = match ending {
        LogOutcome::None => sources.of_refs(entry.id, at, begin)?,
        _ => Vec::new(),
    };
    let begin = Some(Box::new(begin.clone()));
    Ok(Unfinished { entry, marker, begin, ending, decided: false, refs })
}
