//! Batches whose bytes are known to be right, because they were checked or because this program has built them.

use bytes::Bytes;

use super::header::{
    BATCH_HEADER_BYTES, BORN_TIME_MS, BatchError, BatchHeader, Kind, Placing, RECORD_COUNT, check_preamble,
    records_match, seal,
};
use crate::limits;
use crate::types::Timestamp;
use crate::wire::bytes::{get_u32, get_u64};
use crate::wire::record::{Record, RecordError, RecordView, tag_summary_bit};

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

/// The records of a stored batch whose checksum was checked: by this program when it stored them, or by the caller.
pub fn stored_records(bytes: &[u8]) -> Records<'_> {
    Records { rest: &bytes[BATCH_HEADER_BYTES..] }
}

/// Those of its records from one on that begins at `start` of the batch.
pub fn stored_records_from(bytes: &[u8], start: usize) -> Records<'_> {
    Records { rest: &bytes[start..] }
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
            let (record, after) = RecordView::cut(rest)?;
            check(&record)?;
            let hash = record.tag_hash();
            if hash != 0 {
                tag_summary |= tag_summary_bit(hash);
            }
            keyed |= record.is_keyed();
            rest = after;
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

    /// The header as it is handed out; [`LogSecret::mix`](super::LogSecret::mix) makes the stored one of it. The records follow
    /// it unchanged.
    pub fn placed_header(&self, placing: &Placing) -> [u8; BATCH_HEADER_BYTES] {
        let mut header: [u8; BATCH_HEADER_BYTES] =
            self.bytes[..BATCH_HEADER_BYTES].try_into().expect("a checked batch has a header");
        placing.write(&mut header, self.kind, self.tag_summary, self.keyed);
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

/// The view under which a stored batch of messages, whose checksum was checked, is placed once more as `kind`.
pub fn placed_again(bytes: &[u8], kind: Kind) -> Result<CheckedBatch<'_>, BatchError> {
    let header = BatchHeader::decode(bytes)?;
    if header.batch_bytes as usize != bytes.len() {
        return Err(BatchError::Length(bytes.len()));
    }
    Ok(CheckedBatch { bytes, kind, tag_summary: header.tag_summary, keyed: header.keyed })
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
    use super::*;
    use crate::wire::batch::header::tests::placing;
    use crate::wire::batch::header::{FLAGS, HEADER_CRC, RECORDS_CRC, reseal};
    use crate::wire::bytes::{put_u16, put_u32};
    use crate::wire::origin::{Attributes, BodyEncoding, Origin};
    use crate::wire::record::RECORD_HEADER_BYTES;

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
}
