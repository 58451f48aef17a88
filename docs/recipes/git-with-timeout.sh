#!/bin/sh
# git for at most SECONDS seconds. When git was killed, by the timeout or by somebody else, what it left is recovered.
#
# usage: git-with-timeout.sh SECONDS ARGS...
#
# Exit code: git's, 124 or 137 after a timeout. GIT_TIMEOUT_SIGNAL is what git gets first (default: TERM). Two seconds
# later (GIT_TIMEOUT_KILL_AFTER) it gets KILL.
set -u
seconds=$1
shift

# What was left before is recovered by `jin-txn git`, before git starts.
timeout --signal="${GIT_TIMEOUT_SIGNAL:-TERM}" --kill-after="${GIT_TIMEOUT_KILL_AFTER:-2}" "$seconds" jin-txn git "$@"
code=$?

# 124: it ended at the first signal. 128 and more: it was killed.
if [ "$code" -eq 124 ] || [ "$code" -gt 128 ]; then
    jin-txn recover
    case $? in
        0) ;;
        4) echo "git-with-timeout: a person has to decide: jin-txn status" >&2 ;;
        *) echo "git-with-timeout: not recovered yet: jin-txn status" >&2 ;;
    esac
fi
exit "$code"
