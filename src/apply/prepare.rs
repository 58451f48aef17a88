//! From a queue to everything locked, staged and logged: the first half of the protocol.

use anyhow::Context;

use crate::apply::queue::{Content, clash_of_files};
use crate::apply::refs::{self, Target};
use crate::apply::session::GitSession;
use crate::apply::swap::{FileSwap, HeldLocks, StateSwap};
use crate::apply::unmet::{self, Before};
use crate::apply::{Open, PATIENCE, Prepared, Transaction};
use crate::fs::access::Purpose;
use crate::fs::beneath::Root;
use crate::fs::{FileId, durable};
use crate::git::hash::Hash;
use crate::git::refs::Value;
use crate::git::{Git, RefFormat, RefStore};
use crate::process::owner;
use crate::recovery::{self, Options};
use crate::staging::checkout::CheckedOut;
use crate::staging::own::{self, Whole};
use crate::staging::stage::Source;
use crate::staging::worktree::Worktree;
use crate::staging::{stage, states};
use crate::state::marker::{Entry, Marker};
use crate::state::{Durability, StateDir, TxId, TxKind, Wait};
use crate::util::text::shown;
use crate::wal::{Begin, Body, FileChange, FileImage, Flush, Log, NewFile, RefChange};

/// Staged files that are synced one by one; for more one call for the whole file system is faster.
const SYNCED_ALONE: usize = 8;

/// What was found out before anything was written.
struct Survey {
    targets: Vec<Target>,
    values: Vec<Value>,
    worktree: Option<Worktree>,
    before: Vec<Before>,
    read_at: i64,
}

impl Transaction {
    /// Looks whether it could be done, and changes nothing.
    ///
    /// # Errors
    /// As for [`Transaction::prepare`], but for what only git and its hooks can tell.
    pub fn check(&self) -> anyhow::Result<(Vec<RefChange>, Vec<FileChange>)> {
        let survey = self.survey()?;
        let refs = refs::intended(&survey.targets, &survey.values);
        let mut files = Vec::new();
        for (item, before) in self.files.iter().zip(&survey.before) {
            let hash = survey.worktree.as_ref().map_or(Hash::Sha1, |w| w.hash);
            let after = match &item.to {
                Some((mode, Content::Of(source))) => {
                    Some(FileImage { blob: stage::blob_of(source, *mode, hash)?, mode: *mode })
                }
                // Known when it is staged.
                Some((_, Content::Checkout(_))) => continue,
                None => None,
            };
            if before.image != after {
                let (path, before, file) = (item.path.clone(), before.image, before.file);
                files.push(FileChange { path, before, after, file, staged: None });
            }
        }
        Ok((refs, files))
    }

    /// Checks everything, stages the files, logs what is to be done, and lets git take its locks and ask the hooks.
    ///
    /// What the dead left unfinished is recovered first.
    ///
    /// # Errors
    /// [`crate::Unmet`] with every expectation that is not met; [`crate::Clash`] for two items that cannot both be;
    /// [`crate::NoWorktree`]; [`crate::state::Busy`] when another transaction with files is at work; what git or a hook
    /// says; what the file system says. Nothing was changed then.
    pub fn prepare(self) -> anyhow::Result<Prepared> {
        let state = StateDir::of(&self.repo);
        state.make_ready()?;
        let files_lock = if self.is_of_refs() { None } else { Some(state.hold_files(Wait::UpTo(PATIENCE))?) };
        // Only now: who held that lock before us and died is settled before we look at a file.
        if recovery::needs_recovery(&self.repo)? {
            let options = Options { wait: Wait::UpTo(PATIENCE), ..Options::new(self.git.program().to_owned()) };
            recovery::recover(&self.repo, &options)?;
        }
        let survey = self.survey()?;
        let boot = owner::boot_id()?;
        let log = Log::new(&state, &boot, Wait::UpTo(PATIENCE));
        let id = log.next_id()?;
        // The marker first: whatever is in flight has one that anybody sees.
        let marker = self.marker(id)?;
        let entry = marker
            .create(state.path())
            .with_context(|| format!("cannot write a marker into {}", shown(state.path())))?;
        let locks = HeldLocks::default();
        let mut work = Work { state: &state, log: &log, id, entry, marker, git: None, later: Vec::new(), locks };
        match self.prepare_logged(&mut work, survey) {
            Ok((begin, worktree, read_at)) => {
                let Work { entry, marker, git, later, locks, .. } = work;
                let durability = state.durability();
                let refs_at = self.refs_at(&state, id);
                let (repo, program, head) = (self.repo, self.git.program().to_owned(), self.head);
                let open = Open {
                    repo,
                    program,
                    boot,
                    id,
                    entry,
                    marker,
                    git,
                    later,
                    worktree,
                    begin,
                    durability,
                    read_at,
                    locks,
                    head,
                    refs_at,
                    state: state.clone(),
                    _files_lock: files_lock,
                };
                Ok(Prepared { open: Some(open) })
            }
            Err(error) => {
                work.give_up().context("cannot clean up after an error")?;
                Err(error)
            }
        }
    }

