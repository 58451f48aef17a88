//! What hooks have kept of an operation, which undo cannot have later.

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::beneath::RelPath;
use crate::fs::{absent_is_none, durable, named as fs};
use crate::git::Value;
use crate::git::branch_config::{self, Section};
use crate::process::git_argv;
use crate::process::operation::words_of;
use crate::staging::own::{OLD_CONFIG, OLD_INDEX, OLD_STASH_LOG};
use crate::staging::{branch_log, stage};
use crate::state::directory::SMALL;
use crate::state::{StateDir, TxId, kept};
use crate::undo::{Direction, Step};
use crate::wal::{Begin, Body, KeptPart, Outcome, Record, RefChange, Reversal};

/// The most that the names of modified files may have, in bytes.
const LARGEST_LIST: u64 = 1 << 28;

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
    /// The configuration sections of the branches that it made, deleted or renamed, as it found them.
    pub config_sections: Vec<Section>,
    /// The configuration as the last undo of it found it.
    pub config_undone: Option<Vec<u8>>,
    /// Parts that were kept and are gone, or could not be kept.
    pub lost: Vec<KeptPart>,
    /// Had it made what was in progress itself?
    pub is_of_itself: bool,
    /// Had git put changes away, or did it work in another worktree? Then the index that it found is not known.
    pub unknown_index: Option<KeptPart>,
    /// The last undo of it changed the configuration, and what that was is gone.
    pub config_undone_lost: bool,
    /// Branches whose configuration a part of it may have changed.
    pub branches: Vec<Vec<u8>>,
    /// The log of refs/stash, which the operation deleted.
    pub stash_log: Option<PathBuf>,
    /// Files that were not as the index had them, before a stash was made.
    pub modified: Option<Vec<Vec<u8>>>,
    /// Index and log of refs/stash as the last undo of it found them.
    pub index_undone: Option<PathBuf>,
    pub stash_log_undone: Option<PathBuf>,
    /// The reflog of the new name of a branch, as the last undo of its rename found it.
    pub branch_log_undone: Option<PathBuf>,
    /// The files that the last undo of it changed, sorted.
    pub files_undone: Option<Vec<RelPath>>,
    /// The last undo of it replaced the index, and what that was is gone.
    pub index_undone_lost: bool,
}

impl Kept {
    /// What is kept of the operation that has these `transactions`, oldest first.
    pub(crate) fn of(state: &StateDir, transactions: &[TxId]) -> io::Result<Kept> {
        let mut found = Kept::default();
        for dir in kept::find(state, transactions)? {
            found.state_files = found.state_files.or(existing(&dir, kept::STATE)?);
            found.stash_log = found.stash_log.or(existing(&dir, kept::STASH_LOG)?);
            if let Some(path) = existing(&dir, kept::MODIFIED)? {
                let names = durable::read_own(&path, LARGEST_LIST)?;
                found.modified = Some(names.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect());
            }
            let before = existing(&dir, kept::INDEX)?;
            if found.index_last_known.is_none() && found.index_before.is_none() {
                found.index_before = before;
                found.index_last_known = existing(&dir, kept::LAST_INDEX)?;
            }
        }
        Ok(Kept { config_sections: config_sections(state, transactions)?, ..found })
    }

    /// The same of an operation that is reversed: with what the parts of a run and the last undo have kept.
    pub(crate) fn of_step(state: &StateDir, records: &[Record], step: &Step) -> anyhow::Result<Kept> {
        let mut ids = [&step.transactions[..], &step.parts].concat();
        ids.sort_unstable();
        ids.dedup();
        let mut found = Kept::of(state, &ids)?;
        found.config_sections.clear();
        for record in records {
            if let (Body::Begin(begin), Some(id)) = (&record.body, record.tx)
                && ids.binary_search(&id).is_ok()
            {
                found.add(state, id, begin)?;
            }
        }
        if let Some(undo) = last_undo(records, step.id) {
            let files = stage::kept(state, undo)?;
            let dirs: Vec<PathBuf> = kept::find(state, &[undo])?.into_iter().chain(files).collect();
            let undone = |name| dirs.iter().find_map(|dir| existing(dir, name).transpose()).transpose();
            found.config_undone = undone(OLD_CONFIG)?.map(|path| durable::read_own(&path, SMALL)).transpose()?;
            found.index_undone = undone(OLD_INDEX)?;
            found.files_undone = records.iter().find_map(|record| match &record.body {
                Body::Decided(begin) if record.tx == Some(undo) => {
                    let mut files: Vec<RelPath> = begin.files.iter().map(|file| file.path.clone()).collect();
                    files.sort();
                    Some(files)
                }
                _ => None,
            });
            found.stash_log_undone = undone(OLD_STASH_LOG)?;
            found.branch_log_undone = undone(branch_log::OLD)?;
            let has_changed = |is_it: fn(&Begin) -> bool| {
                records.iter().any(|record| match &record.body {
                    Body::Begin(begin) | Body::Decided(begin) => record.tx == Some(undo) && is_it(begin),
                    _ => false,
                })
            };
            found.config_undone_lost = found.config_undone.is_none() && has_changed(|begin| begin.new_config.is_some());
            found.index_undone_lost = found.index_undone.is_none() && has_changed(|begin| begin.new_index.is_some());
        }
        Ok(found)
    }

