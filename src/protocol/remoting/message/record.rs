//! A stored message as RocketMQ's clients read it: what its brokers have in their commit log
//! (`common/.../message/MessageDecoder.java`, `store/.../MessageExtEncoder.java`). All numbers are big-endian.
//!
//! ```text
//!  0  i32  record_bytes     this field and everything after it
//!  4  i32  magic            the width of the topic's length
//!  8  i32  body_crc         CRC-32 of the body as it lies here, without its highest bit
//! 12  i32  queue            of this broker
//! 16  i32  flag             the producer's
//! 20  i64  queue_offset
//! 28  i64  physical_offset
//! 36  i32  system_flag      see `system_flag`
//! 40  i64  born_time_ms
//! 48       born_host        4 or 16 bytes of address, i32 port
//!  .  i64  store_time_ms
//!  .       store_host       the same of the broker
//!  .  i32  deliveries_before
//!  .  i64  transaction      0
//!  .  i32  body_bytes       and the body
//!  .  i8   topic_bytes      i16 in the second version, and the topic
//!  .  i16  properties_bytes and the properties
//! ```
//!
//! Clients for C++ and Go, and for Java before 5, read the first version only, and those for C++ addresses of four bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::properties::{AddedProperties, REGION};
use super::system_flag;
use crate::types::{QueueOffset, RecordLocation, Timestamp};
use crate::wire::origin::Attributes;
use crate::wire::record::RecordView;

const MAGIC_V1: u32 = 0xdaa3_20a7;
/// For topics whose length a signed byte does not say.
const MAGIC_V2: u32 = 0xdaa3_20ab;
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// Bytes before the body, at most.
const HEAD_BYTES_MAX: usize = 88 + 2 * 12;

/// What is the same in all records of one answer.
#[derive(Clone, Copy, Debug)]
pub struct RecordTerms<'a> {
    pub topic: &'a str,
    /// Of this broker.
    pub queue: u32,
    /// Where clients reach this broker.
    pub store_host: SocketAddr,
    /// The broker's, which messages have on their way out.
    pub cluster: &'a str,
}

/// Writes the records of one answer: what is the same in all of them is put together once.
#[derive(Debug)]
pub struct RecordWriter<'a> {
    terms: RecordTerms<'a>,
    is_wide: bool,
    /// The topic's length, and the topic.
    topic: Vec<u8>,
    /// What messages have on their way out; the first one of them, committed halves of transactions have alone.
    added: AddedProperties,
}

/// What a record has before its body, appended with one copy.
struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    end: usize,
}

/// A stored message, and where it is.
#[derive(Clone, Copy)]
pub struct PlacedRecord<'a> {
    pub record: RecordView<'a>,
    pub offset: QueueOffset,
    pub location: RecordLocation,
    /// Of the batch: what the record says is relative to it.
    pub born_time: Timestamp,
    pub store_time: Timestamp,
}

/// What a client makes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord<'a> {
    pub body_crc: u32,
    pub queue: u32,
    pub flag: u32,
    pub queue_offset: i64,
    pub physical_offset: i64,
    pub system_flag: u32,
    pub born_time: i64,
    pub born_host: SocketAddr,
    pub store_time: i64,
    pub store_host: SocketAddr,
    pub deliveries_before: u32,
    pub body: &'a [u8],
    pub topic: &'a [u8],
    pub properties: &'a [u8],
}

/// The checksum of a body in its record.
pub fn body_checksum(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7fff_ffff
}

/// Appends a message as clients read it. For more than one there is [`RecordWriter`].
pub fn write_record(terms: &RecordTerms<'_>, placed: &PlacedRecord<'_>, output: &mut Vec<u8>) {
    RecordWriter::new(*terms).write(placed, output);
}

impl<'a> RecordWriter<'a> {
    pub fn new(terms: RecordTerms<'a>) -> Self {
        let name = terms.topic.as_bytes();
        let is_wide = name.len() > i8::MAX as usize;
        let topic = match is_wide {
            true => [&(name.len() as u16).to_be_bytes()[..], name].concat(),
            false => [&[name.len() as u8], name].concat(),
        };
        // Clients that consume a committed half take its id for that of a transaction by the first of them.
        let added =
            [("TRAN_MSG", "true"), ("CLUSTER", terms.cluster), ("MSG_REGION", REGION), ("TRACE_ON", "true")];
        Self { terms, is_wide, topic, added: AddedProperties::new(&added) }
    }

