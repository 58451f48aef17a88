//! No state is for ever: what cannot be restored, moved or read is named, and a command that is named as well ends it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::crash::{self, assert_fsck, run_jin};
use crate::support::repo::{NOBODY, Options, Repo, give_to, jin_txn, text, write_file};
use crate::support::snapshot::walk;
use crate::support::wait::wait_until;

use super::ways_out::ends_by_its_own_hints;
use super::{Torn, guarded};

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: only root can act as another user");
    }
    root
}

pub fn state(repo: &Repo) -> PathBuf {
    repo.git_dir().join(".jin")
}

fn content(repo: &Repo, name: &str) -> String {
    fs::read_to_string(repo.path().join(name)).expect("it is there")
}

fn said_by(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// A command by the user of [`NOBODY`].
fn nobody(repo: &Repo, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = repo.as_nobody(jin_txn().as_os_str());
    said_by(&command.args(arguments).output().expect("setpriv runs"))
}

/// A run by an ordinary user, in the middle of which `meanwhile` happens.
fn failing_run_of_nobody(repo: &Repo, script: &str, meanwhile: impl FnOnce(&Repo)) -> (Option<i32>, String) {
    let (ready, go) = (repo.scratch().join("ready"), repo.scratch().join("go"));
    let script =
        format!("{script}; : >'{}'; until test -e '{}'; do sleep 0.01; done; exit 9", ready.display(), go.display());
    let mut command = repo.as_nobody(jin_txn().as_os_str());
    command.args(["run", "--", "sh", "-ec", &script]);
    std::thread::scope(|scope| {
        let run = scope.spawn(move || command.output().expect("setpriv runs"));
        wait_until("the script is there", || ready.exists());
        meanwhile(repo);
        fs::write(&go, "").expect("it can be made");
        said_by(&run.join().expect("the run ends"))
    })
}

/// The repository of an ordinary user.
fn of_nobody() -> Repo {
    let repo = guarded();
    give_to(NOBODY, repo.scratch());
    repo
}

#[test]
fn files_of_root_keep_nothing_else_from_going_back_and_the_run_can_be_closed() {
    if !is_root() {
        return;
    }
    let repo = of_nobody();
    let before = repo.read(["-c", "safe.directory=*", "rev-parse", "HEAD"]);
    let (code, said) = failing_run_of_nobody(&repo, "echo two >file; git commit -qam two; echo new >new", |repo| {
        write_file(&repo.path().join("built/by-root"), "x\n", 0o644);
        fs::create_dir_all(repo.path().join("closed/inner")).expect("root makes it");
        write_file(&repo.path().join("closed/inner/file"), "x\n", 0o600);
        fs::set_permissions(repo.path().join("closed"), fs::Permissions::from_mode(0o700)).expect("it is root's");
    });
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("built/by-root") && said.contains("Permission denied"), "it is named: {said}");
    assert_eq!(content(&repo, "file"), "one\n", "{said}");
    assert!(!repo.path().join("new").exists(), "{said}");
    let now = fs::read_to_string(repo.git_dir().join("refs/heads/main")).expect("it is there");
    assert_eq!(now.trim(), before, "the branch is back: {said}");
    assert_eq!(nobody(&repo, &["recover"]).0, Some(4), "it waits");
    let (code, said) = nobody(&repo, &["recover", "--acknowledge", "tx-2"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(nobody(&repo, &["check"]).0, Some(0));
    assert_eq!(failing_run_of_nobody(&repo, "echo three >file", |_| {}).0, Some(9), "and the next run is one");
}

#[test]
fn read_only_directories_as_a_module_cache_has_them_do_not_block_the_repository() {
    if !is_root() {
        return;
    }
    let repo = of_nobody();
    let script = "mkdir -p mod/deep; echo x >mod/deep/go.sum; chmod -R a-w mod; echo two >file; git commit -qam two";
    let (code, said) = failing_run_of_nobody(&repo, script, |_| {});
    assert_eq!((code, content(&repo, "file").as_str()), (Some(4), "one\n"), "{said}");
    assert!(said.contains("mod/deep/go.sum"), "{said}");
    // What is in the way goes, as it is told, and the rest is done.
    fs::set_permissions(repo.path().join("mod/deep"), fs::Permissions::from_mode(0o755)).expect("it is there");
    fs::set_permissions(repo.path().join("mod"), fs::Permissions::from_mode(0o755)).expect("it is there");
    let (code, said) = nobody(&repo, &["recover", "--take-back", "tx-2"]);
    assert_eq!((code, repo.path().join("mod").exists()), (Some(0), false), "{said}");
    assert_eq!(nobody(&repo, &["check"]).0, Some(0));
}

#[test]
fn an_ignored_file_with_a_long_path_can_be_replaced_in_a_run_that_fails() {
    let repo = guarded();
    repo.write(".gitignore", "*.o\n");
    repo.commit_all("ignores");
    let name = format!("{0}/{0}/{0}.o", "n".repeat(120));
    repo.write(&name, "mine\n");
    let (code, said) = run_jin(&repo, &["run", "--", "sh", "-ec", &format!("echo built >x; mv x {name}; exit 9")]);
    assert_eq!(code, 9, "{said}");
    let longest = format!("{}.o", "n".repeat(253));
    repo.write(&longest, "mine\n");
    for _ in 0..2 {
        let (code, said) =
            run_jin(&repo, &["run", "--", "sh", "-ec", &format!("echo built >x; mv x {longest}; exit 9")]);
        assert_eq!(code, 9, "{said}");
    }
    assert_eq!(run_jin(&repo, &["check"]).0, 0);
}

#[test]
fn a_worktree_on_another_disk_than_its_git_directory_goes_back() {
    let Some(elsewhere) = another_disk(Repo::new(Options::default()).scratch()) else { return };
    let repo = guarded();
    let git_dir = repo.git_dir();
    let tree = elsewhere.path().join("tree");
    let tree = tree.to_str().expect("it is text");
    repo.git(["worktree", "add", "-q", "-b", "side", tree]);
    let linked =
        format!("cd {tree}; rm file; git init -q file; echo x >file/inner; ln -s nowhere link; echo new >new; exit 9");
    let (code, said) = run_jin(&repo, &["-C", tree, "run", "--", "sh", "-ec", &linked]);
    assert_eq!(code, 9, "{said}");
    assert_eq!(fs::read_to_string(Path::new(tree).join("file")).expect("it is a file again"), "one\n", "{said}");
    assert!(!Path::new(tree).join("new").exists() && fs::symlink_metadata(Path::new(tree).join("link")).is_err());
    let kept = walk(&git_dir.join(".jin/quarantine"), &|_| true);
    assert!(kept.iter().any(|path| path.ends_with("file/inner")), "nothing is lost: {kept:?}");
    assert_eq!(run_jin(&repo, &["check"]).0, 0);
}

/// A directory on another file system than `here`.
fn another_disk(here: &Path) -> Option<tempfile::TempDir> {
    let device = fs::metadata(here).expect("it is there").dev();
    let places = ["/dev/shm", "/var/tmp", "/tmp", env!("CARGO_TARGET_TMPDIR")];
    let other = places.into_iter().find(|place| fs::metadata(place).is_ok_and(|found| found.dev() != device));
    let found = other.and_then(|place| tempfile::tempdir_in(place).ok());
    if found.is_none() {
        println!("skipped: there is only one file system");
    }
    found
}

#[test]
fn a_run_whose_objects_lie_on_another_disk_goes_back() {
    let Some(elsewhere) = another_disk(Repo::new(Options::default()).scratch()) else { return };
    let repo = guarded();
    let objects = repo.git_dir().join("objects");
    let moved = std::process::Command::new("mv").arg(&objects).arg(elsewhere.path().join("objects")).status();
    assert!(moved.is_ok_and(|status| status.success()));
    symlink(elsewhere.path().join("objects"), &objects).expect("a link can be made");
    let (code, said) = run_jin(&repo, &["run", "--", "sh", "-ec", "echo two >file; git commit -qam two; exit 9"]);
    assert_eq!((code, content(&repo, "file").as_str()), (9, "one\n"), "{said}");
    repo.git(["branch", "other"]);
    let other = crash::spare_commit(&repo, "only other has it");
    repo.git(["update-ref", "refs/heads/other", &other]);
    let script = "git branch -q -D other; git reflog expire --expire=now --all; git gc -q --prune=now; exit 9";
    let (code, said) = run_jin(&repo, &["run", "--", "sh", "-ec", script]);
    assert_eq!((code, crash::value(&repo, "refs/heads/other")), (9, other), "{said}");
    assert_fsck(&repo);
}

#[test]
fn one_stale_lock_that_cannot_be_moved_does_not_keep_the_others() {
    if !is_root() {
        return;
    }
    const DEAD: &str = "jin-txn recovery\n";
    let repo = of_nobody();
    let heads = repo.git_dir().join("refs/heads");
    let long = format!("{}.lock", "n".repeat(240));
    for name in ["mine.lock", long.as_str(), "theirs/x.lock"] {
        write_file(&heads.join(name), DEAD, 0o644);
    }
    give_to(NOBODY, &heads);
    give_to(0, &heads.join("theirs"));
    let (code, said) = nobody(&repo, &["recover"]);
    assert!(!heads.join("mine.lock").exists() && !heads.join(&long).exists(), "{said}");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("refs/heads/theirs/x.lock is stale and stays"), "{said}");
    let mut root = repo.command(jin_txn().as_os_str());
    let (code, said) = said_by(&root.env("SUDO_UID", NOBODY.to_string()).arg("recover").output().expect("it runs"));
    assert_eq!(code, Some(0), "whoever may do it: {said}");
    assert_eq!(nobody(&repo, &["check"]).0, Some(0));
}

/// The oldest segment.
pub fn segment(repo: &Repo) -> PathBuf {
    walk(&state(repo).join("wal"), &|_| true).into_iter().next().expect("there is a log")
}

pub fn flip(repo: &Repo) {
    let path = segment(repo);
    let mut bytes = fs::read(&path).expect("it can be read");
    bytes[20] ^= 1;
    fs::write(&path, bytes).expect("it can be written");
}

#[test]
fn one_flipped_byte_of_the_log_is_told_once_and_a_new_log_begins() {
    for command in [&["recover"][..], &["doctor", "--fix"]] {
        let repo = guarded();
        repo.git(["branch", "one"]);
        let damaged = fs::read(segment(&repo)).expect("it can be read");
        flip(&repo);
        let (code, said) = run_jin(&repo, &["check"]);
        assert!(code == 4 && said.contains("`git txn recover`"), "{said}");
        let (code, said) = run_jin(&repo, command);
        assert_eq!(code, if command.len() == 1 { 4 } else { 0 }, "{said}");
        assert!(said.contains("damaged-log"), "it says where it is: {said}");
        assert_eq!(run_jin(&repo, &["recover"]), (0, "jin-txn: nothing to recover\n".to_owned()), "told once");
        assert_eq!(run_jin(&repo, &["wal", "verify"]).0, 0);
        let mut kept = walk(&state(&repo).join("quarantine"), &|_| true);
        kept.retain(|path| path.extension().is_some_and(|it| it == "wal"));
        assert_eq!(kept.len(), 1, "nothing is thrown away");
        assert_eq!(kept.iter().map(|path| fs::read(path).expect("it is there").len()).max(), Some(damaged.len()));
        repo.git(["branch", "two"]);
        let ids: Vec<_> = crash::transactions(&repo).into_iter().map(|it| it["id"].clone()).collect();
        assert_eq!(ids, ["tx-3"], "numbers go on");
        assert_eq!(run_jin(&repo, &["check"]).0, 0);
    }
}

#[test]
fn a_damaged_log_stays_while_a_torn_update_needs_it() {
    let torn = Torn::new();
    flip(&torn.repo);
    let wal = fs::read(segment(&torn.repo)).expect("it can be read");
    let (_, said) = run_jin(&torn.repo, &["recover"]);
    if torn.new_ones() == 3 {
        assert!(fs::read(segment(&torn.repo)).expect("it is there").starts_with(&wal), "{said}");
    }
    ends_by_its_own_hints(&torn.repo, "a torn update in a damaged log");
}

#[test]
fn a_deleted_log_is_told_once_and_begun_anew_whatever_else_was_deleted() {
    for (name, also) in [("alone", None), ("with the note of its end", Some("log-head"))] {
        let repo = guarded();
        fs::remove_dir_all(state(&repo).join("wal")).expect("there is a log");
        if let Some(file) = also {
            fs::remove_file(state(&repo).join(file)).expect("it is there");
        }
        let (code, said) = run_jin(&repo, &["recover"]);
        assert_eq!(code, 4, "{name}: {said}");
        assert!(said.contains("wal was missing") && said.contains("a new one has begun"), "{name}: {said}");
        assert_eq!(run_jin(&repo, &["recover"]), (0, "jin-txn: nothing to recover\n".to_owned()), "{name}");
        repo.git(["branch", "two"]);
        assert_eq!(run_jin(&repo, &["check"]).0, 0, "{name}");
    }
}

#[test]
fn a_torn_update_whose_log_was_deleted_waits_for_a_person() {
    for also in [None, Some("log-head")] {
        let torn = Torn::new();
        fs::remove_dir_all(state(&torn.repo).join("wal")).expect("there is a log");
        if let Some(file) = also {
            fs::remove_file(state(&torn.repo).join(file)).expect("it is there");
        }
        let (code, said) = run_jin(&torn.repo, &["recover"]);
        assert_eq!((code, torn.new_ones()), (4, 3), "nothing is guessed: {said}");
        ends_by_its_own_hints(&torn.repo, "a torn update without a log");
    }
}

/// The git directory without `.jin`, and the settings.
fn theirs(repo: &Repo) -> (Vec<PathBuf>, String) {
    let git_dir = repo.git_dir();
    let hooks = walk(&git_dir.join("hooks"), &|_| true).into_iter().collect();
    (hooks, fs::read_to_string(git_dir.join("config")).expect("it can be read"))
}

#[test]
fn whoever_deletes_the_state_directory_can_still_uninstall_and_nothing_of_ours_stays() {
    for install_again in [false, true] {
        let repo = Repo::new(Options::default());
        let before = theirs(&repo);
        repo.install_guard();
        assert_ne!(theirs(&repo), before);
        fs::remove_dir_all(state(&repo)).expect("there is one");
        if install_again {
            repo.install_guard();
        }
        let (code, said) = run_jin(&repo, &["uninstall"]);
        assert_eq!(code, 0, "{said}");
        assert_eq!(theirs(&repo), before, "installed again: {install_again}");
        fs::remove_dir_all(state(&repo)).ok();
        let (code, said) = run_jin(&repo, &["uninstall"]);
        assert!(code == 1 && said.contains("is not protected"), "{said}");
    }
}

#[test]
fn the_quarantine_stays_below_what_was_chosen_and_keeps_what_came_last() {
    const SIZE: u64 = 2 << 20;
    let repo = guarded();
    repo.git(["config", "jin.retention", "5m"]);
    repo.install_guard();
    for n in 0..6 {
        let script = format!("head -c {SIZE} /dev/urandom >big{n}; exit 9");
        assert_eq!(run_jin(&repo, &["run", "--", "sh", "-ec", &script]).0, 9);
    }
    let kept = walk(&state(&repo).join("quarantine"), &|_| true);
    let bytes: u64 = kept.iter().map(|path| fs::metadata(path).expect("it is there").len()).sum();
    assert!(bytes <= 5 << 20, "{bytes} bytes: {kept:?}");
    assert!(kept.iter().any(|path| path.ends_with("big5")), "{kept:?}");
    // One that is larger than all that is allowed stays until the next one comes.
    let script = format!("head -c {} /dev/urandom >huge; exit 9", 4 * SIZE);
    assert_eq!(run_jin(&repo, &["run", "--", "sh", "-ec", &script]).0, 9);
    let kept = walk(&state(&repo).join("quarantine"), &|_| true);
    assert!(kept.iter().any(|path| path.ends_with("huge")) && kept.len() == 1, "{kept:?}");
}
