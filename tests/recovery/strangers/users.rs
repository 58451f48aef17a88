//! Other users of the machine and of the repository: colleagues are not refused, strangers do not block.
//!
//! Only root can act as several users: for anybody else these tests say so and end.

mod modes;
mod roots;
mod together;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::crash;
use crate::support::observe::shown;
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, NOBODY, Options, Repo, jin_txn, text};
use crate::support::tracer::{self, Action, Event, Isolation};
use crate::support::wait::{comes_true, wait_until};

/// A group that no user of the machine is in.
const GROUP: u32 = 46_000;

/// A user with a group of his own, who is a member of [`GROUP`].
#[derive(Clone, Copy, Debug)]
struct User {
    uid: u32,
    umask: &'static str,
}

const ALICE: User = User { uid: 46_001, umask: "077" };
const BOB: User = User { uid: 46_002, umask: "022" };

impl User {
    /// A program that this user runs in a repository.
    fn command(self, repo: &Repo, program: &OsStr, arguments: &[&str]) -> Command {
        let mut command = repo.command("setpriv".as_ref());
        command.args([format!("--reuid={}", self.uid), format!("--regid={}", self.uid), format!("--groups={GROUP}")]);
        command.args(["sh", "-c", "umask \"$0\" && exec \"$@\"", self.umask]).arg(program).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn git(self, repo: &Repo, arguments: &[&str]) -> Command {
        self.command(repo, Git::under_test().program.as_os_str(), arguments)
    }

    fn jin(self, repo: &Repo, arguments: &[&str]) -> Command {
        self.command(repo, jin_txn().as_os_str(), arguments)
    }
}

/// Runs a command that must succeed.
#[track_caller]
fn succeeds(mut command: Command) -> Output {
    let output = command.output().expect("setpriv runs");
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

/// Recovers as this user, which must end everything. Who is busy is waited for: a git of another test in a mount namespace of
/// its own may work anywhere, and what root runs in a container may be anybody.
#[track_caller]
fn recovers(repo: &Repo, user: User) {
    const BUSY: i32 = 5;
    let_the_clock_tick(&repo.git_dir());
    let (mut said, mut disturbed) = (String::new(), false);
    let is_over = comes_true(|| {
        let mut others = root_runs_a_container();
        let output = user.jin(repo, &["recover"]).output().expect("setpriv runs");
        said = shown(repo, &output);
        others |= root_runs_a_container();
        disturbed |= others;
        let may_wait = output.status.code() == Some(BUSY) && (others || !said.contains("cannot be seen"));
        assert!(output.status.success() || may_wait, "{user:?} cannot recover: {said}");
        output.status.success()
    });
    assert!(is_over || disturbed, "{user:?} cannot recover: {said}");
    if !is_over {
        println!("nothing was learned: root ran containers all the time: {said}");
    }
}

/// Is there a process of root's in a pid namespace below ours?
fn root_runs_a_container() -> bool {
    let is_one = |status: &str| {
        let numbers = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::split_ascii_whitespace);
        numbers("NSpid:").is_some_and(|pids| pids.count() > 1)
            && numbers("Uid:").is_some_and(|mut uids| uids.any(|uid| uid == "0"))
    };
    let all = fs::read_dir("/proc").expect("there is /proc").flatten();
    all.filter_map(|it| fs::read_to_string(it.path().join("status")).ok()).any(|status| is_one(&status))
}

/// Are we root? Says so if not.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: only root can act as several users");
    }
    root
}

/// A repository that other users find; git takes it for theirs.
fn open_to_others(options: Options) -> Repo {
    let repo = Repo::new(options);
    open(&repo);
    repo
}

fn open(repo: &Repo) {
    fs::set_permissions(repo.scratch(), fs::Permissions::from_mode(0o755)).expect("the mode can be set");
    let config = repo.scratch().join("home/gitconfig");
    repo.git([OsStr::new("config"), "--file".as_ref(), config.as_ref(), "safe.directory".as_ref(), "*".as_ref()]);
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode can be set");
}

/// Everything below a directory, links not followed.
fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while next < found.len() {
        if fs::symlink_metadata(&found[next]).is_ok_and(|it| it.is_dir()) {
            let entries = fs::read_dir(&found[next]).expect("root can list it");
            found.extend(entries.map(|entry| entry.expect("root can list it").path()).collect::<Vec<_>>());
        }
        next += 1;
    }
    found
}

