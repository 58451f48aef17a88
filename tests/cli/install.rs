//! Putting jin-txn into a repository and taking it out again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::observe::{Tree, assert_same, shown, tree};
use crate::support::repo::{Git, Options, Repo, jin_txn, text, write_file};

fn unprotected() -> Repo {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    repo
}

fn protected() -> Repo {
    let repo = unprotected();
    repo.install_guard();
    repo
}

/// The git directory as far as it is not ours.
fn theirs(repo: &Repo) -> Tree {
    tree(&repo.git_dir()).into_iter().filter(|(name, _)| !name.starts_with(".jin")).collect()
}

fn status(repo: &Repo) -> String {
    text(&repo.try_git(["txn", "status"]).stdout).into_owned()
}

fn logged(repo: &Repo) -> String {
    text(&repo.jin_txn(["log"]).stdout).into_owned()
}

/// Expects a refusal that changes nothing, and returns what it said.
fn refused(repo: &Repo) -> String {
    let before = tree(&repo.git_dir());
    let output = repo.jin_txn(["install"]);
    let shown = shown(repo, &output);
    assert_eq!(output.status.code(), Some(1), "the installation is refused: {shown}");
    assert_same(&before, &tree(&repo.git_dir()), &format!("it was refused, and yet something changed\n{shown}"));
    shown
}

/// By another process: a file that is open for writing, here or in a child just being started, cannot be run.
fn copy_binary(to: &Path) {
    let status = Command::new("cp").arg(jin_txn()).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()), "the binary can be copied");
}

/// Makes a git directory odd before the installation.
type Prepare<'a> = &'a dyn Fn(&Path);

fn run_here(repo: &Repo, directory: &Path, arguments: &[&str], input: &[u8]) -> Output {
    repo.run(Git::under_test().program.as_os_str(), directory, arguments, input)
}

