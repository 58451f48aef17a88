//! `.jin/kept/`: what is kept of transactions that have ended, so that their operations can be undone. It has the bounds of the
//! quarantine.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fs::door::{self, Kind};
use crate::fs::{absent_is_none, durable, named as fs};
use crate::git::Repository;
use crate::state::directory::StateDir;
use crate::state::{TxId, quarantine};
use crate::util::clock::unix_time;

/// Copies of the state files (MERGE_HEAD, rebase-merge/ ...) that the operation found.
pub(crate) const STATE: &str = "state";

/// A second name of the index that the operation found.
pub(crate) const INDEX: &str = "index.before";

/// The same where git had replaced the index already: the one that the last operation left. What was staged between the two
/// is not in it.
pub(crate) const LAST_INDEX: &str = "index.last";

/// The configuration sections of branches that the operation made, deleted or renamed, as it found them.
pub(crate) const SECTIONS: &str = "config.sections";

/// A second name of the log of refs/stash as the operation found it that deleted that.
pub(crate) const STASH_LOG: &str = "stash.log";

/// The names of files that were not as the index had them, before a stash was made.
pub(crate) const MODIFIED: &str = "modified";

/// The index of a worktree as its last operation left it, and the mark of that operation: one file for each worktree.
const STANDING: [&str; 2] = ["last.index", "last.kept"];

/// The index that the transaction left, and the one that it replaced, kept for recovery: alone they are not worth keeping.
const OF_RECOVERY: [&str; 2] = ["index", "index.replaced"];

/// What a sequence leaves in its git directory while it is in progress. The first that is there names it.
pub(crate) const SEQUENCES: [&str; 4] = ["rebase-merge", "rebase-apply", "sequencer", "BISECT_LOG"];