    fn survey(&self) -> anyhow::Result<Survey> {
        anyhow::ensure!(!self.is_empty(), "there is nothing to do");
        if let Some(clash) = clash_of_files(self.files.iter().map(|f| &f.path)) {
            return Err(clash.into());
        }
        let zeros = self.zeros();
        let targets = refs::resolve(&self.repo, &self.git, &self.refs, &zeros)?;
        refs::require_symrefs(&self.git, &targets)?;
        let values = refs::values(&self.repo, &self.git, &targets)?;
        let mut items = unmet::of_refs(&targets, &values);
        let read_at = crate::util::clock::now();
        let mut before = Vec::new();
        let worktree = if self.files.is_empty() {
            None
        } else {
            let worktree = Worktree::open(&self.repo, &self.git)?;
            let device = Root::open(&self.repo.common_dir)?.device()?;
            before = unmet::look_at_files(&worktree, &self.files, device, &mut items)?;
            Some(worktree)
        };
        if !items.is_empty() {
            return Err(super::Unmet { items }.into());
        }
        Ok(Survey { targets, values, worktree, before, read_at })
    }

    /// Everything from the stage to git's locks. Whatever goes wrong here, nothing was changed.
    fn prepare_logged(&self, work: &mut Work<'_>, survey: Survey) -> anyhow::Result<(Begin, Option<Worktree>, i64)> {
        let Survey { targets, values, worktree, before, read_at } = survey;
        let durability = work.state.durability();
        let files = match &worktree {
            Some(worktree) => self.stage(work, worktree, &before)?,
            None => Vec::new(),
        };
        let mut begin = self.begin_body(work, refs::intended(&targets, &values), files, durability);
        self.stage_own(work, &mut begin)?;
        // With the record the stage and the marker are durable: `decided` is worth nothing without them.
        let sync = match durability {
            Durability::Full => Flush::Barrier,
            Durability::Process => Flush::Yes,
        };
        let entry = &work.entry;
        let logged =
            work.log.append_if(Some(work.id), &Body::Begin(Box::new(begin.clone())), sync, || entry.path.exists())?;
        anyhow::ensure!(logged.is_some(), "another process removed the marker of {}", work.id);
        let head = self.lock_own(work, &begin)?;
        begin.head = RefStore::new(&self.repo).head()?;
        if targets.is_empty() {
            self.compare_head()?;
            begin.refs = head.into_iter().collect();
            return Ok((begin, worktree, read_at));
        }
        // Only what is reversed has been both: a transaction of the user's that asks for it is refused, by git.
        let (targets, later) = if self.reverses.is_some() { refs::split(targets) } else { (targets, Vec::new()) };
        let directory = worktree.as_ref().map_or(&self.repo.git_dir, |w| &w.path);
        let refs_at = self.refs_at(work.state, work.id);
        let mut git = GitSession::start(&refs_at, directory, work.id, &begin.message)?;
        // git waits for its first line; from here on the transaction is alive while it is.
        work.marker.hook_process = git.process()?;
        work.marker.update(work.state.path())?;
        let prepared = git.prepare(&targets);
        work.git = Some(git);
        prepared.map_err(|error| unmet::explain(&self.repo, &self.git, &targets, error))?;
        if let Some(log) = &self.branch_log {
            log.require_as_planned(&self.repo)?;
        }
        // git holds HEAD.lock as well while it changes the branch that HEAD means.
        self.compare_head()?;
        let locked = refs::locked(&self.repo, &self.git, &targets)?;
        // git compares object names under its locks; what a symbolic ref points to is compared here.
        let symbolic = |t: &&Target| matches!(t.expected, crate::apply::Expected::PointsTo(_));
        let targets: Vec<Target> = targets.iter().filter(symbolic).cloned().collect();
        let values = refs::values(&self.repo, &self.git, &targets)?;
        let items = unmet::of_refs(&targets, &values);
        if !items.is_empty() {
            return Err(super::Unmet { items }.into());
        }
        if let Some(run) = self.part_of {
            // As the hook does for git's own: the run takes reflogs back, too.
            let refs = RefStore::new(&self.repo);
            for change in locked.changes.iter().filter(|c| crate::run::child_transactions::is_shared(&c.name)) {
                crate::run::snapshot::keep_reflog(&refs.log(&change.name), work.state, run, change.name.clone())?;
            }
        }
        begin.hook_process = work.marker.hook_process;
        begin.refs = locked.changes;
        begin.refs.extend(refs::intended(&later, &refs::values(&self.repo, &self.git, &later)?));
        work.later = later;
        begin.watched = locked.watched;
        begin.packed_lock = locked.packed_lock;
        begin.packed = FileId::at(&self.repo.common_dir.join("packed-refs"))?;
        begin.refs.extend(head);
        Ok((begin, worktree, read_at))
    }

