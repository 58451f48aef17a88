//! Programs that run git with a time limit, kill it, and go on with the next command. The program waits until no lock is left, or
//! the watch has nothing more to do, however long that takes on a busy machine. The test prints how long it took, and how many
//! gits died with a lock that nobody saw them with: within milliseconds of taking it.

use std::fs;
use std::process::Command;

use crate::support::repo::{Options, Repo, jin_txn, text};
use crate::support::watch::{Watch, with_watch};

/// A coding agent: each command of git gets a time that is too short for most of them, and the next one comes when the
/// locks of the killed one are gone.
const AGENT: &str = r#"
import os, random, statistics, subprocess, sys, time

PATIENCE = 60
JIN, WATCH = sys.argv[2:]

def locks():
    found = []
    for directory, below, names in os.walk(".git"):
        if directory == ".git":
            below[:] = [name for name in below if name not in (".jin", "objects")]
        found += [os.path.join(directory, name) for name in names if name.endswith(".lock")]
    return found

def watch_is_idle():
    try:
        syscall = open(f"/proc/{WATCH}/syscall").read().split(" ")
        children = open(f"/proc/{WATCH}/task/{WATCH}/children").read()
    except OSError:
        sys.exit("the watch is gone")
    # It waits for events, without a time at which it looks again, and no child of it works.
    return syscall[0] == "281" and syscall[4] == "0xffffffffffffffff" and not children.strip()

def recovered():
    began, idle = time.monotonic(), 0
    while left := locks():
        idle = idle + 1 if watch_is_idle() else 0
        if idle > 50:
            unseen.append(left)
            subprocess.run([JIN, "recover", "-q"], check=True, capture_output=True)
            return
        if time.monotonic() - began > PATIENCE:
            sys.exit(f"these locks stay: {left}")
        time.sleep(0.002)
    times.append(time.monotonic() - began)

random.seed(7)
times, unseen = [], []
for n in range(int(sys.argv[1])):
    for command in (["add", "-A"], ["commit", "-qam", f"{n}"], ["rebase", "-q", "--force-rebase", "HEAD~1"]):
        for name in range(0, 500, 25):
            with open(f"dir-{name % 50}/{name}", "a") as file:
                file.write(f"{n} {command}\n")
        try:
            subprocess.run(["git", *command], timeout=random.uniform(0.1, 0.5), capture_output=True)
        except subprocess.TimeoutExpired:
            recovered()
        done = subprocess.run(["git", "commit", "-q", "--allow-empty", "-am", "next"], capture_output=True, text=True)
        if ".lock" in done.stderr:
            sys.exit(f"{command}: {done.stderr}")
median, worst = statistics.median(times or [0]), max(times, default=0)
print(f"{len(times)} recovered after {median * 1000:.0f} ms (median), {worst * 1000:.0f} ms (worst)")
print(f"{len(unseen)} with locks that nobody was seen with: {unseen}")
if len(unseen) > len(times) // 2:
    sys.exit("the watch has seen too little")
"#;

#[test]
fn programs_that_kill_git_after_a_time_go_on_without_stale_locks() {
    const FILES: usize = 500;
    const ROUNDS: usize = 8;
    let _alone = crate::alone();
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3");
        return;
    }
    let repo = Repo::new(Options::default());
    repo.write("f", "one\n");
    repo.commit_all("one");
    repo.install_guard();
    repo.write("f", "two\n");
    for number in 0..FILES {
        repo.write(&format!("dir-{}/{number}", number % 50), "one\n");
    }
    // What makes git slow on a large repository: it holds index.lock while it reads files.
    repo.git(["config", "filter.slow.clean", "sleep 0.3; cat"]);
    repo.write(".gitattributes", "dir-0/0 filter=slow\n");
    repo.commit_all("many");
    let watch = Watch::start(&repo);
    let script = repo.scratch().join("agent.py");
    fs::write(&script, AGENT).expect("it can be written");
    let jin = jin_txn().display().to_string();
    let mut command = with_watch(&repo, repo.command("python3".as_ref()));
    let done =
        command.arg(&script).args([&ROUNDS.to_string(), &jin, &watch.pid.to_string()]).output().expect("python starts");
    drop(watch);
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    println!("{}", text(&done.stdout));
    repo.git(["fsck", "--no-progress"]);
}