#[test]
fn install_links_the_hooks_sets_the_alias_and_the_next_commit_is_logged() {
    let repo = unprotected();
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["install"])), @"
    --- stderr
    jin-txn: [DIR]/repo/.git is protected
    jin-txn: `git txn status` shows its state; `git txn uninstall` takes the protection away
    --- exit 0
    ");
    let target = fs::read_link(repo.git_dir().join("hooks/reference-transaction")).expect("the hook is a link");
    assert_eq!(target, jin_txn(), "it is this very binary");
    assert!(target.is_absolute(), "it works from everywhere");
    let script = fs::read_to_string(repo.git_dir().join("hooks/post-checkout")).expect("the hook is a script");
    insta::assert_snapshot!(script.replace(&jin_txn().display().to_string(), "[BIN]"), @r#"
    #!/bin/sh
    # Written by `jin-txn install`; `jin-txn uninstall` takes it out again. What follows below runs after it.
    [ "${JIN_TXN_THEN-}" = $$ ] || [ ! -x [BIN] ] || exec [BIN] hook --rest "$0" post-checkout "$@"
    unset JIN_TXN_THEN
    "#);
    let alias = repo.read(["config", "--local", "alias.txn"]);
    assert_eq!(alias, format!("!{}", jin_txn().display()), "`git txn` is this very binary");
    assert!(repo.git_dir().join(".jin/wal").is_dir(), "the log is begun");

    repo.commit_all("two");
    insta::assert_snapshot!(shown(&repo, &repo.git(["txn", "log"])), @"
    tx-1     [TIME]  committed       1 ref  git commit --quiet --allow-empty -m two
    --- stderr
    --- exit 0
    ");
    insta::assert_snapshot!(shown(&repo, &repo.git(["txn", "status"])), @r"
    protected: [DIR]/repo/.git
    durability: full (power cuts)
    clean: nothing is unfinished
    --- stderr
    --- exit 0
    ");
    let marker = crate::support::invariants::judge_markers(&repo);
    assert!(marker.is_none(), "nothing is marked as unfinished after a commit: {marker:?}");
}

#[test]
fn a_protected_repository_is_silent() {
    let repo = protected();
    for command in [
        &["commit", "--allow-empty", "-q", "-m", "two"][..],
        &["branch", "topic"],
        &["checkout", "-q", "topic"],
        &["tag", "v1"],
        &["branch", "-q", "-D", "main"],
        &["gc", "-q"],
    ] {
        let output = repo.git(command);
        let said = [output.stdout, output.stderr].concat();
        assert!(said.is_empty(), "{command:?} says {}", text(&said));
    }
}

#[test]
fn uninstall_leaves_the_git_directory_byte_for_byte() {
    let odd = "# mine\n[core]\n  repositoryFormatVersion=0\n\tbare   = false ; really\n\n[user]name = \"J \\\"in\\\"\"\n\
               [Alias]\n\tst = status\n[remote \"o.r\"]url=x";
    let cases: [(&str, Prepare<'_>); 6] = [
        ("no hooks directory", &|_| {}),
        ("an empty hooks directory", &|git| fs::create_dir(git.join("hooks")).expect("it can be made")),
        ("sample hooks and one of the user's", &|git| {
            write_file(&git.join("hooks/pre-commit.sample"), "#!/bin/sh\nexit 1\n", 0o755);
            write_file(&git.join("hooks/reference-transaction.sample"), "#!/bin/sh\nexit 1\n", 0o644);
            write_file(&git.join("hooks/pre-commit"), "#!/bin/sh\nexit 0\n", 0o750);
        }),
        ("odd formatting", &|git| write_file(&git.join("config"), odd, 0o644)),
        ("a private configuration", &|git| write_file(&git.join("config"), odd, 0o600)),
        ("carriage returns", &|git| write_file(&git.join("config"), "[core]\r\n\tbare = false\r\n", 0o644)),
    ];
    for (name, prepare) in cases {
        let repo = unprotected();
        prepare(&repo.git_dir());
        let before = theirs(&repo);
        repo.install_guard();
        assert!(theirs(&repo) != before, "{name}: install did something");
        let output = repo.jin_txn(["uninstall"]);
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        assert_same(&before, &theirs(&repo), name);
        assert!(repo.git_dir().join(".jin/wal").is_dir(), "{name}: the log stays");
    }
}

#[test]
fn uninstall_says_where_the_log_stays_and_with_purge_nothing_stays() {
    let repo = unprotected();
    let before = tree(&repo.git_dir());
    repo.install_guard();
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["uninstall"])), @"
    --- stderr
    jin-txn: [DIR]/repo/.git is no longer protected; the log stays in [DIR]/repo/.git/.jin
    --- exit 0
    ");
    repo.install_guard();
    insta::assert_snapshot!(shown(&repo, &repo.git(["txn", "uninstall", "--purge"])), @"
    --- stderr
    jin-txn: [DIR]/repo/.git is no longer protected
    --- exit 0
    ");
    assert_same(&before, &tree(&repo.git_dir()), "it is as if jin-txn had never been there");
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["uninstall"])), @"
    --- stderr
    error: [DIR]/repo/.git is not protected
    --- exit 1
    ");
}

/// What is there before an installation, and how many entries the notes' directory has afterwards, if it is still there.
type Around<'a> = (&'static str, &'a dyn Fn(&Repo, &Path), Option<usize>);

#[test]
fn uninstall_leaves_nothing_of_ours_outside_of_the_repository_but_notes_of_others() {
    let guarded =
        |repo: &Repo, name: &str| drop(repo.new_sibling(name, Options { guarded: true, ..Options::default() }));
    let linked = |notes: &Path| {
        let elsewhere = notes.with_file_name("elsewhere");
        fs::create_dir(&elsewhere).and_then(|()| symlink(elsewhere, notes)).expect("they can be made");
    };
    let around: [Around<'_>; 5] = [
        ("the last repository", &|_, _| {}, None),
        ("another repository", &|repo, _| guarded(repo, "other"), Some(1)),
        ("a repository that is removed", &|repo, _| guarded(repo, "removed"), None),
        ("a file of somebody", &|_, notes| write_file(&notes.join("theirs"), "theirs", 0o600), Some(1)),
        ("a link to an empty directory", &|_, notes| linked(notes), Some(0)),
    ];
    for (what, before_install, left) in around {
        let repo = unprotected();
        let notes = repo.scratch().join("home/.local/state/jin-txn");
        fs::create_dir_all(notes.parent().expect("it has one")).expect("it can be made");
        before_install(&repo, &notes);
        let before = tree(repo.scratch());
        repo.install_guard();
        let is_removed = fs::remove_dir_all(repo.scratch().join("removed")).is_ok();
        repo.jin(&["uninstall", "--purge"]);
        assert_eq!(fs::read_dir(&notes).ok().map(Iterator::count), left, "{what}");
        if !is_removed {
            assert_same(&before, &tree(repo.scratch()), what);
        }
    }
}

