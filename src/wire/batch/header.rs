//! Byte map of a batch, and what its header says.
//!
//! ```text
//!      broker's part, written when the batch is placed in the log; zero on the wire towards the broker,
//!      except for the fields marked *
//!  0  u32  magic *            0x5042_5054, "TPBP"
//!  4  u8   version *          1
//!  5  u8   kind *             0 messages; others are the broker's own records, see `Kind`
//!  6  u16  flags              bit 0: the next batch belongs to this one, see below; bit 1: some record has a key or
//!                             properties; a reader refuses other bits
//!  8  u32  batch_bytes *      header and records
//! 12  u32  header_crc         crc32c of bytes 0..12 and 16..88; in the log mixed with the log's secret
//! 16  u64  position           of this batch in its log
//! 24  u64  previous_end       where the last batch of the commit group before this batch's group ends
//! 32  u64  flushed_end        everything below was flushed before this batch was written; the first batch of a group
//!                             claims the most
//! 40  u64  base_offset        queue offset of the first record; of a held batch: when it is due, ms, or u64::MAX
//! 48  u64  store_time_ms
//! 56  u32  epoch              of the log: grows with every start of the shard
//! 60  u32  tag_summary        one bit per tag hash modulo 32 among the records
//! 64  u32  topic_id
//! 68  u32  queue
//!      client's part, stored as it came
//! 72  u32  records_crc        crc32c of bytes 76..batch_bytes
//! 76  u32  record_count
//! 80  u64  born_time_ms
//! 88  records, see `record`
//! ```
//!
//! A header proves that the batch belongs where it was found: `position` rules out bytes from a recycled or misplaced
//! block, `epoch` rules out a tail that an earlier run wrote, never answered, and that recovery cut off. `previous_end`
//! and `flushed_end` let recovery tell the end of a group or of an earlier run from damage, and damage from an
//! unfinished tail: see `log::recovery`.
//!
//! A client chooses the bytes of its records, and is told where they are stored: it could put a header there that fits
//! its place, for a search through damaged bytes to find. So stored checksums are mixed with a secret of the log, which
//! no client ever sees: see [`LogSecret`].
//!
//! In the log a batch starts at a multiple of 8.
//!
//! A batch whose flag bit 0 is set counts only together with the one after it, which is of the same group: when a death
//! has left the first but not the second, recovery ends the log before the first. So a message and the change of state
//! that belongs to it are one step.

use crate::limits;
use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};
use crate::wire::bytes::{get_u16, get_u32, get_u64, put_u16, put_u32, put_u64};
use crate::wire::record::RecordError;

/// Bytes before the first record.
pub const BATCH_HEADER_BYTES: usize = 88;
/// Batches start at multiples of this in the log.
pub const BATCH_ALIGNMENT: usize = 8;
/// Version that this program writes, and the only one that it reads.
pub const BATCH_VERSION: u8 = 1;

const MAGIC_VALUE: u32 = 0x5042_5054;
/// The first bytes of a batch, for a scan that looks for one.
pub const BATCH_MAGIC: [u8; 4] = MAGIC_VALUE.to_le_bytes();

/// This batch counts only together with the next one.
const FLAG_CONTINUES: u16 = 1;
/// Some record has a key or properties, so that the key index has to look into the batch.
const FLAG_KEYED: u16 = 2;

const MAGIC: usize = 0;
const VERSION: usize = 4;
const KIND: usize = 5;
pub(super) const FLAGS: usize = 6;
const BATCH_BYTES: usize = 8;
pub(super) const HEADER_CRC: usize = 12;
/// Where a header's checksum lies. Batches start at multiples of 8, so no piece of a group ends within it.
pub const HEADER_CRC_RANGE: std::ops::Range<usize> = HEADER_CRC..HEADER_CRC + 4;
const POSITION: usize = 16;
const PREVIOUS_END: usize = 24;
const FLUSHED_END: usize = 32;
const BASE_OFFSET: usize = 40;
const STORE_TIME_MS: usize = 48;
const EPOCH: usize = 56;
const TAG_SUMMARY: usize = 60;
const TOPIC_ID: usize = 64;
const QUEUE: usize = 68;
pub(super) const RECORDS_CRC: usize = 72;
const RECORDS_CRC_FROM: usize = 76;
pub(super) const RECORD_COUNT: usize = 76;
pub(super) const BORN_TIME_MS: usize = 80;

