//! The `post-checkout` hook: everything is in place; look after what is unfinished and log the checkout.
//!
//! Its exit status would become the checkout's, so it is always 0.

use crate::git::RefStore;
use crate::hook::{Environment, Reply};
use crate::process::owner;
use crate::process::owner::{ExecContext, Liveness};
use crate::recovery;
use crate::recovery::{Mode, Options};
use crate::run::mark;
use crate::state::TxKind;
use crate::state::directory::{StateDir, Wait};
use crate::state::marker::{Listing, State};
use crate::wal::{Body, Checkout, Flush, Log};

/// Runs the hook with git's arguments: previous HEAD, new HEAD, `1` for a branch checkout.
#[must_use]
pub fn run(args: &[String], environment: &Environment) -> Reply {
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
    let place = ExecContext::here()?;
    if let [from, to, flag] = args {
        let body = Body::Checkout(Checkout {
            from: from.clone(),
            to: to.clone(),
            branch: flag == "1",
            head: RefStore::new(&repo).head()?,
            part_of: environment.runs.as_deref().and_then(|runs| mark::named_in(runs, &state)),
        });
        // Nothing acknowledged depends on this record: no sync.
        Log::new(&state, &place.boot, Wait::UpTo(std::time::Duration::from_secs(10))).append(None, &body, Flush::No)?;
    }
    let git = owner::nearest_git()?.map(|(stat, _)| stat.process());
    let listing = Listing::read(state.path())?;
    let mut unfinished = !recovery::is_verified(&listing, &state)?;
    for entry in listing.markers {
        match entry.read_now() {
            Ok(Some((entry, marker))) => {
                let mine = git.is_some_and(|git| git == marker.owner.process);
                // A run is not a hook's to take back, and whether it lives takes a look at every process.
                let is_ours = marker.origin != TxKind::Run && entry.state != State::Failed;
                let dead = || recovery::liveness_of(&marker, &place, &state) == Liveness::Dead;
                unfinished |= !mine && is_ours && dead();
            }
            Ok(None) => {}
            Err(_) => unfinished = true,
        }
    }
    if !unfinished || environment.quarantined {
        return Ok(Vec::new());
    }
    let options = Options {
        mode: Mode::AfterTransaction,
        objects_elsewhere: environment.objects_elsewhere,
        ..Options::new(environment.git_program.clone())
    };
    match recovery::recover(&repo, &options) {
        Ok(report) => Ok(report.headlines()),
        Err(error) if error.is::<crate::state::directory::Busy>() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
