//! What a record's attributes say, and the block that an adaptor of RocketMQ's own protocol adds to a record.
//!
//! ```text
//! attributes
//!   bits 0 to 2   encoding of the body: 0 as it is, 1 zlib (RFC 1950), 2 LZ4 (frame format), 3 zstd (RFC 8878)
//!   bit 3         the message was a half of a transaction that was committed
//!   bit 4         the record has an origin block of 12 bytes
//!   bit 5         the record has one of 24 bytes
//!   bits 6 to 15  zero
//! origin block
//!   0  u32  flag                RocketMQ's `flag` of a message: the producer's, never looked at
//!   4  u16  deliveries_before   times it was delivered before it was sent again (`reconsumeTimes`)
//!   6  u16  born_port           of the producer's connection
//!   8       born_address        4 or 16 bytes, in network order
//! ```
//!
//! The bits are those of RocketMQ's `sysFlag` in another order (`common/.../sysflag/MessageSysFlag.java`), where an encoding
//! may also be told by none of its bits. Releases before format 3 stored attributes as they came: a record of theirs whose
//! bits mean something here has no block all the same, see [`RecordView`](super::record::RecordView).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::bytes::{get_u16, get_u32, put_u16, put_u32};

const ENCODING: u16 = 0b111;
const COMMITTED: u16 = 1 << 3;
const SHORT_ORIGIN: u16 = 1 << 4;
const LONG_ORIGIN: u16 = 1 << 5;
const KNOWN: u16 = ENCODING | COMMITTED | SHORT_ORIGIN | LONG_ORIGIN;

/// Bytes of an origin block with an IPv4 address.
pub const SHORT_ORIGIN_BYTES: usize = 12;
/// Bytes of one with an IPv6 address.
pub const LONG_ORIGIN_BYTES: usize = 24;

/// How the bytes of a body are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyEncoding {
    #[default]
    Plain,
    Zlib,
    Lz4,
    Zstd,
}

/// What a record says of itself beside its parts. The bits of the origin block are not in here: they follow from the
/// block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub encoding: BodyEncoding,
    /// The message was a half of a transaction that was committed.
    pub committed: bool,
}

/// Where a message comes from, as RocketMQ's clients want to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub flag: u32,
    pub deliveries_before: u16,
    /// Of the producer's connection. An IPv4 address inside an IPv6 one is stored as what it is.
    pub born: SocketAddr,
}

impl BodyEncoding {
    fn code(self) -> u16 {
        match self {
            BodyEncoding::Plain => 0,
            BodyEncoding::Zlib => 1,
            BodyEncoding::Lz4 => 2,
            BodyEncoding::Zstd => 3,
        }
    }

    fn of(bits: u16) -> Option<Self> {
        Some(match bits & ENCODING {
            0 => BodyEncoding::Plain,
            1 => BodyEncoding::Zlib,
            2 => BodyEncoding::Lz4,
            3 => BodyEncoding::Zstd,
            _ => return None,
        })
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            BodyEncoding::Plain => "plain",
            BodyEncoding::Zlib => "zlib",
            BodyEncoding::Lz4 => "lz4",
            BodyEncoding::Zstd => "zstd",
        }
    }
}

impl Attributes {
    /// The bits as stored, with those of the origin block that the record has.
    pub(super) fn bits(self, origin: Option<&Origin>) -> u16 {
        let origin = match origin.map(Origin::encoded_bytes) {
            None => 0,
            Some(SHORT_ORIGIN_BYTES) => SHORT_ORIGIN,
            Some(_) => LONG_ORIGIN,
        };
        self.encoding.code() | if self.committed { COMMITTED } else { 0 } | origin
    }

    /// What stored bits say. An encoding that this release does not know is none: only releases before format 3 stored such
    /// bits, and gave them no meaning.
    pub(super) fn of(bits: u16) -> Self {
        if bits & !KNOWN != 0 {
            return Self::default();
        }
        Self { encoding: BodyEncoding::of(bits).unwrap_or_default(), committed: bits & COMMITTED != 0 }
    }
}

