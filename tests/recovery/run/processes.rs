//! Who belongs to a run, and what passes through it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use super::restoring::{guarded, run_script};
use crate::support::crash::{self, assert_fsck, run_jin, transactions, value};
use crate::support::observe::shown;
use crate::support::repo::{Git, Options, Repo, jin_txn, text};
use crate::support::scenes::Whole;
use crate::support::wait::wait_until;

/// Something that a process waits for.
pub struct Gate {
    fifo: PathBuf,
}

impl Gate {
    pub fn new(repo: &Repo) -> Gate {
        let fifo = repo.scratch().join("gate");
        mkfifo(&fifo, Mode::from_bits_truncate(0o600)).expect("a fifo can be made");
        Gate { fifo }
    }

    /// Lets whoever reads the fifo go on.
    pub fn open(&self) {
        drop(fs::File::options().write(true).open(&self.fifo).expect("somebody reads it"));
    }
}

/// Starts a script under `jin-txn run`, and returns when it has made the file `started` beside the repository.
pub fn start(repo: &Repo, script: &str) -> Child {
    // Signals as a terminal gives them: whoever runs the tests in the background may have them ignored.
    let mut command = repo.command("env".as_ref());
    command.arg("--default-signal").arg(jin_txn()).args(["run", "--", "bash", "-c", script]);
    // No pipe: whoever outlives the runner would keep it open.
    let said = fs::File::create(repo.scratch().join("said")).expect("a file can be made");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn();
    let started = repo.scratch().join("started");
    wait_until("the script is there", || started.exists());
    child.expect("jin-txn starts")
}

pub fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it lives");
}

pub fn end(repo: &Repo, mut child: Child) -> (Option<i32>, String) {
    let code = child.wait().expect("it ends").code();
    (code, fs::read_to_string(repo.scratch().join("said")).expect("it is text"))
}

#[test]
fn a_process_that_outlives_its_script_is_named_and_nothing_is_restored_while_it_lives() {
    // By the mark in its environment, by the lock that it has open, by both.
    let ways = ["cat ../gate", "exec 400>&-; exec cat ../gate", "exec env -i /bin/cat ../gate"];
    for way in ways {
        let repo = guarded();
        repo.git(["config", "jin.runGrace", "0"]);
        let gate = Gate::new(&repo);
        let before = Whole::of(&repo);
        let script = format!("echo changed >file; git tag t; (setsid bash -c '{way}' >/dev/null 2>&1 &); exit 9");
        let (code, said) = run_jin(&repo, &["run", "--", "bash", "-c", &script]);
        assert_eq!(code, 5, "{way}: {said}");
        assert!(said.contains("it has left"), "{way}: {said}");
        wait_until("the one that waits is there", || {
            let (code, said) = run_jin(&repo, &["recover"]);
            assert_eq!(code, 5, "{way}: {said}");
            said.contains("/cat ../gate (pid ") || said.contains(" cat ../gate (pid ")
        });
        assert_eq!(fs::read_to_string(repo.path().join("file")).expect("it is there"), "changed\n");
        gate.open();
        wait_until("its end has come", || run_jin(&repo, &["check"]).0 == 3);
        let (code, said) = run_jin(&repo, &["recover"]);
        assert_eq!(code, 0, "{way}: {said}");
        let after = Whole::of(&repo);
        assert!(after == before, "{way}: {}", after.differences(&before));
    }
}

#[test]
fn a_straggler_that_ends_in_time_is_waited_for() {
    let repo = guarded();
    let gate = Gate::new(&repo);
    let before = Whole::of(&repo);
    // It ends when the script does: the last writer of the fifo is gone.
    let script = "(cat ../gate >/dev/null 2>&1; echo late >late) & exec 9>../gate; echo x >file; exit 9";
    let (code, said) = run_jin(&repo, &["run", "--", "bash", "-c", script]);
    assert_eq!(code, 9, "{said}");
    assert!(gate.fifo.exists());
    let after = Whole::of(&repo);
    assert!(after == before, "{}", after.differences(&before));
}

