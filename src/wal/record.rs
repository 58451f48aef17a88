//! What a record says.
//!
//! Records of a newer format and of an unknown type are kept and shown, and never acted upon ([`Body::Unknown`]). How a
//! record becomes bytes is in [`codec`](crate::wal::codec).

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::fs::{Birth, FileId};
use crate::git::refs::RefSnapshot;
use crate::git::{RefName, Value};
use crate::process::operation::Root;
use crate::process::owner::{Owner, Process};
use crate::state::{TxId, TxKind, kept};
use crate::util::text::{escape, unescape};
use crate::wal::branch_log::BranchLog;
use crate::wal::files::FileChange;
use crate::wal::kept::KeptPart;

/// Log sequence number: the position of a record in the repository's history, counted from 1.
pub(crate) type Lsn = u64;

/// One ref of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefChange {
    /// Canonical name.
    #[serde(rename = "ref")]
    pub name: RefName,
    /// Before-image: the visible value, read under git's lock. `None` where we cannot read it (reftable).
    pub before: Option<Value>,
    /// After-image.
    pub after: Value,
    /// The loose file before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileId>,
    /// The lock; renamed into place it becomes the loose file, and is known by inode, size and mtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<FileId>,
    /// Size of the reflog before; `None` when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<u64>,
}

/// A ref that git locks and logs in a transaction without changing its value (HEAD, mostly).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Canonical name.
    #[serde(rename = "ref")]
    pub name: RefName,
    /// Its lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<FileId>,
    /// Size of its reflog before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<u64>,
}

/// The transaction deletes a branch that is being renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rename {
    /// The reflog that git has moved aside, at `logs/refs/.tmp-renamed-log`; `None` when the branch has none.
    pub log: Option<FileId>,
    /// The new name, as the command line has it.
    pub to: Option<RefName>,
    /// A program other than git makes it, which says of no branch: HEAD and the configuration stay as they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
}

/// What an `undo` or `redo` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reversal {
    /// It takes this transaction back.
    Undo(TxId),
    /// It does this transaction, which had been undone, again.
    Redo(TxId),
}

impl std::fmt::Display for Reversal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reversal::Undo(id) => write!(f, "undo {id}"),
            Reversal::Redo(id) => write!(f, "redo {id}"),
        }
    }
}

impl std::str::FromStr for Reversal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(' ') {
            Some(("undo", id)) => Ok(Reversal::Undo(id.parse()?)),
            Some(("redo", id)) => Ok(Reversal::Redo(id.parse()?)),
            _ => Err(format!("`{}` is neither an undo nor a redo", text.escape_debug())),
        }
    }
}

/// A command that stops and is continued (rebase, am, cherry-pick, revert, bisect), by what it leaves in the git directory of its
/// worktree while it is in progress.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sequence {
    /// The name of its directory or file.
    pub name: String,
    /// Which one: names are used again.
    #[serde(flatten)]
    pub birth: Birth,
}

/// Who made an operation that moves no ref.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Doer {
    /// The id of the operation.
    pub id: TxId,
    /// The command line of its git.
    pub operation: String,
    /// The git process.
    #[serde(flatten)]
    pub owner: Owner,
    /// The root of the operation, where that is another git than `owner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// The worktree's git directory, relative to the common one; empty for the main worktree.
    pub worktree: String,
    /// The directory that this is, of a linked worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worktree_birth: Option<Birth>,
}

/// What ties a run to its snapshot: one that is not this one, or lies in a copy of the state directory, is not restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// SHA-256 of the snapshot's text, in hex.
    pub sha256: String,
    /// The state directory in which it was taken.
    pub state_dir: Birth,
}

/// `checkout`: what the post-checkout hook was told, or a transaction that leaves HEAD where it is (`reset --hard`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkout {
    /// HEAD before.
    pub from: String,
    /// HEAD after.
    pub to: String,
    /// A branch checkout (else a file checkout).
    pub branch: bool,
    /// HEAD of the worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<RefSnapshot>,
    /// The run whose command checked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<TxId>,
    /// Whose operation it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Box<Doer>>,
}

