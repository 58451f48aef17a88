//! Beside other hooks, and wherever git looks for them: both run, a veto of either counts, and all of it can be taken back.

#![allow(clippy::disallowed_methods, reason = "what the program must not do directly, its tests may")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::observe::{Tree, age, assert_same, shown, times, tree};
use support::repo::{Git, Options, Repo, jin_txn, text, write_file};

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

fn older_than_config_hooks() -> bool {
    let old = !Git::under_test().is_at_least(2, 54);
    if !old {
        println!("skipped: this git can be told in its configuration");
    }
    old
}

fn has_config_hooks() -> bool {
    let new = Git::under_test().is_at_least(2, 54);
    if !new {
        println!("skipped: hooks in the configuration came with git 2.54");
    }
    new
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
        assert!(support::invariants::judge_markers(&repo).is_none(), "{state}: nothing is left unfinished");
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
    jin-txn: `git txn status` looks after it, `git txn uninstall` puts everything back
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
    insta::assert_snapshot!(shown(&repo, &repo.git(["txn", "status"])), @"
    not protected: [DIR]/repo/.git
      the post-checkout hook is somebody else's ([DIR]/repo/.git/hooks/post-checkout): run `jin-txn install`, then both run
    clean: nothing is unfinished
    --- stderr
    --- exit 0
    ");
    insta::assert_snapshot!(shown(&repo, &repo.git(["txn", "check"])), @"
    clean: nothing is unfinished
    --- stderr
    jin-txn: not protected: the post-checkout hook is somebody else's ([DIR]/repo/.git/hooks/post-checkout): run `jin-txn install`, then both run
    --- exit 0
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
    jin-txn: another hook has taken that place since: [DIR]/repo/.git/hooks.before-jin-txn/post-checkout.older-1 stays there
    jin-txn: [DIR]/repo/.git is no longer protected; the log stays in [DIR]/repo/.git/.jin
    --- exit 0
    ");
    let content = |path: &Path| fs::read_to_string(path).expect("it can be read");
    assert_eq!(content(&hooks.join("post-checkout")), "#!/bin/sh\necho newer\n", "the newer one is in its place");
    assert_eq!(content(&hooks.join("reference-transaction")), NOSY, "the other hook is back");
    let older = repo.git_dir().join("hooks.before-jin-txn/post-checkout.older-1");
    assert_eq!(content(&older), NOSY, "the older one is not lost");
}

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
            assert!(!repo.git_dir().join("hooks.before-jin-txn").exists(), "{reason}: nothing stays aside");

            // They leave: ours goes on.
            let repo = repo.sibling("copy");
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
    assert!(said.contains("hooks.before-jin-txn/post-checkout.added stays there"), "{said}");
    let kept = fs::read_to_string(repo.git_dir().join("hooks.before-jin-txn/post-checkout.added"));
    assert_eq!(kept.expect("it is there"), "echo added\n");
    let program = fs::read(hooks.join("post-checkout")).expect("it is back");
    assert_eq!(program, fs::read("/bin/true").expect("it can be read"), "the program is back");
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

#[test]
fn a_directory_of_the_repositorys_own_gets_the_hooks() {
    for (name, place) in [
        ("in the git directory", "REPO/.git/our-hooks"),
        ("ignored, relative", "local/hooks"),
        ("by way of a link", "REPO/../link-to-repo/.git/our-hooks"),
    ] {
        let repo = unprotected();
        fs::write(repo.git_dir().join("info-exclude"), "").ok();
        write_file(&repo.git_dir().join("info/exclude"), "local/\n", 0o644);
        let value = place.replace("REPO", &repo.path().display().to_string());
        let directory = repo.path().join(&value);
        symlink(repo.path(), repo.scratch().join("link-to-repo")).expect("a link can be made");
        repo.git(["config", "core.hooksPath", &value]);
        write_file(&directory.join("post-checkout"), "#!/bin/sh\necho theirs\n", 0o755);
        age(&directory);
        let (before, there) = (pristine(&repo), (tree(&directory), times(&directory)));
        repo.jin(&["install"]);
        assert!(directory.join("reference-transaction").exists(), "{name}: ours is there");
        assert!(repo.is_protected(), "{name}: {}", repo.jin(&["status"]));
        assert_eq!(repo.read(["status", "--porcelain"]), "", "{name}: git sees nothing new");
        repo.jin(&["uninstall", "--purge"]);
        assert_pristine(&repo, &before, name);
        assert_same(&there.0, &tree(&directory), name);
        assert_eq!(there.1, times(&directory), "{name}: times of hooks");
        repo.jin(&["install"]);
        let output = repo.git(["checkout", "-q", "-b", "topic"]);
        assert_eq!(text(&output.stderr).trim(), "theirs", "{name}: both run");
        assert!(!repo.logged().is_empty(), "{name}: {:?}", repo.logged());
    }
}

/// Where hooks lie that are not ours to touch.
fn in_other_hands() -> [(&'static str, Prepare); 7] {
    fn hook(directory: &Path) {
        write_file(&directory.join("post-checkout"), "#!/bin/sh\necho theirs\n", 0o755);
    }
    [
        ("tracked", |repo, _| {
            hook(&repo.path().join(".githooks"));
            repo.commit_all("hooks");
            repo.git(["config", "core.hooksPath", ".githooks"]);
        }),
        ("generated beside tracked files", |repo, _| {
            repo.write(".husky/pre-commit", "true\n");
            hook(&repo.path().join(".husky/_"));
            repo.write(".husky/_/.gitignore", "*\n");
            repo.commit_all("hooks");
            repo.git(["config", "core.hooksPath", ".husky/_"]);
        }),
        ("global", |repo, _| {
            let directory = repo.scratch().join("home/hooks");
            hook(&directory);
            repo.git(["config", "--global", "core.hooksPath", "~/hooks"]);
        }),
        ("outside", |repo, _| {
            let directory = repo.scratch().join("hooks-of-several");
            hook(&directory);
            repo.git(["config", "core.hooksPath", &directory.display().to_string()]);
        }),
        ("outside, relative", |repo, _| {
            hook(&repo.scratch().join("hooks-of-several"));
            repo.git(["config", "core.hooksPath", "../hooks-of-several"]);
        }),
        ("outside by a link", |repo, _| {
            hook(&repo.scratch().join("hooks-of-several"));
            symlink("../hooks-of-several", repo.path().join("linked-hooks")).expect("a link can be made");
            write_file(&repo.git_dir().join("info/exclude"), "linked-hooks\n", 0o644);
            repo.git(["config", "core.hooksPath", "linked-hooks"]);
        }),
        ("a link out of the repository", |repo, hooks| {
            let directory = repo.scratch().join("shared-hooks");
            hook(&directory);
            symlink(directory, hooks).expect("a link can be made");
        }),
    ]
}

/// Everything below the scratch directory but the git directory.
fn outside(repo: &Repo) -> Tree {
    let inside = repo.git_dir().strip_prefix(repo.scratch()).expect("it lies there").to_owned();
    tree(repo.scratch()).into_iter().filter(|(name, _)| !name.starts_with(&inside)).collect()
}

#[test]
fn hooks_in_other_hands_stay_untouched_and_the_configuration_calls_us() {
    if !has_config_hooks() {
        return;
    }
    let nowhere: (_, Prepare) = ("outside, and missing", |repo, _| {
        repo.git(["config", "core.hooksPath", &repo.scratch().join("missing").display().to_string()]);
    });
    for (name, prepare) in in_other_hands().into_iter().chain([nowhere]) {
        let repo = unprotected();
        prepare(&repo, &repo.git_dir().join("hooks"));
        let (before, around) = (tree(&repo.git_dir()), outside(&repo));
        repo.jin(&["install"]);
        assert!(repo.is_protected(), "{name}: {}", repo.jin(&["status"]));
        let output = repo.git(["checkout", "-q", "-b", "topic"]);
        let theirs = if name.ends_with("missing") { "" } else { "theirs" };
        assert_eq!(text(&output.stderr).trim(), theirs, "{name}: both run");
        let log = repo.logged();
        repo.git(["branch", "other"]);
        assert_eq!(repo.logged().len(), log.len() + 1, "{name}: it is logged once: {:?}", repo.logged());
        repo.git(["checkout", "-q", "main"]);
        repo.git(["branch", "-q", "-D", "topic", "other"]);
        assert_same(&around, &outside(&repo), &format!("{name}: something was written there"));
        repo.jin(&["uninstall", "--purge"]);
        let ours = |tree: &Tree| {
            tree.iter()
                .filter(|(n, _)| n.starts_with("hooks") || n.ends_with("config"))
                .map(|(n, f)| (n.clone(), f.clone()))
                .collect::<Tree>()
        };
        assert_same(&ours(&before), &ours(&tree(&repo.git_dir())), name);
        assert!(!repo.git_dir().join(".jin").exists(), "{name}: nothing of ours is left");
    }
}

#[test]
fn hooks_in_the_configuration_never_veto_when_the_program_is_gone() {
    if !has_config_hooks() {
        return;
    }
    let repo = unprotected();
    repo.git(["config", "--global", "core.hooksPath", "/dev/null"]);
    let directory = repo.scratch().join("it's a \"place\"");
    fs::create_dir(&directory).expect("it can be made");
    let binary = directory.join("jin-txn");
    let copied = Command::new("cp").arg(jin_txn()).arg(&binary).status();
    assert!(copied.is_ok_and(|status| status.success()), "the binary can be copied");
    assert!(repo.run(binary.as_os_str(), repo.path(), ["install"], b"").status.success(), "it can be installed");
    repo.git(["branch", "topic"]);
    assert_eq!(repo.logged().len(), 1, "quotes in its path do no harm: {:?}", repo.logged());
    fs::remove_file(&binary).expect("it can be removed");
    let output = repo.git(["checkout", "-q", "-b", "other"]);
    assert!(output.stderr.is_empty(), "git goes on in silence: {}", text(&output.stderr));
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["status"])), @r#"
    not protected: [DIR]/repo/.git
      the hooks in the configuration call [DIR]/it's a "place"/jin-txn, which is gone: run `jin-txn install`
    clean: nothing is unfinished
    --- stderr
    --- exit 0
    "#);
    repo.install_guard();
    assert!(repo.is_protected(), "installing again repairs: {}", repo.jin(&["status"]));
}

#[test]
fn a_hook_in_the_configuration_and_one_in_the_directory_log_once() {
    if !has_config_hooks() {
        return;
    }
    for ref_format in ["files", "reftable"] {
        let repo = Repo::new(Options { ref_format: Some(ref_format), ..Options::default() });
        repo.git(["config", "--global", "core.hooksPath", "/dev/null"]);
        repo.install_guard();
        repo.git(["config", "--global", "--unset", "core.hooksPath"]);
        fs::create_dir_all(repo.git_dir().join("hooks")).expect("it can be made");
        symlink(jin_txn(), repo.git_dir().join("hooks/reference-transaction")).expect("a link can be made");
        repo.commit_all("one");
        repo.git(["branch", "topic"]);
        repo.git(["pack-refs", "--all"]);
        repo.git(["branch", "-q", "-D", "topic"]);
        let log = repo.logged();
        assert_eq!(log.len(), 3, "{ref_format}: {log:?}");
        assert!(log.iter().all(|line| line.contains("committed")), "{ref_format}: {log:?}");
    }
}

#[test]
fn an_older_git_is_refused_with_lines_that_work_when_they_are_copied() {
    if !older_than_config_hooks() {
        return;
    }
    for (name, prepare) in in_other_hands() {
        let repo = unprotected();
        prepare(&repo, &repo.git_dir().join("hooks"));
        let (before, around) = (tree(&repo.git_dir()), outside(&repo));
        let output = repo.jin_txn(["install"]);
        assert_eq!(output.status.code(), Some(1), "{name}: it is refused: {}", shown(&repo, &output));
        assert_same(&before, &tree(&repo.git_dir()), &format!("{name}: refused, and yet something changed"));
        assert_same(&around, &outside(&repo), &format!("{name}: something was written there"));
        let said = text(&output.stderr).into_owned();
        let lines: Vec<&str> = said.lines().skip_while(|line| !line.ends_with("/reference-transaction:")).collect();
        let (path, rest) = lines.split_first().expect("the file is named");
        let script: String =
            rest.iter().map_while(|line| line.strip_prefix("    ")).map(|l| format!("{l}\n")).collect();
        write_file(Path::new(path.trim().trim_end_matches(':')), &script, 0o755);
        repo.jin(&["install"]);
        assert!(repo.is_protected(), "{name}: {}", repo.jin(&["status"]));
        repo.git(["branch", "topic"]);
        assert_eq!(repo.logged().len(), 1, "{name}: it is logged: {:?}", repo.logged());
    }
    for (name, scope) in [("of nobody", "--local"), ("of everybody", "--global")] {
        let repo = unprotected();
        let directory = repo.scratch().join("made by nobody/hooks");
        repo.git(["config", scope, "core.hooksPath", &directory.display().to_string()]);
        let (before, around) = (tree(&repo.git_dir()), outside(&repo));
        let output = repo.jin_txn(["install"]);
        assert_eq!(output.status.code(), Some(1), "{name}: it is refused: {}", shown(&repo, &output));
        let is_ours = text(&output.stderr).contains("is outside of the repository, and does not exist");
        let can_be_unset =
            text(&output.stderr).contains("hint: or use the repository's own hooks directory: `git config");
        assert_eq!((is_ours, can_be_unset), (scope == "--local", scope == "--local"), "{}", text(&output.stderr));
        assert_same(&before, &tree(&repo.git_dir()), &format!("{name}: refused, and yet something changed"));
        assert_same(&around, &outside(&repo), &format!("{name}: something was made there"));
    }
    let repo = unprotected();
    repo.git(["config", "--global", "core.hooksPath", "/etc/our\u{1b}[31mhooks"]);
    let said = shown(&repo, &repo.jin_txn(["install"])).replace(&Git::under_test().version, "[VERSION]");
    let (major, minor) = Git::under_test().version.split_once('.').expect("a version has a dot");
    let short = format!("{major}.{}", minor.split('.').next().expect("it has a second number"));
    insta::assert_snapshot!(said.replace(&format!("this is {short}"), "this is [VERSION]"), @r#"
    --- stderr
    error: core.hooksPath is set to `/etc/our\u{1b}[31mhooks` (global configuration): that directory is not this repository's own
    hint: nothing was changed; git 2.54 and newer could be told in the repository's configuration, this is [VERSION]
    hint: let these be hooks there, executable (or the ends of those that are there), then run `jin-txn install` again:

      /etc/our\u{1b}[31mhooks/reference-transaction:
        #!/bin/sh
        test -x '[BIN]' || exit 0
        exec '[BIN]' hook reference-transaction "$@"

      /etc/our\u{1b}[31mhooks/post-checkout:
        #!/bin/sh
        test -x '[BIN]' || exit 0
        exec '[BIN]' hook post-checkout "$@"
    --- exit 1
    "#);
}
