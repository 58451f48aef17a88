//! A command that was killed while it wrote files is explained: which files are whose, and which commands go on and back. What is
//! said is compared with what is there, found out in another way, and the commands are run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use insta::assert_snapshot;

use crate::support::crash;
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Options, Repo, text};
use crate::support::table;
use crate::support::tracer::{self, Action, Event, Isolation};

/// How many places of a command are killed by default; `JIN_KILL=<n>` takes every n-th one.
const PLACES: usize = 9;

type Files = BTreeMap<String, String>;

/// `main` and `topic` differ in three files that are changed, one that is new and one that is gone.
fn diverged() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    for (name, content) in
        [("a", "a of main\n"), ("b", "b of main\n"), ("c", "c of main\n"), ("gone", "g\n"), ("same", "s\n")]
    {
        repo.write(name, content);
    }
    repo.commit_all("base");
    repo.git(["switch", "-q", "-c", "topic"]);
    for name in ["a", "b", "c", "new"] {
        repo.write(name, &format!("{name} of topic, with more in it\n"));
    }
    repo.git(["rm", "-q", "gone"]);
    repo.commit_all("topic");
    repo.git(["switch", "-q", "main"]);
    repo
}

/// The same, and `main` has a commit of its own.
fn both_moved() -> Repo {
    let repo = diverged();
    repo.write("main-only", "m\n");
    repo.commit_all("main");
    repo
}

fn stashed() -> Repo {
    let repo = diverged();
    repo.write("a", "a of mine\n");
    repo.write("b", "b of mine\n");
    repo.git(["stash", "push", "-q"]);
    repo
}

fn files_of(repo: &Repo, commit: &str) -> Files {
    let listed = repo.read(["ls-tree", "-r", "--name-only", commit]);
    let content = |name: &str| text(&repo.git(["cat-file", "blob", &format!("{commit}:{name}")]).stdout).into_owned();
    listed.lines().map(|name| (name.to_owned(), content(name))).collect()
}

fn files_in_worktree(repo: &Repo) -> Files {
    let root = repo.worktree().expect("it has one");
    let entries = fs::read_dir(root).expect("it can be listed").flatten().filter(|entry| entry.path().is_file());
    let content = |entry: &fs::DirEntry| fs::read_to_string(entry.path()).expect("it is text");
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), content(&entry))).collect()
}

/// What there is to say of a worktree on its way from HEAD to another commit: as there, of how many, cut off, and others'.
fn counted(repo: &Repo, target: &str) -> (usize, usize, usize, usize) {
    let (head, other, now) = (files_of(repo, "HEAD"), files_of(repo, target), files_in_worktree(repo));
    let names: BTreeSet<&String> = head.keys().chain(other.keys()).chain(now.keys()).collect();
    let (mut theirs, mut ours, mut cut, mut others) = (0, 0, 0, 0);
    for name in names {
        let (head, other, now) = (head.get(name), other.get(name), now.get(name));
        let is_begun = now.is_none_or(|now| other.is_some_and(|other| other.starts_with(now.as_str())));
        match (head == other, now) {
            (true, now) if now == head => {}
            // A file that nobody has added.
            (true, Some(_)) if head.is_none() => {}
            (false, now) if now == other => theirs += 1,
            (_, now) if now == head => ours += 1,
            (false, _) if is_begun => cut += 1,
            _ => others += 1,
        }
    }
    (theirs, theirs + ours + cut, cut, others)
}

/// The line about the worktree, without what comes before it.
fn line(said: &str) -> Option<&str> {
    said.lines().find_map(|line| line.split_once("the worktree looks halfway to ").map(|(_, rest)| rest))
}

