//! What of a worktree and its git directory is not as the snapshot has it, and bringing it back.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::beneath::{Kind, RelPath};
use crate::fs::{FileId, durable, moving, named as fs};
use crate::git::cat_file::Batch;
use crate::git::{Git, Plumbing, Repository, index};
use crate::process::owner;
use crate::recovery::run_rollback::place::RestoreTarget;
use crate::run::git_dir::{self, OPERATIONS, is_hook, is_known_by_name, is_part_of_index};
use crate::run::look::{Status, skipped};
use crate::run::manifest::{Content, Ignored, Kept, Manifest};
use crate::run::snapshot::umask;
use crate::util::text::shown;

/// Everything that restoring needs to know.
pub(crate) struct RestoreContext<'s> {
    pub(crate) repo: &'s Repository,
    pub(crate) git: Git,
    pub(crate) manifest: &'s Manifest,
    /// The run's directory, and its copies.
    pub(crate) run: PathBuf,
    pub(crate) copies: PathBuf,
    /// Where everything goes that makes way.
    pub(crate) aside: PathBuf,
}

/// What a restore has come to.
#[derive(Default)]
pub(crate) struct Restored {
    /// How many files were put back.
    pub(crate) put: usize,
    /// How many were moved aside.
    pub(crate) moved: usize,
    /// What stays as it is, and why: it would fail again.
    pub(crate) failed: Vec<String>,
}

impl Restored {
    /// Keeps an error that would come again, so that everything else is restored all the same.
    pub(crate) fn attempt(&mut self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        match result {
            Err(error) if moving::is_permanent(&error) => {
                self.failed.push(format!("{error:#}"));
                Ok(())
            }
            other => other,
        }
    }

    /// As [`Restored::attempt`], of what can be tried once more: an error that does not come again was none. Where the second try
    /// is hindered by what the first has left, the first tells why.
    pub(crate) fn attempt_twice(&mut self, mut what: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let first = match what() {
            Err(error) if moving::is_permanent(&error) => error,
            other => return other,
        };
        self.attempt(what()).map_err(|_| first)
    }
}

/// What differs from the snapshot.
#[derive(Default)]
pub(crate) struct Difference {
    /// In the worktree, kept in the snapshot.
    files: Vec<Kept>,
    /// In the worktree, as the snapshot's index has it: mode and blob.
    blobs: Vec<(RelPath, u32, String)>,
    /// In the worktree, and was not there.
    new: Vec<RelPath>,
    /// New rules about ignored files that hide themselves: nobody's work, but they may hide what is.
    hidden_rules: Vec<RelPath>,
    /// Ignored files that are gone, or other ones.
    ignored: Vec<Ignored>,
    /// In the worktree's git directory.
    own: Vec<Kept>,
    own_new: Vec<RelPath>,
    /// What is never put back there, and has changed: hooks, large files.
    pub(crate) left: Vec<RelPath>,
    /// In the shared git directory.
    shared: Vec<Kept>,
    shared_new: Vec<RelPath>,
    /// The index.
    index: bool,
    /// The newest status change of all those that are there.
    pub(crate) newest: i64,
}

impl Difference {
    pub(crate) fn count(&self) -> usize {
        self.files.len() + self.blobs.len() + self.new.len() + self.ignored.len()
    }

    pub(crate) fn changes_config(&self) -> bool {
        self.own.iter().chain(&self.shared).any(|kept| kept.path.as_bytes() == b"config")
    }

    pub(crate) fn is_none(&self) -> bool {
        let git_dir = [&self.own, &self.shared].iter().all(|l| l.is_empty());
        self.count() == 0
            && git_dir
            && self.left.is_empty()
            && self.own_new.is_empty()
            && self.shared_new.is_empty()
            && !self.index
    }
}

