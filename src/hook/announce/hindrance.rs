//! What this process would hand on to a watch that it starts, or who would wait for that: reasons to start none.
//!
//! The watch belongs where the first process of the pid namespace lives: it keeps the mounts of its namespace busy, so one in a
//! namespace of its own (`unshare -m`, bubblewrap, a chroot) would hinder whoever wants to unmount there. In a container both
//! namespaces are its own, and it starts.
//!
//! Asked only where none runs and none was tried a moment ago, never on the way of a git that goes on.

use std::fs;

use rustix::process::Resource;
use serde::Deserialize;

use crate::fs::durable;
use crate::hook::announce::Address;
use crate::process::owner::{self, ExecContext, Stat};

/// Why this process must not start a watch, for people. `is_auto`: nobody has said that it is wanted in any case.
pub(super) fn of_this_process(is_auto: bool) -> Option<&'static str> {
    if is_traced() {
        return Some("a tracer or debugger follows this process, and would wait for it");
    }
    if [Resource::Cpu, Resource::Fsize, Resource::As].into_iter().any(is_limited) {
        return Some("processor time, file size or memory of this process is limited (`ulimit -t`, `-f`, `-v`)");
    }
    if rustix::process::getpriority_process(None).is_ok_and(|niceness| niceness > 0) {
        return Some("this process has a low priority (`nice`)");
    }
    if !shares_mounts() {
        return Some(
            "this process has mounts of its own (`unshare -m`, a sandbox, a chroot), which it would keep busy",
        );
    }
    (is_auto && is_sandboxed()).then_some("this process is in a sandbox (`jin.watch=on` starts it there, too)")
}

/// Why another watch must not follow the last one in a container, for people: it has ended, and the first process has not taken note
/// of that. Each further one would leave a zombie, too.
pub(super) fn of_the_last(address: &Address) -> Option<&'static str> {
    const LONGEST: u64 = 64 << 10;
    /// The part of [`crate::watch::status::Status`] that says which process it was.
    #[derive(Deserialize)]
    struct Last {
        pid: u32,
        start: u64,
    }
    // The machine's own first process collects all of them, if late.
    if ExecContext::here().is_ok_and(|here| here.sees_everything()) {
        return None;
    }
    let text = durable::read_own(&address.status(), LONGEST).ok()?;
    let last: Last = serde_json::from_slice(&text).ok()?;
    let stat = Stat::of(last.pid).filter(|stat| stat.start == last.start && stat.state == 'Z')?;
    (stat.parent == 1).then_some("the first process here does not collect orphaned processes that have ended")
}

fn is_limited(resource: Resource) -> bool {
    rustix::process::getrlimit(resource).current.is_some()
}

/// Is this process, or one above it, traced?
fn is_traced() -> bool {
    let above = owner::ancestors().unwrap_or_default().into_iter().map(|stat| stat.pid);
    std::iter::once(std::process::id()).chain(above).any(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    })
}

/// Is the root directory mounted here what it is for the first process? The number of a mount is another one in each namespace, and
/// anybody may read it.
fn shares_mounts() -> bool {
    root_mount("self").is_some_and(|here| root_mount("1") == Some(here))
}

fn root_mount(pid: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?;
    let is_root = |line: &&str| line.split(' ').nth(4) == Some("/");
    text.lines().rfind(is_root).and_then(|line| line.split(' ').next()).map(str::to_owned)
}

/// A process that must not gain privileges, in the machine's own namespaces; or bubblewrap is the first process, which waits for
/// all others.
fn is_sandboxed() -> bool {
    let first = fs::read("/proc/1/comm").unwrap_or_default();
    let on_host = ExecContext::here().is_ok_and(|here| here.sees_everything());
    first.starts_with(b"bwrap") || (on_host && rustix::thread::no_new_privs().unwrap_or(false))
}
