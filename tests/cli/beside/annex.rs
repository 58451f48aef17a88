//! git-annex adds no line to a hook that is there already: `doctor` names the command that does, and then both run.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::unprotected;
use crate::support::repo::{Git, Repo, jin_txn, text, write_file};

/// A command that finds our program, and a git-annex that notes when it is called.
fn command(repo: &Repo, program: &str, arguments: &[&str]) -> Command {
    let bin = repo.scratch().join("annex-bin");
    fs::create_dir_all(&bin).expect("it can be made");
    write_file(&bin.join("git-annex"), "#!/bin/sh\necho \"$*\" >>../annex-was-called\n", 0o755);
    if !bin.join("jin-txn").exists() {
        symlink(jin_txn(), bin.join("jin-txn")).expect("a link can be made");
    }
    let path = Git::under_test().path_variable();
    let mut command = repo.command(program.as_ref());
    command.args(arguments).env("PATH", format!("{}:{}", bin.display(), path.to_string_lossy()));
    command
}

/// What `doctor` says is to be run, if anything.
fn remedy(repo: &Repo) -> Option<String> {
    let output = repo.jin_txn(["doctor"]);
    let said = text(&output.stdout).into_owned();
    let found = said.lines().find_map(|line| line.trim().strip_prefix("mend: `")?.strip_suffix('`').map(str::to_owned));
    found.filter(|line| line.contains("annex"))
}

#[test]
fn the_command_that_doctor_names_brings_the_line_of_git_annex_into_the_hook() {
    for kind in ["a script", "a script beside another", "a link"] {
        let repo = unprotected();
        let hook = repo.git_dir().join("hooks/post-checkout");
        fs::create_dir_all(repo.git_dir().join("hooks")).expect("it can be made");
        if kind == "a script beside another" {
            write_file(&hook, "#!/bin/sh\necho theirs >>../they-were-called\n", 0o755);
        }
        repo.jin(&["install"]);
        if kind == "a link" {
            // As from a template.
            fs::remove_file(&hook).and_then(|()| symlink(jin_txn(), &hook)).expect("a link can be made");
        }
        assert_eq!(remedy(&repo), None, "{kind}: without an annex nothing is missing");
        repo.git(["config", "filter.annex.smudge", "git-annex smudge -- %f"]);
        let wanted = remedy(&repo).unwrap_or_else(|| panic!("{kind}: doctor names no command"));
        let size = fs::metadata(jin_txn()).expect("it is there").len();
        let output = command(&repo, "sh", &["-c", &wanted]).output().expect("it starts");
        assert!(output.status.success(), "{kind}: {wanted}: {}", text(&output.stderr));
        assert_eq!(fs::metadata(jin_txn()).expect("it is there").len(), size, "nothing is written into our program");
        assert_eq!(remedy(&repo), None, "{kind}: it is enough");
        let before = repo.logged().len();
        let output = command(&repo, "git", &["checkout", "-q", "-b", "other"]).output().expect("git starts");
        assert!(output.status.success(), "{kind}: {}", text(&output.stderr));
        let called = |name: &str| fs::read_to_string(repo.scratch().join(name)).unwrap_or_default();
        assert_eq!(called("annex-was-called"), "smudge --update\n", "{kind}");
        assert_eq!(called("they-were-called").is_empty(), kind != "a script beside another");
        assert!(repo.logged().len() > before, "{kind}: and ours runs");
    }
}
