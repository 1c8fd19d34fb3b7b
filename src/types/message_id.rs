//! Message ids as RocketMQ's clients know them: both are upper-case hexadecimal text.
//!
//! The *offset message id* says where a message is stored (`common/.../message/MessageDecoder.java`,
//! `createMessageId`), the *unique id* is given to it before it is stored (`MessageClientIDSetter.java`):
//!
//! ```text
//! offset message id                      unique id
//!  0  4 or 16 bytes  address             0  4 bytes  IPv4 address
//!  .  i32            port                4  2 bytes  low bits of the process id
//!  .  i64            physical offset     6  4 bytes  random, per generator
//!                                       10  4 bytes  milliseconds since the month began
//!                                       14  2 bytes  counter
//! ```
//!
//! All integers are big-endian here, unlike everywhere else in turbopump.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;

use super::position::LogPosition;
use super::time::Timestamp;

/// Bytes of a unique id.
const UNIQUE_ID_BYTES: usize = 16;
/// The longest id: an offset message id with an IPv6 address.
const ID_BYTES_MAX: usize = 16 + 4 + 8;
/// Batches start at multiples of this.
const POSITION_UNIT: u64 = 8;
const INDEX_BITS: u32 = 16;
/// A location names positions modulo this. A log holds less than that at any time, so that its end tells which one is meant.
const POSITION_MODULUS: u64 = POSITION_UNIT << (63 - INDEX_BITS);
const DAY_MS: u64 = 24 * 3_600_000;

/// Where a stored message is: its batch, and its number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordLocation {
    /// Of the batch; a multiple of 8.
    pub position: LogPosition,
    pub index: u16,
}

/// Names a message by the broker that stores it and its location there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetMessageId {
    pub address: SocketAddr,
    /// See [`RecordLocation::physical_offset`].
    pub physical_offset: i64,
}

/// Names a message from its birth on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UniqueId(pub [u8; UNIQUE_ID_BYTES]);

/// Makes unique ids, one generator per shard: up to 65,536 in each millisecond.
#[derive(Clone, Debug)]
pub struct UniqueIdGenerator {
    /// Address, process and random number: the same in every id.
    prefix: [u8; 10],
    /// Never falls, so that a wall clock set back repeats no id.
    last: Timestamp,
    month_start: Timestamp,
    counter: u16,
}

/// An id as text, without an allocation.
#[derive(Clone, Copy)]
pub struct IdText {
    digits: [u8; 2 * ID_BYTES_MAX],
    length: usize,
}

/// Why a text is no message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageIdError {
    #[error("a message id has 32 or 56 hexadecimal digits, this text {0}")]
    Length(usize),
    #[error("a message id is made of hexadecimal digits")]
    Digit,
    #[error("the port {0} in the message id is none")]
    Port(u32),
    #[error("the physical offset {0} in the message id is negative")]
    Offset(i64),
}

impl RecordLocation {
    /// The location as RocketMQ's physical offset: `position / 8 << 16 | index`, never negative, because the C++ client cuts
    /// leading `F` digits off before it reads one. What lies above bit 62 is lost; [`in_log`](RecordLocation::in_log) finds
    /// it again.
    pub fn physical_offset(self) -> i64 {
        assert!(self.starts_a_batch(), "no batch starts at {}", self.position);
        let unit = self.position.0 % POSITION_MODULUS / POSITION_UNIT;
        (unit << INDEX_BITS) as i64 | i64::from(self.index)
    }

    /// Whether a batch may start at its position: a peer may say any.
    fn starts_a_batch(self) -> bool {
        self.position.0.is_multiple_of(POSITION_UNIT)
    }

    /// The location that a physical offset names, with the lowest position of all that it may mean. `None` when it is
    /// negative.
    pub fn of_physical_offset(offset: i64) -> Option<Self> {
        let offset = u64::try_from(offset).ok()?;
        let position = LogPosition((offset >> INDEX_BITS) * POSITION_UNIT);
        Some(Self { position, index: offset as u16 })
    }

    /// The last location below `end` that the same physical offset names: the one in a log that ends there.
    pub fn in_log(self, end: LogPosition) -> Self {
        if self.position >= end {
            return self;
        }
        let cycles = (end.0 - 1 - self.position.0) / POSITION_MODULUS;
        Self { position: self.position.advance(cycles * POSITION_MODULUS), ..self }
    }
}

impl OffsetMessageId {
    /// The id of what is stored at `location` by the shard that clients reach at `address`. `None` when nothing can be
    /// stored there.
    pub fn of_location(address: SocketAddr, location: RecordLocation) -> Option<Self> {
        location.starts_a_batch().then(|| Self { address, physical_offset: location.physical_offset() })
    }