    /// What the transaction `id` has kept. Of each branch the first one counts that wrote it.
    fn add(&mut self, state: &StateDir, id: TxId, begin: &Begin) -> io::Result<()> {
        let may_configure = git_argv::may_configure_branches(&words_of(&begin.operation));
        let is_asked = |change: &&RefChange| {
            may_configure || change.after == Value::Absent || change.before == Some(Value::Absent)
        };
        let names = begin.refs.iter().filter(is_asked);
        let mut new: Vec<Vec<u8>> =
            names.filter_map(|change| Some(change.name.as_bytes().strip_prefix(b"refs/heads/")?.to_vec())).collect();
        new.retain(|name| !self.branches.contains(name));
        if !new.is_empty() {
            let names: Vec<&[u8]> = new.iter().map(Vec::as_slice).collect();
            self.config_sections.extend(branch_config::only(&config_sections(state, &[id])?, &names));
        }
        self.branches.extend(new);
        for part in &begin.kept {
            let file = match part {
                KeptPart::States => kept::STATE,
                KeptPart::Index => kept::INDEX,
                KeptPart::LastIndex => kept::LAST_INDEX,
                KeptPart::Sections => kept::SECTIONS,
                KeptPart::StashLog => kept::STASH_LOG,
                KeptPart::Modified => kept::MODIFIED,
                KeptPart::StatesOfItself => {
                    self.is_of_itself = true;
                    continue;
                }
                KeptPart::Autostash | KeptPart::Elsewhere => {
                    self.unknown_index = Some(*part);
                    continue;
                }
                KeptPart::StatesLost | KeptPart::SectionsLost => {
                    self.lost.push(*part);
                    continue;
                }
            };
            let mut is_there = false;
            for dir in kept::find(state, &[id])? {
                is_there |= existing(&dir, file)?.is_some();
            }
            if !is_there {
                self.lost.push(*part);
            }
        }
        Ok(())
    }

    /// Why `step` cannot be reversed with what is left; `with_index`: index and files go along.
    pub(crate) fn why_not(&self, direction: Direction, with_index: bool) -> Option<&'static str> {
        let is_undo = direction == Direction::Undo;
        let why = |part: &KeptPart| match part {
            KeptPart::States => Some("the state files of what was in progress before it are not kept any more"),
            KeptPart::StatesLost if is_undo => Some("the state files of what was in progress before it were not kept"),
            KeptPart::Sections => Some("the configuration of its branches is not kept any more"),
            KeptPart::Modified => Some("which files were not as staged before it is not kept any more"),
            KeptPart::StashLog => Some("the log of refs/stash before it is not kept any more"),
            KeptPart::SectionsLost if is_undo => {
                Some("the configuration of its branches was not kept: it is not written as git writes it")
            }
            KeptPart::Index | KeptPart::LastIndex if is_undo && with_index => Some(
                "the index before it is not kept any more: `--keep-worktree` takes back the refs alone, where they suffice",
            ),
            KeptPart::Autostash if with_index => Some(
                "git put changes away before it (`--autostash`), and what was staged of them is unknown: `--keep-worktree` \
                 takes back the refs alone",
            ),
            KeptPart::Elsewhere if with_index => Some(
                "it was done in another worktree than that of the repository (`GIT_WORK_TREE`): `--keep-worktree` takes back \
                 the refs alone",
            ),
            _ => None,
        };
        let undone = (!is_undo && self.config_undone_lost)
            .then_some("the configuration that its undo replaced is not kept any more");
        self.lost.iter().chain(&self.unknown_index).find_map(why).or(undone)
    }
}

fn existing(dir: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let path = dir.join(name);
    Ok(absent_is_none(fs::symlink_metadata(&path))?.map(|_| path))
}

fn config_sections(state: &StateDir, transactions: &[TxId]) -> io::Result<Vec<Section>> {
    let mut found = Vec::new();
    for dir in kept::find(state, transactions)? {
        if let Some(path) = existing(&dir, kept::SECTIONS)? {
            found.extend(branch_config::decode(&durable::read_own(&path, SMALL)?));
        }
    }
    Ok(found)
}

/// The transaction that has taken the operation back last.
fn last_undo(records: &[Record], operation: TxId) -> Option<TxId> {
    let mut undos = Vec::new();
    let mut last = None;
    for record in records {
        match (&record.body, record.tx) {
            (Body::Begin(begin), Some(id)) if begin.reverses == Some(Reversal::Undo(operation)) => undos.push(id),
            (Body::Committed { .. } | Body::Recovered { outcome: Outcome::Committed, .. }, Some(id))
                if undos.contains(&id) =>
            {
                last = Some(id);
            }
            _ => {}
        }
    }
    last
}

impl Kept {
    /// What there is, for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |is_there: bool, line: &str| is_there.then(|| line.to_owned());
        let lines = [
            line(self.state_files.is_some(), "the state files of what was in progress"),
            line(self.index_before.is_some(), "the index before it"),
            line(self.index_last_known.is_some(), "the index that the operation before it left"),
            line(!self.config_sections.is_empty(), "the configuration of branches"),
            line(self.stash_log.is_some(), "the log of refs/stash"),
        ];
        lines.into_iter().flatten().collect()
    }
}
