//! A batch: the unit that is sent, stored, checksummed and served.
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

use bytes::Bytes;

use super::bytes::{get_u16, get_u32, get_u64, put_u16, put_u32, put_u64};
use super::record::{Record, RecordError, RecordView, tag_summary_bit};
use crate::limits;
use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};

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
const FLAGS: usize = 6;
const BATCH_BYTES: usize = 8;
const HEADER_CRC: usize = 12;
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
const RECORDS_CRC: usize = 72;
const RECORDS_CRC_FROM: usize = 76;
const RECORD_COUNT: usize = 76;
const BORN_TIME_MS: usize = 80;

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

/// A batch whose client part is known to be right: lengths, checksum, and the bounds of every record. It was checked, or
/// this program has made it.
#[derive(Clone, Copy)]
pub struct CheckedBatch<'a> {
    bytes: &'a [u8],
    kind: Kind,
    tag_summary: u32,
    keyed: bool,
}

/// The messages of a [`CheckedBatch`] with their bytes, to be kept or handed to another core.
#[derive(Clone, Debug)]
pub struct OwnedBatch {
    bytes: Bytes,
    tag_summary: u32,
    keyed: bool,
}

/// A batch of the broker's own records, ready to be placed.
pub struct StateBatch(Vec<u8>);

/// Puts records together to a batch as it goes to the broker.
pub struct BatchBuilder {
    bytes: Vec<u8>,
    record_count: u32,
    born_time: Timestamp,
    tag_summary: u32,
    keyed: bool,
    /// The header is that of the records so far.
    sealed: bool,
}

