//! A damaged or lost log does not stay: it is set aside, told once, and begun anew, by commands that a person has called for that.
//!
//! Not while a transaction is unfinished, which may need what is readable: a person closes it first. Nor before this boot has
//! verified what the one before left. What is lost with the log is `undo` of what it had; no ref depends on it any more, since
//! everything is durable before the new log says so.

use crate::git::Repository;
use crate::process::owner;
use crate::recovery::report::Report;
use crate::recovery::site::{Options, PATIENCE};
use crate::recovery::{copied, history, power_cut, recover};
use crate::state::marker::Listing;
use crate::state::{StateDir, Wait};
use crate::util::text::shown;
use crate::wal::{Body, Flush, Log};

/// Recovers, and ends the damage of the log.
pub(crate) fn recover_with_log(repo: &Repository, options: &Options) -> anyhow::Result<Report> {
    let state = StateDir::of(repo);
    if options.dry_run || !state.exists() {
        return recover(repo, options);
    }
    let boot = owner::boot_id()?;
    let log = Log::new(&state, &boot, Wait::UpTo(PATIENCE));
    // Of a copy all is set aside, its log as well.
    let lost = if copied::is_copied(&state, &Listing::read(state.path())?)? {
        None
    } else {
        state.create_missing([state.wal()])?;
        state.while_recovering(options.wait, || log.make_appendable())?
    };
    let mut report = recover(repo, options)?;
    report.damage.extend(lost);
    state.while_recovering(options.wait, || renew(&state, &log, &mut report))?;
    Ok(report)
}

fn renew(state: &StateDir, log: &Log<'_>, report: &mut Report) -> anyhow::Result<()> {
    let damage = history::describe_damage(&log.scan()?);
    if damage.is_empty() {
        return Ok(());
    }
    let is_new = |line: &String| !report.damage.contains(line);
    let untold: Vec<String> = damage.into_iter().filter(is_new).collect();
    report.damage.extend(untold);
    if !power_cut::is_verified(&Listing::read(state.path())?, state)? {
        return Ok(());
    }
    let Some(aside) = log.set_aside()? else { return Ok(()) };
    let line =
        format!("the damaged log is in {}, and a new one has begun: what was before cannot be undone", shown(&aside));
    log.append(None, &Body::Baseline { as_of: 0, actions: vec![line.clone()], refs: Vec::new() }, Flush::Yes)?;
    report.notes.push(line);
    Ok(())
}
