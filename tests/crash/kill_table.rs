//! SIGKILL at every file-system change of ordinary git commands.
//!
//! By default each test runs a fixed sample; `support/table.rs` lists the variables that choose more.
//! `JIN_KILL=all cargo test --test crash kill_table -- --nocapture` runs all and prints the tables.

use crate::support::invariants::Damage;
use crate::support::operations;
use crate::support::point::{After, Bench, Point, Victim};
use crate::support::repo::Git;
use crate::support::table::{self, Budget};
use crate::support::tracer::Event;

const UNGUARDED: Budget = Budget { tree: 1, hook: 0, container: 0 };
const EXPLICIT: Budget = Budget { tree: 4, hook: 1, container: 1 };
const BY_THE_WAY: Budget = Budget { tree: 1, hook: 0, container: 0 };
const IN_RECOVERY: usize = 5;

/// A test of each operation: it recovers by hand, by the shim, and by the hooks of a plain git that has them early enough.
macro_rules! crashes {
    ($($test:ident $operation:literal)*) => {$(
        #[test]
        fn $test() {
            nothing_is_bad($operation);
        }
    )*};
}

crashes! {
    a_kill_anywhere_in_update_ref_is_recovered "update-ref"
    a_kill_anywhere_in_commit_is_recovered "commit"
    a_kill_anywhere_in_commit_a_is_recovered "commit-a"
    a_kill_anywhere_in_commit_amend_is_recovered "amend"
    a_kill_anywhere_in_switch_is_recovered "switch"
    a_kill_anywhere_in_a_fast_forward_is_recovered "merge-ff"
    a_kill_anywhere_in_merge_is_recovered "merge"
    a_kill_anywhere_in_rebase_update_refs_is_recovered "rebase"
    a_kill_anywhere_in_fetch_atomic_is_recovered "fetch"
    a_kill_anywhere_in_push_atomic_is_recovered "push"
    a_kill_anywhere_in_branch_rename_is_recovered "branch-m"
    a_kill_anywhere_in_branch_rename_onto_another_is_recovered "branch-M"
    a_kill_anywhere_in_branch_delete_is_recovered "branch-D"
    a_kill_anywhere_in_deleting_a_packed_branch_is_recovered "branch-D-packed"
    a_kill_anywhere_in_tag_delete_is_recovered "tag-d"
    a_kill_anywhere_in_pack_refs_is_recovered "pack-refs"
    a_kill_anywhere_in_gc_is_recovered "gc"
    a_kill_anywhere_in_worktree_add_is_recovered "worktree-add"
    a_kill_anywhere_in_stash_is_recovered "stash"
}

/// How many points of each signal and each kind of victim a test runs by default.
const OF_EACH_SIGNAL: usize = 1;

macro_rules! interrupts {
    ($($test:ident $operation:literal)*) => {$(
        #[test]
        fn $test() {
            nothing_is_bad_after_a_signal($operation);
        }
    )*};
}

interrupts! {
    an_interrupt_anywhere_in_commit_a_leaves_nothing_in_the_way "commit-a"
    an_interrupt_anywhere_in_switch_leaves_nothing_in_the_way "switch"
    an_interrupt_anywhere_in_merge_leaves_nothing_in_the_way "merge"
    an_interrupt_anywhere_in_rebase_leaves_nothing_in_the_way "rebase"
}

/// `^C` and SIGTERM, to git alone and to the hook as well: git removes its locks itself, and plain commands have to go on from what
/// is there; so has who recovers.
fn nothing_is_bad_after_a_signal(operation: &str) {
    if is_unwanted(operation) {
        return;
    }
    let bench = Bench::new(operations::named(operation), true);
    let events = bench.events();
    let mut bad = 0;
    for after in [After::PlainGit, After::Recover] {
        let points = table::signals(bench.operation.name, after, &events);
        let chosen: Vec<Point> = points.iter().flat_map(|points| table::every(points, OF_EACH_SIGNAL)).collect();
        let row = table::run_points(&bench, &points.concat(), &chosen);
        // Before 2.46 git moves HEAD to another branch without a hook, and logs it first: told to end in between, it takes its
        // lock away and leaves the line in HEAD's reflog, with no evidence that we could have.
        let is_unseen = operation == "switch" && !Git::under_test().is_at_least(2, 46);
        let unseen = row.damage.get(&Damage::Reflog).filter(|_| is_unseen).copied().unwrap_or(0);
        bad += row.bad.saturating_sub(unseen);
    }
    assert_eq!(bad, 0, "{operation}: the bad points are printed above");
}

