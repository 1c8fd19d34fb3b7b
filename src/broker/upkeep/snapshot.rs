//! Snapshots: the tables and the index as of a log position, so that a start replays the newest bytes only.
//!
//! Two files are written alternately, each with its header last in meaning but first in place: a snapshot counts only when
//! both checksums are right, so a death while one is written leaves the other.
//!
//! ```text
//!  0  u32  magic        0x5353_5054, "TPSS"
//!  4  u32  version      1
//!  8  u64  sequence     the readable one with the higher sequence counts
//! 16  u64  position     of the log: everything below is in here
//! 24  u32  epoch        of the log at that position
//! 28  u32  tables_bytes
//! 32  u64  index_bytes
//! 40  u64  newest_ms    store time that the log had reached: the next batch gets none before it
//! 48  u32  payload_crc  crc32c of everything after this block
//! 52  u32  header_crc   crc32c of bytes 0..52
//! 56  u64  secret       of the log, and its shard: whose snapshot this is. Zeros, with those after, in those that
//! 64  u16  shard        releases wrote that did not say so
//! 66  u16  0
//! 68  u32  owner_crc    crc32c of bytes 56..68
//! 4096 tables as changes (see `state_record`), then the index's snapshot
//! ```

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::disk::{Disk, DiskBuffer, DiskError, DiskErrorKind, DiskFile, OpenMode};
use crate::limits::{BLOCK_BYTES, READ_BYTES};
use crate::types::{LogPosition, ShardId, Timestamp};
use crate::wire::batch::LogSecret;
use crate::wire::bytes::{get_u16, get_u32, get_u64, put_u16, put_u32, put_u64};

const MAGIC_VALUE: u32 = 0x5353_5054;
const VERSION_VALUE: u32 = 1;
const PAYLOAD_CRC: usize = 48;
const HEADER_CRC: usize = 52;
const OWNER: usize = 56;
const OWNER_CRC: usize = 68;
/// A snapshot larger than this is not one.
const PAYLOAD_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// What a start goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub sequence: u64,
    pub position: LogPosition,
    pub epoch: u32,
    /// Store times never fall within a log, so the next start must know this one even when it replays nothing.
    pub newest: Timestamp,
    /// Whose it is, unless an older release wrote it.
    pub owner: Option<Owner>,
    pub tables: Vec<u8>,
    pub index: Vec<u8>,
}

/// The log that a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub secret: LogSecret,
    pub shard: ShardId,
}

/// A file that has the name of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundSnapshot {
    Missing(PathBuf),
    /// Something else has its name, which keeps the broker from starting.
    Refused(DiskError),
    /// Not whole: a death while it was written, or damage.
    Damaged(PathBuf),
    Whole(PathBuf, Snapshot),
}

fn file_name(sequence: u64) -> String {
    format!("snapshot-{}", sequence % 2)
}

impl Snapshot {
    /// Which of the two files the snapshot is written to.
    pub fn slot(&self) -> usize {
        (self.sequence % 2) as usize
    }

    /// What the two files hold that are written in turn, by their slots.
    pub async fn read_both<D: Disk>(disk: &D, directory: &Path) -> Result<[FoundSnapshot; 2], DiskError> {
        let read = async |slot| {
            let path = directory.join(file_name(slot));
            read_slot(disk, path).await
        };
        Ok([read(0).await?, read(1).await?])
    }

    /// The newest readable one of the two.
    pub async fn read_newest<D: Disk>(disk: &D, directory: &Path) -> Result<Option<Snapshot>, DiskError> {
        let whole = Self::read_both(disk, directory).await?.into_iter().filter_map(|found| match found {
            FoundSnapshot::Whole(_, snapshot) => Some(snapshot),
            FoundSnapshot::Missing(_) | FoundSnapshot::Refused(_) | FoundSnapshot::Damaged(_) => None,
        });
        Ok(whole.max_by_key(|snapshot| snapshot.sequence))
    }

    /// Writes the snapshot over the older one and flushes it.
    pub async fn write<D: Disk>(&self, disk: &D, directory: &Path) -> Result<(), DiskError> {
        let path = directory.join(file_name(self.sequence));
        let payload_bytes = self.tables.len() + self.index.len();
        let file_bytes = (BLOCK_BYTES + payload_bytes).next_multiple_of(BLOCK_BYTES) as u64;
        let file = match disk.open(&path, OpenMode::Existing).await {
            Err(error) if error.kind == DiskErrorKind::NotFound => {
                let file = disk.open(&path, OpenMode::Create).await?;
                disk.sync_directory(directory).await?;
                file
            }
            opened => opened?,
        };
        let written = self.write_to(disk, &file, file_bytes).await;
        file.close().await?;
        written
    }

