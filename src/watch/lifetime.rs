//! When the watch ends by itself: its place goes, its program is replaced, somebody else would wait for it, its last git is gone.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use crate::fs::durable;
use crate::hook::announce::start::Tried;
use crate::process::owner::{self, Stat};
use crate::watch::events::Happened;
use crate::watch::server::Server;

impl Server<'_> {
    /// Has a program adopted this process that is neither the first one nor a service manager? It may wait until it has no child
    /// any more. Who adopts orphans shows when the hook has ended that started this.
    pub(super) fn is_adopted(&mut self) -> bool {
        let Some(hook) = self.ground.started_by else { return false };
        // While it ends it is the parent still, and has no program any more. Its children have another parent before its end is told.
        if owner::parent() == hook {
            let lives = Stat::of(hook).is_some_and(|stat| self.events.wait_for(stat.process()));
            if lives || owner::parent() == hook {
                return false;
            }
        }
        self.ground.started_by = None;
        let is_adopted = !is_manager(owner::parent());
        if is_adopted && Tried::note(self.address, Tried::ADOPTED).is_err() {
            // Then it is tried again.
        }
        is_adopted
    }

    /// Has somebody taken away the directory, the socket or the lock? Then no hook finds it any more, and another one may start.
    pub(super) fn has_lost_its_place(&self, happened: &Happened) -> bool {
        let of_own = happened.files.iter().any(|event| event.watched == self.own_directory);
        let is_there = || {
            let socket = std::fs::symlink_metadata(self.address.socket());
            socket.is_ok() && self.ground.is_locked_at(&self.address.lock())
        };
        of_own && !is_there()
    }

    /// When it is to end if nothing happens until then.
    pub(super) fn end(&self) -> Option<Instant> {
        let until_idle = self.ground.term.until_idle?;
        // Of a process that could not be waited for the end is not told: it is looked at now and then.
        Some(if self.is_idle() { self.heard } else { Instant::now() } + until_idle)
    }

    /// Have all gits ended long ago?
    pub(super) fn is_forgotten(&mut self) -> bool {
        if self.ground.term.until_idle.is_none_or(|until_idle| self.heard.elapsed() < until_idle) {
            return false;
        }
        self.at_work.retain(|process, _| Stat::may_live(*process));
        self.is_idle()
    }

    /// Has the program been replaced, or removed, while nothing is in work?
    pub(super) fn is_outdated(&self) -> bool {
        self.is_idle() && self.ground.is_replaced()
    }

    fn is_idle(&self) -> bool {
        self.job.is_none() && self.at_work.is_empty() && self.unchecked.is_empty()
    }

    /// Becomes the new program, with the same arguments; ends where there is none. The lock goes with this one.
    pub(super) fn become_new(&self) {
        let arguments: Vec<_> = std::env::args_os().collect();
        let error = Command::new(&self.ground.program).args(arguments.get(1..).unwrap_or_default()).exec();
        if error.kind() == io::ErrorKind::NotFound && durable::remove_file(&self.address.socket()).is_err() {
            // Removed: a socket to which nobody listens says the same.
        }
    }
}

/// The first process, or the service manager of a user.
fn is_manager(pid: u32) -> bool {
    let argv = || owner::argv(pid).unwrap_or_default();
    let is_user_manager = || {
        let argv = argv();
        argv.first().is_some_and(|name| name.ends_with("systemd")) && argv.iter().any(|word| word == "--user")
    };
    pid == 0 || pid == 1 || is_user_manager()
}
