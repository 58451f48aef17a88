//! Marker files: one per transaction that is not finished, in `.jin/`.
//!
//! ```text
//!                 the owner's hook                     cleaned up
//!  in_progress ──────────────────────▶ committed ─────────────────▶ (no file)
//!       │        all of it applied         a crash here: the work is done, the cleanup is not
//!       │
//!       └──────────────────────────▶ failed ──────────────────────▶ (no file)
//!          nothing applied / undone      a crash here: undone, the cleanup is not; or a human decides
//! ```
//! A marker appears whole (written aside, then renamed without replacing) and changes its state by one
//! rename. It is a hint that one `readdir` finds; what happened is in the log.

use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use rustix::fs::RawDir;
use serde::{Deserialize, Serialize};

use crate::fs::{FileId, durable, named as fs};
use crate::process::owner::{self, ExecContext, Owner, Process};
use crate::state::directory::SMALL;
use crate::state::{TxId, TxKind};
use crate::util::clock::unix_time;
use crate::util::text::shown;

const PREFIX: &str = ".transaction_";
const TMP_PREFIX: &str = "tmp.";

/// What a marker's file name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Begun; not known to be finished.
    InProgress,
    /// Applied; cleanup, or work of the owner that belongs to it, is pending.
    Committed,
    /// Not done: undone with cleanup pending, or waiting for a human.
    Failed,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::InProgress => "in_progress",
            State::Committed => "committed",
            State::Failed => "failed",
        }
    }
}

/// How far the owner had come when it wrote the marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It announced the transaction and is about to lock (git 2.54 and newer).
    Preparing,
    /// It holds all locks.
    Prepared,
}

/// Tells the calls of one transaction from those of another of the same process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadKey {
    /// CRC-32C of the hook's stdin.
    pub crc: u32,
    /// Its length in bytes.
    pub len: u64,
    /// Its number of lines.
    pub count: u64,
}

/// The content of a marker: one JSON object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// The transaction.
    pub id: TxId,
    /// Who makes it.
    #[serde(default, skip_serializing_if = "TxKind::is_hook")]
    pub origin: TxKind,
    /// Unix time in seconds at which the marker was written.
    pub timestamp: u64,
    /// What the owner was asked to do, e.g. `git rebase --update-refs main`.
    pub operation: String,
    /// Who makes the transaction.
    #[serde(flatten)]
    pub owner: Owner,
    /// The hook or child that works on it; unfinished work is dead only when both are.
    pub hook_process: Process,
    /// How far it had come.
    pub phase: Phase,
    /// What tells its later calls.
    pub payload: PayloadKey,
    /// A lock of this transaction: while it exists unchanged, git has not finished it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<(String, FileId)>,
    /// `index.lock` of the owner's worktree, complete and waiting to be renamed into place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_lock: Option<(String, FileId)>,
    /// The owner has work to do after `committed`: a new name to create, or a reflog to remove.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow_up: bool,
    /// Of a run: the worktree that it may take back, by its git directory below the common one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worktree: Option<String>,
}

/// A marker file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The transaction, as the name says.
    pub id: TxId,
    /// The state, as the name says.
    pub state: State,
    /// The file.
    pub path: PathBuf,
}

/// A marker on its way; its name says who is writing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Temporary {
    /// The pid namespace of the writer.
    pub pidns: u64,
    /// The writer.
    pub writer: Process,
    /// The file.
    pub path: PathBuf,
}

impl Temporary {
    fn parse(name: &str, path: impl FnOnce() -> PathBuf) -> Option<Temporary> {
        let mut words = name.strip_prefix(TMP_PREFIX)?.split('.');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (pidns, pid, start) = (number()?, number()?, number()?);
        Some(Temporary { pidns, writer: Process { pid: u32::try_from(pid).ok()?, start }, path: path() })
    }
}

