# shellcheck shell=sh
# What the scripts of the guest share. `init` sets these.
: "${guarded:?}" "${rescue:?}" "${offset:?}"

# shellcheck disable=SC2034 # for those who read this
work=/mnt/work worktree=/mnt/worktree bare=/mnt/bare.git second=/second
# shellcheck disable=SC2034
five='a b c d e'

# A line for the host. Once it is written it survives the cut.
report() {
    echo "$*" >&3
}

explain() {
    echo "$*" >&4
}

# bad CLASS REASON
bad() {
    report "bad $*"
    explain "BAD $*"
}

# note TEXT: worth knowing, not counted
note() {
    report "note $*"
    explain "NOTE $*"
}

first_line() {
    head -n 1 /tmp/out
}

# try COMMAND...: all that it prints goes to /tmp/out and to the log.
try() {
    "$@" >/tmp/out 2>&1
    rc=$?
    explain "\$ $* -> $rc"
    head -c 4000 /tmp/out >&4
    return $rc
}

directory_of() {
    case $1 in
        work) echo "$work" ;;
        worktree) echo "$worktree" ;;
        bare) echo "$bare" ;;
    esac
}

# commit_in DIRECTORY FILE TEXT
commit_in() {
    echo "$3" >>"$1/$2"
    git -C "$1" add "$2" && git -C "$1" commit -q -m "$3"
}

# value REF: of the work repository
value() {
    git -C "$work" rev-parse --verify -q "$1"
}

# update_five OID
update_five() {
    for name in $five; do echo "update refs/five/$name $1"; done | git -C "$work" update-ref --stdin
}
