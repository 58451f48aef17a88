//! Which process could hold a lock?
//!
//! A candidate may write to the repository, and either looks like git and is not known to work elsewhere, or has the
//! lock open. A git-like process that we cannot look into is a candidate. One that started two seconds after the lock was
//! made is none, unless the clock has been set since: that would make a holder look too young. When we do not see all
//! processes of the machine, or other machines may use the disk, nothing is proved; and when looking at one failed, not even
//! a human's word makes up for it.
//!
//! Limit: what another user's process has open is not shown to us. One that is not named git, and has a lock open, is not seen.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::fs::FileId;
use crate::git::repository::{NotFound, Repository};
use crate::locks::judge::{LockFile, LockVerdict};
use crate::process::owner::{ExecContext, Liveness, Stat};
use crate::process::{git_argv, owner};

/// What is uncertain when a process's start is compared with a file's time: a start is rounded down to a tick (10 ms),
/// a file's time lags by up to another one.
pub const CLOCK_MARGIN: i64 = 30_000_000;

/// Whoever started that much later than a lock was made did not make it; asked only while the clock is known to be steady.
const YOUNGER: i64 = 2_000_000_000;

/// Commands that never take a lock in a repository that exists already, or that are us.
#[rustfmt::skip]
const LOCKLESS: [&str; 23] = [
    "archive", "blame", "cat-file", "clone", "credential", "daemon", "for-each-ref", "fsmonitor--daemon", "grep",
    "help", "log", "ls-remote", "ls-tree", "merge-base", "rev-list", "rev-parse", "shortlog", "show", "tx", "txn",
    "upload-pack", "var", "version",
];

/// Commands that change refs and never touch the index.
const INDEXLESS: [&str; 12] = [
    "branch",
    "fetch",
    "gc",
    "maintenance",
    "notes",
    "pack-refs",
    "push",
    "receive-pack",
    "remote",
    "symbolic-ref",
    "tag",
    "update-ref",
];

struct Candidate {
    pid: u32,
    started: i64,
    what: String,
    uses_index: bool,
}

struct Open {
    pid: u32,
    path: PathBuf,
    id: Option<FileId>,
}

/// The processes that could hold a lock of one repository, at one moment.
pub struct Processes {
    candidates: Vec<Candidate>,
    open: Vec<Open>,
    ancestors: Vec<Candidate>,
    sees_everything: bool,
    /// A process could not be looked at for another reason than that we may not.
    trouble: Option<io::Error>,
    local_disk: bool,
    scanned_at: i64,
    steady_since: Option<i64>,
}

impl Processes {
    /// Looks at every process once. `steady_since`: from when on (realtime, nanoseconds) file times and process starts
    /// can be compared, if at all.
    #[must_use]
    pub fn scan(repo: &Repository, ancestors: &[Stat], steady_since: Option<i64>) -> Processes {
        let myself = std::process::id();
        let mut scan = Processes {
            candidates: Vec::new(),
            open: Vec::new(),
            ancestors: ancestors.iter().filter(|s| is_at_work(s)).map(Candidate::new).collect(),
            sees_everything: ExecContext::here().is_ok_and(|place| place.sees_everything()),
            trouble: None,
            local_disk: crate::fs::durable::is_local_disk(&repo.common_dir),
            scanned_at: crate::util::clock::now(),
            steady_since,
        };
        let writers = Writers::of(repo);
        let mut known = BTreeSet::from([myself]);
        // Who handed its work to a child and ended before we came to it: its child is in a second list.
        for _ in 0..2 {
            let pids = owner::all_pids().unwrap_or_else(|error| scan.not_seen(error));
            let new: Vec<u32> = pids.into_iter().filter(|pid| !known.contains(pid)).collect();
            for &pid in &new {
                // Not only git: a program with a library of git in it may run us while it holds a lock.
                let is_above = ancestors.iter().any(|a| a.pid == pid);
                let seen = if is_above { scan.note_open_locks(pid) } else { scan.look_at(pid, repo, &writers) };
                seen.unwrap_or_else(|error| scan.not_seen(error));
            }
            known.extend(new);
        }
        scan
    }

    fn not_seen<T: Default>(&mut self, error: io::Error) -> T {
        if error.kind() == io::ErrorKind::PermissionDenied {
            self.sees_everything = false;
        } else {
            self.trouble.get_or_insert(error);
        }
        T::default()
    }

    /// Is this process a candidate, and what has it open? An error when that cannot be known.
    fn look_at(&mut self, pid: u32, repo: &Repository, writers: &Writers) -> io::Result<()> {
        let stat = match Stat::look(pid) {
            Err(_) if !writers.include(pid) => return Ok(()),
            looked => looked?,
        };
        let at_work = |stat: &Stat| !stat.is_gone() && !stat.is_kernel_thread();
        let Some(stat) = stat.filter(at_work) else { return Ok(()) };
        let may_be_it = || owner::may_be_git(&stat) && works_here(&stat, repo);
        if !writers.include(pid) {
            // In a container the same file may be another user's, by a mapping that is not shown to us.
            self.sees_everything &= !owner::is_nested(pid) || !may_be_it();
            return Ok(());
        }
        // One that ends while we look leaves contradictory traces, and no lock that it will still use.
        if may_be_it() && Stat::may_live(stat.process()) {
            self.candidates.push(Candidate::new(&stat));
        }
        self.note_open_locks(pid)
    }

