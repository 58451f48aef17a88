//! The refs of a decided transaction: one session of git, or two where some have to go before others can come.
//!
//! ```text
//!  locks of all that can be locked ──▶ decided ──▶ session 1: `a/b` goes ──▶ session 2: `a` comes
//!                                         └── from here on recovery writes what is missing, in the same order
//! ```
//! Limit: who takes a name between the two keeps it, and a person is told.

use std::path::Path;

use crate::apply::Open;
use crate::apply::session::GitSession;

impl Open {
    /// Lets git write the refs; what it and its hooks said.
    pub(super) fn write_refs(&mut self) -> anyhow::Result<String> {
        let mut said = self.git.take().map_or(Ok(String::new()), GitSession::commit)?;
        if !self.later.is_empty() {
            let directory: &Path = self.worktree.as_ref().map_or(&self.repo.git_dir, |worktree| &worktree.path);
            let mut session = GitSession::start(&self.refs_at, directory, self.id, &self.begin.message)?;
            // Its hooks find out by that whose git it is.
            self.marker.hook_process = session.process()?;
            self.marker.update(self.state.path())?;
            session.prepare(&self.later)?;
            said += &session.commit()?;
        }
        Ok(said)
    }
}
