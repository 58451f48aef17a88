//! The commands that are killed, each with a template to run in and the states that a crash may leave.
//!
//! To add one: write a function that builds the template and add an entry to [`ALL`].

use std::fs;

use super::repo::{Options, Repo};

/// Which ref states are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legal {
    /// One transaction: all before or all after.
    BeforeOrAfter,
    /// Several transactions: also what was visible between two of them in an undisturbed run.
    BetweenTransactions,
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub name: &'static str,
    /// Fills the template; `repo` is the empty repository in which the command will run.
    pub setup: fn(&Repo),
    /// Arguments for git.
    pub command: &'static [&'static str],
    /// The repository that is guarded and judged, beside or equal to the one where the command runs.
    pub subject: &'static str,
    pub legal: Legal,
    /// The index must show the new tree once the refs do.
    pub index_follows_refs: bool,
    /// The branch configuration must carry the new name once the refs do.
    pub config_follows_refs: bool,
    /// The command must not touch a file of the worktree.
    pub worktree_untouched: bool,
}

const PLAIN: Operation = Operation {
    name: "",
    setup: history,
    command: &[],
    subject: "repo",
    legal: Legal::BeforeOrAfter,
    index_follows_refs: false,
    config_follows_refs: false,
    worktree_untouched: true,
};

/// The file beside the repositories that is the command's standard input, when it exists.
pub const INPUT: &str = "input";

pub const ALL: &[Operation] = &[
    Operation { name: "update-ref", setup: many_refs, command: &["update-ref", "--stdin"], ..PLAIN },
    Operation { name: "commit", setup: staged, command: &["commit", "-qm", "new"], index_follows_refs: true, ..PLAIN },
    Operation {
        name: "commit-a",
        setup: modified,
        command: &["commit", "-qam", "new"],
        index_follows_refs: true,
        ..PLAIN
    },
    Operation {
        name: "amend",
        setup: staged,
        command: &["commit", "-q", "--amend", "-m", "better"],
        index_follows_refs: true,
        ..PLAIN
    },
    Operation { name: "switch", command: &["switch", "-q", "topic"], worktree_untouched: false, ..PLAIN },
    Operation {
        name: "merge-ff",
        setup: ahead,
        command: &["merge", "-q", "--ff-only", "topic"],
        worktree_untouched: false,
        ..PLAIN
    },
    Operation { name: "merge", command: &["merge", "-q", "--no-edit", "topic"], worktree_untouched: false, ..PLAIN },
    Operation {
        name: "rebase",
        setup: stacked,
        command: &["rebase", "-q", "--update-refs", "main"],
        legal: Legal::BetweenTransactions,
        worktree_untouched: false,
        ..PLAIN
    },
    Operation { name: "fetch", setup: behind, command: &["fetch", "-q", "--atomic", "--prune", "origin"], ..PLAIN },
    Operation {
        name: "push",
        setup: unpushed,
        command: &["push", "-q", "--atomic", "origin", "main", "topic", "+forced", "new", ":gone"],
        subject: "upstream.git",
        ..PLAIN
    },
    Operation {
        name: "branch-m",
        setup: configured,
        command: &["branch", "-m", "main", "trunk"],
        config_follows_refs: true,
        ..PLAIN
    },
    Operation {
        name: "branch-M",
        setup: configured,
        command: &["branch", "-M", "main", "topic"],
        config_follows_refs: true,
        ..PLAIN
    },
    Operation { name: "branch-D", setup: configured, command: &["branch", "-q", "-D", "topic"], ..PLAIN },
    Operation { name: "branch-D-packed", setup: packed, command: &["branch", "-q", "-D", "topic"], ..PLAIN },
    Operation { name: "tag-d", setup: packed, command: &["tag", "-d", "v1"], ..PLAIN },
    Operation { name: "pack-refs", setup: many_refs, command: &["pack-refs", "--all"], ..PLAIN },
    Operation { name: "gc", setup: many_refs, command: &["gc", "--quiet"], ..PLAIN },
    Operation {
        name: "worktree-add",
        command: &["worktree", "add", "-q", "-b", "linked", "../linked"],
        legal: Legal::BetweenTransactions,
        ..PLAIN
    },
    Operation {
        name: "stash",
        setup: modified,
        command: &["stash", "push", "-q"],
        legal: Legal::BetweenTransactions,
        worktree_untouched: false,
        ..PLAIN
    },
];

/// Commands that call a hook late, or not at all, and hold `index.lock` meanwhile.
pub const OF_THE_INDEX: &[Operation] = &[
    Operation { name: "add", setup: modified, command: &["add", "--all"], ..PLAIN },
    Operation {
        name: "reset-hard",
        setup: modified,
        command: &["reset", "-q", "--hard", "topic"],
        worktree_untouched: false,
        ..PLAIN
    },
    Operation { name: "cherry-pick", command: &["cherry-pick", "topic"], worktree_untouched: false, ..PLAIN },
];

/// Returns the operation called `name`.
///
/// # Panics
/// When there is none.
pub fn named(name: &str) -> &'static Operation {
    ALL.iter()
        .chain(OF_THE_INDEX)
        .find(|operation| operation.name == name)
        .expect("an operation of that name is in the list")
}

