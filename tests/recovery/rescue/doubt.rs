//! What nobody can prove is left as it is, or told as a loss: no value is guessed, and no branch moves without need.

use std::fs;
use std::os::unix::fs::symlink;

use super::damage::{cut, empty, named, object, remove, rescue, write, zero};
use super::judge::everything;
use crate::support::repo::{Options, Repo};

/// A repository with so many commits, in which `old` was a file of the second one alone.
fn history(commits: usize) -> Repo {
    let repo = Repo::new(Options::default());
    for number in 1..=commits {
        repo.write("file", &format!("{number}\n"));
        if number == 2 {
            repo.write("old", "old\n");
        } else {
            fs::remove_file(repo.path().join("old")).ok();
        }
        repo.commit_all(&number.to_string());
    }
    repo
}

fn refs(repo: &Repo) -> String {
    repo.read(["for-each-ref", "--format=%(refname) %(objectname)"])
}

#[test]
fn a_branch_whose_newest_commit_is_whole_stays_where_it_is() {
    let repo = history(6);
    let (before, log) = (refs(&repo), repo.read(["reflog"]));
    let blob = object(&repo, "HEAD~4:old");
    empty(&repo, &blob);
    let (code, said) = rescue(&repo, &[]);
    assert_eq!((code, refs(&repo)), (4, before.clone()), "{said}");
    assert!(said.contains("a part of the history of refs/heads/main"), "{said}");
    let left = repo.read(["reflog"]).lines().count();
    assert_eq!(left + 1, log.lines().count(), "the one entry about a tree with a hole goes");
    // The newest commit is lost: the one before it is the nearest that can be worked with.
    let repo = history(6);
    let blob = object(&repo, "HEAD~4:old");
    empty(&repo, &blob);
    let (tip, parent) = (object(&repo, "HEAD"), repo.read(["rev-parse", "HEAD~1"]));
    remove(&repo, &tip);
    let (code, said) = rescue(&repo, &[]);
    assert_eq!((code, repo.read(["rev-parse", "main"])), (4, parent), "{said}");
    assert!(said.contains("refs/heads/main: it was"), "{said}");
}

#[test]
fn a_hole_in_history_is_told_and_no_shallow_is_made_of_it() {
    for content in [&b""[..], &[0; 41], b"garbage\n"] {
        let repo = history(5);
        let before = refs(&repo);
        let commit = object(&repo, "HEAD~2");
        remove(&repo, &commit);
        write(&repo, "shallow", content);
        let (code, said) = rescue(&repo, &[]);
        assert_eq!((code, refs(&repo)), (4, before), "{said}");
        assert!(said.contains("a part of the history of refs/heads/main"), "{said}");
        let now = fs::read(repo.git_dir().join("shallow")).unwrap_or_default();
        assert_eq!(now, b"", "{said}");
        repo.git(["status"]);
        repo.commit_all("after");
    }
}

/// Moves it out of the git directory, and leaves a link.
fn link(repo: &Repo, name: &str) {
    let (from, to) = (repo.git_dir().join(name), repo.scratch().join("moved").join(name));
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::rename(&from, &to).unwrap();
    symlink(to, from).unwrap();
}

