//! What hooks have kept of an operation, which undo cannot have later.

use std::io;
use std::path::PathBuf;

use crate::fs::{FileId, absent_is_none, durable, named as fs};
use crate::state::directory::SMALL;
use crate::state::{StateDir, TxId, kept};
use crate::wal::{Body, Record};

/// What is kept of one operation. Everything is as its first transaction found it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// A directory with copies of the state files (`MERGE_HEAD`, `rebase-merge/todo` ...) under their own names.
    pub state_files: Option<PathBuf>,
    /// The index that the operation found.
    pub index_before: Option<PathBuf>,
    /// Where git had replaced that already: the index that the operation before left. What was staged between the two is not in
    /// it.
    pub index_last_known: Option<PathBuf>,
    /// The configuration sections of the branches that it deleted or renamed, as they stood in the configuration.
    pub config_sections: Vec<u8>,
    /// The log of refs/stash.
    pub stash_log: Option<KeptLog>,
}

/// A log that git only appends to, or replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptLog {
    /// A second name of the file as it is, or was before it was replaced.
    pub path: PathBuf,
    /// Its size before the operation.
    pub len: u64,
}

impl Kept {
    /// What is kept of the operation that has these `transactions`, oldest first.
    pub(crate) fn of(state: &StateDir, records: &[Record], transactions: &[TxId]) -> io::Result<Kept> {
        let mut found = Kept { stash_log: stash_log(state, records, transactions)?, ..Kept::default() };
        for dir in kept::find(state, transactions)? {
            let existing = |name: &str| {
                let path = dir.join(name);
                Ok::<_, io::Error>(absent_is_none(fs::symlink_metadata(&path))?.map(|_| path))
            };
            found.state_files = found.state_files.or(existing(kept::STATE)?);
            let before = existing(kept::INDEX)?;
            if found.index_last_known.is_none() && found.index_before.is_none() {
                found.index_before = before;
                found.index_last_known = existing(kept::LAST_INDEX)?;
            }
            if let Some(path) = existing(kept::SECTIONS)? {
                found.config_sections.extend(durable::read_own(&path, SMALL)?);
            }
        }
        Ok(found)
    }
}

impl Kept {
    /// What there is, for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let stash = self.stash_log.as_ref().map(|log| format!("the log of refs/stash, which had {} bytes", log.len));
        let line = |is_there: bool, line: &str| is_there.then(|| line.to_owned());
        let lines = [
            line(self.state_files.is_some(), "the state files of what was in progress"),
            line(self.index_before.is_some(), "the index before it"),
            line(self.index_last_known.is_some(), "the index that the operation before it left"),
            line(!self.config_sections.is_empty(), "the configuration of branches"),
            stash,
        ];
        lines.into_iter().flatten().collect()
    }
}

fn stash_log(state: &StateDir, records: &[Record], transactions: &[TxId]) -> io::Result<Option<KeptLog>> {
    let size = |record: &Record| match &record.body {
        Body::Begin(begin) if record.tx.is_some_and(|id| transactions.contains(&id)) => {
            begin.refs.iter().find(|change| change.name.as_bytes() == b"refs/stash").map(|change| change.log)
        }
        _ => None,
    };
    let path = kept::last_stash(state);
    let len = match records.iter().find_map(size) {
        Some(len) => len.unwrap_or(0),
        None => return Ok(None),
    };
    Ok(FileId::at(&path)?.map(|_| KeptLog { path, len }))
}
