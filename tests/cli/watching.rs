//! Who starts the watch, and who does not. In a process that collects no orphans: a watch that is adopted by one ends itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::crash::git;
use crate::support::repo::{Options, Repo, jin_txn, text};
use crate::support::wait::wait_until;
use crate::support::watch::{runtime, with_watch};

/// A protected repository with a commit and a change of `f`.
fn scene() -> Repo {
    let repo = Repo::new(Options::default());
    repo.write("f", "one\n");
    repo.commit_all("one");
    repo.install_guard();
    repo.write("f", "two\n");
    repo
}

/// What `jin-txn watch --status` says.
fn status(repo: &Repo) -> String {
    let done = with_watch(repo, repo.command(jin_txn().as_os_str())).args(["watch", "--status"]).output();
    text(&done.expect("it starts").stdout).into_owned()
}

#[test]
fn the_first_hook_starts_one_watch_and_stop_ends_it() {
    let repo = scene();
    let status =
        || with_watch(&repo, repo.command(jin_txn().as_os_str())).args(["watch", "--status"]).output().unwrap();
    assert_eq!(text(&status().stdout), "no watch runs\n");
    for message in ["two", "three"] {
        repo.write("f", message);
        let done = with_watch(&repo, git(&repo, &["commit", "-qam", message])).output().expect("git starts");
        assert!(done.status.success() && done.stderr.is_empty(), "{}", text(&done.stderr));
    }
    wait_until("it runs", || status().status.success());
    let mut second = with_watch(&repo, repo.command(jin_txn().as_os_str()));
    let second = second.arg("watch").output().expect("it starts");
    assert!(text(&second.stderr).contains("the watch runs already"), "{}", text(&second.stderr));
    let pid =
        || text(&status().stdout).split("pid ").nth(1).map(|rest| rest.split(' ').next().unwrap_or("").to_owned());
    let process = PathBuf::from(format!("/proc/{}", pid().expect("it says")));
    let open = fs::read_dir(process.join("fd")).expect("it is ours").flatten();
    let open: Vec<PathBuf> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    assert!(!open.iter().any(|path| path.starts_with(repo.path())), "nothing is open in the repository: {open:?}");
    assert_eq!(fs::read_link(process.join("cwd")).expect("it has one"), Path::new("/"));
    let environ = fs::read(process.join("environ")).expect("it is ours");
    let names: Vec<_> =
        environ.split(|b| *b == 0).filter_map(|v| text(v).split('=').next().map(str::to_owned)).collect();
    let wanted = ["HOME", "PATH", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "LANG", ""];
    assert!(names.iter().all(|name| wanted.contains(&name.as_str())), "{names:?}");
    let stop = with_watch(&repo, repo.command(jin_txn().as_os_str())).args(["watch", "--stop"]).output().unwrap();
    assert!(stop.status.success(), "{}", text(&stop.stderr));
    assert!(text(&stop.stderr).contains("the next git command may start it again"), "{}", text(&stop.stderr));
    assert_eq!(text(&status().stdout), "no watch runs\n");
}

/// What hooks have noted of starting a watch, whichever namespaces they ran in.
fn tried(repo: &Repo) -> String {
    let entries = fs::read_dir(runtime(repo).join("jin-txn")).expect("it is there").flatten().map(|entry| entry.path());
    let tried = entries.filter(|path| path.extension().is_some_and(|it| it == "tried"));
    tried.map(|path| fs::read_to_string(path).expect("it is ours")).collect()
}

/// What would hinder the watch, or be hindered by it, keeps a hook from starting one.
#[test]
fn a_hook_starts_no_watch_that_would_inherit_limits_or_hinder_others() {
    let rows = [
        ("ulimit -t 1000; exec \"$@\"", "limited"),
        ("ulimit -f 1000000; exec \"$@\"", "limited"),
        ("exec nice -n 5 \"$@\"", "low priority"),
        ("exec unshare -m \"$@\"", "mounts of its own"),
        ("exec python3 -c \"$TRACER\" \"$@\"", "a tracer"),
    ];
    for (wrapper, why) in rows {
        let repo = scene();
        let inner = git(&repo, &["commit", "-qam", "two"]);
        let mut command = with_watch(&repo, repo.command("sh".as_ref()));
        command.args(["-c", wrapper, "sh"]).arg(inner.get_program()).args(inner.get_args()).env("TRACER", TRACER);
        let done = command.output().expect("the shell starts");
        if !done.status.success() && !text(&done.stderr).contains("jin-txn") {
            println!("skipped: {wrapper}: {}", text(&done.stderr));
            continue;
        }
        assert!(done.status.success() && done.stderr.is_empty(), "{wrapper}: {}", text(&done.stderr));
        let said = tried(&repo);
        assert!(status(&repo).starts_with("no watch runs") && said.contains(why), "{wrapper}: {said}");
    }
}

