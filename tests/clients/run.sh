#!/usr/bin/env bash
# Runs a client of the native protocol that was written from docs/native-protocol.md, and the vendor's HTTP SDKs for Python,
# Node.js, Java and Go, then RocketMQ's own clients for Java, Go and C++ (by way of Python) and its mqadmin, all unmodified, against
# the real broker on one and on four shards, then the README's steps as they stand there, its Python among them. Installs them into
# a throw-away directory. Without Java and Maven, or without Go, that one is left out. TURBOPUMP names another binary than the debug
# build's. Suites run beside each other, TURBOPUMP_SUITES at a time (as many as there are processors, unless it says otherwise); what
# one says is shown when it ends, and one that takes over ten minutes is stopped.
#
# A suite that fails beside others is run once more, alone, when these have ended. Real clients have timers of their own, which a busy
# machine upsets: one that passes then is named at the end as unsteady, with its first failure shown above, and is a fault to look
# into, in it or in the broker; but a moment of the machine's must not hide what all others have found. More than three are a failure,
# and are not run again.
#
# At the end it says, client by client, what works: a table of what the suites that passed have said, in lines like `works: push
# broadcasting`, which a suite prints once it has seen that (table.py). The README has that table, and has to agree.
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

width="${TURBOPUMP_SUITES:-$(nproc)}"
unsteady_max=3
# By the number of a suite: what it is called, whose client it runs and on how many shards, when it began.
names=() clients=() shard_counts=() began=()
# The suites that run, by their processes.
declare -A running=()
failed=()
client='' shards=''

