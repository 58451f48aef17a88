# shellcheck shell=sh
# The repositories, made once for each file system: every cut starts from a copy of this disk.
# shellcheck source=lib.sh
. /guest/lib.sh

must() {
    try "$@" && return
    report "error $*: $(first_line)"
    poweroff -f
}

must git init -q "$work"
must commit_in "$work" base 1
must commit_in "$work" base 2
main=$(value refs/heads/main)
must git init -q --bare "$bare"
must git -C "$work" remote add bare "$bare"
must git init -q /mnt/second
must commit_in /mnt/second file 1
must git -C /mnt/second branch copy
must git -C "$work" remote add second "$second"
if [ "$guarded" = yes ]; then
    must jin-txn install "$work"
    must jin-txn install "$bare"
fi
must update_five "$main"
must git -C "$work" worktree add -q -b linked "$worktree"
must git -C "$work" push -q bare main:main main:copy
must cp -r /mnt/second "$second"
must git -C "$work" fetch -q second
# git's automatic maintenance may still run in the background.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    if umount /mnt; then
        report end
        return
    fi
    sleep 1
done
report error the file system stays busy
