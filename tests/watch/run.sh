#!/usr/bin/env bash
# A night's watch in small: things break, and each has to be seen where somebody on call looks, without reading logs: in `turbopump top`,
# in the metrics, in what the console shows, and by the rules of `turbopump generate alerts` in the real Prometheus. watch.py says
# what breaks. TURBOPUMP names another program than the debug build's.
#
# Needs root: the disk that fills up and gets slow is a file system of its own in a file. Prometheus is Debian's package, which is
# installed where there is none. About two minutes, since the rules' times are a thirtieth of what they are.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$(id -u)" != 0 ]; then
    echo "tests/watch/run.sh mounts a file system: run it as root" >&2
    exit 1
fi
if ! command -v prometheus > /dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus > /dev/null
fi
if [ -z "${TURBOPUMP:-}" ]; then
    cargo build --quiet
    TURBOPUMP="${CARGO_TARGET_DIR:-target}/debug/turbopump"
fi
TURBOPUMP=$(realpath "$TURBOPUMP")
export TURBOPUMP
work=$(mktemp -d "${TURBOPUMP_TEST_DIR:-$PWD/target}/watch-XXXXXX")
mounted=
finish() {
    if [ -n "$mounted" ]; then
        fsfreeze --unfreeze "$work/disk" 2> /dev/null || true
        umount "$work/disk"
    fi
    rm -rf --one-file-system "$work"
}
trap finish EXIT
truncate --size=1G "$work/image"
mkfs.ext4 -q "$work/image"
mkdir "$work/disk"
mount -o loop "$work/image" "$work/disk"
mounted=1
timeout 600 python3 -B tests/watch/watch.py "$work"
