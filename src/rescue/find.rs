//! Finds a repository also where git finds none: HEAD, the configuration or `refs/` may be empty, garbage or gone.
//!
//! Limit: a `.git` file that is empty names nothing; then the git directory has to be named.

use std::path::Path;

use anyhow::Context;

use crate::fs::{absent_is_none, named as fs};
use crate::git::repository::{Found, gitfile_target};
use crate::git::{RefFormat, Repository};
use crate::util::text::shown;

/// What a git directory has in it.
const PARTS: [&str; 7] = ["HEAD", "objects", "refs", "config", "packed-refs", "logs", "index"];

/// Is it, or was it, a git directory? One entry may be anything's; three of these names are git's.
fn looks_like(dir: &Path) -> bool {
    PARTS.iter().filter(|name| fs::symlink_metadata(dir.join(name)).is_ok()).count() >= 3
}

/// Finds the repository at `start`, or around it.
///
/// # Errors
/// There is none, or one that rescue does not read.
pub(crate) fn find(start: &Path) -> anyhow::Result<Found> {
    let start = fs::canonicalize(start).with_context(|| format!("cannot look at {}", shown(start)))?;
    for here in start.ancestors() {
        let dot_git = here.join(".git");
        let found = absent_is_none(fs::symlink_metadata(&dot_git))?;
        let top = Some(here.to_owned());
        if found.as_ref().is_some_and(std::fs::Metadata::is_file) {
            let target = gitfile_target(&dot_git).with_context(|| {
                format!("{} names no git directory\nhint: name the git directory itself", shown(&dot_git))
            })?;
            let repo = open(&target)?;
            return Ok(Found { gitfile: Some(dot_git), top, ..Found::named(repo) });
        }
        if found.is_some() && looks_like(&dot_git) {
            return Ok(Found { top, ..Found::named(open(&dot_git)?) });
        }
        if looks_like(here) {
            let is_dot_git = here.file_name().is_some_and(|name| name == ".git");
            let top = is_dot_git.then(|| here.parent().map(Path::to_owned)).flatten();
            return Ok(Found { bare: Some(here.to_owned()).filter(|_| !is_dot_git), top, ..Found::named(open(here)?) });
        }
    }
    anyhow::bail!("no repository at {}, nor what is left of one, nor around it", shown(&start))
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
        "{} keeps its refs in a reftable, which rescue does not read\nhint: `jin-txn recover` removes stale locks there",
        shown(&common_dir)
    );
    Ok(Repository { git_dir: common_dir.clone(), common_dir, ref_format: RefFormat::Files })
}
