//! Whose work is unfinished: markers of transactions and runs on which nobody works any more.
//!
//! A marker is read under the name that it has by the time its owner is found dead: whoever ends well takes it away
//! first. Its record, which has a checksum, is asked as well; where the two name different processes neither is believed.
//! What cannot be read says nothing, and stops recovery instead of passing for dead.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::process::credentials::Location;
use crate::process::owner::{ExecContext, Liveness, Owner, Process};
use crate::recovery::credible::could_make_it;
use crate::recovery::history::{History, reaches_checkpoint};
use crate::recovery::report::{Report, busy};
use crate::recovery::site::{Mode, Site};
use crate::run::mark;
use crate::state::marker::{self, Entry, Listing, Marker, Phase, Temporary};
use crate::state::{StateDir, TxId, TxKind, Wait};
use crate::util::text::shown;
use crate::wal::{Begin, Log, Scan};

/// Markers of the dead.
pub(crate) struct Dead {
    /// Of transactions; without content where it is damaged.
    pub(crate) transactions: Vec<DeadMarker>,
    /// Of runs.
    pub(crate) runs: Vec<Entry>,
    /// The others: who makes their transactions.
    pub(crate) living: Vec<Owner>,
}

/// The marker of a dead transaction.
#[derive(Debug)]
pub(crate) struct DeadMarker {
    /// The file.
    pub(crate) entry: Entry,
    /// The content; `None` when it is damaged.
    pub(crate) marker: Option<Marker>,
}

/// Is anybody still working on the transaction of `marker`?
pub(crate) fn liveness_of(marker: &Marker, here: &ExecContext, state: &StateDir) -> Liveness {
    let location = Location::of(state.path());
    let of = |process: Process| marker.owner.liveness(process, here, &location);
    let liveness = of(marker.owner.process).and(of(marker.hook_process));
    if marker.origin != TxKind::Run || marker.owner.place.boot != here.boot {
        return liveness;
    }
    of_run(state, marker.id, liveness)
}

/// A run is alive while anybody of its tree is. What cannot be asked counts as alive.
fn of_run(state: &StateDir, id: TxId, owner: Liveness) -> Liveness {
    crate::run::liveness(state, id, owner).unwrap_or(Liveness::Unknowable)
}

/// Did the writer of a marker die before it could rename it into place?
pub(crate) fn is_abandoned(temporary: &Temporary, here: &ExecContext, state: &StateDir) -> bool {
    // The name does not say which machine it was, nor which boot.
    let location = Location::of(state.path());
    if !location.local_disk {
        return false;
    }
    let place = ExecContext { pidns: temporary.pidns, ..here.clone() };
    let writer = Owner { process: temporary.writer, place };
    writer.liveness(temporary.writer, here, &location) == Liveness::Dead
}

/// Markers that nobody works on any more. The others are reported.
pub(crate) fn find_dead(
    site: &Site<'_>,
    listing: &Listing,
    here: &ExecContext,
    report: &mut Report,
) -> anyhow::Result<Dead> {
    let mut dead = Dead { transactions: Vec::new(), runs: Vec::new(), living: Vec::new() };
    for entry in &listing.markers {
        let (entry, marker) = match entry.read_now() {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            // Of what cannot be read nothing is known: not even whether a run waits behind it.
            Err(error) if marker::is_unreadable(&error) => return Err(error),
            Err(error) => {
                report.notes.push(format!("{error:#}"));
                dead.transactions.push(DeadMarker { entry: entry.clone(), marker: None });
                continue;
            }
        };
        if marker.origin == TxKind::Run {
            // Only our own commands restore files, never a hook under the hands of its git.
            if site.options.mode == Mode::Command && run_is_dead(site, &marker, here, report) {
                dead.runs.push(entry);
            }
            continue;
        }
        let Some((entry, marker, liveness)) = judge(site, entry, marker, here)? else { continue };
        let claim = Claim::of(&marker);
        if site.counts_as_dead(&claim, liveness, here) {
            dead.transactions.push(DeadMarker { entry, marker: Some(marker) });
        } else {
            report.busy.push(claim.told(site, liveness, here));
            dead.living.extend(Some(marker.owner).filter(|_| marker.origin == TxKind::Hook));
        }
    }
    Ok(dead)
}

