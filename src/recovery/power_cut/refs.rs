//! Refs against the log: what is older is redone, what is unseen stays, what has a hole goes back.

use std::collections::BTreeSet;

use crate::fs::FileId;
use crate::git::objects::{self, Closure, Whole};
use crate::git::refs::{RefSnapshot, ResolvedRef};
use crate::git::{Oid, Plumbing, RefName, RefStore, Repository, Value, reflog};
use crate::recovery::action::Action;
use crate::recovery::decide::{Decision, Evidence, decide};
use crate::recovery::expected_refs::{ExpectedRefs, LastKnown, RefStatus};
use crate::recovery::perform::perform;
use crate::recovery::power_cut::is_old;
use crate::recovery::power_cut::repair::{Repair, short};
use crate::recovery::progress::Progress;
use crate::recovery::report::Report;
use crate::recovery::site::Site;

/// What is to be done, and what is only to be written down.
#[derive(Default)]
struct Findings {
    repairs: Vec<Repair>,
    unseen: Vec<RefSnapshot>,
    losses: Vec<String>,
    /// Something could not be told: nothing was decided about it.
    is_partial: bool,
}

/// Returns the refs on which the log has a new word to say; `None` when something was in the way.
pub(crate) fn mend_refs(
    site: &Site<'_>,
    expected: &ExpectedRefs<'_>,
    closure: &Closure,
    report: &mut Report,
) -> anyhow::Result<Option<Vec<RefSnapshot>>> {
    let Findings { repairs, unseen, losses, is_partial } = findings(site, expected, closure)?;
    let wanted = repairs.len();
    let Progress { repaired, busy, .. } = perform(site, vec![Action::Redo(repairs)])?;
    report.busy.extend(busy);
    report.notes.extend(repaired.iter().filter_map(Repair::told));
    report.losses.extend(losses);
    let mut settled = unseen;
    let refs = RefStore::new(site.repo);
    for repair in &repaired {
        report.moved(repair);
        let now = refs.read(&repair.name)?;
        settled.push(RefSnapshot { name: repair.name.clone(), value: now.value, file: now.loose });
    }
    Ok((repaired.len() == wanted && !is_partial).then_some(settled))
}

fn findings(site: &Site<'_>, expected: &ExpectedRefs<'_>, closure: &Closure) -> anyhow::Result<Findings> {
    let candidates = candidates(site, expected)?;
    let wanted_of = |(name, now, standing): &(RefName, ResolvedRef, RefStatus)| wanted(expected, name, now, *standing);
    let all: Vec<Oid> = candidates.iter().filter_map(wanted_of).collect();
    let all_whole = closure.ask(&all)? == Whole::Yes;
    let mut findings = Findings::default();
    for (name, now, standing) in candidates {
        if standing == RefStatus::Open {
            continue;
        }
        if standing == RefStatus::Unseen {
            findings.unseen.push(RefSnapshot { name: name.clone(), value: now.value.clone(), file: now.loose });
        }
        let word = expected.refs.get(&name).and_then(|g| g.word.as_ref());
        let oid = wanted(expected, &name, &now, standing);
        let whole = match oid {
            Some(_) if all_whole => Whole::Yes,
            Some(oid) => closure.ask(&[oid])?,
            // A broken ref that the log has no word on.
            None if now.value == Value::Broken && standing != RefStatus::Outdated => Whole::No,
            None => Whole::Yes,
        };
        match decide(&Evidence::AfterPowerCut { status: standing, objects: whole }) {
            Decision::RollForward => {
                // A branch that HEAD is to mean again has been made of its lock before.
                let is_done = |word: &&LastKnown| name.is_head() && matches!(word.value, Value::Symref(_));
                if let Some(word) = word.filter(|w| !is_done(w)) {
                    let to = word.value.clone();
                    findings.repairs.push(Repair { name, now, to, tx: word.tx, is_loss: false });
                }
            }
            Decision::Wait => findings.is_partial = true,
            Decision::RollBack => fall_back(site, expected, closure, &mut findings, (name, now, oid))?,
            _ => {}
        }
    }
    Ok(findings)
}

fn candidates(site: &Site<'_>, expected: &ExpectedRefs<'_>) -> anyhow::Result<Vec<(RefName, ResolvedRef, RefStatus)>> {
    let refs = RefStore::new(site.repo);
    let packed = FileId::at(&site.repo.common_dir.join("packed-refs"))?;
    let mut names: BTreeSet<RefName> = expected.refs.keys().map(|name| (*name).clone()).collect();
    names.extend(loose_refs(site.repo)?);
    let mut candidates = Vec::new();
    for name in names {
        let now = refs.read(&name)?;
        let standing = expected.standing(site.repo, &name, &now, packed)?;
        candidates.push((name, now, standing));
    }
    Ok(candidates)
}

