//! Every kind of damage, alone and mixed.

use super::damage::*;
use super::judge::{Before, everything};
use crate::support::crash::recover;
use crate::support::repo::{Options, Repo};
use crate::support::table::{seed, start, stride};

/// A kind of damage, what it does, and the exit code of its rescue in a repository with loose objects, and with packs. `None`: there
/// is no such thing in it.
type Kind = (&'static str, fn(&Repo), Option<i32>, Option<i32>);

const WHOLE: Option<i32> = Some(0);
const LOSS: Option<i32> = Some(4);

const KINDS: &[Kind] = &[
    ("HEAD is empty", |r| empty(r, "HEAD"), WHOLE, WHOLE),
    ("HEAD is NULs", |r| zero(r, "HEAD"), WHOLE, WHOLE),
    ("HEAD is missing", |r| remove(r, "HEAD"), WHOLE, WHOLE),
    ("HEAD is garbage", |r| write(r, "HEAD", b"no ref at all\n"), WHOLE, WHOLE),
    (
        "HEAD is a directory",
        |r| {
            remove(r, "HEAD");
            write(r, "HEAD/x", b"")
        },
        WHOLE,
        WHOLE,
    ),
    ("the configuration is empty", |r| empty(r, "config"), LOSS, LOSS),
    ("the configuration is NULs", |r| zero(r, "config"), LOSS, LOSS),
    ("the configuration is missing", |r| remove(r, "config"), LOSS, LOSS),
    ("the configuration is cut", cut_config, LOSS, LOSS),
    ("the current branch is empty", |r| empty(r, "refs/heads/main"), WHOLE, WHOLE),
    ("the current branch is NULs", |r| zero(r, "refs/heads/main"), WHOLE, WHOLE),
    ("the current branch is garbage", |r| write(r, "refs/heads/main", b"1234\n"), WHOLE, WHOLE),
    ("the current branch names nothing", |r| write(r, "refs/heads/main", unknown(r).as_bytes()), LOSS, LOSS),
    ("another branch is empty", |r| empty(r, "refs/heads/side"), WHOLE, WHOLE),
    (
        "another branch and its reflog are empty",
        |r| {
            empty(r, "refs/heads/old");
            empty(r, "logs/refs/heads/old")
        },
        LOSS,
        // What `packed-refs` says is older than the file.
        LOSS,
    ),
    ("all loose refs are empty", |r| named(r, "refs/heads", "").iter().for_each(|f| empty(r, f)), WHOLE, WHOLE),
    ("a tag is empty", |r| empty(r, "refs/tags/light"), LOSS, LOSS),
    ("a remote branch is empty", |r| empty(r, "refs/remotes/origin/main"), WHOLE, WHOLE),
    ("refs/ is missing", |r| remove(r, "refs"), None, WHOLE),
    ("packed-refs is empty", |r| empty(r, "packed-refs"), LOSS, LOSS),
    ("packed-refs is NULs", |r| zero(r, "packed-refs"), None, LOSS),
    ("packed-refs is cut", |r| cut(r, "packed-refs", 70), None, LOSS),
    ("a line of packed-refs is garbage", |r| append(r, "packed-refs", b"what is that\n"), LOSS, LOSS),
    ("the index is empty", |r| empty(r, "index"), WHOLE, WHOLE),
    ("the index is NULs", |r| zero(r, "index"), WHOLE, WHOLE),
    ("the index is missing", |r| remove(r, "index"), WHOLE, WHOLE),
    ("the index is cut", |r| cut(r, "index", 60), WHOLE, WHOLE),
    ("a byte of the index is another", |r| flip(r, "index", 40), WHOLE, WHOLE),
    ("the index is locked", |r| empty(r, "index.lock"), WHOLE, WHOLE),
    (
        "HEAD and its branch are locked",
        |r| {
            empty(r, "HEAD.lock");
            empty(r, "refs/heads/main.lock")
        },
        WHOLE,
        WHOLE,
    ),
    (
        "packed-refs and config are locked",
        |r| {
            empty(r, "packed-refs.lock");
            empty(r, "config.lock")
        },
        WHOLE,
        WHOLE,
    ),
    ("the reflog of HEAD ends in NULs", |r| append(r, "logs/HEAD", &[0; 200]), WHOLE, WHOLE),
    ("a reflog ends in half a line", |r| cut(r, "logs/refs/heads/main", 97), WHOLE, WHOLE),
    ("a reflog is empty", |r| empty(r, "logs/refs/heads/main"), WHOLE, WHOLE),
    (
        "the last commit is empty",
        |r| {
            let o = object(r, "HEAD");
            empty(r, &o)
        },
        LOSS,
        LOSS,
    ),
    (
        "the last commit is missing",
        |r| {
            let o = object(r, "HEAD");
            remove(r, &o)
        },
        LOSS,
        LOSS,
    ),
    (
        "the last commit is garbage",
        |r| {
            let o = object(r, "HEAD");
            flip(r, &o, 50)
        },
        LOSS,
        LOSS,
    ),
    (
        "the tree of the last commit is empty",
        |r| {
            let o = object(r, "HEAD^{tree}");
            empty(r, &o)
        },
        LOSS,
        LOSS,
    ),
    (
        "a file of the last commit is empty",
        |r| {
            let o = object(r, "HEAD:file");
            empty(r, &o)
        },
        WHOLE,
        WHOLE,
    ),
    (
        "a file of the first commit is missing",
        |r| {
            let o = object(r, "old:file");
            remove(r, &o)
        },
        LOSS,
        None,
    ),
    (
        "a file that is staged is empty",
        |r| {
            let o = object(r, ":staged");
            empty(r, &o)
        },
        WHOLE,
        WHOLE,
    ),
    (
        "the newest stash is empty",
        |r| {
            let o = object(r, "stash@{0}");
            empty(r, &o)
        },
        LOSS,
        None,
    ),
    ("the ref of the stash is empty", |r| empty(r, "refs/stash"), WHOLE, WHOLE),
    (
        "the index of a pack is missing",
        |r| named(r, "objects/pack", ".idx").iter().for_each(|f| remove(r, f)),
        None,
        WHOLE,
    ),
    (
        "the index of a pack is damaged",
        |r| named(r, "objects/pack", ".idx").iter().for_each(|f| flip(r, f, 70)),
        None,
        WHOLE,
    ),
    (
        "a byte of a pack is another",
        |r| named(r, "objects/pack", ".pack").iter().for_each(|f| flip(r, f, 60)),
        None,
        LOSS,
    ),
    ("a pack is cut", |r| named(r, "objects/pack", ".pack").iter().for_each(|f| cut(r, f, 50)), None, LOSS),
    (
        "a pack ends without its checksum",
        |r| named(r, "objects/pack", ".pack").iter().for_each(|f| cut(r, f, 99)),
        None,
        WHOLE,
    ),
    ("the multi-pack-index is damaged", |r| write(r, "objects/pack/multi-pack-index", b"MIDX garbage"), WHOLE, WHOLE),
    ("the commit-graph is damaged", |r| write(r, "objects/info/commit-graph", b"CGPH garbage"), WHOLE, WHOLE),
    (
        "an object that nothing needs is empty",
        |r| write(r, &format!("objects/12/{}", &unknown(r).trim()[2..]), b""),
        WHOLE,
        WHOLE,
    ),
    ("ORIG_HEAD is empty", |r| empty(r, "ORIG_HEAD"), WHOLE, WHOLE),
    ("MERGE_HEAD is empty", |r| empty(r, "MERGE_HEAD"), LOSS, LOSS),
    ("HEAD of a worktree is empty", |r| empty(r, "worktrees/linked/HEAD"), LOSS, LOSS),
    ("commondir of a worktree is empty", |r| empty(r, "worktrees/linked/commondir"), WHOLE, WHOLE),
    ("the index of a worktree is garbage", |r| write(r, "worktrees/linked/index", b"DIRC?"), WHOLE, WHOLE),
    ("the alternates are garbage", |r| write(r, "objects/info/alternates", b"/nowhere/at/all\n"), LOSS, LOSS),
    ("info/ of the objects is missing", |r| remove(r, "objects/info"), WHOLE, WHOLE),
    (
        "a rename of the current branch died",
        |r| {
            rename_reflog(r, "main");
            remove(r, "refs/heads/main")
        },
        WHOLE,
        // git removes the packed value first.
        None,
    ),
    (
        "a rename of another branch died",
        |r| {
            rename_reflog(r, "old");
            remove(r, "refs/heads/old")
        },
        None,
        WHOLE,
    ),
    ("all of what a power cut leaves", power_cut, LOSS, LOSS),
];

/// The name of an object that is not there.
fn unknown(repo: &Repo) -> String {
    // `objects/`, and a slash.
    let length = object(repo, "HEAD").len() - "objects//".len();
    format!("{}\n", "12".repeat(length / 2))
}

/// In the middle of the head of a section: where it is cut between two lines nobody sees it.
fn cut_config(repo: &Repo) {
    let config = std::fs::read_to_string(repo.git_dir().join("config")).unwrap_or_default();
    write(repo, "config", &config.as_bytes()[..config.find("[remote").map_or(0, |at| at + 9)]);
}

fn rename_reflog(repo: &Repo, branch: &str) {
    let logs = repo.git_dir().join("logs/refs");
    // In a mixture it may be gone.
    std::fs::rename(logs.join("heads").join(branch), logs.join(".tmp-renamed-log")).ok();
}

fn power_cut(repo: &Repo) {
    let tip = object(repo, "HEAD");
    for name in ["HEAD", "refs/heads/main", "index", "index.lock", tip.as_str()] {
        empty(repo, name);
    }
    append(repo, "logs/HEAD", &[0; 100]);
    zero(repo, "config");
}

struct Template {
    name: String,
    repo: Repo,
    before: Before,
    packed: bool,
}

fn templates() -> Vec<Template> {
    let of = |(format, packed)| {
        let repo = template(format, packed);
        let name = format!("{format}, {}", if packed { "packed" } else { "loose" });
        Template { name, before: Before::of(&repo), repo, packed }
    };
    [("sha1", false), ("sha1", true), ("sha256", false), ("sha256", true)].map(of).into()
}

#[test]
fn every_kind_of_damage_is_repaired_and_what_is_lost_is_named() {
    let step = stride("JIN_RESCUE", 13);
    let templates = templates();
    let cases = KINDS.iter().flat_map(|kind| templates.iter().map(move |template| (kind, template)));
    let (mut bad, mut count) = (Vec::new(), 0);
    for ((name, damage, loose, packed), template) in cases.skip(start("kinds", step, "JIN_KILL_SEED")).step_by(step) {
        let Some(expected) = (if template.packed { packed } else { loose }) else { continue };
        let repo = copy(&template.repo);
        damage(&repo);
        let wrong = template.before.judge(&repo, Some(*expected));
        bad.extend((!wrong.is_empty()).then(|| format!("{name} ({}):\n  {}", template.name, wrong.join("\n  "))));
        count += 1;
        repo.discard();
    }
    assert!(bad.is_empty(), "{} of {count} kinds of damage:\n{}", bad.len(), bad.join("\n\n"));
}

#[test]
fn mixtures_of_damage_are_repaired() {
    let templates = templates();
    let first = seed("JIN_KILL_SEED");
    let count = std::env::var("JIN_RESCUE_MIXTURES").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let mut bad = Vec::new();
    for seed in first..first + count {
        let mut state = u64::try_from(seed).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
        };
        let template = &templates[next(templates.len())];
        // With an alternate that is not there nothing can be said of any missing object.
        let is_fitting = |kind: &&Kind| {
            let applies = if template.packed { kind.3 } else { kind.2 }.is_some();
            applies && !kind.0.contains("alternates")
        };
        let fitting: Vec<&Kind> = KINDS.iter().filter(is_fitting).collect();
        let repo = copy(&template.repo);
        let mut names = Vec::new();
        for _ in 0..2 + next(3) {
            let (name, damage, ..) = fitting[next(fitting.len())];
            damage(&repo);
            names.push(*name);
        }
        let wrong = template.before.judge(&repo, None);
        let what = format!("seed {seed}, {}, {names:?}", template.name);
        bad.extend((!wrong.is_empty()).then(|| format!("{what}:\n  {}", wrong.join("\n  "))));
        repo.discard();
    }
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
}

