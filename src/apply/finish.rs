//! Behind the commit point: refs, configuration, index, files, HEAD, in this order, and the record that says so.

use anyhow::Context;

use crate::apply::{Committed, Open, PATIENCE};
use crate::git::refs::RefSnapshot;
use crate::git::{Git, RefFormat, RefStore};
use crate::recovery::{self, Options};
use crate::staging::place::{Placed, Placing};
use crate::staging::{own, place, stage, states};
use crate::state::marker::State;
use crate::state::{Durability, Wait};
use crate::wal::{Body, Flush, RefChange};

impl Open {
    /// Behind the commit point: forward only.
    pub(super) fn finish(mut self) -> anyhow::Result<Committed> {
        let said = match self.write_refs() {
            Ok(said) => said,
            Err(error) => return self.finish_by_recovery(&format!("{error:#}")),
        };
        if let Err(why) = self.place_all() {
            return self.finish_by_recovery(&format!("{why:#}"));
        }
        let refs = match self.settled() {
            Ok(refs) => refs,
            Err(error) => return self.finish_by_recovery(&format!("{error:#}")),
        };
        // One barrier for all directories. It is acknowledged: no power cut takes it back.
        let sync = if self.durability == Durability::Full { Flush::Barrier } else { Flush::Yes };
        if let Err(error) = self.log().append(Some(self.id), &Body::Committed { refs }, sync) {
            return self.finish_by_recovery(&format!("{error:#}"));
        }
        self.entry.become_state(State::Committed)?;
        stage::put_away(&self.state, self.id)?;
        self.entry.remove()?;
        Ok(Committed { id: self.id, refs: self.begin.refs, files: self.begin.files, left: Vec::new(), said })
    }

    /// Configuration and index, the files, HEAD last.
    fn place_all(&mut self) -> anyhow::Result<()> {
        self.place_branch_log()?;
        let git_dir = &self.repo.git_dir;
        let git = Git::new(&self.program).at(git_dir);
        for (whole, change) in own::whole_files(&self.begin) {
            let path = whole.path(&self.repo, git_dir);
            if let Placed::Left(why) =
                own::place(&self.state, self.id, &git, (whole, &path), &change, &self.begin.refs)?
            {
                anyhow::bail!("{}: {why}", self.repo.relative(&path));
            }
        }
        let left = states::place(&self.state, self.id, git_dir, &self.begin.states)?;
        anyhow::ensure!(left.is_empty(), "somebody else has made {}", left.join(", "));
        self.place_files()?;
        if let Some(head) = &self.head {
            head.place(&self.repo, &self.state, self.id)?;
        }
        Ok(self.locks.release()?)
    }

    fn place_files(&self) -> anyhow::Result<()> {
        let Some(worktree) = &self.worktree else { return Ok(()) };
        let stage = stage::open(&self.state, self.id)?.context("the stage has gone")?;
        let placing = Placing { worktree, stage: &stage, read_at: Some(self.read_at) };
        let mut left = Vec::new();
        for (index, change) in self.begin.files.iter().enumerate() {
            match placing.place(index, change) {
                Ok(Placed::Now | Placed::Already) => {}
                Ok(Placed::Left(why)) => left.push(format!("{}: {why}", change.path)),
                Err(error) => left.push(format!("{}: {error}", change.path)),
            }
        }
        if !left.is_empty() {
            anyhow::bail!("{}", left.join("; "));
        }
        if self.durability == Durability::Full {
            return Ok(());
        }
        Ok(place::sync_directories(worktree, &self.begin.files)?)
    }

    /// The refs as they are now, for those that have the new value.
    fn settled(&self) -> anyhow::Result<Vec<RefSnapshot>> {
        if self.repo.ref_format == RefFormat::Reftable {
            let settle = |c: &RefChange| RefSnapshot { name: c.name.clone(), value: c.after.clone(), file: None };
            return Ok(self.begin.refs.iter().map(settle).collect());
        }
        let refs = RefStore::new(&self.repo);
        let mut settled = Vec::with_capacity(self.begin.refs.len());
        for change in &self.begin.refs {
            let now = refs.read(&change.name)?;
            if now.value == change.after {
                settled.push(RefSnapshot { name: change.name.clone(), value: now.value, file: now.loose });
            }
        }
        Ok(settled)
    }

    /// What recovery would do if we died here, done now.
    fn finish_by_recovery(self, why: &str) -> anyhow::Result<Committed> {
        let id = self.id;
        let unfinished = || format!("{id} is decided but not finished ({why}): `git txn recover` finishes it");
        let options = Options { own: Some(id), wait: Wait::UpTo(PATIENCE), ..Options::new(self.program.clone()) };
        let report = recovery::recover(&self.repo, &options).with_context(unfinished)?;
        let found = report.transactions.into_iter().find(|t| t.id == id).with_context(unfinished)?;
        let left = match found.finding {
            recovery::Finding::Committed | recovery::Finding::Finished => Vec::new(),
            recovery::Finding::NeedsHuman => found.actions,
            _ => anyhow::bail!("{}: {}", unfinished(), found.actions.join(", ")),
        };
        Ok(Committed { id, refs: self.begin.refs, files: self.begin.files, left, said: String::new() })
    }
}
