//! The watch: one process for each user, that is there when a git dies.
//!
//! git calls no hook before it takes `index.lock`, and before 2.54 none before it locks anything. Killed there, it leaves a lock
//! and nobody who would look. The watch has seen it: it takes the lock away when the process that held it is dead.
//!
//! ```text
//! hook ── announcement ──┐                           ┌── due: busy before, or a lock to look at again
//! name of a lock appears ┼──▶ who holds it? pidfd ──▶ a process ended ──▶ look ──▶ recover, in a child
//! note of a repository ──┘     (locks::seen)                                        (as a hook after a transaction)
//! ```
//! - *A lock is taken only if* its holder was seen while it lived, or a marker of the dead names it; and every such process is
//!   dead; and it is still the same file ([`crate::locks::proof`]).
//! - It acts only where this user has a note that fits. What it is told is a hint.
//! - Recovery runs in a child: it may be killed anywhere, and is when a hook asks for the lock that a check after a reboot holds.
//! - It keeps nothing open in a repository, and while nothing happens it makes no system call.
//! - It is needed for nothing: without it, everything else holds as before.
//! - *One that a hook has started is short-lived and belongs to its surroundings*: it looks after the repositories whose gits have
//!   spoken to it, in the namespaces and with the rights of that hook ([`crate::hook::announce::address`]), and it ends soon after
//!   the last of these gits. Whoever waits until it is gone (the first process of a container, the end of a session, an unmount of
//!   its program) waits no longer than that. One that a person or systemd has started stays, and looks after every repository that
//!   the user has protected.
//!
//! Limits: a holder that opened and closed its lock before anybody looked is not seen, and its lock stays, as it would without the
//! watch. Repositories on network file systems are not watched. Files of a run or of an `apply` are left to a command.

mod detach;
mod events;
mod ground;
mod job;
mod lifetime;
mod look;
mod names;
mod repositories;
mod server;
pub(crate) mod status;

pub(crate) use detach::detach;
pub(crate) use ground::Term;
pub(crate) use job::{Request, recover};
pub(crate) use server::serve;
