//! The `reference-transaction` hook.
//!
//! Calls of one transaction are matched by owner and payload. One git process may nest them: deleting a
//! packed ref runs a transaction on `packed-refs` inside of the real one, with payloads that are equal or a
//! part of it. The inner one is found again by its lock, which git releases only after the outer `committed`.

use std::cell::OnceCell;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::fs::FileId;
use crate::fs::durable;
use crate::git::refs::RefSnapshot;
use crate::git::{RefFormat, RefName, RefStore, Repository, Value};
use crate::hook::{Answer, Environment, Reply};
use crate::observe;
use crate::observe::payload::Payload;
use crate::observe::{Locks, Observed};
use crate::process::owner;
use crate::process::owner::{ExecContext, Liveness, Owner, Stat};
use crate::recovery;
use crate::recovery::{Mode, Options};
use crate::state::TxId;
use crate::state::TxKind;
use crate::state::directory::{Busy, Durability, StateDir, Wait};
use crate::state::marker;
use crate::state::marker::{Entry, Listing, Marker, Phase, State};
use crate::util::clock::unix_time;
use crate::wal::{Begin, Body, Flush, Log, RefChange};

/// How long a change waits for another process that recovers what the change would build on.
const LONGEST_RECOVERY: Duration = Duration::from_secs(2);

/// Room for what git sends in nearly all calls, so that it is read at once. The allocator has such a piece at hand.
const USUAL_INPUT: usize = 512;

/// A call of the hook, with what every state needs.
pub(super) struct Call<'c> {
    pub(super) environment: &'c Environment,
    pub(super) repo: Repository,
    pub(super) state: StateDir,
    payload: Payload<'c>,
    /// The `pre-receive` hook, not a transaction.
    receiving: bool,
    pub(super) listing: Listing,
    /// Looked for when somebody asks.
    git: OnceCell<Git>,
}

/// Runs the hook for `state` (git's argument, or `receiving` for the `pre-receive` hook) with `input` (git's stdin).
#[must_use]
pub fn run(state: &str, input: &mut dyn Read, environment: &Environment) -> Reply {
    let vetoes = matches!(state, "receiving" | "preparing" | "prepared");
    if !vetoes && !matches!(state, "committed" | "aborted") {
        return Reply::go();
    }
    let mut bytes = Vec::with_capacity(USUAL_INPUT);
    if let Err(e) = input.read_to_end(&mut bytes) {
        return failed(vetoes, &anyhow::Error::new(e).context("cannot read what git sends to the hook"), environment);
    }
    match handle(state, &bytes, environment) {
        Ok(reply) => reply,
        // After a veto git calls `aborted`, which meets the same trouble: everything has been said.
        Err(_) if state == "aborted" => Reply::go(),
        Err(error) => failed(vetoes && !is_only_beside(&bytes), &error, environment),
    }
}

fn handle(state: &str, input: &[u8], environment: &Environment) -> anyhow::Result<Reply> {
    let payload = Payload::parse(input).map_err(anyhow::Error::msg)?;
    if payload.count() == 0 {
        return Ok(Reply::go());
    }
    let repo = match environment.repository() {
        Err(_) if environment.repository_is_being_made() => return Ok(Reply::go()),
        found => found?,
    };
    let state_dir = StateDir::of(&repo);
    if !state_dir.exists() {
        state_dir.create().with_context(|| format!("cannot create {}", state_dir.path().display()))?;
        // A new log knows of nothing before: there is nothing to look after.
        Log::new(&state_dir, &owner::boot_id()?, Wait::AsConfigured).open()?;
    }
    let listing =
        Listing::read(state_dir.path()).with_context(|| format!("cannot read {}", state_dir.path().display()))?;
    if let Some(id) = environment.within
        && let Some((git, _)) = owner::nearest_git()?
        && crate::hook::nested::speaks_for(&listing, id, &git)?
    {
        return Ok(Reply::go());
    }
    let receiving = state == "receiving";
    let call = Call { environment, repo, state: state_dir, payload, receiving, listing, git: OnceCell::new() };
    match state {
        "receiving" => call.receiving(),
        "preparing" => call.preparing(),
        "prepared" => call.prepared(),
        "committed" => call.committed(),
        _ => call.aborted(),
    }
}

