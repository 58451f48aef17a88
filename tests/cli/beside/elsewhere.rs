//! Where `core.hooksPath` leads: a directory of the repository's own, or one in other hands.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::{Prepare, assert_pristine, pristine, unprotected};
use crate::support::observe::{Tree, age, assert_same, shown, times, tree};
use crate::support::repo::{Git, Options, Repo, jin_txn, text, write_file};

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

/// Everything below the scratch directory but the git directory, and the user's note of it.
fn outside(repo: &Repo) -> Tree {
    let inside = repo.git_dir().strip_prefix(repo.scratch()).expect("it lies there").to_owned();
    let is_other = |name: &Path| !name.starts_with(&inside) && !name.starts_with("home/.local");
    tree(repo.scratch()).into_iter().filter(|(name, _)| is_other(name)).collect()
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
    --- exit 6
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
        test -x [BIN] || exit 0
        exec [BIN] hook reference-transaction "$@"

      /etc/our\u{1b}[31mhooks/post-checkout:
        #!/bin/sh
        test -x [BIN] || exit 0
        exec [BIN] hook post-checkout "$@"
    --- exit 1
    "#);
}
