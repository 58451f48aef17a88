//! `doctor`: each broken set-up is named with its remedy, `--fix` mends what it says it can, and leaves no trace.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use crate::support::hanging::Case;
use crate::support::observe::{Tree, assert_same, calm, shown, tree};
use crate::support::repo::{Git, NOBODY, Options, Repo, give_to, jin_txn, text};
use serde_json::Value;

fn json(output: &Output) -> Value {
    let stdout = text(&output.stdout);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {stdout}{}", text(&output.stderr)))
}

/// The checks that failed: name, what is wrong, how to mend it.
fn failed(diagnosis: &Value) -> Vec<(String, String, String)> {
    let checks = diagnosis["checks"].as_array().expect("there are checks");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let failed = checks.iter().filter(|check| check["status"] == "failed");
    failed
        .map(|check| {
            let detail = check["detail"].as_array().expect("a check says something");
            let lines: Vec<String> = detail.iter().map(word).collect();
            (word(&check["name"]), lines.join("\n"), word(&check["remedy"]))
        })
        .collect()
}

/// What a set-up is broken by, what doctor says, and whether `--fix` mends it.
struct Broken {
    name: &'static str,
    breaks: fn(&Case),
    /// The check that fails.
    check: &'static str,
    /// Part of what it says.
    says: &'static str,
    /// Part of the remedy.
    remedy: &'static str,
    code: i32,
    fixed: bool,
}

fn hook(case: &Case) -> std::path::PathBuf {
    case.repo.git_dir().join("hooks/reference-transaction")
}

fn jin(case: &Case) -> std::path::PathBuf {
    case.repo.git_dir().join(".jin")
}

fn write_program(path: &Path, content: &str) {
    fs::write(path, content).expect("it can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the mode can be set");
}

/// Flips a bit in the first record of a log of several.
fn damage_log(case: &Case) {
    case.repo.git(["branch", "one"]);
    case.repo.git(["branch", "two"]);
    let segment = fs::read_dir(jin(case).join("wal")).expect("there is a log").next().expect("it has a segment");
    let path = segment.expect("it can be read").path();
    let mut bytes = fs::read(&path).expect("it can be read");
    bytes[20] ^= 1;
    fs::write(&path, bytes).expect("it can be written");
}

fn move_a_ref_of_a_torn_transaction(case: &Case) {
    case.hang().kill();
    let tree = case.repo.read(["rev-parse", "HEAD^{tree}"]);
    let third = case.repo.read(["commit-tree", &tree, "-m", "third"]);
    let mut user = case.repo.command(Git::under_test().program.as_os_str());
    let moved = user.env("JIN_TXN", "off").args(["update-ref", "refs/heads/alpha", &third]).status();
    assert!(moved.is_ok_and(|status| status.success()), "the user moves alpha behind our back");
    assert_eq!(case.code(&["recover"]), Some(4), "a human has to decide");
}

