//! `preparing` (git 2.54 and newer), and before it `pre-receive`: git is about to lock. The last moment at which recovery can
//! write the refs of this very command, and remove what is in the way of its locks.

use crate::fs::FileId;
use crate::git::reflog::RENAMED_LOG;
use crate::git::{RefStore, Value};
use crate::hook::call::{Call, Git};
use crate::hook::markers::Markers;
use crate::hook::recover::any_unfinished_worktree;
use crate::hook::{Answer, Reply, announce};
use crate::process::owner::ExecContext;
use crate::state::marker::{Phase, State};
use crate::{locks, observe};

impl Call<'_> {
    /// The `pre-receive` hook: what `preparing` is before git 2.54. Only what is pushed waits in quarantine; recovery writes no
    /// value that is not in the repository already, and its gits do not see the quarantine.
    pub(super) fn receiving(&self) -> anyhow::Result<Reply> {
        self.recover_before_locking(&self.sort_markers()?)
    }

    pub(super) fn preparing(&self) -> anyhow::Result<Reply> {
        let markers = self.sort_markers()?;
        let reply = self.recover_before_locking(&markers)?;
        let announced = markers.mine.iter().any(|own| own.entry.state == State::InProgress);
        if reply.answer == Answer::Go && !announced && observe::may_change(&self.repo, &self.payload)? {
            self.announce()?;
        }
        Ok(reply)
    }

    /// A marker before git locks: of locks that a dead git leaves it names the owner.
    fn announce(&self) -> anyhow::Result<()> {
        let place = ExecContext::here()?;
        let id = self.log(&place).next_id()?;
        let marker = self.marker(id, place, Phase::Preparing)?;
        // First: who dies while it writes its marker has told nobody else.
        let watch = &self.environment.watch;
        if announce::is_wanted(watch, &self.repo) {
            announce::at_work(watch, &self.repo, marker.owner.process, Vec::new(), false);
        }
        marker.create(self.state.path())?;
        Ok(())
    }

    fn recover_before_locking(&self, markers: &Markers) -> anyhow::Result<Reply> {
        let may_refuse = !self.payload.is_of_notes();
        if let Some(veto) = markers.refuse_after_run().filter(|_| may_refuse) {
            return Ok(veto);
        }
        let unfinished = markers.dead || any_unfinished_worktree(&self.repo);
        if !unfinished && !self.needs_boot_check()? && !self.stale_lock_in_the_way(self.git()?)? {
            return Ok(Reply::go());
        }
        let recovered = self.recover_before_locks()?;
        if recovered.must_wait && markers.dead && may_refuse {
            return Ok(Reply::veto(recovered.messages));
        }
        if may_refuse && self.builds_on_old_index(&recovered)? {
            let mut messages = recovered.messages;
            messages.push("jin-txn: this change was built on the index of before: run your command again".to_owned());
            return Ok(Reply::veto(messages));
        }
        let moved = !recovered.refs_moved.is_empty();
        let mut messages = recovered.messages;
        if moved && self.git()?.receives() {
            // The pusher was shown the torn refs, and leaves out those that looked up to date to it.
            messages.push("jin-txn: this push was built on what has been recovered just now: push again".to_owned());
            return Ok(Reply::veto(messages));
        }
        if moved {
            messages.push("jin-txn: if git now finds that a branch has moved, run your command again".to_owned());
        }
        Ok(Reply::go_saying(messages))
    }

    /// A lock that is older than the git process above us is not that process's.
    fn stale_lock_in_the_way(&self, git: &Git) -> anyhow::Result<bool> {
        let git_started_at = git.started_at();
        let refs = RefStore::new(&self.repo);
        let mut candidates = locks::well_known(&self.repo);
        // No lock, but a sign that somebody died while renaming a branch.
        candidates.push(self.repo.common_dir.join(RENAMED_LOG));
        for line in self.payload.lines() {
            let Ok(name) = refs.canonical(line.name) else { continue };
            candidates.push(refs.lock(&name));
            if let Ok(Value::Symref(target)) = refs.read(&name).map(|found| found.value) {
                candidates.push(refs.lock(&target));
            }
        }
        for path in candidates {
            if FileId::at(&path)?.is_some_and(|lock| lock.ctime < git_started_at) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
