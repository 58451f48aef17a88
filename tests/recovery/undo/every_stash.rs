//! The list of stashes: what goes into it, comes out of it, or leaves it. As `every_command.rs`.

use super::every_command::Verdict::{Exact, Refused};
use super::every_command::{Row, check};

const PUSH: [Row; 34] = [
    ("push", "echo x > file", "git stash push -q", Exact),
    ("push of all kinds", "all_kinds", "git stash -q -u", Exact),
    ("push of what is tracked", "all_kinds", "git stash -q", Exact),
    ("push -k", "all_kinds", "git stash push -q -k", Exact),
    ("push -k -u", "all_kinds", "git stash push -qku", Exact),
    ("push -a", "echo ignored > .gitignore; git add .gitignore; echo i > ignored", "git stash push -q -a", Exact),
    ("push of paths", "all_kinds", "git stash push -q -m words -- file one", Exact),
    ("push of untracked paths", "all_kinds", "git stash push -q -u -- file dir", Exact),
    ("push -k of paths", "all_kinds", "git stash push -q -k -- file one", Refused),
    ("push of a second one", "two_stashes; echo x > file", "git stash", Exact),
    ("push with save", "echo x > file", "git stash save -q words of mine", Exact),
    ("push of a packed list", "two_stashes; git pack-refs --all; echo x > file", "git stash -q", Exact),
    ("push behind another branch", "git switch -q topic; echo x > topic; git add .", "git stash -q -u", Exact),
    ("push of what is staged", "echo x > file; git add file", "git stash -q", Exact),
    ("push of a file back at HEAD", "echo x > file; git add file; git show HEAD:file > file", "git stash -q", Refused),
    ("push -k of a file that is gone", "echo x > new; git add new; rm new", "git stash -q -k", Refused),
    ("push --staged", "echo x > file; git add file", "git stash push -q --staged", Refused),
    ("push --patch", "echo x > file", "yes | git stash push -q --patch > /dev/null", Refused),
    ("push and add", "echo x > file", "git stash -q; echo y > new; git add new", Refused),
    ("push and edit", "echo x > file", "git stash -q; echo y > file", Refused),
    ("push and a file in its place", "echo x > new", "git stash -q -u; echo y > new", Refused),
    ("push -k and rm --cached", "all_kinds", "git stash -q -k; git rm -q --cached new", Refused),
    (
        "push of another index",
        "cp .git/index ../other; echo x > file",
        "export GIT_INDEX_FILE=$PWD/../other; git add file; git stash -q",
        Refused,
    ),
    (
        "push in another worktree",
        "mkdir ../other; cp -r [a-z]* ../other; echo x > ../other/file",
        "repo=$PWD; cd ../other; GIT_DIR=$repo/.git GIT_WORK_TREE=. git stash -q",
        Refused,
    ),
    (
        "push of an assumed file",
        "git update-index --assume-unchanged one; echo x > one; echo x > file",
        "git stash -q",
        Refused,
    ),
    (
        "push beside a skipped file",
        "git update-index --skip-worktree one; echo x > one; echo x > file",
        "git stash -q",
        Refused,
    ),
    ("push in a sparse checkout", "git sparse-checkout set --no-cone /file; echo x > file", "git stash -q", Refused),
    (
        "push with GIT_WORK_TREE",
        "mkdir ../other; cp -r [a-z]* ../other; echo x > ../other/file",
        "GIT_WORK_TREE=$PWD/../other git stash -q",
        Refused,
    ),
    ("push by an alias", "echo x > file; git config alias.st '!git stash -q'", "git st", Refused),
    ("push by a run", "echo x > file", "git tx stash -q > /dev/null", Refused),
    ("push in a merge", "git merge -q --no-commit topic; echo x > file", "git stash -q", Refused),
    ("push of what create made", "echo x > file", "git stash store $(git stash create)", Refused),
    ("push and drop of two", "two_stashes; echo x > file", "git stash -q; git stash drop -q", Refused),
    ("push and an edited list", "echo x > file", "git stash -q; sed -i s/WIP/work/ .git/logs/refs/stash", Refused),
];

