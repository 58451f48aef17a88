//! `jin-txn log`

use std::collections::HashSet;
use std::io::IsTerminal;

use serde::Serialize;

use crate::cli::color::{Line, Part};
use crate::cli::log_filter::{DateStyle, Since, Wanted};
use crate::cli::{Session, pager};
use crate::git::refs::RefSnapshot;
use crate::git::{RefName, Value};
use crate::process::owner;
use crate::run::child_transactions;
use crate::state::{StateDir, TxId, TxKind, Wait};
use crate::wal::{Begin, Body, CheckedOut, Log, Operations, Outcome, Place, Record, RefChange, Reversal};

/// List operations, newest first
///
/// An operation is a command line, with all the transactions of what that started; its id is that of its first transaction.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show at most N of them
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: usize,

    /// List each transaction of git instead
    #[arg(long)]
    transactions: bool,

    /// Only those that moved this ref, e.g. main or refs/tags/v1
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,

    /// Only those whose command line has this in it
    #[arg(long, value_name = "TEXT")]
    command: Option<String>,

    /// Only those since then: "2 hours ago", 3.days, 2026-11-27
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,

    /// How to write times; relative on a terminal
    #[arg(long, value_name = "STYLE")]
    date: Option<DateStyle>,
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
    operations: Vec<Operation<'l>>,
    transactions: Vec<&'l Told<'l>>,
    damage: Vec<String>,
}

/// An operation as the log tells it.
#[derive(Serialize)]
pub(super) struct Operation<'l> {
    pub id: TxId,
    pub time: u64,
    pub state: &'static str,
    pub refs: usize,
    #[serde(skip_serializing_if = "is_zero")]
    pub files: usize,
    pub operation: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'l str>,
    pub transactions: Vec<TxId>,
    #[serde(rename = "moves", serialize_with = "as_objects")]
    pub moves: Vec<(RefName, Option<Value>, Value)>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let repo = session.repository()?;
    let state = StateDir::of(&repo);
    let boot = owner::boot_id()?;
    let log = Log::new(&state, &boot, Wait::UpTo(super::PATIENCE));
    let wanted = Wanted {
        reference: args.reference.as_deref(),
        command: args.command.as_deref(),
        since: args.since.map(|since| since.0),
    };
    // One more than asked for: the oldest segment read may hold a transaction's end without its begin.
    let scan = if state.exists() {
        log.scan_until(|records| wanted.is_everything() && count_begins(records, args.transactions) > args.limit)?
    } else {
        crate::wal::Scan::default()
    };
    let mut told = tell(&scan.records);
    // The parts of a run are told with it.
    told.retain(|t| t.begin.part_of.is_none() && !is_probe(t.begin));
    let operations: Vec<Operation<'_>> = if args.transactions {
        told.iter().rev().map(Operation::of_one).filter(|one| one.is_wanted(&wanted)).take(args.limit).collect()
    } else {
        let mut all = operations(&scan.records, &told);
        all.retain(|operation| operation.is_wanted(&wanted));
        all.reverse();
        all.truncate(args.limit);
        all
    };
    let damage: Vec<String> = scan.damage.iter().map(ToString::to_string).collect();
    for line in &damage {
        session.say(&format!("warning: the log is damaged: {line}"));
    }
    if session.json {
        let is_listed = |t: &&Told<'_>| operations.iter().any(|operation| operation.transactions.contains(&t.id));
        let transactions = told.iter().rev().filter(is_listed).collect();
        session.print_json(&Listed { version: 1, operations, transactions, damage })?;
        return Ok(super::exit::DONE);
    }
    let date = args.date.unwrap_or(if std::io::stdout().is_terminal() { DateStyle::Relative } else { DateStyle::Iso });
    pager::show(session, &repo, &lines(&operations, date, session.verbose))?;
    Ok(super::exit::DONE)
}