/// What one `readdir` of the state directory shows.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Markers, oldest transaction first.
    pub markers: Vec<Entry>,
    /// Files that somebody was writing aside, to be renamed into place at once.
    pub temporary: Vec<Temporary>,
    /// The note that this boot has looked after what the one before left.
    pub verified: Option<String>,
    /// Something was recovered that its user has not been told ([`crate::state::told`]).
    pub untold: bool,
}

impl Listing {
    /// Reads the state directory once. One that does not exist has no markers.
    pub(crate) fn read(state_dir: &Path) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let Some(open) = crate::fs::absent_is_none(fs::open_dir(state_dir))? else { return Ok(listing) };
        // Every hook call does this: on the stack, what is nearly always enough to be read at once.
        let mut buffer = [MaybeUninit::uninit(); 2048];
        let mut entries = RawDir::new(open, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = fs::at(state_dir, entry.map_err(io::Error::from))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if let Some((state, id)) = parse_name(name) {
                listing.markers.push(Entry { id, state, path: state_dir.join(name) });
            } else if name.starts_with(crate::state::identity::VERIFIED) {
                listing.verified = Some(name.to_owned());
            } else if crate::state::told::is_one(name) {
                listing.untold = true;
            } else {
                listing.temporary.extend(Temporary::parse(name, || state_dir.join(name)));
            }
        }
        listing.markers.sort_by_key(|entry| (entry.id, entry.state));
        // One that got its next name while the directory was read may show both: from the first the others are found.
        listing.markers.dedup_by_key(|entry| entry.id);
        Ok(listing)
    }
}

/// Of an error of [`Entry::read`]: could the marker not be read, which says nothing about what is in it?
pub(crate) fn is_unreadable(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<io::Error>())
}

fn parse_name(name: &str) -> Option<(State, TxId)> {
    let rest = name.strip_prefix(PREFIX)?;
    [State::InProgress, State::Committed, State::Failed].into_iter().find_map(|state| {
        let id = rest.strip_prefix(state.as_str())?.strip_prefix('.')?;
        Some((state, id.parse().ok()?))
    })
}

fn file_name(state: State, id: TxId) -> String {
    format!("{PREFIX}{}.{id}", state.as_str())
}

impl Entry {
    /// The marker of `id` in `state`.
    #[must_use]
    pub fn new(state_dir: &Path, state: State, id: TxId) -> Entry {
        Entry { id, state, path: state_dir.join(file_name(state, id)) }
    }

    /// Reads the content; `None` when the file is gone.
    ///
    /// # Errors
    /// It cannot be read, or is no marker.
    pub fn read(&self) -> anyhow::Result<Option<Marker>> {
        use anyhow::Context;
        let Some(bytes) = crate::fs::absent_is_none(durable::read_own(&self.path, SMALL))? else {
            return Ok(None);
        };
        let broken = || format!("the marker {} is damaged", shown(&self.path));
        let marker = Marker::decode(&bytes).with_context(broken)?;
        if marker.id != self.id {
            return Err(anyhow::anyhow!("it names {} instead of {}", marker.id, self.id)).with_context(broken);
        }
        Ok(Some(marker))
    }

