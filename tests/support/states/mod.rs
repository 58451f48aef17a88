//! The states that a power cut may leave, enumerated from one recorded run.
//!
//! # Model
//!
//! Guarded git runs under the tracer, and at each file-system call the whole repository is looked at. What differs between two
//! looks are the *changes*: the contents of a file (with size and modification time), or a name (a rename has both
//! names and happens whole). A power cut may come after any prefix of the run. Of the changes before it
//!
//! - those survive that a sync covers which had returned: `fsync` and `fdatasync` of a file cover its contents so far, of
//!   a directory its names so far, `syncfs` everything so far. `fsync` of a file does not cover its name;
//! - any part of the others survives: each name on its own, the contents of each file up to any of its changes, or with
//!   the right size and NULs for what is new.
//!
//! Journaling file systems promise more than that. What existed before the recording is durable.
//!
//! # What is checked
//!
//! Each chosen state is put on the disk (the same inodes below the same path, `.git/.jin` untouched), and `jin-txn recover`
//! runs as after a reboot. Afterwards every transaction is wholly before or wholly after, and what had been acknowledged (its
//! command had exited with 0) is there; recovery exits with 0, and again changes nothing; `git fsck` is content; each
//! reflog consists of whole entries; no lock and no marker is left; `git status` and `git commit` work; the worktree is as
//! it was.
//!
//! # What each sync is for
//!
//! Without it there are states that come to a bad end (`leaving_out_a_sync_is_noticed` finds one for each):
//!
//! | sync | what goes wrong without it |
//! | --- | --- |
//! | `prepared`: `syncfs` on the log | refs of a transaction differ, or recovery cannot end: record, locks or objects are not there |
//! | `committed`: `fdatasync` of the log | an acknowledged transaction is taken back |
//! | `prepared` of pack-refs: `fsync` of `packed-refs.new` | `packed-refs` is empty |
//! | `prepared` of the first prune: `fsync` of the git directory | loose refs are gone and the new `packed-refs` is not there |
//!
//! # Limits
//!
//! - Contents change from call to call: no call is torn in the middle, nothing is reordered within one file, except that new
//!   bytes may be NUL.
//! - `O_SYNC`, `msync`, `sync` and writes through mappings are not seen; `sync_file_range` promises nothing, and neither
//!   does a journal.
//! - Modes are always those of the end; owners, extended attributes and access times are left alone.
//! - ctimes are those of the materialisation, clocks and processes those of this boot. While gits of other repositories are at
//!   work that jin-txn cannot tell from ours (it runs in a mount namespace of its own here), it leaves locks alone: the state is
//!   tried again, and skipped after ten seconds.
//! - A subset is chosen from all that is possible ([`enumerate::Choice`]), and by default a sample of that.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `JIN_STATES=all` (or a number) | how many states of each operation are checked |
//! | `JIN_STATES_SEED=<n>` | another sample of them |
//! | `JIN_STATES_CHOICE=FileLost` (or its beginning) | only states of this [`enumerate::Choice`] |
//! | `JIN_STATES_ONLY=<operation>:<number>` | only this one, as a failure prints it; leaves it on the disk as before its recovery |
//! | `JIN_STATES_IGNORE_FSYNC=<n>` (or a part of its label) | as if jin-txn had not made its n-th sync, counted from 1 |

pub mod enumerate;
pub mod judge;
pub mod materialise;
pub mod recording;
pub mod watch;

use std::collections::BTreeMap;
use std::env;
use std::fmt::{self, Write as _};

use enumerate::State;
use judge::Verdict;
use recording::Recording;

/// How refs belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All refs of a command in one transaction.
    Whole,
    /// Each ref in its own.
    EachRef,
}

/// A recorded operation.
pub struct Case {
    pub name: &'static str,
    pub rule: Rule,
    pub recording: Recording,
}

/// What came of some states.
#[derive(Debug, Default)]
pub struct Score {
    pub checked: usize,
    pub bad: usize,
    pub skipped: usize,
    /// In how many states each kind of damage was found.
    pub damage: BTreeMap<&'static str, usize>,
}

/// States of one operation that are checked by default, and of one ignored sync.
const BUDGET: usize = 16;
const BUDGET_OF_A_SYNC: usize = 20;

impl Case {
    /// Checks states as the variables say, prints what is bad, and counts.
    pub fn run(&self) -> Score {
        let ignored = self.ignored();
        let mut states = self.recording.states(ignored);
        let chosen = match wanted(self.name) {
            Some(Some(number)) => return self.run_one(&states, number),
            Some(None) => return Score::default(),
            None => {
                let of_choice = env::var("JIN_STATES_CHOICE").unwrap_or_default();
                states.retain(|state| format!("{:?}", state.choice).starts_with(&of_choice));
                enumerate::sample(&self.recording, &states, budget(BUDGET, states.len()))
            }
        };
        println!("{}: {}, {} states", self.name, self.recording.summary(), states.len());
        let mut score = Score::default();
        for state in &chosen {
            let verdict = judge::judge(&self.recording, self.rule, state);
            score.add(&verdict);
            self.explain(state, &verdict);
        }
        println!("{}: of {} states {score}", self.name, states.len());
        println!("torture: states={} violations={}", score.checked, score.bad);
        score
    }

