//! HEAD of every worktree, and what lies beside it: which branch, or which commit, it means.
//!
//! A HEAD that says nothing is taken from its reflog: it means the branch whose reflog ends with the very line that HEAD's own ends with,
//! or the one that the last checkout names, if that has HEAD's newest value, or has lost its own; in a rebase HEAD is detached.
//! Whatever else it may have meant is told as a loss: the only branch that has its last value, or else HEAD is detached there, so that
//! nothing moves a branch; where nobody knows that, at the newest commit that a branch names, or another ref, or nothing. A HEAD is
//! never left as git cannot read it: without one git finds no repository.

use std::path::PathBuf;

use crate::fs::{absent_is_none, named as fs, read_small};
use crate::git::reflog::moved_to;
use crate::git::{Oid, RefName, Repository, Value};
use crate::rescue::claims::Claims;
use crate::rescue::histories::Histories;
use crate::rescue::log::Log;
use crate::rescue::plan::{Plan, short};

/// What every HEAD says, or will say.
#[derive(Debug, Default)]
pub(crate) struct Heads(Vec<Head>);

#[derive(Debug)]
struct Head {
    name: RefName,
    git_dir: PathBuf,
    value: Value,
}

impl Heads {
    /// Plans what becomes of every HEAD.
    pub(crate) fn decide(
        repo: &Repository,
        claims: &Claims,
        unnamed: &[Oid],
        histories: &mut Histories,
        plan: &mut Plan,
    ) -> anyhow::Result<Heads> {
        let mut heads = Heads::default();
        for git_dir in repo.all_git_dirs() {
            let is_linked = git_dir != repo.common_dir;
            if is_linked && absent_is_none(fs::symlink_metadata(git_dir.join("gitdir")))?.is_none() {
                continue;
            }
            let inside = git_dir.strip_prefix(&repo.common_dir).unwrap_or(&git_dir).join("HEAD");
            let Ok(name) = RefName::parse(inside.as_os_str().as_encoded_bytes()) else { continue };
            if is_linked {
                mend_links(&git_dir, &name, plan)?;
            }
            let value = decide_one(claims, (&git_dir, &name), unnamed, histories, plan)?;
            heads.0.push(Head { name, git_dir, value });
        }
        Ok(heads)
    }

    /// The HEAD that means this branch.
    pub(crate) fn of_branch(&self, branch: &RefName) -> Option<&RefName> {
        let means = |head: &&Head| head.value == Value::Symref(branch.clone());
        self.0.iter().find(means).map(|head| &head.name)
    }

    /// The branches that HEADs mean.
    pub(crate) fn branches(&self) -> impl Iterator<Item = &RefName> {
        self.0.iter().filter_map(|head| if let Value::Symref(branch) = &head.value { Some(branch) } else { None })
    }

    /// The branch that the main HEAD means.
    pub(crate) fn main_branch(&self) -> Option<&RefName> {
        self.0.first().and_then(|head| if let Value::Symref(branch) = &head.value { Some(branch) } else { None })
    }

    /// The commit that HEAD of this git directory will have.
    pub(crate) fn commit(
        &self,
        git_dir: &std::path::Path,
        claims: &Claims,
        histories: &mut Histories,
    ) -> anyhow::Result<Option<Oid>> {
        let Some(head) = self.0.iter().find(|head| head.git_dir == git_dir) else { return Ok(None) };
        match &head.value {
            Value::Symref(branch) => histories.newest(&claims.candidates(branch, Some(&head.name))),
            value => Ok(value.oid().copied()),
        }
    }