/// Combinations that were once bad, by the names of their kinds.
const BAD_ONCE: &[(bool, &[&str])] = &[
    // What `packed-refs` says is older than what HEAD's reflog does.
    (true, &["the current branch is empty", "a reflog is empty"]),
    // The reflog on its way has lost objects in it, and HEAD's own is damaged at its end.
    (false, &["all of what a power cut leaves", "the configuration is cut", "a rename of the current branch died"]),
    // Behind a stale `HEAD.lock` the end of HEAD's reflog was cut, and kept nowhere.
    (false, &["HEAD and its branch are locked", "all of what a power cut leaves", "HEAD of a worktree is empty"]),
];

#[test]
fn combinations_of_damage_that_were_once_bad_are_repaired() {
    let mut bad = Vec::new();
    for (packed, names) in BAD_ONCE {
        let template = template("sha1", *packed);
        let before = Before::of(&template);
        let repo = copy(&template);
        for name in *names {
            KINDS.iter().find(|kind| kind.0 == *name).expect("there is such a kind").1(&repo);
        }
        let wrong = before.judge(&repo, None);
        bad.extend((!wrong.is_empty()).then(|| format!("{names:?}:\n  {}", wrong.join("\n  "))));
    }
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
}

#[test]
fn a_branch_with_a_hole_deep_in_its_history_stays_and_the_hole_is_told() {
    let repo = template("sha1", false);
    let refs = repo.read(["for-each-ref"]);
    let lost = object(&repo, "old:file");
    remove(&repo, &lost);
    let (code, said) = rescue(&repo, &[]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("a part of the history of refs/heads/main"), "{said}");
    assert_eq!(repo.read(["for-each-ref"]), refs, "{said}");
    repo.commit_all("after");
    repo.git(["status"]);
}

