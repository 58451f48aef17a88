//! Which repository does a git process work in? Only what is readable and leads elsewhere excludes it.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::git::repository::{NotFound, Repository};
use crate::process::git_argv::{global_options, is_lockless};
use crate::process::owner::{self, Stat};

/// Could this git process work on `repo`? Only what is readable and leads elsewhere says no.
pub(crate) fn works_here(stat: &Stat, repo: &Repository) -> bool {
    // The shim runs under the name `git`: it holds no lock before it becomes the real git, and after that its locks are younger
    // than this scan.
    if owner::is_ourselves(stat.pid) {
        return false;
    }
    let Some(argv) = owner::argv(stat.pid) else { return true };
    if is_lockless(&argv) || stat.comm.starts_with("git-remote-") {
        return false;
    }
    let looked = fs::read_link(format!("/proc/{}/cwd", stat.pid))
        .and_then(|cwd| Ok((cwd, fs::read(format!("/proc/{}/environ", stat.pid))?)));
    let (cwd, environ) = match looked {
        Ok(found) => found,
        // A process that is being torn down has no current directory any more, and makes no file either.
        Err(e) if owner::is_gone(&e) => return false,
        Err(_) => return true,
    };
    // In another mount namespace the same path may be another directory.
    let mounts = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|m| m.ino()).ok();
    let variable = |name: &[u8]| {
        let mut all = environ.split(|b| *b == 0);
        all.find_map(|v| Some(PathBuf::from(std::ffi::OsStr::from_bytes(v.strip_prefix(name)?))))
    };
    let options = global_options(&argv);
    let leads_here = |path: PathBuf| {
        let path = cwd.join(path);
        let real = fs::canonicalize(&path).or_else(|_| fs::canonicalize(path.parent().unwrap_or(&path)));
        real.is_ok_and(|real| real.starts_with(&repo.common_dir))
    };
    if [&b"GIT_COMMON_DIR="[..], b"GIT_INDEX_FILE="].into_iter().filter_map(variable).any(leads_here) {
        return true;
    }
    if mounts(&stat.pid.to_string()) != mounts("self") {
        let git_dir = options.git_dir.map(PathBuf::from).or_else(|| variable(b"GIT_DIR="));
        let elsewhere = match git_dir {
            Some(dir) if dir.is_absolute() => names_elsewhere_by_inode(stat.pid, "root", &dir, repo),
            Some(dir) => names_elsewhere_by_inode(stat.pid, "cwd", &dir, repo) && is_elsewhere_by_inode(stat.pid, repo),
            None => !options.work_tree && is_elsewhere_by_inode(stat.pid, repo),
        };
        return !elsewhere;
    }
    if (options.work_tree || variable(b"GIT_WORK_TREE=").is_some()) && Repository::discover(&cwd).is_err() {
        return true;
    }
    let given = options.git_dir.map(PathBuf::from);
    may_be_in(repo, given.or_else(|| variable(b"GIT_DIR=")).as_deref(), &cwd)
}

/// Is the current directory of this process, whatever it is called, in `repo`? What is not seen says no.
pub(crate) fn stands_here(stat: &Stat, repo: &Repository) -> bool {
    let found = fs::read_link(format!("/proc/{}/cwd", stat.pid)).ok().and_then(|cwd| Repository::discover(&cwd).ok());
    found.is_some_and(|found| found.common_dir == repo.common_dir)
}

/// Does `git_dir`, seen through the mounts of `pid`, belong to a repository with another inode?
fn names_elsewhere_by_inode(pid: u32, base: &str, git_dir: &Path, repo: &Repository) -> bool {
    let inside = git_dir.strip_prefix("/").unwrap_or(git_dir);
    let main = main_git_dir(pid, PathBuf::from(format!("/proc/{pid}/{base}")).join(inside));
    main.is_some_and(|main| is_another(&main, repo))
}

/// Is this directory, which is there, not the repository's main git directory?
fn is_another(main: &Path, repo: &Repository) -> bool {
    let (Ok(theirs), Ok(ours)) = (fs::metadata(main), fs::metadata(&repo.common_dir)) else { return false };
    (theirs.dev(), theirs.ino()) != (ours.dev(), ours.ino())
}

/// The main git directory behind `git_dir`, which may be that of a linked worktree, where the mounts of `pid` show one.
fn main_git_dir(pid: u32, git_dir: PathBuf) -> Option<PathBuf> {
    let is_main = |dir: &Path| dir.join("HEAD").is_file() && dir.join("objects").is_dir();
    if is_main(&git_dir) {
        return Some(git_dir);
    }
    let main = follow(pid, &git_dir, &fs::read(git_dir.join("commondir")).ok()?);
    is_main(&main).then_some(main)
}

/// The path that a file in `base` has as its content, as `pid` sees it.
fn follow(pid: u32, base: &Path, content: &[u8]) -> PathBuf {
    let path = Path::new(std::ffi::OsStr::from_bytes(content.trim_ascii_end()));
    let seen = |inside| PathBuf::from(format!("/proc/{pid}/root")).join(inside);
    path.strip_prefix("/").map_or_else(|_| base.join(path), seen)
}

