//! The index of a worktree and its HEAD, replaced as whole files.
//!
//! ```text
//!  .jin/tx/<id>/index.new   the new one. Its second name is `index.lock`: whoever holds that lock holds it by this file
//!  .jin/tx/<id>/index.old   a second name of the one that it replaces
//! ```
//! It is put into place by a rename of the first name, so that what is staged is what is not in place yet.

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::{FileId, durable};
use crate::git::index::has_same_entries;
use crate::git::{Git, Value};
use crate::staging::place::Placed;
use crate::state::{StateDir, TxId};
use crate::wal::NewIndex;

/// Where the new index is staged.
pub(crate) fn new_index(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("index.new")
}

fn old_index(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("index.old")
}

/// Stages the new index of the worktree with this git directory.
pub(crate) fn stage(state: &StateDir, id: TxId, git_dir: &Path, content: &[u8]) -> io::Result<FileId> {
    let (staged, index) = (new_index(state, id), git_dir.join("index"));
    durable::create_for(&index, &staged, content)?.sync_data()?;
    match durable::keep_second(&index, &old_index(state, id)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        kept => kept?,
    }
    FileId::at(&staged)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Puts the new index into place, unless the index is another one by now. Call it while holding `index.lock`.
pub(crate) fn place(
    state: &StateDir,
    id: TxId,
    git: &Git,
    git_dir: &Path,
    change: &NewIndex,
) -> anyhow::Result<Placed> {
    let (staged, index) = (new_index(state, id), git_dir.join("index"));
    if !FileId::at(&staged)?.is_some_and(|staged| staged.is_same_file(&change.after)) {
        return Ok(Placed::Already);
    }
    let now = FileId::at(&index)?;
    let is_same = match (&now, &change.before) {
        (None, None) => true,
        (Some(now), Some(before)) => now.is_same_file(before) || has_same_entries(git, &index, &old_index(state, id))?,
        _ => false,
    };
    if !is_same {
        return Ok(Placed::Left("another process has changed it".to_owned()));
    }
    durable::rename(&staged, &index)?;
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