#[test]
fn recovery_brings_a_branch_back_whose_rename_died_or_names_it() {
    let repo = Repo::new(Options::default());
    let first = repo.commit_all("first");
    repo.git(["branch", "other"]);
    let second = repo.commit_all("second");
    repo.git(["update-ref", "refs/heads/other", &second, &first]);
    // Without a checkout HEAD's reflog does not say which branch it is on.
    repo.git(["checkout", "-q", "other"]);
    repo.git(["checkout", "-q", "main"]);
    let third = repo.commit_all("third");
    rename_reflog(&repo, "main");
    remove(&repo, "refs/heads/main");
    let (_, said) = recover(&repo);
    assert!(said.contains("refs/heads/main is back"), "{said}");
    assert_eq!(repo.read(["rev-parse", "main", "main@{2}"]), format!("{third}\n{second}"), "with its reflog");
    rename_reflog(&repo, "other");
    remove(&repo, "refs/heads/other");
    let (_, said) = recover(&repo);
    assert!(said.contains(&format!("`git branch NAME {second}` brings it back")), "{said}");
    // HEAD has never moved: its reflog proves nothing, and what it means now is named.
    let repo = Repo::new(Options::default());
    let only = repo.commit_all("only");
    rename_reflog(&repo, "main");
    remove(&repo, "refs/heads/main");
    let (_, said) = recover(&repo);
    assert!(said.contains("HEAD means refs/heads/main, which is missing"), "{said}");
    assert!(said.contains(&format!("`git branch main {only}` brings it back")), "{said}");
    repo.git(["branch", "main", &only]);
    assert_eq!(repo.read(["status", "--porcelain"]), "");
}

