# shellcheck shell=sh
# After the cut: recovers, then looks whether everything that was acknowledged is there
# and git works. /dev/vdb is what work.sh reported.
# shellcheck source=lib.sh
. /guest/lib.sh

tr -d '\0' </dev/vdb >/tmp/acks

main() {
    explain "== as the cut left it"
    for repository in "$work" "$bare"; do as_left "$repository"; done

    if [ "$guarded" = yes ]; then
        explain "== recovery"
        for repository in "$work" "$bare"; do recover "$repository"; done
    fi

    if [ "$rescue" = yes ]; then
        explain "== rescue"
        for repository in "$work" "$bare"; do rescue "$repository"; done
    fi

    explain "== examination"
    expectations >/tmp/expected
    for which in work bare; do
        check_refs "$which"
        check_locks "$(directory_of "$which")"
        check_objects "$which"
    done
    check_five
    for which in work worktree bare; do check_head "$which"; done
    for which in work worktree; do check_index "$which"; done

    explain "== what comes next"
    end_rebase
    for which in work worktree; do next_commit "$which"; done
    next_steps
    report end
}

as_left() {
    git_dir=$(git_directory "$1")
    explain "-- $1: locks and empty files"
    find "$git_dir" -type f \( -name '*.lock' -o -size 0 \) -not -path '*/.jin/*.lock' >&4
    [ "$guarded" != yes ] || try jin-txn -C "$1" check
}

recover() {
    if try jin-txn -C "$1" recover; then
        report "note recover in $1: exit code 0, $(grep -c . /tmp/out) lines"
    else
        bad unusable "$1: \`jin-txn recover\` ends with exit code $rc: $(first_line)"
    fi
}

# What git says to the repository before it is rescued, and what the rescue comes to: whole (0), or something is named as lost (4).
rescue() {
    if ! try git -C "$1" rev-parse --verify 'HEAD^{commit}' || ! try git -C "$1" for-each-ref ||
        { [ "$1" = "$work" ] && ! try git -C "$1" --no-optional-locks status --porcelain; } ||
        ! try git -C "$1" fsck --full --no-dangling --no-progress; then
        bad before "$1: $(first_line)"
    fi
    if try jin-txn rescue --yes "$1" || [ "$rc" -eq 4 ]; then
        cp /tmp/out "/tmp/rescue"
        note "rescue of $1: exit code $rc, $(sed -n '/^jin-txn: lost:/,/^jin-txn/p' /tmp/rescue | grep -c '^  ') things are named as lost"
        sed 's/^/rescue says: /' /tmp/rescue >&4
    else
        bad unusable "$1: \`jin-txn rescue\` ends with exit code $rc: $(first_line)"
    fi
}

git_directory() {
    if [ -d "$1/.git" ]; then echo "$1/.git"; else echo "$1"; fi
}

# One line a ref: repository, name, acknowledged value, value in flight (or `.`).
expectations() {
    awk '
        function take(into, i, at) {
            for (i = 4; i <= NF; i++) {
                at = index($i, "=")
                into[substr($i, 1, at - 1)] = substr($i, at + 1)
            }
        }
        $1 == "start" { delete flight; take(flight); next }
        $1 == "ack" { delete flight; take(acked); next }
        END {
            for (ref in flight) if (!(ref in acked)) acked[ref] = "-"
            for (ref in acked) {
                split(ref, part, ":")
                print part[1], part[2], acked[ref], (ref in flight ? flight[ref] : ".")
            }
        }' /tmp/acks | sort
    in_flight=$(awk '$1 == "start" { line = $0 } $1 == "ack" { line = "nothing" } END { print line }' /tmp/acks)
    note "in flight: $in_flight"
}

# Every ref has its acknowledged value, or that of the step in flight.
check_refs() {
    repository=$(directory_of "$1")
    try git -C "$repository" for-each-ref --format='%(refname) %(objectname)' ||
        bad unusable "$1: \`git for-each-ref\` fails: $(first_line)"
    cp /tmp/out "/tmp/refs.$1"
    while read -r name ref acked flight; do
        case $name:$ref in *:HEAD) continue ;; "$1":*) ;; *) continue ;; esac
        now=$(awk -v ref="$ref" '$1 == ref { print $2 }' "/tmp/refs.$1")
        if [ "${now:--}" = "$acked" ] || [ "${now:--}" = "$flight" ]; then
            continue
        elif [ -z "$now" ]; then
            if grep -q "broken ref $ref\$" "/tmp/refs.$1"; then now=broken; else now=gone; fi
            bad lost "$1: $ref is $now, acknowledged $acked"
        elif [ "$acked" = - ]; then
            bad lost "$1: $ref is back at $now, its deletion was acknowledged"
        elif [ "$flight" = '*' ]; then
            continue
        elif [ "$flight" = '?' ] && [ "$(git -C "$repository" rev-parse -q --verify "$now^" 2>&1)" = "$acked" ]; then
            continue
        else
            bad lost "$1: $ref is $now, acknowledged $acked"
        fi
    done </tmp/expected
}