#[test]
fn a_run_that_succeeds_does_not_wait_for_what_it_left_running() {
    let repo = guarded();
    let gate = Gate::new(&repo);
    let script = "echo changed >file; (cat ../gate >/dev/null 2>&1 &); exit 0";
    let (code, said) = run_jin(&repo, &["run", "--", "bash", "-c", script]);
    assert_eq!((code, said.as_str()), (0, ""));
    assert_eq!(run_jin(&repo, &["check"]).0, 0);
    gate.open();
}

#[test]
fn children_that_survive_the_runner_keep_the_run_alive() {
    let repo = guarded();
    let gate = Gate::new(&repo);
    let before = Whole::of(&repo);
    let script = "echo changed >file; git commit -qam changed; echo >../started; cat ../gate; git tag late";
    let child = start(&repo, script);
    send(&child, Signal::SIGKILL);
    end(&repo, child);
    let (code, said) = run_jin(&repo, &["recover"]);
    assert_eq!(code, 5, "{said}");
    assert_eq!(repo.read(["log", "-1", "--format=%s"]), "changed", "nothing is restored under their hands");
    gate.open();
    wait_until("their end has come", || run_jin(&repo, &["check"]).0 == 3);
    assert_ne!(value(&repo, "late"), "", "they worked on, and their hooks let them");
    // One that is just ending cannot be looked at, and is waited for.
    wait_until("it goes back", || run_jin(&repo, &["recover"]).0 == 0);
    let after = Whole::of(&repo);
    assert!(after == before, "{}", after.differences(&before));
}

#[test]
fn a_signal_reaches_the_command_and_the_run_is_taken_back() {
    let rows = [
        ("the command ends by it", "", Signal::SIGTERM, 143),
        ("the command handles it", "trap 'exit 7' TERM;", Signal::SIGTERM, 7),
        ("an interrupt from elsewhere", "trap 'exit 8' INT;", Signal::SIGINT, 8),
        ("the terminal goes away", "trap 'exit 6' HUP;", Signal::SIGHUP, 6),
    ];
    for (name, trap, signal, expected) in rows {
        let repo = guarded();
        let _gate = Gate::new(&repo);
        let before = Whole::of(&repo);
        // Bash handles a signal while it waits, not while a command runs in the foreground; and one that comes just before it
        // waits only when that is over.
        let wait = "until read -t 0.1 -u 9 line; do :; done";
        let script = format!("{trap} echo x >file; exec 9<>../gate; echo >../started; {wait}; exit 3");
        let child = start(&repo, &script);
        send(&child, signal);
        let (code, said) = end(&repo, child);
        assert_eq!(code, Some(expected), "{name}: {said}");
        let after = Whole::of(&repo);
        assert!(after == before, "{name}: {}\n{said}", after.differences(&before));
    }
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let repo = guarded();
    let script = "trap '' HUP; exec \"$0\" run -- sh -c 'grep SigIgn: /proc/self/status'";
    let output = repo.run("sh".as_ref(), repo.path(), ["-c", script, &jin_txn().display().to_string()], b"");
    let text = text(&output.stdout).into_owned();
    let mask = u64::from_str_radix(text.trim().rsplit('\t').next().expect("a mask"), 16).expect("a mask");
    assert_eq!(mask & 1, 1, "SIGHUP is ignored: {text}");
}

#[test]
fn input_output_environment_and_exit_code_pass_through() {
    let repo = guarded();
    let output = repo.run(jin_txn().as_os_str(), repo.path(), ["run", "--", "tr", "a-z", "A-Z"], b"through");
    assert_eq!((output.stdout, output.stderr), (b"THROUGH".to_vec(), Vec::new()));
    for code in [1, 2, 3, 4, 5, 42, 255] {
        assert_eq!(run_script(&repo, &format!("exit {code}")).0, code);
    }
    let inner = repo.path().join("dir");
    let output = repo.run(jin_txn().as_os_str(), &inner, ["run", "--", "pwd"], b"");
    assert_eq!(text(&output.stdout).trim(), inner.display().to_string(), "it runs where the user is");
}

