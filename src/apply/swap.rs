//! Files that no ref update of git changes: the index of the worktree, HEAD when it moves from or to a branch, and the configuration.
//!
//! ```text
//!  stage index.new, config.new, HEAD.new ──▶ second names index.lock, config.lock, HEAD.lock ──▶ decided ──▶ branches
//!  ──▶ configuration, index, files, HEAD into place
//! ```
//! A git session cannot move HEAD and change or delete the branch that HEAD means. So while we hold the real `HEAD.lock`, the
//! branches are changed in a *shadow git directory*, `.jin/tx/<id>/shadow`: it has the same common directory, and a detached
//! HEAD of its own.
//!
//! Limit: hooks are told about the branches, not about HEAD.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::access::Purpose;
use crate::fs::{FileId, durable, named as fs};
use crate::git::update_refs::{RefWrite, write_refs};
use crate::git::{Git, Oid, RefFormat, RefName, RefStore, Repository, Value};
use crate::staging::own::{self, Whole};
use crate::state::{StateDir, TxId};
use crate::util::text::shown;
use crate::wal::{NewFile, RefChange};

/// A file with new content: an index, or a configuration.
#[derive(Debug, Clone)]
pub(crate) struct FileSwap {
    /// The file that it was made of.
    pub before: Option<FileId>,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// The log of refs/stash, before and after; `None` when there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogSwap {
    pub before: Option<Vec<u8>>,
    pub after: Option<Vec<u8>>,
}

impl LogSwap {
    /// Keeps the one and stages the other. Where there is none afterwards, git removes it with its ref.
    pub(super) fn stage(&self, repo: &Repository, state: &StateDir, id: TxId) -> anyhow::Result<Option<NewFile>> {
        if let Some(before) = &self.before {
            own::keep_stash_log(state, id, repo, before)?;
        }
        let Some(after) = &self.after else { return Ok(None) };
        let path = Whole::StashLog.path(repo, &repo.git_dir);
        let before = FileId::at(&path)?;
        Ok(Some(NewFile { before, after: own::stage(state, id, Whole::StashLog, &path, after)? }))
    }
}

/// A state file of a merge or a pick that comes with this content, or goes.
#[derive(Debug, Clone)]
pub(crate) struct StateSwap {
    pub name: String,
    pub content: Option<Vec<u8>>,
}

/// A new HEAD: one of the two is a branch.
#[derive(Debug, Clone)]
pub(crate) struct HeadSwap {
    pub from: Value,
    pub to: Value,
    /// The commits that they show.
    pub from_commit: Option<Oid>,
    pub to_commit: Option<Oid>,
    /// What HEAD's reflog says of the move.
    pub message: String,
}

/// Locks that we hold ourselves.
#[derive(Debug, Default)]
pub(super) struct HeldLocks(Vec<(PathBuf, FileId)>);

