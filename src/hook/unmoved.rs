//! Operations that move no ref: `reset` to the commit that HEAD has, and checkouts. They write index and worktree, and are logged
//! as a `checkout` record that says who made it.

use crate::git::{RefStore, Repository, Value};
use crate::hook::call::{Call, Git};
use crate::observe::payload::Line;
use crate::process::git_argv;
use crate::process::operation::{self, Root};
use crate::process::owner::{ExecContext, Owner, Stat};
use crate::wal::{Body, Checkout, Doer, Flush, Log};

impl Call<'_> {
    /// HEAD stays where it is, and git says so: `reset` to the commit that HEAD has. It writes index and worktree, and is an
    /// operation like others.
    pub(super) fn note_reset(&self) -> anyhow::Result<()> {
        let is_same = |line: &Line<'_>| line.old == line.new && line.new.iter().any(|byte| *byte != b'0');
        let Some(line) = self.payload.lines().find(|line| is_same(line) && is_of_head(line.name)) else {
            return Ok(());
        };
        let Some(head) = RefStore::new(&self.repo).head()? else { return Ok(()) };
        let is_here = line.name == b"HEAD" || matches!(&head.value, Value::Symref(to) if to.as_bytes() == line.name);
        let root = self.root()?;
        let is_step =
            root.as_ref().is_some_and(|root| operation::command_of(&root.operation).is_some_and(|it| resets(&it)));
        if is_here {
            self.renew_standing(None)?;
        }
        if !is_here || is_step || git_argv::global_options(&self.git()?.argv).command != Some("reset") {
            return Ok(());
        }
        let place = ExecContext::here()?;
        let log = self.log(&place);
        let Git { stat, argv } = self.git()?;
        let by = doer(&log, &self.repo, (stat, argv), root, place.clone())?;
        let at = String::from_utf8_lossy(line.new).into_owned();
        let body = Checkout {
            from: at.clone(),
            to: at,
            branch: false,
            head: Some(head),
            part_of: self.run()?,
            by: Some(Box::new(by)),
        };
        log.append(None, &Body::Checkout(body), Flush::No)?;
        Ok(())
    }
}

/// Who makes an operation that may have no transaction: it gets an id of its own.
pub(super) fn doer(
    log: &Log<'_>,
    repo: &Repository,
    (git, argv): (&Stat, &[String]),
    root: Option<Root>,
    place: ExecContext,
) -> anyhow::Result<Doer> {
    Ok(Doer {
        id: log.next_id()?,
        operation: operation::command_line(argv, &git.comm),
        owner: Owner { process: git.process(), place },
        root,
        worktree: repo.recorded_worktree(),
        worktree_birth: repo.worktree_birth(),
    })
}

/// Commands that reset to HEAD on their way.
fn resets(command: &str) -> bool {
    const COMMANDS: [&str; 9] =
        ["am", "bisect", "cherry-pick", "merge", "pull", "rebase", "revert", "stash", "worktree"];
    COMMANDS.contains(&command)
}

fn is_of_head(name: &[u8]) -> bool {
    name == b"HEAD" || name.starts_with(b"refs/heads/")
}
