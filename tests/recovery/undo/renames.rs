//! `git branch -m`: a bare undo leaves refs, HEAD, configuration and reflogs as they were before, to the last byte, and redo as git
//! had left them; or it refuses and changes nothing. By default a sample is done; `JIN_UNDO=1` does all.

use std::fs;

use super::every_command::Verdict::{Exact, Refused};
use super::every_command::{Row, Whole, sample, shell, whole};
use super::guarded;
use crate::support::crash::{run_jin, transactions};
use crate::support::observe::{Tree, tree};
use crate::support::repo::Repo;

/// What is done before, and the command; all within one repository of this.
const SCENE: &str = "
    for n in one two; do echo $n > $n; git add .; git commit -q -m $n; done
    git branch topic HEAD~1; git branch clash; git branch logless; rm .git/logs/refs/heads/logless
    git config branch.topic.description words; git config core.abbrev 10; git config branch.topic.merge refs/heads/main
";

/// A word of rows: a merge is in progress.
const MERGE: &str =
    "merge() { git switch -q -c side HEAD~1; git commit -q --allow-empty -m s; git merge -q --no-commit main; }";

#[rustfmt::skip]
const ROWS: [Row; 38] = [
    ("other with a configuration, packed", "git pack-refs --all", "git branch -m topic deep/name", Exact),
    ("current with a configuration", "git switch -q topic; echo x > one; git add one", "git branch -m renamed", Exact),
    ("directory with a configuration", "git switch -q -c a/b; git config branch.a/b.x 1", "git branch -m a/b a", Exact),
    ("logless", "", "git branch -m logless renamed", Exact),
    ("current", "", "git branch -m renamed", Exact),
    ("other below its own name", "git branch a", "git branch -m a a/b", Exact),
    ("other above a packed name", "git branch a/b/c; git pack-refs --all", "git branch -m a/b/c a", Exact),
    ("current, logless", "git switch -q logless", "git branch -m renamed", Exact),
    ("other with a capital", "", "git branch -m topic Topic", Exact),
    ("other by -M", "", "git branch -M topic renamed", Exact),
    ("other by long options", "", "git branch --move --force topic renamed", Exact),
    ("other with a quote", "git branch 'a\"b'; git config 'branch.a\"b.x' y", "git branch -m 'a\"b' 'c\"d'", Exact),
    ("other with two sections", "printf '[core]\\n\\tx = y\\n[branch \"topic\"]\\n\\trebase = true\\n' >> .git/config", "git branch -m topic renamed", Exact),
    ("other beside a detached HEAD", "git switch -q --detach", "git branch -m topic renamed", Exact),
    ("other in the middle of a merge", "merge", "git branch -m clash renamed", Exact),
    ("other without a place of its own", "git worktree add -q ../w clash", "git branch -m topic renamed", Exact),
    ("over another branch", "", "git branch -M topic clash", Refused),
    ("over the same name", "", "git branch -M topic topic", Refused),
    ("elsewhere checked out", "git worktree add -q ../w topic", "git branch -m topic renamed", Refused),
    ("unlogged", "git config core.logAllRefUpdates false", "git branch -m logless renamed", Refused),
    ("unlogged, current", "git switch -q logless; git config core.logAllRefUpdates false", "git branch -m renamed", Refused),
    ("forged reflog", "git config core.logAllRefUpdates false", "git branch -m logless renamed; h=$(git rev-parse HEAD); echo \"$h $h A <a> 1 +0000\tx\" > .git/logs/refs/heads/renamed", Refused),
    ("empty reflog", ": > .git/logs/refs/heads/topic", "git branch -m topic renamed", Refused),
    ("expired reflog", "", "git branch -m topic renamed; git reflog expire --expire=all refs/heads/renamed", Refused),
    ("expired reflog of which an entry is left", "", "git branch -m topic renamed; git reflog delete renamed@{1}", Refused),
    ("new-section", "git config branch.renamed.x y", "git branch -m topic renamed", Refused),
    ("new-section alone", "git config branch.renamed.x y", "git branch -m clash renamed", Refused),
    ("section changed since", "", "git branch -m topic renamed; git config branch.renamed.description x", Refused),
    ("section added since", "", "git branch -m topic renamed; git txn recover; git config branch.topic.x y", Refused),
    ("section removed since", "", "git branch -m topic renamed; git config --remove-section branch.renamed", Refused),
    ("section begun on one line", "printf '[branch \"clash\"] x = y\\n' >> .git/config", "git branch -m clash renamed", Refused),
    ("section with two blanks", "printf '[branch  \"clash\"]\\n\\tx = y\\n' >> .git/config", "git branch -m clash renamed", Refused),
    ("include", "git config include.path more", "git branch -m topic renamed", Refused),
    ("alias", "git config alias.rn 'branch -m'", "git rn topic renamed", Refused),
    ("alias with more", "git config alias.rn '!git branch -m topic renamed; git tag more'", "git rn", Refused),
    ("run", "", "git tx branch -q -m topic renamed", Refused),
    ("run of two", "git config alias.rn '!git branch -m topic x; git branch -m x y'", "git tx rn", Refused),
    ("current in the middle of a merge", "merge", "git branch -m renamed", Refused),
];

/// What a person has, with the reflogs of branches and the configuration as they lie there.
#[derive(Debug, PartialEq, Eq)]
struct All(Whole, Tree, String);