    /// Appends a message as clients read it.
    pub fn write(&self, placed: &PlacedRecord<'_>, output: &mut Vec<u8>) {
        let PlacedRecord { record, offset, location, born_time, store_time } = placed;
        let (origin, body, attributes) = (record.origin(), record.body(), record.attributes());
        let born_host = origin.map_or(NOWHERE, |origin| origin.born);
        let born_time = born_time.0.saturating_add_signed(i64::from(record.born_delta_ms()));
        let mut head = Head { bytes: [0; HEAD_BYTES_MAX], end: 0 };
        head.put(0);
        head.put(if self.is_wide { MAGIC_V2 } else { MAGIC_V1 });
        head.put(body_checksum(body));
        head.put(self.terms.queue);
        head.put(origin.map_or(0, |origin| origin.flag));
        head.put_long(offset.0);
        head.put_long(location.physical_offset() as u64);
        head.put(system_flag::of(attributes, born_host, self.terms.store_host));
        head.put_long(born_time);
        head.put_host(born_host);
        head.put_long(store_time.0);
        head.put_host(self.terms.store_host);
        head.put(origin.map_or(0, |origin| origin.deliveries_before.into()));
        head.put_long(0);
        head.put(body.len() as u32);
        let start = output.len();
        output.reserve(head.end + body.len() + self.topic.len() + 2 + self.added.bytes_max(record));
        output.extend_from_slice(&head.bytes[..head.end]);
        output.extend_from_slice(body);
        output.extend_from_slice(&self.topic);
        let properties_at = output.len();
        output.extend_from_slice(&[0; 2]);
        self.added.write(record, attributes.committed, output);
        let properties_bytes = (output.len() - properties_at - 2) as u16;
        output[properties_at..properties_at + 2].copy_from_slice(&properties_bytes.to_be_bytes());
        let record_bytes = (output.len() - start) as u32;
        output[start..start + 4].copy_from_slice(&record_bytes.to_be_bytes());
    }
}

impl Head {
    fn put_bytes<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.end..self.end + N].copy_from_slice(&bytes);
        self.end += N;
    }

    fn put(&mut self, number: u32) {
        self.put_bytes(number.to_be_bytes());
    }

    fn put_long(&mut self, number: u64) {
        self.put_bytes(number.to_be_bytes());
    }

    fn put_host(&mut self, host: SocketAddr) {
        match host.ip() {
            IpAddr::V4(address) => self.put_bytes(address.octets()),
            IpAddr::V6(address) => self.put_bytes(address.octets()),
        }
        self.put(host.port().into());
    }
}

/// Cuts the first record off `bytes`, as a client does; `None` when there is none.
pub fn read_record(bytes: &[u8]) -> Option<(ReadRecord<'_>, &[u8])> {
    let record_bytes = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let (record, rest) = bytes.split_at_checked(record_bytes)?;
    let mut fields = Cursor(record.get(4..)?);
    let magic = fields.number()?;
    let (body_crc, queue, flag) = (fields.number()?, fields.number()?, fields.number()?);
    let (queue_offset, physical_offset) = (fields.long()?, fields.long()?);
    let system_flag = fields.number()?;
    let born_time = fields.long()?;
    let born_host = fields.host(system_flag & system_flag::BORN_HOST_V6 != 0)?;
    let store_time = fields.long()?;
    let store_host = fields.host(system_flag & system_flag::STORE_HOST_V6 != 0)?;
    let deliveries_before = fields.number()?;
    let _transaction = fields.long()?;
    let body_bytes = fields.number()?;
    let body = fields.bytes(body_bytes as usize)?;
    let topic_bytes = match magic {
        MAGIC_V1 => usize::from(fields.array::<1>()?[0]),
        MAGIC_V2 => usize::from(u16::from_be_bytes(fields.array()?)),
        _ => return None,
    };
    let topic = fields.bytes(topic_bytes)?;
    let properties_bytes = u16::from_be_bytes(fields.array()?);
    let properties = fields.bytes(properties_bytes.into())?;
    let read = ReadRecord {
        body_crc,
        queue,
        flag,
        queue_offset,
        physical_offset,
        system_flag,
        born_time,
        born_host,
        store_time,
        store_host,
        deliveries_before,
        body,
        topic,
        properties,
    };
    fields.0.is_empty().then_some((read, rest))
}

/// What of a record is not read yet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn host(&mut self, is_v6: bool) -> Option<SocketAddr> {
        let address = match is_v6 {
            true => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            false => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
        };
        let port = u16::try_from(self.number()?).ok()?;
        Some(SocketAddr::new(address, port))
    }
}

