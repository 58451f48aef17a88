//! A run that was killed with its whole tree, or cut by a reboot, goes back as one that fails; later work of others stays.

use std::fs;

use super::restoring::{guarded, kill_script, quarantined, run_script};
use crate::support::crash::{self, assert_fsck, run_jin, value};
use crate::support::point::let_the_clock_tick;
use crate::support::reboot;
use crate::support::repo::{Repo, text};
use crate::support::scenes::Whole;

#[test]
fn work_that_was_done_after_the_crash_is_never_touched_and_a_human_decides() {
    for answer in ["--take-back", "--acknowledge"] {
        let repo = guarded();
        let before = Whole::of(&repo);
        kill_script(&repo, "echo script >file; git add file; git commit -qm script; echo made >made; : now");
        // Hours later, before anybody recovers.
        say_it_was_long_ago(&repo);
        repo.write("file", "hours of work\n");
        let after = crate::support::observe::tree(repo.path());
        let (code, said) = run_jin(&repo, &["recover"]);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("files have changed since its last process died"), "{said}");
        let worktree = |tree: crate::support::observe::Tree| {
            tree.into_iter().filter(|(path, _)| !path.starts_with(".git")).collect::<Vec<_>>()
        };
        assert_eq!(worktree(crate::support::observe::tree(repo.path())), worktree(after), "nothing was touched");
        assert_eq!(run_jin(&repo, &["recover"]).0, 4, "it goes on waiting");
        repo.git(["tag", "git-works-meanwhile"]);
        repo.git(["tag", "-d", "git-works-meanwhile"]);
        let (code, said) = run_jin(&repo, &["recover", answer, "tx-3"]);
        assert_eq!(code, 0, "{said}");
        assert_eq!(run_jin(&repo, &["check"]).0, 0);
        if answer == "--take-back" {
            let now = Whole::of(&repo);
            assert!(now == before, "{}", now.differences(&before));
            assert!(quarantined(&repo).contains(&"hours of work\n".to_owned()), "the work is kept");
        } else {
            assert_eq!(fs::read_to_string(repo.path().join("file")).expect("it is there"), "hours of work\n");
            assert_eq!(repo.read(["log", "-1", "--format=%s"]), "script");
        }
        assert!(!repo.git_dir().join(".jin/tx/tx-3").exists(), "the snapshot is gone");
    }
}

/// A gc writes the list of refs for dumb transports: nobody's work is lost with it.
#[test]
fn a_gc_after_the_crash_is_no_work_that_a_human_has_to_decide_about() {
    let repo = guarded();
    kill_script(&repo, "git tag t; : now");
    say_it_was_long_ago(&repo);
    repo.command("git".as_ref()).args(["update-server-info"]).status().expect("git starts");
    let (code, said) = run_jin(&repo, &["recover"]);
    assert_eq!((code, value(&repo, "t")), (0, String::new()), "{said}");
    assert!(repo.git_dir().join("info/refs").exists(), "it stays as the gc has left it");
}

/// The run was killed two hours ago; the time of the crash is in the file that the runner touches, and in the log.
fn say_it_was_long_ago(repo: &Repo) {
    const SECONDS: u64 = 7200;
    let alive = repo.git_dir().join(".jin/tx/tx-3/alive");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(SECONDS);
    fs::File::options().write(true).open(&alive).and_then(|f| f.set_modified(long_ago)).expect("it is there");
    age_log(repo, SECONDS);
}

/// Makes all records of the log older: the clock of a test does not stand still for two hours.
fn age_log(repo: &Repo, seconds: u64) {
    for path in crate::support::snapshot::walk(&repo.git_dir().join(".jin/wal"), &|_| true) {
        let old = fs::read_to_string(&path).expect("the log is text");
        let mut new = String::new();
        for line in old.lines() {
            let mut record: serde_json::Value = serde_json::from_str(&line[9..]).expect("a record is JSON");
            record["time"] = (record["time"].as_u64().expect("a time") - seconds).into();
            let json = record.to_string();
            new += &format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()));
        }
        fs::write(&path, new).expect("the log can be written");
        fs::remove_file(repo.git_dir().join(".jin/log-head")).ok();
    }
}

#[test]
fn a_script_killed_with_its_whole_tree_leaves_no_trace_after_any_command_of_ours() {
    let script = "echo x >file; git commit -qam x; git tag t; git branch -m main trunk; echo y >y; : now";
    for next in [&["recover"][..], &["git", "status"], &["undo", "--dry-run"]] {
        let repo = guarded();
        repo.write("mine", "mine\n");
        let before = Whole::of(&repo);
        kill_script(&repo, script);
        assert_ne!(Whole::of(&repo), before, "without damage this test proves nothing");
        let_the_clock_tick(&repo.git_dir());
        let (_, said) = run_jin(&repo, next);
        if next[0] == "undo" {
            // A dry run only looks.
            assert!(said.contains("something is unfinished"), "{said}");
            run_jin(&repo, &["recover"]);
        } else {
            assert!(said.contains("rolled back tx-3"), "{next:?}: {said}");
        }
        let after = Whole::of(&repo);
        assert!(after == before, "{next:?}: {}", after.differences(&before));
    }
}

