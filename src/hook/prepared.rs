//! `prepared`: git holds all locks and has changed nothing. What is about to change is observed; then git is refused, or it
//! goes on with a durable record.

use std::io;

use crate::hook::Reply;
use crate::hook::call::{Call, Git};
use crate::hook::markers::{ForWhom, Markers, OwnMarker, Waiting};
use crate::hook::recover::{Recovered, could_make_it};
use crate::observe::{self, Locks, Observed};
use crate::process::git_argv;
use crate::process::owner::{self, ExecContext, Stat};

impl Call<'_> {
    pub(super) fn prepared(&self) -> anyhow::Result<Reply> {
        let markers = self.sort_markers()?;
        let may_refuse = !self.payload.is_of_notes();
        if let Some(veto) = markers.refuse_after_run().filter(|_| may_refuse) {
            return Ok(veto);
        }
        let seen = observe::observe(&self.repo, &self.payload, || Ok(Locks::of(&self.git()?.argv)))?;
        if let Some(name) = seen.lost.first() {
            let line = format!("jin-txn: {name} was deleted and made again while it was being packed: its file stays");
            return Ok(Reply::veto(vec![line]));
        }
        self.testify(&seen);
        let recovered = self.recover_dead(&markers, &seen)?;
        let must_wait = recovered.must_wait || self.builds_on_old_index(&recovered)?;
        let mut messages = recovered.messages;
        if must_wait && may_refuse {
            messages.push("jin-txn: this change is refused until that is recovered: run your command again".into());
            return Ok(Reply::veto(messages));
        }
        if !seen.pruned.is_empty() && (markers.others || markers.dead) {
            self.note_moved(&seen)?;
        }
        if seen.changes.is_empty() {
            if may_refuse
                && !markers.unfinished.is_empty()
                && is_gc(self.git()?)?
                && let Some(waiting) = self.needs_objects(&markers.unfinished)?
            {
                return Ok(refuse_gc(waiting));
            }
            self.order_packing(&seen)?;
        } else if !markers.mine.iter().any(|own| self.is_again(own)) {
            self.begin(seen, markers.mine)?;
        }
        Ok(Reply::go_saying(messages))
    }

    fn recover_dead(&self, markers: &Markers, seen: &Observed) -> anyhow::Result<Recovered> {
        if !self.needs_boot_check()? && !markers.dead {
            return Ok(Recovered::default());
        }
        let changed = seen.changes.iter().map(|c| c.name.clone());
        self.recover_under_locks(changed.chain(seen.watched.iter().map(|w| w.name.clone())).collect())
    }

    /// The first of them that may really be unfinished: a marker that names a process which does something else is forged.
    fn needs_objects<'w>(&self, unfinished: &'w [Waiting]) -> io::Result<Option<&'w Waiting>> {
        let here = ExecContext::here()?;
        Ok(unfinished.iter().find(|Waiting { marker, for_whom }| {
            *for_whom != ForWhom::Owner
                || could_make_it(&self.repo, marker.origin, &marker.owner, marker.hook_process, &here)
        }))
    }

    /// Has this git read an index that has been finished since? Its commit would take back what that one has.
    pub(super) fn builds_on_old_index(&self, recovered: &Recovered) -> anyhow::Result<bool> {
        Ok(recovered.index_finished && !git_argv::changes_no_index(&self.git()?.argv))
    }

    /// An inner transaction's outer one; or the same one, when a second hook calls us as well. Where no lock tells, there has
    /// been no `committed` and no `aborted` in between.
    fn is_again(&self, own: &OwnMarker) -> bool {
        own.is_begun_with(self.payload.key) && (own.marker.probe.is_none() || own.is_locked(&self.repo))
    }
}

/// A gc packs refs before it removes objects: this is where it can be stopped from removing those that an unfinished
/// transaction is about to name, or has to go back to. A run keeps its objects by itself.
fn refuse_gc(Waiting { marker, for_whom }: &Waiting) -> Reply {
    let (id, operation) = (marker.id, &marker.operation);
    let next = match for_whom {
        ForWhom::Owner => "wait until it is done, or look at `git txn status`".to_owned(),
        ForWhom::Unseen => "if you know that its process is gone, `git txn recover --force` ends it".to_owned(),
        ForWhom::Person => format!("`git txn show {id}` tells it, `git txn recover --acknowledge {id}` closes it"),
    };
    Reply::veto(vec![
        format!("jin-txn: {id} (`{operation}`) is not finished, and needs objects that a gc may remove"),
        format!("jin-txn: hint: {next}; then run the gc again"),
    ])
}

/// Is `git` a gc that packs refs, or one that a gc has started for that?
fn is_gc(git: &Git) -> io::Result<bool> {
    if git_argv::is_gc(&git.argv) {
        return Ok(true);
    }
    if !git_argv::packs_refs(&git.argv) {
        return Ok(false);
    }
    let may_be_gc = |a: &Stat| owner::may_be_git(a) && owner::argv(a.pid).is_none_or(|argv| git_argv::is_gc(&argv));
    let ancestors = owner::ancestors()?;
    Ok(ancestors.iter().skip_while(|a| a.pid != git.stat.pid).skip(1).any(may_be_gc))
}
