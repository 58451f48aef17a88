//! Recovery among others: other recoveries, work that goes on while it stands still, processes that only look like the owner,
//! other pid namespaces.

use std::os::unix::fs::MetadataExt;
use std::sync::mpsc;
use std::{fs, thread};

use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value as Json, json};

use super::live_owners::{Hanging, Scene, update};
use super::{Torn, guarded, updates, with_branches};
use crate::support::crash::{
    self, assert_recovers, is_ref_rename, jin, nth, recover, run_jin, spare_commit, value, wal,
};
use crate::support::hanging::Case;
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Repo, text};
use crate::support::tracer::{self, Action, Calls, Event, Isolation, Role};

#[test]
fn of_many_recoveries_at_once_one_recovers() {
    const RUNNERS: usize = 6;
    let torn = Torn::new();
    let ended: Vec<(i32, String)> = thread::scope(|scope| {
        let runners: Vec<_> = (0..RUNNERS).map(|_| scope.spawn(|| run_jin(&torn.repo, &["recover"]))).collect();
        runners.into_iter().map(|it| it.join().expect("no runner panics")).collect()
    });
    assert!(ended.iter().all(|(code, _)| *code == 0), "whoever comes second waits, and finds nothing: {ended:?}");
    torn.assert_rolled_back();
    let recovered = wal(&torn.repo).into_iter().filter(|record| record["type"] == "recovered").count();
    assert_eq!(recovered, 1, "it is recovered once");
    assert_recovers(&torn.repo);
}

#[test]
fn recovery_and_a_gc_at_once_leave_a_whole_update() {
    for _ in 0..3 {
        let torn = Torn::new();
        thread::scope(|scope| {
            let gc = scope.spawn(|| torn.repo.try_git(["gc", "--quiet", "--prune=now"]));
            let recovery = scope.spawn(|| run_jin(&torn.repo, &["recover"]));
            gc.join().expect("it does not panic");
            recovery.join().expect("it does not panic");
        });
        assert_recovers(&torn.repo);
        torn.assert_rolled_back();
        assert!(torn.repo.try_git(["gc", "--quiet", "--prune=now"]).status.success(), "the gc can be run again");
        assert_recovers(&torn.repo);
    }
}