    fn stage(&self, work: &Work<'_>, worktree: &Worktree, before: &[Before]) -> anyhow::Result<Vec<FileChange>> {
        let stage = stage::open_new(work.state, work.id)?;
        let mut files = Vec::with_capacity(self.files.len());
        let mut checkout = CheckedOut::new(&self.git, worktree, self.attributes);
        for (item, before) in self.files.iter().zip(before) {
            let index = files.len();
            let (mut after, mut staged) = (None, None);
            if let Some((mode, content)) = &item.to {
                let source = match content {
                    Content::Of(source) => source.clone(),
                    Content::Checkout(oid) => Source::Bytes(checkout.content(oid, *mode, &item.path)?),
                };
                let (blob, file) = stage::write(&stage, index, &source, *mode, worktree.hash)?;
                (after, staged) = (Some(FileImage { blob, mode: *mode }), Some(file));
            }
            if before.image == after {
                stage::discard(&stage, index)?;
                continue;
            }
            let path = item.path.clone();
            files.push(FileChange { path, before: before.image, after, file: before.file, staged });
        }
        if work.state.durability() == Durability::Process {
            let written = files.iter().filter(|f| f.staged.is_some()).count();
            if written > SYNCED_ALONE {
                durable::sync_filesystem_of(&work.state.tx(work.id))?;
            } else {
                stage::sync(&stage, files.len())?;
            }
        }
        Ok(files)
    }

    /// Stages index and HEAD, and has them in the record: by these files recovery knows the locks.
    fn stage_own(&self, work: &Work<'_>, begin: &mut Begin) -> anyhow::Result<()> {
        if !self.is_of_refs() {
            work.state.make_tx(work.id)?;
        }
        let stage = |whole: Whole, swap: &FileSwap| {
            let path = whole.path(&self.repo, &self.repo.git_dir);
            let after = own::stage(work.state, work.id, whole, &path, &swap.content)?;
            Ok::<_, anyhow::Error>(NewFile { before: swap.before, after })
        };
        begin.new_index = self.index.as_ref().map(|index| stage(Whole::Index, index)).transpose()?;
        let stage_state = |swap: &StateSwap| {
            states::stage(work.state, work.id, &self.repo.git_dir, &swap.name, swap.content.as_deref())
        };
        begin.states = self.states.iter().map(stage_state).collect::<Result<_, _>>()?;
        begin.new_config = self.config.as_ref().map(|config| stage(Whole::Config, config)).transpose()?;
        if let Some(log) = &self.stash_log {
            begin.new_stash_log = log.stage(&self.repo, work.state, work.id)?;
        }
        let branch_log = self.branch_log.as_ref();
        begin.new_branch_log = branch_log.map(|log| log.stage(&self.repo, work.state, work.id)).transpose()?;
        if let Some(head) = &self.head {
            begin.new_head = Some(head.stage(&self.repo, &self.git, work.state, work.id)?);
            begin.refs.push(head.intended(&self.repo)?);
        }
        Ok(())
    }

