//! Everyday commands, each after an unrelated `git tag`: a bare undo brings back the whole state of before, and redo the one behind
//! the command, or it refuses and changes nothing. Never anything else, whatever the command is. By default a sample is done;
//! `JIN_UNDO=1` does all.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::crash::run_jin;
use crate::support::observe::{Tree, tree};
use crate::support::repo::{Options, Repo, text};

/// What a bare undo does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything is as before.
    Exact,
    /// It refuses, and nothing is changed.
    Refused,
}
use Verdict::{Exact, Refused};

/// The name of a row, what is done before, the command, and the least that undo does.
pub(super) type Row = (&'static str, &'static str, &'static str, Verdict);

const REFS: [Row; 29] = [
    ("branch", "", "git branch new", Exact),
    ("branch -f", "", "git branch -f topic main", Exact),
    ("branch -D", "", "git branch -q -D clash", Exact),
    ("branch -D with a configuration", "", "git branch -q -D topic", Exact),
    ("branch -D of several", "", "git branch -q -D topic clash", Exact),
    ("tx branch -D", "", "git tx branch -q -D topic", Exact),
    ("tag", "", "git tag v2", Exact),
    ("tag -a", "", "git tag -a -m two v2", Exact),
    ("tag -d", "", "git tag -d v1", Exact),
    ("update-ref", "", "git update-ref refs/custom/x HEAD", Exact),
    (
        "update-ref --stdin",
        "",
        "printf 'create refs/x/a %s\\ndelete refs/tags/v1\\n' HEAD | git update-ref --stdin",
        Exact,
    ),
    ("branch --track", "", "git branch -q --track new origin/topic", Exact),
    ("branch with a description", "", "git branch new; git config branch.new.description x", Refused),
    ("branch with another upstream", "", "git branch new; git branch -q -u origin/topic new", Refused),
    ("update-ref -d", "", "git update-ref -d refs/tags/v1", Exact),
    ("update-ref -d of a branch with a configuration", "", "git update-ref -d refs/heads/topic", Exact),
    ("notes remove", "git notes add -m note HEAD", "git notes remove HEAD", Exact),
    ("commit --fixup", "echo x > file; git add file", "git commit -q --fixup HEAD", Exact),
    ("commit --amend of what is staged", "echo x > file; git add file", "git commit -q --amend --no-edit", Exact),
    ("commit beside other changes", "echo x > new; git add new; changes", "git commit -q -m new", Exact),
    ("notes", "", "git notes add -m note HEAD", Exact),
    ("replace", "", "git replace HEAD HEAD~1", Exact),
    ("commit --allow-empty", "", "git commit -q --allow-empty -m empty", Exact),
    ("commit of what is staged", "echo x > new; git add new", "git commit -q -m new", Exact),
    ("commit --amend", "", "git commit -q --amend -m other", Exact),
    ("reset --soft", "", "git reset -q --soft HEAD~1", Exact),
    ("branch -m", "", "git branch -m topic renamed", Exact),
    ("fetch", "grow", "git fetch -q origin", Refused),
    ("push", "git commit -q --allow-empty -m ahead", "git push -q origin main", Refused),
];

const UNSEEN: [Row; 21] = [
    ("branch -c", "", "git branch -c topic copied", Refused),
    ("branch -u", "", "git branch -q -u origin/main topic", Refused),
    (
        "branch-u of the branch of the last commit",
        "",
        "git commit -q --allow-empty -m work; git branch -q -u origin/topic",
        Refused,
    ),
    ("branch --unset-upstream", "", "git branch --unset-upstream main", Refused),
    ("config", "", "git config user.signingKey x", Refused),
    ("remote add", "", "git remote add second ../second", Refused),
    ("remote rename", "", "git remote rename origin other", Refused),
    ("remote remove", "", "git remote remove origin", Refused),
    ("remote set-head", "", "git remote set-head origin main", Refused),
    ("symbolic-ref of a branch", "", "git symbolic-ref refs/heads/alias refs/heads/main", Refused),
    ("submodule add", "", "git -c protocol.file.allow=always submodule -q add ../upstream.git sub", Refused),
    ("add in the middle of a merge", "git merge -q clash > /dev/null || echo both > file", "git add file", Refused),
    ("add", "echo x > new", "git add new", Refused),
    ("rm", "", "git rm -q --cached file", Refused),
    ("mv", "", "git mv file moved", Refused),
    ("reset FILE", "echo x > file; git add file", "git reset -q file", Refused),
    ("stash drop of two", "two_stashes", "git stash drop -q", Refused),
    ("stash pop of two", "two_stashes", "git stash pop -q", Refused),
    ("read-tree", "", "git read-tree HEAD~1", Refused),
    ("a branch of another program", "", "git rev-parse HEAD > .git/refs/heads/foreign", Refused),
    ("symbolic-ref HEAD", "", "git symbolic-ref HEAD refs/heads/topic", Refused),
];

const HEADS: [Row; 20] = [
    ("checkout -- FILE", "echo x > file", "git checkout -q -- file", Refused),
    ("restore", "echo x > file", "git restore file", Refused),
    ("restore --staged", "echo x > file; git add file", "git restore --staged file", Refused),
    ("reset --hard at HEAD", "echo x > file", "git reset -q --hard", Refused),
    ("switch", "", "git switch -q topic", Exact),
    ("switch -c", "", "git switch -q -c new", Exact),
    ("switch beside other changes", "changes", "git switch -q topic", Exact),
    ("checkout -b", "", "git checkout -q -b new topic", Exact),
    ("checkout --orphan", "", "git checkout -q --orphan new", Refused),
    ("switch -f over changes", "echo x > file", "git switch -q -f topic", Refused),
    ("checkout -f over changes", "echo x > file", "git checkout -qf topic", Refused),
    ("switch -m", "echo x > one", "git switch -q -m topic", Refused),
    ("bisect reset", "git bisect start HEAD HEAD~2 > /dev/null", "git bisect reset 2> /dev/null", Refused),
    ("checkout --detach", "", "git checkout -q --detach HEAD~1", Exact),
    ("switch -c with an upstream", "", "git switch -q -c new origin/topic", Exact),
    ("switch -c of the same name", "git branch -q -D topic", "git switch -q topic", Exact),
    ("checkout -b with an upstream", "", "git checkout -q -b new --track topic", Exact),
    ("branch -m of the current branch", "", "git branch -m renamed", Exact),
    ("worktree add", "", "git worktree add -q ../linked -b side", Refused),
    ("bisect start", "", "git bisect start HEAD HEAD~2 > /dev/null", Refused),
];

const STOPPED: [Row; 16] = [
    ("merge that conflicts", "", "git merge -q clash > /dev/null", Refused),
    ("merge --no-commit", "", "git merge -q --no-commit topic", Refused),
    ("merge --squash", "", "git merge -q --squash topic", Refused),
    ("merge --abort", "git merge -q clash > /dev/null || true", "git merge --abort", Refused),
    ("rebase that conflicts", "", "git rebase -q clash > /dev/null 2>&1", Refused),
    ("cherry-pick that conflicts", "", "git cherry-pick clash > /dev/null 2>&1", Refused),
    ("cherry-pick -n", "", "git cherry-pick -n topic", Refused),
    ("revert -n", "", "git revert -n HEAD~1", Refused),
    ("revert that conflicts", "", "git revert --no-edit HEAD~1 > /dev/null 2>&1", Refused),
    (
        "am that conflicts",
        "git format-patch -q -1 --stdout clash > ../patch",
        "git am -q ../patch > /dev/null 2>&1",
        Refused,
    ),
    ("rebase --abort", "git rebase -q clash > /dev/null 2>&1 || true", "git rebase --abort", Refused),
    ("cherry-pick --abort", "git cherry-pick clash > /dev/null 2>&1 || true", "git cherry-pick --abort", Refused),
    (
        "cherry-pick that stopped and went on",
        "",
        "git cherry-pick clash topic > /dev/null 2>&1 || git cherry-pick --skip > /dev/null",
        Exact,
    ),
    (
        "rebase that stopped and went on",
        "git switch -q clash",
        "git rebase -q main > /dev/null 2>&1 || git rebase --skip > /dev/null 2>&1",
        Exact,
    ),
    ("branch in the middle of a rebase", "git rebase -q clash > /dev/null 2>&1 || true", "git branch new", Exact),
    ("tag in the middle of a merge", "git merge -q clash > /dev/null || true", "git tag v2", Exact),
];

const FILES: [Row; 32] = [
    ("commit -a", "echo x > file", "git commit -q -a -m all", Exact),
    ("commit FILE", "echo x > file", "git commit -q -m one file", Exact),
    ("merge", "", "git merge -q --no-edit topic", Exact),
    ("merge, fast-forward", "git reset -q --hard HEAD~2", "git merge -q topic", Exact),
    (
        "merge of a resolution",
        "git merge -q clash > /dev/null || echo both > file",
        "git commit -q -a -m resolved",
        Exact,
    ),
    (
        "merge --continue",
        "git merge -q clash > /dev/null || { echo both > file; git add file; }",
        "git merge --continue > /dev/null",
        Exact,
    ),
    (
        "commit that ends a cherry-pick",
        "git cherry-pick clash > /dev/null 2>&1 || { echo both > file; git add file; }",
        "git commit -q -m resolved",
        Exact,
    ),
    (
        "cherry-pick --continue",
        "git cherry-pick clash > /dev/null 2>&1 || { echo both > file; git add file; }",
        "git cherry-pick --continue > /dev/null",
        Exact,
    ),
    (
        "commit in the middle of two cherry-picks",
        "git cherry-pick clash topic > /dev/null 2>&1 || { echo both > file; git add file; }",
        "git commit -q -m resolved",
        Refused,
    ),
    ("pull", "grow", "git pull -q origin grown", Exact),
    ("rebase", "git switch -q topic", "git rebase -q main", Exact),
    ("rebase -i", "git switch -q topic", "GIT_SEQUENCE_EDITOR=true git rebase -q -i main", Exact),
    ("rebase --apply", "git switch -q topic", "git rebase -q --apply main", Exact),
    ("rebase --onto", "git switch -q topic", "git rebase -q --onto main HEAD~1", Exact),
    (
        "rebase --update-refs",
        "git switch -q topic; git branch -f side HEAD",
        "git rebase -q --update-refs main",
        Refused,
    ),
    ("rebase beside files that are not tracked", "git switch -q topic; echo x > x", "git rebase -q main", Exact),
    ("rebase --autostash", "git switch -q topic; echo x > one", "git rebase -q --autostash main", Refused),
    ("merge beside other changes", "changes", "git merge -q --no-edit topic", Exact),
    ("merge --no-ff", "git reset -q --hard HEAD~2", "git merge -q --no-ff --no-edit topic", Exact),
    ("merge --autostash", "echo x > one", "git merge -q --no-edit --autostash topic", Refused),
    ("pull --rebase", "git switch -q topic", "git pull -q --rebase origin main", Exact),
    ("tx merge", "", "git tx merge -q --no-edit topic", Exact),
    ("tx rebase", "git switch -q topic", "git tx rebase -q main", Exact),
    ("commit --amend behind a resolution", "resolved", "git commit -q --amend -m again", Exact),
    ("tag behind a resolution", "resolved", "git tag resolved", Exact),
    ("commit -a --amend", "echo x > file", "git commit -q -a --amend --no-edit", Exact),
    ("cherry-pick", "", "git cherry-pick topic > /dev/null", Exact),
    ("revert", "", "git revert --no-edit HEAD > /dev/null", Exact),
    ("reset --hard", "", "git reset -q --hard HEAD~1", Exact),
    ("reset --keep", "", "git reset -q --keep HEAD~1", Exact),
    ("reset", "", "git reset -q HEAD~1", Exact),
    ("am", "git format-patch -q -1 --stdout topic > ../patch", "git am -q ../patch", Exact),
];

/// What a hostile reading has found.
const ATTACKED: [Row; 21] = [
    (
        "tx-commit of a resolution",
        "git merge -q clash > /dev/null || { echo both > file; git add file; }",
        "git tx commit -q -m resolved",
        Exact,
    ),
    (
        "tx-rebase --continue",
        "git switch -q topic; echo t > file; git commit -q -a -m t; git rebase -q main > /dev/null 2>&1 || { echo both > file; git add file; }",
        "GIT_EDITOR=true git tx rebase --continue > /dev/null 2>&1",
        Refused,
    ),
    (
        "an-emptied-pick, and another one",
        // State that is younger than a tick of the clock may be that of the second pick.
        "git cherry-pick clash > /dev/null 2>&1 || git checkout -q HEAD -- file; sleep 0.1",
        "git cherry-pick topic > /dev/null",
        Refused,
    ),
    (
        "a-large-message of a merge",
        "yes words | head -300000 > ../large; git merge -q --no-commit -F ../large topic",
        "git commit -q -m merged",
        Refused,
    ),
    (
        "a-swept-state of a merge",
        "git merge -q --no-commit topic",
        "git commit -q -m merged; rm -rf .git/.jin/kept/*",
        Refused,
    ),
    ("a-swept-section", "", "git branch -q -D topic; rm -rf .git/.jin/kept/*", Refused),
    ("an-upstream by checkout -B", "", "git checkout -q -B clash --track topic", Refused),
    ("another-upstream by branch -f", "", "git branch -q -f --track topic main", Refused),
    ("another-upstream by switch -C", "", "git switch -q -C topic --track main", Refused),
    (
        "made-again by an alias",
        "git config alias.fresh '!git branch -q -D topic; git checkout -q -b topic --no-track HEAD~1'",
        "git fresh",
        Refused,
    ),
    (
        "made-again by a run",
        "git config alias.fresh '!git branch -q -D topic; git checkout -q -b topic --no-track HEAD~1'",
        "git tx fresh > /dev/null",
        Refused,
    ),
    (
        "two-blanks",
        "printf '[branch  \"clash\"]\\n\\tdescription = x\\n' >> .git/config",
        "git branch -q -D clash",
        Refused,
    ),
    (
        "a-tab",
        "printf '[branch\\t\"clash\"]\\n\\tdescription = x\\n' >> .git/config",
        "git branch -q -D clash",
        Refused,
    ),
    ("a-dot", "printf '[branch.clash]\\n\\tdescription = x\\n' >> .git/config", "git branch -q -D clash", Refused),
    ("a-capital", "printf '[Branch \"new\"]\\n' >> .git/config", "git checkout -q -b new --track topic", Refused),
    (
        "a-comment that looks like a place",
        "printf '[branch \"clash\"]\\n\\tremote = .\\n# at 7\\n# at 7 9\\n\\tmerge = refs/heads/main\\n' >> .git/config",
        "git branch -q -D clash",
        Exact,
    ),
    (
        "checkout --f in a merge",
        "git merge -q clash > /dev/null || { echo both > file; git add file; }",
        "git checkout -q --f topic",
        Refused,
    ),
    (
        "reset --hard in a merge",
        "git merge -q clash > /dev/null || { echo both > file; git add file; }",
        "git reset -q --hard HEAD~1",
        Refused,
    ),
    (
        "tx-reset --hard in a merge",
        "git merge -q clash > /dev/null || { echo both > file; git add file; }",
        "git tx reset -q --hard HEAD~1",
        Refused,
    ),
    (
        "merge-and-commit by a run",
        "git config alias.mc '!git merge -q clash; echo both > file; git add file; git commit -q -m m'",
        "git tx mc > /dev/null",
        Refused,
    ),
    (
        "merge-and-commit by an alias",
        "git config alias.mc '!git merge -q --no-commit topic && git commit -q -m m'",
        "git mc",
        Refused,
    ),
];

const SCENE: &str = "
    git config branch.topic.description words
    for n in one two three; do echo $n > $n; echo $n > file; git add .; git commit -q -m $n; done
    git tag v1
    git switch -q -c topic HEAD~1; echo topic > topic; git add .; git commit -q -m topic
    git switch -q -c clash HEAD~1; echo clash > file; git add .; git commit -q -m clash
    git switch -q main
    git init -q --bare ../upstream.git; git remote add origin ../upstream.git; git push -q -u origin main topic
";

/// Words of rows.
const FUNCTIONS: &str = "
    grow() { c=$(git commit-tree -p topic -m up topic^{tree}); git push -q origin $c:refs/heads/grown; git update-ref -d refs/remotes/origin/grown; }
    changes() { echo changed > one; echo mine > not-tracked; }
    resolved() { git merge -q clash > /dev/null || echo both > file; git commit -q -a -m resolved; }
    all_kinds() { mkdir dir; echo u > dir/u; echo s > file; git add file; echo w > file; echo w > one; chmod +x one; ln -s one link; git add link; echo n > new; git add new; git rm -q two; }
    on_topic() { git switch -q topic; }
    behind() { git branch -q ahead; git reset -q --hard HEAD~1; }
    stage_other() { echo staged > one; git add one; echo edited > one; }
    two_stashes() { echo 1 > file; git stash push -q; echo 2 > file; git stash push -q; }
";

/// Everything that a person has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    texts: BTreeMap<&'static str, String>,
    files: Tree,
}