/// A file that a transaction of ours replaces as a whole: the index of a worktree, the configuration, the log of refs/stash.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NewFile {
    /// The file that it replaces; `None` where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<FileId>,
    /// The new one: staged, and under its second name `index.lock` or `config.lock`.
    pub after: FileId,
}

/// A state file of a merge or a pick, which a transaction of ours puts back or takes away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// Its name in the git directory of the worktree.
    pub name: String,
    /// It comes; else it goes.
    pub comes: bool,
}

/// Reads names of state files: no others.
fn of_a_commit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<StateChange>, D::Error> {
    let changes = Vec::<StateChange>::deserialize(deserializer)?;
    let is_known = |change: &StateChange| kept::OF_A_COMMIT.contains(&change.name.as_str());
    if changes.iter().all(is_known) { Ok(changes) } else { Err(de::Error::custom("a name of no state file")) }
}

/// `begin`: everything that recovery needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// Who makes the transaction.
    pub origin: TxKind,
    /// git's command line.
    pub operation: String,
    /// The git process.
    #[serde(flatten)]
    pub owner: Owner,
    /// The root of the operation that it is part of, where that is another git than `owner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// The sequence that was in progress in the worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// What the hook has kept for its undo.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptPart>,
    /// The hook process.
    pub hook_process: Process,
    /// The worktree's git directory, relative to the common one; empty for the main worktree.
    pub worktree: String,
    /// The directory that this is, of a linked worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worktree_birth: Option<Birth>,
    /// `true` when refs are stored in a reftable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reftable: bool,
    /// git may have rejected some of these updates and go on with the others, so that a lock listed here
    /// may belong to somebody else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batched: bool,
    /// The refs that change.
    pub refs: Vec<RefChange>,
    /// The refs that are locked or logged only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watched: Vec<Watched>,
    /// Names that we would not make, as text: they were to change as well, and git alone knows what became of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "escaped")]
    pub left: Vec<String>,
    /// `packed-refs.lock`, when git had to take it for this transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed_lock: Option<FileId>,
    /// `index.lock` of the worktree, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_lock: Option<FileId>,
    /// `index` of the worktree, when there was an `index.lock`: what that was to replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<FileId>,
    /// Set when this deletion is half of a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rename: Option<Rename>,
    /// `packed-refs`: what showed the value of every ref without a loose file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<FileId>,
    /// HEAD of the worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<RefSnapshot>,
    /// It takes back, or does again, what another one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverses: Option<Reversal>,
    /// The `run` whose command made this transaction: they are taken back together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<TxId>,
    /// git was told to go on only when everything on the file system, objects included, was durable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub barrier: bool,
    /// The files that change, in the order in which they are put into place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileChange>,
    /// The new index, of a transaction of ours that replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_index: Option<NewFile>,
    /// The new configuration, of a transaction of ours with which sections of branches come or go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_config: Option<NewFile>,
    /// The new log of refs/stash, of a transaction of ours with which entries of the list of stashes come or go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_stash_log: Option<NewFile>,
    /// The reflog of the new name, of a transaction of ours that renames a branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_branch_log: Option<BranchLog>,
    /// State files of what is in progress in the worktree, of a transaction of ours with which they come or go.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "of_a_commit")]
    pub states: Vec<StateChange>,
    /// The new HEAD, of a transaction of ours that moves it from or to a branch: staged, and under its second name `HEAD.lock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_head: Option<FileId>,
    /// The message for reflogs, of a transaction that we make.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Of a run: what it can be taken back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Seal>,
}

/// Reads names that are only shown: as we would have written them, so that none prints a line of its own.
fn escaped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let is_ours = |name: &String| unescape(name).is_some_and(|bytes| escape(&bytes) == name.as_str());
    if names.iter().all(is_ours) { Ok(names) } else { Err(de::Error::custom("a name with a broken escape")) }
}

impl Begin {
    /// The deletion of the old name of a branch that git renames, and the new name, which git makes outside of any transaction. One that
    /// is overwritten is deleted in a transaction of its own, which is not meant here.
    pub(crate) fn renamed(&self) -> Option<(&RefChange, &RefName)> {
        let new = self.rename.as_ref()?.to.as_ref()?;
        let old = self.refs.iter().find(|change| !change.name.is_head())?;
        (old.name != *new).then_some((old, new))
    }

