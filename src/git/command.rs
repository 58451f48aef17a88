//! What recovery and the hook call until they use [`Git`].

use std::path::Path;

use crate::git::exec::{Git, Ran};
use crate::git::{RefName, Repository, Value, update_refs};

pub use crate::git::cat_file::Batch;
pub use crate::git::update_refs::RefWrite;

// for recovery, until it uses Git
pub fn run(program: &Path, git_dir: &Path, args: &[&str], stdin: &[u8], index: Option<&Path>) -> anyhow::Result<Ran> {
    let command = Git::new(program).at(git_dir).command(args.iter().copied()).stdin(stdin);
    match index {
        Some(index) => command.index(index).run(),
        None => command.run(),
    }
}

// for recovery, until it uses Git; `reset` makes the index anew from HEAD as the user's git shows it
pub fn run_at(program: &Path, git_dir: &Path, worktree: &Path, args: &[&str]) -> anyhow::Result<Ran> {
    Git::new(program).at(git_dir).worktree(worktree).replacing().run(args.iter().copied())
}

// for the hook, until it uses Git
pub fn config(program: &Path, repo: &Repository, key: &str) -> anyhow::Result<Option<String>> {
    Git::new(program).at(&repo.git_dir).config(key)
}

// for recovery, until it uses Git
pub fn write_refs(program: &Path, git_dir: &Path, writes: &[RefWrite], message: &str) -> anyhow::Result<()> {
    update_refs::write_refs(&Git::new(program).at(git_dir), writes, message)
}

// for recovery, until it uses Git
pub fn write_symref(
    program: &Path,
    git_dir: &Path,
    name: &[u8],
    target: &RefName,
    message: &str,
) -> anyhow::Result<()> {
    update_refs::write_symref(&Git::new(program).at(git_dir), name, target, message)
}

// for recovery, until it uses Git
pub fn read_refs(program: &Path, git_dir: &Path, names: &[&RefName]) -> anyhow::Result<Vec<Value>> {
    update_refs::read_refs(&Git::new(program).at(git_dir), names)
}

// for recovery, until it uses Git
pub fn read_refs_at_once(program: &Path, git_dir: &Path, names: &[&RefName]) -> anyhow::Result<Vec<Value>> {
    update_refs::read_refs_at_once(&Git::new(program).at(git_dir), names)
}

// for recovery, until it uses Git: what takes a `Git` takes a program as well
impl From<&Path> for Git {
    fn from(program: &Path) -> Git {
        Git::new(program)
    }
}

impl From<&std::path::PathBuf> for Git {
    fn from(program: &std::path::PathBuf) -> Git {
        Git::new(program)
    }
}

impl From<&Git> for Git {
    fn from(git: &Git) -> Git {
        git.clone()
    }
}
