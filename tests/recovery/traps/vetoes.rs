//! A hook refuses as the last resort: git changes notes of its own (`AUTO_MERGE`) between the refs and the index of a commit,
//! and one that is refused there leaves a commit without its index, which the next commit reverts.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, thread};

use super::{guarded, with_branches};
use crate::support::crash::{self, assert_recovers, is_ref_rename, kill_at, nth, run_jin, spare_commit, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Options, Repo, jin_txn, text};
use crate::support::tracer::{self, Action, Event, Isolation};
use crate::support::wait::wait_until;

/// A git that waits, with everything locked and logged, for its input to go on.
struct Live {
    child: std::process::Child,
}

impl Live {
    fn new(repo: &Repo) -> Live {
        let commit = spare_commit(repo, "of the live one");
        let mut command = crash::git(repo, &["update-ref", "--stdin"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("git starts");
        let input = format!("start\ncreate refs/heads/live {commit}\nprepare\n");
        std::io::Write::write_all(child.stdin.as_mut().expect("it has one"), input.as_bytes()).expect("git reads");
        wait_until("it is prepared", || repo.logged().first().is_some_and(|line| line.contains("begun")));
        Live { child }
    }

    fn commit(mut self) {
        let mut stdin = self.child.stdin.take().expect("it has one");
        std::io::Write::write_all(&mut stdin, b"commit\n").expect("git reads");
        drop(stdin);
        assert!(self.child.wait().expect("it is our child").success(), "nobody has disturbed it");
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[track_caller]
fn assert_index_and_worktree_are_heads(repo: &Repo, what: &str) {
    assert_eq!(repo.read(["status", "--porcelain"]), "", "{what}: the index is the commit's");
    assert_eq!(
        fs::read_dir(repo.git_dir()).map_or(0, |all| all.flatten().filter(is_lock).count()),
        0,
        "{what}: no lock"
    );
}

fn is_lock(entry: &fs::DirEntry) -> bool {
    Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "lock")
}

/// The word `gc` among the arguments makes no gc.
#[test]
fn a_commit_whose_message_is_gc_keeps_its_index_while_another_transaction_lives() {
    for arguments in [&["commit", "-qam", "gc"][..], &["checkout", "-q", "gc"], &["merge", "-q", "gc"]] {
        let repo = guarded();
        repo.git(["checkout", "-q", "-b", "gc"]);
        repo.write("other", "of gc\n");
        repo.git(["add", "other"]);
        repo.git(["commit", "-q", "-m", "other"]);
        repo.git(["checkout", "-q", "-"]);
        if arguments[0] == "commit" {
            repo.write("file", "two\n");
        }
        let live = Live::new(&repo);
        let done = repo.try_git(arguments.iter());
        assert!(done.status.success(), "{arguments:?}: {}", text(&done.stderr));
        assert_eq!(text(&done.stderr), "", "{arguments:?}");
        assert_index_and_worktree_are_heads(&repo, &format!("{arguments:?}"));
        live.commit();
        assert_recovers(&repo);
    }
}

/// A run of another worktree dies between the refs of a commit and its notes.
#[test]
fn a_run_that_dies_in_the_middle_of_a_commit_does_not_take_its_index() {
    let repo = guarded();
    let linked = repo.scratch().join("linked");
    repo.git(["worktree", "add", "-q", "-b", "side", linked.to_str().expect("the path is text")]);
    repo.write("file", "two\n");
    let mut has_died = false;
    let decide = &mut |event: &Event| {
        if crash::is_ref_rename(event) && !std::mem::replace(&mut has_died, true) {
            // From a thread of its own: the tracer waits for all children of this one.
            let (repo, linked) = (repo.clone(), linked.clone());
            thread::spawn(move || die_in_a_run(&repo, &linked)).join().expect("it does not panic");
        }
        Action::Continue
    };
    let commit = crash::git(&repo, &["commit", "-qam", "two"]);
    let outcome = tracer::trace(commit, b"", Isolation::None, decide).expect("git starts");
    assert!(has_died, "git renames a ref");
    assert!(outcome.status.success(), "{}", text(&outcome.stderr));
    assert_index_and_worktree_are_heads(&repo, "the commit");
    assert_eq!(repo.read(["log", "-1", "--format=%s"]), "two");
    let refused = repo.try_git(["tag", "t"]);
    assert!(!refused.status.success(), "what is no note waits for the run: {}", text(&refused.stderr));
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = run_jin(&repo, &["-C", linked.to_str().expect("the path is text"), "recover"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::read_to_string(linked.join("file")).expect("it is there"), "one\n", "the run is taken back");
    assert_eq!(repo.read(["log", "-1", "--format=%s"]), "two", "and the commit is not");
    assert_eq!(value(&repo, "refs/heads/side"), repo.read(["rev-parse", "HEAD~1"]));
}

/// git passes every name that it is given, and lets people delete what nobody can make.
#[test]
fn names_that_git_takes_are_not_refused() {
    let odd = |repo: &Repo| {
        let head = repo.read(["rev-parse", "HEAD"]);
        let dir = repo.git_dir();
        fs::write(dir.join("refs/heads/bro...ken"), format!("{head}\n")).expect("it can be written");
        fs::write(dir.join("refs/heads/lead"), "ref: refs/heads/bro...ken\n").expect("it can be written");
        fs::write(dir.join("refs/heads/bro...lead"), "ref: refs/heads/main\n").expect("it can be written");
        let packed = format!("# pack-refs with: peeled fully-peeled sorted \n{head} refs/heads/pack...ed\n");
        fs::write(dir.join("packed-refs"), packed).expect("it can be written");
    };
    let commands: &[(&[&str], &str)] = &[
        (&["update-ref", "foo", "HEAD"], ""),
        (&["update-ref", "--stdin"], "create bar HEAD\ncreate refs/heads/beside HEAD\n"),
        (&["symbolic-ref", "refs/heads/odd", "nowhere"], ""),
        (&["symbolic-ref", "-d", "refs/heads/odd"], ""),
        (&["update-ref", "--no-deref", "-d", "refs/heads/lead"], ""),
        (&["update-ref", "-d", "refs/heads/bro...ken"], ""),
        (&["branch", "-D", "pack...ed"], ""),
        (&["branch", "-d", "bro...lead"], ""),
    ];
    let (repo, plain) = (guarded(), Repo::new(Options::default()));
    plain.write("file", "one\n");
    plain.commit_all("base");
    odd(&repo);
    odd(&plain);
    for (arguments, input) in commands {
        let [ours, gits] = [&repo, &plain].map(|repo| {
            let done = repo.run(Git::under_test().program.as_os_str(), repo.path(), arguments.iter(), input.as_bytes());
            (done.status.code(), text(&done.stderr).into_owned())
        });
        assert_eq!(ours, gits, "{arguments:?}");
        assert_recovers_but_for_names(&repo, arguments);
    }
}

/// `fsck` complains of such names, and they are not ours to remove.
#[track_caller]
fn assert_recovers_but_for_names(repo: &Repo, what: &[&str]) {
    for arguments in [["recover", "-q"], ["check", "-q"]] {
        let (code, said) = run_jin(repo, &arguments);
        assert_eq!(code, 0, "{what:?}: {arguments:?}: {said}");
    }
}

/// 2.50 and newer: a line that git is about to reject is in the payload all the same.
#[test]
fn a_rejected_line_of_a_batch_refuses_no_other() {
    if !Git::under_test().is_at_least(2, 50) {
        return println!("skipped: before 2.50 git rejects all or none");
    }
    let (repo, old, new) = with_branches(&["plain"]);
    // The target is what `git symbolic-ref` would take as well: any name, an object's among them.
    let batch = format!("create refs/heads/good {new}\nsymref-update refs/heads/plain {new} ref refs/heads/gone\n");
    let arguments = ["update-ref", "--no-deref", "--stdin", "--batch-updates"];
    let done = repo.run(Git::under_test().program.as_os_str(), repo.path(), arguments, batch.as_bytes());
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stdout).starts_with("rejected refs/heads/plain"), "{}", text(&done.stdout));
    assert!(!text(&done.stderr).contains("jin-txn"), "{}", text(&done.stderr));
    assert_eq!((value(&repo, "refs/heads/good"), value(&repo, "refs/heads/plain")), (new, old));
    assert_recovers(&repo);
}

/// What is written under such a name is git's alone; of the rest nothing stays half done.
#[test]
fn beside_a_name_that_is_not_ours_the_others_are_still_recovered_and_it_is_told() {
    let (repo, old, new) = with_branches(&["a", "b"]);
    let input = format!(
        "start\nupdate refs/heads/a {new} {old}\nupdate refs/heads/b {new} {old}\ncreate zoo {new}\nprepare\ncommit\n"
    );
    kill_at(crash::git(&repo, &["update-ref", "--stdin"]), &input, Action::KillTree, nth(2, is_ref_rename));
    assert_eq!(value(&repo, "refs/heads/a"), new, "it is torn");
    let (code, said) = crash::recover(&repo);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("it was also to change refs that jin-txn does not write") && said.contains("zoo"), "{said}");
    assert_eq!(value(&repo, "refs/heads/a"), old);
    fs::remove_file(repo.git_dir().join("zoo.lock")).expect("it is left to the user");
    let done =
        repo.run(Git::under_test().program.as_os_str(), repo.path(), ["update-ref", "--stdin"], input.as_bytes());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let id = repo.logged()[0].split_whitespace().next().unwrap_or_default().to_owned();
    let (_, shown) = run_jin(&repo, &["show", &id]);
    assert!(shown.contains("zoo  (a name that jin-txn does not write"), "{shown}");
    let (code, said) = run_jin(&repo, &["undo", &id]);
    assert!(code != 0 && said.contains("it changed `zoo`, a name that jin-txn does not write"), "{code}: {said}");
}

/// From 2.46 on a hook is told what a symbolic ref is to point to: anything.
#[test]
fn a_symbolic_ref_to_nowhere_goes_back_and_comes_again() {
    if !Git::under_test().is_at_least(2, 46) {
        return println!("skipped: before 2.46 git changes symbolic refs outside of transactions");
    }
    let (repo, old, new) = with_branches(&["a", "b"]);
    let points_to = |target: &str| {
        format!("start\nsymref-update refs/heads/a {target}\nupdate refs/heads/b {new} {old}\nprepare\ncommit\n")
    };
    let update = || crash::git(&repo, &["update-ref", "--no-deref", "--stdin"]);
    kill_at(update(), &points_to("nowhere"), Action::KillTree, nth(2, is_ref_rename));
    assert_eq!(repo.read(["symbolic-ref", "refs/heads/a"]), "nowhere", "it is torn");
    assert_recovers(&repo);
    assert_eq!((value(&repo, "refs/heads/a"), value(&repo, "refs/heads/b")), (old.clone(), old.clone()));
    repo.git(["symbolic-ref", "refs/heads/a", "nowhere"]);
    kill_at(update(), &points_to("refs/heads/b"), Action::KillTree, nth(2, is_ref_rename));
    let (code, said) = crash::recover(&repo);
    assert_eq!(code, 0, "{said}");
    assert_eq!(repo.read(["symbolic-ref", "refs/heads/a"]), "nowhere", "{said}");
}

/// An empty file is no value: nothing brings it back, and what is beside it is not left half done for that.
#[test]
fn what_was_written_over_no_value_stays_and_is_told() {
    let (repo, old, new) = with_branches(&["a", "b"]);
    fs::write(repo.git_dir().join("refs/heads/a"), "ref: refs/heads/bro...ken\n").expect("it can be written");
    let input = format!("start\nupdate refs/heads/a {new}\nupdate refs/heads/b {new} {old}\nprepare\ncommit\n");
    kill_at(
        crash::git(&repo, &["update-ref", "--no-deref", "--stdin"]),
        &input,
        Action::KillTree,
        nth(2, is_ref_rename),
    );
    let (code, said) = crash::recover(&repo);
    assert!(code == 4 && said.contains("refs/heads/a stays at"), "{code}: {said}");
    assert_eq!((value(&repo, "refs/heads/a"), value(&repo, "refs/heads/b")), (new, old));
    super::ways_out::ends_by_its_own_hints(&repo, "no value");
}

fn die_in_a_run(repo: &Repo, worktree: &Path) {
    let mut run: Command = repo.command(jin_txn().as_os_str());
    let script = "echo of the run >file; kill -9 $PPID; kill -9 $$";
    run.current_dir(worktree).args(["run", "--", "sh", "-c", script]);
    run.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(!run.status().expect("it starts").success(), "it is killed");
}
