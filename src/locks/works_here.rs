//! Which repository does a git process work in?
//!
//! Repositories are compared by device and inode of what they consist of, as the process itself sees them ([`View`]): one
//! may be reached by several paths (bind mounts, mount namespaces, a chroot), and two may share parts (`git-new-workdir` links
//! `refs`, `logs/refs`, `objects` and more). Only what is readable and shares nothing with this one excludes a process.
//!
//! Limit: a git that `core.worktree`, or `GIT_WORK_TREE` beside a relative `GIT_DIR`, has led into the worktree of another
//! repository counts as that one's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::fs::Birth;
use crate::git::repository::{LONGEST_POINTER, Repository};
use crate::process::git_argv::{global_options, is_clone, is_lockless};
use crate::process::owner::{self, Stat};
use crate::process::view::{Found, Inode, View};

/// What of a common directory has locks in or beside it, and may be a link to what another repository uses as well.
const PARTS: [&str; 9] =
    ["refs", "logs", "logs/refs", "objects", "info", "packed-refs", "config", "reftable", "worktrees"];

/// Variables that lead git to single files and directories of a repository.
const PLACES: [&[u8]; 3] = [b"GIT_COMMON_DIR=", b"GIT_INDEX_FILE=", b"GIT_OBJECT_DIRECTORY="];

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
    if is_clone(&argv) {
        return may_make(stat, &argv, repo);
    }
    let looked = View::of(stat.pid).and_then(|view| Ok((view, fs::read(format!("/proc/{}/environ", stat.pid))?)));
    let (view, environ) = match looked {
        Ok(found) => found,
        // A process that is being torn down has no current directory any more, and makes no file either.
        Err(e) if owner::is_gone(&e) => return false,
        Err(_) => return true,
    };
    let options = global_options(&argv);
    let variable = |name: &[u8]| {
        let mut all = environ.split(|b| *b == 0);
        all.find_map(|v| Some(PathBuf::from(OsStr::from_bytes(v.strip_prefix(name)?))))
    };
    let told = Told {
        git_dir: options.git_dir.map(PathBuf::from).or_else(|| variable(b"GIT_DIR=")),
        work_tree: options.work_tree || variable(b"GIT_WORK_TREE=").is_some(),
        places: PLACES.into_iter().filter_map(variable).collect(),
    };
    Ours::of(repo).and_then(|ours| ours.may_be_meant(&told, &view)).unwrap_or(true)
}

/// Is the current directory of this process, whatever it is called, in `repo`? What is not seen says no.
pub(crate) fn stands_here(stat: &Stat, repo: &Repository) -> bool {
    let found = View::of(stat.pid).and_then(|view| Ours::of(repo)?.around(&view));
    found.is_ok_and(|leads| leads == Leads::Here)
}

/// A clone stays where it was started until it checks out, and takes locks only in what it makes: below there, or below a
/// directory that it is told. No repository that is older; where nobody knows how old it is, any.
fn may_make(stat: &Stat, argv: &[String], repo: &Repository) -> bool {
    const MARGIN: i64 = 2_000_000_000;
    let born = Birth::at(&repo.common_dir).ok().and_then(|birth| birth.born);
    if born.is_some_and(|born| born + MARGIN < owner::realtime_of_start(stat.start)) {
        return false;
    }
    argv.iter().any(|word| word.starts_with("--separate-git-dir")) || leads_above(stat, argv, repo).unwrap_or(true)
}

