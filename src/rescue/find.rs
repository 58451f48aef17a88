//! Finds a repository also where git finds none: HEAD, the configuration or `refs/` may be empty, garbage or gone.
//!
//! A repository that was named is that one, or none. A directory without the name `.git` counts as what is left of a git directory only
//! where no worktree is around it.
//!
//! Limit: a `.git` file that is empty names nothing; then the git directory has to be named.

use std::path::Path;

use anyhow::Context;

use crate::fs::{absent_is_none, named as fs};
use crate::git::repository::{Found, gitfile_target};
use crate::git::{RefFormat, Repository, Value};
use crate::util::text::shown;

/// What a git directory has in it.
const PARTS: [&str; 7] = ["HEAD", "objects", "refs", "config", "packed-refs", "logs", "index"];

/// Is it, or was it, a git directory? One entry may be anything's; three of these names are git's.
fn looks_like(dir: &Path) -> bool {
    PARTS.iter().filter(|name| fs::symlink_metadata(dir.join(name)).is_ok()).count() >= 3
}

/// What else only git makes: directories of other programs have a `config`, `logs` and `objects` as well.
fn has_git_in_it(dir: &Path) -> bool {
    const OF_GIT: [&str; 5] = ["objects/pack", "objects/info", "refs/heads", "refs/tags", "info/exclude"];
    OF_GIT.iter().any(|name| fs::symlink_metadata(dir.join(name)).is_ok()) || has_head(dir)
}

fn has_head(dir: &Path) -> bool {
    let text = crate::fs::read_small(&dir.join("HEAD")).ok().flatten();
    text.is_some_and(|(text, _)| !matches!(Value::of_file(&text), Value::Absent | Value::Broken))
}

/// Would git take it for a repository?
fn is_healthy(dir: &Path) -> bool {
    has_head(dir) && Repository::open(dir).is_ok()
}

/// Is it in the worktree of a repository?
fn is_in_a_worktree(dir: &Path) -> bool {
    dir.ancestors().skip(1).map(|above| above.join(".git")).any(|dot_git| {
        let is_file = fs::symlink_metadata(&dot_git).is_ok_and(|found| found.is_file());
        !dir.starts_with(&dot_git) && (is_file || looks_like(&dot_git))
    })
}

/// Finds the repository at `start`, or, where that was not named, around it.
///
/// # Errors
/// There is none, or one that rescue does not read.
pub(crate) fn find(start: &Path, is_named: bool) -> anyhow::Result<Found> {
    let start = fs::canonicalize(start).with_context(|| format!("cannot look at {}", shown(start)))?;
    for here in start.ancestors().take(if is_named { 1 } else { usize::MAX }) {
        if let Some(found) = at(here)? {
            return Ok(found);
        }
    }
    anyhow::ensure!(
        !is_named,
        "{} is no repository, and too little is left of one there\nhint: name its worktree, or its git directory; one without a \
         worktree that lies in the worktree of another has to be moved out of that",
        shown(&start)
    );
    anyhow::bail!("no repository at {}, nor what is left of one, nor around it", shown(&start))
}

/// The repository right here.
fn at(here: &Path) -> anyhow::Result<Option<Found>> {
    let dot_git = here.join(".git");
    let found = absent_is_none(fs::symlink_metadata(&dot_git))?;
    let top = Some(here.to_owned());
    if found.as_ref().is_some_and(std::fs::Metadata::is_file) {
        let target = gitfile_target(&dot_git).with_context(|| {
            format!("{} names no git directory\nhint: name the git directory itself", shown(&dot_git))
        })?;
        let repo = open(&target)?;
        return Ok(Some(Found { gitfile: Some(dot_git), top, ..Found::named(repo) }));
    }
    if found.is_some() {
        // The next one around it is another repository.
        anyhow::ensure!(looks_like(&dot_git), "too little is left of {}: rescue cannot work with it", shown(&dot_git));
        return Ok(Some(Found { top, ..Found::named(open(&dot_git)?) }));
    }
    if !looks_like(here) {
        return Ok(None);
    }
    if here.file_name().is_some_and(|name| name == ".git") {
        let top = here.parent().map(Path::to_owned);
        return Ok(Some(Found { top, ..Found::named(open(here)?) }));
    }
    if is_healthy(here) || has_git_in_it(here) && !is_in_a_worktree(here) {
        return Ok(Some(Found { bare: Some(here.to_owned()), ..Found::named(open(here)?) }));
    }
    Ok(None)
}

/// The repository whose git directory, of whichever worktree, this is.
fn open(git_dir: &Path) -> anyhow::Result<Repository> {
    let git_dir = fs::canonicalize(git_dir).with_context(|| format!("cannot look at {}", shown(git_dir)))?;
    let above = git_dir.parent().filter(|dir| dir.file_name().is_some_and(|name| name == "worktrees"));
    let common_dir = above.and_then(Path::parent).filter(|dir| looks_like(dir)).unwrap_or(&git_dir).to_owned();
    if common_dir == git_dir && fs::symlink_metadata(git_dir.join("commondir")).is_ok() {
        anyhow::bail!("{} is not below the repository that its `commondir` names: name that one", shown(&git_dir));
    }
    for part in ["objects", "refs", "logs"] {
        let found = absent_is_none(fs::symlink_metadata(common_dir.join(part)))?;
        anyhow::ensure!(
            found.is_none_or(|found| found.is_dir()),
            "{} is no directory: rescue the repository that it leads to, or move it away",
            shown(&common_dir.join(part))
        );
    }
    let has_tables = fs::symlink_metadata(common_dir.join("reftable")).is_ok();
    let is_stub = fs::symlink_metadata(common_dir.join("refs/heads")).is_ok_and(|found| found.is_file());
    anyhow::ensure!(
        !has_tables && !is_stub,
        "{0} keeps its refs in a reftable, which rescue does not read: nothing was changed\n\
         hint: `jin-txn recover` removes stale locks there; where git still lists the refs, `git refs migrate --ref-format=files` \
         (2.48) in a copy makes it one that rescue reads; the objects alone are had by `git init NEW`, the path {0}/objects in \
         NEW/.git/objects/info/alternates, and `git fsck --lost-found` there",
        shown(&common_dir)
    );
    Ok(Repository { git_dir: common_dir.clone(), common_dir, ref_format: RefFormat::Files })
}
