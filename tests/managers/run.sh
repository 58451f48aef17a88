#!/usr/bin/env bash
# jin-txn beside real hook managers: husky and lefthook (npm), pre-commit (PyPI),
# git-lfs (Debian), and with --with-branchless git-branchless (built by cargo when it is
# not in PATH; that takes many minutes). Each in both orders: the manager first, jin-txn
# first.
#
#   theirs     the manager's hooks run
#   ours       a change of a ref appears in `jin-txn log`
#   told       what takes our place, or finds none beside us, is told by `jin-txn
#              status`, with the remedy, which is then followed
#   veto       theirs is respected, and so is ours
#   we leave   `jin-txn uninstall --purge`: theirs run, nothing of ours is left
#   they leave the manager's own uninstall: ours run
#
# Usage: tests/managers/run.sh [--with-branchless]
# Environment: JIN_TXN_BIN (default: built here), PATH (whose first git it is).
set -euo pipefail
# Nothing that outlives this script.
export JIN_WATCH=off

main() {
    local with_branchless=0
    case ${1-} in
        '') ;;
        --with-branchless) with_branchless=1 ;;
        *) fail "there is no option \`$1\`" 'Usage: tests/managers/run.sh [--with-branchless]' ;;
    esac
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    install_managers "$with_branchless"
    prepare_home
    printf 'git %s\n' "$(git version | sed 's/^git version //')"
    printf '%-14s %-14s %-7s %-7s %-7s %-7s %-9s %-10s\n' manager first theirs ours told veto 'we leave' 'they leave'
    bad=0
    local manager order
    for manager in husky lefthook pre-commit git-lfs branchless; do
        [[ $manager != branchless || $with_branchless == 1 ]] || continue
        for order in "$manager" jin-txn; do
            row "$manager" "$order"
        done
    done
    [[ $bad == 0 ]] || fail "$bad cells are bad" 'what went wrong is said above each row'
}

# One row of the table: what is checked is a cell each, `ok` or `BAD`.
row() {
    manager=$1 order=$2
    local directory=$scratch/$manager-$order
    make_repository "$directory/one"
    both_in "$directory/one"
    local theirs ours told veto leave left
    told=$told_cell
    theirs=$(cell theirs_run)
    ours=$(cell ours_run)
    veto=$(cell vetoes_hold)
    leave=$(cell we_leave)
    make_repository "$directory/two"
    both_in "$directory/two"
    left=$(cell they_leave)
    printf '%-14s %-14s %-7s %-7s %-7s %-7s %-9s %-10s\n' \
        "$manager" "$order" "$theirs" "$ours" "$told" "$veto" "$leave" "$left"
    case "$theirs $ours $told $veto $leave $left" in
        *BAD*) bad=$((bad + 1)) ;;
    esac
}

cell() {
    if "$1" >"$scratch/why" 2>&1; then
        echo ok
    else
        { printf '%s, %s first, %s:\n' "$manager" "$order" "$1" && sed 's/^/    /' "$scratch/why"; } >&2
        echo BAD
    fi
}

# A repository with one commit, and the manager's configuration in it.
make_repository() {
    mkdir -p "$1"
    cd "$1"
    git init -q .
    git config advice.detachedHead false
    echo one >file
    "configure_${manager//-/_}" "$1"
    git add -A
    git commit -qm one
    ran=$1.ran
    export ran
}

# The manager and jin-txn, in the order of the row; who displaced us is told, and
# the remedy is followed.
both_in() {
    cd "$1"
    told_cell=-
    if [[ $order == "$manager" ]]; then
        "enter_${manager//-/_}" >"$scratch/enter" 2>&1
        install_jin
    else
        install_jin
        if ! "enter_${manager//-/_}" >"$scratch/enter" 2>&1; then
            told_cell=$(cell status_says_what_hinders_it)
            install_jin
            "enter_${manager//-/_}" >"$scratch/enter" 2>&1
        fi
        if ! is_protected >/dev/null; then
            told_cell=$(cell status_says_so)
            install_jin
        fi
        # shellcheck disable=SC2016
        if says '  hooks: ' jin-txn status >/dev/null; then
            told_cell=$(cell status_says_what_hinders_it)
            install_jin
        fi
    fi
}

