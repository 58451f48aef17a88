use super::Decision::{Adopt, AskHuman, CleanUp, RecordCommitted, RecordOvertaken, RollBack, RollForward, Wait};
use super::RefState::{Applied, Overwritten, ThirdParty, Unapplied};
use super::*;
use crate::git::Oid;

fn refs(states: &[RefState]) -> Vec<RefEvidence> {
    let oid = |digit: &str| Value::Oid(Oid::parse(digit.repeat(40).as_bytes()).unwrap());
    let one = |(n, state): (usize, &RefState)| RefEvidence {
        name: RefName::parse(format!("refs/heads/b{n}").as_bytes()).unwrap(),
        before: Some(oid("a")),
        after: oid("b"),
        now: if *state == Unapplied { oid("a") } else { oid("b") },
        state: *state,
    };
    states.iter().enumerate().map(one).collect()
}

/// A row for each case of transactions with refs: states, decision, how many refs are written.
#[test]
fn the_decision_table_of_refs() {
    let ask = AskHuman(Question::ThirdParty);
    let watched: &[(&str, &[RefState], Decision, usize)] = &[
        ("no refs at all", &[], RollBack, 0),
        ("killed before the first rename", &[Unapplied, Unapplied], RollBack, 0),
        ("killed after the last rename", &[Applied, Applied], RecordCommitted, 0),
        ("killed between two renames", &[Applied, Unapplied], RollBack, 1),
        ("all applied, one moved on in a logged transaction", &[Applied, Overwritten], RecordCommitted, 0),
        ("torn, and the applied ref moved on in a logged transaction", &[Overwritten, Unapplied], ask, 0),
        ("torn, one of the applied refs moved on", &[Applied, Overwritten, Unapplied], ask, 1),
        ("a single ref that an unseen writer moved", &[ThirdParty], RecordOvertaken, 0),
        ("an unseen writer's value beside applied ones", &[Applied, ThirdParty], ask, 0),
        ("an unseen writer's value in a torn transaction", &[Applied, ThirdParty, Unapplied], ask, 1),
        ("an unseen writer's value, nothing applied", &[ThirdParty, Unapplied], ask, 0),
    ];
    for (name, states, decision, written) in watched {
        let refs = refs(states);
        let evidence = Evidence::Watched(&refs);
        assert_eq!((decide(&evidence), writes(&evidence).len()), (*decision, *written), "of git: {name}");
    }
    let mut refs_over_garbage = refs(&[Applied, Applied, Unapplied]);
    refs_over_garbage[0].before = Some(Value::Broken);
    let evidence = Evidence::Watched(&refs_over_garbage);
    assert_eq!((decide(&evidence), writes(&evidence).len()), (ask, 1), "of git: torn, and one was no value before");
    let decided: &[(&str, &[RefState], Decision, usize)] = &[
        ("killed before git wrote anything", &[Unapplied, Unapplied], RollForward, 2),
        ("killed between two renames", &[Applied, Unapplied], RollForward, 1),
        ("killed after the last", &[Applied, Applied], RollForward, 0),
        ("moved on since, by a transaction that built on it", &[Overwritten, Unapplied], RollForward, 1),
        ("another writer's value is left, the rest is written", &[ThirdParty, Unapplied], ask, 1),
        ("only files", &[], RollForward, 0),
    ];
    for (name, states, decision, written) in decided {
        let refs = refs(states);
        let evidence = Evidence::BehindCommitPoint(&refs);
        assert_eq!((decide(&evidence), writes(&evidence).len()), (*decision, *written), "of ours: {name}");
    }
}

