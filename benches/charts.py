"""Tables and plots of what compare.py has measured."""
import json
import re
import statistics

TITLES = {
    "hook-fast": "hook call `prepared`, nothing changes", "hook-committed": "hook call `committed`, nothing to do",
    "hook-aborted": "hook call `aborted`, nothing to do", "commit": "`git commit --allow-empty`", "switch": "`git switch`",
    "tag": "`git tag`", "rebase-10": "`git rebase`, 10 commits", "stash": "`git stash push`",
    "check": "`jin-txn -q check`, clean", "run-10000": "`jin-txn run -- true`, 10,000 files",
}
COLORS = {"plain": "#9aa0a6", "floor": "#4f7cac", "guarded": "#c0504d", "branchless": "#8e6bbf", "fsync-all": "#6aa56a"}


def title(name):
    if name in TITLES:
        return TITLES[name]
    kind, _, count = name.rpartition("-")
    words = {"update-ref": "`git update-ref --stdin`", "pack-refs": "`git pack-refs --all`", "fetch": "`git fetch --atomic`",
             "push": "`git push --atomic`, receiving", "fetch-each": "`git fetch`, a transaction for each",
             "push-each": "`git push`, a transaction for each", "apply": "`jin-txn apply`", "recover": "`jin-txn recover` of a torn update"}
    return f"{words[kind]}, {refs(count)}"


def refs(count):
    return f"{int(count):,} ref{'s' if int(count) != 1 else ''}"


def cell(times, side):
    return f"{statistics.median(times[side]):,.2f}" if side in times else "–"


def share(found):
    return "–" if found is None else f"{found['median']:.2f} ({found['low']:.2f}–{found['high']:.2f})"


def tables(runs, kinds, ratio):
    data = runs[0]
    m = data["machine"]
    out = [f"git {m['git']}, {m['cores']} cores, {m['disk']}, Linux {m['linux']}, load {m['load']} at the start; the binary has "
           f"{m['binary'] / 1e6:.1f} MB. Milliseconds, medians; ratios: median of the rounds (middle half).", ""]
    sides = [k for k in kinds if any(k in t for t in data["times"].values())]
    out += ["| command | " + " | ".join(sides) + " | guarded / floor | floor / plain |",
            "| --- |" + " ---: |" * (len(sides) + 2)]
    for name, times in data["times"].items():
        if "floor" in times and "guarded" in times:
            out.append(f"| {title(name)} | " + " | ".join(cell(times, s) for s in sides) +
                       f" | {share(ratio(times, 'guarded', 'floor'))} | {share(ratio(times, 'floor', 'plain'))} |")
    out += ["", "| what | ms | against | ms | ratio |", "| --- | ---: | --- | ---: | ---: |"]
    for name, times in data["times"].items():
        if "guarded" not in times:
            base, *others = times
            for other in others:
                out.append(f"| {title(name)}{'' if len(others) == 1 else ': ' + other} | {cell(times, other)} | {base} "
                           f"| {cell(times, base)} | {share(ratio(times, other, base))} |")
    if data["writers"]:
        out += ["", "| 16 writers on different refs | updates per second |", "| --- | ---: |"]
        out += [f"| {kind} | {statistics.median(rates):,.0f} |" for kind, rates in data["writers"].items()]
    if data["memory"]:
        out += ["", "| refs | payload | peak of `prepared` | of `committed` | peak / payload |", "| ---: | ---: | ---: | ---: | ---: |"]
        for count, entry in data["memory"].items():
            mib = {state: f"{peak / 2**20:.1f} MiB" for state, peak in entry["peak"].items()}
            out.append(f"| {int(count):,} | {entry['payload'] / 2**20:.2f} MiB | {mib.get('prepared', '–')} | "
                       f"{mib.get('committed', '–')} | {max(entry['peak'].values()) / entry['payload']:.1f} |")
    again = len(runs) > 1
    out += ["", "| goal | against | at most | measured |" + (" again | apart |" if again else ""),
            "| --- | --- | ---: | ---: |" + (" ---: | ---: |" if again else "")]
    for name, found in data["headline"].items():
        least = name == "16 writers"
        met = found["median"] >= found["goal"] if least else found["median"] <= found["goal"]
        row = (f"| {title(name) if name in data['times'] else name} | {found['base']} | {'at least ' if least else ''}"
               f"{found['goal']} | {'' if met else '**'}{share(found)}{'' if met else '**'} |")
        if again:
            other = runs[1]["headline"].get(name, found)
            row += f" {share(other)} | {abs(other['median'] / found['median'] - 1):.0%} |"
        out.append(row)
    if again:
        out += ["", *compared(runs, ratio)]
    return "\n".join(out)


def compared(runs, ratio):
    """Where the two passes differ, as a table."""
    apart = disagreeing(runs, ratio)
    if not apart:
        return ["All ratios of both passes agree within a tenth."]
    return ["Ratios that differ by more than a tenth between the two passes:", "",
            "| ratio | first | second | apart |", "| --- | ---: | ---: | ---: |",
            *(f"| {name} | {first:.2f} | {second:.2f} | {abs(second / first - 1):.0%} |" for name, first, second in apart)]


def disagreeing(runs, ratio):
    """The ratios of the tables that differ by more than a tenth: their names, and both."""
    first, second = (every_ratio(data, ratio) for data in runs)
    return [(name, first[name], second[name]) for name in first
            if name in second and abs(second[name] / first[name] - 1) > 0.1]


def pairs(times):
    """What is compared with what: in the first table both of its ratios, else everything with what comes first."""
    if "guarded" in times:
        return [pair for pair in (("guarded", "floor"), ("floor", "plain")) if pair[1] in times]
    base, *others = times
    return [(other, base) for other in others]


