//! The shard's manifest: the few facts that must be known before the log is read.
//!
//! Two blocks in one file, written alternately, each flushed before anything relies on it; the readable one with the higher
//! sequence counts. So a torn write leaves the other, and no rename is needed. What is true of the files, the holdings, is
//! written to both blocks before a file may go: the older block must not ask for it then.
//!
//! A block that cannot be read is either the unfinished write of a start that never got to work, or was whole once and
//! is damaged now: then batches of the epoch that it named are in the log, and were answered. So its epoch, one higher
//! than the other block's, counts as given away. So that this holds the next time as well, such a start writes both
//! blocks. A file that was cut off goes on with the block that is left.
//!
//! ```text
//!   0  u32  magic       0x464d_5054, "TPMF"
//!   4  u32  version     1
//!   8  u64  sequence
//!  16  u32  epoch       of the latest start; every batch in the log has this epoch or a lower one
//!  20  u16  shard
//!  22  u16  0
//!  24  u64  secret      mixed into the checksums of stored headers: see `wire::batch`
//!  32  u32  crc         crc32c of bytes 0..32
//!  36  u32  crc         crc32c of bytes 40..4096, then of bytes 0..36
//!  40  u64  first_base  of the oldest segment that there must be
//!  48  u64  last_base   of the newest one that was made
//!  56  u64  last_bytes  its size; 0: none was made yet
//!  64  u64  reached     the log was durable up to here, at least
//!  72  u16  shards      of the node
//!  74  u16  flags       1: the log ended at `reached` when it was stopped; 2: the epochs at the end are there
//!                      4, 8: snapshot-0, snapshot-1 was written
//!  76  u32  count       of ranges that an operator gave up, oldest first:
//!  80 + 24 i  u64 from, u64 to, u64 end   see `GivenUp`
//!  4096 - 4 shards + 4 s  u32   epoch that shard s had reached at least, when flag 2 is set
//! ```
//!
//! The epochs are left out while the ranges need their room.
//!
//! Releases before 36 was in use wrote zeros from there on: such a manifest says nothing of the files.

use std::path::Path;
use std::rc::Rc;

use super::error::OpenError;
use crate::disk::{Disk, DiskBuffer, DiskErrorKind, DiskFile, OpenMode};
use crate::limits::BLOCK_BYTES;
use crate::types::{LogPosition, ShardId};
use crate::wire::batch::LogSecret;
use crate::wire::bytes::{get_u16, get_u32, get_u64, put_u16, put_u32, put_u64};

const MAGIC_VALUE: u32 = 0x464d_5054;
const VERSION_VALUE: u32 = 1;
const CRC: usize = 32;
const REST_CRC: usize = 36;
const REST: usize = 40;
const FLAG_IS_END: u16 = 1;
const FLAG_HAS_EPOCHS: u16 = 2;
const FLAGS_SNAPSHOTS: [u16; 2] = [4, 8];
const RANGES: usize = 80;
const RANGE_BYTES: usize = 24;
const EPOCH_BYTES: usize = 4;
/// Ranges that fit. When there would be more, the two that lie closest become one.
const RANGES_MAX: usize = (BLOCK_BYTES - RANGES) / RANGE_BYTES;
const FILE_BYTES: u64 = 2 * BLOCK_BYTES as u64;
pub(super) const NAME: &str = "manifest";

/// The facts themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    sequence: u64,
    /// Epoch of this start.
    pub epoch: u32,
    pub shard: ShardId,
    /// Never changes in the life of the log.
    pub secret: LogSecret,
    /// What the log must have; `None` when a release that did not say so wrote it last.
    pub holdings: Option<Holdings>,
    /// What is missing with the operator's consent, in log order.
    pub given_up: Vec<GivenUp>,
    /// Epochs that the shards of the node had reached when all of them had started, in their order; empty when that is
    /// not known. A shard that has a lower one than another shard's manifest says is older than that shard.
    pub shard_epochs: Vec<u32>,
    /// Which of the two files of snapshots were written: those that are not there any more were lost. Releases before this
    /// was noted wrote none.
    pub snapshots: [bool; 2],
    /// The other block could not be read, or the file has not the size that it was made with.
    pub is_alone: bool,
}

