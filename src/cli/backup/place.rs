//! Where a backup may lie: in directories of its own, apart from the data directory that it is of, or that is made of it.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::catalog::{CATALOG, cannot, is_shard_name};
use super::store;
use crate::cli::error::CommandError;
use crate::cli::output::warn;
use crate::types::not_regular;

const LOCK: &str = "lock";
/// What others may do in a directory.
const OTHERS: u32 = 0o077;

/// Makes the directory of a backup if need be, and keeps others from writing to it meanwhile.
pub fn take(backup: &Path) -> Result<File, CommandError> {
    if !backup.exists() {
        store::make_directory(backup)?;
    }
    check_content(backup)?;
    let lock = lock(backup)?;
    // Who has opened the directory of a backup to others knows what it holds.
    if !backup.join(CATALOG).exists() {
        close_to_others(backup);
    }
    Ok(lock)
}

/// What somebody else keeps there is not touched.
fn check_content(backup: &Path) -> Result<(), CommandError> {
    for entry in fs::read_dir(backup).map_err(|error| cannot("read", backup, &error))? {
        let name = entry.map_err(|error| cannot("read", backup, &error))?.file_name();
        let is_ours = name.to_str().is_some_and(|name| {
            name == "lost+found"
                || name.starts_with("shard-")
                || [CATALOG, LOCK].iter().any(|ours| name.starts_with(ours))
        });
        if !is_ours {
            return Err(CommandError::failed(format!(
                "{} holds something else ({}): a backup has a directory to itself",
                backup.display(),
                name.display()
            )));
        }
    }
    check_shards(backup)
}

/// Refuses what leads elsewhere in the place of a shard's directory: what is written there may be somebody else's.
pub fn check_shards(backup: &Path) -> Result<(), CommandError> {
    for entry in fs::read_dir(backup).map_err(|error| cannot("read", backup, &error))? {
        let entry = entry.map_err(|error| cannot("read", backup, &error))?;
        let kind = entry.file_type().map_err(|error| cannot("read", &entry.path(), &error))?;
        if kind.is_dir() || !entry.file_name().to_str().is_some_and(is_shard_name) {
            continue;
        }
        return Err(CommandError::failed(format!(
            "{} is {}, and no directory: a backup's files lie in its own directories. Put the directory itself there, or name \
             another backup",
            entry.path().display(),
            not_regular(kind).unwrap_or("a file")
        )));
    }
    Ok(())
}

fn lock(backup: &Path) -> Result<File, CommandError> {
    let path = backup.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let lock = options.open(&path).map_err(|error| cannot("open", &path, &error))?;
    let kind = lock.metadata().map_err(|error| cannot("read", &path, &error))?.file_type();
    if let Some(what) = not_regular(kind) {
        return Err(CommandError::failed(format!(
            "{} is {what}, not a file of a backup: remove it, nothing is kept in it",
            path.display()
        )));
    }
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(CommandError::failed(format!(
            "another backup to {} is running: wait for it",
            backup.display()
        ))),
        Err(TryLockError::Error(error)) => Err(cannot("lock", &path, &error)),
    }
}

/// What is linked has the modes of the data directory: who may look into the directory may read messages.
fn close_to_others(backup: &Path) {
    let Ok(mode) = fs::metadata(backup).map(|found| found.mode()) else { return };
    if mode & OTHERS == 0 {
        return;
    }
    if let Err(error) = fs::set_permissions(backup, Permissions::from_mode(mode & !OTHERS & 0o7777)) {
        warn(format_args!(
            "{} has mode {:03o}, and cannot be closed to others ({error}): who may look into it may read messages",
            backup.display(),
            mode & 0o777
        ));
    }
}

/// Refuses a backup in the data directory, or the other way round: one would be a part of the other.
pub fn check_apart(backup: &Path, data: &Path) -> Result<(), CommandError> {
    let [named, of] = [backup, data].map(Path::display);
    let why = match (is_within(backup, data), is_within(data, backup)) {
        (true, true) => format!("{named} is named as both the backup and the data directory"),
        (true, false) => format!("the backup {named} lies in the data directory {of}"),
        (false, true) => format!("the data directory {of} lies in the backup {named}"),
        (false, false) => return Ok(()),
    };
    Err(CommandError::failed(format!("{why}: each has a directory to itself, so name another one")))
}

/// Whether what a path leads to, or would once it is made, is a directory or lies in it.
fn is_within(path: &Path, directory: &Path) -> bool {
    let Ok(directory) = fs::metadata(directory) else { return false };
    let Ok(path) = std::path::absolute(path) else { return false };
    // What is not there yet is made below what is.
    let Some(there) = path.ancestors().find_map(|above| fs::canonicalize(above).ok()) else { return false };
    let is_it = |found: fs::Metadata| (found.dev(), found.ino()) == (directory.dev(), directory.ino());
    there.ancestors().any(|above| fs::metadata(above).is_ok_and(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_are_not_there_yet_lie_where_they_would() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("data/shard-0")).expect("a directory");
        fs::create_dir(at("other")).expect("a directory");
        std::os::unix::fs::symlink(at("data/shard-0"), at("link")).expect("a link");
        for within in
            ["data", "data/", "data/new/newer", "data/shard-0/..", "other/../data/x", "link", "link/x"]
        {
            assert!(is_within(&at(within), &at("data")), "{within}");
        }
        for apart in ["", "other", "other/data", "data2", "data/../other", "link/../../other"] {
            assert!(!is_within(&at(apart), &at("data")), "{apart}");
        }
        assert!(!is_within(&at("data"), &at("nothing")));
    }
}
