#!/usr/bin/env bash
# Runs the steps of the README's tour as they stand there, in their order, against one broker: every command line of its
# shell blocks, what its sentences tell to create, and its programs, each where what it needs is named: PYTHON, a Python with
# mq_http_sdk; ROCKETMQ_PYTHON, one with rocketmq; ROCKETMQ_JAVA, the directory with RocketMQ's client for Java; ROCKETMQ_GO, a Go
# module that has RocketMQ's client for Go. Only the ports differ, so that a broker that runs on this machine is left alone, and
# with LINES_SENT the number of lines. TURBOPUMP names another binary than the debug build's, FLAGS more of what the broker is
# started with.
set -euo pipefail
cd "$(dirname "$0")/../.."
TURBOPUMP=$(realpath "${TURBOPUMP:-${CARGO_TARGET_DIR:-target}/debug/turbopump}")
work=$(mktemp -d)
broker=
finish() {
    if [ -n "$broker" ]; then kill "$broker" 2>/dev/null || true; wait "$broker" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT
mkdir "$work/bin"
ln -s "$TURBOPUMP" "$work/bin/turbopump"
export PATH="$work/bin:$PATH"

read -ra flags <<<"${FLAGS:-}"
turbopump serve --data "$work/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 --namesrv 127.0.0.1:0 "${flags[@]}" >"$work/serve.log" &
broker=$!
until grep -q '^ready' "$work/serve.log"; do kill -0 "$broker"; sleep 0.1; done
TURBOPUMP_SERVER=$(sed -n 's/.*shard 0 on core .* listens on \([0-9.:]*\).*/\1/p' "$work/serve.log")
export TURBOPUMP_SERVER
http=$(sed -n 's/.*HTTP listens on \([0-9.:]*\).*/\1/p' "$work/serve.log")

names=$(sed -n 's/.*name server listens on \([0-9.:]*\).*/\1/p' "$work/serve.log")

# One step a line: a command, or `program` with a file. What is between backquotes in a sentence stands on one line there.
awk -v work="$work" '
    /^## / { tour = ($0 == "## Tour"); next }
    !tour { next }
    /^```sh$/ { shell = 1; next }
    /^```(python|java|go)$/ {
        count++
        program = work "/program" count "/Tour." (/python/ ? "py" : substr($0, 4))
        system("mkdir " work "/program" count)
        next
    }
    /^```$/ { if (program) { close(program); print "program " program }; shell = 0; program = ""; next }
    program { print > program; next }
    shell { if ($0 ~ /turbopump / && $0 !~ /turbopump serve/) print; next }
    { while (match($0, /`turbopump (topic|instance) create [^`]*`/)) {
        print substr($0, RSTART + 1, RLENGTH - 2); $0 = substr($0, RSTART + RLENGTH) } }
' README.md >"$work/steps"
[ "$(wc -l <"$work/steps")" -ge 12 ] || { echo "the README's tour was not understood:"; cat "$work/steps"; exit 1; }

# run_program FILE: runs one of its programs, which has to print what it has received.
run_program() {
    local needed
    sed -i "s/127\.0\.0\.1:8080/$http/; s/127\.0\.0\.1:9876/$names/" "$1"
    case "$1:$(cat "$1")" in
    *mq_http_sdk*) needed=PYTHON; set -- "${PYTHON:-}" -W ignore "$1" ;;
    *.py:*) needed=ROCKETMQ_PYTHON; set -- env HOME="$work" "${ROCKETMQ_PYTHON:-}" "$1" ;;
    *.java:*) needed=ROCKETMQ_JAVA; set -- java -Duser.home="$work" -cp "${ROCKETMQ_JAVA:-}/*" "$1" ;;
    *.go:*) needed=ROCKETMQ_GO; set -- env -C "${ROCKETMQ_GO:-/}" go run "$1" ;;
    esac
    [ -n "${!needed:-}" ] || { echo "SKIPPED: no $needed"; return; }
    timeout 120 "$@" </dev/null | tee "$work/output"
    grep -Eq '^three (apples|pears) fruit( 1)?$' "$work/output"
}

handle=
while IFS= read -r step; do
    step=${step//HANDLE/$handle}
    [ -z "${LINES_SENT:-}" ] || step=${step//1000000/$LINES_SENT}
    step=${step//\/var\/tmp\/turbopump/$work\/data}
    echo "== $step"
    case "$step" in
    program*) run_program "${step#program }"; continue ;;
    *--follow*) step="timeout 2 ${step%%#*} || [ \$? = 124 ]" ;;
    esac
    bash -euo pipefail -c "$step" >"$work/output" </dev/null || { cat "$work/output"; echo "this step failed"; exit 1; }
    head -n 5 "$work/output"
    case "$step" in
    *"message receive"*) handle=$(sed -n 's/^handle *//p' "$work/output" | head -n 1); [ -n "$handle" ] ;;
    *"dlq list"*) grep -q orders "$work/output" ;;
    *"dlq redrive"*) grep -q '^1 ' "$work/output" ;;
    *"message find"*) grep -q 'three apples' "$work/output" ;;
    esac
done <"$work/steps"
echo "the README's steps work in their order"
