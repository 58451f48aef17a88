//! The only git that can have made a lock which nobody has open.
//!
//! git closes the lock of a ref as soon as it is written. One that dies before its hook is called leaves a lock that nobody was
//! seen with. While that git lives, everybody else can be excluded: it is the only git that works in this repository and does
//! not wait for a child, and no other program has its directory, or anything open, in the repository or its worktrees. Shells
//! without anything open, the git's own process group, what it has started and what has started it do not count.
//!
//! That is weaker than a file that was seen open: the lock goes only if nobody is left who could hold it, as well.
//!
//! Only names are compared, and no file of another process is looked at: a network file system that does not answer stops nobody.
//!
//! Limit: a git that dies within 20 ms of taking such a lock is not looked at in time. A program that takes a lock, closes it, and
//! has neither its directory nor a file here is not seen.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::git::Repository;
use crate::process::credentials::Writers;
use crate::process::owner::{self, ExecContext, Process, Stat};

/// With more processes than that nobody is looked for: it would take too long, each time that git makes a lock.
const MOST_PROCESSES: usize = 1_000;

/// Programs that keep no lock of git's themselves.
const SHELLS: [&str; 9] = ["ash", "bash", "csh", "dash", "fish", "ksh", "sh", "tcsh", "zsh"];

/// The system call of a process that waits for its children.
#[cfg(target_arch = "x86_64")]
const WAIT: &str = "61";
#[cfg(not(target_arch = "x86_64"))]
const WAIT: &str = "260";

/// What words lead a git to a repository that its directory does not tell.
const LEADING: [&[u8]; 5] = [b"GIT_DIR=", b"GIT_WORK_TREE=", b"GIT_COMMON_DIR=", b"--git-dir", b"--work-tree"];

/// The git that works in `repo` at this moment, if it is the only process that could have made a lock there.
pub(crate) fn sole_git(repo: &Repository) -> Option<Stat> {
    let pids = owner::all_pids().ok().filter(|pids| pids.len() <= MOST_PROCESSES)?;
    if !ExecContext::here().is_ok_and(|here| here.sees_everything()) {
        return None;
    }
    let (places, writers) = (places(repo), Writers::of(&repo.common_dir));
    let ours = fs::read_link("/proc/self/exe").ok()?;
    let (mut gits, mut others, mut parents) = (Vec::new(), Vec::new(), HashMap::new());
    for pid in pids {
        let Some(stat) = Stat::of(pid).filter(|stat| !stat.is_gone() && !stat.is_kernel_thread()) else { continue };
        parents.insert(pid, stat.parent);
        let Use { here, open } = match used(pid, &places) {
            Ok(used) => used,
            // Who may not write here cannot have made it.
            Err(_) if !writers.include(pid) => continue,
            Err(_) => return None,
        };
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if program == ours {
            continue;
        }
        if owner::may_be_git(&stat) {
            if here || open {
                gits.push(stat);
            } else if is_led(pid) {
                return None;
            }
        } else if open || (here && !is_shell(&program)) {
            others.push((pid, stat.group));
        }
    }
    let mut working = gits.iter().filter(|git| !waits(git.pid));
    let sole = working.next().filter(|_| working.next().is_none())?.clone();
    let is_below = |pid: u32, above: u32| chain(pid, &parents).any(|it| it == above);
    // What a killed git of the same job has left running is of its group.
    let is_related = |(other, group): &(u32, u32)| {
        *group == sole.group || is_below(sole.pid, *other) || gits.iter().any(|git| is_below(*other, git.pid))
    };
    others.iter().all(is_related).then_some(sole)
}

/// The gits that work in `repo` at this moment, as far as they can be seen: who is in the way of a recovery.
pub(crate) fn gits_at_work(repo: &Repository) -> Vec<Process> {
    let places = places(repo);
    let pids = owner::all_pids().unwrap_or_default();
    let gits = pids.into_iter().filter_map(Stat::of).filter(|stat| !stat.is_gone() && owner::may_be_git(stat));
    let here = gits.filter(|git| used(git.pid, &places).is_ok_and(|used| used.here || used.open));
    here.map(|git| git.process()).collect()
}

/// A process and those above it.
fn chain(pid: u32, parents: &HashMap<u32, u32>) -> impl Iterator<Item = u32> {
    const LONGEST: usize = 64;
    std::iter::successors(Some(pid), |pid| parents.get(pid).copied().filter(|pid| *pid > 0)).take(LONGEST)
}

/// The git directory, and the worktrees.
fn places(repo: &Repository) -> Vec<PathBuf> {
    let main = repo.common_dir.parent().filter(|_| repo.common_dir.ends_with(".git")).map(Path::to_owned);
    let linked = fs::read_dir(repo.common_dir.join("worktrees")).into_iter().flatten().flatten();
    let linked = linked.filter_map(|entry| fs::read(entry.path().join("gitdir")).ok());
    let linked = linked.filter_map(|path| {
        let path = Path::new(std::ffi::OsStr::from_bytes(path.trim_ascii_end()));
        path.parent().map(Path::to_owned)
    });
    std::iter::once(repo.common_dir.clone()).chain(main).chain(linked).collect()
}

/// What a process has to do with a repository.
struct Use {
    /// Its current directory is there.
    here: bool,
    /// It has something open there.
    open: bool,
}

fn used(pid: u32, places: &[PathBuf]) -> io::Result<Use> {
    let is_there = |path: &Path| places.iter().any(|place| path.starts_with(place));
    let here = match fs::read_link(format!("/proc/{pid}/cwd")) {
        Err(e) if owner::is_gone(&e) => return Ok(Use { here: false, open: false }),
        found => is_there(&found?),
    };
    // Its own directory and streams are those of whoever has started it.
    let open = owner::open_files(pid)?.iter().any(|(_, path)| is_there(path));
    Ok(Use { here, open })
}

fn is_led(pid: u32) -> bool {
    let has = |file: &str| {
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        text.split(|b| *b == 0).any(|word| LEADING.iter().any(|leading| word.starts_with(leading)))
    };
    has("environ") || has("cmdline")
}

fn is_shell(program: &Path) -> bool {
    program.file_name().and_then(|name| name.to_str()).is_some_and(|name| SHELLS.contains(&name))
}

fn waits(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(WAIT)
}
