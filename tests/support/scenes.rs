//! Runs (`jin-txn run`) that are killed: what they do, what they find, and everything that has to be as before afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::observe::{Tree, tree};
use super::repo::{Options, Repo, text};
use super::snapshot::{Refs, Snapshot};
use super::{crash, operations};

/// A command under `jin-txn run`.
pub struct Scene {
    pub name: &'static str,
    pub setup: fn(&Repo),
    /// Arguments for git, or a script for the shell.
    pub command: What,
    /// It succeeds when nobody disturbs it.
    pub succeeds: bool,
}

pub enum What {
    Git(&'static [&'static str]),
    Script(&'static str),
}

pub const ALL: &[Scene] = &[
    Scene { name: "script", setup: busy, command: What::Script(SCRIPT), succeeds: true },
    Scene { name: "failing-script", setup: busy, command: What::Script(FAILING), succeeds: false },
    Scene { name: "blind-script", setup: busy, command: What::Script(BLIND), succeeds: false },
    git("switch", light, &["switch", "-q", "topic"], true),
    git("merge", light, &["merge", "-q", "--no-edit", "topic"], true),
    git("rebase", stack, &["rebase", "-q", "--update-refs", "main"], true),
    git("rebase-conflict", conflicting_stack, &["rebase", "-q", "--update-refs", "main"], false),
    git("cherry-pick", stack, &["cherry-pick", "main~1..main"], true),
    git("stash-push", busy, &["stash", "push", "-q", "-u"], true),
    git("stash-pop", stashed, &["stash", "pop", "-q"], true),
    git("reset-hard", busy, &["reset", "-q", "--hard", "HEAD~1"], true),
    git("branch-m", busy, &["branch", "-m", "main", "trunk"], true),
];