    /// A commit that can be worked with, and what it is: that of the main HEAD, or else the newest one that nothing names, or else any
    /// branch's.
    pub(crate) fn newest(
        &self,
        claims: &Claims,
        unnamed: &[Oid],
        histories: &mut Histories,
    ) -> anyhow::Result<Option<(Oid, &'static str)>> {
        if let Some(head) = self.0.first()
            && let Some(commit) = self.commit(&head.git_dir, claims, histories)?
        {
            return Ok(Some((commit, "HEAD")));
        }
        let unnamed = histories.work(unnamed)?;
        if let Some(commit) = histories.latest(&unnamed)? {
            return Ok(Some((commit, "the newest commit that nothing names")));
        }
        for branch in claims.branches() {
            if let Some(found) = histories.newest(&claims.candidates(branch, None))? {
                return Ok(Some((found, "the commit of another branch")));
            }
        }
        Ok(None)
    }
}

fn decide_one(
    claims: &Claims,
    (git_dir, name): (&std::path::Path, &RefName),
    unnamed: &[Oid],
    histories: &mut Histories,
    plan: &mut Plan,
) -> anyhow::Result<Value> {
    let found = claims.tops.get(name);
    let now = found.map_or(Value::Absent, |loose| loose.value.clone());
    let is_file = found.is_none_or(|loose| loose.is_file);
    let path = git_dir.join("HEAD");
    let (mut value, mut is_proved) = match &now {
        Value::Symref(_) if is_file => return Ok(now),
        Value::Oid(oid) if is_file && histories.is_whole(oid)? => return Ok(now),
        Value::Oid(_) => {
            let to = histories.newest(&claims.own(name, Some(name)))?;
            (to.map_or(Value::Absent, Value::Oid), true)
        }
        _ => from_reflog(claims, git_dir, name, histories)?,
    };
    if matches!(value, Value::Absent | Value::Broken) {
        (value, is_proved) = (anything(claims, unnamed, histories)?, false);
    }
    tell(plan, name, &now, &value, is_proved);
    let text = match &value {
        Value::Oid(oid) => format!("{oid}\n").into_bytes(),
        Value::Symref(branch) => [b"ref: ", branch.as_bytes(), b"\n"].concat(),
        Value::Absent | Value::Broken => return Ok(value),
    };
    if !is_file {
        plan.set_name_aside(path.clone());
    }
    plan.put_locked(path, text);
    Ok(value)
}

/// What git can work with, where nothing is known of a HEAD: the newest commit that a branch names, or else that another ref does, or else
/// one that nothing names; a branch without commits where there is none.
fn anything(claims: &Claims, unnamed: &[Oid], histories: &mut Histories) -> anyhow::Result<Value> {
    let visible = |names: &mut dyn Iterator<Item = &RefName>| -> Vec<Oid> {
        names.filter_map(|name| claims.visible(name).oid().copied()).collect()
    };
    let of_branches = visible(&mut claims.branches().into_iter());
    let is_other = |name: &&RefName| name.as_bytes() != b"refs/stash" && !name.as_bytes().starts_with(b"refs/notes/");
    let others = visible(&mut claims.loose.keys().chain(claims.packed.entries.keys()).filter(is_other));
    for values in [&of_branches[..], &others, unnamed] {
        let commits = histories.work(values)?;
        if let Some(commit) = histories.latest(&commits)? {
            return Ok(Value::Oid(commit));
        }
    }
    Ok(RefName::parse(FIRST.as_bytes()).map(Value::Symref)?)
}

