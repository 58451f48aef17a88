#!/bin/sh
# What `jin-txn apply` costs.
#
# refs:   1,000 refs moved by plain `git update-ref --stdin` without hooks, by the same with an empty compiled hook (what
#         git itself charges for calling hooks), and by `jin-txn apply`, with both kinds of durability
# files:  100 files replaced by a program that writes, syncs and renames each and syncs the directory once, and by `apply`
#
# One hyperfine run for each group, so that a machine that slows down slows all of it.
set -eu
# Nothing that outlives this script.
export JIN_WATCH=off

usage() {
    cat <<'USAGE'
usage: benches/apply.sh

environment:
  RUNS         timed runs per command; default 20
  JIN_TXN_BIN  default: target/release/jin-txn
  BENCH_TMP    where to make the scratch directory, on the file system to measure; default: TMPDIR or /tmp
  CC           C compiler; default cc
USAGE
}

refs=1000 files=100

main() {
    case ${1:-} in
        '') ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    runs=${RUNS:-20}
    sources=$(cd "$(dirname "$0")" && pwd)
    jin=${JIN_TXN_BIN:-$sources/../target/release/jin-txn}
    for needed in hyperfine git "${CC:-cc}" "$jin"; do
        command -v "$needed" >/dev/null || { echo "error: $needed is not there" >&2; exit 1; }
    done
    jin=$(cd "$(dirname "$jin")" && pwd)/$(basename "$jin")

    scratch=$(mktemp -d "${BENCH_TMP:-${TMPDIR:-/tmp}}/jin-apply.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    cd "$scratch"
    mkdir home
    export HOME="$scratch/home" GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL="$scratch/home/gitconfig"
    git config --global user.name A
    git config --global user.email a@example.com
    "${CC:-cc}" -O2 -o drain "$sources/drain-hook.c"
    "${CC:-cc}" -O2 -o write-files "$sources/write-files.c"

    for kind in plain floor full process; do build "$kind"; done
    bench_refs
    bench_files
}

build() {
    git init -q "$1"
    git -C "$1" commit -q --allow-empty -m first
    first=$(git -C "$1" rev-parse HEAD)
    second=$(git -C "$1" commit-tree -m second -p "$first" "$first^{tree}")
    for n in $(seq "$refs"); do echo "create refs/heads/b$n $first"; done | git -C "$1" update-ref --stdin
    for n in $(seq "$refs"); do echo "update refs/heads/b$n $second $first"; done >"forward.$1"
    for n in $(seq "$refs"); do echo "update refs/heads/b$n $first"; done >"back.$1"
    mkdir "$1/f" "source.$1" "old.$1"
    for n in $(seq 0 $((files - 1))); do
        echo "old $n" >"old.$1/$n"
        echo "new $n" >"source.$1/$n"
        echo "write f/$n 100644 $scratch/source.$1/$n"
    done >"files.$1"
    case $1 in
        floor) mkdir -p floor/.git/hooks && cp drain floor/.git/hooks/reference-transaction ;;
        full | process) "$jin" -q -C "$1" install --durability "$1" ;;
    esac
}

back() {
    echo "sh -c 'JIN_TXN=off git -C $1 update-ref --stdin <back.$1 && sync'"
}

bench_refs() {
    hyperfine --style basic --warmup 2 --runs "$runs" \
        -n 'plain git' --prepare "$(back plain)" 'git -C plain update-ref --stdin <forward.plain' \
        -n 'git and an empty hook' --prepare "$(back floor)" 'git -C floor update-ref --stdin <forward.floor' \
        -n 'apply, full' --prepare "$(back full)" "$jin -q -C full apply <forward.full" \
        -n 'apply, process' --prepare "$(back process)" "$jin -q -C process apply <forward.process" \
        --export-json refs.json >/dev/null 2>hyperfine.log || { cat hyperfine.log >&2; exit 1; }
    report "$refs refs" refs.json
}

bench_files() {
    old() { echo "sh -c 'cp old.$1/* $1/f/ && sync'"; }
    hyperfine --style basic --warmup 2 --runs "$runs" \
        -n 'write, fsync, rename' --prepare "$(old plain)" "./write-files source.plain plain/f $files" \
        -n 'apply, full' --prepare "$(old full)" "$jin -q -C full apply <files.full" \
        -n 'apply, process' --prepare "$(old process)" "$jin -q -C process apply <files.process" \
        --export-json files.json >/dev/null 2>hyperfine.log || { cat hyperfine.log >&2; exit 1; }
    report "$files files" files.json
}

report() {
    echo "| $1 | median ms | lowest ms | times the first |"
    echo '| --- | --- | --- | --- |'
    python3 - "$2" <<'PYTHON'
import json, sys
results = json.load(open(sys.argv[1]))["results"]
for r in results:
    print(f"| {r['command']} | {r['median'] * 1e3:.1f} | {r['min'] * 1e3:.1f} | {r['median'] / results[0]['median']:.2f} |")
PYTHON
    echo
}

main "$@"
