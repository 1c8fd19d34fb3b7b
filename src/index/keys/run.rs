//! A run: one immutable file.
//!
//! ```text
//! block 0              header
//! block 1 ..           data blocks, sorted by hash, then by location
//! block filter_start.. filter blocks, see `block`
//!
//! header, after the fields of every block (its run is 0)
//! 16  u32  magic         0x524b_5054, "TPKR"
//! 20  u32  version       1
//! 24  u64  base          where the log segment begins
//! 32  u64  from          the run holds the keys of the batches from here
//! 40  u64  to            up to here
//! 48  u64  entry_count
//! 56  u32  data_blocks
//! 60  u32  filter_start
//! 64  u32  filter_blocks
//! 68  u32  epoch         of the log's run that wrote it
//! 72  u32  log           whose keys they are, see [`KeyOwner`]; 0 in runs that earlier releases wrote
//! ```

use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::block::{
    self, BLOCK_ENTRIES, KeyEntry, entry, entry_count, filter_block, filter_may_hold, filter_ranks, is_sound,
};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile, OpenMode};
use crate::index::IndexError;
use crate::limits::{BLOCK_BYTES, INDEX_PIECE_BYTES};
use crate::types::{LogPosition, RecordLocation};
use crate::wire::bytes::{get_u32, get_u64, put_u32, put_u64};

const MAGIC_VALUE: u32 = 0x524b_5054;
const VERSION_VALUE: u32 = 1;
const SUFFIX: &str = ".keys";
const DIGITS: usize = 20;
/// Bits of a location that say which record of its batch it is.
const INDEX_BITS: u32 = 16;

/// The part of the log that a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunRange {
    /// Where the segment begins.
    pub base: LogPosition,
    pub from: LogPosition,
    pub to: LogPosition,
}

/// Who writes key runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOwner {
    /// Of this run of the log.
    pub epoch: u32,
    /// A number that tells the log from others, not 0: a file of another shard may have the right name.
    pub log: u32,
}

/// What a run's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunHeader {
    pub range: RunRange,
    pub owner: KeyOwner,
    pub entry_count: u64,
    pub data_blocks: u32,
    pub filter_start: u32,
    pub filter_blocks: u32,
}

/// An open run.
pub struct Run<D: Disk> {
    /// Never given to another run while the index is open.
    pub id: u64,
    pub header: RunHeader,
    pub path: PathBuf,
    pub file: D::File,
    tag: u32,
}

/// A place in a run's file that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDamage {
    pub file: PathBuf,
    pub position: u64,
}

/// The next step of a look-up.
pub type ReadBlock<D> = <<D as Disk>::File as DiskFile>::ReadBuffer;

impl RunRange {
    /// A location within the segment, as runs store it. Locations rise as positions do.
    pub fn relative(&self, location: RecordLocation) -> u64 {
        ((location.position.since(self.base) / 8) << INDEX_BITS) | u64::from(location.index)
    }

    pub fn absolute(&self, location: u64) -> RecordLocation {
        RecordLocation { position: self.base.advance((location >> INDEX_BITS) * 8), index: location as u16 }
    }

    pub fn file_name(&self) -> String {
        format!("{:020}-{:020}{SUFFIX}", self.from.0, self.to.0)
    }

    /// `from` and `to` of a run's file, by its name.
    pub fn parse_name(name: &str) -> Option<(LogPosition, LogPosition)> {
        let (from, to) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let position = |digits: &str| {
            let plain = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
            plain.then(|| digits.parse().ok().map(LogPosition)).flatten()
        };
        Some((position(from)?, position(to)?))
    }
}

impl RunHeader {
    /// Tells the blocks of this run from those of others.
    pub fn tag(&self) -> u32 {
        let mut bytes = [0; 28];
        for (at, position) in [(0, self.range.base), (8, self.range.from), (16, self.range.to)] {
            put_u64(&mut bytes, at, position.0);
        }
        put_u32(&mut bytes, 24, self.owner.epoch);
        match self.owner.log {
            0 => crc32c::crc32c(&bytes),
            log => crc32c::crc32c_append(log, &bytes),
        }
    }

    /// Whether the run holds the keys of the owner's log, and was written in an earlier life of it.
    pub fn is_of(&self, owner: KeyOwner) -> bool {
        (self.owner.log == 0 || self.owner.log == owner.log) && self.owner.epoch < owner.epoch
    }