    pub fn text(&self) -> IdText {
        let mut text = IdText::new();
        match self.address.ip() {
            IpAddr::V4(address) => text.push(&address.octets()),
            IpAddr::V6(address) => text.push(&address.octets()),
        }
        text.push(&u32::from(self.address.port()).to_be_bytes());
        text.push(&self.physical_offset.to_be_bytes());
        text
    }

    /// Reads an id in either case of letters.
    pub fn parse(text: &str) -> Result<Self, MessageIdError> {
        let mut bytes = [0; ID_BYTES_MAX];
        let bytes = decode_hex(text.as_bytes(), &mut bytes)?;
        let (address, rest) = bytes.split_at(bytes.len() - 12);
        let address = match <[u8; 4]>::try_from(address) {
            Ok(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
            Err(_) => match <[u8; 16]>::try_from(address) {
                Ok(octets) => IpAddr::V6(Ipv6Addr::from(octets)),
                Err(_) => return Err(MessageIdError::Length(text.len())),
            },
        };
        let (port, offset) = rest.split_at(4);
        let port = u32::from_be_bytes(port.try_into().expect("four bytes"));
        let physical_offset = i64::from_be_bytes(offset.try_into().expect("eight bytes"));
        if physical_offset < 0 {
            return Err(MessageIdError::Offset(physical_offset));
        }
        let port = u16::try_from(port).map_err(|_| MessageIdError::Port(port))?;
        Ok(Self { address: SocketAddr::new(address, port), physical_offset })
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.text())
    }
}

impl UniqueId {
    pub fn text(&self) -> IdText {
        let mut text = IdText::new();
        text.push(&self.0);
        text
    }

    pub fn parse(text: &str) -> Result<Self, MessageIdError> {
        let mut bytes = [0; ID_BYTES_MAX];
        let bytes = decode_hex(text.as_bytes(), &mut bytes)?;
        bytes.try_into().map(Self).map_err(|_| MessageIdError::Length(text.len()))
    }
}

impl UniqueIdGenerator {
    /// `random` tells the generators of one process apart.
    pub fn new(address: Ipv4Addr, process: u32, random: u32) -> Self {
        let mut prefix = [0; 10];
        prefix[..4].copy_from_slice(&address.octets());
        prefix[4..6].copy_from_slice(&(process as u16).to_be_bytes());
        prefix[6..].copy_from_slice(&random.to_be_bytes());
        Self { prefix, last: Timestamp(0), month_start: Timestamp(0), counter: 0 }
    }

    /// The next id, at the wall clock's `now`.
    pub fn next(&mut self, now: Timestamp) -> UniqueId {
        // A month of milliseconds fits 32 bits, so another look at the calendar is due before they run over.
        if now > self.last && now.0 / DAY_MS != self.last.0 / DAY_MS {
            self.month_start = month_start(now);
        }
        self.last = self.last.max(now);
        let since = (self.last.0 - self.month_start.0) as u32;
        let mut id = [0; UNIQUE_ID_BYTES];
        id[..10].copy_from_slice(&self.prefix);
        id[10..14].copy_from_slice(&since.to_be_bytes());
        id[14..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        UniqueId(id)
    }
}

impl IdText {
    fn new() -> Self {
        Self { digits: [0; 2 * ID_BYTES_MAX], length: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        for byte in bytes {
            self.digits[self.length] = DIGITS[usize::from(byte >> 4)];
            self.digits[self.length + 1] = DIGITS[usize::from(byte & 15)];
            self.length += 2;
        }
    }
}

impl Deref for IdText {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.digits[..self.length]).expect("digits are ASCII")
    }
}

impl fmt::Display for IdText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self)
    }
}

impl fmt::Debug for IdText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self)
    }
}

/// The bytes that `text` stands for, at the start of `output`.
fn decode_hex<'a>(text: &[u8], output: &'a mut [u8; ID_BYTES_MAX]) -> Result<&'a [u8], MessageIdError> {
    let length = text.len() / 2;
    if !matches!(text.len(), 32 | 56) {
        return Err(MessageIdError::Length(text.len()));
    }
    for (byte, pair) in output.iter_mut().zip(text.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Ok(&output[..length])
}

fn hex_digit(letter: u8) -> Result<u8, MessageIdError> {
    char::from(letter).to_digit(16).map(|digit| digit as u8).ok_or(MessageIdError::Digit)
}

/// When the month of `now` began, in UTC.
fn month_start(now: Timestamp) -> Timestamp {
    let days = now.0 / DAY_MS;
    Timestamp((days - u64::from(day_of_month(days)) + 1) * DAY_MS)
}

