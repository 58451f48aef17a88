#!/bin/sh
# Puts everything that a package or a tarball has into target/package: bin, manual pages, completions.
#
# usage: packaging/stage.sh [BINARY]        (default: builds one, as install.sh does)
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- "$(./install.sh --build-only)"

stage=target/package
rm -rf "$stage"
mkdir -p "$stage/bin" "$stage/share/bash-completion/completions" "$stage/share/zsh/site-functions" \
    "$stage/share/fish/vendor_completions.d"
cp "$1" "$stage/bin/jin-txn"
chmod 755 "$stage/bin/jin-txn"
# It makes `git txn` work in every repository, and `git help txn` show the manual page.
ln -s jin-txn "$stage/bin/git-txn"
"$stage/bin/jin-txn" --quiet man "$stage/share/man/man1"
for name in jin-txn git-txn git-tx; do
    "$stage/bin/jin-txn" completions bash >"$stage/share/bash-completion/completions/$name"
done
for name in _jin-txn _git-txn; do
    "$stage/bin/jin-txn" completions zsh >"$stage/share/zsh/site-functions/$name"
done
"$stage/bin/jin-txn" completions fish >"$stage/share/fish/vendor_completions.d/jin-txn.fish"
echo "$stage"
