#!/usr/bin/env bash
# Within a name space of mounts: what run.sh does with the clean root. WORK, DEB and TURBOPUMP come from there.
set -euo pipefail
root=$WORK/root
say() { printf '  %s\n' "$*"; }
fail() { echo "tests/packages: $*" >&2; exit 1; }
inside() { chroot "$root" "$@"; }

mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
# The runtime finds the cores there.
mount --rbind /sys "$root/sys"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp -r /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
cp "$DEB" "$root/package.deb"
export DEBIAN_FRONTEND=noninteractive

install() {
    # By apt, so that what the package depends on has to be true.
    inside apt-get install -qq -y --no-install-recommends /package.deb > "$WORK/apt.log" 2>&1 ||
        { tail -n 20 "$WORK/apt.log" >&2; fail "apt-get install fails"; }
}
owner() { inside stat --format '%U:%G %a' "$1"; }

install
[ "$(owner /var/lib/turbopump)" = "turbopump:turbopump 750" ] || fail "/var/lib/turbopump is $(owner /var/lib/turbopump)"
[ "$(owner /etc/turbopump)" = "root:turbopump 750" ] || fail "/etc/turbopump is $(owner /etc/turbopump)"
[ "$(inside getent passwd turbopump | cut -d: -f7)" = /usr/sbin/nologin ] || fail "turbopump can log in"
inside turbopump --version | grep -q '^turbopump ' || fail "the program does not run"
for page in turbopump turbopump-serve turbopump-topic-create turbopump-check; do
    [ -s "$root/usr/share/man/man1/$page.1.gz" ] || fail "there is no manual page $page"
done
inside bash -n /usr/share/bash-completion/completions/turbopump
say "installed, with its user, its directories, manual pages and completions"

# Read by the unit: small segments, since a runner's disk is small.
echo 'TURBOPUMP_SEGMENT_BYTES=16MiB' >> "$root/etc/default/turbopump"
inside turbopump serve --config /etc/turbopump/turbopump.toml --print-config | grep -q '^data = "/var/lib/turbopump"' ||
    fail "the configuration file does not name the data directory"
unshare --net python3 -B tests/packages/unit.py "$root" first
say "the unit's command serves as its user, tells systemd when it is ready, reloads and stops"

stored() { (cd "$root/var/lib/turbopump" && find . -type f | sort); }
before=$(stored)
inside apt-get remove -qq -y turbopump > /dev/null 2>&1
[ ! -e "$root/usr/bin/turbopump" ] || fail "the program is there after its removal"
[ "$(stored)" = "$before" ] || fail "a removal takes messages along"
grep -q SEGMENT_BYTES "$root/etc/default/turbopump" || fail "a removal takes settings along"
install
unshare --net python3 -B tests/packages/unit.py "$root" again
say "removed and installed again: messages and settings are there"

before=$(stored)
inside apt-get purge -qq -y turbopump > "$WORK/purge.log" 2>&1
grep -q '/var/lib/turbopump is kept' "$WORK/purge.log" || fail "a purge does not tell that the data stays"
[ ! -e "$root/etc/turbopump" ] || fail "a purge leaves settings"
[ "$(stored)" = "$before" ] || fail "a purge takes messages along"
say "purged: settings are gone, messages are not"
