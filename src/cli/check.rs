//! `jin-txn check`

use super::{Session, exit_code};
use crate::recovery;

/// Look for interrupted transactions and stale locks, and change nothing
///
/// Exit code: 0 clean; 3 something was interrupted and waits for recovery; 4 a human has to decide; 5 a live (or
/// unknowable) transaction or lock is in the way.
#[derive(clap::Args)]
pub struct Args {}

pub(super) fn run(session: &Session, _args: &Args) -> anyhow::Result<u8> {
    let repo = session.repository()?;
    let report = recovery::check(&repo, &session.recovery_options()?)?;
    if session.json {
        session.print_json(&super::status::Described::new(&report, exit_code(&report)))?;
    } else {
        for problem in super::install::problems(&repo)? {
            session.say(&format!("jin-txn: not protected: {problem}"));
        }
        for line in super::status::describe(&report) {
            session.print(&line);
        }
    }
    Ok(exit_code(&report))
}
