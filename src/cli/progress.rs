//! One line on the terminal while something takes long: the first look after a reboot, which reads every ref that the log names, and a
//! rescue, which reads every object. It moves while the work goes on, and nothing of it is left in the end. A terminal that cannot
//! move its cursor (`TERM=dumb`) shows none.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::git::Repository;
use crate::recovery;
use crate::state::StateDir;
use crate::state::marker::Listing;

/// Nobody wonders before that.
const LONG: Duration = Duration::from_secs(1);

/// So often a line is written anew.
const STEP: Duration = Duration::from_millis(200);

const LINE: &str = "jin-txn: looking after what the last boot left ...";

/// The cursor to the first column, and the line away.
const CLEAR: &str = "\r\x1b[K";

/// Text that is cut at the edge: on two lines the first one would stay.
const UNWRAPPED: [&str; 2] = ["\x1b[?7l", "\x1b[?7h"];

/// What turns at the end of the line.
const WHEEL: [char; 4] = ['|', '/', '-', '\\'];

/// Does `work`, which recovers or looks, with the line when it is `wanted`, due and somebody sees it.
pub(super) fn while_recovering<T>(wanted: bool, repo: &Repository, work: impl FnOnce() -> T) -> T {
    while_working(wanted && is_seen() && is_first_look(repo), || LINE.to_owned(), work)
}

/// Does `work`, with the line as it is right then, when it is `wanted`, due and somebody sees it.
pub(super) fn while_working<T>(wanted: bool, line: impl Fn() -> String + Send, work: impl FnOnce() -> T) -> T {
    if !wanted || !is_seen() {
        return work();
    }
    std::thread::scope(|scope| {
        let (working, ended) = mpsc::channel::<()>();
        scope.spawn(move || {
            // Nothing is ever sent: the other end goes when the work is done, or panics.
            let is_due = |after| ended.recv_timeout(after) == Err(RecvTimeoutError::Timeout);
            if !is_due(LONG) {
                return;
            }
            let [on, off] = UNWRAPPED;
            for spoke in WHEEL.into_iter().cycle() {
                show(&format!("{CLEAR}{on}{} {spoke}{off}", line()));
                if !is_due(STEP) {
                    break;
                }
            }
            show(CLEAR);
        });
        let result = work();
        drop(working);
        result
    })
}

/// Is there a terminal that shows it?
fn is_seen() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
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
