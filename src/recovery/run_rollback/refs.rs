//! Refs, HEAD and reflogs of a run, back to where it found them.
//!
//! Only what the run itself moved goes back, and only while it is where the run left it. What somebody else moved since is
//! theirs, with its reflog. What the log does not explain is judged by [`crate::run::unlogged`].

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::access::Purpose;
use crate::fs::{FileId, absent_is_none, durable, moving, named as fs};
use crate::git::refs::{RefSnapshot, is_per_worktree};
use crate::git::update_refs::RefWrite;
use crate::git::{RefName, RefStore, Repository, Value, reflog};
use crate::recovery::files::{while_locked, write_refs};
use crate::recovery::run_rollback::dead_run::DeadRun;
use crate::recovery::run_rollback::place::READY;
use crate::recovery::run_rollback::worktree::Restored;
use crate::recovery::site::Site;
use crate::run::child_transactions::{self, Move};
use crate::run::manifest::{KeptLog, Manifest};
use crate::run::snapshot::reflog_copy;
use crate::run::unlogged::Unlogged;
use crate::state::quarantine::{flat, free_name};
use crate::state::{StateDir, TxId};
use crate::wal::Record;

const STASH: &[u8] = b"refs/stash";

/// What is to be done about the refs of a run.
#[derive(Debug, Default)]
pub(crate) struct RefPlan {
    /// Refs to write.
    pub(crate) writes: Vec<RefWrite>,
    /// Refs that somebody else has moved since.
    pub(crate) left: Vec<RefName>,
    /// Refs that changed, nobody knows by whom.
    pub(crate) unseen: Vec<RefName>,
    /// HEAD of the worktree.
    head: Option<RefWrite>,
    /// Reflogs to bring back.
    logs: Vec<KeptLog>,
    /// Every ref that the run touched and that is, or will be, as before.
    settled: Vec<RefName>,
}

/// What there is to know about stashes.
struct Stash<'s> {
    /// The newest one, before.
    before: Option<&'s Value>,
    /// Somebody else has stashed since, or taken a stash away.
    is_others: bool,
    /// The list begins with what was on it before.
    only_grew: bool,
}

impl<'s> Stash<'s> {
    /// Looks at what became of the stashes since the run `id` began.
    fn look(
        repo: &Repository,
        state: &StateDir,
        records: &[Record],
        id: TxId,
        manifest: &'s Manifest,
    ) -> anyhow::Result<Stash<'s>> {
        let name = RefName::parse(STASH)?;
        let size = manifest.reflogs.iter().find(|log| log.name == name).and_then(|log| log.size).unwrap_or(0);
        let was = absent_is_none(kept_log(state, id, &name, size))?.unwrap_or_default();
        let now = absent_is_none(fs::read(RefStore::new(repo).log(&name)))?.unwrap_or_default();
        Ok(Stash {
            before: manifest.stash.as_ref(),
            is_others: child_transactions::is_moved_by_others(records, id, &name),
            only_grew: now.starts_with(&was),
        })
    }
}

impl RefPlan {
    pub(crate) fn is_none(&self) -> bool {
        self.writes.is_empty() && self.head.is_none()
    }
}

