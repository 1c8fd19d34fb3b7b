# The daily commands; `just` lists them. None is needed to build, run or test: cargo is enough.

default:
    @just --list

# Start a broker on ./data
serve *flags:
    cargo run --release -- serve --data data {{flags}}

# The README's first command
demo:
    bash tools/demo.sh

# The README's second command
test:
    cargo test

# Everything that CI checks
check:
    bash .ci/run

# Format and lint
lint:
    cargo fmt --all
    cargo clippy --all-targets --all-features -- -D warnings

# Code for src/wire/turbopump.fbs (needs cmake and a C++ compiler, the first build takes minutes)
generate:
    cargo run --manifest-path tools/generate/Cargo.toml

# The console's page out of src/console (needs Node.js 20 or newer with npm)
console:
    bash tools/console.sh

# The console in headless Chromium; pictures in target/console
console-tests:
    bash tests/console/run.sh

# Things break, and each is looked for in top, metrics, console and alerts (as root; with Debian's Prometheus)
watch:
    bash tests/watch/run.sh

# mqadmin against Apache's broker and ours in the same state, side by side (needs Java 17, Maven and Python)
compare-apache:
    bash tools/compare-apache.sh

# The coverage-guided fuzzer over all targets (needs a C++ compiler)
fuzz seconds="600":
    bash tools/fuzz/run.sh {{seconds}}

# SIGKILL at random moments, 200 rounds
kill rounds="200":
    TURBOPUMP_KILL_ROUNDS={{rounds}} cargo test --release --test kill -- --nocapture

# The packages for Debian and for rpm, of a release build (needs dpkg-dev; cargo-generate-rpm for the other)
package:
    cargo build --release --locked
    bash tools/package/prepare.sh
    python3 tools/package/deb.py
