//! What a verification must not fall for: live transactions, its own death, git children that fail, objects elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{OldFile, guarded, object_file, overwrite, run, run_after_reboot, undo_rename};
use crate::support::crash::{self, unseen_git, value};
use crate::support::hanging::Case;
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Repo, text};
use crate::support::snapshot::Snapshot;
use crate::support::tracer::{self, Action, Isolation};
use crate::support::{reboot, table};

/// How many places of a recovery are killed by default; `JIN_KILL=all` takes all.
const PLACES: usize = 12;

#[test]
fn a_commit_that_was_still_being_cleaned_up_when_another_one_verified_stays() {
    let repo = guarded();
    let hook = repo.git_dir().join("hooks/post-commit");
    fs::write(&hook, "#!/bin/sh\ngit update-ref refs/custom/last HEAD\n").expect("it can be written");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("it can be made executable");
    repo.write("file", "three\n");
    let output = run(reboot::after(crash::git(&repo, &["commit", "-qam", "three"]), &reboot::new_boot_id()));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let newest = value(&repo, "HEAD");
    assert_eq!(value(&repo, "refs/custom/last"), newest);
    for _ in 0..2 {
        assert_eq!(text(&run_after_reboot(&repo, &["recover"]).stderr), "jin-txn: nothing to recover\n");
        assert_eq!(value(&repo, "HEAD"), newest);
    }
}

#[test]
fn one_commit_with_an_index_lock_is_enough_to_verify() {
    let repo = guarded();
    repo.write("file", "three\n");
    let boot = reboot::new_boot_id();
    let output = run(reboot::after(crash::git(&repo, &["commit", "-qam", "three"]), &boot));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let entries = fs::read_dir(repo.git_dir().join(".jin")).expect("there is a state directory");
    let names: Vec<String> =
        entries.map(|entry| entry.expect("it can be read").file_name().display().to_string()).collect();
    assert!(names.iter().any(|name| name.starts_with(&format!("verified.{boot}."))), "{names:?}");
}

#[test]
fn a_transaction_that_is_alive_is_none_of_the_last_boots() {
    let case = Case::new();
    let hanging = case.hang();
    assert_eq!(case.values(), ["new", "new", "old", "old"], "it is half done");
    for entry in fs::read_dir(case.repo.git_dir().join(".jin")).expect("there is a state directory") {
        let entry = entry.expect("it can be read");
        if entry.file_name().as_encoded_bytes().starts_with(b"verified.") {
            fs::remove_file(entry.path()).expect("the note can be taken away");
        }
    }
    let output = case.repo.jin_txn(["recover"]);
    assert_eq!(output.status.code(), Some(5), "somebody is at work: {}", text(&output.stderr));
    assert_eq!(case.values(), ["new", "new", "old", "old"], "it is left alone: {}", text(&output.stderr));
    hanging.let_go();
    assert_eq!(case.values(), ["new"; 4]);
    assert_eq!(case.repo.jin_txn(["recover"]).status.code(), Some(0));
    assert_eq!(case.values(), ["new"; 4]);
}

#[test]
fn refs_that_an_unseen_writer_packed_are_no_older_state() {
    let repo = guarded();
    repo.git(["branch", "topic"]);
    repo.git(["branch", "gone"]);
    repo.git(["branch", "-q", "-D", "gone"]);
    unseen_git(&repo, &["branch", "-q", "-f", "topic", "HEAD~1"]);
    unseen_git(&repo, &["branch", "gone", "HEAD~1"]);
    // The guard sees these two, and with them the packed-refs that has the unseen values.
    repo.git(["pack-refs", "--all"]);
    repo.commit_all("three");
    let before = repo.read(["for-each-ref"]);
    assert_eq!(text(&run_after_reboot(&repo, &["recover"]).stderr), "jin-txn: nothing to recover\n");
    assert_eq!(repo.read(["for-each-ref"]), before);
}

