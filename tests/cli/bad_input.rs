//! Broken surroundings and bad input of the hook: refused with a reason, and nothing is changed. Never a panic.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::support::observe::{assert_same, calm, look_and_recover, shown, tree};
use crate::support::repo::{Git, NOBODY, Options, Repo, give_to, jin_txn, text};

fn protected() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    repo.commit_all("two");
    repo
}

fn hook(repo: &Repo, state: &str, input: &[u8]) -> Output {
    let alias = format!("alias.x=!'{}' hook reference-transaction {state}", jin_txn().display());
    repo.run(Git::under_test().program.as_os_str(), repo.path(), ["-c", &alias, "x"], input)
}

#[test]
fn outside_of_a_repository_it_says_so() {
    let repo = Repo::new(Options::default());
    for arguments in [&["status"][..], &["check"], &["recover"], &["log"], &["show", "tx-1"], &["install"]] {
        let output = repo.run(jin_txn().as_os_str(), repo.scratch(), arguments, b"");
        calm(&output);
        assert_eq!(
            shown(&repo, &output),
            "--- stderr\nerror: not a git repository (nor any parent of it): [DIR]\n\
             hint: run this inside a git repository, or name one with -C DIR\n--- exit 1",
            "{arguments:?}"
        );
    }
    let nowhere = repo.jin_txn(["-C", "no-such-directory", "check"]);
    assert_eq!(nowhere.status.code(), Some(1), "a directory that is not there: {}", shown(&repo, &nowhere));
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["--git-dir", "../home", "check"])), @"
    --- stderr
    error: not a git directory: [DIR]/repo/../home
    hint: run this inside a git repository, or name one with -C DIR
    --- exit 1
    ");
}

#[test]
fn without_a_git_or_with_one_that_is_too_old_nothing_is_installed() {
    let repo = Repo::new(Options::default());
    let before = tree(&repo.git_dir());
    let bin = repo.scratch().join("bin");
    fs::create_dir(&bin).expect("it can be made");
    let install = || {
        let output = repo.command(jin_txn().as_os_str()).arg("install").env("PATH", &bin).output();
        let output = output.expect("the binary starts");
        calm(&output);
        assert_same(&before, &tree(&repo.git_dir()), "nothing was installed");
        shown(&repo, &output)
    };
    insta::assert_snapshot!(install(), @"
    --- stderr
    error: there is no git in PATH: install git 2.31 or newer
    --- exit 1
    ");
    let git = bin.join("git");
    for (answer, expected) in [
        ("echo git version 2.20.1", "is git 2.20: jin-txn needs 2.31 or newer"),
        ("echo git version 2.30.99", "is git 2.30: jin-txn needs 2.31 or newer"),
        ("printf 'gut \\033[31mversion\\n'", "which is not a git version"),
        ("exit 1", "which is not a git version"),
        ("kill -9 $$", "which is not a git version"),
    ] {
        fs::write(&git, format!("#!/bin/sh\n{answer}\n")).expect("it can be written");
        fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).expect("the mode can be set");
        let said = install();
        assert!(said.contains(expected), "`{answer}`: {said}");
    }
}