/// Who makes a transaction, as its marker or its record says.
struct Claim<'m> {
    id: TxId,
    origin: TxKind,
    operation: &'m str,
    owner: &'m Owner,
    hook_process: Process,
}

impl<'m> Claim<'m> {
    fn of(marker: &'m Marker) -> Claim<'m> {
        let Marker { id, origin, operation, owner, hook_process, .. } = marker;
        Claim { id: *id, origin: *origin, operation, owner, hook_process: *hook_process }
    }

    /// It is said of a process that lives and does something else.
    fn is_incredible(&self, site: &Site<'_>, liveness: Liveness, here: &ExecContext) -> bool {
        liveness == Liveness::Alive
            && !could_make_it(site.repo, self.origin, self.owner, self.hook_process, here)
            // The command of a run may be anything.
            && (self.origin != TxKind::Run || of_run(site.state, self.id, Liveness::Dead) == Liveness::Dead)
    }

    fn told(&self, site: &Site<'_>, liveness: Liveness, here: &ExecContext) -> String {
        if self.is_incredible(site, liveness, here) {
            let (id, operation, pid) = (self.id, self.operation, self.owner.process.pid);
            return format!(
                "{id} (`{operation}`) names pid {pid}, which is another program now: `git txn recover --force` ends the transaction"
            );
        }
        busy(self.id, self.operation, self.owner, liveness)
    }
}

impl Site<'_> {
    /// A person may vouch that who cannot be seen, or does something else, is dead, and this process for its own transaction.
    fn counts_as_dead(&self, claim: &Claim<'_>, liveness: Liveness, here: &ExecContext) -> bool {
        self.options.own == Some(claim.id)
            || liveness == Liveness::Dead
            || (self.options.force && (liveness == Liveness::Unknowable || claim.is_incredible(self, liveness, here)))
    }
}

/// Does somebody work on it? It may be another marker by the time that its owner is found dead: then that one is judged.
/// `None` when it has ended well since the markers were listed: nothing is left of it.
fn judge(
    site: &Site<'_>,
    mut entry: Entry,
    mut marker: Marker,
    here: &ExecContext,
) -> anyhow::Result<Option<(Entry, Marker, Liveness)>> {
    loop {
        let is_own = site.options.own == Some(entry.id);
        let liveness = if is_own { Liveness::Dead } else { wait_for_orphan(site, &marker, here) };
        if liveness != Liveness::Dead {
            return Ok(Some((entry, marker, liveness)));
        }
        match entry.read_now()? {
            None => return Ok(None),
            Some((now, last)) if last == marker => return Ok(Some((now, last, liveness))),
            Some(later) => (entry, marker) = later,
        }
    }
}

