//! Every git command that changes anything, in a run that fails afterwards: nothing of it is left.

use std::fs;

use super::restoring::{guarded, run_script};
use crate::support::crash::run_jin;
use crate::support::repo::{Git, Repo};
use crate::support::scenes::Whole;

/// What each command is, and since which git there is such a one.
const COMMANDS: &[(&str, (u32, u32))] = &[
    ("git add -A", (2, 0)),
    ("git add -N new", (2, 0)),
    ("git am ../patch", (2, 0)),
    ("git am ../conflict || true", (2, 0)),
    ("git apply --index ../patch", (2, 0)),
    ("git apply --cached ../patch", (2, 0)),
    ("git bisect start -q HEAD HEAD~2; git bisect good -q || true", (2, 0)),
    ("git branch new; git branch -f topic HEAD; git branch -D other", (2, 0)),
    ("git branch -c topic copy", (2, 0)),
    ("git branch -M topic other", (2, 0)),
    ("git branch -u origin/main topic; git branch --unset-upstream topic", (2, 0)),
    ("git stash -q; git checkout -q topic; git checkout -q -b made; git checkout -q --detach", (2, 0)),
    ("git checkout -q topic -- file", (2, 0)),
    ("git checkout -q --orphan alone; git commit -qm alone", (2, 0)),
    ("git stash -q; ! git cherry-pick topic", (2, 0)),
    ("git cherry-pick side", (2, 0)),
    ("git clean -fdq", (2, 0)),
    ("git commit -qam all", (2, 0)),
    ("git commit -q --amend --no-edit", (2, 0)),
    ("git commit-graph write --reachable", (2, 0)),
    ("git config user.name other; git config --remove-section remote.origin", (2, 0)),
    ("printf 'reset refs/heads/imported\\nfrom refs/heads/main\\n' | git fast-import --quiet --force", (2, 0)),
    ("git fetch -q origin", (2, 0)),
    ("git fetch -q --prune origin '+refs/heads/*:refs/remotes/origin/*'", (2, 0)),
    ("git fetch -q origin main:fetched; git fetch -q --tags origin", (2, 0)),
    (
        "FILTER_BRANCH_SQUELCH_WARNING=1 git stash -q; FILTER_BRANCH_SQUELCH_WARNING=1 git filter-branch -f --msg-filter cat -- topic",
        (2, 0),
    ),
    ("git gc -q; git gc -q --prune=now", (2, 0)),
    ("git maintenance run --task=gc --quiet", (2, 30)),
    ("git merge -q --no-edit side", (2, 0)),
    ("git stash -q; ! git merge topic", (2, 0)),
    ("git merge -q --squash side", (2, 0)),
    ("git merge -q --no-commit --no-ff side", (2, 0)),
    ("git merge -q -s ours -m octopus side topic", (2, 0)),
    ("git mv dir moved", (2, 0)),
    ("git notes add -m note; git notes remove HEAD~2", (2, 0)),
    (
        "git notes --ref=other add -m theirs HEAD~2; ! git notes merge refs/notes/other; test -d .git/NOTES_MERGE_WORKTREE",
        (2, 0),
    ),
    ("git pack-refs --all", (2, 0)),
    ("git prune --expire=now", (2, 0)),
    ("git pull -q --no-rebase --no-edit origin main", (2, 0)),
    ("git push -q origin HEAD~1:refs/heads/pushed; git push -q origin :pushed", (2, 0)),
    ("git read-tree HEAD~1", (2, 0)),
    ("git read-tree -m -u HEAD topic || true", (2, 0)),
    ("git stash -q; git rebase -q side", (2, 0)),
    ("git stash -q; git rebase -q topic || true", (2, 0)),
    ("git stash -q; git rebase -q --onto HEAD~2 HEAD~1 other || true", (2, 0)),
    ("git reflog expire --expire=now --all", (2, 0)),
    ("git reflog delete HEAD@{1}; git reflog delete main@{0}", (2, 0)),
    ("git remote add more ../origin.git; git remote set-url origin elsewhere", (2, 0)),
    ("git remote add -f more ../origin.git; git remote remove origin", (2, 0)),
    ("git remote rename origin upstream", (2, 0)),
    ("git remote set-head origin topic; git remote set-head -d origin", (2, 0)),
    ("git remote prune origin", (2, 0)),
    ("git repack -adq", (2, 0)),
    ("git replace HEAD HEAD~1; git replace -d HEAD; git replace HEAD:file HEAD:dir/inner", (2, 0)),
    ("git reset -q --hard HEAD~1", (2, 0)),
    ("git reset -q --soft HEAD~1; git reset -q; git reset -q --keep HEAD~1 || true", (2, 0)),
    ("git stash -q; git config rerere.enabled true; ! git merge topic; test -d .git/rr-cache", (2, 0)),
    ("git restore --staged --worktree .", (2, 0)),
    ("git revert --no-edit HEAD || true", (2, 0)),
    ("git stash -q; git revert --no-edit HEAD", (2, 0)),
    ("git rm -rq --cached .; git rm -rfq dir || true", (2, 0)),
    ("git sparse-checkout set dir; git sparse-checkout disable", (2, 27)),
    ("git stash push -q -u; git stash drop -q stash@{1}; git stash pop -q", (2, 0)),
    ("git stash clear", (2, 0)),
    ("git stash branch from-stash stash@{0} || true", (2, 0)),
    ("git -c protocol.file.allow=always submodule --quiet add ../origin.git sub", (2, 0)),
    ("git switch -q topic || git switch -q -f topic", (2, 0)),
    ("git symbolic-ref HEAD refs/heads/topic; git symbolic-ref refs/heads/alias refs/heads/main", (2, 0)),
    ("git tag new; git tag -a -m x annotated; git tag -f v1 HEAD~1; git tag -d v1", (2, 0)),
    ("git update-index --assume-unchanged file; git update-index --skip-worktree dir/inner", (2, 0)),
    (
        "git update-ref refs/odd/one HEAD; git update-ref -d refs/heads/topic; git update-ref refs/heads/x HEAD~1",
        (2, 0),
    ),
    ("git update-ref ORIG_HEAD HEAD~1; git update-ref --no-deref HEAD HEAD~1", (2, 0)),
    ("git update-server-info", (2, 0)),
    ("git worktree add -q -b linked ../linked", (2, 0)),
    (
        "git worktree add -q --detach ../linked; git -C ../linked commit -q --allow-empty -m x; git worktree lock ../linked",
        (2, 0),
    ),
    ("git write-tree; git commit-tree -m x HEAD^{tree}; git hash-object -w file; git mktag </dev/null || true", (2, 0)),
];

