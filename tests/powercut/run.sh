#!/usr/bin/env bash
# Cuts the power of a machine that does git work, and looks at what is left: a Debian
# kernel under qemu, killed at a random moment, then booted again from the same disk.
set -euo pipefail
# Nothing that outlives this script.
export JIN_WATCH=off
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(cd "$here/../.." && pwd)

usage() {
    cat <<'USAGE'
usage: tests/powercut/run.sh [--fs ext4,xfs,btrfs] [--cuts N] [--unguarded | --rescue]
                             [--double] [--seed S] [--binary PATH]

Cuts the power N times on each file system and prints a table of what was left.
Exit code 0: nothing bad (--unguarded: whatever the table says); 1: something bad;
2: the laboratory itself failed.

  --fs LIST       file systems; default: ext4,xfs,btrfs
  --cuts N        cuts on each; default: 5
  --unguarded     without jin-txn
  --rescue        without jin-txn until the cut, then `jin-txn rescue --yes`; lost work and
                  torn updates are counted, and are not bad
  --double        cuts the recovery, too
  --seed S        of the random moments; default: 1
  --binary PATH   the jin-txn to test; default: the release build of this checkout

Logs of bad cuts are kept in target/powercut. Needs Debian on x86-64; packages
that are missing are installed. Environment:

  POWERCUT_KEEP=1         keep the logs of every cut, and the disk as it was left
  POWERCUT_MOUNT=OPTIONS  mount the disk with these; with sync,dirsync (ext4, xfs) a
                          cut is no more than a killed process: a test of this test
  POWERCUT_FSYNC=VALUE    git's core.fsync in the guest
USAGE
}

classes=(lost torn lock unusable fsck index head)
# What makes a cut bad. A stale index or HEAD is counted in its column only.
bad_classes=(lost torn lock unusable fsck)

main() {
    parse "$@"
    need_tools
    find_kernel
    [[ $guarded == no && $rescue == no ]] || find_binary
    find_accelerator
    make_initramfs
    mkdir -p "$logs"
    printf 'kernel %s, git %s, %s, seed %s, %s\n\n' "$kernel" "$(git --version | sed 's/^git version //')" \
        "$accelerator" "$seed" "$(describe_guard)"

    local fs any_bad=no
    rows=()
    for fs in "${file_systems[@]}"; do
        run_file_system "$fs"
    done
    table
    [[ $any_bad == no || $guarded == no && $rescue == no ]]
}

describe_guard() {
    case $guarded$rescue in
        yes*) echo "guarded by $binary" ;;
        noyes) echo "unguarded, rescued by $binary" ;;
        *) echo unguarded ;;
    esac
}

parse() {
    file_systems=(ext4 xfs btrfs) cuts=5 guarded=yes rescue=no double=no seed=1 binary=''
    while [[ $# -gt 0 ]]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --unguarded) guarded=no ;;
            --rescue) guarded=no rescue=yes ;;
            --double) double=yes ;;
            --fs | --cuts | --seed | --binary)
                [[ $# -ge 2 ]] || usage_error "$1 needs a value"
                case $1 in
                    --fs) IFS=, read -ra file_systems <<<"$2" ;;
                    --cuts) cuts=$2 ;;
                    --seed) seed=$2 ;;
                    --binary) binary=$2 ;;
                esac
                shift
                ;;
            *) usage_error "unknown argument \`$1\`" ;;
        esac
        shift
    done
    [[ $cuts =~ ^[1-9][0-9]*$ ]] || usage_error '--cuts needs a number'
    local fs
    for fs in "${file_systems[@]}"; do
        [[ $fs == ext4 || $fs == xfs || $fs == btrfs ]] || usage_error "unknown file system \`$fs\`"
    done
    if [[ $rescue == yes ]]; then
        [[ $double == no ]] || usage_error '--rescue and --double exclude each other'
        # What git never made durable nobody can have again.
        bad_classes=(lock unusable) classes+=(before)
    fi
    target=${CARGO_TARGET_DIR:-$source/target}
    logs=$target/powercut
}

