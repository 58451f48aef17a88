//! Lines that others add to our hooks, as git-branchless does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use super::{assert_pristine, git_with, notes, pristine, unprotected};
use crate::support::observe::{age, assert_same, tree};
use crate::support::repo::{Git, Repo, text, write_file};

/// What git-branchless 0.11 writes into hooks, but for what its lines do.
const ADDED: &str = "## START BRANCHLESS CONFIG\n\nprintf '%s added %s\\n' \"$(basename \"$0\")\" \"$*\" >>\"$NOTES\"\n\
    case $0 in */reference-transaction) cat >>\"$NOTES\" ;; esac\n## END BRANCHLESS CONFIG\n";

/// As git-branchless does it: through links, at the end of what is there; a program is no text, and then it gives up.
fn add_lines(repo: &Repo) -> std::io::Result<()> {
    for name in ["post-checkout", "post-commit", "reference-transaction"] {
        let hook = repo.git_dir().join("hooks").join(name);
        let there = if hook.exists() { fs::read_to_string(&hook)? } else { "#!/bin/sh\n".to_owned() };
        let mode = fs::metadata(&hook).map_or(0o755, |m| m.mode() & 0o7777);
        write_file(&hook, &(there + ADDED), mode | 0o111);
    }
    Ok(())
}

/// And takes them out again where it put them.
fn take_lines_out(repo: &Repo) {
    for name in ["post-checkout", "post-commit", "reference-transaction"] {
        let hook = repo.git_dir().join("hooks").join(name);
        let there = fs::read_to_string(&hook).expect("it is text");
        assert!(there.contains(ADDED), "{name}: what it looks for is where it was put: {there}");
        let nothing = "## START BRANCHLESS CONFIG\n# This hook has been uninstalled.\n## END BRANCHLESS CONFIG\n";
        fs::write(&hook, there.replace(ADDED, nothing)).expect("it can be written");
    }
}

/// A switch is logged once, its hooks are called, and what they are sent arrives.
#[track_caller]
fn switch_with_added_lines(repo: &Repo, branch: &str, theirs: bool, reason: &str) {
    fs::remove_file(repo.scratch().join("notes")).ok();
    let count = repo.logged().len();
    let output = git_with(repo, &[], &["branch", branch]);
    assert!(output.status.success(), "{reason}: {}", text(&output.stderr));
    assert_eq!(repo.logged().len(), count + 1, "{reason}: {:?}", repo.logged());
    let input = format!("refs/heads/{branch}\n");
    assert_eq!(notes(repo).contains(&input), theirs, "{reason}: its lines get git's input: {}", notes(repo));
    let output = git_with(repo, &[], &["checkout", "-q", branch]);
    assert!(output.status.success(), "{reason}: {}", text(&output.stderr));
    assert_eq!(notes(repo).contains("post-checkout added "), theirs, "{reason}: {}", notes(repo));
    assert_eq!(notes(repo).matches("post-checkout added ").count(), usize::from(theirs), "{reason}: once");
}