    /// Takes `index.lock`, `config.lock`, `HEAD.lock` and the lock of the log of refs/stash.
    fn lock_own(&self, work: &mut Work<'_>, begin: &Begin) -> anyhow::Result<Option<RefChange>> {
        for (whole, change) in own::whole_files(begin) {
            if whole == Whole::StashLog {
                // There is none where git has not logged anything yet.
                durable::make_dirs(&self.repo.common_dir.join("logs/refs"), Purpose::Git)?;
            }
            work.locks.take_whole((work.state, work.id), &self.repo, whole, change.before)?;
        }
        let head = self.head.as_ref();
        head.map(|head| work.locks.take_head(work.state, work.id, &self.repo, head)).transpose()
    }

    fn compare_head(&self) -> anyhow::Result<()> {
        let Some(expected) = &self.head_now else { return Ok(()) };
        let now = RefStore::new(&self.repo).head()?.map(|head| head.value);
        anyhow::ensure!(
            now.as_ref() == Some(expected),
            "HEAD has just moved\nhint: nothing was changed; run this again"
        );
        Ok(())
    }

    /// Where git changes the branches: beside the real HEAD when we move that ourselves.
    fn refs_at(&self, state: &StateDir, id: TxId) -> Git {
        if self.head.is_some() { self.git.at(&own::shadow(state, id)) } else { self.git.clone() }
    }

    fn begin_body(
        &self,
        work: &Work<'_>,
        refs: Vec<RefChange>,
        files: Vec<FileChange>,
        durability: Durability,
    ) -> Begin {
        let message = if self.message.is_empty() { "apply" } else { &self.message };
        Begin {
            worktree: self.repo.recorded_worktree(),
            worktree_birth: self.repo.worktree_birth(),
            reftable: self.repo.ref_format == RefFormat::Reftable,
            refs,
            reverses: self.reverses,
            part_of: self.part_of,
            barrier: durability == Durability::Full,
            files,
            message: format!("{message} ({})", work.id),
            ..Begin::new(TxKind::Apply, &self.operation, work.marker.owner.clone(), work.marker.hook_process)
        }
    }

    fn marker(&self, id: TxId) -> anyhow::Result<Marker> {
        Ok(Marker::of_this_process(id, TxKind::Apply, &self.operation)?)
    }

    /// git's word for nothing has the length of the others.
    fn zeros(&self) -> String {
        let of_value = |item: &crate::apply::RefItem| match &item.to {
            crate::apply::RefTo::Value(Value::Oid(oid)) => Some(oid.null_like()),
            _ => None,
        };
        let of_expected = |item: &crate::apply::RefItem| match &item.expected {
            crate::apply::Expected::Exactly(oid) => Some(oid.null_like()),
            _ => None,
        };
        let told = self.refs.iter().find_map(|item| of_value(item).or_else(|| of_expected(item)));
        told.unwrap_or_else(|| self.hash_length())
    }

    fn hash_length(&self) -> String {
        let asked = self.git.run(crate::git::Plumbing::ObjectFormat);
        let is_long = asked.is_ok_and(|ran| ran.stdout.trim_ascii() == b"sha256");
        "0".repeat(if is_long { 64 } else { 40 })
    }
}

/// What has been begun.
struct Work<'w> {
    state: &'w StateDir,
    log: &'w Log<'w>,
    id: TxId,
    entry: Entry,
    marker: Marker,
    git: Option<GitSession>,
    later: Vec<Target>,
    locks: HeldLocks,
}

impl Work<'_> {
    fn give_up(mut self) -> anyhow::Result<()> {
        if let Some(git) = self.git {
            git.abort()?;
        }
        self.locks.release()?;
        // On a full disk it cannot be said; then recovery finds that nothing had been decided.
        if self.log.append(Some(self.id), &Body::Aborted, Flush::No).is_err() {
            durable::remove_tree(&self.state.tx(self.id))?;
            return Ok(self.entry.remove()?);
        }
        durable::remove_tree(&self.state.tx(self.id))?;
        Ok(self.entry.remove()?)
    }
}
