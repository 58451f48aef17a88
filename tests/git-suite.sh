#!/usr/bin/env bash
# git's own test suite with our hooks: which of its tests end otherwise than with empty hooks?
#
#     tests/git-suite.sh [SCRIPT...]          (t1400, t5510, ...; default: those that change refs)
#
# Every script runs twice, with the hooks in the template that all of its repositories are made from: empty ones first, then
# ours. The tests that end otherwise have to be exactly those that tests/git-suite.expected lists, with the reason.
#
# git is built from its source (5 minutes on two cores; kept in target/git-suite):
#   JIN_GIT_SOURCE   a directory with git's unpacked source; default: Debian's source package of git in sid, by apt
#   JIN_TXN_BIN      the program; default: built here
#   JIN_SUITE_JOBS   how many scripts run at once; default: one for each processor
#
# Prints the differences, and exits 0 only when all of them are listed, and none is listed in vain.
set -euo pipefail
# Nothing that outlives this script.
export JIN_WATCH=off
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$here/target/git-suite
expected=$here/tests/git-suite.expected
usual=(t0600 t1400 t1403 t1404 t1405 t1410 t1416 t1430 t1460 t2400 t2402 t3200 t5403 t5510)
hooks=(reference-transaction post-checkout pre-receive)

main() {
    local scripts=("$@")
    ((${#scripts[@]})) || scripts=("${usual[@]}")
    mkdir -p "$work"
    program
    build_git
    mapfile -t scripts < <(resolve "${scripts[@]}")
    # Outside of this repository, where git finds no other one above.
    scratch=$(mktemp -d)
    trap 'restore_template; rm -rf "$scratch"' EXIT
    run_all floor "${scripts[@]}"
    run_all guarded "${scripts[@]}"
    compare "${scripts[@]}"
}

program() {
    if [[ -z ${JIN_TXN_BIN-} ]]; then
        (cd "$here" && cargo build --locked --quiet)
        JIN_TXN_BIN=$here/target/debug/jin-txn
    fi
    JIN_TXN_BIN=$(realpath "$JIN_TXN_BIN")
    [[ -x $JIN_TXN_BIN ]] || fail "$JIN_TXN_BIN is no program" 'set JIN_TXN_BIN to it'
}

# Builds a copy, so that the directory that was given stays as it is.
build_git() {
    git_tree=$work/git
    if [[ -x $git_tree/t/helper/test-tool && -x $git_tree/git ]]; then
        return
    fi
    local source=${JIN_GIT_SOURCE-}
    [[ -n $source ]] || source=$(debian_source)
    [[ -f $source/t/test-lib.sh && -f $source/Makefile ]] ||
        fail "there is no source of git in $source" 'set JIN_GIT_SOURCE to a directory that has it'
    need cc
    need make
    rm -rf "$git_tree"
    cp -r "$source" "$git_tree"
    echo "building git from $source (log: $work/build.log)" >&2
    local without=(NO_CURL=1 NO_EXPAT=1 NO_GETTEXT=1 NO_TCLTK=1 NO_PYTHON=1 NO_RUST=1)
    nice -n 10 make -C "$git_tree" -j"$(nproc)" "${without[@]}" all >"$work/build.log" 2>&1 ||
        fail 'git cannot be built' "see $work/build.log; on Debian: apt-get install gcc make libc6-dev zlib1g-dev"
}

# Debian's source package, by lists of our own: the system's are not touched, and this needs no root.
debian_source() {
    command -v apt-get >/dev/null || fail 'there is no apt-get to get the source of git' 'set JIN_GIT_SOURCE to it'
    local lists=$work/apt options
    mkdir -p "$lists/state/partial" "$lists/cache/archives/partial" "$lists/source"
    echo 'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]' \
        "${JIN_DEBIAN_MIRROR:-http://deb.debian.org/debian} sid main" >"$lists/sources.list"
    options=(-o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::Lists=$lists/state" -o "Dir::Cache=$lists/cache" -o "APT::Sandbox::User=$(id -un)"
        # It is signed; a mirror that has not been renewed for a while serves as well.
        -o Acquire::Check-Valid-Until=false)
    {
        apt-get "${options[@]}" update &&
            (cd "$lists/source" && apt-get "${options[@]}" source --download-only git && tar xf git_*.orig.tar.*)
    } >"$work/apt.log" 2>&1 ||
        fail 'the source package of git cannot be had' "see $work/apt.log, or set JIN_GIT_SOURCE to a directory that has it"
    local found=("$lists"/source/git-*/)
    echo "${found[0]%/}"
}

# The file name of each script, by the number that it begins with.
resolve() {
    local name found
    for name in "$@"; do
        found=("$git_tree/t/${name%.sh}"*.sh)
        [[ -f ${found[0]} ]] || fail "git has no test script $name" "they are in $git_tree/t"
        basename "${found[0]}" .sh
    done
}

# run_all floor|guarded SCRIPT...: the results in $work/KIND/SCRIPT.
run_all() {
    local kind=$1
    shift
    restore_template
    put_hooks "$kind"
    rm -rf "${work:?}/$kind"
    mkdir -p "$work/$kind" "$scratch/$kind"
    export -f run_one
    export git_tree work scratch kind
    printf '%s\0' "$@" | xargs -0 -P "${JIN_SUITE_JOBS:-$(nproc)}" -I{} bash -c 'run_one {}'
}

# Exit codes say that tests failed, and those are compared.
run_one() {
    local out=$scratch/$kind
    cd "$git_tree/t" || return
    mkdir -p "$out/$1"
    # Nothing of ours may lie in a trash directory, which is HOME as well: scripts list what is there.
    env -u JIN_TXN -u JIN_TXN_RUN -u GIT_DIR -u GIT_TEST_INSTALLED XDG_STATE_HOME="$out/state" \
        TEST_OUTPUT_DIRECTORY="$out/$1" ./"$1.sh" >"$work/$kind/$1.tap" 2>"$work/$kind/$1.log" </dev/null || true
    # `ok 3 - title` becomes `t1400-update-ref 3 title<TAB>ok`.
    sed -n -E "s/^(ok|not ok) ([0-9]+) (- )?(.*)/$1 \2 \4\t\1/p" "$work/$kind/$1.tap" >"$work/$kind/$1"
    rm -rf "${out:?}/$1"
}

put_hooks() {
    local hook
    for hook in "${hooks[@]}"; do
        if [[ $1 == guarded ]]; then
            ln -s "$JIN_TXN_BIN" "$git_tree/templates/blt/hooks/$hook"
        else
            printf '#!/bin/sh\nexit 0\n' >"$git_tree/templates/blt/hooks/$hook"
            chmod +x "$git_tree/templates/blt/hooks/$hook"
        fi
    done
}

restore_template() {
    local hook
    for hook in "${hooks[@]}"; do
        rm -f "$git_tree/templates/blt/hooks/$hook"
    done
}

compare() {
    local script failed=0
    tee "$work/differences" "$work/always" "$work/at-times" </dev/null
    for script in "$@"; do
        # A script that gave up early lacks the rest.
        join -t $'\t' -a 1 -a 2 -e missing -o 0,1.2,2.2 <(sort "$work/floor/$script") <(sort "$work/guarded/$script") |
            grep -v $'\t\\(.*\\)\t\\1$' >>"$work/differences" || true
    done
    printf 'git %s: %d tests, %d fail with empty hooks, %d end otherwise with ours\n' "$(git_version)" \
        "$(cat "${@/#/$work/floor/}" | wc -l)" "$(cat "${@/#/$work/floor/}" | grep -c $'\tnot ok$')" \
        "$(wc -l <"$work/differences")"
    sort -o "$work/differences" "$work/differences"
    # Of the list, what these scripts have. What ends otherwise only at times has a `?` before it.
    for script in "$@"; do
        sed -n "s/^$script /&/p" "$expected" >>"$work/always"
        sed -n "s/^? \\($script .*\\)/\\1/p" "$expected" >>"$work/at-times"
    done
    while IFS= read -r line; do
        echo "not listed: $line"
        failed=1
    done < <(join -t $'\t' -v 1 "$work/differences" <(sort "$work/always" "$work/at-times"))
    while IFS= read -r line; do
        echo "listed in vain: $line"
        failed=1
    done < <(join -t $'\t' -v 2 "$work/differences" <(sort "$work/always"))
    ((failed == 0)) || fail 'the differences are not those of tests/git-suite.expected' "what the tests print: $work/guarded"
}

git_version() {
    "$git_tree/git" --version | sed 's/^git version //'
}

need() {
    command -v "$1" >/dev/null || fail "\`$1\` is not in PATH" 'on Debian: apt-get install gcc make libc6-dev zlib1g-dev'
}

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

main "$@"
