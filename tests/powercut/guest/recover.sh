# shellcheck shell=sh
# A recovery that the host cuts short.
# shellcheck source=lib.sh
. /guest/lib.sh

report recovering
for repository in "$work" "$bare"; do
    [ "$guarded" != yes ] || try jin-txn -C "$repository" recover
done
report recovered
sleep 100000
