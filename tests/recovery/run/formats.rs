//! A run that changes how the repository is stored: what was kept does not fit then, and nothing is half restored.

use std::fs;
use std::os::unix::fs::symlink;

use super::restoring::{guarded, run_script};
use crate::support::crash::{assert_fsck, run_jin, unseen_git, value};
use crate::support::repo::Git;

#[test]
fn no_ref_vanishes_when_a_failing_run_has_migrated_them() {
    if !Git::under_test().is_at_least(2, 46) {
        return;
    }
    let repo = guarded();
    repo.git(["branch", "topic", "HEAD~1"]);
    let refs = repo.read(["for-each-ref"]);
    // Before 2.48 git does not migrate reflogs.
    let script = "git branch new; git branch -D new; rm -rf .git/logs; git refs migrate --ref-format=reftable; exit 9";
    let (code, said) = run_script(&repo, script);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("in another format") && said.contains("--acknowledge"), "{said}");
    assert_eq!(repo.read(["for-each-ref"]), refs, "{said}");
    assert_fsck(&repo);
    assert_eq!(run_jin(&repo, &["recover"]).0, 4, "it waits");
    let (code, said) = run_jin(&repo, &["recover", "--acknowledge", "tx-4"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!((run_jin(&repo, &["check"]).0, repo.read(["for-each-ref"])), (0, refs));
    repo.git(["tag", "git-works"]);
}

#[test]
fn what_is_migrated_back_can_be_taken_back() {
    if !Git::under_test().is_at_least(2, 46) {
        return;
    }
    let repo = guarded();
    repo.git(["branch", "topic", "HEAD~1"]);
    let refs = repo.read(["for-each-ref"]);
    let script =
        "echo x >file; git commit -qam x; git tag t; rm -rf .git/logs; git refs migrate --ref-format=reftable; exit 9";
    let (code, said) = run_script(&repo, script);
    assert_eq!(code, 4, "{said}");
    unseen_git(&repo, &["refs", "migrate", "--ref-format=files"]);
    let (code, said) = run_jin(&repo, &["recover", "--take-back", "tx-4"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!((repo.read(["for-each-ref"]), repo.read(["status", "--porcelain"])), (refs, String::new()), "{said}");
}

#[test]
fn a_configuration_that_is_a_link_is_not_half_restored() {
    let repo = guarded();
    let before = value(&repo, "main");
    let link =
        "mv .git/config ../elsewhere; ln -s ../../elsewhere .git/config; git commit -q --allow-empty -m x; exit 9";
    let (code, said) = run_script(&repo, link);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("is a link now"), "{said}");
    assert_ne!(value(&repo, "main"), before, "nothing was taken back");
    let config = repo.git_dir().join("config");
    fs::remove_file(&config).and_then(|()| fs::rename(repo.scratch().join("elsewhere"), &config)).expect("it is there");
    let (code, said) = run_jin(&repo, &["recover", "--take-back", "tx-3"]);
    assert_eq!((code, value(&repo, "main")), (0, before), "{said}");
}

/// As `git-new-workdir` makes one.
#[test]
fn what_a_run_changes_in_a_configuration_behind_a_link_is_told() {
    let repo = guarded();
    let config = repo.git_dir().join("config");
    fs::rename(&config, repo.scratch().join("elsewhere")).expect("it is there");
    symlink("../../elsewhere", &config).expect("a link can be made");
    let before = value(&repo, "main");
    let (code, said) = run_script(&repo, "git config user.name changed; git commit -q --allow-empty -m x; exit 9");
    assert!(code == 4 && said.contains("what was changed through it is left"), "{code} {said}");
    assert_eq!((run_jin(&repo, &["check"]).0, value(&repo, "main")), (0, before));
    let (code, said) = run_script(&repo, "git commit -q --allow-empty -m x; exit 9");
    assert_eq!(code, 9, "{said}");
}