/// Runs a program with itself as the tracer, as a debugger does.
const TRACER: &str = r"
import ctypes, os, sys
ptrace = ctypes.CDLL(None).ptrace
ptrace.argtypes = [ctypes.c_long] * 4
pid = os.fork()
if pid == 0:
    ptrace(0, 0, 0, 0)
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    stopped_by = os.WSTOPSIG(status)
    ptrace(7, pid, 0, 0 if stopped_by == 5 else stopped_by)
";

/// It collects orphans, runs a program, and ends when it has no child any more.
const COLLECTOR: &str = r"
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
subprocess.run(sys.argv[1:], check=True)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
";

#[test]
fn a_program_that_waits_for_all_its_descendants_does_not_wait_for_the_watch() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3");
        return;
    }
    let repo = scene();
    let inner = git(&repo, &["commit", "-qam", "two"]);
    let mut command = with_watch(&repo, repo.command("python3".as_ref()));
    command.args(["-c", COLLECTOR]).arg(inner.get_program()).args(inner.get_args());
    // It ends, which it never did.
    let done = command.output().expect("it starts");
    assert!(done.status.success(), "{}", text(&done.stderr));
    let said = status(&repo);
    assert!(said.contains("collects orphaned processes"), "{said}");
    // And nobody tries again at once.
    repo.write("f", "three\n");
    with_watch(&repo, git(&repo, &["commit", "-qam", "three"])).output().expect("git starts");
    assert!(status(&repo).starts_with("no watch runs"));
}

/// How many watches have a place in the runtime directory, and how many repositories each has.
fn places(repo: &Repo) -> Vec<usize> {
    let entries = fs::read_dir(runtime(repo).join("jin-txn")).into_iter().flatten().flatten().map(|entry| entry.path());
    let status = entries.filter(|path| path.extension().is_some_and(|it| it == "json"));
    let read = |path: PathBuf| serde_json::from_slice::<serde_json::Value>(&fs::read(path).ok()?).ok();
    status.filter_map(|path| Some(read(path)?["repositories"].as_u64()? as usize)).collect()
}

/// Ends all watches of a test.
fn stop_all(repo: &Repo) {
    let entries = fs::read_dir(runtime(repo).join("jin-txn")).expect("it is there").flatten().map(|entry| entry.path());
    for path in entries.filter(|path| path.extension().is_some_and(|it| it == "json")) {
        let status: serde_json::Value =
            serde_json::from_slice(&fs::read(path).expect("it is ours")).expect("it is JSON");
        let pid = status["pid"].to_string();
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if program == jin_txn() {
            Command::new("kill").arg(&pid).status().expect("kill runs");
        }
    }
}

/// What a process sees, and which repositories are its user's, decides which watch it speaks to.
#[test]
fn a_hook_with_other_surroundings_starts_a_watch_of_its_own() {
    let rows: [(&str, &str); 4] = [
        ("the same", "exec \"$@\""),
        ("another home", "mkdir -p \"$HOME/other\"; export HOME=\"$HOME/other\"; jin-txn install -q; exec \"$@\""),
        ("a user namespace", "exec unshare --user --map-root-user \"$@\""),
        ("fewer capabilities", "exec setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace \"$@\""),
    ];
    for (name, wrapper) in rows {
        let repo = scene();
        with_watch(&repo, git(&repo, &["commit", "-qam", "two"])).output().expect("git starts");
        wait_until("the first one runs", || places(&repo) == [1]);
        repo.write("f", name);
        let inner = git(&repo, &["commit", "-qam", name]);
        let mut command = with_watch(&repo, repo.command("sh".as_ref()));
        let mut path =
            command.get_envs().find(|(it, _)| *it == "PATH").and_then(|(_, it)| it).unwrap_or_default().to_owned();
        path.push(":");
        path.push(jin_txn().parent().expect("it lies in a directory"));
        command.args(["-c", wrapper, "sh"]).arg(inner.get_program()).args(inner.get_args()).env("PATH", path);
        let done = command.output().expect("the shell starts");
        if text(&done.stderr).contains("unshare") || text(&done.stderr).contains("setpriv") {
            println!("skipped: {name}: {}", text(&done.stderr));
        } else {
            assert!(done.status.success(), "{name}: {}", text(&done.stderr));
            let expected: &[usize] = if name == "the same" { &[1] } else { &[1, 1] };
            wait_until(name, || places(&repo) == expected);
        }
        stop_all(&repo);
    }
}

