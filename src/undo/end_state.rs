//! Is everything as the last operation left it?
//!
//! A bare undo takes back the newest operation of the log. What no hook saw may be newer: `git add`, `git branch -c`,
//! `git config`, `git stash drop`. So what can be known of the end of the last operation is compared with what is there now, and
//! whatever that operation does not explain makes a bare undo refuse.
//!
//! | what | the end of the last operation |
//! | --- | --- |
//! | refs, HEAD | the last value in the log; a ref that the log never had is new if its file is. Remote-tracking branches go on by themselves |
//! | index | its standing second name, by entries |
//! | log of refs/stash | its standing second name, by content |
//! | configuration | as the operation found it, but for the branches that it touched |
//! | state files | as the operation found them |
//! | linked worktrees, `config.worktree`, `info/sparse-checkout`; index and configuration written in place | not written since the log was |
//!
//! Limits: what git changes after its last hook is unknown, and refuses nothing alone: the index behind a merge that stopped, the
//! state files of sequences. Files of the worktree are not compared: edits are nobody's operation. Of a reftable only refs that
//! the log has are compared.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use crate::fs::door;
use crate::fs::{FileId, absent_is_none, durable};
use crate::git::reflog::LogLine;
use crate::git::{Git, Plumbing, RefFormat, RefName, RefStore, Repository, Value, index};
use crate::process::git_argv;
use crate::process::operation::{command_of, words_of};
use crate::state::directory::SMALL;
use crate::state::{StateDir, TxId, TxKind, kept};
use crate::undo::kept::Kept;
use crate::undo::stash;
use crate::wal::{Begin, Body, Operations, Outcome, Record, RefChange};

/// Something changed behind the last operation, and no hook saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    /// Refs, as they are now.
    Refs(Vec<(RefName, Value)>),
    /// HEAD, as it is now.
    Head(Value),
    /// Paths whose entries in the index are others.
    Index(Vec<String>),
    /// Keys of the configuration.
    Config(Vec<String>),
    /// Entries that the list of stashes does not have any more, by object.
    Stash(Vec<String>),
    /// State files that came or went.
    State(Vec<String>),
    /// Files of the git directory that have been written.
    Others(Vec<String>),
}

/// Commands that go on behind their last hook: what they leave in index and state files is not known.
const GO_ON: [&str; 7] = ["am", "bisect", "cherry-pick", "merge", "pull", "rebase", "revert"];

/// Commands that end what was in progress.
const END: [&str; 4] = ["checkout", "commit", "reset", "switch"];

/// The end of one operation.
struct End<'e> {
    repo: &'e Repository,
    git: Git,
    state: StateDir,
    records: &'e [Record],
    transactions: Vec<TxId>,
    begins: Vec<&'e Begin>,
}

/// What changed since the operation `id`, which is the newest of this worktree, and that no hook saw.
pub(crate) fn differences(
    repo: &Repository,
    git: &Git,
    records: &[Record],
    id: TxId,
) -> anyhow::Result<Vec<Difference>> {
    let operations = Operations::of(records);
    let own = records.iter().filter_map(|record| match (&record.body, record.tx) {
        (Body::Begin(begin) | Body::Decided(begin), Some(tx)) if operations.id(tx) == id => Some((tx, begin.as_ref())),
        _ => None,
    });
    let (transactions, begins) = own.unzip();
    let end = End { repo, git: git.at(&repo.git_dir), state: StateDir::of(repo), records, transactions, begins };
    let found = [end.head()?, end.refs()?, end.index()?, end.stash()?, end.config()?, end.states()?, end.others()?];
    Ok(found.into_iter().flatten().collect())
}