/// Decides, from what the run did and what is there now. `unlogged` is what the log does not explain; it is the run's when
/// that `is_blind`, or when git tells no hook about such changes.
pub(crate) fn plan(
    site: &Site<'_>,
    run: &DeadRun,
    records: &[Record],
    unlogged: &[Unlogged],
    is_blind: bool,
) -> anyhow::Result<RefPlan> {
    let DeadRun { repo, manifest, id, begin, .. } = run;
    let refs = RefStore::new(repo);
    let moves = child_transactions::moves(records, *id);
    let mut plan = RefPlan::default();
    let stash = RefName::parse(STASH)?;
    for moved in moves.iter().filter(|m| m.name != stash && unlogged.iter().all(|u| u.name != m.name)) {
        let now = refs.read(&moved.name)?.value;
        if moved.taken_over || (now != moved.before && !moved.values.contains(&now)) {
            plan.left.push(moved.name.clone());
            continue;
        }
        if now != moved.before {
            plan.writes.push(RefWrite { name: moved.name.clone(), from: now, to: moved.before.clone() });
        }
        plan.logs.push(KeptLog { name: moved.name.clone(), size: moved.log });
        plan.settled.push(moved.name.clone());
    }
    let others = child_transactions::others(records, *id);
    for Unlogged { name, before, now, logged, is_untold } in unlogged {
        // What is no value can be neither written nor compared.
        let is_broken = [before, now].contains(&&Value::Broken);
        let is_runs = !is_broken && (is_blind || *is_untold);
        let to = match logged {
            Some(logged) if !is_runs => logged,
            None if !is_runs && now != before => {
                plan.unseen.push(name.clone());
                continue;
            }
            _ => before,
        };
        if now != to {
            plan.writes.push(RefWrite { name: name.clone(), from: now.clone(), to: to.clone() });
        }
        plan.settled.push(name.clone());
        let size = match moves.iter().find(|m| m.name == *name && !m.taken_over) {
            Some(moved) if to != before || others.since.contains_key(name) => Some(moved.log),
            _ if others.since.contains_key(name) => None,
            _ if *before == Value::Absent => Some(None),
            _ => manifest.reflogs.iter().find(|log| log.name == *name).map(|log| log.size),
        };
        plan.logs.extend(size.map(|size| KeptLog { name: name.clone(), size }));
    }
    plan_stash(site, run, records, &moves, &mut plan)?;
    if let Some(before) = &begin.head {
        let now = refs.read(&before.name)?.value;
        if now != before.value {
            plan.head = Some(RefWrite { name: before.name.clone(), from: now, to: before.value.clone() });
        }
        plan.logs.extend(manifest.reflogs.iter().find(|k| k.name == before.name).cloned());
    }
    // Reflogs change without their refs as well: when they expire, and of a symbolic ref that is written through.
    for log in manifest.reflogs.iter().filter(|log| !log.name.is_head() && log.name != stash) {
        let is_planned = plan.logs.iter().any(|planned| planned.name == log.name);
        let is_left = plan.left.contains(&log.name) || plan.unseen.contains(&log.name);
        if !is_planned && !is_left && !others.since.contains_key(&log.name) && has_changed(site, *id, log)? {
            plan.logs.push(log.clone());
        }
    }
    Ok(plan)
}

/// Is a reflog another one than the snapshot found?
fn has_changed(site: &Site<'_>, id: TxId, log: &KeptLog) -> anyhow::Result<bool> {
    let now = FileId::at(&RefStore::new(site.repo).log(&log.name))?;
    let second = FileId::at(&reflog_copy(site.state, id, &log.name))?;
    let what = |file: Option<FileId>, size: Option<u64>| file.map(|file| (file.ino, size.unwrap_or(file.size)));
    Ok(what(now, None) != what(second, log.size))
}

/// The list of stashes is a reflog, which commands change outside of any transaction.
fn plan_stash(
    site: &Site<'_>,
    run: &DeadRun,
    records: &[Record],
    moves: &[Move],
    plan: &mut RefPlan,
) -> anyhow::Result<()> {
    let stash = Stash::look(&run.repo, site.state, records, run.id, &run.manifest)?;
    let Some(before) = stash.before else { return Ok(()) };
    let name = RefName::parse(STASH)?;
    let now = RefStore::new(&run.repo).read(&name)?.value;
    if stash.is_others {
        // They have put theirs on top of what was there, or the list is not what either of the two has made of it.
        if !stash.only_grew || moves.iter().any(|m| m.name == name) {
            plan.left.push(name);
        }
        return Ok(());
    }
    if now != *before {
        plan.writes.push(RefWrite { name: name.clone(), from: now, to: before.clone() });
        plan.settled.push(name.clone());
    }
    plan.logs.extend(run.manifest.reflogs.iter().find(|k| k.name == name).cloned());
    Ok(())
}

/// Writes refs and HEAD of `repo`, which is the worktree of the run, then the reflogs.
pub(crate) fn restore_refs(
    site: &Site<'_>,
    run: &DeadRun,
    plan: &RefPlan,
    aside: &Path,
    done: &mut Restored,
) -> anyhow::Result<()> {
    let (id, repo) = (run.id, &run.repo);
    let message = format!("{}rolled back {id}", reflog::OUR_MESSAGE);
    let write = |writes: &[RefWrite]| -> anyhow::Result<()> {
        for (git_dir, writes) in by_worktree(repo, writes)? {
            write_refs(site, &git_dir, &writes, &message)?;
        }
        Ok(())
    };
    // Deletions first: a branch `a` cannot come back while there is `a/b`.
    let (gone, back): (Vec<RefWrite>, Vec<RefWrite>) = plan.writes.iter().cloned().partition(|w| w.to == Value::Absent);
    write(&gone)?;
    remove_empty_dirs(site, &gone)?;
    // So it is with their reflogs.
    let (kept, new): (Vec<&KeptLog>, Vec<&KeptLog>) = plan.logs.iter().partition(|log| log.size.is_some());
    for log in new {
        if FileId::at(&RefStore::new(site.repo).log(&log.name))?.is_some() {
            done.attempt_twice(|| while_locked(site, &log.name, || restore_reflog(site, id, log, aside)))?;
        }
    }
    write(&back)?;
    if let Some(head) = &plan.head {
        write(std::slice::from_ref(head))?;
    }
    for log in kept {
        done.attempt_twice(|| while_locked(site, &log.name, || restore_reflog(site, id, log, aside)))?;
    }
    if plan.left.iter().any(|name| name.as_bytes() == STASH) {
        keep_list(site, run, aside)?;
    }
    Ok(())
}

