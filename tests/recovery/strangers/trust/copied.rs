//! A `.jin` that came from somewhere else: nothing of it is redone, rolled back or obeyed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{is_root, run};
use crate::support::crash::{git, jin, kill_at, nth, recover, run_jin, transactions};
use crate::support::hanging::Case;
use crate::support::observe::{shown, tree};
use crate::support::repo::{NOBODY, Options, Repo, give_to, jin_txn, text};
use crate::support::tracer::{self, Action, Event, Isolation};

/// `.jin` of a crashed repository, unpacked somewhere else.
#[test]
fn unfinished_work_in_an_unpacked_state_directory_is_set_aside_and_told_once() {
    let case = Case::torn();
    let copy = case.repo.copy_as_it_is();
    let values = |repo: &Repo| {
        ["alpha", "beta", "gamma", "omega"].map(|branch| {
            let path = repo.git_dir().join("refs/heads").join(branch);
            fs::read_to_string(path).expect("it is there").trim().to_owned()
        })
    };
    let torn = values(&copy);
    let (code, said) = run_jin(&copy, &["status"]);
    assert!(code == 3 && said.contains("was copied from another place"), "who looks is told: {code} {said}");
    let output = run(git(&copy, &["commit", "-q", "--allow-empty", "-m", "first"]));
    let said = text(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(said.matches("was copied from another place").count(), 1, "it is told once: {said}");
    assert_eq!(values(&copy), torn, "nothing was rolled back: {said}");
    let markers = |dir: &Path| {
        let entries = fs::read_dir(dir).expect("it can be listed").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".transaction_")).count()
    };
    assert_eq!(markers(&copy.git_dir().join(".jin")), 0, "the marker is gone");
    let quarantine = copy.git_dir().join(".jin/quarantine");
    let aside = fs::read_dir(quarantine).expect("it can be listed").flatten().map(|entry| entry.path());
    let aside: Vec<_> = aside.filter(|path| path.join("wal").exists()).collect();
    assert_eq!((aside.len(), markers(&aside[0])), (1, 1), "it is in quarantine, with the log");
    let output = run(git(&copy, &["commit", "-q", "--allow-empty", "-m", "second"]));
    assert_eq!(text(&output.stderr), "", "and then there is silence");
    assert_eq!(transactions(&copy).len(), 2, "the new log has what happened here");
    assert_eq!(run_jin(&copy, &["check"]).1.matches("copied").count(), 0);
    let id = |repo: &Repo| fs::read_to_string(repo.git_dir().join(".jin/id")).expect("it has an id");
    assert_ne!(id(&copy), id(&case.repo), "it has an id of its own");
}

#[test]
fn setting_a_copy_aside_may_be_killed_anywhere() {
    let case = Case::torn();
    let is_change = |event: &Event| {
        let state =
            |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| path.display().to_string().contains("/.jin/"));
        let changes = ["rename", "renameat", "renameat2", "mkdir", "mkdirat"].contains(&event.syscall);
        changes && (state(&event.path) || state(&event.path2))
    };
    let count = {
        let mut count = 0;
        let copy = case.repo.copy_as_it_is();
        let mut decide = |event: &Event| {
            count += usize::from(is_change(event));
            Action::Continue
        };
        tracer::trace(jin(&copy, &["recover"]), b"", Isolation::None, &mut decide).expect("it starts");
        count
    };
    assert!(count > 8, "what is in .jin is moved, {count} changes");
    for n in 1..=count {
        let copy = case.repo.copy_as_it_is();
        let torn = fs::read(copy.git_dir().join("refs/heads/alpha")).expect("it is there");
        kill_at(jin(&copy, &["recover"]), "", Action::KillTree, nth(n, is_change));
        let (code, said) = recover(&copy);
        assert_eq!(code, 0, "killed at {n} of {count}: {said}");
        assert_eq!(fs::read(copy.git_dir().join("refs/heads/alpha")).expect("it is there"), torn, "{n}: {said}");
        assert!(!said.contains("tx-1"), "killed at {n} of {count}: {said}");
        copy.commit_all("next");
        assert_eq!(run_jin(&copy, &["status"]).0, 0, "killed at {n} of {count}");
        assert_eq!(transactions(&copy).len(), 1, "killed at {n} of {count}: the new log");
        assert!(copy.git_dir().join(".jin/id").exists(), "killed at {n} of {count}: it has an id");
    }
}