impl End<'_> {
    /// The command line.
    fn operation(&self) -> &str {
        let first = self.begins.first();
        first.map_or("", |begin| begin.root.as_ref().map_or(&begin.operation, |root| &root.operation))
    }

    fn command(&self) -> String {
        command_of(self.operation()).unwrap_or_default()
    }

    fn is_run(&self) -> bool {
        self.begins.iter().any(|begin| begin.origin == TxKind::Run)
    }

    /// HEAD may be back where the operation found it: up to git 2.45 a rebase takes it there outside of any transaction.
    fn head(&self) -> anyhow::Result<Option<Difference>> {
        let Some(now) = RefStore::new(self.repo).head()? else { return Ok(None) };
        let word = self.last_values().remove(&now.name);
        let found = self.begins.iter().find_map(|begin| begin.head.as_ref().filter(|head| head.name == now.name));
        let is_known = word.is_none_or(|word| word == now.value) || found.is_some_and(|head| head.value == now.value);
        Ok((!is_known).then_some(Difference::Head(now.value)))
    }

    fn refs(&self) -> anyhow::Result<Option<Difference>> {
        let refs = RefStore::new(self.repo);
        let now = self.refs_now(&refs)?;
        let words = self.last_values();
        let is_ref =
            |name: &RefName| name.as_bytes().starts_with(b"refs/") && !name.as_bytes().starts_with(b"refs/jin-txn/");
        let mut found = BTreeMap::new();
        for (name, word) in words.iter().filter(|(name, _)| is_ref(name)) {
            let value = now.get(name).cloned().unwrap_or(Value::Absent);
            if value != *word {
                found.insert(name.clone(), value);
            }
        }
        let end = self.log_time()?;
        for (name, value) in now.iter().filter(|(name, _)| is_ref(name) && !words.contains_key(*name)) {
            if self.repo.ref_format == RefFormat::Files
                && FileId::at(&refs.file(name))?.is_some_and(|file| file.ctime > end)
            {
                found.insert(name.clone(), value.clone());
            }
        }
        let found: Vec<_> = found.into_iter().filter(|(name, now)| !self.goes_on_by_itself(name, now)).collect();
        Ok((!found.is_empty()).then_some(Difference::Refs(found)))
    }

    /// Is it a remote-tracking branch that the operation has nothing to do with? Programs fetch whenever they like.
    fn goes_on_by_itself(&self, name: &RefName, now: &Value) -> bool {
        let is_touched = || self.begins.iter().any(|begin| begin.refs.iter().any(|change| change.name == *name));
        name.as_bytes().starts_with(b"refs/remotes/") && !matches!(now, Value::Symref(_)) && !is_touched()
    }

    fn refs_now(&self, refs: &RefStore<'_>) -> anyhow::Result<BTreeMap<RefName, Value>> {
        if self.repo.ref_format == RefFormat::Files {
            return Ok(refs.all()?);
        }
        let format = "%(objectname) %(symref) %(refname)";
        let ran = self.git.run(Plumbing::Refs { format, below: None, points_at: None })?;
        let mut found = BTreeMap::new();
        for line in ran.split(b'\n') {
            let mut words = line.splitn(3, |byte| *byte == b' ');
            let (Some(oid), Some(symref), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
            let text = if symref.is_empty() { oid.to_vec() } else { [b"ref:", symref].concat() };
            if let Ok(name) = RefName::parse(name) {
                found.insert(name, Value::of_payload(&text));
            }
        }
        Ok(found)
    }

    /// The last value of each ref that the log has.
    fn last_values(&self) -> HashMap<RefName, Value> {
        let (mut values, mut coming) = (HashMap::new(), HashMap::new());
        let mut open: HashMap<TxId, &Begin> = HashMap::new();
        for record in self.records {
            match &record.body {
                Body::Begin(begin) | Body::Decided(begin) => {
                    values.extend(begin.head.iter().map(|head| (head.name.clone(), head.value.clone())));
                    let before = begin.refs.iter().filter_map(|c| Some((c.name.clone(), c.before.clone()?)));
                    values.extend(before);
                    record.tx.and_then(|tx| open.insert(tx, begin));
                }
                Body::Committed { refs } | Body::Recovered { refs, .. } | Body::Baseline { refs, .. } => {
                    values.extend(refs.iter().map(|now| (now.name.clone(), now.value.clone())));
                    let begin = record.tx.and_then(|tx| open.remove(&tx));
                    let is_back =
                        matches!(&record.body, Body::Recovered { outcome, .. } if *outcome != Outcome::Committed);
                    let Some(begin) = begin.filter(|_| !is_back) else { continue };
                    let made = renamed(begin);
                    coming.extend(made.iter().cloned());
                    values.extend(made);
                    let again = begin.overwritten().and_then(|name| Some((name.clone(), coming.get(name)?.clone())));
                    values.extend(again);
                }
                Body::Checkout(checkout) => {
                    values.extend(checkout.head.iter().map(|head| (head.name.clone(), head.value.clone())));
                }
                _ => {}
            }
        }
        values
    }

    /// When the log was last written, by whomever: other worktrees share what is compared with it, and undo and redo write an index
    /// behind the operation.
    fn log_time(&self) -> io::Result<i64> {
        Ok(FileId::at(&self.state.path().join("log-head"))?.map_or(i64::MAX, |head| head.mtime))
    }

    fn index(&self) -> anyhow::Result<Option<Difference>> {
        let moved = self.begins.iter().any(|begin| begin.refs.iter().any(|change| !change.name.is_note()));
        // What else `git stash` leaves in the index is compared when it is undone.
        let stashes = self.command() == "stash" && !stash::is_of_list_only(self.operation());
        if !moved || self.is_run() || stashes {
            return Ok(None);
        }
        let (standing, now) =
            (kept::last_index(&self.state, self.repo.worktree_name()), self.repo.git_dir.join("index"));
        let (Some(was), Some(is)) = (FileId::at(&standing)?, FileId::at(&now)?) else { return Ok(None) };
        // git never writes one in place, and may have replaced it since it was.
        if was.mtime > self.log_time()? {
            return Ok(Some(Difference::Index(Vec::new())));
        }
        if was.ino == is.ino {
            return Ok(None);
        }
        let (Some((was, _)), Some((is, _))) = (index::read(&self.git, &standing)?, index::read(&self.git, &now)?)
        else {
            return Ok(Some(Difference::Index(Vec::new())));
        };
        let entries = |entries: &[crate::git::index_file::Entry]| -> BTreeMap<(Vec<u8>, u8), (u32, crate::git::Oid)> {
            entries.iter().map(|e| ((e.path.clone(), e.stage), (e.mode, e.oid))).collect()
        };
        let (was, is) = (entries(&was), entries(&is));
        let mut paths: Vec<String> = was
            .keys()
            .chain(is.keys())
            .filter(|key| was.get(*key) != is.get(*key))
            .map(|(path, _)| crate::util::text::escape(path).into_owned())
            .collect();
        paths.sort();
        paths.dedup();
        Ok((!paths.is_empty()).then_some(Difference::Index(paths)))
    }

    fn stash(&self) -> anyhow::Result<Option<Difference>> {
        let (standing, now) = (kept::last_stash(&self.state), self.repo.common_dir.join("logs/refs/stash"));
        let (Some(was), Some(is)) = (FileId::at(&standing)?, FileId::at(&now)?) else { return Ok(None) };
        if was.ino == is.ino {
            return Ok(None);
        }
        let (was, is) = (entries_of(&standing)?, entries_of(&now)?);
        let gone: Vec<String> = was.iter().filter(|entry| !is.contains(entry)).cloned().collect();
        Ok((was != is).then_some(Difference::Stash(gone)))
    }

    /// The configuration that the operation found has a second name.
    fn config(&self) -> anyhow::Result<Option<Difference>> {
        let (saved, now) = (self.state.saved_config(), self.repo.common_dir.join("config"));
        let (Some(was), Some(is)) = (FileId::at(&saved)?, FileId::at(&now)?) else { return Ok(None) };
        if self.is_run() {
            return Ok(None);
        }
        // The second name is of the same file: what was written in place has no former text.
        if was.mtime > self.log_time()? {
            return Ok(Some(Difference::Config(Vec::new())));
        }
        if was.is_same_file(&is) {
            return Ok(None);
        }
        let list = |path: &Path| -> anyhow::Result<Vec<String>> {
            let ran = self.git.command(Plumbing::ConfigText).stdin(durable::read_own(path, SMALL)?).run()?;
            Ok(ran.split(0).map(|setting| String::from_utf8_lossy(setting).into_owned()).collect())
        };
        let (was, is) = (list(&saved)?, list(&now)?);
        let changed = was.iter().filter(|s| !is.contains(s)).chain(is.iter().filter(|s| !was.contains(s)));
        let key = |setting: &String| setting.split('\n').next().unwrap_or_default().to_owned();
        let branches = self.branches();
        let is_explained = |key: &String| {
            let branch = key.strip_prefix("branch.").and_then(|rest| rest.rsplit_once('.')).map(|(name, _)| name);
            key.starts_with("jin.") || branch.is_some_and(|name| branches.iter().any(|own| own == name))
        };
        let mut keys: Vec<String> = changed.map(key).filter(|key| !is_explained(key)).collect();
        keys.sort();
        keys.dedup();
        Ok((!keys.is_empty()).then_some(Difference::Config(keys)))
    }

    /// The branches whose configuration the operation explains: those that it made or deleted, or wrote by a command that may configure
    /// them. What it says now is compared when it is
    /// undone.
    fn branches(&self) -> Vec<String> {
        let is_asked = |begin: &Begin, change: &RefChange| {
            let comes_or_goes = change.after == Value::Absent || change.before == Some(Value::Absent);
            comes_or_goes || git_argv::may_configure_branches(&words_of(&begin.operation))
        };
        let changes = self.begins.iter().flat_map(|begin| begin.refs.iter().map(move |change| (*begin, change)));
        let touched = changes.filter(|(begin, change)| is_asked(begin, change)).map(|(_, change)| change.name.clone());
        let renamed = self.begins.iter().filter_map(|begin| begin.rename.as_ref()?.to.clone());
        let short = |name: RefName| name.to_string().strip_prefix("refs/heads/").map(str::to_owned);
        touched.chain(renamed).filter_map(short).collect()
    }

    /// What has no former state to be compared with is known by when it was written last.
    fn others(&self) -> anyhow::Result<Option<Difference>> {
        let (common, own) = (&self.repo.common_dir, &self.repo.git_dir);
        let linked = self.repo.all_git_dirs().into_iter().skip(1).map(|git_dir| git_dir.join("gitdir"));
        let files = ["config.worktree", "info/sparse-checkout"].map(|name| own.join(name));
        let end = self.log_time()?;
        let mut found = Vec::new();
        for path in files.into_iter().chain([common.join("worktrees")]).chain(linked) {
            if FileId::at(&path)?.is_some_and(|file| file.mtime > end) {
                found.push(self.repo.relative(&path));
            }
        }
        Ok((!found.is_empty()).then_some(Difference::Others(found)))
    }

    fn states(&self) -> anyhow::Result<Option<Difference>> {
        let command = self.command();
        if GO_ON.iter().chain(&END).any(|it| *it == command) || self.is_run() {
            return Ok(None);
        }
        let before = match Kept::of(&self.state, &self.transactions)?.state_files {
            Some(dir) => states_in(&dir)?,
            None => Vec::new(),
        };
        let now = states_in(&self.repo.git_dir)?;
        let mut found: Vec<String> = now.iter().filter(|name| !before.contains(name)).cloned().collect();
        found.extend(before.into_iter().filter(|name| !now.contains(name)));
        Ok((!found.is_empty()).then_some(Difference::State(found)))
    }
}

