//! `jin-txn show`

use anyhow::Context;
use serde::Serialize;

use super::{Session, log, utc};
use crate::owner;
use crate::state_dir::{StateDir, TxId, Wait};
use crate::wal::{Body, Log};

/// Show one transaction: who made it, what it changed, how it ended
#[derive(clap::Args)]
pub struct Args {
    /// The transaction, e.g. tx-7
    #[arg(value_name = "ID")]
    id: TxId,
}

#[derive(Serialize)]
struct Shown<'l> {
    version: u32,
    #[serde(flatten)]
    told: &'l log::Told<'l>,
    begin: &'l crate::wal::Begin,
    recovered_at: Option<u64>,
    actions: Vec<String>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let repo = session.repository()?;
    let state = StateDir::of(&repo);
    let boot = owner::boot_id()?;
    let id = args.id;
    let unknown = || format!("{id} is not in the log of {}; `git txn log` lists what is", repo.common_dir.display());
    anyhow::ensure!(state.exists(), unknown());
    let found = |r: &crate::wal::Record| r.tx == Some(id) && matches!(r.body, Body::Begin(_));
    let scan = Log::new(&state, &boot, Wait::UpTo(super::PATIENCE)).scan_until(|records| records.iter().any(found))?;
    let all = log::tell(&scan.records);
    let told = all.iter().rev().find(|t| t.id == id).with_context(unknown)?;
    let actions = match told.recovered.map(|r| &r.body) {
        Some(Body::Recovered { actions, .. }) => actions.clone(),
        _ => Vec::new(),
    };
    if session.json {
        let recovered_at = told.recovered.map(|r| r.time);
        session.print_json(&Shown { version: 1, told, begin: told.begin, recovered_at, actions })?;
        return Ok(super::exit::DONE);
    }
    let owner = &told.begin.owner;
    session.print(&format!("{id}  {}", told.state));
    session.print(&format!("operation  {}", told.operation));
    session.print(&format!("begun      {} by pid {} on {}", utc(told.time), owner.process.pid, owner.place.host));
    if let Some(record) = told.recovered {
        session.print(&format!("recovered  {}", utc(record.time)));
        for action in actions {
            session.print(&format!("           {action}"));
        }
    }
    for change in &told.begin.refs {
        let before = change.before.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
        session.print(&format!("{}\n  before  {before}\n  after   {}", change.name, change.after));
    }
    for file in &told.begin.files {
        let image = |image: &Option<crate::wal::FileImage>| {
            image.as_ref().map_or_else(|| "absent".to_owned(), ToString::to_string)
        };
        session.print(&format!("{}\n  before  {}\n  after   {}", file.path, image(&file.before), image(&file.after)));
    }
    Ok(super::exit::DONE)
}
