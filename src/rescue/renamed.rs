//! A branch that was being renamed: `git branch -m` moves the reflog away, deletes the old name, and then makes the new one. Killed in
//! between neither is there, and the reflog on its way is the last trace.
//!
//! The name is the one that a HEAD means and that is not there, if HEAD's reflog says so. Otherwise the branch gets a name that says
//! what it is, and its own name is told as lost.
//!
//! The reflog on its way goes last: a rescue that was killed finds by it what was to be done.

use crate::fs::with_suffix;
use crate::git::reflog::{RENAMED_LOG, moved_to};
use crate::git::{Oid, RefName, Repository};
use crate::rescue::claims::Claims;
use crate::rescue::heads::Heads;
use crate::rescue::histories::Histories;
use crate::rescue::log::Log;
use crate::rescue::plan::{Plan, short};
use crate::rescue::reflogs;

/// Plans what becomes of a reflog on its way.
pub(crate) fn decide(
    repo: &Repository,
    claims: &Claims,
    heads: &Heads,
    histories: &mut Histories,
    plan: &mut Plan,
) -> anyhow::Result<()> {
    let log = Log::read(repo.common_dir.join(RENAMED_LOG))?;
    if log.content.is_none() {
        return Ok(());
    }
    plan.set_aside_last(log.path.clone());
    let values: Vec<_> = log.newest_first().collect();
    let what = format!("a rename of a branch died: {RENAMED_LOG} is left of it");
    let Some(to) = histories.newest(&values)? else {
        let loss = values.first().map_or_else(|| "what it was".to_owned(), |last| format!("the branch: it was {last}"));
        plan.lost(what, "nothing whole is known of the branch", loss);
        return Ok(());
    };
    // As any reflog: without what is damaged, or about lost objects.
    let (content, _, lost) = reflogs::kept(&log, histories)?;
    let is_whole = lost == 0 && log.last_line().is_some() && values.first() == Some(&to);
    let cut = Cut { what, content, is_whole };
    if let Some(home) = claims.branches().into_iter().find(|name| has_log(claims, name, &cut.content)) {
        cut.tell_again(home, plan);
        return Ok(());
    }
    // The reflog alone had been moved, or a rescue that was killed had nothing but the value.
    let is_home = |name: &&&RefName| {
        let now = claims.visible(name);
        let is_value = now.oid() == values.first() || cut.content.is_empty() && now.oid() == Some(&to);
        is_value && claims.logs.get(**name).is_none_or(|log| log.content.is_none())
    };
    match claims.branches().iter().filter(is_home).collect::<Vec<_>>()[..] {
        [] => {}
        [home] => {
            cut.put_log(repo, home, plan);
            cut.tell_again(home, plan);
            return Ok(());
        }
        _ => {
            let loss = "which of several branches of the same value it is the reflog of";
            plan.lost(cut.what, "it goes to quarantine", loss);
            return Ok(());
        }
    }
    let (name, is_known) = match name_of(claims, heads, values.first()) {
        Some((name, is_proved)) => (name, is_proved),
        None => (RefName::parse(&[MADE, short(&to).as_bytes()].concat())?, false),
    };
    cut.put_log(repo, &name, plan);
    plan.put_locked(repo.common_dir.join(name.as_path()), format!("{to}\n").into_bytes());
    let repair = format!("{name} is {} again", short(&to));
    if is_known && cut.is_whole && histories.is_whole(&to)? {
        plan.found(cut.what, repair);
    } else {
        plan.lost(cut.what, repair, LOSS);
    }
    Ok(())
}

/// The reflog on its way.
struct Cut {
    /// How it is told.
    what: String,
    /// What of it stays.
    content: Vec<u8>,
    /// That is all of it, and the branch keeps its value.
    is_whole: bool,
}

impl Cut {
    /// It is the reflog of this branch.
    fn put_log(&self, repo: &Repository, name: &RefName, plan: &mut Plan) {
        if !self.content.is_empty() {
            let lock = with_suffix(repo.common_dir.join(name.as_path()), ".lock");
            plan.put_log_first(lock, crate::git::refs::log_path(&repo.common_dir, name), self.content.clone());
        }
    }

    fn tell_again(self, home: &RefName, plan: &mut Plan) {
        let repair = format!("it is the reflog of {home} again");
        if home.as_bytes().starts_with(MADE) || !self.is_whole {
            plan.lost(self.what, repair, LOSS);
        } else {
            plan.found(self.what, repair);
        }
    }
}

/// What a branch is called of which the name is lost: so it begins.
const MADE: &[u8] = b"refs/heads/renamed-";

/// What such a rename loses.
const LOSS: &str = "the name, or some of the values, of a branch that was being renamed";

/// A rescue that was killed has put it there.
fn has_log(claims: &Claims, name: &RefName, content: &[u8]) -> bool {
    let log = claims.logs.get(name).and_then(|log| log.content.as_deref());
    !content.is_empty() && log.is_some_and(|log| log.starts_with(content))
}

/// The branch that a HEAD means and that is not there, where HEAD's reflog says that it was on that branch, and at this value; and
/// whether that is proved: behind what can be read of the reflog another move may have stood.
fn name_of(claims: &Claims, heads: &Heads, value: Option<&Oid>) -> Option<(RefName, bool)> {
    let is_missing = |name: &&RefName| name.as_bytes().starts_with(b"refs/heads/") && !claims.knows(name);
    heads.branches().filter(is_missing).find_map(|branch| {
        let log = claims.logs.get(heads.of_branch(branch)?)?;
        let led_to = log.entries().find_map(|line| moved_to(&line));
        let says_it = led_to.as_ref() == Some(branch) && log.newest().as_ref() == value;
        says_it.then(|| (branch.clone(), log.last_line().is_some()))
    })
}
