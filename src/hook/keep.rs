//! What undo needs and cannot have later: kept at the first `prepared` of an operation, and at the end of each logged call.
//!
//! - The *state files* of commands that have stopped (MERGE_HEAD, rebase-merge/ ...), copied: git writes some of them in place.
//! - The *index* before the operation, by a second name: git never writes it in place. At the first `prepared` git may have
//!   replaced it already (`switch`, `reset`). So the last call of each operation gives the index a standing second name,
//!   and the log of refs/stash another one: `stash drop` calls no hook at all.
//! - The *configuration section* of a branch that comes or goes: git writes it after the last call.
//!
//! A call that changes nothing keeps nothing. Where files cannot have second names, or a state file cannot be read, nobody is kept
//! from working, and undo knows less. An error of writing below `.jin` is that of the log as well: the change is refused.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::door::{self, Kind};
use crate::fs::{Birth, FileId, durable};
use crate::git::{Value, branch_config};
use crate::hook::call::Call;
use crate::hook::modified;
use crate::observe::Observed;
use crate::process::git_argv;
use crate::process::operation::{self, Root};
use crate::process::owner::{self, Process};
use crate::state::directory::SMALL;
use crate::state::marker::Marker;
use crate::state::{TxId, kept};
use crate::util::text::shown;
use crate::wal::{KeptPart, RefChange, Sequence};

/// The most that is kept of state files, in bytes.
const MOST: u64 = 1 << 20;

/// A process starts within one tick of the kernel's clock, a file system has the time of another one: nanoseconds.
const TICK: i64 = 20_000_000;

/// A state file or directory right in the git directory of a worktree.
pub(super) struct StateFile {
    name: OsString,
    kind: Kind,
}