/// Says what becomes of a HEAD.
fn tell(plan: &mut Plan, name: &RefName, now: &Value, value: &Value, is_proved: bool) {
    let shown = match value {
        Value::Symref(branch) => branch.to_string(),
        value => value.oid().map(short).unwrap_or_default(),
    };
    let damaged = format!("{name} is missing, empty or damaged");
    match (now.oid(), value) {
        (Some(lost), _) if !is_proved => {
            let what = format!("{name} is detached at {}, of which objects are missing", short(lost));
            let repair = format!("nothing whole is known of it: it is put at {shown}");
            plan.lost(what, repair, format!("{name} was {lost}"));
        }
        (Some(lost), _) if value.oid() == Some(lost) => {
            let what =
                format!("{name} is detached at {}, of which objects are missing deep in its history", short(lost));
            plan.lost(what, "it stays: its own files are there", format!("a part of the history of {name}"));
        }
        (Some(lost), _) => {
            let what = format!("{name} is detached at {}, of which objects are missing", short(lost));
            let repair = format!("it goes back to {shown}, its newest value that is whole");
            plan.lost(what, repair, format!("{name} was {lost}: that, or what it is built on, is missing"));
        }
        (None, _) if is_proved => plan.found(damaged, format!("by its reflog it means {shown}")),
        (None, _) => {
            let repair = format!("nothing proves what it meant: it is put at {shown}");
            plan.lost(
                damaged,
                repair,
                format!("what {name} meant: `git switch` to the right branch before you commit"),
            );
        }
    }
}

/// What the reflog of a HEAD says of it, and whether that is proved.
fn from_reflog(
    claims: &Claims,
    git_dir: &std::path::Path,
    name: &RefName,
    histories: &mut Histories,
) -> anyhow::Result<(Value, bool)> {
    let is_there = |name: &str| fs::symlink_metadata(git_dir.join(name)).is_ok();
    let is_detached = is_there("rebase-merge") || is_there("rebase-apply/rebasing");
    let log = claims.logs.get(name);
    // Behind what can be read another checkout may have stood.
    let is_complete = log.is_some_and(|log| log.last_line().is_some());
    let last = log.and_then(Log::newest);
    let moved = log.and_then(|log| log.entries().find_map(|line| moved_to(&line)));
    if !is_detached {
        if let Some(branch) = twin(claims, name) {
            return Ok((Value::Symref(branch), true));
        }
        if let Some(branch) = &moved
            && may_mean(claims, branch, last.as_ref(), histories)?
        {
            return Ok((Value::Symref(branch.clone()), is_complete));
        }
        if moved.is_none()
            && let Some(branch) = only_branch(claims, name, last.as_ref())
        {
            return Ok((Value::Symref(branch), false));
        }
    }
    let newest = histories.newest(&claims.own(name, Some(name)))?;
    // `git switch --detach BRANCH` leaves the same entry as `git switch BRANCH`.
    let is_no_branch = moved.is_some_and(|branch| !claims.knows(&branch));
    Ok((newest.map_or(Value::Absent, Value::Oid), is_complete && (is_detached || is_no_branch)))
}

/// May a HEAD whose last checkout names this branch, and whose newest value is `last`, mean it? The branch has that value, or lost its own.
fn may_mean(claims: &Claims, branch: &RefName, last: Option<&Oid>, histories: &mut Histories) -> anyhow::Result<bool> {
    if !claims.knows(branch) {
        // A rename that died leaves nothing of a branch but its reflog, under another name.
        let short = branch.as_bytes().strip_prefix(b"refs/heads/");
        return Ok(claims.is_renaming && short.is_none_or(|name| Oid::parse(name).is_none()));
    }
    let (visible, log) = (claims.visible(branch), claims.logs.get(branch));
    let logged = log.and_then(Log::newest);
    if last.is_some_and(|last| visible.oid() == Some(last) || logged.as_ref() == Some(last)) {
        return Ok(true);
    }
    let is_whole = match &visible {
        Value::Oid(oid) => histories.is_whole(oid)?,
        Value::Symref(_) => true,
        Value::Absent | Value::Broken => false,
    };
    // Where its reflog ends with a line that can be read, that says what it was.
    Ok(!is_whole && log.and_then(Log::last_line).is_none())
}

/// Branches that no other worktree has checked out.
fn free_branches<'c>(claims: &'c Claims, head: &RefName) -> Vec<&'c RefName> {
    let others = claims.tops.iter().filter(|(name, _)| name.is_head() && *name != head);
    let taken: Vec<&Value> = others.map(|(_, loose)| &loose.value).collect();
    let is_free =
        |branch: &&RefName| !taken.iter().any(|value| matches!(value, Value::Symref(name) if name == *branch));
    claims.branches().into_iter().filter(is_free).collect()
}

