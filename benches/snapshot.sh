#!/usr/bin/env bash
# What `jin-txn run` costs: its snapshot beside a `git status`, in one run, and
# its memory with a small and with a large untracked file.
set -euo pipefail
# Nothing that outlives this script.
export JIN_WATCH=off

usage() {
    cat <<'USAGE'
usage: benches/snapshot.sh [--files N] [--runs N]

Makes a repository of N files (10000), packed, with a few changes, and runs
`jin-txn run -- true` and `git status` side by side with hyperfine.

environment: JIN_TXN_BIN, the binary to measure (target/release/jin-txn)
             TMPDIR, where the repository is made
USAGE
}

main() {
    local files=10000 runs=40
    while [[ $# -gt 0 ]]; do
        case $1 in
            --files) files=$2; shift 2 ;;
            --runs) runs=$2; shift 2 ;;
            -h | --help) usage; exit 0 ;;
            *) usage >&2; exit 2 ;;
        esac
    done
    binary=${JIN_TXN_BIN:-$(dirname "${BASH_SOURCE[0]}")/../target/release/jin-txn}
    binary=$(realpath -e "$binary") || die "no jin-txn binary" 'cargo build --release, or set JIN_TXN_BIN'
    command -v hyperfine >/dev/null || die 'hyperfine is not in PATH' 'install it (Debian: hyperfine)'
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    export GIT_CONFIG_GLOBAL=$scratch/config GIT_CONFIG_NOSYSTEM=1
    git config --global user.name bench
    git config --global user.email bench@example.com
    make_repository "$files"
    cd "$scratch/repo"
    sync # what was written to make the repository is not what is measured

    hyperfine -N --warmup 5 --runs "$runs" --export-json "$scratch/times.json" \
        -n 'git status' 'git status --porcelain -uall' -n 'run' "$binary run -- true" >/dev/null
    printf '%s files, git %s\n\n' "$files" "$(git version | sed 's/git version //')"
    printf '| command | median, ms |\n| --- | ---: |\n'
    local status run
    status=$(median 0)
    run=$(median 1)
    printf '| git status | %s |\n| jin-txn run -- true | %s |\n\n' "$status" "$run"
    awk -v a="$run" -v b="$status" 'BEGIN { printf "run / git status: %.2f\n\n", a / b }'

    printf 'peak memory with nothing large: %s KiB\n' "$(peak "$binary" run -- true)"
    head -c 512M /dev/zero >large
    printf 'peak memory with 512 MiB untracked: %s KiB\n' "$(peak "$binary" run -- true)"
    printf 'peak memory when they are restored: %s KiB\n' "$(peak "$binary" run -- sh -c 'rm large; exit 3')"
    [[ $(stat -c %s large) -eq $((512 << 20)) ]] || die 'the large file did not come back' 'this is a bug'
}

make_repository() {
    local n
    git init -q "$scratch/repo"
    for ((n = 0; n < $1; n++)); do
        ((n % 100)) || mkdir "$scratch/repo/d$((n / 100))"
        printf '%s\n%s\n' "$n" "$n" >"$scratch/repo/d$((n / 100))/f$n"
    done
    git -C "$scratch/repo" add .
    git -C "$scratch/repo" commit -qm base
    git -C "$scratch/repo" repack -adq
    "$binary" -C "$scratch/repo" install -q
    for n in 1 2 3; do
        echo changed >>"$scratch/repo/d0/f$n"
    done
    echo mine >"$scratch/repo/untracked"
}

# The median of the command number $1, in milliseconds.
median() {
    sed -n 's/.*"median": *\([0-9.e-]*\).*/\1/p' "$scratch/times.json" | sed -n "$(($1 + 1))p" |
        awk '{ printf "%.1f", $1 * 1000 }'
}

# The peak resident memory of a command and its children, in KiB, whatever its exit code.
peak() {
    { /usr/bin/time -f '%M' -o "$scratch/peak" "$@" >/dev/null 2>&1 || true; }
    tail -n 1 "$scratch/peak"
}

die() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

main "$@"
