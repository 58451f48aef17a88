#!/usr/bin/env bash
# Fuzzes every target, one after another, each for a number of seconds:
#
#     fuzz/run.sh [--seconds N] [TARGET...]
#
# Needs `cargo install cargo-fuzz` and a nightly Rust. What is found on the way grows in fuzz/target/corpus, not in
# fuzz/corpus, which is checked in. Prints one line for each target, and a last one for all of them; exits 1 when
# something was found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

main() {
    local seconds=60 targets=()
    while (($#)); do
        case $1 in
            --seconds) seconds=${2:?a number of seconds}; shift ;;
            --*) fail "unknown option \`$1\`" 'fuzz/run.sh [--seconds N] [TARGET...]' ;;
            *) targets+=("$1") ;;
        esac
        shift
    done
    command -v cargo-fuzz >/dev/null || fail 'cargo-fuzz is not in PATH' 'cargo install cargo-fuzz'
    cargo +nightly --version >/dev/null 2>&1 || fail 'there is no nightly Rust' 'rustup toolchain install nightly'
    if ((${#targets[@]} == 0)); then
        mapfile -t targets < <(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' Cargo.toml)
    fi

    local all=0 found=0
    for target in "${targets[@]}"; do
        fuzz "$target" "$seconds"
    done
    echo "torture: fuzz_targets=${#targets[@]} fuzz_executions=$all violations=$found"
    ((found == 0))
}

# fuzz TARGET SECONDS
fuzz() {
    local target=$1 seconds=$2 log grown executions code=0
    grown=target/corpus/$target
    log=target/$target.log
    mkdir -p "$grown"
    cargo +nightly fuzz run "$target" "$grown" "corpus/$target" -- \
        -max_total_time="$seconds" -print_final_stats=1 -max_len=8192 -timeout=10 -rss_limit_mb=2048 \
        >"$log" 2>&1 || code=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    all=$((all + ${executions:-0}))
    if ((code != 0)); then
        found=$((found + 1))
        echo "$target: FOUND something, see fuzz/$log"
    else
        echo "$target: ${executions:-0} executions in $seconds s, nothing found"
    fi
}

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

main "$@"