    pub fn encode(&self, output: &mut [u8]) {
        output.fill(0);
        put_u32(output, 16, MAGIC_VALUE);
        put_u32(output, 20, VERSION_VALUE);
        put_u64(output, 24, self.range.base.0);
        put_u64(output, 32, self.range.from.0);
        put_u64(output, 40, self.range.to.0);
        put_u64(output, 48, self.entry_count);
        put_u32(output, 56, self.data_blocks);
        put_u32(output, 60, self.filter_start);
        put_u32(output, 64, self.filter_blocks);
        put_u32(output, 68, self.owner.epoch);
        put_u32(output, 72, self.owner.log);
        block::seal(output, 0, 0, 0);
    }

    /// `None` when the bytes are no header of a run that this release reads.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if !is_sound(bytes, 0, 0) || get_u32(bytes, 16) != MAGIC_VALUE || get_u32(bytes, 20) != VERSION_VALUE
        {
            return None;
        }
        let position = |at| LogPosition(get_u64(bytes, at));
        let header = Self {
            range: RunRange { base: position(24), from: position(32), to: position(40) },
            owner: KeyOwner { epoch: get_u32(bytes, 68), log: get_u32(bytes, 72) },
            entry_count: get_u64(bytes, 48),
            data_blocks: get_u32(bytes, 56),
            filter_start: get_u32(bytes, 60),
            filter_blocks: get_u32(bytes, 64),
        };
        let RunRange { base, from, to } = header.range;
        let fits = base <= from
            && from < to
            && u64::from(header.data_blocks) == header.entry_count.div_ceil(BLOCK_ENTRIES as u64)
            && header.filter_start > header.data_blocks
            && (header.filter_blocks > 0) == (header.entry_count > 0)
            && header.filter_start.checked_add(header.filter_blocks).is_some();
        fits.then_some(header)
    }

    fn end_block(&self) -> u32 {
        self.filter_start + self.filter_blocks
    }
}

impl<D: Disk> Run<D> {
    pub fn new(id: u64, header: RunHeader, path: PathBuf, file: D::File) -> Self {
        Self { id, header, path, file, tag: header.tag() }
    }

    /// Opens a run; `None` when its header is damaged or not what its name says.
    pub async fn open(disk: &D, path: &Path, id: u64) -> Result<Option<Self>, DiskError> {
        let file = disk.open(path, OpenMode::ReadOnly).await?;
        let header = match file.read(0, BLOCK_BYTES).await {
            Ok(bytes) => RunHeader::decode(&bytes),
            Err(error) if error.kind == DiskErrorKind::OutOfRange => None,
            Err(error) => {
                let _ = file.close().await;
                return Err(error);
            }
        };
        let named = path.file_name().and_then(|name| RunRange::parse_name(name.to_str()?));
        match header.filter(|header| named == Some((header.range.from, header.range.to))) {
            Some(header) => Ok(Some(Self::new(id, header, path.to_owned(), file))),
            None => {
                file.close().await?;
                Ok(None)
            }
        }
    }

    pub fn range(&self) -> RunRange {
        self.header.range
    }

    fn damaged(&self, block: u32) -> IndexError {
        let position = u64::from(block) * BLOCK_BYTES as u64;
        IndexError::Damaged {
            file: self.path.clone(),
            position,
            reason: crate::index::block::BlockError::Checksum,
        }
    }

    /// One block, checked.
    pub async fn block(&self, number: u32) -> Result<ReadBlock<D>, IndexError> {
        match self.file.read(u64::from(number) * BLOCK_BYTES as u64, BLOCK_BYTES).await {
            Ok(bytes) if is_sound(&bytes, number, self.tag) => Ok(bytes),
            Ok(_) => Err(self.damaged(number)),
            Err(error) if error.kind == DiskErrorKind::OutOfRange => Err(self.damaged(number)),
            Err(error) => Err(error.into()),
        }
    }

    /// Number of the filter block to ask about `hash`; `None` in a run without entries.
    pub fn filter_number(&self, hash: u64) -> Option<u32> {
        let count = self.header.filter_blocks;
        (count > 0).then(|| self.header.filter_start + filter_block(hash, count))
    }

