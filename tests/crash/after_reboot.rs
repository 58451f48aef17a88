//! What a power cut takes back is put right by the first operation after it, and nothing else is touched.
//!
//! The damage is done by hand, as file systems leave it: an older file under the name of the newer one (the same inode, as
//! if the rename had been lost), empty files, NULs, missing names. `tests/powercut` cuts the power for real.

mod faults;
mod hostile;
mod other_files;
mod repairs;
mod unseen;

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};

use crate::support::repo::{Options, Repo, text};
use crate::support::snapshot::Snapshot;
use crate::support::{crash, observe, reboot};

const MAIN: &str = "refs/heads/main";

/// A guarded repository whose main branch has two commits, the second made under guard.
fn guarded() -> Repo {
    let repo = Repo::new(Options::default());
    repo.write("file", "one\n");
    repo.commit_all("one");
    repo.install_guard();
    repo.write("file", "two\n");
    repo.commit_all("two");
    repo
}

/// Runs the binary under test as after a reboot and returns what a person sees.
fn jin_after_reboot(repo: &Repo, arguments: &[&str]) -> String {
    observe::shown(repo, &run_after_reboot(repo, arguments))
}

fn run_after_reboot(repo: &Repo, arguments: &[&str]) -> Output {
    reboot::output_after(|| crash::jin(repo, arguments))
}

fn run(mut command: std::process::Command) -> Output {
    command.output().expect("the program starts in a namespace of its own")
}

/// Keeps the file that lies at `path` now, to be shown again by a disk that has lost the rename which replaced it.
struct OldFile {
    path: PathBuf,
    kept: PathBuf,
}

impl OldFile {
    fn keep(repo: &Repo, inside: &str) -> Self {
        let path = repo.git_dir().join(inside);
        let kept = repo.scratch().join(format!("kept-{}", inside.replace('/', "-")));
        fs::hard_link(&path, &kept).expect("a file gets a second name");
        Self { path, kept }
    }

    fn comes_back(self) {
        fs::create_dir_all(self.path.parent().expect("it lies in a directory")).expect("the directory can be made");
        fs::rename(self.kept, self.path).expect("the old file replaces the new one");
    }
}

/// Takes a name away as a lost rename does: the directory does not look changed since.
fn lose(path: &Path) {
    fs::remove_file(path).expect("the file was there");
    let directory = path.parent().expect("it lies in a directory");
    set_time(directory, SystemTime::now() - Duration::from_secs(3600));
}

/// Leaves what a lost rename leaves: the lock.
fn undo_rename(path: &Path) {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    fs::rename(path, lock).expect("the ref was loose");
}

fn set_time(path: &Path, time: SystemTime) {
    let opened = File::open(path).expect("it can be opened");
    opened.set_times(FileTimes::new().set_modified(time)).expect("its time can be set");
}

fn object_file(repo: &Repo, oid: &str) -> PathBuf {
    repo.git_dir().join("objects").join(&oid[..2]).join(&oid[2..])
}

fn overwrite(path: &Path, content: &[u8]) {
    let mut permissions = fs::metadata(path).expect("it is there").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(path, permissions).expect("its mode can be changed");
    fs::write(path, content).expect("it can be written");
}

/// Names of what lies in quarantine, without times.
fn quarantined(repo: &Repo) -> Vec<String> {
    let entries = fs::read_dir(repo.git_dir().join(".jin/quarantine")).expect("there is a quarantine");
    let names = entries.map(|entry| entry.expect("it can be read").file_name().display().to_string());
    let mut names: Vec<_> = names.map(|name| name.split_once('-').expect("time, then name").1.to_owned()).collect();
    names.sort();
    names
}

/// Asserts that git is content and that a second recovery, in the same boot or the next, has nothing to do.
#[track_caller]
fn assert_settled(repo: &Repo) {
    crash::assert_fsck(repo);
    let before = Snapshot::of(repo);
    for _ in 0..2 {
        let output = run_after_reboot(repo, &["recover"]);
        assert_eq!(output.status.code(), Some(0), "recovery again: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "jin-txn: nothing to recover\n");
    }
    assert_eq!(Snapshot::of(repo), before, "a second recovery changes nothing");
    let status = repo.try_git(["status", "--porcelain"]);
    assert!(status.status.success(), "git status: {}", text(&status.stderr));
    repo.commit_all("the next commit");
}
