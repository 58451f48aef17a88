#!/bin/sh
# jin-txn rescue beside git-repair (Debian package `git-repair`), on copies of the same damaged repositories.
#
#     tests/rescue/compare.sh [path of jin-txn]
#
# For each kind of damage and each program: does git work again afterwards (status, fsck, commit, gc), are all branches still there,
# and is the newest commit still there that was whole? Prints a Markdown table.
set -eu

jin=${1:-target/debug/jin-txn}
jin=$(realpath "$jin")
command -v git-repair >/dev/null || { echo "git-repair is not there: apt-get install git-repair" >&2; exit 1; }

scratch=$(mktemp -d)
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
export HOME="$scratch/home" GIT_CONFIG_NOSYSTEM=1 LC_ALL=C
mkdir "$HOME"
git config --global user.name Jin
git config --global user.email jin@example.com
git config --global init.defaultBranch main

# History with a merge, tags, a stash, a branch that only has a reflog for its past; half of it packed.
make() {
    git init -q "$1"
    cd "$1"
    echo one >file; git add file; git commit -qm one
    git branch old
    git checkout -q -b side; echo side >side; git add side; git commit -qm side
    git checkout -q main; echo two >file; git commit -qam two
    git merge -q -m merged side
    git tag -a -m first v1
    echo stash >file; git stash push -q
    git gc -q --prune=now
    echo three >file; git commit -qam three
    echo untracked >untracked
    cd - >/dev/null
}
make "$scratch/template"

loose() { o=$(git -C "$scratch/template" rev-parse "$1"); echo "objects/$(echo "$o" | cut -c1-2)/$(echo "$o" | cut -c3-)"; }
empty() { for f in "$@"; do mkdir -p "$(dirname "$f")"; rm -f "$f"; : >"$f"; done; }
nuls() { for f in "$@"; do n=$(stat -c %s "$f"); rm -f "$f"; head -c "$n" /dev/zero >"$f"; done; }
shorter() { n=$(($(stat -c %s "$1") * $2 / 100)); chmod u+w "$1"; truncate -s "$n" "$1"; }

# In the git directory of a copy.
damage() {
    case $1 in
    "HEAD is empty") empty HEAD ;;
    "the current branch is empty") empty refs/heads/main ;;
    "the current branch is NULs") nuls refs/heads/main ;;
    "another branch is empty") empty refs/heads/side ;;
    "the last commit is empty") empty "$(loose main)" ;;
    "the tree of the last commit is empty") empty "$(loose 'main^{tree}')" ;;
    "a file of the last commit is empty") empty "$(loose main:file)" ;;
    "the index is NULs") nuls index ;;
    "the configuration is NULs") nuls config ;;
    "packed-refs is cut") shorter packed-refs 60 ;;
    "packed-refs is NULs") nuls packed-refs ;;
    "a reflog ends in NULs") head -c 100 /dev/zero >>logs/HEAD ;;
    "the index is locked") empty index.lock ;;
    "the index of the pack is missing") rm -f objects/pack/*.idx ;;
    "the pack is cut") shorter objects/pack/*.pack 60 ;;
    "a rename of the branch died") mv logs/refs/heads/main logs/refs/.tmp-renamed-log; rm refs/heads/main ;;
    "all of what a power cut leaves") empty HEAD refs/heads/main index index.lock "$(loose main)"; nuls config ;;
    esac
}

# Prints "works", or what does not.
judge() {
    cd "$1"
    said=
    git status >/dev/null 2>&1 || said="$said status"
    git fsck --no-dangling >/dev/null 2>&1 || said="$said fsck"
    git commit -q --allow-empty -m after >/dev/null 2>&1 || said="$said commit"
    git gc -q >/dev/null 2>&1 || said="$said gc"
    gone=
    for branch in main old side; do
        git rev-parse -q --verify "refs/heads/$branch" >/dev/null 2>&1 || gone="$gone $branch"
    done
    [ "$(cat untracked 2>/dev/null)" = untracked ] || said="$said (a file is gone)"
    cd - >/dev/null
    result=works
    [ -z "$said" ] || result="fails:$said"
    [ -z "$gone" ] || result="$result; branches gone:$gone"
    echo "$result"
}

ours=0; theirs=0; all=0
echo "| damage | jin-txn rescue --yes | git-repair --force |"
echo "| --- | --- | --- |"
while read -r kind; do
    for program in jin repair; do
        rm -rf "${scratch:?}/$program"
        cp -a "$scratch/template" "$scratch/$program"
        (cd "$scratch/$program/.git" && damage "$kind")
    done
    "$jin" rescue --yes "$scratch/jin" >/dev/null 2>&1 || true
    (cd "$scratch/repair" && timeout 60 git-repair --force >/dev/null 2>&1) || true
    one=$(judge "$scratch/jin"); other=$(judge "$scratch/repair")
    all=$((all + 1))
    [ "$one" != works ] || ours=$((ours + 1))
    [ "$other" != works ] || theirs=$((theirs + 1))
    echo "| $kind | $one | $other |"
done <<'KINDS'
HEAD is empty
the current branch is empty
the current branch is NULs
another branch is empty
the last commit is empty
the tree of the last commit is empty
a file of the last commit is empty
the index is NULs
the configuration is NULs
packed-refs is cut
packed-refs is NULs
a reflog ends in NULs
the index is locked
the index of the pack is missing
the pack is cut
a rename of the branch died
all of what a power cut leaves
KINDS
echo "| **works** | $ours of $all | $theirs of $all |"
