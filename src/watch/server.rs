//! The process itself: its place, its loop, what it does when something has happened.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::fs::durable;
use crate::git::Repository;
use crate::hook::announce::start::Tried;
use crate::hook::announce::{Address, Announcement, Kind};
use crate::locks::at_work::gits_at_work;
use crate::process::owner::{self, ExecContext, Process};
use crate::recovery;
use crate::state::marker::Listing;
use crate::state::{StateDir, WatchMode};
use crate::trust::{Notes, ownership};
use crate::util::clock::unix_time;
use crate::util::text::shown;
use crate::watch::detach;
use crate::watch::events::{Events, Happened, Watched};
use crate::watch::ground::{self, Ground, Term};
use crate::watch::job::{Job, Priority, Request};
use crate::watch::look;
use crate::watch::repositories::{Key, Repositories};
use crate::watch::status::{Done, Status};

/// Somebody was in the way: it is tried again after one second, two, four, but not for ever.
const LONGEST_PAUSE: u64 = 60;
const MOST_TRIES: u32 = 12;

/// How long after a git was found dead, of which a hook has told just now, its repository is looked at.
const AFTER_DEATH: Duration = Duration::from_millis(50);

/// So many processes are known to be at work before those that have ended without being waited for are dropped.
const MOST_AT_WORK: usize = 1_000;

/// How long a check after a reboot waits when a hook wanted its lock.
const AFTER_LETTING_GO: Duration = Duration::from_secs(2);

pub(super) struct Server<'s> {
    pub(super) address: &'s Address,
    pub(super) ground: Ground,
    pub(super) notes: &'s Notes,
    here: ExecContext,
    pub(super) events: Events,
    pub(super) repositories: Repositories,
    /// Where a process that is waited for was at work.
    pub(super) at_work: HashMap<Process, HashSet<Key>>,
    pub(super) job: Option<Job>,
    /// Repositories that nobody has checked since the boot.
    pub(super) unchecked: VecDeque<Key>,
    paused_until: Option<Instant>,
    pub(super) own_directory: Watched,
    pub(super) notes_directory: Option<Watched>,
    /// When a git last did something that this has seen.
    pub(super) heard: Instant,
    status: Status,
    told: Status,
}

/// Runs the watch until its place goes, or it is not needed any more. False when there is one already. `ready` is called when it
/// listens.
pub(crate) fn serve(address: &Address, notes: &Notes, term: Term, ready: impl FnOnce(&Status)) -> anyhow::Result<bool> {
    let cannot = || format!("cannot use {} for the watch", shown(address.directory()));
    address.prepare().with_context(cannot)?;
    // Before the socket: two that start at once would take it from each other.
    let Some(lock) = ground::hold(&address.lock()).with_context(cannot)? else { return Ok(false) };
    let ground = Ground::new(lock, term)?;
    detach::hear_of_children()?;
    detach::raise_limit();
    durable::remove_file(&address.socket()).with_context(cannot)?;
    let socket = UnixDatagram::bind(address.socket()).with_context(cannot)?;
    let events = Events::new(socket).context("cannot watch anything")?;
    let mut server = Server::new(address, notes, ground, events)?;
    server.first_round();
    server.status.write(address).with_context(cannot)?;
    Tried::forget(address).with_context(cannot)?;
    ready(&server.status);
    server.run()?;
    Ok(true)
}