/// Is the repository below the current directory of the process, or below a directory that an argument names?
fn leads_above(stat: &Stat, argv: &[String], repo: &Repository) -> io::Result<bool> {
    let ours = View::from(Path::new("/"), &repo.common_dir)?;
    let mut above = vec![ours.cwd().inode];
    let mut at = ours.above(ours.cwd())?;
    while let Some(directory) = at {
        above.push(directory.inode);
        at = ours.above(&directory)?;
    }
    let view = View::of(stat.pid)?;
    for path in std::iter::once(".").chain(argv.iter().skip(1).map(String::as_str)) {
        if view.open(view.cwd(), Path::new(path))?.is_some_and(|found| above.contains(&found.inode)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a git is told about where it works.
#[derive(Default)]
struct Told {
    git_dir: Option<PathBuf>,
    /// It has gone to the top of a worktree that need not be that of the repository around it.
    work_tree: bool,
    places: Vec<PathBuf>,
}

/// Where a path or a directory leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leads {
    Here,
    Elsewhere,
    /// To what is no repository, or not any more.
    Nowhere,
}

/// The repository that is asked about.
struct Ours<'r> {
    repo: &'r Repository,
    view: View,
    inodes: Vec<Inode>,
}

impl Ours<'_> {
    fn of(repo: &Repository) -> io::Result<Ours<'_>> {
        let view = View::from(Path::new("/"), &repo.common_dir)?;
        let inodes = inodes(&view, view.cwd())?;
        Ok(Ours { repo, view, inodes })
    }

    /// Could a git that is told this, and sees this, mean the repository? No only if every reading leads elsewhere: git
    /// changes its directory (`-C`, to the top of the worktree), so a relative path may not be resolved any more.
    fn may_be_meant(&self, told: &Told, view: &View) -> io::Result<bool> {
        for path in &told.places {
            if self.has(view, path)? {
                return Ok(true);
            }
        }
        let is_elsewhere = |dir: &Path| Ok::<_, io::Error>(self.named_by(view, view.cwd(), dir)? == Leads::Elsewhere);
        Ok(match &told.git_dir {
            Some(dir) if dir.is_absolute() => !is_elsewhere(dir)?,
            Some(dir) => !(is_elsewhere(dir)? && self.is_around_another(view)?),
            None => told.work_tree || !self.is_around_another(view)?,
        })
    }

    /// Does `path` lead to, or below, anything of the repository? What is not there yet lies where its directory is.
    fn has(&self, view: &View, path: &Path) -> io::Result<bool> {
        let found = match view.open(view.cwd(), path)? {
            Some(found) => Some(found),
            None => view.open(view.cwd(), path.parent().unwrap_or(path))?,
        };
        match found {
            Some(found) => self.is_above(view, found),
            // A relative path that has lost its beginning.
            None => Ok(true),
        }
    }

    fn is_above(&self, view: &View, found: Found) -> io::Result<bool> {
        let mut at = if found.is_directory() { found } else { found.directory()? };
        loop {
            if self.inodes.contains(&at.inode) {
                return Ok(true);
            }
            match view.above(&at)? {
                Some(above) => at = above,
                None => return Ok(false),
            }
        }
    }

    /// The repository that a git directory, or a file `.git` that names one, belongs to.
    fn named_by(&self, view: &View, from: &Found, git_dir: &Path) -> io::Result<Leads> {
        let Some(mut found) = view.open(from, git_dir)? else { return Ok(Leads::Nowhere) };
        if !found.is_directory() {
            let Some(target) = pointer(&found, b"gitdir:")? else { return Ok(Leads::Nowhere) };
            let Some(named) = view.open(&found.directory()?, &target)? else { return Ok(Leads::Nowhere) };
            found = named;
        }
        if let Some(common) = common_dir(view, &found)? {
            return self.compared(view, &common);
        }
        // A worktree that is being made.
        let is_here = self.is_above(view, found)?;
        Ok(if is_here { Leads::Here } else { Leads::Elsewhere })
    }

    fn compared(&self, view: &View, common: &Found) -> io::Result<Leads> {
        let shares = inodes(view, common)?.iter().any(|inode| self.inodes.contains(inode));
        Ok(if shares { Leads::Here } else { Leads::Elsewhere })
    }

    /// git goes to the top of the worktree that it has found, where `.git` leads back to the repository, unless
    /// `core.worktree` says otherwise. Before that it holds no lock.
    fn is_around_another(&self, view: &View) -> io::Result<bool> {
        let around = if view.cwd().is_removed() { Leads::Here } else { self.around(view)? };
        Ok(around == Leads::Elsewhere || (around == Leads::Nowhere && !self.may_set_worktree()?))
    }

    /// The repository that is found from the current directory upwards.
    fn around(&self, view: &View) -> io::Result<Leads> {
        let mut at = view.open(view.cwd(), Path::new("."))?;
        while let Some(here) = at {
            if let Some(dot_git) = view.open(&here, Path::new(".git"))? {
                let is_one = !dot_git.is_directory() || common_dir(view, &dot_git)?.is_some();
                if is_one {
                    let leads = self.named_by(view, &here, Path::new(".git"))?;
                    // A file that names nothing any more.
                    return Ok(if leads == Leads::Nowhere { Leads::Here } else { leads });
                }
            }
            if let Some(common) = common_dir(view, &here)? {
                return self.compared(view, &common);
            }
            at = view.above(&here)?;
        }
        Ok(Leads::Nowhere)
    }

    /// Does the configuration speak of a worktree at all? (Read as text: what cannot be excluded counts.)
    fn may_set_worktree(&self) -> io::Result<bool> {
        const MOST: u64 = 16 << 20;
        for dir in self.repo.all_git_dirs() {
            for name in ["config", "config.worktree"] {
                let found = self.view.open(self.view.cwd(), &dir.join(name))?;
                let text = found.map(|found| found.read(MOST)).transpose()?.unwrap_or_default();
                if text.to_ascii_lowercase().windows(8).any(|word| word == b"worktree") {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// What a repository with this common directory consists of.
fn inodes(view: &View, common: &Found) -> io::Result<Vec<Inode>> {
    let mut found = vec![common.inode];
    for part in PARTS {
        found.extend(view.open(common, Path::new(part))?.map(|part| part.inode));
    }
    Ok(found)
}

/// The common directory of a git directory, which may be that of a linked worktree; `None` when it is none.
fn common_dir(view: &View, git_dir: &Found) -> io::Result<Option<Found>> {
    if !git_dir.has("HEAD")? {
        return Ok(None);
    }
    let path = match view.open(git_dir, Path::new("commondir"))? {
        Some(file) => pointer(&file, b"")?.unwrap_or_default(),
        None => PathBuf::from("."),
    };
    let Some(common) = view.open(git_dir, &path)? else { return Ok(None) };
    for part in ["refs", "objects"] {
        if !view.open(&common, Path::new(part))?.is_some_and(|found| found.is_directory()) {
            return Ok(None);
        }
    }
    Ok(Some(common))
}

/// The path in one of git's pointer files.
fn pointer(file: &Found, prefix: &[u8]) -> io::Result<Option<PathBuf>> {
    let text = file.read(LONGEST_POINTER)?;
    let path = text.strip_prefix(prefix).map(<[u8]>::trim_ascii).filter(|path| !path.is_empty());
    Ok(path.map(|path| PathBuf::from(OsStr::from_bytes(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bare repository below `root`.
    fn make(root: &Path, name: &str) -> PathBuf {
        for part in ["refs/heads", "objects", "logs"] {
            crate::fs::durable::create_dirs(&root.join(name).join(part), 0o777).unwrap();
        }
        crate::fs::durable::create_new(&root.join(name).join("HEAD"), b"ref: refs/heads/main\n").unwrap();
        root.join(name)
    }

    fn may_be_in(repo: &Repository, told: &Told, cwd: &Path) -> bool {
        Ours::of(repo).unwrap().may_be_meant(told, &View::from(Path::new("/"), cwd).unwrap()).unwrap_or(true)
    }

    #[test]
    fn a_git_is_excluded_only_when_it_readably_works_elsewhere() {
        let scratch = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(scratch.path()).unwrap();
        let (here, other) = (make(&root, "here"), make(&root, "other"));
        for dir in [here.join("worktrees/x"), other.join("worktrees/x")] {
            crate::fs::durable::create_dirs(&dir, 0o777).unwrap();
        }
        let repo = Repository::open(&here).unwrap();
        let git_dir = |dir: &Path| Told { git_dir: Some(dir.to_owned()), ..Told::default() };
        let place = |path: PathBuf| Told { places: vec![path], ..git_dir(&other) };
        let worktree = || Told { work_tree: true, ..Told::default() };
        let none = Told::default;
        let rows = [
            ("GIT_DIR names it, cwd is /", git_dir(&here), PathBuf::from("/"), true),
            ("GIT_DIR names another, cwd is in it", git_dir(&other), here.clone(), false),
            ("cwd is in it", none(), here.join("refs"), true),
            ("cwd is in another", none(), other.join("refs"), false),
            ("cwd is in none", none(), PathBuf::from("/"), false),
            ("a worktree of it that is being made", git_dir(&here.join("worktrees/x")), other.clone(), true),
            ("a worktree of another that is being made", git_dir(&other.join("worktrees/x")), here.clone(), false),
            ("a GIT_DIR that is gone", git_dir(&root.join("gone")), other.clone(), true),
            ("a relative GIT_DIR is lost after a -C", git_dir(Path::new("../gone/.git")), other.clone(), true),
            ("a relative GIT_DIR that leads elsewhere, from elsewhere", git_dir(Path::new(".")), other.clone(), false),
            ("its index", place(here.join("index")), other.clone(), true),
            ("an index in one of its directories", place(here.join("objects/index")), other.clone(), true),
            ("an index elsewhere", place(other.join("index")), here.clone(), false),
            ("an index that cannot be found", place(PathBuf::from("gone/index")), other.clone(), true),
            ("a worktree that is another's", worktree(), other.clone(), true),
            ("a worktree, and GIT_DIR", Told { work_tree: true, ..git_dir(&other) }, other.clone(), false),
        ];
        for (name, told, cwd, may_be_here) in rows {
            assert_eq!(may_be_in(&repo, &told, &cwd), may_be_here, "{name}");
        }
        let with_worktree = Repository::open(&make(&root, "elsewhere")).unwrap();
        crate::fs::durable::create_new(&with_worktree.git_dir.join("config"), b"[core]\n\tworktree = /x\n").unwrap();
        assert!(may_be_in(&with_worktree, &none(), Path::new("/")), "core.worktree leads anywhere");
        let gone = root.join("will-be-gone");
        crate::fs::durable::create_dirs(&gone, 0o777).unwrap();
        let open = fs::File::open(&gone).unwrap();
        assert!(crate::fs::durable::remove_dir_if_empty(&gone).unwrap());
        let there = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
        let view = View::from(Path::new("/"), Path::new(&there)).unwrap();
        assert!(Ours::of(&repo).unwrap().may_be_meant(&none(), &view).unwrap(), "cwd is gone");
    }

    #[test]
    fn repositories_that_share_a_part_are_one() {
        let scratch = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(scratch.path()).unwrap();
        for part in PARTS {
            let (here, other) = (make(&root, &format!("{part}/here")), make(&root, &format!("{part}/other")));
            crate::fs::durable::create_dirs(&here.join(part), 0o777).unwrap();
            crate::fs::durable::create_dirs(other.join(part).parent().unwrap(), 0o777).unwrap();
            if other.join(part).exists() {
                crate::fs::durable::remove_tree(&other.join(part)).unwrap();
            }
            std::os::unix::fs::symlink(here.join(part), other.join(part)).unwrap();
            let none = Told::default();
            for (repo, cwd) in [(&here, &other), (&other, &here)] {
                assert!(may_be_in(&Repository::open(repo).unwrap(), &none, cwd), "{part} is {}'s", cwd.display());
            }
        }
    }
}
