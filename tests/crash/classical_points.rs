//! The five classical places to crash in a transaction, and the order of events that makes all of them recoverable.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::crash::{
    self, Stage, Whole, differing, end_state, is_log_call, is_log_sync, is_ref_lock, is_ref_rename, nth, path_of,
};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Options, Repo};
use crate::support::snapshot::Snapshot;
use crate::support::tracer::{self, Action, Event, Isolation, Role};

/// How many events of a recovery are killed by default; `JIN_KILL=all` takes all.
const IN_RECOVERY: usize = 8;

#[test]
fn killed_before_the_wal_write_nothing_happened() {
    comes_to(Whole::Before, |event| is_log_call(event, "write"));
}

#[test]
fn killed_after_the_write_before_the_fsync_nothing_happened() {
    comes_to(Whole::Before, is_log_sync);
}

#[test]
fn killed_after_the_fsync_before_git_executes_nothing_happened() {
    let mut is_logged = false;
    comes_to(Whole::Before, move |event| {
        is_logged |= is_log_sync(event);
        is_logged && event.role == Role::Git
    });
}

#[test]
fn killed_between_two_renames_of_refs_it_rolls_back() {
    let stage = Stage::new("update-ref");
    let renames = stage.events().iter().filter(|event| is_ref_rename(event)).count();
    for n in [2, renames / 2, renames] {
        let repo = stage.kill(Action::KillTree, nth(n, is_ref_rename));
        stage.assert_torn(&repo);
        stage.assert_recovers_to(&repo, Whole::Before);
    }
}

#[test]
fn killed_between_two_deletions_of_refs_it_rolls_back() {
    let stage = Stage::new("update-ref");
    let is_deletion =
        |event: &Event| event.role == Role::Git && event.syscall.starts_with("unlink") && is_loose_ref(&path_of(event));
    let repo = stage.kill(Action::KillTree, nth(2, is_deletion));
    stage.assert_torn(&repo);
    stage.assert_recovers_to(&repo, Whole::Before);
}

#[test]
fn killed_after_execution_before_the_committed_record_it_is_committed() {
    let mut renames = 0;
    comes_to(Whole::After, move |event| {
        renames += usize::from(is_ref_rename(event));
        renames > 0 && is_log_call(event, "write")
    });
}

#[test]
fn killed_after_execution_before_the_fsync_of_the_committed_record_it_is_committed() {
    let mut renames = 0;
    comes_to(Whole::After, move |event| {
        renames += usize::from(is_ref_rename(event));
        renames > 0 && is_log_sync(event)
    });
}

#[test]
fn killed_after_execution_before_cleanup_it_is_committed() {
    comes_to(Whole::After, |event| {
        event.syscall.starts_with("rename") && is_marker(event.path2.as_ref(), ".transaction_committed.")
    });
    comes_to(Whole::After, |event| {
        event.syscall.starts_with("unlink") && is_marker(event.path.as_ref(), ".transaction_committed.")
    });
}

#[test]
fn killed_during_recovery_it_comes_to_the_same_end() {
    let stage = Stage::new("update-ref");
    let renames = stage.events().iter().filter(|event| is_ref_rename(event)).count();
    recovery_that_is_killed_ends_alike(&stage, || stage.kill(Action::KillTree, nth(renames / 2, is_ref_rename)));
    recovery_that_is_killed_ends_alike(&stage, || stage.kill(Action::KillTree, nth(1, removes_loose_ref)));
}

/// A recovery that is cut must not look like one in which somebody else has deleted a ref.
#[test]
fn what_was_deleted_comes_back_before_anything_else_is_taken_back() {
    let torn = Stage::new("update-ref").kill(Action::KillTree, nth(1, removes_loose_ref));
    let_the_clock_tick(&torn.git_dir());
    let (events, _) = tracer::events_of(crash::jin(&torn, &["recover"]), b"").expect("jin-txn starts");
    let written: Vec<PathBuf> =
        events.iter().filter(|event| is_ref_rename(event)).filter_map(|e| e.path2.clone()).collect();
    assert!(
        written.len() > 3 && written[0].ends_with("refs/heads/packed-7"),
        "it was in packed-refs alone: {written:?}"
    );
}

/// All updates and a part of the deletions are made then: what was in packed-refs alone is gone.
fn removes_loose_ref(event: &Event) -> bool {
    event.role == Role::Git && event.syscall.starts_with("unlink") && is_loose_ref(&path_of(event))
}