/// Two diverged branches with different files, `main` checked out, a tag.
fn history(repo: &Repo) {
    repo.write("a.txt", "one\n");
    repo.write("dir/b.txt", "one\n");
    repo.write("same.txt", "same\n");
    repo.commit_all("base");
    repo.git(["tag", "v1"]);
    repo.git(["switch", "-q", "-c", "topic"]);
    repo.write("a.txt", "topic\n");
    repo.write("topic.txt", "topic\n");
    repo.commit_all("topic");
    repo.git(["switch", "-q", "main"]);
    repo.write("dir/b.txt", "main\n");
    repo.write("main.txt", "main\n");
    repo.commit_all("main");
}

/// `topic` is two commits ahead of `main`.
fn ahead(repo: &Repo) {
    history(repo);
    repo.git(["branch", "-q", "-f", "topic", "main"]);
    repo.git(["switch", "-q", "topic"]);
    for number in ["2", "3"] {
        repo.write("a.txt", number);
        repo.write(&format!("new-{number}.txt"), number);
        repo.commit_all(number);
    }
    repo.git(["switch", "-q", "main"]);
}

fn staged(repo: &Repo) {
    modified(repo);
    repo.git(["add", "--all"]);
}

fn modified(repo: &Repo) {
    history(repo);
    repo.write("a.txt", "changed by hand\n");
    repo.write("dir/b.txt", "changed by hand, too\n");
}

fn packed(repo: &Repo) {
    history(repo);
    repo.git(["pack-refs", "--all"]);
}

/// Both branches have an upstream in the configuration.
fn configured(repo: &Repo) {
    history(repo);
    for branch in ["main", "topic"] {
        repo.git(["config", &format!("branch.{branch}.remote"), "."]);
        repo.git(["config", &format!("branch.{branch}.merge"), "refs/heads/topic"]);
        repo.git(["config", &format!("branch.{branch}.description"), branch]);
    }
}

/// `topic` has three commits on an older `main`, with the branch `lower` at the first of them.
fn stacked(repo: &Repo) {
    history(repo);
    repo.git(["switch", "-q", "topic"]);
    repo.git(["branch", "lower"]);
    for number in ["2", "3"] {
        repo.write(&format!("topic-{number}.txt"), number);
        repo.commit_all(number);
    }
}

/// Loose, packed and loose-over-packed refs, and an input that creates, updates and deletes some of each.
fn many_refs(repo: &Repo) {
    history(repo);
    let [old, middle, new] = ["v1", "topic", "main"].map(|name| repo.read(["rev-parse", name]));
    for number in 1..=8 {
        repo.git(["branch", &format!("packed-{number}"), &old]);
    }
    repo.git(["pack-refs", "--all"]);
    for number in 1..=4 {
        repo.git(["branch", &format!("loose-{number}"), &old]);
        repo.git(["update-ref", &format!("refs/heads/packed-{number}"), &middle]);
    }
    let mut input = String::from("start\n");
    for name in ["created-1", "created-2", "deep/er/created-3"] {
        input += &format!("create refs/heads/{name} {new}\n");
    }
    for (name, value) in
        [("loose-1", &old), ("loose-2", &old), ("packed-1", &middle), ("packed-5", &old), ("packed-6", &old)]
    {
        input += &format!("update refs/heads/{name} {new} {value}\n");
    }
    for (name, value) in [("loose-3", &old), ("packed-2", &middle), ("packed-7", &old)] {
        input += &format!("delete refs/heads/{name} {value}\n");
    }
    input += "prepare\ncommit\n";
    fs::write(repo.scratch().join(INPUT), input).expect("the input can be written");
}

/// An upstream that has new, moved and removed branches.
fn behind(repo: &Repo) {
    history(repo);
    for branch in ["gone", "kept", "moved"] {
        repo.git(["branch", branch]);
    }
    let upstream = share(repo);
    repo.git(["fetch", "-q", "origin"]);
    repo.git(["remote", "set-head", "origin", "main"]);
    let [old, new] = ["v1", "main"].map(|name| repo.read(["rev-parse", name]));
    upstream.git(["update-ref", "refs/heads/moved", &new_commit(&upstream, &new)]);
    upstream.git(["update-ref", "refs/heads/topic", &new_commit(&upstream, "topic")]);
    upstream.git(["update-ref", "refs/heads/new-1", &new_commit(&upstream, &old)]);
    upstream.git(["update-ref", "refs/heads/new-2", &old]);
    upstream.git(["update-ref", "-d", "refs/heads/gone"]);
}

/// Local branches that are new, moved, rewritten and removed compared with the upstream.
fn unpushed(repo: &Repo) {
    history(repo);
    for branch in ["gone", "forced"] {
        repo.git(["branch", branch]);
    }
    share(repo);
    repo.git(["branch", "-q", "-f", "forced", "topic"]);
    repo.git(["branch", "new"]);
    for branch in ["main", "topic"] {
        let commit = new_commit(repo, branch);
        repo.git(["update-ref", &format!("refs/heads/{branch}"), &commit]);
    }
}

/// Makes the bare `upstream.git` with all branches and the remote that leads there.
fn share(repo: &Repo) -> Repo {
    let upstream = repo.new_sibling("upstream.git", Options { bare: true, ..Options::default() });
    upstream.git(["config", "core.logAllRefUpdates", "true"]);
    repo.git(["remote", "add", "origin", "../upstream.git"]);
    repo.git(["push", "-q", "origin", "refs/heads/*:refs/heads/*"]);
    upstream
}

fn new_commit(repo: &Repo, parent: &str) -> String {
    repo.read(["commit-tree", "-p", parent, "-m", "later", &format!("{parent}^{{tree}}")])
}
