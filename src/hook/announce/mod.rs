//! Tells the watch that a git is at work: one datagram that waits for nobody.
//!
//! It is a hint: the watch looks for itself. What it cannot see is who holds a lock that git has closed already; there the word of
//! the hook counts for the file with the very identity that it names. The socket lies in a directory that only this user may enter,
//! who may take his own locks away without us. Where nobody listens, the first hook starts the watch ([`start`]).
//!
//! Limit: what a git locked before its first hook call the watch has to see by itself, in a repository that it knows.

pub(crate) mod address;
mod hindrance;
pub(crate) mod start;

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use crate::fs::FileId;
use crate::git::Repository;
use crate::process::owner::Process;
use crate::state::StateDir;
use crate::util::text::{escape, unescape};

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
    /// Locks that this git holds.
    pub(crate) locks: Vec<(PathBuf, FileId)>,
    /// Some of them may be another git's.
    pub(crate) doubtful: bool,
}

impl Announcement {
    /// A line of words, one with the path, one for each lock.
    fn encode(&self) -> Vec<u8> {
        use std::fmt::Write;
        let Process { pid, start } = self.git.unwrap_or(Process { pid: 0, start: 0 });
        let mut text = format!("1 {} {pid} {start} {}\n", self.kind.word(), u8::from(self.doubtful));
        text.extend([text_of(&self.common_dir).as_str(), "\n"]);
        for (path, id) in &self.locks {
            let [ino, size, mtime, ctime] = <[i64; 4]>::from(*id);
            writeln!(text, "{ino} {size} {mtime} {ctime} {}", text_of(path)).expect("writing to a string cannot fail");
        }
        text.into_bytes()
    }

    /// Reads what [`Announcement::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Announcement> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        let ["1", word, pid, start, doubtful] = lines.next()?.split(' ').collect::<Vec<_>>()[..] else { return None };
        let kind = [Kind::AtWork, Kind::LetGo].into_iter().find(|kind| kind.word() == word)?;
        let (pid, start) = (pid.parse().ok()?, start.parse().ok()?);
        let common_dir = path_of(lines.next()?)?;
        let git = (pid > 0).then_some(Process { pid, start });
        let locks = lines.map(lock_of).collect::<Option<_>>()?;
        Some(Announcement { kind, git, common_dir, locks, doubtful: doubtful == "1" })
    }

    fn send(&self, address: &Address) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to(&self.encode(), address.socket()).map(|_| ())
    }
}

/// Is anything to be announced? To be asked before anything is found out for it.
pub(crate) fn is_wanted(caller: &Caller, repo: &Repository) -> bool {
    caller.mode.unwrap_or_else(|| StateDir::of(repo).settings().watch).is_wanted()
}

/// Says that `git` is at work in `repo`, with these locks, and starts the watch where there is none. Never an error: it is needed
/// for nothing.
pub(crate) fn at_work(caller: &Caller, repo: &Repository, git: Process, locks: Vec<(PathBuf, FileId)>, doubtful: bool) {
    let common_dir = repo.common_dir.clone();
    announce(caller, repo, &Announcement { kind: Kind::AtWork, git: Some(git), common_dir, locks, doubtful });
}

/// Asks the watch to let go of `recovery.lock`.
pub(crate) fn let_go(caller: &Caller, repo: &Repository) {
    let common_dir = repo.common_dir.clone();
    let said = Announcement { kind: Kind::LetGo, git: None, common_dir, locks: Vec::new(), doubtful: false };
    announce(caller, repo, &said);
}

fn announce(caller: &Caller, repo: &Repository, said: &Announcement) {
    let Some(address) = caller.address() else { return };
    match said.send(&address) {
        // Nobody listens: there is no watch, or none any more.
        Err(e) if said.kind == Kind::AtWork && is_unheard(&e) => {
            start::start_if_wanted(caller, &address, StateDir::of(repo).settings().watch, &repo.common_dir);
        }
        // It has not read thousands of others yet, and looks at everything when it has.
        _ => {}
    }
}

fn is_unheard(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Is it a path that fits into the address of a socket?
fn fits_socket(path: &Path) -> bool {
    const LONGEST_ADDRESS: usize = 107;
    path.as_os_str().len() <= LONGEST_ADDRESS
}

fn text_of(path: &Path) -> String {
    escape(path.as_os_str().as_bytes()).into_owned()
}

fn path_of(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(unescape(text)?));
    path.is_absolute().then_some(path)
}

fn lock_of(line: &str) -> Option<(PathBuf, FileId)> {
    let mut words = line.splitn(5, ' ');
    let mut number = || words.next()?.parse::<i64>().ok();
    let id = FileId::from([number()?, number()?, number()?, number()?]);
    Some((path_of(words.next()?)?, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_understood_and_nothing_else() {
        let git = Process { pid: 7, start: 8 };
        for (kind, git) in [(Kind::AtWork, Some(git)), (Kind::LetGo, None)] {
            let common_dir = PathBuf::from(OsString::from_vec(b"/a\nb \xff/.git".to_vec()));
            let id = FileId { ino: 1, size: 2, mtime: 3, ctime: 4 };
            let locks = vec![(common_dir.join("HEAD.lock"), id), (common_dir.join("index.lock"), id)];
            let said = Announcement { kind, git, common_dir, locks, doubtful: kind == Kind::LetGo };
            assert_eq!(Announcement::decode(&said.encode()), Some(said));
        }
        for text in [
            "",
            "1 at-work 7 8 0",
            "1 at-work 7 8 0\nrelative",
            "2 at-work 7 8 0\n/a",
            "1 else 7 8 0\n/a",
            "1 at-work x 8 0\n/a",
        ] {
            assert_eq!(Announcement::decode(text.as_bytes()), None, "{text:?}");
        }
    }
}