#[test]
fn a_command_that_cannot_be_started_changes_nothing() {
    let repo = guarded();
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["run", "--", "no-such-command", "x"])), @r"
    --- stderr
    error: cannot run `no-such-command`: No such file or directory (os error 2)
    hint: nothing was changed
    --- exit 127
    ");
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["run", "--", "./file"])), @r"
    --- stderr
    error: cannot run `./file`: Permission denied (os error 13)
    hint: nothing was changed
    --- exit 126
    ");
    assert_eq!(run_jin(&repo, &["check"]).0, 0);
}

#[test]
fn keep_on_failure_keeps_what_a_failing_command_did() {
    let repo = guarded();
    let (code, said) =
        run_jin(&repo, &["run", "--keep-on-failure", "--", "sh", "-c", "echo x >new; git tag t; exit 9"]);
    assert_eq!((code, said.as_str()), (9, ""));
    assert_eq!(repo.read(["status", "--porcelain"]), "?? new");
    assert_ne!(value(&repo, "t"), "");
}

#[test]
fn a_failed_run_is_told_in_one_line() {
    let repo = guarded();
    let output = repo.jin_txn(["run", "-m", "try it", "--", "sh", "-c", "echo x >file; git commit -qam x; exit 9"]);
    insta::assert_snapshot!(shown(&repo, &output), @r"
    --- stderr
    jin-txn: tx-3 failed (exit code 9): this repository goes back to how it was
    jin-txn: rolled back tx-3 (`jin-txn run -- sh -c 'echo x >file; git commit -qam x; exit 9'`, pid [PID]): 1 ref as before: refs/heads/main ([ID]), 1 file as before, 1 put back, 1 moved aside and 1 more; see `git txn show tx-3`
    --- exit 9
    ");
    let listed = transactions(&repo);
    assert_eq!((listed[0]["id"].as_str(), listed[0]["state"].as_str()), (Some("tx-3"), Some("rolled back")));
    assert_eq!(listed[0]["message"].as_str(), Some("try it"));
    assert_eq!(listed.len(), 3, "its parts are told with it: {listed:?}");
}

#[test]
fn a_run_inside_of_a_run_joins_it() {
    let repo = guarded();
    let before = Whole::of(&repo);
    let bin = jin_txn().display().to_string();
    let (code, said) = run_script(&repo, &format!("{bin} run -- git tag inner; git tag outer; exit 9"));
    assert_eq!(code, 9, "{said}");
    let after = Whole::of(&repo);
    assert!(after == before, "{}", after.differences(&before));
    // A part that fails is the script's to judge.
    let (code, said) = run_script(&repo, &format!("{bin} run -- sh -c 'git tag inner; exit 3' || git tag outer"));
    assert_eq!((code, said.as_str()), (0, ""));
    assert_ne!(value(&repo, "inner"), "");
    assert_eq!(transactions(&repo).len(), 4, "one transaction a run");
}

#[test]
fn a_dry_undo_says_what_the_real_one_would_do_while_a_run_is_at_work() {
    let repo = guarded();
    let gate = Gate::new(&repo);
    repo.git(["tag", "before"]);
    let before = Whole::of(&repo);
    let bin = jin_txn().display().to_string();
    let child = start(&repo, &format!("git tag within; {bin} undo --dry-run; touch ../started; read <../gate; exit 9"));
    let (code, outside) = run_jin(&repo, &["undo", "--dry-run"]);
    assert_eq!(code, 0, "{outside}");
    gate.open();
    let (code, inside) = end(&repo, child);
    assert_eq!(code, Some(9), "{inside}");
    let would = |lines: &str| lines.contains("jin-txn: would undo tx-3 (`git tag before`)\n  refs/tags/before: ");
    assert!(would(&inside) && inside.contains("  as a part of tx-4, which is at work"), "{inside}");
    assert!(would(&outside) && outside.contains("jin-txn: tx-4 (`jin-txn run -- bash -c"), "{outside}");
    assert!(outside.contains(") is at work") && outside.contains("hint: only what has ended is undone"), "{outside}");
    let after = Whole::of(&repo);
    assert!(after == before, "{}", after.differences(&before));
}

#[test]
fn a_run_in_another_repository_is_one_of_its_own() {
    let repo = guarded();
    let other = repo.new_sibling("other", Options { guarded: true, ..Options::default() });
    other.commit_all("one");
    let bin = jin_txn().display().to_string();
    let script = format!(
        "git tag here; cd ../other; {bin} run -- git tag there; {bin} run -- sh -c 'git tag gone; exit 3' 2>/dev/null || true; exit 9"
    );
    assert_eq!(run_script(&repo, &script).0, 9);
    assert_eq!(value(&repo, "here"), "");
    assert_ne!(value(&other, "there"), "", "the other repository's run was kept");
    assert_eq!(value(&other, "gone"), "", "and the other one taken back");
    assert_fsck(&other);
}

#[test]
fn two_runs_in_one_worktree_are_one_too_many() {
    let repo = guarded();
    let gate = Gate::new(&repo);
    let child = start(&repo, "echo >../started; cat ../gate");
    let output = repo.jin_txn(["run", "--", "true"]);
    insta::assert_snapshot!(shown(&repo, &output), @r"
    --- stderr
    error: tx-3 (`jin-txn run -- bash -c 'echo >../started; cat ../gate'`) is at work in this worktree
    hint: try again when it has ended, or use another worktree
    --- exit 5
    ");
    repo.git(["worktree", "add", "-q", "-b", "linked", "../linked"]);
    let linked = repo.sibling("linked");
    assert_eq!(run_script(&linked, "git tag from-linked").0, 0, "another worktree has its own");
    gate.open();
    assert_eq!(end(&repo, child).0, Some(0));
    assert_eq!(run_jin(&repo, &["check"]).0, 0);
}

#[test]
fn what_cannot_be_taken_back_is_not_run() {
    let unprotected = Repo::new(Options::default());
    unprotected.commit_all("one");
    insta::assert_snapshot!(shown(&unprotected, &unprotected.jin_txn(["run", "--", "git", "tag", "t"])), @r"
    --- stderr
    error: [DIR]/repo/.git is not protected, so this could not be taken back: it has no .jin directory: run `jin-txn install`
    --- exit 1
    ");
    assert_eq!(value(&unprotected, "t"), "");
    // git holds index.lock while it waits for an editor.
    let repo = guarded();
    let gate = Gate::new(&repo);
    repo.write("file", "changed\n");
    let mut commit = crash::git(&repo, &["commit", "-q", "-a"]);
    commit.env("GIT_EDITOR", "echo x >../started; cat ../gate; echo x >");
    let mut commit = commit.stdin(Stdio::null()).spawn().expect("git starts");
    wait_until("the editor is there", || repo.scratch().join("started").exists());
    let output = repo.jin_txn(["run", "--", "git", "tag", "t"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("a git is at work in this worktree"), "{}", text(&output.stderr));
    assert_eq!(value(&repo, "t"), "");
    gate.open();
    assert!(commit.wait().expect("it ends").success(), "the waiting git was not disturbed");
    if Git::under_test().is_at_least(2, 45) {
        let table = Repo::new(Options { ref_format: Some("reftable"), guarded: true, ..Options::default() });
        let (code, said) = run_jin(&table, &["run", "--", "true"]);
        assert_eq!(code, 1);
        assert!(said.contains("needs the files format"), "{said}");
    }
}

#[test]
fn nothing_of_a_run_is_left_in_the_git_directory() {
    let repo = guarded();
    repo.git(["repack", "-adq"]);
    run_script(&repo, "git tag t");
    run_script(&repo, "git tag u; exit 9");
    let left = |dir: &str| fs::read_dir(repo.git_dir().join(dir)).into_iter().flatten().count();
    assert_eq!(left(".jin/tx"), 0, "no snapshot");
    let keeps = crate::support::snapshot::walk(&repo.git_dir().join("objects/pack"), &|_| true);
    assert!(!keeps.iter().any(|p: &PathBuf| p.extension() == Some("keep".as_ref())), "no pack is kept: {keeps:?}");
}