#[test]
fn a_hook_refuses_to_build_on_a_dead_run_and_names_the_command() {
    let repo = guarded();
    kill_script(&repo, "echo x >file; git commit -qam x; : now");
    let refused = repo.try_git(["tag", "t"]);
    assert!(!refused.status.success());
    let said = text(&refused.stderr).into_owned();
    assert!(said.contains("tx-3 (`jin-txn run -- sh -ec") && said.contains("hint: run `git txn recover`"), "{said}");
    assert_eq!(run_jin(&repo, &["check"]).0, 3, "it waits for recovery");
    let_the_clock_tick(&repo.git_dir());
    assert_eq!(run_jin(&repo, &["recover"]).0, 0);
    repo.git(["tag", "t"]);
}

#[test]
fn a_run_that_is_interrupted_while_others_write_elsewhere_keeps_their_refs() {
    let repo = guarded();
    kill_script(&repo, "git branch -f a HEAD; env -u JIN_TXN_RUN git branch theirs; git tag t; : now");
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = run_jin(&repo, &["recover"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!((value(&repo, "a"), value(&repo, "t")), (String::new(), String::new()));
    assert_ne!(value(&repo, "theirs"), "");
}

#[track_caller]
fn assert_before_after_a_reboot(repo: &Repo, before: &Whole) {
    let_the_clock_tick(&repo.git_dir());
    let output = reboot::output_after(|| crash::jin(repo, &["recover"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let after = Whole::of(repo);
    assert!(after == *before, "{}\n{}", after.differences(before), text(&output.stderr));
}

#[test]
fn what_was_taken_back_is_not_done_again_by_a_reboot() {
    let repo = guarded();
    repo.git(["branch", "topic"]);
    let before = Whole::of(&repo);
    let script = "git commit -q --allow-empty -m x; git tag t; git branch -f topic HEAD; git branch -D topic; exit 9";
    assert_eq!(run_script(&repo, script).0, 9);
    assert_before_after_a_reboot(&repo, &before);
}

#[test]
fn a_run_after_a_reboot_is_taken_back() {
    let repo = guarded();
    let before = Whole::of(&repo);
    kill_script(&repo, "echo x >file; git commit -qam x; git tag t; echo y >y; : now");
    assert_before_after_a_reboot(&repo, &before);
}

/// Without the refs' newest word in the log a reboot would take what the run's own transactions had logged for it.
#[test]
fn a_ref_that_a_run_gave_back_and_the_disk_lost_afterwards_comes_back_as_it_was_before_the_run() {
    let repo = guarded();
    let before = value(&repo, "main");
    let (code, said) = run_script(&repo, "git commit -q --allow-empty -m x; git tag t; exit 9");
    assert_eq!(code, 9, "{said}");
    assert_eq!(value(&repo, "main"), before);
    let_the_clock_tick(&repo.git_dir());
    fs::write(repo.git_dir().join("refs/heads/main"), "").expect("the ref can be emptied");
    let output = reboot::output_after(|| crash::jin(&repo, &["recover"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(value(&repo, "main"), before, "{}", text(&output.stderr));
    assert_eq!(value(&repo, "t"), "");
    assert_fsck(&repo);
}

/// Whose bytes in the worktree are not those of its blob is told by the configuration, which recovery may just have put back.
#[test]
fn a_run_behind_a_dead_one_that_changed_the_configuration_goes_by_the_restored_one() {
    let repo = guarded();
    repo.git(["config", "core.autocrlf", "true"]);
    // As git would write it, and as it would not; it takes neither for changed.
    repo.write("with-cr", "one\r\n");
    repo.write("without", "one\n");
    repo.commit_all("both");
    assert_eq!(repo.read(["status", "--porcelain"]), "");
    let before = Whole::of(&repo);
    kill_script(&repo, "git config core.autocrlf false; : now");
    assert_eq!(repo.read(["config", "core.autocrlf"]), "false", "without a change this test proves nothing");
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = run_script(&repo, "echo lost >with-cr; echo lost >without; exit 9");
    assert_eq!(code, 9, "{said}");
    assert!(said.contains("the configuration as before"), "the dead one is taken back first: {said}");
    let after = Whole::of(&repo);
    assert!(after == before, "it left a trace:\n  {}\n{said}", after.differences(&before));
}