/// Whether bits are such as this release stores, for a record with an origin block of that many bytes.
pub(super) fn are_valid(bits: u16, origin_bytes: usize) -> bool {
    let expected = match origin_bytes {
        0 => 0,
        SHORT_ORIGIN_BYTES => SHORT_ORIGIN,
        LONG_ORIGIN_BYTES => LONG_ORIGIN,
        _ => return false,
    };
    bits & !KNOWN == 0 && BodyEncoding::of(bits).is_some() && bits & (SHORT_ORIGIN | LONG_ORIGIN) == expected
}

/// Whether a record with these bits may have so many bytes beside its parts.
pub(super) fn may_have_origin(bits: u16, origin_bytes: usize) -> bool {
    match origin_bytes {
        SHORT_ORIGIN_BYTES => bits & SHORT_ORIGIN != 0,
        LONG_ORIGIN_BYTES => bits & LONG_ORIGIN != 0,
        _ => origin_bytes == 0,
    }
}

impl Origin {
    pub fn new(flag: u32, deliveries_before: u16, born: SocketAddr) -> Self {
        Self { flag, deliveries_before, born: SocketAddr::new(born.ip().to_canonical(), born.port()) }
    }

    /// Bytes of the block.
    pub fn encoded_bytes(&self) -> usize {
        match self.born.ip().to_canonical() {
            IpAddr::V4(_) => SHORT_ORIGIN_BYTES,
            IpAddr::V6(_) => LONG_ORIGIN_BYTES,
        }
    }

    pub(super) fn encode(&self, output: &mut Vec<u8>) {
        let mut head = [0; 8];
        put_u32(&mut head, 0, self.flag);
        put_u16(&mut head, 4, self.deliveries_before);
        put_u16(&mut head, 6, self.born.port());
        output.extend_from_slice(&head);
        match self.born.ip().to_canonical() {
            IpAddr::V4(address) => output.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => output.extend_from_slice(&address.octets()),
        }
    }

    /// Reads a block of one of the two lengths; `None` for anything else.
    pub(super) fn decode(block: &[u8]) -> Option<Self> {
        let address = match block.len() {
            SHORT_ORIGIN_BYTES => {
                let octets: [u8; 4] = block[8..].try_into().ok()?;
                IpAddr::V4(Ipv4Addr::from(octets))
            }
            LONG_ORIGIN_BYTES => {
                let octets: [u8; 16] = block[8..].try_into().ok()?;
                IpAddr::V6(Ipv6Addr::from(octets))
            }
            _ => return None,
        };
        Some(Self {
            flag: get_u32(block, 0),
            deliveries_before: get_u16(block, 4),
            born: SocketAddr::new(address, get_u16(block, 6)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_inside_an_ipv6_one_is_stored_as_what_it_is() {
        let born: SocketAddr = "[::ffff:10.1.2.3]:4000".parse().expect("an address");
        let origin = Origin::new(7, 2, born);
        let mut block = Vec::new();
        origin.encode(&mut block);
        assert_eq!(block, [7, 0, 0, 0, 2, 0, 0xa0, 0x0f, 10, 1, 2, 3]);
        assert_eq!(Origin::decode(&block), Some(origin));
    }

    #[test]
    fn blocks_of_other_lengths_are_none() {
        for bytes in [0, 11, 13, 23, 25] {
            assert_eq!(Origin::decode(&vec![0; bytes]), None, "{bytes} bytes");
        }
    }

    #[test]
    fn bits_and_block_have_to_say_the_same() {
        for (bits, origin_bytes, is_valid) in [
            (0, 0, true),
            (3, 0, true),
            (4, 0, false),
            (0b1000, 0, true),
            (SHORT_ORIGIN, SHORT_ORIGIN_BYTES, true),
            (SHORT_ORIGIN, 0, false),
            (SHORT_ORIGIN, LONG_ORIGIN_BYTES, false),
            (LONG_ORIGIN | 2, LONG_ORIGIN_BYTES, true),
            (SHORT_ORIGIN | LONG_ORIGIN, SHORT_ORIGIN_BYTES, false),
            (0, SHORT_ORIGIN_BYTES, false),
            (1 << 6, 0, false),
            (1 << 15, 0, false),
        ] {
            assert_eq!(are_valid(bits, origin_bytes), is_valid, "{bits:#b} with {origin_bytes} bytes");
        }
    }
}