impl All {
    fn of(repo: &Repo) -> All {
        let mut logs = tree(&repo.git_dir().join("logs/refs"));
        let is_directory = |mode: u32| mode & 0o170_000 == 0o040_000;
        logs.retain(|_, (mode, _)| !is_directory(*mode));
        let config = fs::read_to_string(repo.git_dir().join("config")).expect("there is one");
        All(whole(repo), logs, config)
    }
}

fn scene(before: &str) -> Repo {
    let repo = guarded();
    repo.do_not_wait_for_locks();
    shell(&repo, SCENE);
    shell(&repo, &format!("{MERGE}\n{before}"));
    repo.git(["tag", "unrelated"]);
    repo
}

fn judge((name, before, command, verdict): Row) {
    let repo = scene(before);
    let was = All::of(&repo);
    shell(&repo, command);
    let is = All::of(&repo);
    assert_ne!(was, is, "{name} changes something");
    let (code, said) = run_jin(&repo, &["undo"]);
    println!("{name}: {said}");
    if verdict == Refused {
        assert_eq!((code, All::of(&repo)), (1, is), "{name}: {said}");
        return;
    }
    assert_eq!((code, All::of(&repo)), (0, was), "{name}: {said}");
    let (code, said) = run_jin(&repo, &["redo"]);
    assert_eq!((code, All::of(&repo)), (0, is), "redo of {name}: {said}");
}

#[test]
fn a_branch_that_was_renamed_is_as_before_to_the_last_byte_of_its_reflog_or_all_is_refused() {
    sample(&ROWS).into_iter().for_each(judge);
}

/// The id of the newest operation.
fn newest(repo: &Repo) -> String {
    transactions(repo)[0]["id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_renamed_branch_that_went_on_is_not_renamed_back_and_what_a_person_can_do_is_said() {
    let template = scene("");
    template.git(["branch", "-m", "topic", "renamed"]);
    let id = newest(&template);
    // Nothing is left to be done of it.
    assert_eq!(run_jin(&template, &["recover"]).0, 0);
    #[rustfmt::skip]
    let rows = [
        ("git branch -f renamed main", Some("`git branch -m renamed topic` renames it back")),
        ("git branch topic", None),
        ("git branch -q -D renamed", None),
        ("git branch -m renamed again", None),
        ("git switch -q renamed", None),
        ("git worktree add -q ../w renamed", None),
        ("git symbolic-ref HEAD refs/heads/topic", None),
        ("git branch topic/below", None),
        ("mkdir .git/logs/refs/heads/topic; echo x > .git/logs/refs/heads/topic/x", None),
        ("echo x > .git/logs/refs/heads/topic", Some("`git branch -m renamed topic` renames it back")),
    ];
    for (since, hint) in rows {
        let repo = template.copy();
        shell(&repo, since);
        let is = All::of(&repo);
        let (code, said) = run_jin(&repo, &["undo", &id]);
        assert_eq!((code, All::of(&repo)), (1, is), "{since}: {said}");
        assert!(hint.is_none_or(|hint| said.contains(hint)), "{since}: {said}");
        repo.discard();
    }
}

#[test]
fn renames_and_what_is_done_between_them_go_back_and_forth_in_steps() {
    let repo = scene("git switch -q topic");
    let commands: [&[&str]; 4] = [
        &["branch", "-m", "one"],
        &["commit", "-q", "--allow-empty", "-m", "on one"],
        &["branch", "-m", "one/two"],
        &["branch", "-m", "main", "trunk"],
    ];
    let mut states = vec![whole(&repo)];
    for command in commands {
        repo.git(command);
        states.push(whole(&repo));
    }
    for (direction, states) in [("undo", states.iter().rev().collect::<Vec<_>>()), ("redo", states.iter().collect())] {
        for state in &states[1..] {
            let (code, said) = run_jin(&repo, &[direction]);
            assert_eq!((code, &whole(&repo)), (0, *state), "{direction}: {said}");
        }
        if direction == "undo" {
            assert_eq!(repo.read(["rev-parse", "--abbrev-ref", "@{-1}"]), "main", "no switch is logged");
        }
    }
    let log = fs::read_to_string(repo.git_dir().join("logs/HEAD")).expect("it is there");
    assert!(log.contains("\tBranch: renamed refs/heads/one to refs/heads/topic\n"), "{log}");
}

/// Up to 2.45 the log does not say where HEAD was before a switch: it was on the branch under its new name. A switch to where HEAD is
/// already is nothing, and the rename is undone.
#[test]
fn a_switch_behind_a_rename_goes_back_to_the_branch_by_its_new_name() {
    for (command, head) in [("switch -q b", "a"), ("switch -q other", "b"), ("switch -q --detach", "b")] {
        let repo = guarded();
        shell(&repo, "git switch -q -c a; git branch other HEAD; git branch -m b");
        repo.git(command.split(' '));
        let (code, said) = run_jin(&repo, &["undo"]);
        assert_eq!(repo.read(["symbolic-ref", "-q", "HEAD"]), format!("refs/heads/{head}"), "{command}: {said}");
        assert_eq!(repo.read(["status", "--porcelain"]), "", "{command}: {said}");
        assert_eq!(code, 0, "{command}: {said}");
    }
}

/// The name that is overwritten is deleted in a transaction of its own, and made outside of any.
#[test]
fn a_commit_behind_a_rename_over_another_branch_is_undone() {
    let repo = guarded();
    shell(&repo, "git branch a; git branch b; git branch -M a b; git commit -q --allow-empty -m more");
    let (code, said) = run_jin(&repo, &["undo"]);
    assert!(code == 0 && said.contains("git commit"), "{code}: {said}");
}
