#!/usr/bin/env bash
# What it costs to be watched: `bash perf/watched.sh DIR > LINES`, DIR on the disk to be measured. A broker without an admin address that
# nobody looks at, beside one whose metrics are scraped every second while `turbopump top` asks every second as well, in turns; the
# flight recorder runs in both, since it cannot be switched off (`perf/compare.sh` against the revision before it says what it takes).
# At the end, on standard error: medians of throughput and p99.9, and the second's share of the first.
#
# Server on core 0, load on core 1, those who watch on core 1 behind the load (nice 10). PAIRS (5), SECONDS_PER_RUN (5); TURBOPUMP is the
# program.
set -euo pipefail
cd "$(dirname "$0")/.."
directory="$1"
turbopump="${TURBOPUMP:-target/release/turbopump}"
seconds="${SECONDS_PER_RUN:-5}"
pairs="${PAIRS:-5}"
broker= watchers=()
finish() {
    if [ "${#watchers[@]}" -gt 0 ]; then kill "${watchers[@]}" 2>/dev/null || true; fi
    if [ -n "$broker" ]; then kill -KILL "$broker" 2>/dev/null || true; fi
    rm -rf "$directory/perf-watched"
}
trap finish EXIT
export TURBOPUMP_SERVER=127.0.0.1:21911
lines="$(mktemp)"

run() { # `alone` or `watched`
    rm -rf "$directory/perf-watched"
    mkdir -p "$directory/perf-watched"
    local admin=none
    [ "$1" = alone ] || admin=127.0.0.1:21557
    "$turbopump" serve --data "$directory/perf-watched/data" --listen "$TURBOPUMP_SERVER" --shards 1 --cores 0 --http none --namesrv none \
        --admin "$admin" --segment-bytes 256MiB --retention-bytes 1GiB >"$directory/perf-watched/serve.log" 2>&1 &
    broker=$!
    until grep -q '^ready' "$directory/perf-watched/serve.log"; do kill -0 "$broker"; sleep 0.05; done
    watchers=()
    if [ "$1" = watched ]; then
        (while :; do curl -s "http://$admin/metrics" -o "$directory/perf-watched/scrape"; sleep 1; done) &
        watchers+=($!)
        taskset -c 1 nice -n 10 "$turbopump" top -o json --interval 1s >"$directory/perf-watched/top" &
        watchers+=($!)
        renice -n 10 "${watchers[0]}" >/dev/null
        taskset -pc 1 "${watchers[0]}" >/dev/null
    fi
    local window=(--connections 4 --existing --pin 1 -o json)
    # The first segments are made in these.
    "$turbopump" bench produce small "${window[@]}" --body 100 --batch 500 --in-flight 16 --duration 5s >/dev/null 2>&1
    for load in "small --body 100 --batch 500 --in-flight 16" "large --body 1024 --batch 60 --in-flight 16" \
        "steady --body 100 --batch 16 --rate 20000"; do
        # shellcheck disable=SC2086
        printf '%s %s %s\n' "$1" "${load%% *}" "$("$turbopump" bench produce $load "${window[@]}" --duration "${seconds}s" 2>/dev/null)"
    done | tee -a "$lines"
    if [ "$1" = watched ]; then
        grep -q '^turbopump_' "$directory/perf-watched/scrape" && [ -s "$directory/perf-watched/top" ]
        kill "${watchers[@]}" && wait "${watchers[@]}" 2>/dev/null || true
    fi
    watchers=()
    kill -TERM "$broker"
    wait "$broker" || true
    broker=
}

for pair in $(seq "$pairs"); do
    order=(alone watched)
    [ $((pair % 2)) -eq 1 ] || order=(watched alone)
    for which in "${order[@]}"; do run "$which"; done
done
python3 - "$lines" >&2 <<'PYTHON'
import json, statistics, sys

FIGURES = {
    "messages a second": lambda run: run["messages_per_second"],
    "p99.9, us": lambda run: run["latency_us"]["p99_9"],
}
found = {}
for line in open(sys.argv[1]):
    which, load, result = line.split(" ", 2)
    found.setdefault(load, {}).setdefault(which, []).append(json.loads(result))
for load, runs in found.items():
    for name, figure in FIGURES.items():
        alone, watched = (statistics.median(map(figure, runs[which])) for which in ("alone", "watched"))
        print(f"{load}: {name}: {alone:,.0f} alone, {watched:,.0f} watched, {watched / alone:.3f}")
PYTHON
rm -f "$lines"
