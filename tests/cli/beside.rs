//! Beside other hooks, and wherever git looks for them: both run, a veto of either counts, and all of it can be taken back.

mod added;
mod annex;

mod elsewhere;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::observe::{Tree, age, assert_same, shown, times, tree};
use crate::support::repo::{Git, Options, Repo, jin_txn, text, write_file};

/// Notes each of its calls: its arguments, where it runs, its input. `VETO` names the state to refuse.
const NOSY: &str = r#"#!/bin/sh
. "$(dirname "$0")/common.sh"
{
    printf '%s' "$(basename "$0")"
    printf ' <%s>' "$@"
    printf ' in %s, GIT_DIR=%s, %s\n' "$PWD" "${GIT_DIR-}" "$COMMON"
    if [ "$(basename "$0")" = reference-transaction ]; then cat; fi
} >>"$NOTES"
echo "out of $(basename "$0") $1"
echo "err of $(basename "$0") $1" >&2
[ "${VETO-}" != "$1" ]
"#;

fn unprotected() -> Repo {
    let repo = Repo::new(Options::default());
    repo.write("file", "one\n");
    repo.commit_all("one");
    repo
}

/// A hook of each kind that takes notes, and what they source.
fn with_nosy_hooks() -> Repo {
    let repo = unprotected();
    let hooks = repo.git_dir().join("hooks");
    write_file(&hooks.join("reference-transaction"), NOSY, 0o750);
    write_file(&hooks.join("post-checkout"), NOSY, 0o755);
    write_file(&hooks.join("common.sh"), "COMMON=sourced\n", 0o644);
    write_file(&hooks.join("post-merge.sample"), "#!/bin/sh\n", 0o755);
    age(&hooks);
    repo
}

fn git_with(repo: &Repo, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut git = repo.command(Git::under_test().program.as_os_str());
    git.args(arguments).envs(variables.iter().copied()).env("NOTES", repo.scratch().join("notes"));
    git.stdin(Stdio::null()).output().expect("git runs")
}

fn notes(repo: &Repo) -> String {
    let text = fs::read_to_string(repo.scratch().join("notes")).unwrap_or_default();
    text.replace(&repo.scratch().display().to_string(), "[DIR]")
}

/// The whole git directory, with the times of what lies in hooks directories.
fn pristine(repo: &Repo) -> (Tree, BTreeMap<PathBuf, (i64, i64)>) {
    (tree(&repo.git_dir()), times(&repo.git_dir().join("hooks")))
}

#[track_caller]
fn assert_pristine(repo: &Repo, before: &(Tree, BTreeMap<PathBuf, (i64, i64)>), reason: &str) {
    let after = pristine(repo);
    assert_same(&before.0, &after.0, reason);
    assert_eq!(before.1, after.1, "{reason}: times of hooks");
}

#[test]
fn hooks_that_were_there_see_what_they_saw_and_say_what_they_said() {
    let (plain, guarded) = (with_nosy_hooks(), with_nosy_hooks());
    guarded.install_guard();
    for (name, arguments) in [
        ("a commit", &["commit", "--allow-empty", "-q", "-m", "two"][..]),
        ("a branch", &["branch", "topic"]),
        ("a checkout", &["checkout", "-q", "topic"]),
        ("a checkout of a file", &["checkout", "-q", "main", "--", "file"]),
        ("a packing", &["pack-refs", "--all"]),
        ("a deletion", &["branch", "-D", "main"]),
        ("a worktree", &["worktree", "add", "-q", "../linked"]),
        ("a commit in it", &["-C", "../linked", "commit", "--allow-empty", "-q", "-m", "three"]),
    ] {
        let [without, with] = [&plain, &guarded].map(|repo| shown(repo, &git_with(repo, &[], arguments)));
        assert_eq!(with, without, "{name}: what the user sees");
        let own_place = notes(&guarded).replace("hooks.before-jin-txn", "hooks");
        assert_eq!(own_place, notes(&plain), "{name}: what the hooks see");
    }
    assert!(notes(&guarded).contains("sourced"), "a hook finds what lies beside it: {}", notes(&guarded));
    assert!(guarded.logged().len() >= 5, "and ours has logged: {:?}", guarded.logged());
}

