#!/usr/bin/env python3
"""What telling the watch costs git, side by side: the same ref transaction without the watch, with one that runs, and where each
command has to start one.

usage: benches/announce.py [ROUNDS]

Prints milliseconds per `git update-ref` (median, and the processor time of git and its hooks), and what the watch adds. The kinds alternate within each round, so that a machine that slows down slows all of them.

environment:
  JIN_TXN_BIN  default: target/release/jin-txn
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from isolated import environment

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
HERE = os.path.dirname(os.path.abspath(__file__))
JIN = os.environ.get("JIN_TXN_BIN", os.path.join(HERE, "..", "target", "release", "jin-txn"))


def main():
    with tempfile.TemporaryDirectory(prefix="jin-announce-") as root:
        env = environment(root)
        repo = os.path.join(root, "repo")
        run = lambda *command, mode="off", **options: subprocess.run(
            command, cwd=repo, env=env | {"JIN_WATCH": mode}, check=True, capture_output=True, text=True, **options)
        os.mkdir(repo)
        run("git", "init", "-q")
        for name in ("a", "b"):
            run("git", "commit", "-q", "--allow-empty", "-m", name)
        run(JIN, "install", "-q", "--durability", "process")
        values = [run("git", "rev-parse", name).stdout.strip() for name in ("HEAD", "HEAD~1")]
        kinds = {"without": [], "told": [], "started": []}
        for number in range(ROUNDS):
            for kind in ("without", "told"):
                if kind == "told" and number == 0:
                    watch = start(env, run)
                kinds[kind].append(timed(run, values[number % 2], "off" if kind == "without" else "on", kind))
        watch.kill()
        watch.wait()
        for number in range(max(ROUNDS // 10, 5)):
            kinds["started"].append(timed(run, values[number % 2], "on", "started"))
            while subprocess.run([JIN, "watch", "--status"], env=env, capture_output=True).returncode:
                time.sleep(0.005)
            pid = json.loads(run(JIN, "watch", "--status", "--json").stdout)["pid"]
            run(JIN, "watch", "--stop")
            # Where it stays as a zombie no other one is started.
            while os.path.exists(f"/proc/{pid}"):
                time.sleep(0.005)
    without = report("without", kinds["without"])
    for kind in ("told", "started"):
        wall, cpu = report(kind, kinds[kind])
        # One call of such a command tells the watch: `prepared`.
        print(f"  {kind}: {(wall - without[0]) * 1e6:.0f} us more, {(cpu - without[1]) * 1e6:.0f} us of processor time")


def start(env, run):
    watch = subprocess.Popen([JIN, "watch", "-q"], env=env, cwd="/")
    while subprocess.run([JIN, "watch", "--status"], env=env, capture_output=True).returncode:
        time.sleep(0.005)
    return watch


def timed(run, value, mode, kind):
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    began, before = time.perf_counter(), used()
    run("git", "update-ref", f"refs/heads/{kind}", value, mode=mode)
    return time.perf_counter() - began, used() - before


def report(kind, samples):
    # The first ones make the ref.
    samples = samples[len(samples) // 20 + 1:]
    wall = statistics.median(sample[0] for sample in samples)
    cpu = statistics.median(sample[1] for sample in samples)
    print(f"{kind}: {wall * 1000:.2f} ms (median of {len(samples)}), {cpu * 1000:.2f} ms of processor time")
    return wall, cpu


main()
