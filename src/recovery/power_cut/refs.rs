//! Refs against the log: what is older is redone, what is unseen stays, what has a hole goes back.

use std::collections::BTreeSet;

use crate::fs::FileId;
use crate::git::command;
use crate::git::command::RefWrite;
use crate::git::objects;
use crate::git::objects::{Closure, Whole};
use crate::git::refs::RefSnapshot;
use crate::git::refs::ResolvedRef;
use crate::git::{Oid, RefName, RefStore, Repository, Value, reflog};
use crate::recovery::Session;
use crate::recovery::execute::InTheWay;
use crate::recovery::expected_refs::{ExpectedRefs, LastKnown, RefStatus};
use crate::recovery::power_cut::{Repair, is_old, line, shown};

/// What is to be done, and what is only to be written down.
#[derive(Default)]
struct Findings {
    repairs: Vec<Repair>,
    unseen: Vec<RefSnapshot>,
    losses: Vec<String>,
    /// Something could not be told: nothing was decided about it.
    is_partial: bool,
}

impl Session<'_> {
    /// Returns the refs on which the log has a new word to say; `None` when something was in the way.
    pub(crate) fn mend_refs(
        &mut self,
        expected: &ExpectedRefs<'_>,
        closure: &Closure<'_>,
    ) -> anyhow::Result<Option<Vec<RefSnapshot>>> {
        let Findings { mut repairs, unseen, losses, is_partial } = self.findings(expected, closure)?;
        let wanted = repairs.len();
        if !self.options.dry_run {
            repairs = self.carry_out_repairs(repairs)?;
        }
        self.report.notes.extend(repairs.iter().filter_map(Repair::told));
        self.report.losses.extend(losses);
        let mut settled = unseen;
        let refs = RefStore::new(self.repo);
        for repair in &repairs {
            let now = refs.read(&repair.name)?;
            settled.push(RefSnapshot { name: repair.name.clone(), value: now.value, file: now.loose });
        }
        Ok((repairs.len() == wanted && !is_partial).then_some(settled))
    }

    fn findings(&self, expected: &ExpectedRefs<'_>, closure: &Closure<'_>) -> anyhow::Result<Findings> {
        let candidates = self.candidates(expected)?;
        let wanted_of =
            |(name, now, standing): &(RefName, ResolvedRef, RefStatus)| wanted(expected, name, now, *standing);
        let all: Vec<Oid> = candidates.iter().filter_map(wanted_of).collect();
        let all_whole = closure.ask(&all)? == Whole::Yes;
        let mut findings = Findings::default();
        for (name, now, standing) in candidates {
            if standing == RefStatus::Open {
                continue;
            }
            if standing == RefStatus::Unseen {
                findings.unseen.push(RefSnapshot { name: name.clone(), value: now.value.clone(), file: now.loose });
            }
            let word = expected.refs.get(&name).and_then(|g| g.word.as_ref());
            let oid = wanted(expected, &name, &now, standing);
            let whole = match oid {
                Some(_) if all_whole => Whole::Yes,
                Some(oid) => closure.ask(&[oid])?,
                // A broken ref that the log has no word on.
                None if now.value == Value::Broken && standing != RefStatus::Outdated => Whole::No,
                None => Whole::Yes,
            };
            match whole {
                Whole::Yes => {
                    // A branch that HEAD is to mean again has been made of its lock before.
                    let is_done = |word: &&LastKnown| name.is_head() && matches!(word.value, Value::Symref(_));
                    if let Some(word) = word.filter(|w| standing == RefStatus::Outdated && !is_done(w)) {
                        let to = word.value.clone();
                        findings.repairs.push(Repair { name, now, to, tx: word.tx, is_loss: false });
                    }
                }
                Whole::Unknown => findings.is_partial |= standing == RefStatus::Outdated,
                Whole::No => self.fall_back(expected, closure, &mut findings, (name, now, oid))?,
            }
        }
        Ok(findings)
    }

    fn candidates(&self, expected: &ExpectedRefs<'_>) -> anyhow::Result<Vec<(RefName, ResolvedRef, RefStatus)>> {
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
        Ok(candidates)
    }

    fn fall_back(
        &self,
        expected: &ExpectedRefs<'_>,
        closure: &Closure<'_>,
        findings: &mut Findings,
        (name, now, oid): (RefName, ResolvedRef, Option<Oid>),
    ) -> anyhow::Result<()> {
        let Some(to) = self.newest_whole(expected, &name, closure)? else {
            findings.losses.push(format!("{name} is broken and nothing whole is known of it: see its reflog"));
            return Ok(());
        };
        let lost = oid.map_or_else(|| "its value".to_owned(), |oid| shown(&Value::Oid(oid)));
        let lost = format!("{name}: {lost} is lost; it is back at {}, the newest value that is whole", shown(&to));
        findings.losses.push(lost);
        if now.value != to {
            findings.repairs.push(Repair { name, now, to, tx: None, is_loss: true });
        }
        Ok(())
    }

    fn newest_whole(
        &self,
        expected: &ExpectedRefs<'_>,
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
                && closure.ask(&[oid])? == Whole::Yes
            {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Returns those that were carried out; the others are reported.
    fn carry_out_repairs(&mut self, repairs: Vec<Repair>) -> anyhow::Result<Vec<Repair>> {
        let (broken, mut others): (Vec<Repair>, Vec<Repair>) =
            repairs.into_iter().partition(|r| r.now.value == Value::Broken);
        // Deletions first: a name may have to go before another can be its directory.
        others.sort_by_key(|r| r.to != Value::Absent);
        let mut done = Vec::new();
        for repair in broken {
            let replaced = self.replace_broken(&repair);
            self.note_done(replaced, vec![repair], &mut done)?;
        }
        let together = self.redo(&others);
        match together {
            Ok(()) => done.append(&mut others),
            // One that is in the way must not stop the others.
            Err(error) if error.is::<InTheWay>() => {
                for repair in others {
                    let alone = self.redo(std::slice::from_ref(&repair));
                    self.note_done(alone, vec![repair], &mut done)?;
                }
            }
            Err(error) => return Err(error),
        }
        Ok(done)
    }

    fn note_done(
        &mut self,
        result: anyhow::Result<()>,
        mut repairs: Vec<Repair>,
        done: &mut Vec<Repair>,
    ) -> anyhow::Result<()> {
        match result {
            Ok(()) => done.append(&mut repairs),
            Err(error) if error.is::<InTheWay>() => {
                let names: Vec<String> = repairs.iter().map(|r| r.name.to_string()).collect();
                self.report.busy.push(format!("cannot redo {} yet: {error:#}", names.join(", ")));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// git writes no ref whose present value has no sense: it is replaced under its lock, as git would.
    fn replace_broken(&self, repair: &Repair) -> anyhow::Result<()> {
        let path = RefStore::new(self.repo).file(&repair.name);
        self.while_locked(&repair.name, || match line(&repair.to) {
            Some(text) => {
                self.keep_copy(&path)?;
                self.put(&path, &text)
            }
            None => self.set_aside(&path),
        })
    }

    /// Compare-and-swap of all, or of none.
    fn redo(&self, repairs: &[Repair]) -> anyhow::Result<()> {
        let refs = RefStore::new(self.repo);
        let write = |r: &Repair| RefWrite { name: r.name.clone(), from: r.now.value.clone(), to: r.to.clone() };
        let writes: Vec<RefWrite> = repairs.iter().map(write).collect();
        if writes.is_empty() {
            return Ok(());
        }
        let mut logs = Vec::new();
        for write in &writes {
            logs.push((write.name.clone(), self.log_state(&write.name, &write.to)?));
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
        let is_there = to.oid().is_some_and(|oid| told.as_deref() == Some(&*oid.hex()));
        Ok(if is_there { FileId::at(&log)?.map(|id| id.size) } else { None })
    }

    fn heads(&self) -> anyhow::Result<Vec<RefName>> {
        let canonical = |git_dir| {
            let worktree = Repository { git_dir, ..self.repo.clone() };
            RefStore::new(&worktree).canonical(b"HEAD").map_err(anyhow::Error::new)
        };
        self.repo.all_git_dirs().into_iter().map(canonical).collect()
    }
}

impl<'r> Session<'r> {
    /// What was there before the last checkpoint, and what nobody touched since, is taken as whole.
    pub(crate) fn closure(&self, expected: &ExpectedRefs<'_>) -> anyhow::Result<Closure<'r>> {
        let (options, repo) = (self.options, self.repo);
        let (program, git_dir) = (&options.git_program, &repo.git_dir);
        let oldest = expected.refs.values().filter_map(|g| g.earlier.first().or(g.word.as_ref().map(|w| &w.value)));
        let mut known: Vec<Oid> = oldest.filter_map(|value| value.oid().copied()).collect();
        let listed = command::run(program, git_dir, &["for-each-ref", "--format=%(objectname) %(refname)"], b"", None)?;
        for entry in listed.stdout.split(|b| *b == b'\n') {
            let Some(at) = entry.iter().position(|b| *b == b' ') else { continue };
            let (oid, name) = (&entry[..at], &entry[at + 1..]);
            let untouched = RefName::parse(name).is_ok_and(|name| {
                let file = FileId::at(&RefStore::new(self.repo).file(&name)).ok().flatten();
                !expected.refs.contains_key(&name) && file.is_none_or(|file| is_old(expected, file))
            });
            known.extend(Oid::parse(oid).filter(|_| untouched));
        }
        let here = !self.options.objects_elsewhere && objects::are_all_here(program, git_dir, &self.repo.common_dir)?;
        Closure::new(program, git_dir, known, here)
    }
}

/// The object that has to be whole for `name` to be as it should.
fn wanted(expected: &ExpectedRefs<'_>, name: &RefName, now: &ResolvedRef, standing: RefStatus) -> Option<Oid> {
    let word = expected.refs.get(name).and_then(|g| g.word.as_ref());
    match standing {
        RefStatus::Outdated => word.and_then(|w| w.value.oid().copied()),
        RefStatus::AsLogged | RefStatus::Unseen => {
            let known = word.is_some() || now.loose.is_some_and(|file| !is_old(expected, file));
            now.value.oid().copied().filter(|_| known)
        }
        RefStatus::Open => None,
    }
}

/// All loose refs of all worktrees.
fn loose_refs(repo: &Repository) -> anyhow::Result<Vec<RefName>> {
    let mut names = Vec::new();
    for (path, _) in crate::recovery::power_cut::files_below(&repo.common_dir.join("refs"))? {
        let Ok(inside) = path.strip_prefix(&repo.common_dir) else { continue };
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(inside.as_os_str());
        if !bytes.ends_with(b".lock") {
            names.extend(RefName::parse(bytes));
        }
    }
    Ok(names)
}
