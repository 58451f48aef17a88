//! A repository and a transaction on it: four refs and three files, one of each kind.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::crash::jin;
use super::repo::{Options, Repo, jin_txn, text};
use super::snapshot::{self, Snapshot};
use super::tracer::{self, Action, Event, Isolation, Outcome, Role};

pub struct Scene {
    pub repo: Repo,
    /// What `apply` reads.
    pub input: String,
}

impl Scene {
    /// Unguarded, so that it can be copied.
    pub fn template(options: Options) -> Scene {
        let repo = Repo::new(options);
        repo.write("etc/app.conf", "old\n");
        repo.write("old/only/gone.txt", "going\n");
        repo.write("kept.txt", "kept\n");
        let first = repo.commit_all("first");
        let second = repo.commit_all("second");
        for branch in ["layer", "doomed"] {
            repo.git(["branch", branch, &first]);
        }
        repo.git(["reset", "-q", "--hard", &first]);
        repo.write("../new.sh", "#!/bin/sh\n");
        repo.write("../app.conf", "new\n");
        let blob = |name: &str| repo.read(["hash-object", "--no-filters", name]);
        let (conf, gone) = (blob("etc/app.conf"), blob("old/only/gone.txt"));
        let input = format!(
            "update refs/heads/main {second} {first}\nupdate refs/heads/layer {second} {first}\n\
             create refs/tags/v1 {second}\ndelete refs/heads/doomed {first}\n\
             write bin/deep/new.sh 100755 ../new.sh absent\nwrite etc/app.conf 100644 ../app.conf {conf}\n\
             remove old/only/gone.txt {gone}\n"
        );
        Scene { repo, input }
    }

    /// A guarded copy.
    pub fn fresh(&self) -> Repo {
        let repo = self.repo.copy();
        repo.install_guard();
        repo
    }

    pub fn guarded() -> Scene {
        let scene = Scene::template(Options::default());
        scene.repo.install_guard();
        scene
    }

    pub fn command(repo: &Repo) -> Command {
        jin(repo, &["apply", "--message", "layers"])
    }

    /// Applies it; where git first comes to what `wanted` selects, somebody makes a `change`.
    pub fn interfere(&self, wanted: fn(&Event) -> bool, change: impl FnOnce()) -> Outcome {
        let mut change = Some(change);
        let decide = &mut |event: &Event| {
            if event.role == Role::Git
                && wanted(event)
                && let Some(change) = change.take()
            {
                change();
            }
            Action::Continue
        };
        let outcome = tracer::trace(Self::command(&self.repo), self.input.as_bytes(), Isolation::None, decide);
        assert!(change.is_none(), "git comes there");
        outcome.expect("jin-txn starts")
    }
}

/// Runs `jin-txn` with arguments and an input, and returns the exit code, stdout, stderr.
pub fn run(repo: &Repo, arguments: &[&str], input: &str) -> (i32, String, String) {
    let output = repo.run(jin_txn().as_os_str(), repo.path(), arguments, input.as_bytes());
    let text = |bytes: &[u8]| text(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

pub fn apply(repo: &Repo, input: &str) -> (i32, String) {
    let (code, _, said) = run(repo, &["apply"], input);
    (code, said)
}

/// Everything that a transaction may change, as anybody sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub refs: snapshot::Refs,
    /// The last entry of each reflog: values and message, without the transaction's number.
    pub logs: BTreeMap<String, (usize, String)>,
    pub files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
    pub status: String,
}

impl State {
    pub fn of(repo: &Repo) -> State {
        let seen = Snapshot::of(repo);
        let log = |(name, text): (String, String)| {
            let last = text.lines().last().unwrap_or_default();
            (name, (text.lines().count(), last.split(" (tx-").next().unwrap_or_default().to_owned()))
        };
        let worktree = repo.worktree().expect("it has a worktree");
        let is_outside = |path: &PathBuf| !path.starts_with(worktree.join(".git"));
        let files = snapshot::contents(worktree).into_iter().filter(|(path, _)| is_outside(path));
        let relative = |path: PathBuf| path.strip_prefix(worktree).expect("it lies in it").to_owned();
        State {
            refs: seen.refs,
            logs: seen.logs.into_iter().map(log).collect(),
            files: files.map(|(path, file)| (relative(path), file)).collect(),
            status: text(&repo.git(["status", "--porcelain"]).stdout).into_owned(),
        }
    }
}

pub fn mode(repo: &Repo, path: &str) -> u32 {
    std::fs::symlink_metadata(repo.path().join(path)).expect("it is there").permissions().mode() & 0o777
}