def every_ratio(data, ratio):
    found = {}
    for name, times in data["times"].items():
        for side, against in pairs(times):
            if side.endswith("loaded anew"):  # that is different from one loading to the next
                continue
            one = ratio(times, side, against)
            if one:
                found[f"{title(name)}: {side} / {against}"] = one["median"]
    return found | {name: goal["median"] for name, goal in data["headline"].items() if name not in data["times"]}


# --- plots

def svg(width, height, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
            f'<rect width="{width}" height="{height}" fill="white"/>{"".join(body)}</svg>\n')


def text(x, y, words, anchor="start", color="#222"):
    words = words.replace("`", "").replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{color}">{words}</text>'


def bar(x, y, width, height, color):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height}" fill="{color}"/>'


def per_command(data, ratio):
    """Bars: how many times plain git each kind takes."""
    rows = [(n, t) for n, t in data["times"].items() if "guarded" in t and "plain" in t]
    kinds = [k for k in COLORS if k != "plain" and any(k in t for _, t in rows)]
    most = max(ratio(t, k, "plain")["median"] for _, t in rows for k in ("floor", "guarded", "fsync-all") if k in t)
    scale, body, y = 380 / most, [text(10, 20, "times plain git, per command (a cut bar has its figure beside it)")], 36
    for number, kind in enumerate(kinds):
        body += [bar(10 + number * 110, y, 10, 10, COLORS[kind]), text(24 + number * 110, y + 10, kind)]
    y += 24
    for name, times in rows:
        body.append(text(250, y + 6 * len(kinds), title(name), "end"))
        for kind in (k for k in kinds if k in times):
            value = ratio(times, kind, "plain")["median"]
            body += [bar(260, y, min(value, most) * scale, 10, COLORS[kind]),
                     text(264 + min(value, most) * scale, y + 10, f"{value:.1f}", color="#555")]
            y += 12
        y += 8
    body.append(f'<line x1="{260 + scale:.0f}" y1="56" x2="{260 + scale:.0f}" y2="{y:.0f}" stroke="#999" stroke-dasharray="3 3"/>')
    return svg(700, y + 6, body)


def by_refs(data, ratio):
    """Lines: what the guard adds to each ref of an update."""
    points = [(int(n.rpartition("-")[2]), t) for n, t in data["times"].items() if n.startswith("update-ref")]
    points = [(count, [(statistics.median(t[s]) - statistics.median(t[b])) / count * 1e3 for s, b in
                       (("guarded", "floor"),)], statistics.median(t["floor"]) / count * 1e3,
               ratio(t, "guarded", "floor")["median"]) for count, t in points]
    body = [text(10, 20, "git update-ref --stdin: guarded / floor, against the number of refs")]
    most = max(2.0, max(p[3] for p in points))
    x = lambda n: 60 + n * 560 / max(len(points) - 1, 1)
    y = lambda v: 250 - (v - 0.8) / (most - 0.8) * 200
    for mark in (1.0, 1.1, 1.5, 2.0):
        body += [f'<line x1="50" y1="{y(mark):.0f}" x2="640" y2="{y(mark):.0f}" stroke="#ddd"/>', text(44, y(mark) + 4, f"{mark}", "end")]
    path = " ".join(f"{x(n):.0f},{y(p[3]):.0f}" for n, p in enumerate(points))
    body.append(f'<polyline points="{path}" fill="none" stroke="{COLORS["guarded"]}" stroke-width="2"/>')
    for n, (count, (added,), floor, value) in enumerate(points):
        body += [f'<circle cx="{x(n):.0f}" cy="{y(value):.0f}" r="4" fill="{COLORS["guarded"]}"/>',
                 text(x(n), y(value) - 10, f"{value:.2f}", "middle"), text(x(n), 272, f"{count:,}", "middle"),
                 text(x(n), 288, f"{floor:,.0f} + {added:,.0f} µs a ref", "middle", "#555")]
    return svg(700, 300, body)


def split(data):
    """One bar: where the time of an update of one ref goes."""
    times = {k: statistics.median(v) for k, v in data["times"]["update-ref-1"].items()}
    parts = [("git", times["plain"], "#9aa0a6"), ("git starts two empty hooks, syncs", times["floor"] - times["plain"], "#4f7cac"),
             ("ours: read, write, log, two fdatasync", times["process"] - times["floor"], "#d9a441"),
             ("the barrier (syncfs)", times["guarded"] - times["process"], "#c0504d")]
    scale, at, body = 640 / max(times["guarded"], times["process"]), 20.0, [text(10, 20, "git update-ref of one ref, two hook calls: milliseconds")]
    for number, (name, value, color) in enumerate(parts):
        body += [bar(at, 36, value * scale, 40, color), bar(20, 92 + number * 18, 10, 10, color),
                 text(36, 102 + number * 18, f"{name}: {value:.2f}")]
        at += max(value, 0) * scale
    return svg(700, 172, body)


def write(directory, runs, report, ratio):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "images").mkdir(exist_ok=True)
    data = runs[0]
    drawn = (("per-command", per_command(data, ratio)), ("by-refs", by_refs(data, ratio)), ("split", split(data)))
    for name, image in drawn:
        (directory / f"images/performance-{name}.svg").write_text(image)
    rounded = json.loads(json.dumps(runs), parse_float=lambda text: round(float(text), 4))
    (directory / "performance.json").write_text(json.dumps(rounded) + "\n")
    page = directory / "performance.md"
    old = page.read_text() if page.exists() else "# What it costs\n\n<!-- tables -->\n<!-- end of tables -->\n"
    new = re.sub(r"(<!-- tables -->\n).*?(<!-- end of tables -->)", lambda m: m[1] + "\n" + report + "\n\n" + m[2], old, flags=re.S)
    page.write_text(new)
