#!/bin/sh
# What protection costs: the same git commands in three kinds of repository,
#
#   plain    no hooks
#   floor    an empty compiled hook that only reads stdin: what git itself charges for calling hooks
#   guarded  jin-txn installed
#
# and, with --durability, what surviving power cuts costs, against git's own strongest setting:
#
#   all      no hooks, core.fsync=all
#   spawn    an empty compiled hook
#   floor    the same, and core.fsync as jin-txn sets it
#   process  jin-txn install --durability process
#   full     jin-txn install --durability full
#
# Every kind is measured in every round, in rotating order, so that a machine
# that slows down slows all three. The figures are medians over all rounds.
set -eu
# Nothing that outlives this script.
export JIN_WATCH=off

usage() {
    cat <<'USAGE'
usage: benches/hook-overhead.sh [--no-guard | --durability]

Prints a Markdown table: milliseconds per command without hooks, with an empty
hook, and with jin-txn.

  --no-guard    only plain and floor; needs no jin-txn binary
  --durability  plain, core.fsync=all, and jin-txn with both kinds of durability

environment:
  RUNS         timed runs per command, kind and round; default 10, a fifth of it for pack-refs
  ROUNDS       default 5
  GIT          the git to measure; default: the one in PATH
  JIN_TXN_BIN  default: target/release/jin-txn (or the same in CARGO_TARGET_DIR)
  BENCH_TMP    scratch directory, on the file system to measure; default: a new one in TMPDIR
  CC           C compiler; default cc
USAGE
}

refs=1000

main() {
    kinds='plain floor guarded' mode=overhead
    case ${1:-} in
        '') ;;
        --durability) kinds='plain all spawn floor process full' mode=durability ;;
        --no-guard) kinds='plain floor' ;;
        -h | --help) usage; exit 0 ;;
        *) die_usage "unknown argument \`$1\`" ;;
    esac
    [ $# -le 1 ] || die_usage "unknown argument \`$2\`"

    runs=${RUNS:-10} rounds=${ROUNDS:-5}
    is_count "$runs" || die_usage "RUNS is not a number above 0: \`$runs\`"
    is_count "$rounds" || die_usage "ROUNDS is not a number above 0: \`$rounds\`"
    need_cmd hyperfine 'apt-get install hyperfine'
    need_cmd python3 'apt-get install python3'
    need_cmd "${CC:-cc}" 'apt-get install gcc libc6-dev'
    need_cmd "${GIT:-git}" 'set GIT to the git to measure'
    find_binary
    python=$(command -v python3)
    sources=$(cd "$(dirname "$0")" && pwd)

    enter_scratch
    be_hermetic
    compile
    for scenario in $(scenarios); do
        for kind in $kinds; do
            build_repository "$kind" "$scenario"
        done
    done

    order=$kinds
    round=1
    while [ "$round" -le "$rounds" ]; do
        for scenario in $(scenarios); do
            say "round $round of $rounds: $scenario"
            measure "$scenario" "$round"
        done
        # shellcheck disable=SC2086 # a list of words
        order=$(rotate $order)
        round=$((round + 1))
    done

    report
}

scenarios() {
    [ "$mode" = overhead ] || { echo commit-a "update-$refs"; return; }
    echo commit switch update-1 "update-$refs" "pack-$refs"
}

# What is timed, in repository $2. Run without a shell, from the scratch directory.
timed_command() {
    case $1 in
        commit) echo "git -C $2 commit --quiet --allow-empty --message x" ;;
        commit-a) echo "git -C $2 commit --quiet --all --message x" ;;
        switch) echo "git -C $2 switch --quiet -" ;;
        update-1) echo "./with-stdin move-1 git -C $2 update-ref --stdin" ;;
        update-*) echo "./with-stdin move-all git -C $2 update-ref --stdin" ;;
        pack-*) echo "git -C $2 pack-refs --all" ;;
    esac
}

# Puts repository $2 back before each timed run. Nobody watches: no hooks, no jin-txn.
reset_command() {
    case $1 in
        commit-a) echo "./change-file $2" ;;
        update-1) echo "./with-stdin back-1 ./unwatched-git -C $2 update-ref --stdin" ;;
        update-*) echo "./with-stdin back-all ./unwatched-git -C $2 update-ref --stdin" ;;
        pack-*) echo "./loosen-refs $2" ;;
        *) echo true ;;
    esac
}

runs_of() {
    case $1 in
        pack-*) echo $(((runs + 4) / 5)) ;;
        *) echo "$runs" ;;
    esac
}