/// The branch whose reflog ends with the line that HEAD's own ends with: what moves both writes both.
fn twin(claims: &Claims, head: &RefName) -> Option<RefName> {
    let last = claims.logs.get(head)?.last_line()?;
    let is_twin = |name: &&RefName| claims.logs.get(*name).and_then(Log::last_line) == Some(last);
    let found: Vec<&RefName> = free_branches(claims, head).into_iter().filter(is_twin).collect();
    if let [one] = found[..] { Some(one.clone()) } else { None }
}

/// The only branch that HEAD can mean: the only one that has its last value, or, where nobody knows that, the only one that there is.
fn only_branch(claims: &Claims, head: &RefName, last: Option<&Oid>) -> Option<RefName> {
    let branches = free_branches(claims, head);
    let Some(last) = last else { return if let [one] = branches[..] { Some(one.clone()) } else { None } };
    let newest = |name: &RefName| match claims.visible(name) {
        Value::Oid(oid) => Some(oid),
        _ => claims.logs.get(name).and_then(Log::newest),
    };
    let found: Vec<&RefName> = branches.into_iter().filter(|name| newest(name).as_ref() == Some(last)).collect();
    if let [one] = found[..] { Some(one.clone()) } else { None }
}

/// The branch of a repository that has none.
const FIRST: &str = "refs/heads/main";

/// The files by which a worktree and its repository find each other.
fn mend_links(git_dir: &std::path::Path, name: &RefName, plan: &mut Plan) -> anyhow::Result<()> {
    let text = |file: &str| Ok::<_, anyhow::Error>(read_small(&git_dir.join(file))?.map(|(text, _)| text));
    let is_path = |text: &[u8]| !text.trim_ascii().is_empty() && !text.contains(&0);
    let worktree = String::from_utf8_lossy(name.as_bytes()).trim_end_matches("/HEAD").to_owned();
    if !text("commondir")?.is_some_and(|text| is_path(&text)) {
        plan.found(format!("{worktree}/commondir is missing, empty or damaged"), "it names the repository again");
        plan.put(git_dir.join("commondir"), b"../..\n".to_vec());
    }
    if !text("gitdir")?.is_some_and(|text| is_path(&text)) {
        let repair = "it stays as it is: `git worktree repair PATH` with the path of the worktree writes it again";
        plan.lost(format!("{worktree}/gitdir is empty or damaged"), repair, "where that worktree lies");
    }
    Ok(())
}

/// Notes such as `ORIG_HEAD` that say nothing, or name what is missing. What names a merge or the like is missed.
pub(crate) fn set_notes_aside(claims: &Claims, histories: &mut Histories, plan: &mut Plan) -> anyhow::Result<()> {
    for (name, loose) in claims.tops.iter().filter(|(name, _)| !name.is_head()) {
        let is_fine = match &loose.value {
            Value::Oid(oid) => {
                let mut is_kept = histories.is_kept(oid)?;
                for more in &loose.more {
                    is_kept = is_kept && histories.is_kept(more)?;
                }
                is_kept
            }
            Value::Symref(_) => true,
            Value::Absent | Value::Broken => false,
        };
        if is_fine && loose.is_file {
            continue;
        }
        plan.set_name_aside(loose.path.clone());
        let what = format!("{name} is empty or damaged, or objects of it are missing");
        let last = name.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        match last {
            b"MERGE_HEAD" | b"CHERRY_PICK_HEAD" | b"REVERT_HEAD" => {
                plan.lost(what, "it goes to quarantine", "that a merge, cherry-pick or revert is in progress");
            }
            _ => plan.found(what, "it goes to quarantine: git writes it again when it needs it"),
        }
    }
    Ok(())
}