/// A process of somebody who may not write to the repository; ended when it is dropped.
struct Stranger(Child);

impl Stranger {
    /// Starts `git` of that name that does nothing, in the repository's directory, below `wrapper`.
    fn start(repo: &Repo, wrapper: &[&str]) -> Option<Stranger> {
        let fake = repo.scratch().join("git");
        if fs::symlink_metadata(&fake).is_err() {
            fs::copy("/bin/sleep", &fake).expect("a program can be copied");
            chmod(&fake, 0o755);
        }
        let (program, arguments) = wrapper.split_first().map_or((fake.as_os_str(), &[][..]), |(p, a)| (p.as_ref(), a));
        let mut command = repo.as_nobody(program);
        command.args(arguments);
        if !wrapper.is_empty() {
            command.arg(&fake);
        }
        command.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut stranger = Stranger(command.spawn().expect("setpriv starts"));
        let mut ended = false;
        wait_until("the stranger is there", || {
            ended = stranger.0.try_wait().expect("it can be asked").is_some();
            ended || stranger.is_there()
        });
        if ended {
            println!("skipped: no {wrapper:?} for an ordinary user here");
            return None;
        }
        Some(stranger)
    }

    /// Runs a process by the name of git, here or below a process that made its namespaces?
    fn is_there(&self) -> bool {
        self.pids()
            .iter()
            .any(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "git"))
    }

    fn pids(&self) -> Vec<String> {
        let pid = self.0.id().to_string();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        std::iter::once(pid).chain(children.split_whitespace().map(str::to_owned)).collect()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        for pid in self.pids().iter().rev().filter_map(|pid| pid.parse().ok()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
        self.0.wait().ok();
    }
}

#[test]
fn a_process_of_a_stranger_keeps_no_lock_alive_whatever_it_is_called_and_wherever_it_lives() {
    if !is_root() {
        return;
    }
    let namespaces: [&[&str]; 4] =
        [&[], &["unshare", "-Ur"], &["unshare", "-Urpf"], &["unshare", "-Urmpf", "--mount-proc"]];
    for (mode, wrapper) in [0o755, 0o2775].into_iter().flat_map(|mode| namespaces.map(|wrapper| (mode, wrapper))) {
        let repo = open_to_others(Options { guarded: true, ..Options::default() });
        repo.commit_all("one");
        let group = Some(nix::unistd::Gid::from_raw(GROUP));
        nix::unistd::chown(&repo.git_dir(), None, group).expect("root can give it away");
        chmod(&repo.git_dir(), mode);
        let Some(_stranger) = Stranger::start(&repo, wrapper) else { continue };
        let lock = repo.git_dir().join("refs/heads/main.lock");
        fs::write(&lock, "").expect("a lock can be left behind");
        let (code, said) = crash::recover(&repo);
        assert!(!lock.exists(), "{mode:o}, {wrapper:?}: nobody is left that could hold it: {said}");
        assert_eq!(code, 0, "{mode:o}, {wrapper:?}: {said}");
    }
}