    async fn write_to<D: Disk>(&self, disk: &D, file: &D::File, file_bytes: u64) -> Result<(), DiskError> {
        if file.size().await? < file_bytes {
            // Ahead of need, so that the next ones find their blocks.
            file.preallocate(file_bytes.next_multiple_of(1024 * 1024)).await?;
        }
        let mut bytes = Vec::with_capacity(file_bytes as usize);
        bytes.extend_from_slice(&self.header());
        bytes.extend_from_slice(&self.tables);
        bytes.extend_from_slice(&self.index);
        bytes.resize(file_bytes as usize, 0);
        for (piece, at) in bytes.chunks(READ_BYTES).zip((0u64..).step_by(READ_BYTES)) {
            let mut buffer = disk.allocate(piece.len());
            buffer.as_mut_slice().copy_from_slice(piece);
            file.write(at, Rc::new(buffer)).await?;
        }
        file.sync().await
    }

    fn header(&self) -> [u8; BLOCK_BYTES] {
        let mut header = [0; BLOCK_BYTES];
        put_u32(&mut header, 0, MAGIC_VALUE);
        put_u32(&mut header, 4, VERSION_VALUE);
        put_u64(&mut header, 8, self.sequence);
        put_u64(&mut header, 16, self.position.0);
        put_u32(&mut header, 24, self.epoch);
        put_u32(&mut header, 28, self.tables.len() as u32);
        put_u64(&mut header, 32, self.index.len() as u64);
        put_u64(&mut header, 40, self.newest.0);
        let payload_checksum = crc32c::crc32c_append(crc32c::crc32c(&self.tables), &self.index);
        put_u32(&mut header, PAYLOAD_CRC, payload_checksum);
        let checksum = crc32c::crc32c(&header[..HEADER_CRC]);
        put_u32(&mut header, HEADER_CRC, checksum);
        if let Some(owner) = &self.owner {
            put_u64(&mut header, OWNER, owner.secret.0);
            put_u16(&mut header, OWNER + 8, owner.shard.0);
            let checksum = crc32c::crc32c(&header[OWNER..OWNER_CRC]);
            put_u32(&mut header, OWNER_CRC, checksum);
        }
        header
    }
}

/// One of the two. What a death while writing leaves is not whole.
async fn read_slot<D: Disk>(disk: &D, path: PathBuf) -> Result<FoundSnapshot, DiskError> {
    let file = match disk.open(&path, OpenMode::ReadOnly).await {
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(FoundSnapshot::Missing(path)),
        Err(error) if error.kind == DiskErrorKind::NotRegular => return Ok(FoundSnapshot::Refused(error)),
        opened => opened?,
    };
    let snapshot = read_file(&file).await;
    file.close().await?;
    Ok(match snapshot? {
        Some(snapshot) => FoundSnapshot::Whole(path, snapshot),
        None => FoundSnapshot::Damaged(path),
    })
}

/// Whose snapshot it is; an error when that was damaged.
fn owner(header: &[u8]) -> Result<Option<Owner>, ()> {
    if header[OWNER..].iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if get_u32(header, OWNER_CRC) != crc32c::crc32c(&header[OWNER..OWNER_CRC]) {
        return Err(());
    }
    let (secret, shard) = (LogSecret(get_u64(header, OWNER)), ShardId(get_u16(header, OWNER + 8)));
    Ok(Some(Owner { secret, shard }))
}

async fn read_file<F: DiskFile>(file: &F) -> Result<Option<Snapshot>, DiskError> {
    // What lies in a block that is not all there cannot be read with direct I/O.
    let size = file.size().await? / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    if size < BLOCK_BYTES as u64 {
        return Ok(None);
    }
    let header = file.read(0, BLOCK_BYTES).await?;
    let known = get_u32(&header, 0) == MAGIC_VALUE
        && get_u32(&header, HEADER_CRC) == crc32c::crc32c(&header[..HEADER_CRC])
        && get_u32(&header, 4) == VERSION_VALUE;
    let (tables_bytes, index_bytes) = (u64::from(get_u32(&header, 28)), get_u64(&header, 32));
    if !known || index_bytes > PAYLOAD_BYTES_MAX {
        return Ok(None);
    }
    let payload_bytes = tables_bytes + index_bytes;
    let Ok(owner) = owner(&header) else { return Ok(None) };
    if (BLOCK_BYTES as u64 + payload_bytes).next_multiple_of(BLOCK_BYTES as u64) > size {
        return Ok(None);
    }
    let payload_bytes = payload_bytes as usize;
    let mut payload = Vec::with_capacity(payload_bytes.next_multiple_of(BLOCK_BYTES));
    let mut at = BLOCK_BYTES as u64;
    while payload.len() < payload_bytes {
        let bytes = (payload_bytes - payload.len()).next_multiple_of(BLOCK_BYTES).min(READ_BYTES);
        payload.extend_from_slice(&file.read(at, bytes).await?);
        at += bytes as u64;
    }
    payload.truncate(payload_bytes);
    if crc32c::crc32c(&payload) != get_u32(&header, PAYLOAD_CRC) {
        return Ok(None);
    }
    let index = payload.split_off(tables_bytes as usize);
    Ok(Some(Snapshot {
        sequence: get_u64(&header, 8),
        position: LogPosition(get_u64(&header, 16)),
        epoch: get_u32(&header, 24),
        newest: Timestamp(get_u64(&header, 40)),
        owner,
        tables: payload,
        index,
    }))
}