/// Does the nearest repository above the current directory of `pid`, seen through its own mounts, have another inode
/// than this one? A bind mount keeps the inode.
fn is_elsewhere_by_inode(pid: u32, repo: &Repository) -> bool {
    const DEEPEST: usize = 64;
    let inode = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let mut at = PathBuf::from(format!("/proc/{pid}/cwd"));
    for _ in 0..DEEPEST {
        let link = fs::read(at.join(".git")).ok();
        let linked = link.as_deref().and_then(|it| Some(follow(pid, &at, it.strip_prefix(b"gitdir: ")?)));
        let found = [Some(at.join(".git")), linked, Some(at.clone())].into_iter().flatten();
        if let Some(main) = found.filter_map(|git_dir| main_git_dir(pid, git_dir)).next() {
            return is_another(&main, repo);
        }
        if at.join(".git").exists() || inode(&at) == inode(&at.join("..")) {
            return false;
        }
        at.push("..");
    }
    false
}

/// Could a git with this GIT_DIR and this current directory mean `repo`? No only if every reading leads elsewhere:
/// git changes its directory (`-C`, to the top of the worktree), so a relative GIT_DIR cannot be resolved any more, and
/// with `core.worktree` or `--work-tree` the directory says nothing.
fn may_be_in(repo: &Repository, git_dir: Option<&Path>, cwd: &Path) -> bool {
    let is_elsewhere = |path: &Path| leads_elsewhere(repo, path);
    match git_dir {
        Some(dir) if dir.is_absolute() => !is_elsewhere(dir),
        Some(dir) => !(is_elsewhere(&cwd.join(dir)) && is_in_another_repository(repo, cwd)),
        None => !is_in_another_repository(repo, cwd),
    }
}

/// Is this a git directory (or a `.git` file, or a worktree that is being made) of another repository?
fn leads_elsewhere(repo: &Repository, git_dir: &Path) -> bool {
    if let Ok(other) = Repository::open(git_dir) {
        return other.common_dir != repo.common_dir;
    }
    let target = crate::git::repository::gitfile_target(git_dir).unwrap_or_else(|| git_dir.to_owned());
    let Ok(target) = fs::canonicalize(target) else { return false };
    target.is_dir() && !target.starts_with(&repo.common_dir)
}

/// git goes to the top of the worktree that it has found, where `.git` leads back to the repository, unless
/// `core.worktree` says otherwise. Before that it holds no lock.
fn is_in_another_repository(repo: &Repository, cwd: &Path) -> bool {
    match Repository::discover(cwd) {
        Ok(other) => other.common_dir != repo.common_dir,
        Err(NotFound::Nowhere(_)) => cwd.is_dir() && !may_set_worktree(repo),
        Err(NotFound::Unreadable(_)) => false,
        Err(NotFound::NotAGitDir(_) | NotFound::PointsNowhere { .. }) => {
            let link = cwd.join(".git");
            link.is_file() && leads_elsewhere(repo, &link)
        }
    }
}

/// Does the configuration speak of a worktree at all? (Read as text: what cannot be excluded counts.)
fn may_set_worktree(repo: &Repository) -> bool {
    let speaks = |path: PathBuf| match fs::read(path) {
        Ok(text) => text.to_ascii_lowercase().windows(8).any(|w| w == b"worktree"),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    repo.all_git_dirs().into_iter().any(|dir| speaks(dir.join("config")) || speaks(dir.join("config.worktree")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_is_excluded_only_when_it_readably_works_elsewhere() {
        let scratch = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(scratch.path()).unwrap();
        let make = |name: &str| {
            for part in ["refs/heads", "objects"] {
                crate::fs::durable::create_dirs(&root.join(name).join(part), 0o777).unwrap();
            }
            crate::fs::durable::create_new(&root.join(name).join("HEAD"), b"ref: refs/heads/main\n").unwrap();
            root.join(name)
        };
        let (here, other) = (make("here"), make("other"));
        for dir in [here.join("worktrees/x"), other.join("worktrees/x")] {
            crate::fs::durable::create_dirs(&dir, 0o777).unwrap();
        }
        let repo = Repository::open(&here).unwrap();
        let rows = [
            ("GIT_DIR names it, cwd is /", Some(here.clone()), PathBuf::from("/"), true),
            ("GIT_DIR names another, cwd is in it", Some(other.clone()), here.clone(), false),
            ("cwd is in it", None, here.join("refs"), true),
            ("cwd is in another", None, other.join("refs"), false),
            ("cwd is in none", None, PathBuf::from("/"), false),
            ("a worktree of it that is being made", Some(here.join("worktrees/x")), other.clone(), true),
            ("a worktree of another that is being made", Some(other.join("worktrees/x")), here.clone(), false),
            (
                "a relative GIT_DIR cannot be resolved after a -C",
                Some(PathBuf::from("../gone/.git")),
                other.clone(),
                true,
            ),
            ("a relative GIT_DIR that leads elsewhere, from elsewhere", Some(PathBuf::from(".")), other.clone(), false),
            ("cwd is gone", None, root.join("gone"), true),
        ];
        let with_worktree = Repository::open(&make("elsewhere")).unwrap();
        crate::fs::durable::create_new(&with_worktree.git_dir.join("config"), b"[core]\n\tworktree = /x\n").unwrap();
        assert!(may_be_in(&with_worktree, None, Path::new("/")), "core.worktree leads anywhere");
        for (name, git_dir, cwd, may_be_here) in rows {
            assert_eq!(may_be_in(&repo, git_dir.as_deref(), &cwd), may_be_here, "{name}");
        }
    }
}
