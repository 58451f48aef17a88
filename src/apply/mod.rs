//! Transactions that we make: declared ref updates and file changes, all of them or none.
//!
//! ```text
//!   Transaction ──prepare──▶ Prepared ──commit──▶ Committed
//!   (queued)        │           │
//!                   │           └──abort, drop──▶ nothing was changed
//!                   └ a crash here: nothing was changed
//!
//!   marker ─▶ stage ─▶ log `begin` ─▶ git locks ─▶ log `decided` ─▶ git commits ─▶ files into ─▶ log `committed`
//!            files                    and asks          │          the refs         place
//!                                     the hooks         └ the commit point: a crash behind it is finished by recovery
//! ```
//! Before the commit point nothing is visible, so a crash leaves nothing but locks and staged files, which go. Behind it
//! recovery goes forward: what is missing is written, if it still is as the transaction found it. Somebody else's value
//! wins everywhere: before the commit point the whole transaction is given up, behind it that item is left and reported.
//!
//! Every item says what it expects to find ([`Expected`]); an expectation that is not met stops everything, and the error
//! ([`Unmet`]) names all that are not.
//!
//! # Examples
//! ```
//! # fn main() -> anyhow::Result<()> {
//! # let scratch = tempfile::tempdir()?;
//! # let git = |args: &[&str]| -> anyhow::Result<String> {
//! #     let mut git = std::process::Command::new("git");
//! #     git.current_dir(scratch.path()).args(["-c", "user.name=A", "-c", "user.email=a@example.com"]).args(args);
//! #     let output = git.output()?;
//! #     anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
//! #     Ok(String::from_utf8(output.stdout)?.trim().to_owned())
//! # };
//! # git(&["init", "-q"])?;
//! # git(&["commit", "-q", "--allow-empty", "-m", "first"])?;
//! # let commit = git(&["rev-parse", "HEAD"])?;
//! use jin_txn::{Expected, FileMode, Oid, RefName, RelPath, Repository, Source, Transaction};
//!
//! let repo = Repository::discover(scratch.path())?;
//! let commit = Oid::parse(commit.as_bytes()).expect("git prints object names");
//!
//! let mut transaction = Transaction::begin(&repo, "release 1.0");
//! transaction.update(RefName::parse(b"refs/tags/v1.0")?, commit, Expected::Absent);
//! transaction.update(RefName::parse(b"refs/heads/stable")?, commit, Expected::Anything);
//! let notes = Source::Bytes(b"1.0: the first\n".to_vec());
//! transaction.write(RelPath::parse(b"docs/NEWS")?, FileMode::Plain, notes, Expected::Absent);
//! let done = transaction.prepare()?.commit()?;
//!
//! assert_eq!(git(&["rev-parse", "v1.0", "stable"])?, format!("{0}\n{0}", commit));
//! assert_eq!(std::fs::read_to_string(scratch.path().join("docs/NEWS"))?, "1.0: the first\n");
//! assert_eq!(done.files.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//! - Somebody who looks between two of the steps behind the commit point sees some of the items new and others old: the
//!   promise is about crashes and failures, not about isolation. Refs of a reftable appear together.
//! - A program that writes into a file in place while it is being replaced writes into the one that comes out, which is kept.
//! - With a reftable, recovery tells by values alone what was applied: where somebody else made the same change at the same
//!   time the two cannot be told apart.
//! - Index and staging area stay as they are, but for an undo: `git status` shows what changed.
//! - A file and what is below its name cannot change places in one transaction.
//! - The worktree has to be on the file system of the git directory: files are renamed into place.

mod finish;
pub(crate) mod language;
pub mod manifest;
mod prepare;
pub(crate) mod queue;
mod refs;
pub(crate) mod rename;
mod session;
mod sessions;
pub(crate) mod swap;
pub(crate) mod unmet;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::fs::beneath::RelPath;
use crate::fs::durable;
use crate::git::refs::Value;
use crate::git::{Git, Oid, RefName, Repository};
use crate::process::redact;
use crate::state::marker::{Entry, Marker};
use crate::state::{Durability, StateDir, TxId, Wait};
use crate::wal::{Begin, Body, Flush, Log, RefChange, Reversal};

