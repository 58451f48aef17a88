//! One call of the `reference-transaction` or the `pre-receive` hook, with what every state needs.

use std::cell::OnceCell;

use crate::git::Repository;
use crate::hook::Environment;
use crate::observe::payload::Payload;
use crate::process::caller;
use crate::process::operation::{self, Root};
use crate::process::owner::{self, ExecContext, Owner, Process, Stat};
use crate::state::marker::{Listing, Marker, Phase};
use crate::state::{StateDir, TxId, TxKind, Wait};
use crate::util::clock::unix_time;
use crate::wal::Log;

/// Why git calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The `pre-receive` hook: objects of a push are in quarantine, no transaction has been started.
    Receiving,
    /// git is about to lock (2.54 and newer).
    Preparing,
    /// git holds all locks and has changed nothing.
    Prepared,
    /// git has changed the refs.
    Committed,
    /// git gave up and released its locks.
    Aborted,
}

impl Event {
    /// By git's argument of the `reference-transaction` hook.
    pub(super) fn of_state(state: &str) -> Option<Event> {
        match state {
            "preparing" => Some(Event::Preparing),
            "prepared" => Some(Event::Prepared),
            "committed" => Some(Event::Committed),
            "aborted" => Some(Event::Aborted),
            _ => None,
        }
    }

    /// Does git ask whether it may go on?
    pub(super) fn can_veto(self) -> bool {
        matches!(self, Event::Receiving | Event::Preparing | Event::Prepared)
    }
}

/// No process could be found on whose behalf we run.
#[derive(Debug, thiserror::Error)]
#[error("no process above this hook can have called it")]
pub(super) struct NoCaller;

pub(super) struct Call<'c> {
    pub(super) event: Event,
    pub(super) environment: &'c Environment,
    pub(super) repo: Repository,
    pub(super) state: StateDir,
    pub(super) payload: Payload<'c>,
    pub(super) listing: Listing,
    /// Looked for when it is asked for.
    pub(super) git: OnceCell<Git>,
}

/// The git process that called us.
pub(super) struct Git {
    pub(super) stat: Stat,
    pub(super) argv: Vec<String>,
}

impl Call<'_> {
    pub(super) fn log<'s>(&'s self, place: &ExecContext) -> Log<'s> {
        Log::new(&self.state, &place.boot, Wait::AsConfigured)
    }

    /// git, on whose behalf we run.
    ///
    /// # Errors
    /// [`NoCaller`] for an orphan: git was killed, and nobody waits for the answer.
    pub(super) fn git(&self) -> anyhow::Result<&Git> {
        if let Some(git) = self.git.get() {
            return Ok(git);
        }
        let (stat, argv) = caller::of_hook()?.ok_or(NoCaller)?;
        Ok(self.git.get_or_init(|| Git { stat, argv }))
    }

    /// The root of the operation, where that is another git than ours. Who pushes works elsewhere.
    pub(super) fn root(&self) -> anyhow::Result<Option<Root>> {
        if self.environment.nested && !self.git()?.receives() {
            return Ok(operation::root_above(&self.git()?.stat)?);
        }
        Ok(None)
    }

    /// A marker for this transaction.
    pub(super) fn marker(&self, id: TxId, place: ExecContext, phase: Phase) -> anyhow::Result<Marker> {
        let git = self.git()?;
        Ok(Marker {
            id,
            origin: TxKind::Hook,
            timestamp: unix_time(),
            operation: self.environment.reverses.map_or_else(|| git.operation(), |what| format!("jin-txn {what}")),
            owner: Owner { process: git.process(), place },
            hook_process: owner::myself()?,
            phase,
            payload: self.payload.key,
            probe: None,
            index_lock: None,
            follow_up: false,
            worktree: None,
        })
    }
}

impl Git {
    pub(super) fn process(&self) -> Process {
        self.stat.process()
    }

    /// When it was started, in nanoseconds since the epoch: what was last changed before is not of its making.
    pub(super) fn started_at(&self) -> i64 {
        owner::realtime_of_start(self.stat.start) - crate::locks::holders::CLOCK_MARGIN
    }

    /// Does it take a push?
    pub(super) fn receives(&self) -> bool {
        self.argv.iter().take(2).any(|word| word.ends_with("receive-pack"))
    }

    /// What it was asked to do, fit to be shown.
    fn operation(&self) -> String {
        operation::command_line(&self.argv, &self.stat.comm)
    }
}
