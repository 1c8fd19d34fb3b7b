//! One message inside a batch.
//!
//! ```text
//!  0  u32  record_bytes      this header and everything after it
//!  4  u32  body_bytes
//!  8  u32  tag_hash          crc32c of the tag; 0 without a tag
//! 12  i32  born_delta_ms     to the batch's born_time_ms
//! 16  u16  key_bytes
//! 18  u16  tag_bytes
//! 20  u16  properties_bytes
//! 22  u16  attributes        see `origin`
//! 24  key, tag, properties, origin block, body, in this order, without padding
//! ```
//!
//! Properties are RocketMQ's text form (`common/.../message/MessageDecoder.java`, `messageProperties2String`): name
//! \x01 value \x02, repeated. The broker core never parses them.

use std::borrow::Cow;

use super::bytes::{get_i32, get_u16, get_u32, get_u64, put_i32, put_u16, put_u32};
use super::inflate::{InflateError, inflate};
use super::origin::{self, Attributes, LONG_ORIGIN_BYTES, Origin};
use super::text::{self, TextError};
use crate::limits;

/// Bytes before the key.
pub const RECORD_HEADER_BYTES: usize = 24;

const RECORD_BYTES: usize = 0;
const BODY_BYTES: usize = 4;
const TAG_HASH: usize = 8;
const BORN_DELTA_MS: usize = 12;
const KEY_BYTES: usize = 16;
const TAG_BYTES: usize = 18;
const PROPERTIES_BYTES: usize = 20;
const ATTRIBUTES: usize = 22;
/// The lengths of key and properties among the eight bytes from `KEY_BYTES` on.
const KEYED_MASK: u64 = 0x0000_ffff_0000_ffff;
/// Those of key and tag, and the attributes.
const MEANT_MASK: u64 = 0xffff_0000_ffff_ffff;

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a record ends after its batch")]
    Truncated,
    #[error("a record's length is not the sum of its parts")]
    Lengths,
    #[error("a body of {0} bytes is larger than {max} bytes", max = limits::BODY_BYTES_MAX)]
    BodyTooLarge(usize),
    #[error("a key, tag or properties field is larger than {max} bytes", max = limits::KEY_BYTES_MAX)]
    FieldTooLarge,
    #[error("a record's tag hash is not the hash of its tag")]
    TagHash,
    #[error(
        "a record's attributes {0:#06x} are not known to this release, or do not fit what the record has"
    )]
    Attributes(u16),
    #[error(transparent)]
    Text(#[from] TextError),
}

impl RecordError {
    /// Whether a smaller message would pass.
    pub fn is_about_size(&self) -> bool {
        match self {
            RecordError::BodyTooLarge(_) | RecordError::FieldTooLarge => true,
            RecordError::Truncated
            | RecordError::Lengths
            | RecordError::TagHash
            | RecordError::Attributes(_)
            | RecordError::Text(_) => false,
        }
    }
}

/// A message to be put into a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    pub key: &'a [u8],
    pub tag: &'a [u8],
    pub properties: &'a [u8],
    pub body: &'a [u8],
    pub born_delta_ms: i32,
    pub attributes: Attributes,
    pub origin: Option<Origin>,
}

/// A message inside checked bytes.
#[derive(Clone, Copy)]
pub struct RecordView<'a> {
    /// Exactly this record.
    bytes: &'a [u8],
}

/// Hash of a tag as records carry it. Never 0 for a tag, so that 0 can mean none.
pub fn tag_hash(tag: &[u8]) -> u32 {
    // Most records have no tag: they cost no call.
    if tag.is_empty() {
        return 0;
    }
    match crc32c::crc32c(tag) {
        0 => 1,
        hash => hash,
    }
}

/// The bit that a tag's hash sets in a batch's tag summary.
pub fn tag_summary_bit(hash: u32) -> u32 {
    1 << (hash & 31)
}