finish() {
    if ((${#running[@]} > 0)); then kill "${!running[@]}" 2> /dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT

# ended: waits for one of the suites that run, and shows what it said.
ended() {
    local pid number line status=0
    wait -n -p pid "${!running[@]}" || status=$?
    number=${running[$pid]}
    unset "running[$pid]"
    printf '\n---- %s: %s s\n' "${names[number]}" "$((SECONDS - began[number]))"
    cat "$work/said.$number"
    if ((status != 0)); then
        echo "FAILED with $status: ${names[number]}"
        failed+=("$number")
        return
    fi
    while IFS= read -r line; do
        printf '%s\t%s\t%s\n' "${clients[number]}" "${shard_counts[number]}" "${line#*works: }" >> "$work/works"
    done < <(grep 'works: ' "$work/said.$number" || true)
    rm -rf "$work/home.$number"
}

# begin NUMBER: runs a suite in the background, in a directory of its own for what it leaves behind.
begin() {
    local home="$work/home.$1" command
    mapfile -d '' -t command < "$work/command.$1"
    rm -rf "$home"
    mkdir "$home"
    echo "begins: ${names[$1]}"
    TMPDIR="$home" timeout 600 "${command[@]//@HOME@/$home}" > "$work/said.$1" 2>&1 &
    running[$!]=$1
    began[$1]=$SECONDS
}

# suite NAME COMMAND...: runs the command beside other suites, when there is room for it. `@HOME@` in it stands for its own directory:
# clients keep logs, offsets and settings in their user's.
suite() {
    local number=${#names[@]}
    names+=("$1") clients+=("$client") shard_counts+=("$shards")
    # A client has its row whatever works.
    printf '%s\t\t\n' "$client" >> "$work/works"
    shift
    printf '%s\0' "$@" > "$work/command.$number"
    if ((${#running[@]} >= width)); then ended; fi
    begin "$number"
}

# compiled DIRECTORY: the suites for Java there, with the libraries that its pom.xml names; compiled once, not by each that runs.
compiled() {
    (cd "$1" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib)
    # A wildcard would be for the launcher, which is not javac's.
    local jars=("$1"/lib/*.jar)
    java -m jdk.compiler/com.sun.tools.javac.Main -proc:none -XDsuppressNotes -d "$1/classes" -cp "$(IFS=:; echo "${jars[*]}")" "$1"/*.java
}

client='native protocol, a client written from [its document](docs/native-protocol.md)'
for shards in 1 4; do
    suite "the native protocol from Python, as its document has it, $shards shard(s)" \
        env SHARDS=$shards python3 tests/clients/native-python/test_native.py
    suite "the same within TLS, $shards shard(s)" \
        env SHARDS=$shards TLS=1 python3 tests/clients/native-python/test_native.py
done

client='HTTP SDK for Python, `mq_http_sdk` 1.0.3'
python3 -m venv "$work/python"
"$work/python/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/python/requirements.txt
for shards in 1 4; do
    suite "HTTP SDK for Python, $shards shard(s)" \
        env SHARDS=$shards "$work/python/bin/python" -W ignore tests/clients/python/test_sdk.py
done

client='HTTP SDK for Node.js, `@aliyunmq/mq-http-sdk` 1.0.4'
mkdir "$work/node"
cp tests/clients/node/* "$work/node"
(cd "$work/node" && npm ci --silent --no-audit --no-fund)
for shards in 1 4; do
    suite "HTTP SDK for Node.js, $shards shard(s)" \
        env SHARDS=$shards TLS_FILES="$PWD/tests/data/tls" NODE_EXTRA_CA_CERTS="$PWD/tests/data/tls/certificate.pem" \
        node --test --test-reporter=spec "$work/node/sdk.test.js"
done

if command -v java > /dev/null && command -v mvn > /dev/null; then
    client='HTTP SDK for Java, `mq-http-sdk` 1.0.3.2'
    mkdir "$work/java"
    cp tests/clients/java/* "$work/java"
    compiled "$work/java"
    for shards in 1 4; do
        suite "HTTP SDK for Java, $shards shard(s)" \
            env SHARDS=$shards java -Djava.io.tmpdir=@HOME@ -cp "$work/java/lib/*:$work/java/classes" Suite
    done
else
    echo "SKIPPED: the HTTP SDK for Java, which needs java (11 or newer) and mvn"
fi

if command -v go > /dev/null; then
    client='HTTP SDK for Go, `mq-http-go-sdk` v1.0.3'
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
        client="Java, \`rocketmq-client\` $version"
        directory="$work/remoting-java-$version"
        mkdir "$directory"
        cp tests/clients/remoting-java/*.java "$directory"
        cp "tests/clients/remoting-java/pom-$version.xml" "$directory/pom.xml"
        compiled "$directory"
        java=(java -XX:TieredStopAtLevel=1 -Djava.io.tmpdir=@HOME@ -Duser.home=@HOME@ -cp "$directory/lib/*:$directory/classes")
        # They look at who is there every half second, as far as they can be told to.
        looking=-Drocketmq.client.rebalance.waitInterval=500
        # Those in order ask for their queues every half second, and count on them for less than the broker's three seconds.
        locking="-Drocketmq.client.rebalance.lockInterval=500 -Drocketmq.client.rebalance.lockMaxLiveTime=1500"
        for shards in 1 4; do
            # Headers as JSON, and in RocketMQ's own form.
            for headers in JSON ROCKETMQ; do
                suite "RocketMQ's client for Java $version, $shards shard(s), $headers headers" \
                    env SHARDS=$shards "${java[@]}" -Drocketmq.serialize.type=$headers Suite
            done
            headers=$([ "$version $shards" = "5.5.0 4" ] && echo ROCKETMQ || echo JSON)
            form=-Drocketmq.serialize.type=$headers
            suite "Consumers of RocketMQ's client for Java $version, $shards shard(s), $headers headers" \
                env SHARDS=$shards "${java[@]}" $form $looking Consumers
            # Few rounds: TURBOPUMP_KILL_ROUNDS for more.
            suite "Kills of the broker under RocketMQ's client for Java $version, $shards shard(s)" \
                env SHARDS=$shards "${java[@]}" $looking Kills
            suite "Expressions and look-ups of RocketMQ's client for Java $version, $shards shard(s), $headers headers" \
                env SHARDS=$shards "${java[@]}" $form $looking Queries
            suite "Transactions of RocketMQ's client for Java $version, $shards shard(s), $headers headers" \
                env SHARDS=$shards "${java[@]}" $form Transactions
            suite "Consumers in order of RocketMQ's client for Java $version, $shards shard(s)" \
                env SHARDS=$shards "${java[@]}" $looking $locking Orders
            # Few rounds, as above.
            suite "Kills of the broker under everything at once of RocketMQ's client for Java $version, $shards shard(s)" \
                env SHARDS=$shards "${java[@]}" $looking $locking KillsOfAll
            suite "Requests and replies of RocketMQ's client for Java $version, $shards shard(s), $headers headers" \
                env SHARDS=$shards "${java[@]}" $form Requests
            suite "Keys and TLS of RocketMQ's client for Java $version, $shards shard(s), $headers headers" \
                env SHARDS=$shards TLS_FILES="$PWD/tests/data/tls" "${java[@]}" $form Secured
        done
    done
else
    echo "SKIPPED: RocketMQ's client for Java, which needs java (11 or newer) and mvn"
fi

if command -v go > /dev/null; then
    client='Go, `rocketmq-client-go/v2` v2.1.2'
    mkdir "$work/remoting-go"
    cp tests/clients/remoting-go/* "$work/remoting-go"
    (cd "$work/remoting-go" && go build -mod=readonly -o suite .)
    for shards in 1 4; do
        suite "RocketMQ's client for Go, $shards shard(s)" env SHARDS=$shards HOME=@HOME@ "$work/remoting-go/suite"
    done
else
    echo "SKIPPED: RocketMQ's client for Go, which needs go (1.26 or newer)"
fi

client='C++ in the PyPI wheel `rocketmq` 0.4.4'
python3 -m venv "$work/remoting-python"
"$work/remoting-python/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/remoting-python/requirements.txt
for shards in 1 4; do
    suite "RocketMQ's client for C++ in the Python wheel, $shards shard(s)" \
        env SHARDS=$shards HOME=@HOME@ "$work/remoting-python/bin/python" tests/clients/remoting-python/test_remoting.py
    suite "Consumers of RocketMQ's client for C++ in the Python wheel, $shards shard(s)" \
        env SHARDS=$shards HOME=@HOME@ "$work/remoting-python/bin/python" -B tests/clients/remoting-python/test_consumers.py
done

# The other package for Python brings no library: it gets the wheel's, by way of a shim. Both are called rocketmq.
client='PyPI `rocketmq-client-python` 2.0.0, on the library of that wheel'
python3 -m venv "$work/client-python"
"$work/client-python/bin/pip" install --quiet --disable-pip-version-check rocketmq-client-python==2.0.0
packages() { "$work/$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))'; }
wheel="$(packages remoting-python)/rocketmq"
cc -shared -fPIC -Wall -o "$(packages client-python)/rocketmq/librocketmq.so" tests/clients/remoting-python/shim.c \
    -Wl,-soname,librocketmq-shim.so -Wl,--no-as-needed -Wl,--allow-shlib-undefined -L"$wheel" -lrocketmq -Wl,-rpath,"$wheel"
for shards in 1 4; do
    suite "rocketmq-client-python, $shards shard(s)" \
        env SHARDS=$shards HOME=@HOME@ "$work/client-python/bin/python" tests/clients/remoting-python/test_client_python.py
done

if command -v java > /dev/null && command -v mvn > /dev/null; then
    client='`mqadmin` 5.5.0'
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
    suite "mqadmin beside itself, against our broker and Apache's" \
        env MQADMIN="$work/mqadmin" python3 -B tests/clients/remoting-mqadmin/compare.py
else
    echo "SKIPPED: RocketMQ's mqadmin, which needs java (17 or newer) and mvn"
fi

client='' shards=''
programs=(PYTHON="$work/python/bin/python" ROCKETMQ_PYTHON="$work/remoting-python/bin/python")
if [ -d "$work/remoting-java-5.5.0/lib" ]; then programs+=(ROCKETMQ_JAVA="$work/remoting-java-5.5.0/lib"); fi
if [ -d "$work/remoting-go" ]; then programs+=(ROCKETMQ_GO="$work/remoting-go"); fi
suite "the README's steps and programs" env "${programs[@]}" bash tests/clients/readme.sh

while ((${#running[@]} > 0)); do ended; done
again=() unsteady=()
if ((${#failed[@]} <= unsteady_max)); then
    again=("${failed[@]}")
    failed=()
else
    printf '\nMore than %s have failed: none is run again.\n' "$unsteady_max"
fi
for number in "${again[@]}"; do
    printf '\nOnce more, alone:\n'
    before=${#failed[@]}
    begin "$number"
    ended
    if ((${#failed[@]} == before)); then unsteady+=("$number"); fi
done

printf '\n---- what works, client by client\n'
if ((${#failed[@]} == 0)); then
    python3 tests/clients/table.py "$work/works" README.md || differs=1
else
    python3 tests/clients/table.py "$work/works"
fi
echo
for number in "${unsteady[@]}"; do echo "unsteady: ${names[number]} (failed beside others, passed alone)"; done
for number in "${failed[@]}"; do echo "failed: ${names[number]}"; done
if ((${#failed[@]} > 0 || ${differs:-0})); then exit 1; fi
echo "the clients work"
