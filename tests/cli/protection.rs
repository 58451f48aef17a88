//! Is the repository protected, and who is told? `check`, `status`, `list` and the prompt, for each way in which git may cease to
//! call us.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::observe::shown;
use crate::support::repo::{Git, Options, Repo, jin_txn, text};

fn guarded() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    repo
}

/// A way in which git does not call us any more.
struct Broken {
    name: &'static str,
    breaks: fn(&Repo),
}

fn hook(repo: &Repo) -> std::path::PathBuf {
    repo.git_dir().join("hooks/reference-transaction")
}

fn put(repo: &Repo, mode: u32) {
    fs::remove_file(hook(repo)).expect("it is there");
    fs::write(hook(repo), "#!/bin/sh\nexit 0\n").expect("it can be written");
    fs::set_permissions(hook(repo), fs::Permissions::from_mode(mode)).expect("it is there");
}

const BROKEN: [Broken; 6] = [
    Broken { name: "missing", breaks: |repo| fs::remove_file(hook(repo)).expect("it is there") },
    Broken { name: "replaced", breaks: |repo| put(repo, 0o755) },
    Broken {
        name: "not executable",
        breaks: |repo| {
            let path = repo.git_dir().join("hooks/post-checkout");
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("it is there");
        },
    },
    Broken {
        name: "the program is gone",
        breaks: |repo| {
            fs::remove_file(hook(repo)).expect("it is there");
            symlink(repo.scratch().join("gone/jin-txn"), hook(repo)).expect("a link can be made");
        },
    },
    Broken { name: "core.hooksPath here", breaks: |repo| drop(repo.git(["config", "core.hooksPath", "elsewhere"])) },
    Broken {
        name: "core.hooksPath of the user, by an include",
        breaks: |repo| {
            let other = repo.scratch().join("other");
            fs::write(&other, "[core]\n\thooksPath = /nowhere\n").expect("it can be written");
            repo.git(["config", "--global", "include.path", &other.display().to_string()]);
        },
    },
];

#[test]
fn whoever_asks_is_told_that_git_does_not_call_us_whatever_the_reason() {
    let code = |repo: &Repo, arguments: &[&str]| repo.jin_txn(arguments).status.code();
    for Broken { name, breaks } in BROKEN {
        let repo = guarded();
        assert_eq!(code(&repo, &["check"]), Some(0), "{name}");
        assert_eq!(text(&repo.jin_txn(["check", "--prompt"]).stdout), "", "{name}");
        breaks(&repo);
        let check = repo.jin_txn(["check"]);
        assert_eq!(check.status.code(), Some(6), "{name}: {}", shown(&repo, &check));
        assert!(text(&check.stderr).starts_with("jin-txn: not protected: "), "{name}: {}", shown(&repo, &check));
        let quiet = repo.jin_txn(["check", "-q"]);
        assert_eq!((quiet.status.code(), quiet.stdout.len(), quiet.stderr.len()), (Some(6), 0, 0), "{name}");
        assert!(text(&repo.jin_txn(["check", "--json"]).stdout).contains("\"state\": \"unprotected\""), "{name}");
        assert_eq!(text(&repo.jin_txn(["check", "--prompt"]).stdout), "jin:unprotected", "{name}");
        assert_eq!(code(&repo, &["status"]), Some(6), "{name}");
        assert!(text(&repo.jin_txn(["list"]).stdout).starts_with("unprotected "), "{name}");
        // What waits for recovery comes first.
        fs::write(repo.git_dir().join("packed-refs.lock"), "").expect("a lock can be left");
        assert_eq!(code(&repo, &["check", "-q"]), Some(3), "{name}");
    }
}

#[test]
fn a_healthy_repository_is_found_to_be_one_without_any_git() {
    let repo = guarded();
    let traced = repo.scratch().join("traced");
    for arguments in [["check", "--prompt"], ["check", "-q"]] {
        let mut command = repo.command(jin_txn().as_os_str());
        let output = command.env("GIT_TRACE2", &traced).args(arguments).output().expect("it runs");
        assert_eq!((output.status.code(), text(&output.stdout).as_ref()), (Some(0), ""), "{arguments:?}");
        assert!(!traced.exists(), "{arguments:?} has started a git");
    }
}

