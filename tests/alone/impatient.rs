//! Programs that run git with a time limit, kill it, and go on with the next command. The watch has to see a lock within the time
//! that the program waits, which says something on a machine that is not busy with other tests.

use std::fs;
use std::process::Command;

use crate::support::repo::{Options, Repo, text};
use crate::support::watch::{Watch, with_watch};

/// A coding agent: each command of git gets a time that is too short for most of them, and the next one comes soon after.
const AGENT: &str = r#"
import random, subprocess, sys, time

random.seed(7)
killed = 0
for n in range(int(sys.argv[1])):
    for command in (["add", "-A"], ["commit", "-qam", f"{n}"], ["rebase", "-q", "--force-rebase", "HEAD~1"]):
        for name in range(0, 500, 25):
            with open(f"dir-{name % 50}/{name}", "a") as file:
                file.write(f"{n} {command}\n")
        try:
            subprocess.run(["git", *command], timeout=random.uniform(0.1, 0.5), capture_output=True)
        except subprocess.TimeoutExpired:
            killed += 1
            time.sleep(0.3)
        done = subprocess.run(["git", "commit", "-q", "--allow-empty", "-am", "next"], capture_output=True, text=True)
        if ".lock" in done.stderr:
            sys.exit(f"{command}: {done.stderr}")
print(f"{killed} killed")
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
    let mut command = with_watch(&repo, repo.command("python3".as_ref()));
    let done = command.arg(&script).arg(ROUNDS.to_string()).output().expect("python starts");
    drop(watch);
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    println!("{}", text(&done.stdout));
    repo.git(["fsck", "--no-progress"]);
}
