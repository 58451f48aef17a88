//! What is known of each lock: who held it, since when, alive or dead, and how that is known.

use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use crate::cli::{PATIENCE, utc};
use crate::fs::FileId;
use crate::git::Repository;
use crate::process::owner::{self, Liveness};
use crate::recovery::Report;
use crate::state::{StateDir, Wait};
use crate::wal::{Begin, Body, Log, Record};

/// One lock.
#[derive(Debug, Serialize)]
pub(super) struct Evidence {
    path: String,
    owner: Liveness,
    /// Unix time of the file.
    since: Option<u64>,
    /// Who made it, when the log knows.
    held_by: Option<String>,
    because: String,
}

impl Evidence {
    pub(super) fn line(&self) -> String {
        let owner = match self.owner {
            Liveness::Alive => "its owner is alive",
            Liveness::Dead => "its owner is dead",
            Liveness::Unknowable => "whether its owner is alive is unknown",
        };
        let since = self.since.map_or_else(String::new, |at| format!(" since {}", utc(at)));
        let by = self.held_by.as_ref().map_or_else(String::new, |by| format!(", made by {by}"));
        format!("{}{since}{by}: {owner} ({})", self.path, self.because)
    }
}

/// Gathers it; the log is read only when there are locks.
pub(super) fn evidence(repo: &Repository, state: &StateDir, report: &Report) -> anyhow::Result<Vec<Evidence>> {
    if report.locks.is_empty() {
        return Ok(Vec::new());
    }
    let records = if state.exists() {
        Log::new(state, &owner::boot_id()?, Wait::UpTo(PATIENCE)).scan()?.records
    } else {
        Vec::new()
    };
    let mut found = Vec::new();
    for lock in &report.locks {
        let path = repo.common_dir.join(&lock.path);
        let id = FileId::at(&path)?;
        let since = std::fs::symlink_metadata(&path).ok().and_then(|m| u64::try_from(m.mtime()).ok());
        found.push(Evidence {
            path: lock.path.clone(),
            owner: lock.owner,
            since,
            held_by: id.and_then(|id| maker(&records, &id)),
            because: lock.because.clone(),
        });
    }
    Ok(found)
}

/// The newest transaction that has recorded this very file as its lock.
fn maker(records: &[Record], id: &FileId) -> Option<String> {
    records.iter().rev().find_map(|record| match (&record.body, record.tx) {
        (Body::Begin(begin), Some(tx)) if has(begin, id) => {
            Some(format!("{tx} (`{}`, pid {})", begin.operation, begin.owner.process.pid))
        }
        _ => None,
    })
}

fn has(begin: &Begin, id: &FileId) -> bool {
    let of_refs = begin.refs.iter().map(|c| c.lock).chain(begin.watched.iter().map(|w| w.lock));
    of_refs.chain([begin.packed_lock, begin.index_lock]).flatten().any(|lock| lock == *id)
}