#[rustfmt::skip]
const BROKEN: [Broken; 19] = [
    Broken { name: "a hook is missing", check: "hooks", says: "the reference-transaction hook is missing", remedy: "jin-txn install", code: 1, fixed: true,
        breaks: |case| fs::remove_file(hook(case)).expect("it can be removed") },
    Broken { name: "both hooks are missing", check: "hooks", says: "the post-checkout hook is missing", remedy: "jin-txn install", code: 1, fixed: true,
        breaks: |case| fs::remove_dir_all(case.repo.git_dir().join("hooks")).expect("they can be removed") },
    Broken { name: "a link that leads nowhere", check: "hooks", says: "points to a jin-txn that is gone", remedy: "jin-txn install", code: 1, fixed: true,
        breaks: |case| {
            fs::remove_file(hook(case)).expect("it can be removed");
            symlink("/nowhere/jin-txn", hook(case)).expect("a link can be made");
        } },
    Broken { name: "somebody's hook over ours", check: "hooks", says: "the reference-transaction hook is not jin-txn's", remedy: "jin-txn install", code: 1, fixed: true,
        breaks: |case| {
            fs::remove_file(hook(case)).expect("it can be removed");
            write_program(&hook(case), "#!/bin/sh\nexit 0\n");
        } },
    Broken { name: "core.hooksPath leads elsewhere", check: "hooks", says: "hook is missing", remedy: "jin-txn install", code: 1, fixed: true,
        breaks: |case| drop(case.repo.git(["config", "core.hooksPath", "elsewhere"])) },
    Broken { name: "the alias is missing", check: "alias", says: "`git txn` is not set", remedy: "jin-txn install", code: 1, fixed: true,
        breaks: |case| drop(case.repo.git(["config", "--unset", "alias.txn"])) },
    Broken { name: "the alias is somebody's", check: "alias", says: "`git txn` is another alias: `status`", remedy: "git config", code: 1, fixed: false,
        breaks: |case| drop(case.repo.git(["config", "alias.txn", "status"])) },
    Broken { name: "the alias leads nowhere", check: "alias", says: "`git txn` calls /nowhere/jin-txn, which is gone", remedy: "jin-txn install", code: 1, fixed: true,
        breaks: |case| drop(case.repo.git(["config", "alias.txn", "!'/nowhere/jin-txn'"])) },
    Broken { name: "git syncs too little", check: "durability", says: "core.fsync is `none`", remedy: "jin-txn install", code: 1, fixed: true,
        breaks: |case| drop(case.repo.git(["config", "core.fsync", "none"])) },
    Broken { name: "git does not wait for the disk", check: "durability", says: "core.fsyncMethod is `writeout-only`", remedy: "unset it", code: 1, fixed: false,
        breaks: |case| drop(case.repo.git(["config", "core.fsyncMethod", "writeout-only"])) },
    Broken { name: "the log is damaged", check: "log", says: "damaged: ", remedy: "`git txn recover` sets it aside", code: 4, fixed: true,
        breaks: damage_log },
    Broken { name: "a stale lock", check: "locks", says: "index.lock since ", remedy: "git txn recover", code: 3, fixed: true,
        breaks: |case| fs::write(case.repo.git_dir().join("index.lock"), "").expect("a lock can be left") },
    Broken { name: "an interrupted transaction", check: "unfinished", says: "tx-1 (`git update-ref --stdin`, pid ", remedy: "git txn recover", code: 3, fixed: true,
        breaks: |case| case.hang().kill() },
    Broken { name: "a transaction that waits for a human", check: "unfinished", says: "tx-1 needs manual resolution", remedy: "git txn recover --acknowledge tx-1", code: 4, fixed: false,
        breaks: move_a_ref_of_a_torn_transaction },
    Broken { name: "a part of it is missing", check: "state", says: "quarantine does not exist", remedy: "jin-txn install", code: 1, fixed: true,
        breaks: |case| fs::remove_dir_all(jin(case).join("quarantine")).expect("it can be removed") },
    Broken { name: "a part of it is a file", check: "state", says: "wal is not a directory", remedy: "move it away", code: 1, fixed: false,
        breaks: |case| {
            fs::remove_dir_all(jin(case).join("wal")).expect("it can be removed");
            fs::write(jin(case).join("wal"), "in the way").expect("a file can be made");
        } },
    Broken { name: "the configuration is unreadable", check: "config", says: "bad config line ", remedy: "config.saved", code: 1, fixed: false,
        breaks: |case| {
            case.repo.git(["branch", "one"]);
            let config = case.repo.git_dir().join("config");
            let text = fs::read_to_string(&config).expect("it can be read");
            fs::remove_file(&config).expect("it can be removed");
            fs::write(&config, text + "[broken\n").expect("it can be written");
        } },
    Broken { name: "a setting means nothing", check: "config", says: "jin.retention is `forever`: it should be days", remedy: "git config", code: 1, fixed: false,
        breaks: |case| drop(case.repo.git(["config", "jin.retention", "forever"])) },
    Broken { name: "a setting that the hook does not know yet", check: "config", says: "has changed since", remedy: "jin-txn install", code: 1, fixed: true,
        breaks: |case| drop(case.repo.git(["config", "jin.lockTimeout", "3s"])) },
];

