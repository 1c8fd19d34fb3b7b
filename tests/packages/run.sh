#!/usr/bin/env bash
# The packages: what Cargo.toml says of them is true, and the crate's archive builds by itself. Then the one for Debian as who installs it
# meets it: made of a program that was built before, installed by apt in a root that holds nothing but a minimal Debian, its unit's command
# run as its user, messages sent and read, removed (the messages stay), installed again, purged (they stay).
#
# TURBOPUMP names another program than the debug build's. Needs root, since it installs, and packages of Debian: debootstrap and
# dpkg-dev are installed where they are missing. TURBOPUMP_TEST_DIR names a directory on ext4 or xfs for the root.
set -euo pipefail
cd "$(dirname "$0")/../.."
begun=$SECONDS
say() { printf '  %s (%ss)\n' "$*" "$((SECONDS - begun))"; }

if [ "$(id -u)" != 0 ]; then
    echo "tests/packages/run.sh installs packages: run it as root" >&2
    exit 1
fi
if [ -z "${TURBOPUMP:-}" ]; then
    cargo build --quiet
    TURBOPUMP="${CARGO_TARGET_DIR:-target}/debug/turbopump"
fi
missing=()
command -v debootstrap > /dev/null || missing+=(debootstrap)
command -v dpkg-shlibdeps > /dev/null || missing+=(dpkg-dev)
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
if [ "${#missing[@]}" -gt 0 ]; then
    apt-get install -qq -y --no-install-recommends "${missing[@]}" > /dev/null
    say "installed ${missing[*]}"
fi

work=$(mktemp -d "${TURBOPUMP_TEST_DIR:-$PWD/target}/packages-XXXXXX")
# What is mounted below it is mounted in a name space of its own, and is gone with the process.
trap 'rm -rf --one-file-system "$work"' EXIT
export WORK=$work TURBOPUMP

python3 -B tests/packages/metadata.py
# What `cargo install` gets has to build by itself. Its dependencies were checked before, where CI runs this.
cargo package --quiet --no-verify --allow-dirty
target=$(realpath "${CARGO_TARGET_DIR:-target}")
tar --extract --gzip --file "$(ls -t "$target"/package/turbopump-*.crate | head -n 1)" --directory "$work"
(cd "$work"/turbopump-*/ && cargo check --quiet --locked --bins --target-dir "$target")
say "the crate's archive has what it needs to be built"
bash tools/package/prepare.sh "$TURBOPUMP"
DEB=$(python3 -B tools/package/deb.py --binary "$TURBOPUMP" --output "$work")
export DEB
say "made $(basename "$DEB"), $(du -h "$DEB" | cut -f1)"

# The mirror and the suite that this machine itself uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' | head -n 1)
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
if ! debootstrap --variant=minbase "$suite" "$work/root" "$mirror" > "$work/debootstrap.log" 2>&1; then
    tail -n 20 "$work/debootstrap.log" >&2
    exit 1
fi
say "made a minimal $suite"
unshare --mount --propagation private bash tests/packages/inside.sh
say "done"