/// The refs of a plan as they are now.
pub(crate) fn settled(site: &Site<'_>, plan: &RefPlan) -> anyhow::Result<Vec<RefSnapshot>> {
    let refs = RefStore::new(site.repo);
    let settle = |name: &RefName| {
        let now = refs.read(name)?;
        Ok(RefSnapshot { name: name.clone(), value: now.value, file: now.loose })
    };
    plan.settled.iter().map(settle).collect()
}

/// git leaves the directories of deleted refs; one in the place of a ref would be in its way.
fn remove_empty_dirs(site: &Site<'_>, gone: &[RefWrite]) -> anyhow::Result<()> {
    let refs = RefStore::new(site.repo);
    let base = site.repo.common_dir.join("refs");
    for write in gone {
        let file = refs.file(&write.name);
        // `refs/heads` and its like stay, whatever is in them.
        let is_below = |dir: &&Path| dir.strip_prefix(&base).is_ok_and(|inside| inside.components().count() > 1);
        for dir in file.ancestors().skip(1).take_while(is_below) {
            if !durable::remove_dir_if_empty(dir)? {
                break;
            }
        }
    }
    Ok(())
}

/// Under the ref's lock. A reflog grows at its end: while it begins as it did, the rest is cut off.
fn restore_reflog(site: &Site<'_>, id: TxId, log: &KeptLog, aside: &Path) -> anyhow::Result<()> {
    let path = RefStore::new(site.repo).log(&log.name);
    let cannot = || format!("cannot put the reflog of {} back", log.name);
    let now = FileId::at(&path).with_context(cannot)?;
    let Some(size) = log.size else {
        if now.is_some() {
            move_aside(site, &path, aside).with_context(cannot)?;
            remove_empty_log_dirs(site.repo, &path)?;
        }
        return Ok(());
    };
    let copy = reflog_copy(site.state, id, &log.name);
    let Some(second) = FileId::at(&copy).with_context(cannot)? else {
        // The hook gives it a second name before git touches it; without one nothing was touched.
        return Ok(());
    };
    if now.is_some_and(|now| now.ino == second.ino) {
        if second.size > size {
            keep_tail(site, &path, size, aside).with_context(cannot)?;
            durable::truncate(&path, size).with_context(cannot)?;
        }
        return Ok(());
    }
    let bytes = kept_log(site.state, id, &log.name, size).with_context(cannot)?;
    if now.is_some() {
        if fs::read(&path).with_context(cannot)? == bytes {
            return Ok(());
        }
        move_aside(site, &path, aside).with_context(cannot)?;
    }
    durable::make_dirs(path.parent().unwrap_or(Path::new("/")), Purpose::Git).with_context(cannot)?;
    // Made ready elsewhere: cut in between, nothing is left among the reflogs.
    let ready = site.state.tx(id).join(READY);
    durable::remove_file(&ready).with_context(cannot)?;
    durable::create_for(&path, &ready, &bytes).and_then(|file| fs::sync_all(&ready, &file)).with_context(cannot)?;
    durable::rename_new(&ready, &path).with_context(cannot)
}

fn move_aside(site: &Site<'_>, path: &Path, aside: &Path) -> anyhow::Result<()> {
    let dir = aside.join("reflogs");
    durable::make_dirs(&dir, Purpose::State)?;
    let to = free_name(&dir, &flat(&site.repo.relative(path)))?;
    Ok(moving::move_new(path, &to)?)
}

/// The first `size` bytes of a reflog's second name: what it was when the run first touched it.
fn kept_log(state: &StateDir, id: TxId, name: &RefName, size: u64) -> io::Result<Vec<u8>> {
    let path = reflog_copy(state, id, name);
    let mut bytes = Vec::new();
    let file = durable::open_own(&path, OpenOptions::new().read(true))?;
    fs::at(&path, file.take(size).read_to_end(&mut bytes))?;
    Ok(bytes)
}