#[test]
fn every_broken_set_up_is_named_with_its_remedy_and_mended_where_it_says_so() {
    for Broken { name, breaks, check, says, remedy, code, fixed } in BROKEN {
        let case = Case::new();
        breaks(&case);
        let before = theirs(&case.repo);
        let output = case.repo.jin_txn(["doctor", "--json"]);
        calm(&output);
        let found = failed(&json(&output));
        let named = found.iter().any(|(c, what, mend)| c == check && what.contains(says) && mend.contains(remedy));
        assert!(named, "{name}: `{check}` says `{says}` and `{remedy}`: {found:#?}");
        assert_eq!(output.status.code(), Some(code), "{name}: {found:#?}");
        assert_same(&before, &theirs(&case.repo), &format!("{name}: looking changed something"));

        let mended = case.repo.jin_txn(["doctor", "--fix", "--json"]);
        calm(&mended);
        let second = case.repo.jin_txn(["doctor", "--json"]);
        let left = failed(&json(&second));
        if fixed {
            let did = json(&mended)["fixed"].as_array().map_or(0, Vec::len);
            assert!(did > 0, "{name}: it says what it did: {}", text(&mended.stdout));
            assert_eq!(mended.status.code(), Some(0), "{name}: {}", text(&mended.stdout));
            assert_eq!((left.as_slice(), second.status.code()), (&[][..], Some(0)), "{name}: it is mended");
            assert_eq!(case.repo.read(["txn", "check"]), "clean: nothing is unfinished", "{name}: all works");
        } else {
            assert!(left.iter().any(|(c, ..)| c == check), "{name}: it is still named: {left:#?}");
            assert_eq!(mended.status.code(), Some(code), "{name}: {}", text(&mended.stdout));
        }
    }
}

/// The git directory as far as it is not ours.
fn theirs(repo: &Repo) -> Tree {
    tree(&repo.git_dir()).into_iter().filter(|(name, _)| !name.starts_with(".jin")).collect()
}

#[test]
fn a_healthy_repository_passes_and_nothing_stays_but_entries_in_the_log() {
    let plain = Options { guarded: true, ..Options::default() };
    for (name, options) in [
        ("files", plain),
        ("bare.git", Options { bare: true, ..plain }),
        ("sha256", Options { object_format: Some("sha256"), ..plain }),
        ("every reflog", plain),
        ("with 'quotes' and space", plain),
    ] {
        let repo = Repo::new(Options::default()).new_sibling(name, options);
        if name == "every reflog" {
            repo.git(["config", "core.logAllRefUpdates", "always"]);
            repo.commit_all("one");
        }
        let before = theirs(&repo);
        let output = repo.jin_txn(["doctor", "--run-hook"]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", shown(&repo, &output));
        assert_same(&before, &theirs(&repo), &format!("{name}: a trace"));
        let log = text(&repo.jin_txn(["log"]).stdout).into_owned();
        assert!(!log.contains("update-ref"), "{name}: a probe is nobody's operation: {log}");
        assert!(repo.jin_txn(["check"]).status.success(), "{name}: nothing is unfinished");
    }
}

#[test]
fn a_linked_worktree_is_examined_like_the_main_one() {
    let case = Case::new();
    case.repo.git(["worktree", "add", "-q", "../linked"]);
    let output = case.repo.sibling("linked").jin_txn(["doctor", "--run-hook"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&case.repo, &output));
}

#[test]
fn the_hook_is_run_wherever_the_user_is() {
    let case = Case::new();
    case.repo.write("sub/file", "x\n");
    let git_dir = case.repo.git_dir();
    for (directory, arguments) in [
        (case.repo.path().join("sub"), vec!["doctor".to_owned(), "--run-hook".to_owned()]),
        (git_dir.clone(), vec!["doctor".to_owned(), "--run-hook".to_owned()]),
        (
            case.repo.scratch().to_owned(),
            vec!["--git-dir".to_owned(), git_dir.display().to_string(), "doctor".to_owned(), "--run-hook".to_owned()],
        ),
        (
            case.repo.scratch().to_owned(),
            vec!["-C".to_owned(), "repo/sub".to_owned(), "doctor".to_owned(), "--run-hook".to_owned()],
        ),
    ] {
        let output = case.repo.run(jin_txn().as_os_str(), &directory, &arguments, b"");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?} in {}: {}",
            directory.display(),
            shown(&case.repo, &output)
        );
    }
    let through_git = case.repo.git(["txn", "doctor", "--run-hook"]);
    assert!(text(&through_git.stdout).contains("hook and `git txn` work"), "{}", shown(&case.repo, &through_git));
}