#[test]
fn a_repository_from_a_template_is_protected_before_its_first_transaction_and_any_other_is_not() {
    let repo = Repo::new(Options::default());
    let unprotected = repo.jin_txn(["check"]);
    insta::assert_snapshot!(shown(&repo, &unprotected), @r"
    [DIR]/repo/.git is not protected: `jin-txn install` protects it
    --- stderr
    --- exit 6
    ");
    repo.jin(&["install", "--template"]);
    repo.run(Git::under_test().program.as_os_str(), repo.scratch(), ["init", "-q", "made"], b"");
    let made = repo.sibling("made");
    assert!(!made.git_dir().join(".jin").exists(), "without that this proves nothing");
    let status = made.jin(&["status"]);
    assert!(status.starts_with("protected: "), "{status}");
    assert_eq!(made.jin_txn(["check"]).status.code(), Some(0));
    let doctor = made.jin(&["doctor"]);
    assert!(doctor.contains(".jin does not exist: the first transaction makes it"), "{doctor}");
    assert!(!made.git_dir().join(".jin").exists(), "looking has made nothing");
    made.write("file", "one\n");
    made.git(["add", "file"]);
    let first = made.jin_txn(["run", "--", "sh", "-c", "git commit -qm one; exit 9"]);
    assert_eq!(first.status.code(), Some(9), "{}", shown(&made, &first));
    assert!(!made.try_git(["rev-parse", "-q", "--verify", "HEAD"]).status.success(), "it was taken back");
    assert_eq!(made.read(["diff", "--cached", "--name-only"]), "file");
}

/// What is in the environment, where, and what `check` answers there.
type Asked<'a> = (&'static str, &'a [(&'static str, &'a str)], &'a Repo, i32);

/// git looks for hooks where this worktree and this environment say, and nowhere else.
#[test]
fn what_git_would_answer_in_this_worktree_and_this_environment_decides() {
    let repo = guarded();
    repo.git(["config", "extensions.worktreeConfig", "true"]);
    for name in ["usual", "elsewhere"] {
        repo.git(["worktree", "add", "-q", &format!("../{name}")]);
    }
    let (usual, elsewhere) = (repo.sibling("usual"), repo.sibling("elsewhere"));
    elsewhere.git(["config", "--worktree", "core.hooksPath", "/nowhere"]);
    let hooks = repo.git_dir().join("hooks").display().to_string();
    let counted =
        |value| [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "core.hooksPath"), ("GIT_CONFIG_VALUE_0", value)];
    let included = repo.scratch().join("included");
    fs::write(&included, "[core]\n\thooksPath = /nowhere\n").expect("it can be written");
    let included = format!("'include.path={}'", included.display());
    let asked: [Asked<'_>; 9] = [
        ("the main worktree", &[], &repo, 0),
        ("a worktree without a setting", &[], &usual, 0),
        ("a worktree with its own setting", &[], &elsewhere, 6),
        ("GIT_CONFIG_COUNT", &counted("/nowhere"), &repo, 6),
        ("git -c", &[("GIT_CONFIG_PARAMETERS", "'core.hooksPath=/nowhere'")], &repo, 6),
        ("an include of git -c", &[("GIT_CONFIG_PARAMETERS", &included)], &usual, 6),
        ("the environment wins", &counted(&hooks), &elsewhere, 0),
        ("another setting", &[("GIT_CONFIG_PARAMETERS", "'core.pager=cat'")], &repo, 0),
        ("a variable for `git config` alone", &[("GIT_CONFIG", "/nowhere")], &repo, 0),
    ];
    for (what, variables, asked, code) in asked {
        let run = |program: &std::ffi::OsStr, arguments: &[&str]| {
            let mut command = asked.command(program);
            command.envs(variables.iter().copied()).args(arguments).output().expect("it runs")
        };
        let check = run(jin_txn().as_os_str(), &["check"]);
        assert_eq!(check.status.code(), Some(code), "{what}: {}", shown(asked, &check));
        let prompt = run(jin_txn().as_os_str(), &["check", "--prompt"]);
        assert_eq!(text(&prompt.stdout), if code == 0 { "" } else { "jin:unprotected" }, "{what}");
        // git is of the same opinion.
        let before = asked.logged().len();
        let tag = run(Git::under_test().program.as_os_str(), &["tag", "-f", "made", "HEAD"]);
        assert!(tag.status.success(), "{what}: {}", text(&tag.stderr));
        run(Git::under_test().program.as_os_str(), &["tag", "-d", "made"]);
        assert_eq!(asked.logged().len() > before, code == 0, "{what}");
    }
    // What jin-txn itself writes is logged in any environment.
    repo.git(["tag", "taken-back"]);
    let mut undo = repo.command(jin_txn().as_os_str());
    let undone = undo.envs(counted("/nowhere")).arg("undo").output().expect("it runs");
    assert_eq!(undone.status.code(), Some(0), "{}", shown(&repo, &undone));
    assert!(repo.logged()[0].contains("undo"), "{:?}", repo.logged());
    // Whoever looks at the repository is told of the other worktree as well.
    let hindrance =
        "the worktree `elsewhere` is not protected: core.hooksPath is set to `/nowhere` (worktree configuration)";
    for asked in ["status", "doctor"] {
        let said = shown(&repo, &repo.jin_txn([asked]));
        assert!(said.contains(hindrance), "{asked}: {said}");
    }
}
