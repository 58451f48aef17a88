#!/usr/bin/env python3
"""Many writers in one repository, gits killed all the time, and the watch.

usage: tests/watch/soak.py [SECONDS] [WRITERS]

Each of WRITERS (16) commits again and again on a branch and in a worktree of its own, for SECONDS (60). Every 100 ms one of the gits
that are at work is killed, with all that it has started. A writer waits until no lock of its worktree and branch is left, and goes
on. In the end: no git failed that was not killed (a live lock that is taken away makes git fail), every acknowledged commit is in its
branch, fsck finds nothing. Prints how long locks were left after a kill.

environment:
  JIN_TXN_BIN  the program (default: jin-txn in PATH)
"""

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "benches"))
from isolated import environment  # noqa: E402

SECONDS, WRITERS = (int(value) for value in (sys.argv[1:] + ["60", "16"][len(sys.argv) - 1:]))
JIN = os.environ.get("JIN_TXN_BIN", "jin-txn")
PATIENCE = 10


class Writer(threading.Thread):
    def __init__(self, number, repo, env):
        super().__init__()
        self.number, self.repo, self.env = number, repo, env
        self.tree = os.path.join(repo, "..", f"w{number}")
        self.admin = os.path.join(repo, ".git", "worktrees", f"w{number}")
        self.acknowledged, self.failures, self.waits, self.unseen = [], [], [], 0
        self.git, self.killed = None, False

    def run(self):
        until, number = time.monotonic() + SECONDS, 0
        while time.monotonic() < until:
            number += 1
            with open(os.path.join(self.tree, "f"), "a") as file:
                file.write(f"{number}\n" * 2000)
            self.killed = False
            self.git = subprocess.Popen(["git", "commit", "-qam", f"{number}"], cwd=self.tree, env=self.env, text=True,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
            said = self.git.communicate()[1]
            code, self.git = self.git.returncode, None
            if code == 0:
                self.acknowledged.append(f"{number}")
            elif not self.killed:
                self.failures.append(said.strip())
            if self.killed:
                self.wait()

    def wait(self):
        began = time.monotonic()
        branch = os.path.join(self.repo, ".git", "refs", "heads", f"w{self.number}.lock")
        locks = [os.path.join(self.admin, "index.lock"), os.path.join(self.admin, "HEAD.lock"), branch]
        if not any(os.path.exists(lock) for lock in locks):
            return
        while any(os.path.exists(lock) for lock in locks):
            if time.monotonic() - began > PATIENCE:
                self.unseen += 1
                subprocess.run([JIN, "recover", "-q"], cwd=self.tree, env=self.env, capture_output=True)
                return
            time.sleep(0.001)
        self.waits.append(time.monotonic() - began)


def main():
    random.seed(7)
    with tempfile.TemporaryDirectory(prefix="jin-soak-") as root:
        env = environment(root, JIN_WATCH="on")
        repo = os.path.join(root, "repo")
        run = lambda *command, at=repo, **options: subprocess.run(command, cwd=at, env=env, capture_output=True, text=True, **options)
        os.mkdir(repo)
        run("git", "init", "-q", check=True)
        run("git", "config", "gc.auto", "0", check=True)
        run("git", "commit", "-q", "--allow-empty", "-m", "first", check=True)
        run(JIN, "install", "-q", check=True)
        for number in range(WRITERS):
            run("git", "worktree", "add", "-q", "-b", f"w{number}", f"../w{number}", check=True)
            tree = os.path.join(root, f"w{number}")
            open(os.path.join(tree, "f"), "w").close()
            run("git", "add", "f", at=tree, check=True)
            run("git", "commit", "-qm", "0", at=tree, check=True)
        writers = [Writer(number, repo, env) for number in range(WRITERS)]
        try:
            kills = soak(writers)
        finally:
            run(JIN, "watch", "--stop")
        bad = judge(writers, run)
        report(writers, kills)
        sys.exit("\n".join(bad) if bad else 0)


def soak(writers):
    kills = 0
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        time.sleep(0.1)
        at_work = [(writer, writer.git) for writer in writers if writer.git]
        if at_work:
            writer, git = random.choice(at_work)
            writer.killed = True
            try:
                os.killpg(git.pid, signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                pass
    for writer in writers:
        writer.join()
    return kills


def judge(writers, run):
    bad = [f"w{writer.number}: {failure}" for writer in writers for failure in writer.failures]
    run(JIN, "recover", "-q")
    for writer in writers:
        have = set(run("git", "log", "--format=%s", f"w{writer.number}", check=True).stdout.split())
        bad += [f"w{writer.number}: lost {number}" for number in writer.acknowledged if number not in have]
    fsck = run("git", "fsck", "--no-progress")
    return bad + ([fsck.stderr] if fsck.returncode else [])


def report(writers, kills):
    waits = sorted(wait for writer in writers for wait in writer.waits)
    acknowledged = sum(len(writer.acknowledged) for writer in writers)
    print(f"{WRITERS} writers, {SECONDS} s: {acknowledged} commits, {kills} kills, {len(waits)} of them left a lock that the watch took")
    if waits:
        tail = waits[int(len(waits) * 0.95)]
        print(f"  it was gone after {statistics.median(waits) * 1000:.0f} ms (median), {tail * 1000:.0f} ms (95 of 100)")
    print(f"  {sum(writer.unseen for writer in writers)} locks stayed: nobody was seen with them")
    print(f"  {sum(len(writer.failures) for writer in writers)} gits failed that were not killed")


main()