#[test]
fn the_scratch_ref_of_a_doctor_that_was_killed_is_deleted() {
    let case = Case::new();
    let nobody = "refs/jin-txn/doctor/4194304";
    case.repo.git(["update-ref", nobody, "HEAD"]);
    assert_eq!(case.code(&["doctor", "--run-hook"]), Some(0));
    assert!(!case.repo.try_git(["rev-parse", "-q", "--verify", nobody]).status.success(), "it is gone");
    assert!(!case.repo.git_dir().join("refs/jin-txn").exists(), "and its directory");
}

#[test]
fn what_undo_takes_back_is_the_users_work_and_not_the_trial() {
    let case = Case::new();
    case.repo.git(["update-ref", "refs/heads/alpha", &case.new]);
    assert_eq!(case.code(&["doctor"]), Some(0));
    let output = case.repo.jin_txn(["undo"]);
    assert!(output.status.success(), "{}", shown(&case.repo, &output));
    assert_eq!(case.values(), ["old"; 4], "{}", shown(&case.repo, &output));
    assert_eq!(case.code(&["doctor"]), Some(0));
    assert_eq!(case.code(&["redo"]), Some(0), "and what was taken back can still be done again");
    assert_eq!(case.values(), ["new", "old", "old", "old"]);
}

#[test]
fn each_lock_is_told_with_its_evidence() {
    let case = Case::torn();
    let dead = json(&case.repo.jin_txn(["doctor", "--json"]));
    let lock = &dead["locks"][0];
    assert_eq!(lock["path"], "refs/heads/gamma.lock", "{dead:#}");
    assert_eq!(lock["owner"], "dead", "{dead:#}");
    assert!(
        lock["held_by"].as_str().is_some_and(|by| by.starts_with("tx-1 (`git update-ref --stdin`, pid ")),
        "{dead:#}"
    );
    assert!(lock["since"].as_u64().is_some_and(|at| at > 1_700_000_000), "{dead:#}");

    let case = Case::new();
    let hanging = case.hang();
    let output = case.repo.jin_txn(["doctor", "--json"]);
    hanging.let_go();
    let alive = json(&output);
    assert_eq!(alive["locks"][0]["owner"], "alive", "{alive:#}");
    // A git that writes it down beside the lock says so itself.
    let told = if Git::under_test().is_at_least(2, 54) { " holds it, says " } else { "may hold it" };
    assert!(alive["locks"][0]["because"].as_str().is_some_and(|why| why.contains(told)), "{alive:#}");
    assert_eq!((output.status.code(), &alive["state"]), (Some(5), &Value::from("busy")), "{alive:#}");
    assert_eq!(case.values(), ["new"; 4], "nobody was disturbed");
}