# All five gone is lost, not torn.
check_five() {
    values=$(awk '$1 ~ "^refs/five/" { print $2 }' /tmp/refs.work)
    [ -n "$values" ] || return
    if [ "$(echo "$values" | wc -l)" -ne 5 ] || [ "$(echo "$values" | uniq | wc -l)" -ne 1 ]; then
        bad torn "work: refs/five/* are $(echo "$values" | cut -c1-10 | tr '\n' ' ')"
    fi
}

check_locks() {
    find "$(git_directory "$1")" -name '*.lock' -not -path '*/.jin/*' -not -path '*/jin-rescue/*' >/tmp/locks
    while read -r lock; do bad lock "$lock"; done </tmp/locks
}

# fsck, and once more from the acknowledged values alone: is their history there?
check_objects() {
    repository=$(directory_of "$1")
    try git -C "$repository" fsck --full --no-dangling --no-progress
    if [ "$rc" -ne 0 ] || grep -Eq '^(error|fatal|missing|broken|bad|corrupt)' /tmp/out; then
        bad fsck "$1: fsck, exit code $rc, $(grep -c . /tmp/out) lines: $(first_line)"
    fi
    awk -v name="$1" '$1 == name && $3 ~ /^[0-9a-f]+$/ && $4 != "-" { print $3 }' /tmp/expected | sort -u >/tmp/oids
    # A value that a step in flight replaced may be gone with its reflog.
    git -C "$repository" rev-list --objects --stdin </tmp/oids >/tmp/objects 2>/tmp/out ||
        bad lost "$1: the history of acknowledged commits cannot be read: $(first_line)"
    cut -c1-40 /tmp/objects | git -C "$repository" cat-file --batch-check 2>&1 |
        grep -Ev '^[0-9a-f]{40} (commit|tree|blob|tag) [0-9]+$' >/tmp/out &&
        bad lost "$1: $(grep -c . /tmp/out) objects of acknowledged commits cannot be read: $(first_line)"
}

check_head() {
    repository=$(directory_of "$1")
    try git -C "$repository" rev-parse --verify HEAD || bad unusable "$1: HEAD cannot be read: $(first_line)"
    if [ "$1" != bare ]; then
        try git -C "$repository" status --porcelain || bad unusable "$1: \`git status\` fails: $(first_line)"
    fi
    case $1 in # `git symbolic-ref` fails if the branch is broken, too
        work) now=$work/.git/HEAD ;;
        worktree) now=$work/.git/worktrees/worktree/HEAD ;;
        bare) now=$bare/HEAD ;;
    esac
    now=$(sed 's/^ref: /@/' "$now")
    while read -r name ref acked flight; do
        [ "$name $ref" = "$1 HEAD" ] || continue
        [ "$now" = "$acked" ] || [ "$now" = "$flight" ] || [ "$flight" = '*' ] || {
            class='lost'
            ! was_head "$1" "$now" || class='head'
            bad "$class" "$1: HEAD is ${now:-empty}, acknowledged $acked"
        }
    done </tmp/expected
}

# Was HEAD that before, or in the middle of a rebase? Then it goes with its index and worktree.
was_head() {
    grep -Eq "^ack .* $1:HEAD=$2( |\$)" /tmp/acks && return
    grep -q "^start .* $1:HEAD=\*" /tmp/acks && echo "$2" | grep -Eqx '[0-9a-f]{40}'
}

# Unless a step that changes the index was in flight it is that of the commit; an older
# one would make the next commit take back the last.
check_index() {
    case $in_flight in
        *' switch '* | *' rebase '*) return ;;
        *' commit '*) [ "$1" = work ] && return ;;
        *' linked '*) [ "$1" = worktree ] && return ;;
    esac
    try git -C "$(directory_of "$1")" diff --cached --stat HEAD
    if [ "$rc" -ne 0 ] || [ -s /tmp/out ]; then
        bad index "$1: the index is not that of HEAD: $(tail -n 1 /tmp/out)"
    fi
}

# What a person does with a rebase that was cut.
end_rebase() {
    [ -d "$work/.git/rebase-merge" ] || [ -d "$work/.git/rebase-apply" ] || return
    try git -C "$work" rebase --abort && return
    note "work: \`git rebase --abort\` fails: $(first_line)"
    try git -C "$work" rebase --quit || bad unusable "work: \`git rebase --quit\` fails: $(first_line)"
}

next_commit() {
    repository=$(directory_of "$1")
    echo next >"$repository/next-$1"
    if ! try git -C "$repository" add "next-$1" || ! try git -C "$repository" commit -q -m next; then
        bad unusable "$1: a commit fails: $(first_line)"
    fi
}

next_steps() {
    main=$(value HEAD)
    try update_five "$main" || bad unusable "work: an update of five refs fails: $(first_line)"
    try git -C "$work" branch next HEAD || bad unusable "work: a new branch fails: $(first_line)"
    try git -C "$work" branch -D next || bad unusable "work: the deletion of a branch fails: $(first_line)"
    # By its path: the remote may be lost with the configuration, which a rescue tells.
    try git -C "$work" push -q -f "$bare" HEAD:refs/heads/main HEAD:refs/heads/copy || bad unusable "bare: a push fails: $(first_line)"
    try git -C "$work" gc -q || bad unusable "work: \`git gc\` fails: $(first_line)"
    try git -C "$bare" gc -q || bad unusable "bare: \`git gc\` fails: $(first_line)"
}

main