impl Record<'_> {
    /// Bytes of this record in a batch.
    pub fn encoded_bytes(&self) -> usize {
        let origin_bytes = self.origin.as_ref().map_or(0, Origin::encoded_bytes);
        let parts = self.key.len() + self.tag.len() + self.properties.len() + self.body.len();
        RECORD_HEADER_BYTES + parts + origin_bytes
    }

    /// Whether the parts keep within their limits.
    pub fn check(&self) -> Result<(), RecordError> {
        if self.body.len() > limits::BODY_BYTES_MAX {
            return Err(RecordError::BodyTooLarge(self.body.len()));
        }
        let fields = [
            (self.key.len(), limits::KEY_BYTES_MAX),
            (self.tag.len(), limits::TAG_BYTES_MAX),
            (self.properties.len(), limits::PROPERTIES_BYTES_MAX),
        ];
        if fields.iter().any(|&(bytes, limit)| bytes > limit) {
            Err(RecordError::FieldTooLarge)
        } else {
            Ok(())
        }
    }

    /// Whether key and tag can be asked for. Of messages as they come in, not of those that are stored: an earlier release
    /// took others.
    pub fn check_text(&self) -> Result<(), RecordError> {
        text::check_key(self.key)?;
        text::check_tag(self.tag)?;
        Ok(())
    }

    /// Whether it has a key or properties.
    pub fn is_keyed(&self) -> bool {
        !self.key.is_empty() || !self.properties.is_empty()
    }

    /// Appends the record to `output` and returns the hash of its tag. The caller has called [`check`](Record::check).
    pub fn encode(&self, output: &mut Vec<u8>) -> u32 {
        assert!(self.check().is_ok(), "a record beyond its limits");
        let tag_hash = tag_hash(self.tag);
        let mut header = [0; RECORD_HEADER_BYTES];
        put_u32(&mut header, RECORD_BYTES, self.encoded_bytes() as u32);
        put_u32(&mut header, BODY_BYTES, self.body.len() as u32);
        put_u32(&mut header, TAG_HASH, tag_hash);
        put_i32(&mut header, BORN_DELTA_MS, self.born_delta_ms);
        put_u16(&mut header, KEY_BYTES, self.key.len() as u16);
        put_u16(&mut header, TAG_BYTES, self.tag.len() as u16);
        put_u16(&mut header, PROPERTIES_BYTES, self.properties.len() as u16);
        put_u16(&mut header, ATTRIBUTES, self.attributes.bits(self.origin.as_ref()));
        for part in [&header[..], self.key, self.tag, self.properties] {
            output.extend_from_slice(part);
        }
        if let Some(origin) = &self.origin {
            origin.encode(output);
        }
        output.extend_from_slice(self.body);
        tag_hash
    }
}

