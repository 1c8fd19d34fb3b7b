//! The file of keys, read again when it has changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::keys::{AccessError, AccessKeys};
use crate::types::{FileStamp, MonotonicTime, SettingsFile, SettingsFileError};

/// The file is looked at no more often than this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A file of keys, and what it said when it was last readable. Owned by one shard; reading blocks, which a small file
/// once a second at most may.
#[derive(Debug)]
pub struct AccessFile {
    path: PathBuf,
    keys: Rc<AccessKeys>,
    /// As of the last look, whether what was found could be used or not: a broken file is told once.
    seen: Option<FileStamp>,
    looked_at: MonotonicTime,
}

/// What is wrong with a file that can be used nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileWarning {
    #[error("{path} can be read by others (mode {mode:o}), and secrets are in it: chmod 600 {path}")]
    ReadableByOthers { path: String, mode: u32 },
}

/// What a look at the file has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    Unchanged,
    Read {
        warning: Option<FileWarning>,
    },
    /// The keys are those from before.
    Failed(AccessError),
}

impl AccessFile {
    /// Reads the file for the first time.
    pub fn open(path: &Path, now: MonotonicTime) -> Result<(Self, Option<FileWarning>), AccessError> {
        let (keys, stamp, warning) = read(path)?;
        let file = Self { path: path.to_owned(), keys: Rc::new(keys), seen: Some(stamp), looked_at: now };
        Ok((file, warning))
    }

    /// Reads the file again if it has changed, at most once a second. To be called now and then.
    pub fn refresh(&mut self, now: MonotonicTime) -> Refreshed {
        if now.since(self.looked_at) < LOOK_INTERVAL {
            return Refreshed::Unchanged;
        }
        self.looked_at = now;
        if self.stamp() == self.seen {
            return Refreshed::Unchanged;
        }
        self.read_again(now)
    }

    /// Reads the file now, whether it has changed or not.
    pub fn read_again(&mut self, now: MonotonicTime) -> Refreshed {
        self.looked_at = now;
        self.seen = self.stamp();
        match read(&self.path) {
            Ok((keys, stamp, warning)) => {
                self.seen = Some(stamp);
                self.keys = Rc::new(keys);
                Refreshed::Read { warning }
            }
            Err(error) => Refreshed::Failed(error),
        }
    }

    pub fn keys(&self) -> &Rc<AccessKeys> {
        &self.keys
    }

    fn stamp(&self) -> Option<FileStamp> {
        fs::metadata(&self.path).ok().map(|metadata| FileStamp::of(&metadata))
    }
}

/// The keys in a file, and what the file was when they were read.
fn read(path: &Path) -> Result<(AccessKeys, FileStamp, Option<FileWarning>), AccessError> {
    let shown = || path.display().to_string();
    let (text, metadata) = SettingsFile::read_text(path, FILE_BYTES_MAX).map_err(|error| match error {
        SettingsFileError::System(error) => {
            AccessError::Unreadable { path: shown(), reason: error.to_string() }
        }
        SettingsFileError::NotRegular { what } => AccessError::NotAFile { path: shown(), what },
        SettingsFileError::TooLarge { bytes, most } => AccessError::TooLarge { path: shown(), bytes, most },
    })?;
    let mode = metadata.mode() & 0o777;
    let warning = (mode & 0o044 != 0).then(|| FileWarning::ReadableByOthers { path: shown(), mode });
    Ok((AccessKeys::parse(&text)?, FileStamp::of(&metadata), warning))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const SECOND: u64 = 1_000_000_000;

    fn write(path: &Path, id: &str) {
        fs::write(path, format!("[[keys]]\nid = \"{id}\"\nsecret = \"s\"\n")).expect("writable");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
    }

    #[test]
    fn a_change_is_seen_within_a_second_and_a_broken_file_changes_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.toml");
        write(&path, "one");
        let (mut file, warning) = AccessFile::open(&path, MonotonicTime(0)).expect("readable");
        assert_eq!(warning, None);
        assert_eq!(file.refresh(MonotonicTime(SECOND)), Refreshed::Unchanged);
        write(&path, "three");
        assert_eq!(file.refresh(MonotonicTime(2 * SECOND - 1)), Refreshed::Unchanged);
        assert_eq!(file.refresh(MonotonicTime(2 * SECOND)), Refreshed::Read { warning: None });
        assert!(file.keys().find("three").is_some() && file.keys().find("one").is_none());
        fs::write(&path, "[[keys]").expect("writable");
        assert!(matches!(
            file.refresh(MonotonicTime(3 * SECOND)),
            Refreshed::Failed(AccessError::Syntax { .. })
        ));
        assert_eq!(file.refresh(MonotonicTime(4 * SECOND)), Refreshed::Unchanged, "told once");
        assert!(file.keys().find("three").is_some());
        fs::remove_file(&path).expect("ours");
        assert!(matches!(
            file.refresh(MonotonicTime(5 * SECOND)),
            Refreshed::Failed(AccessError::Unreadable { .. })
        ));
        write(&path, "four");
        assert_eq!(file.refresh(MonotonicTime(6 * SECOND)), Refreshed::Read { warning: None });
        assert!(file.keys().find("four").is_some());
    }

    #[test]
    fn who_asks_for_it_has_the_file_read_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.toml");
        write(&path, "one");
        let (mut file, _) = AccessFile::open(&path, MonotonicTime(0)).expect("readable");
        write(&path, "three");
        assert_eq!(file.refresh(MonotonicTime(1)), Refreshed::Unchanged, "not a second later");
        assert_eq!(file.read_again(MonotonicTime(1)), Refreshed::Read { warning: None });
        assert!(file.keys().find("three").is_some());
        assert_eq!(file.read_again(MonotonicTime(1)), Refreshed::Read { warning: None }, "changed or not");
        assert_eq!(file.refresh(MonotonicTime(2 * SECOND)), Refreshed::Unchanged);
    }

    #[test]
    fn a_file_for_everyone_is_warned_of() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.toml");
        write(&path, "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        let (_, warning) = AccessFile::open(&path, MonotonicTime(0)).expect("readable");
        let text = warning.expect("others can read it").to_string();
        assert!(text.contains("mode 644") && text.contains("chmod 600"), "{text}");
        let missing = AccessFile::open(&directory.path().join("none"), MonotonicTime(0)).expect_err("none");
        assert!(missing.to_string().contains("cannot be read"), "{missing}");
    }
}