    /// The last data block whose first hash is not above `hash`, when that holds `hash` or the key may end before it;
    /// `None` when the run does not hold the hash. `filter` is the filter block of the hash.
    pub async fn last_block_of(
        &self,
        hash: u64,
        filter: &[u8],
    ) -> Result<Option<(u32, ReadBlock<D>)>, IndexError> {
        if !filter_may_hold(filter, hash) {
            return Ok(None);
        }
        let (first, end) = filter_ranks(filter);
        if first >= end || end > self.header.entry_count {
            return Ok(None);
        }
        let number_of = |rank: u64| 1 + (rank / BLOCK_ENTRIES as u64) as u32;
        let (mut low, mut high) = (number_of(first), number_of(end - 1));
        let within = block::within_filter_block(hash, self.header.filter_blocks);
        let guess = first + ((u128::from(end - first) * u128::from(within)) >> 32) as u64;
        let mut probe = number_of(guess.min(end - 1));
        let mut found = None;
        // Hashes are spread evenly, so the guess is right or next to it; a key of many messages is what makes it go on.
        for attempt in 0.. {
            let bytes = self.block(probe).await?;
            let count = entry_count(&bytes);
            if count == 0 {
                return Err(self.damaged(probe));
            }
            if entry(&bytes, 0).hash > hash {
                if probe == low {
                    break;
                }
                high = probe - 1;
                probe = if attempt < 2 { high } else { low + (high - low) / 2 };
                continue;
            }
            let last = entry(&bytes, count - 1).hash;
            found = Some((probe, bytes));
            if last > hash || probe == high {
                break;
            }
            low = probe + 1;
            probe = if attempt < 2 { low } else { low + (high - low).div_ceil(2) };
        }
        let holds = |bytes: &[u8]| (0..entry_count(bytes)).any(|index| entry(bytes, index).hash == hash);
        Ok(found.filter(|(_, bytes)| holds(bytes)))
    }

    /// Reads and checks every block. Returns the places that are not as they were written.
    pub async fn verify(&self) -> Result<Vec<KeyDamage>, DiskError> {
        let mut damage = Vec::new();
        let mut note = |number: u32| {
            let position = u64::from(number) * BLOCK_BYTES as u64;
            damage.push(KeyDamage { file: self.path.clone(), position });
        };
        let used = (1..=self.header.data_blocks).chain(self.header.filter_start..self.header.end_block());
        let mut previous = KeyEntry { hash: 0, location: 0 };
        for number in used {
            let bytes = match self.block(number).await {
                Ok(bytes) => bytes,
                Err(IndexError::Disk(error)) => return Err(error),
                Err(_) => {
                    note(number);
                    continue;
                }
            };
            for index in 0..entry_count(&bytes) {
                let entry = entry(&bytes, index);
                if entry < previous {
                    note(number);
                    break;
                }
                previous = entry;
            }
        }
        Ok(damage)
    }
}

/// Entries of a run in their order, read in pieces.
pub struct RunReader<'a, D: Disk> {
    run: &'a Run<D>,
    piece: Option<ReadBlock<D>>,
    /// Number of the piece's first block.
    start: u32,
    /// The next entry: its block within the piece and its place in that.
    block: usize,
    index: usize,
}

impl<'a, D: Disk> RunReader<'a, D> {
    pub fn new(run: &'a Run<D>) -> Self {
        Self { run, piece: None, start: 1, block: 0, index: 0 }
    }

    /// The next entry, when it is in memory; [`fill`](RunReader::fill) makes it so.
    pub fn peek(&self) -> Option<KeyEntry> {
        let bytes = self.current()?;
        (self.index < entry_count(bytes)).then(|| entry(bytes, self.index))
    }

    pub fn advance(&mut self) {
        self.index += 1;
        if self.current().is_some_and(|bytes| self.index >= entry_count(bytes)) {
            self.index = 0;
            self.block += 1;
        }
    }

    /// Reads the next piece when the last one is used up.
    pub async fn fill(&mut self) -> Result<(), IndexError> {
        if self.current().is_some() {
            return Ok(());
        }
        let next = self.start + self.block as u32;
        let left = (self.run.header.data_blocks + 1).saturating_sub(next) as usize;
        self.start = next;
        self.block = 0;
        self.piece = None;
        if left == 0 {
            return Ok(());
        }
        let blocks = left.min(INDEX_PIECE_BYTES / BLOCK_BYTES);
        let position = u64::from(next) * BLOCK_BYTES as u64;
        let piece = match self.run.file.read(position, blocks * BLOCK_BYTES).await {
            Ok(piece) => piece,
            Err(error) if error.kind == DiskErrorKind::OutOfRange => return Err(self.run.damaged(next)),
            Err(error) => return Err(error.into()),
        };
        for (number, bytes) in (next..).zip(piece.deref().chunks_exact(BLOCK_BYTES)) {
            if !is_sound(bytes, number, self.run.tag) || entry_count(bytes) == 0 {
                return Err(self.run.damaged(number));
            }
        }
        self.piece = Some(piece);
        Ok(())
    }

    fn current(&self) -> Option<&[u8]> {
        let piece = self.piece.as_ref()?;
        piece.get(self.block * BLOCK_BYTES..(self.block + 1) * BLOCK_BYTES)
    }
}
