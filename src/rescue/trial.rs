//! Does git work again? Asked of git itself, after a rescue.
//!
//! In the repository: what HEAD is, every ref, and the index of each worktree. What a commit writes is written to a scratch repository
//! that borrows the objects: the trees of the index, and a commit of them behind HEAD.
//!
//! Limit: `git status` is not started, because it runs filters that a repository names.

use std::path::Path;

use crate::fs::door::{self, Kind};
use crate::fs::{durable, named as fs, read_small};
use crate::git::hash::Hash;
use crate::git::{Git, Plumbing, Repository, Value, openable};
use crate::rescue::scratch::Scratch;
use crate::rescue::{Request, alternates};

/// What git says that it cannot do; nothing where it works. `all_here`: no object may be elsewhere.
pub(crate) fn trial(repo: &Repository, request: &Request, all_here: bool) -> anyhow::Result<Vec<String>> {
    if let Err(error) = openable::require(repo) {
        return Ok(vec![format!("{error:#}")]);
    }
    let git = Git::new(&request.git_program);
    let mut trial = Trial { git: git.clone(), all_here, scratch: Scratch::make(&request.scratch)?, failed: Vec::new() };
    let common = git.at(&repo.common_dir);
    let format = if all_here { "%(objecttype)" } else { "%(objectname)" };
    trial.ask("for-each-ref", &common, Plumbing::Refs { format, below: None, points_at: None })?;
    let is_sha256 = common.run(Plumbing::ObjectFormat)?.stdout.trim_ascii() == b"sha256";
    let hash = if is_sha256 { Hash::Sha256 } else { Hash::Sha1 };
    let objects = repo.common_dir.join("objects");
    let borrowed: Vec<_> = std::iter::once(objects.clone()).chain(alternates::read(&objects)?).collect();
    for (number, git_dir) in repo.all_git_dirs().iter().enumerate() {
        let scratch = trial.scratch.repository(&git, &number.to_string(), hash, &borrowed)?;
        trial.commit(git_dir, &scratch)?;
    }
    Ok(trial.failed)
}

struct Trial {
    git: Git,
    all_here: bool,
    scratch: Scratch,
    failed: Vec<String>,
}

impl Trial {
    /// What git prints; nothing where it fails, and that is noted.
    fn ask(&mut self, name: &str, git: &Git, plumbing: Plumbing<'_>) -> anyhow::Result<Option<String>> {
        self.note(name, git, git.run(plumbing)?)
    }

    fn note(&mut self, name: &str, git: &Git, ran: crate::git::exec::Ran) -> anyhow::Result<Option<String>> {
        if ran.success {
            return Ok(Some(String::from_utf8_lossy(&ran.stdout).trim_end().to_owned()));
        }
        let place = git.git_dir().map(crate::util::text::shown).unwrap_or_default();
        let why = ran.stderr.lines().next().unwrap_or("it says nothing").to_owned();
        self.failed.push(format!("git {name} fails in {place}: {why}"));
        Ok(None)
    }

    /// A commit in one worktree, as far as it changes nothing.
    fn commit(&mut self, git_dir: &Path, scratch: &Git) -> anyhow::Result<()> {
        let git = self.git.at(git_dir);
        let parent = if is_unborn(&git, git_dir)? {
            None
        } else {
            let Some(head) = self.ask("rev-parse HEAD", &git, Plumbing::Resolve("HEAD^{commit}"))? else {
                return Ok(());
            };
            Some(head)
        };
        if fs::symlink_metadata(git_dir.join("index")).is_err() {
            return Ok(());
        }
        let Some(staged) = self.ask("ls-files", &git, Plumbing::Staged)? else { return Ok(()) };
        // A conflict stands for no tree, and of objects that are elsewhere git could not say that they are there.
        if !self.all_here || staged.split('\0').any(is_conflict) {
            return Ok(());
        }
        let index = copy_index(git_dir, scratch)?;
        let written = scratch.command(Plumbing::WriteTree).index(&index).run()?;
        let Some(tree) = self.note("write-tree", &git, written)? else { return Ok(()) };
        let commit = Plumbing::CommitTree { tree: &tree, parent: parent.as_deref() };
        let commit = scratch.command(commit).config("user.name", "jin-txn").config("user.email", "jin-txn@localhost");
        self.note("commit-tree", &git, commit.run()?)?;
        Ok(())
    }
}

/// An entry of `ls-files --stage` of one side of a conflict.
fn is_conflict(entry: &str) -> bool {
    entry.split('\t').next().is_some_and(|head| !head.is_empty() && !head.ends_with(" 0"))
}

/// HEAD means a branch that is not there at all.
fn is_unborn(git: &Git, git_dir: &Path) -> anyhow::Result<bool> {
    let Some((text, _)) = read_small(&git_dir.join("HEAD"))? else { return Ok(false) };
    let Value::Symref(branch) = Value::of_file(&text) else { return Ok(false) };
    let repo = Repository::open(git_dir)?;
    Ok(!git.run(Plumbing::Resolve(&branch.to_string()))?.success
        && crate::git::RefStore::new(&repo).read(&branch)?.value == Value::Absent)
}

/// The index, with what it shares, in the scratch repository.
fn copy_index(git_dir: &Path, scratch: &Git) -> anyhow::Result<std::path::PathBuf> {
    let to = scratch.git_dir().unwrap_or(git_dir);
    for (name, _) in door::entries(git_dir)?.unwrap_or_default().iter().filter(|(_, kind)| *kind == Kind::File) {
        if name == "index" || name.to_str().is_some_and(|name| name.starts_with("sharedindex.")) {
            durable::create_new(&to.join(name), &fs::read(git_dir.join(name))?)?;
        }
    }
    Ok(to.join("index"))
}