pub(crate) use crate::staging::stage::Source;
pub(crate) use crate::wal::{FileChange, FileMode};
pub(crate) use queue::{Deref, Expected};
pub(crate) use unmet::Unmet;

use crate::staging::worktree::Worktree;
use queue::{Content, FileItem, RefItem, RefTo};
use refs::Target;
use rename::LogMove;
use session::GitSession;
use swap::{FileSwap, HeadSwap, HeldLocks, LogSwap, StateSwap};

/// How long other transactions with files, and recovery, are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A transaction that is being put together. Nothing is touched before [`Transaction::prepare`].
#[derive(Debug, Clone)]
#[must_use = "a transaction does nothing until it is prepared and committed"]
pub struct Transaction {
    repo: Repository,
    operation: String,
    message: String,
    git: Git,
    refs: Vec<RefItem>,
    files: Vec<FileItem>,
    index: Option<FileSwap>,
    config: Option<FileSwap>,
    stash_log: Option<LogSwap>,
    branch_log: Option<LogMove>,
    states: Vec<StateSwap>,
    head: Option<HeadSwap>,
    head_now: Option<Value>,
    attributes: Option<Oid>,
    reverses: Option<Reversal>,
    part_of: Option<TxId>,
}

impl Transaction {
    /// Begins a transaction on `repo`; paths of files are in the worktree that it was opened from. `operation` says in the
    /// log, and in reflogs, what this is for.
    pub fn begin(repo: &Repository, operation: &str) -> Transaction {
        Transaction {
            repo: repo.clone(),
            operation: redact::text(&one_line(operation)),
            message: one_line(operation),
            git: Git::new(Path::new("git")).at(&repo.git_dir),
            refs: Vec::new(),
            files: Vec::new(),
            index: None,
            config: None,
            stash_log: None,
            branch_log: None,
            states: Vec::new(),
            head: None,
            head_now: None,
            attributes: None,
            reverses: None,
            part_of: None,
        }
    }

    /// Uses this git instead of the one in `PATH`.
    pub fn with_git(mut self, program: &Path) -> Transaction {
        self.git = Git::new(program).at(&self.repo.git_dir);
        self
    }

    /// Writes this into reflogs instead of the operation; the transaction's id is added.
    pub fn with_message(mut self, message: &str) -> Transaction {
        self.message = one_line(message);
        self
    }

    /// It is made by the command of a run, and is taken back with it.
    pub fn in_run(mut self, run: Option<TxId>) -> Transaction {
        self.part_of = run;
        self
    }

    /// It takes back, or does again, what another one did.
    pub(crate) fn that_reverses(mut self, reversal: Reversal) -> Transaction {
        self.reverses = Some(reversal);
        self
    }

    /// Queues: `name` becomes `to`. A symbolic ref is followed; see [`Transaction::update_itself`].
    pub fn update(&mut self, name: RefName, to: Oid, expected: Expected) -> &mut Transaction {
        self.push(name, RefTo::Value(Value::Oid(to)), expected, Deref::Yes)
    }

    /// Queues: `name` itself becomes `to`, also when it is a symbolic ref.
    pub fn update_itself(&mut self, name: RefName, to: Oid, expected: Expected) -> &mut Transaction {
        self.push(name, RefTo::Value(Value::Oid(to)), expected, Deref::No)
    }

    /// Queues: `name` is deleted. A symbolic ref is followed; see [`Transaction::delete_itself`].
    pub fn delete(&mut self, name: RefName, expected: Expected) -> &mut Transaction {
        self.push(name, RefTo::Value(Value::Absent), expected, Deref::Yes)
    }

    /// Queues: `name` itself is deleted, also when it is a symbolic ref.
    pub fn delete_itself(&mut self, name: RefName, expected: Expected) -> &mut Transaction {
        self.push(name, RefTo::Value(Value::Absent), expected, Deref::No)
    }

    /// Queues: `name` becomes a symbolic ref to `target`. Needs git 2.46.
    pub fn point(&mut self, name: RefName, target: RefName, expected: Expected) -> &mut Transaction {
        self.push(name, RefTo::Value(Value::Symref(target)), expected, Deref::No)
    }

