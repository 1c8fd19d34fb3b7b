#!/usr/bin/env bash
# Every command of RocketMQ's mqadmin against a broker of ours and against Apache's in the same state, outputs side by side: what
# differs has to stand in docs/mqadmin.md. Apache's broker, name server and tools come from Maven. `just compare-apache` is this.
#
# TURBOPUMP names another binary than the debug build's, MQADMIN a directory in which `lib` has what
# tests/clients/remoting-mqadmin/pom.xml names.
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in python3 java mvn; do
    if ! command -v "$tool" > /dev/null; then
        echo "tools/compare-apache.sh needs $tool: install Python 3, Java 17 or newer, and Maven" >&2
        exit 1
    fi
done
if [ -z "${TURBOPUMP:-}" ]; then
    cargo build --quiet
    TURBOPUMP="${CARGO_TARGET_DIR:-target}/debug/turbopump"
fi
TURBOPUMP=$(realpath "$TURBOPUMP")
export TURBOPUMP
if [ -z "${MQADMIN:-}" ]; then
    MQADMIN=$(mktemp -d)
    trap 'rm -rf "$MQADMIN"' EXIT
    cp tests/clients/remoting-mqadmin/pom.xml "$MQADMIN"
    (cd "$MQADMIN" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib)
fi
export MQADMIN
python3 -B tests/clients/remoting-mqadmin/compare.py
