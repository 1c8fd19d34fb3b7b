//! A message's system flag (`common/.../sysflag/MessageSysFlag.java`): what its body is encoded as, what became of its
//! transaction, and how wide its addresses are.

use std::net::SocketAddr;

use crate::wire::origin::{Attributes, BodyEncoding};

const COMPRESSED: u32 = 1;
/// The half of a transaction, the message of one that was committed, or rolled back.
const TRANSACTION: u32 = 0b1100;
const COMMITTED: u32 = 0b1000;
pub const BORN_HOST_V6: u32 = 1 << 4;
pub const STORE_HOST_V6: u32 = 1 << 5;
const COMPRESSION_SHIFT: u32 = 8;

/// Whether a message that comes in is one that nobody is to see: of a transaction that is not committed.
pub fn is_hidden(flag: u32) -> bool {
    flag & TRANSACTION != 0 && flag & TRANSACTION != COMMITTED
}

/// What a flag says of a message; the error is a type of compression that there is not.
pub fn attributes(flag: u32) -> Result<Attributes, u32> {
    let encoding = match (flag & COMPRESSED, (flag >> COMPRESSION_SHIFT) & 0b111) {
        (0, _) => BodyEncoding::Plain,
        // Clients that know one way only say nothing.
        (_, 0 | 3) => BodyEncoding::Zlib,
        (_, 1) => BodyEncoding::Lz4,
        (_, 2) => BodyEncoding::Zstd,
        (_, other) => return Err(other),
    };
    Ok(Attributes { encoding, committed: flag & TRANSACTION == COMMITTED })
}

/// The flag of a stored message.
pub fn of(attributes: Attributes, born_host: SocketAddr, store_host: SocketAddr) -> u32 {
    let encoding = match attributes.encoding {
        BodyEncoding::Plain => 0,
        BodyEncoding::Zlib => COMPRESSED | 3 << COMPRESSION_SHIFT,
        BodyEncoding::Lz4 => COMPRESSED | 1 << COMPRESSION_SHIFT,
        BodyEncoding::Zstd => COMPRESSED | 2 << COMPRESSION_SHIFT,
    };
    encoding
        | if attributes.committed { COMMITTED } else { 0 }
        | if born_host.is_ipv6() { BORN_HOST_V6 } else { 0 }
        | if store_host.is_ipv6() { STORE_HOST_V6 } else { 0 }
}
