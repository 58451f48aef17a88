//! What a rescue is doing right now, for somebody who waits.

use std::sync::{Arc, Mutex};

/// The stage, shared with who shows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stage(Arc<Mutex<String>>);

impl Stage {
    /// This begins.
    pub(crate) fn begin(&self, what: impl Into<String>) {
        if let Ok(mut now) = self.0.lock() {
            *now = what.into();
        }
    }

    /// What is being done.
    pub(crate) fn now(&self) -> String {
        self.0.lock().map(|now| now.clone()).unwrap_or_default()
    }
}
