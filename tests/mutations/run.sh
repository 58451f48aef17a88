#!/usr/bin/env bash
# Breaks the protocol on purpose, one patch at a time, and looks whether the test that is named in the patch notices:
#
#     tests/mutations/run.sh [tests/mutations/NAME.patch...]
#
# The program is built from a copy of what is committed; the tests are those of this tree. First each test has to pass with the
# program as it is: one that fails anyway, or that no longer exists, notices nothing. What needs a newer git than the one in PATH
# (a line `needs-git:` in the patch) is skipped, and that is told.
#
# Prints a line for each patch, and exits 1 when one is not caught.
set -euo pipefail
# Nothing that outlives this script.
export JIN_WATCH=off
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

root=$PWD
work=$root/target/mutations
tree=$work/tree

main() {
    local patches=("$@") patch missed=0 skipped=0
    if ((${#patches[@]} == 0)); then
        patches=(tests/mutations/*.patch)
    fi
    mkdir -p "$work"
    copy_tree
    (cd "$tree" && CARGO_TARGET_DIR=$work/build cargo build --locked) >"$work/unchanged.log" 2>&1 ||
        fail 'what is committed does not build' "see $work/unchanged.log"
    # Under its own name: the tests tell our processes from git's by it.
    mkdir -p "$work/unchanged"
    cp "$work/build/debug/jin-txn" "$work/unchanged"
    for patch in "${patches[@]}"; do
        if ! is_git_new_enough "$patch"; then
            printf 'skipped %s: it needs git %s\n' "$(name_of "$patch")" "$(header needs-git "$patch")"
            skipped=$((skipped + 1))
        elif ! mutate "$patch"; then
            missed=$((missed + 1))
        fi
    done
    echo "torture: mutations=$((${#patches[@]} - skipped)) violations=$missed"
    ((missed == 0))
}

name_of() { basename "$1" .patch; }

# header KEY PATCH: what a line `KEY: ...` before the diff says.
header() { sed -n "/^diff /q; s/^$1: //p" "$2"; }

# With the time of now: cargo goes by times, and would take what is unchanged for built.
copy_tree() {
    rm -rf "$tree"
    mkdir -p "$tree"
    git archive HEAD | tar -x -m -C "$tree"
}

is_git_new_enough() {
    local needed
    needed=$(header needs-git "$1")
    [[ -z $needed || $(printf '%s\n' "$needed" "$(git version | awk '{ print $3 }')" | sort -V | head -n 1) == "$needed" ]]
}

# mutate PATCH: fails when the patch cannot be made, or when its test does not tell it from the program as it is.
mutate() {
    local patch=$1 name words log
    name=$(name_of "$patch")
    log=$work/$name.log
    : >"$log"
    words=$(header caught-by "$patch")
    [[ -n $words ]] || fail "$patch names no test" "a line 'caught-by: --test recovery traps::NAME' before the diff"
    copy_tree
    if ! with "$work/unchanged/jin-txn" "$words" "$log" || [[ $(passed "$log") != 1 ]]; then
        printf 'BROKEN  %s: %s is not one test that passes with the program as it is, see %s\n' "$name" "$words" "$log"
        return 1
    fi
    if ! (cd "$tree" && GIT_CEILING_DIRECTORIES=$work git apply "$root/$patch") >>"$log" 2>&1; then
        printf 'BROKEN  %s does not apply, see %s\n' "$name" "$log"
        return 1
    fi
    if ! (cd "$tree" && CARGO_TARGET_DIR=$work/build cargo build --locked) >>"$log" 2>&1; then
        printf 'BROKEN  %s does not build, see %s\n' "$name" "$log"
        return 1
    fi
    : >"$log"
    if ! with "$work/build/debug/jin-txn" "$words" "$log" && grep -q '^test result: FAILED\. 0 passed; 1 failed' "$log"; then
        printf 'caught  %s by %s\n' "$name" "${words##* }"
    else
        printf 'MISSED  %s by %s, see %s\n' "$name" "$words" "$log"
        return 1
    fi
}

# with PROGRAM WORDS LOG: runs a test; one of the library is that of the copy, any other of this tree with PROGRAM.
with() {
    local program=$1 words=$2 log=$3
    if [[ $words == --lib* ]]; then
        # shellcheck disable=SC2086 # the words are arguments
        (cd "$tree" && CARGO_TARGET_DIR=$work/build cargo test --locked $words) >>"$log" 2>&1
    else
        # shellcheck disable=SC2086
        JIN_TXN_BIN=$program cargo test --locked $words >>"$log" 2>&1
    fi
}

# passed LOG: how many tests passed.
passed() { awk '/^test result: / { sum += $4 } END { print sum + 0 }' "$1"; }

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 2
}

main "$@"
