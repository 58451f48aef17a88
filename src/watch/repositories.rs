//! The repositories that the watch knows, their directories, and the locks in them.
//!
//! A directory is read after its watch is set, so that no name is missed. A lock is kept with those who were seen to hold it,
//! until its name goes: another file of that name is another lock.
//!
//! Limit: of a repository with more than [`MOST_DIRECTORIES`] directories, and of all together more than a quarter of what the kernel
//! lets the user watch, the others are not watched.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::fs::{Birth, FileId, durable};
use crate::git::Repository;
use crate::locks::find;
use crate::locks::seen::Inode;
use crate::process::operation;
use crate::process::owner::{self, Process};
use crate::state::StateDir;
use crate::watch::events::{Events, Watched};

/// The most directories of one repository that are watched.
const MOST_DIRECTORIES: usize = 500;

/// The part of what the kernel lets this user watch that is used for all repositories: one of so many.
const SHARE: usize = 4;

/// When a lock is looked at after it has appeared; at once, too, where git keeps it open.
const LOOKS: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// Device and inode of the common directory.
pub(crate) type Key = Inode;

/// A lock that is there.
#[derive(Debug)]
pub(crate) struct Lock {
    pub(crate) inode: Inode,
    birth: Birth,
    /// Told from another file of this name, which may have the same inode.
    pub(crate) number: u64,
    /// Who was seen to hold it.
    pub(crate) holders: Vec<Process>,
    /// The command line of the outermost of them, for people.
    pub(crate) command: Option<String>,
    /// That is said of a batched update only.
    pub(crate) doubtful: bool,
    /// When its holders are looked for.
    pub(crate) looks: Vec<Instant>,
}

/// A repository that is watched.
#[derive(Debug)]
pub(crate) struct Repo {
    pub(crate) repo: Repository,
    pub(crate) locks: BTreeMap<PathBuf, Lock>,
    /// When it is looked at again.
    pub(crate) due: Option<Instant>,
    /// How often in a row somebody was in the way.
    pub(crate) tries: u32,
    /// What recovery was last asked to end.
    pub(crate) asked: Option<Vec<PathBuf>>,
    /// It left that to a person.
    pub(crate) needs_human: bool,
    directories: Vec<Watched>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Repositories {
    pub(crate) all: HashMap<Key, Repo>,
    directories: HashMap<Watched, (Key, PathBuf)>,
    numbers: u64,
    /// The user may watch no more directories.
    pub(crate) limit_reached: bool,
}

impl Repositories {
    /// Knows a repository from now on. `None` when it cannot be watched.
    pub(crate) fn add(&mut self, repo: Repository, events: &Events) -> io::Result<Option<Key>> {
        // Who else may lock there is not seen from here.
        if !durable::is_local_disk(&repo.common_dir) {
            return Ok(None);
        }
        let key = key_of(&std::fs::metadata(&repo.common_dir)?);
        let known = self.all.get(&key).is_some_and(|known| known.repo.common_dir == repo.common_dir);
        if !known {
            self.drop_one(key, events);
            let new = Repo {
                repo,
                locks: BTreeMap::new(),
                due: None,
                tries: 0,
                asked: None,
                needs_human: false,
                directories: Vec::new(),
            };
            self.all.insert(key, new);
            self.cover(key, events)?;
        }
        Ok(Some(key))
    }

    /// Forgets a repository.
    pub(crate) fn drop_one(&mut self, key: Key, events: &Events) {
        for watched in self.all.remove(&key).map(|repo| repo.directories).unwrap_or_default() {
            self.directories.remove(&watched);
            events.forget(watched);
        }
    }

    /// The directory that is watched as `watched`.
    pub(crate) fn directory(&self, watched: Watched) -> Option<(Key, &Path)> {
        self.directories.get(&watched).map(|(key, dir)| (*key, dir.as_path()))
    }

    /// A watch that the kernel has removed. Whether it was the one of the git directory itself.
    pub(crate) fn lost(&mut self, watched: Watched) -> Option<Key> {
        let (key, dir) = self.directories.remove(&watched)?;
        let repo = self.all.get_mut(&key)?;
        repo.directories.retain(|other| *other != watched);
        (dir == repo.repo.common_dir).then_some(key)
    }

    /// Watches every directory in which git makes locks, and reads those that were not watched before.
    pub(crate) fn cover(&mut self, key: Key, events: &Events) -> io::Result<()> {
        let Some(repo) = self.all.get(&key) else { return Ok(()) };
        let mut directories = find::directories(&repo.repo)?;
        directories.extend(["worktrees", "logs/refs"].map(|name| repo.repo.common_dir.join(name)));
        self.cover_these(key, directories, events)
    }

    /// The same of a directory of refs that is new.
    pub(crate) fn cover_below(&mut self, key: Key, dir: PathBuf, events: &Events) -> io::Result<()> {
        let mut directories = Vec::new();
        find::with_those_below(dir, &mut directories)?;
        self.cover_these(key, directories, events)
    }

