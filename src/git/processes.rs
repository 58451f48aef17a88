//! Which process could hold a lock?
//!
//! A candidate started before the lock was last changed (with a margin), may write to the repository, and
//! either looks like git and is not known to work elsewhere, or has the lock open. A git-like process that we
//! cannot look into is a candidate. When we do not see all processes of the machine, nothing is proved.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::locks::{LockFile, Verdict};
use super::repository::Repository;
use crate::owner::{self, Liveness, Place, Stat};

/// Clocks: a process's start is known to 10 ms and through two clocks, a file's time to 4 ms and one clock.
const MARGIN: i64 = 2_000_000_000;

/// For a process above us the two-second margin would call every recent lock its own. What is uncertain here is
/// only the clocks' steps: a start is rounded down to a tick (10 ms), a file's time lags by up to another one.
pub const CLOCK_MARGIN: i64 = 30_000_000;

/// Commands that never take a lock in a repository that exists already, or that are us.
const LOCKLESS: [&str; 24] = [
    "archive",
    "blame",
    "cat-file",
    "clone",
    "credential",
    "daemon",
    "for-each-ref",
    "fsmonitor--daemon",
    "grep",
    "help",
    "init",
    "log",
    "ls-remote",
    "ls-tree",
    "merge-base",
    "rev-list",
    "rev-parse",
    "shortlog",
    "show",
    "tx",
    "txn",
    "upload-pack",
    "var",
    "version",
];

/// "No such process": it ended while we looked.
const ESRCH: i32 = 3;

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
}

/// The processes that could hold a lock of one repository, at one moment.
pub struct Processes {
    candidates: Vec<Candidate>,
    open: Vec<Open>,
    ancestors: Vec<Candidate>,
    sees_everything: bool,
}

impl Processes {
    /// Looks at every process once.
    #[must_use]
    pub fn scan(repo: &Repository, ancestors: &[Stat]) -> Processes {
        let myself = std::process::id();
        let mut scan = Processes {
            candidates: Vec::new(),
            open: Vec::new(),
            ancestors: ancestors.iter().filter(|s| is_at_work(s)).map(Candidate::new).collect(),
            sees_everything: Place::here().is_ok_and(|place| place.sees_everything()),
        };
        let writers = Writers::of(repo);
        for pid in owner::all_pids() {
            if pid == myself || ancestors.iter().any(|a| a.pid == pid) {
                continue;
            }
            let Some(stat) = Stat::of(pid).filter(|s| !s.is_gone() && !s.is_kernel_thread()) else { continue };
            if !writers.include(pid) {
                continue;
            }
            if owner::looks_like_git(&stat) && works_here(&stat, repo) {
                scan.candidates.push(Candidate::new(&stat));
            }
            scan.open.extend(open_locks(pid));
        }
        scan
    }

    /// Who could hold `lock`?
    #[must_use]
    pub fn holder_of(&self, lock: &LockFile) -> Verdict {
        let alive = |because| Verdict { owner: Liveness::Alive, because };
        // A lock that is older than a process above us is not that one's own. Of index.lock even that is not
        // believed: git takes it before it calls any hook, so a command that uses the index has its own there.
        let is_index = lock.path.ends_with("index.lock");
        let own = |a: &&Candidate| lock.id.ctime >= a.started - CLOCK_MARGIN || (is_index && a.uses_index);
        if let Some(above) = self.ancestors.iter().find(own) {
            return alive(format!("{} (pid {}), which runs this, may hold it", above.what, above.pid));
        }
        if let Some(open) = self.open.iter().find(|o| o.path == lock.path) {
            return alive(format!("pid {} has it open", open.pid));
        }
        if let Some(candidate) = self.candidates.iter().find(|c| c.started < lock.id.ctime + MARGIN) {
            return alive(format!("{} (pid {}) is running and may hold it", candidate.what, candidate.pid));
        }
        if !self.sees_everything {
            let because = "we run in a pid namespace of our own and cannot see all processes".to_owned();
            return Verdict { owner: Liveness::Unknowable, because };
        }
        Verdict { owner: Liveness::Dead, because: "no process is left that could hold it".to_owned() }
    }
}

impl Candidate {
    fn new(stat: &Stat) -> Candidate {
        let argv = owner::argv(stat.pid).unwrap_or_default();
        let what = if argv.is_empty() { stat.comm.clone() } else { argv.join(" ") };
        let what = what.chars().map(|c| if c.is_control() { ' ' } else { c }).take(80).collect();
        let uses_index = !global_options(&argv).command.is_some_and(|c| INDEXLESS.contains(&c));
        Candidate { pid: stat.pid, started: owner::realtime_of_start(stat.start), what, uses_index }
    }
}

