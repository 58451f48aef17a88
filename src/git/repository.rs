//! Where a repository lies, found without asking git.
//!
//! Rules are git's own: `GIT_DIR` first, else upwards from a directory; `.git` may be a directory, a
//! link or a file (`gitdir: <path>`); `commondir` leads from a linked worktree to the shared part.
//!
//! Pointer files are opened only as small regular files: what an enemy puts in their place keeps nobody waiting.
//!
//! Limit: whose repository it is, and whether git takes it for one, is judged in [`crate::trust`]. A hook was started by git,
//! which has judged already.

use crate::util::text::{escape, shown};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::fs::door::{self, Kind};
use crate::fs::{Birth, absent_is_none, durable};

/// The most that a pointer file (`.git`, `commondir`) has, in bytes.
pub(crate) const LONGEST_POINTER: u64 = 16 << 10;

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

/// A repository, and the places by which discovery came to it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The repository.
    pub(crate) repo: Repository,
    /// The file `.git` that names it.
    pub(crate) gitfile: Option<PathBuf>,
    /// The directory that has `.git` in it.
    pub(crate) top: Option<PathBuf>,
    /// The directory that discovery took for a git directory, because it has `HEAD` and `objects` in it.
    pub(crate) bare: Option<PathBuf>,
}

impl Found {
    /// One that was named, not discovered.
    pub(crate) fn named(repo: Repository) -> Found {
        Found { repo, gitfile: None, top: None, bare: None }
    }
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
    /// One of git's pointer files cannot be read, or is no file.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
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
        Self::open_directory(git_dir).map_err(|error| match error {
            NotFound::Unreadable(_) => error,
            _ => broken(),
        })
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
        let pointer = durable::read_own(&git_dir.join("commondir"), LONGEST_POINTER);
        let common_dir = match absent_is_none(pointer)? {
            Some(text) => fs::canonicalize(git_dir.join(line_path(&text))).map_err(|_| broken())?,
            None => git_dir.clone(),
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
        Self::find(dir).map(|found| found.repo)
    }

    /// The root of the worktree around `dir`, if it is [discovered](Repository::discover) by a `.git` there. The
    /// configuration may say otherwise.
    #[must_use]
    pub fn top_around(dir: &Path) -> Option<PathBuf> {
        fs::canonicalize(Self::find(dir).ok()?.top?).ok()
    }

    /// As [`Repository::discover`], with the places by which it was found.
    pub(crate) fn find(dir: &Path) -> Result<Found, NotFound> {
        for here in dir.ancestors() {
            let dot_git = here.join(".git");
            let top = Some(here.to_owned());
            match fs::metadata(&dot_git) {
                Ok(m) if m.is_file() => {
                    let repo = Self::open(&dot_git)?;
                    return Ok(Found { gitfile: Some(dot_git), top, ..Found::named(repo) });
                }
                Ok(_) => match Self::open(&dot_git) {
                    Ok(repo) => return Ok(Found { top, ..Found::named(repo) }),
                    Err(error @ NotFound::Unreadable(_)) => return Err(error),
                    Err(_) => {}
                },
                Err(_) => {}
            }
            if here.join("HEAD").exists() && here.join("objects").is_dir() {
                return Ok(Found { bare: top, ..Found::named(Self::open(here)?) });
            }
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

    /// The git directory of every worktree: the main one first. A link is none: it leads to what another repository may use.
    #[must_use]
    pub fn all_git_dirs(&self) -> Vec<PathBuf> {
        let mut dirs = vec![self.common_dir.clone()];
        let worktrees = self.common_dir.join("worktrees");
        let found = door::entries(&worktrees).ok().flatten().into_iter().flatten();
        let mut linked: Vec<PathBuf> =
            found.filter(|(_, kind)| *kind == Kind::Directory).map(|(name, _)| worktrees.join(name)).collect();
        linked.sort();
        dirs.append(&mut linked);
        dirs
    }

    /// The worktree as records name it: its git directory below the common one, escaped; empty for the main worktree.
    pub(crate) fn recorded_worktree(&self) -> String {
        let inside = self.git_dir.strip_prefix(&self.common_dir).unwrap_or(Path::new(""));
        escape(inside.as_os_str().as_bytes()).into_owned()
    }

    /// Which directory the git directory of a linked worktree is: names are used again. The main worktree needs none.
    pub(crate) fn worktree_birth(&self) -> Option<Birth> {
        self.worktree_name().and_then(|_| Birth::at(&self.git_dir).ok())
    }

    /// A path below the common directory, as people know it (`refs/heads/x.lock`).
    #[must_use]
    pub fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.common_dir).unwrap_or(path).display().to_string()
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
    let text = durable::read_own(path, LONGEST_POINTER)?;
    let target = text.strip_prefix(b"gitdir:").ok_or_else(|| NotFound::NotAGitDir(path.to_owned()))?;
    Ok(line_path(target))
}

/// The path on the only line of one of git's pointer files.
fn line_path(text: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(text.trim_ascii().to_vec()))
}