    fn note_open_locks(&mut self, pid: u32) -> io::Result<()> {
        for (link, path) in owner::open_files(pid)? {
            if is_lock_path(&path) {
                let id = fs::metadata(link).ok().map(|m| FileId::of(&m));
                self.open.push(Open { pid, path, id });
            }
        }
        Ok(())
    }

    /// Is what was seen too old to judge `lock`? A process that started since could have made it.
    #[must_use]
    pub fn are_older_than(&self, lock: &LockFile) -> bool {
        lock.id.ctime + CLOCK_MARGIN >= self.scanned_at
    }

    /// Who could hold `lock`?
    #[must_use]
    pub fn holder_of(&self, lock: &LockFile) -> LockVerdict {
        let alive = |because| LockVerdict { owner: Liveness::Alive, because };
        // A lock that is older than a process above us is not that one's own. Of index.lock even that is not
        // believed: git takes it before it calls any hook, so a command that uses the index has its own there.
        let is_index = lock.path.ends_with("index.lock");
        let steady = self.steady_since.is_some_and(|since| lock.id.ctime > since + YOUNGER);
        let since_boot = self.steady_since.is_some();
        let own =
            |a: &&Candidate| !since_boot || lock.id.ctime >= a.started - CLOCK_MARGIN || (is_index && a.uses_index);
        if let Some(above) = self.ancestors.iter().find(own) {
            return alive(format!("{} (pid {}), which runs this, may hold it", above.what, above.pid));
        }
        let holds = |o: &&Open| o.path == lock.path || o.id.is_some_and(|id| id.is_same_file(&lock.id));
        if let Some(open) = self.open.iter().find(holds) {
            return alive(format!("pid {} has it open", open.pid));
        }
        let too_young = |c: &Candidate| steady && c.started > lock.id.ctime + YOUNGER;
        if let Some(candidate) = self.candidates.iter().find(|c| !too_young(c)) {
            return alive(format!("{} (pid {}) is running and may hold it", candidate.what, candidate.pid));
        }
        if let Some(error) = &self.trouble {
            return alive(format!("not every process could be looked at: {error}"));
        }
        let unknowable = |because: &str| LockVerdict { owner: Liveness::Unknowable, because: because.to_owned() };
        if !self.local_disk {
            return unknowable("the repository lies on a file system that other machines may use");
        }
        if !self.sees_everything {
            return unknowable("not all processes of this machine can be seen from here");
        }
        LockVerdict { owner: Liveness::Dead, because: "no process is left that could hold it".to_owned() }
    }
}

impl Candidate {
    fn new(stat: &Stat) -> Candidate {
        let argv = owner::argv(stat.pid).unwrap_or_default();
        let what = if argv.is_empty() { stat.comm.clone() } else { argv.join(" ") };
        let what = crate::util::text::shortened(&what, 80);
        let uses_index = !git_argv::global_options(&argv).command.is_some_and(|c| INDEXLESS.contains(&c));
        Candidate { pid: stat.pid, started: owner::realtime_of_start(stat.start), what, uses_index }
    }
}

/// An ancestor that is git and not merely running us as an alias.
fn is_at_work(stat: &Stat) -> bool {
    owner::may_be_git(stat) && !is_ourselves(stat.pid) && !is_lockless(&owner::argv(stat.pid).unwrap_or_default())
}

/// The shim runs under the name `git`: it holds no lock before it becomes the real git, and after that its
/// locks are younger than this scan.
fn is_ourselves(pid: u32) -> bool {
    let (Ok(exe), Ok(me)) = (fs::metadata(format!("/proc/{pid}/exe")), fs::metadata("/proc/self/exe")) else {
        return false;
    };
    (exe.dev(), exe.ino()) == (me.dev(), me.ino())
}

/// Could this git process work on `repo`? Only what is readable and leads elsewhere says no.
fn works_here(stat: &Stat, repo: &Repository) -> bool {
    if is_ourselves(stat.pid) {
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
    let options = git_argv::global_options(&argv);
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

fn is_lockless(argv: &[String]) -> bool {
    git_argv::global_options(argv).command.is_some_and(|c| LOCKLESS.contains(&c) || c.starts_with("credential"))
}

/// Who may write to the git directory.
struct Writers {
    owner: u32,
    everybody: bool,
}

impl Writers {
    fn of(repo: &Repository) -> Writers {
        match fs::metadata(&repo.common_dir) {
            Ok(m) => Writers { owner: m.uid(), everybody: m.mode() & 0o022 != 0 },
            Err(_) => Writers { owner: 0, everybody: true },
        }
    }

    fn include(&self, pid: u32) -> bool {
        let uid = fs::metadata(format!("/proc/{pid}")).map(|m| m.uid());
        self.everybody || uid.map_or(true, |uid| uid == 0 || uid == self.owner)
    }
}

fn is_lock_path(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b".lock") || path.ends_with("packed-refs.new")
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