#[test]
fn what_git_reads_through_links_is_refused() {
    type Linked = (&'static str, bool, fn(&Repo) -> Vec<String>);
    let linked: [Linked; 5] = [
        ("packs", true, |r| named(r, "objects/pack", "")),
        ("the directory of packs", true, |_| vec!["objects/pack".to_owned()]),
        ("an object", false, |r| vec![object(r, "HEAD")]),
        ("a directory of objects", false, |r| vec![object(r, "HEAD")[.."objects/12".len()].to_owned()]),
        ("the branches", false, |_| vec!["refs/heads".to_owned()]),
    ];
    for (what, packed, paths) in linked {
        let repo = history(3);
        if packed {
            repo.git(["gc", "-q"]);
        }
        let before = refs(&repo);
        paths(&repo).iter().for_each(|path| link(&repo, path));
        // (fsck of newer gits complains of the links.)
        repo.git(["rev-list", "--objects", "--all"]);
        let (code, said) = rescue(&repo, &[]);
        assert!(code == 1 && said.contains("is a link"), "{what}: {said}");
        assert_eq!(refs(&repo), before, "{what}");
        assert!(!repo.git_dir().join("jin-rescue").exists(), "{what}: nothing was touched");
    }
}

#[test]
fn a_pack_of_any_name_is_read() {
    let repo = history(3);
    repo.git(["gc", "-q"]);
    for file in named(&repo, "objects/pack", "") {
        let (from, end) = (repo.git_dir().join(&file), file.rsplit('.').next().unwrap());
        fs::rename(&from, from.with_file_name(format!("base.{end}"))).unwrap();
    }
    let before = refs(&repo);
    let (code, said) = rescue(&repo, &[]);
    assert_eq!((code, refs(&repo)), (0, before), "{said}");
    assert!(said.contains("nothing is wrong"), "{said}");
}

#[test]
fn where_every_commit_is_lost_the_branch_of_head_goes_on_without_commits_and_the_others_stay() {
    let repo = history(1);
    let (tip, value) = (object(&repo, "HEAD"), repo.read(["rev-parse", "HEAD"]));
    empty(&repo, &tip);
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 4 && said.contains(&format!("refs/heads/main: it was {value}")), "{code}: {said}");
    assert!(said.contains("git works again"), "{said}");
    assert_eq!(repo.read(["status", "--porcelain"]), "A  file", "the index is what it was: {said}");
    repo.commit_all("again");
    repo.git(["fsck"]);

    let repo = history(1);
    let tip = object(&repo, "HEAD");
    repo.git(["branch", "other"]);
    empty(&repo, &tip);
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 4 && said.contains("git does not work yet: git for-each-ref fails"), "{code}: {said}");
    assert_eq!(fs::read_to_string(repo.git_dir().join("refs/heads/other")).unwrap().trim(), value, "{said}");
}

#[test]
fn a_server_has_no_reflogs_and_its_branches_go_to_the_newest_commit_that_nothing_names() {
    type Damage = fn(&Repo);
    let rows: [(&str, Damage, usize); 2] = [
        (
            "packed-refs is empty",
            |bare| {
                bare.git(["pack-refs", "--all"]);
                empty(bare, "packed-refs");
            },
            0,
        ),
        (
            "the last commit is empty",
            |bare| {
                let tip = object(bare, "main");
                empty(bare, &tip);
            },
            1,
        ),
    ];
    for (what, damage, lost) in rows {
        let repo = history(3);
        let bare = repo.new_sibling("bare.git", Options { bare: true, ..Options::default() });
        bare.git(["config", "receive.unpackLimit", "100"]);
        repo.git(["push", "-q", "../bare.git", "main"]);
        damage(&bare);
        let (code, said) = rescue(&bare, &[]);
        assert!(code == 4 && said.contains("git works again"), "{what}: {code}: {said}");
        let wanted = repo.read(["rev-parse", &format!("main~{lost}")]);
        assert_eq!(bare.read(["rev-parse", "HEAD"]), wanted, "{what}: {said}");
        repo.git(["push", "-q", "../bare.git", "main"]);
        bare.git(["gc", "-q"]);
        bare.git(["fsck"]);
    }
}