/// What a rename makes outside of its transaction: the new name, and HEAD on it.
fn renamed(begin: &Begin) -> Vec<(RefName, Value)> {
    let Some((old, to)) = begin.renamed() else { return Vec::new() };
    let alone = begin.rename.as_ref().is_some_and(|rename| rename.alone);
    let is_on_it = |value: &Value| !alone && *value == Value::Symref(old.name.clone());
    let head = begin.head.as_ref().filter(|head| is_on_it(&head.value));
    let head = head.map(|head| (head.name.clone(), Value::Symref(to.clone())));
    old.before.clone().map(|value| (to.clone(), value)).into_iter().chain(head).collect()
}

/// The names of state files, but for AUTO_MERGE, which a finished rebase leaves.
fn states_in(dir: &Path) -> io::Result<Vec<String>> {
    let names = door::entries(dir)?.into_iter().flatten().map(|(name, _)| name);
    let mut names: Vec<String> =
        names.filter(|n| kept::is_state(n) && n != "AUTO_MERGE").map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The objects that a log names, oldest first.
fn entries_of(log: &Path) -> io::Result<Vec<String>> {
    const MOST: u64 = 64 << 20;
    let text = absent_is_none(durable::read_own(log, MOST))?.unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n').filter_map(LogLine::parse);
    Ok(lines.map(|line| String::from_utf8_lossy(line.new).into_owned()).collect())
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 5;
        let list = |names: &[String]| {
            let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
            format!("{}{more}", names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", "))
        };
        match self {
            Difference::Refs(refs) => {
                let one = |(name, value): &(RefName, Value)| format!("{name} is {value}");
                let refs: Vec<String> = refs.iter().map(one).collect();
                write!(f, "refs: {} (`git branch -c`, `git symbolic-ref`, or a program that is not git)", list(&refs))
            }
            Difference::Head(now) => write!(f, "HEAD is {now} (`git symbolic-ref`; `git switch` takes it back)"),
            Difference::Index(paths) if paths.is_empty() => {
                f.write_str("the index: something that is not git has written it, or it cannot be read")
            }
            Difference::Index(paths) => {
                write!(
                    f,
                    "the index: {} (`git add`, `git rm`, `git mv`, `git reset FILE`; `git restore --staged FILE` takes it back)",
                    list(paths)
                )
            }
            Difference::Config(keys) if keys.is_empty() => f.write_str("the configuration: it was edited in place"),
            Difference::Others(files) => {
                write!(f, "{} (`git worktree`, `git config --worktree`, `git sparse-checkout`)", list(files))
            }
            Difference::Config(keys) => {
                write!(f, "the configuration: {} (`git config`, `git branch -u`, `git remote`)", list(keys))
            }
            Difference::Stash(gone) => {
                write!(f, "the list of stashes (`git stash drop`, `pop` or `clear`)")?;
                gone.iter().take(SHOWN).try_for_each(|oid| write!(f, "; `git stash store {oid}` brings one back"))
            }
            Difference::State(names) => {
                write!(
                    f,
                    "what is in progress: {} (a merge, rebase or the like began or ended; see `git status`)",
                    list(names)
                )
            }
        }
    }
}