/// Iterator over the records of a batch.
#[derive(Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl Kind {
    fn code(self) -> u8 {
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
fn check_preamble(bytes: &[u8]) -> Result<(Kind, u16, usize), BatchError> {
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

/// Raises `flushed_end` in a header as it is stored in a log with `secret`.
pub fn raise_flushed_end(header: &mut [u8], flushed_end: LogPosition, secret: LogSecret) {
    put_u64(header, FLUSHED_END, get_u64(header, FLUSHED_END).max(flushed_end.0));
    let checksum = header_checksum(header);
    put_u32(header, HEADER_CRC, checksum);
    secret.mix(header);
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

/// The records of a stored batch whose checksum was checked: by this program when it stored them, or by the caller.
pub fn stored_records(bytes: &[u8]) -> Records<'_> {
    Records { rest: &bytes[BATCH_HEADER_BYTES..] }
}

/// The payload of a stored batch of kind [`Kind::State`].
pub fn state_payload(bytes: &[u8]) -> &[u8] {
    &bytes[BATCH_HEADER_BYTES..]
}

impl<'a> CheckedBatch<'a> {
    /// Checks a batch as it comes in: as [`check`](Self::check) does, and that keys, tags, attributes and the time of birth
    /// are such as this release stores.
    pub fn check_incoming(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let batch = Self::check_records(bytes, RecordView::check_meaning)?;
        let born_time_ms = get_u64(bytes, BORN_TIME_MS);
        // Readers count in signed milliseconds, as RocketMQ's clients do.
        if i64::try_from(born_time_ms).is_err() { Err(BatchError::BornTime(born_time_ms)) } else { Ok(batch) }
    }

    /// Checks a batch that a client made: it must be messages, fill `bytes` exactly, match its checksum, and every record
    /// must lie within it.
    pub fn check(bytes: &'a [u8]) -> Result<Self, BatchError> {
        Self::check_records(bytes, |_| Ok(()))
    }

    #[inline]
    fn check_records(
        bytes: &'a [u8],
        check: impl Fn(&RecordView<'a>) -> Result<(), RecordError>,
    ) -> Result<Self, BatchError> {
        let (kind, flags, batch_bytes) = check_preamble(bytes)?;
        if kind != Kind::Messages {
            return Err(BatchError::Kind(kind.code()));
        }
        if flags != 0 {
            return Err(BatchError::Flags(flags));
        }
        if batch_bytes != bytes.len() {
            return Err(BatchError::Length(batch_bytes));
        }
        if !records_match(bytes) {
            return Err(BatchError::RecordsChecksum);
        }
        let record_count = get_u32(bytes, RECORD_COUNT);
        if !(1..=limits::BATCH_RECORDS_MAX).contains(&record_count) {
            return Err(BatchError::RecordCount(record_count));
        }
        let mut rest = &bytes[BATCH_HEADER_BYTES..];
        let mut tag_summary = 0;
        let mut keyed = false;
        for _ in 0..record_count {
            let (record, behind) = RecordView::cut(rest)?;
            check(&record)?;
            let hash = record.tag_hash();
            if hash != 0 {
                tag_summary |= tag_summary_bit(hash);
            }
            keyed |= record.is_keyed();
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(BatchError::TrailingBytes);
        }
        Ok(Self { bytes, kind, tag_summary, keyed })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// This batch, to be placed out of consumers' sight.
    pub fn into_held(self) -> Self {
        assert_eq!(self.kind, Kind::Messages, "only messages are held");
        Self { kind: Kind::Held, ..self }
    }

    pub fn record_count(&self) -> u32 {
        get_u32(self.bytes, RECORD_COUNT)
    }

    pub fn born_time(&self) -> Timestamp {
        Timestamp(get_u64(self.bytes, BORN_TIME_MS))
    }

    /// Header and records.
    pub fn batch_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn records(&self) -> Records<'a> {
        stored_records(self.bytes)
    }

    /// The batch as it came.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn tag_summary(&self) -> u32 {
        self.tag_summary
    }

    /// Whether some record has a key or properties.
    pub fn keyed(&self) -> bool {
        self.keyed
    }

    /// The header as it is handed out; [`LogSecret::mix`] makes the stored one of it. The records follow it unchanged.
    pub fn placed_header(&self, placing: &Placing) -> [u8; BATCH_HEADER_BYTES] {
        let mut header: [u8; BATCH_HEADER_BYTES] =
            self.bytes[..BATCH_HEADER_BYTES].try_into().expect("a checked batch has a header");
        header[KIND] = self.kind.code();
        let continues = if placing.continues { FLAG_CONTINUES } else { 0 };
        let keyed = if self.keyed { FLAG_KEYED } else { 0 };
        put_u16(&mut header, FLAGS, continues | keyed);
        put_u64(&mut header, POSITION, placing.position.0);
        put_u64(&mut header, PREVIOUS_END, placing.previous_end.0);
        put_u64(&mut header, FLUSHED_END, placing.flushed_end.0);
        put_u32(&mut header, EPOCH, placing.epoch);
        put_u32(&mut header, TAG_SUMMARY, self.tag_summary);
        put_u32(&mut header, TOPIC_ID, placing.key.topic.0);
        put_u32(&mut header, QUEUE, placing.key.queue.0);
        put_u64(&mut header, BASE_OFFSET, placing.base_offset.0);
        put_u64(&mut header, STORE_TIME_MS, placing.store_time.0);
        let checksum = header_checksum(&header);
        put_u32(&mut header, HEADER_CRC, checksum);
        header
    }

    /// The records, without the header.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[BATCH_HEADER_BYTES..]
    }
}

impl OwnedBatch {
    /// Checks a batch as [`CheckedBatch::check_incoming`] does.
    pub fn check_incoming(bytes: Bytes) -> Result<Self, BatchError> {
        let CheckedBatch { tag_summary, keyed, .. } = CheckedBatch::check_incoming(&bytes)?;
        Ok(Self { bytes, tag_summary, keyed })
    }

    pub fn view(&self) -> CheckedBatch<'_> {
        let Self { bytes, tag_summary, keyed } = self;
        CheckedBatch { bytes, kind: Kind::Messages, tag_summary: *tag_summary, keyed: *keyed }
    }
}

