//! Which crash states there are: a prefix of the recording, and in it what became of each change that no sync covers.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::time::SystemTime;

use super::recording::{Recording, What};
use super::watch::{Change, Kind, NodeId, ROOT};

/// What became of a change that did not survive whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lost,
    /// The size and the times are there, new bytes are NUL.
    Zeroed,
}

/// Why a state was chosen. The variants are in the order in which a sample takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Choice {
    AllSurvives,
    NothingSurvives,
    NamesWithoutContents,
    NamesWithZeros,
    ContentsWithoutNames,
    FileLost,
    FileZeroed,
    OneLost,
    OneSurvives,
    Random,
}

/// A state that a power cut may leave.
#[derive(Clone, Debug)]
pub struct State {
    /// Position among all states of the recording.
    pub number: usize,
    pub choice: Choice,
    /// How many steps had happened.
    pub prefix: usize,
    /// The changes within the prefix that did not survive whole.
    pub fates: BTreeMap<usize, Fate>,
    key: u64,
}

/// The contents of a file: of one version, or with the size of a later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Data {
    pub version: usize,
    pub zeroed: Option<usize>,
}

/// A state as names and contents.
pub struct Tree {
    pub names: Vec<Option<NodeId>>,
    pub data: Vec<Data>,
    pub modified: HashMap<NodeId, SystemTime>,
}

/// How many random subsets of each prefix are candidates.
const RANDOM: u64 = 8;

impl Recording {
    /// Enumerates the states, each tree once for each set of acknowledged commands, leaving out one sync.
    pub fn states(&self, ignored: Option<usize>) -> Vec<State> {
        let mut states = Vec::new();
        let mut seen = HashSet::new();
        for prefix in 0..=self.steps.len() {
            // What is possible after a sync returned was possible before.
            if prefix > 0 && matches!(self.steps[prefix - 1].what, What::Synced(_)) {
                continue;
            }
            for (choice, fates) in self.choices(prefix, ignored) {
                let key = self.key(prefix, &self.tree(prefix, &fates));
                if seen.insert(key) {
                    states.push(State { number: states.len(), choice, prefix, fates, key });
                }
            }
        }
        states
    }

    /// The states that are possible only without a sync: in turn one in which nothing but what it covers is damaged, and one
    /// with other damage.
    pub fn states_without(&self, sync: usize) -> Vec<State> {
        let known: HashSet<u64> = self.states(None).iter().map(|state| state.key).collect();
        let new = self.states(Some(sync)).into_iter().filter(|state| !known.contains(&state.key));
        let (mut only, mut others): (Vec<State>, Vec<State>) =
            new.partition(|state| self.with_sync(state, sync).fates.is_empty());
        [&mut only, &mut others].into_iter().for_each(|it| it.sort_by_key(|state| scramble(state.number as u64)));
        let (only, others) = (only.into_iter().enumerate(), others.into_iter().enumerate());
        let mut turns: Vec<(usize, State)> = only.chain(others).collect();
        turns.sort_by_key(|(turn, _)| *turn);
        turns.into_iter().map(|(_, state)| state).collect()
    }

    /// The same power cut, had the sync been made: what it covers survives.
    pub fn with_sync(&self, state: &State, sync: usize) -> State {
        let returned =
            self.steps[..state.prefix].iter().any(|step| matches!(step.what, What::Synced(it) if it == sync));
        let mut with = state.clone();
        if returned {
            with.fates.retain(|step, _| match &self.steps[*step].what {
                What::Changed(change) => !self.covers(&self.syncs[sync], *step, change),
                _ => true,
            });
        }
        with
    }

    fn choices(&self, prefix: usize, ignored: Option<usize>) -> Vec<(Choice, BTreeMap<usize, Fate>)> {
        let pending = self.pending(prefix, ignored);
        let (data, names): (Vec<usize>, Vec<usize>) = pending.iter().partition(|&&step| self.file_of(step).is_some());
        let all = |steps: &[usize], fate| steps.iter().map(|step| (*step, fate)).collect::<BTreeMap<_, _>>();
        let mut choices = vec![
            (Choice::AllSurvives, BTreeMap::new()),
            (Choice::NothingSurvives, all(&pending, Fate::Lost)),
            (Choice::NamesWithoutContents, all(&data, Fate::Lost)),
            (Choice::NamesWithZeros, all(&data, Fate::Zeroed)),
            (Choice::ContentsWithoutNames, all(&names, Fate::Lost)),
        ];
        let mut files: Vec<NodeId> = data.iter().filter_map(|step| self.file_of(*step)).collect();
        files.sort_unstable();
        files.dedup();
        for file in files {
            let of_file: Vec<usize> = data.iter().copied().filter(|step| self.file_of(*step) == Some(file)).collect();
            choices.push((Choice::FileLost, all(&of_file, Fate::Lost)));
            choices.push((Choice::FileZeroed, all(&of_file, Fate::Zeroed)));
        }
        for &step in &pending {
            choices.push((Choice::OneLost, BTreeMap::from([(step, Fate::Lost)])));
            let mut others = all(&pending, Fate::Lost);
            // Contents come in order: the earlier ones of the same file are part of this one.
            let is_part = |other: &usize| self.file_of(step).is_some() && self.file_of(*other) == self.file_of(step);
            others.retain(|other, _| *other != step && !(*other < step && is_part(other)));
            choices.push((Choice::OneSurvives, others));
        }
        if let Some(&last) = pending.last() {
            choices
                .extend((0..RANDOM).map(|n| (Choice::Random, self.random(&pending, (prefix * 31 + last) as u64, n))));
        }
        choices
    }

