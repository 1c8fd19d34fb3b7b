//! The shard's manifest: the few facts that must be known before the log is read.
//!
//! Two blocks in one file, written in turn, each flushed before anything relies on it; the readable one with the higher
//! sequence counts. So a torn write leaves the other, and no rename is needed.
//!
//! A block that cannot be read is either the unfinished write of a start that never got to work, or was whole once and
//! is damaged now: then batches of the epoch that it named are in the log, and were answered. So its epoch, one higher
//! than the other block's, counts as given away. So that this holds the next time as well, such a start writes both
//! blocks.
//!
//! ```text
//!  0  u32  magic      0x464d_5054, "TPMF"
//!  4  u32  version    1
//!  8  u64  sequence
//! 16  u32  epoch      of the latest start; every batch in the log has this epoch or a lower one
//! 20  u16  shard
//! 22  u16  0
//! 24  u64  secret     mixed into the checksums of stored headers: see `wire::batch`
//! 32  u32  crc        crc32c of bytes 0..32
//! ```

use std::path::Path;
use std::rc::Rc;

use super::error::OpenError;
use crate::disk::{Disk, DiskBuffer, DiskErrorKind, DiskFile, OpenMode};
use crate::limits::BLOCK_BYTES;
use crate::types::ShardId;
use crate::wire::batch::LogSecret;
use crate::wire::bytes::{get_u16, get_u32, get_u64, put_u16, put_u32, put_u64};

const MAGIC_VALUE: u32 = 0x464d_5054;
const VERSION_VALUE: u32 = 1;
const CRC: usize = 32;
const NAME: &str = "manifest";

/// The facts themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    sequence: u64,
    /// Epoch of this start.
    pub epoch: u32,
    pub shard: ShardId,
    /// The same for as long as the log lives.
    pub secret: LogSecret,
    /// The other block could not be read.
    is_alone: bool,
}

/// What one of the two blocks says.
enum Slot {
    Valid(Manifest),
    Unreadable,
    Newer(u32),
}

impl Manifest {
    fn encode(&self, block: &mut [u8]) {
        block.fill(0);
        put_u32(block, 0, MAGIC_VALUE);
        put_u32(block, 4, VERSION_VALUE);
        put_u64(block, 8, self.sequence);
        put_u32(block, 16, self.epoch);
        put_u16(block, 20, self.shard.0);
        put_u64(block, 24, self.secret.0);
        let checksum = crc32c::crc32c(&block[..CRC]);
        put_u32(block, CRC, checksum);
    }

    fn decode(block: &[u8]) -> Slot {
        if get_u32(block, 0) != MAGIC_VALUE || get_u32(block, CRC) != crc32c::crc32c(&block[..CRC]) {
            return Slot::Unreadable;
        }
        match get_u32(block, 4) {
            VERSION_VALUE => Slot::Valid(Manifest {
                sequence: get_u64(block, 8),
                epoch: get_u32(block, 16),
                shard: ShardId(get_u16(block, 20)),
                secret: LogSecret(get_u64(block, 24)),
                is_alone: false,
            }),
            version => Slot::Newer(version),
        }
    }

    /// Reads the manifest without changing it; `None` when there is none.
    pub async fn read<D: Disk>(disk: &D, directory: &Path) -> Result<Option<Manifest>, OpenError> {
        let path = directory.join(NAME);
        let file = match disk.open(&path, OpenMode::ReadOnly).await {
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let found = if file.size().await? < 2 * BLOCK_BYTES as u64 {
            // A start that was cut off before the first manifest was durable.
            None
        } else {
            let bytes = file.read(0, 2 * BLOCK_BYTES).await?;
            let mut newest: Option<Manifest> = None;
            let mut unreadable = false;
            for block in bytes.chunks(BLOCK_BYTES) {
                match Self::decode(block) {
                    Slot::Valid(manifest)
                        if newest.is_none_or(|other| other.sequence < manifest.sequence) =>
                    {
                        newest = Some(manifest);
                    }
                    Slot::Valid(_) => {}
                    Slot::Unreadable => unreadable = true,
                    Slot::Newer(version) => {
                        let file = path.display().to_string();
                        return Err(OpenError::Newer { file, what: format!("manifest version {version}") });
                    }
                }
            }
            newest.map(|newest| Manifest {
                epoch: newest.epoch + u32::from(unreadable),
                is_alone: unreadable,
                ..newest
            })
        };
        file.close().await?;
        Ok(found)
    }

    /// Makes the next epoch durable and returns it. `has_segments` tells whether a missing manifest is a new shard or a
    /// loss; a new shard gets `secret`.
    pub async fn advance<D: Disk>(
        disk: &D,
        directory: &Path,
        shard: ShardId,
        has_segments: bool,
        secret: LogSecret,
    ) -> Result<Manifest, OpenError> {
        let path = directory.join(NAME);
        let found = Self::read(disk, directory).await?;
        let display = || path.display().to_string();
        match found {
            Some(other) if other.shard != shard => {
                return Err(OpenError::WrongShard {
                    file: display(),
                    found: other.shard.0,
                    expected: shard.0,
                });
            }
            None if has_segments => return Err(OpenError::ManifestLost { file: display() }),
            _ => {}
        }
        let mut next = match found {
            Some(manifest) => {
                let (sequence, epoch) = (manifest.sequence + 1, manifest.epoch + 1);
                Manifest { sequence, epoch, shard, secret: manifest.secret, is_alone: false }
            }
            None => Manifest { sequence: 1, epoch: 1, shard, secret, is_alone: false },
        };
        let mode = if found.is_some() { OpenMode::Existing } else { OpenMode::Create };
        let file = disk.open(&path, mode).await?;
        if mode == OpenMode::Create {
            file.preallocate(2 * BLOCK_BYTES as u64).await?;
        }
        let mut is_stored = next.store(disk, &file).await?;
        if found.is_none_or(|found| found.is_alone) {
            next.sequence += 1;
            is_stored &= next.store(disk, &file).await?;
        }
        file.close().await?;
        disk.sync_directory(directory).await?;
        if is_stored { Ok(next) } else { Err(OpenError::ManifestNotStored { file: display() }) }
    }

    /// Writes the block, flushes it, and tells whether it is there. A device that loses this write and says that it was
    /// done would cost the whole run: without its epoch the run's batches count for nothing at the next start.
    async fn store<D: Disk>(&self, disk: &D, file: &D::File) -> Result<bool, OpenError> {
        let mut block = disk.allocate(BLOCK_BYTES);
        self.encode(block.as_mut_slice());
        let slot = (self.sequence % 2) * BLOCK_BYTES as u64;
        file.write(slot, Rc::new(block)).await?;
        file.sync().await?;
        let stored = file.read(slot, BLOCK_BYTES).await?;
        Ok(matches!(Self::decode(&stored), Slot::Valid(manifest) if manifest == *self))
    }
}