impl ReadRecord<'_> {
    /// What the system flag says of the body and its transaction.
    pub fn attributes(&self) -> Option<Attributes> {
        system_flag::attributes(self.system_flag).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use crate::testing::generators::{message, topic_name};
    use crate::types::LogPosition;
    use crate::wire::origin::{BodyEncoding, Origin};
    use crate::wire::record::Record;

    fn terms(topic: &str) -> RecordTerms<'_> {
        let store_host = SocketAddr::from(([127, 0, 0, 1], 10911));
        RecordTerms { topic, queue: 3, store_host, cluster: "c" }
    }

    fn placed<'a>(bytes: &'a mut Vec<u8>, record: &Record<'_>) -> PlacedRecord<'a> {
        record.encode(bytes);
        PlacedRecord {
            record: RecordView::cut(bytes).expect("a record").0,
            offset: QueueOffset(42),
            location: RecordLocation { position: LogPosition(8 * 5), index: 7 },
            born_time: Timestamp(1_700_000_000_000),
            store_time: Timestamp(1_700_000_000_009),
        }
    }

    fn written(terms: &RecordTerms<'_>, record: &Record<'_>) -> Vec<u8> {
        let (mut bytes, mut output) = (Vec::new(), Vec::new());
        write_record(terms, &placed(&mut bytes, record), &mut output);
        output
    }

    #[test]
    fn a_record_has_every_byte_where_clients_look_for_it() {
        let born = SocketAddr::from(([10, 1, 2, 3], 4000));
        let record = Record {
            key: b"k",
            tag: b"t",
            properties: b"a\x01b\x02",
            body: b"hello",
            born_delta_ms: 5,
            attributes: Attributes { encoding: BodyEncoding::Zlib, committed: true },
            origin: Some(Origin::new(9, 2, born)),
        };
        let mut expected = b"\0\0\0\xb7\xda\xa3\x20\xa7".to_vec();
        expected.extend_from_slice(&907_060_870_u32.to_be_bytes());
        expected.extend_from_slice(b"\0\0\0\x03\0\0\0\x09\0\0\0\0\0\0\0\x2a");
        expected.extend_from_slice(b"\0\0\0\0\0\x05\0\x07\0\0\x03\x09");
        expected.extend_from_slice(&1_700_000_000_005_u64.to_be_bytes());
        expected.extend_from_slice(b"\x0a\x01\x02\x03\0\0\x0f\xa0");
        expected.extend_from_slice(&1_700_000_000_009_u64.to_be_bytes());
        expected.extend_from_slice(b"\x7f\0\0\x01\0\0\x2a\x9f\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\x05hello");
        expected.extend_from_slice(
            b"\x06orders\0\x51a\x01b\x02TAGS\x01t\x02KEYS\x01k\x02TRAN_MSG\x01true\x02CLUSTER\x01c\x02",
        );
        expected.extend_from_slice(b"MSG_REGION\x01DefaultRegion\x02TRACE_ON\x01true\x02");
        assert_eq!(written(&terms("orders"), &record), expected);
    }

    #[test]
    fn addresses_have_their_widths_and_long_topics_the_second_version() {
        let long = format!("%RETRY%{}", "g".repeat(255));
        for (topic, magic) in [(&long[..127], MAGIC_V1), (&long[..128], MAGIC_V2), (&long, MAGIC_V2)] {
            for (born, store) in [("[::1]:1", "[2001:db8::1]:2"), ("1.2.3.4:5", "[2001:db8::1]:2")] {
                let (born, store_host) = (born.parse().expect("one"), store.parse().expect("one"));
                let terms = RecordTerms { store_host, ..terms(topic) };
                let record = Record { origin: Some(Origin::new(0, 0, born)), ..Record::default() };
                let bytes = written(&terms, &record);
                assert_eq!(bytes[4..8], magic.to_be_bytes());
                let (read, rest) = read_record(&bytes).expect("a record");
                assert_eq!(
                    (read.born_host, read.store_host, read.topic),
                    (born, store_host, topic.as_bytes())
                );
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn what_is_written_is_read_as_what_was_stored() {
        let mut random = Random::new(16);
        let mut output = Vec::new();
        for _ in 0..500 {
            let (message, topic) = (message(&mut random, 3_000), topic_name(&mut random));
            let mut stored = Vec::new();
            let (terms, record) = (terms(topic.as_str()), message.as_record());
            let placed = placed(&mut stored, &record);
            output.clear();
            write_record(&terms, &placed, &mut output);
            let (read, _) = read_record(&output).expect("a record");
            assert_eq!((read.body, read.topic), (record.body, topic.as_str().as_bytes()));
            assert_eq!(read.attributes(), Some(record.attributes));
            assert_eq!(read.born_time, 1_700_000_000_000 + i64::from(record.born_delta_ms));
            let expected = record.origin.unwrap_or(Origin::new(0, 0, NOWHERE));
            let deliveries_before = read.deliveries_before as u16;
            assert_eq!(Origin::new(read.flag, deliveries_before, read.born_host), expected);
            for end in 0..output.len().min(200) {
                assert_eq!(read_record(&output[..end]), None, "cut at {end}");
            }
        }
    }

    #[test]
    fn properties_fit_the_bytes_that_say_their_length() {
        let properties = [b"a\x01", &vec![b'x'; crate::limits::PROPERTIES_BYTES_MAX - 2][..]].concat();
        let record = Record { key: b"k", tag: b"t", properties: &properties, ..Record::default() };
        let bytes = written(&terms("orders"), &record);
        assert_eq!(read_record(&bytes).expect("a record").0.properties, properties);
    }
}
