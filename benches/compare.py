#!/usr/bin/env python3
"""The measuring behind benches/run.sh, which says what it needs.

Every measurement runs the same command in repositories that differ in one thing, in rotating order, so that a machine that
slows down slows all of them. A ratio is the median over the rounds of the ratio within a round; its spread is the middle half.
Before each timed run everything is written to disk: nobody pays for what another one left dirty. Rounds go on until the
medians are known well enough, or the time for it is over.
"""
import argparse
import json
import math
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import charts

KINDS = {
    "plain": "no hooks",
    "floor": "an empty compiled hook that reads its stdin, and core.fsync as the guarded one has it",
    "guarded": "jin-txn install",
    "branchless": "git-branchless 0.11 (git branchless init)",
    "fsync-all": "no hooks, core.fsync=all",
}
REFS = [1, 1_000, 10_000, 100_000]
# A second for each command: its median is known after a few rounds, and the time is better spent on the others.
FEW_ROUNDS = {"branchless": 10}
# What takes milliseconds is run so often that a disk that is slow for a second does not decide.
SHORT = 200
# A ratio is known well enough when its median lies within this part of it, at 95 percent confidence ...
PRECISION = 0.04
# ... and after this many seconds it is left at what it is.
LONGEST = 60
# What is measured, against what, and the most that it may be.
GOALS = {
    "hook-fast": ("hook", "empty", 1.15), "check": ("check", "empty", 1.3), "commit": ("guarded", "floor", 1.15),
    "switch": ("guarded", "floor", 1.15), "tag": ("guarded", "floor", 1.15), "rebase-10": ("guarded", "floor", 1.15),
    "update-ref-10000": ("guarded", "floor", 1.10), "update-ref-100000": ("guarded", "floor", 1.10),
    "pack-refs-1000": ("guarded", "floor", 1.10), "fetch-1000": ("guarded", "floor", 1.10),
    "push-1000": ("guarded", "floor", 1.10), "recover-10000": ("recover", "plain", 1.5),
}


