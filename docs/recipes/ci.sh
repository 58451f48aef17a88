#!/bin/sh
# Runs a command in a checkout that an earlier job may have left in any state.
#
# usage: ci.sh CHECKOUT COMMAND [ARGS...]
#
# JIN_SHIM_DIR is where the shim is put (default: ~/.cache/jin-txn-shim).
set -eu
checkout=$1
shift

# What a killed job has left goes first. Exit code 4 or 5 says that somebody has to look.
jin-txn -q install "$checkout"
jin-txn -C "$checkout" recover

# From here on every git, of every program, looks before it starts.
shim=${JIN_SHIM_DIR:-$HOME/.cache/jin-txn-shim}
jin-txn -q install --shim "$shim"
PATH=$shim:$PATH
export PATH

cd "$checkout"
exec "$@"
