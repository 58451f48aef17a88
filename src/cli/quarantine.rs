//! `jin-txn quarantine`

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::{Session, exit, real_git, user, utc};
use crate::git::Repository;
use crate::rescue::quarantined::{self, Item};
use crate::rescue::{self, Request};
use crate::trust::ownership;
use crate::util::text::shown;

/// See, put back or let go what recovery and rescue have replaced
///
/// Whatever `recover` and `rescue` replace or move aside is kept. Of a protected repository it goes by itself after a time
/// (`jin.retention`), of others when you say so.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Say what is there: name, time, size, where it was
    List,
    /// Print the content of one of them, as it is
    Show {
        /// Its name, as `list` says it
        name: String,
    },
    /// Put a copy of it back to where it was; what is there now goes to quarantine
    Restore {
        /// Its name, as `list` says it
        name: String,
    },
    /// Remove it for good
    Drop {
        /// Their names, as `list` says them
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// All of them; gc may have packs again that `rescue` keeps from it
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
}

#[derive(Serialize)]
struct Listed {
    name: String,
    time: u64,
    size: Option<u64>,
    original: Option<String>,
}

#[derive(Serialize)]
struct List {
    version: u32,
    quarantine: Vec<Listed>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let start: &PathBuf = session.git_dir.as_ref().unwrap_or(&session.directory);
    let found = rescue::find(start, session.git_dir.is_some())?;
    let (git_program, scratch) = (real_git()?, std::env::temp_dir());
    let request = Request { git_program, scratch, fetch: None, stage: crate::rescue::Stage::default() };
    ownership::require_trusted(&found, user(), &request.git_program)?;
    let repo = &found.repo;
    let items = quarantined::items(repo)?;
    match &args.action {
        Action::List => list(session, &items)?,
        Action::Show { name } => show(named(&items, name)?)?,
        Action::Restore { name } => {
            let path = quarantined::restore(repo, &request, named(&items, name)?)?;
            session.say(&format!("jin-txn: {} is as it was; what was there is in quarantine", shown(&path)));
        }
        Action::Drop { names, all } => drop_some(session, repo, &items, names, *all)?,
    }
    Ok(exit::DONE)
}

fn named<'i>(items: &'i [Item], name: &str) -> anyhow::Result<&'i Item> {
    let found = items.iter().find(|item| item.name == name);
    found.ok_or_else(|| anyhow::anyhow!("nothing in quarantine is called {name}\nhint: `jin-txn quarantine list`"))
}

fn list(session: &Session, items: &[Item]) -> anyhow::Result<()> {
    if session.json {
        let listed = |item: &Item| Listed {
            name: item.name.clone(),
            time: item.time,
            size: item.size,
            original: item.original.as_ref().map(|path| path.display().to_string()),
        };
        return session.print_json(&List { version: 1, quarantine: items.iter().map(listed).collect() });
    }
    for item in items {
        let size = item.size.map_or_else(|| "directory".to_owned(), |size| format!("{size} bytes"));
        session.print(&format!("{}  {}  {size}", item.name, utc(item.time)));
    }
    if items.is_empty() {
        session.say("jin-txn: nothing is in quarantine");
    }
    Ok(())
}

/// No larger one is shown, in bytes.
const LARGEST: u64 = 1 << 30;

fn show(item: &Item) -> anyhow::Result<()> {
    // The file itself: a link would lead out of the quarantine.
    anyhow::ensure!(item.size.is_some(), "{} is no file\nhint: look at {} yourself", item.name, shown(&item.path));
    let content = crate::fs::durable::read_own(&item.path, LARGEST)?;
    let mut out = std::io::stdout().lock();
    if out.write_all(&content).and_then(|()| out.flush()).is_err() {
        // A closed pipe is no error.
    }
    Ok(())
}

fn drop_some(session: &Session, repo: &Repository, items: &[Item], names: &[String], all: bool) -> anyhow::Result<()> {
    let chosen: Vec<&Item> = if all {
        items.iter().collect()
    } else {
        names.iter().map(|name| named(items, name)).collect::<anyhow::Result<_>>()?
    };
    chosen.iter().try_for_each(|item| quarantined::drop_item(item))?;
    session.say(&format!("jin-txn: removed for good: {}", chosen.len()));
    let released = if all { quarantined::release_packs(repo)? } else { 0 };
    if released > 0 {
        session.say(&format!("jin-txn: gc may have {released} packs again"));
    }
    Ok(())
}