#[test]
fn a_veto_of_a_hook_that_was_there_counts_and_is_logged_as_aborted() {
    let states = if Git::under_test().is_at_least(2, 54) { &["preparing", "prepared"][..] } else { &["prepared"] };
    for state in states {
        let repo = with_nosy_hooks();
        repo.install_guard();
        let output = git_with(&repo, &[("VETO", state)], &["branch", "topic"]);
        assert!(!output.status.success(), "{state}: the branch is refused");
        assert_eq!(repo.read(["branch", "--list", "topic"]), "", "{state}: there is none");
        assert!(notes(&repo).contains("<aborted>"), "{state}: it is told the end: {}", notes(&repo));
        let open = repo.logged().iter().filter(|line| !line.contains("aborted")).count();
        assert_eq!(open, 0, "{state}: nothing happened: {:?}", repo.logged());
        assert!(crate::support::invariants::judge_markers(&repo).is_none(), "{state}: nothing is left unfinished");
        assert!(git_with(&repo, &[], &["branch", "topic"]).status.success(), "{state}: the next one works");
    }
}

#[test]
fn our_veto_comes_before_anybody_else_is_asked() {
    let repo = with_nosy_hooks();
    repo.install_guard();
    let lock = repo.git_dir().join(".jin/append.lock");
    fs::remove_file(&lock).expect("it can be removed");
    fs::create_dir(&lock).expect("a directory can be made");
    let output = git_with(&repo, &[], &["branch", "topic"]);
    assert!(!output.status.success(), "what cannot be logged is refused");
    assert!(!notes(&repo).contains("<prepared>"), "nobody else was asked: {}", notes(&repo));
}

#[test]
fn the_exit_status_of_a_post_checkout_hook_stays_the_checkouts() {
    let codes = [false, true].map(|guarded| {
        let repo = unprotected();
        write_file(&repo.git_dir().join("hooks/post-checkout"), "#!/bin/sh\nexit 7\n", 0o755);
        if guarded {
            repo.install_guard();
        }
        repo.try_git(["checkout", "-q", "-b", "topic"]).status.code()
    });
    assert_eq!(codes[0], codes[1], "with and without us");
    assert_ne!(codes[0], Some(0), "the hook's failure is the checkout's");
}

#[test]
fn hooks_go_on_to_run_when_we_are_switched_off_or_gone() {
    let repo = with_nosy_hooks();
    let binary = repo.scratch().join("jin-txn");
    let copied = Command::new("cp").arg(jin_txn()).arg(&binary).status();
    assert!(copied.is_ok_and(|status| status.success()), "the binary can be copied");
    assert!(repo.run(binary.as_os_str(), repo.path(), ["install"], b"").status.success(), "it can be installed");
    for (name, variables) in [("off", &[("JIN_TXN", "off")][..]), ("gone", &[])] {
        if name == "gone" {
            fs::remove_file(&binary).expect("it can be removed");
        }
        fs::remove_file(repo.scratch().join("notes")).ok();
        let output = git_with(&repo, variables, &["checkout", "-q", "-b", name]);
        assert!(output.status.success(), "{name}: git works: {}", text(&output.stderr));
        for called in ["reference-transaction <committed>", "post-checkout <"] {
            assert!(notes(&repo).contains(called), "{name}: {called} is missing in {}", notes(&repo));
        }
        let refused = git_with(&repo, &[variables, &[("VETO", "prepared")]].concat(), &["branch", "other"]);
        assert!(!refused.status.success(), "{name}: a veto counts");
    }
    let status = text(&repo.jin_txn(["status"]).stdout).into_owned();
    assert!(status.contains("points to a jin-txn that is gone: run `jin-txn install`"), "{status}");
}

#[test]
fn a_large_input_is_replayed_to_the_last_byte() {
    let repo = with_nosy_hooks();
    repo.install_guard();
    let id = repo.read(["rev-parse", "HEAD"]);
    for count in [1, 700, 3000] {
        fs::remove_file(repo.scratch().join("notes")).ok();
        let input: String = (0..count).map(|n| format!("create refs/heads/many/{count}/{n} {id}\n")).collect();
        let mut git = repo.command(Git::under_test().program.as_os_str());
        git.args(["update-ref", "--stdin"]).env("NOTES", repo.scratch().join("notes"));
        fs::write(repo.scratch().join("input"), input).expect("it can be written");
        let input = fs::File::open(repo.scratch().join("input")).expect("it can be read");
        assert!(git.stdin(input).output().expect("git runs").status.success(), "{count} refs");
        let calls = if Git::under_test().is_at_least(2, 54) { 3 } else { 2 };
        let lines = notes(&repo).lines().filter(|line| line.contains(" refs/heads/many/")).count();
        assert_eq!(lines, calls * count, "{count} refs in each of {calls} calls");
    }
}

