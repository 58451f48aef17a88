use super::*;
use crate::fs::Birth;
use crate::git::Oid;
use crate::process::owner::{ExecContext, Owner, Process};
use crate::wal::RefChange;

fn oid(digit: &str) -> Value {
    Value::Oid(Oid::parse(digit.repeat(40).as_bytes()).unwrap())
}

fn main() -> RefName {
    RefName::parse(b"refs/heads/main").unwrap()
}

fn begin(before: &str, after: &str, barrier: bool) -> Body {
    let change =
        RefChange { name: main(), before: Some(oid(before)), after: oid(after), file: None, lock: None, log: None };
    let process = Process { pid: 1, start: 1 };
    Body::Begin(Box::new(Begin {
        refs: vec![change],
        barrier,
        ..Begin::new(
            crate::state::TxKind::Hook,
            "git",
            Owner { process, place: ExecContext { boot: "b".into(), host: "h".into(), pidns: 1 } },
            process,
        )
    }))
}

fn committed(value: &str) -> Body {
    Body::Committed { refs: vec![RefSnapshot { name: main(), value: oid(value), file: None }] }
}

fn checkpoint(in_flight: &[u64]) -> Body {
    let in_flight = in_flight.iter().map(|id| TxId(*id)).collect();
    Body::Checkpoint { in_flight, boot: "b".into(), state_dir: Birth { ino: 1, born: None } }
}

fn records(bodies: Vec<(u64, Body)>) -> Vec<Record> {
    let number = |(at, (tx, body)): (usize, (u64, Body))| Record {
        lsn: at as Lsn + 1,
        tx: Some(TxId(tx)),
        time: 100 * (at as u64 + 1),
        body,
    };
    bodies.into_iter().enumerate().map(number).collect()
}

use crate::wal::Lsn;

#[test]
fn the_newest_word_is_of_the_transaction_that_locked_last() {
    for (name, bodies, word) in [
        ("one", vec![(1, begin("a", "b", false)), (1, committed("b"))], "b"),
        ("begun only", vec![(1, begin("a", "b", false))], "a"),
        (
            "two, whose endings came in the other order",
            vec![(1, begin("a", "b", false)), (2, begin("b", "c", false)), (2, committed("c")), (1, committed("b"))],
            "c",
        ),
        ("an unseen change before", vec![(1, committed("b")), (2, begin("f", "c", false))], "f"),
        ("a baseline", vec![(1, begin("a", "b", false)), (1, committed("b")), (0, baseline(2, "d"))], "d"),
        (
            "a baseline that was read before the transaction began",
            vec![(1, committed("a")), (2, begin("a", "b", false)), (2, committed("b")), (0, baseline(1, "a"))],
            "b",
        ),
        ("in flight at the checkpoint", vec![(1, begin("a", "b", false)), (0, checkpoint(&[1]))], "a"),
        (
            "in flight at the checkpoint, ended after it",
            vec![(1, begin("a", "b", false)), (0, checkpoint(&[1])), (1, committed("b"))],
            "b",
        ),
    ] {
        let records = records(bodies);
        let expected_refs = ExpectedRefs::of(&records, "other");
        let found = expected_refs.refs.get(&main()).and_then(|g| g.word.as_ref()).map(|w| w.value.clone());
        assert_eq!(found, Some(oid(word)), "{name}");
    }
}

fn baseline(as_of: Lsn, value: &str) -> Body {
    let refs = vec![RefSnapshot { name: main(), value: oid(value), file: None }];
    Body::Baseline { as_of, actions: Vec::new(), refs }
}

#[test]
fn what_a_checkpoint_made_durable_is_not_looked_at_again() {
    let records = records(vec![(1, begin("a", "b", false)), (1, committed("b")), (0, checkpoint(&[]))]);
    let expected_refs = ExpectedRefs::of(&records, "other");
    assert!(expected_refs.refs.is_empty());
    assert_eq!(expected_refs.durable_until, 300);
}

#[test]
fn a_transaction_that_had_ended_is_not_in_flight_whatever_the_checkpoint_says() {
    let records = records(vec![(1, begin("a", "b", false)), (1, committed("b")), (0, checkpoint(&[1]))]);
    assert!(ExpectedRefs::of(&records, "other").refs.is_empty());
}

#[test]
fn only_a_transaction_of_this_boot_can_still_be_at_work() {
    let records = records(vec![(1, begin("a", "b", false))]);
    assert!(ExpectedRefs::of(&records, "b").open.contains(&main()));
    assert!(ExpectedRefs::of(&records, "other").open.is_empty());
}

#[test]
fn a_barrier_counts_only_when_git_went_on_behind_it() {
    let until = |bodies| {
        let records = records(bodies);
        ExpectedRefs::of(&records, "other").durable_until
    };
    assert_eq!(until(vec![(0, checkpoint(&[])), (1, begin("a", "b", true))]), 100, "the sync may have failed");
    assert_eq!(until(vec![(0, checkpoint(&[])), (1, begin("a", "b", true)), (1, committed("b"))]), 200);
    assert_eq!(until(vec![(0, checkpoint(&[])), (1, begin("a", "b", false)), (1, committed("b"))]), 100);
}

#[test]
fn a_clock_that_was_set_back_is_noticed() {
    let mut records = records(vec![(1, begin("a", "b", false)), (1, committed("b"))]);
    assert!(ExpectedRefs::of(&records, "other").clock_is_steady);
    records[1].time = 10;
    assert!(!ExpectedRefs::of(&records, "other").clock_is_steady);
}