fn recovery_that_is_killed_ends_alike(stage: &Stage, kill: impl Fn() -> Repo + Sync) {
    let torn = || {
        let repo = kill();
        let_the_clock_tick(&repo.git_dir());
        repo
    };
    let undisturbed = torn();
    let (events, outcome) = tracer::events_of(crash::jin(&undisturbed, &["recover"]), b"").expect("jin-txn starts");
    assert!(outcome.status.success(), "recovery works when nobody disturbs it");
    let end = end_state(&undisturbed);

    let stride = crate::support::table::stride("JIN_KILL", events.len().div_ceil(IN_RECOVERY));
    let chosen: Vec<usize> = events.iter().map(|event| event.n).step_by(stride).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(&m) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let repo = torn();
            let mut decide = |event: &Event| {
                if event.n == m { Action::KillTree } else { Action::Continue }
            };
            let killed = tracer::trace(crash::jin(&repo, &["recover"]), b"", Isolation::None, &mut decide)
                .expect("jin-txn starts")
                .killed;
            stage.assert_recovers_to(&repo, Whole::Before);
            let differing = differing(&end_state(&repo), &end);
            assert!(differing.is_empty(), "recovery killed at {killed:?} comes to another end: {differing:?}");
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
}

/// I1, for every ref: between git's taking its lock and git's changing it, the log is synced.
#[test]
fn no_ref_changes_before_its_record_is_durable() {
    for operation in ["update-ref", "commit", "rebase", "fetch", "branch-D", "branch-D-packed", "tag-d"] {
        let mut changes = 0;
        let mut waiting = HashSet::new();
        Stage::new(operation).watch(|event| {
            if is_log_sync(event) {
                waiting.clear();
            } else if is_ref_lock(event) {
                waiting.insert(path_of(event).with_extension(""));
            } else if let Some(changed) = changed_ref(event) {
                changes += 1;
                assert!(!waiting.contains(&changed), "{operation}: {event} comes before the fsync of the log");
            }
        });
        // Only packed-refs changes where the branch was packed.
        assert!(changes > 0 || operation == "branch-D-packed" || operation == "tag-d", "{operation} changes a ref");
    }
}

/// I3: whoever is told that it is done, by the end of a command or by a marker, is told behind the sync of the last record.
#[test]
fn the_last_word_is_durable_before_anybody_is_told() {
    for operation in ["update-ref", "commit", "fetch", "branch-D-packed", "branch-m"] {
        last_word_is_durable(operation, &Stage::new(operation).events());
    }
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    let commit = repo.commit_all("base");
    let input = format!("create refs/heads/made {commit}\n");
    let torn = Stage::new("update-ref").kill(Action::KillTree, nth(2, is_ref_rename));
    let_the_clock_tick(&torn.git_dir());
    let commands: [(&Repo, &[&str]); 5] = [
        (&repo, &["apply"]),
        (&repo, &["undo"]),
        (&repo, &["run", "--", "true"]),
        (&repo, &["run", "--", "false"]),
        (&torn, &["recover"]),
    ];
    for (repo, command) in commands {
        let (events, _) = tracer::events_of(crash::jin(repo, command), input.as_bytes()).expect("jin-txn starts");
        last_word_is_durable(&command.join(" "), &events);
    }
}

fn last_word_is_durable(what: &str, events: &[Event]) {
    let (mut written, mut unsynced) = (0, None);
    for event in events {
        if is_log_sync(event) {
            unsynced = None;
        } else if is_log_call(event, "write") {
            written += 1;
            unsynced = Some(event);
        } else if is_marker(event.path2.as_ref(), ".transaction_committed.") {
            assert!(unsynced.is_none(), "{what}: a marker says that it is done before the log is synced: {event}");
        }
    }
    assert_ne!(written, 0, "{what} is logged");
    assert!(unsynced.is_none(), "{what} ends, and its last record is not synced");
}

/// The same for refs that are packed: `packed-refs` is replaced only when the log is synced.
#[test]
fn packed_refs_is_not_replaced_before_the_record_is_durable() {
    for operation in ["update-ref", "branch-D-packed", "tag-d"] {
        let events = Stage::new(operation).events();
        let sync = events.iter().position(is_log_sync);
        let replace = events.iter().position(|event| crash::is_rename_to(event, "packed-refs"));
        assert!(replace.is_some() && sync < replace, "{operation}: synced at {sync:?}, replaced at {replace:?}");
        assert!(sync.is_some(), "{operation} is logged");
    }
}