/// A bit of everything.
fn repository() -> Repo {
    let repo = guarded();
    repo.git(["clone", "-q", "--bare", ".", "../origin.git"]);
    for (branch, file) in [("topic", "file"), ("side", "other"), ("other", "third")] {
        repo.git(["switch", "-q", "-c", branch, "main"]);
        repo.write(file, branch);
        repo.commit_all(branch);
        repo.git(["push", "-q", "../origin.git", &format!("{branch}:refs/heads/{branch}")]);
    }
    fs::write(repo.scratch().join("patch"), repo.git(["format-patch", "-1", "--stdout", "side"]).stdout)
        .expect("written");
    fs::write(repo.scratch().join("conflict"), repo.git(["format-patch", "-1", "--stdout", "topic"]).stdout)
        .expect("written");
    repo.git(["switch", "-q", "main"]);
    repo.git(["remote", "add", "origin", "../origin.git"]);
    repo.git(["fetch", "-q", "origin"]);
    repo.git(["push", "-q", "../origin.git", ":refs/heads/other", "topic:refs/heads/later"]);
    repo.git(["tag", "v1", "HEAD~1"]);
    repo.git(["notes", "add", "-m", "note"]);
    for content in ["first", "second"] {
        repo.write("file", content);
        repo.git(["stash", "push", "-q", "-m", content]);
    }
    repo.write("file", "main\n");
    repo.commit_all("main");
    repo.write("dir/inner", "three\n");
    repo.commit_all("three");
    repo.write("file", "mine\n");
    repo.write("new", "mine\n");
    repo
}

#[test]
fn nothing_is_left_of_any_command_in_a_run_that_fails() {
    let template = repository();
    let mut wrong = Vec::new();
    for (command, (major, minor)) in COMMANDS {
        if !Git::under_test().is_at_least(*major, *minor) {
            continue;
        }
        let repo = template.copy();
        let before = Whole::of(&repo);
        let (code, said) = run_script(&repo, &format!("{command}\nexit 9"));
        let after = Whole::of(&repo);
        if code != 9 || before != after || run_jin(&repo, &["check"]).0 != 0 {
            wrong.push(format!("{command}: {code}\n  {}\n{said}", after.differences(&before)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} leave a trace:\n{}", wrong.len(), COMMANDS.len(), wrong.join("\n"));
}
