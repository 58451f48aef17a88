//! Calls that fail: for every call that our program makes on a repository, in every way in which that call can fail, once or
//! from then on. The command has failed cleanly or succeeded wholly, it names the file and the cause, and the next one recovers.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `JIN_FAULTS=all` | every fault |
//! | `JIN_FAULTS=<n>` | every n-th |
//! | `JIN_FAULTS_SEED=<n>` | where the stride begins |
//! | `JIN_FAULT=<fault>` | only this one, as a failure prints it |
//! | `JIN_TEST_KEEP=1` | keep the directories of bad ones |

mod errors;
mod judge;
mod named;
mod subjects;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fmt, thread};

use self::errors::{Fault, Reach};
use self::subjects::Subject;
use crate::support::table;

/// One fault. Written `apply:once:ENOSPC:12`: at the twelfth call of ours.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    subject: &'static str,
    reach: Reach,
    fault: Fault,
    at: usize,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.subject, self.reach, self.fault, self.at)
    }
}

/// Makes a test of each subject, with how many faults it injects by default.
macro_rules! faults {
    ($($test:ident $subject:literal $sample:literal;)*) => {
        $(#[test]
        fn $test() {
            nothing_is_bad($subject, $sample);
        })*
    };
}

faults! {
    whatever_fails_in_an_update_of_many_refs_it_has_happened_or_not "update-ref" 7;
    whatever_fails_in_a_commit_it_has_happened_or_not "commit-a" 7;
    whatever_fails_while_a_packed_branch_is_deleted_it_has_happened_or_not "branch-D-packed" 6;
    whatever_fails_while_a_branch_is_renamed_it_has_happened_or_not "branch-m" 6;
    whatever_fails_in_pack_refs_no_ref_changes "pack-refs" 6;
    whatever_fails_in_a_fetch_it_has_happened_or_not "fetch" 6;
    whatever_fails_after_a_failed_barrier_the_log_is_sound "after-failure" 7;
    whatever_fails_in_apply_it_has_happened_or_not "apply" 8;
    whatever_fails_in_undo_it_has_happened_or_not "undo" 6;
    whatever_fails_in_a_run_that_succeeds_all_or_nothing_of_it_stays "run" 8;
    whatever_fails_in_a_run_that_fails_nothing_of_it_stays "failing-run" 7;
    whatever_fails_in_recovery_of_a_torn_update_the_next_one_finishes "recover-update-ref" 7;
    whatever_fails_in_recovery_of_a_lost_branch_the_next_one_finishes "recover-branch-m" 6;
    whatever_fails_in_recovery_of_a_commit_the_next_one_finishes "recover-commit-a" 5;
}

fn nothing_is_bad(name: &'static str, sample: usize) {
    let wanted = env::var("JIN_FAULT").ok();
    if wanted.as_deref().is_some_and(|wanted| !wanted.starts_with(&format!("{name}:"))) {
        return;
    }
    let subject = Subject::named(name);
    let all = points(&subject);
    let chosen: Vec<Point> = match &wanted {
        Some(wanted) => all.iter().copied().filter(|point| point.to_string() == *wanted).collect(),
        None => {
            let stride = table::stride("JIN_FAULTS", all.len().div_ceil(sample));
            all.iter().copied().skip(table::start(name, stride, "JIN_FAULTS_SEED")).step_by(stride).collect()
        }
    };
    let (next, disturbed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let mut bad = Vec::new();
        while let Some(&point) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            match judge::inject(&subject, point) {
                Some(wrong) if wrong.is_empty() => {}
                Some(wrong) => bad.push((point, wrong)),
                None => {
                    disturbed.fetch_add(1, Ordering::Relaxed);
                    println!("{point} skipped: a git of somebody else was at work");
                }
            }
        }
        bad
    };
    let workers = table::workers(1);
    let bad: Vec<(Point, Vec<String>)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a worker does not panic")).collect()
    });
    for (point, wrong) in &bad {
        println!("\nBAD {point} at {}\n  {}", subject.calls[point.at - 1], wrong.join("\n  "));
        println!("  again: JIN_FAULT={point} JIN_TEST_KEEP=1 cargo test --test faults failing_calls -- --nocapture");
    }
    let count = chosen.len() - disturbed.into_inner();
    println!("{name}: {count} of {} faults at {} calls, {} bad", all.len(), subject.calls.len(), bad.len());
    println!("torture: faults={count} violations={}", bad.len());
    assert!(bad.is_empty(), "{name}: {} of {} faults are bad; they are printed above", bad.len(), count);
}

/// Every fault of every call: alone, and those that last also from there on.
fn points(subject: &Subject) -> Vec<Point> {
    let mut points = Vec::new();
    for (index, call) in subject.calls.iter().enumerate() {
        for &fault in Fault::possible(call) {
            let point = |reach| Point { subject: subject.name, reach, fault, at: index + 1 };
            points.push(point(Reach::Once));
            if fault.may_last() {
                points.extend([point(Reach::Ours), point(Reach::Everybody)]);
            }
        }
    }
    points
}