/// The files and bytes that a log must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    pub first_base: LogPosition,
    pub last_base: LogPosition,
    /// Zero when no segment was made yet.
    pub last_bytes: u64,
    /// The log was durable up to here; it may have gone on.
    pub reached: LogPosition,
    /// It had not: this is where it was stopped.
    pub is_end: bool,
    pub shard_count: u16,
}

/// A range of the log that an operator gave up: it is gone, or holes are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    pub from: LogPosition,
    pub to: LogPosition,
    /// Nothing was ever stored from here on, below `to`.
    pub end: LogPosition,
}

/// A copy of a log: what is to be said in its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedLog {
    pub shard: ShardId,
    pub shard_count: u16,
    pub secret: LogSecret,
    /// Of the latest run that has written to what was copied.
    pub epoch: u32,
    pub first_base: LogPosition,
    /// The segment in which the copy ends, and the size of its file, of which less may have been copied.
    pub last_base: LogPosition,
    pub last_bytes: u64,
    /// After the last batch that is in the copy.
    pub end: LogPosition,
    pub given_up: Vec<GivenUp>,
    pub shard_epochs: Vec<u32>,
}

/// What one of the two blocks says.
enum Slot {
    Valid(Manifest),
    Unreadable,
    Newer(u32),
}

impl Holdings {
    /// Of a log that has nothing yet.
    pub fn none(shard_count: u16) -> Self {
        let zero = LogPosition::ZERO;
        let (first_base, last_base, last_bytes, reached) = (zero, zero, 0, zero);
        Self { first_base, last_base, last_bytes, reached, is_end: false, shard_count }
    }

    /// First position after the newest segment.
    pub fn end(&self) -> LogPosition {
        self.last_base.advance(self.last_bytes)
    }
}

impl GivenUp {
    /// What may have been stored there, at or after `position`.
    pub fn bytes_from(&self, position: LogPosition) -> u64 {
        self.end.0.saturating_sub(position.max(self.from).0)
    }
}

impl CopiedLog {
    /// The manifest's file, for whoever makes a log of the copy: it ends where the copy does, and there never was a snapshot.
    pub fn manifest_file(&self) -> Vec<u8> {
        let mut manifest = Manifest::new(self.shard, self.secret, self.epoch, self.shard_count);
        manifest.holdings = Some(Holdings {
            first_base: self.first_base,
            last_base: self.last_base,
            last_bytes: self.last_bytes,
            reached: self.end,
            is_end: true,
            shard_count: self.shard_count,
        });
        manifest.give_up(&self.given_up, self.first_base);
        manifest.shard_epochs.clone_from(&self.shard_epochs);
        if !manifest.has_room_for_epochs() {
            manifest.shard_epochs.clear();
        }
        let mut file = vec![0; FILE_BYTES as usize];
        for _ in 0..2 {
            manifest.sequence += 1;
            let at = (manifest.sequence % 2) as usize * BLOCK_BYTES;
            manifest.encode(&mut file[at..at + BLOCK_BYTES]);
        }
        file
    }
}

impl Manifest {
    /// Of a log whose manifest was lost, or that is new.
    pub fn new(shard: ShardId, secret: LogSecret, epoch: u32, shard_count: u16) -> Self {
        let holdings = Some(Holdings::none(shard_count));
        let (given_up, shard_epochs) = (Vec::new(), Vec::new());
        let snapshots = [false; 2];
        Self {
            sequence: 0,
            epoch,
            shard,
            secret,
            holdings,
            given_up,
            shard_epochs,
            snapshots,
            is_alone: true,
        }
    }

    /// Adds ranges to those given up, and forgets those below the log's first position.
    pub fn give_up(&mut self, ranges: &[GivenUp], first: LogPosition) {
        let all = &mut self.given_up;
        all.extend(ranges);
        all.retain(|range| range.to > first);
        all.sort_by_key(|range| (range.from, range.to));
        let mut at = 1;
        while at < all.len() {
            let (before, range) = (all[at - 1], all[at]);
            if range.from < before.to || range == before {
                all[at - 1].to = before.to.max(range.to);
                all[at - 1].end = before.end.max(range.end);
                all.remove(at);
            } else {
                at += 1;
            }
        }
        while all.len() > RANGES_MAX {
            let gap = |at: &usize| all[*at].from.since(all[*at - 1].to);
            let closest = (1..all.len()).min_by_key(gap).expect("there are two");
            let range = all.remove(closest);
            all[closest - 1].to = range.to;
            all[closest - 1].end = range.end;
        }
    }

