//! The state files of a merge or a pick (MERGE_HEAD, MERGE_MSG ...), put back or taken away with a transaction of ours.
//!
//! ```text
//!  .jin/tx/<id>/state.new/<name>   comes: staged, and renamed into place
//!  .jin/tx/<id>/state.old/<name>   goes: a second name of the file, which is removed if it still is that one
//! ```
//! Who begins or ends a merge holds `index.lock`, and so do we meanwhile.

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::access::Purpose;
use crate::fs::{FileId, durable, named as fs};
use crate::state::{StateDir, TxId};
use crate::wal::StateChange;

fn new(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("state.new")
}

fn old(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("state.old")
}

/// Stages a file of the worktree with this git directory that comes with this content, or goes.
pub(crate) fn stage(
    state: &StateDir,
    id: TxId,
    git_dir: &Path,
    name: &str,
    content: Option<&[u8]>,
) -> io::Result<StateChange> {
    let (dir, path) = (if content.is_some() { new(state, id) } else { old(state, id) }, git_dir.join(name));
    durable::make_dirs(&dir, Purpose::State)?;
    match content {
        Some(content) => {
            let staged = dir.join(name);
            fs::sync_data(&staged, &durable::create_for(&path, &staged, content)?)?;
        }
        None => durable::keep_second(&path, &dir.join(name))?,
    }
    Ok(StateChange { name: name.to_owned(), comes: content.is_some() })
}

/// Puts them into place, and takes them away. Those are returned of which somebody has made others by now.
pub(crate) fn place(state: &StateDir, id: TxId, git_dir: &Path, changes: &[StateChange]) -> io::Result<Vec<String>> {
    let mut left = Vec::new();
    for StateChange { name, comes } in changes {
        let path = git_dir.join(name);
        if *comes {
            match durable::rename_new(&new(state, id).join(name), &path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => left.push(name.clone()),
                // It is in place already.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        } else if let Some(now) = FileId::at(&path)? {
            match FileId::at(&old(state, id).join(name))? {
                Some(was) if was.is_same_file(&now) => durable::remove_file(&path)?,
                _ => left.push(name.clone()),
            }
        }
    }
    Ok(left)
}