const _: () = assert!(BORN_TIME_MS + 8 == BATCH_HEADER_BYTES);
const _: () = assert!(BATCH_HEADER_BYTES.is_multiple_of(BATCH_ALIGNMENT));

/// What a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Messages of one queue.
    Messages,
    /// Changes of the broker's own state: see `state::record`.
    State,
    /// Messages that no consumer sees yet, because their time has not come or their transaction is not decided. They
    /// have no offset; released, they are placed again as `Messages`.
    Held,
}

/// Why bytes are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("a batch ends before its header does")]
    Truncated,
    #[error("no batch starts here")]
    Magic,
    #[error("batch version {0} is not known to this release, which reads version {BATCH_VERSION}")]
    Version(u8),
    #[error("batch kind {0} is not known to this release")]
    Kind(u8),
    #[error("batch flags {0:#x} are not known to this release")]
    Flags(u16),
    #[error("a batch of {0} bytes is outside {BATCH_HEADER_BYTES}..={max}", max = limits::BATCH_BYTES_MAX)]
    Length(usize),
    #[error("the header's checksum does not match")]
    HeaderChecksum,
    #[error("the records' checksum does not match")]
    RecordsChecksum,
    #[error("a batch holds 1 to {max} records, this one {0}", max = limits::BATCH_RECORDS_MAX)]
    RecordCount(u32),
    #[error("the records do not fill the batch")]
    TrailingBytes,
    #[error("the messages are born {0} ms after 1970, which is no time: {max} is the latest", max = i64::MAX)]
    BornTime(u64),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// The broker's and the client's fields of a stored batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub kind: Kind,
    /// The batch counts only together with the next one.
    pub continues: bool,
    /// Some record has a key or properties.
    pub keyed: bool,
    pub batch_bytes: u32,
    pub position: LogPosition,
    pub previous_end: LogPosition,
    pub flushed_end: LogPosition,
    pub epoch: u32,
    pub tag_summary: u32,
    pub key: QueueKey,
    pub base_offset: QueueOffset,
    pub store_time: Timestamp,
    pub record_count: u32,
    pub born_time: Timestamp,
}

/// What the broker writes into the header of a batch that it places.
#[derive(Clone, Copy, Debug)]
pub struct Placing {
    pub position: LogPosition,
    pub previous_end: LogPosition,
    pub flushed_end: LogPosition,
    pub epoch: u32,
    pub key: QueueKey,
    pub base_offset: QueueOffset,
    pub store_time: Timestamp,
    /// See [`BatchHeader::continues`].
    pub continues: bool,
}

/// What a log mixes into the checksums of its headers. Nobody who sends or fetches batches learns it: it is mixed in when
/// a header is stored and taken out when the batch is handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSecret(pub u64);

impl Kind {
    pub(super) fn code(self) -> u8 {
        match self {
            Kind::Messages => 0,
            Kind::State => 1,
            Kind::Held => 2,
        }
    }

    fn from_code(code: u8) -> Result<Self, BatchError> {
        match code {
            0 => Ok(Kind::Messages),
            1 => Ok(Kind::State),
            2 => Ok(Kind::Held),
            _ => Err(BatchError::Kind(code)),
        }
    }
}

/// `bytes` rounded up to where the next batch may start.
pub fn align_batch(bytes: u64) -> u64 {
    bytes.next_multiple_of(BATCH_ALIGNMENT as u64)
}