/// A repository that its user has protected, but of which no git has told it, is none of its.
#[test]
fn a_watch_that_a_hook_started_knows_only_whose_gits_told_it_and_ends_when_they_are_gone() {
    let repo = scene();
    let silent = repo.new_sibling("silent", Options { guarded: true, ..Options::default() });
    let mut command = with_watch(&repo, repo.command(jin_txn().as_os_str()));
    command.args(["watch", "-q", "--until-idle", "1", "--of"]).arg(repo.git_dir());
    let mut watch = command.spawn().expect("the watch starts");
    wait_until("it knows one", || places(&repo) == [1]);
    // A git that works longer than that keeps it: an editor waits.
    let editor = repo.scratch().join("editor");
    let ended = repo.scratch().join("ended");
    let script = format!("#!/bin/sh\nsleep 2; echo x >\"$1\"; touch {}\n", ended.display());
    crate::support::repo::write_file(&editor, &script, 0o755);
    let mut commit = with_watch(&repo, git(&repo, &["commit", "-qa"]));
    let mut commit = commit.env("GIT_EDITOR", &editor).spawn().expect("git starts");
    wait_until("the editor has ended", || ended.exists());
    assert_eq!(watch.try_wait().expect("it was ours"), None, "a git is at work");
    commit.wait().expect("git was ours");
    assert_eq!(places(&repo), [1], "{:?} told nobody", silent.path());
    assert!(watch.wait().expect("it ends by itself").success());
    assert!(status(&repo).starts_with("no watch runs"));
}

/// The first process of a container that collects nothing gets one zombie, and no more.
#[test]
fn a_container_whose_first_process_collects_nothing_gets_one_watch() {
    let repo = scene();
    let inner = git(&repo, &["commit", "-q", "--allow-empty", "-m", "two"]);
    let mut command = with_watch(&repo, repo.command("unshare".as_ref()));
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "python3", "-c", CARELESS]).arg(jin_txn());
    command.arg(inner.get_program()).args(inner.get_args());
    let done = command.output().expect("unshare starts");
    if text(&done.stderr).contains("unshare failed") || text(&done.stderr).contains("python3") {
        println!("skipped: {}", text(&done.stderr));
        return;
    }
    assert!(done.status.success(), "{}", text(&done.stderr));
    let said = tried(&repo);
    assert!(said.contains("does not collect"), "{said}");
    assert_eq!(text(&done.stdout).trim(), "1", "zombies");
}

/// It runs a git, ends the watch that this has started, and runs the git again, without ever waiting for a process that is no child
/// of its own making.
const CARELESS: &str = r"
import os, subprocess, sys, time
jin, git = sys.argv[1], sys.argv[2:]
def status():
    return subprocess.run([jin, 'watch', '--status'], capture_output=True).returncode
subprocess.run(git, check=True)
while status():
    time.sleep(0.02)
subprocess.run([jin, 'watch', '--stop'], check=True, capture_output=True)
subprocess.run(git, check=True)
def state(pid):
    return open(f'/proc/{pid}/stat').read().rsplit(') ')[1][0]
print(sum(state(pid) == 'Z' for pid in os.listdir('/proc') if pid.isdigit()))
";

/// A script whose lock is a descriptor that git has inherited: with the end of git it is free.
#[test]
fn what_a_git_has_inherited_is_closed_when_it_ends_although_it_has_started_the_watch() {
    let repo = scene();
    let lock = repo.scratch().join("a lock");
    let script = "(flock 9; \"$@\") 9>\"$LOCK\"; flock -n \"$LOCK\" true";
    for round in 0..2 {
        repo.write("f", &format!("{round}"));
        let inner = git(&repo, &["commit", "-qam", "next"]);
        let mut command = with_watch(&repo, repo.command("bash".as_ref()));
        command.args(["-c", script, "bash"]).arg(inner.get_program()).args(inner.get_args()).env("LOCK", &lock);
        let done = command.output().expect("the shell starts");
        assert!(done.status.success(), "{round}: the lock is held still");
        wait_until("the watch runs", || !status(&repo).starts_with("no watch runs"));
        let pid =
            text(status(&repo).as_bytes()).split("pid ").nth(1).and_then(|it| it.split(' ').next().map(str::to_owned));
        let process = Path::new("/proc").join(pid.expect("it says"));
        stop_all(&repo);
        wait_until("the watch has ended, and its first process has seen that", || !process.exists());
    }
}