/// A line for each, in columns; with what moved below it.
fn lines(operations: &[Operation<'_>], date: DateStyle, with_moves: bool) -> Vec<Line> {
    let rows: Vec<[String; 4]> = operations.iter().map(|it| it.columns(date)).collect();
    let widths = [8, 0, 12, 8].into_iter().enumerate();
    let widths: Vec<usize> =
        widths.map(|(at, least)| rows.iter().map(|row| row[at].chars().count()).fold(least, usize::max)).collect();
    let mut lines = Vec::new();
    for (tx, [id, date, state, count]) in operations.iter().zip(&rows) {
        let message = tx.message.map_or_else(String::new, |m| format!("  # {}", m.lines().next().unwrap_or_default()));
        let line = Line::default()
            .and(Part::Id, &format!("{id:<0$}", widths[0]))
            .and(Part::Faint, &format!(" {date:<0$}  ", widths[1]))
            .and(part_of(tx.state), &format!("{state:<0$}", widths[2]))
            .and(Part::Plain, &format!(" {count:>0$}  {1}", widths[3], tx.operation))
            .and(Part::Faint, &message);
        lines.push(line);
        for (name, before, after) in tx.moves.iter().filter(|_| with_moves) {
            lines.push(Line::of(&format!("           {name}  {} -> {}", short(before.as_ref()), short(Some(after)))));
        }
    }
    lines
}

/// How a state is shown.
fn part_of(state: &str) -> Part {
    match state {
        "committed" | "completed" => Part::Good,
        "undone" | "aborted" | "closed" => Part::Faint,
        _ => Part::Bad,
    }
}

impl<'l> Operation<'l> {
    /// Id, time, state, and how much.
    fn columns(&self, date: DateStyle) -> [String; 4] {
        let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let files = if self.files > 0 { format!(" {}", count(self.files, "file")) } else { String::new() };
        [self.id.to_string(), date.write(self.time), self.state.to_owned(), count(self.refs, "ref") + &files]
    }

    /// One transaction, as it is.
    fn of_one(told: &'l Told<'l>) -> Operation<'l> {
        let change = |change: &RefChange| (change.name.clone(), change.before.clone(), change.after.clone());
        Operation {
            id: told.id,
            time: told.time,
            state: told.state,
            refs: told.refs,
            files: told.files,
            operation: told.operation,
            message: told.message,
            transactions: vec![told.id],
            moves: told.begin.refs.iter().map(change).collect(),
        }
    }

    fn is_wanted(&self, wanted: &Wanted<'_>) -> bool {
        wanted.has(self.operation, self.time, self.moves.iter().map(|(name, ..)| name))
    }

    /// A checkout that is in no transaction.
    fn of_checkout(checkout: &CheckedOut<'l>) -> Operation<'l> {
        let by = checkout.by;
        let moves = match &checkout.what {
            Place::Files => Vec::new(),
            Place::Head { name, before, after } => vec![(name.clone(), before.clone(), after.clone())],
        };
        Operation {
            id: checkout.operation,
            time: checkout.time,
            state: "committed",
            refs: moves.len(),
            files: 0,
            operation: by.root.as_ref().map_or(&by.operation, |root| &root.operation),
            message: None,
            transactions: Vec::new(),
            moves,
        }
    }

    /// Several transactions of one command: over all of them each ref went from where the first found it to where the last left
    /// it.
    fn of_all(records: &[Record], parts: &[&'l Told<'l>]) -> Operation<'l> {
        let first = Operation::of_one(parts[0]);
        let ids: Vec<TxId> = parts.iter().map(|t| t.id).collect();
        let moves = child_transactions::moves_of(records, |tx| ids.contains(&tx));
        Operation {
            state: state_of_all(parts),
            refs: moves.len(),
            operation: parts[0].begin.root.as_ref().map_or(first.operation, |root| &root.operation),
            moves: moves.into_iter().map(|m| (m.name, Some(m.before), m.after)).collect(),
            transactions: ids,
            ..first
        }
    }
}

/// The moves of refs as JSON has them.
fn as_objects<S: serde::Serializer>(
    moves: &[(RefName, Option<Value>, Value)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Moved<'m> {
        #[serde(rename = "ref")]
        name: &'m RefName,
        before: &'m Option<Value>,
        after: &'m Value,
    }
    serializer.collect_seq(moves.iter().map(|(name, before, after)| Moved { name, before, after }))
}

/// Refs that `doctor` makes and deletes again.
pub(super) fn is_probe(begin: &Begin) -> bool {
    let is_scratch = |change: &RefChange| change.name.as_bytes().starts_with(b"refs/jin-txn/");
    begin.origin == TxKind::Hook && !begin.refs.is_empty() && begin.refs.iter().all(is_scratch)
}

/// What waits for somebody decides, then what has not ended; what is left differs in how it ended.
fn state_of_all(parts: &[&Told<'_>]) -> &'static str {
    let all = |state: &str| parts.iter().all(|t| t.state == state);
    for state in ["needs you", "begun", "decided"] {
        if parts.iter().any(|t| t.state == state) {
            return state;
        }
    }
    match parts.iter().find(|t| t.state != "aborted") {
        None => "aborted",
        Some(first) if all(first.state) => first.state,
        Some(_) if parts.iter().any(|t| t.state == "undone") => "undone",
        Some(_) if parts.iter().any(|t| t.state == "rolled back") => "interrupted",
        Some(_) => "committed",
    }
}

/// The operations of transactions, in the order in which they last did something.
pub(super) fn operations<'l>(records: &'l [Record], told: &'l [Told<'l>]) -> Vec<Operation<'l>> {
    let grouped = Operations::of(records);
    let mut found: Vec<(TxId, Vec<&Told<'_>>)> = Vec::new();
    for transaction in told {
        let id = grouped.id(transaction.id);
        let known = found.iter().rposition(|(operation, _)| *operation == id).map(|place| found.remove(place).1);
        let mut parts = known.unwrap_or_default();
        parts.push(transaction);
        found.push((id, parts));
    }
    let operation = |(_, parts): &(TxId, Vec<&'l Told<'l>>)| match parts.as_slice() {
        [one] if one.begin.root.is_none() => Operation::of_one(one),
        all => Operation::of_all(records, all),
    };
    let mut all: Vec<(TxId, Operation<'l>)> = Vec::new();
    for (id, parts) in &found {
        all.push((parts.iter().map(|t| t.id).max().unwrap_or(*id), operation(&(*id, parts.clone()))));
    }
    // Those of which no transaction tells.
    for checkout in grouped.checkouts.iter().filter(|it| !found.iter().any(|(id, _)| *id == it.operation)) {
        let known = all.iter().position(|(_, known)| known.id == checkout.operation);
        if known.is_none() {
            all.push((checkout.by.id, Operation::of_checkout(checkout)));
        }
    }
    all.sort_by_key(|(last, _)| *last);
    all.into_iter().map(|(_, operation)| operation).collect()
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

fn count_begins(records: &[Record], transactions: bool) -> usize {
    let grouped = if transactions { Operations::default() } else { Operations::of(records) };
    let is_own = |r: &&Record| matches!(&r.body, Body::Begin(begin) if begin.part_of.is_none());
    let ids = records.iter().filter(is_own).filter_map(|r| r.tx).map(|tx| grouped.id(tx));
    ids.collect::<HashSet<_>>().len()
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
