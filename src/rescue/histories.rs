//! Which values are whole: everything is there that they reach.
//!
//! All are asked about at once. Where that says no, halves are, so that a few holes among thousands of values cost few walks; what
//! is whole by then ends the next walk.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use crate::git::cat_file::{Batch, present};
use crate::git::objects::{Closure, Whole};
use crate::git::{Git, Oid};
use crate::rescue::config::Settings;
use crate::rescue::view::View;

/// A ref goes back by no more commits than that, to the newest one whose own files are there.
const MOST_GIVEN_UP: usize = 50;

/// What is known of values.
pub(crate) struct Histories {
    git: Git,
    all_here: bool,
    known: HashMap<Oid, bool>,
    whole: Vec<Oid>,
    batch: Option<Batch>,
    /// A ref keeps a value with a hole deep below it.
    has_holes: bool,
}

impl Histories {
    /// Nothing is known yet. What a partial clone or an alternate that is not there has is taken as whole.
    pub(crate) fn new(view: &View, settings: &Settings) -> Histories {
        let all_here = !settings.is_partial && view.objects.absent_alternates.is_empty();
        Histories {
            git: view.git.clone(),
            all_here,
            known: HashMap::new(),
            whole: Vec::new(),
            batch: None,
            has_holes: false,
        }
    }

    /// Finds out about all of these.
    pub(crate) fn judge(&mut self, values: &BTreeSet<Oid>) -> anyhow::Result<()> {
        let asked: Vec<Oid> = values.iter().filter(|oid| !self.known.contains_key(oid)).copied().collect();
        if !self.all_here {
            self.known.extend(asked.into_iter().map(|oid| (oid, true)));
            return Ok(());
        }
        let there = present(&self.git, &asked)?.unwrap_or_default();
        let (there, gone): (Vec<Oid>, Vec<Oid>) = asked.into_iter().partition(|oid| there.contains(oid));
        self.known.extend(gone.into_iter().map(|oid| (oid, false)));
        self.halve(&there)
    }

    fn halve(&mut self, asked: &[Oid]) -> anyhow::Result<()> {
        if asked.is_empty() {
            return Ok(());
        }
        // It asks again whether what is known is there, and walks from what is asked to there.
        let closure = Closure::new(self.git.clone(), self.whole.clone(), true)?;
        match (closure.ask(asked)?, asked) {
            (Whole::Yes, _) => {
                self.known.extend(asked.iter().map(|oid| (*oid, true)));
                self.whole.extend_from_slice(asked);
                Ok(())
            }
            (_, [one]) => {
                self.known.insert(*one, false);
                Ok(())
            }
            _ => {
                let (first, second) = asked.split_at(asked.len() / 2);
                self.halve(first)?;
                self.halve(second)
            }
        }
    }

    /// Is everything in this repository that belongs to it?
    pub(crate) fn all_here(&self) -> bool {
        self.all_here
    }

    /// Is the object itself not here, where that alone does not mean that it is lost?
    pub(crate) fn is_elsewhere(&self, oid: &Oid) -> anyhow::Result<bool> {
        let is_here = || Ok::<_, anyhow::Error>(present(&self.git, &[*oid])?.is_none_or(|there| there.contains(oid)));
        Ok(!self.all_here && !is_here()?)
    }

    /// Is it whole?
    pub(crate) fn is_whole(&mut self, oid: &Oid) -> anyhow::Result<bool> {
        if !self.known.contains_key(oid) {
            self.judge(&BTreeSet::from([*oid]))?;
        }
        Ok(self.known.get(oid).copied().unwrap_or_default())
    }

    /// The first of these values that is whole.
    pub(crate) fn first_whole(&mut self, candidates: &[Oid]) -> anyhow::Result<Option<Oid>> {
        for candidate in candidates {
            if self.is_whole(candidate)? {
                return Ok(Some(*candidate));
            }
        }
        Ok(None)
    }

    /// The first of these values, or else the nearest of its ancestors, whose own files are all there, whatever history lacks below;
    /// where there is none, the first value that can be read at all.
    pub(crate) fn newest(&mut self, candidates: &[Oid]) -> anyhow::Result<Option<Oid>> {
        let mut seen = HashSet::new();
        for candidate in candidates {
            let mut next = VecDeque::from([*candidate]);
            while let Some(oid) = next.pop_front() {
                if self.may_stay(&oid)? {
                    return Ok(Some(oid));
                }
                if seen.len() < MOST_GIVEN_UP && seen.insert(oid) {
                    next.extend(self.parents(&oid)?);
                }
            }
        }
        for candidate in candidates {
            if self.object(candidate)?.is_some_and(|content| content.starts_with(b"tree ")) {
                self.has_holes = true;
                return Ok(Some(*candidate));
            }
        }
        Ok(None)
    }

