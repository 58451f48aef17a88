//! What a rescue is doing right now, for somebody who waits.

use std::sync::{Arc, Mutex};

/// The stage, shared with who shows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stage(Arc<Mutex<Now>>);

#[derive(Debug, Default)]
struct Now {
    what: String,
    /// Steps that are done, of how many; 0 of 0 where nobody knows.
    steps: (usize, usize),
}

impl Stage {
    /// This begins; nobody knows how long it takes.
    pub(crate) fn begin(&self, what: impl Into<String>) {
        self.begin_steps(what, 0);
    }

    /// This begins, in so many steps.
    pub(crate) fn begin_steps(&self, what: impl Into<String>, count: usize) {
        if let Ok(mut now) = self.0.lock() {
            *now = Now { what: what.into(), steps: (0, count) };
        }
    }

    /// One step is done.
    pub(crate) fn step(&self) {
        if let Ok(mut now) = self.0.lock() {
            now.steps.0 += 1;
        }
    }

    /// What is being done, and how much of it is done.
    pub(crate) fn now(&self) -> String {
        let Ok(now) = self.0.lock() else { return String::new() };
        match now.steps {
            (_, 0) => format!("{} ...", now.what),
            (done, count) => format!("{} ... {}%", now.what, done.min(count) * 100 / count),
        }
    }
}