impl RestoreContext<'_> {
    fn place(&self, dir: &Path, area: &str) -> anyhow::Result<RestoreTarget<'_>> {
        RestoreTarget::new(dir, self.aside.join(area), &self.run, &self.copies)
    }

    /// The worktree, which has to be the directory that it was: it is opened once, and used as it was opened.
    fn worktree_place(&self, worktree: &Path) -> anyhow::Result<RestoreTarget<'_>> {
        let place = self.place(worktree, "worktree")?;
        anyhow::ensure!(
            self.manifest.root.is_none_or(|root| place.is_directory(root)),
            "{} is another directory by now: nothing is put back there",
            shown(worktree)
        );
        Ok(place)
    }

    /// The snapshot's index; where there was none, a name that nothing has.
    fn saved_index(&self) -> PathBuf {
        match self.manifest.index.as_ref().map(|k| &k.content) {
            Some(Content::File { copy, .. }) => self.copies.join(copy.to_string()),
            _ => self.run.join("no-index"),
        }
    }

    /// Looks, and changes nothing.
    pub(crate) fn difference(&self) -> anyhow::Result<Difference> {
        let mut found = Difference::default();
        let mut note = |place: &RestoreTarget<'_>, path: &RelPath| -> anyhow::Result<()> {
            found.newest = found.newest.max(place.seen(path)?.map_or(0, |s| s.id.ctime));
            Ok(())
        };
        let own = self.place(&self.repo.git_dir, "git")?;
        for kept in &self.manifest.own {
            if own.differs(kept)? {
                note(&own, &kept.path)?;
                found.own.push(kept.clone());
            }
        }
        let new = new_paths(&git_dir::own(&self.repo.git_dir)?, &self.manifest.own);
        (found.left, found.own_new) = new.into_iter().filter(|path| !is_part_of_index(path)).partition(is_hook);
        for kept in self.manifest.own.iter().filter(|kept| kept.content == Content::Opaque) {
            let now = own.seen(&kept.path)?;
            let is_changed = match kept.id {
                Some(id) => now.is_none_or(|now| !now.id.is_same_file(&id)),
                None => is_known_by_name(&kept.path) && now.is_none(),
            };
            if is_changed {
                found.left.push(kept.path.clone());
            }
        }
        // What somebody has open is nothing that only the run knows of: a database, a log.
        if !(found.own.is_empty() && found.own_new.is_empty()) {
            let open = owner::open_below(&self.repo.git_dir);
            let is_open = |path: &RelPath| open.contains(&self.repo.git_dir.join(path.as_path()));
            let (left, own) = std::mem::take(&mut found.own).into_iter().partition(|kept| is_open(&kept.path));
            found.own = own;
            found.left.extend(<Vec<Kept>>::into_iter(left).map(|kept| kept.path));
            let (mut left, new) = std::mem::take(&mut found.own_new).into_iter().partition(is_open);
            found.own_new = new;
            found.left.append(&mut left);
        }
        for path in &found.own_new {
            note(&own, path)?;
        }
        if self.repo.git_dir != self.repo.common_dir {
            let shared = self.place(&self.repo.common_dir, "git-shared")?;
            for kept in &self.manifest.shared {
                if shared.differs(kept)? {
                    note(&shared, &kept.path)?;
                    found.shared.push(kept.clone());
                }
            }
            found.shared_new = new_paths(&git_dir::shared(&self.repo.common_dir)?, &self.manifest.shared);
        }
        // git refreshes the index when somebody merely looks: its time says nothing.
        found.index = self.manifest.index.as_ref().map_or(Ok(false), |kept| own.differs(kept))?;
        if let Some(worktree) = self.manifest.worktree() {
            let place = self.worktree_place(&worktree)?;
            self.worktree_difference(&worktree, &place, &mut found)?;
        }
        Ok(found)
    }

    /// When something was staged last that the snapshot's index has not. git writes the object of what it stages, or touches it, so
    /// the time of the object tells staging from a refresh. 0 where nothing of that kind is found.
    ///
    /// Limit: what was taken out of the index leaves no object, nor does what was in a pack already.
    pub(crate) fn staged_at(&self) -> anyhow::Result<i64> {
        let path = self.repo.git_dir.join("index");
        let (Some(written), Some((now, _))) = (FileId::at(&path)?, index::read(&self.git, &path)?) else {
            return Ok(0);
        };
        let before = index::read(&self.git, &self.saved_index())?.map_or_else(Vec::new, |(entries, _)| entries);
        let before: HashSet<_> = before.into_iter().map(|entry| (entry.path, entry.oid)).collect();
        let mut newest = 0;
        for entry in now.into_iter().filter(|entry| entry.mode != 0o160_000) {
            let name = entry.oid.to_string();
            if !before.contains(&(entry.path, entry.oid)) {
                let object = self.repo.common_dir.join("objects").join(&name[..2]).join(&name[2..]);
                newest = newest.max(modified(&object));
            }
        }
        Ok(newest.min(written.ctime))
    }

    fn worktree_difference(
        &self,
        worktree: &Path,
        place: &RestoreTarget<'_>,
        found: &mut Difference,
    ) -> anyhow::Result<()> {
        let status = Status::read(self.repo, &self.git, worktree, Some(&self.saved_index()))?;
        let kept: HashMap<&RelPath, &Kept> = self.manifest.files.iter().map(|k| (&k.path, k)).collect();
        let ignored: HashSet<&RelPath> = self.manifest.ignored.iter().map(|i| &i.path).collect();
        for kept in &self.manifest.files {
            if place.differs(kept)? {
                found.files.push(kept.clone());
            }
        }
        let skipped: HashSet<RelPath> =
            skipped(self.repo, &self.git, worktree, &self.saved_index())?.into_iter().collect();
        let is_known = |path: &RelPath| kept.contains_key(path) || skipped.contains(path);
        for changed in status.changed.into_iter().filter(|c| !is_known(&c.path)) {
            // A gitlink is a directory of its own.
            if let Some((mode, blob)) = changed.indexed.filter(|(mode, _)| *mode != 0o160_000) {
                found.blobs.push((changed.path, mode, blob));
            }
        }
        let was_there = |path: &RelPath| {
            kept.get(path).is_some_and(|k| k.content != Content::Absent)
                || ignored.contains(path)
                || self.manifest.is_by_name(path)
        };
        for dir in &status.ignored_dirs {
            let rule = RelPath::parse(&[dir.as_bytes(), b"/", RULES[0].as_bytes()].concat())?;
            if !was_there(&rule) && place.now(&rule)?.is_some() {
                found.hidden_rules.push(rule);
            }
        }
        found.hidden_rules.extend(status.ignored.into_iter().filter(|path| is_rule(path) && !was_there(path)));
        found.new = status.untracked.into_iter().chain(status.opaque).filter(|p| !was_there(p)).collect();
        for path in &skipped {
            // A sparse checkout keeps it out.
            if !was_there(path) && place.seen(path)?.is_some() {
                found.new.push(path.clone());
            }
        }
        for file in &self.manifest.ignored {
            // Changed in place it is still the same file, and its owner's.
            if file.copy.is_some() && place.seen(&file.path)?.is_none_or(|now| now.id.ino != file.id.ino) {
                found.ignored.push(file.clone());
            }
        }
        let paths = found.files.iter().map(|k| &k.path).chain(found.blobs.iter().map(|b| &b.0)).chain(&found.new);
        for path in paths {
            found.newest = found.newest.max(place.seen(path)?.map_or(0, |s| s.id.ctime));
        }
        Ok(())
    }

    /// Brings the files of the git directory back that can be, but for the index.
    pub(crate) fn restore_git_dir(&self, found: &Difference, done: &mut Restored) -> anyhow::Result<()> {
        let mut own = self.place(&self.repo.git_dir, "git")?;
        // Git directories of submodules stay as long as the worktree has something that leads there.
        let new: Vec<RelPath> = found.own_new.iter().filter(|path| !is_known_by_name(path)).cloned().collect();
        put_all(&mut own, &found.own, &new, done)?;
        for dir in OPERATIONS {
            done.attempt(own.remove_empty(dir))?;
        }
        if self.repo.git_dir != self.repo.common_dir {
            let mut shared = self.place(&self.repo.common_dir, "git-shared")?;
            put_all(&mut shared, &found.shared, &found.shared_new, done)?;
        }
        Ok(())
    }

    /// Brings worktree and index back as far as that can be. `limit`: what changed after that is somebody else's, and stays.
    /// `beat` is called as it goes.
    pub(crate) fn restore_files(
        &self,
        found: &Difference,
        limit: Option<i64>,
        beat: &dyn Fn() -> anyhow::Result<()>,
        done: &mut Restored,
    ) -> anyhow::Result<()> {
        let mut own = self.place(&self.repo.git_dir, "git")?;
        if let Some(worktree) = self.manifest.worktree() {
            self.restore_worktree(&worktree, found, limit, beat, done)?;
        }
        for path in found.own_new.iter().filter(|path| is_known_by_name(path)) {
            done.attempt(own.remove(path))?;
        }
        if let Some(kept) = &self.manifest.index
            && own.differs(kept)?
        {
            done.attempt(self.restore_index(&mut own, kept))?;
        }
        Ok(())
    }

    fn restore_index(&self, own: &mut RestoreTarget<'_>, kept: &Kept) -> anyhow::Result<()> {
        own.put_back(kept)?;
        if let (Content::File { .. }, Some(id)) = (&kept.content, kept.id) {
            durable::set_modified(&self.repo.git_dir.join("index"), id.mtime)?;
        }
        Ok(())
    }

    fn restore_worktree(
        &self,
        worktree: &Path,
        found: &Difference,
        limit: Option<i64>,
        beat: &dyn Fn() -> anyhow::Result<()>,
        done: &mut Restored,
    ) -> anyhow::Result<()> {
        let mut place = self.worktree_place(worktree)?;
        let tracked_now = if found.ignored.is_empty() { HashSet::new() } else { self.tracked_now(worktree)? };
        let mut blobs = Batch::start(&self.git.replacing())?;
        // What decides about ignored files comes first: what is new is only known by the old rules.
        for kept in found.files.iter().filter(|k| is_rule(&k.path)) {
            done.attempt(place.put_back(kept))?;
        }
        for blob in found.blobs.iter().filter(|b| is_rule(&b.0)) {
            done.attempt(self.put_blob(&mut place, &mut blobs, blob))?;
        }
        let now = loop {
            let mut now = Difference::default();
            self.worktree_difference(worktree, &place, &mut now)?;
            let is_theirs = |place: &RestoreTarget<'_>, path: &RelPath| {
                limit.is_some_and(|l| matches!(place.now(path), Ok(Some(s)) if s.id.ctime > l))
            };
            now.new.append(&mut now.hidden_rules);
            now.new.retain(|path| !is_theirs(&place, path));
            // New rules go first, and then everything is looked at again: they may hide what else is new.
            let (rules, rest): (Vec<RelPath>, Vec<RelPath>) = now.new.into_iter().partition(is_rule);
            let failures = done.failed.len();
            for path in &rules {
                beat()?;
                done.attempt(place.remove(path))?;
            }
            now.new = rest;
            // One that cannot be removed would be found for ever.
            if rules.is_empty() || done.failed.len() > failures {
                break now;
            }
        };
        for path in &now.new {
            beat()?;
            done.attempt(place.remove(path))?;
        }
        for kept in &now.files {
            beat()?;
            done.attempt(place.put_back(kept))?;
        }
        for blob in &now.blobs {
            beat()?;
            done.attempt(self.put_blob(&mut place, &mut blobs, blob))?;
        }
        for file in &found.ignored {
            let Some(copy) = file.copy else { continue };
            done.attempt(match place.now(&file.path) {
                Ok(Some(now)) if now.id.ino == file.id.ino => Ok(()),
                // The script's own doing; git would have been asked first.
                Ok(Some(_)) if !tracked_now.contains(&file.path) => place.quarantine_second_name(&file.path, copy),
                Ok(_) => place.put_second_name(&file.path, copy),
                Err(error) => Err(error.into()),
            })?;
        }
        (done.put, done.moved) = (place.put, place.moved);
        Ok(())
    }

    fn put_blob(
        &self,
        place: &mut RestoreTarget<'_>,
        blobs: &mut Batch,
        (path, mode, blob): &(RelPath, u32, String),
    ) -> anyhow::Result<()> {
        if *mode == 0o120_000 {
            let target = blobs.content(blob).with_context(|| format!("cannot read the blob of {path}"))?;
            return place.put_link(path, &target);
        }
        // Of the permission bits git stores one; the others stay as they are, or as git would make them.
        let usual = 0o666 & !umask();
        let bits = place.now(path)?.filter(|now| now.kind == Kind::File).map_or(usual, |now| now.mode & !0o111);
        // Whoever may read it may execute it.
        let bits = if *mode == 0o100_755 { bits | (bits & 0o444) >> 2 } else { bits };
        place.put_file(path, bits, |ready| {
            let mut file = durable::create_new(ready, b"")?;
            blobs.copy(blob, &mut file)?;
            Ok(file)
        })
    }

    /// What the index tracks now, before it goes back.
    fn tracked_now(&self, worktree: &Path) -> anyhow::Result<HashSet<RelPath>> {
        let ran = self.git.worktree(worktree).run(Plumbing::Tracked(None))?;
        anyhow::ensure!(ran.success, "git ls-files failed: {}", ran.stderr);
        let paths = ran.stdout.split(|b| *b == 0).filter(|p| !p.is_empty()).map(RelPath::parse);
        Ok(paths.collect::<Result<_, _>>()?)
    }
}

/// Files with rules about others.
const RULES: [&str; 2] = [".gitignore", ".gitattributes"];

fn is_rule(path: &RelPath) -> bool {
    RULES.iter().any(|rule| path.name() == *rule)
}

fn put_all(place: &mut RestoreTarget<'_>, kept: &[Kept], new: &[RelPath], done: &mut Restored) -> anyhow::Result<()> {
    for path in new {
        done.attempt(place.remove(path))?;
    }
    kept.iter().try_for_each(|kept| done.attempt(place.put_back(kept)))
}

fn new_paths(now: &[RelPath], kept: &[Kept]) -> Vec<RelPath> {
    let known: HashSet<&RelPath> = kept.iter().map(|k| &k.path).collect();
    now.iter().filter(|path| !known.contains(path)).cloned().collect()
}

/// When a file was last changed; 0 when it is not there.
pub(crate) fn modified(path: &Path) -> i64 {
    fs::symlink_metadata(path).map_or(0, |m| FileId::of(&m).mtime)
}