#[test]
fn head_is_taken_with_proof_or_told_or_left() {
    let head = |repo: &Repo| fs::read_to_string(repo.git_dir().join("HEAD")).unwrap();
    let repo = history(2);
    repo.git(["branch", "backup"]);
    empty(&repo, "HEAD");
    let (code, said) = rescue(&repo, &[]);
    assert_eq!(
        (code, head(&repo).as_str()),
        (0, "ref: refs/heads/main\n"),
        "the reflog of main ends as that of HEAD: {said}"
    );

    let repo = history(2);
    repo.git(["branch", "backup"]);
    let tip = repo.read(["rev-parse", "main"]);
    remove(&repo, "logs/refs");
    empty(&repo, "HEAD");
    let (code, said) = rescue(&repo, &[]);
    assert_eq!((code, head(&repo)), (4, format!("{tip}\n")), "two branches may be meant: {said}");

    let repo = history(2);
    repo.git(["branch", "backup"]);
    let tip = repo.read(["rev-parse", "main"]);
    remove(&repo, "logs");
    empty(&repo, "HEAD");
    let (code, said) = rescue(&repo, &[]);
    assert_eq!((code, head(&repo)), (4, format!("{tip}\n")), "nothing says what it meant, and git has to work: {said}");

    // As XFS leaves it: nothing but objects is left.
    let repo = history(2);
    let tip = repo.read(["rev-parse", "main"]);
    repo.git(["pack-refs", "--all"]);
    for name in
        ["HEAD", "packed-refs", "refs/heads/main", "refs/heads/other", "logs/HEAD", "logs/refs/heads/main", "index"]
    {
        zero(&repo, name);
    }
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 4 && said.contains("git works again"), "{code}: {said}");
    assert_eq!(repo.read(["rev-parse", "HEAD"]), tip, "{said}");
    assert!(said.contains("refs/heads/main is empty") && said.contains("the name stays, at"), "{said}");
    assert_eq!(repo.read(["status", "--porcelain"]), "", "{said}");
    assert_eq!(repo.read(["rev-parse", "main"]), tip, "{said}");

    let repo = history(2);
    repo.git(["branch", "backup"]);
    remove(&repo, "HEAD");
    symlink("refs/heads/main", repo.git_dir().join("HEAD")).unwrap();
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 0 && said.contains("nothing is wrong"), "a link is how git once wrote it: {said}");
}

#[test]
fn a_branch_is_not_taken_from_an_unrelated_one_of_a_like_name() {
    let repo = history(3);
    let (tip, other) = (repo.read(["rev-parse", "HEAD"]), repo.read(["rev-parse", "HEAD~1"]));
    repo.git(["update-ref", "refs/remotes/origin/topic/main", &other]);
    repo.git(["update-ref", "refs/remotes/zz/main", &tip]);
    remove(&repo, "logs");
    empty(&repo, "refs/heads/main");
    let (code, said) = rescue(&repo, &[]);
    assert_eq!((code, repo.read(["rev-parse", "main"])), (4, tip), "{said}");
    assert!(said.contains("the value of its remote-tracking branch"), "{said}");
}

#[test]
fn only_what_was_named_is_a_repository_and_no_directory_in_a_worktree_is() {
    let repo = history(2);
    let app = repo.path().join("app");
    for (name, content) in
        [("config", "port: 80\n"), ("logs/access", "GET /\n"), ("objects/one", "1\n"), ("refs/x", "")]
    {
        repo.write(&format!("app/{name}"), content);
    }
    repo.commit_all("app");
    let inner = repo.new_sibling("repo/inner", Options::default());
    inner.commit_all("inner");
    for name in ["HEAD", "refs", "config", "index", "logs"] {
        remove(&inner, name);
    }
    empty(&repo, "HEAD");
    let before = everything(&repo);
    for path in [app, inner.path().to_owned(), repo.path().join("app/logs")] {
        let (code, said) = rescue(&repo, &[path.to_str().unwrap()]);
        assert!(code == 1 && everything(&repo) == before, "{}: {said}", path.display());
    }
    assert_eq!(rescue(&repo, &[]).0, 0);
}

#[test]
fn a_merge_of_several_branches_is_read_to_its_end() {
    let repo = history(3);
    let (tip, side) = (repo.read(["rev-parse", "HEAD"]), repo.read(["rev-parse", "HEAD~1"]));
    write(&repo, "MERGE_HEAD", format!("{tip}\n{side}\n").as_bytes());
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 0 && repo.git_dir().join("MERGE_HEAD").exists(), "{said}");
    write(&repo, "MERGE_HEAD", format!("{tip}\n{}\n", "12".repeat(tip.len() / 2)).as_bytes());
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 4 && said.contains("that a merge"), "{said}");
    repo.commit_all("after");
}

#[test]
fn a_git_directory_beside_its_worktree_does_not_become_a_bare_one() {
    let repo = history(2);
    let elsewhere = repo.scratch().join("elsewhere");
    repo.git(["init", "-q", "--separate-git-dir", elsewhere.to_str().unwrap()]);
    let config = elsewhere.join("config");
    fs::write(&config, [0; 100]).unwrap();
    let (code, said) = rescue(&repo, &[]);
    assert_eq!(code, 4, "{said}");
    repo.git(["status"]);
}