    /// The marker under the name that it has by now; `None` when it is gone. Who ends a transaction takes its marker away
    /// before it ends itself: asked after a death, this tells what was left behind.
    pub fn now(&self) -> io::Result<Option<Entry>> {
        for entry in self.names() {
            if crate::fs::FileId::at(&entry.path)?.is_some() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// As [`Entry::read`], under the name that it has by now.
    ///
    /// # Errors
    /// As for [`Entry::read`].
    pub fn read_now(&self) -> anyhow::Result<Option<(Entry, Marker)>> {
        for entry in self.names() {
            if let Some(marker) = entry.read()? {
                return Ok(Some((entry, marker)));
            }
        }
        Ok(None)
    }

    /// The names that it may have from now on, in the order in which it gets them.
    fn names(&self) -> impl Iterator<Item = Entry> {
        let later: &[State] = match self.state {
            State::InProgress => &[State::InProgress, State::Committed, State::Failed],
            State::Committed => &[State::Committed],
            State::Failed => &[State::Failed],
        };
        later.iter().map(|state| {
            let path = self.path.with_file_name(file_name(*state, self.id));
            Entry { id: self.id, state: *state, path }
        })
    }

    /// As [`Entry::become_state`], but one that is gone is fine: a hook that outlived its git may settle its transaction at the
    /// same time as recovery, to the same end.
    pub fn settle(&mut self, state: State) -> io::Result<()> {
        crate::fs::absent_is_none(self.become_state(state)).map(|_| ())
    }

    /// Moves the marker into `state`: one rename that replaces nothing.
    pub fn become_state(&mut self, state: State) -> io::Result<()> {
        if self.state == state {
            return Ok(());
        }
        let to = self.path.with_file_name(file_name(state, self.id));
        durable::rename_new_here(&self.path, &to)?;
        self.path = to;
        self.state = state;
        Ok(())
    }

    /// Removes the marker: everything about the transaction is done.
    pub fn remove(self) -> io::Result<()> {
        durable::remove_file_here(&self.path)
    }
}

impl Marker {
    /// The marker of a transaction that this very process makes.
    pub fn of_this_process(id: TxId, origin: TxKind, operation: &str) -> io::Result<Marker> {
        let myself = owner::myself()?;
        Ok(Marker {
            id,
            origin,
            timestamp: unix_time(),
            operation: operation.to_owned(),
            owner: Owner { process: myself, place: ExecContext::here()? },
            hook_process: myself,
            phase: Phase::Prepared,
            payload: PayloadKey { crc: 0, len: 0, count: 0 },
            probe: None,
            index_lock: None,
            follow_up: false,
            worktree: None,
        })
    }

    /// Publishes the marker as in progress; fails when there is one of that id.
    pub fn create(&self, state_dir: &Path) -> anyhow::Result<Entry> {
        let entry = Entry::new(state_dir, State::InProgress, self.id);
        durable::publish_new(state_dir, &self.tmp_name(), &file_name(entry.state, self.id), &self.encode()?)?;
        Ok(entry)
    }

    /// Publishes the next phase of a marker that this owner published before.
    pub fn update(&self, state_dir: &Path) -> anyhow::Result<Entry> {
        let entry = Entry::new(state_dir, State::InProgress, self.id);
        durable::publish(state_dir, &self.tmp_name(), &file_name(entry.state, self.id), &self.encode()?)?;
        Ok(entry)
    }

    /// A name under which its hook process writes a file aside. Recovery knows it, and removes what the dead have left.
    pub(crate) fn tmp_name(&self) -> String {
        let Process { pid, start } = self.hook_process;
        format!("{TMP_PREFIX}{}.{pid}.{start}.{}", self.owner.place.pidns, self.id)
    }

    /// Reads what [`Marker::encode`] wrote.
    ///
    /// # Errors
    /// It is no marker.
    pub fn decode(bytes: &[u8]) -> serde_json::Result<Marker> {
        serde_json::from_slice(bytes)
    }

    /// The content of a marker file.
    ///
    /// # Errors
    /// Encoding fails only when memory does.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_state_and_id_and_nothing_else_is_a_marker() {
        for state in [State::InProgress, State::Committed, State::Failed] {
            assert_eq!(parse_name(&file_name(state, TxId(7))), Some((state, TxId(7))));
        }
        for other in
            [".transaction_", ".transaction_in_progress", ".transaction_in_progress.x", ".transaction_odd.tx-1", "wal"]
        {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_marker_that_shows_two_names_is_one() {
        let directory = tempfile::tempdir().unwrap();
        for state in [State::Committed, State::InProgress] {
            std::fs::write(directory.path().join(file_name(state, TxId(7))), "").unwrap();
        }
        let listing = Listing::read(directory.path()).unwrap();
        let found: Vec<_> = listing.markers.iter().map(|entry| (entry.id, entry.state)).collect();
        assert_eq!(found, [(TxId(7), State::InProgress)], "the others are found from there");
    }
}
