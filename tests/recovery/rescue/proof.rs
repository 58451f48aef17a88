//! A HEAD, a copy, a cache: what is told is what is true, and what is not proved is not done.

use std::fs;
use std::os::unix::fs::symlink;

use super::damage::{empty, remove, rescue, write};
use super::judge::everything;
use crate::support::repo::{Options, Repo};

/// Three commits on `main`, and `side` at the first.
fn repository() -> Repo {
    let repo = Repo::new(Options::default());
    for number in 1..=3 {
        repo.write("file", &format!("{number}\n"));
        repo.commit_all(&number.to_string());
    }
    repo.git(["branch", "side", "HEAD~2"]);
    repo
}

fn head(repo: &Repo, name: &str) -> String {
    fs::read_to_string(repo.git_dir().join(name)).unwrap().trim().to_owned()
}

#[test]
fn a_head_goes_onto_a_branch_only_where_that_has_its_newest_value() {
    /// What is done, the HEAD that is emptied then, the branch that it is on (`None`: its newest value), and the exit code.
    type Row = (&'static str, fn(&Repo), &'static str, Option<&'static str>, i32);
    let rows: [Row; 6] = [
        (
            "detached, and two commits",
            |r| {
                r.git(["switch", "-q", "--detach", "side"]);
                r.commit_all("one");
                r.commit_all("two");
            },
            "HEAD",
            None,
            4,
        ),
        (
            "an orphan branch, which leaves no checkout",
            |r| {
                r.git(["switch", "-q", "side"]);
                r.git(["switch", "-q", "main"]);
                r.git(["checkout", "-q", "--orphan", "pages"]);
                r.commit_all("page");
            },
            "HEAD",
            Some("pages"),
            0,
        ),
        (
            "a symbolic ref that was set",
            |r| {
                r.git(["switch", "-q", "side"]);
                r.git(["switch", "-q", "main"]);
                r.git(["branch", "other"]);
                r.git(["symbolic-ref", "HEAD", "refs/heads/other"]);
                r.commit_all("other");
            },
            "HEAD",
            Some("other"),
            0,
        ),
        ("a switch", |r| drop(r.git(["switch", "-q", "side"])), "HEAD", Some("side"), 0),
        (
            "a detached worktree at a branch that is checked out",
            |r| {
                let linked = r.scratch().join("linked");
                r.git(["worktree", "add", "-q", "--detach", linked.to_str().unwrap(), "main"]);
            },
            "worktrees/linked/HEAD",
            None,
            4,
        ),
        (
            "no branch at all",
            |r| {
                r.git(["checkout", "-q", "--detach"]);
                r.git(["branch", "-q", "-D", "main", "side"]);
            },
            "HEAD",
            None,
            0,
        ),
    ];
    for (what, act, name, branch, expected) in rows {
        let repo = repository();
        act(&repo);
        let dir = repo.git_dir().join(name).parent().unwrap().to_owned();
        let value = repo.read(["--git-dir", dir.to_str().unwrap(), "rev-parse", "HEAD"]);
        empty(&repo, name);
        let (code, said) = rescue(&repo, &[]);
        let wanted = branch.map_or(value, |branch| format!("ref: refs/heads/{branch}"));
        assert_eq!((code, head(&repo, name)), (expected, wanted), "{what}: {said}");
    }
}

#[test]
fn where_nothing_is_known_of_head_a_branch_comes_before_other_refs_and_no_stash_is_taken() {
    let repo = repository();
    let tip = repo.read(["rev-parse", "main"]);
    repo.write("file", "stashed\n");
    repo.git(["stash", "-q"]);
    repo.git(["stash", "pop", "-q"]);
    remove(&repo, "logs/HEAD");
    empty(&repo, "HEAD");
    let (code, said) = rescue(&repo, &[]);
    assert_eq!((code, head(&repo, "HEAD")), (4, tip.clone()), "the tip of a branch: {said}");

    let repo = repository();
    repo.git(["tag", "-a", "-m", "tag", "v1", "main"]);
    repo.git(["checkout", "-q", "--detach"]);
    repo.git(["branch", "-q", "-D", "main", "side"]);
    remove(&repo, "logs");
    empty(&repo, "HEAD");
    let (code, said) = rescue(&repo, &[]);
    let known = repo.read(["rev-parse", "v1^{commit}"]);
    assert_eq!((code, head(&repo, "HEAD")), (4, known), "the commit of a tag: {said}");
}

#[test]
fn several_lost_branches_keep_their_names_and_are_told_as_lost_and_git_works() {
    let repo = repository();
    let bare = repo.new_sibling("bare.git", Options { bare: true, ..Options::default() });
    repo.git(["push", "-q", "../bare.git", "main", "side:a-side"]);
    let newest = bare.read(["log", "-1", "--format=%H", "main", "a-side"]);
    empty(&bare, "refs/heads/main");
    empty(&bare, "refs/heads/a-side");
    let (code, said) = rescue(&bare, &[]);
    assert!(code == 4 && said.contains("refs/heads/a-side: nobody knows its value"), "{said}");
    // Killed behind the first one, a rescue that is run again finds that one's commit at HEAD, and gives it to the others.
    let at = |name: &str| said.find(&format!("refs/heads/{name} is empty")).expect("it is told");
    assert!(at("main") < at("a-side"), "the branch of HEAD is written first: {said}");
    assert_eq!(bare.read(["rev-parse", "main", "a-side"]), format!("{newest}\n{newest}"), "{said}");
    bare.git(["fsck", "--strict"]);
    bare.git(["gc", "-q"]);
}

#[test]
fn lost_branches_beside_a_head_without_commits_are_left() {
    let repo = repository();
    repo.git(["switch", "-q", "--orphan", "new"]);
    remove(&repo, "logs");
    empty(&repo, "refs/heads/main");
    empty(&repo, "refs/heads/side");
    for _ in 0..2 {
        let (code, said) = rescue(&repo, &[]);
        assert!(code == 4 && said.contains("HEAD has no commit that it could get: it is left"), "{code}: {said}");
        assert_eq!(fs::read(repo.git_dir().join("refs/heads/side")).unwrap(), b"", "{said}");
    }
}

#[test]
fn a_copy_of_what_lies_elsewhere_is_refused() {
    /// What is elsewhere, how it gets there, and what is said.
    type Row = (&'static str, fn(&Repo), &'static str);
    let elsewhere = |repo: &Repo| {
        let to = repo.scratch().join("elsewhere.git");
        fs::rename(repo.git_dir(), &to).unwrap();
        symlink(to, repo.path().join(".git")).unwrap();
    };
    let worktree = |repo: &Repo| drop(repo.git(["config", "core.worktree", repo.path().to_str().unwrap()]));
    let rows: [Row; 2] =
        [("a link", elsewhere, "would work on the original"), ("core.worktree", worktree, "core.worktree is")];
    for (what, act, wanted) in rows {
        let repo = repository();
        act(&repo);
        empty(&repo, "HEAD");
        let (before, copy) = (everything(&repo), repo.scratch().join("copy"));
        let (code, said) = rescue(&repo, &["--to", copy.to_str().unwrap()]);
        assert!(code == 1 && said.contains(wanted) && !copy.exists(), "{what}: {code}: {said}");
        assert!(everything(&repo) == before && !repo.git_dir().join("jin-rescue").exists(), "{what}");
    }
}

#[test]
fn an_index_is_found_by_a_relative_path_to_its_worktree() {
    let repo = repository();
    let linked = repo.scratch().join("linked");
    repo.git(["worktree", "add", "-q", linked.to_str().unwrap(), "side"]);
    write(&repo, "worktrees/linked/gitdir", b"../../../../linked/.git\n");
    empty(&repo, "worktrees/linked/index");
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 0 && said.contains("worktrees/linked/index cannot be read"), "{code}: {said}");
    repo.git(["-C", linked.to_str().unwrap(), "status"]);
}