/// The fields that precede every checksum: magic, version, kind, flags, length. Returns kind, flags and length.
pub(super) fn check_preamble(bytes: &[u8]) -> Result<(Kind, u16, usize), BatchError> {
    if bytes.len() < BATCH_HEADER_BYTES {
        return Err(BatchError::Truncated);
    }
    if get_u32(bytes, MAGIC) != MAGIC_VALUE {
        return Err(BatchError::Magic);
    }
    if bytes[VERSION] != BATCH_VERSION {
        return Err(BatchError::Version(bytes[VERSION]));
    }
    let kind = Kind::from_code(bytes[KIND])?;
    let flags = get_u16(bytes, FLAGS);
    if flags & !(FLAG_CONTINUES | FLAG_KEYED) != 0 {
        return Err(BatchError::Flags(flags));
    }
    let batch_bytes = get_u32(bytes, BATCH_BYTES) as usize;
    if !(BATCH_HEADER_BYTES..=limits::BATCH_BYTES_MAX).contains(&batch_bytes) {
        return Err(BatchError::Length(batch_bytes));
    }
    Ok((kind, flags, batch_bytes))
}

fn header_checksum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..HEADER_CRC]), &header[POSITION..BATCH_HEADER_BYTES])
}

impl LogSecret {
    /// Turns the checksum of a placed header into that of a stored one, and back.
    pub fn mix(self, header: &mut [u8]) {
        let mixed = get_u32(header, HEADER_CRC) ^ self.mask(get_u64(header, POSITION));
        put_u32(header, HEADER_CRC, mixed);
    }

    /// Turns the checksum of a header of which only the bytes of `HEADER_CRC_RANGE` are at hand.
    pub fn mix_checksum(self, checksum: &mut [u8], position: LogPosition) {
        let mixed = get_u32(checksum, 0) ^ self.mask(position.0);
        put_u32(checksum, 0, mixed);
    }

    /// A finalizer of murmur's kind: every bit of secret and position counts for every bit of the result.
    fn mask(self, position: u64) -> u32 {
        let mut mixed = self.0.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 32) as u32
    }
}

impl BatchHeader {
    /// Reads the header of a batch as it is handed out, and checks it against its checksum. The records are not looked
    /// at.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        Self::decode_with(bytes, |_| 0)
    }

    /// Reads the header of a batch as it is stored, and checks it against its checksum and the log's secret.
    pub fn decode_stored(bytes: &[u8], secret: LogSecret) -> Result<Self, BatchError> {
        Self::decode_with(bytes, |position| secret.mask(position))
    }

    fn decode_with(bytes: &[u8], mask: impl FnOnce(u64) -> u32) -> Result<Self, BatchError> {
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(BatchError::Truncated);
        }
        if get_u32(bytes, MAGIC) != MAGIC_VALUE {
            return Err(BatchError::Magic);
        }
        // Before anything else is believed: an unknown version with a right checksum is a newer release's, with a
        // wrong one it is damage.
        if get_u32(bytes, HEADER_CRC) ^ mask(get_u64(bytes, POSITION)) != header_checksum(bytes) {
            return Err(BatchError::HeaderChecksum);
        }
        let (kind, flags, batch_bytes) = check_preamble(bytes)?;
        let record_count = get_u32(bytes, RECORD_COUNT);
        if !(1..=limits::BATCH_RECORDS_MAX).contains(&record_count) {
            return Err(BatchError::RecordCount(record_count));
        }
        Ok(Self {
            kind,
            continues: flags & FLAG_CONTINUES != 0,
            keyed: flags & FLAG_KEYED != 0,
            batch_bytes: batch_bytes as u32,
            position: LogPosition(get_u64(bytes, POSITION)),
            previous_end: LogPosition(get_u64(bytes, PREVIOUS_END)),
            flushed_end: LogPosition(get_u64(bytes, FLUSHED_END)),
            epoch: get_u32(bytes, EPOCH),
            tag_summary: get_u32(bytes, TAG_SUMMARY),
            key: QueueKey {
                topic: TopicId(get_u32(bytes, TOPIC_ID)),
                queue: QueueNumber(get_u32(bytes, QUEUE)),
            },
            base_offset: QueueOffset(get_u64(bytes, BASE_OFFSET)),
            store_time: Timestamp(get_u64(bytes, STORE_TIME_MS)),
            record_count,
            born_time: Timestamp(get_u64(bytes, BORN_TIME_MS)),
        })
    }

    /// First queue offset after this batch.
    pub fn end_offset(&self) -> QueueOffset {
        self.base_offset.advance(u64::from(self.record_count))
    }

    /// Where the next batch of the same group starts.
    pub fn end_position(&self) -> LogPosition {
        LogPosition(align_batch(self.position.0 + u64::from(self.batch_bytes)))
    }
}

