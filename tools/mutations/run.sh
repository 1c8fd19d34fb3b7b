#!/usr/bin/env bash
# Shows that the tests can fail: takes each repair back, one at a time, and asks that its test notices.
#
#     bash tools/mutations/run.sh [name ...]
#
# A mutation is a file NAME.patch: its first line is `test: ` and what `cargo test` is to be given, then comes a unified diff
# that takes the repair back. It is applied to a copy of the committed tree, so nothing here is touched; TURBOPUMP_MUTATIONS
# names a folder for that copy and its build, to be used again. Exits 1 when a test passed all the same, or a patch does not
# apply any more.
set -euo pipefail
cd "$(dirname "$0")/../.."
root="$PWD"
work="${TURBOPUMP_MUTATIONS:-$(mktemp -d)}"
[ -n "${TURBOPUMP_MUTATIONS:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tree"
names=("$@")
[ $# -gt 0 ] || for patch in tools/mutations/*.patch; do names+=("$(basename "$patch" .patch)"); done

caught=0 missed=0
for name in "${names[@]}"; do
    patch="$root/tools/mutations/$name.patch"
    # Only what differs is written, so that the build of the one before can be used.
    rm -rf "$work/fresh"; mkdir "$work/fresh"
    git archive HEAD | tar -x -C "$work/fresh"
    if ! (cd "$work/fresh" && tail -n +2 "$patch" | patch -p1 --silent --forward); then
        echo "STALE   $name: the patch does not apply"; missed=$((missed + 1)); continue
    fi
    (cd "$work/fresh" && find . -type f -print0) | while IFS= read -r -d '' file; do
        cmp --silent "$work/fresh/$file" "$work/tree/$file" || install -D --no-target-directory "$work/fresh/$file" "$work/tree/$file"
    done
    read -ra test <<<"$(head -n 1 "$patch" | sed 's/^test: //')"
    if ! (cd "$work/tree" && cargo test --quiet --no-run "${test[@]}" >"$work/log" 2>&1); then
        echo "STALE   $name: it does not build"; cat "$work/log"; missed=$((missed + 1)); continue
    fi
    status=0
    (cd "$work/tree" && timeout 300 cargo test --quiet "${test[@]}" >"$work/log" 2>&1) || status=$?
    case "$status" in
    0) echo "MISSED  $name: cargo test ${test[*]} passes without the repair"; missed=$((missed + 1)) ;;
    # What makes a test hang is noticed too, but a machine that is busy looks the same.
    124) echo "HANGS   $name: cargo test ${test[*]} did not end in 300 s"; missed=$((missed + 1)) ;;
    *) echo "caught  $name"; caught=$((caught + 1)) ;;
    esac
done
echo "$caught caught, $missed missed"
[ "$missed" -eq 0 ]
