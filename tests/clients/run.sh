#!/usr/bin/env bash
# Runs a client of the native protocol that was written from docs/native-protocol.md, and the vendor's HTTP SDKs for Python,
# Node.js, Java and Go, then RocketMQ's own clients for Java, Go and C++ (by way of Python) and its mqadmin, all unmodified, against
# the real broker on one and on four shards, then the README's steps as they stand there, its Python among them. Installs them into
# a throw-away directory. Without Java and Maven, or without Go, that one is left out. TURBOPUMP names another binary than the debug
# build's. Suites run beside each other, TURBOPUMP_SUITES at a time (as many as there are processors, unless it says otherwise); what
# one says is shown when it ends, and one that takes over ten minutes is stopped.
set -euo pipefail
cd "$(dirname "$0")/../.."
for tool in python3 node npm; do
    if ! command -v "$tool" > /dev/null; then
        echo "tests/clients/run.sh needs $tool: install Python 3 with venv, and Node.js 20 or newer with npm" >&2
        exit 1
    fi
done
if [ -z "${TURBOPUMP:-}" ]; then
    cargo build --quiet
    TURBOPUMP="${CARGO_TARGET_DIR:-target}/debug/turbopump"
fi
TURBOPUMP=$(realpath "$TURBOPUMP")
export TURBOPUMP
work=$(mktemp -d)
# What a suite leaves behind goes with the rest.
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT

width="${TURBOPUMP_SUITES:-$(nproc)}"
declare -A names=() began=() said=()
started=0
failed=()

# ended: waits for one of the suites that run, and shows what it said.
ended() {
    local pid status=0
    wait -n -p pid "${!names[@]}" || status=$?
    printf '\n---- %s: %s s\n' "${names[$pid]}" "$((SECONDS - began[$pid]))"
    cat "${said[$pid]}"
    if ((status != 0)); then
        echo "FAILED with $status: ${names[$pid]}"
        failed+=("${names[$pid]}")
    fi
    unset "names[$pid]" "began[$pid]" "said[$pid]"
}