#[test]
fn lines_that_others_add_to_our_hooks_run_and_can_be_taken_out_where_they_were_put() {
    let users = "#!/bin/sh -e\n[ ! -e ../veto ]\necho user $1 >>\"$NOTES\"\n";
    for (name, hook) in [("no hook", None), ("a hook of the user's", Some(users))] {
        for first in ["they", "we"] {
            let reason = format!("{name}, {first} first");
            let repo = unprotected();
            if let Some(hook) = hook {
                write_file(&repo.git_dir().join("hooks/reference-transaction"), hook, 0o755);
                write_file(&repo.git_dir().join("hooks/post-checkout"), hook, 0o700);
            }
            let plain = unprotected();
            if first == "they" {
                add_lines(&repo).expect("there are no links yet");
                age(&repo.git_dir().join("hooks"));
            }
            let before = pristine(&repo);
            repo.jin(&["install"]);
            if first == "they" {
                repo.jin(&["install"]);
                repo.jin(&["uninstall", "--purge"]);
                assert_pristine(&repo, &before, &reason);
                repo.jin(&["install"]);
            } else {
                assert_eq!(add_lines(&repo).is_err(), hook.is_none(), "{reason}: a link to a program is no text");
                let status = repo.jin(&["status"]);
                assert!(
                    status.contains("protected: ") && status.contains("run `jin-txn install`"),
                    "{reason}: {status}"
                );
                repo.jin(&["install"]);
                if hook.is_none() {
                    fs::write(repo.git_dir().join("hooks/post-commit"), "#!/bin/sh\n").expect("it starts anew");
                    let checkout = repo.git_dir().join("hooks/post-checkout");
                    let there = fs::read_to_string(&checkout).expect("it is text");
                    fs::write(&checkout, there.replace(ADDED, "")).expect("it starts anew");
                    add_lines(&repo).expect("now it is a script");
                }
            }
            let aside = repo.git_dir().join("hooks.before-jin-txn");
            if first == "we" && hook.is_some() {
                // Killed before its last rename, and run again.
                let done = tree(&aside);
                for name in ["reference-transaction", "post-checkout"] {
                    fs::rename(aside.join(format!("{name}.whole")), aside.join(name)).expect("it is there");
                }
                repo.jin(&["install"]);
                assert_same(&done, &tree(&aside), &reason);
            }
            let status = repo.jin(&["status"]);
            assert!(!status.contains("  hooks: "), "{reason}: {status}");
            switch_with_added_lines(&repo, "one", true, &reason);
            let user_ran = notes(&repo).contains("user prepared\n");
            assert_eq!(user_ran, hook.is_some(), "{reason}: the user's hook runs too: {}", notes(&repo));
            if hook.is_some() {
                fs::write(repo.scratch().join("veto"), "").expect("it can be written");
                assert!(!git_with(&repo, &[], &["branch", "vetoed"]).status.success(), "{reason}: its veto counts");
                fs::remove_file(repo.scratch().join("veto")).expect("it is there");
            }
            let mut without = repo.command(Git::under_test().program.as_os_str());
            without.env("JIN_TXN", "off").env("NOTES", repo.scratch().join("notes")).args(["branch", "off"]);
            fs::remove_file(repo.scratch().join("notes")).ok();
            assert!(without.status().is_ok_and(|status| status.success()), "{reason}");
            assert!(notes(&repo).contains("refs/heads/off\n"), "{reason}: its lines run without us: {}", notes(&repo));

            // We leave: what is left is what it would have made without us.
            let copy = repo.scratch().join("copy");
            let copied = Command::new("cp").arg("-a").arg(repo.path()).arg(&copy).status();
            assert!(copied.is_ok_and(|status| status.success()), "it can be copied");
            repo.jin(&["uninstall", "--purge"]);
            if let Some(hook) = hook {
                write_file(&plain.git_dir().join("hooks/reference-transaction"), hook, 0o755);
                write_file(&plain.git_dir().join("hooks/post-checkout"), hook, 0o755);
            }
            add_lines(&plain).expect("there are no links");
            let contents = |repo: &Repo| -> BTreeMap<PathBuf, Vec<u8>> {
                tree(&repo.git_dir().join("hooks")).into_iter().map(|(name, (_, content))| (name, content)).collect()
            };
            assert_eq!(contents(&repo), contents(&plain), "{reason}: we have left");
            assert!(!aside.exists(), "{reason}: nothing stays aside");

            // They leave: ours goes on.
            let repo = repo.sibling("copy");
            repo.jin(&["recover"]);
            take_lines_out(&repo);
            assert!(repo.is_protected(), "{reason}: {}", repo.jin(&["status"]));
            switch_with_added_lines(&repo, "two", false, &reason);
        }
    }
}

#[test]
fn lines_that_cannot_run_behind_a_program_are_told_and_kept() {
    let repo = unprotected();
    let hooks = repo.git_dir().join("hooks");
    fs::create_dir_all(&hooks).expect("it can be made");
    let copied = Command::new("cp").arg("/bin/true").arg(hooks.join("post-checkout")).status();
    assert!(copied.is_ok_and(|status| status.success()), "it can be copied");
    repo.jin(&["install"]);
    let ours = fs::read_to_string(hooks.join("post-checkout")).expect("it is text");
    write_file(&hooks.join("post-checkout"), &(ours + "echo added\n"), 0o755);
    for _ in 0..2 {
        let status = repo.jin(&["status"]);
        assert!(
            status.contains("lines that were added to ") && status.contains("do not run: move them to "),
            "{status}"
        );
        repo.jin(&["install"]);
    }
    let said = repo.jin(&["uninstall", "--purge"]);
    assert!(said.contains("hooks.before-jin-txn/post-checkout.added stays where it is"), "{said}");
    let kept = fs::read_to_string(repo.git_dir().join("hooks.before-jin-txn/post-checkout.added"));
    assert_eq!(kept.expect("it is there"), "echo added\n");
    let program = fs::read(hooks.join("post-checkout")).expect("it is back");
    assert_eq!(program, fs::read("/bin/true").expect("it can be read"), "the program is back");
}