pub(super) fn whole(repo: &Repo) -> Whole {
    let read = |arguments: &[&str]| text(&repo.try_git(arguments).stdout).into_owned();
    let states =
        ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply", "sequencer", "BISECT_LOG"];
    let mut states: Vec<String> =
        states.into_iter().filter(|name| repo.git_dir().join(name).exists()).map(str::to_owned).collect();
    for name in ["MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "CHERRY_PICK_HEAD", "REVERT_HEAD"] {
        states.extend(fs::read_to_string(repo.git_dir().join(name)).map(|content| format!("{name}: {content}")));
    }
    let texts = [
        ("refs", read(&["for-each-ref", "--format=%(objectname) %(symref) %(refname)"])),
        ("HEAD", fs::read_to_string(repo.git_dir().join("HEAD")).unwrap_or_default()),
        ("index", read(&["ls-files", "-s"])),
        ("stashes", fs::read_to_string(repo.git_dir().join("logs/refs/stash")).unwrap_or_default()),
        ("configuration", read(&["config", "--local", "--list"])),
        ("in progress", states.join(" ")),
    ];
    let mut files = tree(repo.worktree().unwrap_or(repo.path()));
    files.retain(|name, _| !name.starts_with(".git"));
    Whole { texts: texts.into(), files }
}

