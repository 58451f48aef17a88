//! What a process that a hook has started must not keep of git's: descriptors, ignored signals, the session.

use std::fs::{self, OpenOptions};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{Resource, Rlimit};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// Descriptors from here up are somebody else's: a run's lock, a pipe that a parent waits for.
const FIRST_FOREIGN: i32 = 3;

/// Leaves everything behind that was inherited. To be called first, before anything is opened.
pub(crate) fn detach() -> io::Result<()> {
    close_foreign()?;
    if rustix::process::setsid().is_err() {
        // It leads a process group, and so a session of its own or a shell's job: a person has started it.
    }
    // The last that is left: whoever has started this waits for it.
    rustix::stdio::dup2_stdout(OpenOptions::new().write(true).open("/dev/null")?)?;
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::new(AtomicBool::new(true)))?;
    }
    Ok(())
}

/// Ignored, as some parents leave it, nobody would hear of the end of a child. A handler is not inherited, and that it is ignored is.
pub(crate) fn hear_of_children() -> io::Result<()> {
    signal_hook::flag::register(SIGCHLD, Arc::new(AtomicBool::new(false)))?;
    Ok(())
}

/// Lets this process have more files open than most programs need.
pub(crate) fn raise_limit() {
    const WANTED: u64 = 4096;
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(WANTED, |most| most.min(WANTED));
    if current.is_some_and(|current| current < wanted) {
        let new = Rlimit { current: Some(wanted), maximum };
        if rustix::process::setrlimit(Resource::Nofile, new).is_err() {
            // Fewer processes are waited for at once.
        }
    }
}

fn close_foreign() -> io::Result<()> {
    let names = fs::read_dir("/proc/self/fd")?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let foreign: Vec<i32> =
        names.filter_map(|name| name.parse().ok()).filter(|descriptor| *descriptor >= FIRST_FOREIGN).collect();
    for descriptor in foreign {
        if nix::unistd::close(descriptor).is_err() {
            // The one with which the directory was read.
        }
    }
    Ok(())
}
