//! One repository that is reached by two paths: a bind mount, a mount namespace, a chroot, linked parts. A live git at the
//! other path keeps its locks. It has no marker here, so that nothing but its path tells where it works.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::live_owners::Scene;
use super::{guarded, leave_stale_lock};
use crate::support::crash::{self, assert_recovers, recover, run_jin};
use crate::support::repo::{Git, Options, Repo};
use crate::support::wait::wait_until;

/// How a git is told where it works, when the repository is also to be found in a directory.
const WAYS: [&str; 4] = ["cwd", "GIT_DIR", "-C", "cwd below .git"];

/// A git that updates refs in the repository that `there` shows, with the guard looking away.
fn update(repo: &Repo, way: &str, there: &Path) -> Command {
    let (place, git_dir) = (there.display().to_string(), there.join(".git"));
    let mut command = match way {
        "-C" => crash::git(repo, &["-C", &place, "update-ref", "--stdin"]),
        _ => crash::git(repo, &["update-ref", "--stdin"]),
    };
    command.env("JIN_TXN", "off").current_dir("/");
    match way {
        "cwd" => command.current_dir(there),
        "GIT_DIR" => command.env("GIT_DIR", git_dir),
        "cwd below .git" => command.current_dir(git_dir.join("refs")),
        _ => &mut command,
    };
    command
}

/// Whoever recovers, and whatever a hook sees beside its own work: nothing of the live git's goes.
fn assert_kept(scene: &Scene, kind: &str) {
    for arguments in [&["recover"][..], &["recover", "--force"]] {
        let (code, said) = run_jin(&scene.repo, arguments);
        assert!(scene.live.lock().exists(), "{kind}: {arguments:?} took its lock: {code} {said}");
        assert_eq!(code, 5, "{kind}: {said}");
    }
    let head = scene.repo.git_dir().join("HEAD.lock");
    leave_stale_lock(&scene.repo, "HEAD.lock");
    scene.repo.git(["tag", "by-a-neighbour"]);
    assert!(head.exists(), "{kind}: a hook took a lock that it may hold");
    fs::remove_file(head).expect("it is there");
    scene.repo.git(["tag", "-d", "by-a-neighbour"]);
}

/// Bind mounts of a namespace of their own. They are gone before it is left, and what they lie in is removed only by whoever
/// never saw them: removing a directory with a mount in it removes what is mounted.
struct Mounts<'r> {
    repo: &'r Repo,
    made: Vec<PathBuf>,
}

impl Mounts<'_> {
    /// Shows the directory `from` at `to`, which lies in the test's own directory.
    fn bind(&mut self, from: &Path, to: &Path) {
        assert!(from.starts_with(self.repo.scratch()) || from == Path::new("/usr"), "{}", from.display());
        assert!(
            to.starts_with(self.repo.scratch()) && from != Path::new("/"),
            "{} at {}",
            from.display(),
            to.display()
        );
        fs::create_dir_all(to).expect("a directory can be made");
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("it can be mounted");
        self.made.push(to.to_owned());
    }

    /// The same of what is not the test's.
    fn bind_read_only(&mut self, from: &Path, to: &Path) {
        self.bind(from, to);
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, to, None::<&str>, flags, None::<&str>).expect("it can be made read-only");
    }
}

impl Drop for Mounts<'_> {
    fn drop(&mut self) {
        for made in self.made.iter().rev() {
            umount2(made, MntFlags::MNT_DETACH).ok();
        }
    }
}

/// Do any mounts that the calling thread sees lie below the test's directory, or spread to other namespaces?
fn has_mounts(repo: &Repo) -> bool {
    let seen = fs::read_to_string("/proc/thread-self/mountinfo").expect("it is there");
    let scratch = format!(" {}/", fs::canonicalize(repo.scratch()).expect("it is there").display());
    seen.contains(&scratch)
}

fn are_private() -> bool {
    !fs::read_to_string("/proc/thread-self/mountinfo").expect("it is there").contains(" shared:")
}

/// From where recovery looks at the live git: among the same mounts, or without them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Within,
    Outside,
}

