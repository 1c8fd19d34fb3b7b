//! What a backup holds: `backup.toml` in its directory, and the names of the files beside it.
//!
//! Shard `S` has the directory `shard-S`. A segment after which another one holds messages is whole there, under the name that it has in
//! a data directory; of the last one there is what was stored up to the backup's position, under a name of its own for each
//! position: so whatever a later run adds, the files of the one before are as they were until it is complete.
//!
//! The last line is a comment: `# crc32c`, and the checksum of all lines before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::error::CommandError;
use crate::limits;
use crate::log::{CopiedLog, GivenUp, Manifest, segment_name};
use crate::node::NodeFiles;
use crate::types::{LogPosition, ShardId, Timestamp};
use crate::wire::batch::LogSecret;

/// Version of what is described here.
const VERSION: u32 = 1;
pub const CATALOG: &str = "backup.toml";
const CHECKSUM: &str = "# crc32c ";
/// A hundred bytes for each segment: of a terabyte, a few megabytes.
const CATALOG_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A complete backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    pub backup: u32,
    /// Release that has made it.
    pub made_by: String,
    pub taken_at_ms: u64,
    pub node_id: String,
    /// Of the data directory: version of its layout, and the node's name to RocketMQ's clients.
    pub format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    secret: String,
    #[serde(rename = "shard")]
    pub shards: Vec<ShardCopy>,
}

/// One shard's log in a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardCopy {
    pub shard: u16,
    /// Everything of the log that lies before is in the backup.
    pub position: u64,
    pub epoch: u32,
    log_secret: String,
    /// What each shard of the node had reached, as each one's manifest says.
    shard_epochs: Vec<u32>,
    /// What an operator gave up before: where it begins, where it ends, and from where on there was never anything.
    given_up: Vec<[u64; 3]>,
    #[serde(rename = "segment")]
    pub segments: Vec<SegmentCopy>,
}

/// One segment in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentCopy {
    /// Its first position in the log.
    pub base: u64,
    /// Size of the segment's file.
    pub bytes: u64,
    /// How much of it is here.
    pub stored: u64,
    pub crc32c: u32,
    pub source: FileIdentity,
}

/// Tells a file apart from others, and from itself once it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    // As the system's numbers are, of 64 bits; TOML's have a sign.
    pub device: i64,
    pub inode: i64,
    pub modified_s: i64,
    pub modified_ns: i64,
}

