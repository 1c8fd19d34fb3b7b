#!/usr/bin/env bash
# Runs the coverage-guided fuzzer over the targets of src/testing/fuzz, from the corpus in tools/fuzz/corpus on.
#
#     bash tools/fuzz/run.sh [SECONDS] [TARGET ...]
#
# SECONDS (60 when nothing is said) are shared by the targets, by default all. What is found new goes to a throw-away
# directory. An input that fails is kept in tools/fuzz/artifacts, its path is printed, and the script exits 1; to repeat it:
#
#     bash tools/fuzz/run.sh repeat TARGET FILE
#
# Put it into tools/fuzz/corpus/TARGET with the repair: `cargo test --test fuzz` replays the corpus with any compiler. To take
# some of what a long run has found into the corpus, which is kept small:
#
#     bash tools/fuzz/run.sh grow SECONDS TARGET ...
#
# It needs a C++ compiler, and takes a nightly Rust where there is one. cargo-fuzz is not needed; with it, the same is
# `TURBOPUMP_FUZZ_TARGET=frames cargo fuzz run --fuzz-dir tools/fuzz targets tools/fuzz/corpus/frames`.
set -euo pipefail
cd "$(dirname "$0")/../.."

# As cargo-fuzz does it: every edge of the program is counted, and each comparison's operands are seen. Not on build scripts
# and macros, which a named target keeps apart.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=16"
toolchain=()
if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then toolchain=(+nightly); fi
target="${CARGO_TARGET_DIR:-target}/fuzz"
cargo "${toolchain[@]}" build --quiet --release --manifest-path tools/fuzz/Cargo.toml --target "$host" --target-dir "$target"
program=$(realpath "$target/$host/release/targets")

# The slowest targets take milliseconds: an input that takes seconds is a finding.
run() { TURBOPUMP_FUZZ_TARGET="$1" "$program" -timeout=10 -rss_limit_mb=1024 -max_len=8192 "${@:2}"; }
# New files that `grow` takes for a target at most, spread over their sizes. What reaches further is found again in seconds.
grown_max=24

if [ "${1:-}" = repeat ]; then
    run "$2" "$3"
    exit
fi
grow=
if [ "${1:-}" = grow ]; then grow=1; shift; fi
seconds="${1:-60}"
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || for folder in tools/fuzz/corpus/*/; do targets+=("$(basename "$folder")"); done
share=$((seconds / ${#targets[@]}))
[ "$share" -gt 0 ] || share=1
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
mkdir -p tools/fuzz/artifacts
failed=0
for name in "${targets[@]}"; do
    corpus="tools/fuzz/corpus/$name"
    mkdir -p "$corpus" "$found/$name"
    if run "$name" -max_total_time="$share" -artifact_prefix="tools/fuzz/artifacts/$name-" \
        "$found/$name" "$corpus" >"$found/log" 2>&1; then
        # Its last line but one says how often it was called.
        grep -E '^Done ' "$found/log" | sed "s/^/$name: /"
    else
        failed=1
        echo "$name FAILED:"
        tail -n 40 "$found/log"
    fi
    if [ -n "$grow" ]; then
        cp -r "$corpus" "$found/$name.merged"
        run "$name" -merge=1 "$found/$name.merged" "$found/$name" >"$found/log" 2>&1
        find "$found/$name.merged" -type f -size -3k -printf '%s %f\n' | sort -n | cut -d ' ' -f 2 |
            while IFS= read -r file; do [ -e "$corpus/$file" ] || echo "$found/$name.merged/$file"; done |
            awk -v most="$grown_max" '{ file[NR] = $0 } END { step = NR > most ? NR / most : 1;
                for (at = 1; at < NR + 1; at += step) print file[int(at)] }' | xargs -r cp -t "$corpus"
    fi
done
rmdir tools/fuzz/artifacts 2>/dev/null || true
exit "$failed"