impl StateBatch {
    /// `payload` follows the header as it is.
    pub fn new(payload: &[u8], now: Timestamp) -> Self {
        let mut bytes = vec![0; BATCH_HEADER_BYTES];
        bytes.extend_from_slice(payload);
        seal(&mut bytes, Kind::State, 1, now);
        Self(bytes)
    }

    /// Its records are not messages and are not walked.
    pub fn view(&self) -> CheckedBatch<'_> {
        CheckedBatch { bytes: &self.0, kind: Kind::State, tag_summary: 0, keyed: false }
    }
}

impl BatchBuilder {
    /// An empty batch; records give their birth relative to `born_time`.
    pub fn new(born_time: Timestamp) -> Self {
        Self::reusing(Vec::new(), born_time)
    }

    /// An empty batch in the memory of an earlier one, whatever that held.
    pub fn reusing(mut bytes: Vec<u8>, born_time: Timestamp) -> Self {
        bytes.clear();
        bytes.resize(BATCH_HEADER_BYTES, 0);
        Self { bytes, record_count: 0, born_time, tag_summary: 0, keyed: false, sealed: false }
    }

    /// Adds a record. The caller has called [`Record::check`] and looks after [`fits`](BatchBuilder::fits).
    pub fn push(&mut self, record: &Record<'_>) {
        let tag_hash = record.encode(&mut self.bytes);
        if tag_hash != 0 {
            self.tag_summary |= tag_summary_bit(tag_hash);
        }
        self.keyed |= record.is_keyed();
        self.record_count += 1;
        self.sealed = false;
    }

    /// Whether the record would keep the batch within the protocol's limits.
    pub fn fits(&self, record: &Record<'_>) -> bool {
        self.record_count < limits::BATCH_RECORDS_MAX
            && self.bytes.len() + record.encoded_bytes() <= limits::BATCH_BYTES_MAX
    }

    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Bytes so far, header included.
    pub fn batch_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the records so far.
    pub fn record_bytes(&self) -> usize {
        self.bytes.len() - BATCH_HEADER_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// What records give their birth relative to.
    pub fn born_time(&self) -> Timestamp {
        self.born_time
    }

    /// The batch of messages, ready to be sent. Panics when it is empty.
    pub fn finish(mut self) -> Vec<u8> {
        self.seal();
        self.bytes
    }

    /// The batch as it is now, known to be right, while the builder keeps it and may get more. Panics when it is empty.
    pub fn checked(&mut self) -> CheckedBatch<'_> {
        self.seal();
        let Self { bytes, tag_summary, keyed, .. } = self;
        CheckedBatch { bytes, kind: Kind::Messages, tag_summary: *tag_summary, keyed: *keyed }
    }

    /// What is to be built next has this memory.
    pub fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    fn seal(&mut self) {
        assert!(
            (1..=limits::BATCH_RECORDS_MAX).contains(&self.record_count),
            "a batch of {} records",
            self.record_count
        );
        if !self.sealed {
            seal(&mut self.bytes, Kind::Messages, self.record_count, self.born_time);
            self.sealed = true;
        }
    }

    /// The batch of messages, to be placed by this program itself: what is in it is known and not looked at again. Whether keys
    /// and tags can be asked for is the caller's business, see [`Record::check_text`].
    pub fn finish_checked(self) -> OwnedBatch {
        let (tag_summary, keyed) = (self.tag_summary, self.keyed);
        OwnedBatch { bytes: self.finish().into(), tag_summary, keyed }
    }
}

/// Makes a batch from [`BatchBuilder::finish`] valid again after the bytes of its records were changed in place, lengths
/// excepted: sets its birth and its checksum. A load generator sends one batch many times over this way, because
/// building one costs more than sending it.
pub fn reseal(batch: &mut [u8], born_time: Timestamp) {
    assert_eq!(get_u32(batch, BATCH_BYTES) as usize, batch.len(), "a whole batch");
    put_u64(batch, BORN_TIME_MS, born_time.0);
    let checksum = crc32c::crc32c(&batch[RECORDS_CRC_FROM..]);
    put_u32(batch, RECORDS_CRC, checksum);
}