#[test]
fn a_split_index_whose_other_part_is_damaged_is_not_called_whole() {
    let repo = history(2);
    repo.git(["update-index", "--split-index"]);
    let shared = named(&repo, "", "").into_iter().find(|name| name.starts_with("sharedindex."));
    let shared = shared.expect("a split index");
    write(&repo, &shared, b"DIRC garbage that is long enough for a checksum");
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 0 && said.contains("index cannot be read"), "{said}");
    repo.git(["status"]);
}

#[test]
fn a_commit_that_a_partial_clone_lacks_is_told() {
    let upstream = history(2);
    upstream.git(["config", "uploadpack.allowFilter", "true"]);
    let repo = upstream.sibling("partial");
    let url = format!("file://{}", upstream.path().display());
    upstream.git(["clone", "-q", "--filter=blob:none", &url, repo.path().to_str().unwrap()]);
    let tip = repo.commit_all("mine");
    assert_eq!(rescue(&repo, &[]).0, 0, "what the server has is not missing");
    let commit = object(&repo, "HEAD");
    remove(&repo, &commit);
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 4 && said.contains(&format!("refs/heads/main: it is {tip}, which is not here")), "{said}");
    assert_eq!(fs::read_to_string(repo.git_dir().join("refs/heads/main")).unwrap().trim(), tip);
}

#[test]
fn what_is_had_again_of_a_pack_from_the_server_of_a_partial_clone_says_so() {
    let upstream = history(3);
    upstream.git(["config", "uploadpack.allowFilter", "true"]);
    let repo = upstream.sibling("partial");
    let url = format!("file://{}", upstream.path().display());
    upstream.git(["clone", "-q", "--filter=blob:none", &url, repo.path().to_str().unwrap()]);
    // Every object of it can be read.
    named(&repo, "objects/pack", ".pack").iter().for_each(|pack| cut(&repo, pack, 99));
    let (code, said) = rescue(&repo, &[]);
    assert_eq!(code, 0, "{said}");
    for pack in named(&repo, "objects/pack", ".pack") {
        let marker = repo.git_dir().join(&pack).with_extension("promisor");
        assert!(marker.exists(), "{pack}: otherwise what the server has would count as missing");
    }
    repo.git(["fsck"]);
}

#[test]
fn a_commit_graph_that_names_lost_commits_goes() {
    let repo = history(5);
    repo.git(["commit-graph", "write", "--reachable"]);
    let commit = object(&repo, "HEAD~2");
    remove(&repo, &commit);
    let (code, said) = rescue(&repo, &[]);
    assert_eq!(code, 4, "{said}");
    assert!(!repo.git_dir().join("objects/info/commit-graph").exists(), "{said}");
}

#[test]
fn the_configuration_of_a_worktree_is_read_and_made_again() {
    let repo = history(2);
    repo.git(["config", "extensions.worktreeConfig", "true"]);
    repo.git(["config", "--unset", "core.bare"]);
    repo.git(["config", "--worktree", "core.bare", "true"]);
    remove(&repo, "index");
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 0 && said.contains("nothing is wrong"), "a bare repository has no index: {code}: {said}");
    write(&repo, "config.worktree", b"[core]\n\tbare = false\n[core\0\0\0");
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 4 && said.contains("config.worktree is damaged"), "{code}: {said}");
    assert_eq!(repo.read(["config", "core.bare"]), "false");
    repo.git(["status"]);
}

#[test]
fn a_ref_that_git_reads_is_not_damaged() {
    let repo = history(2);
    let first = repo.read(["rev-parse", "HEAD~1"]);
    write(&repo, "refs/heads/noted", format!("{first}\ta note\n").as_bytes());
    write(&repo, "refs/heads/capital", format!("{}\n", first.to_uppercase()).as_bytes());
    let before = refs(&repo);
    let (code, said) = rescue(&repo, &[]);
    assert_eq!((code, refs(&repo)), (0, before), "{said}");
    assert!(said.contains("nothing is wrong"), "{said}");
}
