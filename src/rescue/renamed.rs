//! A branch that was being renamed: `git branch -m` moves the reflog away, deletes the old name, and then makes the new one. Killed in
//! between neither is there, and the reflog on its way is the last trace.
//!
//! The name is the one that a HEAD means and that is not there, if HEAD's reflog proves it. Otherwise the branch gets a name that says
//! what it is, and its own name is told as lost.
//!
//! The reflog on its way goes last: a rescue that was killed finds by it what was to be done.

use crate::fs::with_suffix;
use crate::git::reflog::{RENAMED_LOG, proves_branch};
use crate::git::{Oid, RefName, Repository};
use crate::rescue::claims::Claims;
use crate::rescue::heads::Heads;
use crate::rescue::histories::Histories;
use crate::rescue::log::Log;
use crate::rescue::plan::{Plan, short};

/// Plans what becomes of a reflog on its way.
pub(crate) fn decide(
    repo: &Repository,
    claims: &Claims,
    heads: &Heads,
    histories: &mut Histories,
    plan: &mut Plan,
) -> anyhow::Result<()> {
    let log = Log::read(repo.common_dir.join(RENAMED_LOG))?;
    let Some(content) = &log.content else { return Ok(()) };
    plan.set_aside_last(log.path.clone());
    let values: Vec<_> = log.newest_first().collect();
    let what = format!("a rename of a branch died: {RENAMED_LOG} is left of it");
    let Some(to) = histories.newest(&values)? else {
        let loss = values.first().map_or_else(|| "what it was".to_owned(), |last| format!("the branch: it was {last}"));
        plan.lost(what, "nothing whole is known of the branch", loss);
        return Ok(());
    };
    let put_log = |plan: &mut Plan, name: &RefName| {
        let path = crate::git::refs::log_path(&repo.common_dir, name);
        plan.put_log_first(with_suffix(repo.common_dir.join(name.as_path()), ".lock"), path, content.clone());
    };
    if let Some(home) = claims.branches().into_iter().find(|name| has_log(claims, name, content)) {
        told_again(home, what, plan);
        return Ok(());
    }
    // The reflog alone had been moved.
    let is_home = |name: &&&RefName| {
        claims.visible(name).oid() == values.first() && claims.logs.get(**name).is_none_or(|log| log.content.is_none())
    };
    match claims.branches().iter().filter(is_home).collect::<Vec<_>>()[..] {
        [] => {}
        [home] => {
            put_log(plan, home);
            told_again(home, what, plan);
            return Ok(());
        }
        _ => {
            let loss = "which of several branches of the same value it is the reflog of";
            plan.lost(what, "it goes to quarantine", loss);
            return Ok(());
        }
    }
    let (name, is_known) = match name_of(repo, claims, heads, values.first())? {
        Some(name) => (name, true),
        None => (RefName::parse(&[MADE, short(&to).as_bytes()].concat())?, false),
    };
    put_log(plan, &name);
    plan.put_locked(repo.common_dir.join(name.as_path()), format!("{to}\n").into_bytes());
    let repair = format!("{name} is {} again", short(&to));
    if is_known && values.first() == Some(&to) && histories.is_whole(&to)? {
        plan.found(what, repair);
    } else {
        plan.lost(what, repair, LOSS);
    }
    Ok(())
}

/// What a branch is called of which the name is lost: so it begins.
const MADE: &[u8] = b"refs/heads/renamed-";

/// What such a rename loses.
const LOSS: &str = "the name, or the newest value, of a branch that was being renamed";

/// A rescue that was killed has put it there.
fn has_log(claims: &Claims, name: &RefName, content: &[u8]) -> bool {
    let log = claims.logs.get(name).and_then(|log| log.content.as_deref());
    !content.is_empty() && log.is_some_and(|log| log.starts_with(content))
}

fn told_again(home: &RefName, what: String, plan: &mut Plan) {
    let repair = format!("it is the reflog of {home} again");
    if home.as_bytes().starts_with(MADE) {
        plan.lost(what, repair, LOSS);
    } else {
        plan.found(what, repair);
    }
}

/// The branch that a HEAD means and that is not there, where HEAD's reflog proves that this was its value.
fn name_of(repo: &Repository, claims: &Claims, heads: &Heads, value: Option<&Oid>) -> anyhow::Result<Option<RefName>> {
    let Some(value) = value else { return Ok(None) };
    let is_missing = |name: &RefName| name.as_bytes().starts_with(b"refs/heads/") && !claims.knows(name);
    for branch in heads.branches().filter(|name| is_missing(name)) {
        let Some(head) = heads.of_branch(branch) else { continue };
        if proves_branch(&crate::git::refs::log_path(&repo.common_dir, head), branch, value)? {
            return Ok(Some(branch.clone()));
        }
    }
    Ok(None)
}