    /// Queues: `name` is as expected, and nobody changes it until the refs are written.
    pub fn verify(&mut self, name: RefName, expected: Expected, deref: Deref) -> &mut Transaction {
        self.push(name, RefTo::Same, expected, deref)
    }

    /// Queues: the file `path` has these bytes and this mode. Missing directories are made. `expected` is the blob of what is
    /// there, as `git hash-object --no-filters` names it.
    pub fn write(&mut self, path: RelPath, mode: FileMode, source: Source, expected: Expected) -> &mut Transaction {
        self.files.push(FileItem { path, to: Some((mode, Content::Of(source))), expected });
        self
    }

    /// Queues: the file `path` becomes what a checkout would write of the blob `oid`.
    pub(crate) fn check_out(
        &mut self,
        path: RelPath,
        mode: FileMode,
        oid: Oid,
        expected: Expected,
    ) -> &mut Transaction {
        self.files.push(FileItem { path, to: Some((mode, Content::Checkout(oid))), expected });
        self
    }

    /// What is checked out has the attributes of this commit, and not those of the worktree.
    pub(crate) fn with_attributes_of(&mut self, commit: Option<Oid>) -> &mut Transaction {
        self.attributes = commit;
        self
    }

    /// The index is replaced.
    pub(crate) fn replace_index(&mut self, index: FileSwap) -> &mut Transaction {
        self.index = Some(index);
        self
    }

    /// The configuration is replaced: sections of branches come or go.
    pub(crate) fn replace_config(&mut self, config: FileSwap) -> &mut Transaction {
        self.config = Some(config);
        self
    }

    /// The log of refs/stash is replaced, or goes with its ref: entries of the list of stashes come or go.
    pub(crate) fn replace_stash_log(&mut self, log: LogSwap) -> &mut Transaction {
        self.stash_log = Some(log);
        self
    }

    /// A branch gets another name: its reflog goes along.
    pub(crate) fn move_branch_log(&mut self, log: LogMove) -> &mut Transaction {
        self.branch_log = Some(log);
        self
    }

    /// State files come or go. The index is replaced, too: its lock keeps others from beginning or ending anything.
    pub(crate) fn replace_states(&mut self, states: Vec<StateSwap>) -> &mut Transaction {
        self.states = states;
        self
    }

    /// HEAD has to be this when everything is locked.
    pub(crate) fn require_head(&mut self, head: Value) -> &mut Transaction {
        self.head_now = Some(head);
        self
    }

    /// HEAD itself moves: from or to a branch.
    pub(crate) fn move_head(&mut self, head: HeadSwap) -> &mut Transaction {
        self.head = Some(head);
        self
    }

    /// Queues: the file `path` is removed, and directories that are empty then.
    pub fn remove(&mut self, path: RelPath, expected: Expected) -> &mut Transaction {
        self.files.push(FileItem { path, to: None, expected });
        self
    }

    /// Is nothing queued?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.refs.is_empty() && self.is_of_refs()
    }

    fn is_of_refs(&self) -> bool {
        let is_whole = self.index.is_some() || self.config.is_some() || self.stash_log.is_some();
        self.files.is_empty() && !is_whole && self.head.is_none() && self.branch_log.is_none()
    }

    fn push(&mut self, name: RefName, to: RefTo, expected: Expected, deref: Deref) -> &mut Transaction {
        self.refs.push(RefItem { name, to, expected, deref });
        self
    }
}

/// A transaction that holds all its locks and could be done. Dropped, it is given up.
#[derive(Debug)]
#[must_use = "a prepared transaction is given up unless it is committed"]
pub struct Prepared {
    open: Option<Open>,
}

/// Everything that a prepared transaction holds.
#[derive(Debug)]
struct Open {
    repo: Repository,
    program: PathBuf,
    state: StateDir,
    boot: String,
    id: TxId,
    entry: Entry,
    marker: Marker,
    git: Option<GitSession>,
    /// Refs that come when others have gone.
    later: Vec<Target>,
    worktree: Option<Worktree>,
    begin: Begin,
    durability: Durability,
    /// When the files were read.
    read_at: i64,
    /// `index.lock`, `config.lock` and `HEAD.lock`.
    locks: HeldLocks,
    head: Option<HeadSwap>,
    /// Where git is told that it works.
    refs_at: Git,
    /// Other transactions with files wait until this is closed.
    _files_lock: Option<std::fs::File>,
}