/// The list of stashes as it was, which is not put back.
fn keep_list(site: &Site<'_>, run: &DeadRun, aside: &Path) -> anyhow::Result<()> {
    let name = RefName::parse(STASH)?;
    let size = run.manifest.reflogs.iter().find(|log| log.name == name).and_then(|log| log.size).unwrap_or(0);
    let Some(was) = absent_is_none(kept_log(site.state, run.id, &name, size))? else { return Ok(()) };
    let dir = aside.join("reflogs");
    durable::make_dirs(&dir, Purpose::State)?;
    keep_bytes(&dir, "stash.before", &was)
}

fn keep_tail(site: &Site<'_>, path: &Path, size: u64, aside: &Path) -> anyhow::Result<()> {
    let dir = aside.join("reflogs");
    durable::make_dirs(&dir, Purpose::State)?;
    let bytes = fs::read(path)?;
    let tail = bytes.get(usize::try_from(size)?..).unwrap_or_default();
    keep_bytes(&dir, &format!("{}.tail", flat(&site.repo.relative(path))), tail)
}

fn keep_bytes(dir: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = free_name(dir, name)?;
    let file = durable::create_new(&path, bytes)?;
    Ok(fs::sync_all(&path, &file)?)
}

/// Linked worktrees that the run made: they are no worktrees any more, and their files stay where they are.
pub(crate) fn retire_worktrees(
    site: &Site<'_>,
    before: &[String],
    made: &HashSet<RefName>,
    aside: &Path,
    retired: &mut Vec<String>,
) -> anyhow::Result<()> {
    for name in crate::run::snapshot::linked(site.repo).into_iter().filter(|name| !before.contains(name)) {
        let Some(bytes) = crate::util::text::unescape(&name) else { continue };
        let Ok(head) = RefName::parse(&[b"worktrees/", bytes.as_slice(), b"/HEAD"].concat()) else { continue };
        if !made.contains(&head) {
            continue;
        }
        let dir = site.repo.common_dir.join(head.as_path().parent().unwrap_or(Path::new("")));
        let link = absent_is_none(fs::read(dir.join("gitdir")))?.unwrap_or_default();
        let to_dir = aside.join("worktrees");
        durable::make_dirs(&to_dir, Purpose::State)?;
        moving::move_new(&dir, &free_name(&to_dir, &name)?)?;
        let files = String::from_utf8_lossy(link.trim_ascii()).trim_end_matches("/.git").to_owned();
        retired.push(format!("{files} is not a worktree any more; its files are still there"));
    }
    durable::remove_dir_if_empty(&site.repo.common_dir.join("worktrees"))?;
    Ok(())
}

/// The same writes by the git directory from which git names their refs. Whoever recovers may be in any worktree, and
/// there `HEAD` is another one; what another worktree calls its own has no name that `git update-ref` takes.
fn by_worktree(repo: &Repository, writes: &[RefWrite]) -> anyhow::Result<BTreeMap<PathBuf, Vec<RefWrite>>> {
    let mut sorted: BTreeMap<PathBuf, Vec<RefWrite>> = BTreeMap::new();
    for write in writes {
        let name = write.name.as_bytes();
        let linked = name.strip_prefix(b"worktrees/").and_then(|rest| {
            let slash = rest.iter().position(|b| *b == b'/')?;
            Some((&rest[..slash], &rest[slash + 1..]))
        });
        let (git_dir, name) = match linked {
            Some((worktree, own)) => {
                let git_dir = repo.common_dir.join("worktrees").join(OsStr::from_bytes(worktree));
                // Gone with the worktree, which the run had made.
                if !git_dir.is_dir() {
                    continue;
                }
                (git_dir, RefName::parse(own)?)
            }
            None if is_per_worktree(name) => (repo.common_dir.clone(), write.name.clone()),
            None => (repo.git_dir.clone(), write.name.clone()),
        };
        sorted.entry(git_dir).or_default().push(RefWrite { name, ..write.clone() });
    }
    Ok(sorted)
}

/// git makes directories for reflogs as it goes; those that are empty now make room for others.
fn remove_empty_log_dirs(repo: &Repository, log: &Path) -> anyhow::Result<()> {
    let keep = repo.common_dir.join("logs/refs/heads");
    for dir in log.ancestors().skip(1).take_while(|dir| dir.starts_with(&keep) && **dir != keep) {
        if !durable::remove_dir_if_empty(dir)? {
            break;
        }
    }
    Ok(())
}
