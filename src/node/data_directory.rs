//! The data directory: who may use it, and what it was made with.
//!
//! `turbopump.toml` holds the format version, the number of shards and the node's name to RocketMQ's clients; it is written when the directory is made, when one of
//! an older format is used for the first time (see `docs/formats.md`), and once more when all of its shards have started for
//! the first time: from then on each of them must be there. A start that is refused before it comes to the shards, as where a
//! port is taken, leaves no directory behind that it would have made.
//! `secret` signs receipt handles, and the node's id is made of it. Shard `s` has the directory `shard-s`.
//!
//! As long as a process uses the directory it holds two locks (flock): of the directory itself, which nobody can put
//! another one in the place of without its being seen, and of the file `lock`, which older releases look at. A `lock` that
//! is gone, as after a cleaner of temporary files, is made again; a directory that is not the one that was locked is not
//! written to any more.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::options::is_node_name;
use super::permissions::{Owners, linked, may_not_write, not_of_user, not_writable};
use crate::access::NodeSecret;
use crate::disk::DiskError;
use crate::limits;
use crate::types::{SettingsFile, SettingsFileError, not_regular};

/// Version of the layout of a data directory that this release makes: since 3, changes of the state may have fields.
const FORMAT: u32 = 3;
/// The oldest that it reads. A start goes on with it as one of the present version.
const FORMAT_MIN: u32 = 2;
const DESCRIPTION: &str = "turbopump.toml";
/// Of the description and the secret, each of which has less than a hundred.
const DESCRIPTION_BYTES_MAX: u64 = 64 * 1024;
const LOCK: &str = "lock";
pub(super) const SECRET: &str = "secret";
const RANDOM: &str = "/dev/urandom";
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// The name of a node on a host that has none.
const NAMELESS: &str = "turbopump";
/// What follows when a used directory gets another secret.
pub const NEW_SECRET_MEANS: &str = "this broker is another node, and receipt handles given out before count no more: what \
they are of is delivered again when its invisible duration has passed";

/// What a data directory is made with. One that is there keeps what it was made with, and what was asked for must be that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Making<'a> {
    pub shards: Option<u16>,
    /// When nobody has said how many.
    pub shards_default: u16,
    /// Its name to RocketMQ's clients; `None`: the host's.
    pub node: Option<&'a str>,
}

/// A data directory in use by this process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    shard_count: u16,
    node_name: String,
    /// Its description does not have the name before it is taken up.
    lacks_name: bool,
    created: bool,
    /// All of its shards have started once.
    started: bool,
    /// It has an older format until it is taken up.
    is_older: bool,
    /// Its secret is not kept before it is taken up.
    lacks_secret: bool,
    /// What goes again unless the directory is made. Before the locks, so that nobody else has it meanwhile.
    traces: Option<Traces>,
    locks: Locks,
}

/// What taking a directory that is not made yet has left: it is removed when this is dropped, unless it is to stay.
#[derive(Debug)]
struct Traces {
    path: PathBuf,
    has_made_directory: bool,
    has_made_lock: bool,
}