fn fall_back(
    site: &Site<'_>,
    expected: &ExpectedRefs<'_>,
    closure: &Closure,
    findings: &mut Findings,
    (name, now, oid): (RefName, ResolvedRef, Option<Oid>),
) -> anyhow::Result<()> {
    let Some(to) = newest_whole(site, expected, &name, closure)? else {
        findings.losses.push(format!("{name} is corrupt, and no intact value of it is known: look at its reflog"));
        return Ok(());
    };
    let lost = oid.map_or_else(|| "its value".to_owned(), |oid| short(&Value::Oid(oid)));
    let lost = format!("{name}: {lost} is lost; it is back at {}, the newest intact value", short(&to));
    findings.losses.push(lost);
    if now.value != to {
        findings.repairs.push(Repair { name, now, to, tx: None, is_loss: true });
    }
    Ok(())
}

fn newest_whole(
    site: &Site<'_>,
    expected: &ExpectedRefs<'_>,
    name: &RefName,
    closure: &Closure,
) -> anyhow::Result<Option<Value>> {
    let generation = expected.refs.get(name);
    let logged = generation.into_iter().flat_map(|g| {
        let newest = g.word.iter().map(|w| w.value.clone());
        newest.chain(g.earlier.iter().rev().cloned()).collect::<Vec<_>>()
    });
    let told = reflog::newest_value(&RefStore::new(site.repo).log(name))?;
    let told = told.and_then(|hex| Oid::parse(hex.as_bytes())).filter(|oid| !oid.is_null()).map(Value::Oid);
    for value in logged.chain(told) {
        if let Value::Oid(oid) = value
            && closure.ask(&[oid])? == Whole::Yes
        {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// What was there before the last checkpoint, and what nobody touched since, is taken as whole.
pub(crate) fn closure(site: &Site<'_>, expected: &ExpectedRefs<'_>) -> anyhow::Result<Closure> {
    // As the user sees history: what a replacement hides is not lost.
    let git = site.git.at(&site.repo.git_dir).replacing();
    let oldest = expected.refs.values().filter_map(|g| g.earlier.first().or(g.word.as_ref().map(|w| &w.value)));
    let mut known: Vec<Oid> = oldest.filter_map(|value| value.oid().copied()).collect();
    let listed = git.run(Plumbing::Refs { format: "%(objectname) %(refname)", below: None, points_at: None })?;
    for entry in listed.stdout.split(|b| *b == b'\n') {
        let Some(at) = entry.iter().position(|b| *b == b' ') else { continue };
        let (oid, name) = (&entry[..at], &entry[at + 1..]);
        let untouched = RefName::parse(name).is_ok_and(|name| {
            let file = FileId::at(&RefStore::new(site.repo).file(&name)).ok().flatten();
            !expected.refs.contains_key(&name) && file.is_none_or(|file| is_old(expected, file))
        });
        known.extend(Oid::parse(oid).filter(|_| untouched));
    }
    let here = !site.options.objects_elsewhere && objects::are_all_here(&git, &site.repo.common_dir)?;
    Closure::new(git, known, here)
}

/// The object that has to be whole for `name` to be as it should.
fn wanted(expected: &ExpectedRefs<'_>, name: &RefName, now: &ResolvedRef, standing: RefStatus) -> Option<Oid> {
    let word = expected.refs.get(name).and_then(|g| g.word.as_ref());
    match standing {
        RefStatus::Outdated => word.and_then(|w| w.value.oid().copied()),
        RefStatus::AsLogged | RefStatus::Unseen => {
            let known = word.is_some() || now.loose.is_some_and(|file| !is_old(expected, file));
            now.value.oid().copied().filter(|_| known)
        }
        RefStatus::Open => None,
    }
}

/// All loose refs of all worktrees.
fn loose_refs(repo: &Repository) -> anyhow::Result<Vec<RefName>> {
    let mut names = Vec::new();
    for (path, _) in crate::recovery::power_cut::files_below(&repo.common_dir.join("refs"))? {
        let Ok(inside) = path.strip_prefix(&repo.common_dir) else { continue };
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(inside.as_os_str());
        if !bytes.ends_with(b".lock") {
            names.extend(RefName::parse(bytes));
        }
    }
    Ok(names)
}