measure() {
    set -- "$1" "$2" --shell=none --style=none --warmup=1 --runs="$(runs_of "$1")" --export-json="result.$1.$2.json"
    for kind in $order; do
        set -- "$@" --command-name "$kind" --prepare "$(reset_command "$1" "$kind.$1")" "$(timed_command "$1" "$kind.$1")"
    done
    shift 2
    hyperfine "$@" >hyperfine.log 2>&1 || {
        cat hyperfine.log >&2
        die 'a measured command failed' 'with BENCH_TMP set, the repositories are kept for a look'
    }
}

build_repository() {
    repository=$1.$2
    git init --quiet "$repository"
    (
        cd "$repository"
        mkdir files
        i=0
        while [ $i -lt 100 ]; do
            echo $i >files/$i
            i=$((i + 1))
        done
        git add files
        git commit --quiet --message first
        git switch --quiet --create side
        echo changed >files/0
        git commit --quiet --all --message second
        git switch --quiet main
    )
    case $2 in
        update-* | pack-*)
            ref_lines "$repository"
            git -C "$repository" update-ref --stdin <back-all
            git -C "$repository" for-each-ref --format='update %(refname) %(objectname)' >"$repository/.git/all-refs"
            ;;
    esac
    case $1 in
        all) git -C "$repository" config core.fsync all ;;
        floor | spawn)
            [ "$mode.$1" != durability.floor ] || git -C "$repository" config core.fsync loose-object,index
            mkdir -p "$repository/.git/hooks"
            ln -sf "$scratch/drain-hook" "$repository/.git/hooks/reference-transaction"
            ln -sf "$scratch/drain-hook" "$repository/.git/hooks/post-checkout"
            ;;
        guarded | process | full)
            durability=full
            [ "$1" != process ] || durability=process
            "$guard" install --durability "$durability" "$repository" >install.log 2>&1 || {
                cat install.log >&2
                die "\`jin-txn install\` failed in \`$repository\`" 'see above'
            }
            case $1.$2 in
                guarded.commit | full.commit-a) log_sum "$repository" >log-after-install ;;
            esac
            ;;
    esac
}

# The input of update-ref: identity and dates are fixed, so it suits every repository.
ref_lines() {
    before=$(git -C "$1" rev-parse main)
    after=$(git -C "$1" rev-parse side)
    seq -f "update refs/heads/many/%.0f $before" "$refs" >back-all
    seq -f "update refs/heads/many/%.0f $after" "$refs" >move-all
    head -n 1 back-all >back-1
    head -n 1 move-all >move-1
}

compile() {
    for program in drain-hook with-stdin; do
        "${CC:-cc}" -O2 -static -o "$program" "$sources/$program.c"
    done
    cat >unwatched-git <<'SCRIPT'
#!/bin/sh
JIN_TXN=off exec git -c core.hooksPath=/dev/null "$@"
SCRIPT
    cat >loosen-refs <<'SCRIPT'
#!/bin/sh
set -e
rm -f "$1/.git/packed-refs"
exec ./unwatched-git -C "$1" update-ref --stdin <"$1/.git/all-refs"
SCRIPT
    cat >change-file <<'SCRIPT'
#!/bin/sh
date +%s.%N >"$1/files/1"
SCRIPT
    chmod +x unwatched-git loosen-refs change-file
}