/// Held until they are dropped.
#[derive(Debug)]
struct Locks {
    directory: File,
    /// None on a medium that takes no writes.
    file: Option<File>,
    /// Why a start cannot open `lock`, where the directory was taken to be looked at.
    refusal: Option<DirectoryError>,
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
        "{path} was made by an older release (format {found}, this one reads {FORMAT_MIN} to {FORMAT}): choose another \
         directory with --data"
    )]
    Older { path: PathBuf, found: u32 },
    #[error("{path} was made with {made} shards and keeps them: leave --shards {asked} out")]
    Shards { path: PathBuf, made: u16, asked: u16 },
    #[error(
        "{path} was made with the node name `{made}` and keeps it, since RocketMQ's clients know its queues by it: leave \
         --node {asked} out"
    )]
    Name { path: PathBuf, made: String, asked: String },
    #[error("{path} is no turbopump data directory, and not empty: choose another one with --data")]
    NotOurs { path: PathBuf },
    #[error(
        "{path} is empty: no broker has stored anything in it. Name the directory that `turbopump serve` has for --data"
    )]
    Empty { path: PathBuf },
    #[error(
        "{file} is missing, and what is beside it is a broker's: restore it from a copy, or write it with the lines `format = \
         {FORMAT}`, `shards = {shards}` and `started = true`, and check with `turbopump log verify` (shards are what \
         directories named shard-0, shard-1 and so on there were)"
    )]
    DescriptionMissing { file: PathBuf, shards: u16 },
    #[error("{file} cannot be understood: {reason}")]
    Description { file: PathBuf, reason: String },
    #[error("{path} does not exist")]
    Missing { path: PathBuf },
    #[error("{path}: no broker was ever ready on it, so there is nothing to copy: start one")]
    NeverStarted { path: PathBuf },
    #[error(
        "{} missing, but the data directory was made with it: put it back (is something not mounted?), or go on \
         without what was in it: `turbopump log repair --data {data}` says what that gives up, and does it with --yes",
        are_missing(paths)
    )]
    ShardMissing { paths: Vec<PathBuf>, data: PathBuf },
    #[error(
        "{path} cannot be written to by this user ({source}): was it made by another one, as by a command that was run as root? \
         Give all of {data} to the user who runs the broker, as with chown -R"
    )]
    NotWritable { path: PathBuf, data: PathBuf, source: io::Error },
    #[error("{0}. Put the directory back (is something not mounted?)")]
    NoDirectory(#[from] DiskError),
    #[error(
        "{path} is not the directory that this broker has locked: it was moved or replaced while it was in use. The \
         broker has stopped, and has written nothing to what is there now"
    )]
    Replaced { path: PathBuf },
    #[error(
        "{file} has {bytes} bytes, and must have {wanted}: restore it from a copy, or remove it to get a new one. With a \
         new one {NEW_SECRET_MEANS}"
    )]
    Secret { file: PathBuf, bytes: usize, wanted: usize },
    #[error("{file} is {what}, not a file of this broker: remove it, nothing is kept in it")]
    LockFile { file: PathBuf, what: &'static str },
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Description {
    pub format: u32,
    pub shards: u16,
    /// The node's name to RocketMQ's clients; earlier releases had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// All shards have started once. Releases that did not write it made their shards at the first start as well.
    #[serde(default = "yes")]
    pub started: bool,
}

fn yes() -> bool {
    true
}

impl DataDirectory {
    /// Takes the directory. One that is not there, or empty, is [made](Self::make) afterwards.
    pub fn open(path: &Path, making: &Making<'_>) -> Result<Self, DirectoryError> {
        let has_made_directory = !path.exists();
        fs::create_dir_all(path).map_err(io_error(path))?;
        let has_made_lock = fs::symlink_metadata(path.join(LOCK)).is_err();
        let locks = Locks::take(path, Access::Write)?;
        let traces = Traces { path: path.to_owned(), has_made_directory, has_made_lock };
        let existing = read_description(path);
        // A description that cannot be used is no reason to leave anything there.
        let traces = if matches!(existing, Ok(Some(_))) { traces.stay() } else { Some(traces) };
        let existing = existing?;
        let shard_count = match (&existing, making.shards) {
            (Some(made), Some(asked)) if made.shards != asked => {
                return Err(DirectoryError::Shards { path: path.to_owned(), made: made.shards, asked });
            }
            (Some(made), _) => made.shards,
            (None, asked) => asked.unwrap_or(making.shards_default),
        };
        let made_name = existing.as_ref().and_then(|made| made.node.clone());
        let lacks_name = made_name.is_none();
        let node_name = match (made_name, making.node) {
            (Some(made), Some(asked)) if made != asked => {
                let asked = asked.to_owned();
                return Err(DirectoryError::Name { path: path.to_owned(), made, asked });
            }
            (Some(made), _) => made,
            (None, asked) => asked.map_or_else(host_name, str::to_owned),
        };
        let started = existing.as_ref().is_some_and(|made| made.started);
        let is_older = existing.as_ref().is_some_and(|made| made.format < FORMAT);
        let directory = Self {
            path: path.to_owned(),
            shard_count,
            node_name,
            lacks_name,
            created: existing.is_none(),
            started,
            is_older,
            lacks_secret: false,
            traces,
            locks,
        };
        match existing {
            None => check_empty(path)?,
            Some(_) => directory.check_shards()?,
        }
        directory.locks.check(path)?;
        Ok(directory)
    }

    /// Makes the directory, if it is not made yet: nothing else is left that a start could be refused for before it looks into the
    /// shards.
    pub fn make(&mut self) -> Result<(), DirectoryError> {
        let Some(traces) = self.traces.take() else { return Ok(()) };
        traces.stay();
        self.locks.check(&self.path)?;
        self.make_shards()?;
        write_description(&self.path, &self.description())?;
        self.check_shards()?;
        self.locks.check(&self.path)
    }

    /// The shards' files were judged, and will be changed from now on: the directory gets the present format, and keeps a
    /// `secret` if there was none. Before, a start changes nothing of a directory that was made.
    pub fn take_up(&mut self, secret: &NodeSecret) -> Result<(), DirectoryError> {
        if self.is_older || self.lacks_name {
            // Before anything is written that an older release could not read.
            write_description(&self.path, &self.description())?;
            (self.is_older, self.lacks_name) = (false, false);
        }
        if self.lacks_secret {
            let file = self.secret_file();
            keep_secret(&file, secret).map_err(io_error(&file))?;
            self.lacks_secret = false;
        }
        Ok(())
    }

    /// Takes a directory that exists, to look at it. Nothing is written. A `lock` that a start would be refused for keeps nobody
    /// from looking: whoever uses the directory holds the directory itself.
    pub fn open_existing(path: &Path) -> Result<Self, DirectoryError> {
        if !path.is_dir() {
            return Err(DirectoryError::Missing { path: path.to_owned() });
        }
        let description = read_description(path)?;
        let description = description.ok_or_else(|| not_described(path))?;
        let locks = Locks::take(path, Access::Read)?;
        let Description { format, shards, started, node } = description;
        Ok(Self {
            path: path.to_owned(),
            shard_count: shards,
            lacks_name: node.is_none(),
            node_name: node.unwrap_or_default(),
            created: false,
            started,
            is_older: format < FORMAT,
            lacks_secret: false,
            traces: None,
            locks,
        })
    }

    /// Whether the directory and its lock are still those that were taken. A lock that is gone is made again; what was
    /// done is returned.
    pub fn check(&mut self) -> Result<Option<String>, DirectoryError> {
        self.locks.keep(&self.path)
    }

    /// All shards have started: from now on none of them may be missing. What the answer of this is, the next start will
    /// be told.
    pub fn note_started(&mut self) -> Result<(), DirectoryError> {
        if self.started {
            return Ok(());
        }
        self.started = true;
        write_description(&self.path, &self.description())
    }

    /// Whether each shard was used before.
    pub fn is_started(&self) -> bool {
        self.started
    }

    fn description(&self) -> Description {
        Description {
            format: FORMAT,
            shards: self.shard_count,
            node: Some(self.node_name.clone()),
            started: self.started,
        }
    }

    /// The shards' directories of a new data directory: made before it is described, so that one that is described has
    /// them.
    fn make_shards(&self) -> Result<(), DirectoryError> {
        for shard in 0..self.shard_count {
            let path = self.shard(shard).join("log");
            fs::create_dir_all(&path).map_err(io_error(&path))?;
            for made in [&path, &self.shard(shard)] {
                File::open(made).and_then(|made| made.sync_all()).map_err(io_error(made))?;
            }
        }
        Ok(())
    }

    /// What keeps a start from taking the shards: that something else has the name of one's directory, or that some are not
    /// there.
    pub fn check_shards(&self) -> Result<(), DirectoryError> {
        let absent = (0..self.shard_count).map(|shard| self.shard(shard)).filter(|path| !path.is_dir());
        let paths: Vec<_> = absent.collect();
        paths.iter().try_for_each(|path| DiskError::check_directory(path))?;
        if paths.is_empty() {
            return Ok(());
        }
        Err(DirectoryError::ShardMissing { paths, data: self.path.clone() })
    }

    /// Fails when there is something that a start writes to, and this user may not.
    pub fn check_writable(&self) -> Result<(), DirectoryError> {
        let of_shard = |shard| not_writable(&self.shard(shard));
        match self.not_writable_itself().or_else(|| (0..self.shard_count).find_map(of_shard)) {
            Some((path, source)) => {
                Err(DirectoryError::NotWritable { path, data: self.path.clone(), source })
            }
            None => Ok(()),
        }
    }

    /// The directory, where a start makes files beside the shards, and this user may not.
    fn not_writable_itself(&self) -> Option<(PathBuf, io::Error)> {
        let lacks_files = !self.path.join(LOCK).exists() || !self.secret_file().exists();
        let is_described_anew = self.is_older || self.lacks_name || !self.started;
        (lacks_files || is_described_anew).then(|| may_not_write(&self.path)).flatten()
    }

    /// Why the next start cannot open `lock`; known of a directory that was taken to be looked at.
    pub fn lock_refusal(&self) -> Option<&DirectoryError> {
        self.locks.refusal.as_ref()
    }

    /// The user who runs the broker, when that is another one than who asks: who has made the description.
    pub fn other_owner(&self) -> Option<Owners> {
        not_of_user(&self.path.join(DESCRIPTION))
    }

    /// Says when files that are written in place have another name.
    pub fn linked_files(&self) -> Option<String> {
        let file = (0..self.shard_count).find_map(|shard| linked(&self.shard(shard)))?;
        Some(format!(
            "{} has another name as well (a hard link), and is written in place: a copy of this directory that is made of links \
             changes with it, and is none. Only segments after which another one holds messages may be linked; copy all else",
            file.display()
        ))
    }

    /// Whether a shard that is empty has lost something: all have started once, or this one's directory is gone, which was
    /// made before the data directory was described.
    pub fn is_shard_made(&self, shard: u16) -> bool {
        self.started || !self.shard(shard).is_dir()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn shard_count(&self) -> u16 {
        self.shard_count
    }

    /// The node's name to RocketMQ's clients.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// Whether this process has just made it.
    pub fn is_new(&self) -> bool {
        self.created
    }

    /// The secret kept here, made when there is none, and kept when the directory is [taken up](Self::take_up). The text
    /// says that it was made although the directory was used before, and what that means.
    pub fn secret(&mut self) -> Result<(NodeSecret, Option<String>), DirectoryError> {
        if let Some(secret) = self.read_secret()? {
            return Ok((secret, None));
        }
        let file = self.secret_file();
        let secret = make_secret().map_err(io_error(Path::new(RANDOM)))?;
        self.lacks_secret = true;
        let told = format!("{} was missing, and is made anew: {NEW_SECRET_MEANS}", file.display());
        Ok((secret, self.started.then_some(told)))
    }

    /// The secret kept here; `None` when there is none.
    pub fn read_secret(&self) -> Result<Option<NodeSecret>, DirectoryError> {
        read_secret(&self.secret_file())
    }

    pub fn secret_file(&self) -> PathBuf {
        self.path.join(SECRET)
    }

    /// Where a shard keeps everything.
    pub fn shard(&self, shard: u16) -> PathBuf {
        self.path.join(format!("shard-{shard}"))
    }
}

fn are_missing(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |source| DirectoryError::Io { path, source }
}

/// What a process takes a directory for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl Traces {
    /// What was left stays.
    fn stay(mut self) -> Option<Self> {
        (self.has_made_directory, self.has_made_lock) = (false, false);
        None
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if self.has_made_lock {
            let _ = fs::remove_file(self.path.join(LOCK));
        }
        if self.has_made_directory {
            // One that somebody else has put something into stays.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

impl Locks {
    fn take(path: &Path, access: Access) -> Result<Self, DirectoryError> {
        let directory = File::open(path).map_err(io_error(path))?;
        lock(&directory, path)?;
        let (file, refusal) = match open_lock(path, access == Access::Write) {
            Err(error) if access == Access::Read => (None, Some(error)),
            opened => (opened?, None),
        };
        if let Some(file) = &file {
            lock(file, path)?;
        }
        let locks = Self { directory, file, refusal };
        locks.check(path)?;
        Ok(locks)
    }

    /// Fails when `path` leads to another directory than the one that is locked.
    fn check(&self, path: &Path) -> Result<(), DirectoryError> {
        let locked = self.directory.metadata().map_err(io_error(path))?;
        if is_same(path, &locked) { Ok(()) } else { Err(DirectoryError::Replaced { path: path.to_owned() }) }
    }

    /// Fails as [`check`](Self::check) does, and makes a `lock` that is gone again.
    fn keep(&mut self, path: &Path) -> Result<Option<String>, DirectoryError> {
        self.check(path)?;
        let Some(file) = &self.file else { return Ok(None) };
        let locked = file.metadata().map_err(io_error(path))?;
        if is_same(&path.join(LOCK), &locked) {
            return Ok(None);
        }
        if let Some(made) = open_lock(path, true)? {
            lock(&made, path)?;
            self.file = Some(made);
        }
        Ok(Some(format!(
            "{} was gone or another one, and was made and locked again",
            path.join(LOCK).display()
        )))
    }
}

/// Whether the name leads to the very file, not followed when it is a link.
fn is_same(path: &Path, file: &fs::Metadata) -> bool {
    // The directory itself may be named by a link.
    let found = if file.is_dir() { fs::metadata(path) } else { fs::symlink_metadata(path) };
    found.is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
}

fn lock(file: &File, path: &Path) -> Result<(), DirectoryError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error(path)(source)),
    }
}

/// Opens `lock`, made when it is not there and that is wanted. It is neither followed nor cut: whoever may write to the
/// directory could have put a link to another file there. One that this user may read and not write, as a command that was run
/// as root has left it, is as good: nothing is written to it.
fn open_lock(path: &Path, is_made: bool) -> Result<Option<File>, DirectoryError> {
    let file = path.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let opened = if is_made {
        match options.clone().write(true).create(true).open(&file) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                options.open(&file).map_err(|_| error)
            }
            opened => opened,
        }
    } else {
        options.open(&file)
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_made => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(DirectoryError::LockFile { file, what: "a symbolic link" });
        }
        Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {
            return Err(DirectoryError::LockFile { file, what: "a directory" });
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(DirectoryError::NotWritable { path: file, data: path.to_owned(), source: error });
        }
        Err(error) => return Err(io_error(&file)(error)),
    };
    match not_regular(opened.metadata().map_err(io_error(&file))?.file_type()) {
        None => Ok(Some(opened)),
        Some(what) => Err(DirectoryError::LockFile { file, what }),
    }
}

