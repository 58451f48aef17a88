//! Everything that the watch waits for, behind one `epoll`: announcements, names in directories, the ends of processes.
//!
//! Nothing is asked in turns: while nothing happens, the kernel does not wake it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::hook::announce::{Announcement, LONGEST};
use crate::process::owner::{Process, Stat};

/// A directory that is watched.
pub(crate) type Watched = i32;

/// The most processes that are waited for at once.
const MOST_PROCESSES: usize = 800;

/// How many announcements are read before something is done about them.
const BATCH: usize = 64;

const SOCKET: u64 = 0;
const FILES: u64 = 1;
const FIRST_PROCESS: u64 = 2;

/// What happened to a name in a directory.
#[derive(Debug)]
pub(crate) struct FileEvent {
    /// The directory.
    pub(crate) watched: Watched,
    /// What happened.
    pub(crate) what: ReadFlags,
    /// The name; none when it is about the directory itself.
    pub(crate) name: OsString,
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Happened {
    pub(crate) announced: Vec<Announcement>,
    pub(crate) files: Vec<FileEvent>,
    pub(crate) ended: Vec<Process>,
    /// Some of it may be missing: everything is looked at once.
    pub(crate) overflow: bool,
}

/// What is waited for.
pub(crate) struct Events {
    epoll: OwnedFd,
    socket: UnixDatagram,
    files: OwnedFd,
    processes: HashMap<u64, (Process, OwnedFd)>,
    next: u64,
}

impl Events {
    pub(crate) fn new(socket: UnixDatagram) -> io::Result<Events> {
        socket.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let files = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        epoll::add(&epoll, &socket, epoll::EventData::new_u64(SOCKET), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &files, epoll::EventData::new_u64(FILES), epoll::EventFlags::IN)?;
        Ok(Events { epoll, socket, files, processes: HashMap::new(), next: FIRST_PROCESS })
    }

    /// Watches the names in a directory; an error when there is none, or when the user may watch no more.
    pub(crate) fn watch(&self, dir: &Path) -> io::Result<Watched> {
        let wanted = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        Ok(inotify::add_watch(&self.files, dir, wanted)?)
    }

    /// Watches a directory no more.
    pub(crate) fn forget(&self, watched: Watched) {
        if inotify::remove_watch(&self.files, watched).is_err() {
            // It is gone, and its watch with it.
        }
    }

    /// Waits for the end of a process. False when it has ended, or is another one by now.
    pub(crate) fn wait_for(&mut self, process: Process) -> bool {
        if self.processes.values().any(|(known, _)| *known == process) {
            return true;
        }
        if self.processes.len() >= MOST_PROCESSES {
            return Stat::may_live(process);
        }
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        let Some(Ok(fd)) = pid.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty())) else {
            return Stat::may_live(process);
        };
        // Asked after the descriptor was opened: it is of this process, or the process has ended.
        if !Stat::may_live(process) {
            return false;
        }
        let token = self.next;
        if epoll::add(&self.epoll, &fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN).is_ok() {
            self.next += 1;
            self.processes.insert(token, (process, fd));
        }
        true
    }

    /// Waits until something happens, or the time is over.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> io::Result<Happened> {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut ready = [const { MaybeUninit::uninit() }; 64];
        let tokens: Vec<u64> = match epoll::wait(&self.epoll, &mut ready, limit.as_ref()) {
            Ok((ready, _)) => ready.iter().map(|event| event.data.u64()).collect(),
            Err(Errno::INTR) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut happened = Happened::default();
        // Names first: who has a lock open may close it at once.
        self.read_files(&mut happened)?;
        for token in tokens {
            if token == SOCKET {
                self.read_announcements(&mut happened)?;
            } else if let Some((process, _closed)) = self.processes.remove(&token) {
                happened.ended.push(process);
            }
        }
        if !happened.announced.is_empty() {
            // An announcement is about locks that are there: their names have to be known before it is.
            self.read_files(&mut happened)?;
        }
        Ok(happened)
    }

    /// What has happened to names until now.
    pub(crate) fn files_until_now(&self) -> io::Result<Happened> {
        let mut happened = Happened::default();
        self.read_files(&mut happened)?;
        Ok(happened)
    }

    fn read_files(&self, happened: &mut Happened) -> io::Result<()> {
        let mut buffer = [const { MaybeUninit::uninit() }; 8 << 10];
        let mut reader = inotify::Reader::new(&self.files, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => happened.overflow = true,
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    let (watched, what) = (event.wd(), event.events());
                    happened.files.push(FileEvent { watched, what, name: name.unwrap_or_default() });
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read_announcements(&self, happened: &mut Happened) -> io::Result<()> {
        let mut buffer = [0; LONGEST];
        for _ in 0..BATCH {
            match self.socket.recv(&mut buffer) {
                Ok(len) => {
                    let said = Announcement::decode(&buffer[..len]);
                    happened.announced.extend(said.filter(|said| !happened.announced.contains(said)));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
