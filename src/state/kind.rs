//! The kinds of transactions.

use serde::{Deserialize, Serialize};

/// Who makes a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TxKind {
    /// Stock git, watched by us.
    #[default]
    Hook,
    /// `jin-txn apply` and the library: declared refs and files.
    Apply,
    /// `jin-txn run`: whatever a command does.
    Run,
}

impl TxKind {
    /// For serde: the usual one is not written down.
    #[must_use]
    pub fn is_hook(&self) -> bool {
        *self == TxKind::Hook
    }
}
