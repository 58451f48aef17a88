#!/bin/sh
# Serves the repositories below BASE, pushes included, to everybody who can reach it: for a trusted network.
#
# usage: git-daemon.sh BASE            one connection on stdin and stdout (inetd, a systemd socket with Accept=yes)
#        git-daemon.sh BASE PORT       all of them, on this port of this machine alone
set -eu
base=$1
port=${2:-}
here=$(cd -- "$(dirname -- "$0")" && pwd)

if [ -n "$port" ]; then
    set -- --reuseaddr --listen=127.0.0.1 "--port=$port"
else
    set -- --inetd
fi
exec git daemon "$@" --export-all --enable=receive-pack --base-path="$base" --access-hook="$here/access-hook.sh" "$base"