/// As in an image of a container: what is in a lower layer cannot be renamed as a directory.
#[test]
fn a_copy_in_a_lower_layer_of_overlayfs_is_set_aside_and_one_that_was_made_there_is_kept() {
    if !is_root("mount") {
        return;
    }
    let case = Case::torn();
    let copy = case.repo.copy_as_it_is();
    for (repo, code) in [(&copy, "was copied from another place"), (&case.repo, "rolled back tx-1")] {
        for dir in ["upper", "work", "merged"] {
            fs::create_dir(repo.scratch().join(dir)).expect("it can be made");
        }
        let script = "mount -t overlay overlay -o lowerdir=repo,upperdir=upper,workdir=work merged || exit 77
            cd merged && \"$0\" recover 2>&1 && git commit --allow-empty -q -m next && \"$0\" log && ls .git/.jin/quarantine";
        let mut command = repo.command("unshare".as_ref());
        command.current_dir(repo.scratch()).args(["-m", "sh", "-c", script]).arg(jin_txn());
        let output = run(command);
        if output.status.code() == Some(77) {
            println!("skipped: overlayfs cannot be mounted here");
            return;
        }
        let said = shown(repo, &output);
        assert!(output.status.success() && said.contains(code), "{said}");
        assert_eq!(said.contains("-copied"), code.contains("copied"), "{said}");
    }
}

#[test]
fn a_forged_state_directory_without_a_log_refuses_nothing_and_is_adopted_by_nobody() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    let state = repo.git_dir().join(".jin");
    let real = Case::torn();
    let torn = real.repo.git_dir().join(".jin");
    let marker = tree(&torn).into_keys().find(|path| path.display().to_string().contains(".transaction_"));
    let marker = torn.join(marker.expect("there is a marker"));
    let content = fs::read_to_string(&marker).expect("it is text");
    let mut forged: serde_json::Value = serde_json::from_str(&content).expect("it is JSON");
    // A run that has died, and a transaction of a process that never ends.
    forged["pid"] = 1.into();
    for (name, origin) in [("tx-8", "hook"), ("tx-9", "run")] {
        forged["id"] = name.into();
        forged["origin"] = origin.into();
        let marker = state.join(format!(".transaction_in_progress.{name}"));
        fs::write(marker, forged.to_string()).expect("it can be written");
    }
    fs::remove_dir_all(state.join("wal")).expect("it can be removed");
    fs::create_dir(state.join("wal")).expect("it can be made");
    for entry in fs::read_dir(&state).expect("it can be listed").flatten() {
        if entry.file_name().to_string_lossy().starts_with("verified.") {
            fs::remove_file(entry.path()).expect("it can be removed");
        }
    }
    let output = run(git(&repo, &["commit", "-q", "--allow-empty", "-m", "two"]));
    assert_eq!(output.status.code(), Some(0), "{}", shown(&repo, &output));
    assert!(text(&output.stderr).contains("was copied from another place"), "{}", shown(&repo, &output));
    let gc = run(git(&repo, &["gc", "-q"]));
    assert_eq!((gc.status.code(), text(&gc.stderr).as_ref()), (Some(0), ""), "a marker of theirs refuses no gc");
}

#[test]
fn a_copy_of_a_healthy_repository_goes_on_in_silence() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    let copied = Command::new("cp").arg("-a").arg(repo.path()).arg(repo.scratch().join("copy")).status();
    assert!(copied.is_ok_and(|status| status.success()), "it can be copied");
    let copy = repo.sibling("copy");
    assert_eq!(run_jin(&copy, &["check"]).0, 0);
    let output = run(git(&copy, &["commit", "-q", "--allow-empty", "-m", "two"]));
    assert_eq!((output.status.code(), text(&output.stderr).as_ref()), (Some(0), ""));
    assert_eq!(transactions(&copy).len(), 1, "its log begins here");
    let (code, said) = run_jin(&copy, &["status"]);
    assert!(code == 0 && said.contains("protected: "), "{said}");
}

