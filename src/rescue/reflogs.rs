//! Reflogs: entries that cannot be read, or that are about lost objects, go; everything else stays in its order.

use std::collections::BTreeSet;

use crate::fs::with_suffix;
use crate::git::{Oid, RefName, Repository};
use crate::rescue::claims::Claims;
use crate::rescue::histories::Histories;
use crate::rescue::log::{Log, sound};
use crate::rescue::plan::Plan;

/// Plans what becomes of every reflog but those of refs that are given up.
pub(crate) fn decide(
    repo: &Repository,
    claims: &Claims,
    given_up: &BTreeSet<RefName>,
    histories: &mut Histories,
    plan: &mut Plan,
) -> anyhow::Result<()> {
    for (name, log) in claims.logs.iter().filter(|(name, _)| !given_up.contains(*name)) {
        if log.content.is_none() {
            plan.found(format!("the reflog of {name} is no file"), "it goes to quarantine");
            plan.set_name_aside(log.path.clone());
            continue;
        }
        let (content, unreadable, lost) = kept(log, histories)?;
        if unreadable + lost > 0 {
            let repair = "they go; the reflog as it was is in quarantine";
            match lost {
                0 => plan.found(told(name, unreadable, lost), repair),
                // Of the stash these are stashes, of a branch the way back to what it was.
                _ => plan.lost(told(name, unreadable, lost), repair, format!("{lost} earlier values of {name}")),
            }
            plan.put_under(with_suffix(repo.common_dir.join(name.as_path()), ".lock"), log.path.clone(), content);
        }
    }
    Ok(())
}

fn told(name: &RefName, unreadable: usize, lost: usize) -> String {
    match (unreadable, lost) {
        (0, _) => format!("the reflog of {name} has {lost} entries about missing objects"),
        (_, 0) => format!("the reflog of {name} has {unreadable} entries that cannot be read"),
        _ => format!(
            "the reflog of {name} has {unreadable} entries that cannot be read, and {lost} about missing objects"
        ),
    }
}

/// What stays of a reflog, how many lines cannot be read, and how many are about lost objects. An entry from a lost value to one that is
/// there stays, and begins with the value before.
pub(crate) fn kept(log: &Log, histories: &mut Histories) -> anyhow::Result<(Vec<u8>, usize, usize)> {
    let (mut content, mut unreadable, mut lost) = (Vec::new(), 0, 0);
    let mut last: Option<Oid> = None;
    for line in log.lines() {
        let Some((old, new)) = sound(line) else {
            unreadable += 1;
            continue;
        };
        let mut is_there = |oid: &Oid| Ok::<_, anyhow::Error>(oid.is_null() || histories.is_kept(oid)?);
        if !is_there(&new)? {
            lost += 1;
            continue;
        }
        if is_there(&old)? {
            content.extend_from_slice(line);
        } else {
            lost += 1;
            let before = last.map_or_else(|| old.null_like(), |oid| oid.hex().to_string());
            content.extend_from_slice(before.as_bytes());
            content.extend_from_slice(&line[old.hex().len()..]);
        }
        last = Some(new);
    }
    Ok((content, unreadable, lost))
}
