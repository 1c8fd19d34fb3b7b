//! Writes the Rust code for the FlatBuffers schema: `cargo run --manifest-path tools/generate/Cargo.toml`.
//!
//! With `--check` it writes to a temporary folder instead and exits with 1 when the committed code differs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const SCHEMA: &str = "src/wire/turbopump.fbs";
const GENERATED: &str = "src/wire/generated";

fn main() -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let committed = root.join(GENERATED);
    let output = if check {
        std::env::temp_dir().join(format!("turbopump-generated-{}", std::process::id()))
    } else {
        committed.clone()
    };
    std::fs::create_dir_all(&output).expect("create the output folder");
    let status = Command::new(flatc::flatc())
        .arg("--rust")
        .arg("-o")
        .arg(&output)
        .arg(root.join(SCHEMA))
        .status()
        .expect("run flatc");
    if !status.success() {
        eprintln!("flatc refused {SCHEMA}");
        return ExitCode::FAILURE;
    }
    if !check {
        return ExitCode::SUCCESS;
    }
    let current = files_equal(&output, &committed);
    std::fs::remove_dir_all(&output).expect("remove the temporary folder");
    if current {
        println!("{GENERATED} is current");
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "{GENERATED} does not match {SCHEMA}: run `cargo run --manifest-path tools/generate/Cargo.toml` and commit"
    );
    ExitCode::FAILURE
}

/// Whether every file that flatc wrote is committed with the same bytes.
fn files_equal(fresh: &PathBuf, committed: &Path) -> bool {
    std::fs::read_dir(fresh)
        .expect("list the output folder")
        .all(|entry| {
            let path = entry.expect("read the output folder").path();
            let name = path.file_name().expect("a file has a name");
            std::fs::read(&path).ok() == std::fs::read(committed.join(name)).ok()
        })
}
