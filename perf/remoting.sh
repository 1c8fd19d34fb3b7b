#!/usr/bin/env bash
# RocketMQ's protocol, against Apache's own broker on the same machine, in turns: `bash perf/remoting.sh DIR [part ...]`.
#
# DIR is a folder on the disk to be measured, of which everything is removed that this makes. Broker on core 0, load on core 1,
# where Apache's name server is as well. Parts: `durable` (ours durable, theirs SYNC_FLUSH), `written` (ours written, theirs
# ASYNC_FLUSH), `tail` and `backlog` (pulls of what is in memory, and of BACKLOG_BYTES). One line a run: side, label, result.
# `python3 perf/remoting.py LINES` makes the table.
#
# Apache's broker and name server come from Maven into DIR/apache/lib: java (17 or newer) and mvn are needed.
# Where others use the machine meanwhile, PRIORITY="chrt -r 5" has brokers and load scheduled before them, but not the threads of
# the kernel that flush: what waits for the disk is then not to be compared.
# PAIRS (3), SECONDS_PER_RUN (5), WARMUP (3s; Java compiles what it runs often meanwhile), SETTLE_SECONDS (10; what a broker does
# with new files is not measured), BACKLOG_BYTES (5000000000), TURBOPUMP (target/release/turbopump).
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
[ $# -ge 1 ] || { sed -n 2p "$0" >&2; exit 2; }
directory="$(realpath -m "$1")"; shift
parts=("$@"); [ $# -gt 0 ] || parts=(durable written tail backlog)
pairs="${PAIRS:-3}" seconds="${SECONDS_PER_RUN:-5}" warmup="${WARMUP:-3s}"
turbopump="${TURBOPUMP:-$here/target/release/turbopump}"
apache="$directory/apache"
# Words, not a path.
priority="${PRIORITY:-}"
broker= names=
trap '[ -z "$broker" ] || kill -KILL "$broker"; [ -z "$names" ] || kill -KILL "$names"' EXIT

mkdir -p "$apache/conf"
if [ ! -d "$apache/lib" ]; then
    cp "$here/tests/clients/remoting-mqadmin/pom.xml" "$apache/"
    (cd "$apache" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib >&2)
fi
# Without it they write their logger's news to standard output.
echo '<configuration></configuration>' >"$apache/conf/rmq.logback.xml"

# As Apache's own script for starting a broker has it, but for the memory. On one core Java would take another collector.
flags="-server -XX:+UseG1GC -XX:G1HeapRegionSize=16m -XX:G1ReservePercent=25 -XX:InitiatingHeapOccupancyPercent=30 -XX:SoftRefLRUPolicyMSPerMB=0"
java_on() { # core, memory, main class, configuration
    ROCKETMQ_HOME="$apache" exec $priority taskset -c "$1" java "-Xms$2" "-Xmx$2" $flags --add-exports java.base/sun.nio.ch=ALL-UNNAMED \
        "-Duser.home=$apache" "-Djava.io.tmpdir=$apache" -cp "$apache/conf:$apache/lib/*" "$3" -c "$4" >"$apache/$3.log" 2>&1
}
until_open() { # port, process
    until (: >"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do kill -0 "$2"; sleep 0.2; done
}
start_theirs() { # flush, recovery of the configuration: everything else is as it comes
    printf 'listenPort=39876\n' >"$apache/namesrv.conf"
    printf '%s\n' brokerName=theirs brokerClusterName=DefaultCluster brokerId=0 brokerIP1=127.0.0.1 listenPort=39911 \
        namesrvAddr=127.0.0.1:39876 "storePathRootDir=$directory/theirs" "storePathCommitLog=$directory/theirs/commitlog" \
        "flushDiskType=$1" autoCreateTopicEnable=true >"$apache/broker.conf"
    java_on 1 256m org.apache.rocketmq.namesrv.NamesrvStartup "$apache/namesrv.conf" & names=$!
    until_open 39876 "$names"
    java_on 0 2g org.apache.rocketmq.broker.BrokerStartup "$apache/broker.conf" & broker=$!
    until_open 39911 "$broker"
    address=127.0.0.1:39911
    sleep "${SETTLE_SECONDS:-10}"
}
start_ours() { # level, retention
    $priority "$turbopump" serve --data "$directory/ours" --listen 127.0.0.1:38911 --shards 1 --cores 0 --http none --namesrv none \
        --segment-bytes 256MiB --retention-bytes "$2" --level "$1" >"$directory/ours.log" 2>&1 & broker=$!
    until_open 38911 "$broker"
    address=127.0.0.1:38911
    sleep "${SETTLE_SECONDS:-10}"
}
stop() {
    kill -TERM "$broker"; wait "$broker" 2>/dev/null || true; broker=
    [ -z "$names" ] || { kill -TERM "$names"; wait "$names" 2>/dev/null || true; names=; }
    rm -rf "$directory/theirs" "$directory/ours"
}
run() { # side, label, then the bench's arguments
    local side="$1" label="$2"; shift 2
    local existing=(); [ "$1" != produce ] || existing=(--existing)
    printf '%s %s ' "$side" "$label"
    $priority "$turbopump" bench "$@" "${existing[@]}" --protocol remoting --server "$address" --server-pid "$broker" --body 256 \
        --queues "${queues:-4}" --pin 1 --warmup "$warmup" --duration "${seconds}s" -o json 2>/dev/null || true
}
rate_of() { sed 's/.*"messages_per_second":\([0-9]*\).*/\1/'; }
messages_of() { sed 's/.*"messages":\([0-9]*\).*/\1/'; }

sends() { # side, part
    run "$1" "$2-one" produce ones --batch 1 --connections 1 --in-flight 1
    run "$1" "$2-single" produce singles --batch 1 --connections 4 --in-flight 64
    run "$1" "$2-batch" produce batches --batch 100 --connections 4 --in-flight 8
}
steady() { # side, part
    run "$1" "$2-steady" produce singles --batch 1 --connections 4 --rate "$rate"
}
fill() { # topic, bytes of bodies
    local left=$(($2 / 256)) stored
    while [ "$left" -gt 0 ]; do
        stored=$(seconds=2 warmup=0s run fill fill produce "$1" --batch 100 --connections 4 --in-flight 8 --rate 200000 | messages_of)
        [ "$stored" -gt 0 ]; left=$((left - stored))
    done
}
pulls() { # side, part, bytes; as many queues as Apache's broker gives a topic, so that it is the broker that has all to do
    local queues=8
    fill "$2" "$3"
    run "$1" "$2" consume "$2" --connections 4
}
for part in "${parts[@]}"; do
    rate=
    for pair in $(seq "$pairs"); do
        case "$part" in
        durable | written)
            flush=SYNC_FLUSH; [ "$part" = durable ] || flush=ASYNC_FLUSH
            start_theirs "$flush"
            sends theirs "$part" | tee "$directory/theirs.txt"
            # Both at 80 % of what Apache's broker takes at most, as the first pair has found it.
            [ -n "$rate" ] || rate=$(($(grep -- -single "$directory/theirs.txt" | rate_of) * 8 / 10))
            steady theirs "$part"; stop
            start_ours "$part" 2GiB; sends ours "$part"; steady ours "$part"; stop ;;
        tail | backlog)
            bytes=100000000; [ "$part" = tail ] || bytes="${BACKLOG_BYTES:-5000000000}"
            start_theirs ASYNC_FLUSH; pulls theirs "$part" "$bytes"; stop
            start_ours written none; pulls ours "$part" "$bytes"; stop ;;
        *) echo "no part $part" >&2; exit 2 ;;
        esac
    done
done