# Not by `grep -q` at the end of a pipe: what still writes to it would fail.
says() {
    local what=$1 said
    shift
    said=$("$@" 2>&1) || true
    printf '%s\n' "$said"
    [[ $said == *"$what"* ]]
}

is_protected() { says 'protected: ' jin-txn status | grep '^protected: '; }

status_says_so() {
    # shellcheck disable=SC2016
    says 'run `jin-txn install`' jin-txn status && says 'not protected' jin-txn check
}

status_says_what_hinders_it() {
    # shellcheck disable=SC2016
    says '  hooks: ' jin-txn status && says 'run `jin-txn install`' jin-txn status
}

# Where the hooks directory is in other hands and git is older than 2.54, install
# refuses with the lines to add: this adds them, exactly.
install_jin() {
    if jin-txn install >"$scratch/install" 2>&1; then
        return
    fi
    # shellcheck disable=SC2016
    grep -q 'run `jin-txn install` again' "$scratch/install" || { cat "$scratch/install" >&2; return 1; }
    local path='' line
    while IFS= read -r line; do
        case $line in
            '    '*)
                if [[ $line == '    #!'* && -s $path ]]; then line=; fi
                printf '%s\n' "${line#    }" >>"$path"
                chmod +x "$path"
                ;;
            '  /'*:)
                path=${line#  }
                path=${path%:}
                ;;
        esac
    done <"$scratch/install"
    jin-txn install >"$scratch/install" 2>&1 || { cat "$scratch/install" >&2; return 1; }
}

ours_run() {
    local branch=b$RANDOM$RANDOM
    git branch "$branch"
    is_protected && says "git branch $branch" jin-txn log | grep "committed .*git branch $branch"
}

theirs_run() {
    "theirs_of_${manager//-/_}"
}

vetoes_hold() {
    "veto_of_${manager//-/_}" || { echo 'their veto does not count'; return 1; }
    # A log that cannot be written: ours.
    mv .git/.jin/append.lock .git/aside
    mkdir .git/.jin/append.lock
    local code=0
    git branch must-not-be 2>&1 || code=$?
    rmdir .git/.jin/append.lock
    mv .git/aside .git/.jin/append.lock
    [[ $code != 0 ]] || { echo 'our veto does not count'; return 1; }
    ! git rev-parse -q --verify refs/heads/must-not-be
}

we_leave() {
    jin-txn uninstall --purge
    [[ ! -e .git/.jin && ! -e .git/hooks.before-jin-txn ]] || { echo 'something of ours is left'; return 1; }
    ! git config --local --get-regexp '^(alias\.txn|hook\.|core\.fsync)' || { echo 'settings of ours are left'; return 1; }
    theirs_run
}

they_leave() {
    "leave_${manager//-/_}"
    # A hooks directory that is gone takes what was added to it by hand along.
    is_protected || { status_says_so && install_jin; }
    ours_run && git checkout -q -b "after$RANDOM"
}

# It has run if the file that it writes to is there, and new.
has_run() {
    local found=0
    [[ -e $ran ]] && found=1
    rm -f "$ran"
    [[ $found == 1 ]] || { echo 'it did not run'; return 1; }
}

checkout_runs_it() {
    rm -f "$ran"
    git checkout -q -b "t$RANDOM$RANDOM"
    has_run
}

# ---- husky: its own directory, core.hooksPath

configure_husky() {
    mkdir -p .husky
    # shellcheck disable=SC2016
    printf 'echo "$1" >>"$ran"\n' >.husky/post-checkout
    printf 'test ! -e veto\n' >.husky/pre-commit
}

enter_husky() { husky; }

theirs_of_husky() { checkout_runs_it; }

veto_of_husky() { pre_commit_vetoes; }

