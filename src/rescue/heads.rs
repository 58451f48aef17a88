//! HEAD of every worktree, and what lies beside it: which branch, or which commit, it means.
//!
//! A HEAD that says nothing is taken from its reflog: the last checkout names the branch; in a rebase HEAD is detached. Where the
//! reflog says nothing it is the branch with the reflog's last value, or `main`, `master`, any.

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
            let value = decide_one(claims, &git_dir, &name, histories, plan)?;
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

    /// The commit that HEAD of this git directory will have.
    pub(crate) fn commit(
        &self,
        git_dir: &std::path::Path,
        claims: &Claims,
        histories: &mut Histories,
    ) -> anyhow::Result<Option<Oid>> {
        let Some(head) = self.0.iter().find(|head| head.git_dir == git_dir) else { return Ok(None) };
        match &head.value {
            Value::Symref(branch) => newest(histories, &claims.candidates(branch, Some(&head.name))),
            value => Ok(value.oid().copied()),
        }
    }

    /// A commit that is whole: that of the main HEAD, or else any branch's.
    pub(crate) fn newest_whole(&self, claims: &Claims, histories: &mut Histories) -> anyhow::Result<Option<Oid>> {
        if let Some(head) = self.0.first()
            && let Some(commit) = self.commit(&head.git_dir, claims, histories)?
        {
            return Ok(Some(commit));
        }
        for branch in claims.branches() {
            if let Some(found) = newest(histories, &claims.candidates(branch, None))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn decide_one(
    claims: &Claims,
    git_dir: &std::path::Path,
    name: &RefName,
    histories: &mut Histories,
    plan: &mut Plan,
) -> anyhow::Result<Value> {
    let found = claims.tops.get(name);
    let now = found.map_or(Value::Absent, |loose| loose.value.clone());
    let is_file = found.is_none_or(|loose| loose.is_file);
    let (value, lost) = match &now {
        Value::Symref(_) if is_file => return Ok(now),
        Value::Oid(oid) if is_file && histories.is_whole(oid)? => return Ok(now),
        Value::Oid(oid) => {
            let to = newest(histories, &claims.candidates(name, Some(name)))?;
            (to.map_or_else(|| any_branch(claims, name), Value::Oid), Some(*oid))
        }
        _ => (from_reflog(claims, git_dir, name, histories)?, None),
    };
    let path = git_dir.join("HEAD");
    if !is_file {
        plan.set_name_aside(path.clone());
    }
    let text = match &value {
        Value::Oid(oid) => format!("{oid}\n").into_bytes(),
        Value::Symref(branch) => [b"ref: ", branch.as_bytes(), b"\n"].concat(),
        Value::Absent | Value::Broken => anyhow::bail!("nothing is known that {name} could mean"),
    };
    plan.put_locked(path, text);
    let shown = match &value {
        Value::Symref(branch) => branch.to_string(),
        value => value.oid().map(short).unwrap_or_default(),
    };
    match lost {
        Some(lost) if value.oid() == Some(&lost) => {
            let what =
                format!("{name} is detached at {}, of which objects are missing deep in its history", short(&lost));
            plan.lost(what, "it stays: its own files are there", format!("a part of the history of {name}"));
        }
        None => plan.found(format!("{name} is missing, empty or damaged"), format!("by its reflog it means {shown}")),
        Some(lost) => {
            let what = format!("{name} is detached at {}, of which objects are missing", short(&lost));
            let repair = format!("it goes back to {shown}, its newest value that is whole");
            plan.lost(what, repair, format!("{name} was {lost}: that, or what it is built on, is missing"));
        }
    }
    Ok(value)
}

/// The newest whole value, or else one that can be worked with.
fn newest(histories: &mut Histories, candidates: &[Oid]) -> anyhow::Result<Option<Oid>> {
    match histories.newest_whole(candidates)? {
        None => histories.newest_usable(candidates),
        found => Ok(found),
    }
}

/// What the reflog of a HEAD says of it.
fn from_reflog(
    claims: &Claims,
    git_dir: &std::path::Path,
    name: &RefName,
    histories: &mut Histories,
) -> anyhow::Result<Value> {
    let is_there = |name: &str| fs::symlink_metadata(git_dir.join(name)).is_ok();
    let is_detached = is_there("rebase-merge") || is_there("rebase-apply/rebasing");
    let branch = claims.logs.get(name).and_then(|log| log.entries().find_map(|line| moved_to(&line)));
    // A rename that died leaves nothing of a branch but its reflog, under another name.
    let may_be = |branch: &RefName| {
        let is_commit = branch.as_bytes().strip_prefix(b"refs/heads/").is_some_and(|name| Oid::parse(name).is_some());
        claims.knows(branch) || claims.is_renaming && !is_commit
    };
    match branch {
        Some(branch) if !is_detached && may_be(&branch) => Ok(Value::Symref(branch)),
        None if !is_detached => Ok(any_branch(claims, name)),
        _ => {
            let newest = newest(histories, &claims.candidates(name, Some(name)))?;
            Ok(newest.map_or_else(|| any_branch(claims, name), Value::Oid))
        }
    }
}

/// The branch that HEAD most likely means.
fn any_branch(claims: &Claims, head: &RefName) -> Value {
    let branches = claims.branches();
    let last = claims.logs.get(head).and_then(Log::newest);
    let has_last = |name: &&RefName| last.is_some() && claims.visible(name).oid().copied() == last;
    let named = |wanted: &'static str| {
        RefName::parse(wanted.as_bytes()).ok().filter(|name| branches.contains(name) || wanted == FIRST)
    };
    let by_value = branches.iter().copied().find(has_last).cloned();
    let known = by_value
        .or_else(|| named("refs/heads/main").filter(|name| branches.contains(name)))
        .or_else(|| named("refs/heads/master").filter(|name| branches.contains(name)))
        .or_else(|| branches.first().copied().cloned());
    known.or_else(|| named(FIRST)).map_or(Value::Broken, Value::Symref)
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
            Value::Oid(oid) => histories.is_kept(oid)?,
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