impl<'a> RecordView<'a> {
    /// Its parts, to be put into another batch.
    pub fn to_record(&self) -> Record<'a> {
        Record {
            key: self.key(),
            tag: self.tag(),
            properties: self.properties(),
            body: self.body(),
            born_delta_ms: self.born_delta_ms(),
            attributes: self.attributes(),
            origin: self.origin(),
        }
    }

    /// Cuts the first record off `bytes` and checks its bounds; the rest is returned with it.
    #[inline]
    pub fn cut(bytes: &'a [u8]) -> Result<(RecordView<'a>, &'a [u8]), RecordError> {
        if bytes.len() < RECORD_HEADER_BYTES {
            return Err(RecordError::Truncated);
        }
        let record_bytes = get_u32(bytes, RECORD_BYTES) as usize;
        if record_bytes > bytes.len() {
            return Err(RecordError::Truncated);
        }
        let body_bytes = get_u32(bytes, BODY_BYTES) as usize;
        if body_bytes > limits::BODY_BYTES_MAX {
            return Err(RecordError::BodyTooLarge(body_bytes));
        }
        let key_bytes = get_u16(bytes, KEY_BYTES) as usize;
        let tag_bytes = get_u16(bytes, TAG_BYTES) as usize;
        let properties_bytes = get_u16(bytes, PROPERTIES_BYTES) as usize;
        let parts_bytes = RECORD_HEADER_BYTES + key_bytes + tag_bytes + properties_bytes + body_bytes;
        if record_bytes != parts_bytes {
            // Releases before format 3 stored attributes that mean something now: by its length a record tells what it has.
            let origin_bytes = record_bytes.wrapping_sub(parts_bytes);
            if origin_bytes > LONG_ORIGIN_BYTES
                || !origin::may_have_origin(get_u16(bytes, ATTRIBUTES), origin_bytes)
            {
                return Err(RecordError::Lengths);
            }
        }
        if key_bytes.max(tag_bytes).max(properties_bytes) > limits::KEY_BYTES_MAX {
            return Err(RecordError::FieldTooLarge);
        }
        let (record, rest) = bytes.split_at(record_bytes);
        let view = RecordView { bytes: record };
        // An untagged record, the common case at the highest rates, costs no hash.
        let hash = view.tag_hash();
        if (tag_bytes | hash as usize) != 0 && hash != tag_hash(view.tag()) {
            return Err(RecordError::TagHash);
        }
        Ok((view, rest))
    }

    /// Bytes of the first record of `bytes`, if it lies within them.
    #[inline]
    pub fn bytes_of_first(bytes: &[u8]) -> Option<usize> {
        let header = bytes.get(..RECORD_HEADER_BYTES)?;
        let record_bytes = get_u32(header, RECORD_BYTES) as usize;
        (RECORD_HEADER_BYTES..=bytes.len()).contains(&record_bytes).then_some(record_bytes)
    }

    /// Whether key and tag can be asked for, see [`Record::check_text`], and the attributes are such as this release stores.
    /// Of messages as they come in. A record that has none of the three costs one load.
    #[inline]
    pub fn check_meaning(&self) -> Result<(), RecordError> {
        if get_u64(self.bytes, KEY_BYTES) & MEANT_MASK == 0 {
            return Ok(());
        }
        let bits = get_u16(self.bytes, ATTRIBUTES);
        if !origin::are_valid(bits, self.origin_block().len()) {
            return Err(RecordError::Attributes(bits));
        }
        text::check_key(self.key())?;
        text::check_tag(self.tag())?;
        Ok(())
    }

    /// The record as stored.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn tag_hash(&self) -> u32 {
        get_u32(self.bytes, TAG_HASH)
    }

    pub fn born_delta_ms(&self) -> i32 {
        get_i32(self.bytes, BORN_DELTA_MS)
    }

    /// Whether it has a key or properties: asked of every record at the highest rates, so it is one load.
    #[inline]
    pub fn is_keyed(&self) -> bool {
        get_u64(self.bytes, KEY_BYTES) & KEYED_MASK != 0
    }

    pub fn attributes(&self) -> Attributes {
        Attributes::of(get_u16(self.bytes, ATTRIBUTES))
    }

    /// The body as its producer had it, up to the largest that a message may have.
    pub fn plain_body(&self) -> Result<Cow<'a, [u8]>, InflateError> {
        inflate(self.body(), self.attributes().encoding, limits::BODY_BYTES_MAX)
    }

    /// Where the message comes from, when the adaptor that took it said so.
    pub fn origin(&self) -> Option<Origin> {
        Origin::decode(self.origin_block())
    }

    /// What lies between properties and body.
    fn origin_block(&self) -> &'a [u8] {
        let body_bytes = get_u32(self.bytes, BODY_BYTES) as usize;
        &self.bytes[self.properties_end()..self.bytes.len() - body_bytes]
    }

    /// The record's parts, to be encoded again with other properties.
    pub fn with_properties(self, properties: &'a [u8]) -> Record<'a> {
        Record {
            key: self.key(),
            tag: self.tag(),
            properties,
            body: self.body(),
            born_delta_ms: self.born_delta_ms(),
            attributes: self.attributes(),
            origin: self.origin(),
        }
    }

    pub fn key(&self) -> &'a [u8] {
        &self.bytes[RECORD_HEADER_BYTES..self.key_end()]
    }

    pub fn tag(&self) -> &'a [u8] {
        &self.bytes[self.key_end()..self.tag_end()]
    }

    pub fn properties(&self) -> &'a [u8] {
        &self.bytes[self.tag_end()..self.properties_end()]
    }

    pub fn body(&self) -> &'a [u8] {
        let body_bytes = get_u32(self.bytes, BODY_BYTES) as usize;
        &self.bytes[self.bytes.len() - body_bytes..]
    }

    fn key_end(&self) -> usize {
        RECORD_HEADER_BYTES + get_u16(self.bytes, KEY_BYTES) as usize
    }

    fn tag_end(&self) -> usize {
        self.key_end() + get_u16(self.bytes, TAG_BYTES) as usize
    }

    fn properties_end(&self) -> usize {
        self.tag_end() + get_u16(self.bytes, PROPERTIES_BYTES) as usize
    }
}