#[test]
fn the_decision_table() {
    use LogOutcome::{Closed, Committed, NeedsHuman};
    let ended = |how, index_is_pending| Evidence::Ended { how, index_is_pending };
    let rename = |stage, completed| Evidence::Rename { stage, completed };
    let worktree = |maker, content| Evidence::WorktreeAdd { maker, content };
    let run = Evidence::Run;
    let after = |status, objects| Evidence::AfterPowerCut { status, objects };
    let index = |locked, in_progress| Evidence::UnreadableIndex { locked, in_progress };
    let (cut, lost) = (RenameStage::Between { lost: false }, RenameStage::Between { lost: true });
    let rows = [
        ("a marker without a record", Evidence::NeverLogged { record_may_be_lost: false }, CleanUp),
        (
            "a marker whose record may be lost",
            Evidence::NeverLogged { record_may_be_lost: true },
            AskHuman(Question::RecordLost),
        ),
        ("committed", ended(Committed, false), CleanUp),
        ("committed, and its index is not in place", ended(Committed, true), Wait),
        ("aborted or taken back", ended(Closed, false), CleanUp),
        ("left to a person before", ended(NeedsHuman, false), AskHuman(Question::AskedBefore)),
        ("of ours, before the commit point", Evidence::BeforeCommitPoint { decision_may_be_lost: false }, RollBack),
        (
            "of ours, and the log is damaged",
            Evidence::BeforeCommitPoint { decision_may_be_lost: true },
            AskHuman(Question::DecisionLost),
        ),
        ("a rename, the old name is there", rename(RenameStage::OldIsThere, false), RollBack),
        ("a rename, completed and the old name made again", rename(RenameStage::OldIsThere, true), CleanUp),
        ("a rename between its two names", rename(cut, false), RollBack),
        ("a rename whose new name was seen and deleted since", rename(cut, true), CleanUp),
        ("a rename of which nothing is left, deleted unseen", rename(lost, false), CleanUp),
        ("a rename whose new name is there", rename(RenameStage::NewIsThere, false), RollForward),
        ("a rename whose new name is there, and was seen", rename(RenameStage::NewIsThere, true), RollForward),
        ("a rename that proves nothing", rename(RenameStage::Unclear, false), CleanUp),
        ("a worktree that is being made", worktree(Liveness::Alive, WorktreeContent::Empty), Wait),
        ("a worktree whose maker is not seen", worktree(Liveness::Unknowable, WorktreeContent::Used), Wait),
        ("an empty worktree of the dead", worktree(Liveness::Dead, WorktreeContent::Empty), RollBack),
        ("a worktree of the dead with files", worktree(Liveness::Dead, WorktreeContent::Used), RollForward),
        ("a run that never began", run(RunEvidence::NoRecord { log_is_damaged: false }), CleanUp),
        (
            "a run whose record may be lost",
            run(RunEvidence::NoRecord { log_is_damaged: true }),
            AskHuman(Question::RecordLost),
        ),
        ("a run that was kept while the log failed", run(RunEvidence::KeptUnlogged), RecordCommitted),
        ("a run that ended", run(RunEvidence::Ended(Committed)), CleanUp),
        ("a run that was taken back", run(RunEvidence::Ended(Closed)), CleanUp),
        ("a run left to a person", run(RunEvidence::Ended(NeedsHuman)), AskHuman(Question::AskedBefore)),
        (
            "a run after which files changed",
            run(RunEvidence::Obstructed(Question::ChangedSince)),
            AskHuman(Question::ChangedSince),
        ),
        ("a run that died", run(RunEvidence::Restorable), RollBack),
        ("an older state of our history", after(RefStatus::Outdated, Whole::Yes), RollForward),
        ("an older state, and objects are missing", after(RefStatus::Outdated, Whole::No), RollBack),
        ("an older state, and the objects are not known", after(RefStatus::Outdated, Whole::Unknown), Wait),
        ("a writer that the log has not seen", after(RefStatus::Unseen, Whole::Yes), Adopt),
        ("an unseen writer's value with a hole", after(RefStatus::Unseen, Whole::No), RollBack),
        ("an unseen writer's value, objects not known", after(RefStatus::Unseen, Whole::Unknown), Adopt),
        ("as the log has it", after(RefStatus::AsLogged, Whole::Yes), CleanUp),
        ("as the log has it, with a hole", after(RefStatus::AsLogged, Whole::No), RollBack),
        ("of a transaction that has not ended", after(RefStatus::Open, Whole::No), CleanUp),
        ("an unreadable index", index(false, false), RollBack),
        ("an unreadable index in a merge", index(false, true), AskHuman(Question::NothingWhole)),
        ("an unreadable index with a lock", index(true, false), Wait),
    ];
    for (name, evidence, decision) in rows {
        assert_eq!(decide(&evidence), decision, "{name}");
        assert!(writes(&evidence).is_empty(), "{name}: refs are written on the evidence of refs alone");
    }
}

#[test]
fn another_writers_value_is_never_written() {
    let all = [Applied, Unapplied, Overwritten, ThirdParty];
    for a in all {
        for b in all {
            for c in all {
                let refs = refs(&[a, b, c]);
                let state = |name: &RefName| refs.iter().find(|r| r.name == *name).map(|r| r.state);
                for write in writes(&Evidence::Watched(&refs)) {
                    assert_eq!(state(&write.name), Some(Applied), "of git: {a:?} {b:?} {c:?}");
                }
                for write in writes(&Evidence::BehindCommitPoint(&refs)) {
                    assert_eq!(state(&write.name), Some(Unapplied), "of ours: {a:?} {b:?} {c:?}");
                }
            }
        }
    }
}
