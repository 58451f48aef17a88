//! What has to be true of a rescued repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::damage::rescue;
use crate::support::repo::{Repo, text};
use crate::support::snapshot::{contents, parse_refs, walk};

/// What there was before.
pub struct Before {
    files: BTreeMap<PathBuf, Vec<u8>>,
    refs: BTreeMap<String, String>,
    commits: BTreeSet<String>,
}

fn files(repo: &Repo) -> BTreeMap<PathBuf, Vec<u8>> {
    let of = |root: PathBuf| {
        let git = root.join(".git");
        walk(&root, &|path| path != git).into_iter().filter(move |path| *path != git)
    };
    let all = of(repo.path().to_owned()).chain(of(repo.scratch().join("linked")));
    all.map(|path| (path.strip_prefix(repo.scratch()).unwrap().to_owned(), std::fs::read(&path).unwrap())).collect()
}

fn refs(repo: &Repo) -> BTreeMap<String, String> {
    parse_refs(&text(&repo.try_git(["for-each-ref", "--format=%(refname) %(objectname)"]).stdout))
}

fn commits(repo: &Repo) -> BTreeSet<String> {
    text(&repo.try_git(["rev-list", "--all", "--reflog", "HEAD"]).stdout).lines().map(str::to_owned).collect()
}

impl Before {
    /// Of a repository that is whole.
    pub fn of(repo: &Repo) -> Before {
        Before { files: files(repo), refs: refs(repo), commits: commits(repo) }
    }

    /// Everything that is wrong with a rescued repository. `expected`: 0 or 4.
    pub fn judge(&self, repo: &Repo, expected: i32, with_gc: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let (code, said) = rescue(repo, &[]);
        if code != expected {
            wrong.push(format!("exit code {code}, expected {expected}"));
        }
        if files(repo) != self.files {
            wrong.push("files of a worktree have changed".to_owned());
        }
        let now = refs(repo);
        for (name, value) in &self.refs {
            match now.get(name) {
                Some(new) if new == value => {}
                _ if expected == 0 => wrong.push(format!("{name} was {value}, is {:?}", now.get(name))),
                None if name.starts_with("refs/heads/") => wrong.push(format!("{name} is gone")),
                None if !said.contains(name.as_str()) && !said.contains("packed-refs") => {
                    wrong.push(format!("{name} is gone, and nothing is said"));
                }
                _ => {}
            }
        }
        if expected == 0 {
            let left: Vec<_> = self.commits.difference(&commits(repo)).cloned().collect();
            wrong.extend((!left.is_empty()).then(|| format!("not reachable any more: {left:?}")));
        }
        wrong.extend(use_it(repo, &said, with_gc));
        if !wrong.is_empty() {
            wrong.push(said);
        }
        wrong
    }

    /// Of several kinds of damage at once: something may be lost or not.
    pub fn judge_mixture(&self, repo: &Repo) -> Vec<String> {
        let (code, said) = rescue(repo, &[]);
        let mut wrong = Vec::new();
        if !matches!(code, 0 | 4) {
            wrong.push(format!("exit code {code}"));
        }
        if files(repo) != self.files {
            wrong.push("files of a worktree have changed".to_owned());
        }
        let now = refs(repo);
        let gone = self.refs.keys().filter(|name| name.starts_with("refs/heads/") && !now.contains_key(*name));
        wrong.extend(gone.map(|name| format!("{name} is gone")));
        wrong.extend(use_it(repo, &said, false));
        if !wrong.is_empty() {
            wrong.push(said);
        }
        wrong
    }
}

/// git works. Where a hole deep in a history stays, fsck and gc complain of it.
fn use_it(repo: &Repo, said: &str, with_gc: bool) -> Vec<String> {
    let mut all: Vec<&[&str]> = vec![&["status"], &["commit", "-q", "--allow-empty", "-m", "after"]];
    if !said.contains("a part of the history") {
        all.push(&["fsck", "--no-dangling"]);
        all.extend(with_gc.then_some(&["gc", "-q"][..]));
    }
    let mut wrong = Vec::new();
    for arguments in all {
        let output = repo.try_git(arguments);
        if !output.status.success() {
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            wrong.push(format!("git {arguments:?}: {}: {said}", output.status));
        }
    }
    wrong
}

/// Everything that there is in a repository, but for access times.
pub fn everything(repo: &Repo) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    contents(repo.path())
}
