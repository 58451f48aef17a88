//! `jin-txn wal`

use serde::Serialize;

use crate::cli::{Session, exit};
use crate::process::owner;
use crate::state::{StateDir, Wait};
use crate::util::text::counted;
use crate::wal::{Log, Scan};

/// Look at the write-ahead log itself: is it whole, what is in it
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read all of the log: is each record whole, and none missing, doubled or moved?
    ///
    /// Changes nothing. Exit code: 0 it is whole, 4 it is damaged.
    Verify,
    /// Print every record that is whole, one JSON object a line
    ///
    /// Damage is told on stderr, with exit code 4; whatever can be read is printed all the same.
    Dump,
}

#[derive(Serialize)]
struct Verified {
    version: u32,
    records: usize,
    first: Option<u64>,
    last: Option<u64>,
    damage: Vec<String>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let state = StateDir::of(&session.repository()?);
    let boot = owner::boot_id()?;
    let scan = if state.exists() {
        state.verify()?;
        Log::new(&state, &boot, Wait::UpTo(super::PATIENCE)).scan()?
    } else {
        Scan::default()
    };
    match args.command {
        Command::Verify => verify(session, &scan)?,
        Command::Dump => dump(session, &scan)?,
    }
    Ok(if scan.damage.is_empty() { exit::DONE } else { exit::NEEDS_HUMAN })
}

fn verify(session: &Session, scan: &Scan) -> anyhow::Result<()> {
    let damage: Vec<String> = scan.damage.iter().map(ToString::to_string).collect();
    let (first, last) = (scan.records.first().map(|r| r.lsn), scan.records.last().map(|r| r.lsn));
    if session.json {
        return session.print_json(&Verified { version: 1, records: scan.records.len(), first, last, damage });
    }
    damage.iter().for_each(|line| session.print(&format!("damaged: {line}")));
    let numbers = first.zip(last).map_or_else(String::new, |(first, last)| format!(", {first} to {last}"));
    let what = if damage.is_empty() { "whole" } else { "readable" };
    session.print(&format!("{what}: {}{numbers}", counted(scan.records.len() as u64, "record")));
    Ok(())
}

fn dump(session: &Session, scan: &Scan) -> anyhow::Result<()> {
    for record in &scan.records {
        let mut line = Vec::new();
        record.body.encode()?.write(record.lsn, record.tx, record.time, &mut line)?;
        // Without the checksum and the line feed it is JSON.
        session.print(String::from_utf8_lossy(&line[9..]).trim_end());
    }
    for damage in &scan.damage {
        session.say(&format!("warning: the log is damaged: {damage}"));
    }
    Ok(())
}