impl Placing {
    /// Writes the broker's part of a header; the client's part stays as it is.
    pub(super) fn write(
        &self,
        header: &mut [u8; BATCH_HEADER_BYTES],
        kind: Kind,
        tag_summary: u32,
        keyed: bool,
    ) {
        header[KIND] = kind.code();
        let continues = if self.continues { FLAG_CONTINUES } else { 0 };
        let keyed = if keyed { FLAG_KEYED } else { 0 };
        put_u16(header, FLAGS, continues | keyed);
        put_u64(header, POSITION, self.position.0);
        put_u64(header, PREVIOUS_END, self.previous_end.0);
        put_u64(header, FLUSHED_END, self.flushed_end.0);
        put_u32(header, EPOCH, self.epoch);
        put_u32(header, TAG_SUMMARY, tag_summary);
        put_u32(header, TOPIC_ID, self.key.topic.0);
        put_u32(header, QUEUE, self.key.queue.0);
        put_u64(header, BASE_OFFSET, self.base_offset.0);
        put_u64(header, STORE_TIME_MS, self.store_time.0);
        let checksum = header_checksum(header);
        put_u32(header, HEADER_CRC, checksum);
    }
}

/// Raises `flushed_end` in a header as it is stored in a log with `secret`.
pub fn raise_flushed_end(header: &mut [u8], flushed_end: LogPosition, secret: LogSecret) {
    put_u64(header, FLUSHED_END, get_u64(header, FLUSHED_END).max(flushed_end.0));
    let checksum = header_checksum(header);
    put_u32(header, HEADER_CRC, checksum);
    secret.mix(header);
}

/// When the messages of a stored batch were born whose checksum was checked: what its records say is relative to it.
pub fn stored_born_time(bytes: &[u8]) -> Timestamp {
    Timestamp(get_u64(bytes, BORN_TIME_MS))
}

/// The length that a stored batch says it has, whose checksum was checked.
pub fn stored_batch_bytes(bytes: &[u8]) -> u32 {
    get_u32(bytes, BATCH_BYTES)
}

/// Whether the records of a stored batch match their checksum. `bytes` is the whole batch, its header decoded before.
pub fn records_match(bytes: &[u8]) -> bool {
    get_u32(bytes, RECORDS_CRC) == crc32c::crc32c(&bytes[RECORDS_CRC_FROM..])
}

/// Whether the records of a batch that lies in parts match the checksum in its header, which was decoded before.
pub fn records_in_parts_match<'a>(header: &[u8], records: impl Iterator<Item = &'a [u8]>) -> bool {
    let client_part = crc32c::crc32c(&header[RECORDS_CRC_FROM..BATCH_HEADER_BYTES]);
    get_u32(header, RECORDS_CRC) == records.fold(client_part, crc32c::crc32c_append)
}

