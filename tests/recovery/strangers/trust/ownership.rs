//! Which repository is it, and whose? Judged as git does, and git's answer is compared with ours.

use std::fs;
use std::path::PathBuf;

use super::{from_shell, is_root, jin_in, run, set_traps};
use crate::support::crash::jin;
use crate::support::observe::{Tree, assert_same, shown, tree};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, NOBODY, Options, Repo, give_to, text};

/// A repository of a victim, and a directory of an enemy whose `commondir` names it.
#[test]
fn a_git_directory_whose_commondir_names_another_repository_is_refused() {
    let victim = Repo::new(Options { guarded: true, ..Options::default() });
    victim.write("file", "precious\n");
    victim.commit_all("one");
    let enemy = victim.sibling("enemy");
    for git_dir in [enemy.path().join(".git"), enemy.path().join("deep/.git/worktrees/x")] {
        fs::create_dir_all(&git_dir).expect("it can be made");
        fs::write(git_dir.join("HEAD"), "ref: refs/heads/main\n").expect("it can be written");
        fs::write(git_dir.join("commondir"), format!("{}\n", victim.git_dir().display())).expect("it can be written");
        fs::write(git_dir.join("config"), "[core]\n\tfsmonitor = \"touch sprung\"\n").expect("it can be written");
    }
    let worktree = enemy.path().join("deep");
    fs::write(worktree.join("gitfile"), "gitdir: .git/worktrees/x\n").expect("it can be written");
    let before = tree(&victim.git_dir());
    for (here, git_dir) in [(enemy.path(), None), (enemy.path(), Some(".git")), (&worktree, Some(".git/worktrees/x"))] {
        for arguments in [&["run", "--", "git", "status"][..], &["status"], &["recover"], &["install"], &["check"]] {
            let named = git_dir.map(|dir| vec!["--git-dir", dir]).unwrap_or_default();
            let output = run(jin_in(&victim, here, &[&named[..], arguments].concat()));
            let said = shown(&victim, &output);
            assert_ne!(output.status.code(), Some(0), "{git_dir:?} {arguments:?} refuses: {said}");
            assert!(said.contains("is not a worktree of"), "{git_dir:?} {arguments:?}: {said}");
        }
    }
    run(from_shell(&victim, enemy.path(), &["--version"]));
    run(jin_in(&victim, enemy.path(), &["check", "--prompt"]));
    assert_same(&before, &tree(&victim.git_dir()), "the victim's repository is as it was");
}

/// Everything below a directory, but what git updates when it only looks.
fn without_index(tree: Tree) -> Tree {
    tree.into_iter().filter(|(path, _)| !path.ends_with("index")).collect()
}

#[test]
fn a_directory_of_somebody_else_below_a_repository_of_the_victim_is_not_taken_for_one_that_git_trusts() {
    if !is_root("give files away") {
        return;
    }
    let victim = Repo::new(Options::default());
    victim.commit_all("one");
    let enemy = victim.path().join("sub");
    fs::create_dir_all(enemy.join("objects")).expect("it can be made");
    fs::create_dir_all(enemy.join("refs")).expect("it can be made");
    // git wants a HEAD that is one, and goes on upwards.
    fs::write(enemy.join("HEAD"), "nothing\n").expect("it can be written");
    for part in ["wal", "quarantine", "tx"] {
        fs::create_dir_all(enemy.join(".jin").join(part)).expect("it can be made");
    }
    let sprung = victim.scratch().join("sprung");
    fs::create_dir(&sprung).expect("it can be made");
    set_traps(&enemy, &sprung);
    fs::write(enemy.join("index.lock"), "").expect("it can be written");
    give_to(NOBODY, &enemy);
    let_the_clock_tick(&enemy);
    let before = (tree(&enemy), without_index(tree(&victim.git_dir())));
    for arguments in [
        &["recover"][..],
        &["status"],
        &["check"],
        &["log"],
        &["run", "--", "true"],
        &["install"],
        &["doctor", "--fix"],
    ] {
        let output = run(jin_in(&victim, &enemy, arguments));
        assert_ne!(output.status.code(), Some(0), "{arguments:?} refuses: {}", shown(&victim, &output));
    }
    let after = (tree(&enemy), without_index(tree(&victim.git_dir())));
    assert_same(&before.0, &after.0, "the enemy's directory");
    assert_same(&before.1, &after.1, "the victim's repository");
    assert_eq!(tree(&sprung).len(), 1, "nothing ran");
}

#[test]
fn each_place_of_a_repository_has_to_belong_to_the_user() {
    if !is_root("give files away") {
        return;
    }
    /// A place of a repository.
    type Place = fn(&Repo) -> PathBuf;
    let places: [(&str, Place); 4] = [
        ("the worktree", |repo| repo.path().to_owned()),
        ("the git directory", |repo| repo.git_dir()),
        ("the .git file of a linked worktree", |repo| repo.sibling("linked").path().join(".git")),
        ("the git directory of a linked worktree", |repo| repo.git_dir().join("worktrees/linked")),
    ];
    for (name, place) in places {
        let repo = Repo::new(Options { guarded: true, ..Options::default() });
        repo.commit_all("one");
        repo.git(["worktree", "add", "-q", "../linked"]);
        let linked = repo.sibling("linked");
        let here = if name.contains("linked") { &linked } else { &repo };
        let place = place(&repo);
        std::os::unix::fs::chown(&place, Some(NOBODY), None).expect("root can give it away");
        let status = |sudo: Option<u32>| {
            let mut command = jin_in(&repo, here.path(), &["status"]);
            command.envs(sudo.map(|uid| ("SUDO_UID", uid.to_string())));
            run(command)
        };
        let output = status(None);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", shown(&repo, &output));
        assert!(text(&output.stderr).contains("ownership"), "{name}: {}", shown(&repo, &output));
        assert_eq!(status(Some(NOBODY)).status.code(), Some(0), "{name}: the user who called sudo owns it");
        let global = repo.scratch().join("home/gitconfig").display().to_string();
        let top = here.path().display().to_string();
        repo.git(["config", "--file", &global, "safe.directory", &top]);
        let trusted = status(None);
        assert_eq!(trusted.status.code(), Some(0), "{name}: git accepts it: {}", shown(&repo, &trusted));
    }
}

#[test]
fn a_repository_that_git_cannot_name_is_judged_by_safe_directory() {
    if !is_root("give files away") {
        return;
    }
    for broken in ["HEAD", "config"] {
        let repo = Repo::new(Options { guarded: true, ..Options::default() });
        repo.commit_all("one");
        give_to(NOBODY, repo.path());
        let content = if broken == "config" { "[core\n\tbare" } else { "" };
        fs::write(repo.git_dir().join(broken), content).expect("it can be written");
        let global = repo.scratch().join("home/gitconfig").display().to_string();
        let own = repo.path().display().to_string();
        for (values, accepted) in [
            (&[][..], false),
            (&["/elsewhere"], false),
            (&[&own], true),
            (&[&own, ""], false),
            (&["*"], true),
            (&["*", "", &own], true),
        ] {
            repo.try_git(["config", "--file", &global, "--unset-all", "safe.directory"]);
            for value in values {
                repo.run(
                    Git::under_test().program.as_os_str(),
                    repo.scratch(),
                    ["config", "--file", &global, "--add", "safe.directory", value],
                    b"",
                );
            }
            let output = run(jin(&repo, &["log"]));
            assert_eq!(output.status.success(), accepted, "{broken}, {values:?}: {}", shown(&repo, &output));
        }
    }
}
