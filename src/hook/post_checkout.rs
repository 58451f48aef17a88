//! The `post-checkout` hook: everything is in place; look after what is unfinished and log the checkout.
//!
//! Its exit status would become the checkout's, so it is always 0.

use std::time::Duration;

use crate::git::RefStore;
use crate::hook::unmoved::doer;
use crate::hook::{Environment, Reply, markers, recover};
use crate::process::caller;
use crate::process::operation;
use crate::process::owner::ExecContext;
use crate::run::mark;
use crate::state::marker::Listing;
use crate::state::{StateDir, Wait, kept};
use crate::wal::{Body, Checkout, Flush, Log};

/// Runs the hook with git's arguments: previous HEAD, new HEAD, `1` for a branch checkout.
pub(super) fn run(args: &[String], environment: &Environment) -> Reply {
    match handle(args, environment) {
        Ok(messages) => Reply::go_saying(messages),
        Err(error) => Reply::go_saying(vec![format!("jin-txn: warning: {error:#}")]),
    }
}

fn handle(args: &[String], environment: &Environment) -> anyhow::Result<Vec<String>> {
    let repo = environment.repository()?;
    let state = StateDir::of(&repo);
    if !state.exists() {
        return Ok(Vec::new());
    }
    let mut told = Vec::new();
    if !state.is_known_by(Listing::read(state.path())?.verified.as_deref())? {
        told = recover::set_copy_aside(&repo, environment)?;
    }
    let place = ExecContext::here()?;
    let git = caller::of_hook()?;
    if let [from, to, flag] = args {
        let log = Log::new(&state, &place.boot, Wait::UpTo(Duration::from_secs(10)));
        let by = match &git {
            Some((stat, argv)) => {
                let root = if environment.nested { operation::root_above(stat)? } else { None };
                Some(doer(&log, &repo, (stat, argv), root, place.clone())?)
            }
            None => None,
        };
        let body = Body::Checkout(Checkout {
            from: from.clone(),
            to: to.clone(),
            branch: flag == "1",
            head: RefStore::new(&repo).head()?,
            part_of: environment.runs.as_deref().and_then(|runs| mark::named_in(runs, &state)),
            by: by.map(Box::new),
        });
        // Before the record: an operation that has ended left this index, whenever we are killed.
        kept::renew_standing(&repo, &state, None)?;
        // Nothing acknowledged depends on this record: no sync.
        log.append(None, &body, Flush::No)?;
    }
    let git = git.map(|(stat, _)| stat.process());
    let listing = Listing::read(state.path())?;
    let unfinished = !recover::is_verified(&listing, &state)? || markers::any_dead(&listing, git, &place, &state);
    if unfinished && !environment.quarantined {
        told.extend(recover::after_checkout(&repo, environment)?);
    }
    Ok(told)
}
