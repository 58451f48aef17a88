#!/usr/bin/env bash
# libgit2 and gitoxide beside jin-txn: builds both (some minutes the first time) and runs the tests.
#
# Environment: JIN_TXN_BIN (default: built here), PATH (whose first git it is).
set -euo pipefail
# Nothing that outlives this script.
export JIN_WATCH=off
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [[ -z ${JIN_TXN_BIN-} ]]; then
    (cd "$here" && cargo build --locked --quiet)
    JIN_TXN_BIN=$here/target/debug/jin-txn
fi
cd "$here/tests/third_parties"
JIN_TXN_BIN=$JIN_TXN_BIN cargo test "$@"