impl<'s> Server<'s> {
    fn new(address: &'s Address, notes: &'s Notes, ground: Ground, events: Events) -> anyhow::Result<Server<'s>> {
        let own_directory = events.watch(address.directory()).context("cannot watch any directory")?;
        let Process { pid, start } = owner::myself()?;
        let status = Status { pid, start, since: unix_time(), ..Status::default() };
        Ok(Server {
            address,
            ground,
            notes,
            here: ExecContext::here()?,
            events,
            repositories: Repositories::default(),
            at_work: HashMap::new(),
            job: None,
            unchecked: VecDeque::new(),
            paused_until: None,
            own_directory,
            notes_directory: None,
            heard: Instant::now(),
            told: status.clone(),
            status,
        })
    }

    /// Every repository that this user has a note for, or the only one that this was started for.
    fn first_round(&mut self) {
        self.watch_notes();
        let only = self.ground.term.common_dir.as_ref();
        let only = only.map(|common_dir| vec![common_dir.join(crate::state::directory::NAME)]);
        for path in only.unwrap_or_else(|| self.notes.all().into_iter().map(|(_, path)| path).collect()) {
            self.know(&path);
        }
        self.look_for_holders();
    }

    /// A new note names a repository to look after: for one that was not started for some of them only.
    fn watch_notes(&mut self) {
        if self.notes_directory.is_none() && self.ground.term.common_dir.is_none() {
            self.notes_directory = self.events.watch(&self.notes.directory()).ok();
        }
    }

    /// Knows the repository with this state directory from now on, if this user has protected it.
    pub(super) fn know(&mut self, state: &Path) -> Option<Key> {
        let repo = Repository::open(state.parent()?).ok()?;
        let state = StateDir::of(&repo);
        if !state.exists() || ownership::require_linked(&repo).is_err() || !self.notes.cover(&state) {
            return None;
        }
        if state.settings().watch == WatchMode::Off {
            return None;
        }
        let key = self.repositories.add(repo, &self.events).ok()??;
        let listing = Listing::read(state.path()).ok()?;
        if !recovery::is_verified(&listing, &state).ok()? && !self.unchecked.contains(&key) {
            self.unchecked.push_back(key);
        }
        self.look(key);
        Some(key)
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            if self.is_adopted() {
                return Ok(());
            }
            self.start_next_check();
            self.tell();
            let happened = self.events.wait(self.time_left())?;
            if self.has_lost_its_place(&happened) {
                return Ok(());
            }
            self.handle(happened);
            self.end_overdue_job();
            if self.is_outdated() {
                self.become_new();
                return Ok(());
            }
            if self.is_forgotten() {
                return durable::remove_file(&self.address.socket());
            }
        }
    }

    fn handle(&mut self, happened: Happened) {
        let overflow = happened.overflow;
        if !(happened.files.is_empty() && happened.announced.is_empty() && happened.ended.is_empty()) {
            self.heard = Instant::now();
        }
        self.handle_files(happened.files);
        self.look_for_holders();
        if overflow {
            let keys: Vec<Key> = self.repositories.all.keys().copied().collect();
            for key in keys {
                self.read_again(key);
            }
            self.look_for_holders();
        }
        for announcement in happened.announced {
            self.hear(&announcement);
        }
        for process in happened.ended {
            self.ended(process);
        }
        self.look_where_due();
    }

    /// Looks when a git that makes a worktree, or renames a branch, has had time to: no lock says who does that, and no hook.
    pub(super) fn look_soon(&mut self, key: Key) {
        if let Some(repo) = self.repositories.all.get_mut(&key) {
            repo.due = Some(Instant::now() + Duration::from_secs(1));
        }
    }

    fn read_again(&mut self, key: Key) {
        if self.repositories.read_again(key, &self.events).is_err() {
            self.drop_one(key);
        }
    }

    pub(super) fn drop_one(&mut self, key: Key) {
        self.repositories.drop_one(key, &self.events);
        self.unchecked.retain(|other| *other != key);
    }

    fn hear(&mut self, announcement: &Announcement) {
        let state = announcement.common_dir.join(crate::state::directory::NAME);
        let known = self.repositories.all.iter().find(|(_, repo)| repo.repo.common_dir == announcement.common_dir);
        let known = known.filter(|(key, repo)| repo.is_there(**key)).map(|(key, _)| *key);
        if announcement.kind == Kind::LetGo {
            self.let_go(known);
            return;
        }
        self.watch_notes();
        let Some(key) = known.or_else(|| self.know(&state)) else { return };
        if let Some(git) = announcement.git.filter(|git| owner::shares_namespaces(*git)) {
            // One that has ended by now cannot be looked at any more.
            let doubtful = announcement.doubtful || !owner::Stat::may_live(git);
            self.repositories.held(key, git, &announcement.locks, doubtful);
            self.wait_for(git, key);
        }
    }

    /// Waits for the end of a process that is at work in a repository; one that has ended already is a reason to look.
    fn wait_for(&mut self, process: Process, key: Key) {
        if self.at_work.len() >= MOST_AT_WORK {
            self.at_work.retain(|process, _| owner::Stat::may_live(*process));
        }
        if self.events.wait_for(process) {
            self.at_work.entry(process).or_default().insert(key);
        } else if let Some(repo) = self.repositories.all.get_mut(&key) {
            // Its hook may go on: what that is about to write down is there then.
            repo.due = Some(Instant::now() + AFTER_DEATH);
        }
    }

    fn look_for_holders(&mut self) {
        let has_locks = |key: &Key| self.repositories.all.get(key).is_some_and(|repo| !repo.locks.is_empty());
        let first = self.at_work.iter().filter(|(_, keys)| keys.iter().any(has_locks));
        let first: Vec<u32> = first.map(|(process, _)| process.pid).collect();
        for (key, holder) in look::find_holders(&mut self.repositories, &first) {
            self.wait_for(holder, key);
        }
    }

    fn ended(&mut self, process: Process) {
        if self.job.as_ref().is_some_and(|job| job.process == process) {
            self.job_ended();
        }
        for key in self.at_work.remove(&process).into_iter().flatten() {
            self.look(key);
        }
    }

    fn look_where_due(&mut self) {
        let now = Instant::now();
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let due: Vec<Key> =
            self.repositories.all.iter().filter(|(_, repo)| is_due(repo.due)).map(|(key, _)| *key).collect();
        due.into_iter().for_each(|key| self.look(key));
    }

    /// Looks at a repository; recovers where somebody has died.
    fn look(&mut self, key: Key) {
        let Some(repo) = self.repositories.all.get_mut(&key) else { return };
        repo.due = None;
        if !repo.is_there(key) || repo.state().settings().watch == WatchMode::Off {
            return self.drop_one(key);
        }
        let markers = look::markers(repo, &self.here);
        let orphans = look::orphans(repo);
        let mut work: Vec<PathBuf> = markers.dead.clone();
        work.extend(look::unfinished(repo));
        work.extend(orphans.iter().map(|orphan| orphan.path.clone()));
        for process in markers.alive {
            self.wait_for(process, key);
        }
        if work.is_empty() {
            if let Some(repo) = self.repositories.all.get_mut(&key) {
                (repo.asked, repo.tries) = (None, 0);
            }
            return;
        }
        // What has happened to names up to here decides whether an orphan is still the same file.
        match self.events.files_until_now() {
            Ok(happened) => {
                if happened.overflow {
                    self.read_again(key);
                }
                self.handle_files(happened.files);
            }
            Err(_) => return self.again(key),
        }
        let Some(repo) = self.repositories.all.get(&key) else { return };
        if repo.asked.as_ref() == Some(&work) {
            // It has been tried just now, in vain.
            if !repo.needs_human {
                self.again(key);
            }
            return;
        }
        let commands = orphans.iter().filter_map(|orphan| orphan.command.clone()).collect();
        let seen = orphans.into_iter().filter_map(|orphan| orphan.seen(repo)).collect();
        let request = Request::new(&repo.repo.common_dir, Priority::Now).with(seen, commands);
        self.start(key, &request, work);
    }

    fn start(&mut self, key: Key, request: &Request, work: Vec<PathBuf>) {
        match &self.job {
            Some(job) if job.priority == Priority::Now => {
                // One at a time: its end is a reason to look again.
                if let Some(repo) = self.repositories.all.get_mut(&key) {
                    repo.due = Some(Instant::now() + Duration::from_millis(5));
                }
                return;
            }
            Some(_) => self.give_way(),
            None => {}
        }
        let Ok(job) = Job::start(key, request) else { return self.again(key) };
        if let Some(repo) = self.repositories.all.get_mut(&key) {
            (repo.asked, repo.needs_human) = (Some(work), false);
        }
        self.events.wait_for(job.process);
        let had_ended = !owner::Stat::may_live(job.process);
        self.job = Some(job);
        if had_ended {
            self.job_ended();
        }
    }

    /// A recovery that takes far too long is ended, and tried again later.
    fn end_overdue_job(&mut self) {
        let Some(job) = self.job.take_if(|job| job.deadline() <= Instant::now()) else { return };
        let key = job.key;
        job.end();
        self.again(key);
    }

    fn job_ended(&mut self) {
        /// Exit codes of commands of ours.
        const DONE: u8 = 0;
        const INTERRUPTED: u8 = 3;
        const NEEDS_HUMAN: u8 = 4;
        let Some(code) = self.job.as_mut().and_then(Job::ended) else { return };
        let Some(job) = self.job.take() else { return };
        if !matches!(code, Some(DONE | INTERRUPTED | NEEDS_HUMAN)) {
            self.wait_for_those_in_the_way(job.key);
            return self.again(job.key);
        }
        if let Some(repo) = self.repositories.all.get_mut(&job.key) {
            repo.needs_human = code == Some(NEEDS_HUMAN);
            self.status.last = Some(Done::now(&repo.repo.common_dir));
        }
        self.look(job.key);
    }

    /// Somebody was in the way: the end of a git that works there is a reason to look again, before any pause is over.
    fn wait_for_those_in_the_way(&mut self, key: Key) {
        let Some(repo) = self.repositories.all.get(&key) else { return };
        for git in gits_at_work(&repo.repo) {
            self.wait_for(git, key);
        }
    }

    /// Tries again later.
    fn again(&mut self, key: Key) {
        let Some(repo) = self.repositories.all.get_mut(&key) else { return };
        repo.asked = None;
        repo.tries += 1;
        if repo.tries <= MOST_TRIES {
            let pause = (1u64 << (repo.tries - 1).min(6)).min(LONGEST_PAUSE);
            repo.due = Some(Instant::now() + Duration::from_secs(pause));
        }
    }

    /// Checks the next repository that the last boot left, when nothing else is to be done.
    fn start_next_check(&mut self) {
        let is_paused = self.paused_until.is_some_and(|until| until > Instant::now());
        if self.job.is_some() || is_paused {
            return;
        }
        self.paused_until = None;
        while let Some(key) = self.unchecked.pop_front() {
            let Some(repo) = self.repositories.all.get(&key) else { continue };
            let state = repo.state();
            let listing = Listing::read(state.path());
            if listing.is_ok_and(|listing| recovery::is_verified(&listing, &state).unwrap_or(true)) {
                continue;
            }
            let request = Request::new(&repo.repo.common_dir, Priority::Idle);
            self.start(key, &request, Vec::new());
            return;
        }
    }

    /// A hook wants what a check holds.
    fn let_go(&mut self, key: Option<Key>) {
        let is_it = |job: &Job| job.priority == Priority::Idle && Some(job.key) == key;
        if self.job.as_ref().is_some_and(is_it) {
            self.give_way();
            self.paused_until = Some(Instant::now() + AFTER_LETTING_GO);
        }
    }

    /// Ends a check that is under way; it is done again later.
    fn give_way(&mut self) {
        let Some(job) = self.job.take() else { return };
        let key = job.key;
        job.end();
        self.unchecked.push_back(key);
    }

    fn time_left(&self) -> Option<Duration> {
        let repos = self.repositories.all.values();
        let looks = repos.clone().flat_map(|repo| repo.locks.values().flat_map(|lock| lock.looks.iter().copied()));
        let due = repos.filter_map(|repo| repo.due);
        let checks = self.paused_until.filter(|_| self.job.is_none() && !self.unchecked.is_empty());
        let overdue = self.job.as_ref().map(Job::deadline);
        let next = looks.chain(due).chain(self.end()).chain(checks).chain(overdue).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn tell(&mut self) {
        self.status.repositories = self.repositories.all.len();
        self.status.limit_reached = self.repositories.limit_reached;
        if self.status != self.told && self.status.write(self.address).is_ok() {
            self.told = self.status.clone();
        }
    }
}