#[test]
fn a_kill_anywhere_in_recovery_of_a_torn_update_is_recovered() {
    recovery_may_be_killed("update-ref", |events| {
        let renames = events.iter().filter(|event| is_rename_to(event, "refs/heads")).map(|event| event.n);
        let renames: Vec<_> = renames.collect();
        renames.get(renames.len() / 2).copied()
    });
}

#[test]
fn a_kill_anywhere_in_recovery_of_a_lost_branch_is_recovered() {
    // The reflog moves away from the old name and, once that is deleted, to the new one.
    recovery_may_be_killed("branch-m", |events| {
        let renames = events.iter().filter(|event| is_rename_to(event, "logs/refs"));
        renames.map(|event| event.n).next_back()
    });
}

#[test]
fn a_kill_anywhere_in_recovery_of_a_commit_without_its_index_is_recovered() {
    recovery_may_be_killed("commit-a", |events| {
        let renames = events.iter().filter(|event| is_rename_to(event, ".git/index"));
        renames.map(|event| event.n).next_back()
    });
}

#[test]
fn plain_git_is_damaged_at_many_points() {
    let rows: Vec<_> = operations::ALL
        .iter()
        .filter(|operation| !is_unwanted(operation.name))
        .map(|operation| {
            let bench = Bench::new(operation, false);
            table::run(&bench, &bench.events(), After::Nothing, UNGUARDED)
        })
        .collect();
    table::print(&rows);
    if table::wanted_point().is_none() {
        let update_ref = rows.iter().find(|row| row.operation == "update-ref").expect("update-ref is in the list");
        assert!(update_ref.bad > 0, "plain git is not crash-safe; if it looks so, the harness sees nothing");
    }
}

fn nothing_is_bad(operation: &str) {
    if is_unwanted(operation) {
        return;
    }
    let bench = Bench::new(operations::named(operation), true);
    let events = bench.events();
    let mut ways = vec![(After::Recover, EXPLICIT), (After::Shim, BY_THE_WAY)];
    if Git::under_test().is_at_least(2, 54) {
        ways.push((After::PlainGit, BY_THE_WAY));
    } else {
        println!("skipped: before 2.54 git calls no hook before it locks");
    }
    let bad: usize = ways.iter().map(|&(after, budget)| table::run(&bench, &events, after, budget).bad).sum();
    assert_eq!(bad, 0, "{operation}: every kill must be recovered; the bad points are printed above");
}

/// Kills `operation` at the event that `choose` finds, then kills recovery at each of its own events.
fn recovery_may_be_killed(operation: &str, choose: fn(&[Event]) -> Option<usize>) {
    if is_unwanted(operation) {
        return;
    }
    let bench = Bench::new(operations::named(operation), true);
    let n = choose(&bench.events()).expect("the operation comes to the point that is to be killed");
    let point = |m| Point { operation: bench.operation.name, victim: Victim::Tree, after: After::KilledRecovery(m), n };
    let all: Vec<Point> = bench.events_of_recovery(n).iter().map(|event| point(event.n)).collect();
    assert!(!all.is_empty(), "recovery has something to do at this point");
    let row = table::run_points(&bench, &all, &table::every(&all, IN_RECOVERY));
    assert_eq!(row.bad, 0, "{operation}: a killed recovery must be recovered; the bad points are printed above");
}

/// Whether the environment asks for a point of another operation.
fn is_unwanted(operation: &str) -> bool {
    table::wanted_point().is_some_and(|point| !point.starts_with(&format!("{operation}:")))
}

fn is_rename_to(event: &Event, place: &str) -> bool {
    let target = event.path2.as_deref().map(|path| path.display().to_string());
    event.syscall.starts_with("rename") && target.is_some_and(|target| target.contains(place))
}
