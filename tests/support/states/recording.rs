//! A recorded run: every change in order, what was synced when, and what was acknowledged.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use nix::unistd::Pid;

use super::watch::{Change, NodeId, Watch};
use crate::support::repo::{Repo, text};
use crate::support::snapshot::{Refs, Snapshot};
use crate::support::tracer::{self, Action, Event, Isolation, Role};

/// What a sync makes durable, of all that came before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `syncfs`.
    Everything,
    /// `fsync` and `fdatasync`: the data of a file, the names of a directory.
    Node(NodeId),
    /// A file that had no name yet, as it was then.
    Unnamed { inode: u64, size: u64, modified: SystemTime },
}

/// A call that makes changes durable.
#[derive(Clone, Debug)]
pub struct Sync {
    /// Who called what on which file, e.g. `hook prepared: fdatasync .git/.jin/wal/1.wal`.
    pub label: String,
    pub role: Role,
    pub scope: Scope,
    /// How many steps there were when it was called.
    pub called: usize,
}

#[derive(Clone, Debug)]
pub enum What {
    Changed(Change),
    /// The sync of that number has returned.
    Synced(usize),
    /// The command of that number has exited with 0.
    Acknowledged(usize),
}

#[derive(Clone, Debug)]
pub struct Step {
    pub what: What,
    /// The call that did it, for people.
    pub cause: String,
}

/// A command of the recording and the refs that it leads to.
pub struct Ran {
    pub acknowledged: bool,
    pub refs: Refs,
}

pub struct Recording {
    pub repo: Repo,
    pub watch: Watch,
    pub steps: Vec<Step>,
    pub syncs: Vec<Sync>,
    pub commands: Vec<Ran>,
    /// The state before the first command.
    pub before: Snapshot,
    /// What each name led to, and when each directory had changed, before the first command.
    pub base: Vec<Option<NodeId>>,
    pub base_modified: HashMap<NodeId, SystemTime>,
    /// Syncs that have not returned, with their callers.
    open: Vec<(Pid, usize)>,
    last: String,
}

impl Recording {
    /// Takes everything that `repo` holds for durable.
    pub fn of(repo: Repo) -> Self {
        let mut watch =
            Watch::new(repo.path(), &repo.scratch().join("pool")).expect("the repository can be read and linked");
        // Second names have changed the ctimes that the index knows.
        repo.try_git(["update-index", "-q", "--refresh"]);
        watch.settle(None).expect("the repository can be read");
        let before = Snapshot::of(&repo);
        Self {
            base: watch.now.clone(),
            base_modified: watch.modified.clone(),
            repo,
            watch,
            steps: Vec::new(),
            syncs: Vec::new(),
            commands: Vec::new(),
            before,
            open: Vec::new(),
            last: String::new(),
        }
    }

    /// Records a command that succeeds.
    pub fn run(&mut self, command: Command, input: &str) {
        let shown = shown(&command);
        let outcome = self.trace(command, input, &mut |_| false);
        assert!(outcome.status.success(), "{shown} fails by itself: {}", text(&outcome.stderr));
        let number = self.commands.len();
        self.steps.push(Step { what: What::Acknowledged(number), cause: format!("exit of {shown}") });
        let refs = Snapshot::of(&self.repo).refs;
        self.commands.push(Ran { acknowledged: true, refs });
    }

    /// Records a command that is killed where `wanted` says; `refs` is where it would have come.
    pub fn run_killed(&mut self, command: Command, input: &str, wanted: &mut dyn FnMut(&Event) -> bool, refs: Refs) {
        let outcome = self.trace(command, input, wanted);
        assert!(outcome.killed.is_some(), "the command never came there: {}", text(&outcome.stderr));
        self.commands.push(Ran { acknowledged: false, refs });
    }

    fn trace(&mut self, command: Command, input: &str, kill: &mut dyn FnMut(&Event) -> bool) -> tracer::Outcome {
        let mut previous = None;
        let mut decide = |event: &Event| {
            self.note(previous.as_deref(), Some(event.pid));
            self.last = self.show(event);
            self.note_sync(event);
            previous.clone_from(&event.path);
            if kill(event) { Action::KillTree } else { Action::Continue }
        };
        let outcome =
            tracer::trace(command, input.as_bytes(), Isolation::None, &mut decide).expect("the command starts");
        self.note(previous.as_deref(), None);
        assert!(self.open.is_empty(), "the tree is gone, so no sync goes on");
        outcome
    }

    /// Notes what has happened until the process `stopped` stopped, or until all are gone.
    fn note(&mut self, reread: Option<&Path>, stopped: Option<Pid>) {
        let changes = self.watch.look(reread).expect("the repository can be read");
        let steps = changes.into_iter().map(What::Changed).map(|what| Step { what, cause: self.last.clone() });
        self.steps.extend(steps);
        let ended = |pid: Pid| stopped.is_none_or(|stopped| stopped == pid || is_gone(pid));
        let (returned, open): (Vec<_>, Vec<_>) = self.open.drain(..).partition(|(pid, _)| ended(*pid));
        self.open = open;
        for (_, sync) in returned {
            self.steps.push(Step { what: What::Synced(sync), cause: self.syncs[sync].label.clone() });
        }
    }

    fn note_sync(&mut self, event: &Event) {
        if !["fsync", "fdatasync", "syncfs"].contains(&event.syscall) {
            return;
        }
        let Some(scope) = self.scope(event) else { return };
        self.open.push((event.pid, self.syncs.len()));
        let label = self.last.clone();
        self.syncs.push(Sync { label, role: event.role, scope, called: self.steps.len() });
    }