class Bench:
    def __init__(self, options):
        self.git, self.jin, self.quick, self.disk = options.git, options.jin, options.quick, options.disk
        self.root = Path(options.scratch)
        self.bin = self.root / "bin"
        self.refs = REFS[:2] if self.quick else REFS
        self.kinds = [k for k in KINDS if k != "branchless" or shutil.which("git-branchless")]
        os.symlink(self.git, self.bin / "git")
        home = self.root / "home"
        home.mkdir()
        (home / "config").write_text(
            "[user]\n\tname = bench\n\temail = bench@example.com\n[init]\n\tdefaultBranch = main\n"
            "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[advice]\n\tdetachedHead = false\n")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "JIN_"))}
        self.env |= {"HOME": str(home), "GIT_CONFIG_GLOBAL": str(home / "config"), "GIT_CONFIG_NOSYSTEM": "1",
                     "PATH": f"{self.bin}:{os.environ['PATH']}", "LC_ALL": "C"}
        self.unwatched = self.env | {"JIN_TXN": "off", "GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "core.hooksPath",
                                     "GIT_CONFIG_VALUE_0": "/dev/null", "GIT_CONFIG_KEY_1": "core.fsync",
                                     "GIT_CONFIG_VALUE_1": "none"}

    # --- running things

    def run(self, *command, at=None, stdin=None, env=None, ok=True):
        done = subprocess.run([str(c) for c in command], cwd=at or self.root, input=stdin, env=env or self.unwatched,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if ok and done.returncode:
            raise SystemExit(f"error: {command} in {at}: {done.stderr.decode()}")
        return done.stdout.decode().strip()

    def time(self, command, at, stdin=None):
        """Seconds from start to exit of `command`, watched by whatever guards `at`."""
        os.sync()
        source = open(stdin, "rb") if stdin else subprocess.DEVNULL
        start = time.perf_counter()
        done = subprocess.run(command, cwd=at, stdin=source, env=self.env, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE)
        took = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"error: {command} in {at}: {done.stderr.decode()}")
        return took

    def rounds(self, least, sides, warm=1):
        """`sides`: name -> function of the round that prepares and returns what `time` needs."""
        took = {name: [] for name in sides}
        order = list(sides)
        start = time.monotonic()
        number = 0
        while number < warm + least or not (self.quick or known(took) or time.monotonic() - start > LONGEST):
            for name in order:
                if name in FEW_ROUNDS and number >= warm + FEW_ROUNDS[name]:
                    continue
                seconds = self.time(*sides[name](number))
                if number >= warm:
                    took[name].append(seconds * 1e3)
            order = order[1:] + order[:1]
            number += 1
        return took

    # --- repositories

    def repository(self, kind, name, bare=False, files=100):
        path = self.root / f"{name}.{kind}"
        self.run("git", "init", "-q", *(["--bare"] if bare else []), path)
        if not bare:
            (path / "files").mkdir()
            for n in range(files):
                file = path / "files" / (str(n) if files <= 100 else f"{n // 100}/{n}")
                file.parent.mkdir(exist_ok=True)
                file.write_text(f"{n}\n")
            self.run("git", "add", ".", at=path)
            self.run("git", "commit", "-qm", "first", at=path)
        else:
            tree = self.run("git", "hash-object", "-t", "tree", "-w", "/dev/null", at=path)
            first = self.run("git", "commit-tree", "-m", "first", tree, at=path)
            self.run("git", "update-ref", "refs/heads/main", first, at=path)
        second = self.run("git", "commit-tree", "-m", "second", "-p", "main", "main^{tree}", at=path)
        self.run("git", "update-ref", "refs/heads/side", second, at=path)
        return path

    def protect(self, kind, path):
        hooks = Path(self.run("git", "rev-parse", "--git-path", "hooks", at=path, env=self.env))
        if kind == "floor":
            (path / hooks).mkdir(exist_ok=True)
            for hook in ("reference-transaction", "post-checkout"):
                (path / hooks / hook).unlink(missing_ok=True)
                os.symlink(self.bin / "drain-hook", path / hooks / hook)
            self.run("git", "config", "core.fsync", "loose-object,index", at=path)
        elif kind in ("guarded", "process"):
            durability = "process" if kind == "process" else "full"
            self.run(self.jin, "install", "--durability", durability, path, env=self.env)
        elif kind == "branchless":
            self.run("git", "branchless", "init", at=path, env=self.env)
        elif kind == "fsync-all":
            self.run("git", "config", "core.fsync", "all", at=path)
        return path

    def repositories(self, name, kinds=None, bare=False):
        return {k: self.protect(k, self.repository(k, name, bare)) for k in kinds or self.kinds}

    def worked_in(self, files):
        """A guarded repository of so many files, packed, with a few changes."""
        path = self.repository("guarded", f"worked-in-{files}", files=files)
        self.run("git", "repack", "-adq", at=path)
        self.protect("guarded", path)
        for n in range(3):
            (path / "files/0" / str(n)).write_text("changed\n")
        (path / "untracked").write_text("mine\n")
        return path

    def ref_lines(self, path, count, prefix="refs/heads/many/"):
        """Files that move `count` refs to the second commit, and back to the first."""
        files = []
        for name in ("side", "main"):
            value = self.run("git", "rev-parse", name, at=path)
            file = path.with_suffix(f"{path.suffix}.{count}.{name}")
            file.write_text("".join(f"update {prefix}{n} {value}\n" for n in range(count)))
            files.append(file)
        if count > 1_000:
            names = sorted(f"{prefix}{n}" for n in range(count))
            (path / "packed-refs").write_text("# pack-refs with: peeled fully-peeled sorted \n" +
                                              "".join(f"{value} {name}\n" for name in names))
        else:
            self.run("git", "update-ref", "--stdin", at=path, stdin=files[1].read_bytes())
        return files

    def all_packed(self, path):
        """Many refs are packed before each run, as after a clone or a gc: each run does the same."""
        shutil.rmtree(path / "refs/heads/many", ignore_errors=True)

    # --- measurements: each returns name -> {side: [milliseconds]}

    def commit(self):
        repos = self.repositories("commit")
        sides = {k: (lambda n, p=p: (["git", "commit", "-q", "--allow-empty", "-m", "x"], p)) for k, p in repos.items()}
        result = self.rounds(self.runs(SHORT), sides)
        guarded_log = sum(f.stat().st_size for f in (repos["guarded"] / ".git/.jin/wal").iterdir())
        assert guarded_log > 1000, "jin-txn has logged nothing: what was measured was not guarded"
        return {"commit": result}

    def switch(self):
        repos = self.repositories("switch")
        return {"switch": self.rounds(self.runs(SHORT), {
            k: (lambda n, p=p: (["git", "switch", "-q", "side" if n % 2 == 0 else "main"], p)) for k, p in repos.items()})}

    def tag(self):
        repos = self.repositories("tag")
        return {"tag": self.rounds(self.runs(SHORT), {
            k: (lambda n, p=p: (["git", "tag", f"t{n}"], p)) for k, p in repos.items()})}

    def rebase(self):
        # git-branchless takes more than a minute for it.
        repos = self.repositories("rebase", [k for k in self.kinds if k != "branchless"])
        for path in repos.values():
            self.run("git", "switch", "-qc", "topic", at=path)
            for n in range(10):
                (path / "files" / str(n)).write_text("topic\n")
                self.run("git", "commit", "-qam", f"topic {n}", at=path)

        def side(path):
            def prepare(n):
                onto, base = ("side", "main") if n % 2 == 0 else ("main", "side")
                return ["git", "rebase", "-q", "--onto", onto, base, "topic"], path
            return prepare
        return {"rebase-10": self.rounds(self.runs(6), {k: side(p) for k, p in repos.items()})}

    def stash(self):
        repos = self.repositories("stash")

        def side(path):
            def prepare(n):
                if n:
                    self.run("git", "stash", "drop", "-q", at=path)
                (path / "files" / "1").write_text(f"change {n}\n")
                return ["git", "stash", "push", "-q"], path
            return prepare
        return {"stash": self.rounds(self.runs(SHORT // 2), {k: side(p) for k, p in repos.items()})}

    def update_ref(self):
        return self.update_refs([count for count in self.refs if count < 100_000])

    def update_ref_many(self):
        return self.update_refs([count for count in self.refs if count >= 100_000])

    def update_refs(self, counts):
        results = {}
        for count in counts:
            many = count > 1_000
            kinds = ["plain", "floor", "guarded"] if many else [k for k in self.kinds if count == 1 or k != "branchless"]
            if count == 1:
                kinds.append("process")
            repos = self.repositories(f"update-{count}", kinds, bare=True)
            files = {k: self.ref_lines(p, count) for k, p in repos.items()}

            def side(kind, path, count=count, files=files):
                def prepare(n):
                    if count <= 1_000:
                        return ["git", "update-ref", "--stdin"], path, files[kind][n % 2]
                    self.all_packed(path)
                    return ["git", "update-ref", "--stdin"], path, files[kind][0]
                return prepare
            sides = {k: side(k, p) for k, p in repos.items() if k != "plain" or count < 100_000}
            results[f"update-ref-{count}"] = self.rounds(self.runs({1: SHORT, 100_000: 4}.get(count, 8)), sides)
            for path in repos.values():
                shutil.rmtree(path)
        return results

    def pack_refs(self):
        kinds = [k for k in self.kinds if k != "branchless"]  # its hook takes minutes for this
        repos = self.repositories("pack", kinds, bare=True)
        files = {k: self.ref_lines(p, 1_000) for k, p in repos.items()}

        def side(kind, path):
            def prepare(n):
                self.run("git", "update-ref", "--stdin", at=path, stdin=files[kind][n % 2].read_bytes())
                return ["git", "pack-refs", "--all"], path
            return prepare
        return {"pack-refs-1000": self.rounds(self.runs(8), {k: side(k, p) for k, p in repos.items()})}

    def fetch(self):
        return self.transfer("fetch", 1_000, "--atomic", 8) | self.transfer("fetch-each", 100, None, 8)

    def push(self):
        return self.transfer("push", 1_000, "--atomic", 8) | self.transfer("push-each", 100, None, 8)

    def transfer(self, name, count, flag, runs):
        """Without `--atomic` gits before 2.51 make a transaction of each ref: with 1,000 of them git-branchless takes minutes."""
        word = name.partition("-")[0]
        source = self.repository("source", name, bare=True)
        files = self.ref_lines(source, count)
        guarded = self.repositories(f"{name}-guarded", [k for k in self.kinds if k != "branchless"], bare=True)
        moved = {"in": None}

        def side(path):
            def prepare(n):
                if moved["in"] != n:
                    self.run("git", "update-ref", "--stdin", at=source, stdin=files[n % 2].read_bytes())
                    moved["in"] = n
                command = ["git", word, "-q", *([flag] if flag else [])]
                if word == "fetch":
                    return command + [str(source), "+refs/heads/many/*:refs/remotes/origin/*"], path
                return command + ["--force", str(path), "refs/heads/many/*:refs/heads/many/*"], source
            return prepare
        return {f"{name}-{count}": self.rounds(self.runs(runs), {k: side(p) for k, p in guarded.items()})}

    def hook(self):
        path = self.protect("guarded", self.repository("guarded", "hook"))
        payload = self.root / "nothing"
        payload.write_text(f"{'0' * 40} {'0' * 40} AUTO_MERGE\n")
        result = {}
        for state in ("prepared", "committed", "aborted"):
            sides = {"empty": self.bin / "empty", "drain": self.bin / "drain-hook", "hook": self.jin,
                     "hook, loaded anew": self.loaded_anew(self.jin)}
            out = self.run(self.bin / "git-hook-call", self.runs(1500), state, payload, *sides.values(), at=path,
                           env=self.env)
            times = [[float(us) / 1e3 for us in line.split()[1:]] for line in out.splitlines()]
            result["hook-fast" if state == "prepared" else f"hook-{state}"] = dict(zip(sides, times))
        return result

    def loaded_anew(self, program):
        """A copy that the kernel has to read when it starts, as after a boot, and not one that was just written."""
        copy = self.bin / f"{Path(program).name}-anew"
        shutil.copy(program, copy)
        os.sync()
        with open(copy, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return copy

    def commands(self):
        path = self.protect("guarded", self.repository("guarded", "commands"))
        for n in range(20):
            self.run("git", "commit", "-q", "--allow-empty", "-m", str(n), at=path, env=self.env)
        result = {"check": self.rounds(self.runs(SHORT), {
            "empty": lambda n: ([str(self.bin / "empty")], path), "check": lambda n: ([self.jin, "-q", "check"], path)})}
        work = self.worked_in(10_000)
        result["run-10000"] = self.rounds(self.runs(20), {
            "git status": lambda n: (["git", "status", "--porcelain", "-uall"], work),
            "run -- true": lambda n: ([self.jin, "run", "--", "true"], work)}, warm=2)
        repos = self.repositories("apply", ["floor", "guarded"], bare=True)
        files = {k: self.ref_lines(p, 1_000) for k, p in repos.items()}
        result["apply-1000"] = self.rounds(self.runs(8), {
            "floor": lambda n: (["git", "update-ref", "--stdin"], repos["floor"], files["floor"][n % 2]),
            "apply": lambda n: ([self.jin, "-q", "apply", "-"], repos["guarded"], files["guarded"][n % 2])})
        return result

    def recover(self):
        count = 10_000  # fewer are not packed, see `ref_lines`
        repos = self.repositories("recover", ["plain", "guarded"], bare=True)
        files = {k: self.ref_lines(p, count) for k, p in repos.items()}
        torn = repos["guarded"]
        middle = torn / f"refs/heads/many/{count // 2}"

        def plain(n):
            self.all_packed(repos["plain"])
            return ["git", "update-ref", "--stdin"], repos["plain"], files["plain"][0]

        def tear(n):
            self.all_packed(torn)

            def file():
                return middle.stat().st_ino if middle.exists() else None
            before = file()
            child = subprocess.Popen(["git", "update-ref", "--stdin"], cwd=torn, env=self.env, start_new_session=True,
                                     stdin=open(files["guarded"][0], "rb"), stderr=subprocess.DEVNULL)
            while file() == before and child.poll() is None:
                time.sleep(0.0002)
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            time.sleep(0.1)  # starts of processes are known to a hundredth of a second
            values = set(self.run("git", "for-each-ref", "--format=%(objectname)", "refs/heads/many", at=torn).split())
            assert len(values) == 2, "the update is torn"
            return [self.jin, "-q", "recover"], torn
        return {f"recover-{count}": self.rounds(self.runs(8), {"plain": plain, "recover": tear})}

    def writers(self):
        """Updates per second of 16 gits on different refs."""
        seconds = 2 if self.quick else 10
        repos = self.repositories("writers", ["floor", "guarded"], bare=True)
        rates = {k: [] for k in repos}
        for _ in range(1 if self.quick else 2):
            for kind, path in repos.items():
                os.sync()
                loop = ('end=$(($(date +%s%N) + $2 * 1000000000)); n=0; while [ "$(date +%s%N)" -lt "$end" ]; do '
                        'if [ $((n % 2)) = 0 ]; then v=side; else v=main; fi; '
                        'git update-ref refs/heads/w$1 $v || exit 1; n=$((n + 1)); done; echo $n')
                writers = [subprocess.Popen(["sh", "-c", loop, "writer", str(n), str(seconds)], cwd=path, env=self.env,
                                            stdout=subprocess.PIPE) for n in range(16)]
                counts = [int(w.communicate()[0]) for w in writers]
                rates[kind].append(sum(counts) / seconds)
        return rates

    def memory(self):
        """Peak resident memory of the hook in KiB, and the size of its payload."""
        result = {}
        for count in self.refs:
            path = self.protect("guarded", self.repository("guarded", f"memory-{count}", bare=True))
            files = self.ref_lines(path, count)
            hook = path / "hooks/reference-transaction"
            hook.unlink()
            os.symlink(self.bin / "peak-hook", hook)
            seen = self.root / f"peak-{count}"
            env = self.env | {"PEAK_HOOK": self.jin, "PEAK_FILE": str(seen)}
            self.run("git", "update-ref", "--stdin", at=path, stdin=files[0].read_bytes(), env=env)
            peaks = [line.split() for line in seen.read_text().splitlines()]
            line = len(f"{'0' * 40} {'0' * 40} refs/heads/many/\n")
            payload = sum(line + len(str(n)) for n in range(count))
            result[str(count)] = {"payload": payload, "peak": {state: int(kib) * 1024 for state, kib in peaks}}
            shutil.rmtree(path)
        return result

    def runs(self, number):
        return max(1, number // 8) if self.quick else number


# The longest last.
ALL = ["hook", "commit", "switch", "tag", "rebase", "stash", "update_ref", "pack_refs", "fetch", "push", "commands", "recover",
       "writers", "memory", "update_ref_many"]


def measure(options):
    shutil.rmtree(Path(options.scratch) / "home", ignore_errors=True)
    (Path(options.scratch) / "bin/git").unlink(missing_ok=True)
    bench = Bench(options)
    wanted = options.only.split(",") if options.only else ALL
    data = {"machine": machine(bench), "times": {}, "writers": {}, "memory": {}}
    for name in wanted:
        start = time.monotonic()
        print(f"{name} ...", file=sys.stderr, end=" ", flush=True)
        try:
            found = getattr(bench, name)()
        except KeyboardInterrupt:
            print("interrupted: what follows is left out", file=sys.stderr)
            break
        if name in ("writers", "memory"):
            data[name] = found
        else:
            data["times"] |= found
        print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
        for path in bench.root.iterdir():
            if path.name not in ("bin", "home"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return data


def machine(bench):
    disk = bench.disk or bench.run("df", "--output=fstype", bench.root).split()[-1]
    return {"git": bench.run("git", "version").split()[2], "cores": os.cpu_count(), "disk": disk,
            "linux": platform.release(), "load": round(os.getloadavg()[0], 1), "binary": os.path.getsize(bench.jin)}


def ratios(times, side, base):
    """The ratios within the rounds, in order of size."""
    return sorted(a / b for a, b in zip(times.get(side, []), times.get(base, [])))


def ratio(times, side, base):
    """The median of the ratios within the rounds, and their quartiles."""
    found = ratios(times, side, base)
    if not found:
        return None
    low, middle, high = statistics.quantiles(found, n=4) if len(found) > 2 else (found[0], statistics.median(found), found[-1])
    return {"median": middle, "low": low, "high": high}


def known(times):
    """Are the medians of all ratios that are shown known to `PRECISION`? By the order statistics that enclose a median."""
    for side, base in charts.pairs(times):
        found = ratios(times, side, base)
        rank = math.floor((len(found) - 1.96 * len(found) ** 0.5) / 2)
        if rank < 0 or len(found) < 6:
            return False
        middle = statistics.median(found)
        if max(middle - found[rank], found[-1 - rank] - middle) > PRECISION * middle:
            return False
    return True


def headline(data):
    """The ratios that goals speak of, by name."""
    found = {}
    for name, (side, base, most) in GOALS.items():
        if name in data["times"]:
            found[name] = ratio(data["times"][name], side, base) | {"side": side, "base": base, "goal": most}
    if data["writers"]:
        rates = data["writers"]
        one = [g / f for g, f in zip(rates["guarded"], rates["floor"])]
        found["16 writers"] = {"median": statistics.median(one), "low": min(one), "high": max(one), "side": "guarded",
                               "base": "floor", "goal": 0.8}
    for count, entry in data["memory"].items():
        peak = max(entry["peak"].values())
        # A small payload is not what the memory is for: there it is the program.
        value, base, goal = (peak / 2**20, "MiB", 8.0) if int(count) <= 1_000 else (peak / entry["payload"], "payload", 4.0)
        found[f"memory, {charts.refs(count)}"] = {"median": value, "low": value, "high": value, "side": "peak",
                                                 "base": base, "goal": goal}
    return found


def main():
    parser = argparse.ArgumentParser()
    for flag in ("--quick", "--twice"):
        parser.add_argument(flag, action="store_true")
    for option in ("--git", "--jin"):
        parser.add_argument(option, required=True)
    parser.add_argument("--output", default="docs")
    parser.add_argument("--only", default="")
    parser.add_argument("--disk", default="", help="what the disk is called")
    parser.add_argument("scratch")
    options = parser.parse_args()
    # What was measured until then is shown; a shell may have us ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runs = []
    for _ in range(2 if options.twice else 1):
        data = measure(options)
        data["headline"] = headline(data)
        runs.append(data)
        # What the first pass has found is not lost when the second one is cut.
        report = charts.tables(runs, KINDS, ratio)
        if not options.only:
            charts.write(Path(options.output), runs, report, ratio)
    print(report)
    if options.twice and charts.disagreeing(runs, ratio):
        sys.exit(1)


if __name__ == "__main__":
    main()