impl Call<'_> {
    /// What commands that have stopped have left in this worktree.
    pub(super) fn in_progress(&self) -> io::Result<Vec<StateFile>> {
        let found = door::entries(&self.repo.git_dir)?.into_iter().flatten();
        let found: Vec<StateFile> =
            found.filter(|(name, _)| kept::is_state(name)).map(|(name, kind)| StateFile { name, kind }).collect();
        // A finished rebase leaves it.
        let is_left = |file: &StateFile| file.name == "AUTO_MERGE";
        Ok(if found.iter().all(is_left) { Vec::new() } else { found })
    }

    /// The sequence that is in progress.
    pub(super) fn sequence(&self, found: &[StateFile]) -> Option<Sequence> {
        let name = kept::SEQUENCES.iter().find(|name| found.iter().any(|file| file.name == **name))?;
        let birth = Birth::at(&self.repo.git_dir.join(name)).ok()?;
        Some(Sequence { name: (*name).to_owned(), birth })
    }

    /// Keeps what the operation found, for the transaction `id`; once for each operation.
    pub(super) fn save_for_undo(
        &self,
        id: TxId,
        marker: &Marker,
        root: Option<&Root>,
        seen: &Observed,
        in_progress: &[StateFile],
        run: Option<TxId>,
    ) -> anyhow::Result<Vec<KeptPart>> {
        let git = self.git()?;
        let sections = self.save_sections(id, seen)?;
        let mut parts: Vec<KeptPart> =
            sections.into_iter().chain(self.save_stash_log(id, seen)?).chain(self.save_modified(id, seen)?).collect();
        let uses_index = !git_argv::changes_no_index(&git.argv);
        if !uses_index && in_progress.is_empty() {
            return Ok(parts);
        }
        if self.has_put_away(in_progress)? {
            parts.push(KeptPart::Autostash);
        }
        if uses_index && modified::is_elsewhere(&self.repo.git_dir)? {
            parts.push(KeptPart::Elsewhere);
        }
        let process = root.map_or_else(|| git.process(), |root| root.process);
        let began = owner::realtime_of_start(
            self.start_of_run(run.filter(|_| !in_progress.is_empty()))?.unwrap_or(process.start),
        );
        // A pick makes its state within a tick of its start.
        let begins_pick = root.map_or_else(
            || git_argv::begins_a_pick(&git.argv),
            |root| git_argv::begins_a_pick(&operation::words_of(&root.operation)),
        );
        let older_than = if begins_pick { began - TICK } else { began + TICK };
        let found: Vec<&StateFile> = in_progress.iter().filter(|file| self.was_there(file, older_than)).collect();
        if found.is_empty() && !in_progress.is_empty() {
            parts.push(KeptPart::StatesOfItself);
        }
        if !self.is_first_of(process, marker)? {
            return Ok(parts);
        }
        if uses_index {
            parts.extend(self.save_index_before(id, process, seen)?);
        }
        if !found.is_empty() {
            let to = self.state.make_tx(id)?.join(kept::STATE);
            let is_kept = copy_states(&self.repo.git_dir, &found, &to)?;
            parts.push(if is_kept { KeptPart::States } else { KeptPart::StatesLost });
        }
        Ok(parts)
    }

    /// Has git put changes away, to take them out again at the end? Then the index is without what was staged.
    fn has_put_away(&self, in_progress: &[StateFile]) -> io::Result<bool> {
        for file in in_progress {
            let may_have = file.kind == Kind::Directory && file.name.as_bytes().starts_with(b"rebase-");
            let autostash = self.repo.git_dir.join(&file.name).join("autostash");
            if file.name == kept::AUTOSTASH || (may_have && FileId::at(&autostash)?.is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// When the run began that this is part of.
    fn start_of_run(&self, run: Option<TxId>) -> anyhow::Result<Option<u64>> {
        let Some(entry) = run.and_then(|run| self.listing.markers.iter().find(|entry| entry.id == run)) else {
            return Ok(None);
        };
        Ok(entry.read()?.map(|marker| marker.owner.process.start))
    }

    /// Is the state file older than the operation? A rebase makes its directory before its first transaction.
    fn was_there(&self, file: &StateFile, older_than: i64) -> bool {
        Birth::at(&self.repo.git_dir.join(&file.name))
            .is_ok_and(|birth| birth.born.is_none_or(|born| born < older_than))
    }

    /// Has nothing been kept for the operation of `root` yet?
    fn is_first_of(&self, root: Process, marker: &Marker) -> anyhow::Result<bool> {
        let name = kept::mark_name(self.repo.worktree_name());
        let text = format!("{} {}\n", root.pid, root.start);
        let dir = self.state.path();
        if durable::read_own(&dir.join(&name), SMALL).is_ok_and(|was| was == text.as_bytes()) {
            return Ok(false);
        }
        durable::publish(dir, &marker.tmp_name(), &name, text.as_bytes())
            .with_context(|| format!("cannot write into {}", shown(dir)))?;
        Ok(true)
    }

    /// The index as the operation found it, or as the last one left it.
    fn save_index_before(&self, id: TxId, root: Process, seen: &Observed) -> anyhow::Result<Option<KeptPart>> {
        let (index, standing) = (self.repo.git_dir.join("index"), self.last_index());
        let Some(now) = FileId::at(&index)? else { return Ok(None) };
        // A commit or a stash writes it with the same entries, if at all, before it moves refs.
        let argv = &self.git()?.argv;
        let keeps = git_argv::may_commit(argv) || seen.changes.iter().any(comes_to_stash);
        let is_old = keeps || now.mtime + TICK < owner::realtime_of_start(root.start);
        if is_old {
            kept::renew(&index, &standing)?;
        }
        let Some(last) = FileId::at(&standing)? else { return Ok(None) };
        let (name, part) =
            if last.ino == now.ino { (kept::INDEX, KeptPart::Index) } else { (kept::LAST_INDEX, KeptPart::LastIndex) };
        let second = self.state.make_tx(id)?.join(name);
        match durable::hard_link(&standing, &second) {
            Ok(()) => Ok(Some(part)),
            // Another hook of this worktree was faster, or there are no links.
            Err(_) if FileId::at(&second)?.is_none() => Ok(None),
            Err(e) => Err(e).context("cannot keep the index"),
        }
    }

    /// The log of refs/stash when that is deleted: `stash drop` has replaced it by an empty one already, and then the last operation
    /// has left its second name.
    fn save_stash_log(&self, id: TxId, seen: &Observed) -> anyhow::Result<Option<KeptPart>> {
        let is_stash = |change: &&RefChange| is_stash(change) && change.after == Value::Absent;
        let Some(change) = seen.changes.iter().find(is_stash) else { return Ok(None) };
        let log = match change.log {
            Some(size) if size > 0 => self.repo.common_dir.join("logs/refs/stash"),
            _ => kept::last_stash(&self.state),
        };
        // Where there are no links, nobody is kept from working.
        let is_kept = durable::hard_link(&log, &self.state.make_tx(id)?.join(kept::STASH_LOG)).is_ok();
        Ok(is_kept.then_some(KeptPart::StashLog))
    }

    /// The names of files that are not as staged, when a stash is about to be made.
    fn save_modified(&self, id: TxId, seen: &Observed) -> anyhow::Result<Option<KeptPart>> {
        let git = self.git()?;
        if !seen.changes.iter().any(comes_to_stash) || git_argv::global_options(&git.argv).command != Some("stash") {
            return Ok(None);
        }
        // What cannot be read keeps nobody from working.
        let Ok(Some(names)) = modified::list(&self.repo.git_dir) else { return Ok(None) };
        let path = self.state.make_tx(id)?.join(kept::MODIFIED);
        durable::create_new(&path, &names).context("cannot keep the names of modified files")?;
        Ok(Some(KeptPart::Modified))
    }

    fn save_sections(&self, id: TxId, seen: &Observed) -> anyhow::Result<Option<KeptPart>> {
        let may_track = git_argv::may_configure_branches(&self.git()?.argv);
        let is_asked =
            |change: &&RefChange| may_track || change.after == Value::Absent || change.before == Some(Value::Absent);
        let of_branches = seen.changes.iter().filter(is_asked);
        let branches: Vec<&[u8]> =
            of_branches.filter_map(|change| change.name.as_bytes().strip_prefix(b"refs/heads/")).collect();
        if branches.is_empty() {
            return Ok(None);
        }
        let config = self.repo.common_dir.join("config");
        let Ok(text) = durable::read_own(&config, SMALL) else { return Ok(Some(KeptPart::SectionsLost)) };
        if branch_config::has_others(&text, &branches) {
            return Ok(Some(KeptPart::SectionsLost));
        }
        let sections = branch_config::sections(&text, &branches);
        if sections.is_empty() {
            return Ok(None);
        }
        // For nobody who may not read the configuration itself.
        let kept = branch_config::encode(&sections);
        durable::create_for(&config, &self.state.make_tx(id)?.join(kept::SECTIONS), &kept)
            .context("cannot keep the configuration of a branch")?;
        Ok(Some(KeptPart::Sections))
    }

    /// Gives index and log of the stash their standing second names: `new_index` is the index that git is about to put into
    /// place.
    pub(super) fn renew_standing(&self, new_index: Option<PathBuf>) -> io::Result<()> {
        kept::renew_standing(&self.repo, &self.state, new_index)
    }

    fn last_index(&self) -> PathBuf {
        kept::last_index(&self.state, self.repo.worktree_name())
    }
}

fn is_stash(change: &RefChange) -> bool {
    change.name.as_bytes() == b"refs/stash"
}

fn comes_to_stash(change: &RefChange) -> bool {
    is_stash(change) && change.after != Value::Absent
}

/// Copies state files as long as they are small. Are they kept?
fn copy_states(git_dir: &Path, found: &[&StateFile], to: &Path) -> anyhow::Result<bool> {
    let mut files = Vec::new();
    for file in found {
        list(git_dir, Path::new(&file.name), file.kind, &mut files)?;
    }
    let mut room = MOST;
    let mut copies = Vec::new();
    for name in files {
        let Ok(bytes) = durable::read_own(&git_dir.join(&name), room) else { return Ok(false) };
        room = room.saturating_sub(bytes.len() as u64 + 1);
        copies.push((name, bytes));
    }
    for (name, bytes) in copies {
        let path = to.join(&name);
        durable::create_dirs(path.parent().unwrap_or(to), 0o700)?;
        durable::create_new(&path, &bytes).with_context(|| format!("cannot keep {}", shown(&git_dir.join(&name))))?;
    }
    Ok(true)
}

fn list(git_dir: &Path, name: &Path, kind: Kind, files: &mut Vec<PathBuf>) -> io::Result<()> {
    match kind {
        Kind::File => files.push(name.to_owned()),
        Kind::Directory => {
            for (below, kind) in door::entries(&git_dir.join(name))?.into_iter().flatten() {
                list(git_dir, &name.join(&below), kind, files)?;
            }
        }
        _ => {}
    }
    Ok(())
}