leave_husky() {
    git config --unset core.hooksPath
    rm -r .husky/_
}

pre_commit_vetoes() {
    local before after
    before=$(git rev-parse HEAD)
    touch veto
    echo "$RANDOM" >>file
    git add file
    if git commit -qm vetoed 2>&1; then rm veto && return 1; fi
    rm veto
    after=$(git rev-parse HEAD)
    [[ $before == "$after" ]] || return 1
    git commit -qm 'not vetoed'
}

# ---- lefthook: any hook, reference-transaction too

configure_lefthook() {
    # Whenever one of its hooks runs, lefthook takes back places in the hooks
    # directory, unless it is told not to. Up to git 2.53 that is where ours are.
    git_is_at_least 2 54 || echo 'no_auto_install: true' >lefthook.yml
    cat >>lefthook.yml <<'YAML'
output: false
post-checkout:
  commands:
    note:
      run: echo checkout >>"$ran"
reference-transaction:
  commands:
    judge:
      run: 'if test "{1}" = prepared && test -e "$ran.veto"; then exit 1; fi; cat >"$ran.input"'
      use_stdin: true
YAML
}

enter_lefthook() { lefthook install; }

theirs_of_lefthook() {
    rm -f "$ran.input"
    checkout_runs_it
    [[ -e $ran.input ]] || { echo 'its reference-transaction hook did not run'; return 1; }
    git update-ref refs/heads/seen HEAD
    grep -q refs/heads/seen "$ran.input" || { echo 'it did not get its stdin'; return 1; }
}

veto_of_lefthook() { reference_transaction_vetoes; }

reference_transaction_vetoes() {
    touch "$ran.veto"
    if git branch vetoed 2>&1; then rm "$ran.veto" && return 1; fi
    rm "$ran.veto"
    ! git rev-parse -q --verify refs/heads/vetoed
}

leave_lefthook() { lefthook uninstall; }

# ---- pre-commit: calls the hook whose place it takes as `.legacy`

configure_pre_commit() {
    cat >.pre-commit-config.yaml <<'YAML'
repos:
- repo: local
  hooks:
  - {id: note, name: note, language: system, always_run: true, pass_filenames: false,
     stages: [post-checkout], entry: sh -c 'echo checkout >>"$ran"'}
  - {id: judge, name: judge, language: system, always_run: true, pass_filenames: false,
     stages: [pre-commit], entry: sh -c 'test ! -e veto'}
YAML
}

enter_pre_commit() { pre-commit install -t pre-commit -t post-checkout; }

theirs_of_pre_commit() { checkout_runs_it; }

veto_of_pre_commit() { pre_commit_vetoes; }

leave_pre_commit() { pre-commit uninstall -t pre-commit -t post-checkout; }

# ---- git-lfs: refuses where there is a hook; with --force it writes over it

configure_git_lfs() {
    echo '*.doc lockable' >.gitattributes
    echo '*.bin filter=lfs diff=lfs merge=lfs -text' >>.gitattributes
    echo one >a.doc
}

enter_git_lfs() { git lfs install --local || git lfs install --local --force; }

# Its post-checkout hook makes lockable files read-only.
theirs_of_git_lfs() {
    chmod u+w a.doc
    echo "$RANDOM" >a.doc
    git commit -qam 'another document'
    git checkout -q HEAD~1
    [[ $(stat -c %A a.doc) == -r--* ]] || { echo "it did not run: $(stat -c %A a.doc)"; return 1; }
}

# Its pre-push hook refuses what it cannot send.
veto_of_git_lfs() {
    git init -q --bare "$ran.git"
    git remote add origin "file://$ran.git"
    echo "content $RANDOM" >large.bin
    git add large.bin
    git commit -qm large
    rm -rf .git/lfs/objects large.bin
    if git push -q origin HEAD 2>&1; then return 1; fi
    [[ -z $(git ls-remote origin) ]] || return 1
    git reset -q --hard HEAD~1
}

leave_git_lfs() { git lfs uninstall --local; }