#[test]
fn a_repository_that_was_moved_keeps_its_log_and_its_unfinished_work() {
    let case = Case::torn();
    let moved = case.repo.sibling("moved");
    fs::rename(case.repo.path(), moved.path()).expect("it can be moved");
    let (code, said) = recover(&moved);
    assert!(code == 0 && said.contains("rolled back tx-1"), "{said}");
}

#[test]
fn the_state_directory_of_a_colleague_is_kept() {
    if !is_root("be two users") {
        return;
    }
    let case = Case::torn();
    let repo = &case.repo;
    give_to(NOBODY, repo.path());
    fs::set_permissions(repo.scratch(), fs::Permissions::from_mode(0o755)).expect("the mode can be set");
    let mut recover = repo.as_nobody(jin_txn().as_os_str());
    recover.arg("recover");
    let output = run(recover);
    let said = shown(repo, &output);
    assert!(said.contains("tx-1") && !said.contains("copied"), "another user recovers it: {said}");
    assert_eq!(case.values(), ["old"; 4], "{said}");
}

/// Nothing tells whose it was: it is set aside like a copy, and not in silence.
#[test]
fn a_log_without_a_checkpoint_that_can_be_read_is_set_aside_and_told() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    let wal = repo.git_dir().join(".jin/wal");
    for segment in fs::read_dir(&wal).expect("it can be listed").flatten() {
        let log = fs::read_to_string(segment.path()).expect("it is text");
        fs::write(segment.path(), log.replace("checkpoint", "checkpoinT")).expect("it can be damaged");
    }
    let notes = fs::read_dir(repo.git_dir().join(".jin")).expect("it can be listed").flatten();
    for note in notes.filter(|entry| entry.file_name().to_string_lossy().starts_with("verified.")) {
        fs::remove_file(note.path()).expect("the boot can be forgotten");
    }
    let output = run(git(&repo, &["commit", "-q", "--allow-empty", "-m", "two"]));
    let said = text(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("is damaged"), "it is told: {said}");
    let (code, said) = run_jin(&repo, &["check"]);
    assert_eq!(code, 0, "once: {said}");
}

fn copied_with_cp(repo: &Repo) -> Repo {
    let copied = Command::new("cp").arg("-a").arg(repo.path()).arg(repo.scratch().join("copy")).status();
    assert!(copied.is_ok_and(|status| status.success()), "it can be copied");
    repo.sibling("copy")
}

#[test]
fn install_in_a_copy_takes_no_note_from_the_original() {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    repo.jin(&["install"]);
    let copy = copied_with_cp(&repo);
    copy.jin(&["install"]);
    let id = |repo: &Repo| fs::read_to_string(repo.git_dir().join(".jin/id")).expect("it has an id");
    assert_ne!(id(&copy), id(&repo), "the copy has an id of its own");
    copy.commit_all("two");
    for repo in [&repo, &copy] {
        // What nobody asked for says so only where there is no note.
        let lock = repo.git_dir().join("index.lock");
        fs::write(&lock, "").expect("a lock can be left behind");
        crate::support::point::let_the_clock_tick(&repo.git_dir());
        let (_, said) = run_jin(repo, &["check"]);
        assert!(said.contains("index.lock: stale"), "{}: {said}", repo.path().display());
    }
}

#[test]
fn a_copy_of_a_repository_in_which_everything_was_committed_goes_on_in_silence() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.write("file", "one\n");
    repo.commit_all("one");
    repo.write("file", "two\n");
    repo.git(["commit", "-q", "-a", "-m", "two"]);
    let copy = copied_with_cp(&repo);
    let output = run(git(&copy, &["tag", "x"]));
    assert_eq!((output.status.code(), text(&output.stderr).as_ref()), (Some(0), ""));
}
