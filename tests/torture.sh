#!/usr/bin/env bash
# Everything that takes long, for as long as you like, each round with another seed:
#
#     tests/torture.sh [--minutes M] [--seed S]
#
# A test that takes part prints what it has done, and how often something was wrong, in a line of this form:
#
#     torture: faults=14 violations=0
#
# Those are summed up here, whatever they count. What is bad, and how to see it again, is in the logs that are named at the
# end. Fuzzing takes part where cargo-fuzz and a nightly Rust are.
set -euo pipefail
# Nothing that outlives this script.
export JIN_WATCH=off
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# name, share of the time, what is run. JIN_SEED is replaced by the seed of the round, JIN_LEFT by the seconds that are left.
parts=(
    'faults|30|env JIN_FAULTS=101 JIN_FAULTS_SEED=JIN_SEED cargo test --locked --test faults failing_calls -- --nocapture'
    'kills|20|env JIN_KILL=97 JIN_KILL_SEED=JIN_SEED cargo test --locked --test crash -- --nocapture kill_table::a_kill'
    'runs, apply, undo|10|env JIN_KILL=97 JIN_KILL_SEED=JIN_SEED cargo test --locked --test crash --test recovery -- --nocapture run_kills apply_kills undo::an_undo_that_is_killed'
    'states|10|env JIN_STATES=64 JIN_STATES_SEED=JIN_SEED cargo test --locked --test crash -- --nocapture crash_states'
    'soak|15|env JIN_SOAK_SECONDS=JIN_LEFT JIN_SOAK_SEED=JIN_SEED cargo test --locked --test crash -- --nocapture soak concurrency'
    'log damage|10|env JIN_DAMAGE=4 cargo test --locked --release --test recovery -- --nocapture log_damage'
)

main() {
    local minutes=10 seed=$((RANDOM * 32768 + RANDOM))
    while (($#)); do
        case $1 in
            --minutes) minutes=${2:?how many minutes} ;;
            --seed) seed=${2:?a number} ;;
            *) fail "unknown option \`$1\`" 'tests/torture.sh [--minutes M] [--seed S]' ;;
        esac
        shift 2
    done
    [[ $minutes =~ ^[0-9]+$ && $seed =~ ^[0-9]+$ ]] || fail 'minutes and seed are whole numbers' 'tests/torture.sh --minutes 30'

    if [[ -x fuzz/run.sh ]] && command -v cargo-fuzz >/dev/null && cargo +nightly --version >/dev/null 2>&1; then
        local targets
        targets=$(grep -c '^path = "fuzz_targets/' fuzz/Cargo.toml)
        parts+=("fuzzing|15|fuzz/run.sh --seconds $((minutes * 60 * 15 / 100 / targets + 1))")
    else
        echo 'fuzzing is left out: there is no cargo-fuzz, or no nightly Rust'
    fi

    echo "seed $seed, $minutes minutes, $(git --version), $(nproc) processors"
    # Not on the clock of the parts.
    cargo test --locked --no-run --quiet
    cargo test --locked --release --no-run --quiet --test recovery
    logs=target/torture/$(date +%Y%m%d-%H%M%S)
    mkdir -p "$logs"

    local part name share command all=0
    for part in "${parts[@]}"; do
        IFS='|' read -r name share command <<<"$part"
        all=$((all + share))
    done
    printf '\n| %s | %s | %s | %s | %s |\n' part rounds seconds 'what was done' violations
    echo '| --- | ---: | ---: | --- | ---: |'
    for part in "${parts[@]}"; do
        IFS='|' read -r name share command <<<"$part"
        torture "$name" $((minutes * 60 * share / all)) "$seed" "$command"
    done
    printf '| **all** | | %s | %s | **%s** |\n\nlogs: %s\n' "$SECONDS" "$(sums "$logs"/*.log)" "$violations" "$logs"
    ((violations == 0))
}

logs=''
violations=0

# torture NAME SECONDS SEED COMMAND: repeats the command until the time is over, and prints a line of the table.
torture() {
    local name=$1 seconds=$2 seed=$3 command=$4 round=0 begin=$SECONDS log bad code
    log=$logs/${name//[^a-z]/-}.log
    while ((SECONDS - begin < seconds)); do
        local left=$((seconds - (SECONDS - begin))) words
        # Two tests of the soak, one after the other.
        words=${command//JIN_SEED/$((seed + round))}
        words=${words//JIN_LEFT/$((left / 2 < 60 ? left / 2 + 1 : 60))}
        echo "== $words" >>"$log"
        code=0
        # A round that is in the middle may end; one that hangs does not.
        # shellcheck disable=SC2086 # the words are our own, from above
        timeout $((left + 900)) $words >>"$log" 2>&1 || code=$?
        echo "== exit $code" >>"$log"
        round=$((round + 1))
    done
    bad=$(count violations "$log")
    # A test that panicked has not said so in its line.
    if ((bad == 0)) && grep -q '^== exit [^0]' "$log"; then
        bad=$(grep -c '^== exit [^0]' "$log")
    fi
    violations=$((violations + bad))
    printf '| %s | %s | %s | %s | %s |\n' "$name" "$round" $((SECONDS - begin)) "$(sums "$log")" "$bad"
}

# count WHAT LOG...: the sum of one word of the lines.
count() {
    local what=$1
    shift
    sed -n 's/^.*torture: //p' "$@" | tr ' ' '\n' | awk -F= -v what="$what" '$1 == what { sum += $2 } END { print sum + 0 }'
}

# sums LOG...: all words of the lines but the violations, e.g. `1204 faults`.
sums() {
    sed -n 's/^.*torture: //p' "$@" | tr ' ' '\n' | awk -F= '
        $2 != "" && $1 != "violations" { if (!($1 in sum)) order[++words] = $1; sum[$1] += $2 }
        END { for (i = 1; i <= words; i++) printf "%s%d %s", (i > 1 ? ", " : ""), sum[order[i]], order[i] }'
}

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 2
}

main "$@"
