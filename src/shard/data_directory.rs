//! The data directory: who may use it, and what it was made with.
//!
//! `turbopump.toml` holds the format version and the number of shards; it is written once, when the directory is made.
//! `secret` signs receipt handles. `lock` is locked (flock) as long as a process uses the directory. Shard `s` has the directory `shard-s`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::types::ShardId;

/// Version of the layout of a data directory that this release makes and reads.
const FORMAT: u32 = 2;
const DESCRIPTION: &str = "turbopump.toml";
const SECRET: &str = "secret";
const SECRET_BYTES: usize = 32;

/// A data directory in use by this process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    shard_count: u16,
    created: bool,
    /// Holds the lock until it is dropped.
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error(
        "{path} is in use by another turbopump process: stop it, or choose another directory with --data"
    )]
    InUse { path: PathBuf },
    #[error(
        "{path} was made by a newer release (format {found}, this one reads {FORMAT}): start that release, or choose \
         another directory with --data"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error(
        "{path} was made by an older release (format {found}, this one reads {FORMAT}): choose another directory \
         with --data"
    )]
    Older { path: PathBuf, found: u32 },
    #[error("{path} was made with {made} shards and keeps them: leave --shards {asked} out")]
    Shards { path: PathBuf, made: u16, asked: u16 },
    #[error("{path} is no turbopump data directory, and not empty: choose another one with --data")]
    NotOurs { path: PathBuf },
    #[error("{file} cannot be understood: {reason}")]
    Description { file: PathBuf, reason: String },
    #[error("{path} does not exist")]
    Missing { path: PathBuf },
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// What makes this node's receipt handles its own. Made with the directory, readable by its owner only; a directory whose
/// file was lost gets a new one, and the handles given out before count no more.
#[derive(Clone)]
pub struct NodeSecret(pub [u8; SECRET_BYTES]);

impl NodeSecret {
    /// A number for a shard that other directories' shards do not have, as good as surely.
    pub fn number(&self, shard: ShardId) -> u32 {
        crc32c::crc32c_append(u32::from(shard.0), &self.0)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    format: u32,
    shards: u16,
}

impl DataDirectory {
    /// Takes the directory, making it with `shards` shards, or `shards_default` when that is `None`, if it is not there.
    pub fn open(path: &Path, shards: Option<u16>, shards_default: u16) -> Result<Self, DirectoryError> {
        fs::create_dir_all(path).map_err(io_error(path))?;
        let lock = lock(path)?;
        let existing = read_description(path)?;
        let shard_count = match (&existing, shards) {
            (Some(made), Some(asked)) if made.shards != asked => {
                return Err(DirectoryError::Shards { path: path.to_owned(), made: made.shards, asked });
            }
            (Some(made), _) => made.shards,
            (None, asked) => asked.unwrap_or(shards_default),
        };
        if existing.is_none() {
            check_empty(path)?;
            write_description(path, &Description { format: FORMAT, shards: shard_count })?;
        }
        Ok(Self { path: path.to_owned(), shard_count, created: existing.is_none(), _lock: lock })
    }

