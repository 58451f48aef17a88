#!/bin/sh
# The Debian package, in target/debian. It needs cargo-deb (`cargo install cargo-deb`).
#
# usage: packaging/deb.sh [BINARY]
set -eu
cd "$(dirname "$0")/.."
packaging/stage.sh "$@" >&2
cargo deb --no-build --no-strip --output target/debian/
