//! The README's tour, run as it stands there.

use std::process::Command;

use crate::support::command::BINARY;
use crate::support::directory::test_directory;
use crate::support::machine::next_core;

/// The steps follow one another: what one leaves behind is what the next one finds. Its Python is run by
/// `tests/clients/run.sh`, which has the SDK.
#[test]
fn the_readmes_steps_work_in_their_order() {
    let directory = test_directory();
    let output = Command::new("bash")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/readme.sh"))
        .env("TURBOPUMP", BINARY)
        .env("TMPDIR", directory.path())
        .env("FLAGS", format!("--shards 2 --cores {} --segment-bytes 16MiB", next_core()))
        .env("LINES_SENT", "20000")
        .env_remove("TURBOPUMP_SERVER")
        .env_remove("PYTHON")
        .output()
        .expect("bash");
    let printed = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{told}");
    assert!(printed.contains("the README's steps work in their order"), "{printed}{told}");
}
