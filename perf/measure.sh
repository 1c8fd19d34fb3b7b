#!/usr/bin/env bash
# The figures of perf/README.md: `bash perf/measure.sh DIR [part ...]`, DIR on the disk to be measured.
#
# Server on core 0, load on core 1. Each result is one JSON object, as `turbopump bench -o json` prints it, with a label in
# front; raw baselines are measured before and after each run, in the same process. Parts: disk memory single small sustained
# tail backlog queues restart calls http held. The last two are the HTTP endpoint beside a bare hyper server, and ten million
# messages that are delayed or not acknowledged (HELD is another number); they need `cargo bench --bench http --no-run`
# first, and HTTP_BENCH may name what that made. TURBOPUMP is the broker, LOAD the program that loads it if that is another.
# System calls are counted in the part `calls` only, since counting them costs. Memory means tmpfs: it shows what the core
# can do, and is never durable. Two revisions are compared by `perf/compare.sh`.
set -euo pipefail
cd "$(dirname "$0")/.."
directory="$1"; shift
parts=("$@")
[ $# -gt 0 ] || parts=(disk memory single small sustained tail backlog queues restart calls http held)
turbopump="${TURBOPUMP:-target/release/turbopump}"
load="${LOAD:-$turbopump}"
seconds="${SECONDS_PER_RUN:-10}"
pairs="${PAIRS:-5}"
read -ra http <<<"${HTTP_BENCH:-cargo bench --quiet --bench http --}"
broker=
trap '[ -n "$broker" ] && kill -KILL "$broker" 2>/dev/null; rm -rf "$directory/perf-data" /dev/shm/perf-data' EXIT

# A pause without a process, and a look without one: what a start takes is told to the millisecond.
exec {never}<> <(:)
pause() { read -rt "$1" -u "$never" || true; }
is_ready() { local said=; read -rd '' said <"$directory/serve.log" || true; [[ $'\n'"$said" == *$'\nready'* ]]; }
start() { # data directory, further flags
    local data="$1"; shift
    # Here, since the broker's own redirection may come after the first look.
    : >"$directory/serve.log"
    "$turbopump" serve --data "$data" --listen 127.0.0.1:21911 --shards 1 --cores 0 "$@" >>"$directory/serve.log" 2>&1 &
    broker=$!
    until is_ready; do kill -0 "$broker"; pause 0.002; done
    export TURBOPUMP_SERVER=127.0.0.1:21911
}
stop() { kill -TERM "$broker"; wait "$broker" || true; broker=; }
fresh() { rm -rf "$1"; }
bench() { # label, then the bench's arguments
    local label="$1"; shift
    # The directory is ours, and retention may have left nothing in a topic that would tell so.
    local existing=(); [ "$1" != produce ] || read -ra existing <<<"${EXISTING:---existing}"
    printf '%s ' "$label"
    "$load" bench "$@" "${existing[@]}" --pin 1 --duration "${seconds}s" -o json 2>/dev/null
}
batches() { # label prefix, baseline directory
    for _ in $(seq "$pairs"); do
        # With 8 batches in flight a connection waits for answers, with 16 the broker has something to do meanwhile, and with
        # 32 groups are as large as they may be.
        for in_flight in 8 16 32; do
            local window=(--connections 4 --in-flight "$in_flight" --baseline --baseline-dir "$2")
            bench "$1-100Bx500-$in_flight" produce small --body 100 --batch 500 "${window[@]}"
            bench "$1-1KiBx60-$in_flight" produce large --body 1024 --batch 60 "${window[@]}"
        done
    done
}
# Small segments and a small log, so that segments are recycled after the first seconds, as in a broker that has run for
# a while: writes then go to blocks that were written before.
retention=(--segment-bytes 256MiB --retention-bytes 1GiB)

for part in "${parts[@]}"; do
    case "$part" in
    disk)
        fresh "$directory/perf-data"; start "$directory/perf-data" "${retention[@]}"
        "$load" bench produce small --body 100 --batch 500 --connections 4 --duration 10s >/dev/null 2>&1
        batches disk "$directory"; stop ;;
    memory)
        fresh /dev/shm/perf-data; start /dev/shm/perf-data --retention-bytes 3GiB
        batches memory /dev/shm; stop; fresh /dev/shm/perf-data ;;
    single)
        fresh "$directory/perf-data"; start "$directory/perf-data"
        for _ in $(seq "$pairs"); do
            bench single produce single --body 100 --batch 1 --connections 1 --in-flight 1 --queues 1 --baseline --baseline-dir "$directory"
        done
        stop ;;
    small)
        # What one client call sends of itself: batches of ten.
        fresh "$directory/perf-data"; start "$directory/perf-data" "${retention[@]}"
        "$load" bench produce small --body 100 --batch 500 --connections 4 --duration 3s >/dev/null 2>&1
        for _ in $(seq "$pairs"); do
            bench small-100Bx10 produce small --body 100 --batch 10 --connections 4 --in-flight 16
        done
        stop ;;
    sustained)
        # Into blocks that were never written, until the log is as large as it may be: that is more than the first ten seconds
        # write, and DIR must have room for it. `seconds` in the result says how the seconds compare, and `disk_stalls` beside
        # `device_stalls_before_after` whether a moment in which nothing went on was the disk's: it is looked at as long as the
        # broker is.
        for _ in $(seq "$pairs"); do
            fresh "$directory/perf-data"; start "$directory/perf-data" --retention-bytes "${SUSTAINED_BYTES:-20GiB}"
            seconds="${SUSTAINED_SECONDS:-60}"
            bench sustained produce large --body 1024 --batch 60 --connections 4 --in-flight 16 \
                --baseline --baseline-dir "$directory" --baseline-duration "$((seconds * 500))ms"
            seconds="${SECONDS_PER_RUN:-10}"
            stop
        done
        fresh "$directory/perf-data" ;;
    tail)
        fresh "$directory/perf-data"; start "$directory/perf-data" --tail-cache-bytes 512MiB
        "$load" bench produce tail --body 100 --batch 500 --queues 1 --connections 1 --rate 400000 --duration 1s -o json >/dev/null 2>&1
        for _ in $(seq "$pairs"); do
            bench tail consume tail --connections 1 --baseline --baseline-dir "$directory"
        done
        stop ;;
    calls)
        fresh "$directory/perf-data"; start "$directory/perf-data" "${retention[@]}"
        for _ in $(seq "$pairs"); do
            for in_flight in 8 16 32; do
                bench "calls-100Bx500-$in_flight" produce small --body 100 --batch 500 --connections 4 --in-flight "$in_flight" --count-syscalls
            done
        done
        stop ;;
    backlog)
        fresh "$directory/perf-data"; start "$directory/perf-data"
        "$load" bench produce backlog --body 1024 --batch 60 --queues 4 --connections 4 --duration "${BACKLOG_SECONDS:-30}s" -o json >/dev/null 2>&1
        # Until the broker has zeroed what is left of its new segments.
        sleep "${SETTLE_SECONDS:-40}"
        for _ in $(seq "$pairs"); do
            bench backlog-reader-alone consume backlog --connections 1 --baseline --baseline-dir "$directory"
            bench backlog-alone-producer produce live --body 1024 --batch 16 --connections 1 --rate 20000
            # On the core of the load as well, where the producer goes first: it is the broker that is measured.
            nice -n 10 "$load" bench consume backlog --connections 1 --pin 1 --duration "${seconds}s" -o json 2>/dev/null >"$directory/catch-up.json" &
            reader=$!
            bench backlog-with-reader-producer produce live --body 1024 --batch 16 --connections 1 --rate 20000
            wait "$reader" || true
            printf 'backlog-reader '; cat "$directory/catch-up.json"
        done
        stop ;;
    queues)
        for _ in $(seq "$pairs"); do
            fresh "$directory/perf-data"; start "$directory/perf-data"
            bench queues-1 produce one --body 100 --batch 500 --connections 4 --queues 1
            bench queues-10000 produce many --body 100 --batch 500 --connections 4 --queues 10000
            stop
        done ;;
    restart)
        fresh "$directory/perf-data"; start "$directory/perf-data"
        stored=0
        while [ "$stored" -lt "${MESSAGES:-100000000}" ]; do
            stored=$((stored + $("$load" bench produce many --body 100 --batch 500 --connections 4 --duration "${RESTART_SECONDS:-20}s" -o json 2>/dev/null |
                sed 's/.*"messages":\([0-9]*\).*/\1/')))
        done
        for _ in $(seq "$pairs"); do
            kill -KILL "$broker"; wait "$broker" 2>/dev/null || true
            from=$(date +%s%N)
            start "$directory/perf-data"
            "$turbopump" topic describe many -o json >/dev/null
            to=$(date +%s%N)
            resident=$(awk '/VmRSS/ {print $2 * 1024}' "/proc/$broker/status")
            printf 'restart {"messages":%s,"milliseconds_to_first_answer":%s,"resident_bytes":%s}\n' "$stored" $(((to - from) / 1000000)) "$resident"
        done
        stop ;;
    http)
        fresh "$directory/perf-data"; start "$directory/perf-data" --http 127.0.0.1:28080
        target=(--server 127.0.0.1:28080 --pin 1)
        for topic in published single delayed received; do "$turbopump" topic create "$topic" >/dev/null; done
        printf 'http '; "${http[@]}" publish "${target[@]}" --topic published --seconds "$seconds" --rounds "$pairs" --bare-core 0
        printf 'http '; "${http[@]}" single "${target[@]}" --topic single --rounds "$pairs" --directory "$directory"
        for pair in $(seq "$pairs"); do
            (yes "$(printf 'x%.0s' {1..256})" || true) | head -n 1000000 | "$turbopump" produce received - >/dev/null 2>&1
            printf 'http '; "${http[@]}" receive "${target[@]}" --topic received --group receivers --seconds "$seconds"
        done
        printf 'http '; "${http[@]}" delay "${target[@]}" --topic delayed --group delayed
        stop ;;
    held)
        # Delayed messages first, then messages that are received and never acknowledged.
        fresh "$directory/perf-data"; start "$directory/perf-data" --http 127.0.0.1:28080
        target=(--server 127.0.0.1:28080 --pin 1)
        for topic in far near leased; do "$turbopump" topic create "$topic" >/dev/null; done
        resident() { printf '%s {"resident_bytes":%s}\n' "$1" "$(awk '/VmRSS/ {print $2 * 1024}' "/proc/$broker/status")"; }
        resident held-empty
        printf 'held '; "${http[@]}" fill "${target[@]}" --topic far --body 100 --count "${HELD:-10000000}" --delay-seconds 86400
        resident held-delayed
        printf 'held '; "${http[@]}" delay "${target[@]}" --topic near --group near
        (yes "$(printf 'x%.0s' {1..100})" || true) | head -n "${HELD:-10000000}" | "$turbopump" produce leased - >/dev/null 2>&1
        printf 'held '; "${http[@]}" receive "${target[@]}" --topic leased --group keepers --keep --seconds 3600
        resident held-leased
        stop ;;
    *) echo "no part $part" >&2; exit 2 ;;
    esac
done