/// Makes a batch from [`BatchBuilder::finish`](super::BatchBuilder::finish) valid again after the bytes of its records were changed in place, lengths
/// excepted: sets its birth and its checksum. A load generator sends one batch many times over this way, because
/// building one costs more than sending it.
pub fn reseal(batch: &mut [u8], born_time: Timestamp) {
    assert_eq!(get_u32(batch, BATCH_BYTES) as usize, batch.len(), "a whole batch");
    put_u64(batch, BORN_TIME_MS, born_time.0);
    let checksum = crc32c::crc32c(&batch[RECORDS_CRC_FROM..]);
    put_u32(batch, RECORDS_CRC, checksum);
}

/// Fills in the client's part of the header, and the marked fields of the broker's.
pub(super) fn seal(bytes: &mut [u8], kind: Kind, record_count: u32, born_time: Timestamp) {
    let batch_bytes = bytes.len();
    assert!(batch_bytes <= limits::BATCH_BYTES_MAX, "a batch of {batch_bytes} bytes");
    put_u32(bytes, MAGIC, MAGIC_VALUE);
    bytes[VERSION] = BATCH_VERSION;
    bytes[KIND] = kind.code();
    put_u32(bytes, BATCH_BYTES, batch_bytes as u32);
    put_u32(bytes, RECORD_COUNT, record_count);
    put_u64(bytes, BORN_TIME_MS, born_time.0);
    let checksum = crc32c::crc32c(&bytes[RECORDS_CRC_FROM..]);
    put_u32(bytes, RECORDS_CRC, checksum);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn placing() -> Placing {
        Placing {
            position: LogPosition(4096),
            previous_end: LogPosition(4096),
            flushed_end: LogPosition(4096),
            epoch: 3,
            key: QueueKey { topic: TopicId(7), queue: QueueNumber(1) },
            base_offset: QueueOffset(100),
            store_time: Timestamp(1_700_000_000_001),
            continues: false,
        }
    }

    /// The header of two records after it was placed.
    fn placed() -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES + 48];
        seal(&mut bytes, Kind::Messages, 2, Timestamp(1_700_000_000_000));
        let mut header = *bytes.first_chunk().expect("it is longer");
        placing().write(&mut header, Kind::Messages, 4, true);
        header
    }

    #[test]
    fn a_stored_header_whose_claim_is_raised_is_valid_and_says_nothing_else() {
        let placed = placed();
        let before = BatchHeader::decode(&placed).expect("just made");
        let secret = LogSecret(7);
        for (claim, result) in [(8192, 8192), (4096, 4096), (0, 4096)] {
            let mut stored = placed;
            secret.mix(&mut stored);
            raise_flushed_end(&mut stored, LogPosition(claim), secret);
            let raised = BatchHeader::decode_stored(&stored, secret).expect("still valid");
            assert_eq!(raised, BatchHeader { flushed_end: LogPosition(result), ..before });
        }
    }

    #[test]
    fn a_placed_header_detects_every_flipped_bit() {
        let header = placed();
        let decoded = BatchHeader::decode(&header).expect("just written");
        assert_eq!(decoded.base_offset, QueueOffset(100));
        assert_eq!(decoded.end_offset(), QueueOffset(102));
        assert_eq!(decoded.epoch, 3);
        for bit in 0..header.len() * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(BatchHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_stored_header_is_known_by_its_log_only() {
        let placed = placed();
        let mut stored = placed;
        LogSecret(7).mix(&mut stored);
        let decoded = BatchHeader::decode_stored(&stored, LogSecret(7));
        assert_eq!(decoded, BatchHeader::decode(&placed));
        for secret in (0..64).map(|bit| LogSecret(7 ^ (1 << bit))) {
            assert_eq!(BatchHeader::decode_stored(&stored, secret), Err(BatchError::HeaderChecksum));
        }
        assert!(BatchHeader::decode(&stored).is_err());
        LogSecret(7).mix(&mut stored);
        assert_eq!(stored, placed);
    }
}
