//! `jin-txn show`

use std::fmt::Display;

use anyhow::Context;
use serde::Serialize;

use crate::cli::{Session, log, real_git, utc};
use crate::git::{Git, Plumbing, RefName, Value};
use crate::process::owner;
use crate::run::child_transactions;
use crate::state::{StateDir, TxId, Wait};
use crate::undo::kept::Kept;
use crate::util::text::shown;
use crate::wal::{Body, Log};

/// So many commits are told of each ref that has got or lost some.
const MOST_COMMITS: usize = 5;

/// Show one operation or transaction: who made it, what it changed, how it ended
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The operation or transaction, e.g. tx-7; without one the newest operation
    #[arg(value_name = "ID")]
    id: Option<TxId>,
}

#[derive(Serialize)]
struct Shown<'l> {
    version: u32,
    #[serde(flatten)]
    told: &'l log::Told<'l>,
    begin: &'l crate::wal::Begin,
    recovered_at: Option<u64>,
    actions: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Part<'l>>,
}

/// A transaction that a run's command made.
#[derive(Serialize)]
struct Part<'l> {
    id: TxId,
    operation: &'l str,
}

/// The newest operation that has a transaction.
fn newest(state: &StateDir, boot: &str) -> anyhow::Result<Option<TxId>> {
    if !state.exists() {
        return Ok(None);
    }
    let scan = Log::new(state, boot, Wait::UpTo(super::PATIENCE)).scan()?;
    let mut told = log::tell(&scan.records);
    told.retain(|t| t.begin.part_of.is_none() && !log::is_probe(t.begin));
    let all = log::operations(&scan.records, &told);
    Ok(all.iter().rfind(|operation| !operation.transactions.is_empty()).map(|operation| operation.id))
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let repo = session.repository()?;
    let state = StateDir::of(&repo);
    let boot = owner::boot_id()?;
    let id = match args.id {
        Some(id) => id,
        None => newest(&state, &boot)?.context("there is nothing in the log")?,
    };
    let unknown = || format!("{id} is not in the log of {}; `git txn log` lists what is", shown(&repo.common_dir));
    anyhow::ensure!(state.exists(), unknown());
    let found = |r: &crate::wal::Record| r.tx == Some(id) && matches!(r.body, Body::Begin(_));
    let scan = Log::new(&state, &boot, Wait::UpTo(super::PATIENCE)).scan_until(|records| records.iter().any(found))?;
    let all = log::tell(&scan.records);
    let told = all.iter().rev().find(|t| t.id == id).with_context(unknown)?;
    let actions = match told.recovered.map(|r| &r.body) {
        Some(Body::Recovered { actions, .. }) => actions.clone(),
        _ => Vec::new(),
    };
    let whole = log::operations(&scan.records, &all).into_iter().find(|it| it.transactions.contains(&id));
    let whole = whole.filter(|it| it.transactions.len() > 1);
    let is_whole = whole.as_ref().is_some_and(|it| it.id == id);
    let part = |(id, begin): (TxId, &'_ crate::wal::Begin)| (id, begin.operation.clone());
    let mut parts: Vec<(TxId, String)> = child_transactions::of(&scan.records, id).into_iter().map(part).collect();
    if let Some(whole) = whole.as_ref().filter(|_| is_whole) {
        let others = all.iter().filter(|it| it.id != id && whole.transactions.contains(&it.id));
        parts.extend(others.map(|it| (it.id, it.operation.to_owned())));
    }
    if session.json {
        let recovered_at = told.recovered.map(|r| r.time);
        let parts = parts.iter().map(|(id, operation)| Part { id: *id, operation }).collect();
        session.print_json(&Shown { version: 1, told, begin: told.begin, recovered_at, actions, parts })?;
        return Ok(super::exit::DONE);
    }
    let owner = &told.begin.owner;
    let (state, operation) = match whole.as_ref().filter(|_| is_whole) {
        Some(whole) => (whole.state, whole.operation),
        None => (told.state, told.operation),
    };
    session.print(&format!("{id}  {state}"));
    session.print(&format!("operation  {operation}"));
    if let Some(message) = told.message {
        session.print(&format!("message    {message}"));
    }
    if let Some(run) = told.begin.part_of {
        session.print(&format!("part of    {run}"));
    }
    if let Some(whole) = whole.as_ref().filter(|_| !is_whole) {
        session.print(&format!("part of    {}  {}", whole.id, whole.operation));
    }
    session.print(&format!("begun      {} by pid {} on {}", utc(told.time), owner.process.pid, owner.place.host));
    if let Some(record) = told.recovered {
        session.print(&format!("recovered  {}", utc(record.time)));
        for action in actions {
            session.print(&format!("           {action}"));
        }
    }
    if session.verbose {
        let ids = whole.as_ref().map_or_else(|| vec![id], |it| it.transactions.clone());
        for line in Kept::of(&StateDir::of(&repo), &ids)?.lines() {
            session.print(&format!("kept       {line}"));
        }
    }
    for (id, operation) in &parts {
        session.print(&format!("part       {id}  {operation}"));
    }
    let unknown = |before: &Option<Value>| before.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
    let commits = Commits { session, git: Git::new(&real_git()?).at(&repo.git_dir) };
    match whole.filter(|_| is_whole) {
        Some(whole) => {
            for (name, before, after) in &whole.moves {
                print_change(session, name, &unknown(before), after);
                commits.print(name, before.as_ref(), after)?;
            }
        }
        None => {
            for change in &told.begin.refs {
                print_change(session, &change.name, &unknown(&change.before), &change.after);
                commits.print(&change.name, change.before.as_ref(), &change.after)?;
            }
        }
    }
    for name in &told.begin.left {
        session.print(&format!("{name}  (a name that jin-txn does not write: what became of it is not in the log)"));
    }
    for moved in child_transactions::moves(&scan.records, id) {
        print_change(session, &moved.name, &moved.before, &moved.after);
        commits.print(&moved.name, Some(&moved.before), &moved.after)?;
    }
    for found in child_transactions::unseen(&scan.records, id) {
        session.print(&format!("{}  (no hook saw it change)", found.name));
        session.print(&format!("  after   {}", found.value));
    }
    for file in &told.begin.files {
        let image = |image: &Option<crate::wal::FileImage>| {
            image.as_ref().map_or_else(|| "absent".to_owned(), ToString::to_string)
        };
        print_change(session, &file.path, &image(&file.before), &image(&file.after));
    }
    Ok(super::exit::DONE)
}

/// Tells which commits a ref has got and lost.
struct Commits<'s> {
    session: &'s Session,
    git: Git,
}

