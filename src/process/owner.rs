//! Who makes a transaction, and is it still alive?
//!
//! A process is known by pid *and* start time (pids are reused), within one boot and one pid
//! namespace. Everything comes from `/proc`; where that shows nothing, the kernel is asked whether the pid is in use
//! (`kill` with signal 0, which sends none).
//!
//! Limit: Linux only. A process in a pid namespace that we cannot see into, that `/proc` hides from us, or that could not be
//! looked at (no file could be opened, say) is [`Liveness::Unknowable`] and treated as alive everywhere.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::process::credentials::{Location, Writers};
use crate::process::git_argv::{self, is_git_name};

pub(crate) use crate::process::credentials::is_gone;

/// The inode of the initial pid namespace (`PROC_PID_INIT_INO` in the kernel's `proc_ns.h`).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// How far up the process tree we look for git: hook managers put a few processes in between.
pub(super) const MAX_ANCESTORS: usize = 16;

/// A process, told from a later one with the same pid by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Process id, in the pid namespace of whoever wrote this down.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start: u64,
}

/// Boot, machine and pid namespace: where a [`Process`] means something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecContext {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Host name: information for people, never proof.
    pub host: String,
    /// Inode of the pid namespace.
    pub pidns: u64,
}

/// The process that makes a transaction, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process.
    #[serde(flatten)]
    pub process: Process,
    /// Where it runs.
    #[serde(flatten)]
    pub place: ExecContext,
}

/// What we know of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// It runs.
    Alive,
    /// It is gone (a zombie counts as gone: it runs nothing any more).
    Dead,
    /// We cannot see; treated as alive.
    Unknowable,
}

impl Liveness {
    /// Several processes are dead only when each of them is.
    #[must_use]
    pub fn and(self, other: Liveness) -> Liveness {
        use Liveness::{Alive, Dead, Unknowable};
        match (self, other) {
            (Dead, Dead) => Dead,
            (Alive, _) | (_, Alive) => Alive,
            (Unknowable, _) | (_, Unknowable) => Unknowable,
        }
    }
}