/// The number of shards and the name that a directory was made with, of which older releases kept none; `None` when it was not made.
pub(super) fn made_with(path: &Path) -> Result<Option<(u16, Option<String>)>, DirectoryError> {
    Ok(read_description(path)?.map(|made| (made.shards, made.node)))
}

pub(super) fn read_description(path: &Path) -> Result<Option<Description>, DirectoryError> {
    let file = path.join(DESCRIPTION);
    let reason = |reason: String| DirectoryError::Description { file: file.clone(), reason };
    let text = match SettingsFile::read_text(&file, DESCRIPTION_BYTES_MAX) {
        Ok((text, _)) => text,
        Err(SettingsFileError::System(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(SettingsFileError::System(error)) => return Err(io_error(&file)(error)),
        Err(error) => return Err(reason(error.to_string())),
    };
    // The version first: a newer release's file may have other fields.
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| reason(error.to_string()))?;
    let format = table.get("format").and_then(toml::Value::as_integer);
    match format.and_then(|format| u32::try_from(format).ok()) {
        None => return Err(reason("it has no format number".to_owned())),
        Some(found) if found > FORMAT => return Err(DirectoryError::Newer { path: path.to_owned(), found }),
        Some(found) if found < FORMAT_MIN => {
            return Err(DirectoryError::Older { path: path.to_owned(), found });
        }
        Some(_) => {}
    }
    let description: Description = toml::from_str(&text).map_err(|error| reason(error.to_string()))?;
    if !(1..=crate::limits::SHARDS_MAX).contains(&description.shards) {
        return Err(reason(format!("{} shards", description.shards)));
    }
    if let Some(name) = description.node.as_ref().filter(|name| !is_node_name(name)) {
        return Err(reason(format!("`{name}` is no name of a node")));
    }
    Ok(Some(description))
}

/// The host's name, as far as a node can have it.
/// The host's name, as far as a node can have it.
pub(super) fn host_name() -> String {
    let name = fs::read_to_string(HOST_NAME).unwrap_or_default();
    let allowed = |character: char| if is_node_name(&character.to_string()) { character } else { '-' };
    let name: String = name.trim().chars().take(limits::NODE_NAME_BYTES_MAX).map(allowed).collect();
    if name.is_empty() { NAMELESS.to_owned() } else { name }
}

pub(super) fn make_secret() -> io::Result<NodeSecret> {
    let mut secret = [0; NodeSecret::BYTES];
    File::open(RANDOM)?.read_exact(&mut secret)?;
    Ok(NodeSecret(secret))
}

/// The secret in this file; `None` when there is none.
pub(super) fn read_secret(file: &Path) -> Result<Option<NodeSecret>, DirectoryError> {
    let bytes = match SettingsFile::read(file, DESCRIPTION_BYTES_MAX) {
        Ok(read) => read.bytes,
        Err(SettingsFileError::System(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(SettingsFileError::System(error)) => return Err(io_error(file)(error)),
        Err(error) => return Err(io_error(file)(io::Error::other(error))),
    };
    let (bytes, wanted) = (<[u8; NodeSecret::BYTES]>::try_from(bytes), NodeSecret::BYTES);
    match bytes {
        Ok(secret) => Ok(Some(NodeSecret(secret))),
        Err(other) => Err(DirectoryError::Secret { file: file.to_owned(), bytes: other.len(), wanted }),
    }
}

/// Writes it under another name first: one that was cut off would be refused.
pub(super) fn keep_secret(file: &Path, secret: &NodeSecret) -> io::Result<()> {
    let fresh = file.with_extension("new");
    // Whatever has that name is none of ours, or was cut off.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    made.write_all(&secret.0)?;
    made.sync_all()?;
    fs::rename(&fresh, file)
}

/// Refuses to move into a directory that holds something else.
fn check_empty(path: &Path) -> Result<(), DirectoryError> {
    let ours = |name: &str| name == LOCK || name == "lost+found" || name.starts_with(DESCRIPTION);
    for entry in fs::read_dir(path).map_err(io_error(path))? {
        let name = entry.map_err(io_error(path))?.file_name();
        // A first start that was cut off has left directories without a file.
        let is_empty_shard = |name: &str| name.starts_with("shard-") && !holds_files(&path.join(name));
        if !name.to_str().is_some_and(|name| ours(name) || is_empty_shard(name)) {
            return Err(not_described(path));
        }
    }
    Ok(())
}

/// What to say of a directory that has no description.
pub(super) fn not_described(path: &Path) -> DirectoryError {
    let is_shard = |shard: &u16| path.join(format!("shard-{shard}")).is_dir();
    // One in between may be gone as well.
    let last = (0..crate::limits::SHARDS_MAX).rev().find(is_shard);
    match last {
        Some(last) if is_shard(&0) && path.join(SECRET).exists() => {
            DirectoryError::DescriptionMissing { file: path.join(DESCRIPTION), shards: last + 1 }
        }
        _ if is_empty(path) => DirectoryError::Empty { path: path.to_owned() },
        _ => DirectoryError::NotOurs { path: path.to_owned() },
    }
}

/// Whether there is nothing in it, but for what says nothing.
fn is_empty(path: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(path) else { return false };
    entries
        .all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK || entry.file_name() == "lost+found"))
}

/// Whether there is anything but directories below; also when that cannot be told.
fn holds_files(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return true };
    entries.into_iter().any(|entry| match entry {
        Ok(entry) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => holds_files(&entry.path()),
        _ => true,
    })
}

pub(super) fn write_description(path: &Path, description: &Description) -> Result<(), DirectoryError> {
    let write = || -> io::Result<()> {
        let text = toml::to_string(description).map_err(io::Error::other)?;
        let fresh = path.join(format!("{DESCRIPTION}.new"));
        let mut options = OpenOptions::new();
        // A link in its place would have the file that it leads to cut and written over.
        options.write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW);
        let mut made = options.open(&fresh)?;
        made.write_all(text.as_bytes())?;
        made.sync_all()?;
        fs::rename(&fresh, path.join(DESCRIPTION))?;
        File::open(path)?.sync_all()
    };
    write().map_err(io_error(path))
}

#[cfg(test)]
mod tests;
