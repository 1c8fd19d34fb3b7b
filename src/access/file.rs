//! The file of keys, read again when it has changed.
//!
//! An editor that writes it in place, or a slow copy, leaves less than all of its keys in it for a moment, which would end the
//! sessions of the others: so a change is read only when it has stood for a whole interval.

use std::fs;
use std::mem::replace;
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
    /// What was read last, whether it could be used or not: a broken file is told once.
    read: Option<FileStamp>,
    /// As of the last look.
    seen: Option<FileStamp>,
    looked_at: MonotonicTime,
}

/// What is wrong with a file that can be used nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileWarning {
    #[error("{path} can be read by others (mode {mode:o}), and secrets are in it: chmod 600 {path}")]
    ReadableByOthers { path: String, mode: u32 },
    #[error("{path} names no access key: every request is refused until it does")]
    NoKeys { path: String },
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
        let (keys, stamp) = (Rc::new(keys), Some(stamp));
        let file = Self { path: path.to_owned(), keys, read: stamp, seen: stamp, looked_at: now };
        Ok((file, warning))
    }

    /// Reads the file again once a change has stood from one look to the next, at most one look a second. To be called now and
    /// then.
    pub fn refresh(&mut self, now: MonotonicTime) -> Refreshed {
        if now.since(self.looked_at) < LOOK_INTERVAL {
            return Refreshed::Unchanged;
        }
        self.looked_at = now;
        let found = self.stamp();
        let has_settled = replace(&mut self.seen, found) == found;
        if !has_settled || found == self.read {
            return Refreshed::Unchanged;
        }
        self.read_again(now)
    }

    /// Reads the file now, whether it has changed or not, settled or not.
    pub fn read_again(&mut self, now: MonotonicTime) -> Refreshed {
        self.looked_at = now;
        self.read = self.stamp();
        match read(&self.path) {
            Ok((keys, stamp, warning)) => {
                self.read = Some(stamp);
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
        error @ SettingsFileError::Dangling { .. } => {
            AccessError::Unreadable { path: shown(), reason: error.to_string() }
        }
        SettingsFileError::NotRegular { what } => AccessError::NotAFile { path: shown(), what },
        SettingsFileError::TooLarge { bytes, most } => AccessError::TooLarge { path: shown(), bytes, most },
    })?;
    let keys = AccessKeys::parse(&text)?;
    let mode = metadata.mode() & 0o777;
    let warning = if keys.is_empty() {
        // There is no secret to be read.
        Some(FileWarning::NoKeys { path: shown() })
    } else {
        (mode & 0o044 != 0).then(|| FileWarning::ReadableByOthers { path: shown(), mode })
    };
    Ok((keys, FileStamp::of(&metadata), warning))
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
    fn a_change_is_seen_when_it_has_stood_for_a_second_and_a_broken_file_changes_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.toml");
        write(&path, "one");
        let (mut file, warning) = AccessFile::open(&path, MonotonicTime(0)).expect("readable");
        assert_eq!(warning, None);
        assert_eq!(file.refresh(MonotonicTime(SECOND)), Refreshed::Unchanged);
        write(&path, "three");
        assert_eq!(file.refresh(MonotonicTime(2 * SECOND - 1)), Refreshed::Unchanged);
        assert_eq!(file.refresh(MonotonicTime(2 * SECOND)), Refreshed::Unchanged, "it may be written on");
        assert_eq!(file.refresh(MonotonicTime(3 * SECOND - 1)), Refreshed::Unchanged);
        assert_eq!(file.refresh(MonotonicTime(3 * SECOND)), Refreshed::Read { warning: None });
        assert!(file.keys().find("three").is_some() && file.keys().find("one").is_none());
        fs::write(&path, "[[keys]").expect("writable");
        assert_eq!(file.refresh(MonotonicTime(4 * SECOND)), Refreshed::Unchanged);
        assert!(matches!(
            file.refresh(MonotonicTime(5 * SECOND)),
            Refreshed::Failed(AccessError::Syntax { .. })
        ));
        assert_eq!(file.refresh(MonotonicTime(6 * SECOND)), Refreshed::Unchanged, "told once");
        assert!(file.keys().find("three").is_some());
        fs::remove_file(&path).expect("ours");
        assert_eq!(file.refresh(MonotonicTime(7 * SECOND)), Refreshed::Unchanged);
        assert!(matches!(
            file.refresh(MonotonicTime(8 * SECOND)),
            Refreshed::Failed(AccessError::Unreadable { .. })
        ));
        write(&path, "four");
        assert_eq!(file.refresh(MonotonicTime(9 * SECOND)), Refreshed::Unchanged);
        assert_eq!(file.refresh(MonotonicTime(10 * SECOND)), Refreshed::Read { warning: None });
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
        for second in 2..4 {
            assert_eq!(file.refresh(MonotonicTime(second * SECOND)), Refreshed::Unchanged);
        }
    }

    /// Who writes the file in place begins with an empty one.
    #[test]
    fn a_file_that_is_being_written_is_not_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.toml");
        write(&path, "one");
        let (mut file, _) = AccessFile::open(&path, MonotonicTime(0)).expect("readable");
        for round in 1..5 {
            fs::write(&path, "").expect("writable");
            assert_eq!(file.refresh(MonotonicTime(2 * round * SECOND)), Refreshed::Unchanged);
            write(&path, "one");
            assert_eq!(file.refresh(MonotonicTime((2 * round + 1) * SECOND)), Refreshed::Unchanged);
            assert!(file.keys().find("one").is_some(), "its sessions end");
        }
        write(&path, "three");
        assert_eq!(file.refresh(MonotonicTime(20 * SECOND)), Refreshed::Unchanged);
        assert_eq!(file.refresh(MonotonicTime(21 * SECOND)), Refreshed::Read { warning: None });
    }

    #[test]
    fn a_file_without_a_key_is_warned_of() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.toml");
        fs::write(&path, "").expect("writable");
        let (_, warning) = AccessFile::open(&path, MonotonicTime(0)).expect("readable");
        let text = warning.expect("nobody can do anything").to_string();
        assert!(text.contains("keys.toml names no access key"), "{text}");
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