report() {
    guard_ran
    printf 'git %s, %s cores, %s, Linux %s; medians of %s runs (pack-refs: %s)\n\n' \
        "$(git --version | sed 's/^git version //')" "$(getconf _NPROCESSORS_ONLN)" \
        "$(df -PT . | awk 'NR == 2 { print $2 }')" "$(uname -r)" \
        $((runs * rounds)) $((rounds * $(runs_of pack-)))
    # shellcheck disable=SC2046 # a list of words
    MODE=$mode "$python" - "$refs" $(scenarios) <<'SCRIPT'
import glob, json, os, statistics, sys

refs, scenarios = sys.argv[1], sys.argv[2:]
titles = {
    "commit-a": "`git commit --all`, one file changed",
    "commit": "`git commit --allow-empty`",
    "switch": "`git switch`",
    "update-1": "`git update-ref --stdin`, 1 ref",
    "update-" + refs: f"`git update-ref --stdin`, {int(refs):,} refs",
    "pack-" + refs: f"`git pack-refs --all`, {int(refs):,} loose refs",
}

def medians(scenario):
    samples = {}
    for name in glob.glob(f"result.{scenario}.*.json"):
        with open(name) as file:
            for result in json.load(file)["results"]:
                samples.setdefault(result["command"], []).extend(result["times"])
    return {kind: 1000 * statistics.median(times) for kind, times in samples.items()}

def cell(value, form):
    return "n/a" if value is None else format(value, form)

if os.environ.get("MODE") == "durability":
    print("| command | plain | `core.fsync=all` | process | full | full / `core.fsync=all` "
          "| spawn | git's syncs | log | barrier |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for scenario in scenarios:
        m = medians(scenario)
        spawn, log = m["spawn"] - m["plain"], m["process"] - m["spawn"]
        syncs = m["floor"] - m["spawn"]
        parts = [spawn, syncs, log, m["full"] - m["floor"] - log]
        print(f"| {titles[scenario]} | {m['plain']:.1f} | {m['all']:.1f} | {m['process']:.1f} | {m['full']:.1f} "
              f"| {m['full'] / m['all']:.2f} | " + " | ".join(f"{part:.1f}" for part in parts) + " |")
    sys.exit()

print("| command | plain ms | floor ms | guarded ms | guarded/floor | floor/plain |")
print("| --- | ---: | ---: | ---: | ---: | ---: |")
for scenario in scenarios:
    m = medians(scenario)
    plain, floor, guarded = m["plain"], m["floor"], m.get("guarded")
    ratio = None if guarded is None else guarded / floor
    print(f"| {titles[scenario]} | {plain:.1f} | {floor:.1f} | {cell(guarded, '.1f')} "
          f"| {cell(ratio, '.2f')} | {floor / plain:.2f} |")
SCRIPT
}

# A figure for "guarded" that was measured unguarded is worse than none. Commits
# always reach the log; the other commands may rightly leave it alone.
guard_ran() {
    logged=guarded.commit
    [ "$mode" = overhead ] || logged=full.commit-a
    [ -d "$logged" ] || return 0
    [ "$(log_sum "$logged")" != "$(cat log-after-install)" ] ||
        die 'jin-txn logged no commit' 'its hooks did not run: see jin-txn doctor'
}

log_sum() {
    find "$1/.git/.jin/wal" -type f -exec cat {} + 2>/dev/null | cksum
}

find_binary() {
    case $kinds in *guarded* | *full*) ;; *) return ;; esac
    top=$(cd "$(dirname "$0")/.." && pwd)
    guard=${JIN_TXN_BIN:-${CARGO_TARGET_DIR:-$top/target}/release/jin-txn}
    case $guard in /*) ;; *) guard=$(pwd)/$guard ;; esac
    [ -x "$guard" ] ||
        die "no jin-txn binary at \`$guard\`" 'cargo build --release --locked, or set JIN_TXN_BIN, or use --no-guard'
}

enter_scratch() {
    git_binary=$(command -v "${GIT:-git}")
    if [ -n "${BENCH_TMP:-}" ]; then
        mkdir -p "$BENCH_TMP"
        parent=$(cd "$BENCH_TMP" && pwd)
        scratch=$(mktemp -d "$parent/hook-overhead.XXXXXX")
    else
        scratch=$(mktemp -d "${TMPDIR:-/tmp}/hook-overhead.XXXXXX")
        trap 'rm -rf "$scratch"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
    fi
    cd "$scratch"
    scratch=$(pwd)
    mkdir bin
    ln -s "$git_binary" bin/git
    PATH=$scratch/bin:$PATH
}

be_hermetic() {
    unset GIT_DIR GIT_WORK_TREE GIT_COMMON_DIR GIT_INDEX_FILE GIT_PREFIX GIT_CONFIG_PARAMETERS GIT_CONFIG_COUNT
    unset GIT_TEMPLATE_DIR GIT_TRACE GIT_TRACE2 GIT_TRACE2_EVENT GIT_TRACE2_PERF GIT_DEFAULT_REF_FORMAT JIN_TXN
    HOME=$scratch XDG_CONFIG_HOME=$scratch GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=$scratch/gitconfig
    GIT_AUTHOR_NAME=bench GIT_AUTHOR_EMAIL=bench@example.com GIT_AUTHOR_DATE='1700000000 +0000'
    GIT_COMMITTER_NAME=bench GIT_COMMITTER_EMAIL=bench@example.com GIT_COMMITTER_DATE='1700000000 +0000'
    LC_ALL=C
    export HOME XDG_CONFIG_HOME GIT_CONFIG_NOSYSTEM GIT_CONFIG_GLOBAL LC_ALL
    export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL GIT_COMMITTER_DATE
    cat >gitconfig <<'CONFIG'
[init]
	defaultBranch = main
	templateDir =
[gc]
	auto = 0
[maintenance]
	auto = false
CONFIG
}

rotate() {
    first=$1
    shift
    echo "$@" "$first"
}

is_count() {
    case $1 in '' | *[!0-9]* | 0*) return 1 ;; esac
}

need_cmd() {
    command -v "$1" >/dev/null 2>&1 || die "\`$1\` is not in PATH" "$2"
}

say() {
    printf '%s\n' "$1" >&2
}

die() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

die_usage() {
    printf 'error: %s\nhint: see benches/hook-overhead.sh --help\n' "$1" >&2
    exit 2
}

{ main "$@"; exit; }