#[test]
fn packed_refs_is_durable_before_it_is_named_and_named_durably_before_a_loose_ref_goes() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("base");
    for name in ["one", "two", "three"] {
        repo.git(["branch", name]);
    }
    let (events, outcome) = tracer::events_of(crash::git(&repo, &["pack-refs", "--all"]), b"").expect("git starts");
    assert!(outcome.status.success(), "pack-refs works");
    let by_hook = |event: &Event, end: &str| event.syscall == "fsync" && path_of(event).ends_with(end);
    let content = events.iter().position(|event| by_hook(event, "packed-refs.new"));
    let rename = events.iter().position(|event| crash::is_rename_to(event, "packed-refs"));
    let name = events.iter().position(|event| by_hook(event, ".git"));
    let removal = events.iter().position(removes_loose_ref);
    assert!(content.is_some() && content < rename && rename < name, "{content:?} {rename:?} {name:?}");
    assert!(name < removal, "{name:?} {removal:?}");
    let syncs = events.iter().filter(|event| event.role == Role::Hook && event.syscall == "fsync").count();
    assert_eq!(syncs, 2, "one for the content, one for the name, however many refs there are");
}

#[test]
fn what_changes_no_visible_value_writes_nothing() {
    let repo = Repo::new(Options::default());
    let output = repo.jin_txn(["install", "--durability", "process"]);
    assert!(output.status.success(), "install works");
    repo.commit_all("base");
    for name in ["one", "two", "three"] {
        repo.git(["branch", name]);
    }
    // The second round finds everything packed already.
    for _ in 0..2 {
        let (events, outcome) = tracer::events_of(crash::git(&repo, &["pack-refs", "--all"]), b"").expect("git starts");
        assert!(outcome.status.success(), "pack-refs works");
        assert_eq!(changes_by_hook(&events), Vec::<String>::new(), "pack-refs changes no value");
    }
    let (events, _) =
        tracer::events_of(crash::git(&repo, &["update-ref", "-d", "AUTO_MERGE"]), b"").expect("git starts");
    assert_eq!(changes_by_hook(&events), Vec::<String>::new(), "there is no AUTO_MERGE to be deleted");
    for phase in ["preparing", "prepared", "committed", "aborted"] {
        let hook = crash::jin(&repo, &["hook", "reference-transaction", phase]);
        let (events, outcome) = tracer::events_of(hook, b"").expect("the hook starts");
        assert!(outcome.status.success(), "`{phase}` of nothing is no reason for a veto");
        assert_eq!(changes_by_hook(&events), Vec::<String>::new(), "`{phase}` without a ref");
    }
}

/// Kills the update where `wanted` says, and asserts which whole state it was in or comes to.
fn comes_to(whole: Whole, wanted: impl FnMut(&Event) -> bool) {
    let stage = Stage::new("update-ref");
    let repo = stage.kill(Action::KillTree, wanted);
    let found = Snapshot::of(&repo).refs;
    let expected = if whole == Whole::Before { &stage.expected.before } else { &stage.expected.after };
    assert_eq!(found, expected.refs, "the refs are whole at this point already");
    stage.assert_recovers_to(&repo, whole);
}

fn changed_ref(event: &Event) -> Option<PathBuf> {
    if is_ref_rename(event) {
        return event.path2.clone();
    }
    // A packed ref's loose file is removed, too, whether there is one or not.
    let removed = path_of(event);
    let removes = event.role == Role::Git && event.syscall.starts_with("unlink");
    (removes && is_loose_ref(&removed) && removed.exists()).then_some(removed)
}

/// Whether a path is a loose ref: neither a reflog nor a lock.
fn is_loose_ref(path: &Path) -> bool {
    let shown = path.display().to_string();
    shown.contains("/refs/") && !shown.contains("/logs/") && path.extension().is_none_or(|it| it != "lock")
}

fn is_marker(path: Option<&PathBuf>, prefix: &str) -> bool {
    path.and_then(|path| path.file_name()).is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
}

fn changes_by_hook(events: &[Event]) -> Vec<String> {
    events.iter().filter(|event| event.role == Role::Hook).map(ToString::to_string).collect()
}
