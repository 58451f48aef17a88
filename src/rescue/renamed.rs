//! A branch that was being renamed: `git branch -m` moves the reflog away, deletes the old name, and then makes the new one. Killed in
//! between neither is there, and the reflog on its way is the last trace.
//!
//! The name is the one that a HEAD means and that is not there, or the only branch that has a section in the configuration and is not
//! there. Where neither says it, the branch gets a name that says what it is.

use crate::fs::with_suffix;
use crate::git::reflog::RENAMED_LOG;
use crate::git::{RefName, Repository};
use crate::rescue::claims::Claims;
use crate::rescue::config::Settings;
use crate::rescue::heads::Heads;
use crate::rescue::histories::Histories;
use crate::rescue::log::Log;
use crate::rescue::plan::{Plan, short};

/// Plans what becomes of a reflog on its way.
pub(crate) fn decide(
    repo: &Repository,
    claims: &Claims,
    (heads, settings): (&Heads, &Settings),
    histories: &mut Histories,
    plan: &mut Plan,
) -> anyhow::Result<()> {
    let log = Log::read(repo.common_dir.join(RENAMED_LOG))?;
    let Some(content) = &log.content else { return Ok(()) };
    plan.set_name_aside(log.path.clone());
    let values: Vec<_> = log.newest_first().collect();
    let what = format!("a rename of a branch died: {RENAMED_LOG} is left of it");
    let Some(to) = histories.newest(&values)? else {
        let loss = values.first().map_or_else(|| "what it was".to_owned(), |last| format!("the branch: it was {last}"));
        plan.lost(what, "nothing whole is known of the branch", loss);
        return Ok(());
    };
    let put_log = |plan: &mut Plan, name: &RefName| {
        let path = crate::git::refs::log_path(&repo.common_dir, name);
        plan.put_under(with_suffix(repo.common_dir.join(name.as_path()), ".lock"), path, content.clone());
    };
    // The reflog alone had been moved.
    if let Some(home) = claims
        .branches()
        .into_iter()
        .find(|name| claims.visible(name).oid() == values.first() && !claims.logs.contains_key(*name))
    {
        put_log(plan, home);
        plan.found(what, format!("it is the reflog of {home} again"));
        return Ok(());
    }
    let (name, is_known) = match name_of(claims, heads, settings) {
        Some(name) => (name, true),
        None => (RefName::parse(format!("refs/heads/renamed-{}", short(&to)).as_bytes())?, false),
    };
    put_log(plan, &name);
    plan.put_locked(repo.common_dir.join(name.as_path()), format!("{to}\n").into_bytes());
    let repair = format!("{name} is {} again", short(&to));
    if is_known && values.first() == Some(&to) && histories.is_whole(&to)? {
        plan.found(what, repair);
    } else {
        plan.lost(what, repair, "the name, or the newest value, of a branch that was being renamed");
    }
    Ok(())
}

fn name_of(claims: &Claims, heads: &Heads, settings: &Settings) -> Option<RefName> {
    let is_missing = |name: &RefName| name.as_bytes().starts_with(b"refs/heads/") && !claims.knows(name);
    let configured =
        settings.branches.iter().filter_map(|name| RefName::parse(format!("refs/heads/{name}").as_bytes()).ok());
    let configured: Vec<RefName> = configured.filter(is_missing).collect();
    let only = if let [one] = &configured[..] { Some(one.clone()) } else { None };
    heads.branches().find(|name| is_missing(name)).cloned().or(only)
}
