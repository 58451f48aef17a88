//! After a reboot, once: what did the power cut take back?
//!
//! ```text
//!  make readable              settle what was unfinished        verify
//!  HEAD, packed-refs, ──────▶ (as after any crash)      ──────▶ reflogs, refs, index ──▶ sync ──▶ baseline,
//!  corrupt objects                                                                               checkpoint, note
//! ```
//! Refs that show an older state of our own history are redone to the newest word of the log, deletions included; those
//! that an unseen writer moved stay, and are the new baseline. A value with a hole behind it gives way to the newest one
//! that is whole. Everything that is replaced is kept in quarantine. Run again it finds nothing to do; the note that this
//! boot has looked comes last.
//!
//! Limit: objects are checked as far as refs need them or as loose files; a pack is trusted as git is, by its index.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::execute::{InTheWay, free_name};
use super::generations::{Generations, Standing};
use super::report::plural;
use super::{Mode, Session, quarantine_name};
use crate::durable;
use crate::git::command::{self, RefWrite};
use crate::git::objects::{self, Closure};
use crate::git::refs::{FileId, Seen, absent_is_none, read_small};
use crate::git::{Oid, RefFormat, RefName, RefStore, Repository, Value, index, reflog};
use crate::state_dir::TxId;
use crate::wal::{Body, Lsn, Record, Settled};

/// Times in the log are whole seconds.
const MARGIN: u64 = 2;

/// So many entries at the end of a reflog are checked for lost objects.
const NEWEST_ENTRIES: usize = 100;

/// A ref that is to be written.
struct Repair {
    name: RefName,
    now: Seen,
    to: Value,
    /// The transaction that was acknowledged with that value.
    tx: Option<TxId>,
    /// It goes back, not forward: that is told as a loss.
    is_loss: bool,
}

impl Repair {
    fn told(&self) -> Option<String> {
        let Repair { name, now, to, tx, is_loss } = self;
        let tx = tx.map_or_else(String::new, |tx| format!(" ({tx})"));
        let now = &now.value;
        let told = match (to, now) {
            (Value::Absent, now) => {
                format!("{name} is deleted again{tx}; the power cut had brought it back at {}", shown(now))
            }
            (to, Value::Absent) => format!("{name} is {} again{tx}; the power cut had taken it away", shown(to)),
            (to, Value::Broken) => {
                format!("{name} is {} again{tx}; the power cut had left it without sense", shown(to))
            }
            (to, now) => {
                format!("{name} is {} again{tx}; the power cut had taken it back to {}", shown(to), shown(now))
            }
        };
        (!is_loss).then_some(told)
    }
}

/// What is to be done, and what is only to be written down.
#[derive(Default)]
struct Findings {
    repairs: Vec<Repair>,
    unseen: Vec<Settled>,
    losses: Vec<String>,
}

