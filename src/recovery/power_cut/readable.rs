//! What git cannot even start with: a HEAD or `packed-refs` without sense, and loose objects that are none.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fs::named as fs;
use crate::fs::{FileId, absent_is_none, read_small};
use crate::git::{Oid, RefFormat, RefName, RefStore, Repository, Value, objects, reflog};
use crate::locks::judge::{Judge, LockFile};
use crate::process::owner::Liveness;
use crate::recovery::Session;
use crate::recovery::execute;
use crate::recovery::expected_refs::ExpectedRefs;
use crate::recovery::power_cut::{MARGIN, files_below, line};
use crate::recovery::report::plural;
use crate::wal::{Body, Record};

impl Session<'_> {
    /// Returns whether git can work here now.
    pub(in crate::recovery) fn make_readable(
        &mut self,
        expected: &ExpectedRefs<'_>,
        judge: &mut Judge<'_>,
    ) -> anyhow::Result<bool> {
        self.mend_config()?;
        if self.repo.ref_format == RefFormat::Files {
            if !self.mend_heads(expected, judge)? {
                return Ok(false);
            }
            self.mend_packed_refs(expected)?;
        }
        let since = if expected.clock_is_steady { expected.durable_until.saturating_sub(MARGIN) } else { 0 };
        let corrupt = objects::corrupt_loose(&self.repo.common_dir, since)?;
        if !corrupt.is_empty() {
            let count = corrupt.len();
            self.report.notes.push(format!("moved {count} corrupt {} to quarantine", plural(count, "object")));
        }
        for path in corrupt.iter().filter(|_| !self.options.dry_run) {
            self.set_aside(path)?;
        }
        Ok(true)
    }

    /// git replaces its configuration without syncing it: some file systems keep the name and lose the content.
    fn mend_config(&mut self) -> anyhow::Result<()> {
        let config = self.repo.common_dir.join("config");
        let is_lost = |content: Vec<u8>| content.is_empty() || content.contains(&0);
        if !absent_is_none(fs::read(&config))?.is_some_and(is_lost) {
            return Ok(());
        }
        let Some(saved) =
            absent_is_none(crate::fs::durable::read_own(&self.state.saved_config(), crate::state::directory::SMALL))?
                .filter(|c| !c.is_empty())
        else {
            return Ok(());
        };
        self.report.notes.push("config was empty after the reboot: it is as the last transaction found it".to_owned());
        if self.options.dry_run {
            return Ok(());
        }
        self.keep_copy(&config)?;
        self.put(&config, &saved)
    }

    fn mend_heads(&mut self, expected: &ExpectedRefs<'_>, judge: &mut Judge<'_>) -> anyhow::Result<bool> {
        let mut all = true;
        for git_dir in self.repo.all_git_dirs() {
            let path = git_dir.join("HEAD");
            let found = read_small(&path)?;
            if found.as_ref().is_some_and(|(content, _)| Value::of_file(content) != Value::Broken) {
                continue;
            }
            let worktree = Repository { git_dir, ..self.repo.clone() };
            let refs = RefStore::new(&worktree);
            let name = refs.canonical(b"HEAD")?;
            let told = expected.heads.get(&name).cloned();
            let value = told.or(reflog::newest_branch(&refs.log(&name))?.map(Value::Symref));
            let Some((value, text)) = value.and_then(|v| Some((line(&v)?, v)).map(|(text, v)| (v, text))) else {
                let lost = format!("{name} is empty, and the log does not know what it was: write it yourself");
                self.report.losses.push(lost);
                all = false;
                continue;
            };
            if !self.unlock_head(&refs.lock(&name), judge)? {
                all = false;
                continue;
            }
            self.report.notes.push(format!("{name} was empty after the reboot: by the log it is {value}"));
            if !self.options.dry_run {
                if found.is_some() {
                    self.keep_copy(&path)?;
                }
                self.while_locked(&name, || self.put(&path, &text))?;
            }
        }
        // Without a HEAD git sees no repository: a dry run can say no more.
        Ok(all && (!self.options.dry_run || self.repo.git_dir.join("HEAD").metadata().is_ok_and(|m| m.len() > 0)))
    }

    /// Moves a lock of HEAD aside whose owner is dead.
    fn unlock_head(&mut self, path: &Path, judge: &mut Judge<'_>) -> anyhow::Result<bool> {
        let Some(id) = FileId::at(path)? else { return Ok(true) };
        let lock = LockFile { path: path.to_owned(), id };
        let verdict = judge.judge(&lock)?;
        if verdict.owner == Liveness::Dead {
            return Ok(self.options.dry_run || execute::quarantine_lock(self.state, self.repo, &lock)?);
        }
        self.report.busy.push(format!("{} is held: {}", self.repo.relative(path), verdict.because));
        Ok(false)
    }

    /// `packed-refs` had something in it, and has no sense any more.
    pub(crate) fn packed_refs_are_damaged(&self, expected: &ExpectedRefs<'_>) -> anyhow::Result<bool> {
        let found = absent_is_none(fs::read(self.repo.common_dir.join("packed-refs")))?;
        Ok(match found {
            None => false,
            // Another program may write an empty one; git never does.
            Some(content) if content.is_empty() => expected.had_packed_refs,
            Some(content) => content.contains(&0) || !content.ends_with(b"\n"),
        })
    }

    /// Replaces damaged `packed-refs` by what the whole log, and reflogs, know of refs that have no file of their own.
    fn mend_packed_refs(&mut self, expected: &ExpectedRefs<'_>) -> anyhow::Result<()> {
        if !self.packed_refs_are_damaged(expected)? {
            return Ok(());
        }
        let scan = self.log.scan()?;
        let mut values = newest_values(&scan.records);
        for (path, _) in files_below(&self.repo.common_dir.join("logs/refs"))? {
            let inside = path.strip_prefix(self.repo.common_dir.join("logs")).unwrap_or(&path);
            let name = RefName::parse(std::os::unix::ffi::OsStrExt::as_bytes(inside.as_os_str()));
            let newest = reflog::newest_value(&path)?.and_then(|hex| Oid::parse(hex.as_bytes()));
            if let (Ok(name), Some(oid)) = (name, newest.filter(|oid| !oid.is_null())) {
                values.entry(name).or_insert(Value::Oid(oid));
            }
        }
        let refs = RefStore::new(self.repo);
        let mut text = b"# pack-refs with: sorted \n".to_vec();
        for (name, value) in values {
            let is_alone = name.as_bytes().starts_with(b"refs/") && read_small(&refs.file(&name))?.is_none();
            if let Some(oid) = value.oid().filter(|_| is_alone) {
                text.extend([oid.hex().as_bytes(), b" ", name.as_bytes(), b"\n"].concat());
            }
        }
        let lost =
            "packed-refs was damaged: it was made again from the log and the reflogs; what neither knows is lost";
        self.report.losses.push(lost.to_owned());
        if self.options.dry_run {
            return Ok(());
        }
        let path = self.repo.common_dir.join("packed-refs");
        self.keep_copy(&path)?;
        let lock = self.repo.common_dir.join("packed-refs.lock");
        // A lock from before the reboot goes later; what git cannot read is in nobody's hands.
        match self.while_holding(&lock, || self.put(&path, &text)) {
            Err(error) if error.is::<execute::InTheWay>() => self.put(&path, &text),
            other => other,
        }
    }
}

/// The newest word of the whole log on every ref that it names.
fn newest_values(records: &[Record]) -> BTreeMap<RefName, Value> {
    let mut values = BTreeMap::new();
    for record in records {
        match &record.body {
            Body::Begin(begin) => {
                for change in &begin.refs {
                    values.extend(change.before.clone().map(|before| (change.name.clone(), before)));
                }
            }
            Body::Committed { refs } | Body::Recovered { refs, .. } | Body::Baseline { refs, .. } => {
                values.extend(refs.iter().map(|s| (s.name.clone(), s.value.clone())));
            }
            _ => {}
        }
    }
    values
}