impl Commits<'_> {
    /// A ref that is new or gone has no commits of its own: others may reach them.
    fn print(&self, name: &RefName, before: Option<&Value>, after: &Value) -> anyhow::Result<()> {
        let (Some(Value::Oid(was)), Value::Oid(is)) = (before, after) else { return Ok(()) };
        if name.is_note() {
            return Ok(());
        }
        let (was, is) = (was.to_string(), is.to_string());
        for (sign, of, without) in [('+', &is, &was), ('-', &was, &is)] {
            let ran = self.git.run(Plumbing::Subjects { of, without, most: &(MOST_COMMITS + 1).to_string() })?;
            // What is no commit, or is gone by now, has no subject.
            let lines: Vec<String> =
                ran.split(b'\n').filter(|_| ran.success).map(|l| String::from_utf8_lossy(l).into_owned()).collect();
            lines.iter().take(MOST_COMMITS).for_each(|line| self.session.print(&format!("  {sign} {line}")));
            if lines.len() > MOST_COMMITS {
                self.session.print(&format!("  {sign} and more"));
            }
        }
        Ok(())
    }
}

fn print_change(session: &Session, what: &dyn Display, before: &dyn Display, after: &dyn Display) {
    session.print(&what.to_string());
    session.print(&format!("  before  {before}"));
    session.print(&format!("  after   {after}"));
}