/// Notes that git makes for itself beside the work (`AUTO_MERGE`, `ORIG_HEAD`). It changes them when the refs are done and the
/// index is not: a veto there would tear what the command has begun.
fn is_only_beside(input: &[u8]) -> bool {
    let is_capital = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'_';
    let is_beside = |line: &crate::observe::payload::Line<'_>| {
        line.name != b"HEAD" && !line.name.is_empty() && line.name.iter().all(is_capital)
    };
    Payload::parse(input).is_ok_and(|payload| payload.lines().all(|line| is_beside(&line)))
}

/// The log or the payload cannot be had: before the change that means no change, after it a warning.
fn failed(vetoes: bool, error: &anyhow::Error, environment: &Environment) -> Reply {
    let mut messages = vec![format!("jin-txn: error: {error:#}")];
    if vetoes && !advice_only(environment) {
        messages.push("jin-txn: hint: this change was refused; to work without protection: JIN_TXN=off git ...".into());
        return Reply::veto(messages);
    }
    messages.push("jin-txn: hint: this change is not protected; `git txn status` says more".into());
    Reply::go_saying(messages)
}

/// `jin.onError=warn`. Asked only when something failed already.
fn advice_only(environment: &Environment) -> bool {
    let Ok(repo) = environment.repository() else { return false };
    let setting = crate::git::command::config(&environment.git_program, &repo, "jin.onError");
    setting.is_ok_and(|value| value.as_deref() == Some("warn"))
}

/// The git process that called us.
struct Git {
    stat: Stat,
    argv: Vec<String>,
}

/// Markers by whose they are.
struct Markers {
    mine: Vec<(Entry, Marker)>,
    /// Somebody else's that nobody works on any more.
    dead: bool,
    /// Somebody else's that is or may be alive.
    others: bool,
    /// One that is not finished, and will not be by recovery from this hook: it needs its objects.
    unfinished: Option<(TxId, String)>,
    /// A run whose processes are all dead: nothing may be built on what it left.
    dead_run: Option<(TxId, String)>,
}