    /// Takes a directory that exists, to look at it.
    pub fn open_existing(path: &Path) -> Result<Self, DirectoryError> {
        if !path.is_dir() {
            return Err(DirectoryError::Missing { path: path.to_owned() });
        }
        let description = read_description(path)?;
        let description = description.ok_or_else(|| DirectoryError::NotOurs { path: path.to_owned() })?;
        let lock = lock(path)?;
        Ok(Self { path: path.to_owned(), shard_count: description.shards, created: false, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn shard_count(&self) -> u16 {
        self.shard_count
    }

    /// Whether this process has just made it.
    pub fn is_new(&self) -> bool {
        self.created
    }

    /// The secret kept here, made when there is none.
    pub fn secret(&self) -> Result<NodeSecret, DirectoryError> {
        let file = self.path.join(SECRET);
        read_or_make_secret(&file).map_err(io_error(&file))
    }

    /// Where a shard keeps everything.
    pub fn shard(&self, shard: u16) -> PathBuf {
        self.path.join(format!("shard-{shard}"))
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |source| DirectoryError::Io { path, source }
}

fn lock(path: &Path) -> Result<File, DirectoryError> {
    let file = File::create(path.join("lock")).map_err(io_error(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error(path)(source)),
    }
}

fn read_description(path: &Path) -> Result<Option<Description>, DirectoryError> {
    let file = path.join(DESCRIPTION);
    let text = match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(io_error(&file))?,
    };
    let reason = |reason: String| DirectoryError::Description { file: file.clone(), reason };
    // The version first: a newer release's file may have other fields.
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| reason(error.to_string()))?;
    let format = table.get("format").and_then(toml::Value::as_integer);
    match format.and_then(|format| u32::try_from(format).ok()) {
        None => return Err(reason("it has no format number".to_owned())),
        Some(found) if found > FORMAT => return Err(DirectoryError::Newer { path: path.to_owned(), found }),
        Some(found) if found < FORMAT => return Err(DirectoryError::Older { path: path.to_owned(), found }),
        Some(_) => {}
    }
    let description: Description = toml::from_str(&text).map_err(|error| reason(error.to_string()))?;
    if !(1..=crate::limits::SHARDS_MAX).contains(&description.shards) {
        return Err(reason(format!("{} shards", description.shards)));
    }
    Ok(Some(description))
}

fn read_or_make_secret(file: &Path) -> io::Result<NodeSecret> {
    match fs::read(file) {
        Ok(bytes) if bytes.len() == SECRET_BYTES => {
            return Ok(NodeSecret(bytes.try_into().expect("its length was checked")));
        }
        Ok(_) => fs::remove_file(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut secret = [0; SECRET_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    made.write_all(&secret)?;
    made.sync_all()?;
    Ok(NodeSecret(secret))
}

/// Refuses to move into a directory that holds something else.
fn check_empty(path: &Path) -> Result<(), DirectoryError> {
    let ours = |name: &str| name == "lock" || name == "lost+found" || name.starts_with(DESCRIPTION);
    for entry in fs::read_dir(path).map_err(io_error(path))? {
        let name = entry.map_err(io_error(path))?.file_name();
        if !name.to_str().is_some_and(ours) {
            return Err(DirectoryError::NotOurs { path: path.to_owned() });
        }
    }
    Ok(())
}

fn write_description(path: &Path, description: &Description) -> Result<(), DirectoryError> {
    let write = || -> io::Result<()> {
        let text = toml::to_string(description).map_err(io::Error::other)?;
        let fresh = path.join(format!("{DESCRIPTION}.new"));
        fs::write(&fresh, text)?;
        File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, path.join(DESCRIPTION))?;
        File::open(path)?.sync_all()
    };
    write().map_err(io_error(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_shards_and_its_lock() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let path = root.path().join("data");
        let first = DataDirectory::open(&path, Some(3), 1).expect("it is made");
        assert!(first.is_new());
        assert!(matches!(DataDirectory::open(&path, None, 1), Err(DirectoryError::InUse { .. })));
        drop(first);
        let again = DataDirectory::open(&path, None, 1).expect("it is there");
        assert_eq!((again.shard_count(), again.is_new()), (3, false));
        drop(again);
        let other = DataDirectory::open(&path, Some(2), 1);
        assert!(matches!(other, Err(DirectoryError::Shards { made: 3, asked: 2, .. })));
    }

    #[test]
    fn foreign_and_newer_directories_are_refused() {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::write(root.path().join("letter.txt"), "dear").expect("a file");
        assert!(matches!(DataDirectory::open(root.path(), None, 1), Err(DirectoryError::NotOurs { .. })));
        fs::write(root.path().join(DESCRIPTION), "format = 99\nshards = 1\n").expect("a file");
        assert!(matches!(
            DataDirectory::open(root.path(), None, 1),
            Err(DirectoryError::Newer { found: 99, .. })
        ));
        fs::write(root.path().join(DESCRIPTION), "format = 1\nshards = 1\n").expect("a file");
        assert!(matches!(
            DataDirectory::open(root.path(), None, 1),
            Err(DirectoryError::Older { found: 1, .. })
        ));
        fs::write(root.path().join(DESCRIPTION), "nonsense").expect("a file");
        assert!(matches!(DataDirectory::open(root.path(), None, 1), Err(DirectoryError::Description { .. })));
    }
}
