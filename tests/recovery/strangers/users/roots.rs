//! Root in a repository of somebody else: `sudo jin-txn install`, a sudo'd git that is killed, `sudo jin-txn recover`.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::process::Command;

use super::{ALICE, User, chmod, is_root, open, recovers, succeeds, walk};
use crate::support::crash::{self, git, jin};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Options, Repo, text};
use crate::support::tracer::{self, Action, Event, Isolation};
use crate::support::wait::wait_until;

/// A repository of a user's, with a few branches.
fn of(user: User) -> Repo {
    let repo = Repo::new(Options::default());
    open(&repo);
    repo.commit_all("one");
    for branch in ["a", "b", "c"] {
        repo.git(["branch", branch]);
    }
    repo.git(["commit", "-q", "--allow-empty", "-m", "two"]);
    // git as root would leave directories of objects behind in which their owner may not write: that is git's.
    for fan in 0..=255 {
        fs::create_dir_all(repo.git_dir().join(format!("objects/{fan:02x}"))).expect("it can be made");
    }
    give(&repo, user);
    repo
}

fn give(repo: &Repo, user: User) {
    walk(repo.path()).iter().for_each(|path| lchown(path, Some(user.uid), Some(user.uid)).expect("root gives"));
}

/// As sudo does it.
fn sudo(mut command: Command, user: User) -> Command {
    command.env("SUDO_UID", user.uid.to_string()).env("SUDO_GID", user.uid.to_string());
    command
}

/// What lies below a directory and does not belong to the user.
fn of_others(directory: &Path, user: User) -> Vec<String> {
    let found = walk(directory).into_iter();
    let theirs = |path: &std::path::PathBuf| {
        let found = fs::symlink_metadata(path).expect("it is there");
        (found.uid(), found.gid()) != (user.uid, user.uid)
    };
    found.filter(theirs).map(|path| path.display().to_string()).collect()
}

#[test]
fn what_root_installs_in_a_users_repository_belongs_to_the_user() {
    if !is_root() {
        return;
    }
    for mode in [0o644, 0o600] {
        let repo = of(ALICE);
        let config = repo.git_dir().join("config");
        chmod(&config, mode);
        succeeds(sudo(jin(&repo, &["install"]), ALICE));
        assert_eq!(of_others(&repo.git_dir(), ALICE), Vec::<String>::new(), "all of it is the user's");
        let found = fs::metadata(&config).expect("it is there");
        assert_eq!(
            format!("{:o}", found.mode() & 0o777),
            format!("{mode:o}"),
            "the configuration is as open as before"
        );
        succeeds(ALICE.git(&repo, &["commit", "-q", "--allow-empty", "-m", "hers"]));
        succeeds(ALICE.git(&repo, &["branch", "topic"]));
        succeeds(ALICE.git(&repo, &["branch", "-D", "topic"]));
        succeeds(ALICE.jin(&repo, &["uninstall"]));
        succeeds(sudo(jin(&repo, &["install"]), ALICE));
        succeeds(sudo(jin(&repo, &["uninstall"]), ALICE));
        assert_eq!(of_others(&repo.git_dir(), ALICE), Vec::<String>::new(), "taken back, all of it is the user's");
    }
}

#[test]
fn a_git_of_root_that_is_killed_anywhere_leaves_nothing_that_refuses_the_owner() {
    if !is_root() {
        return;
    }
    let template = of(ALICE);
    succeeds(ALICE.jin(&template, &["install"]));
    let command = |repo: &Repo| sudo(git(repo, &["update-ref", "--stdin"]), ALICE);
    let input = "update refs/heads/a HEAD\nupdate refs/heads/b HEAD\ndelete refs/heads/c\n";
    let mut count = 0;
    let counting = template.copy();
    give(&counting, ALICE);
    let mut counted = |event: &Event| {
        count += usize::from(is_wanted(event));
        Action::Continue
    };
    tracer::trace(command(&counting), input.as_bytes(), Isolation::None, &mut counted).expect("git starts");
    assert!(count > 10, "there are {count} places to be killed at");
    for nth in (1..=count).step_by(2) {
        let repo = template.copy();
        chmod(repo.scratch(), 0o755);
        give(&repo, ALICE);
        crash::kill_at(command(&repo), input, Action::KillTree, crash::nth(nth, is_wanted));
        if nth % 4 == 1 {
            // Root recovers first, and is done with everything, or the owner does it alone.
            let_the_clock_tick(&repo.git_dir());
            let output = sudo(jin(&repo, &["recover"]), ALICE).output().expect("it starts");
            assert!(output.status.code().is_some_and(|code| code != 1), "{nth}: {}", text(&output.stderr));
        }
        recovers(&repo, ALICE);
        // What is moved aside stays as git has made it.
        let mut left = of_others(&repo.git_dir().join(".jin"), ALICE);
        left.retain(|path| !path.contains("/quarantine/"));
        assert_eq!(left, Vec::<String>::new(), "{nth}: all of it is hers");
        for arguments in [
            &["commit", "-q", "--allow-empty", "-m", "hers"][..],
            &["update-ref", "refs/heads/a", "HEAD"],
            &["update-ref", "refs/heads/b", "HEAD"],
            &["branch", "-f", "c"],
            &["branch", "-D", "c"],
        ] {
            succeeds(ALICE.git(&repo, arguments));
        }
        repo.discard();
    }
}