need_tools() {
    PATH=$PATH:/usr/sbin:/sbin
    [[ $(uname -m) == x86_64 ]] || fail 'this is no x86-64 machine' 'the laboratory boots an x86-64 kernel'
    need git git
    need qemu-system-x86_64 qemu-system-x86
    need cpio cpio
    need modprobe kmod
    need mkfs.ext4 e2fsprogs
    need mkfs.xfs xfsprogs
    need mkfs.btrfs btrfs-progs
    need busybox busybox-static
    # The other busybox package has no `poweroff` and needs libraries.
    ! ldd "$(command -v busybox)" >/dev/null 2>&1 || install_packages busybox-static
}

# The newest cloud kernel that has its modules.
find_kernel() {
    newest_kernel || { install_packages linux-image-cloud-amd64 && newest_kernel; } ||
        fail 'no kernel in /boot' 'install linux-image-cloud-amd64'
}

newest_kernel() {
    local image
    while read -r image; do
        kernel=${image#/boot/vmlinuz-}
        [[ -r $image && -d /lib/modules/$kernel ]] && return
    done < <(printf '%s\n' /boot/vmlinuz-*-cloud-amd64 | sort -rV)
    return 1
}

find_binary() {
    if [[ -z $binary ]]; then
        binary=$(CARGO_TARGET_DIR=$target "$source/install.sh" --build-only) || fail 'the build failed' 'cargo says why above'
    fi
    [[ -x $binary ]] || fail "\`$binary\` is no program" 'name one with --binary'
}

# KVM is believed when it starts this kernel within seconds: inside of a virtual machine
# it may be there and yet emulate, slower than qemu does. `pace` stretches all times.
find_accelerator() {
    local cpu
    if [[ -r /dev/kvm && -w /dev/kvm ]]; then
        # Nested, qemu may fail to copy this one feature.
        for cpu in host host,arch-capabilities=off; do
            { timeout 5 qemu-system-x86_64 -accel kvm -cpu "$cpu" -m 256 -nodefaults -display none -no-reboot \
                -kernel "/boot/vmlinuz-$kernel" -append 'console=ttyS0 panic=-1' -serial "file:$scratch/probe" \
                </dev/null || true; } >/dev/null 2>&1
            if grep -qa 'Linux version' "$scratch/probe" 2>/dev/null; then
                accelerator=KVM pace=1 machine=(-accel kvm -cpu "$cpu")
                return
            fi
        done
    fi
    accelerator='software emulation (no KVM that works)' pace=2 machine=(-accel 'tcg,tb-size=256' -cpu qemu64)
}

# The guest: busybox, git, jin-txn with their libraries, kernel modules, our scripts.
make_initramfs() {
    local root=$scratch/root exec_path program name fs
    mkdir -p "$root"/{usr/bin,bin,dev,proc,sys,tmp,mnt,root,modules,guest,etc}
    busybox=$(command -v busybox)
    for name in $("$busybox" --list); do ln -sf busybox "$root/bin/$name"; done
    rm -f "$root/bin/busybox"
    cp "$busybox" "$root/bin/busybox"
    cp "$here"/guest/*.sh "$root/guest/"
    install -m 755 "$here/guest/init" "$root/init"

    # In a script's PATH may be a wrapper: git itself is where it looks for its commands.
    exec_path=$(git --exec-path)
    put_program "$exec_path/git" "$exec_path/git"
    ln -s "$exec_path/git" "$root/usr/bin/git"
    for name in git-upload-pack git-receive-pack git-upload-archive; do
        ln -s "$exec_path/git" "$root/usr/bin/$name"
        ln -s git "$root$exec_path/$name"
    done
    [[ $guarded == no && $rescue == no ]] || put_program "$binary" /usr/bin/jin-txn

    for fs in "${file_systems[@]}"; do
        for name in virtio_pci virtio_blk virtio_console virtio_rng "$fs"; do
            modprobe -S "$kernel" --show-depends "$name" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
        done | awk '!seen[$0]++' >"$scratch/modules"
        : >"$root/modules/$fs"
        while read -r program; do
            name=$(basename "$program")
            case $name in
                *.xz) name=${name%.xz}; xz -dc "$program" >"$root/modules/$name" ;;
                *.zst) name=${name%.zst}; zstd -qdc "$program" >"$root/modules/$name" ;;
                *) cp "$program" "$root/modules/$name" ;;
            esac
            echo "$name" >>"$root/modules/$fs"
        done <"$scratch/modules"
    done

    cat >"$root/root/.gitconfig" <<'CONFIG'
[user]
    name = Power Cut
    email = power@cut.example
[init]
    defaultBranch = main
[safe]
    directory = *
CONFIG
    [[ -z ${POWERCUT_FSYNC:-} ]] || git config --file "$root/root/.gitconfig" core.fsync "$POWERCUT_FSYNC"
    (cd "$root" && find . | cpio --quiet -o -H newc) >"$scratch/initramfs"
}

# put_program FILE PATH: with the libraries that it loads, at the paths where it looks for them.
put_program() {
    install -D -m 755 "$1" "$root$2"
    local library
    while read -r library; do
        install -D -m 755 "$library" "$root$library"
    done < <(ldd "$1" 2>/dev/null | grep -o '/[^ ]*')
}

run_file_system() {
    local fs=$1 n class
    local -A count=()
    for class in bad "${classes[@]}"; do count[$class]=0; done
    prepare "$fs"
    for ((n = 1; n <= cuts; n++)); do
        cut "$fs" "$n"
        for class in "${classes[@]}"; do
            ! grep -q "^bad $class " "$directory/report" || count[$class]=$((count[$class] + 1))
        done
        if is_bad; then
            count[bad]=$((count[bad] + 1))
            any_bad=yes
        fi
        if ! grep -q '^bad ' "$directory/report" && [[ -z ${POWERCUT_KEEP:-} ]]; then
            rm -r "$directory"
        fi
    done
    rows+=("| $fs | $cuts | ${count[bad]} |$(for class in "${classes[@]}"; do printf ' %s |' "${count[$class]}"; done)")
}

is_bad() {
    local class
    for class in "${bad_classes[@]}"; do
        ! grep -q "^bad $class " "$directory/report" || return 0
    done
    return 1
}

table() {
    local head='| file system | cuts | bad | lost acknowledged work | torn update | lock left | git unusable | fsck complains | stale index | stale HEAD |'
    local line='| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |'
    [[ $rescue == no ]] || head+=' unusable before the rescue |' line+=' ---: |'
    printf '\n%s\n%s\n' "$head" "$line"
    printf '%s\n' "${rows[@]}"
}

# cut FS N: one new disk, one cut (two with --double), one examination.
cut() {
    local fs=$1 n=$2 moment second_moment offset steps late began=$SECONDS
    directory=$logs/$fs-$n disk=$scratch/disk
    rm -rf "$directory"
    mkdir -p "$directory"
    RANDOM=$(($(cksum <<<"$seed $fs $n" | command cut -d " " -f 1) % 32768))
    moment=$((500 + (RANDOM * 32768 + RANDOM) % 7500)) second_moment=$((RANDOM % 400)) offset=$((RANDOM % 180))
    steps=$((3 + RANDOM % 25)) late=$((RANDOM % 500 * pace))
    moment=$((moment * pace)) second_moment=$((second_moment * pace))

    cp --sparse=always "$scratch/$fs.disk" "$disk"
    boot "$fs" work "$offset"
    await '^workload$' "$directory/work.report"
    sleep "$(seconds $moment)"
    # A slow machine gets the time for some steps, and is not cut right after one of them.
    if ! grep -qa "^ack $steps " "$directory/work.report"; then
        await "^(ack $steps|fail) " "$directory/work.report"
        sleep "$(seconds $late)"
    fi
    power_off
    keep_disk cut

    # The next guests read what was acknowledged from a disk of whole sectors.
    cp "$directory/work.report" "$scratch/acks"
    truncate -s %4096 "$scratch/acks"
    if [[ $double == yes ]]; then
        boot "$fs" recover "$offset"
        await '^recovering$' "$directory/recover.report"
        sleep "$(seconds $second_moment)"
        power_off
        keep_disk double-cut
    fi
    boot "$fs" check "$offset"
    wait_for_guest

    {
        grep -a '^fail ' "$directory/work.report" | sed 's/^/bad unusable before the cut: /' || true
        grep -aE '^(bad|note) ' "$directory/check.report" || true
        grep -qa '^end$' "$directory/check.report" || echo 'bad unusable the examination did not end'
    } >"$directory/report"
    printf '%s cut %s%s, after %s steps acknowledged, %s s: %s\n' "$fs" "$n" \
        "$([[ $double == no ]] || echo " and again $second_moment ms into recovery")" \
        "$(grep -ac '^ack ' "$directory/work.report")" $((SECONDS - began)) "$(verdict)"
    summary
}

# Of each class the first reason.
summary() {
    awk '$1 == "note" { print "    " substr($0, 1, 150) }
        $1 == "bad" { if (!count[$2]++) { order[++classes] = $2; first[$2] = $0 } }
        END {
            for (i = 1; i <= classes; i++) {
                more = count[order[i]] - 1
                print "    " first[order[i]] (more ? " (and " more " more)" : "")
            }
        }' "$directory/report"
}

verdict() {
    if is_bad; then echo BAD; else echo good; fi
}

seconds() {
    printf '%d.%03d\n' $(($1 / 1000)) $(($1 % 1000))
}

# The disk that each cut of this file system starts from.
prepare() {
    local fs=$1
    directory=$scratch/$fs.logs disk=$scratch/$fs.disk
    mkdir -p "$directory"
    truncate -s 600M "$disk"
    case $fs in
        ext4) mkfs.ext4 -q -F "$disk" ;;
        xfs) mkfs.xfs -q -f "$disk" ;;
        btrfs) mkfs.btrfs -q -f "$disk" >/dev/null 2>&1 ;;
    esac || fail "mkfs.$fs failed" 'its message is above'
    boot "$fs" prepare 0
    wait_for_guest
    grep -qa '^end$' "$directory/prepare.report" || no_guest prepare
}

# Starts the guest in the background as `guest`. Its writes are in the host's page cache
# when the guest hears that they are done: that outlives a killed qemu, so flushes need not
# be passed on, and what the guest had not yet written is lost with its memory.
boot() {
    local fs=$1 role=$2 offset=$3 acks=()
    [[ $role == prepare || $role == work ]] || acks=(-drive "file=$scratch/acks,format=raw,if=virtio,readonly=on")
    : >"$directory/$role.report"
    qemu-system-x86_64 "${machine[@]}" -smp 1 -m 768 -nodefaults -no-user-config -display none -no-reboot \
        -kernel "/boot/vmlinuz-$kernel" -initrd "$scratch/initramfs" \
        -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off powercut.fs=$fs powercut.role=$role powercut.guarded=$guarded powercut.rescue=$rescue powercut.offset=$offset powercut.options=${POWERCUT_MOUNT:-}" \
        -serial "file:$directory/$role.console" \
        -drive "file=$disk,format=raw,if=virtio,cache=unsafe" "${acks[@]}" \
        -device virtio-rng-pci -device virtio-serial-pci \
        -chardev "file,id=report,path=$directory/$role.report" -device virtserialport,nr=1,chardev=report \
        -chardev "file,id=log,path=$directory/$role.log" -device virtserialport,nr=2,chardev=log \
        >"$directory/$role.qemu" 2>&1 </dev/null &
    guest=$!
    disown # or bash reports that it was killed
}

# await PATTERN FILE
await() {
    local deadline=$((SECONDS + 60 * pace))
    until grep -Eqa "$1" "$2"; do
        if [[ $SECONDS -ge $deadline ]] || ! kill -0 "$guest" 2>/dev/null; then
            no_guest "$(basename "$2" .report)"
        fi
        sleep 0.02
    done
}

no_guest() {
    tail -n 5 "$directory/$1".{report,console,qemu} >&2
    fail "the guest did not get through \`$1\`" 'the ends of its logs are above'
}

power_off() {
    kill -KILL "$guest" 2>/dev/null || true
    while kill -0 "$guest" 2>/dev/null; do sleep 0.01; done
    guest=''
}

wait_for_guest() {
    local deadline=$((SECONDS + 120 * pace))
    while kill -0 "$guest" 2>/dev/null && [[ $SECONDS -lt $deadline ]]; do sleep 0.05; done
    power_off
}

keep_disk() {
    [[ -z ${POWERCUT_KEEP:-} ]] || cp --sparse=always "$disk" "$directory/$1.disk"
}

# need COMMAND PACKAGE...
need() {
    command -v "$1" >/dev/null || install_packages "${@:2}"
}

install_packages() {
    command -v apt-get >/dev/null || fail "a tool is missing" "install it; Debian's packages are: $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root: $*" 'run it as root once, then run the laboratory again'
    fi
}

clean_up() {
    [[ -z $guest ]] || kill -KILL "$guest" 2>/dev/null || true
    rm -rf "$scratch"
}

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 2
}

usage_error() {
    fail "$1" 'see tests/powercut/run.sh --help'
}

guest=''
scratch=$(mktemp -d)
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
main "$@"
