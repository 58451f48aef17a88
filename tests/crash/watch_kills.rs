//! SIGKILL at every file-system change of ordinary git commands while the watch is there. Nothing else recovers: no shim, no shell
//! function, no command. When the watch is idle again the state is right and the next plain command works.
//!
//! A git is held for 100 ms at its first look behind each lock that it takes, and where it is killed: so works one that has much
//! to do and runs into a time limit. `JIN_KILL` chooses more points, see `support/table.rs`.

use crate::support::operations;
use crate::support::point::{After, Bench};
use crate::support::table::{self, Budget};

const HELD: Budget = Budget { tree: 4, hook: 1, container: 0 };

macro_rules! crashes {
    ($($test:ident $operation:literal)*) => {$(
        #[test]
        fn $test() {
            the_watch_recovers($operation);
        }
    )*};
}

crashes! {
    the_watch_recovers_a_killed_update_ref "update-ref"
    the_watch_recovers_a_killed_commit "commit"
    the_watch_recovers_a_killed_commit_a "commit-a"
    the_watch_recovers_a_killed_add "add"
    the_watch_recovers_a_killed_reset_hard "reset-hard"
    the_watch_recovers_a_killed_cherry_pick "cherry-pick"
    the_watch_recovers_a_killed_switch "switch"
    the_watch_recovers_a_killed_merge "merge"
    the_watch_recovers_a_killed_rebase "rebase"
    the_watch_recovers_a_killed_fetch "fetch"
    the_watch_recovers_a_killed_push "push"
    the_watch_recovers_a_killed_branch_rename "branch-m"
    the_watch_recovers_a_killed_gc "gc"
    the_watch_recovers_a_killed_worktree_add "worktree-add"
    the_watch_recovers_a_killed_stash "stash"
}

fn the_watch_recovers(operation: &str) {
    if table::wanted_point().is_some_and(|point| !point.starts_with(&format!("{operation}:"))) {
        return;
    }
    let bench = Bench::new(operations::named(operation), true);
    let bad = table::run(&bench, &bench.events(), After::Watch, HELD).bad;
    assert_eq!(bad, 0, "{operation}: what the watch has seen is recovered; the bad points are printed above");
}
