//! Data directories that vanish with their test.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Names a directory for the tests' data, which must be on a file system with direct I/O.
pub const TEST_DIRECTORY: &str = "TURBOPUMP_TEST_DIR";

/// A fresh directory. It lies in cargo's own one unless [`TEST_DIRECTORY`] says otherwise: `/tmp` is often memory.
pub fn test_directory() -> TempDir {
    let parent = std::env::var_os(TEST_DIRECTORY)
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    tempfile::Builder::new()
        .prefix("turbopump-")
        .tempdir_in(&parent)
        .unwrap_or_else(|error| panic!("no test directory in {}: {error}", parent.display()))
}

/// Files below `path` whose path contains `part`, in the order of their names.
pub fn files_with(path: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of this test") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().contains(part) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
