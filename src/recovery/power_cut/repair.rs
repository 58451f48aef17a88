//! A ref that a power cut took back, and what it becomes.

use crate::git::refs::ResolvedRef;
use crate::git::{RefName, Value};
use crate::state::TxId;

/// A ref that was, or is to be, written.
#[derive(Debug)]
pub(crate) struct Repair {
    pub(crate) name: RefName,
    pub(crate) now: ResolvedRef,
    pub(crate) to: Value,
    /// The transaction that was acknowledged with that value.
    pub(crate) tx: Option<TxId>,
    /// It goes back, not forward: that is told as a loss.
    pub(crate) is_loss: bool,
}

impl Repair {
    /// The line about it; a loss is told otherwise.
    pub(crate) fn told(&self) -> Option<String> {
        let Repair { name, now, to, tx, is_loss } = self;
        let tx = tx.map_or_else(String::new, |tx| format!(" ({tx})"));
        let now = &now.value;
        let told = match (to, now) {
            (Value::Absent, now) => {
                format!("{name} is deleted again{tx}; the power cut had brought it back at {}", short(now))
            }
            (to, Value::Absent) => format!("{name} is {} again{tx}; the power cut had taken it away", short(to)),
            (to, Value::Broken) => {
                format!("{name} is {} again{tx}; the power cut had corrupted it", short(to))
            }
            (to, now) => {
                format!("{name} is {} again{tx}; the power cut had taken it back to {}", short(to), short(now))
            }
        };
        (!is_loss).then_some(told)
    }
}

/// A value, shortened.
pub(crate) fn short(value: &Value) -> String {
    value.oid().map_or_else(|| value.to_string(), |oid| oid.hex()[..10].to_owned())
}
