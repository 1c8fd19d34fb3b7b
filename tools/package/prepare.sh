#!/usr/bin/env bash
# What a package has beside the program and the files that are in the repository: manual pages and completions, made by the program
# itself. `cargo deb` and `cargo generate-rpm` take them from target/distribution.
#
#   bash tools/package/prepare.sh [BINARY]    # target/release/turbopump, unless another one is named
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=$(realpath "${1:-target/release/turbopump}")
output=target/distribution
rm -rf "$output"
mkdir -p "$output/man" "$output/completions"
"$binary" man "$output/man"
gzip --best --no-name "$output"/man/*.1
for shell in bash zsh fish; do
    "$binary" completion "$shell" > "$output/completions/$shell"
done
