# shellcheck shell=sh
# Git work until the power goes. Before each step the host is told which refs it may
# change, and to what; after its success, which values are acknowledged:
#
#   start 7 commit work:refs/heads/main=?
#   ack 7 commit work:refs/heads/main=<oid>
#
# `?` is a new commit on top of the old value, `*` any commit, `-` no such ref, `@x` a symbolic ref to x.
# shellcheck source=lib.sh
. /guest/lib.sh

n=0

# step KIND REFS COMMAND...
step() {
    kind=$1
    n=$((n + 1))
    read -r now _ </proc/uptime
    explain "$now s: $n $kind"
    report "start $n $kind $2"
    shift 2
    "$@" >/tmp/out 2>&1 && return
    rc=$?
    report "fail $n $kind exit code $rc: $(first_line)"
    explain "$* -> $rc"
    cat /tmp/out >&4
    sleep 100000
}

ack() {
    report "ack $n $kind $*"
}

commit() {
    step commit work:refs/heads/main=? commit_in "$work" "file-$((round % 7))" "commit $round"
    main=$(value refs/heads/main)
    ack "work:refs/heads/main=$main"
}

all_five() {
    list=''
    for name in $five; do list="$list work:refs/five/$name=$main"; done
    step five "$list" update_five "$main"
    ack "$list"
}

branch() {
    step branch "work:refs/heads/b$round=$main" git -C "$work" branch "b$round" main
    ack "work:refs/heads/b$round=$main"
}

delete() {
    old=$((round - 2))
    [ $old -gt "$first_round" ] || return
    step delete "work:refs/heads/b$old=-" git -C "$work" branch -q -D "b$old"
    ack "work:refs/heads/b$old=-"
}

linked() {
    step linked work:refs/heads/linked=? commit_in "$worktree" linked-file "linked $round"
    ack "work:refs/heads/linked=$(value refs/heads/linked)"
}

push() {
    list="bare:refs/heads/main=$main bare:refs/heads/copy=$main work:refs/remotes/bare/main=$main work:refs/remotes/bare/copy=$main"
    step push "$list" git -C "$work" push -q bare main:main main:copy
    ack "$list"
}

# The second repository is in memory: it plays another machine.
fetch() {
    commit_in "$second" file "second $round"
    git -C "$second" branch -f copy
    theirs=$(git -C "$second" rev-parse main)
    list="work:refs/remotes/second/main=$theirs work:refs/remotes/second/copy=$theirs"
    step fetch "$list" git -C "$work" fetch -q second
    ack "$list"
}

rebase() {
    topic=refs/heads/topic$round
    list="work:HEAD=@$topic work:$topic=$(value main~1)"
    step switch "$list" git -C "$work" switch -q -c "topic$round" main~1
    ack "$list"
    for _ in 1 2; do
        step commit "work:$topic=?" commit_in "$work" topic-file "topic $round"
        ack "work:$topic=$(value "$topic")"
    done
    step rebase "work:HEAD=* work:$topic=*" git -C "$work" rebase -q main
    ack "work:HEAD=@$topic work:$topic=$(value "$topic")"
    step switch work:HEAD=@refs/heads/main git -C "$work" switch -q main
    ack work:HEAD=@refs/heads/main
}

pack() {
    step pack '' git -C "$work" pack-refs --all
    ack
}

gc() {
    step gc '' git -C "$work" gc -q
    ack
    step gc '' git -C "$bare" gc -q
    ack
}

cp -r /mnt/second "$second"
main=$(value refs/heads/main)
list="work:HEAD=@refs/heads/main worktree:HEAD=@refs/heads/linked bare:HEAD=@refs/heads/main"
list="$list work:refs/heads/main=$main work:refs/heads/linked=$main bare:refs/heads/main=$main bare:refs/heads/copy=$main"
list="$list work:refs/remotes/bare/main=$main work:refs/remotes/bare/copy=$main"
theirs=$(value refs/remotes/second/main)
list="$list work:refs/remotes/second/main=$theirs work:refs/remotes/second/copy=$theirs"
for name in $five; do list="$list work:refs/five/$name=$main"; done
kind=setup
ack "$list"
report workload

# Every cut begins elsewhere in the cycle, so that early cuts see all of it, too.
first_round=$offset round=$offset
while :; do
    round=$((round + 1))
    commit
    all_five
    branch
    [ $((round % 3)) -ne 0 ] || delete
    [ $((round % 3)) -ne 1 ] || linked
    [ $((round % 4)) -ne 0 ] || push
    [ $((round % 4)) -ne 2 ] || fetch
    [ $((round % 6)) -ne 5 ] || rebase
    [ $((round % 5)) -ne 3 ] || pack
    [ $((round % 9)) -ne 7 ] || gc
done