/// The fields of `/proc/PID/stat` that we use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Process id.
    pub pid: u32,
    /// The kernel's name for it: the first 15 bytes of the executable's name.
    pub comm: String,
    /// One letter: `R`, `S`, `Z`, ...
    pub state: char,
    /// Parent's pid; 0 when the parent is outside of our pid namespace.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Kernel flags of the process (`PF_KTHREAD` and so on).
    pub flags: u64,
    /// Start time in clock ticks since boot.
    pub start: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat`; `None` when nothing can be learned from it. Whose death matters is [looked](Stat::look) for.
    pub(crate) fn of(pid: u32) -> Option<Stat> {
        Self::look(pid).ok().flatten()
    }

    /// Reads `/proc/PID/stat`; `None` when there is certainly no such process.
    pub(crate) fn look(pid: u32) -> io::Result<Option<Stat>> {
        let path = format!("/proc/{pid}/stat");
        match read_proc(&path) {
            Ok(text) => Self::parse(&String::from_utf8_lossy(&text))
                .map(Some)
                .ok_or_else(|| io::Error::other(format!("{path} is not what it was thought to be"))),
            Err(error) if is_gone(&error) => {
                // `/proc` may hide what belongs to other users.
                let asked = i32::try_from(pid).ok().and_then(Pid::from_raw).map(rustix::process::test_kill_process);
                match asked {
                    None | Some(Err(rustix::io::Errno::SRCH)) => Ok(None),
                    Some(_) => Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{path} is hidden"))),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The command name stands in parentheses and may hold anything, `)` and spaces included.
    fn parse(text: &str) -> Option<Stat> {
        let (open, close) = (text.find('(')?, text.rfind(')')?);
        let mut rest = text.get(close + 2..)?.split(' ');
        let pid = text.get(..open)?.trim().parse().ok()?;
        let state = rest.next()?.chars().next()?;
        // A process that is reaped while this is read has -1 for both.
        let id = |field: &str| field.parse::<i64>().ok().map(|id| u32::try_from(id).unwrap_or(0));
        let parent = id(rest.next()?)?;
        let group = id(rest.next()?)?;
        let flags = rest.nth(3)?.parse().ok()?;
        let start = rest.nth(12)?.parse().ok()?;
        Some(Stat { pid, comm: text.get(open + 1..close)?.to_owned(), state, parent, group, flags, start })
    }

    /// Zombies and processes being torn down (`PF_EXITING`) execute nothing any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') || self.flags & 0x4 != 0
    }

    /// `PF_KTHREAD`: the kernel's own threads hold no lock files.
    pub(crate) fn is_kernel_thread(&self) -> bool {
        self.flags & 0x0020_0000 != 0
    }

    /// Does `process` live, or is that unknown?
    pub(crate) fn may_live(process: Process) -> bool {
        let is_it = |stat: Option<Stat>| stat.is_some_and(|stat| stat.start == process.start && !stat.is_gone());
        Self::look(process.pid).map_or(true, is_it)
    }

    /// The process that this describes.
    pub(crate) fn process(&self) -> Process {
        Process { pid: self.pid, start: self.start }
    }
}

/// What was found in `/proc/PID`; `None` when the process is gone, or does not let us look.
pub(crate) fn unless_hidden<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        found => found.map(Some),
    }
}

/// The arguments of a process, as far as they can be read.
pub(crate) fn argv(pid: u32) -> Option<Vec<String>> {
    read_argv(pid).ok()
}

pub(super) fn read_argv(pid: u32) -> io::Result<Vec<String>> {
    let raw = read_proc(&format!("/proc/{pid}/cmdline"))?;
    let args = raw.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned());
    let mut args: Vec<String> = args.collect();
    if args.last().is_some_and(String::is_empty) {
        args.pop();
    }
    Ok(args)
}

/// The files below `dir` that others have open, as far as we may look.
pub(crate) fn open_below(dir: &Path) -> HashSet<PathBuf> {
    let others = all_pids().unwrap_or_default().into_iter().filter(|pid| *pid != std::process::id());
    let open = others.filter_map(|pid| open_files(pid).ok()).flatten().map(|(_, path)| path);
    open.filter(|path| path.starts_with(dir)).collect()
}

/// What a process has open: a link to each file, and its path. Of who is gone, or does not let us look, nothing.
pub(crate) fn open_files(pid: u32) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut open = Vec::new();
    for entry in unless_hidden(fs::read_dir(format!("/proc/{pid}/fd")))?.into_iter().flatten() {
        let Some(link) = unless_hidden(entry)?.map(|entry| entry.path()) else { break };
        match unless_hidden(fs::read_link(&link)) {
            Ok(path) => open.extend(path.map(|path| (link, path))),
            // Longer than a page: nobody can name such a file, so it is none of ours.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NAMETOOLONG.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(open)
}

impl ExecContext {
    /// The same, whatever the machine is called by now?
    #[must_use]
    pub fn is_same(&self, other: &ExecContext) -> bool {
        (&self.boot, self.pidns) == (&other.boot, other.pidns)
    }

    /// Where this process runs.
    ///
    /// # Errors
    /// `/proc` is not mounted or not readable.
    pub fn here() -> io::Result<ExecContext> {
        Ok(ExecContext { boot: boot_id()?, host: host(), pidns: pid_namespace("self")? })
    }

    /// Do we see every process of this machine? Only from the initial pid namespace.
    #[must_use]
    pub fn sees_everything(&self) -> bool {
        // A `/proc` that hides other users' processes hides the first one, too.
        self.pidns == INITIAL_PID_NAMESPACE && Stat::of(1).is_some()
    }
}

/// The id of this boot.
pub(crate) fn boot_id() -> io::Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    /// No process outlives its boot.
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(id) = KNOWN.get() {
        return Ok(id.clone());
    }
    let wrong = |why: String| io::Error::other(format!("{PATH}: {why}"));
    let id = read_proc(PATH).map_err(|e| wrong(e.to_string()))?;
    let id = std::str::from_utf8(&id).map_or("", str::trim_end);
    let plausible = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if plausible {
        Ok(KNOWN.get_or_init(|| id.to_owned()).clone())
    } else {
        Err(wrong("this is not a boot id".to_owned()))
    }
}

/// Reads a file of `/proc`, which has no size to go by: at once if it is small, as most are.
fn read_proc(path: &str) -> io::Result<Vec<u8>> {
    const MOST: usize = 512;
    let mut file = File::open(path)?;
    let mut text = vec![0; MOST];
    let len = file.read(&mut text)?;
    text.truncate(len);
    // A short answer is a whole one.
    if len == MOST {
        file.read_to_end(&mut text)?;
    }
    Ok(text)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn pid_namespace(pid: &str) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/{pid}/ns/pid"))?.ino())
}

/// Does a process live in our namespaces, as far as that can be seen?
pub(crate) fn shares_namespaces(process: Process) -> bool {
    ["pid", "mnt"].iter().all(|kind| {
        let inode = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/{kind}")).map(|found| found.ino());
        inode(&process.pid.to_string()).ok().is_none_or(|its| inode("self").is_ok_and(|ours| ours == its))
    })
}

/// This process.
pub(crate) fn myself() -> io::Result<Process> {
    const PATH: &str = "/proc/self/stat";
    let text = crate::fs::named::at(std::path::Path::new(PATH), read_proc(PATH))?;
    let stat = Stat::parse(&String::from_utf8_lossy(&text)).filter(|stat| stat.pid == std::process::id());
    stat.map(|stat| stat.process()).ok_or_else(|| io::Error::other("/proc shows another pid namespace than ours"))
}

/// The process that started this one; 0 when it is outside of our pid namespace.
pub(crate) fn parent() -> u32 {
    rustix::process::getppid().map_or(0, |p| p.as_raw_nonzero().get().unsigned_abs())
}

/// The ancestors of this process, nearest first.
pub(crate) fn ancestors() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    let mut pid = parent();
    while pid > 0 && found.len() < MAX_ANCESTORS {
        let Some(stat) = unless_hidden(Stat::look(pid))?.flatten() else { break };
        pid = stat.parent;
        found.push(stat);
    }
    Ok(found)
}

/// By the kernel's name or by `argv[0]` (a wrapper may have renamed the file), unless the program is readably
/// something else: a hook manager that is a script called `git-...`.
pub(crate) fn may_be_git(stat: &Stat) -> bool {
    is_git(stat, argv(stat.pid).as_deref())
}

/// One whose arguments cannot be read may be git.
pub(super) fn is_git(stat: &Stat, argv: Option<&[String]>) -> bool {
    let by_argv = || argv.is_none_or(|argv| argv.first().is_some_and(|name| is_git_name(name)));
    let loaded = argv.is_some_and(|argv| git_argv::behind_loader(argv).len() < argv.len());
    let named = is_git_name(&stat.comm) || by_argv() || loaded;
    let program = || fs::read_link(format!("/proc/{}/exe", stat.pid));
    // A wrapper keeps the real one beside itself as `.git-wrapped`; of another machine's programs an emulator is run, and some
    // are run by a loader that is named.
    let is_its = |name: &str| {
        let is_git = name.trim_start_matches('.').starts_with("git");
        is_git || name.starts_with("qemu-") || (loaded && git_argv::is_loader(name))
    };
    named && program().map_or(true, |exe| exe.file_name().is_none_or(|name| is_its(&name.to_string_lossy())))
}

impl Owner {
    /// Is the process still there, seen from `here`?
    ///
    /// Another boot id proves death only on a file system that no other machine can mount at the same time.
    #[must_use]
    pub fn liveness(&self, process: Process, here: &ExecContext, repository: &Location) -> Liveness {
        if self.place.boot != here.boot {
            return if repository.local_disk { Liveness::Dead } else { Liveness::Unknowable };
        }
        if self.place.pidns == here.pidns {
            return liveness_here(process);
        }
        // A foreign pid namespace: its pids mean nothing to us. It is dead for certain only when we see
        // every process of the machine and none is a member.
        if here.sees_everything() && namespace_is_dead(self.place.pidns, process.start, &repository.writers()) {
            return Liveness::Dead;
        }
        Liveness::Unknowable
    }
}

fn liveness_here(process: Process) -> Liveness {
    match Stat::look(process.pid) {
        Ok(Some(stat)) if stat.start == process.start && !stat.is_gone() => Liveness::Alive,
        Ok(_) => Liveness::Dead,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Liveness::Unknowable,
        // Not even a human who vouches for what we may not see knows that.
        Err(_) => Liveness::Alive,
    }
}

/// Is the namespace dead that had a process which started at `since`? Its first process started no later and
/// lives as long as the namespace: members that all started later belong to a new one with a reused inode.
fn namespace_is_dead(pidns: u64, since: u64, writers: &Writers) -> bool {
    let is_over = |pid| Stat::look(pid).is_ok_and(|stat| stat.is_none_or(|stat| stat.start > since || stat.is_gone()));
    // What has ended is no member, nor a zombie, into which only root may look; what we may not, or cannot, look into might be.
    let is_no_member = |pid: u32| match pid_namespace(&pid.to_string()) {
        Ok(inode) if inode != pidns => true,
        Ok(_) => is_over(pid),
        Err(error) => is_gone(&error) || is_over(pid) || writers.exclude(pid),
    };
    all_pids().is_ok_and(|pids| pids.into_iter().filter(|pid| is_nested(*pid)).all(is_no_member))
}

/// Does the process live in a pid namespace below ours? `NSpid` has a pid for each level, and anybody may read it.
fn is_nested(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let levels = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    levels.is_none_or(|pids| pids.split_ascii_whitespace().count() > 1)
}

/// Is this the program that we are, whatever it runs as?
pub(crate) fn is_ourselves(pid: u32) -> bool {
    is_same_as_ours(pid, "exe")
}

/// Does a link in `/proc/PID` (`exe`, `cwd`) lead to the same as ours?
pub(super) fn is_same_as_ours(pid: u32, link: &str) -> bool {
    let id = |pid: &str| fs::metadata(format!("/proc/{pid}/{link}")).map(|m| (m.dev(), m.ino()));
    id(&pid.to_string()).ok().zip(id("self").ok()).is_some_and(|(its, ours)| its == ours)
}

/// All pids that `/proc` shows.
pub(crate) fn all_pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// Realtime (Unix epoch, nanoseconds) of a start time in clock ticks since boot. The true start lies at
/// most one tick (10 ms) later.
pub(crate) fn realtime_of_start(start: u64) -> i64 {
    let booted = crate::util::clock::clock_offset();
    let tick = 1_000_000_000 / i64::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
    booted + i64::try_from(start).unwrap_or(i64::MAX / tick) * tick
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(local_disk: bool) -> Location {
        Location { directory: PathBuf::from("/"), local_disk }
    }

    #[test]
    fn a_command_name_with_parentheses_and_spaces_is_parsed() {
        let line = "42 (a) b) S 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.comm.as_str(), stat.parent, stat.start), (42, "a) b", 7, 9876));
    }

    #[test]
    fn a_process_that_is_reaped_while_it_is_looked_at_is_gone() {
        let line = "42 (git) X -1 -1 -1 0 -1 4228108 1 2 3 4 5 6 7 8 20 0 0 0 9876 0 0 0";
        assert!(Stat::parse(line).unwrap().is_gone());
    }

    #[test]
    fn several_processes_are_dead_only_when_each_is() {
        use Liveness::{Alive, Dead, Unknowable};
        for (a, b, both) in [
            (Dead, Dead, Dead),
            (Dead, Alive, Alive),
            (Alive, Dead, Alive),
            (Unknowable, Dead, Unknowable),
            (Unknowable, Alive, Alive),
        ] {
            assert_eq!(a.and(b), both, "{a:?} and {b:?}");
        }
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let here = ExecContext::here().unwrap();
        let me = myself().unwrap();
        let owner = Owner { process: me, place: here.clone() };
        assert_eq!(owner.liveness(me, &here, &local(true)), Liveness::Alive);
        let earlier = Process { start: me.start.wrapping_sub(1), ..me };
        assert_eq!(owner.liveness(earlier, &here, &local(true)), Liveness::Dead, "same pid, another start time");
    }

    #[test]
    fn another_boot_proves_death_only_on_a_local_disk() {
        let here = ExecContext::here().unwrap();
        let me = myself().unwrap();
        let place = ExecContext { boot: "00000000-0000-0000-0000-000000000000".into(), ..here.clone() };
        let owner = Owner { process: me, place };
        assert_eq!(owner.liveness(me, &here, &local(true)), Liveness::Dead);
        assert_eq!(
            owner.liveness(me, &here, &local(false)),
            Liveness::Unknowable,
            "a network disk may be in use elsewhere"
        );
    }
}