/// The first number in front of these words.
fn number(line: &str, words: &str) -> usize {
    let before = line.split_once(words).map_or("0", |(before, _)| before);
    before.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The commands that the text names.
fn commands(said: &str) -> Vec<Vec<String>> {
    let quoted = said.split('`').skip(1).step_by(2).filter_map(|command| command.strip_prefix("git "));
    let commands = quoted.map(|command| command.split(' ').map(str::to_owned).collect());
    commands.filter(|command: &Vec<String>| command[0] != "stash").collect()
}

/// Kills `command` at many places, and judges what is said then; says how often something was.
fn killed(template: &dyn Fn() -> Repo, command: &[&str]) -> usize {
    let repo = template();
    let events = tracer::events_of(crash::git(&repo, command), b"").expect("git starts").0.len();
    let mut told = 0;
    let stride = table::stride("JIN_KILL", events.div_ceil(PLACES));
    for place in (1..=events).step_by(stride) {
        let repo = template();
        let head = repo.read(["rev-parse", "HEAD"]);
        let mut decide = |event: &Event| if event.n == place { Action::KillTree } else { Action::Continue };
        tracer::trace(crash::git(&repo, command), b"", Isolation::None, &mut decide).expect("git starts");
        let_the_clock_tick(&repo.git_dir());
        let (code, said) = crash::recover(&repo);
        let what = format!("{command:?} killed at {place} of {events}: {said}");
        assert_eq!(code, 0, "{what}");
        told += usize::from(is_true(&repo, &said, &head, &what));
    }
    println!("{command:?}: killed at {} of {events} places, {told} explained", events.div_ceil(stride));
    told
}

/// Judges what was said; whether something was.
fn is_true(repo: &Repo, said: &str, head: &str, what: &str) -> bool {
    let Some(line) = line(said) else {
        let goes_back = |command: &Vec<String>| command.iter().any(|word| word == "--abort" || word == "--quit");
        if let Some(command) = commands(said).into_iter().find(goes_back) {
            let mut ran = repo.try_git(&command);
            if text(&ran.stderr).contains("untracked working tree files would be overwritten") {
                assert!(said.contains("`git stash -u`"), "{what}: that is said, too");
                repo.git(["stash", "-u", "-q"]);
                ran = repo.try_git(&command);
            }
            assert!(ran.status.success(), "{what}: {command:?}: {}", text(&ran.stderr));
            assert_eq!(repo.read(["status", "--porcelain", "-uno"]), "", "{what}: it goes back");
            return true;
        }
        // Killed between two locks: there is nothing to recover, and nobody asked.
        if said.contains("nothing to recover") {
            return false;
        }
        if repo.read(["rev-parse", "HEAD"]) == head && !repo.git_dir().join("rebase-merge").exists() {
            let (theirs, .., others) = counted(repo, "topic");
            assert!(theirs == 0 || others >= theirs, "{what}: {theirs} files are topic's, and nothing is said");
        }
        return false;
    };
    let target = line.split('`').nth(1).expect("it names a commit");
    let (theirs, all, cut, others) = counted(repo, target);
    let found = (number(line, " of "), number(line.split_once(" of ").expect("of how many").1, " file"));
    assert_eq!(found, (theirs, all), "{what}");
    assert_eq!(number(line, " missing or cut off"), cut, "{what}");
    assert_eq!(number(line, " may be yours"), others, "{what}");
    assert_eq!(line.contains("none differs from both"), others == 0, "{what}");
    // `status` says the same, also later.
    let status = text(&repo.jin_txn(["status"]).stdout).into_owned();
    assert!(status.contains(line), "{what}: {status}");
    let (back, on): (Vec<_>, Vec<_>) = commands(said).into_iter().partition(|command| command[0] == "checkout");
    if !on.is_empty() && theirs % 2 == 0 {
        on.iter().for_each(|command| drop(repo.git(command)));
        assert_eq!(repo.read(["status", "--porcelain"]), "", "{what}: it goes on");
        assert_eq!(files_in_worktree(repo), files_of(repo, target), "{what}");
        return true;
    }
    repo.git(back.first().expect("it can go back"));
    let now = files_in_worktree(repo);
    let head = files_of(repo, "HEAD");
    assert!(head.iter().all(|(name, content)| now.get(name) == Some(content)), "{what}: it goes back");
    for name in now.keys().filter(|name| !head.contains_key(*name)) {
        assert!(said.contains("new files stay: ") && said.contains(name.as_str()), "{what}: {name} stays");
    }
    true
}

#[test]
fn a_killed_switch_is_explained_and_what_is_said_is_true() {
    assert!(killed(&diverged, &["switch", "-q", "topic"]) > 1);
}

#[test]
fn a_killed_reset_is_explained_and_what_is_said_is_true() {
    assert!(killed(&diverged, &["reset", "-q", "--hard", "topic"]) > 1);
}

#[test]
fn a_killed_merge_or_pull_is_explained_and_what_is_said_is_true() {
    assert!(killed(&both_moved, &["merge", "-q", "--no-edit", "topic"]) > 1);
    assert!(killed(&diverged, &["pull", "-q", "--ff-only", ".", "topic"]) > 0);
}

#[test]
fn a_killed_rebase_or_cherry_pick_is_explained_and_what_is_said_is_true() {
    assert!(killed(&both_moved, &["rebase", "-q", "topic"]) > 1);
    killed(&both_moved, &["cherry-pick", "topic"]);
}

/// Nobody has these contents but the stash: nothing is claimed.
#[test]
fn of_a_killed_stash_pop_nothing_is_claimed_that_is_not_true() {
    killed(&stashed, &["stash", "pop", "-q"]);
}

/// A dead git's lock, and what it has made of the worktree until then.
fn explained(template: fn() -> Repo, prepare: fn(&Repo)) -> String {
    let repo = template();
    prepare(&repo);
    fs::write(repo.git_dir().join("index.lock"), "").expect("it can be written");
    let_the_clock_tick(&repo.git_dir());
    let (_, said) = crash::recover(&repo);
    said.replace("jin-txn: moved 1 stale lock to quarantine: index.lock\n", "")
}

/// Its name, the repository, and what was done in it.
type Kind = (&'static str, fn() -> Repo, fn(&Repo));

#[test]
fn what_is_said_of_each_kind() {
    let kinds: [Kind; 9] = [
        ("one file is there, one is gone", diverged, |repo| {
            repo.write("a", &files_of(repo, "topic")["a"]);
            fs::remove_file(repo.path().join("b")).expect("it is there");
        }),
        ("one is of the user's", diverged, |repo| {
            repo.write("a", &files_of(repo, "topic")["a"]);
            repo.write("b", &files_of(repo, "topic")["b"]);
            repo.write("same", "mine\n");
        }),
        ("one is staged by the user, and theirs in the worktree", diverged, |repo| {
            repo.write("a", &files_of(repo, "topic")["a"]);
            repo.write("c", &files_of(repo, "topic")["c"]);
            repo.write("b", "mine\n");
            repo.git(["add", "b"]);
            repo.write("b", &files_of(repo, "topic")["b"]);
        }),
        ("most are of the user's", diverged, |repo| {
            repo.write("a", &files_of(repo, "topic")["a"]);
            repo.write("same", "mine\n");
        }),
        ("line endings", diverged, |repo| {
            repo.write(".gitattributes", "* text eol=crlf\n");
            repo.commit_all("attributes");
            repo.write("a", &files_of(repo, "topic")["a"].replace('\n', "\r\n"));
        }),
        ("merge", both_moved, |repo| {
            repo.write("a", "a of main, too\n");
            repo.commit_all("conflict");
            repo.try_git(["merge", "-q", "topic"]);
        }),
        ("rebase", both_moved, |repo| {
            repo.write("a", "a of main, too\n");
            repo.commit_all("conflict");
            repo.try_git(["rebase", "-q", "topic"]);
        }),
        ("cherry-pick", both_moved, |repo| {
            repo.write("a", "a of main, too\n");
            repo.commit_all("conflict");
            repo.try_git(["cherry-pick", "topic"]);
        }),
        ("revert", both_moved, |repo| {
            repo.write("main-only", "m2\n");
            repo.commit_all("conflict");
            repo.try_git(["revert", "--no-edit", "HEAD~1"]);
        }),
    ];
    let said: Vec<String> =
        kinds.iter().map(|(name, template, prepare)| format!("# {name}\n{}", explained(*template, *prepare))).collect();
    assert_snapshot!(said.join("\n"), @r"
    # one file is there, one is gone
    jin-txn: the worktree looks halfway to `topic`: 1 of 5 files have its content, 1 missing or cut off (b), none differs from both
    hint: `git stash -u` keeps what is there aside; `git checkout -f` goes back to main; `git switch --discard-changes topic` goes on

    # one is of the user's
    jin-txn: the worktree looks halfway to `topic`: 2 of 5 files have its content, 1 may be yours (same)
    hint: `git stash -u` keeps what is there aside; `git checkout -f` goes back to main; `git switch --discard-changes topic` goes on

    # one is staged by the user, and theirs in the worktree
    jin-txn: the worktree looks halfway to `topic`: 2 of 4 files have its content, 1 may be yours (b)
    hint: `git stash -u` keeps what is there aside; `git checkout -f` goes back to main; `git switch --discard-changes topic` goes on

    # most are of the user's

    # line endings
    jin-txn: 1 file is not as the index says (a); whether a command was at them is unknown, because filters may apply

    # merge
    jin-txn: a merge is unfinished: `git merge --continue` goes on when all is resolved and staged, `git merge --abort` goes back (behind `git stash -u` where untracked files are in its way)

    # rebase
    jin-txn: a rebase is unfinished: `git rebase --continue` goes on when all is resolved and staged, `git rebase --abort` goes back (behind `git stash -u` where untracked files are in its way)

    # cherry-pick
    jin-txn: a cherry-pick is unfinished: `git cherry-pick --continue` goes on when all is resolved and staged, `git cherry-pick --abort` goes back (behind `git stash -u` where untracked files are in its way)

    # revert
    jin-txn: a revert is unfinished: `git revert --continue` goes on when all is resolved and staged, `git revert --abort` goes back (behind `git stash -u` where untracked files are in its way)
    ");
}
