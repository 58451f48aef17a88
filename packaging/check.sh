#!/bin/sh
# Goes in and out of both doors, the install script and the Debian package: installs, uses, takes out again, and compares the
# files of before with those of after, names, modes and sizes.
#
# usage: packaging/check.sh [FILE.deb | --no-package]
#
# Without FILE.deb the package is built (cargo-deb). It is installed with dpkg, as root or with sudo.
set -eu
cd "$(dirname "$0")/.."

main() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    try_script
    package=${1:-}
    if [ "$package" = --no-package ]; then
        echo 'one door, the install script: in, used, out, and nothing is left'
        return
    fi
    if [ -z "$package" ]; then
        rm -rf target/debian
        packaging/deb.sh
        package=$(echo target/debian/*.deb)
    fi
    try_package "$package"
    echo 'both doors: in, used, out, and nothing is left'
}

try_script() {
    mkdir "$scratch/home"
    git init -q "$scratch/repository"
    listed "$scratch/home" "$scratch/repository" >"$scratch/before"
    target=${CARGO_TARGET_DIR:-$PWD/target}
    (
        # rustup and cargo stay those of the caller.
        export CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}"
        export HOME="$scratch/home" CARGO_TARGET_DIR="$target"
        unset XDG_STATE_HOME XDG_CONFIG_HOME XDG_DATA_HOME
        ./install.sh "$scratch/repository"
        "$HOME/.local/bin/jin-txn" -C "$scratch/repository" check
        git -C "$scratch/repository" txn status
        ./install.sh --uninstall --purge
    )
    listed "$scratch/home" "$scratch/repository" >"$scratch/after"
    diff "$scratch/before" "$scratch/after" || fail 'install.sh --uninstall does not leave what was there before'
}

try_package() {
    listed /usr /etc >"$scratch/before"
    as_root dpkg -i "$1"
    jin-txn demo
    git txn --version
    as_root dpkg --purge jin-txn
    listed /usr /etc >"$scratch/after"
    diff "$scratch/before" "$scratch/after" || fail 'the package does not leave what was there before'
}

# A line for each file, link and directory: mode, size, target, name. Caches that programs renew by themselves are left out.
listed() {
    find "$@" -xdev ! -path '/etc/ld.so.cache' ! -name '*.pyc' ! -name '__pycache__' \
        \( -type d -printf '%M %p\n' -o -printf '%M %s %l %p\n' \) | LC_ALL=C sort
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

main "$@"