#[test]
fn what_the_user_configured_in_between_stays() {
    let repo = protected();
    repo.git(["config", "user.name", "Somebody"]);
    repo.git(["config", "alias.st", "status"]);
    assert!(repo.jin_txn(["uninstall"]).status.success(), "uninstall works on a changed configuration");
    let config = fs::read_to_string(repo.git_dir().join("config")).expect("it can be read");
    assert!(!config.contains("txn"), "our setting is gone: {config}");
    assert_eq!(repo.read(["config", "--local", "user.name"]), "Somebody", "{config}");
    assert_eq!(repo.read(["config", "--local", "alias.st"]), "status", "{config}");
    assert_eq!(repo.try_git(["config", "core.bare"]).status.code(), Some(0), "{config}");
}

#[test]
fn hooks_and_an_alias_that_the_user_replaced_stay() {
    let repo = protected();
    let hook = repo.git_dir().join("hooks/post-checkout");
    fs::remove_file(&hook).expect("the user can remove it");
    write_file(&hook, "#!/bin/sh\n", 0o755);
    repo.git(["config", "alias.txn", "status"]);
    assert!(status(&repo).is_empty() || !status(&repo).contains("protected:"), "`git txn` is the user's now");
    let said = text(&repo.jin_txn(["status"]).stdout).into_owned();
    assert!(said.contains("is not jin-txn's"), "status tells of the replaced hook: {said}");
    assert!(repo.jin_txn(["uninstall"]).status.success(), "uninstall takes what is ours");
    assert_eq!(fs::read_to_string(&hook).expect("it is there"), "#!/bin/sh\n", "the user's hook stays");
    assert_eq!(repo.read(["config", "alias.txn"]), "status", "the user's alias stays");
    assert!(!repo.git_dir().join("hooks/reference-transaction").exists(), "our other hook is gone");
}

#[test]
fn installing_twice_is_installing_once() {
    let repo = unprotected();
    let before = theirs(&repo);
    repo.install_guard();
    let once = tree(&repo.git_dir());
    repo.install_guard();
    assert_same(&once, &tree(&repo.git_dir()), "the second time changed something");
    assert!(repo.jin_txn(["uninstall"]).status.success(), "one uninstall suffices");
    assert_same(&before, &theirs(&repo), "uninstall knows what was before the first time");
}