/// An ancestor that is git and not merely running us as an alias.
fn is_at_work(stat: &Stat) -> bool {
    owner::looks_like_git(stat) && !is_ourselves(stat.pid) && !is_lockless(&owner::argv(stat.pid).unwrap_or_default())
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
    let (mut at, environ) = match looked {
        Ok(found) => found,
        // A process that is being torn down has no current directory any more, and makes no file either.
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(ESRCH) => return false,
        Err(_) => return true,
    };
    let variable = |name: &[u8]| {
        let mut all = environ.split(|b| *b == 0);
        all.find_map(|v| Some(PathBuf::from(std::ffi::OsStr::from_bytes(v.strip_prefix(name)?))))
    };
    let options = global_options(&argv);
    for dir in options.change_to {
        at.push(dir);
    }
    let git_dir = options.git_dir.map(PathBuf::from).or_else(|| variable(b"GIT_DIR="));
    may_be_in(repo, git_dir.as_deref(), &at)
}

/// Could a git with this GIT_DIR and this current directory mean `repo`?
fn may_be_in(repo: &Repository, git_dir: Option<&Path>, cwd: &Path) -> bool {
    match (Repository::of_environment(git_dir, cwd), git_dir) {
        (Ok(other), _) => other.common_dir == repo.common_dir,
        // A directory that is being made, or is gone: a part of this repository, or one of another.
        (Err(_), Some(dir)) => {
            let dir = cwd.join(dir);
            let dir = fs::canonicalize(&dir).unwrap_or(dir);
            dir.is_file() || dir.starts_with(&repo.common_dir) || dir.join("commondir").exists()
        }
        // No repository there: it has not found this one either. A deleted directory says nothing.
        (Err(_), None) => !cwd.is_dir(),
    }
}

fn is_lockless(argv: &[String]) -> bool {
    global_options(argv).command.is_some_and(|c| LOCKLESS.contains(&c) || c.starts_with("credential"))
}

#[derive(Default)]
struct GlobalOptions<'a> {
    change_to: Vec<&'a str>,
    git_dir: Option<&'a str>,
    command: Option<&'a str>,
}

/// git's options before the command.
fn global_options(argv: &[String]) -> GlobalOptions<'_> {
    let mut options = GlobalOptions::default();
    let program = argv.first().map_or("", |a| a.rsplit('/').next().unwrap_or(a));
    if let Some(command) = program.strip_prefix("git-") {
        options.command = Some(command);
        return options;
    }
    let mut words = argv.iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-C" => options.change_to.extend(words.next()),
            "--git-dir" => options.git_dir = words.next(),
            "-c" | "--work-tree" | "--namespace" | "--config-env" | "--super-prefix" | "--attr-source" => {
                words.next();
            }
            _ if word.starts_with("--git-dir=") => options.git_dir = word.strip_prefix("--git-dir="),
            _ if word.starts_with('-') => {}
            _ => {
                options.command = Some(word);
                break;
            }
        }
    }
    options
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

/// The lock files that a process has open.
fn open_locks(pid: u32) -> Vec<Open> {
    let list = |dir: PathBuf| -> io::Result<Vec<Open>> {
        let mut open = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = fs::read_link(entry?.path())?;
            if is_lock_path(&path) {
                open.push(Open { pid, path });
            }
        }
        Ok(open)
    };
    // What we may not look into and does not look like git is not a candidate; see the module's limit.
    list(PathBuf::from(format!("/proc/{pid}/fd"))).unwrap_or_default()
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
                crate::durable::create_dirs(&root.join(name).join(part), 0o777).unwrap();
            }
            crate::durable::create_new(&root.join(name).join("HEAD"), b"ref: refs/heads/main\n").unwrap();
            root.join(name)
        };
        let (here, other) = (make("here"), make("other"));
        let repo = Repository::open(&here).unwrap();
        let rows = [
            ("GIT_DIR names it, cwd is /", Some(here.clone()), PathBuf::from("/"), true),
            ("GIT_DIR names another, cwd is in it", Some(other.clone()), here.clone(), false),
            ("cwd is in it", None, here.join("refs"), true),
            ("cwd is in another", None, other.join("refs"), false),
            ("cwd is in none", None, PathBuf::from("/"), false),
            ("a worktree of it that is being made", Some(here.join("worktrees/x")), other.clone(), true),
            ("a worktree of another that is being made", Some(other.join("worktrees/x")), here.clone(), false),
            ("cwd is gone", None, root.join("gone"), true),
        ];
        for (name, git_dir, cwd, may_be_here) in rows {
            assert_eq!(may_be_in(&repo, git_dir.as_deref(), &cwd), may_be_here, "{name}");
        }
    }

    #[test]
    fn the_command_is_found_behind_global_options() {
        let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, command, git_dir) in [
            ("git commit -m log", Some("commit"), None),
            ("/usr/bin/git -C a -c x=y --git-dir=g log", Some("log"), Some("g")),
            ("git --git-dir g --no-pager txn recover", Some("txn"), Some("g")),
            ("git-upload-pack /srv/x", Some("upload-pack"), None),
            ("git", None, None),
        ] {
            let argv = argv(line);
            let options = global_options(&argv);
            assert_eq!((options.command, options.git_dir), (command, git_dir), "{line}");
        }
    }
}