/// A transaction that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// Its id: `jin-txn show` and `undo` know it by that.
    pub id: TxId,
    /// The refs that changed, with both values. Of a symbolic ref that was followed it is the one that it points to.
    pub refs: Vec<RefChange>,
    /// The files that changed, with both images.
    pub files: Vec<FileChange>,
    /// Items that somebody else changed behind the commit point: they have that value, and a human has to look.
    pub left: Vec<String>,
    /// What git and its hooks wrote to stderr.
    pub said: String,
}

impl Prepared {
    /// The transaction's id.
    #[must_use]
    pub fn id(&self) -> TxId {
        self.open().id
    }

    /// The refs that will change.
    #[must_use]
    pub fn refs(&self) -> &[RefChange] {
        &self.open().begin.refs
    }

    /// The files that will change.
    #[must_use]
    pub fn files(&self) -> &[FileChange] {
        &self.open().begin.files
    }

    fn open(&self) -> &Open {
        self.open.as_ref().expect("it is taken out only by what consumes it")
    }

    /// Does it.
    ///
    /// # Errors
    /// Before the commit point (a file has changed since [`Transaction::prepare`]: [`Unmet`]; the log cannot be written)
    /// nothing was changed. Behind it the error says that the transaction is decided: recovery finishes it.
    pub fn commit(mut self) -> anyhow::Result<Committed> {
        let open = self.open.take().expect("it is taken out only by what consumes it");
        match open.decide() {
            Ok(()) => open.finish(),
            Err(error) => {
                open.give_up().context("cannot give the transaction up after an error")?;
                Err(error)
            }
        }
    }

    /// Gives it up: nothing was changed.
    ///
    /// # Errors
    /// The log or the marker cannot be written; recovery finds that nothing had happened.
    pub fn abort(mut self) -> anyhow::Result<()> {
        self.open.take().map_or(Ok(()), Open::give_up)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(open) = self.open.take()
            && open.give_up().is_err()
        {
            // Recovery finds that nothing had happened.
        }
    }
}

impl Open {
    fn log(&self) -> Log<'_> {
        Log::new(&self.state, &self.boot, Wait::UpTo(PATIENCE))
    }

    /// The commit point.
    fn decide(&self) -> anyhow::Result<()> {
        if let Some(worktree) = &self.worktree {
            unmet::recheck(worktree, &self.begin.files)?;
        }
        // The barrier takes the locks with the new values along: what git renames is durable already.
        let sync = if self.durability == Durability::Full { Flush::Barrier } else { Flush::Yes };
        let still_ours = || self.entry.path.exists();
        let decided = Body::Decided(Box::new(self.begin.clone()));
        let lsn = self.log().append_if(Some(self.id), &decided, sync, still_ours);
        match lsn {
            Ok(Some(_)) => Ok(()),
            Ok(None) => anyhow::bail!("another process removed the marker of {}", self.id),
            Err(error) => {
                // The record may be there although its sync failed: say that nothing came of it.
                if self.log().append(Some(self.id), &Body::Aborted, Flush::Yes).is_err() {
                    return Err(error.context(format!("{} may be decided: run `git txn recover`", self.id)));
                }
                Err(error)
            }
        }
    }

    /// Before the commit point: nothing was changed, nothing is left.
    fn give_up(mut self) -> anyhow::Result<()> {
        if let Some(git) = self.git.take() {
            git.abort()?;
        }
        self.locks.release()?;
        self.log().append(Some(self.id), &Body::Aborted, Flush::No)?;
        durable::remove_tree(&self.state.tx(self.id))?;
        self.entry.remove()?;
        Ok(())
    }
}

/// Reflogs have one line for each entry, the log shows one for each transaction.
fn one_line(text: &str) -> String {
    crate::util::text::shortened(text, 500).trim().to_owned()
}
