//! The index of a worktree, its HEAD and the configuration, replaced as whole files.
//!
//! ```text
//!  .jin/tx/<id>/index.new   the new one. Its second name is `index.lock`: whoever holds that lock holds it by this file
//!  .jin/tx/<id>/index.old   a second name of the one that it replaces
//!  .jin/tx/<id>/config.new, config.old   the same of the configuration
//! ```
//! It is put into place by a rename of the first name, so that what is staged is what is not in place yet.
//!
//! Of a configuration only what it says of branches is ever replaced, whatever was staged.

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::{FileId, durable, named as fs, with_suffix};
use crate::git::index::has_same_entries;
use crate::git::{Git, Repository, Value, branch_config};
use crate::staging::place::Placed;
use crate::state::directory::SMALL;
use crate::state::{StateDir, TxId};
use crate::wal::{Begin, NewFile, RefChange};

/// A file that is replaced as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    Index,
    Config,
}

/// The name under which the configuration that was replaced is kept.
pub(crate) const OLD_CONFIG: &str = "config.old";

impl Whole {
    /// Where it is: the index of the worktree with this git directory.
    pub(crate) fn path(self, repo: &Repository, git_dir: &Path) -> PathBuf {
        match self {
            Whole::Index => git_dir.join("index"),
            Whole::Config => repo.common_dir.join("config"),
        }
    }

    /// The lock that git takes for it.
    pub(crate) fn lock(self, repo: &Repository, git_dir: &Path) -> PathBuf {
        with_suffix(self.path(repo, git_dir), ".lock")
    }

    /// Where the new one is staged.
    pub(crate) fn staged(self, state: &StateDir, id: TxId) -> PathBuf {
        state.tx(id).join(match self {
            Whole::Index => "index.new",
            Whole::Config => "config.new",
        })
    }

    fn old(self, state: &StateDir, id: TxId) -> PathBuf {
        state.tx(id).join(match self {
            Whole::Index => "index.old",
            Whole::Config => OLD_CONFIG,
        })
    }

    fn is_unchanged(self, git: &Git, now: &Path, old: &Path) -> anyhow::Result<bool> {
        match self {
            Whole::Index => has_same_entries(git, now, old),
            Whole::Config => Ok(durable::read_own(now, SMALL)? == durable::read_own(old, SMALL)?),
        }
    }
}

/// The files that a transaction replaces as a whole, in the order in which they are put into place.
pub(crate) fn whole_files(begin: &Begin) -> impl Iterator<Item = (Whole, NewFile)> {
    let config = begin.new_config.map(|config| (Whole::Config, config));
    config.into_iter().chain(begin.new_index.map(|index| (Whole::Index, index)))
}

/// Stages the new content of `whole`, which is at `path`.
pub(crate) fn stage(state: &StateDir, id: TxId, whole: Whole, path: &Path, content: &[u8]) -> io::Result<FileId> {
    let staged = whole.staged(state, id);
    fs::sync_data(&staged, &durable::create_for(path, &staged, content)?)?;
    match durable::keep_second(path, &whole.old(state, id)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        kept => kept?,
    }
    FileId::at(&staged)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Puts the new one into place at `path`, unless what is there is another one by now. Call it while holding its lock.
pub(crate) fn place(
    state: &StateDir,
    id: TxId,
    git: &Git,
    (whole, path): (Whole, &Path),
    change: &NewFile,
    refs: &[RefChange],
) -> anyhow::Result<Placed> {
    let staged = whole.staged(state, id);
    if !FileId::at(&staged)?.is_some_and(|staged| staged.is_same_file(&change.after)) {
        return Ok(Placed::Already);
    }
    let now = FileId::at(path)?;
    let is_same = match (&now, &change.before) {
        (None, None) => true,
        (Some(now), Some(before)) => {
            let old = whole.old(state, id);
            // A second name of what was written in place says what that says now.
            let is_in_place = whole == Whole::Config
                && (now.ino == before.ino
                    || FileId::at(&old)?.is_some_and(|old| old.ino == before.ino && !old.is_same_file(before)));
            now.is_same_file(before) || (!is_in_place && whole.is_unchanged(git, path, &old)?)
        }
        _ => false,
    };
    if !is_same {
        return Ok(Placed::Left("another process has changed it".to_owned()));
    }
    if whole == Whole::Config {
        let branches = refs.iter().filter_map(|change| change.name.as_bytes().strip_prefix(b"refs/heads/"));
        let branches: Vec<&[u8]> = branches.collect();
        let (new, now) = (durable::read_own(&staged, SMALL)?, durable::read_own(path, SMALL)?);
        if !branch_config::differ_in_branches_only(git, &new, &now, &branches)? {
            return Ok(Placed::Left(
                "what was staged for it says more than the configuration of its branches".to_owned(),
            ));
        }
    }
    durable::rename(&staged, path)?;
    Ok(Placed::Now)
}

/// A git directory with the same common directory, in which branches are changed while somebody holds the real HEAD.
pub(crate) fn shadow(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("shadow")
}

/// The staged HEAD.
pub(crate) fn new_head(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("HEAD.new")
}

/// What a reflog says of a move of HEAD, in the words of `git checkout`: `git checkout -` goes by them.
pub(crate) fn moving_message(from: &Value, to: &Value) -> String {
    let short = |value: &Value| match value {
        Value::Symref(branch) => {
            let name = branch.to_string();
            name.strip_prefix("refs/heads/").map_or(name.clone(), str::to_owned)
        }
        other => other.to_string(),
    };
    format!("checkout: moving from {} to {}", short(from), short(to))
}
