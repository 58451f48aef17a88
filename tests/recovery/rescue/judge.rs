//! What has to be true of a rescued repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::damage::rescue;
use crate::support::repo::{Repo, text};
use crate::support::snapshot::{contents, parse_refs, walk};

/// What there was before.
pub struct Before {
    files: BTreeMap<PathBuf, Vec<u8>>,
    refs: BTreeMap<String, String>,
    commits: BTreeSet<String>,
    /// The objects, and the files of loose objects and packs.
    all: BTreeSet<String>,
    stored: BTreeMap<PathBuf, Vec<u8>>,
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

fn all(repo: &Repo) -> BTreeSet<String> {
    let listed = repo.try_git(["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"]).stdout;
    text(&listed).lines().map(str::to_owned).collect()
}

fn stored(repo: &Repo) -> BTreeMap<PathBuf, Vec<u8>> {
    let dir = repo.git_dir().join("objects");
    let files =
        contents(&dir).into_iter().map(|(path, (_, content))| (path.strip_prefix(&dir).unwrap().to_owned(), content));
    files.filter(|(path, _)| !path.starts_with("info")).collect()
}

impl Before {
    /// Of a repository that is whole.
    pub fn of(repo: &Repo) -> Before {
        Before { files: files(repo), refs: refs(repo), commits: commits(repo), all: all(repo), stored: stored(repo) }
    }

    /// Everything that is wrong with a rescued repository. `expected`: the exit code; `None`: 0 or 4, as what came together makes it.
    pub fn judge(&self, repo: &Repo, expected: Option<i32>) -> Vec<String> {
        let (damaged, stored) = (kept(repo), stored(repo));
        let (code, said) = rescue(repo, &[]);
        let mut wrong = Vec::new();
        if expected.map_or(!matches!(code, 0 | 4), |expected| code != expected) {
            wrong.push(format!("exit code {code}, expected {expected:?}"));
        }
        if files(repo) != self.files {
            wrong.push("files of a worktree have changed".to_owned());
        }
        let now = kept(repo);
        let gone = damaged.iter().filter(|(content, _)| !now.contains_key(*content));
        wrong.extend(gone.map(|(_, path)| format!("the content of {} is nowhere any more", path.display())));
        let there = all(repo);
        let is_lost = |oid: &&String| self.was_whole(oid, &stored) && !there.contains(*oid);
        wrong.extend(self.all.iter().filter(is_lost).map(|oid| format!("object {oid} was whole, and is not there")));
        wrong.extend(self.judge_refs(repo, code, &said));
        wrong.extend(self.judge_commits(repo, code, &said));
        wrong.extend(use_it(repo, code, &said));
        if !wrong.is_empty() {
            wrong.push(said);
        }
        wrong
    }

    /// Was the file of this object, or were all packs, as they were before the damage?
    fn was_whole(&self, oid: &str, damaged: &BTreeMap<PathBuf, Vec<u8>>) -> bool {
        let loose = Path::new(&oid[..2]).join(&oid[2..]);
        let is_same = |path: &Path| damaged.get(path) == self.stored.get(path);
        let mut packs = self.stored.keys().filter(|path| path.starts_with("pack"));
        if self.stored.contains_key(&loose) { is_same(&loose) } else { packs.all(|path| is_same(path)) }
    }

    /// Nothing is lost without a word, and no branch is.
    fn judge_refs(&self, repo: &Repo, code: i32, said: &str) -> Vec<String> {
        let (now, mut wrong) = (refs(repo), Vec::new());
        for (name, value) in &self.refs {
            match now.get(name) {
                Some(new) if new == value => {}
                None if name.starts_with("refs/heads/") => wrong.push(format!("{name} is gone")),
                // A branch that is lost with `packed-refs` has no other trace.
                new if code == 0 || !said.contains(name.as_str()) && !said.contains("packed-refs") => {
                    wrong.push(format!("{name} was {value}, is {new:?}, and nothing is said"));
                }
                _ => {}
            }
        }
        wrong
    }

    /// Every commit that is whole is still reachable, or it is told how to reach it.
    fn judge_commits(&self, repo: &Repo, code: i32, said: &str) -> Vec<String> {
        let is_whole = |commit: &str| {
            let walk = ["rev-list", "--objects", "--quiet", commit];
            repo.try_git(walk).status.success()
        };
        let named = said.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| code == 4 && word.len() >= 40);
        let named: Vec<&str> = named.filter(|oid| repo.try_git(["cat-file", "-e", oid]).status.success()).collect();
        let all = [&["rev-list", "--all", "--reflog", "HEAD", "--ignore-missing"][..], &named].concat();
        let reached: BTreeSet<String> = text(&repo.try_git(all).stdout).lines().map(str::to_owned).collect();
        let lost = self.commits.difference(&reached).filter(|commit| is_whole(commit));
        lost.map(|commit| format!("{commit} is whole, and nothing reaches it")).collect()
    }
}

/// What lies in the git directory, by content: whatever goes has to be somewhere else.
fn kept(repo: &Repo) -> BTreeMap<Vec<u8>, PathBuf> {
    contents(&repo.git_dir()).into_iter().map(|(path, (_, content))| (content, path)).collect()
}

/// git works. Where a hole deep in a history stays, fsck and gc may complain of what is missing, and of nothing else.
fn use_it(repo: &Repo, code: i32, said: &str) -> Vec<String> {
    let has_hole = code == 4 && said.contains("a part of the history");
    let mut wrong = Vec::new();
    for arguments in [
        &["status"][..],
        &["commit", "-q", "--allow-empty", "-m", "after"],
        &["fsck", "--no-dangling"],
        &["-c", "gc.auto=0", "gc", "-q"],
    ] {
        let output = repo.try_git(arguments);
        let complaint = format!("{}{}", text(&output.stdout), text(&output.stderr));
        let is_used = matches!(arguments[0], "status" | "commit");
        let is_of_hole = |line: &str| HOLE.iter().any(|begin| line.trim_start().starts_with(begin));
        if !output.status.success() && (!has_hole || is_used || !complaint.lines().all(is_of_hole)) {
            wrong.push(format!("git {arguments:?}: {}: {complaint}", output.status));
        }
    }
    wrong
}

/// What git says of objects that are missing.
const HOLE: &[&str] = &[
    "missing ",
    "broken link from ",
    "to ",
    "error: Could not read ",
    "fatal: Failed to traverse parents of commit ",
    "fatal: unable to read ",
    "fatal: bad tree object",
    "fatal: bad object",
    "fatal: failed to run repack",
    "fatal: missing blob object",
    "fatal: missing tree object",
    "error: failed to traverse",
];

/// Everything that there is in a repository, but for access times.
pub fn everything(repo: &Repo) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    contents(repo.path())
}