/// Other state files.
const STATES: [&str; 8] =
    ["AUTO_MERGE", "CHERRY_PICK_HEAD", AUTOSTASH, "MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "REVERT_HEAD", "SQUASH_MSG"];

/// The stash of `git merge --autostash`.
pub(crate) const AUTOSTASH: &str = "MERGE_AUTOSTASH";

/// Those that a single merge, cherry-pick or revert has, and the commit that ends it takes away.
pub(crate) const OF_A_COMMIT: [&str; 5] = ["CHERRY_PICK_HEAD", "MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "REVERT_HEAD"];

/// Whenever a multiple of so many transactions have kept files the directory is swept. Ids would not do: those of transactions that
/// keep files may all be odd.
const SWEEP_EVERY: usize = 16;

/// Takes the files of a transaction out of the way when it has ended.
pub(crate) fn put_away(state: &StateDir, id: TxId) -> io::Result<()> {
    let dir = state.tx(id);
    if absent_is_none(fs::symlink_metadata(&dir))?.is_none() {
        return Ok(());
    }
    let is_wanted = |(name, _): &(std::ffi::OsString, Kind)| !OF_RECOVERY.iter().any(|own| name == own);
    if !door::entries(&dir)?.into_iter().flatten().any(|entry| is_wanted(&entry)) {
        return durable::remove_tree(&dir);
    }
    state.create_missing([state.kept()])?;
    let kept = door::entries(&state.kept())?.into_iter().flatten().count();
    if kept > 0 && kept.is_multiple_of(SWEEP_EVERY) {
        sweep(state)?;
    }
    let to = state.kept().join(format!("{}-{id}", unix_time()));
    match durable::rename_new(&dir, &to) {
        // Ids are not used again: this is what a copy of the repository has brought along.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => durable::remove_tree(&dir),
        other => other,
    }
}

/// Bounds what is kept here and in the quarantine, and removes what stands for worktrees that are gone.
pub(crate) fn sweep(state: &StateDir) -> io::Result<()> {
    quarantine::sweep_dir(state, &state.quarantine())?;
    quarantine::sweep_dir(state, &state.kept())?;
    let worktrees = state.path().parent().map_or_else(PathBuf::new, |common_dir| common_dir.join("worktrees"));
    let found = door::entries(&worktrees)?.into_iter().flatten();
    let worktrees: Vec<String> = found.map(|(name, _)| suffix(name.as_bytes())).collect();
    // A file that is being written has a process id behind its name.
    let is_of = |file: &str, worktree: &String| {
        file.strip_prefix(worktree.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    for (name, _) in door::entries(state.path())?.into_iter().flatten() {
        let of =
            name.to_str().and_then(|name| STANDING.iter().find_map(|own| name.strip_prefix(own)?.strip_prefix('@')));
        if of.is_some_and(|of| !worktrees.iter().any(|worktree| is_of(of, worktree))) {
            durable::remove_file(&state.path().join(&name))?;
        }
    }
    Ok(())
}

/// Where the files of `transactions` are kept, in their order.
pub(crate) fn find(state: &StateDir, transactions: &[TxId]) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(usize, PathBuf)> = Vec::new();
    let place = |name: &str| transactions.iter().position(|id| id.to_string() == name);
    for (name, kind) in door::entries(&state.kept())?.into_iter().flatten() {
        let id = name.to_str().and_then(|name| name.split_once('-')).and_then(|(_, id)| place(id));
        if let Some(at) = id.filter(|_| kind == Kind::Directory) {
            found.push((at, state.kept().join(&name)));
        }
    }
    for (at, id) in transactions.iter().enumerate() {
        let dir = state.tx(*id);
        if absent_is_none(fs::symlink_metadata(&dir))?.is_some_and(|found| found.is_dir()) {
            found.push((at, dir));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, dir)| dir).collect())
}

/// The standing second name of a worktree's index, as the last operation there left it. `worktree` is its name, none of the main
/// one.
pub(crate) fn last_index(state: &StateDir, worktree: Option<&[u8]>) -> PathBuf {
    state.path().join(of_worktree(STANDING[0], worktree))
}

/// The standing second name of the log of refs/stash.
pub(crate) fn last_stash(state: &StateDir) -> PathBuf {
    state.path().join("last.stash")
}

/// Names the operation for which files were kept last, by its process.
pub(crate) fn mark_name(worktree: Option<&[u8]>) -> String {
    of_worktree(STANDING[1], worktree)
}

fn of_worktree(name: &str, worktree: Option<&[u8]>) -> String {
    worktree.map_or_else(|| name.to_owned(), |w| format!("{name}@{}", suffix(w)))
}

fn suffix(worktree: &[u8]) -> String {
    quarantine::flat(&crate::util::text::escape(worktree))
}

/// Gives `standing` the file that `original` is now: a second name, no copy. Where there are no links there is none.
pub(crate) fn renew(original: &Path, standing: &Path) -> io::Result<()> {
    let Some(now) = absent_is_none(fs::symlink_metadata(original))?.filter(fs::Metadata::is_file) else {
        return Ok(());
    };
    let inode = |found: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(found);
    // The second name keeps the inode from being used again.
    if absent_is_none(fs::symlink_metadata(standing))?.is_some_and(|was| inode(&was) == inode(&now)) {
        return Ok(());
    }
    durable::remove_file_here(standing)?;
    if durable::hard_link(original, standing).is_err() {
        // The file belongs to another user, or was replaced just now: then undo knows less.
    }
    Ok(())
}

/// Gives the index of a worktree and the log of refs/stash their standing second names. `new_index` is the index that is about to
/// be put into place.
pub(crate) fn renew_standing(repo: &Repository, state: &StateDir, new_index: Option<PathBuf>) -> io::Result<()> {
    let index = new_index.unwrap_or_else(|| repo.git_dir.join("index"));
    renew(&index, &last_index(state, repo.worktree_name()))?;
    renew(&repo.common_dir.join("logs/refs/stash"), &last_stash(state))
}

/// The same when an undo or a redo has ended, which may have replaced the configuration as well.
pub(crate) fn renew_after_undo(repo: &Repository, state: &StateDir) -> io::Result<()> {
    renew(&repo.common_dir.join("config"), &state.saved_config())?;
    renew_standing(repo, state, None)
}

/// Is this the name of a state file or directory, right in the git directory of a worktree?
pub(crate) fn is_state(name: &OsStr) -> bool {
    STATES.iter().chain(&SEQUENCES).any(|state| name == *state) || name.as_bytes().starts_with(b"BISECT_")
}