#[test]
fn installing_again_repairs() {
    let repo = protected();
    let hook = repo.git_dir().join("hooks/reference-transaction");
    fs::remove_file(&hook).expect("it can be removed");
    insta::assert_snapshot!(shown(&repo, &repo.try_git(["txn", "status"])), @"
    not protected: [DIR]/repo/.git
      the reference-transaction hook is missing: run `jin-txn install`
    clean: nothing is unfinished
    --- stderr
    --- exit 6
    ");
    repo.install_guard();
    assert!(hook.exists(), "the hook is back");
    assert!(status(&repo).starts_with("protected"), "{}", status(&repo));
}

#[test]
fn a_foreign_alias_is_refused() {
    let repo = unprotected();
    repo.git(["config", "alias.txn", "log --oneline"]);
    insta::assert_snapshot!(refused(&repo), @"
    --- stderr
    error: there is an alias `txn` already: `log --oneline`
    hint: nothing was changed; rename it
    --- exit 1
    ");
}

#[test]
fn every_kind_of_repository_can_be_protected() {
    let plain = Options::default();
    for (name, options) in [
        ("bare.git", Options { bare: true, ..plain }),
        ("sha256", Options { object_format: Some("sha256"), ..plain }),
        ("with space, 'quotes' \"both\" and $HOME;`x` \\", plain),
        ("-dash", plain),
        ("ünïcödé", plain),
    ] {
        let repo = unprotected().new_sibling(name, Options { guarded: true, ..options });
        let tree = repo.git_with_input(["mktree"], "").stdout;
        let commit = repo.read(["commit-tree", text(&tree).trim(), "-m", "one"]);
        repo.git(["update-ref", "refs/heads/topic", &commit]);
        let log = text(&repo.git(["txn", "log"]).stdout).into_owned();
        assert!(log.contains("tx-1") && log.contains("committed"), "{name}: {log}");
        assert!(status(&repo).starts_with("protected"), "{name}: {}", status(&repo));
        assert!(status(&repo).contains("clean"), "{name}: {}", status(&repo));
        assert!(repo.git(["txn", "uninstall"]).status.success(), "{name} can be left");
    }
}

#[test]
fn a_repository_can_be_named_as_an_argument() {
    let repo = unprotected();
    let output = repo.run(jin_txn().as_os_str(), repo.scratch(), ["install", "repo"], b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(status(&repo).starts_with("protected"), "{}", status(&repo));
}

#[test]
fn a_linked_worktree_installs_for_all_worktrees() {
    let repo = unprotected();
    repo.git(["worktree", "add", "-q", "../linked"]);
    let linked = repo.sibling("linked");
    assert!(linked.jin_txn(["install"]).status.success(), "it can be installed from a linked worktree");
    assert!(repo.git_dir().join(".jin").is_dir(), "the state lies in the common directory");
    assert!(!repo.git_dir().join("worktrees/linked/.jin").exists(), "and there alone");
    for directory in [repo.path(), linked.path()] {
        run_here(&repo, directory, &["commit", "-q", "--allow-empty", "-m", "two"], b"");
        let said = run_here(&repo, directory, &["txn", "status"], b"");
        assert!(text(&said.stdout).starts_with("protected"), "{}: {}", directory.display(), text(&said.stdout));
    }
    assert_eq!(logged(&repo).lines().count(), 2, "a commit in each is logged: {}", logged(&repo));
}

#[test]
fn a_binary_in_an_odd_place_works_and_blocks_nobody_when_it_is_gone() {
    let repo = unprotected();
    let directory = repo.scratch().join("it's a \"place\"");
    fs::create_dir(&directory).expect("it can be made");
    let binary = directory.join("jin-txn");
    copy_binary(&binary);
    assert!(repo.run(binary.as_os_str(), repo.path(), ["install"], b"").status.success(), "it can be installed");
    assert!(status(&repo).starts_with("protected"), "the alias is quoted: {}", status(&repo));

    fs::remove_file(&binary).expect("it can be removed");
    repo.commit_all("two");
    repo.git(["checkout", "-q", "-b", "topic"]);
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["status"])), @"
    not protected: [DIR]/repo/.git
      the reference-transaction hook points to a jin-txn that is gone: run `jin-txn install`
      the post-checkout hook points to a jin-txn that is gone: run `jin-txn install`
    clean: nothing is unfinished
    --- stderr
    --- exit 6
    ");
    repo.install_guard();
    assert!(status(&repo).starts_with("protected"), "installing again repairs: {}", status(&repo));
}

#[test]
fn off_is_off() {
    let repo = protected();
    let mut git = repo.command(Git::under_test().program.as_os_str());
    let output = git.env("JIN_TXN", "off").args(["branch", "topic"]).output().expect("git runs");
    assert!(output.status.success(), "git works without us: {}", text(&output.stderr));
    assert_eq!(logged(&repo), "", "nothing is logged");
    repo.git(["branch", "other"]);
    assert_eq!(logged(&repo).lines().count(), 1, "and without `off` it is: {}", logged(&repo));
}

#[test]
fn a_binary_under_another_name_is_taken_out_again() {
    let repo = unprotected();
    let before = theirs(&repo);
    let binary = repo.scratch().join("jin-txn-0.1");
    copy_binary(&binary);
    for command in ["install", "install", "uninstall"] {
        let output = repo.run(binary.as_os_str(), repo.path(), [command], b"");
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    }
    assert_same(&before, &theirs(&repo), "it said that the repository is no longer protected");
}

/// `core.fsync` before, after `install`, and after `uninstall`.
struct Sync {
    name: &'static str,
    before: Option<&'static str>,
    installed: Option<&'static str>,
    durability: &'static str,
}

#[test]
fn install_lets_git_sync_what_it_must_and_uninstall_takes_that_back() {
    const OURS: &str = "loose-object,index";
    for Sync { name, before, installed, durability } in [
        Sync { name: "nothing set", before: None, installed: Some(OURS), durability: "full" },
        Sync { name: "too weak", before: Some("none"), installed: Some(OURS), durability: "full" },
        Sync { name: "stronger", before: Some("all"), installed: Some("all"), durability: "full" },
        Sync { name: "process only", before: None, installed: None, durability: "process" },
        Sync { name: "process only, set", before: Some("none"), installed: Some("none"), durability: "process" },
    ] {
        for config_changes_meanwhile in [false, true] {
            let repo = Repo::new(Options::default());
            before.into_iter().for_each(|value| drop(repo.git(["config", "core.fsync", value])));
            let config = || fs::read(repo.git_dir().join("config")).expect("there is a configuration");
            let pristine = config();
            assert!(repo.jin_txn(["install", "--durability", durability]).status.success(), "{name}: install");
            assert_eq!(setting(&repo, "core.fsync").as_deref(), installed, "{name}");
            if config_changes_meanwhile {
                repo.git(["config", "some.thing", "else"]);
            }
            assert!(repo.jin_txn(["install"]).status.success(), "{name}: again, what was chosen stays chosen");
            assert_eq!(setting(&repo, "core.fsync").as_deref(), installed, "{name}");
            assert!(repo.jin_txn(["uninstall"]).status.success(), "{name}: uninstall");
            assert_eq!(setting(&repo, "core.fsync").as_deref(), before, "{name}");
            assert!(config_changes_meanwhile || config() == pristine, "{name}: byte for byte");
        }
    }
}

#[test]
fn going_back_to_process_durability_gives_git_its_own_setting_again() {
    let repo = Repo::new(Options::default());
    repo.git(["config", "core.fsync", "none"]);
    let pristine = fs::read(repo.git_dir().join("config")).expect("there is a configuration");
    for (durability, fsync) in [("full", "loose-object,index"), ("process", "none"), ("full", "loose-object,index")] {
        assert!(repo.jin_txn(["install", "--durability", durability]).status.success());
        assert_eq!(setting(&repo, "core.fsync").as_deref(), Some(fsync), "{durability}");
    }
    assert!(repo.jin_txn(["uninstall"]).status.success());
    assert_eq!(fs::read(repo.git_dir().join("config")).expect("there is a configuration"), pristine);
}

#[test]
fn status_says_when_somebody_weakened_what_git_syncs() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.git(["config", "core.fsync", "none"]);
    repo.git(["config", "core.fsyncMethod", "writeout-only"]);
    insta::assert_snapshot!(shown(&repo, &repo.git(["txn", "status"])), @r"
    protected: [DIR]/repo/.git
    durability: full (power cuts)
      weakened: core.fsync is `none`: a power cut may damage staged files; run `jin-txn install`
      weakened: core.fsyncMethod is `writeout-only`: git does not wait for the disk; unset it
    clean: nothing is unfinished
    --- stderr
    --- exit 0
    ");
    assert!(repo.jin_txn(["install", "--durability", "process"]).status.success());
    insta::assert_snapshot!(shown(&repo, &repo.git(["txn", "status"])), @r"
    protected: [DIR]/repo/.git
    durability: process (killed processes; `jin-txn install --durability full` for power cuts)
    clean: nothing is unfinished
    --- stderr
    --- exit 0
    ");
}

fn setting(repo: &Repo, key: &str) -> Option<String> {
    let found = repo.try_git(["config", "--local", "--get", key]);
    found.status.success().then(|| text(&found.stdout).trim().to_owned())
}