#[test]
fn what_root_recovers_for_a_user_belongs_to_the_user() {
    if !is_root() {
        return;
    }
    let template = of(ALICE);
    succeeds(ALICE.jin(&template, &["install"]));
    let input = "create refs/heads/new/a HEAD\ncreate refs/heads/new/b HEAD\ncreate refs/heads/other/c HEAD\n";
    for nth in 1..=3 {
        let repo = template.copy();
        chmod(repo.scratch(), 0o755);
        give(&repo, ALICE);
        let killed = ALICE.git(&repo, &["update-ref", "--stdin"]);
        crash::kill_at(killed, input, Action::KillTree, crash::nth(nth, crash::is_ref_rename));
        wait_until("root has recovered", || {
            let_the_clock_tick(&repo.git_dir());
            sudo(jin(&repo, &["recover"]), ALICE).output().expect("it starts").status.success()
        });
        let mut left = of_others(&repo.git_dir(), ALICE);
        left.retain(|path| !path.contains("/quarantine/"));
        assert_eq!(left, Vec::<String>::new(), "{nth}: nothing of root's is left");
        for name in ["new/a", "new/b", "other/c"] {
            succeeds(ALICE.git(&repo, &["update-ref", &format!("refs/heads/{name}"), "HEAD~"]));
        }
        repo.discard();
    }
}

#[test]
fn an_install_by_root_gives_back_what_a_former_one_kept() {
    if !is_root() {
        return;
    }
    let repo = of(ALICE);
    succeeds(ALICE.jin(&repo, &["install"]));
    let state = repo.git_dir().join(".jin");
    walk(&state).iter().for_each(|path| lchown(path, Some(0), Some(0)).expect("root can take it"));
    assert!(!ALICE.git(&repo, &["branch", "refused"]).output().expect("setpriv runs").status.success());
    // Another name of a file of root's elsewhere, and a link to one.
    let (outside, linked) = (repo.scratch().join("roots"), repo.scratch().join("roots too"));
    for path in [&outside, &linked] {
        fs::write(path, "secret\n").expect("it can be written");
        chmod(path, 0o600);
    }
    fs::hard_link(&outside, state.join("durability.bak")).expect("it can be linked");
    std::os::unix::fs::symlink(&linked, state.join("settings")).expect("it can be linked");
    succeeds(sudo(jin(&repo, &["install"]), ALICE));
    succeeds(ALICE.git(&repo, &["branch", "topic"]));
    for path in [&outside, &linked] {
        let found = fs::metadata(path).expect("it is there");
        assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o600), "{} is root's", path.display());
    }
}

/// What the hook does to the file system, and git's renames.
fn is_wanted(event: &Event) -> bool {
    event.role == tracer::Role::Hook || crash::is_ref_rename(event)
}

