//! Branches that are in use: checked out, rebased or bisected.

use std::path::Path;

use crate::git::{RefName, RefStore, Repository, Value};

/// Branches that a worktree has checked out.
pub(crate) fn checked_out(repo: &Repository) -> anyhow::Result<Vec<RefName>> {
    heads_of(repo, |_| true)
}

fn heads_of(repo: &Repository, is_wanted: impl Fn(&Path) -> bool) -> anyhow::Result<Vec<RefName>> {
    let mut branches = Vec::new();
    for git_dir in repo.all_git_dirs().into_iter().filter(|git_dir| is_wanted(git_dir)) {
        let worktree = Repository { git_dir, ..repo.clone() };
        if let Some(Value::Symref(branch)) = RefStore::new(&worktree).head()?.map(|h| h.value) {
            branches.push(branch);
        }
    }
    Ok(branches)
}

/// Branches that another worktree has checked out, rebases or bisects.
pub(super) fn used_elsewhere(repo: &Repository) -> anyhow::Result<Vec<RefName>> {
    let mut branches = heads_of(repo, |git_dir| git_dir != repo.git_dir)?;
    let others = repo.all_git_dirs().into_iter().filter(|git_dir| *git_dir != repo.git_dir);
    branches.extend(others.flat_map(|git_dir| in_progress(&git_dir)).map(|(name, _)| name));
    Ok(branches)
}

/// Branches that a worktree rebases or bisects: they are not checked out meanwhile.
pub(super) fn in_progress(git_dir: &Path) -> Vec<(RefName, &'static str)> {
    const FILES: [(&str, &str); 3] =
        [("rebase-merge/head-name", "a rebase"), ("rebase-apply/head-name", "a rebase"), ("BISECT_START", "a bisect")];
    let branch = |(file, what): (&str, &'static str)| {
        let (text, _) = crate::fs::unreadable_is_none(crate::fs::read_small(&git_dir.join(file))).ok()??;
        let name = text.trim_ascii();
        let full = if name.starts_with(b"refs/") { name.to_owned() } else { [b"refs/heads/", name].concat() };
        Some((RefName::parse(&full).ok()?, what))
    };
    let mut found: Vec<(RefName, &'static str)> = FILES.into_iter().filter_map(branch).collect();
    // What a rebase moves besides.
    let others = crate::fs::unreadable_is_none(crate::fs::read_small(&git_dir.join("rebase-merge/update-refs")));
    let (others, _) = others.ok().flatten().unwrap_or_default();
    let names = others.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"refs/"));
    found.extend(names.filter_map(|name| Some((RefName::parse(name).ok()?, "a rebase"))));
    found
}