    /// Whether the epochs are those of every shard, and the block has room for them.
    fn has_room_for_epochs(&self) -> bool {
        let bytes = RANGES + RANGE_BYTES * self.given_up.len() + EPOCH_BYTES * self.shard_epochs.len();
        let shards = self.holdings.map(|holdings| usize::from(holdings.shard_count));
        bytes <= BLOCK_BYTES && shards == Some(self.shard_epochs.len())
    }

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
        let Some(holdings) = &self.holdings else { return };
        put_u64(block, 40, holdings.first_base.0);
        put_u64(block, 48, holdings.last_base.0);
        put_u64(block, 56, holdings.last_bytes);
        put_u64(block, 64, holdings.reached.0);
        put_u16(block, 72, holdings.shard_count);
        let has_epochs = !self.shard_epochs.is_empty();
        let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
        let snapshots = self.snapshots.iter().zip(FLAGS_SNAPSHOTS);
        let snapshots = snapshots.fold(0, |flags, (is_set, bit)| flags | flag(*is_set, bit));
        let flags = flag(holdings.is_end, FLAG_IS_END) | flag(has_epochs, FLAG_HAS_EPOCHS) | snapshots;
        put_u16(block, 74, flags);
        assert!(self.given_up.len() <= RANGES_MAX, "{} ranges", self.given_up.len());
        put_u32(block, 76, self.given_up.len() as u32);
        for (range, at) in self.given_up.iter().zip((RANGES..).step_by(RANGE_BYTES)) {
            put_u64(block, at, range.from.0);
            put_u64(block, at + 8, range.to.0);
            put_u64(block, at + 16, range.end.0);
        }
        assert!(!has_epochs || self.has_room_for_epochs(), "{} epochs", self.shard_epochs.len());
        for (epoch, at) in
            self.shard_epochs.iter().rev().zip((1..).map(|from_end| BLOCK_BYTES - EPOCH_BYTES * from_end))
        {
            put_u32(block, at, *epoch);
        }
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&block[REST..]), &block[..REST_CRC]);
        put_u32(block, REST_CRC, checksum);
    }

    fn decode(block: &[u8]) -> Slot {
        if get_u32(block, 0) != MAGIC_VALUE || get_u32(block, CRC) != crc32c::crc32c(&block[..CRC]) {
            return Slot::Unreadable;
        }
        match get_u32(block, 4) {
            VERSION_VALUE => {}
            version => return Slot::Newer(version),
        }
        let mut manifest = Manifest {
            sequence: get_u64(block, 8),
            epoch: get_u32(block, 16),
            shard: ShardId(get_u16(block, 20)),
            secret: LogSecret(get_u64(block, 24)),
            holdings: None,
            given_up: Vec::new(),
            shard_epochs: Vec::new(),
            snapshots: [false; 2],
            is_alone: false,
        };
        if block[REST_CRC..].iter().all(|byte| *byte == 0) {
            return Slot::Valid(manifest);
        }
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&block[REST..]), &block[..REST_CRC]);
        let count = get_u32(block, 76) as usize;
        if get_u32(block, REST_CRC) != checksum || count > RANGES_MAX {
            return Slot::Unreadable;
        }
        let (flags, shard_count) = (get_u16(block, 74), get_u16(block, 72));
        manifest.holdings = Some(Holdings {
            first_base: LogPosition(get_u64(block, 40)),
            last_base: LogPosition(get_u64(block, 48)),
            last_bytes: get_u64(block, 56),
            reached: LogPosition(get_u64(block, 64)),
            is_end: flags & FLAG_IS_END != 0,
            shard_count,
        });
        manifest.snapshots = FLAGS_SNAPSHOTS.map(|bit| flags & bit != 0);
        let position = |at| LogPosition(get_u64(block, at));
        let range = |at| GivenUp { from: position(at), to: position(at + 8), end: position(at + 16) };
        manifest.given_up = (RANGES..).step_by(RANGE_BYTES).take(count).map(range).collect();
        let epochs_bytes = EPOCH_BYTES * usize::from(shard_count);
        if flags & FLAG_HAS_EPOCHS != 0 && RANGES + RANGE_BYTES * count + epochs_bytes <= BLOCK_BYTES {
            let epochs = (BLOCK_BYTES - epochs_bytes..BLOCK_BYTES).step_by(EPOCH_BYTES);
            manifest.shard_epochs = epochs.map(|at| get_u32(block, at)).collect();
        }
        Slot::Valid(manifest)
    }

    /// Reads the manifest without changing it; `None` when there is none, or neither block can be read.
    pub async fn read<D: Disk>(disk: &D, directory: &Path) -> Result<Option<Manifest>, OpenError> {
        let path = directory.join(NAME);
        let file = match disk.open(&path, OpenMode::ReadOnly).await {
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let found = Self::read_file(&file, &path).await;
        file.close().await?;
        found
    }

    async fn read_file<F: DiskFile>(file: &F, path: &Path) -> Result<Option<Manifest>, OpenError> {
        let file_bytes = file.size().await?;
        let mut newest: Option<Manifest> = None;
        let mut unreadable = file_bytes != FILE_BYTES;
        for at in [0, BLOCK_BYTES as u64] {
            // A block that is not all there is as good as damaged.
            if at + BLOCK_BYTES as u64 > file_bytes {
                unreadable = true;
                continue;
            }
            let block = file.read(at, BLOCK_BYTES).await?;
            match Self::decode(&block) {
                Slot::Valid(manifest)
                    if newest.as_ref().is_none_or(|other| other.sequence < manifest.sequence) =>
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
        Ok(newest.map(|newest| Manifest {
            epoch: newest.epoch + u32::from(unreadable),
            is_alone: unreadable,
            ..newest
        }))
    }

    /// Makes the next epoch durable and returns it. `has_segments` tells whether a missing manifest is a new shard or a
    /// loss; a new shard gets `secret`.
    pub async fn advance<D: Disk>(
        disk: &D,
        directory: &Path,
        shard: ShardId,
        has_segments: bool,
        (secret, shard_count): (LogSecret, u16),
    ) -> Result<Manifest, OpenError> {
        let path = directory.join(NAME);
        let found = Self::read(disk, directory).await?;
        let display = || path.display().to_string();
        let is_alone = found.as_ref().is_none_or(|found| found.is_alone);
        let mut next = match found {
            Some(other) if other.shard != shard => {
                let found = other.shard.0;
                return Err(OpenError::WrongShard { file: display(), found, expected: shard.0 });
            }
            None if has_segments => return Err(OpenError::ManifestLost { file: display() }),
            Some(manifest) => manifest,
            None => Self::new(shard, secret, 0, shard_count),
        };
        next.epoch += 1;
        next.is_alone = false;
        if let Some(holdings) = &mut next.holdings {
            // From here on the log may go on.
            holdings.is_end = false;
        }
        next.write(disk, directory, if is_alone { 2 } else { 1 }).await?;
        // Its name may be no older than the start before this one.
        disk.sync_directory(directory).await?;
        Ok(next)
    }

    /// Writes `blocks` blocks, one after the other, over the older one first.
    pub async fn write<D: Disk>(&mut self, disk: &D, directory: &Path, blocks: u32) -> Result<(), OpenError> {
        self.write_as(disk, &directory.join(NAME), blocks).await
    }

    /// The same under another name.
    pub async fn write_as<D: Disk>(&mut self, disk: &D, path: &Path, blocks: u32) -> Result<(), OpenError> {
        let file = match disk.open(path, OpenMode::Existing).await {
            Err(error) if error.kind == DiskErrorKind::NotFound => disk.open(path, OpenMode::Create).await?,
            opened => opened?,
        };
        let written = self.write_to(disk, &file, blocks).await;
        file.close().await?;
        if written? { Ok(()) } else { Err(OpenError::ManifestNotStored { file: path.display().to_string() }) }
    }

    async fn write_to<D: Disk>(&mut self, disk: &D, file: &D::File, blocks: u32) -> Result<bool, OpenError> {
        if file.size().await? < FILE_BYTES {
            file.preallocate(FILE_BYTES).await?;
        }
        let mut is_stored = true;
        self.is_alone = false;
        if !self.has_room_for_epochs() {
            self.shard_epochs.clear();
        }
        for _ in 0..blocks {
            self.sequence += 1;
            is_stored &= self.store(disk, file).await?;
        }
        Ok(is_stored)
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