#[test]
fn a_fix_never_touches_the_work_of_the_living() {
    let case = Case::new();
    let hanging = case.hang();
    fs::remove_file(hook(&case)).expect("it can be removed");
    let locks = case.locks();
    let output = case.repo.jin_txn(["doctor", "--fix"]);
    let locks_after = case.locks();
    hanging.let_go();
    assert_eq!(locks, locks_after, "a live git keeps its locks: {}", text(&output.stdout));
    assert_eq!(case.values(), ["new"; 4], "and finishes");
    assert!(hook(&case).exists(), "what can be mended is: {}", shown(&case.repo, &output));
}

#[test]
fn a_state_directory_that_its_owner_may_not_write_is_mended() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: root alone can become somebody else");
        return;
    }
    let case = Case::new();
    let locked = jin(&case);
    give_to(NOBODY, case.repo.scratch());
    let as_nobody =
        |arguments: &[&str]| case.repo.as_nobody(jin_txn().as_os_str()).args(arguments).output().expect("setpriv runs");
    fs::set_permissions(locked.join("wal"), fs::Permissions::from_mode(0o555)).expect("the mode can be set");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).expect("the mode can be set");
    let found = failed(&json(&as_nobody(&["doctor", "--json"])));
    assert!(
        found.iter().any(|(check, what, mend)| check == "state"
            && what.contains("cannot be written")
            && mend.contains("chmod -R u+rwX")),
        "{found:#?}"
    );
    let mended = as_nobody(&["doctor", "--fix"]);
    assert_eq!(mended.status.code(), Some(0), "{}", shown(&case.repo, &mended));
    assert!(text(&mended.stderr).contains("gave you write access to 2 files in .jin"), "{}", text(&mended.stderr));

    let status = Command::new("chown").arg("root").arg(&locked).status();
    assert!(status.is_ok_and(|status| status.success()), "the state directory can be kept");
    let found = failed(&json(&as_nobody(&["doctor", "--fix", "--json"])));
    assert!(
        found.iter().any(|(check, _, mend)| check == "state" && mend.contains("it belongs to uid 0")),
        "{found:#?}"
    );
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).expect("the mode can be set");
    let hidden = as_nobody(&["doctor", "--json"]);
    calm(&hidden);
    let found = failed(&json(&hidden));
    assert!(
        found.iter().any(|(check, _, mend)| check == "state" && mend.contains("it belongs to uid 0")),
        "{found:#?}"
    );
    assert!(found.iter().all(|(_, _, mend)| !mend.is_empty()), "each has a remedy: {found:#?}");
    assert_eq!(hidden.status.code(), Some(1));
}

#[test]
fn the_remedy_for_a_damaged_log_works_and_keeps_everything() {
    let case = Case::new();
    damage_log(&case);
    let diagnosis = json(&case.repo.jin_txn(["doctor", "--json"]));
    let remedy = failed(&diagnosis).into_iter().find(|(check, ..)| check == "log").expect("it is named").2;
    let commands: Vec<&str> = remedy.split('`').skip(1).step_by(2).collect();
    assert_eq!(commands, ["git txn recover"], "{remedy}");
    assert_eq!(case.code(&["recover"]), Some(4), "it is told once more");
    let kept = crate::support::snapshot::walk(&jin(&case).join("quarantine"), &|_| true);
    assert!(kept.iter().any(|path| path.extension().is_some_and(|it| it == "wal")), "the old log is kept: {kept:?}");
    assert_eq!(case.code(&["doctor"]), Some(0), "{}", text(&case.repo.jin_txn(["doctor"]).stdout));
}

#[test]
fn quiet_tells_only_what_is_wrong() {
    let case = Case::new();
    let output = case.repo.jin_txn(["doctor", "-q"]);
    assert_eq!(shown(&case.repo, &output), "--- stderr\n--- exit 0");
    case.repo.git(["config", "core.fsync", "none"]);
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["doctor", "-q"])), @"
    failed  durability   core.fsync is `none`: a power cut may damage staged files
                         mend: `jin-txn install`
    --- stderr
    --- exit 1
    ");
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["doctor", "-q", "--fix"])), @"
    --- stderr
    --- exit 0
    ");
}
