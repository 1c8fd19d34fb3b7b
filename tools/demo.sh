#!/usr/bin/env bash
# Builds turbopump, starts it on a throw-away data directory, sends it a file of a million lines, reads them back byte for
# byte, kills it with SIGKILL in the middle of a second file, starts it again, and shows that nothing acknowledged is
# missing. Needs cargo and a C compiler. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked
turbopump="${CARGO_TARGET_DIR:-target}/release/turbopump"
work="$(mktemp -d "${TMPDIR:-/tmp}/turbopump-demo.XXXXXX")"
broker=
trap '[ -n "$broker" ] && kill "$broker" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

start() {
    "$turbopump" serve --data "$work/data" --listen 127.0.0.1:0 --http none --segment-bytes 256MiB >"$work/serve.log" &
    broker=$!
    until grep -q '^ready' "$work/serve.log"; do
        kill -0 "$broker" || { echo "the broker did not start" >&2; exit 1; }
        sleep 0.05
    done
    cat "$work/serve.log"
    TURBOPUMP_SERVER="$(sed -n 's/.*shard 0 .*listens on \([^ ]*\).*/\1/p' "$work/serve.log")"
    export TURBOPUMP_SERVER
}

say() { printf '\n== %s\n' "$*"; }

say "start the broker"
start

say "send a million lines, read them back"
seq 1 1000000 | sed 's/$/,turbopump demo line/' >"$work/first.csv"
"$turbopump" topic create demo --queues 1
"$turbopump" produce demo "$work/first.csv"
"$turbopump" consume demo >"$work/back.csv"
cmp "$work/first.csv" "$work/back.csv" && echo "the same, byte for byte"

say "kill it with SIGKILL while it takes a second file"
seq 1 3000000 | sed 's/$/,second file/' >"$work/second.csv"
"$turbopump" topic create crash --queues 1
"$turbopump" produce crash "$work/second.csv" --retry-for 0 -o json >"$work/produce.json" 2>"$work/produce.err" &
producer=$!
until "$turbopump" topic describe crash -o json | grep -q '"end_offset":[1-9][0-9]\{4,\}'; do :; done
kill -KILL "$broker"
wait "$broker" 2>/dev/null || true
wait "$producer" || true
acknowledged="$(cat "$work/produce.json" "$work/produce.err" | sed -n 's/.*"next_skip":\([0-9]*\).*/\1/p' | tail -1)"
echo "the producer had ${acknowledged:-0} lines acknowledged"

say "start it again and look"
start
"$turbopump" consume crash >"$work/crash.csv"
echo "$(wc -l <"$work/crash.csv") lines are there, $acknowledged were acknowledged"
head -n "$acknowledged" "$work/second.csv" >"$work/expected.csv"
head -n "$acknowledged" "$work/crash.csv" | cmp - "$work/expected.csv" && echo "nothing acknowledged is missing"

say "go on where the acknowledged lines end"
"$turbopump" produce crash "$work/second.csv" --skip "$acknowledged"
"$turbopump" status | head -12