#[test]
fn what_waits_for_a_human_or_was_closed_by_one_stays_as_it_is() {
    for acknowledged in [false, true] {
        let repo = guarded();
        let (first, second) = (value(&repo, "HEAD~1"), value(&repo, "HEAD"));
        let names = ["refs/custom/a", "refs/custom/b"];
        let input = |to: &str| names.map(|name| format!("update {name} {to}\n")).concat();
        repo.git_with_input(["update-ref", "--stdin"], &input(&first));
        let update = crash::git(&repo, &["update-ref", "--stdin"]);
        let mut renames = 0;
        crash::kill_at(update, &input(&second), Action::KillTree, |event| {
            let done = renames == names.len();
            renames += usize::from(crash::is_ref_rename(event));
            done
        });
        let other = crash::spare_commit(&repo, "somebody else's");
        unseen_git(&repo, &["update-ref", names[1], &other]);
        let (code, said) = crash::recover(&repo);
        assert_eq!(code, 4, "{said}");
        if acknowledged {
            let id = crash::transactions(&repo)[0]["id"].as_str().expect("it has an id").to_owned();
            assert_eq!(crash::run_jin(&repo, &["recover", "--acknowledge", &id]).0, 0);
        }
        run_after_reboot(&repo, &["recover"]);
        assert_eq!(value(&repo, names[0]), second, "acknowledged: {acknowledged}");
        assert_eq!(value(&repo, names[1]), other, "acknowledged: {acknowledged}");
    }
}