    fn scope(&self, event: &Event) -> Option<Scope> {
        let metadata = open_file(event)?;
        let root = fs::symlink_metadata(&self.watch.root).expect("the repository is there");
        if metadata.dev() != root.dev() {
            return None;
        }
        if event.syscall == "syncfs" {
            return Some(Scope::Everything);
        }
        let unnamed = || {
            let modified = metadata.modified().ok()?;
            Some(Scope::Unnamed { inode: metadata.ino(), size: metadata.len(), modified })
        };
        self.watch.find(metadata.ino()).map(Scope::Node).or_else(unnamed)
    }

    fn show(&self, event: &Event) -> String {
        let relative = |path: &Path| path.strip_prefix(&self.watch.root).unwrap_or(path).display().to_string();
        let paths: Vec<_> = [&event.path, &event.path2].into_iter().flatten().map(|path| relative(path)).collect();
        format!("{}: {} {}", who(event), event.syscall, paths.join(" -> "))
    }

    /// Does the sync cover the change at `step`?
    pub fn covers(&self, sync: &Sync, step: usize, change: &Change) -> bool {
        match (&sync.scope, change) {
            (Scope::Unnamed { inode, size, modified }, Change::Data { node, version }) => {
                let Some(now) = self.watch.nodes[*node].versions.get(*version) else { return false };
                self.watch.nodes[*node].inode == *inode
                    && now.content.len() as u64 == *size
                    && now.modified == *modified
            }
            (Scope::Unnamed { .. }, Change::Names { .. }) => false,
            _ if step >= sync.called => false,
            (Scope::Everything, _) => true,
            (Scope::Node(synced), Change::Data { node, .. }) => synced == node,
            (Scope::Node(synced), Change::Names { names, .. }) => {
                names.iter().any(|(key, _)| self.watch.names[*key].directory == *synced)
            }
        }
    }

    /// Returns the changes within a prefix that no sync within it covers, leaving out one sync.
    pub fn pending(&self, prefix: usize, ignored: Option<usize>) -> Vec<usize> {
        let returned: Vec<&Sync> = self.steps[..prefix]
            .iter()
            .filter_map(|step| match step.what {
                What::Synced(sync) if Some(sync) != ignored => Some(&self.syncs[sync]),
                _ => None,
            })
            .collect();
        let is_pending = |&step: &usize| match &self.steps[step].what {
            What::Changed(change) => !returned.iter().any(|sync| self.covers(sync, step, change)),
            _ => false,
        };
        (0..prefix).filter(is_pending).collect()
    }

    /// Every whole state of the refs that a crash after `prefix` steps may leave.
    pub fn legal(&self, prefix: usize) -> Vec<&Refs> {
        let acknowledged = self.acknowledged(prefix);
        let first = acknowledged.map_or(&self.before.refs, |last| &self.commands[last].refs);
        let mut legal = vec![first];
        for command in &self.commands[acknowledged.map_or(0, |last| last + 1)..] {
            legal.push(&command.refs);
            if command.acknowledged {
                break;
            }
        }
        legal
    }

    /// The last command that was acknowledged within a prefix.
    pub fn acknowledged(&self, prefix: usize) -> Option<usize> {
        self.steps[..prefix].iter().rev().find_map(|step| match step.what {
            What::Acknowledged(command) => Some(command),
            _ => None,
        })
    }

    /// Says what a change is about, for people.
    pub fn describe(&self, step: usize) -> String {
        let What::Changed(change) = &self.steps[step].what else { return self.steps[step].cause.clone() };
        match change {
            Change::Data { node, version } => {
                let node = &self.watch.nodes[*node];
                format!("{step} contents of {} ({} bytes)", node.path.display(), node.versions[*version].content.len())
            }
            Change::Names { names, .. } => {
                let names: Vec<_> = names
                    .iter()
                    .map(|(key, to)| {
                        format!("{}{}", if to.is_some() { "+" } else { "-" }, self.watch.path(*key).display())
                    })
                    .collect();
                format!("{step} names {}", names.join(" "))
            }
        }
    }

    /// The number of changes.
    pub fn changes(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step.what, What::Changed(_))).count()
    }

    /// The syncs that jin-txn made.
    pub fn syncs_of_the_hook(&self) -> Vec<usize> {
        (0..self.syncs.len()).filter(|&sync| self.syncs[sync].role == Role::Hook).collect()
    }
}

/// The metadata of the open file that an event is about, whether or not it has a name.
fn open_file(event: &Event) -> Option<fs::Metadata> {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", event.pid)).ok()?;
    let descriptor = descriptors.flatten().map(|it| it.path()).find(|it| fs::read_link(it).ok() == event.path)?;
    fs::metadata(descriptor).ok()
}

/// A command without its surroundings.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().rsplit('/').next().unwrap_or("").to_owned()).collect::<Vec<_>>().join(" ")
}

/// The last words of a process's command line say what it is called for.
fn who(event: &Event) -> String {
    let line = fs::read(format!("/proc/{}/cmdline", event.pid)).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(text).collect();
    match event.role {
        Role::Hook => format!("jin-txn {}", words.get(1).map_or("", |word| word)),
        _ => words.iter().take(2).map(|word| word.rsplit('/').next().unwrap_or("")).collect::<Vec<_>>().join(" "),
    }
}

fn is_gone(pid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}
