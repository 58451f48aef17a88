//! The refs of a transaction: what they are called on disk, what is there, and whether that is what was expected.

use std::collections::HashMap;

use anyhow::Context;

use crate::apply::queue::{Clash, Deref, Expected, RefItem, RefTo};
use crate::fs::FileId;
use crate::git::name::in_the_way;
use crate::git::refs::Value;
use crate::git::{Git, RefFormat, RefName, RefStore, Repository, update_refs};
use crate::observe;
use crate::observe::payload::Payload;
use crate::wal::{RefChange, Watched};

/// The longest chain of symbolic refs, as in git.
const DEEPEST: usize = 5;

/// A ref that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// As git is told: the ref that is written, symbolic ones followed.
    pub given: RefName,
    /// Its path below the common directory.
    pub name: RefName,
    pub to: RefTo,
    pub expected: Expected,
    /// git's word for nothing, in this repository.
    pub zeros: String,
    /// The symbolic refs that led here, with what they said.
    via: Vec<(RefName, RefName)>,
}

/// What git's locks protect.
#[derive(Debug, Default)]
pub(crate) struct Locked {
    pub changes: Vec<RefChange>,
    pub watched: Vec<Watched>,
    pub packed_lock: Option<FileId>,
}

/// Follows symbolic refs (of a reftable only git knows which are), and refuses a ref that is named twice.
pub(crate) fn resolve(repo: &Repository, git: &Git, items: &[RefItem], zeros: &str) -> anyhow::Result<Vec<Target>> {
    let refs = RefStore::new(repo);
    let symbolic = match repo.ref_format {
        RefFormat::Files => None,
        RefFormat::Reftable => Some(update_refs::symbolic_refs(git)?),
    };
    let mut targets = Vec::with_capacity(items.len());
    let mut seen = std::collections::HashSet::new();
    for item in items {
        let mut given = item.name.clone();
        let mut via = Vec::new();
        while item.deref == Deref::Yes && via.len() < DEEPEST {
            let name = refs.canonical(given.as_bytes())?;
            let next = match &symbolic {
                Some(symbolic) => symbolic.get(&given).cloned().map_or(Value::Absent, Value::Symref),
                None => refs.read(&name)?.value,
            };
            let Value::Symref(next) = next else { break };
            via.push((name, next.clone()));
            given = next;
        }
        let name = refs.canonical(given.as_bytes())?;
        if !seen.insert(name.clone()) {
            return Err(Clash::Ref(name).into());
        }
        let (to, expected, zeros) = (item.to.clone(), item.expected.clone(), zeros.to_owned());
        targets.push(Target { given, name, to, expected, zeros, via });
    }
    Ok(targets)
}

/// The values of the targets, as any reader sees them.
pub(crate) fn values(repo: &Repository, git: &Git, targets: &[Target]) -> anyhow::Result<Vec<Value>> {
    if repo.ref_format == RefFormat::Reftable {
        let names: Vec<&RefName> = targets.iter().map(|t| &t.given).collect();
        return update_refs::read_refs_at_once(git, &names);
    }
    let refs = RefStore::new(repo);
    targets.iter().map(|t| Ok(refs.read(&t.name)?.value)).collect()
}

/// Is the value what was expected?
pub(crate) fn is_met(expected: &Expected, now: &Value) -> bool {
    match expected {
        Expected::Anything => true,
        Expected::Absent => *now == Value::Absent,
        Expected::Exactly(oid) => now.oid() == Some(oid),
        Expected::PointsTo(target) => matches!(now, Value::Symref(to) if to == target),
    }
}

/// Those that can be locked now, and those that can only when some of the former are gone.
pub(crate) fn split(targets: Vec<Target>) -> (Vec<Target>, Vec<Target>) {
    let goes = |target: &Target| target.to == RefTo::Value(Value::Absent);
    let names = |gone: bool| targets.iter().filter(move |t| goes(t) == gone).map(|t| &t.name);
    if in_the_way(names(true), names(false)).is_some() {
        return targets.into_iter().partition(goes);
    }
    (targets, Vec::new())
}

/// The changes, before git has locked anything: a first word on what is to be done.
pub(crate) fn intended(targets: &[Target], values: &[Value]) -> Vec<RefChange> {
    let change = |(target, before): (&Target, &Value)| match &target.to {
        RefTo::Value(after) if after != before => Some(RefChange {
            name: target.name.clone(),
            before: Some(before.clone()),
            after: after.clone(),
            file: None,
            lock: None,
            log: None,
        }),
        _ => None,
    };
    targets.iter().zip(values).filter_map(change).collect()
}

/// Reads everything again while git holds its locks.
pub(crate) fn locked(repo: &Repository, git: &Git, targets: &[Target]) -> anyhow::Result<Locked> {
    if repo.ref_format == RefFormat::Reftable {
        let values = values(repo, git, targets)?;
        let packed_lock = FileId::at(&repo.common_dir.join("reftable/tables.list.lock"))?;
        return Ok(Locked { changes: intended(targets, &values), watched: Vec::new(), packed_lock });
    }
    let refs = RefStore::new(repo);
    for (name, was) in targets.iter().flat_map(|t| &t.via) {
        let now = refs.read(name)?.value;
        anyhow::ensure!(now == Value::Symref(was.clone()), "{name} points elsewhere by now: {now}");
    }
    let texts: Vec<(Vec<u8>, &Target)> = targets.iter().filter_map(|t| Some((text(t)?, t))).collect();
    let line = |(new, target): &(Vec<u8>, &Target)| {
        [target.zeros.as_bytes(), b" ", new, b" ", target.given.as_bytes(), b"\n"].concat()
    };
    let input: Vec<u8> = texts.iter().flat_map(line).collect();
    let payload = Payload::parse(&input);
    let mut seen = observe::observe(repo, &payload, || Ok(observe::Locks::Own))?;
    let changes: HashMap<&RefName, &RefChange> = seen.changes.iter().map(|c| (&c.name, c)).collect();
    for (new, target) in &texts {
        let after = Value::of_payload(new);
        let change = changes.get(&target.name);
        let unchanged = change.is_none() && refs.read(&target.name)?.value == after;
        let right = change.is_some_and(|c| c.after == after);
        anyhow::ensure!(right || unchanged, "git holds no lock for its update of {}", target.name);
    }
    for target in targets.iter().filter(|t| t.to == RefTo::Same) {
        let lock = FileId::at(&refs.lock(&target.name))?;
        seen.watched.push(Watched { name: target.name.clone(), lock, log: None });
    }
    Ok(Locked { changes: seen.changes, watched: seen.watched, packed_lock: seen.packed_lock })
}

/// The new value as a hook would be told.
fn text(target: &Target) -> Option<Vec<u8>> {
    match &target.to {
        RefTo::Value(Value::Oid(oid)) => Some(oid.hex().as_bytes().to_vec()),
        RefTo::Value(Value::Symref(to)) => Some([b"ref:", to.as_bytes()].concat()),
        RefTo::Value(_) => Some(target.zeros.clone().into_bytes()),
        RefTo::Same => None,
    }
}

/// Symbolic refs in a session came with git 2.46.
pub(crate) fn require_symrefs(git: &Git, targets: &[Target]) -> anyhow::Result<()> {
    if !targets.iter().any(|t| matches!(t.to, RefTo::Value(Value::Symref(_)))) {
        return Ok(());
    }
    let (major, minor) = git.version().context("cannot ask git for its version")?;
    anyhow::ensure!(
        (major, minor) >= (2, 46),
        "git {major}.{minor} has no transactions of symbolic refs: that needs 2.46 or newer"
    );
    Ok(())
}