#[test]
fn a_process_of_somebody_who_may_write_keeps_the_lock() {
    if !is_root() {
        return;
    }
    let repo = open_to_others(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    let group = Some(nix::unistd::Gid::from_raw(NOBODY));
    for (owner, mode) in [(Some(nix::unistd::Uid::from_raw(NOBODY)), 0o755), (None, 0o2775), (None, 0o777)] {
        nix::unistd::chown(&repo.git_dir(), owner, group).expect("root can give it away");
        chmod(&repo.git_dir(), mode);
        let stranger = Stranger::start(&repo, &[]).expect("it needs no namespaces");
        let lock = repo.git_dir().join("refs/heads/main.lock");
        fs::write(&lock, "").expect("a lock can be left behind");
        let_the_clock_tick(&repo.git_dir());
        let (_, said) = crash::run_jin(&repo, &["recover"]);
        assert!(lock.exists(), "{owner:?} {mode:o}: it could be his: {said}");
        drop(stranger);
        crash::recover(&repo);
        assert!(!lock.exists(), "{owner:?} {mode:o}: he is gone");
        let root = (Some(nix::unistd::Uid::from_raw(0)), Some(nix::unistd::Gid::from_raw(0)));
        nix::unistd::chown(&repo.git_dir(), root.0, root.1).expect("root can take it back");
    }
}

#[test]
fn a_stranger_in_a_pid_namespace_keeps_no_transaction_of_another_namespace_alive() {
    if !is_root() {
        return;
    }
    let repo = open_to_others(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    crate::support::repo::give_to(ALICE.uid, repo.path());
    // A container that is gone: nobody is in its pid namespace any more.
    let in_container = ALICE.git(&repo, &["branch", "torn"]);
    let mut cut = |event: &Event| if crash::is_ref_rename(event) { Action::KillTree } else { Action::Continue };
    let outcome = tracer::trace(in_container, b"", Isolation::Container, &mut cut).expect("root can make a container");
    assert!(outcome.killed.is_some(), "it is killed: {}", text(&outcome.stderr));
    let Some(_stranger) = Stranger::start(&repo, &["unshare", "-Urpf"]) else { return };
    recovers(&repo, ALICE);
    succeeds(ALICE.git(&repo, &["branch", "torn"]));
}

#[test]
fn a_stranger_reads_nothing_of_the_state_directory_and_locks_nothing_in_it() {
    if !is_root() {
        return;
    }
    let repo = open_to_others(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    repo.git(["branch", "topic"]);
    repo.git(["branch", "-D", "topic"]);
    let state = repo.git_dir().join(".jin");
    let mut find = repo.as_nobody("find".as_ref());
    let found = find.arg(&state).args(["-mindepth", "1"]).output().expect("find runs");
    assert_eq!(text(&found.stdout), "", "nobody is told what is in there");
    for name in ["append.lock", "recovery.lock", "log-head", "install.json"] {
        let mut flock = repo.as_nobody("flock".as_ref());
        let output = flock.args(["-n", "--shared"]).arg(state.join(name)).arg("true").output().expect("flock runs");
        assert!(!output.status.success(), "{name} cannot be opened");
    }
    // He may be in a directory that shows them, as a former version made it: then the files themselves are closed.
    chmod(&state, 0o755);
    repo.git(["branch", "again"]);
    repo.install_guard();
    let mut find = repo.as_nobody("find".as_ref());
    let found = find.arg(&state).args(["-type", "f", "-readable"]).output().expect("find runs");
    let linked =
        text(&found.stdout).lines().filter(|path| !path.ends_with("config.saved")).collect::<Vec<_>>().join("\n");
    assert_eq!(linked, "", "no file can be read");
    // Nor what a former version left open.
    for (path, mode) in [(state.clone(), 0o755), (state.join("wal"), 0o755), (state.join("install.json"), 0o644)] {
        chmod(&path, mode);
    }
    repo.install_guard();
    for (path, mode) in [(state.clone(), 0o700), (state.join("wal"), 0o700), (state.join("install.json"), 0o600)] {
        let found = fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777;
        assert_eq!(format!("{found:o}"), format!("{mode:o}"), "{}", path.display());
    }
}

#[test]
fn a_temporary_name_that_leads_elsewhere_is_not_written_through() {
    // Root's markers are written aside first: what lies under that name may be another name of a file outside.
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    let outside = repo.scratch().join("outside");
    fs::write(&outside, "untouched\n").expect("it can be written");
    let hook = repo.git_dir().join("hooks/reference-transaction");
    let program = fs::read_link(&hook).expect("it is a link");
    fs::remove_file(&hook).expect("it can be replaced");
    // The number of the hook's process is known only to itself: it goes on as our hook.
    let state = repo.git_dir().join(".jin");
    let script = format!(
        "#!/bin/sh\npidns=$(stat -L -c %i /proc/self/ns/pid)\nstart=$(cut -d' ' -f22 /proc/$$/stat)\n\
         for id in 0 1 2 3 4 5 6 7 8 9; do for link in 'ln' 'ln -s'; do\n\
         $link {} {}/tmp.$pidns.$$.$start.tx-$id 2>/dev/null\ndone; done\n\
         exec -a reference-transaction {} \"$@\"\n",
        outside.display(),
        state.display(),
        program.display()
    );
    crate::support::repo::write_file(&hook, &script.replace("#!/bin/sh", "#!/bin/bash"), 0o755);
    repo.git(["branch", "topic"]);
    assert_eq!(fs::read_to_string(&outside).expect("it is there"), "untouched\n");
    symlink(&program, repo.scratch().join("unused")).expect("links can be made");
}
