//! Tells the watch that a git is at work: one datagram that waits for nobody.
//!
//! A datagram is a hint, never evidence: the watch looks for itself. Its socket lies in a directory that only this user may
//! enter. Where nobody listens, the first hook starts the watch ([`start`]).
//!
//! Limit: a git that is announced has come to its first logged transaction. What it locked before (`index.lock`) the watch has to
//! see by itself, in a repository that it knows.

pub(crate) mod address;
pub(crate) mod start;

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use crate::git::Repository;
use crate::process::owner::Process;
use crate::state::{StateDir, WatchMode};

pub(crate) use address::Address;
pub(crate) use start::Caller;

/// The most that a datagram has.
pub(crate) const LONGEST: usize = 8 << 10;

/// What is said to the watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A git is at work.
    AtWork,
    /// A hook needs what a check after a reboot keeps locked.
    LetGo,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::AtWork => "at-work",
            Kind::LetGo => "let-go",
        }
    }
}

/// One datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// What is said.
    pub(crate) kind: Kind,
    /// The git, in the pid namespace of the sender, which has its own watch.
    pub(crate) git: Option<Process>,
    /// The common directory.
    pub(crate) common_dir: PathBuf,
}

impl Announcement {
    /// A line of words, then the path.
    fn encode(&self) -> Vec<u8> {
        let Process { pid, start } = self.git.unwrap_or(Process { pid: 0, start: 0 });
        let mut bytes = format!("1 {} {pid} {start}\n", self.kind.word()).into_bytes();
        bytes.extend_from_slice(self.common_dir.as_os_str().as_bytes());
        bytes
    }

    /// Reads what [`Announcement::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Announcement> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let (line, path) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]);
        let ["1", word, pid, start] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
        let kind = [Kind::AtWork, Kind::LetGo].into_iter().find(|kind| kind.word() == word)?;
        let (pid, start) = (pid.parse().ok()?, start.parse().ok()?);
        let common_dir = PathBuf::from(OsString::from_vec(path.to_vec()));
        let git = (pid > 0).then_some(Process { pid, start });
        common_dir.is_absolute().then_some(Announcement { kind, git, common_dir })
    }

    fn send(&self, address: &Address) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to(&self.encode(), address.socket()).map(|_| ())
    }
}

/// Says that `git` is at work in `repo`, and starts the watch where there is none. Never an error: it is needed for nothing.
pub(crate) fn at_work(caller: &Caller, repo: &Repository, git: Process) {
    announce(caller, repo, Kind::AtWork, Some(git));
}

/// Asks the watch to let go of `recovery.lock`.
pub(crate) fn let_go(caller: &Caller, repo: &Repository) {
    announce(caller, repo, Kind::LetGo, None);
}

fn announce(caller: &Caller, repo: &Repository, kind: Kind, git: Option<Process>) {
    if caller.mode == Some(WatchMode::Off) {
        return;
    }
    let Some(address) = caller.address() else { return };
    let announcement = Announcement { kind, git, common_dir: repo.common_dir.clone() };
    match announcement.send(&address) {
        // Nobody listens: there is no watch, or none any more.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            if kind == Kind::AtWork {
                start::start_if_wanted(caller, &address, StateDir::of(repo).settings().watch);
            }
        }
        // It has not read thousands of others yet, and looks at everything when it has.
        _ => {}
    }
}

/// Is it a path that fits into the address of a socket?
fn fits_socket(path: &Path) -> bool {
    const LONGEST_ADDRESS: usize = 107;
    path.as_os_str().len() <= LONGEST_ADDRESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_understood_and_nothing_else() {
        let git = Process { pid: 7, start: 8 };
        for (kind, git) in [(Kind::AtWork, Some(git)), (Kind::LetGo, None)] {
            let common_dir = PathBuf::from(OsString::from_vec(b"/a\nb \xff/.git".to_vec()));
            let said = Announcement { kind, git, common_dir };
            assert_eq!(Announcement::decode(&said.encode()), Some(said));
        }
        for text in ["", "1 at-work 7 8", "1 at-work 7 8\nrelative", "2 at-work 7 8\n/a", "1 else 7 8\n/a", "1 at-work x 8\n/a"] {
            assert_eq!(Announcement::decode(text.as_bytes()), None, "{text:?}");
        }
    }
}
