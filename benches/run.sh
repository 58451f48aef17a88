#!/usr/bin/env bash
# Everything that protection costs, measured side by side in one run: writes docs/performance.md's tables, its plots and
# its figures as JSON. Builds what it needs. benches/compare.py is the measuring.
set -euo pipefail
# Nothing that outlives this script.
export JIN_WATCH=off

usage() {
    cat <<'USAGE'
usage: benches/run.sh [--quick] [--twice] [--output DIR] [--only NAME,...]

  --quick        few runs and few refs: does it work?
  --twice        measure twice, and say, below the tables too, where ratios differ by more than a tenth (exit code 1)
  --output DIR   where performance.json, the tables and plots go; default docs (only `docs` has its page rewritten)
  --only NAMES   only these measurements, for a look; writes nothing

needs: git, cargo, a C compiler (cc), python3, and about 2 GiB on the disk to measure

environment:
  GIT          the git to measure; default: the one in PATH
  JIN_TXN_BIN  the binary to measure; default: what install.sh builds here
  BRANCHLESS   directory with git-branchless, when it is not in PATH
  BENCH_TMP    where to make the scratch directory, on the disk to measure; default: TMPDIR or /tmp. On an ext4 without a
               journal (virtual machines have some) it is an ext4 of its own in a file there, for which it has to be root
  CC           C compiler; default cc
USAGE
}

main() {
    local options=()
    while [[ $# -gt 0 ]]; do
        case $1 in
            --quick | --twice) options+=("$1"); shift ;;
            --output | --only) options+=("$1" "${2:?a value is missing behind $1}"); shift 2 ;;
            -h | --help) usage; exit 0 ;;
            *) usage >&2; exit 2 ;;
        esac
    done
    top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    for needed in "${GIT:-git}" "${CC:-cc}" python3; do
        command -v "$needed" >/dev/null || { printf 'error: %s is not in PATH\nhint: see benches/run.sh --help\n' "$needed" >&2; exit 1; }
    done
    scratch=$(mktemp -d "${BENCH_TMP:-${TMPDIR:-/tmp}}/jin-bench.XXXXXX")
    trap clean_up EXIT
    work=$scratch
    lacks_journal "$scratch" && make_disk
    mkdir -p "$work/bin" "$scratch/built"
    jin=${JIN_TXN_BIN:-}
    [[ -n $jin ]] || jin=$("$top/install.sh" --build-only)
    local program
    for program in empty drain-hook peak-hook git-hook-call; do
        "${CC:-cc}" -O2 -static -o "$scratch/built/$program" "$top/benches/$program.c"
    done
    # How a program's file was written decides how fast the kernel maps it: all of them as install.sh installs, by a copy.
    cp "$jin" "$scratch/built"/* "$work/bin"
    PATH=${BRANCHLESS:+$BRANCHLESS:}$PATH
    (cd "$top" && python3 -B benches/compare.py "${options[@]}" --git "$(command -v "${GIT:-git}")" --jin "$work/bin/$(basename "$jin")" "$work")
}

# Without a journal ext4 does not give a deleted file's inode away for minutes, and whoever makes thousands of files after
# thousands were deleted waits while the kernel looks past those, one by one: the history of the disk would be measured.
lacks_journal() {
    local device
    [[ $(df --output=fstype "$1" | tail -n 1) = ext4 ]] || return 1
    device=$(basename "$(df --output=source "$1" | tail -n 1)")
    ! compgen -G "/proc/fs/jbd2/$device-*" >/dev/null
}

make_disk() {
    if [[ $EUID -ne 0 ]] || ! command -v mkfs.ext4 >/dev/null; then
        echo 'warning: this disk is an ext4 without a journal, which makes what is about many refs differ from run to run' >&2
        echo 'hint: name another with BENCH_TMP, or be root and have mkfs.ext4' >&2
        return
    fi
    truncate -s 6G "$scratch/image"
    mkfs.ext4 -q -F "$scratch/image"
    mkdir "$scratch/disk"
    mount -o loop "$scratch/image" "$scratch/disk"
    work=$scratch/disk/work
    options+=(--disk 'ext4 in a file')
}

clean_up() {
    ! mountpoint -q "$scratch/disk" || umount "$scratch/disk"
    rm -rf "$scratch"
}

main "$@"
