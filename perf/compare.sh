#!/usr/bin/env bash
# Two revisions on one machine, in turns: `bash perf/compare.sh BEFORE AFTER [part ...]`.
#
# Builds both as they are committed, runs each part of `perf/measure.sh` with one and then the other (in the next pair the
# other way round), and prints the medians and what the second is of the first. Nothing else may run on the machine
# meanwhile; `perf/compare.sh --build BEFORE AFTER` only builds, so that it can be done before. Each revision is loaded by its own
# program, or both by the second one's with SAME_LOAD=1; HTTP is loaded by the second one's. Raw lines are kept in
# $COMPARE/lines.txt.
#
# PAIRS (2), SECONDS_PER_RUN (3), MESSAGES to start with (10000000), SUSTAINED_SECONDS (20), SUSTAINED_BYTES (8GiB),
# BACKLOG_SECONDS (8) and SETTLE_SECONDS (15) as in measure.sh: about ten minutes for a pair. COMPARE is the folder for all of
# it, on the disk to be measured (target/compare), where 25 GB must be free.
set -euo pipefail
cd "$(dirname "$0")/.."
build_only=; [ "${1:-}" != --build ] || { build_only=1; shift; }
[ $# -ge 2 ] || { sed -n 2p "$0" >&2; exit 2; }
revisions=("$(git rev-parse --short "$1^{commit}")" "$(git rev-parse --short "$2^{commit}")"); shift 2
parts=("$@")
[ $# -gt 0 ] || parts=(single small disk memory http restart tail calls queues backlog sustained)
compare="$(realpath -m "${COMPARE:-target/compare}")"
pairs="${PAIRS:-2}"
export SECONDS_PER_RUN="${SECONDS_PER_RUN:-3}" MESSAGES="${MESSAGES:-10000000}" RESTART_SECONDS="${RESTART_SECONDS:-2}"
export SUSTAINED_SECONDS="${SUSTAINED_SECONDS:-20}" SUSTAINED_BYTES="${SUSTAINED_BYTES:-8GiB}"
export BACKLOG_SECONDS="${BACKLOG_SECONDS:-8}" SETTLE_SECONDS="${SETTLE_SECONDS:-15}"
mkdir -p "$compare"

build() { # revision
    [ ! -x "$compare/$1/turbopump" ] || return 0
    echo "building $1" >&2
    mkdir -p "$compare/$1/tree"
    git archive "$1" | tar -x -C "$compare/$1/tree"
    # Dependencies are built once for both.
    local made
    made="$(cd "$compare/$1/tree" && export CARGO_TARGET_DIR="$compare/target" && cargo build --release --quiet &&
        cargo bench --bench http --no-run 2>&1 | tee /dev/stderr | sed -n 's/.*Executable .*(\(.*\))$/\1/p')"
    cp "$made" "$compare/$1/http"
    cp "$compare/target/release/turbopump" "$compare/$1/turbopump"
}
for revision in "${revisions[@]}"; do build "$revision"; done
[ -z "$build_only" ] || exit 0

lines="$compare/lines.txt"
: >"$lines"
measure() { # 0 or 1 for the revision, part
    local side=(before after)
    local turbopump="$compare/${revisions[$1]}/turbopump" load="$compare/${revisions[$1]}/turbopump"
    [ -z "${SAME_LOAD:-}" ] || load="$compare/${revisions[1]}/turbopump"
    # Programs before the flag write into any topic.
    local existing=--existing; "$load" bench produce --help | grep -q -- --existing || existing=" "
    mkdir -p "$compare/data"
    TURBOPUMP="$turbopump" LOAD="$load" EXISTING="$existing" HTTP_BENCH="$compare/${revisions[1]}/http" PAIRS=1 \
        bash perf/measure.sh "$compare/data" "$2" | sed "s/^/${side[$1]} /" >>"$lines" || echo "$2 failed ${side[$1]}" >&2
    # What failed may have ended within a line.
    echo >>"$lines"
}
begun="$(date +%s)"
for part in "${parts[@]}"; do
    for pair in $(seq "$pairs"); do
        order=(0 1); [ $((pair % 2)) -eq 1 ] || order=(1 0)
        for which in "${order[@]}"; do measure "$which" "$part"; done
    done
    echo "$part: done $(($(date +%s) - begun)) s after the begin" >&2
done
python3 perf/compare.py "$lines"