impl FileIdentity {
    /// `None`: there is no such file.
    pub fn of(path: &Path) -> Result<Option<Self>, CommandError> {
        match fs::symlink_metadata(path) {
            Ok(found) => Ok(Some(Self {
                device: found.dev().cast_signed(),
                inode: found.ino().cast_signed(),
                modified_s: found.mtime(),
                modified_ns: found.mtime_nsec(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot("read", path, &error)),
        }
    }

    /// Whether it is the same file, whatever was done to it.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// What is said when the system refuses something.
pub fn cannot(what: &str, path: &Path, error: &io::Error) -> CommandError {
    CommandError::failed(format!("cannot {what} {}: {error}", path.display()))
}

impl SegmentCopy {
    /// Whether the whole segment is here.
    pub fn is_whole(&self) -> bool {
        self.stored == self.bytes
    }

    /// Its file's name.
    pub fn name(&self) -> String {
        stored_name(LogPosition(self.base), self.stored, self.bytes)
    }
}

/// The name of a file that holds so much of a segment.
pub fn stored_name(base: LogPosition, stored: u64, bytes: u64) -> String {
    if stored == bytes { segment_name(base) } else { format!("{:020}.first-{stored}", base.0) }
}

/// Whether a file in a shard's directory has a name that a backup gives.
pub fn is_stored_name(name: &str) -> bool {
    let name = name.strip_suffix(FRESH).unwrap_or(name);
    let (base, rest) = name.split_once('.').unwrap_or((name, ""));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_part = rest.strip_prefix("first-").is_some_and(is_number);
    base.len() == 20 && is_number(base) && (rest == "segment" || is_part)
}

/// What a file is called until it is whole.
const FRESH: &str = ".new";

/// The name that a file has until it is whole.
pub fn fresh(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(FRESH);
    name.into()
}

/// Makes the file of such a name, in the place of whatever has it: that was cut off, or is none of ours.
pub fn make_fresh(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Whether that is what the directory of a shard is called.
pub fn is_shard_name(name: &str) -> bool {
    name.strip_prefix("shard-").is_some_and(|number| number.parse::<u16>().is_ok())
}

/// Where a shard's files are.
pub fn shard_directory(backup: &Path, shard: u16) -> PathBuf {
    backup.join(format!("shard-{shard}"))
}

impl ShardCopy {
    /// Of a log that has this manifest.
    pub fn new(shard: u16, position: LogPosition, manifest: &Manifest, segments: Vec<SegmentCopy>) -> Self {
        let given_up = |range: &GivenUp| [range.from.0, range.to.0, range.end.0];
        Self {
            shard,
            position: position.0,
            epoch: manifest.epoch,
            log_secret: format!("{:016x}", manifest.secret.0),
            shard_epochs: manifest.shard_epochs.clone(),
            given_up: manifest.given_up.iter().map(given_up).collect(),
            segments,
        }
    }

    /// Whether both are of the same log.
    pub fn is_of(&self, manifest: &Manifest) -> bool {
        self.log_secret == format!("{:016x}", manifest.secret.0)
    }

    /// Bytes in the backup.
    pub fn stored(&self) -> u64 {
        self.segments.iter().map(|segment| segment.stored).sum()
    }

    /// What a log is to be told that is made of this.
    pub fn log(&self, shard_count: u16) -> Result<CopiedLog, CommandError> {
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else {
            return Err(CommandError::failed(format!("{CATALOG} names no segment of shard {}", self.shard)));
        };
        let secret = u64::from_str_radix(&self.log_secret, 16).map_err(|_| {
            CommandError::failed(format!("{CATALOG} has no log secret of shard {}", self.shard))
        })?;
        let position = LogPosition;
        Ok(CopiedLog {
            shard: ShardId(self.shard),
            shard_count,
            secret: LogSecret(secret),
            epoch: self.epoch,
            first_base: position(first.base),
            last_base: position(last.base),
            last_bytes: last.bytes,
            end: position(self.position),
            given_up: self
                .given_up
                .iter()
                .map(|[from, to, end]| GivenUp {
                    from: position(*from),
                    to: position(*to),
                    end: position(*end),
                })
                .collect(),
            shard_epochs: self.shard_epochs.clone(),
        })
    }

    /// What contradicts itself, as no run of this program has written it.
    fn problem(&self) -> Option<String> {
        let is_block = |bytes: u64| bytes.is_multiple_of(limits::BLOCK_BYTES as u64);
        let are_fit = self.segments.iter().all(|segment| {
            let SegmentCopy { base, bytes, stored, .. } = *segment;
            stored <= bytes && is_block(bytes) && is_block(stored) && base.checked_add(bytes).is_some()
        });
        let in_order = self.segments.windows(2).all(|pair| {
            pair[0].is_whole()
                && pair[0].base.checked_add(pair[0].bytes).is_some_and(|end| end <= pair[1].base)
        });
        let ends_here = self
            .segments
            .last()
            .is_some_and(|last| last.base <= self.position && self.position - last.base <= last.stored);
        let is_well = are_fit && in_order && ends_here;
        (!is_well).then(|| format!("{CATALOG}: the segments of shard {} do not fit together", self.shard))
    }
}

impl Catalog {
    pub fn new(files: &NodeFiles, taken_at: Timestamp, shards: Vec<ShardCopy>) -> Self {
        Self {
            backup: VERSION,
            made_by: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at_ms: taken_at.0,
            node_id: files.node().to_string(),
            format: files.format,
            node_name: files.node_name.clone(),
            secret: files.secret().iter().map(|byte| format!("{byte:02x}")).collect(),
            shards,
        }
    }

    /// The node's own files, as they were.
    pub fn node_files(&self) -> Result<NodeFiles, CommandError> {
        let mut secret = [0; NodeFiles::SECRET_BYTES];
        let is_hex = self.secret.len() == 2 * secret.len() && self.secret.is_ascii();
        for (index, byte) in secret.iter_mut().enumerate() {
            let text = is_hex.then(|| &self.secret[2 * index..2 * index + 2]);
            *byte = text
                .and_then(|text| u8::from_str_radix(text, 16).ok())
                .ok_or_else(|| CommandError::failed(format!("{CATALOG} has no secret of the node")))?;
        }
        let shards = u16::try_from(self.shards.len()).unwrap_or(u16::MAX);
        Ok(NodeFiles::new(self.format, shards, self.node_name.clone(), secret))
    }

    /// The backup in a directory; `None` when there is none yet.
    pub fn read(backup: &Path) -> Result<Option<Self>, CommandError> {
        let path = backup.join(CATALOG);
        let damaged = |reason: &str| {
            CommandError::failed(format!(
                "{} is damaged: {reason}. Without it nobody knows what the backup holds: make another one in an empty directory",
                path.display()
            ))
        };
        let bytes = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot("read", &path, &error)),
            Ok(found) if !found.is_file() => return Err(damaged("it is no file")),
            Ok(found) if found.len() > CATALOG_BYTES_MAX => return Err(damaged("it is too large")),
            Ok(_) => fs::read(&path).map_err(|error| cannot("read", &path, &error))?,
        };
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
        let (body, last) = text.rsplit_once(CHECKSUM).ok_or_else(|| damaged("its last line is missing"))?;
        if u32::from_str_radix(last.trim_end(), 16) != Ok(crc32c::crc32c(body.as_bytes())) {
            return Err(damaged("its checksum does not fit"));
        }
        let catalog = Self::parse(body)
            .map_err(|reason| CommandError::failed(format!("{} cannot be used: {reason}", path.display())))?;
        Ok(Some(catalog))
    }

    fn parse(body: &str) -> Result<Self, String> {
        let table: toml::Table = body.parse().map_err(|error: toml::de::Error| error.to_string())?;
        // The version first: that of a newer release may have other fields.
        match table.get("backup").and_then(toml::Value::as_integer) {
            Some(version) if version == i64::from(VERSION) => {}
            Some(version) => {
                return Err(format!(
                    "it is of version {version}, and this release reads {VERSION}: use that release"
                ));
            }
            None => return Err("it has no version".to_owned()),
        }
        let catalog: Self = toml::from_str(body).map_err(|error| error.to_string())?;
        let numbered =
            catalog.shards.iter().enumerate().all(|(index, shard)| index == usize::from(shard.shard));
        let count = catalog.shards.len();
        if !numbered || !(1..=usize::from(limits::SHARDS_MAX)).contains(&count) {
            return Err(format!("it names {count} shards, and not each once"));
        }
        match catalog.shards.iter().find_map(ShardCopy::problem) {
            Some(problem) => Err(problem),
            None => Ok(catalog),
        }
    }

    /// Puts it in the place of the one before, durably.
    pub fn write(&self, backup: &Path) -> Result<(), CommandError> {
        let path = backup.join(CATALOG);
        let write = || -> io::Result<()> {
            let mut text = toml::to_string(self).map_err(io::Error::other)?;
            let checksum = crc32c::crc32c(text.as_bytes());
            text += &format!("{CHECKSUM}{checksum:08x}\n");
            let fresh = fresh(&path);
            let mut made = make_fresh(&fresh)?;
            made.write_all(text.as_bytes())?;
            made.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(backup)?.sync_all()
        };
        write().map_err(|error| cannot("write", &path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let files = NodeFiles::new(3, 1, Some("host".to_owned()), [0xa7; NodeFiles::SECRET_BYTES]);
        let manifest = Manifest::new(ShardId(0), LogSecret(u64::MAX), 7, 1);
        let segment = |base, stored| SegmentCopy {
            base,
            bytes: 8192,
            stored,
            crc32c: 5,
            source: FileIdentity { device: 1, inode: 2, modified_s: -3, modified_ns: 4 },
        };
        let segments = vec![segment(0, 8192), segment(8192, 4096)];
        let shard = ShardCopy::new(0, LogPosition(8192 + 4000), &manifest, segments);
        Catalog::new(&files, Timestamp(1), vec![shard])
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_told() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        assert_eq!(Catalog::read(path).expect("it can be read"), None);
        catalog().write(path).expect("it can be written");
        let read = Catalog::read(path).expect("it can be read").expect("it is there");
        assert_eq!(read, catalog());
        assert_eq!(read.node_files().expect("it has a secret").secret(), &[0xa7; NodeFiles::SECRET_BYTES]);
        let text = fs::read(path.join(CATALOG)).expect("a file");
        for at in 0..text.len() - 1 {
            let mut changed = text.clone();
            changed[at] ^= 1;
            fs::write(path.join(CATALOG), &changed).expect("a file");
            assert!(Catalog::read(path).is_err(), "byte {at}");
        }
        fs::write(path.join(CATALOG), &text[..text.len() / 2]).expect("a file");
        assert!(Catalog::read(path).is_err());
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let change = |change: fn(&mut Catalog)| {
            let mut catalog = catalog();
            change(&mut catalog);
            Catalog::parse(&toml::to_string(&catalog).expect("text"))
        };
        assert!(change(|_| {}).is_ok());
        assert!(change(|catalog| catalog.backup = 2).expect_err("a version").contains("version 2"));
        for wrong in [
            |catalog: &mut Catalog| catalog.shards.clear(),
            |catalog: &mut Catalog| catalog.shards[0].shard = 1,
            |catalog: &mut Catalog| catalog.shards[0].segments.clear(),
            |catalog: &mut Catalog| catalog.shards[0].segments.swap(0, 1),
            |catalog: &mut Catalog| catalog.shards[0].position = 8192 + 4097,
            |catalog: &mut Catalog| catalog.shards[0].segments[1].bytes = 8193,
            |catalog: &mut Catalog| catalog.shards[0].segments[1].stored = 12288,
            |catalog: &mut Catalog| catalog.shards[0].segments[1].base = i64::MAX as u64,
        ] {
            assert!(change(wrong).is_err());
        }
    }

    #[test]
    fn names_of_others_are_not_taken_for_ours() {
        for name in [
            stored_name(LogPosition(0), 8192, 8192),
            stored_name(LogPosition(8192), 4096, 8192),
            format!("{}{FRESH}", segment_name(LogPosition(0))),
        ] {
            assert!(is_stored_name(&name), "{name}");
        }
        for name in
            ["", "notes.txt", "1.segment", "00000000000000000000.first-", "00000000000000000000.segment.bak"]
        {
            assert!(!is_stored_name(name), "{name}");
        }
    }
}