pub(super) fn shell(repo: &Repo, script: &str) {
    let mut shell: Command = repo.command(Path::new("/bin/sh").as_os_str());
    shell.args(["-ec", &format!("{FUNCTIONS}\n{script}")]);
    let output = shell.output().expect("a shell starts");
    // A merge that conflicts fails.
    assert!(!text(&output.stderr).contains("not found"), "{script}: {}", text(&output.stderr));
}

fn judge((name, before, command, least): Row) -> Result<Verdict, String> {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.do_not_wait_for_locks();
    shell(&repo, SCENE);
    shell(&repo, before);
    repo.git(["tag", "unrelated"]);
    let was = whole(&repo);
    shell(&repo, command);
    let is = whole(&repo);
    assert!(was != is, "{name} changes something");
    let (code, said) = run_jin(&repo, &["undo"]);
    let now = whole(&repo);
    match code {
        0 if now == was => match run_jin(&repo, &["redo"]) {
            (0, _) if whole(&repo) == is => Ok(Exact),
            (code, said) => Err(format!("redo of {name}: {code}, {said}")),
        },
        1 if now == is && least == Refused => Ok(Refused),
        1 if now == is => Err(format!("{name} was refused: {said}")),
        _ => {
            let texts = now.texts.iter().filter(|(what, text)| was.texts.get(*what) != Some(text));
            Err(format!("{name}: exit code {code}, and these are others: {:?}: {said}", texts.collect::<Vec<_>>()))
        }
    }
}