# ---- git-branchless: adds lines to reference-transaction, post-checkout and more. It
# never vetoes: the veto is one of a hook of the user's, which it adds its lines to. The
# repository that it leaves has no such hook.

configure_branchless() {
    [[ $1 == */one ]] || return 0
    mkdir -p .git/hooks
    # shellcheck disable=SC2016
    printf '#!/bin/sh\nif test "$1" = prepared && test -e "$ran.veto"; then exit 1; fi\n' >.git/hooks/reference-transaction
    chmod +x .git/hooks/reference-transaction
}

enter_branchless() { git branchless init; }

# Of a branch it hears by its reference-transaction hook, once.
theirs_of_branchless() {
    local branch=seen$RANDOM$RANDOM
    git branch "$branch"
    python3 - "$branch" <<'PYTHON'
import sqlite3, sys
events = sqlite3.connect('.git/branchless/db.sqlite3')
query = 'SELECT type FROM event_log WHERE ref_name = ?'
found = events.execute(query, ('refs/heads/' + sys.argv[1],)).fetchall()
sys.exit(0 if found == [('ref-move',)] else f'its log has {found}')
PYTHON
}

veto_of_branchless() { reference_transaction_vetoes; }

# What it has left is silent, and hears of nothing any more.
leave_branchless() {
    git branchless init --uninstall || return 1
    local said
    said=$(git branch "left$RANDOM$RANDOM" 2>&1)
    [[ -z $said ]] || { printf 'it goes on to run: %s\n' "$said"; return 1; }
}

# ---- what it needs

install_managers() {
    tools=$scratch/tools
    mkdir -p "$tools/bin"
    need git git
    need npm npm
    need python3 python3
    need git-lfs git-lfs
    python3 -m venv "$tools/venv" 2>/dev/null || { apt python3-venv && python3 -m venv "$tools/venv"; }
    "$tools/venv/bin/pip" install -q pre-commit
    ln -s "$tools/venv/bin/pre-commit" "$tools/bin/pre-commit"
    (cd "$tools" && npm init -y && npm install husky lefthook) >"$scratch/npm" 2>&1 || { cat "$scratch/npm" >&2; exit 1; }
    ln -s "$tools/node_modules/.bin/husky" "$tools/node_modules/.bin/lefthook" "$tools/bin/"
    [[ $1 == 0 ]] || command -v git-branchless >/dev/null || cargo install --quiet --locked --root "$tools" git-branchless
    if [[ -z ${JIN_TXN_BIN-} ]]; then
        cargo build --locked --quiet --manifest-path "$here/Cargo.toml"
        JIN_TXN_BIN=$here/target/debug/jin-txn
    fi
    # A copy: what a manager might write over must not be the one that was built.
    cp "$JIN_TXN_BIN" "$tools/bin/jin-txn"
    PATH=$tools/bin:$PATH
}

prepare_home() {
    export HOME=$scratch/home GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0 CI=1 NO_COLOR=1
    export GIT_AUTHOR_NAME=jin GIT_AUTHOR_EMAIL=jin@example.com GIT_COMMITTER_NAME=jin GIT_COMMITTER_EMAIL=jin@example.com
    unset GIT_CONFIG_GLOBAL GIT_DIR HUSKY LEFTHOOK XDG_CONFIG_HOME
    mkdir "$HOME"
    git config --global init.defaultBranch main
    git config --global user.name jin
    git config --global user.email jin@example.com
}

git_is_at_least() {
    local major minor
    IFS=. read -r major minor _ < <(git version | sed 's/^git version //')
    ((major > $1 || (major == $1 && minor >= $2)))
}

# need COMMAND PACKAGE
need() {
    command -v "$1" >/dev/null || apt "$2"
}

apt() {
    command -v apt-get >/dev/null || fail "\`$1\` is missing" "install it; that is Debian's name for it"
    as_root apt-get update -qq >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null
}

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    else
        sudo "$@"
    fi
}

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

main "$@"
