//! The submodules of a worktree, and theirs.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::git::{Git, Plumbing, Repository};
use crate::setup::places;
use crate::util::text::shown;

/// The repositories of all submodules that are checked out, each once, in the order of their paths.
pub(crate) fn of(git: &Path, repo: &Repository) -> anyhow::Result<Vec<Repository>> {
    let mut found = Vec::new();
    collect(git, repo, &mut found)?;
    Ok(found)
}

fn collect(git: &Path, repo: &Repository, found: &mut Vec<Repository>) -> anyhow::Result<()> {
    let asked = places::worktree_of(git, repo, &repo.git_dir)?;
    let top = asked.with_context(|| format!("{} has no worktree, and so no submodules", shown(&repo.git_dir)))?;
    for path in gitlinks(git, repo, &top)? {
        // One that is not checked out has nothing to protect.
        let Ok(submodule) = Repository::open(&path.join(".git")) else { continue };
        if !found.contains(&submodule) {
            found.push(submodule.clone());
            collect(git, &submodule, found)?;
        }
    }
    Ok(())
}

fn gitlinks(git: &Path, repo: &Repository, top: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = Git::new(git).at(&repo.git_dir).worktree(top).run(Plumbing::Staged)?;
    anyhow::ensure!(listed.success, "cannot list the submodules of {}: {}", shown(top), listed.stderr);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let links = text.split('\0').filter(|entry| entry.starts_with("160000 "));
    Ok(links.filter_map(|entry| entry.split_once('\t')).map(|(_, path)| top.join(path)).collect())
}