/// Of each command one row of each verdict; `JIN_UNDO=1` takes all.
pub(super) fn sample(rows: &[Row]) -> Vec<Row> {
    let is_all = std::env::var_os("JIN_UNDO").is_some();
    let mut seen = HashSet::new();
    let family = |name: &'static str| name.split([' ', ',']).next().unwrap_or_default();
    rows.iter().filter(|row| seen.insert((family(row.0), row.3 == Exact)) || is_all).copied().collect()
}

pub(super) fn check(rows: &[Row]) {
    let rows = sample(rows);
    let judged: Vec<_> = rows.iter().map(|row| (row.0, judge(*row))).collect();
    for (name, verdict) in &judged {
        println!("{name}: {verdict:?}");
    }
    let wrong: Vec<_> = judged.into_iter().filter_map(|(_, verdict)| verdict.err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn what_moves_refs_alone_is_undone_exactly_or_refused() {
    check(&REFS);
}

#[test]
fn what_no_hook_saw_makes_a_bare_undo_refuse() {
    check(&UNSEEN);
}

#[test]
fn what_moves_head_is_undone_exactly_or_refused() {
    check(&HEADS);
}

#[test]
fn what_writes_index_and_worktree_is_undone_exactly_or_refused() {
    check(&FILES);
}

#[test]
fn what_stopped_is_undone_exactly_or_refused() {
    check(&STOPPED);
}

#[test]
fn what_undo_cannot_bring_back_exactly_is_refused() {
    check(&ATTACKED);
}