    /// The name that a rename overwrites: it is deleted here, and made again outside of any transaction.
    pub(crate) fn overwritten(&self) -> Option<&RefName> {
        let new = self.rename.as_ref()?.to.as_ref()?;
        self.refs.iter().any(|change| change.name == *new).then_some(new)
    }

    /// A transaction that changes nothing yet; everything that `origin` knows of is filled in.
    #[must_use]
    pub fn new(origin: TxKind, operation: &str, owner: Owner, hook_process: Process) -> Begin {
        Begin {
            origin,
            operation: operation.to_owned(),
            owner,
            root: None,
            sequence: None,
            kept: Vec::new(),
            hook_process,
            worktree: String::new(),
            worktree_birth: None,
            reftable: false,
            batched: false,
            refs: Vec::new(),
            watched: Vec::new(),
            left: Vec::new(),
            packed_lock: None,
            index_lock: None,
            index: None,
            rename: None,
            packed: None,
            head: None,
            reverses: None,
            part_of: None,
            barrier: false,
            files: Vec::new(),
            new_index: None,
            new_config: None,
            new_stash_log: None,
            new_branch_log: None,
            states: Vec::new(),
            new_head: None,
            message: String::new(),
            snapshot: None,
        }
    }
}

/// How recovery ended a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All of it had been applied.
    Committed,
    /// Some of it had been applied and was taken back, or nothing had been.
    RolledBack,
    /// It needs manual resolution: somebody else's value is in the way.
    NeedsHuman,
    /// Closed by `recover --acknowledge`.
    Acknowledged,
}

/// What a record says. Serialized it is the record's `data`, without its type.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// About to be done.
    Begin(Box<Begin>),
    /// The commit point of a transaction that we make: everything as it was read under git's locks. From here on it is
    /// carried out, by recovery if need be.
    Decided(Box<Begin>),
    /// Done, as `committed` saw it.
    Committed {
        /// The refs as they are now.
        refs: Vec<RefSnapshot>,
    },
    /// git gave up before it changed anything.
    Aborted,
    /// This transaction is part of another one of the same process, which has all of it.
    Absorbed {
        /// The other one.
        by: TxId,
    },
    /// A `pack-refs` took the loose file away: from here on the packed entry is the evidence for its writer.
    Moved {
        /// The refs that moved.
        refs: Vec<RefSnapshot>,
    },
    /// Recovery ended the transaction, and left its refs as listed.
    Recovered {
        /// How.
        outcome: Outcome,
        /// What was done, a line each.
        actions: Vec<String>,
        /// The refs as recovery left them.
        refs: Vec<RefSnapshot>,
    },
    /// A checkout was completed.
    Checkout(Checkout),
    /// After a reboot: what was mended, and how the refs are now that the log did not expect.
    Baseline {
        /// The last record when the refs were read: what began after it knows better.
        as_of: Lsn,
        /// What was done, a line each.
        actions: Vec<String>,
        /// The refs as they are.
        refs: Vec<RefSnapshot>,
    },
    /// Everything before is durable, but for what is in flight. The first record of a segment, and one after a reboot.
    Checkpoint {
        /// Transactions that were unfinished.
        in_flight: Vec<TxId>,
        /// Boot id.
        boot: String,
        /// The state directory: a copy is another one.
        state_dir: Birth,
    },
    /// Written by a newer version.
    Unknown {
        /// Its type.
        kind: String,
        /// Its format.
        format: u32,
    },
}

/// A record with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its number.
    pub lsn: Lsn,
    /// The transaction that it is about, if any.
    pub tx: Option<TxId>,
    /// Unix time in seconds.
    pub time: u64,
    /// What it says.
    pub body: Body,
}

impl Body {
    /// The refs that the transaction changes, as far as others may build on that: an `apply` that was begun and not decided
    /// changes none.
    #[must_use]
    pub fn word(&self) -> Option<&Begin> {
        match self {
            Body::Begin(begin) if begin.origin != TxKind::Apply => Some(begin),
            Body::Decided(begin) => Some(begin),
            _ => None,
        }
    }

    /// Does this record end its transaction?
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Body::Committed { .. } | Body::Aborted | Body::Absorbed { .. } | Body::Recovered { .. })
    }
}