/// Whoever moved a ref of a torn update while another process looks at it would hide how far the update came.
#[test]
fn nobody_builds_on_what_another_process_is_recovering() {
    let torn = Torn::new();
    let third = spare_commit(&torn.repo, "third");
    let lock = fs::OpenOptions::new().write(true).open(torn.repo.git_dir().join(".jin/recovery.lock"));
    let held = Flock::lock(lock.expect("it is there"), FlockArg::LockExclusive).expect("nobody holds it");
    let refused = torn.repo.try_git(["update-ref", "refs/heads/b1", &third]);
    assert!(!refused.status.success(), "it waits for the other one only so long");
    let said = text(&refused.stderr);
    // What git says about it depends on its version.
    let ours: Vec<&str> = said.lines().filter(|line| line.starts_with("jin-txn")).collect();
    insta::assert_snapshot!(ours.join("\n"), @r"
    jin-txn: another process recovers what this change would build on
    jin-txn: this change is refused until that is recovered: run your command again
    ");
    assert_eq!(torn.value("b1"), torn.new, "nothing has changed");
    torn.repo.git(["update-ref", "refs/heads/beside", &third]);
    drop(held);
    // Now the hook itself recovers: before 2.54 git has its locks by then, and the command has to be run again.
    torn.repo.try_git(["update-ref", "refs/heads/b1", &third]);
    torn.repo.git(["update-ref", "refs/heads/b1", &third]);
    assert_eq!((torn.value("b1"), torn.value("b2")), (third, torn.old.clone()), "the torn update is rolled back");
    assert_recovers(&torn.repo);
}

/// It stands still at one of its changes, as a process that was stopped does, while somebody moves a ref that it is about
/// to write, and somebody else works and does not wait. (Where it has the log locked, others wait for `jin.lockTimeout` and are
/// refused then.)
#[test]
fn a_recovery_that_stands_still_keeps_nobody_from_working_and_overwrites_nobody() {
    const PAUSES: usize = 8;
    let is_log = |event: &Event| {
        let path = event.path.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        ["log-head", ".wal", "/wal"].iter().any(|name| path.ends_with(name))
    };
    let events = tracer::events_of(jin(&Torn::new().repo, &["recover"]), b"").expect("it starts").0;
    let places: Vec<usize> = events.iter().filter(|event| !is_log(event)).map(|event| event.n).collect();
    let (mut moved, count) = (0, events.len());
    for pause in places.iter().copied().step_by(places.len().div_ceil(PAUSES)) {
        let torn = Torn::new();
        let third = spare_commit(&torn.repo, "third");
        let mut theirs = false;
        let mut decide = |event: &Event| {
            if event.n == pause {
                // From a thread of its own: the tracer waits for all children of this one.
                let repo = &torn.repo;
                theirs = thread::scope(|scope| {
                    let other = scope.spawn(|| {
                        repo.git(["commit", "-q", "--allow-empty", "-m", "work goes on"]);
                        let arguments = ["update-ref", "refs/heads/b1", &third];
                        let unseen = crash::git(repo, &arguments).env("JIN_TXN", "off").output();
                        unseen.expect("git starts").status.success()
                    });
                    other.join().expect("the others do their work")
                });
            }
            Action::Continue
        };
        tracer::trace(jin(&torn.repo, &["recover"]), b"", Isolation::None, &mut decide).expect("it starts");
        let_the_clock_tick(&torn.repo.git_dir());
        recover(&torn.repo);
        if theirs {
            moved += 1;
            assert_eq!(torn.value("b1"), third, "stopped at {pause} of {count}: their value stays");
        } else {
            assert_eq!(torn.value("b1"), torn.old, "stopped at {pause} of {count}: it was locked, and goes back");
        }
        for branch in &Torn::BRANCHES[1..] {
            assert_eq!(torn.value(branch), torn.old, "stopped at {pause} of {count}: {branch} goes back");
        }
        assert_eq!(torn.repo.read(["log", "-1", "--format=%s", "main"]), "work goes on");
    }
    assert!(moved > 0, "somebody was faster at least once");
}

/// Changes the one marker that is there.
fn forge_marker(repo: &Repo, change: impl FnOnce(&mut Json)) {
    let entries = fs::read_dir(repo.git_dir().join(".jin")).expect("it is there").flatten().map(|entry| entry.path());
    let path =
        entries.into_iter().find(|path| path.display().to_string().contains(".transaction_")).expect("one is there");
    let mut marker = serde_json::from_slice(&fs::read(&path).expect("it can be read")).expect("a marker is JSON");
    change(&mut marker);
    fs::write(&path, marker.to_string()).expect("it can be written");
}

/// Changes what the newest `begin` of the log says, with the checksum that goes with it.
fn forge_record(repo: &Repo, change: impl Fn(&mut Json)) {
    let wal = repo.git_dir().join(".jin/wal");
    let path = fs::read_dir(wal).expect("it is there").flatten().map(|entry| entry.path()).max().expect("a segment");
    let text = fs::read_to_string(&path).expect("it is text");
    let (before, last) = text.trim_end().rsplit_once('\n').map_or(("", text.as_str()), |(before, last)| (before, last));
    let mut record: Json = serde_json::from_str(&last[9..]).expect("a record is JSON");
    assert_eq!(record["type"], "begin");
    change(&mut record["data"]);
    let json = record.to_string();
    fs::write(&path, format!("{before}\n{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))).expect("it can be written");
    // It says how long the segment was.
    fs::remove_file(repo.git_dir().join(".jin/log-head")).expect("it is there");
}

#[test]
fn a_live_process_that_has_got_the_owners_pid_is_not_the_owner() {
    let torn = Torn::new();
    let myself = std::process::id();
    forge_record(&torn.repo, |data| {
        data["pid"] = json!(myself);
        data["hook_process"]["pid"] = json!(myself);
    });
    forge_marker(&torn.repo, |marker| {
        marker["pid"] = json!(myself);
        marker["hook_process"]["pid"] = json!(myself);
    });
    assert_eq!(recover(&torn.repo).0, 0, "the process of that pid has started at another time");
    torn.assert_rolled_back();
    assert_recovers(&torn.repo);
}

#[test]
fn a_live_process_with_the_owners_pid_and_start_is_the_owner() {
    let torn = Torn::new();
    let stat = fs::read_to_string("/proc/self/stat").expect("it can be read");
    let start: u64 = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19)?.parse().ok()).expect("field 22");
    forge_marker(&torn.repo, |marker| {
        marker["pid"] = json!(std::process::id());
        marker["start"] = json!(start);
    });
    let before = torn.new_ones();
    assert_eq!(recover(&torn.repo).0, 5, "its owner lives");
    assert_eq!(torn.new_ones(), before, "nothing of it is touched");
}

#[test]
fn what_lives_outside_is_not_recovered_from_inside_of_a_container() {
    let scene = Scene::of(guarded(), update);
    let inside = scene.repo.clone();
    // From a thread of its own: the tracer waits for all children of its thread.
    let ran = thread::spawn(move || {
        tracer::trace(jin(&inside, &["recover"]), b"", Isolation::Container, &mut |_| Action::Continue)
    });
    let ran = ran.join().expect("the tracer does not panic");
    match ran {
        Ok(outcome) => assert_eq!(outcome.status.code(), Some(5), "it cannot be seen: {}", text(&outcome.stderr)),
        Err(_) => println!("skipped: no right to make a pid namespace"),
    }
    assert!(scene.live.lock().exists(), "its lock stays");
    scene.finish();
}

#[test]
fn what_lives_in_a_container_is_not_recovered_from_outside_and_what_died_there_is() {
    for dies in [false, true] {
        let (repo, old, new) = with_branches(&Torn::BRANCHES);
        let mut is_third = nth(3, is_ref_rename);
        let mut outside = None;
        let mut decide = |event: &Event| {
            if !is_third(event) {
                return Action::Continue;
            }
            let seen = thread::scope(|scope| scope.spawn(|| run_jin(&repo, &["recover"])).join());
            outside = Some((seen.expect("it does not panic"), value(&repo, "refs/heads/b1")));
            if dies { Action::KillRoot } else { Action::Continue }
        };
        let command = crash::git(&repo, &["update-ref", "--stdin"]);
        let input = updates(&Torn::BRANCHES, &new, &old);
        let Ok(outcome) = tracer::trace(command, input.as_bytes(), Isolation::Container, &mut decide) else {
            return println!("skipped: no right to make a pid namespace");
        };
        let ((code, said), torn) = outside.expect("it comes to the third branch");
        assert_eq!((code, torn), (5, new.clone()), "it lives, and keeps what it has written: {said}");
        assert_eq!(outcome.status.success(), !dies, "{}", text(&outcome.stderr));
        assert_recovers(&repo);
        let expected = if dies { &old } else { &new };
        for branch in Torn::BRANCHES {
            assert_eq!(value(&repo, &format!("refs/heads/{branch}")), *expected, "dies: {dies}");
        }
    }
}

#[test]
fn the_lock_of_a_live_git_stays_although_a_dead_ones_batched_update_lists_its_ref() {
    if !Git::under_test().is_at_least(2, 50) {
        return println!("skipped: before 2.50 git has no batched updates");
    }
    let (repo, old, new) = with_branches(&["held", "mine", "other", "slow"]);
    // It hangs at the first of its two refs, and has the lock of the second.
    let command = crash::git(&repo, &["update-ref", "--stdin"]);
    let live = Hanging::start(&repo, command, "held", &updates(&["held", "slow"], &new, &old));
    let lock = repo.git_dir().join("refs/heads/slow.lock");
    let inode = || fs::metadata(&lock).map(|metadata| metadata.ino()).ok();
    let before = inode();
    let_the_clock_tick(&repo.git_dir());
    let batched = repo.clone();
    let input = updates(&["mine", "slow", "other"], &new, &old).replace("start\n", "").replace("prepare\ncommit\n", "");
    let killed = thread::spawn(move || {
        let command = crash::git(&batched, &["update-ref", "--stdin", "--batch-updates"]);
        crash::kill_at(command, &input, Action::KillTree, nth(2, is_ref_rename));
    });
    killed.join().expect("it is killed between its two refs");
    let (code, said) = recover(&repo);
    assert_eq!(code, 5, "somebody lives: {said}");
    assert!(before.is_some() && inode() == before, "the live git's lock stays: {said}");
    live.finish();
    assert_eq!(value(&repo, "refs/heads/slow"), new, "it ends as if nothing had been");
    assert_recovers(&repo);
    let values = ["mine", "other"].map(|branch| value(&repo, &format!("refs/heads/{branch}")));
    assert!(values == [old.clone(), old] || values == [new.clone(), new], "the batch is whole: {values:?}");
}

#[test]
fn what_a_batch_could_not_do_is_not_logged_as_done() {
    if !Git::under_test().is_at_least(2, 50) {
        return println!("skipped: before 2.50 git has no batched updates");
    }
    let (repo, old, new) = with_branches(&["mine", "theirs"]);
    let input = format!("update refs/heads/mine {new} {old}\nupdate refs/heads/theirs {new} {new}\n");
    repo.git_with_input(["update-ref", "--stdin", "--batch-updates"], &input);
    assert_eq!(value(&repo, "refs/heads/theirs"), old, "it was not what the batch expected");
    let last = wal(&repo).into_iter().rfind(|record| record["type"] == "committed").expect("the batch is logged");
    let done: Vec<&str> =
        last["data"]["refs"].as_array().expect("refs").iter().filter_map(|settled| settled["ref"].as_str()).collect();
    assert_eq!(done, ["refs/heads/mine"], "the log has what happened");
}

#[test]
fn what_pack_refs_takes_from_an_update_that_is_under_way_is_known_as_its_own_when_it_dies() {
    let case = Case::new();
    let hanging = case.hang();
    // It cannot lock the ref at which the other one hangs, and says so; the others it packs.
    case.repo.try_git(["pack-refs", "--all"]);
    for branch in ["alpha", "beta"] {
        assert!(!case.repo.git_dir().join("refs/heads").join(branch).exists(), "{branch} is packed");
    }
    hanging.kill();
    let_the_clock_tick(&case.repo.git_dir());
    let (code, said) = recover(&case.repo);
    assert_eq!(code, 0, "{said}");
    let values = ["alpha", "beta", "gamma", "omega"].map(|name| value(&case.repo, &format!("refs/heads/{name}")));
    assert!(values.iter().all(|value| *value == case.old), "all of it is taken back: {values:?}\n{said}");
    assert_recovers(&case.repo);
}

/// Between the look at a stale lock and its removal somebody else takes it away, and a git makes its own.
#[test]
fn a_lock_that_was_new_when_it_was_taken_is_given_back() {
    let repo = guarded();
    super::leave_stale_lock(&repo, "refs/heads/main.lock");
    let lock = repo.git_dir().join("refs/heads/main.lock");
    let mut made = None;
    let mut decide = |event: &Event| {
        if event.syscall.starts_with("rename") && event.path.as_deref() == Some(&*lock) && made.is_none() {
            fs::rename(&lock, repo.scratch().join("stale")).expect("it is there");
            fs::write(&lock, "of a live git").expect("it can be made");
            made = fs::metadata(&lock).map(|metadata| metadata.ino()).ok();
        }
        Action::Continue
    };
    tracer::trace(jin(&repo, &["recover"]), b"", Isolation::None, &mut decide).expect("it starts");
    if made.is_none() {
        return println!("skipped: a git of somebody else was at work");
    }
    let now = fs::metadata(&lock).map(|metadata| metadata.ino()).ok();
    assert_eq!(now, made, "the lock of the live one is where it was");
    assert_eq!(fs::read(&lock).expect("it can be read"), b"of a live git");
}

/// Its git was at work when the locks were found, and was done before they were judged; the lock that is there now is another's.
#[test]
fn a_lock_that_is_another_one_by_now_is_not_even_touched() {
    let repo = guarded();
    for name in ["one", "two"] {
        super::leave_stale_lock(&repo, &format!("refs/heads/{name}.lock"));
    }
    let locks = ["one", "two"].map(|name| repo.git_dir().join(format!("refs/heads/{name}.lock")));
    let (mut made, mut touched) = (None, false);
    let mut decide = |event: &Event| {
        let Some(path) = event.path.as_deref().filter(|_| event.syscall.starts_with("rename")) else {
            return Action::Continue;
        };
        match &made {
            None => {
                made = locks
                    .iter()
                    .find(|lock| **lock != *path)
                    .filter(|_| locks.iter().any(|lock| *lock == *path))
                    .cloned();
                if let Some(other) = &made {
                    fs::remove_file(other).expect("it is there");
                    fs::write(other, "of a live git").expect("it can be made");
                }
            }
            Some(other) => touched |= path == *other,
        }
        Action::Continue
    };
    tracer::trace(jin(&repo, &["recover"]), b"", Isolation::None, &mut decide).expect("it starts");
    let Some(other) = made else { return println!("skipped: a git of somebody else was at work") };
    assert!(!touched, "not for a moment is it away");
    assert_eq!(fs::read(other).expect("it can be read"), b"of a live git");
}

/// A git moves a branch of an update that is done but for its last record; that one's git dies, and recovery reads the log just
/// before the other one writes into it, and the branch behind that: whose the new value is stands in the log by then.
#[test]
fn what_the_log_has_got_while_recovery_looked_is_not_asked_of_a_human() {
    let repo = guarded();
    let old = repo.read(["rev-parse", "HEAD"]);
    let [new, newer] = ["new", "newer"].map(|message| spare_commit(&repo, message));
    // A reflog would tell as well.
    repo.git(["config", "core.logAllRefUpdates", "false"]);
    for branch in ["one", "two"] {
        repo.git(["branch", branch, &old]);
    }
    let ((ready, is_ready), (go, may_go)) = (mpsc::channel(), mpsc::channel());
    let mut second = None;
    let (mut renames, mut start) = (0, Some((ready, may_go)));
    let mut decide = |event: &Event| {
        renames += usize::from(is_ref_rename(event));
        // Before its hook has the log locked: the other one is to get as far as its own record.
        if renames < 2 || event.role != Role::Hook {
            return Action::Continue;
        }
        let (repo, newer) = (repo.clone(), newer.clone());
        let (ready, may_go) = start.take().expect("everything ends with the first one");
        // From a thread of its own: the tracer waits for all children of this one.
        second = Some(thread::spawn(move || {
            let mut has_waited = false;
            let lock = repo.git_dir().join("refs/heads/one.lock");
            let mut decide = |event: &Event| {
                let announces = event
                    .path2
                    .as_deref()
                    .is_some_and(|path| path.to_string_lossy().contains(".transaction_in_progress"));
                // From 2.54 on it announces itself before it locks as well; recovery would be waited for behind that.
                if announces && lock.exists() && !has_waited {
                    has_waited = true;
                    ready.send(()).expect("the test waits");
                    may_go.recv().expect("the test lets it go");
                }
                Action::Continue
            };
            let command = crash::git(&repo, &["update-ref", "refs/heads/one", &newer]);
            tracer::trace(command, b"", Isolation::None, &mut decide).expect("git starts").status
        }));
        is_ready.recv().expect("the second git comes to its marker");
        Action::KillTree
    };
    let input = updates(&["one", "two"], &new, &old);
    let update = crash::git(&repo, &["update-ref", "--stdin"]);
    tracer::trace_calls(update, input.as_bytes(), Isolation::None, Calls::Failing, &mut decide).expect("git starts");
    let_the_clock_tick(&repo.git_dir());

    let mut decide = |event: &Event| {
        if event.path.as_deref().is_some_and(|path| path.ends_with("refs/heads/one"))
            && let Some(second) = second.take()
        {
            go.send(()).expect("the second git waits");
            assert!(second.join().expect("it does not panic").success(), "it works beside recovery");
        }
        Action::Continue
    };
    let outcome = tracer::trace_calls(jin(&repo, &["recover"]), b"", Isolation::None, Calls::Failing, &mut decide)
        .expect("it starts");
    assert_eq!(outcome.status.code(), Some(0), "{}", text(&outcome.stderr));
    assert!(second.is_none(), "recovery looks at the branch");
    assert_eq!([value(&repo, "refs/heads/one"), value(&repo, "refs/heads/two")], [newer, new]);
    let undecided = wal(&repo).into_iter().filter(|record| record["data"]["outcome"] == "needs_human").count();
    assert_eq!(undecided, 0, "{}", text(&outcome.stderr));
    assert_recovers(&repo);
}
