//! Ordinary work in a repository after a crash: everything must succeed.

use std::path::Path;
use std::process::Output;

use super::invariants::{Damage, Expectation, Violation};
use super::repo::{Git, Repo, jin_txn, text};
use super::snapshot::{Refs, Snapshot};

/// How the commands are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Git,
    /// `jin-txn git ...`
    Shim,
    /// Plain git, where a guard may refuse once after it has recovered.
    GitThatMayRefuseOnce,
}

/// Runs commands and collects those that fail.
pub struct Probes<'a> {
    repo: &'a Repo,
    via: Via,
    pub violations: Vec<Violation>,
}

impl<'a> Probes<'a> {
    pub fn new(repo: &'a Repo, via: Via) -> Self {
        Self { repo, via, violations: Vec::new() }
    }

    /// Reads the status, or the refs where there is no worktree.
    pub fn look(&mut self) {
        if self.repo.worktree().is_some() {
            self.run(&["status", "--porcelain"], "");
        } else {
            self.run(&["for-each-ref"], "");
        }
    }

    /// Creates and deletes a branch.
    pub fn branch(&mut self, commit: &str) {
        self.run(&["branch", "jin-probe", commit], "");
        self.run(&["branch", "-q", "-D", "jin-probe"], "");
    }

    /// Does everything else: fsck, moving every ref and back, a commit, packing, switching.
    pub fn work(&mut self, expected: &Expectation, commit: &str) {
        self.fsck();
        self.move_every_ref(expected, commit);
        if self.repo.worktree().is_some() {
            self.run(&["commit", "-q", "--allow-empty", "-m", "probe"], "");
        }
        self.run(&["pack-refs", "--all"], "");
        if self.repo.worktree().is_some() && !self.is_in_progress() {
            self.switch();
        }
    }

    fn fsck(&mut self) {
        let output = self.try_run(&["fsck", "--full", "--no-progress"], "");
        let complaints: Vec<_> = [text(&output.stdout), text(&output.stderr)]
            .iter()
            .flat_map(|stream| stream.lines())
            .filter(|line| {
                ["error", "fatal", "missing", "broken", "bad", "invalid"].iter().any(|word| line.starts_with(word))
            })
            .map(str::to_owned)
            .collect();
        if !output.status.success() || !complaints.is_empty() {
            self.violations.push(Violation::new(Damage::Fsck, format!("{}: {complaints:?}", output.status)));
        }
    }

    /// Moves all refs away and back; names that only some legal state has are created and deleted.
    fn move_every_ref(&mut self, expected: &Expectation, commit: &str) {
        let found = Snapshot::of(self.repo).refs;
        let (mut away, mut back) = (String::new(), String::new());
        for (name, value) in found.iter().filter(|(name, value)| is_plain_ref(name, value)) {
            away += &format!("update {name} {commit} {value}\n");
            back += &format!("update {name} {value} {commit}\n");
        }
        let others =
            expected.legal.iter().flatten().filter(|(name, value)| is_plain_ref(name, value)).map(|(name, _)| name);
        let mut absent: Vec<_> = others.filter(|name| fits_beside(name, &found)).collect();
        absent.sort();
        absent.dedup();
        for name in absent {
            away += &format!("create {name} {commit}\n");
            back += &format!("delete {name} {commit}\n");
        }
        self.run(&["update-ref", "--stdin"], &away);
        self.run(&["update-ref", "--stdin"], &back);
        for (name, value) in found.iter().filter(|(name, _)| name.starts_with("refs/")) {
            if let Some(target) = value.strip_prefix("ref: ") {
                self.run(&["symbolic-ref", name, target], "");
            }
        }
    }

    fn switch(&mut self) {
        let home = self.repo.try_git(["symbolic-ref", "--short", "-q", "HEAD"]);
        self.run(&["switch", "-q", "-c", "jin-probe"], "");
        let home = text(&home.stdout).trim().to_owned();
        if !home.is_empty() {
            self.run(&["switch", "-q", &home], "");
        }
    }

    fn is_in_progress(&self) -> bool {
        let git_dir = self.repo.git_dir();
        ["rebase-merge", "rebase-apply", "MERGE_HEAD"].iter().any(|name| git_dir.join(name).exists())
    }

    /// Runs a command that must succeed.
    fn run(&mut self, arguments: &[&str], input: &str) {
        let output = self.try_run(arguments, input);
        if !output.status.success() {
            let detail = format!("`git {}` failed: {}", arguments.join(" "), text(&output.stderr).trim());
            self.violations.push(Violation::new(Damage::Blocked, detail));
        }
    }

    fn try_run(&self, arguments: &[&str], input: &str) -> Output {
        let output = self.run_once(arguments, input);
        let complaint = text(&output.stderr);
        let refused = !output.status.success() && complaint.contains("jin-txn") && complaint.contains("again");
        if refused && self.via == Via::GitThatMayRefuseOnce {
            return self.run_once(arguments, input);
        }
        output
    }

    fn run_once(&self, arguments: &[&str], input: &str) -> Output {
        let (program, first) = match self.via {
            Via::Shim => (jin_txn(), Some("git")),
            Via::Git | Via::GitThatMayRefuseOnce => (Git::under_test().program.clone(), None),
        };
        let arguments = first.iter().chain(arguments);
        self.repo.run(program.as_os_str(), self.repo.path(), arguments, input.as_bytes())
    }
}

/// A ref below `refs/` that holds an object id.
fn is_plain_ref(name: &str, value: &str) -> bool {
    name.starts_with("refs/") && !value.starts_with("ref:")
}

/// Whether `name` is absent and may be created: no ref is its directory, or below it.
fn fits_beside(name: &String, found: &Refs) -> bool {
    !found.contains_key(name)
        && !found.keys().any(|other| Path::new(other).starts_with(name) || Path::new(name).starts_with(other))
}