impl Call<'_> {
    pub(super) fn log<'s>(&'s self, place: &ExecContext) -> Log<'s> {
        Log::new(&self.state, &place.boot, Wait::AsConfigured)
    }

    /// git, on whose behalf we run. Without one we are an orphan: git was killed, and nobody listens.
    fn git(&self) -> io::Result<&Git> {
        if let Some(git) = self.git.get() {
            return Ok(git);
        }
        let none = || io::Error::new(io::ErrorKind::NotFound, "there is no git process above this hook");
        let (stat, argv) = owner::nearest_git()?.ok_or_else(none)?;
        Ok(self.git.get_or_init(|| Git { stat, argv }))
    }

    /// Nobody has a marker, so this transaction has none, and whose it is does not matter.
    fn nothing_is_in_flight(&self) -> bool {
        self.listing.markers.is_empty() && self.listing.temporary.is_empty()
    }

    fn sort_markers(&self) -> anyhow::Result<Markers> {
        let mut sorted = Markers { mine: Vec::new(), dead: false, others: false, unfinished: None, dead_run: None };
        if self.nothing_is_in_flight() {
            return Ok(sorted);
        }
        let git = self.git()?;
        let place = ExecContext::here()?;
        sorted.dead = self.listing.temporary.iter().any(|t| recovery::is_abandoned(t, &place, &self.state));
        for entry in &self.listing.markers {
            let (entry, marker) = match entry.read_now() {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                // It may be this very git's.
                Err(error) if marker::is_unreadable(&error) => return Err(error),
                Err(_) => {
                    sorted.dead = true;
                    continue;
                }
            };
            if marker.owner.process == git.stat.process() && marker.owner.place.is_same(&place) {
                sorted.mine.push((entry, marker));
                continue;
            }
            if marker.origin == TxKind::Run {
                // It names no refs: its parts do.
                let waits = entry.state == State::InProgress && self.run()? != Some(entry.id);
                let is_dead = || recovery::liveness_of(&marker, &place, &self.state) == Liveness::Dead;
                // It may have ended well since the markers were listed.
                if waits && is_dead() && entry.now()?.is_some_and(|now| now.state == State::InProgress) {
                    sorted.dead_run = Some((entry.id, marker.operation));
                }
                continue;
            }
            match recovery::liveness_of(&marker, &place, &self.state) {
                // What waits for a human does not become more urgent with every command.
                Liveness::Dead if entry.state == State::Failed => {
                    if entry.now()?.is_some() {
                        sorted.unfinished = Some((entry.id, marker.operation));
                    }
                }
                Liveness::Dead => sorted.dead |= entry.now()?.is_some(),
                Liveness::Alive | Liveness::Unknowable => {
                    sorted.others = true;
                    sorted.unfinished = Some((entry.id, marker.operation));
                }
            }
        }
        Ok(sorted)
    }

    /// The `pre-receive` hook: what `preparing` is before git 2.54. Only what is pushed waits in quarantine; recovery writes no
    /// value that is not in the repository already, and its gits do not see the quarantine.
    fn receiving(&self) -> anyhow::Result<Reply> {
        self.recover_before_locking(&self.sort_markers()?)
    }

    /// git is about to lock: the last moment at which recovery can clear the way for this very command.
    fn preparing(&self) -> anyhow::Result<Reply> {
        let markers = self.sort_markers()?;
        let reply = self.recover_before_locking(&markers)?;
        let announced = markers.mine.iter().any(|(entry, _)| entry.state == State::InProgress);
        if reply.answer == Answer::Go && !announced && observe::may_change(&self.repo, &self.payload)? {
            let place = ExecContext::here()?;
            let id = self.log(&place).next_id()?;
            self.marker(id, self.git()?, place, Phase::Preparing)?.create(self.state.path())?;
        }
        Ok(reply)
    }

    fn recover_before_locking(&self, markers: &Markers) -> anyhow::Result<Reply> {
        if let Some(veto) = refuse_after_run(markers) {
            return Ok(veto);
        }
        let mut messages = Vec::new();
        let unfinished = markers.dead || recovery::any_unfinished_worktree(&self.repo);
        if unfinished || self.needs_boot_check()? || self.stale_lock_in_the_way(&self.git()?.stat)? {
            let outcome = self.recover(Mode::Preparing)?;
            messages = outcome.messages;
            if outcome.must_wait && markers.dead {
                return Ok(Reply::veto(messages));
            }
            let moved = messages.iter().any(|l| l.contains(" is back at ") || l.contains("; the power cut had "));
            if moved && receives(self.git()?) {
                // The pusher was shown the torn refs, and leaves out those that looked up to date to it.
                messages
                    .push("jin-txn: this push was built on what has been recovered just now: push again".to_owned());
                return Ok(Reply::veto(messages));
            }
            if moved {
                messages.push("jin-txn: if git now finds that a branch has moved, run your command again".to_owned());
            }
        }
        Ok(Reply::go_saying(messages))
    }

    /// git holds all locks and has changed nothing.
    fn prepared(&self) -> anyhow::Result<Reply> {
        let markers = self.sort_markers()?;
        if let Some(veto) = refuse_after_run(&markers) {
            return Ok(veto);
        }
        let seen = observe::observe(&self.repo, &self.payload, || Ok(Locks::of(&self.git()?.argv)))?;
        if let Some(name) = seen.lost.first() {
            return Ok(Reply::veto(vec![format!(
                "jin-txn: {name} was deleted and made again while it was being packed: its file stays"
            )]));
        }
        let mut messages = Vec::new();
        let needs_boot_check = self.needs_boot_check()?;
        if markers.dead || needs_boot_check {
            let named = self.names(&seen);
            let outcome = self.recover(Mode::Prepared { refs: named })?;
            messages = outcome.messages;
            if outcome.must_wait {
                messages.push("jin-txn: this change is refused until that is recovered: run your command again".into());
                return Ok(Reply::veto(messages));
            }
        }
        if !seen.pruned.is_empty() && (markers.others || markers.dead) {
            self.note_moved(&seen)?;
        }
        if seen.changes.is_empty() {
            if let Some(unfinished) = &markers.unfinished
                && let Some(veto) = refuse_gc(unfinished, self.git()?)?
            {
                return Ok(veto);
            }
            self.order_packing(&seen)?;
            return Ok(Reply::go_saying(messages));
        }
        // An inner transaction's outer one; or the same one, when a second hook calls us as well. Where no lock tells, there
        // has been no `committed` and no `aborted` in between.
        let again = |(entry, marker): &&(Entry, Marker)| {
            self.is_this(entry, marker) && (marker.probe.is_none() || self.is_unfinished(marker))
        };
        if markers.mine.iter().find(again).is_some() {
            return Ok(Reply::go_saying(messages));
        }
        self.begin(self.git()?, seen, markers.mine)?;
        Ok(Reply::go_saying(messages))
    }

    fn begin(&self, git: &Git, seen: Observed, mine: Vec<(Entry, Marker)>) -> anyhow::Result<()> {
        let place = ExecContext::here()?;
        let log = self.log(&place);
        let rename = observe::rename_of(&self.repo, &seen.changes, &git.argv, git_started_at(&git.stat))?;
        let part_of = self.run()?;
        let announced = mine.iter().find(|(e, m)| e.state == State::InProgress && m.phase == Phase::Preparing);
        let id = announced.map_or_else(|| log.next_id(), |(entry, _)| Ok(entry.id))?;

        // The marker first, the record second: whatever is in flight has a marker that anybody sees.
        let mut marker = self.marker(id, git, place.clone(), Phase::Prepared)?;
        marker.probe = probe(&self.repo, &seen);
        marker.index_lock =
            seen.index_lock.map(|lock| (self.repo.relative(&self.repo.git_dir.join("index.lock")), lock));
        marker.follow_up = rename.is_some() || seen.changes.iter().any(leaves_reflog);
        let entry =
            if announced.is_some() { marker.update(self.state.path()) } else { marker.create(self.state.path()) };
        let entry = entry.with_context(|| format!("cannot write a marker into {}", self.state.path().display()))?;

        let durability = self.state.durability();
        self.save_config()?;
        let saved = self.save_reflogs(id, &seen).and_then(|()| match part_of {
            Some(run) => self.save_reflogs_of_run(run, &seen, rename.as_ref()),
            None => Ok(()),
        });
        let logged = saved.and_then(|()| {
            let worktree = self.repo.git_dir.strip_prefix(&self.repo.common_dir).unwrap_or(Path::new(""));
            let begin = Begin {
                worktree: crate::util::text::escape(std::os::unix::ffi::OsStrExt::as_bytes(worktree.as_os_str()))
                    .into_owned(),
                reftable: self.repo.ref_format == RefFormat::Reftable,
                batched: Locks::of(&git.argv) == Locks::Batched,
                refs: seen.changes,
                watched: seen.watched,
                packed_lock: seen.packed_lock,
                index_lock: seen.index_lock,
                rename,
                packed: FileId::at(&self.repo.common_dir.join("packed-refs"))?,
                head: RefStore::new(&self.repo).head()?,
                reverses: self.environment.reverses,
                part_of,
                barrier: durability == Durability::Full,
                ..Begin::new(TxKind::Hook, &marker.operation, marker.owner.clone(), marker.hook_process)
            };
            let still_ours = || entry.path.exists();
            // The barrier takes the objects along, the locks with the new values, and the marker.
            let sync = if begin.barrier { Flush::Barrier } else { Flush::Yes };
            log.append_if(Some(id), &Body::Begin(Box::new(begin)), sync, still_ours)
        });
        match logged {
            Ok(Some(_)) => {}
            Ok(None) => anyhow::bail!("another process removed the marker of {id} while it was being logged"),
            Err(error) => {
                // The record may be there although its sync failed: say that nothing came of it, if the log can be written.
                if log.append(Some(id), &Body::Aborted, Flush::No).is_err() {
                    // Then it stays a transaction without an end, of which recovery finds that nothing was applied.
                }
                entry.remove()?;
                return Err(error);
            }
        }
        self.absorb(&log, id, mine)
    }

    /// Transactions of the same process whose locks are still held are parts of this one.
    fn absorb(&self, log: &Log<'_>, by: TxId, mine: Vec<(Entry, Marker)>) -> anyhow::Result<()> {
        for (entry, marker) in mine {
            let inner =
                entry.state == State::InProgress && marker.phase == Phase::Prepared && self.is_unfinished(&marker);
            if inner && entry.id != by {
                if !self.conclude(log, &marker, &Body::Absorbed { by }, Flush::No)? {
                    return Ok(());
                }
                durable::remove_tree(&self.state.tx(entry.id))?;
                entry.remove()?;
            }
        }
        Ok(())
    }

    /// git has changed the refs; what it did is read from them, not from the payload.
    fn committed(&self) -> anyhow::Result<Reply> {
        if self.nothing_is_in_flight() {
            return Ok(Reply::go());
        }
        let mut markers = self.sort_markers()?;
        let mine = std::mem::take(&mut markers.mine);
        let inner = mine.iter().any(|(e, m)| self.is_this(e, m) && self.is_unfinished(m));
        if inner {
            return Ok(Reply::go());
        }
        for (mut entry, marker) in mine {
            if self.is_this(&entry, &marker) {
                let log = self.log(&marker.owner.place);
                if !self.conclude(&log, &marker, &Body::Committed { refs: self.settled()? }, Flush::Yes)? {
                    return Ok(Reply::go());
                }
                entry.settle(State::Committed)?;
                if !marker.follow_up && !self.index_is_pending(&marker) {
                    self.forget(entry)?;
                }
            } else if self.is_only_announced(&entry, &marker) || self.is_followed_up(&entry, &marker) {
                self.forget(entry)?;
            }
        }
        self.recover_if(markers.dead)
    }

    /// git gave up and released its locks.
    fn aborted(&self) -> anyhow::Result<Reply> {
        if self.nothing_is_in_flight() {
            return self.recover_if(self.needs_boot_check()?);
        }
        let mut markers = self.sort_markers()?;
        for (mut entry, marker) in std::mem::take(&mut markers.mine) {
            if self.is_this(&entry, &marker) {
                if self.is_unfinished(&marker) {
                    continue;
                }
                let readable = self.repo.ref_format == RefFormat::Files;
                if readable && self.settled()?.len() == self.payload.count() {
                    // It is all there, whatever the call says: recovery settles it when the owner is gone.
                    continue;
                }
                let log = self.log(&marker.owner.place);
                if !self.conclude(&log, &marker, &Body::Aborted, Flush::Yes)? {
                    return Ok(Reply::go());
                }
                entry.settle(State::Failed)?;
                self.forget(entry)?;
            } else if self.is_only_announced(&entry, &marker) {
                self.forget(entry)?;
            }
        }
        self.recover_if(markers.dead || self.needs_boot_check()?)
    }

    /// Logs how the transaction of `marker` ended, unless its git is dead: then that is recovery's to say. It is asked under the
    /// log's lock, and recovery reads the log after it has found git dead, so one of the two knows of the other.
    fn conclude(&self, log: &Log<'_>, marker: &Marker, how: &Body, sync: Flush) -> anyhow::Result<bool> {
        let lives = || Stat::may_live(marker.owner.process);
        Ok(log.append_if(Some(marker.id), how, sync, lives)?.is_some())
    }

    /// Nobody has looked yet after what the last boot left.
    fn needs_boot_check(&self) -> anyhow::Result<bool> {
        Ok(!recovery::is_verified(&self.listing, &self.state)?)
    }

    fn recover_if(&self, wanted: bool) -> anyhow::Result<Reply> {
        if !wanted {
            return Ok(Reply::go());
        }
        Ok(Reply::go_saying(self.recover(Mode::AfterTransaction)?.messages))
    }

    fn recover(&self, mode: Mode) -> anyhow::Result<HookRecovery> {
        if self.environment.quarantined && !self.receiving {
            return Ok(HookRecovery { messages: Vec::new(), must_wait: false });
        }
        let objects_elsewhere = self.environment.objects_elsewhere;
        let options = Options { mode, objects_elsewhere, ..Options::new(self.environment.git_program.clone()) };
        let done = match recovery::recover(&self.repo, &options) {
            // Somebody else is recovering right now; that is waited for only by who would build on what is being recovered.
            Err(error) if error.is::<Busy>() && recovery::is_in_the_way(&self.repo, &options)? => {
                recovery::recover(&self.repo, &Options { wait: Wait::UpTo(LONGEST_RECOVERY), ..options.clone() })
            }
            done => done,
        };
        match done {
            Ok(report) => Ok(HookRecovery { messages: report.headlines(), must_wait: report.must_wait }),
            Err(error) if error.is::<Busy>() => {
                // After a reboot the refs of this very transaction may be older than what was acknowledged: nothing may be
                // built on them before that is known.
                let must_wait = self.needs_boot_check()? || recovery::is_in_the_way(&self.repo, &options)?;
                let line = "jin-txn: another process recovers what this change would build on".to_owned();
                Ok(HookRecovery { messages: if must_wait { vec![line] } else { Vec::new() }, must_wait })
            }
            Err(error) => Err(error),
        }
    }

    /// A lock that is older than the git process above us is not that process's.
    fn stale_lock_in_the_way(&self, git: &Stat) -> anyhow::Result<bool> {
        let git_started_at = git_started_at(git);
        let refs = RefStore::new(&self.repo);
        let mut candidates: Vec<std::path::PathBuf> = crate::locks::judge::well_known(&self.repo);
        // No lock, but a sign that somebody died while renaming a branch.
        candidates.push(self.repo.common_dir.join(crate::git::reflog::RENAMED_LOG));
        for line in self.payload.lines() {
            let name = refs.canonical(line.name)?;
            candidates.push(refs.lock(&name));
            if let Ok(Some(Value::Symref(target))) = refs.read(&name).map(|s| Some(s.value)) {
                candidates.push(refs.lock(&target));
            }
        }
        for path in candidates {
            if FileId::at(&path)?.is_some_and(|lock| lock.ctime < git_started_at) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn marker(&self, id: TxId, git: &Git, place: ExecContext, phase: Phase) -> anyhow::Result<Marker> {
        Ok(Marker {
            id,
            origin: TxKind::Hook,
            timestamp: unix_time(),
            operation: self.environment.reverses.map_or_else(|| operation(git), |what| format!("jin-txn {what}")),
            owner: Owner { process: git.stat.process(), place },
            hook_process: owner::myself()?,
            phase,
            payload: self.payload.key,
            probe: None,
            index_lock: None,
            follow_up: false,
            worktree: None,
        })
    }

    /// The same transaction, called again.
    fn is_this(&self, entry: &Entry, marker: &Marker) -> bool {
        entry.state == State::InProgress && marker.phase == Phase::Prepared && marker.payload == self.payload.key
    }

    /// `branch -D` up to 2.39 deletes a packed ref first, and its reflog in a second transaction with the same
    /// payload.
    fn is_followed_up(&self, entry: &Entry, marker: &Marker) -> bool {
        let renaming = || self.repo.common_dir.join(crate::git::reflog::RENAMED_LOG).exists();
        entry.state == State::Committed && marker.payload == self.payload.key && !renaming()
    }

    /// git still holds a lock that it took for this transaction.
    fn is_unfinished(&self, marker: &Marker) -> bool {
        let Some((path, lock)) = &marker.probe else { return false };
        let found = crate::util::text::unescape(path).map(|p| self.repo.common_dir.join(os_path(&p)));
        found.is_some_and(|path| matches!(FileId::at(&path), Ok(Some(now)) if now == *lock))
    }

    /// `commit -a` renames index.lock into place only after the refs are done.
    fn index_is_pending(&self, marker: &Marker) -> bool {
        let Some((path, lock)) = &marker.index_lock else { return false };
        matches!(FileId::at(&self.repo.common_dir.join(path)), Ok(Some(now)) if now == *lock)
    }

    /// An announcement whose transaction never came to `prepared`, or came to nothing; kept while the locks of
    /// this call exist, because then this call is an inner one.
    fn is_only_announced(&self, entry: &Entry, marker: &Marker) -> bool {
        entry.state == State::InProgress && marker.phase == Phase::Preparing && !self.any_lock_left()
    }

    fn any_lock_left(&self) -> bool {
        let refs = RefStore::new(&self.repo);
        self.payload.lines().any(|line| {
            let name = refs.canonical(line.name);
            name.is_ok_and(|n| matches!(FileId::at(&refs.lock(&n)), Ok(Some(_))))
        })
    }

    /// The refs as they are now, for those that have the new value.
    fn settled(&self) -> anyhow::Result<Vec<RefSnapshot>> {
        let refs = RefStore::new(&self.repo);
        let mut settled = Vec::with_capacity(self.payload.count());
        for line in self.payload.lines() {
            let (name, after) = (refs.canonical(line.name)?, Value::of_payload(line.new)?);
            if self.repo.ref_format == RefFormat::Reftable {
                settled.push(RefSnapshot { name, value: after, file: None });
                continue;
            }
            let now = refs.read(&name)?;
            if now.value == after {
                settled.push(RefSnapshot { name, value: now.value, file: now.loose });
            }
        }
        Ok(settled)
    }

    fn names(&self, seen: &Observed) -> Vec<RefName> {
        let changed = seen.changes.iter().map(|c| c.name.clone());
        changed.chain(seen.watched.iter().map(|w| w.name.clone())).collect()
    }

    /// The transaction is over: its files go, the marker last.
    fn forget(&self, entry: Entry) -> anyhow::Result<()> {
        if entry.state != State::InProgress {
            let staged = self.state.tx(entry.id);
            if staged.is_dir() {
                durable::remove_tree(&staged)?;
            }
        }
        entry.remove()?;
        Ok(())
    }
}

/// A hook never restores files: that would be under the hands of the very git that called it.
fn refuse_after_run(markers: &Markers) -> Option<Reply> {
    let (id, operation) = markers.dead_run.as_ref()?;
    Some(Reply::veto(vec![
        format!("jin-txn: {id} (`{operation}`) was interrupted, and what it did waits to be taken back"),
        "jin-txn: hint: run `git txn recover`, then your command again".to_owned(),
    ]))
}

/// A gc packs refs before it removes objects: this is where it can be stopped from removing those that an unfinished
/// transaction is about to name, or has to go back to. A run keeps its objects by itself.
fn refuse_gc((id, operation): &(TxId, String), git: &Git) -> io::Result<Option<Reply>> {
    let is_gc = |argv: &[String]| argv.iter().skip(1).any(|word| word == "gc");
    if !is_gc(&git.argv) {
        let may_be_gc = |a: &Stat| owner::may_be_git(a) && owner::argv(a.pid).is_none_or(|argv| is_gc(&argv));
        let ancestors = owner::ancestors()?;
        if !ancestors.iter().skip_while(|a| a.pid != git.stat.pid).skip(1).any(may_be_gc) {
            return Ok(None);
        }
    }
    Ok(Some(Reply::veto(vec![
        format!("jin-txn: {id} (`{operation}`) is not finished, and needs objects that a gc may remove"),
        "jin-txn: hint: wait until it is done, or look at `git txn status`; then run the gc again".to_owned(),
    ])))
}

struct HookRecovery {
    messages: Vec<String>,
    must_wait: bool,
}

/// When the git git_started_at, in nanoseconds since the epoch: what was last changed before is not of its making.
fn git_started_at(git: &Stat) -> i64 {
    owner::realtime_of_start(git.start) - crate::locks::holders::CLOCK_MARGIN
}

/// Deleted under `packed-refs.lock` alone: git removes the reflog only in a later transaction.
fn leaves_reflog(change: &RefChange) -> bool {
    change.after == Value::Absent && change.lock.is_none() && change.log.is_some()
}

/// A lock that git keeps until the transaction is over.
fn probe(repo: &Repository, seen: &Observed) -> Option<(String, FileId)> {
    let refs = RefStore::new(repo);
    // packed-refs.lock is none: git may keep it from one transaction to the next.
    let (path, lock) = seen.changes.iter().find_map(|c| Some((refs.lock(&c.name), c.lock?)))?;
    let relative = path.strip_prefix(&repo.common_dir).unwrap_or(&path);
    Some((crate::util::text::escape(std::os::unix::ffi::OsStrExt::as_bytes(relative.as_os_str())).into_owned(), lock))
}

fn os_path(bytes: &[u8]) -> &Path {
    Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))
}

/// Does this git take a push?
fn receives(git: &Git) -> bool {
    git.argv.iter().take(2).any(|word| word.ends_with("receive-pack"))
}

/// What git was asked to do, fit to be shown.
fn operation(git: &Git) -> String {
    let Some((program, rest)) = git.argv.split_first() else { return git.stat.comm.clone() };
    let program = program.rsplit('/').next().unwrap_or(program);
    let words = std::iter::once(program).chain(rest.iter().map(String::as_str));
    crate::util::text::shortened(&words.collect::<Vec<_>>().join(" "), 500)
}

/// `preparing` and `prepared` answer with the exit code, the others are not asked.
#[must_use]
pub fn exit_code(answer: Answer) -> u8 {
    match answer {
        Answer::Go => 0,
        Answer::Veto => 1,
    }
}
