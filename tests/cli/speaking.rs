//! How it speaks: quiet when told to, loud when its output cannot be written, in colour where git has colours.

use std::fs::{self, File};
use std::process::Stdio;

use crate::support::hanging::Case;
use crate::support::observe::shown;
use crate::support::repo::{Options, Repo, jin_txn, text};

fn guarded() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    repo
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("Linux has one").into()
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_a_reader_that_has_seen_enough_is_none() {
    let repo = guarded();
    let commands = "log|show tx-1|status|check|check --json|list|--help|help run|man|completions bash|shell-init bash";
    for line in commands.split('|') {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = repo.command(jin_txn().as_os_str()).args(&arguments).stdout(full()).output().expect("it runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {said}");
        assert!(said.contains("error: cannot write to standard output"), "{line}: {said}");

        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        drop(reader);
        let output = repo.command(jin_txn().as_os_str()).args(&arguments).stdout(writer).output().expect("it runs");
        assert_eq!((output.status.code(), text(&output.stderr).as_ref()), (Some(0), ""), "{line}");
    }
}

#[test]
fn a_failing_run_is_taken_back_although_nobody_can_be_told() {
    let repo = guarded();
    let script = ["run", "--", "sh", "-c", "git tag made; exit 9"];
    let ended = repo.command(jin_txn().as_os_str()).args(script).stderr(full()).status().expect("it runs");
    assert_eq!(ended.code(), Some(9));
    assert_eq!(repo.read(["tag", "--list"]), "");
}

#[test]
fn quiet_says_nothing_where_the_exit_code_is_the_answer() {
    for (arguments, code) in [
        (&["check"][..], 3),
        (&["status"], 3),
        (&["recover", "--dry-run"], 0),
        (&["recover"], 0),
        (&["recover"], 0),
        (&["install"], 0),
    ] {
        let case = Case::torn();
        let output = case.repo.jin_txn([&["--quiet"], arguments].concat());
        let said = shown(&case.repo, &output);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{arguments:?}: {said}");
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn colours_are_as_git_has_them() {
    let repo = guarded();
    let shows_colour = |arguments: &str, no_color: bool| {
        let mut script = repo.command("script".as_ref());
        let line = format!("'{}' {arguments}", jin_txn().display());
        script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
        if no_color {
            script.env("NO_COLOR", "1");
        }
        let output = script.output().expect("script runs");
        assert!(text(&output.stdout).contains("protected"), "{}", text(&output.stdout));
        output.stdout.contains(&0x1b)
    };
    assert!(shows_colour("status", false));
    assert!(!shows_colour("status", true));
    for (value, has) in [("false", false), ("never", false), ("auto", true), ("always", true)] {
        repo.git(["config", "color.ui", value]);
        assert_eq!(shows_colour("status", false), has, "color.ui={value}");
    }
    repo.git(["config", "color.ui", "false"]);
    assert!(shows_colour("--color=always status", false), "the command line comes first");
}

#[test]
fn a_setting_without_effect_is_told_beside_one_that_is_wrong() {
    let repo = guarded();
    for (key, value) in [("jin.lockTimeout", "soon"), ("jin.retain", "1d"), ("jin.onMixed", "forward")] {
        repo.git(["config", key, value]);
    }
    let doctor = repo.jin_txn(["doctor"]);
    let said = shown(&repo, &doctor);
    assert!(said.contains("jin.locktimeout is `soon`"), "{said}");
    assert!(said.contains("has no effect: jin.retain, jin.onmixed"), "{said}");
    assert!(said.contains("1 segment, "), "and one is one: {said}");
}

#[test]
fn a_probe_of_doctor_is_no_operation() {
    let repo = guarded();
    let before = (repo.logged(), repo.jin(&["undo", "--dry-run"]));
    repo.jin(&["doctor", "--run-hook"]);
    assert_eq!((repo.logged(), repo.jin(&["undo", "--dry-run"])), before);
}

#[test]
fn purge_says_what_is_in_its_way_and_goes_on_when_told_to() {
    // Recovery fails; and a person has to decide.
    let breaks: [fn(&Case); 2] = [
        |case| {
            let lock = case.repo.git_dir().join(".jin/recovery.lock");
            fs::remove_file(&lock).expect("it is there");
            fs::create_dir(&lock).expect("it can be made");
        },
        |case| {
            let third = case.repo.read(["commit-tree", "HEAD^{tree}", "-m", "third"]);
            fs::write(case.repo.git_dir().join("refs/heads/alpha"), third + "\n").expect("it can be written");
        },
    ];
    for (round, break_it) in breaks.iter().enumerate() {
        let case = Case::torn();
        break_it(&case);
        let refused = case.repo.jin_txn(["uninstall", "--purge"]);
        let said = shown(&case.repo, &refused);
        assert_eq!(refused.status.code(), Some(1), "{round}: {said}");
        assert!(said.contains("nothing was removed, because"), "{round}: {said}");
        assert!(said.contains("hint: `jin-txn uninstall --purge --force` removes"), "{round}: {said}");
        assert!(case.repo.git_dir().join("hooks/reference-transaction").exists(), "{round}: nothing was changed");
        case.repo.jin(&["uninstall", "--purge", "--force"]);
        assert!(!case.repo.git_dir().join(".jin").exists(), "{round}");
    }
}

#[test]
fn hooks_in_a_nested_repository_are_said_to_be_there() {
    let repo = guarded();
    repo.git(["init", "-q", "nested"]);
    repo.git(["config", "core.hooksPath", "nested/hooks"]);
    let said = shown(&repo, &repo.jin_txn(["check"]));
    assert!(said.contains("that is in another repository ([DIR]/repo/nested)"), "{said}");
}