impl HeldLocks {
    /// Locks `file` by giving what is staged for it a second name.
    pub(super) fn take(&mut self, staged: &Path, file: &Path) -> anyhow::Result<FileId> {
        let lock = crate::fs::with_suffix(file.to_owned(), ".lock");
        match durable::hard_link(staged, &lock) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                anyhow::bail!(
                    "{} is there: another git is at work\nhint: nothing was changed; run this again when that has ended",
                    shown(&lock)
                );
            }
            done => done?,
        }
        let id = FileId::at(&lock)?.context("a lock of ours has gone")?;
        self.0.push((lock, id));
        Ok(id)
    }

    /// Removes those that are still ours.
    pub(super) fn release(&mut self) -> io::Result<()> {
        while let Some((path, id)) = self.0.pop() {
            if FileId::at(&path)?.is_some_and(|now| now.is_same_file(&id)) {
                durable::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Takes the lock of the file, and sees that it is the one that the new one was made of.
    pub(super) fn take_whole(
        &mut self,
        (state, id): (&StateDir, TxId),
        repo: &Repository,
        whole: Whole,
        before: Option<FileId>,
    ) -> anyhow::Result<()> {
        let path = whole.path(repo, &repo.git_dir);
        self.take(&whole.staged(state, id), &path)?;
        let now = FileId::at(&path)?;
        let is_same = match (&now, &before) {
            _ if whole == Whole::StashLog => own::is_stash_log_unchanged(state, id, repo)?,
            (Some(now), Some(before)) => now.is_same_file(before),
            (now, before) => now.is_none() && before.is_none(),
        };
        anyhow::ensure!(is_same, "{} has just changed\nhint: nothing was changed; run this again", shown(&path));
        Ok(())
    }

    /// Takes `HEAD.lock`; what is to be logged of HEAD.
    pub(super) fn take_head(
        &mut self,
        state: &StateDir,
        id: TxId,
        repo: &Repository,
        head: &HeadSwap,
    ) -> anyhow::Result<RefChange> {
        let refs = RefStore::new(repo);
        let name = refs.canonical(b"HEAD")?;
        let file = repo.git_dir.join("HEAD");
        let lock = self.take(&own::new_head(state, id), &file)?;
        let now = refs.read(&name)?;
        anyhow::ensure!(now.value == head.from, "HEAD has just moved\nhint: nothing was changed; run this again");
        let log = FileId::at(&refs.log(&name))?.map(|log| log.size);
        let (before, after) = (Some(head.from.clone()), head.to.clone());
        Ok(RefChange { name, before, after, file: now.loose, lock: Some(lock), log })
    }
}

fn head_name() -> RefName {
    RefName::parse(b"HEAD").expect("git calls it so")
}

impl HeadSwap {
    /// The change, before anything is locked.
    pub(super) fn intended(&self, repo: &Repository) -> anyhow::Result<RefChange> {
        let name = RefStore::new(repo).canonical(b"HEAD")?;
        let (before, after) = (Some(self.from.clone()), self.to.clone());
        Ok(RefChange { name, before, after, file: None, lock: None, log: None })
    }

    /// Stages the new HEAD, and makes the shadow.
    pub(super) fn stage(&self, repo: &Repository, git: &Git, state: &StateDir, id: TxId) -> anyhow::Result<FileId> {
        anyhow::ensure!(repo.ref_format == RefFormat::Files, "HEAD of a reftable cannot be moved with its branches");
        let content = match &self.to {
            Value::Symref(branch) => [b"ref: ", branch.as_bytes(), b"\n"].concat(),
            Value::Oid(oid) => format!("{oid}\n").into_bytes(),
            _ => anyhow::bail!("HEAD has no value to go to"),
        };
        let staged = own::new_head(state, id);
        let file = durable::create_for(&repo.git_dir.join("HEAD"), &staged, &content)?;
        fs::sync_data(&staged, &file)?;
        self.make_shadow(git, state, id)?;
        FileId::at(&staged)?.context("the staged HEAD has gone")
    }

    /// git itself detaches the shadow's HEAD, and so makes the line for the reflog: who, when, why.
    fn make_shadow(&self, git: &Git, state: &StateDir, id: TxId) -> anyhow::Result<()> {
        let shadow = own::shadow(state, id);
        durable::make_dirs(&shadow.join("logs"), Purpose::State)?;
        durable::create_new(&shadow.join("commondir"), b"../../../..\n")?;
        durable::create_new(&shadow.join("HEAD"), b"ref: refs/heads/jin-txn/shadow\n")?;
        durable::create_new(&shadow.join("logs/HEAD"), b"")?;
        let commit = self.from_commit.or(self.to_commit).context("neither of the two HEADs shows a commit")?;
        let from = RefName::parse(b"refs/heads/jin-txn/shadow")?;
        let detach = RefWrite { name: head_name(), from: Value::Symref(from), to: Value::Oid(commit) };
        write_refs(&git.at(&shadow), &[detach], &self.message)
    }

    /// Logs the move, and puts the new HEAD into place.
    pub(super) fn place(&self, repo: &Repository, state: &StateDir, id: TxId) -> anyhow::Result<()> {
        let refs = RefStore::new(repo);
        let log = refs.log(&refs.canonical(b"HEAD")?);
        if FileId::at(&log)?.is_some() {
            let line = crate::fs::named::read(own::shadow(state, id).join("logs/HEAD"))?;
            durable::append(&log, &self.log_line(&line).context("git has not logged the move of HEAD")?)?;
        }
        Ok(durable::rename(&own::new_head(state, id), &repo.git_dir.join("HEAD"))?)
    }

    /// The shadow's line, with the commits of the real HEAD.
    fn log_line(&self, line: &[u8]) -> Option<Vec<u8>> {
        let any = self.from_commit.or(self.to_commit)?;
        let hex = |commit: &Option<Oid>| commit.map_or_else(|| any.null_like(), |oid| oid.hex().to_owned());
        let rest = line.splitn(3, |b| *b == b' ').nth(2)?;
        Some([hex(&self.from_commit).as_bytes(), b" ", hex(&self.to_commit).as_bytes(), b" ", rest].concat())
    }
}