impl Session<'_> {
    /// What git cannot even start with: a HEAD or `packed-refs` without sense, objects that are none.
    pub(super) fn make_readable(&mut self, expected: &mut Generations<'_>) -> anyhow::Result<()> {
        if self.repo.ref_format == RefFormat::Files {
            self.mend_heads(expected)?;
            expected.packed_is_lost = self.mend_packed_refs()?;
        }
        let since = if expected.clock_is_steady { expected.durable_until.saturating_sub(MARGIN) } else { 0 };
        let corrupt = objects::corrupt_loose(&self.repo.common_dir, since)?;
        if corrupt.is_empty() {
            return Ok(());
        }
        for path in &corrupt {
            self.set_aside(path, &path.strip_prefix(&self.repo.common_dir).unwrap_or(path).display().to_string())?;
        }
        let count = corrupt.len();
        self.report.notes.push(format!("moved {count} corrupt {} to quarantine", plural(count, "object")));
        Ok(())
    }

    fn mend_heads(&mut self, expected: &Generations<'_>) -> anyhow::Result<()> {
        for git_dir in self.repo.all_git_dirs() {
            let path = git_dir.join("HEAD");
            let found = read_small(&path)?;
            if found.as_ref().is_some_and(|(content, _)| Value::of_file(content) != Value::Broken) {
                continue;
            }
            let worktree = Repository { git_dir, ..self.repo.clone() };
            let name = RefStore::new(&worktree).canonical(b"HEAD")?;
            let log = RefStore::new(&worktree).log(&name);
            let told = expected.heads.get(&name).cloned();
            let Some(value) = told.or(reflog::newest_branch(&log)?.map(Value::Symref)) else {
                self.report
                    .losses
                    .push(format!("{name} is empty and the log does not know what it was: write it yourself"));
                continue;
            };
            self.report.notes.push(format!("{name} was empty after the reboot: it is {value} again"));
            if !self.options.dry_run {
                if found.is_some() {
                    self.set_aside(&path, &self.repo.relative(&path))?;
                }
                self.while_locked(&name, || Ok(durable::replace(&path, format!("{value}\n").as_bytes())?))?;
            }
        }
        Ok(())
    }

    /// Returns whether it was damaged.
    fn mend_packed_refs(&mut self) -> anyhow::Result<bool> {
        let path = self.repo.common_dir.join("packed-refs");
        let Some(content) = absent_is_none(fs::read(&path))? else { return Ok(false) };
        // git never writes it empty, and no name has a NUL.
        if !content.is_empty() && !content.contains(&0) && content.ends_with(b"\n") {
            return Ok(false);
        }
        self.set_aside(&path, "packed-refs")?;
        self.report
            .losses
            .push("packed-refs was damaged and is in quarantine: refs that the log does not know are gone".into());
        Ok(true)
    }

    /// Would the verification write one of `names`?
    pub(super) fn reboot_writes(&self, expected: &Generations<'_>, names: &[RefName]) -> anyhow::Result<bool> {
        let repairs = self.findings(expected)?.repairs;
        Ok(repairs.iter().any(|r| names.contains(&r.name)))
    }

    /// Verifies and repairs. What is in the way is reported, and the whole is done again next time.
    pub(super) fn verify_after_reboot(&mut self, packed_is_lost: bool) -> anyhow::Result<()> {
        let scan = self.log.scan_until(|records| records.iter().any(is_checkpoint))?;
        let mut expected = Generations::of(&scan.records);
        expected.packed_is_lost = packed_is_lost;
        let as_of = scan.records.last().map_or(0, |r| r.lsn);
        if self.repo.ref_format != RefFormat::Files {
            return self.conclude(as_of, Vec::new(), Vec::new());
        }
        match self.mend_everything(&expected) {
            Ok(refs) => {
                let actions = self.report.notes.iter().chain(&self.report.losses).cloned().collect();
                self.conclude(as_of, actions, refs)
            }
            Err(error) if error.is::<InTheWay>() => {
                self.report.busy.push(format!("cannot verify the refs after the reboot yet: {error:#}"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the refs on which the log has a new word to say.
    fn mend_everything(&mut self, expected: &Generations<'_>) -> anyhow::Result<Vec<Settled>> {
        self.mend_reflogs(expected)?;
        let findings = self.findings(expected)?;
        let mut settled = findings.unseen;
        if !self.options.dry_run {
            self.carry_out_repairs(&findings.repairs)?;
            let refs = RefStore::new(self.repo);
            for repair in &findings.repairs {
                let now = refs.read(&repair.name)?;
                settled.push(Settled { name: repair.name.clone(), value: now.value, file: now.loose });
            }
        }
        self.report.notes.extend(findings.repairs.iter().filter_map(Repair::told));
        self.report.losses.extend(findings.losses);
        self.mend_indexes(expected)?;
        Ok(settled)
    }

    fn findings(&self, expected: &Generations<'_>) -> anyhow::Result<Findings> {
        let refs = RefStore::new(self.repo);
        let packed = FileId::at(&self.repo.common_dir.join("packed-refs"))?;
        let mut names: BTreeSet<RefName> = expected.refs.keys().map(|name| (*name).clone()).collect();
        names.extend(loose_refs(self.repo)?);
        let mut candidates = Vec::new();
        for name in names {
            let now = refs.read(&name)?;
            let standing = expected.standing(self.repo, &name, &now, packed)?;
            candidates.push((name, now, standing));
        }
        let closure = self.closure(expected)?;
        let all: Vec<Oid> = candidates.iter().filter_map(|(name, now, s)| wanted(expected, name, now, *s)).collect();
        let all_whole = closure.is_whole(&all)?;
        let mut findings = Findings::default();
        for (name, now, standing) in candidates {
            if standing == Standing::Unseen {
                findings.unseen.push(Settled { name: name.clone(), value: now.value.clone(), file: now.loose });
            }
            let oid = wanted(expected, &name, &now, standing);
            let is_whole = match oid {
                Some(oid) => all_whole || closure.is_whole(&[oid])?,
                None => now.value != Value::Broken || standing == Standing::Outdated,
            };
            if is_whole {
                let word = expected.refs.get(&name).and_then(|g| g.word.as_ref());
                if let Some(word) = word.filter(|_| standing == Standing::Outdated) {
                    findings.repairs.push(Repair { name, now, to: word.value.clone(), tx: word.tx, is_loss: false });
                }
                continue;
            }
            match self.newest_whole(expected, &name, &closure)? {
                Some(to) => {
                    let lost = oid.map_or_else(|| "its value".to_owned(), |oid| shown(&Value::Oid(oid)));
                    findings.losses.push(format!(
                        "{name}: {lost} is lost; it is back at {}, the newest value that is whole",
                        shown(&to)
                    ));
                    if now.value != to {
                        findings.repairs.push(Repair { name, now, to, tx: None, is_loss: true });
                    }
                }
                None => {
                    findings.losses.push(format!("{name} is broken and nothing whole is known of it: see its reflog"))
                }
            }
        }
        Ok(findings)
    }

    /// What was there before the last checkpoint, and what nobody touched since, is taken as whole.
    fn closure(&self, expected: &Generations<'_>) -> anyhow::Result<Closure<'_>> {
        let program = &self.options.git_program;
        let oldest = expected.refs.values().filter_map(|g| g.earlier.first().or(g.word.as_ref().map(|w| &w.value)));
        let mut known: Vec<Oid> = oldest.filter_map(|value| value.oid().copied()).collect();
        let listed = command::run(
            program,
            &self.repo.git_dir,
            &["for-each-ref", "--format=%(objectname) %(refname)"],
            b"",
            None,
        )?;
        for line in listed.stdout.split(|b| *b == b'\n') {
            let Some((oid, name)) = line.iter().position(|b| *b == b' ').map(|at| (&line[..at], &line[at + 1..]))
            else {
                continue;
            };
            let untouched = RefName::parse(name).is_ok_and(|name| {
                let at = FileId::at(&RefStore::new(self.repo).file(&name)).ok().flatten();
                !expected.refs.contains_key(&name) && at.is_none_or(|file| is_old(expected, file))
            });
            known.extend(Oid::parse(oid).filter(|_| untouched));
        }
        Closure::new(program, &self.repo.git_dir, known)
    }

    fn newest_whole(
        &self,
        expected: &Generations<'_>,
        name: &RefName,
        closure: &Closure<'_>,
    ) -> anyhow::Result<Option<Value>> {
        let generation = expected.refs.get(name);
        let logged = generation.into_iter().flat_map(|g| {
            let newest = g.word.iter().map(|w| w.value.clone());
            newest.chain(g.earlier.iter().rev().cloned()).collect::<Vec<_>>()
        });
        let told = reflog::newest_value(&RefStore::new(self.repo).log(name))?;
        let told = told.and_then(|hex| Oid::parse(hex.as_bytes())).filter(|oid| !oid.is_null()).map(Value::Oid);
        for value in logged.chain(told) {
            if let Value::Oid(oid) = value
                && closure.is_whole(&[oid])?
            {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn carry_out_repairs(&mut self, repairs: &[Repair]) -> anyhow::Result<()> {
        let refs = RefStore::new(self.repo);
        let mut writes = Vec::new();
        let mut logs = Vec::new();
        for Repair { name, now, to, .. } in repairs {
            let mut from = now.value.clone();
            if from == Value::Broken {
                let path = refs.file(name);
                self.while_locked(name, || self.set_aside(&path, &self.repo.relative(&path)))?;
                from = refs.packed_value(name)?.unwrap_or(Value::Absent);
            }
            if from != *to {
                logs.push((name.clone(), self.log_state(name, to)?));
                writes.push(RefWrite { name: name.clone(), from, to: to.clone() });
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        for head in self.heads()? {
            if let Value::Symref(branch) = refs.read(&head)?.value
                && let Some(to) = writes.iter().find(|w| w.name == branch).map(|w| w.to.clone())
            {
                logs.push((head.clone(), self.log_state(&head, &to)?));
            }
        }
        let message = format!("{}redone after a reboot", reflog::OUR_MESSAGE);
        command::write_refs(&self.options.git_program, &self.repo.common_dir, &writes, &message)
            .map_err(|error| InTheWay(format!("{error:#}")))?;
        // The entry of the transaction itself was there already: ours says nothing new.
        for (name, size) in logs {
            if let Some(size) = size {
                self.trim_reflog(&name, Some(size), |line| line.is_ours())?;
            }
        }
        Ok(())
    }

    /// The size of the reflog of `name` if its last entry leads to `to`.
    fn log_state(&self, name: &RefName, to: &Value) -> anyhow::Result<Option<u64>> {
        let log = RefStore::new(self.repo).log(name);
        let told = reflog::newest_value(&log)?;
        let is_there = to.oid().is_some_and(|oid| told.as_deref() == Some(oid.as_str()));
        Ok(if is_there { FileId::at(&log)?.map(|id| id.size) } else { None })
    }

    fn heads(&self) -> anyhow::Result<Vec<RefName>> {
        let canonical = |git_dir: PathBuf| {
            let worktree = Repository { git_dir, ..self.repo.clone() };
            RefStore::new(&worktree).canonical(b"HEAD").map_err(anyhow::Error::new)
        };
        self.repo.all_git_dirs().into_iter().map(canonical).collect()
    }

    /// Cuts NULs, half lines and entries about lost objects off the ends of reflogs.
    fn mend_reflogs(&mut self, expected: &Generations<'_>) -> anyhow::Result<()> {
        let mut logs = Vec::new();
        let mut told = Vec::new();
        for dir in self.repo.all_git_dirs() {
            let worktree = Repository { git_dir: dir.clone(), ..self.repo.clone() };
            for (path, _) in files_below(&dir.join("logs"))?.into_iter().filter(|(_, file)| !is_old(expected, *file)) {
                let inside = path.strip_prefix(dir.join("logs")).unwrap_or(&path).as_os_str();
                if let Ok(name) = RefStore::new(&worktree).canonical(std::os::unix::ffi::OsStrExt::as_bytes(inside)) {
                    told.extend(reflog::newest_values(&path, NEWEST_ENTRIES)?);
                    logs.push((name, path));
                }
            }
        }
        let there = objects::present(&self.options.git_program, &self.repo.git_dir, &told)?;
        let lost: HashSet<Oid> = told.into_iter().filter(|oid| !there.contains(oid)).collect();
        for (name, path) in logs {
            if reflog::sound_size(&path, |oid| !lost.contains(oid))?.is_none() {
                continue;
            }
            self.report.notes.push(format!("trimmed the reflog of {name}: the power cut had damaged its end"));
            if !self.options.dry_run {
                self.while_locked(&name, || self.cut_reflog(&name, &path, &lost))?;
            }
        }
        Ok(())
    }

    fn cut_reflog(&self, name: &RefName, path: &Path, lost: &HashSet<Oid>) -> anyhow::Result<()> {
        let Some(size) = reflog::sound_size(path, |oid| !lost.contains(oid))? else { return Ok(()) };
        let content = fs::read(path)?;
        let tail = content.get(usize::try_from(size).unwrap_or(usize::MAX)..).unwrap_or_default();
        let aside = free_name(&self.state.quarantine(), &quarantine_name(&format!("reflog-tail.{name}")))?;
        durable::replace(&aside, tail).with_context(|| format!("cannot keep {}", aside.display()))?;
        Ok(durable::truncate(path, size)?)
    }

    fn mend_indexes(&mut self, expected: &Generations<'_>) -> anyhow::Result<()> {
        for git_dir in self.repo.all_git_dirs() {
            let path = git_dir.join("index");
            let Some(file) = FileId::at(&path)? else { continue };
            let held = git_dir.join("index.lock").exists();
            if held && self.options.mode != Mode::Command {
                return Err(InTheWay(format!("git holds {}", self.repo.relative(&git_dir.join("index.lock")))).into());
            }
            let program = &self.options.git_program;
            if is_old(expected, file) || index::is_readable(program, &git_dir, &path)? {
                continue;
            }
            let shown = self.repo.relative(&path);
            let worktree = worktree_of(&git_dir);
            if let Some(what) = index::in_progress(&git_dir) {
                self.report.losses.push(format!(
                    "{shown} is unreadable in the middle of {what}: remove it and run `git reset`, which gives that up"
                ));
                continue;
            }
            let Some(worktree) = worktree else {
                self.report
                    .losses
                    .push(format!("{shown} is unreadable: remove it and run `git reset` in the worktree"));
                continue;
            };
            let note = format!("rebuilt {shown} from HEAD: it was unreadable; nothing in the worktree was touched");
            self.report.notes.push(note);
            if !self.options.dry_run {
                self.set_aside(&path, &shown)?;
                let ran = command::run_at(program, &git_dir, &worktree, &["reset", "--quiet", "--mixed"])?;
                // `reset --quiet` exits 1 of a worktree with changes in old gits: the index tells.
                anyhow::ensure!(
                    index::is_readable(program, &git_dir, &path)?,
                    "cannot rebuild {shown}: {}",
                    ran.stderr
                );
            }
        }
        Ok(())
    }

    /// The verification is done: its effects first, then the record, then the note.
    fn conclude(&mut self, as_of: Lsn, actions: Vec<String>, refs: Vec<Settled>) -> anyhow::Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        if !actions.is_empty() || !refs.is_empty() {
            self.log.append(None, &Body::Baseline { as_of, actions, refs }, crate::wal::Sync::No)?;
        }
        self.log.checkpoint()?;
        Ok(self.state.mark_verified(self.log.boot())?)
    }

    fn set_aside(&self, path: &Path, name: &str) -> anyhow::Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        let aside = free_name(&self.state.quarantine(), &quarantine_name(name))?;
        durable::rename_new(path, &aside).with_context(|| format!("cannot move {} to quarantine", path.display()))
    }
}

/// A copied state directory speaks of files that are none of ours.
pub(super) fn is_copy(session: &Session<'_>, expected: &Generations<'_>) -> anyhow::Result<bool> {
    let here = session.state.birth()?;
    Ok(expected.state_dir.is_some_and(|there| {
        let other_time = there.born.zip(here.born).is_some_and(|(there, here)| there != here);
        there.ino != here.ino || other_time
    }))
}

impl Session<'_> {
    /// Nothing in the log of a copy is about these files: begin anew.
    pub(super) fn begin_anew(&mut self) -> anyhow::Result<()> {
        self.conclude(0, Vec::new(), Vec::new())
    }
}

pub(super) fn is_checkpoint(record: &Record) -> bool {
    matches!(record.body, Body::Checkpoint { .. })
}

/// The object that has to be whole for `name` to be as it should.
fn wanted(expected: &Generations<'_>, name: &RefName, now: &Seen, standing: Standing) -> Option<Oid> {
    let word = expected.refs.get(name).and_then(|g| g.word.as_ref());
    match standing {
        Standing::Outdated => word.and_then(|w| w.value.oid().copied()),
        Standing::AsLogged | Standing::Unseen => {
            let known = word.is_some() || now.loose.is_some_and(|file| !is_old(expected, file));
            now.value.oid().copied().filter(|_| known)
        }
    }
}

/// Was the file written when everything was durable already?
fn is_old(expected: &Generations<'_>, file: FileId) -> bool {
    let limit = i64::try_from(expected.durable_until.saturating_sub(MARGIN)).unwrap_or(0) * 1_000_000_000;
    expected.clock_is_steady && file.ctime < limit
}

/// All loose refs of all worktrees.
fn loose_refs(repo: &Repository) -> anyhow::Result<Vec<RefName>> {
    let mut names = Vec::new();
    for (path, _) in files_below(&repo.common_dir.join("refs"))? {
        let Ok(inside) = path.strip_prefix(&repo.common_dir) else { continue };
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(inside.as_os_str());
        if !bytes.ends_with(b".lock") {
            names.extend(RefName::parse(bytes));
        }
    }
    Ok(names)
}

fn files_below(dir: &Path) -> anyhow::Result<Vec<(PathBuf, FileId)>> {
    let mut found = Vec::new();
    let Some(entries) = absent_is_none(fs::read_dir(dir))? else { return Ok(found) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files_below(&entry.path())?);
        } else if let Some(id) = FileId::at(&entry.path())? {
            found.push((entry.path(), id));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// The directory that an index is about.
fn worktree_of(git_dir: &Path) -> Option<PathBuf> {
    if git_dir.file_name()? == ".git" {
        return git_dir.parent().map(Path::to_owned);
    }
    let text = fs::read_to_string(git_dir.join("gitdir")).ok()?;
    Path::new(text.trim_end()).parent().map(Path::to_owned).filter(|dir| dir.is_dir())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Oid(oid) => oid.as_str()[..10].to_owned(),
        other => other.to_string(),
    }
}