#[test]
fn a_new_history_that_begins_does_not_get_that_of_a_branch_whose_rename_died() {
    for guarded in [true, false] {
        let repo = Repo::new(Options { guarded, ..Options::default() });
        repo.commit_all("first");
        repo.git(["checkout", "-q", "-b", "other"]);
        let second = repo.commit_all("second");
        repo.git(["checkout", "-q", "--orphan", "fresh"]);
        rename_reflog(&repo, "other");
        remove(&repo, "refs/heads/other");
        let (code, said) = if guarded { recover(&repo) } else { rescue(&repo, &[]) };
        let shown = if guarded { format!("`git branch NAME {second}`") } else { "the name, or".to_owned() };
        assert!(said.contains(&shown) && (guarded || code == 4), "{code}: {said}");
        let refs = repo.read(["for-each-ref", "--format=%(refname) %(objectname)"]);
        assert!(!refs.contains("refs/heads/fresh"), "{refs}\n{said}");
        assert!(guarded || refs.contains(&format!("refs/heads/renamed-{} {second}", &second[..10])), "{refs}");
    }
}

#[test]
fn a_dry_run_and_a_healthy_repository_change_nothing() {
    let repo = template("sha1", true);
    let whole = everything(&repo);
    let (code, said) = rescue(&repo, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(everything(&repo) == whole, "nothing is wrong with it");
    power_cut(&repo);
    // Another test's git may be one that could hold it.
    remove(&repo, "index.lock");
    let damaged = everything(&repo);
    for arguments in [&["rescue", "--dry-run"][..], &["rescue"], &["rescue", "--json"]] {
        assert_eq!(repo.jin_txn(arguments).status.code(), Some(4), "{arguments:?}");
        assert!(everything(&repo) == damaged, "{arguments:?} only looks");
    }
}