/// Everything at once that a power cut may leave, and what has to come of it.
fn damaged() -> (Repo, Vec<(&'static str, String)>) {
    let repo = guarded();
    repo.git(["branch", "lost"]);
    repo.git(["branch", "gone"]);
    let gone = OldFile::keep(&repo, "refs/heads/gone");
    repo.git(["branch", "old", "HEAD~1"]);
    let old = OldFile::keep(&repo, "refs/heads/old");
    repo.git(["branch", "-q", "-D", "gone"]);
    repo.git(["branch", "-q", "-f", "old", "HEAD"]);
    repo.commit_all("three");
    let newest = value(&repo, "HEAD");
    let second = value(&repo, "HEAD~1");
    undo_rename(&repo.git_dir().join("refs/heads/lost"));
    gone.comes_back();
    old.comes_back();
    overwrite(&repo.git_dir().join("refs/heads/main"), b"");
    overwrite(&repo.git_dir().join("HEAD"), b"");
    fs::write(repo.git_dir().join("HEAD.lock"), "").expect("it can be written");
    overwrite(&repo.git_dir().join("index"), &[0; 50]);
    let log = repo.git_dir().join("logs/refs/heads/main");
    let sound = fs::read(&log).expect("there is a reflog");
    overwrite(&log, &[&sound[..], &[0; 20]].concat());
    let blob = repo.git_dir().join("objects/aa");
    fs::create_dir_all(&blob).expect("it can be made");
    fs::write(blob.join("a".repeat(38)), "").expect("it can be written");
    let_the_clock_tick(&repo.git_dir());
    let expected = vec![
        ("refs/heads/main", newest),
        ("refs/heads/lost", second.clone()),
        ("refs/heads/gone", String::new()),
        ("refs/heads/old", second.clone()),
    ];
    (repo, expected)
}

fn assert_mended(repo: &Repo, expected: &[(&str, String)], reason: &str) {
    for (name, wanted) in expected {
        assert_eq!(value(repo, name), *wanted, "{name}, {reason}");
    }
    assert_eq!(repo.read(["symbolic-ref", "HEAD"]), "refs/heads/main", "{reason}");
    assert!(repo.try_git(["status"]).status.success(), "{reason}");
    crash::assert_fsck(repo);
}

#[test]
fn a_verification_that_is_killed_anywhere_comes_to_the_same_end() {
    let recover = |repo: &Repo| reboot::after(crash::jin(repo, &["recover"]), &reboot::new_boot_id());
    let (repo, expected) = damaged();
    let mut events = 0;
    let mut count = |_: &tracer::Event| {
        events += 1;
        Action::Continue
    };
    tracer::trace(recover(&repo), b"", Isolation::None, &mut count).expect("jin-txn starts");
    // A git of another test may have been in the way of the traced one.
    run_after_reboot(&repo, &["recover"]);
    assert_mended(&repo, &expected, "undisturbed");
    let stride = table::stride("JIN_KILL", usize::div_ceil(events, PLACES));
    for place in (1..=events).step_by(stride) {
        let (repo, _) = damaged();
        let mut decide = |event: &tracer::Event| if event.n == place { Action::KillTree } else { Action::Continue };
        tracer::trace(recover(&repo), b"", Isolation::None, &mut decide).expect("jin-txn starts");
        let_the_clock_tick(&repo.git_dir());
        let output = run_after_reboot(&repo, &["recover"]);
        assert_eq!(output.status.code(), Some(0), "killed at {place} of {events}: {}", text(&output.stderr));
        assert_mended(&repo, &expected, &format!("killed at {place} of {events}"));
        let again = run_after_reboot(&repo, &["recover"]);
        assert_eq!(text(&again.stderr), "jin-txn: nothing to recover\n", "killed at {place}");
    }
}

#[test]
fn a_git_that_fails_to_answer_proves_nothing() {
    for command in ["rev-list", "cat-file", "for-each-ref"] {
        let repo = guarded();
        let before = Snapshot::of(&repo);
        let tools = repo.scratch().join("tools");
        fs::create_dir(&tools).expect("it can be made");
        let wrapper = tools.join("git");
        let real = Git::under_test().program.display();
        let script = format!("#!/bin/sh\ncase \"$*\" in *{command}*) kill -9 $$ ;; esac\nexec {real} \"$@\"\n");
        fs::write(&wrapper, script).expect("it can be written");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("it can be made executable");
        let mut recover = crash::jin(&repo, &["recover"]);
        recover.env("PATH", format!("{}:/usr/bin:/bin", tools.display()));
        let output = run(reboot::after(recover, &reboot::new_boot_id()));
        assert_eq!(output.status.code(), Some(0), "{command}: {}", text(&output.stderr));
        assert_eq!(Snapshot::of(&repo), before, "{command}: {}", text(&output.stderr));
    }
}

#[test]
fn what_a_partial_clone_left_on_the_server_is_not_lost_and_is_not_fetched() {
    let upstream = guarded();
    upstream.git(["config", "uploadpack.allowFilter", "true"]);
    let here = upstream.sibling("partial");
    let from = format!("file://{}", upstream.path().display());
    upstream.git(["clone", "-q", "--filter=blob:none", "--no-checkout", &from, &here.path().display().to_string()]);
    here.install_guard();
    upstream.write("file", "three\n");
    upstream.commit_all("three");
    here.git(["fetch", "-q"]);
    here.git(["update-ref", "refs/heads/main", "refs/remotes/origin/main"]);
    let before = here.read(["for-each-ref"]);
    fs::rename(upstream.path(), upstream.scratch().join("offline")).expect("the server can go away");
    let output = run_after_reboot(&here, &["recover"]);
    assert_eq!(text(&output.stderr), "jin-txn: nothing to recover\n");
    assert_eq!(here.read(["for-each-ref"]), before);
}

#[test]
fn objects_on_a_disk_that_is_not_there_are_not_lost() {
    let origin = guarded();
    let here = origin.sibling("shared");
    origin.git(["clone", "-q", "--shared", ".", &here.path().display().to_string()]);
    here.install_guard();
    here.git(["branch", "topic"]);
    let logs = Snapshot::of(&here).logs;
    let objects = origin.git_dir().join("objects");
    let away = origin.scratch().join("unmounted");
    fs::rename(&objects, &away).expect("the disk can go away");
    run_after_reboot(&here, &["recover"]);
    fs::rename(&away, &objects).expect("the disk can come back");
    assert_eq!(Snapshot::of(&here).logs, logs, "no entry was cut off");
    assert_eq!(value(&here, "refs/heads/topic"), value(&here, "HEAD"));
}

#[test]
fn staged_files_whose_objects_are_lost_are_written_again_or_named() {
    let repo = guarded();
    for name in ["same", "changed"] {
        repo.write(name, &format!("staged {name}\n"));
        repo.git(["add", name]);
        let blob = repo.read(["rev-parse", &format!(":{name}")]);
        overwrite(&object_file(&repo, &blob), b"");
    }
    repo.write("changed", "edited since\n");
    let output = run_after_reboot(&repo, &["recover"]);
    let said = text(&output.stderr);
    assert!(said.contains("what was staged of changed is lost: `git add` it again"), "{said}");
    assert!(!said.contains("what was staged of same"), "{said}");
    repo.git(["add", "changed"]);
    repo.git(["commit", "-q", "-m", "works"]);
    crash::assert_fsck(&repo);
}

#[test]
fn nothing_is_built_on_refs_that_another_process_is_still_verifying() {
    let repo = guarded();
    let old = OldFile::keep(&repo, "refs/heads/main");
    let newest = repo.commit_all("three");
    old.comes_back();
    let boot = reboot::new_boot_id();
    let commit = || run(reboot::after(crash::git(&repo, &["commit", "-q", "--allow-empty", "-m", "four"]), &boot));
    let lock = fs::OpenOptions::new().write(true).open(repo.git_dir().join(".jin/recovery.lock")).expect("it is there");
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).expect("nobody holds it");
    let refused = commit();
    assert!(!refused.status.success(), "what main is, is not known yet");
    drop(held);
    assert!(!commit().status.success(), "now it is recovered, and the commit was built on the old value");
    assert!(commit().status.success());
    assert_eq!(value(&repo, "HEAD~1"), newest);
}