/// A hook that outlived its git is done in a moment: a command waits for it.
fn wait_for_orphan(site: &Site<'_>, marker: &Marker, here: &ExecContext) -> Liveness {
    let location = Location::of(site.state.path());
    let start = Instant::now();
    loop {
        let liveness = liveness_of(marker, here, site.state);
        let owner = marker.owner.liveness(marker.owner.process, here, &location);
        let Wait::UpTo(limit) = site.options.wait else { return liveness };
        if liveness != Liveness::Alive || owner != Liveness::Dead || start.elapsed() > limit {
            return liveness;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A marker has no checksum. The record of its transaction has one, and says who makes it and what it is.
pub(crate) fn ask_records(
    site: &Site<'_>,
    dead: &mut Dead,
    history: &History<'_>,
    here: &ExecContext,
    report: &mut Report,
) {
    let location = Location::of(site.state.path());
    for found in std::mem::take(&mut dead.transactions) {
        let id = found.entry.id;
        let begin = history.begin(id).map(|(_, begin)| begin);
        let Some(begin) = begin.filter(|_| site.options.own != Some(id)) else {
            dead.transactions.push(found);
            continue;
        };
        if found.marker.as_ref().is_some_and(|marker| !names_owner_of(marker, begin)) {
            report.damage.push(format!("{} and its record name different processes", shown(&found.entry.path)));
            dead.transactions.push(found);
            continue;
        }
        let of = |process: Process| begin.owner.liveness(process, here, &location);
        let mut liveness = of(begin.owner.process).and(of(begin.hook_process));
        if begin.origin == TxKind::Run {
            liveness = of_run(site.state, id, liveness);
        }
        let Begin { origin, operation, owner, hook_process, .. } = begin;
        let claim = Claim { id, origin: *origin, operation, owner, hook_process: *hook_process };
        if !site.counts_as_dead(&claim, liveness, here) {
            report.busy.push(claim.told(site, liveness, here));
        } else if begin.origin != TxKind::Run {
            dead.transactions.push(found);
        } else if site.options.mode == Mode::Command {
            dead.runs.push(found.entry);
        }
    }
}

/// The part of the log that speaks of the dead. A marker is written before its record, so segments that ended long before
/// the oldest marker cannot.
pub(crate) fn read_log(log: &Log<'_>, dead: &[DeadMarker], needs_boot_check: bool) -> anyhow::Result<Scan> {
    const CLOCK_MARGIN: u64 = 3600;
    let logged = |m: &Option<Marker>| m.as_ref().is_none_or(|m| m.phase == Phase::Prepared);
    let wanted: Vec<_> = dead.iter().filter(|found| logged(&found.marker)).collect();
    if wanted.is_empty() && !needs_boot_check {
        return Ok(Scan::default());
    }
    // What the marker says, and what the file says: neither alone is believed.
    let written = |found: &&DeadMarker| {
        let modified = std::fs::symlink_metadata(&found.entry.path).map_or(0, |m| m.mtime());
        found.marker.as_ref().map_or(0, |m| m.timestamp.min(u64::try_from(modified).unwrap_or(0)))
    };
    let oldest = wanted.iter().map(written).min().unwrap_or(0);
    log.scan_until(|records| {
        let found = |entry: &Entry| History::new(records).begin(entry.id).is_some();
        let old_enough = records.first().is_some_and(|r| r.time + CLOCK_MARGIN < oldest);
        let far_enough = !needs_boot_check || reaches_checkpoint(records);
        far_enough && (old_enough || wanted.iter().all(|dead| found(&dead.entry)))
    })
}

/// Is the process that the marker names the one that the record names?
pub(crate) fn names_owner_of(marker: &Marker, begin: &Begin) -> bool {
    let who = |owner: &Owner| (owner.process, owner.place.boot.clone(), owner.place.pidns);
    who(&marker.owner) == who(&begin.owner)
}

/// Is nobody of the run left?
fn run_is_dead(site: &Site<'_>, marker: &Marker, here: &ExecContext, report: &mut Report) -> bool {
    if site.options.own == Some(marker.id) {
        return true;
    }
    let (claim, liveness) = (Claim::of(marker), liveness_of(marker, here, site.state));
    let is_left = runner_is_dead(site, marker, here);
    // Whoever names it has looked at what it left running.
    if site.counts_as_dead(&claim, liveness, here) || (is_left && site.options.take_back == Some(marker.id)) {
        return true;
    }
    let line = run_at_work(site, marker, claim.told(site, liveness, here));
    report.busy.push(if is_left { format!("{line}; {}", way_out(marker.id)) } else { line });
    false
}

fn runner_is_dead(site: &Site<'_>, marker: &Marker, here: &ExecContext) -> bool {
    let location = Location::of(site.state.path());
    let of = |process: Process| marker.owner.liveness(process, here, &location);
    of(marker.owner.process).and(of(marker.hook_process)) == Liveness::Dead
}

/// What a person can do about a run that has left something running for ever.
pub(crate) fn way_out(id: TxId) -> String {
    format!(
        "end what it left running, or, if that writes nothing here, take it back with `git txn recover --take-back {id}` or \
         leave all as it is with `--acknowledge {id}`"
    )
}

fn run_at_work(site: &Site<'_>, marker: &Marker, line: String) -> String {
    const SHOWN: usize = 3;
    let Ok(mark) = mark::Mark::of(site.state, marker.id) else { return line };
    let Ok(members) = mark::members(site.state, mark, Some(marker.owner.process)) else { return line };
    let names: Vec<String> = members.iter().take(SHOWN).map(ToString::to_string).collect();
    if names.is_empty() { line } else { format!("{line}: {}", names.join(", ")) }
}