/// How a hook that was there looks.
type Prepare = fn(&Repo, &Path);

#[test]
fn what_was_there_comes_back_byte_for_byte_with_mode_and_time() {
    let cases: [(&str, Prepare); 7] = [
        ("no hooks directory", |_, _| {}),
        ("scripts of different modes", |_, hooks| {
            write_file(&hooks.join("reference-transaction"), NOSY, 0o700);
            write_file(&hooks.join("post-checkout"), "#!/bin/sh\nexit 0\n", 0o775);
            write_file(&hooks.join("common.sh"), "COMMON=1\n", 0o600);
        }),
        ("one that is not executable", |_, hooks| {
            write_file(&hooks.join("post-checkout"), "#!/bin/sh\nexit 1\n", 0o644)
        }),
        ("a relative link", |repo, hooks| {
            write_file(&repo.path().join("tool.sh"), "#!/bin/sh\nexit 0\n", 0o755);
            fs::create_dir_all(hooks).expect("it can be made");
            symlink("../../tool.sh", hooks.join("reference-transaction")).expect("a link can be made");
        }),
        ("a link to nowhere", |_, hooks| {
            fs::create_dir_all(hooks).expect("it can be made");
            symlink("/nowhere", hooks.join("post-checkout")).expect("a link can be made");
        }),
        ("a program", |_, hooks| {
            fs::create_dir_all(hooks).expect("it can be made");
            let copied = Command::new("cp").arg("/bin/true").arg(hooks.join("reference-transaction")).status();
            assert!(copied.is_ok_and(|status| status.success()), "it can be copied");
        }),
        ("no first line", |_, hooks| write_file(&hooks.join("post-checkout"), "exit 0\n", 0o755)),
    ];
    for (name, prepare) in cases {
        let repo = unprotected();
        prepare(&repo, &repo.git_dir().join("hooks"));
        if repo.git_dir().join("hooks").exists() {
            age(&repo.git_dir().join("hooks"));
        }
        let before = pristine(&repo);
        repo.jin(&["install"]);
        repo.jin(&["install"]);
        assert!(repo.is_protected(), "{name}: {}", repo.jin(&["status"]));
        repo.jin(&["uninstall", "--purge"]);
        assert_pristine(&repo, &before, name);
        repo.jin(&["install"]);
        let output = git_with(&repo, &[], &["checkout", "-q", "-b", "topic"]);
        assert!(output.status.success(), "{name}: git works: {}", text(&output.stderr));
        assert!(!repo.logged().is_empty(), "{name}: it is logged");
    }
}

