#!/usr/bin/env bash
# Breaks the protocol on purpose, one patch at a time, and looks whether the test that is named in the patch notices:
#
#     tests/mutations/run.sh [tests/mutations/NAME.patch...]
#
# The program is built from a copy of what is committed; the tests are those of this tree. Prints a line for each patch, and
# exits 1 when one is caught by nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

root=$PWD
work=$root/target/mutations
tree=$work/tree

main() {
    local patches=("$@") patch missed=0
    if ((${#patches[@]} == 0)); then
        patches=(tests/mutations/*.patch)
    fi
    mkdir -p "$work"
    for patch in "${patches[@]}"; do
        mutate "$patch" || missed=$((missed + 1))
    done
    echo "torture: mutations=${#patches[@]} violations=$missed"
    ((missed == 0))
}

# mutate PATCH: fails when its test does not.
mutate() {
    local patch=$1 name words log
    name=$(basename "$patch" .patch)
    log=$work/$name.log
    words=$(sed -n 's/^caught-by: //p' "$patch")
    [[ -n $words ]] || fail "$patch names no test" "a line 'caught-by: --test traps NAME' before the diff"
    rm -rf "$tree"
    mkdir -p "$tree"
    git archive HEAD | tar -x -C "$tree"
    (cd "$tree" && GIT_CEILING_DIRECTORIES=$work git apply "$root/$patch") || fail "$patch does not apply" 'make it anew'

    local code=0
    if [[ $words == --lib* ]]; then
        # shellcheck disable=SC2086 # the words are arguments
        (cd "$tree" && CARGO_TARGET_DIR=$work/build cargo test --locked $words) >"$log" 2>&1 || code=$?
    else
        (cd "$tree" && CARGO_TARGET_DIR=$work/build cargo build --locked) >"$log" 2>&1 ||
            fail "$patch does not build" "see $log"
        # shellcheck disable=SC2086
        JIN_TXN_BIN=$work/build/debug/jin-txn cargo test --locked $words >>"$log" 2>&1 || code=$?
    fi
    if grep -q '^test .* FAILED$' "$log"; then
        printf 'caught  %s by %s\n' "$name" "${words##* }"
    else
        printf 'MISSED  %s by %s (exit %s), see %s\n' "$name" "$words" "$code" "$log"
        return 1
    fi
}

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 2
}

main "$@"
