//! What only git's command line tells of a transaction.

use crate::git::RefName;
use crate::process::git_argv;

/// What the command line says about the locks of the refs that a payload lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locks {
    /// They are this git's.
    Own,
    /// git may have rejected some of the updates, whose locks are somebody else's.
    Batched,
    /// They are all somebody else's, who may have moved the ref on: only `packed-refs` is written.
    OfOthers,
}

impl Locks {
    /// Of the git with this command line.
    pub(crate) fn of(argv: &[String]) -> Locks {
        match () {
            () if git_argv::packs_refs(argv) => Locks::OfOthers,
            () if may_be_batched(argv) => Locks::Batched,
            () => Locks::Own,
        }
    }
}

/// Commands whose updates git may apply one by one.
fn may_be_batched(argv: &[String]) -> bool {
    let program = argv.first().map_or("", |a| a.rsplit('/').next().unwrap_or(a));
    let batching = ["fetch", "pull", "push", "receive-pack", "remote", "--batch-updates"];
    program == "git-receive-pack" || argv.iter().skip(1).any(|a| batching.contains(&a.as_str()))
}

/// The new name in `git branch -m [<old>] <new>`.
pub(super) fn new_branch_name(argv: &[String]) -> Option<RefName> {
    let at = argv.iter().position(|a| a == "branch")?;
    let is_move = |a: &&String| matches!(a.as_str(), "-m" | "-M" | "--move") || a.starts_with("-fm");
    argv[at..].iter().find(is_move)?;
    let last = argv.last().filter(|a| !a.starts_with('-'))?;
    RefName::parse(format!("refs/heads/{last}").as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_name_of_a_rename_is_read_from_the_command_line() {
        let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let to = |line: &str| new_branch_name(&argv(line)).map(|n| n.to_string());
        assert_eq!(to("git branch -m old new").as_deref(), Some("refs/heads/new"));
        assert_eq!(to("git branch -M new").as_deref(), Some("refs/heads/new"));
        assert_eq!(to("git branch -D old"), None);
        assert_eq!(to("git commit -m branch"), None);
    }

    #[test]
    fn who_owns_the_locks_is_read_from_the_command_line() {
        let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, locks) in [
            ("git fetch origin", Locks::Batched),
            ("git-receive-pack /srv/x.git", Locks::Batched),
            ("git update-ref --stdin --batch-updates", Locks::Batched),
            ("git update-ref --stdin", Locks::Own),
            ("git commit -m pack-refs", Locks::Own),
            ("git -C pack-refs commit", Locks::Own),
            ("git refs migrate", Locks::Own),
            ("/usr/bin/git -c gc.auto=0 pack-refs --all", Locks::OfOthers),
            ("git refs optimize", Locks::OfOthers),
        ] {
            assert_eq!(Locks::of(&argv(line)), locks, "{line}");
        }
    }
}