/// Starts the git that `command` makes among its mounts, and lets `look` see that it is alive. Without the right to make a mount
/// namespace nothing is done.
fn among_mounts(from: From, command: impl FnOnce(&mut Mounts<'_>) -> Command + Send, look: impl Fn(&Scene) + Sync) {
    let repo = guarded();
    repo.git(["config", "core.lockfilePid", "false"]);
    let (repo, look) = (&repo, &look);
    let (give, scenes) = mpsc::channel::<Scene>();
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            let alone = unshare(CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>));
            if alone.is_err() || !are_private() {
                return println!("skipped: no right to make a mount namespace");
            }
            let mut mounts = Mounts { repo, made: Vec::new() };
            let scene = Scene::of(repo.clone(), |_| command(&mut mounts));
            if from == From::Within {
                look(&scene);
                scene.finish();
            } else {
                give.send(scene).expect("somebody waits");
                is_done.recv().ok();
            }
            drop(mounts);
            assert!(!has_mounts(repo), "they are gone");
        });
        if let Ok(scene) = scenes.recv() {
            assert!(!has_mounts(repo), "they are not seen from here");
            look(&scene);
            scene.finish();
        }
        drop(done);
    });
    assert!(!has_mounts(repo), "what is removed now is the test's own");
}

/// A directory of another repository, which a bind mount covers for some.
fn another(repo: &Repo) -> PathBuf {
    repo.new_sibling("another", Options::default()).path().to_owned()
}

#[test]
fn a_live_git_in_a_bind_mount_of_the_repository_keeps_its_lock() {
    for way in WAYS {
        let command = |mounts: &mut Mounts<'_>| {
            let there = mounts.repo.scratch().join("mounted");
            mounts.bind(mounts.repo.path(), &there);
            update(mounts.repo, way, &there)
        };
        among_mounts(From::Within, command, |scene| assert_kept(scene, way));
    }
}

/// At that path we see another repository.
#[test]
fn a_live_git_whose_path_means_another_repository_to_us_keeps_its_lock() {
    for way in WAYS {
        let command = |mounts: &mut Mounts<'_>| {
            let (there, link) = (another(mounts.repo), mounts.repo.scratch().join("link"));
            symlink(&there, &link).expect("a link can be made");
            mounts.bind(mounts.repo.path(), &there);
            update(mounts.repo, way, &link)
        };
        among_mounts(From::Outside, command, |scene| assert_kept(scene, way));
    }
}

/// What it sees by now is not what it was started with.
#[test]
fn a_live_git_whose_path_leads_nowhere_any_more_keeps_its_lock() {
    let repo = guarded();
    repo.git(["config", "core.lockfilePid", "false"]);
    let there = repo.sibling("moved");
    let scene = Scene::of(repo.clone(), |repo| {
        symlink(repo.path(), there.path()).expect("a link can be made");
        update(repo, "GIT_DIR", there.path())
    });
    fs::remove_file(there.path()).expect("it is a link");
    assert_kept(&scene, "a link that is gone");
    symlink(repo.path(), there.path()).expect("a link can be made");
    scene.finish();
}

/// Its root is not ours, its mounts are.
#[test]
fn a_live_git_in_a_chroot_keeps_its_lock() {
    for (way, linked) in WAYS.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let command = |mounts: &mut Mounts<'_>| in_chroot(mounts, way, linked);
        among_mounts(From::Within, command, |scene| assert_kept(scene, &format!("{way}, by a link: {linked}")));
    }
}