#[test]
fn install_says_what_steps_aside() {
    let repo = with_nosy_hooks();
    insta::assert_snapshot!(repo.jin(&["install"]), @"
    --- stderr
    jin-txn: [DIR]/repo/.git is protected
    jin-txn: the reference-transaction hook that was there runs after ours ([DIR]/repo/.git/hooks.before-jin-txn/reference-transaction)
    jin-txn: the post-checkout hook that was there runs after ours ([DIR]/repo/.git/hooks.before-jin-txn/post-checkout)
    jin-txn: `git txn status` shows its state; `git txn uninstall` takes the protection away
    --- exit 0
    ");
    insta::assert_snapshot!(shown(&repo, &repo.git(["txn", "status"])), @"
    protected: [DIR]/repo/.git
    durability: full (power cuts)
    clean: nothing is unfinished
    --- stderr
    --- exit 0
    ");
}

#[test]
fn a_hook_that_takes_our_place_later_is_told_and_installing_again_runs_both() {
    let repo = unprotected();
    repo.install_guard();
    let hook = repo.git_dir().join("hooks/post-checkout");
    write_file(&hook, "#!/bin/sh\necho later\n", 0o755);
    insta::assert_snapshot!(shown(&repo, &repo.try_git(["txn", "status"])), @"
    not protected: [DIR]/repo/.git
      the post-checkout hook is not jin-txn's ([DIR]/repo/.git/hooks/post-checkout): run `jin-txn install`, then both run
    clean: nothing is unfinished
    --- stderr
    --- exit 6
    ");
    insta::assert_snapshot!(shown(&repo, &repo.try_git(["txn", "check"])), @"
    clean: nothing is unfinished
    --- stderr
    jin-txn: not protected: the post-checkout hook is not jin-txn's ([DIR]/repo/.git/hooks/post-checkout): run `jin-txn install`, then both run
    --- exit 6
    ");
    repo.jin(&["install"]);
    assert!(repo.is_protected(), "{}", repo.jin(&["status"]));
    let output = repo.git(["checkout", "-q", "-b", "topic"]);
    assert_eq!(text(&output.stderr).trim(), "later", "theirs runs");
    repo.jin(&["uninstall"]);
    assert_eq!(fs::read_to_string(&hook).expect("it is there"), "#!/bin/sh\necho later\n", "and is back in its place");
}

#[test]
fn a_hook_that_replaces_ours_and_an_older_one_keeps_both_files() {
    let repo = with_nosy_hooks();
    repo.install_guard();
    let hooks = repo.git_dir().join("hooks");
    write_file(&hooks.join("post-checkout"), "#!/bin/sh\necho newer\n", 0o755);
    repo.jin(&["install"]);
    let output = git_with(&repo, &[], &["checkout", "-q", "-b", "topic"]);
    assert!(text(&output.stderr).contains("newer"), "the newer one runs: {}", text(&output.stderr));
    insta::assert_snapshot!(repo.jin(&["uninstall"]), @"
    --- stderr
    jin-txn: another hook is in its place now, so [DIR]/repo/.git/hooks.before-jin-txn/post-checkout.older-1 stays where it is
    jin-txn: [DIR]/repo/.git is no longer protected; the log stays in [DIR]/repo/.git/.jin
    --- exit 0
    ");
    let content = |path: &Path| fs::read_to_string(path).expect("it can be read");
    assert_eq!(content(&hooks.join("post-checkout")), "#!/bin/sh\necho newer\n", "the newer one is in its place");
    assert_eq!(content(&hooks.join("reference-transaction")), NOSY, "the other hook is back");
    let older = repo.git_dir().join("hooks.before-jin-txn/post-checkout.older-1");
    assert_eq!(content(&older), NOSY, "the older one is not lost");
}

#[test]
fn an_upgrade_leaves_what_stepped_aside_where_it_is() {
    let repo = with_nosy_hooks();
    let before = pristine(&repo);
    let older = repo.scratch().join("jin-txn-older");
    let copied = Command::new("cp").arg(jin_txn()).arg(&older).status();
    assert!(copied.is_ok_and(|status| status.success()), "the binary can be copied");
    assert!(repo.run(older.as_os_str(), repo.path(), ["install"], b"").status.success(), "the older one installs");
    repo.jin(&["install"]);
    fs::remove_file(&older).expect("the older one can go");
    assert!(git_with(&repo, &[], &["branch", "topic"]).status.success(), "git works");
    assert!(notes(&repo).contains("refs/heads/topic"), "theirs runs");
    assert_eq!(repo.logged().len(), 1, "ours runs: {:?}", repo.logged());
    repo.git(["update-ref", "-d", "refs/heads/topic"]);
    repo.jin(&["uninstall", "--purge"]);
    assert_eq!(before.1, pristine(&repo).1, "and all is as before the older one");
}

#[test]
fn a_hook_that_calls_us_stays_where_it_is() {
    let repo = unprotected();
    let hook = repo.git_dir().join("hooks/reference-transaction");
    let script = format!("#!/bin/sh\nexec '{}' hook reference-transaction \"$@\" # jin-txn\n", jin_txn().display());
    write_file(&hook, &script, 0o755);
    repo.install_guard();
    assert_eq!(fs::read_to_string(&hook).expect("it is there"), script, "it is not touched");
    assert!(repo.is_protected(), "{}", repo.jin(&["status"]));
    repo.git(["branch", "topic"]);
    assert_eq!(repo.logged().len(), 1, "{:?}", repo.logged());
}

#[test]
fn a_program_is_not_written_over_through_its_links() {
    let repo = unprotected();
    let binary = repo.scratch().join("jin-txn");
    let copied = Command::new("cp").arg(jin_txn()).arg(&binary).status();
    assert!(copied.is_ok_and(|status| status.success()), "the binary can be copied");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("the mode can be set");
    let size = fs::metadata(&binary).expect("it is there").len();
    assert!(repo.run(binary.as_os_str(), repo.path(), ["install"], b"").status.success(), "it can be installed");
    // As hook managers do it.
    fs::write(repo.git_dir().join("hooks/post-checkout"), "#!/bin/sh\n").expect("it can be written");
    let metadata = fs::metadata(&binary).expect("it is there");
    assert_eq!(metadata.len(), size, "the program is whole");
    assert_eq!(metadata.mode() & 0o222, 0, "and nobody but root may write to it");
}