    /// Loses a random part: few, half or most of it, change by change or file by file.
    fn random(&self, pending: &[usize], seed: u64, n: u64) -> BTreeMap<usize, Fate> {
        let lost = [64, 128, 208][usize::try_from(n % 3).unwrap_or(0)];
        let fate = |step: usize| {
            let unit = self.file_of(step).filter(|_| n.is_multiple_of(2)).map_or(step, |file| usize::MAX - file);
            let dice = scramble(scramble(seed ^ (n << 32)) ^ unit as u64);
            let is_zeroed = dice & 0x300 == 0 && self.file_of(step).is_some();
            (dice & 0xff < lost).then_some(if is_zeroed { Fate::Zeroed } else { Fate::Lost })
        };
        pending.iter().filter_map(|step| Some((*step, fate(*step)?))).collect()
    }

    /// The file whose contents a step changes.
    fn file_of(&self, step: usize) -> Option<NodeId> {
        match &self.steps[step].what {
            What::Changed(Change::Data { node, .. }) => Some(*node),
            _ => None,
        }
    }

    /// Applies a prefix of the recording, except what got lost.
    pub fn tree(&self, prefix: usize, fates: &BTreeMap<usize, Fate>) -> Tree {
        let mut names = self.base.clone();
        names.resize(self.watch.names.len(), None);
        let mut data = vec![Data::default(); self.watch.nodes.len()];
        let mut cut = vec![false; self.watch.nodes.len()];
        let mut modified = self.base_modified.clone();
        for step in 0..prefix {
            let What::Changed(change) = &self.steps[step].what else { continue };
            match (change, fates.get(&step)) {
                (Change::Data { node, .. }, Some(Fate::Lost)) => cut[*node] = true,
                (Change::Data { node, .. }, _) if cut[*node] => {}
                (Change::Data { node, version }, fate) => {
                    let file = &mut data[*node];
                    if fate.is_some() || file.zeroed.is_some() {
                        file.zeroed = Some(*version);
                    } else {
                        file.version = *version;
                    }
                }
                (Change::Names { .. }, Some(_)) => {}
                (Change::Names { names: changed, modified: times }, None) => {
                    changed.iter().for_each(|(key, to)| names[*key] = *to);
                    modified.extend(times.iter().copied());
                }
            }
        }
        Tree { names, data, modified }
    }

    /// Tells states apart: by what can be reached from the root, and by what is expected of it.
    fn key(&self, prefix: usize, tree: &Tree) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.acknowledged(prefix).hash(&mut hasher);
        let mut reached = vec![false; self.watch.nodes.len()];
        reached[ROOT] = true;
        // Directories have lower numbers than what was first seen in them, but names may move.
        while let Some(next) = self.reach(tree, &reached) {
            reached[next] = true;
        }
        for (key, node) in tree.names.iter().enumerate() {
            if let Some(node) = node.filter(|_| reached[self.watch.names[key].directory]) {
                (key, node, tree.data[node]).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    fn reach(&self, tree: &Tree, reached: &[bool]) -> Option<NodeId> {
        let is_next = |key: usize, node: NodeId| {
            self.watch.nodes[node].kind == Kind::Directory && reached[self.watch.names[key].directory] && !reached[node]
        };
        tree.names.iter().enumerate().find_map(|(key, node)| node.filter(|node| is_next(key, *node)))
    }

    /// Says what the power cut left, for people.
    pub fn describe_state(&self, state: &State) -> Vec<String> {
        let last =
            state.prefix.checked_sub(1).map_or("the beginning".to_owned(), |last| self.steps[last].cause.clone());
        let mut lines = vec![
            format!("{:?} after {} of {} steps, the last being {last}", state.choice, state.prefix, self.steps.len()),
            format!("acknowledged: {:?}", self.acknowledged(state.prefix)),
        ];
        let pending = self.pending(state.prefix, None);
        let kept: Vec<usize> = pending.iter().copied().filter(|step| !state.fates.contains_key(step)).collect();
        if kept.len() < state.fates.len() {
            lines.push(format!("of {} pending changes survived only:", pending.len()));
            lines.extend(kept.iter().map(|step| format!("  {}", self.describe(*step))));
            let zeroed = state.fates.iter().filter(|(_, fate)| **fate == Fate::Zeroed);
            lines.extend(zeroed.map(|(step, _)| format!("  zeroed: {}", self.describe(*step))));
        } else {
            lines.push(format!("of {} pending changes got lost:", pending.len()));
            lines.extend(state.fates.iter().map(|(step, fate)| format!("  {fate:?}: {}", self.describe(*step))));
        }
        lines
    }
}

/// Takes a part of the states: in turn of each choice, just after an acknowledgement and elsewhere.
pub fn sample(recording: &Recording, states: &[State], budget: usize) -> Vec<State> {
    let mut groups: BTreeMap<(Choice, bool), Vec<&State>> = BTreeMap::new();
    for state in states {
        let settled = recording
            .steps
            .get(state.prefix.wrapping_sub(1))
            .is_some_and(|step| matches!(step.what, What::Acknowledged(_)));
        groups.entry((state.choice, settled)).or_default().push(state);
    }
    let mut order: Vec<(usize, (Choice, bool), &State)> = Vec::new();
    for (group, mut members) in groups {
        let seed = crate::support::table::seed("JIN_STATES_SEED") as u64;
        members.sort_by_key(|state| scramble(state.number as u64 ^ seed << 32));
        order.extend(members.into_iter().enumerate().map(|(turn, state)| (turn, group, state)));
    }
    order.sort_by_key(|(turn, group, _)| (*turn, *group));
    let mut chosen: Vec<State> = order.into_iter().take(budget).map(|(_, _, state)| state.clone()).collect();
    chosen.sort_by_key(|state| state.number);
    chosen
}

/// A fixed shuffle of numbers (splitmix64).
fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
