//! The modes of everything that we make, by `core.sharedRepository` and umask.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use super::{chmod, open, walk};
use crate::support::crash;
use crate::support::repo::{Git, Options, Repo, jin_txn, text};
use crate::support::tracer::Action;

/// `core.sharedRepository`, umask, and the modes of directories and files of ours.
const TABLE: [(&str, &str, u32, u32); 15] = [
    ("umask", "077", 0o700, 0o600),
    ("umask", "022", 0o700, 0o600),
    ("umask", "002", 0o770, 0o660),
    ("group", "077", 0o2770, 0o660),
    ("group", "022", 0o2770, 0o660),
    ("group", "002", 0o2770, 0o660),
    // Others may read what is git's, and write nothing: what is ours is not for them.
    ("world", "077", 0o2770, 0o660),
    ("world", "022", 0o2770, 0o660),
    ("world", "002", 0o2770, 0o660),
    // A group that may only read.
    ("0640", "077", 0o2700, 0o600),
    ("0640", "022", 0o2700, 0o600),
    ("0640", "002", 0o2700, 0o600),
    ("0666", "077", 0o2777, 0o666),
    ("0666", "022", 0o2777, 0o666),
    ("0666", "002", 0o2777, 0o666),
];

/// A program with this umask.
fn with_umask(repo: &Repo, umask: &str, program: &Path, arguments: &[&str]) -> Command {
    let mut command = repo.command("sh".as_ref());
    command.args(["-c", "umask \"$0\" && exec \"$@\"", umask]).arg(program).args(arguments);
    command
}

#[test]
fn modes_follow_the_repository_whatever_the_umask() {
    for (shared, umask, directories, files) in TABLE {
        let name = format!("core.sharedRepository={shared}, umask {umask}");
        let repo = used(shared, umask);
        for path in walk(&repo.git_dir().join(".jin")) {
            let found = fs::symlink_metadata(&path).expect("it is there");
            // Another name of a file of git's, or a file that was moved aside as it was.
            let is_moved = ["quarantine", "kept"].iter().any(|dir| path.components().any(|it| it.as_os_str() == *dir));
            if found.is_file() && (found.nlink() > 1 || is_moved) {
                continue;
            }
            let expected = if found.is_dir() { directories } else { files };
            let mode = found.permissions().mode() & 0o7777;
            assert_eq!(format!("{mode:o}"), format!("{expected:o}"), "{name}: {}", path.display());
        }
        assert_hooks_run_for_writers(&repo, &name);
    }
}

/// Whoever may write to the repository may read and run its hooks.
fn assert_hooks_run_for_writers(repo: &Repo, name: &str) {
    let directory = fs::metadata(repo.git_dir()).expect("it is there").mode();
    for hook in ["reference-transaction", "post-checkout"] {
        let mode = fs::metadata(repo.git_dir().join("hooks").join(hook)).expect("it is there").mode();
        for (writes, runs) in [(0o020, 0o050), (0o002, 0o005)] {
            assert!(directory & writes == 0 || mode & runs == runs, "{name}: {hook} has mode {mode:o}");
        }
    }
}

/// A repository after everyday use and a crash, and what every part of ours leaves in it.
fn used(shared: &str, umask: &str) -> Repo {
    let repo = Repo::new(Options::default());
    open(&repo);
    fs::remove_dir_all(repo.path()).expect("it is made anew");
    let program = Git::under_test().program.clone();
    let git = |arguments: &[&str]| with_umask(&repo, umask, &program, arguments);
    let run = |mut command: Command| {
        let output = command.output().expect("sh runs");
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    };
    let mut init =
        git(&["init", "-q", "--template=", &format!("--shared={shared}"), &repo.path().display().to_string()]);
    init.current_dir(repo.scratch());
    run(init);
    let jin = |arguments: &[&str]| with_umask(&repo, umask, &jin_txn(), arguments);
    run(jin(&["install"]));
    repo.write("file", "one\n");
    run(git(&["add", "file"]));
    run(git(&["commit", "-qm", "one"]));
    run(git(&["branch", "topic"]));
    run(git(&["pack-refs", "--all"]));
    run(git(&["branch", "-D", "topic"]));
    run(git(&["checkout", "-qb", "side"]));
    // Killed in the middle: locks go to quarantine.
    crash::kill_at(git(&["commit", "-q", "--allow-empty", "-m", "two"]), "", Action::KillTree, crash::is_ref_rename);
    repo.write("file", "two\n");
    repo.write("new", "untracked\n");
    let failed = jin(&["run", "--", "sh", "-c", "echo three > file; rm new; exit 1"]).output().expect("sh runs");
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    let killed = jin(&["run", "--", "git", "commit", "-qam", "three"]);
    crash::kill_at(killed, "", Action::KillTree, crash::is_ref_rename);
    repo
}

#[test]
fn a_hook_script_that_replaces_a_closed_one_stays_closed_and_a_shared_one_is_shared() {
    for (before, directory, after) in [(0o700, 0o755, 0o700), (0o755, 0o755, 0o755), (0o700, 0o2775, 0o770)] {
        let repo = Repo::new(Options { guarded: true, ..Options::default() });
        let hook = repo.git_dir().join("hooks/post-checkout");
        chmod(&hook, before);
        chmod(&repo.git_dir().join("hooks"), directory);
        repo.install_guard();
        let mode = fs::metadata(&hook).expect("it is there").mode() & 0o777;
        assert_eq!(format!("{mode:o}"), format!("{after:o}"), "{before:o} in a directory with mode {directory:o}");
    }
}
