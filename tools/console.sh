#!/usr/bin/env bash
# Builds the console's page: src/console into src/console/assets, which is committed and compiled into the broker. With `--check` it
# builds aside and exits with 1 when that is not what is committed. Needs Node.js 20 or newer with npm.
set -euo pipefail
cd "$(dirname "$0")/../src/console"
npm ci --silent --ignore-scripts --no-audit --no-fund
npm run --silent check
node build.mjs "$@"