#[test]
fn an_install_of_root_that_is_killed_anywhere_leaves_nothing_that_refuses_the_owner() {
    if !is_root() {
        return;
    }
    let template = of(ALICE);
    let command = |repo: &Repo| sudo(jin(repo, &["install"]), ALICE);
    let mut count = 0;
    let counting = template.copy();
    give(&counting, ALICE);
    let mut counted = |event: &Event| {
        count += usize::from(event.role == tracer::Role::Hook);
        Action::Continue
    };
    tracer::trace(command(&counting), b"", Isolation::None, &mut counted).expect("it starts");
    assert!(count > 20, "there are {count} places to be killed at");
    for nth in (1..=count).step_by(3) {
        let repo = template.copy();
        chmod(repo.scratch(), 0o755);
        give(&repo, ALICE);
        crash::kill_at(command(&repo), "", Action::KillTree, crash::nth(nth, |it| it.role == tracer::Role::Hook));
        succeeds(ALICE.git(&repo, &["commit", "-q", "--allow-empty", "-m", "hers"]));
        succeeds(ALICE.jin(&repo, &["install"]));
        succeeds(ALICE.git(&repo, &["branch", "topic"]));
        repo.discard();
    }
}

#[test]
fn what_a_failed_run_of_root_puts_back_belongs_to_the_user() {
    if !is_root() {
        return;
    }
    let repo = of(ALICE);
    repo.write("dir/deep/file", "one\n");
    std::os::unix::fs::symlink("dir", repo.path().join("link")).expect("it can be made");
    repo.commit_all("three");
    for branch in ["team/x", "team/y/z"] {
        repo.git(["branch", branch]);
    }
    give(&repo, ALICE);
    succeeds(ALICE.jin(&repo, &["install"]));
    let script = "git branch -q -D team/x team/y/z && rm -r link && git rm -rq dir && exit 9";
    let output = sudo(jin(&repo, &["run", "--", "sh", "-c", script]), ALICE).output().expect("it starts");
    assert_eq!(output.status.code(), Some(9), "{}", text(&output.stderr));
    let mut left = of_others(repo.path(), ALICE);
    // What is moved aside stays as it was, and the configuration, which is as before, as git has written it.
    left.retain(|path| !path.contains("/quarantine/") && !path.ends_with("/.git/config"));
    assert_eq!(left, Vec::<String>::new(), "all of it is hers");
    succeeds(ALICE.git(&repo, &["branch", "-f", "team/x", "HEAD~"]));
    succeeds(ALICE.git(&repo, &["rm", "-rq", "dir", "link"]));
}

#[test]
fn a_lock_of_root_that_the_user_may_not_read_stops_no_recovery() {
    if !is_root() {
        return;
    }
    let template = of(ALICE);
    template.write("file", "one\n");
    template.commit_all("three");
    give(&template, ALICE);
    succeeds(ALICE.jin(&template, &["install"]));
    let repo = template.copy();
    chmod(repo.scratch(), 0o755);
    give(&repo, ALICE);
    repo.write("file", "two\n");
    let mut killed = repo.command("sh".as_ref());
    killed.args(["-c", "umask 077; exec git commit -qam roots"]);
    crash::kill_at(sudo(killed, ALICE), "", Action::KillTree, crash::nth(1, crash::is_ref_rename));
    for name in ["HEAD.lock", "index.lock"] {
        let lock = fs::metadata(repo.git_dir().join(name)).expect("it is left behind");
        assert_eq!((lock.uid(), lock.mode() & 0o777), (0, 0o600), "she may not read {name}");
    }
    recovers(&repo, ALICE);
    succeeds(ALICE.git(&repo, &["branch", "topic"]));
    repo.write("file", "three\n");
    succeeds(ALICE.git(&repo, &["commit", "-qam", "hers"]));
}

#[test]
fn a_run_goes_on_beside_a_file_of_git_that_the_user_may_not_read() {
    if !is_root() {
        return;
    }
    let repo = of(ALICE);
    succeeds(ALICE.jin(&repo, &["install"]));
    let fetched = repo.git_dir().join("FETCH_HEAD");
    fs::write(&fetched, "a colleague has fetched\n").expect("it can be written");
    chmod(&fetched, 0o600);
    let output = succeeds(ALICE.jin(&repo, &["run", "--", "git", "branch", "topic"]));
    let said = text(&output.stderr).into_owned();
    assert!(said.contains("FETCH_HEAD in the git directory cannot be read"), "{said}");
    let output =
        ALICE.jin(&repo, &["run", "--", "sh", "-c", "git branch -D topic; exit 9"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(9), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(&fetched).expect("it is there"), "a colleague has fetched\n");
    succeeds(ALICE.git(&repo, &["rev-parse", "topic"]));
}
