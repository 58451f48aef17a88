//! Where a repository lies, found without asking git.
//!
//! Rules are git's own: `GIT_DIR` first, else upwards from a directory; `.git` may be a directory, a
//! link or a file (`gitdir: <path>`); `commondir` leads from a linked worktree to the shared part.
//!
//! Limit: `safe.directory` is git's to judge; callers that were not started by git ask it when
//! [`Repository::is_foreign`] says that the repository belongs to somebody else.

use crate::util::text::shown;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// How a repository stores its refs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefFormat {
    /// One file a ref, plus `packed-refs`.
    Files,
    /// `reftable/`: a transaction is one atomic table append.
    Reftable,
}

/// A repository as seen from one of its worktrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The git directory of this worktree, absolute.
    pub git_dir: PathBuf,
    /// The git directory that all worktrees share, absolute.
    pub common_dir: PathBuf,
    /// How refs are stored.
    pub ref_format: RefFormat,
}

/// Why no repository was found.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// No directory from here upwards is a repository.
    #[error("not a git repository (nor any parent of it): {}", shown(.0))]
    Nowhere(PathBuf),
    /// A path that should be a git directory is none.
    #[error("not a git directory: {}", shown(.0))]
    NotAGitDir(PathBuf),
    /// A `.git` file that names no directory.
    #[error("{} points to {}, where there is no git directory", shown(file), shown(target))]
    PointsNowhere {
        /// The file.
        file: PathBuf,
        /// What it names.
        target: PathBuf,
    },
}

impl Repository {
    /// Opens the git directory `git_dir` (a worktree's own or the main one), or the one that a `.git` file names.
    pub fn open(git_dir: &Path) -> Result<Repository, NotFound> {
        let broken = || NotFound::NotAGitDir(git_dir.to_owned());
        let git_dir = fs::canonicalize(git_dir).map_err(|_| broken())?;
        if git_dir.is_file() {
            let target = git_dir.parent().unwrap_or(Path::new("/")).join(read_gitfile(&git_dir)?);
            let file = git_dir;
            return if target.is_dir() { Self::open(&target) } else { Err(NotFound::PointsNowhere { file, target }) };
        }
        Self::open_directory(git_dir).map_err(|_| broken())
    }

    /// Opens the git directory right in `cwd`, which is the current directory as the kernel has it, so that no link is in
    /// it: what git's hooks nearly always get. `None` when it is not as simple as that.
    #[must_use]
    pub fn in_current_dir(cwd: &Path) -> Option<Repository> {
        let git_dir = cwd.join(".git");
        let simple = fs::symlink_metadata(&git_dir).is_ok_and(|m| m.is_dir());
        if simple { Self::open_directory(git_dir).ok() } else { None }
    }

    fn open_directory(git_dir: PathBuf) -> Result<Repository, NotFound> {
        let broken = || NotFound::NotAGitDir(git_dir.clone());
        let common_dir = match fs::read(git_dir.join("commondir")) {
            Ok(text) => fs::canonicalize(git_dir.join(line_path(&text))).map_err(|_| broken())?,
            Err(_) => git_dir.clone(),
        };
        let has_refs = common_dir.join("refs").is_dir() && common_dir.join("objects").is_dir();
        if !has_refs || fs::symlink_metadata(git_dir.join("HEAD")).is_err() {
            return Err(broken());
        }
        let ref_format = detect_ref_format(&common_dir);
        Ok(Repository { git_dir, common_dir, ref_format })
    }

    /// Finds the repository that `dir` lies in, going upwards.
    pub fn discover(dir: &Path) -> Result<Repository, NotFound> {
        Self::find(dir).map(|(repo, _)| repo)
    }

    /// The root of the worktree around `dir`, if it is [discovered](Repository::discover) by a `.git` there. The
    /// configuration may say otherwise.
    #[must_use]
    pub fn top_around(dir: &Path) -> Option<PathBuf> {
        fs::canonicalize(Self::find(dir).ok()?.1?).ok()
    }

    fn find(dir: &Path) -> Result<(Repository, Option<&Path>), NotFound> {
        let mut at = Some(dir);
        while let Some(here) = at {
            let dot_git = here.join(".git");
            match fs::metadata(&dot_git) {
                Ok(m) if m.is_file() => return Self::open(&dot_git).map(|found| (found, Some(here))),
                Ok(_) => {
                    if let Ok(found) = Self::open(&dot_git) {
                        return Ok((found, Some(here)));
                    }
                }
                Err(_) => {}
            }
            if here.join("HEAD").exists() && here.join("objects").is_dir() {
                return Self::open(here).map(|found| (found, None));
            }
            at = here.parent();
        }
        Err(NotFound::Nowhere(dir.to_owned()))
    }

    /// Finds the repository as git tells its hooks: `GIT_DIR` when set (relative to `cwd`), else `cwd`.
    pub fn of_environment(git_dir: Option<&Path>, cwd: &Path) -> Result<Repository, NotFound> {
        match git_dir {
            Some(dir) => Self::open(&cwd.join(dir)),
            None => Self::discover(cwd),
        }
    }

    /// The name of the worktree below `worktrees/`, `None` for the main one.
    #[must_use]
    pub fn worktree_name(&self) -> Option<&[u8]> {
        let inside = self.git_dir.strip_prefix(&self.common_dir).ok()?;
        inside.strip_prefix("worktrees").ok().map(|name| name.as_os_str().as_bytes())
    }

    /// The git directory of every worktree: the main one first.
    #[must_use]
    pub fn all_git_dirs(&self) -> Vec<PathBuf> {
        let mut dirs = vec![self.common_dir.clone()];
        if let Ok(entries) = fs::read_dir(self.common_dir.join("worktrees")) {
            let mut linked: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
            linked.sort();
            dirs.append(&mut linked);
        }
        dirs
    }

    /// A path below the common directory, as people know it (`refs/heads/x.lock`).
    #[must_use]
    pub fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.common_dir).unwrap_or(path).display().to_string()
    }

    /// Does the git directory belong to another user than the one we run as?
    pub fn is_foreign(&self) -> io::Result<bool> {
        Ok(fs::metadata(&self.common_dir)?.uid() != rustix::process::geteuid().as_raw())
    }
}

/// The git directory that a `.git` file names, whether or not it is one.
pub(crate) fn gitfile_target(file: &Path) -> Option<PathBuf> {
    let target = read_gitfile(file).ok()?;
    Some(file.parent()?.join(target))
}

fn detect_ref_format(common_dir: &Path) -> RefFormat {
    // With reftable, `refs/heads` is a stub *file*, so that old gits refuse the repository.
    let stub = fs::symlink_metadata(common_dir.join("refs/heads")).is_ok_and(|m| m.is_file());
    if stub { RefFormat::Reftable } else { RefFormat::Files }
}

fn read_gitfile(path: &Path) -> Result<PathBuf, NotFound> {
    let text = fs::read(path).map_err(|_| NotFound::NotAGitDir(path.to_owned()))?;
    let target = text.strip_prefix(b"gitdir:").ok_or_else(|| NotFound::NotAGitDir(path.to_owned()))?;
    Ok(line_path(target))
}

/// The path on the only line of one of git's pointer files.
fn line_path(text: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(text.trim_ascii().to_vec()))
}
