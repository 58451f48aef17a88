//! A rescue that is killed anywhere and run again comes to the same end.

use std::collections::BTreeMap;

use super::damage::{self, append, copy, empty, flip, named, object, remove, template, zero};
use crate::support::crash::jin;
use crate::support::repo::{Repo, text};
use crate::support::snapshot::parse_refs;
use crate::support::table::{start, stride};
use crate::support::tracer::{self, Action, Event, Isolation};

/// Points of each damage by default; `JIN_KILL=all` takes all.
const SAMPLE: usize = 6;

fn break_it(repo: &Repo) {
    let (tip, file) = (object(repo, "HEAD"), object(repo, ":staged"));
    for name in ["HEAD", "refs/heads/main", "packed-refs", "worktrees/linked/commondir", &tip, &file] {
        empty(repo, name);
    }
    zero(repo, "config");
    named(repo, "objects/pack", ".pack").iter().for_each(|pack| flip(repo, pack, 60));
    append(repo, "logs/HEAD", &[0; 100]);
    remove(repo, "worktrees/linked/index");
}

/// Everything that a rescue determines.
fn end(repo: &Repo) -> BTreeMap<String, String> {
    let mut end = parse_refs(&repo.read(["for-each-ref", "--format=%(refname) %(objectname)"]));
    for (what, arguments) in [
        ("status", &["status", "--porcelain"][..]),
        ("HEAD", &["rev-parse", "--symbolic-full-name", "HEAD"]),
        ("reflog", &["reflog", "--format=%H %gs", "HEAD"]),
        ("index", &["ls-files", "-s"]),
        ("config", &["config", "--local", "--list"]),
        ("objects", &["cat-file", "--batch-all-objects", "--batch-check"]),
    ] {
        end.insert(what.to_owned(), repo.read(arguments).replace(&repo.scratch().display().to_string(), ""));
    }
    end
}

fn command(repo: &Repo) -> std::process::Command {
    let mut command = jin(repo, &["rescue", "--yes"]);
    command.env("TMPDIR", repo.scratch());
    command
}

fn lose_refs(repo: &Repo) {
    remove(repo, "refs/heads");
}

fn cut_rename(repo: &Repo) {
    let logs = repo.git_dir().join("logs/refs");
    std::fs::rename(logs.join("heads/side"), logs.join(".tmp-renamed-log")).unwrap();
    remove(repo, "refs/heads/side");
}

/// The reflog on its way has a lost object in it, and what says the name is damaged at its end.
fn cut_rename_of_what_is_lost(repo: &Repo) {
    let (logs, tip) = (repo.git_dir().join("logs/refs"), object(repo, "HEAD"));
    std::fs::rename(logs.join("heads/main"), logs.join(".tmp-renamed-log")).unwrap();
    for name in ["HEAD", &tip] {
        empty(repo, name);
    }
    append(repo, "logs/HEAD", &[0; 100]);
    remove(repo, "refs/heads/main");
}

/// Of two branches nothing whole is known, and nothing names the newest commits of both any more. HEAD's name comes second.
fn lose_branches(repo: &Repo) {
    repo.read(["commit-tree", "-p", "side", "-m", "another tip", "side^{tree}"]);
    remove(repo, "logs");
    for name in ["refs/heads/main", "refs/heads/side"] {
        empty(repo, name);
    }
    let branches = repo.git_dir().join("refs/heads");
    std::fs::rename(branches.join("side"), branches.join("a-side")).unwrap();
}

#[test]
fn a_rescue_that_is_killed_anywhere_and_run_again_comes_to_the_same_end() {
    kill_everywhere(true, break_it, 4);
}

#[test]
fn a_rescue_of_lost_refs_that_is_killed_anywhere_and_run_again_comes_to_the_same_end() {
    kill_everywhere(true, lose_refs, 0);
    kill_everywhere(false, lose_branches, 4);
}

#[test]
fn a_rescue_of_a_cut_rename_that_is_killed_anywhere_and_run_again_comes_to_the_same_end() {
    kill_everywhere(false, cut_rename, 4);
    kill_everywhere(false, cut_rename_of_what_is_lost, 4);
}

fn kill_everywhere(packed: bool, break_it: fn(&Repo), expected: i32) {
    let template = template("sha1", packed);
    let model = copy(&template);
    break_it(&model);
    let is_here = |repo: &Repo, event: &Event| event.path.as_deref().is_some_and(|path| path.starts_with(repo.path()));
    let (events, outcome) = tracer::events_of(command(&model), b"").expect("it starts");
    assert_eq!(outcome.status.code(), Some(expected), "{}", text(&outcome.stderr));
    let count = events.iter().filter(|event| is_here(&model, event)).count();
    // Where a part of the history is lost, fsck goes on saying so.
    let fsck = |repo: &Repo| repo.try_git(["fsck", "--no-dangling"]);
    let (wanted, is_sound) = (end(&model), fsck(&model).status.success());
    let (step, mut bad) = (stride("JIN_KILL", count.div_ceil(SAMPLE)), Vec::new());
    for point in (0..count).skip(start("rescue", step, "JIN_KILL_SEED")).step_by(step) {
        let repo = copy(&template);
        break_it(&repo);
        let (mut seen, mut at) = (0, String::new());
        let mut decide = |event: &Event| {
            if !is_here(&repo, event) {
                return Action::Continue;
            }
            seen += 1;
            if seen != point + 1 {
                return Action::Continue;
            }
            at = event.to_string();
            Action::KillTree
        };
        tracer::trace(command(&repo), b"", Isolation::None, &mut decide).expect("it starts");
        let (code, said) = damage::rescue(&repo, &[]);
        let fsck = fsck(&repo);
        if !matches!(code, 0 | 4) || fsck.status.success() != is_sound || end(&repo) != wanted {
            bad.push(format!("{at}: {code}\n{said}\n{}\n{:#?}\nwanted {wanted:#?}", text(&fsck.stderr), end(&repo)));
        }
        repo.discard();
    }
    println!("{count} points, {} bad", bad.len());
    assert!(bad.is_empty(), "{} of {count} points:\n{}", bad.len(), bad.join("\n\n"));
}