/// The view under which a stored batch of messages, whose checksum was checked, is placed once more as `kind`.
pub fn placed_again(bytes: &[u8], kind: Kind) -> Result<CheckedBatch<'_>, BatchError> {
    let header = BatchHeader::decode(bytes)?;
    if header.batch_bytes as usize != bytes.len() {
        return Err(BatchError::Length(bytes.len()));
    }
    Ok(CheckedBatch { bytes, kind, tag_summary: header.tag_summary, keyed: header.keyed })
}

/// Fills in the client's part of the header, and the marked fields of the broker's.
fn seal(bytes: &mut [u8], kind: Kind, record_count: u32, born_time: Timestamp) {
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

impl<'a> Iterator for Records<'a> {
    type Item = RecordView<'a>;

    /// Stored records were checked when they came, and their checksum since: what does not parse ends the iteration.
    fn next(&mut self) -> Option<RecordView<'a>> {
        let (record, rest) = RecordView::cut(self.rest).ok()?;
        self.rest = rest;
        Some(record)
    }

    /// Records that are passed over cost one load each: a receiver goes on in the middle of a batch each time it asks.
    fn nth(&mut self, count: usize) -> Option<RecordView<'a>> {
        for _ in 0..count {
            let record_bytes = RecordView::bytes_of_first(self.rest)?;
            self.rest = &self.rest[record_bytes..];
        }
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::super::origin::{Attributes, BodyEncoding, Origin};
    use super::super::record::RECORD_HEADER_BYTES;
    use super::*;

    fn sample() -> Vec<u8> {
        let mut builder = BatchBuilder::new(Timestamp(1_700_000_000_000));
        builder.push(&Record { body: b"first", ..Record::default() });
        builder.push(&Record {
            key: b"k",
            tag: b"t",
            properties: b"a\x01b\x02",
            body: b"",
            ..Record::default()
        });
        builder.finish()
    }

    #[test]
    fn records_are_passed_over_as_they_are_read() {
        let batch = sample();
        let read: Vec<_> = stored_records(&batch).map(|record| record.as_bytes().to_vec()).collect();
        for count in 0..4 {
            let skipped: Vec<_> =
                stored_records(&batch).skip(count).map(|record| record.as_bytes().to_vec()).collect();
            assert_eq!(skipped, read[count.min(read.len())..]);
            let found = stored_records(&batch).nth(count).map(|record| record.as_bytes().to_vec());
            assert_eq!(found.as_ref(), read.get(count));
        }
        // What does not parse ends the iteration here as well.
        for end in BATCH_HEADER_BYTES..batch.len() {
            assert!(stored_records(&batch[..end]).nth(1).is_none(), "{end} bytes");
        }
    }

    fn placing() -> Placing {
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

    #[test]
    fn a_stored_header_whose_claim_is_raised_is_valid_and_says_nothing_else() {
        let bytes = sample();
        let placed = CheckedBatch::check(&bytes).expect("just made").placed_header(&placing());
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
    fn a_client_can_not_set_flags_and_a_stored_batch_can_be_placed_again() {
        let mut bytes = sample();
        let held = CheckedBatch::check(&bytes).expect("a fresh batch is whole").into_held();
        let header = held.placed_header(&Placing { continues: true, ..placing() });
        let decoded = BatchHeader::decode(&header).expect("just written");
        assert_eq!((decoded.kind, decoded.continues), (Kind::Held, true));
        bytes[..BATCH_HEADER_BYTES].copy_from_slice(&header);
        assert_eq!(CheckedBatch::check(&bytes).err(), Some(BatchError::Kind(2)));
        let again = placed_again(&bytes, Kind::Messages).expect("a stored batch");
        let decoded = BatchHeader::decode(&again.placed_header(&placing())).expect("just written");
        assert_eq!((decoded.kind, decoded.continues, decoded.keyed), (Kind::Messages, false, true));
        bytes = sample();
        bytes[FLAGS] = 1;
        assert_eq!(CheckedBatch::check(&bytes).err(), Some(BatchError::Flags(1)));
    }

    #[test]
    fn a_batch_without_keys_and_properties_is_told_apart() {
        let keyed = |record: Record<'_>| {
            let mut builder = BatchBuilder::new(Timestamp(1));
            builder.push(&Record { tag: b"tag", body: b"body", ..Record::default() });
            builder.push(&record);
            let bytes = builder.finish();
            let header = CheckedBatch::check(&bytes).expect("fresh").placed_header(&placing());
            BatchHeader::decode(&header).expect("just written").keyed
        };
        let attributes = Attributes { encoding: BodyEncoding::Zstd, committed: true };
        let origin = Some(Origin::new(u32::MAX, u16::MAX, "[::1]:65535".parse().expect("an address")));
        assert!(!keyed(Record { tag: b"t", attributes, origin, ..Record::default() }));
        assert!(keyed(Record { key: b"k", ..Record::default() }));
        assert!(keyed(Record { properties: b"p", ..Record::default() }));
    }

    #[test]
    fn a_built_batch_is_what_a_check_of_it_finds() {
        let records = [
            Record { body: b"b", ..Record::default() },
            Record { tag: b"t", ..Record::default() },
            Record { tag: b"another", body: b"b", ..Record::default() },
            Record { key: b"k", ..Record::default() },
            Record { properties: b"a\x01b\x02", tag: b"t", ..Record::default() },
        ];
        for chosen in 1_u32..1 << records.len() {
            let mut builder = BatchBuilder::new(Timestamp(1));
            let is_chosen = |(at, _): &(usize, &Record<'_>)| chosen & (1 << at) != 0;
            records.iter().enumerate().filter(is_chosen).for_each(|(_, record)| builder.push(record));
            let kept = builder.checked().placed_header(&placing());
            let built = builder.finish_checked();
            assert_eq!(kept, built.view().placed_header(&placing()));
            let checked = CheckedBatch::check(built.view().as_bytes()).expect("a built batch is whole");
            assert_eq!(
                checked.placed_header(&placing()),
                built.view().placed_header(&placing()),
                "{chosen:b}"
            );
            assert_eq!(checked.record_count(), chosen.count_ones());
        }
    }

    #[test]
    #[should_panic(expected = "a record beyond its limits")]
    fn a_record_that_is_too_large_is_never_built() {
        let key = vec![b'k'; limits::KEY_BYTES_MAX + 1];
        BatchBuilder::new(Timestamp(1)).push(&Record { key: &key, ..Record::default() });
    }

    #[test]
    fn records_come_back_as_they_went_in() {
        let bytes = sample();
        let batch = CheckedBatch::check(&bytes).expect("a fresh batch is whole");
        let records: Vec<_> = batch.records().collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].body(), b"first");
        assert_eq!(
            (records[1].key(), records[1].tag(), records[1].properties()),
            (&b"k"[..], &b"t"[..], &b"a\x01b\x02"[..])
        );
        assert_eq!(batch.tag_summary(), tag_summary_bit(records[1].tag_hash()));
    }

    #[test]
    fn attributes_and_origin_come_back_beside_every_other_part() {
        let attributes = Attributes { encoding: BodyEncoding::Lz4, committed: true };
        for born in ["10.0.0.1:4711", "[2001:db8::1]:4711"] {
            let origin = Some(Origin::new(7, 3, born.parse().expect("an address")));
            let record = Record {
                key: b"k",
                tag: b"t",
                properties: b"a\x01b\x02",
                body: b"body",
                born_delta_ms: -1,
                attributes,
                origin,
            };
            let mut builder = BatchBuilder::new(Timestamp(1));
            builder.push(&record);
            assert_eq!(builder.batch_bytes(), BATCH_HEADER_BYTES + record.encoded_bytes());
            let bytes = builder.finish();
            let batch = CheckedBatch::check_incoming(&bytes).expect("a fresh batch is whole");
            let view = batch.records().next().expect("one record");
            assert_eq!((view.attributes(), view.origin()), (attributes, origin));
            assert_eq!((view.key(), view.tag(), view.body()), (&b"k"[..], &b"t"[..], &b"body"[..]));
            assert_eq!(view.properties(), b"a\x01b\x02");
        }
    }

    /// Releases before format 3 stored the bits as they came.
    #[test]
    fn bits_without_a_meaning_are_refused_when_they_come_and_read_where_they_are_stored() {
        let attributes_at = BATCH_HEADER_BYTES + RECORD_HEADER_BYTES - 2;
        for bits in [1 << 4, 1 << 5, 0x30, 4, 1 << 6, u16::MAX] {
            let mut bytes = sample();
            put_u16(&mut bytes, attributes_at, bits);
            reseal(&mut bytes, Timestamp(5));
            let refused = CheckedBatch::check_incoming(&bytes).err();
            assert_eq!(refused, Some(BatchError::Record(RecordError::Attributes(bits))));
            let stored = CheckedBatch::check(&bytes).expect("its lengths are right");
            let view = stored.records().next().expect("two records");
            assert_eq!((view.body(), view.origin()), (&b"first"[..], None));
        }
    }

    #[test]
    fn a_record_with_more_than_its_parts_says_what_it_is() {
        for (bits, more) in [(0, 12), (1 << 4, 11), (1 << 4, 24), (1 << 5, 12), (1 << 5, 25), (0, 1)] {
            let mut builder = BatchBuilder::new(Timestamp(1));
            builder.push(&Record { body: &vec![b'x'; 40 + more], ..Record::default() });
            let mut bytes = builder.finish();
            put_u16(&mut bytes, BATCH_HEADER_BYTES + RECORD_HEADER_BYTES - 2, bits);
            put_u32(&mut bytes, BATCH_HEADER_BYTES + 4, 40);
            reseal(&mut bytes, Timestamp(1));
            let refused = CheckedBatch::check(&bytes).err();
            assert_eq!(refused, Some(BatchError::Record(RecordError::Lengths)), "{bits:#b} and {more} bytes");
        }
    }

    #[test]
    fn a_resealed_batch_holds_the_changed_records() {
        let mut bytes = sample();
        let at = BATCH_HEADER_BYTES + RECORD_HEADER_BYTES;
        bytes[at..at + 5].copy_from_slice(b"other");
        assert!(CheckedBatch::check(&bytes).is_err(), "not sealed again yet");
        reseal(&mut bytes, Timestamp(5));
        let batch = CheckedBatch::check(&bytes).expect("sealed again");
        assert_eq!(batch.records().next().expect("two records").body(), b"other");
        assert_eq!(get_u64(&bytes, BORN_TIME_MS), 5);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert!(CheckedBatch::check(&bytes[..end]).is_err(), "cut at {end}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(CheckedBatch::check(&longer).is_err(), "one byte more");
        for bit in 0..bytes.len() * 8 {
            // The broker's fields are filled in by the broker, so what stands there before does not matter.
            if (HEADER_CRC * 8..RECORDS_CRC * 8).contains(&bit) {
                continue;
            }
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(CheckedBatch::check(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_placed_header_detects_every_flipped_bit() {
        let bytes = sample();
        let batch = CheckedBatch::check(&bytes).expect("a fresh batch is whole");
        let header = batch.placed_header(&placing());
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
        let bytes = sample();
        let batch = CheckedBatch::check(&bytes).expect("a fresh batch is whole");
        let placed = batch.placed_header(&placing());
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