/// A git in a root of its own, where the path of another repository leads to this one.
fn in_chroot(mounts: &mut Mounts<'_>, way: &str, linked: bool) -> Command {
    let repo = mounts.repo;
    let (there, link, jail) = (another(repo), repo.scratch().join("link"), repo.scratch().join("jail"));
    let inside = |path: &Path| jail.join(path.strip_prefix("/").expect("it is absolute"));
    mounts.bind(repo.path(), &inside(&there));
    symlink(&there, inside(&link)).expect("a link can be made");
    symlink(&there, &link).expect("a link can be made");
    mounts.bind_read_only(Path::new("/usr"), &jail.join("usr"));
    // git wants something of that name.
    fs::create_dir_all(jail.join("dev")).and_then(|()| fs::write(jail.join("dev/null"), "")).expect("it can be made");
    fs::copy(&Git::under_test().program, jail.join("git")).expect("it can be copied");
    for name in ["bin", "lib", "lib64"] {
        symlink(Path::new("usr").join(name), jail.join(name)).expect("a link can be made");
    }
    let script = match way {
        "cwd" => "cd \"$1\" && exec \"$0\" update-ref --stdin",
        "GIT_DIR" => "cd / && GIT_DIR=$1/.git exec \"$0\" update-ref --stdin",
        "-C" => "cd / && exec \"$0\" -C \"$1\" update-ref --stdin",
        _ => "cd \"$1/.git/refs\" && exec \"$0\" update-ref --stdin",
    };
    let mut command = repo.command("/usr/sbin/chroot".as_ref());
    command.arg(jail).args(["sh", "-c", script, "/git"]).arg(if linked { link } else { there });
    command.env("JIN_TXN", "off");
    command
}

#[test]
fn a_live_git_in_a_new_workdir_of_the_repository_keeps_its_lock() {
    for way in WAYS {
        let scene = Scene::new(|repo| {
            let there = repo.scratch().join("workdir");
            link_parts(repo, &there);
            update(repo, way, &there)
        });
        assert_kept(&scene, way);
        scene.finish();
    }
}

/// As `git-new-workdir` does it.
fn link_parts(repo: &Repo, there: &Path) {
    fs::create_dir_all(there.join(".git/logs")).expect("it can be made");
    for part in ["config", "refs", "logs/refs", "objects", "info", "hooks", "packed-refs"] {
        symlink(repo.git_dir().join(part), there.join(".git").join(part)).expect("a link can be made");
    }
    fs::copy(repo.git_dir().join("HEAD"), there.join(".git/HEAD")).expect("it can be copied");
}

/// It found its repository before it went to the worktree that it was told, and has written its lock and closed it.
#[test]
fn a_live_commit_whose_worktree_is_that_of_another_repository_keeps_its_lock() {
    for (argument, variable) in [(true, false), (false, true)] {
        let repo = guarded();
        repo.git(["config", "core.lockfilePid", "false"]);
        let there = another(&repo);
        let option = format!("--work-tree={}", there.display());
        let mut words = vec!["commit", "-q", "-a"];
        if argument {
            words.insert(0, &option);
        }
        let mut commit = crash::git(&repo, &words);
        if variable {
            commit.env("GIT_WORK_TREE", &there);
        }
        let started = repo.scratch().join("started");
        let editor = format!("echo >'{}'; exec sleep 600; true", started.display());
        commit.env("GIT_EDITOR", editor).env("JIN_TXN", "off").process_group(0);
        let mut commit = commit.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("git starts");
        wait_until("the editor is there", || started.exists());
        leave_stale_lock(&repo, "refs/heads/may-be-its.lock");
        let (code, said) = run_jin(&repo, &["recover", "--force"]);
        let kept = repo.git_dir().join("index.lock").exists();
        killpg(Pid::from_raw(commit.id().cast_signed()), Signal::SIGKILL).expect("git and its editor are there");
        commit.wait().expect("it is our child");
        assert!(kept && code == 5, "by its argument: {argument}: {code} {said}");
    }
}

#[test]
fn a_live_git_of_another_repository_is_in_nobodys_way_whatever_its_root_and_mounts() {
    let look = |scene: &Scene| {
        let bystander = scene.repo.new_sibling("bystander", Options { guarded: true, ..Options::default() });
        bystander.do_not_wait_for_locks();
        bystander.commit_all("one");
        leave_stale_lock(&bystander, "refs/heads/nobody.lock");
        // The live git of another test may be in the way for a while; this one would be for as long as it lives.
        wait_until("the lock of nobody goes", || recover(&bystander).0 == 0);
        assert_recovers(&bystander);
    };
    among_mounts(From::Within, |mounts| in_chroot(mounts, "GIT_DIR", false), look);
}