const fn git(name: &'static str, setup: fn(&Repo), arguments: &'static [&'static str], succeeds: bool) -> Scene {
    Scene { name, setup, command: What::Git(arguments), succeeds }
}

/// Commits, tags, a branch rename, edits of every kind.
const SCRIPT: &str = "set -e
echo script >a.txt
rm untracked/todo
mkdir -p made/deep
echo made >made/deep/file
git add a.txt made
git commit -qm 'by the script'
git tag by-script
git branch -m side renamed
git switch -q -c feature
echo more >>main.txt
chmod +x main.txt
ln -s a.txt link
git commit -qam 'more by the script'
git tag -d v1 >/dev/null
";

const FAILING: &str = "set -e
echo script >a.txt
rm untracked/todo dir/b.txt
mkdir -p made/deep
echo made >made/deep/file
git add a.txt made
git commit -qm 'by the script'
git tag by-script
git branch -m side renamed
git switch -q -c feature
echo more >>main.txt
chmod +x main.txt
git commit -qam 'more by the script'
git stash push -q -u
git merge -q --no-edit side-two || true
exit 3
";

/// No hook sees what it does.
const BLIND: &str = "set -e
git config core.hooksPath .husky/_
echo script >a.txt
git commit -qam 'by the script'
git tag by-script
git branch -D side
git branch -f side-two HEAD
git switch -q -c feature
exit 3
";

/// A worktree in the middle of work: staged, modified, deleted, untracked, ignored, linked, executable.
fn busy(repo: &Repo) {
    operations::named("commit").setup_in(repo, |repo| {
        repo.git(["branch", "side", "topic"]);
        repo.git(["branch", "side-two", "topic"]);
        repo.write(".gitignore", "*.env\nbuild/\n");
        repo.write("kept.txt", "kept\n");
        repo.write("doomed.txt", "doomed\n");
        repo.commit_all("ignore");
    });
    repo.write("same.txt", "staged by hand\n");
    repo.git(["add", "same.txt"]);
    repo.write("same.txt", "staged by hand, and changed again\n");
    repo.write("kept.txt", "changed by hand\n");
    fs::remove_file(repo.path().join("doomed.txt")).expect("it is there");
    repo.write("untracked/todo", "mine\n");
    repo.write("untracked/run.sh", "#!/bin/sh\n");
    fs::set_permissions(repo.path().join("untracked/run.sh"), fs::Permissions::from_mode(0o750)).expect("it is there");
    symlink("../a.txt", repo.path().join("untracked/link")).expect("a link can be made");
    repo.write("secret.env", "secret\n");
    repo.write("build/out.o", "built\n");
}

/// Nothing that stands in the way of another branch.
fn light(repo: &Repo) {
    operations::named("commit").setup_in(repo, |_| {});
    repo.write("same.txt", "changed by hand\n");
    repo.write("mine", "untracked\n");
    repo.write(".git/info/exclude", "*.env\n");
    repo.write("secret.env", "secret\n");
}

fn stashed(repo: &Repo) {
    operations::named("commit").setup_in(repo, |_| {});
    for content in ["first", "second"] {
        repo.write("a.txt", content);
        repo.git(["stash", "push", "-q", "-m", content]);
    }
    repo.write("mine", "untracked\n");
}

/// Three branches on top of each other, which `--update-refs` moves together.
fn stack(repo: &Repo) {
    operations::named("rebase").setup_in(repo, |_| {});
    repo.write("mine", "untracked\n");
}

/// The second commit of the stack conflicts with `main`.
fn conflicting_stack(repo: &Repo) {
    operations::named("commit").setup_in(repo, |repo| {
        repo.git(["switch", "-q", "-c", "low", "v1"]);
        for (branch, file) in [("low", "low.txt"), ("middle", "main.txt"), ("high", "high.txt")] {
            repo.git(["switch", "-q", "-C", branch]);
            repo.write(file, branch);
            repo.commit_all(branch);
        }
    });
    repo.write("mine", "untracked\n");
    repo.write(".git/info/exclude", "*.env\n");
    repo.write("secret.env", "secret\n");
}

impl operations::Operation {
    /// The template of the operation without its uncommitted changes, and something on top.
    fn setup_in(&self, repo: &Repo, then: impl FnOnce(&Repo)) {
        (self.setup)(repo);
        repo.git(["reset", "-q", "--hard"]);
        then(repo);
    }
}

impl Scene {
    pub fn template(&self) -> Repo {
        let repo = Repo::new(Options::default());
        (self.setup)(&repo);
        repo
    }

    /// `jin-txn run` with the scene's command.
    pub fn run(&self, repo: &Repo) -> Command {
        let mut command = crash::jin(repo, &["run", "--"]);
        match self.command {
            What::Git(arguments) => command.arg("git").args(arguments),
            What::Script(script) => command.args(["sh", "-c", script]),
        };
        command
    }
}

/// Everything that a run has to leave as it found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub refs: Refs,
    pub logs: BTreeMap<String, String>,
    pub index: Result<String, String>,
    /// Names, modes, contents.
    pub worktree: Tree,
    pub status: String,
    /// Files of the git directory that are not refs, logs, objects or ours: configuration, MERGE_HEAD, rebase-merge/...
    pub git_dir: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

impl Whole {
    pub fn of(repo: &Repo) -> Whole {
        let Snapshot { refs, logs, index, .. } = Snapshot::of(repo);
        let status = repo.try_git(["--no-optional-locks", "status", "--porcelain", "-uall"]);
        let mut worktree = tree(repo.path());
        // Directories are not git's; those that hold something show by that.
        worktree.retain(|path, _| !path.starts_with(".git") && !repo.path().join(path).is_dir());
        Whole { refs, logs, index, worktree, status: text(&status.stdout).into_owned(), git_dir: git_dir(repo) }
    }

    /// What differs, in words.
    pub fn differences(&self, other: &Whole) -> String {
        let mut found = Vec::new();
        found.extend(maps("ref", &self.refs, &other.refs));
        found.extend(maps("reflog", &self.logs, &other.logs));
        let name = |m: &Tree| m.iter().map(|(p, v)| (p.display().to_string(), v.clone())).collect::<BTreeMap<_, _>>();
        found.extend(maps("file", &name(&self.worktree), &name(&other.worktree)));
        found.extend(maps("git file", &name(&self.git_dir), &name(&other.git_dir)));
        if self.index != other.index {
            found.push(format!("index: {:?}\n  instead of {:?}", self.index, other.index));
        }
        if self.status != other.status {
            found.push(format!("status: {:?} instead of {:?}", self.status, other.status));
        }
        found.join("\n  ")
    }
}

fn maps<V: PartialEq + std::fmt::Debug>(
    kind: &str,
    one: &BTreeMap<String, V>,
    other: &BTreeMap<String, V>,
) -> Vec<String> {
    let names = one.keys().chain(other.keys()).collect::<std::collections::BTreeSet<_>>();
    let differ = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
    differ.map(|name| format!("{kind} {name}")).collect()
}

fn git_dir(repo: &Repo) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    // `info/refs` is what a gc makes of the refs, and COMMIT_EDITMSG the text of the last commit, which stays.
    #[rustfmt::skip]
    const OTHER: [&str; 11] = [
        ".jin", "HEAD", "hooks", "index", "logs", "objects", "packed-refs", "refs", "gc.log", "info/refs", "COMMIT_EDITMSG",
    ];
    let root = repo.git_dir();
    let skipped = |path: &Path| OTHER.iter().any(|name| path.strip_prefix(&root).is_ok_and(|p| p.starts_with(name)));
    let files = super::snapshot::walk(&root, &|directory| !skipped(directory));
    let file = |path: PathBuf| {
        let mode = fs::symlink_metadata(&path).ok()?.mode();
        Some((path.strip_prefix(&root).ok()?.to_owned(), (mode, fs::read(&path).ok()?)))
    };
    files.into_iter().filter(|path| !skipped(path)).filter_map(file).collect()
}