#[test]
fn what_git_has_without_an_object_or_reads_as_nothing_is_not_missing() {
    let repo = repository();
    repo.git(["switch", "-q", "--orphan", "new"]);
    repo.git(["read-tree", "--empty"]);
    repo.git(["write-tree"]);
    let tree = repo.read(["hash-object", "-t", "tree", "/dev/null"]);
    remove(&repo, &format!("objects/{}/{}", &tree[..2], &tree[2..]));
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 0 && said.contains("nothing is wrong"), "{code}: {said}");
    write(&repo, "packed-refs", b"");
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 4 && !repo.git_dir().join("refs/heads/new").exists(), "an orphan branch: {said}");
}

#[test]
fn damaged_layers_and_an_empty_configuration_of_a_worktree_are_told_once() {
    let repo = repository();
    write(&repo, "objects/pack/multi-pack-index.d/multi-pack-index-chain", b"chain\n");
    write(&repo, "objects/pack/multi-pack-index.d/multi-pack-index-1.midx", b"MIDX garbage");
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 0 && said.contains("multi-pack-index-1.midx is damaged"), "{code}: {said}");
    assert!(!repo.git_dir().join("objects/pack/multi-pack-index.d/multi-pack-index-chain").exists(), "{said}");
    repo.git(["config", "extensions.worktreeConfig", "true"]);
    write(&repo, "config.worktree", b"");
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 4 && said.contains("config.worktree is empty"), "{code}: {said}");
    assert_eq!(rescue(&repo, &[]).0, 0);
    write(&repo, "config.worktree", b"[core]\n\tsparseCheckout = true\n");
    empty(&repo, "config");
    let (code, said) = rescue(&repo, &[]);
    assert_eq!((code, repo.read(["config", "core.sparseCheckout"]).as_str()), (4, "true"), "{said}");
}

#[test]
fn a_fifo_between_the_layers_is_refused() {
    let repo = repository();
    let dir = repo.git_dir().join("objects/pack/multi-pack-index.d");
    fs::create_dir_all(&dir).unwrap();
    nix::unistd::mkfifo(&dir.join("multi-pack-index-chain"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 1 && said.contains("is not a regular file"), "{code}: {said}");
}
