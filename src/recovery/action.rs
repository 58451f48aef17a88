//! What recovery does, as values. [`perform`](crate::recovery::perform) performs a list of them, or tells it.
//!
//! The order within one transaction: reflogs of deleted refs come back *before* the refs (git would begin new ones),
//! reflog entries of what never happened go *after* them, then the record, and the marker goes last: while it exists,
//! recovery comes back.

use std::path::PathBuf;

use crate::git::RefName;
use crate::git::refs::RefSnapshot;
use crate::git::update_refs::RefWrite;
use crate::locks::{DeadLock, LockFile};
use crate::recovery::power_cut::lost::{DamagedReflog, LostIndex, LostObjects};
use crate::recovery::power_cut::repair::Repair;
use crate::recovery::progress::Verb;
use crate::recovery::reflogs::Trim;
use crate::recovery::removed_index::RemovedIndex;
use crate::recovery::run_rollback::dead_run::DeadRun;
use crate::state::TxId;
use crate::state::marker::{Entry, State};
use crate::wal::{Begin, Lsn, Outcome};

/// One action. What it does is said in its line, which the log and the report have.
#[derive(Debug)]
pub(crate) enum Action {
    /// Says what was found.
    Tell(String),
    /// Begins the lines anew: what follows is about another transaction.
    Forget,
    /// Puts the reflog of a ref back that git removed for a deletion which did not happen in the end.
    PutReflogBack { saved: PathBuf, name: RefName },
    /// Moves the reflog that a rename had on its way (told by its inode) to where it belongs.
    MoveReflog { from: PathBuf, ino: u64, to: PathBuf },
    /// Cuts entries off that tell of updates which did not happen.
    TrimReflog(Trim),
    /// Moves the reflog of a deleted ref to quarantine, of that recorded size: a new branch of that name would begin with it.
    DropReflog { name: RefName, size: Option<u64> },
    /// Appends the entry to HEAD's reflog that the log of its branch has, and it lacks.
    CompleteHeadLog(Box<Begin>),
    /// Writes refs, all or none, each only if it still has the value that the evidence was taken from.
    WriteRefs { git_dir: PathBuf, writes: Vec<RefWrite>, message: String, verb: Verb },
    /// Points a worktree's HEAD to the new name of its branch.
    FollowRename { git_dir: PathBuf, old: RefName, new: RefName },
    /// Renames a branch's section of the configuration.
    RenameSection { old: String, new: String },
    /// Puts the staged files of a decided transaction into place.
    PlaceFiles { id: TxId, git_dir: PathBuf, begin: Box<Begin> },
    /// The index of this worktree is the one that an operation left: the next undo compares with it.
    RenewStanding { git_dir: PathBuf },
    /// Makes everything on the file system durable.
    Sync,
    /// Logs how recovery ended a transaction.
    Record { id: TxId, outcome: Outcome, refs: Snapshot },
    /// Where something was left for a person to decide, logs the refs as they are: a reboot must not decide it.
    KeepFromReboot(Box<Begin>),
    /// Gives a marker another name.
    Mark { entry: Entry, state: State },
    /// Moves a damaged marker to quarantine.
    SetMarkerAside(Entry),
    /// Gives a marker its last name, and cleans up unless a person has to decide.
    Conclude { entry: Entry, state: State },
    /// Removes what a transaction left in `.jin`, the marker last.
    Close { entry: Entry, state: State },
    /// Removes what a run left in `.jin`.
    CloseRun { entry: Entry, state: State },
    /// Removes these markers that were never published, and staged files without a marker.
    Sweep(Vec<PathBuf>),
    /// Takes a run back.
    RestoreRun(Box<DeadRun>),
    /// Moves a lock to quarantine.
    RemoveLock(DeadLock),
    /// Renames a lock into place; the file that it replaces is kept in quarantine, if that is wanted.
    FinishLock { lock: DeadLock, keep: Option<PathBuf> },
    /// Puts the index of a finished commit into place, of which git had removed the lock.
    FinishIndex(RemovedIndex),
    /// Cuts the entry of a move of HEAD that was cut, whose lock this is.
    TrimUnfinishedMove(LockFile),
    /// Moves something to quarantine.
    SetAside(PathBuf),
    /// Moves the directory of a worktree that was being made to quarantine, and what git made elsewhere for it.
    TakeWorktreeApart { lock: DeadLock, dir: PathBuf, worktree: Option<PathBuf> },
    /// Replaces a file, keeping what was there, while the lock is held.
    ReplaceFile { path: PathBuf, content: Vec<u8>, lock: Option<PathBuf> },
    /// Writes refs again that a power cut took back, or gives them their newest whole value.
    Redo(Vec<Repair>),
    /// Cuts the damaged end of a reflog off.
    CutReflog(DamagedReflog),
    /// Writes objects again that an index names.
    WriteStaged(LostObjects),
    /// Builds an index anew.
    RebuildIndex(LostIndex),
    /// Ends the check after a reboot.
    EndBootCheck { as_of: Lsn, lines: Vec<String>, refs: Vec<RefSnapshot> },
}

/// Which refs a record has.
#[derive(Debug)]
pub(crate) enum Snapshot {
    /// None.
    None,
    /// All of a transaction, as they are then.
    All(Box<Begin>),
    /// Those of a transaction that recovery wrote.
    Written(Box<Begin>),
}