    /// Finds out for each sync of the hook whether it is needed: is there a state that is bad without it, and good when what it
    /// covers survives? Prints a table and returns those that none of the checked states needs.
    pub fn run_without_each_sync(&self) -> Vec<String> {
        let mut unneeded = Vec::new();
        let mut table = format!("| {} | states | checked | needed |\n| --- | --- | --- | --- |\n", self.name);
        for (n, sync) in self.recording.syncs_of_the_hook().into_iter().enumerate() {
            let states = self.recording.states_without(sync);
            let mut checked = 0;
            let found = states.iter().take(budget(BUDGET_OF_A_SYNC, states.len())).find_map(|state| {
                checked += 1;
                let verdict = judge::judge(&self.recording, self.rule, state);
                let is_needed = !verdict.violations.is_empty() && {
                    let with = self.recording.with_sync(state, sync);
                    judge::judge(&self.recording, self.rule, &with).violations.is_empty()
                };
                is_needed.then_some((state, verdict))
            });
            let label = &self.recording.syncs[sync].label;
            unneeded.extend(found.is_none().then(|| label.clone()));
            let needed = match &found {
                Some((_, verdict)) => format!("yes: {}", verdict.kinds().join(", ")),
                None if states.is_empty() => "no: nothing depends on it".to_owned(),
                None => "not in these states".to_owned(),
            };
            let line = format!("| {}. {label} | {} | {checked} | {needed} |", n + 1, states.len());
            println!("{line}");
            if let Some((state, verdict)) = found {
                self.explain(state, &verdict);
            }
            writeln!(table, "{line}").expect("a string can always be written to");
        }
        println!("\n{table}");
        unneeded
    }

    fn run_one(&self, states: &[State], number: usize) -> Score {
        let mut score = Score::default();
        let Some(state) = states.get(number) else {
            println!("{}: there are only {} states", self.name, states.len());
            return score;
        };
        let verdict = judge::judge(&self.recording, self.rule, state);
        score.add(&verdict);
        self.recording.describe_state(state).iter().for_each(|line| println!("  {line}"));
        println!("  recovery said: {}", verdict.said);
        self.explain(state, &verdict);
        let tree = self.recording.tree(state.prefix, &state.fates);
        self.recording.materialise(&tree).expect("a state can be put on the disk");
        std::mem::forget(self.recording.repo.clone());
        println!("  as before recovery: {}", self.recording.repo.path().display());
        score
    }

    fn explain(&self, state: &State, verdict: &Verdict) {
        if verdict.violations.is_empty() {
            return;
        }
        let mut message = format!("\nBAD {}:{}\n", self.name, state.number);
        for line in self.recording.describe_state(state) {
            writeln!(message, "    {line}").expect("a string can always be written to");
        }
        for violation in &verdict.violations {
            writeln!(message, "  {}: {}", violation.damage.name(), violation.detail)
                .expect("a string can always be written to");
        }
        writeln!(message, "  recovery said: {}", verdict.said).expect("a string can always be written to");
        writeln!(
            message,
            "  again: JIN_STATES_ONLY={}:{} cargo test --test crash crash_states -- --nocapture",
            self.name, state.number
        )
        .expect("a string can always be written to");
        println!("{message}");
    }

    /// The sync that is to be ignored: by its number among those of the hook, or by a part of its label.
    fn ignored(&self) -> Option<usize> {
        let wanted = env::var("JIN_STATES_IGNORE_FSYNC").ok()?;
        let syncs = self.recording.syncs_of_the_hook();
        let found = match wanted.parse::<usize>() {
            Ok(n) => syncs.get(n.wrapping_sub(1)).copied(),
            Err(_) => syncs.into_iter().find(|sync| self.recording.syncs[*sync].label.contains(&wanted)),
        };
        match found {
            Some(sync) => println!("{}: ignoring {}", self.name, self.recording.syncs[sync].label),
            None => println!("{}: there is no sync {wanted}", self.name),
        }
        found
    }
}

impl Score {
    fn add(&mut self, verdict: &Verdict) {
        self.checked += 1;
        self.skipped += usize::from(verdict.skipped);
        self.bad += usize::from(!verdict.violations.is_empty());
        verdict.kinds().into_iter().for_each(|kind| *self.damage.entry(kind).or_default() += 1);
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} checked, {} bad, {} skipped", self.checked, self.bad, self.skipped)?;
        self.damage.iter().try_for_each(|(kind, count)| write!(f, ", {kind} {count}"))
    }
}

impl Verdict {
    /// The kinds of damage.
    fn kinds(&self) -> Vec<&'static str> {
        let mut kinds: Vec<_> = self.violations.iter().map(|violation| violation.damage).collect();
        kinds.sort();
        kinds.dedup();
        kinds.iter().map(|kind| kind.name()).collect()
    }
}

impl Recording {
    fn summary(&self) -> String {
        let hook = self.syncs_of_the_hook().len();
        format!("{} changes, {} syncs ({hook} by jin-txn)", self.changes(), self.syncs.len())
    }
}

/// Is only one state wanted, and is it one of this operation?
fn wanted(operation: &str) -> Option<Option<usize>> {
    let wanted = env::var("JIN_STATES_ONLY").ok()?;
    let number =
        wanted.split_once(':').filter(|(name, _)| *name == operation).and_then(|(_, number)| number.parse().ok());
    Some(number)
}

fn budget(default: usize, all: usize) -> usize {
    match env::var("JIN_STATES").ok().as_deref() {
        Some("all") => all,
        Some(number) => number.parse().unwrap_or(default),
        None => default,
    }
}