# suite NAME COMMAND...: runs the command beside other suites, when there is room for it.
suite() {
    local name="$1"
    shift
    if ((${#names[@]} >= width)); then ended; fi
    echo "begins: $name"
    started=$((started + 1))
    timeout 600 "$@" > "$work/said.$started" 2>&1 &
    names[$!]="$name"
    began[$!]=$SECONDS
    said[$!]="$work/said.$started"
}

for shards in 1 4; do
    suite "the native protocol from Python, as its document has it, $shards shard(s)" \
        env SHARDS=$shards python3 tests/clients/native-python/test_native.py
    suite "the same within TLS, $shards shard(s)" \
        env SHARDS=$shards TLS=1 python3 tests/clients/native-python/test_native.py
done

python3 -m venv "$work/python"
"$work/python/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/python/requirements.txt
for shards in 1 4; do
    suite "HTTP SDK for Python, $shards shard(s)" \
        env SHARDS=$shards "$work/python/bin/python" -W ignore tests/clients/python/test_sdk.py
done

mkdir "$work/node"
cp tests/clients/node/* "$work/node"
(cd "$work/node" && npm ci --silent --no-audit --no-fund)
for shards in 1 4; do
    suite "HTTP SDK for Node.js, $shards shard(s)" \
        env SHARDS=$shards TLS_FILES="$PWD/tests/data/tls" NODE_EXTRA_CA_CERTS="$PWD/tests/data/tls/certificate.pem" \
        node --test --test-reporter=spec "$work/node/sdk.test.js"
done

if command -v java > /dev/null && command -v mvn > /dev/null; then
    mkdir "$work/java"
    cp tests/clients/java/* "$work/java"
    (cd "$work/java" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib)
    for shards in 1 4; do
        suite "HTTP SDK for Java, $shards shard(s)" \
            env SHARDS=$shards java -Djava.io.tmpdir="$work" -cp "$work/java/lib/*" "$work/java/Suite.java"
    done
else
    echo "SKIPPED: the HTTP SDK for Java, which needs java (11 or newer) and mvn"
fi

if command -v go > /dev/null; then
    mkdir "$work/go"
    cp tests/clients/go/* "$work/go"
    (cd "$work/go" && go build -mod=readonly -o suite .)
    for shards in 1 4; do
        suite "HTTP SDK for Go, $shards shard(s)" env SHARDS=$shards "$work/go/suite"
    done
else
    echo "SKIPPED: the HTTP SDK for Go, which needs go (1.26 or newer)"
fi

if command -v java > /dev/null && command -v mvn > /dev/null; then
    for version in 4.9.8 5.5.0; do
        mkdir "$work/remoting-java-$version"
        cp tests/clients/remoting-java/*.java "$work/remoting-java-$version"
        cp "tests/clients/remoting-java/pom-$version.xml" "$work/remoting-java-$version/pom.xml"
        (cd "$work/remoting-java-$version" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib)
        # Headers as JSON, and in RocketMQ's own form.
        for shards in 1 4; do
            for headers in JSON ROCKETMQ; do
                suite "RocketMQ's client for Java $version, $shards shard(s), $headers headers" \
                    env SHARDS=$shards java -Djava.io.tmpdir="$work" -Duser.home="$work" -Drocketmq.serialize.type=$headers \
                    -cp "$work/remoting-java-$version/lib/*" "$work/remoting-java-$version/Suite.java"
            done
            # They look at who is there every half second, as far as they can be told to.
            headers=$([ "$version $shards" = "5.5.0 4" ] && echo ROCKETMQ || echo JSON)
            consumers="$work/remoting-java-$version/Consumers.java"
            suite "Consumers of RocketMQ's client for Java $version, $shards shard(s), $headers headers" \
                env SHARDS=$shards java -XX:TieredStopAtLevel=1 -Djava.io.tmpdir="$work" -Duser.home="$work" \
                -Drocketmq.serialize.type=$headers -Drocketmq.client.rebalance.waitInterval=500 -Dsuite.source="$consumers" \
                -cp "$work/remoting-java-$version/lib/*" "$consumers"
            # Few rounds: TURBOPUMP_KILL_ROUNDS for more.
            suite "Kills of the broker under RocketMQ's client for Java $version, $shards shard(s)" \
                env SHARDS=$shards java -XX:TieredStopAtLevel=1 -Djava.io.tmpdir="$work" -Duser.home="$work" \
                -Drocketmq.client.rebalance.waitInterval=500 -cp "$work/remoting-java-$version/lib/*" \
                "$work/remoting-java-$version/Kills.java"
            suite "Expressions and look-ups of RocketMQ's client for Java $version, $shards shard(s), $headers headers" \
                env SHARDS=$shards java -XX:TieredStopAtLevel=1 -Djava.io.tmpdir="$work" -Duser.home="$work" \
                -Drocketmq.serialize.type=$headers -Drocketmq.client.rebalance.waitInterval=500 \
                -cp "$work/remoting-java-$version/lib/*" "$work/remoting-java-$version/Queries.java"
            transactions="$work/remoting-java-$version/Transactions.java"
            suite "Transactions of RocketMQ's client for Java $version, $shards shard(s), $headers headers" \
                env SHARDS=$shards java -XX:TieredStopAtLevel=1 -Djava.io.tmpdir="$work" -Duser.home="$work" \
                -Drocketmq.serialize.type=$headers -Dsuite.source="$transactions" \
                -cp "$work/remoting-java-$version/lib/*" "$transactions"
            # They ask for their queues every half second, and count on them for less than the broker's three seconds.
            orders="$work/remoting-java-$version/Orders.java"
            suite "Consumers in order of RocketMQ's client for Java $version, $shards shard(s)" \
                env SHARDS=$shards java -XX:TieredStopAtLevel=1 -Djava.io.tmpdir="$work" -Duser.home="$work" \
                -Drocketmq.client.rebalance.waitInterval=500 -Drocketmq.client.rebalance.lockInterval=500 \
                -Drocketmq.client.rebalance.lockMaxLiveTime=1500 -Dsuite.source="$orders" \
                -cp "$work/remoting-java-$version/lib/*" "$orders"
            # The same locks; few rounds: TURBOPUMP_KILL_ROUNDS for more.
            suite "Kills of the broker under everything at once of RocketMQ's client for Java $version, $shards shard(s)" \
                env SHARDS=$shards java -XX:TieredStopAtLevel=1 -Djava.io.tmpdir="$work" -Duser.home="$work" \
                -Drocketmq.client.rebalance.waitInterval=500 -Drocketmq.client.rebalance.lockInterval=500 \
                -Drocketmq.client.rebalance.lockMaxLiveTime=1500 -cp "$work/remoting-java-$version/lib/*" \
                "$work/remoting-java-$version/KillsOfAll.java"
            suite "Requests and replies of RocketMQ's client for Java $version, $shards shard(s), $headers headers" \
                env SHARDS=$shards java -XX:TieredStopAtLevel=1 -Djava.io.tmpdir="$work" -Duser.home="$work" \
                -Drocketmq.serialize.type=$headers -cp "$work/remoting-java-$version/lib/*" \
                "$work/remoting-java-$version/Requests.java"
        done
    done
else
    echo "SKIPPED: RocketMQ's client for Java, which needs java (11 or newer) and mvn"
fi

if command -v go > /dev/null; then
    mkdir "$work/remoting-go"
    cp tests/clients/remoting-go/* "$work/remoting-go"
    (cd "$work/remoting-go" && go build -mod=readonly -o suite .)
    for shards in 1 4; do
        suite "RocketMQ's client for Go, $shards shard(s)" env SHARDS=$shards HOME="$work" "$work/remoting-go/suite"
    done
else
    echo "SKIPPED: RocketMQ's client for Go, which needs go (1.26 or newer)"
fi

python3 -m venv "$work/remoting-python"
"$work/remoting-python/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/remoting-python/requirements.txt
for shards in 1 4; do
    suite "RocketMQ's client for C++ in the Python wheel, $shards shard(s)" \
        env SHARDS=$shards HOME="$work" "$work/remoting-python/bin/python" tests/clients/remoting-python/test_remoting.py
    suite "Consumers of RocketMQ's client for C++ in the Python wheel, $shards shard(s)" \
        env SHARDS=$shards HOME="$work" "$work/remoting-python/bin/python" -B tests/clients/remoting-python/test_consumers.py
done

# The other package for Python brings no library: it gets the wheel's, by way of a shim. Both are called rocketmq.
python3 -m venv "$work/client-python"
"$work/client-python/bin/pip" install --quiet --disable-pip-version-check rocketmq-client-python==2.0.0
packages() { "$work/$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))'; }
wheel="$(packages remoting-python)/rocketmq"
cc -shared -fPIC -Wall -o "$(packages client-python)/rocketmq/librocketmq.so" tests/clients/remoting-python/shim.c \
    -Wl,-soname,librocketmq-shim.so -Wl,--no-as-needed -Wl,--allow-shlib-undefined -L"$wheel" -lrocketmq -Wl,-rpath,"$wheel"
for shards in 1 4; do
    suite "rocketmq-client-python, $shards shard(s)" \
        env SHARDS=$shards HOME="$work" "$work/client-python/bin/python" tests/clients/remoting-python/test_client_python.py
done

if command -v java > /dev/null && command -v mvn > /dev/null; then
    mkdir "$work/mqadmin"
    cp tests/clients/remoting-mqadmin/pom.xml "$work/mqadmin"
    (cd "$work/mqadmin" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib)
    for shards in 1 4; do
        suite "RocketMQ's mqadmin, beside Apache's own broker and name server, $shards shard(s)" \
            env SHARDS=$shards MQADMIN="$work/mqadmin" python3 tests/clients/remoting-mqadmin/test_mqadmin.py
        suite "Look-ups by RocketMQ's mqadmin, $shards shard(s)" \
            env SHARDS=$shards MQADMIN="$work/mqadmin" python3 -B tests/clients/remoting-mqadmin/test_queries.py
        suite "Our commands beside RocketMQ's mqadmin, $shards shard(s)" \
            env SHARDS=$shards MQADMIN="$work/mqadmin" python3 -B tests/clients/remoting-mqadmin/test_verbs.py
    done
else
    echo "SKIPPED: RocketMQ's mqadmin, which needs java (17 or newer) and mvn"
fi

# The README's steps have the machine to themselves: their name server listens on the default address.
while ((${#names[@]} > 0)); do ended; done
programs=(PYTHON="$work/python/bin/python" ROCKETMQ_PYTHON="$work/remoting-python/bin/python")
if [ -d "$work/remoting-java-5.5.0/lib" ]; then programs+=(ROCKETMQ_JAVA="$work/remoting-java-5.5.0/lib"); fi
if [ -d "$work/remoting-go" ]; then programs+=(ROCKETMQ_GO="$work/remoting-go"); fi
suite "the README's steps and programs" env "${programs[@]}" bash tests/clients/readme.sh
ended
if ((${#failed[@]} > 0)); then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
echo "the clients work"