    /// The commit of these that was made last, of those that are whole.
    pub(crate) fn latest(&mut self, commits: &[Oid]) -> anyhow::Result<Option<Oid>> {
        let mut latest = None;
        for commit in commits {
            if self.is_whole(commit)?
                && let Some(content) = self.object(commit)?
            {
                latest = latest.max(Some((time(&content), *commit)));
            }
        }
        Ok(latest.map(|(_, commit)| commit))
    }

    /// The commits that these are, or are tags of, without those that a stash is made of: somebody worked at them.
    pub(crate) fn work(&mut self, values: &[Oid]) -> anyhow::Result<Vec<Oid>> {
        let mut found = Vec::new();
        for value in values {
            let Some(commit) = self.commit_of(value)? else { continue };
            if !self.object(&commit)?.is_none_or(|content| is_of_stash(&content)) {
                found.push(commit);
            }
        }
        Ok(found)
    }

    /// May a ref stay at this value? It is whole, or its own files are all there.
    pub(crate) fn may_stay(&mut self, oid: &Oid) -> anyhow::Result<bool> {
        if self.is_whole(oid)? {
            return Ok(true);
        }
        let is_usable = self.is_usable(oid)?;
        self.has_holes |= is_usable;
        Ok(is_usable)
    }

    /// Is it whole, or, where refs have holes below them anyway, usable?
    pub(crate) fn is_kept(&mut self, oid: &Oid) -> anyhow::Result<bool> {
        Ok(self.is_whole(oid)? || self.has_holes && self.is_usable(oid)?)
    }

    /// A commit whose tree is whole, or a tag of one.
    fn is_usable(&mut self, oid: &Oid) -> anyhow::Result<bool> {
        let Some(commit) = self.commit_of(oid)? else { return Ok(false) };
        let content = self.object(&commit)?.unwrap_or_default();
        match tree(&content) {
            Some(tree) => self.is_whole(&tree),
            None => Ok(false),
        }
    }

    /// The commit that this is, or is a tag of.
    fn commit_of(&mut self, oid: &Oid) -> anyhow::Result<Option<Oid>> {
        const MOST_TAGS: usize = 100;
        let mut oid = *oid;
        for _ in 0..MOST_TAGS {
            let Some(content) = self.object(&oid)? else { return Ok(None) };
            if tree(&content).is_some() {
                return Ok(Some(oid));
            }
            let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let Some(tagged) = line.strip_prefix(b"object ").and_then(Oid::parse) else { return Ok(None) };
            oid = tagged;
        }
        Ok(None)
    }

    /// The parents of a commit that can be read.
    fn parents(&mut self, oid: &Oid) -> anyhow::Result<Vec<Oid>> {
        Ok(self.object(oid)?.map_or_else(Vec::new, |content| parents(&content)))
    }

    /// The content of an object; `None` when it cannot be read.
    pub(crate) fn object(&mut self, oid: &Oid) -> anyhow::Result<Option<Vec<u8>>> {
        let batch = match self.batch.take() {
            Some(batch) => batch,
            None => Batch::start(&self.git)?,
        };
        let content = self.batch.insert(batch).content(&oid.hex());
        if content.is_err() {
            // It may have died of the object: the next question gets another one.
            self.batch = None;
        }
        Ok(content.ok())
    }
}

/// The tree of a commit.
fn tree(commit: &[u8]) -> Option<Oid> {
    commit.split(|byte| *byte == b'\n').next()?.strip_prefix(b"tree ").and_then(Oid::parse)
}

/// Is its message one that `git stash` gives to what it makes?
fn is_of_stash(commit: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 4] = [b"WIP on ", b"On ", b"index on ", b"untracked files on "];
    let message = commit.windows(2).position(|two| two == b"\n\n").map_or(&commit[..0], |at| &commit[at + 2..]);
    let has_base = message.split(|byte| *byte == b'\n').next().is_some_and(|line| line.contains(&b':'));
    has_base && BEGINNINGS.iter().any(|begin| message.starts_with(begin))
}

/// When a commit was made, in seconds since the epoch.
fn time(commit: &[u8]) -> i64 {
    let line = commit.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"committer ")).unwrap_or_default();
    let words = String::from_utf8_lossy(line).into_owned();
    words.split(' ').rev().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or_default()
}

fn parents(commit: &[u8]) -> Vec<Oid> {
    let header = commit.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    header.filter_map(|line| Oid::parse(line.strip_prefix(b"parent ")?)).collect()
}