/// The day of the month, from 1, of a day counted from 1970: years are taken to begin in March, so that the leap day is
/// their last one, and eras of 400 years are all alike.
fn day_of_month(days_since_epoch: u64) -> u32 {
    const DAYS_TO_EPOCH: u64 = 719_468;
    const ERA_DAYS: u64 = 146_097;
    let day_of_era = (days_since_epoch + DAYS_TO_EPOCH) % ERA_DAYS;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    (day_of_year - (153 * month + 2) / 5 + 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn an_offset_message_id_is_rocketmqs() {
        let id = OffsetMessageId { address: "127.0.0.1:10911".parse().unwrap(), physical_offset: 101 };
        assert_eq!(&*id.text(), "7F00000100002A9F0000000000000065");
        assert_eq!(OffsetMessageId::parse(&id.text()), Ok(id));
        assert_eq!(OffsetMessageId::parse(&id.text().to_lowercase()), Ok(id));
        let long = OffsetMessageId { address: "[::1]:80".parse().unwrap(), physical_offset: i64::MAX };
        assert_eq!(&*long.text(), "00000000000000000000000000000001000000507FFFFFFFFFFFFFFF");
        assert_eq!(OffsetMessageId::parse(&long.text()), Ok(long));
    }

    #[test]
    fn a_place_where_no_batch_starts_has_no_id() {
        let address = "127.0.0.1:10911".parse().unwrap();
        let id_at = |position| {
            let location = RecordLocation { position: LogPosition(position), index: 2 };
            OffsetMessageId::of_location(address, location).map(|id| id.text().to_string())
        };
        assert_eq!(id_at(16).as_deref(), Some("7F00000100002A9F0000000000020002"));
        assert_eq!(id_at(17), None);
        assert_eq!(id_at(u64::MAX), None);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let parse = |text: &str| OffsetMessageId::parse(text).unwrap_err();
        assert_eq!(parse(""), MessageIdError::Length(0));
        assert_eq!(parse("7F"), MessageIdError::Length(2));
        assert_eq!(parse("7F00000100002A9F000000000000006G"), MessageIdError::Digit);
        assert_eq!(parse("7F0000010001000000000000000000AA"), MessageIdError::Port(65_536));
        assert_eq!(parse("7F00000100002A9FFFFFFFFFFFFFFFFF"), MessageIdError::Offset(-1));
        let long = "00000000000000000000000000000001000000507FFFFFFFFFFFFFFF";
        assert_eq!(UniqueId::parse(long), Err(MessageIdError::Length(56)));
        // Two bytes for one letter: never a slice within it.
        assert_eq!(
            UniqueId::parse("\u{e9}\u{e9}00000100002A9F000000000065"),
            Err(MessageIdError::Length(30))
        );
    }

    #[test]
    fn a_place_comes_back_from_its_offset_whatever_the_log_has_seen() {
        let mut random = Random::new(7);
        for _ in 0..10_000 {
            let bits = random.range(3..=60);
            let position = LogPosition(random.number() >> (64 - bits) << 3);
            let location = RecordLocation { position, index: random.number() as u16 };
            let offset = location.physical_offset();
            assert!(offset >= 0);
            let end = position.advance(1 + random.range(0..POSITION_MODULUS - 1));
            let named = RecordLocation::of_physical_offset(offset).unwrap();
            assert_eq!(named.in_log(end), location);
            assert_eq!(location.in_log(end), location);
        }
        assert_eq!(RecordLocation::of_physical_offset(-1), None);
    }

    #[test]
    fn unique_ids_have_rocketmqs_layout_and_do_not_repeat() {
        let mut generator = UniqueIdGenerator::new(Ipv4Addr::new(192, 168, 0, 7), 0x1_2345, 0xdead_beef);
        // 1 March 2024, 00:00:00.005 UTC: the day after a leap day.
        let now = Timestamp(1_709_251_200_005);
        assert_eq!(&*generator.next(now).text(), "C0A800072345DEADBEEF000000050000");
        assert_eq!(&*generator.next(now).text(), "C0A800072345DEADBEEF000000050001");
        // Set back, the clock repeats nothing.
        assert_eq!(&*generator.next(Timestamp(3)).text(), "C0A800072345DEADBEEF000000050002");
        let id = generator.next(now.0.checked_add(31 * DAY_MS).map(Timestamp).unwrap());
        assert_eq!(&*id.text(), "C0A800072345DEADBEEF000000050003");
        assert_eq!(UniqueId::parse(&id.text()), Ok(id));
    }

    #[test]
    fn months_begin_where_the_calendar_says() {
        let day = |days: u64| day_of_month(days);
        assert_eq!([day(0), day(30), day(31), day(58), day(59)], [1, 31, 1, 28, 1]);
        // 29 February 2000 and the days around it; 1 March 2100, which has no such day.
        assert_eq!([day(11_015), day(11_016), day(11_017)], [28, 29, 1]);
        assert_eq!([day(47_540), day(47_541)], [28, 1]);
    }
}
