#!/usr/bin/env python3
"""Programs that run git with a time limit, kill it, and go on with the next command, beside the watch that hooks start.

usage: tests/watch/timeouts.py [ROUNDS] [FILES] [PAUSE_MS]

Runs `git commit -a`, `git add -A` and `git rebase` with `subprocess.run(timeout=...)` in a protected repository of FILES files
(20000), ROUNDS times each (100). Each time limit is a random part of what the command needs. PAUSE_MS after a kill (0) the program
goes on with the next command. Counts how many of these fail because of a lock file, with the watch and, for comparison, without.

environment:
  JIN_TXN_BIN  the program (default: jin-txn in PATH)
  WITHOUT=1    no watch
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "benches"))
from isolated import environment  # noqa: E402

ROUNDS, FILES, PAUSE_MS = (int(value) for value in (sys.argv[1:] + ["100", "20000", "0"][len(sys.argv) - 1:]))
JIN = os.environ.get("JIN_TXN_BIN", "jin-txn")
WITHOUT = bool(os.environ.get("WITHOUT"))


def main():
    random.seed(7)
    with tempfile.TemporaryDirectory(prefix="jin-timeouts-") as root:
        env = environment(root, JIN_WATCH="off" if WITHOUT else "on", GIT_EDITOR="true")
        repo = os.path.join(root, "repo")
        build(repo, env)
        run = Runner(repo, env)
        run([JIN, "install", "-q"])
        try:
            work(run)
        finally:
            run([JIN, "watch", "--stop"], check=False)
        run(["git", "fsck", "--no-progress", "--connectivity-only"])


class Runner:
    def __init__(self, repo, env):
        self.repo, self.env = repo, env

    def __call__(self, command, check=True, **options):
        return subprocess.run(command, cwd=self.repo, env=self.env, capture_output=True, text=True, check=check, **options)


def build(repo, env):
    os.mkdir(repo)
    for number in range(FILES):
        directory = os.path.join(repo, f"d{number % 200}")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, f"f{number}"), "w") as file:
            file.write(f"{number}\n")
    run = Runner(repo, env)
    for command in (["init", "-q"], ["config", "gc.auto", "0"], ["add", "-A"], ["commit", "-qm", "all"]):
        run(["git", *command])


def change(run, number):
    for file in range(0, FILES, max(FILES // 400, 1)):
        with open(os.path.join(run.repo, f"d{file % 200}", f"f{file}"), "a") as stream:
            stream.write(f"{number}\n")


def work(run):
    commands = (["add", "-A"], ["commit", "-qam", "x"], ["rebase", "-q", "--force-rebase", "HEAD~2"])
    for number in range(2):
        change(run, number)
        run(["git", "commit", "-qam", "first"])
    needs = {}
    for command in commands:
        if command[0] != "rebase":
            change(run, str(command))
        began = time.monotonic()
        run(["git", *command])
        needs[command[0]] = time.monotonic() - began
    run(["git", "commit", "-qam", "first"], check=False)
    killed, failed, other, waits = 0, [], [], []
    for number in range(ROUNDS):
        for command in commands:
            if command[0] == "rebase":
                # A rebase that was killed is in progress: that is no stale lock.
                run(["git", "rebase", "--abort"], check=False)
                run(["git", "reset", "-q", "--hard"], check=False)
            else:
                change(run, number)
            try:
                done = run(["git", *command], check=False, timeout=random.uniform(0.1, 1.0) * needs[command[0]])
            except subprocess.TimeoutExpired:
                killed += 1
                at = time.monotonic()
                time.sleep(PAUSE_MS / 1000)
                done = run(["git", "add", "-A"], check=False)
                if is_lock(done):
                    failed.append(command[0])
                    if not wait_for_locks(run, at):
                        run([JIN, "recover", "-q"], check=False)
                        other.append(f"{command[0]}: the lock stayed: {done.stderr.splitlines()[0]}")
                    waits.append(time.monotonic() - at)
                    run(["git", "add", "-A"])
                continue
            if is_lock(done):
                failed.append(" ".join(command))
    print(f"{killed} of {3 * ROUNDS} commands were killed, {PAUSE_MS} ms before the next: "
          f"{len(failed)} of these failed because of a lock")
    if waits:
        print(f"  the lock was gone {statistics.median(waits) * 1000:.0f} ms after the kill (median), {max(waits) * 1000:.0f} ms at most")
    for line in sorted(set(other)):
        print(f"  {line}: {other.count(line)}")


def wait_for_locks(run, since):
    """False when one is there for longer than five seconds."""
    git_dir = os.path.join(run.repo, ".git")
    places = [git_dir, os.path.join(git_dir, "refs", "heads")]
    while any(name.endswith(".lock") for place in places for name in os.listdir(place)):
        if time.monotonic() - since > 5:
            return False
        time.sleep(0.002)
    return True


def is_lock(done):
    return done.returncode != 0 and ".lock" in done.stderr


main()
