#!/usr/bin/env bash
# The console in a real browser: headless Chromium against the real broker with consumers of every protocol, at 360 and 1600 pixels,
# light and dark, and by keyboard alone. TURBOPUMP names another binary than the debug build's, CHROMIUM another browser than Debian's,
# which is installed where there is none and one may. The pictures are in target/console, for a person to look at. With `--picture`
# only the one of the README is made, and docs/console.png is it.
set -euo pipefail
chosen=()
if [ "${1:-}" = --picture ]; then
    chosen=(--test-name-pattern "the picture of the README")
    export PICTURE=1
fi
cd "$(dirname "$0")/../.."
for tool in node npm; do
    if ! command -v "$tool" > /dev/null; then
        echo "tests/console/run.sh needs $tool: install Node.js 20 or newer with npm" >&2
        exit 1
    fi
done
if [ -z "${CHROMIUM:-}" ]; then
    if ! command -v chromium > /dev/null; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
            echo "tests/console/run.sh needs Chromium: install Debian's package chromium, or name a browser in CHROMIUM" >&2
            exit 1
        fi
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation > /dev/null
    fi
    CHROMIUM=$(command -v chromium)
fi
if [ -z "${TURBOPUMP:-}" ]; then
    cargo build --quiet
    TURBOPUMP="${CARGO_TARGET_DIR:-target}/debug/turbopump"
fi
TURBOPUMP=$(realpath "$TURBOPUMP")
PICTURES="$(realpath -m "${CARGO_TARGET_DIR:-target}")/console"
export CHROMIUM TURBOPUMP PICTURES
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
rm -rf "$PICTURES"
mkdir -p "$PICTURES"
# Nothing is left in the tree: the suite and what it stands on are installed into a directory that goes.
cp tests/console/*.mjs tests/console/package*.json "$work"
(cd "$work" && npm ci --silent --ignore-scripts --no-audit --no-fund)
(cd "$work" && timeout 600 node --test --test-concurrency=1 "${chosen[@]}" console.test.mjs)
echo "pictures: $PICTURES"
[ ${#chosen[@]} = 0 ] || cp "$PICTURES/readme.png" docs/console.png