/// What we said of all that git showed, which says the rest differently in each version.
fn ours(repo: &Repo, output: &Output) -> String {
    let said = shown(repo, output);
    said.lines().filter(|line| line.starts_with("jin-txn:")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_state_directory_that_is_a_file_vetoes_every_change_and_says_the_way_round() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    fs::remove_dir_all(repo.git_dir().join(".jin")).expect("it can be removed");
    fs::write(repo.git_dir().join(".jin"), "in the way").expect("a file can be made");
    let before = tree(&repo.git_dir().join("refs"));
    let output = repo.try_git(["commit", "--allow-empty", "-q", "-m", "one"]);
    calm(&output);
    assert!(!output.status.success(), "the commit is refused");
    insta::assert_snapshot!(ours(&repo, &output), @"
    jin-txn: error: cannot create [DIR]/repo/.git/.jin: [DIR]/repo/.git/.jin is not a directory: look at it, move it away, then run `jin-txn recover`
    jin-txn: hint: this change was refused; to work without protection: JIN_TXN=off git ...
    ");
    assert_same(&before, &tree(&repo.git_dir().join("refs")), "the refused commit changed something");

    repo.git(["config", "jin.onError", "warn"]);
    let advised = repo.try_git(["commit", "--allow-empty", "-q", "-m", "one"]);
    assert!(advised.status.success(), "as advice it blocks nothing: {}", text(&advised.stderr));
    assert!(text(&advised.stderr).contains("not protected"), "but it is said: {}", text(&advised.stderr));
    look_and_recover(&repo);
}

#[test]
fn a_state_directory_that_cannot_be_written_vetoes() {
    let repo = protected();
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give the state directory to somebody else");
        return;
    }
    give_to(NOBODY, repo.scratch());
    give_to(0, &repo.git_dir().join(".jin"));
    let as_nobody = |program: &Path, arguments: &[&str], off: bool| {
        let mut command = repo.as_nobody(program.as_os_str());
        command.args(arguments);
        if off {
            command.env("JIN_TXN", "off");
        }
        command.output().expect("setpriv runs")
    };
    let git = &Git::under_test().program;
    let before = tree(&repo.git_dir());
    let output = as_nobody(git, &["branch", "topic"], false);
    calm(&output);
    let said = shown(&repo, &output);
    let ours: String =
        said.lines().filter(|line| line.starts_with("jin-txn:")).map(|line| format!("{line}\n")).collect();
    assert!(ours.contains("JIN_TXN=off git"), "it says the way round: {ours}");
    assert!(!output.status.success(), "the change is refused");
    assert_same(&before, &tree(&repo.git_dir()), "the refused change changed something");
    let recover = as_nobody(&jin_txn(), &["recover"], false);
    assert_eq!(recover.status.code(), Some(1), "recovery fails as well: {}", shown(&repo, &recover));
    let output = as_nobody(git, &["branch", "topic"], true);
    assert!(output.status.success(), "the way round works: {}", text(&output.stderr));
    for said in [ours, shown(&repo, &recover)] {
        assert!(said.contains("[DIR]/repo/.git/.jin"), "it says what may not be written: {said}");
    }
}

#[test]
fn names_and_lines_that_git_would_not_send_are_left_to_git_and_nothing_is_written() {
    let repo = protected();
    let (null, id) = ("0".repeat(40), repo.read(["rev-parse", "HEAD"]));
    let parts = ["refs", "logs", ".jin/wal"].map(|part| repo.git_dir().join(part));
    let before = parts.each_ref().map(|part| tree(part));
    for bad in [
        format!("{null} {id} refs/heads/\u{1b}[31mred\n"),
        format!("{null} {id} refs/../../victim\n"),
        format!("{null} {id} /etc/passwd\n"),
        format!("{null} {id} \n"),
        format!("{null} {id}\n"),
        "\u{1b}[31m\n".to_owned(),
        format!("{null} not-an-id refs/heads/topic\n"),
    ] {
        for state in ["preparing", "prepared", "committed", "aborted"] {
            let output = hook(&repo, state, bad.as_bytes());
            calm(&output);
            assert_eq!(output.status.code(), Some(0), "{bad:?}, {state}: {}", shown(&repo, &output));
        }
    }
    for (part, before) in parts.iter().zip(&before) {
        assert_same(before, &tree(part), "what is left to git leaves nothing behind");
    }
    assert_eq!(repo.jin_txn(["check"]).status.code(), Some(0), "and nothing is unfinished");
}

#[test]
fn a_log_that_is_gone_is_told_with_what_to_do_and_is_not_begun_anew_in_silence() {
    let repo = protected();
    fs::remove_dir_all(repo.git_dir().join(".jin/wal")).expect("there is a log");
    let before = tree(&repo.git_dir().join("refs"));
    let refused = repo.try_git(["tag", "v1"]);
    assert_same(&before, &tree(&repo.git_dir().join("refs")), "the refused tag changed something");
    assert!(!refused.status.success(), "the tag is refused");
    insta::assert_snapshot!(ours(&repo, &refused), @"
    jin-txn: error: [DIR]/repo/.git/.jin/wal is missing: `jin-txn recover` begins a new log
    jin-txn: hint: this change was refused; to work without protection: JIN_TXN=off git ...
    ");
    for command in [vec!["check"], vec!["run", "--", "true"]] {
        insta::allow_duplicates!(insta::assert_snapshot!(shown(&repo, &repo.jin_txn(&command)), @"
        --- stderr
        error: [DIR]/repo/.git/.jin/wal is missing: `jin-txn recover` begins a new log
        --- exit 1
        "));
    }
    let mended = repo.jin_txn(["doctor", "--fix"]);
    assert_eq!(mended.status.code(), Some(0), "{}", shown(&repo, &mended));
    assert!(text(&mended.stderr).contains("wal was missing"), "{}", shown(&repo, &mended));
    repo.git(["tag", "v1"]);
}

#[test]
fn what_a_hook_need_not_know_does_not_block_git() {
    let repo = protected();
    let before = tree(&repo.git_dir());
    for (state, input) in
        [("prepared", ""), ("committed", ""), ("preparing", ""), ("aborted", ""), ("from-the-future", "x"), ("''", "x")]
    {
        let output = hook(&repo, state, input.as_bytes());
        assert_eq!(shown(&repo, &output), "--- stderr\n--- exit 0", "{state} with {input:?}");
    }
    assert_same(&before, &tree(&repo.git_dir()), "and changes nothing");
    for arguments in [&["hook", "pre-commit"][..], &["hook", "post-checkout"], &["hook", "post-checkout", "\u{1b}"]] {
        let output = repo.jin_txn(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    }
}
