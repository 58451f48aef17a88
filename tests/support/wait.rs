//! Waiting for what another process does, where it cannot say so itself through a pipe or a FIFO.

use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until `holds` says so.
///
/// # Panics
/// When that takes too long.
#[track_caller]
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    assert!(comes_true(holds), "it takes too long until {what}");
}

/// Asks again and again until `holds` says so; false when it takes too long.
pub fn comes_true(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}