    fn cover_these(&mut self, key: Key, directories: Vec<PathBuf>, events: &Events) -> io::Result<()> {
        for dir in directories {
            let Some(repo) = self.all.get_mut(&key) else { return Ok(()) };
            if repo.directories.len() >= MOST_DIRECTORIES || self.directories.len() >= most_of_all() {
                self.limit_reached = true;
                return Ok(());
            }
            let watched = match events.watch(&dir) {
                Ok(watched) => watched,
                Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                    self.limit_reached = true;
                    return Ok(());
                }
                // It is gone by now, or not ours to look into.
                Err(_) => continue,
            };
            if self.directories.insert(watched, (key, dir.clone())).is_none() {
                repo.directories.push(watched);
                self.read(key, &dir);
            }
        }
        Ok(())
    }

    /// Reads a directory for locks.
    fn read(&mut self, key: Key, dir: &Path) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            self.appeared(key, dir, &name);
        }
    }

    /// Reads all directories of a repository again: names may have been missed.
    pub(crate) fn read_again(&mut self, key: Key, events: &Events) -> io::Result<()> {
        self.cover(key, events)?;
        let of_it = self.directories.values().filter(|(of, _)| *of == key);
        let directories: Vec<PathBuf> = of_it.map(|(_, dir)| dir.clone()).collect();
        directories.iter().for_each(|dir| self.read(key, dir));
        Ok(())
    }

    /// A name has appeared in a directory. The same file that was there before keeps those who hold it.
    pub(crate) fn appeared(&mut self, key: Key, dir: &Path, name: &OsStr) {
        let Some(repo) = self.all.get_mut(&key) else { return };
        if !find::is_lock_of_git(&repo.repo, dir, name) {
            return;
        }
        let path = dir.join(name);
        let found = std::fs::symlink_metadata(&path).ok().filter(Metadata::is_file);
        let (Some(found), Ok(birth)) = (found, Birth::at(&path)) else {
            repo.locks.remove(&path);
            return;
        };
        let inode = key_of(&found);
        if repo.locks.get(&path).is_some_and(|known| known.inode == inode && known.birth == birth) {
            return;
        }
        self.numbers += 1;
        let now = Instant::now();
        // git closes the lock of a ref at once: who looks at once finds nobody, and asks every process of the machine for that.
        let at_once = Some(now).filter(|_| !is_of_ref(&repo.repo, dir, name));
        let looks = at_once.into_iter().chain(LOOKS.map(|after| now + after)).collect();
        let (number, holders, command) = (self.numbers, Vec::new(), None);
        repo.locks.insert(path, Lock { inode, birth, number, holders, command, doubtful: false, looks });
    }

    /// A hook says that its git holds these locks: those that are the very files which it names.
    pub(crate) fn held(&mut self, key: Key, git: Process, locks: &[(PathBuf, FileId)], doubtful: bool) {
        let Some(repo) = self.all.get_mut(&key) else { return };
        for (path, id) in locks {
            let is_it = FileId::at(path).is_ok_and(|found| found == Some(*id));
            let known = repo.locks.get_mut(path).filter(|lock| is_it && lock.is_at(path));
            if let Some(lock) = known {
                lock.doubtful = doubtful && (lock.doubtful || lock.holders.is_empty());
                if !lock.holders.contains(&git) {
                    lock.hold(git);
                }
            }
        }
    }

    /// A name has gone from a directory.
    pub(crate) fn gone(&mut self, key: Key, dir: &Path, name: &OsStr) {
        if let Some(repo) = self.all.get_mut(&key) {
            repo.locks.remove(&dir.join(name));
        }
    }
}

impl Repo {
    /// Is it still at its path?
    pub(crate) fn is_there(&self, key: Key) -> bool {
        std::fs::metadata(&self.repo.common_dir).is_ok_and(|found| key_of(&found) == key)
    }

    pub(crate) fn state(&self) -> StateDir {
        StateDir::of(&self.repo)
    }
}

impl Lock {
    /// This process holds it, too. Those above a holder come after it.
    pub(crate) fn hold(&mut self, holder: Process) {
        self.holders.push(holder);
        if let Some(argv) = owner::argv(holder.pid).filter(|argv| !argv.is_empty()) {
            self.command = Some(operation::command_line(&argv, ""));
        }
    }

    /// Is the file at `path` this lock?
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let same = std::fs::symlink_metadata(path).is_ok_and(|found| key_of(&found) == self.inode);
        same && Birth::at(path).is_ok_and(|birth| birth == self.birth)
    }
}

fn is_of_ref(repo: &Repository, dir: &Path, name: &OsStr) -> bool {
    name == "HEAD.lock" || dir.strip_prefix(&repo.common_dir).is_ok_and(|below| below.starts_with("refs"))
}

/// The most directories that are watched in all repositories: other programs of the user need some, too.
fn most_of_all() -> usize {
    const USUAL: usize = 8_192;
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").unwrap_or_default();
        text.trim().parse().unwrap_or(USUAL) / SHARE
    })
}

fn key_of(found: &Metadata) -> Key {
    (found.dev(), found.ino())
}
