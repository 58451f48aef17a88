//! Every layout of repository, every way into it: it is protected, and afterwards it is as it was.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::observe::{Tree, age, assert_same, shown, times, tree};
use crate::support::repo::{Git, NOBODY, Options, Repo, give_to, jin_txn, text, write_file};

fn unprotected() -> Repo {
    let repo = Repo::new(Options::default());
    repo.git(["config", "--global", "protocol.file.allow", "always"]);
    repo.write("file", "one\n");
    repo.commit_all("one");
    repo
}

fn git_in(repo: &Repo, directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut git = repo.command(Git::under_test().program.as_os_str());
    git.current_dir(directory).args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
    git.output().expect("git runs")
}

/// A layout: its name, how it is made from a repository with one commit, and where the result lies.
type Layout = (&'static str, fn(&Repo) -> Repo);

fn layouts() -> Vec<Layout> {
    fn clone_of(repo: &Repo, arguments: &[&str]) -> Repo {
        let url = format!("file://{}", repo.path().display());
        repo.git([&["clone", "-q", "--template="], arguments, &[&url, "../copy"]].concat());
        repo.sibling("copy")
    }
    fn with_format(repo: &Repo, options: Options) -> Repo {
        let other = repo.new_sibling("other", options);
        other.commit_all("one");
        other
    }
    let mut layouts: Vec<Layout> = vec![
        ("a clone", |repo| clone_of(repo, &[])),
        ("bare", |repo| clone_of(repo, &["--bare"])),
        ("a mirror", |repo| clone_of(repo, &["--mirror"])),
        ("shallow", |repo| clone_of(repo, &["--depth=1"])),
        ("partial", |repo| {
            repo.git(["config", "uploadpack.allowFilter", "true"]);
            clone_of(repo, &["--filter=blob:none"])
        }),
        ("with alternates", |repo| clone_of(repo, &["--reference", &repo.path().display().to_string()])),
        ("with a git directory elsewhere", |repo| clone_of(repo, &["--separate-git-dir=../elsewhere.git"])),
        ("SHA-256", |repo| with_format(repo, Options { object_format: Some("sha256"), ..Options::default() })),
        ("shared by a group", |repo| {
            repo.git(["init", "-q", "--template=", "--shared=group", "../shared"]);
            let shared = repo.sibling("shared");
            shared.commit_all("one");
            shared
        }),
    ];
    layouts.push(("a linked worktree", |repo| {
        repo.git(["worktree", "add", "-q", "../linked"]);
        repo.sibling("linked")
    }));
    layouts.push(("a submodule", |repo| {
        repo.git(["submodule", "-q", "add", &format!("file://{}", repo.path().display()), "inner"]);
        repo.sibling("repo/inner")
    }));
    if Git::under_test().is_at_least(2, 45) {
        layouts.push(("reftable", |repo| {
            with_format(repo, Options { ref_format: Some("reftable"), ..Options::default() })
        }));
    }
    layouts
}

/// The common git directory, wherever it lies.
fn git_dir(repo: &Repo) -> PathBuf {
    repo.path().join(repo.read(["rev-parse", "--git-common-dir"]))
}

#[test]
fn every_layout_is_protected_and_afterwards_as_it_was() {
    for (name, make) in layouts() {
        let repo = make(&unprotected());
        let before = tree(&git_dir(&repo));
        repo.jin(&["install"]);
        assert!(repo.is_protected(), "{name}: {}", repo.jin(&["status"]));
        repo.jin(&["uninstall", "--purge"]);
        assert_same(&before, &tree(&git_dir(&repo)), name);
        repo.jin(&["install"]);
        let head = repo.read(["rev-parse", "HEAD"]);
        repo.git(["update-ref", "refs/heads/topic", &head]);
        repo.git(["update-ref", "-d", "refs/heads/topic"]);
        let log = repo.logged();
        assert_eq!(log.len(), 2, "{name}: {log:?}");
        assert!(log.iter().all(|line| line.contains("committed")), "{name}: {log:?}");
        assert_eq!(repo.jin_txn(["check"]).status.code(), Some(0), "{name}: nothing is unfinished");
    }
}

/// When the files and links below a git directory were last modified, and its hooks directory. Not the configuration, which
/// git writes anew, nor the other directories: `.jin` and what stepped aside came and went there.
fn kept_times(git_dir: &Path) -> std::collections::BTreeMap<PathBuf, (i64, i64)> {
    let is_kept =
        |name: &Path| name == Path::new("hooks") || (!git_dir.join(name).is_dir() && !name.ends_with("config"));
    times(git_dir).into_iter().filter(|(name, _)| is_kept(name)).collect()
}

#[test]
fn in_every_layout_the_hooks_of_others_are_afterwards_as_they_were_with_their_times() {
    for (name, make) in layouts() {
        let repo = make(&unprotected());
        let (dir, hooks) = (git_dir(&repo), git_dir(&repo).join("hooks"));
        write_file(&hooks.join("reference-transaction"), "#!/bin/sh\ncat >/dev/null\n", 0o750);
        write_file(&hooks.join("post-checkout"), "exit 0\n", 0o711);
        write_file(&hooks.join("pre-commit"), "#!/bin/sh\nexit 0\n", 0o755);
        write_file(&hooks.join("helpers/common.sh"), "exit 0\n", 0o600);
        symlink("../outside", hooks.join("post-merge")).expect("a link can be made");
        age(&dir);
        let before = (tree(&dir), kept_times(&dir));
        repo.jin(&["install"]);
        repo.jin(&["install"]);
        assert!(repo.is_protected(), "{name}: {}", repo.jin(&["status"]));
        repo.jin(&["uninstall", "--purge"]);
        assert_same(&before.0, &tree(&dir), name);
        let after = kept_times(&dir);
        let changed: Vec<_> = before.1.iter().filter(|(path, time)| after.get(*path) != Some(*time)).collect();
        assert!(changed.is_empty(), "{name}: times: {changed:?}");
    }
}

#[test]
fn nobody_but_the_owner_and_a_sharing_group_may_open_a_lock_file() {
    const CREATE_A_BRANCH: &str = "umask $1 && \"$2\" install -q && git branch made-under-$1";
    for (sharing, umask, expected) in
        [("umask", "0", 0o600), ("umask", "077", 0o600), ("group", "0", 0o660), ("group", "077", 0o660)]
    {
        let repo = unprotected();
        repo.git(["init", "-q", "--template=", &format!("--shared={sharing}"), "../other"]);
        let other = repo.sibling("other");
        other.commit_all("one");
        // The group may write where git has let it, whatever the umask is by now.
        let mut shell = other.command("sh".as_ref());
        let made = shell.args(["-c", CREATE_A_BRANCH, "sh", umask]).arg(jin_txn()).status();
        assert!(made.is_ok_and(|status| status.success()), "{sharing}, umask {umask}");
        for name in ["append.lock", "recovery.lock"] {
            let lock = other.git_dir().join(".jin").join(name);
            let mode = fs::metadata(&lock).expect("it is there").mode() & 0o7777;
            assert_eq!(mode, expected, "{sharing}, umask {umask}: {name} has mode {mode:o}");
        }
    }
}

#[test]
fn what_a_group_shares_stays_writable_for_the_group() {
    let repo = unprotected();
    repo.git(["init", "-q", "--template=", "--shared=group", "../shared"]);
    let shared = repo.sibling("shared");
    shared.jin(&["install"]);
    shared.commit_all("one");
    for (name, (mode, _)) in tree(&shared.git_dir().join(".jin")) {
        // Another name of git's configuration, or of its index, has its mode.
        let is_gits = ["config.saved", "last.index", "index.before", "index.last"].iter().any(|it| name.ends_with(it));
        let others = if is_gits { mode & 0o006 } else { 0 };
        assert_eq!(mode & 0o066, 0o060 | others, "{} has mode {mode:o}", name.display());
    }
    let hooks = fs::metadata(shared.git_dir().join("hooks")).expect("it is there");
    assert_eq!(hooks.mode() & 0o050, 0o050, "the group finds the hooks");
}

#[test]
fn from_anywhere_it_is_the_same_repository() {
    let repo = unprotected();
    repo.jin(&["install"]);
    fs::create_dir(repo.path().join("sub")).expect("it can be made");
    let (dir, top) = (repo.git_dir().display().to_string(), repo.path().display().to_string());
    let option = format!("--git-dir={dir}");
    let sub = repo.path().join("sub");
    let none: &[(&str, &str)] = &[];
    for (count, (name, directory, variables, arguments)) in [
        ("here", repo.path(), none, &[][..]),
        ("below", &sub, none, &[]),
        ("-C", Path::new("/"), none, &["-C", &top]),
        ("--git-dir", Path::new("/"), none, &[&option]),
        ("a relative --git-dir", repo.scratch(), none, &["--git-dir", "repo/.git"]),
        ("GIT_DIR", Path::new("/"), &[("GIT_DIR", &dir)], &[]),
        ("inside", &repo.git_dir().join("refs"), none, &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let branch = format!("b{count}");
        let output = git_in(&repo, directory, variables, &[arguments, &["branch", &branch, "main"]].concat());
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        assert!(output.stderr.is_empty(), "{name} is silent: {}", text(&output.stderr));
        assert_eq!(repo.logged().len(), count + 1, "{name}: {:?}", repo.logged());
    }
}

#[test]
fn a_worktree_with_a_hooks_path_of_its_own_is_protected_too() {
    let repo = unprotected();
    repo.git(["worktree", "add", "-q", "../linked"]);
    let linked = repo.sibling("linked");
    repo.git(["config", "extensions.worktreeConfig", "true"]);
    let own = linked.path().join("hooks-of-linked");
    linked.git(["config", "--worktree", "core.hooksPath", "hooks-of-linked"]);
    let before = tree(&repo.git_dir());
    repo.jin(&["install"]);
    for (count, worktree) in [&repo, &linked].into_iter().enumerate() {
        worktree.git(["commit", "-q", "--allow-empty", "-m", "two"]);
        assert_eq!(repo.logged().len(), count + 1, "{}: {:?}", worktree.path().display(), repo.logged());
    }
    assert!(repo.is_protected() && linked.is_protected(), "{}", repo.jin(&["status"]));
    fs::remove_file(own.join("reference-transaction")).expect("it can be removed");
    assert!(!linked.is_protected() && repo.is_protected(), "each worktree answers for itself");
    assert!(repo.jin(&["status"]).contains("  hooks: the worktree `linked` is not protected: "), "and is told of");
    linked.jin(&["install"]);
    repo.jin(&["uninstall", "--purge"]);
    assert!(!own.exists(), "the directory that was made is gone");
    let hooks = |tree: &Tree| tree.keys().filter(|n| n.starts_with("hooks") || n.starts_with(".jin")).count();
    assert_eq!(hooks(&before), hooks(&tree(&repo.git_dir())), "nothing of ours is left");
}

#[test]
fn submodules_are_protected_with_their_superproject() {
    let repo = unprotected();
    let inner = repo.new_sibling("inner", Options::default());
    inner.commit_all("inner");
    let middle = repo.new_sibling("middle", Options::default());
    middle.git(["submodule", "-q", "add", &inner.path().display().to_string(), "in ner"]);
    middle.commit_all("middle");
    repo.git(["submodule", "-q", "add", &middle.path().display().to_string(), "middle"]);
    repo.git(["submodule", "-q", "update", "--init", "--recursive"]);
    repo.commit_all("submodules");
    let before = tree(&repo.git_dir());
    insta::assert_snapshot!(repo.jin(&["install", "--recurse-submodules"]), @"
    --- stderr
    jin-txn: [DIR]/repo/.git is protected
    jin-txn: [DIR]/repo/.git/modules/middle is protected
    jin-txn: [DIR]/repo/.git/modules/middle/modules/in ner is protected
    jin-txn: `git txn status` shows its state; `git txn uninstall` takes the protection away
    --- exit 0
    ");
    for path in ["repo", "repo/middle", "repo/middle/in ner"] {
        let submodule = repo.sibling(path);
        assert!(submodule.is_protected(), "{path}: {}", submodule.jin(&["status"]));
        submodule.git(["branch", "topic"]);
        assert_eq!(submodule.logged().len(), 1, "{path}: {:?}", submodule.logged());
        submodule.git(["branch", "-q", "-D", "topic"]);
    }
    repo.jin(&["uninstall", "--recurse-submodules", "--purge"]);
    let kept = |tree: Tree| -> Tree {
        tree.into_iter()
            .filter(|(name, _)| !name.to_string_lossy().contains("logs/") && !name.ends_with("packed-refs"))
            .collect()
    };
    assert_same(&kept(before), &kept(tree(&repo.git_dir())), "the superproject and all submodules");
}

/// As the user who has a home here, and no XDG directories.
fn home_of(repo: &Repo) -> PathBuf {
    repo.scratch().join("home")
}

/// Repositories that were made stay protected, and so do the user's notes of them.
fn without_notes(home: Tree) -> Tree {
    let is_note = |path: &Path| path.starts_with(".local/state") || path == Path::new(".local");
    home.into_iter().filter(|(path, _)| !is_note(path)).collect()
}

#[test]
fn a_template_protects_what_is_made_from_it_and_is_taken_back_byte_for_byte() {
    let repo = unprotected();
    let before = without_notes(tree(&home_of(&repo)));
    insta::assert_snapshot!(repo.jin(&["install", "--template"]), @"
    --- stderr
    jin-txn: repositories made by `git init` and `git clone` are protected from now on ([DIR]/home/.local/share/jin-txn/template)
    jin-txn: `jin-txn uninstall --template` takes that back
    --- exit 0
    ");
    for (name, arguments) in [
        ("made", &["init", "-q", "made"][..]),
        ("cloned", &["clone", "-q", "repo", "cloned"]),
        ("bare.git", &["clone", "-q", "--bare", "repo", "bare.git"]),
    ] {
        let output = git_in(&repo, repo.scratch(), &[], arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {}", text(&output.stderr));
        let made = repo.sibling(name);
        if name == "made" {
            made.commit_all("one");
        }
        let count = made.logged().len();
        let output = git_in(&repo, made.path(), &[], &["branch", "topic"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {}", text(&output.stderr));
        assert_eq!(made.logged().len(), count + 1, "{name}: {:?}", made.logged());
        let status = made.git(["txn", "status"]);
        assert!(text(&status.stdout).starts_with("protected"), "{name}: {}", text(&status.stdout));
        assert!(!text(&status.stdout).contains("weakened"), "{name}: {}", text(&status.stdout));
    }
    repo.jin(&["install", "--template"]);
    repo.jin(&["uninstall", "--template"]);
    assert_same(&before, &without_notes(tree(&home_of(&repo))), "the user's home");
    let made = repo.sibling("made");
    made.jin(&["uninstall", "--purge"]);
    for left in [".jin", "hooks/reference-transaction", "hooks/post-checkout"] {
        assert!(!made.git_dir().join(left).exists(), "{left} is gone from a repository that was made from it");
    }
    assert_eq!(made.try_git(["config", "--local", "alias.txn"]).status.code(), Some(1), "and so is the alias");
    insta::assert_snapshot!(shown(&repo, &repo.jin_txn(["uninstall", "--template"])), @"
    --- stderr
    error: there is no template with our hooks
    hint: `jin-txn uninstall` is for repositories
    --- exit 1
    ");
}

#[test]
fn a_template_of_the_users_own_is_added_to_and_another_is_copied() {
    for (name, versioned) in [("own", false), ("versioned", true)] {
        let repo = unprotected();
        let template = if versioned { repo.path().join("template") } else { repo.scratch().join("template") };
        fs::create_dir_all(template.join("hooks")).expect("it can be made");
        fs::write(template.join("hooks/post-checkout"), "#!/bin/sh\necho theirs\n").expect("it can be written");
        fs::set_permissions(template.join("hooks/post-checkout"), fs::Permissions::from_mode(0o755)).expect("it can");
        symlink("hooks", template.join("a-link")).expect("a link can be made");
        if versioned {
            repo.commit_all("template");
        }
        repo.git(["config", "--global", "init.templateDir", &template.display().to_string()]);
        let (home, there) = (without_notes(tree(&home_of(&repo))), tree(&template));
        repo.jin(&["install", "--template"]);
        assert_eq!(tree(&template) == there, versioned, "{name}: added to only when it is the user's own");
        git_in(&repo, repo.scratch(), &[], &["init", "-q", "made"]);
        let made = repo.sibling("made");
        made.commit_all("one");
        let output = made.git(["checkout", "-q", "-b", "topic"]);
        assert_eq!(text(&output.stderr).trim(), "theirs", "{name}: the template's own hook runs");
        assert!(made.logged().len() >= 2, "{name}: {:?}", made.logged());
        repo.jin(&["uninstall", "--template"]);
        assert_same(&home, &without_notes(tree(&home_of(&repo))), name);
        assert_same(&there, &tree(&template), name);
    }
}

// ---- what cannot be

#[track_caller]
fn refused(repo: &Repo, directory: &Path) -> String {
    let before = tree(repo.scratch());
    let output = repo.run(jin_txn().as_os_str(), directory, ["install"], b"");
    assert_eq!(output.status.code(), Some(1), "it is refused: {}", shown(repo, &output));
    assert_same(&before, &tree(repo.scratch()), "refused, and yet something changed");
    shown(repo, &output)
}

#[test]
fn a_hooks_directory_that_is_none_is_refused() {
    let repo = unprotected();
    let hooks = repo.git_dir().join("hooks");
    fs::write(&hooks, "").expect("a file can be made");
    insta::assert_snapshot!(refused(&repo, repo.path()), @"
    --- stderr
    error: git looks for hooks in [DIR]/repo/.git/hooks, which is not a directory
    hint: nothing was changed; put a directory there, or remove it
    --- exit 1
    ");
    fs::remove_file(&hooks).expect("it can be removed");
    symlink("../nowhere", &hooks).expect("a link can be made");
    insta::assert_snapshot!(refused(&repo, repo.path()), @"
    --- stderr
    error: git looks for hooks in [DIR]/repo/.git/hooks, which is a link to nowhere
    hint: nothing was changed; put a directory there, or remove it
    --- exit 1
    ");
    fs::remove_file(&hooks).expect("it can be removed");
    repo.git(["config", "core.hooksPath", "file"]);
    insta::assert_snapshot!(refused(&repo, repo.path()), @"
    --- stderr
    error: core.hooksPath is set to `file` (local configuration)
    caused by: git looks for hooks in [DIR]/repo/file, which is not a directory
    hint: nothing was changed; put a directory there, or remove it
    --- exit 1
    ");
}

#[test]
fn a_git_file_that_points_nowhere_is_named() {
    let repo = unprotected();
    let lost = repo.scratch().join("lost");
    fs::create_dir(&lost).expect("it can be made");
    fs::write(lost.join(".git"), "gitdir: ../gone/.git\n").expect("it can be written");
    insta::assert_snapshot!(refused(&repo, &lost), @"
    --- stderr
    error: [DIR]/lost/.git points to [DIR]/lost/../gone/.git, where there is no git directory
    hint: run this inside a git repository, or name one with -C DIR
    --- exit 1
    ");
}

#[test]
fn what_belongs_to_others_is_gits_to_judge() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give a repository to somebody else");
        return;
    }
    let repo = unprotected();
    give_to(NOBODY, repo.path());
    let said = refused(&repo, repo.path());
    assert!(said.contains("dubious ownership") && said.contains("safe.directory"), "git's words: {said}");
    let named = repo.run(jin_txn().as_os_str(), repo.scratch(), ["install", "repo"], b"");
    assert_eq!(named.status.code(), Some(1), "named as an argument as well: {}", shown(&repo, &named));
    repo.git(["config", "--global", "safe.directory", &repo.path().display().to_string()]);
    repo.jin(&["install"]);
    repo.jin(&["uninstall", "--purge"]);

    give_to(0, repo.path());
    fs::create_dir(repo.git_dir().join("hooks")).expect("it can be made");
    give_to(NOBODY, repo.scratch());
    give_to(0, &repo.git_dir().join("hooks"));
    let before = tree(repo.scratch());
    let output = repo.as_nobody(jin_txn().as_os_str()).arg("install").output().expect("setpriv runs");
    assert_same(&before, &tree(repo.scratch()), "refused, and yet something changed");
    insta::assert_snapshot!(shown(&repo, &output), @"
    --- stderr
    error: cannot write into [DIR]/repo/.git/hooks: Permission denied (os error 13)
    hint: nothing was changed; make it writable for you, then run this again
    --- exit 1
    ");
}

#[test]
fn a_copy_with_its_state_is_protected_and_can_be_left() {
    let repo = unprotected();
    let before = tree(&repo.git_dir());
    repo.jin(&["install"]);
    let copied = Command::new("cp").arg("-a").arg(repo.path()).arg(repo.scratch().join("copy")).status();
    assert!(copied.is_ok_and(|status| status.success()), "it can be copied");
    let copy = repo.sibling("copy");
    assert!(copy.is_protected(), "{}", copy.jin(&["status"]));
    copy.git(["branch", "topic"]);
    assert_eq!((copy.logged().len(), repo.logged().len()), (1, 0), "each logs its own");
    copy.git(["branch", "-q", "-D", "topic"]);
    copy.jin(&["uninstall", "--purge"]);
    assert!(repo.is_protected(), "the original goes on: {}", repo.jin(&["status"]));
    assert!(!copy.git_dir().join("hooks/reference-transaction").exists(), "and the copy has no hook of ours");
    let kept = |tree: Tree| -> Tree {
        tree.into_iter().filter(|(name, _)| !name.starts_with("logs") && !name.ends_with("packed-refs")).collect()
    };
    assert_same(&kept(before), &kept(tree(&copy.git_dir())), "the copy is as the original was");
}
