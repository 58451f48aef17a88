//! `jin-txn log`

use serde::Serialize;

use crate::cli::{Session, utc};
use crate::git::Value;
use crate::git::refs::RefSnapshot;
use crate::process::owner;
use crate::run::child_transactions;
use crate::state::{StateDir, TxId, TxKind, Wait};
use crate::wal::{Begin, Body, Log, Outcome, Record, Reversal};

/// List transactions, newest first
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show at most N transactions
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

/// A transaction as the log tells it.
#[derive(Serialize)]
pub(super) struct Told<'l> {
    pub id: TxId,
    pub time: u64,
    pub state: &'static str,
    pub refs: usize,
    #[serde(skip_serializing_if = "is_zero")]
    pub files: usize,
    pub operation: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'l str>,
    #[serde(skip)]
    pub begin: &'l Begin,
    #[serde(skip)]
    pub recovered: Option<&'l Record>,
}

#[derive(Serialize)]
struct Listed<'l> {
    version: u32,
    transactions: Vec<Told<'l>>,
    damage: Vec<String>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let repo = session.repository()?;
    let state = StateDir::of(&repo);
    let boot = owner::boot_id()?;
    let log = Log::new(&state, &boot, Wait::UpTo(super::PATIENCE));
    // One more than asked for: the oldest segment read may hold a transaction's end without its begin.
    let scan = if state.exists() {
        log.scan_until(|records| count_begins(records) > args.limit)?
    } else {
        crate::wal::Scan::default()
    };
    let mut told = tell(&scan.records);
    // The parts of a run are told with it.
    told.retain(|t| t.begin.part_of.is_none());
    let transactions: Vec<Told<'_>> = told.into_iter().rev().take(args.limit).collect();
    let damage: Vec<String> = scan.damage.iter().map(ToString::to_string).collect();
    for line in &damage {
        session.say(&format!("warning: the log is damaged: {line}"));
    }
    if session.json {
        session.print_json(&Listed { version: 1, transactions, damage })?;
        return Ok(super::exit::DONE);
    }
    for tx in transactions {
        let mut count = format!("{} {}", tx.refs, if tx.refs == 1 { "ref" } else { "refs" });
        if tx.files > 0 {
            count += &format!(" {} {}", tx.files, if tx.files == 1 { "file" } else { "files" });
        }
        let message = tx.message.map_or_else(String::new, |m| format!("  # {}", m.lines().next().unwrap_or_default()));
        session.print(&format!(
            "{:<8} {}  {:<12} {count:>8}  {}{message}",
            tx.id.to_string(),
            utc(tx.time),
            tx.state,
            tx.operation
        ));
        if session.verbose {
            for change in &tx.begin.refs {
                session.print(&format!(
                    "           {}  {} -> {}",
                    change.name,
                    short(change.before.as_ref()),
                    short(Some(&change.after))
                ));
            }
        }
    }
    Ok(super::exit::DONE)
}

/// What the user says about a run; of an `apply` it is in the reflogs.
fn said(begin: &Begin) -> Option<&str> {
    Some(begin.message.as_str()).filter(|m| begin.origin == TxKind::Run && !m.is_empty())
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn short(value: Option<&Value>) -> String {
    match value {
        Some(value) => value.oid().map_or_else(|| value.to_string(), |oid| oid.hex()[..10].to_owned()),
        None => "?".to_owned(),
    }
}

fn count_begins(records: &[Record]) -> usize {
    records.iter().filter(|r| matches!(&r.body, Body::Begin(begin) if begin.part_of.is_none())).count()
}

/// The transactions in `records`, oldest first.
pub(super) fn tell(records: &[Record]) -> Vec<Told<'_>> {
    let mut told: Vec<Told<'_>> = Vec::new();
    for record in records {
        let Some(id) = record.tx else { continue };
        if let Body::Decided(begin) = &record.body {
            // Read under git's locks it says more than what was begun.
            if let Some(tx) = told.iter_mut().rev().find(|t| t.id == id) {
                (tx.state, tx.refs, tx.files, tx.begin) = ("decided", begin.refs.len(), begin.files.len(), begin);
                continue;
            }
        }
        if let Body::Begin(begin) = &record.body {
            told.push(Told {
                id,
                time: record.time,
                state: "begun",
                refs: begin.refs.len(),
                files: begin.files.len(),
                operation: &begin.operation,
                message: said(begin),
                begin,
                recovered: None,
            });
            continue;
        }
        let Some(tx) = told.iter_mut().rev().find(|t| t.id == id) else { continue };
        tx.state = match &record.body {
            Body::Committed { .. } => "committed",
            Body::Aborted => "aborted",
            Body::Absorbed { .. } => "absorbed",
            Body::Recovered { outcome, .. } => match outcome {
                Outcome::Committed => "completed",
                Outcome::RolledBack => "rolled back",
                Outcome::NeedsHuman => "needs you",
                Outcome::Acknowledged => "closed",
            },
            _ => tx.state,
        };
        if matches!(record.body, Body::Recovered { .. }) {
            tx.recovered = Some(record);
        }
        let reversed = match (tx.state, tx.begin.reverses) {
            ("committed" | "completed", Some(Reversal::Undo(other))) => Some((other, "undone")),
            ("committed" | "completed", Some(Reversal::Redo(other))) => Some((other, "committed")),
            _ => None,
        };
        if let Some((other, state)) = reversed
            && let Some(other) = told.iter_mut().rev().find(|t| t.id == other)
        {
            other.state = state;
        }
    }
    // Parts of another transaction are no news of their own.
    told.retain(|t| t.state != "absorbed");
    for tx in told.iter_mut().filter(|t| t.begin.origin == TxKind::Run) {
        let moves = child_transactions::moves(records, tx.id);
        let unseen = child_transactions::unseen(records, tx.id);
        let is_moved = |found: &&RefSnapshot| moves.iter().any(|moved| moved.name == found.name);
        tx.refs = moves.len() + unseen.iter().filter(|found| !is_moved(found)).count();
    }
    told
}
