//! Reflogs whose ends a power cut damaged, and indexes that cannot be read.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::FileId;
use crate::fs::durable;
use crate::fs::named as fs;
use crate::git::{Oid, RefName, RefStore, Repository, command, index, reflog};
use crate::recovery::Session;
use crate::recovery::execute::{InTheWay, free_name};
use crate::recovery::expected_refs::ExpectedRefs;
use crate::recovery::power_cut::{Closure, files_below, is_old};
use crate::recovery::quarantine_name;

/// So many entries at the end of a reflog are checked for lost objects.
const NEWEST_ENTRIES: usize = 100;

impl Session<'_> {
    /// Cuts NULs, half lines and entries about lost objects off the ends of reflogs.
    pub(crate) fn mend_reflogs(&mut self, expected: &ExpectedRefs<'_>, closure: &Closure<'_>) -> anyhow::Result<()> {
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
        let lost = closure.missing(&told)?;
        for (name, path) in logs {
            if reflog::sound_size(&path, |oid| !lost.contains(oid))?.is_none() {
                continue;
            }
            if !self.options.dry_run {
                match self.while_locked(&name, || self.cut_reflog(&name, &path, &lost)) {
                    // A live git appends to it right now: its end is not what the power cut left.
                    Err(error) if error.is::<InTheWay>() => continue,
                    other => other?,
                }
            }
            self.report.notes.push(format!("trimmed the reflog of {name}: the power cut had damaged its end"));
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

    /// Returns whether none is left that somebody holds.
    pub(crate) fn mend_indexes(&mut self, expected: &ExpectedRefs<'_>, closure: &Closure<'_>) -> anyhow::Result<bool> {
        let program = self.options.git_program.clone();
        let mut done = true;
        for git_dir in self.repo.all_git_dirs() {
            let path = git_dir.join("index");
            let file = FileId::at(&path)?;
            if file.is_none_or(|file| is_old(expected, file)) {
                continue;
            }
            if index::is_readable(&program, &git_dir, &path)? {
                self.mend_staged(&git_dir, &path, closure)?;
                continue;
            }
            let shown = self.repo.relative(&path);
            if git_dir.join("index.lock").exists() {
                self.report.busy.push(format!("{shown} is unreadable, and its lock is held"));
                done = false;
                continue;
            }
            if let Some(what) = index::in_progress(&git_dir) {
                let told = format!(
                    "{shown} is unreadable in the middle of {what}: remove it and run `git reset`, which gives that up"
                );
                self.report.losses.push(told);
                continue;
            }
            self.rebuild_index(&git_dir, &path, &shown)?;
        }
        Ok(done)
    }

    /// Writes objects again that only the index names and that are lost: blobs if the files still have that content, and
    /// the trees that the index stands for.
    fn mend_staged(&mut self, git_dir: &Path, path: &Path, closure: &Closure<'_>) -> anyhow::Result<()> {
        let program = &self.options.git_program;
        let listed = command::run(program, git_dir, &["ls-files", "--stage", "-z"], b"", None)?;
        let staged: Vec<(Oid, &[u8])> = listed.stdout.split(|b| *b == 0).filter_map(staged_entry).collect();
        let trees = index::cached_trees(path)?;
        let named: Vec<Oid> = staged.iter().map(|(oid, _)| *oid).chain(trees.iter().copied()).collect();
        let lost = closure.missing(&named)?;
        if lost.is_empty() {
            return Ok(());
        }
        let shown = self.repo.relative(path);
        if self.options.dry_run {
            self.report.notes.push(format!("{shown} names {} objects that are lost", lost.len()));
            return Ok(());
        }
        let Some(worktree) = worktree_of(git_dir) else { return Ok(()) };
        for (oid, name) in staged.iter().filter(|(oid, _)| lost.contains(oid)) {
            let name = String::from_utf8_lossy(name).into_owned();
            let args = ["hash-object", "-w", "--", &name];
            let written = command::run_at(program, git_dir, &worktree, &args)?;
            if Oid::parse(written.stdout.trim_ascii()) != Some(*oid) {
                self.report.losses.push(format!("{shown}: what was staged of {name} is lost: `git add` it again"));
            }
        }
        if trees.iter().any(|tree| lost.contains(tree)) {
            // It makes missing trees anew. What cannot be a tree (a conflict) needs none.
            command::run(program, git_dir, &["write-tree"], b"", None)?;
        }
        self.report.notes.push(format!("wrote objects again that {shown} names and that were lost"));
        Ok(())
    }

    fn rebuild_index(&mut self, git_dir: &Path, path: &Path, shown: &str) -> anyhow::Result<()> {
        let program = self.options.git_program.clone();
        let told = format!("rebuilt {shown} from HEAD: it was unreadable; nothing in the worktree was touched");
        let Some(worktree) = worktree_of(git_dir) else {
            self.report.losses.push(format!("{shown} is unreadable: remove it and run `git reset` in the worktree"));
            return Ok(());
        };
        if !self.options.dry_run {
            self.set_aside(path)?;
            // With a path it moves no ref and writes no reflog.
            let ran = command::run_at(&program, git_dir, &worktree, &["reset", "--quiet", "--", ":/"])?;
            if !ran.success {
                self.report.losses.push(format!("{shown} was unreadable and is in quarantine: {}", ran.stderr));
                return Ok(());
            }
        }
        self.report.notes.push(told);
        Ok(())
    }
}

/// `<mode> SP <oid> SP <stage> TAB <path>`, but for submodules, whose commits are elsewhere.
fn staged_entry(entry: &[u8]) -> Option<(Oid, &[u8])> {
    let tab = entry.iter().position(|b| *b == b'\t')?;
    let mut words = entry[..tab].split(|b| *b == b' ');
    let mode = words.next()?;
    let oid = Oid::parse(words.next()?)?;
    (mode != b"160000").then_some((oid, &entry[tab + 1..]))
}

/// The directory that an index is about.
fn worktree_of(git_dir: &Path) -> Option<PathBuf> {
    if git_dir.file_name()? == ".git" {
        return git_dir.parent().map(Path::to_owned);
    }
    let text = fs::read_to_string(git_dir.join("gitdir")).ok()?;
    Path::new(text.trim_end()).parent().map(Path::to_owned).filter(|dir| dir.is_dir())
}
