//! What to do about an unfinished transaction: a pure function of the evidence.
//!
//! | evidence, ref by ref                            | verdict           |
//! | ----------------------------------------------- | ----------------- |
//! | all applied                                     | commit            |
//! | none applied                                    | nothing applied   |
//! | some applied, the others as before              | roll back         |
//! | a single ref, moved on by somebody else         | overtaken         |
//! | somebody else's value among several             | a human decides; what is provably ours is rolled back only when something else is provably not applied |

use std::collections::HashSet;

use crate::git::command::RefWrite;
use crate::git::{RefName, Value};

/// How one ref of an unfinished transaction is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefState {
    /// The transaction wrote it, proven by identity.
    Applied,
    /// It has its before-image, or the transaction provably did not write it.
    Unapplied,
    /// The transaction wrote it, and a later one wrote it again.
    Overwritten,
    /// It has somebody else's value.
    ThirdParty,
}

/// One ref with its images and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefEvidence {
    /// Canonical name.
    pub name: RefName,
    /// Before-image.
    pub before: Option<Value>,
    /// After-image.
    pub after: Value,
    /// The value now.
    pub now: Value,
    /// What that means.
    pub state: RefState,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is there: record that.
    Commit,
    /// None of it is there: record that.
    NothingApplied,
    /// Some of it is there: take that back.
    RollBack,
    /// Its only ref has been moved on since: whole either way.
    Overtaken,
    /// Somebody else's value is in the way of a clean end.
    NeedsHuman,
}

/// The plan for one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to do.
    pub verdict: Verdict,
    /// The refs to write, each only if it still has the value that the evidence was taken from.
    pub writes: Vec<RefWrite>,
}

impl Plan {
    /// The refs that are written.
    #[must_use]
    pub fn written(&self) -> HashSet<&RefName> {
        self.writes.iter().map(|write| &write.name).collect()
    }
}

/// Decides.
#[must_use]
pub fn plan(refs: &[RefEvidence]) -> Plan {
    let count = |state| refs.iter().filter(|r| r.state == state).count();
    let (applied, unapplied) = (count(RefState::Applied), count(RefState::Unapplied));
    let (overwritten, third) = (count(RefState::Overwritten), count(RefState::ThirdParty));
    let verdict = match (applied, unapplied, overwritten, third) {
        (0, _, 0, 0) => Verdict::NothingApplied,
        (_, 0, _, 0) => Verdict::Commit,
        (_, _, 0, 0) => Verdict::RollBack,
        (0, 0, 0, 1) => Verdict::Overtaken,
        _ => Verdict::NeedsHuman,
    };
    let takes_back = unapplied > 0 && matches!(verdict, Verdict::RollBack | Verdict::NeedsHuman);
    let writes = refs.iter().filter(|r| takes_back && r.state == RefState::Applied).filter_map(inverse_write).collect();
    Plan { verdict, writes }
}

fn inverse_write(evidence: &RefEvidence) -> Option<RefWrite> {
    let to = evidence.before.clone()?;
    Some(RefWrite { name: evidence.name.clone(), from: evidence.now.clone(), to })
}

#[cfg(test)]
mod tests {
    use super::RefState::{Applied, Overwritten, ThirdParty, Unapplied};
    use super::*;
    use crate::git::Oid;

    fn evidence(states: &[RefState]) -> Vec<RefEvidence> {
        let oid = |digit: &str| Value::Oid(Oid::parse(digit.repeat(40).as_bytes()).unwrap());
        let one = |(n, state): (usize, &RefState)| RefEvidence {
            name: RefName::parse(format!("refs/heads/b{n}").as_bytes()).unwrap(),
            before: Some(oid("a")),
            after: oid("b"),
            now: oid("b"),
            state: *state,
        };
        states.iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_plan_table() {
        let rows: &[(&str, &[RefState], Verdict, usize)] = &[
            ("no refs at all", &[], Verdict::NothingApplied, 0),
            ("killed before the first rename", &[Unapplied, Unapplied], Verdict::NothingApplied, 0),
            ("killed after the last rename", &[Applied, Applied], Verdict::Commit, 0),
            ("killed between two renames", &[Applied, Unapplied], Verdict::RollBack, 1),
            ("all applied, one moved on in a logged transaction", &[Applied, Overwritten], Verdict::Commit, 0),
            (
                "torn, and the applied ref moved on in a logged transaction",
                &[Overwritten, Unapplied],
                Verdict::NeedsHuman,
                0,
            ),
            ("torn, one of the applied refs moved on", &[Applied, Overwritten, Unapplied], Verdict::NeedsHuman, 1),
            ("a single ref that an unseen writer moved", &[ThirdParty], Verdict::Overtaken, 0),
            ("an unseen writer's value beside applied ones", &[Applied, ThirdParty], Verdict::NeedsHuman, 0),
            (
                "an unseen writer's value in a torn transaction",
                &[Applied, ThirdParty, Unapplied],
                Verdict::NeedsHuman,
                1,
            ),
            ("an unseen writer's value, nothing applied", &[ThirdParty, Unapplied], Verdict::NeedsHuman, 0),
        ];
        for (name, states, verdict, writes) in rows {
            let plan = plan(&evidence(states));
            assert_eq!((plan.verdict, plan.writes.len()), (*verdict, *writes), "{name}");
        }
    }

    #[test]
    fn a_third_partys_value_is_never_written() {
        let all = [Applied, Unapplied, Overwritten, ThirdParty];
        for a in all {
            for b in all {
                for c in all {
                    let refs = evidence(&[a, b, c]);
                    for write in plan(&refs).writes {
                        let state = refs.iter().find(|r| r.name == write.name).map(|r| r.state);
                        assert_eq!(state, Some(Applied), "{a:?} {b:?} {c:?}");
                    }
                }
            }
        }
    }
}
