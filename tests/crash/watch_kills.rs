//! SIGKILL at every file-system change of ordinary git commands while the watch is there. Nothing else recovers: no shim, no shell
//! function, no command. When the watch is idle again the state is right and the next plain command works.
//!
//! A git is held for 100 ms, and until the watch has had the processor, behind each lock that it takes and where it is killed: so
//! works one that has much to do and runs into a time limit. `JIN_KILL` chooses more points, see `support/table.rs`.

use std::env;
use std::path::Path;

use crate::support::invariants::{Damage, Violation};
use crate::support::operations;
use crate::support::point::{After, Bench, Report};
use crate::support::table::{self, Budget};
use crate::support::tracer::{Event, Role};

const HELD: Budget = Budget { tree: 2, hook: 1, container: 0 };

/// Those that are run when no variable asks for more.
const USUAL: [&str; 3] = ["commit-a", "update-ref", "gc"];
const OTHERS: [&str; 12] = [
    "add",
    "commit",
    "reset-hard",
    "cherry-pick",
    "switch",
    "merge",
    "rebase",
    "fetch",
    "push",
    "branch-m",
    "worktree-add",
    "stash",
];

#[test]
fn the_watch_recovers_whatever_command_is_killed() {
    let others = OTHERS.into_iter().filter(|_| env::var_os("JIN_KILL").is_some() || table::wanted_point().is_some());
    USUAL.into_iter().chain(others).for_each(the_watch_recovers);
}

/// Killed within microseconds of taking a lock, git may never have been seen with it. Such a lock stays, as it would without the
/// watch; nothing else is wrong.
#[test]
fn a_git_that_is_killed_at_full_speed_is_never_worse_off_than_without_the_watch() {
    for operation in ["commit-a", "add", "merge"] {
        if table::wanted_point().is_some_and(|point| !point.starts_with(&format!("{operation}:"))) {
            continue;
        }
        let bench = Bench::new(operations::named(operation), true);
        let all = table::points(bench.operation.name, After::WatchAtSpeed, &bench.events());
        let chosen = table::chosen(&all, HELD);
        let reports = table::run_all(&bench, &chosen, table::workers(1));
        let is_left = |it: &Violation| matches!(it.damage, Damage::Lock | Damage::Blocked);
        let worse: Vec<_> = reports.iter().filter(|report| !report.violations.iter().all(is_left)).collect();
        worse.iter().for_each(|report| table::explain(report));
        let left = reports.iter().filter(|report| report.is_bad()).count();
        println!("{operation}: {} of {} points at full speed, {left} not seen", chosen.len(), all.len());
        assert!(worse.is_empty(), "{operation}: only locks may be left; the bad points are printed above");
    }
}

/// What the watch had begun, and what it had not, `recover` ends.
#[test]
fn a_watch_that_is_killed_with_its_git_leaves_nothing_worse() {
    const BOTH: Budget = Budget { tree: 2, hook: 0, container: 0 };
    for operation in ["commit-a", "switch"] {
        let bench = Bench::new(operations::named(operation), true);
        let all = table::points(bench.operation.name, After::WatchKilled, &bench.events());
        let row = table::run_points(&bench, &all, &table::chosen(&all, BOTH));
        assert_eq!(row.bad, 0, "{operation}: the bad points are printed above");
    }
}

fn the_watch_recovers(operation: &str) {
    if table::wanted_point().is_some_and(|point| !point.starts_with(&format!("{operation}:"))) {
        return;
    }
    let bench = Bench::new(operations::named(operation), true);
    let all = table::points(bench.operation.name, After::Watch, &bench.events());
    let chosen = table::chosen(&all, HELD);
    // Most of their time they wait.
    let reports = table::run_all(&bench, &chosen, table::workers(4));
    let (unseen, rest): (Vec<_>, Vec<_>) =
        reports.iter().filter(|report| report.is_bad() && !is_only_dated(report)).partition(|report| is_unseen(report));
    rest.iter().for_each(|report| table::explain(report));
    let at: Vec<String> = unseen.iter().map(|report| report.point.to_string()).collect();
    println!("{operation}: {} of {} points, {} bad, {} unseen: {at:?}", chosen.len(), all.len(), rest.len(), at.len());
    assert_eq!(rest.len(), 0, "{operation}: what can be seen is recovered; the bad points are printed above");
}

/// The watch writes HEAD's reflog of a renamed branch in its own environment, where no variable fixes identity and time.
fn is_only_dated(report: &Report) -> bool {
    let of_head = |it: &Violation| it.damage == Damage::Reflog && it.detail.contains("[\"HEAD\"]");
    report.point.operation.starts_with("branch-") && report.violations.iter().all(of_head)
}

/// Was git killed between taking a lock that it closed at once and the hook that tells of it? Nobody could have seen who held that.
/// It is left, as it would be without the watch, and nothing else is.
fn is_unseen(report: &Report) -> bool {
    let Some(killed) = report.killed.as_ref().filter(|event| event.role == Role::Git) else { return false };
    let of_git = |event: &&Event| event.n < killed.n && event.role != Role::Hook;
    let since_hook = report.before.iter().rev().skip_while(|event| event.n >= killed.n).take_while(of_git);
    let name = |event: &Event| event.path.as_deref().and_then(Path::file_name).map(ToOwned::to_owned);
    let closes_own = killed.syscall.starts_with("unlink") && name(killed).is_some_and(|name| name == "index.lock");
    let taken: Vec<String> = since_hook
        .filter(|event| event.takes_lock())
        .filter_map(name)
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name != "index.lock" || closes_own)
        .collect();
    let is_taken = |violation: &Violation| match violation.damage {
        Damage::Lock => {
            let locks = violation.detail.split('"').skip(1).step_by(2);
            locks.into_iter().all(|lock| taken.iter().any(|name| lock.rsplit('/').next() == Some(name)))
        }
        damage => damage == Damage::Blocked,
    };
    report.violations.iter().all(is_taken)
}
