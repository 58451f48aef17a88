//! What a list of actions has come to.

use crate::git::update_refs::RefWrite;
use crate::git::{RefName, Value};
use crate::recovery::power_cut::repair::{Repair, short};
use crate::wal::{Lsn, Outcome};

/// How the writing of refs is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// They are back.
    Back,
    /// They are now at their new value.
    Now,
    /// The names of a rename.
    Renamed,
}

/// What a list of actions has come to.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// A line for each thing done.
    pub(crate) lines: Vec<String>,
    /// The refs that were given another value.
    pub(crate) refs_moved: Vec<RefName>,
    /// A person has to look although all went well: something of another writer was left alone.
    pub(crate) left_some: bool,
    /// What could not be restored, and why it never will be without a person.
    pub(crate) unrestored: Vec<String>,
    /// Nothing was done: it was not there any more, or another process has been at work.
    pub(crate) is_void: bool,
    /// What could not be restored, or not yet.
    pub(crate) losses: Vec<String>,
    /// What is in the way.
    pub(crate) busy: Vec<String>,
    /// The refs that were repaired after a power cut.
    pub(crate) repaired: Vec<Repair>,
    /// The last record, and what it says.
    pub(crate) recorded: Option<(Lsn, Outcome)>,
}

impl Progress {
    /// Refs were, or would be, written.
    pub(crate) fn wrote(&mut self, writes: &[RefWrite], verb: Verb) {
        self.lines.extend(writes.iter().map(|w| match verb {
            Verb::Back => format!("{} is back at {}", w.name, short(&w.to)),
            Verb::Now => format!("{} is now {}", w.name, now_at(&w.to)),
            Verb::Renamed => format!("{} is back", w.name),
        }));
        self.refs_moved.extend(writes.iter().map(|w| w.name.clone()));
    }
}

fn now_at(value: &Value) -> String {
    match value {
        Value::Oid(oid) => format!("at {}", &oid.hex()[..10]),
        Value::Absent => "deleted".to_owned(),
        other => other.to_string(),
    }
}