const POP: [Row; 15] = [
    ("pop of untracked files", "mkdir dir; echo u > dir/u; echo v > v; git stash -q -u", "git stash pop -q", Exact),
    ("pop beside other changes", "echo u > u; git stash -q -u; changes", "git stash pop -q", Exact),
    (
        "pop onto another commit",
        "echo u > u; git stash -q -u; git commit -q --allow-empty -m on",
        "git stash pop -q",
        Exact,
    ),
    ("pop over a file that is gone", "echo x > file; git stash -q; rm file", "git stash pop -q", Refused),
    (
        "pop in a sparse checkout",
        "echo x > file; git stash -q; git sparse-checkout set --no-cone /one",
        "git stash pop -q",
        Refused,
    ),
    (
        "pop of all but new files",
        "rm two; echo x > file; git add file; echo u > u; git stash -q -u",
        "git stash pop -q",
        Refused,
    ),
    ("pop of a new file", "echo x > new; git add new; git stash -q", "git stash pop -q", Refused),
    ("pop --index", "echo x > file; git add file; git stash -q", "git stash pop -q --index", Refused),
    ("pop and edit", "echo u > u; git stash -q -u", "git stash pop -q; echo y > u", Refused),
    ("pop and add", "echo u > u; git stash -q -u", "git stash pop -q; git add u", Refused),
    ("pop onto what is staged", "echo u > u; git stash -q -u; echo y > one; git add one", "git stash pop -q", Refused),
    (
        "pop that merges",
        "echo x >> file; git stash -q; (echo 0; cat file) > f; mv f file; git commit -q -a -m on",
        "git stash pop -q || true",
        Refused,
    ),
    (
        "pop that conflicts",
        "echo x > file; git stash -q; echo y > file; git commit -q -a -m on",
        "git stash pop -q > /dev/null || true",
        Refused,
    ),
    ("pop of two", "two_stashes", "git stash pop -q", Refused),
    ("pop by an alias", "echo u > u; git stash -q -u; git config alias.up '!git stash pop -q'", "git up", Refused),
];

const DROP: [Row; 10] = [
    ("drop", "echo x > file; git stash -q", "git stash drop -q", Exact),
    ("drop beside what is staged", "all_kinds; git stash -q; echo y > new; git add new", "git stash drop -q", Exact),
    ("drop of two", "two_stashes", "git stash drop -q", Refused),
    ("drop behind a drop", "two_stashes", "git stash drop -q; git stash drop -q", Refused),
    ("drop and add", "echo x > file; git stash -q", "git stash drop -q; echo y > new; git add new", Refused),
    ("clear", "two_stashes", "git stash clear", Exact),
    ("clear of a packed list", "two_stashes; git pack-refs --all", "git stash clear", Exact),
    (
        "clear and gc",
        "two_stashes; git tag keeps stash",
        "git stash clear; git -c gc.reflogExpire=now gc -q --prune=now",
        Refused,
    ),
    ("drop and gc", "echo x > file; git stash -q", "git stash drop -q; git gc -q --prune=now", Refused),
    ("clear by update-ref", "two_stashes", "git update-ref -d refs/stash", Refused),
];

/// What git has put away, or thrown away, before a hook is called.
const BEFORE_THE_HOOK: [Row; 9] = [
    ("autostash with what is staged", "on_topic; stage_other", "git rebase -q --autostash main", Refused),
    ("autostash, staged, by --apply", "on_topic; stage_other", "git rebase -q --apply --autostash main", Refused),
    ("autostash, staged, by a pull", "on_topic; stage_other", "git pull -q --rebase --autostash origin main", Refused),
    ("autostash with a staged deletion", "git rm -q one", "git merge -q --no-edit --autostash topic", Refused),
    ("autostash, deletion, of a fast-forward", "behind; git rm -q one", "git merge -q --autostash ahead", Refused),
    ("autostash of what comes", "behind; git show ahead:file > file", "git merge -q --autostash ahead", Refused),
    ("reset-staged that a hook saw", "stage_other", "git reset -q HEAD~1", Refused),
    ("reset-deletion that a hook saw", "git rm -q --cached one", "git reset -q HEAD~1", Refused),
    ("reset-hard with a deletion", "git rm -q one", "git reset -q --hard HEAD~1", Refused),
];

#[test]
fn what_goes_into_the_list_of_stashes_comes_back_exactly_or_is_refused() {
    check(&PUSH);
}

#[test]
fn what_came_out_of_the_list_of_stashes_goes_back_exactly_or_is_refused() {
    check(&POP);
}

#[test]
fn what_left_the_list_of_stashes_is_in_it_again_exactly_or_is_refused() {
    check(&DROP);
}

#[test]
fn what_git_put_away_or_threw_away_before_a_hook_was_called_makes_undo_refuse() {
    check(&BEFORE_THE_HOOK);
}
