//! `jin-txn list`

use serde::Serialize;

use crate::cli::doctor::size;
use crate::cli::status::{state_name, wal_bytes};
use crate::cli::{Session, everywhere, exit, exit_code, unasked};
use crate::git::Repository;
use crate::recovery;
use crate::state::StateDir;
use crate::util::text::shown;

/// List the repositories that you have protected: state, size of the log, path
///
/// `install` notes them below $XDG_STATE_HOME/jin-txn (~/.local/state/jin-txn), and so does the first hook call in a repository
/// from a template. What is gone is left out. Nothing is changed, and the exit code is 0 whatever the states are (see `status
/// --all`).
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Listed {
    version: u32,
    repositories: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    path: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    wal_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn run(session: &Session, _args: &Args) -> anyhow::Result<u8> {
    let mut rows = Vec::new();
    for everywhere::Place { path, repo } in everywhere::places()? {
        let looked = repo.and_then(|repo| look(session, &repo));
        let (state, wal_bytes, error) = match looked {
            Ok((state, bytes)) => (state, Some(bytes), None),
            Err(error) => ("unknown", None, Some(format!("{error:#}"))),
        };
        rows.push(Row { path: path.display().to_string(), state, wal_bytes, error });
    }
    if session.json {
        session.print_json(&Listed { version: 1, repositories: rows })?;
        return Ok(exit::DONE);
    }
    for row in &rows {
        let size = row.wal_bytes.map(size).unwrap_or_default();
        session.print(&format!("{:<11}  {size:>9}  {}", row.state, shown(row.path.as_ref())));
        row.error.iter().for_each(|error| session.print(&format!("{:24}{error}", "")));
    }
    if rows.is_empty() {
        session.say(everywhere::NONE);
    }
    Ok(exit::DONE)
}

/// The state in a word, and the size of the log in bytes.
fn look(session: &Session, repo: &Repository) -> anyhow::Result<(&'static str, u64)> {
    let code = if recovery::needs_recovery(repo)? {
        exit_code(&recovery::check(repo, &session.recovery_options()?)?)
    } else if unasked::problems(repo)?.is_empty() {
        exit::DONE
    } else {
        exit::UNPROTECTED
    };
    Ok((state_name(code), wal_bytes(&StateDir::of(repo).wal())))
}
