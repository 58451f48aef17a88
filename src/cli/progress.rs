//! One line on the terminal while the first look after a reboot takes long: it reads every ref that the log names.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::git::Repository;
use crate::recovery;
use crate::state::StateDir;
use crate::state::marker::Listing;

/// Nobody wonders before that.
const LONG: Duration = Duration::from_secs(1);

const LINE: &str = "jin-txn: looking after what the last boot left ...";

/// The cursor to the first column, and the line away.
const CLEAR: &str = "\r\x1b[K";

/// Does `work`, which recovers or looks, with the line when it is `wanted`, due and somebody sees it.
pub(super) fn while_recovering<T>(wanted: bool, repo: &Repository, work: impl FnOnce() -> T) -> T {
    if !wanted || !std::io::stderr().is_terminal() || !is_first_look(repo) {
        return work();
    }
    std::thread::scope(|scope| {
        let (working, ended) = mpsc::channel::<()>();
        scope.spawn(move || {
            if ended.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
                show(LINE);
                // Nothing is ever sent: the other end goes when the work is done, or panics.
                ended.recv().unwrap_or(());
                show(CLEAR);
            }
        });
        let result = work();
        drop(working);
        result
    })
}

fn is_first_look(repo: &Repository) -> bool {
    let state = StateDir::of(repo);
    let listing = Listing::read(state.path());
    listing.is_ok_and(|listing| recovery::is_verified(&listing, &state).is_ok_and(|verified| !verified))
}

fn show(text: &str) {
    let mut stderr = std::io::stderr().lock();
    if stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).is_err() {
        // A terminal that is gone shows nothing, and recovery goes on.
    }
}
