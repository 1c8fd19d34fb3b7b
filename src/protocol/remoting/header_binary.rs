//! The header in RocketMQ's own form (`remoting/.../protocol/RocketMQSerializable.java`). All numbers are big-endian.
//!
//! ```text
//!  0  i16  code
//!  2  u8   language
//!  3  i16  version
//!  5  i32  opaque
//!  9  i32  flag
//! 13  u32  remark_bytes, and the remark
//!  .  u32  fields_bytes, and the fields: i16 and name, i32 and value, repeated
//! ```

use std::borrow::Cow;

use super::fields::Fields;
use super::head::Head;
use super::header::{Header, HeaderError};
use super::language::Language;
use crate::limits;

/// Requests with numbers beyond 16 bits come without their upper half.
const BEYOND_16_BITS: [i32; 8] = [200_050, 200_051, 200_052, 200_053, 200_054, 200_055, 200_056, 200_151];

pub(super) fn read(bytes: &[u8]) -> Result<Header<'_>, HeaderError> {
    let mut rest = bytes;
    let code = whole_code(u16::from_be_bytes(take(&mut rest, "code")?));
    let [language] = take(&mut rest, "language")?;
    let version = i16::from_be_bytes(take(&mut rest, "version")?);
    let opaque = i32::from_be_bytes(take(&mut rest, "opaque")?);
    let flag = i32::from_be_bytes(take(&mut rest, "flag")?);
    let remark = take_part(&mut rest, "remark")?;
    let fields = read_fields(take_part(&mut rest, "fields")?)?;
    Ok(Header {
        code,
        language: Language::of_number(language),
        version: version.into(),
        opaque,
        flag,
        remark: (!remark.is_empty()).then(|| String::from_utf8_lossy(remark).into()),
        fields,
    })
}

fn whole_code(code: u16) -> i32 {
    let whole = BEYOND_16_BITS.into_iter().find(|whole| *whole as u16 == code);
    whole.unwrap_or_else(|| i32::from(code as i16))
}

fn read_fields(bytes: &[u8]) -> Result<Fields<'_>, HeaderError> {
    let mut fields = Fields::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let name_bytes = u16::from_be_bytes(take(&mut rest, "fields")?);
        let name = take_bytes(&mut rest, name_bytes.into(), "fields")?;
        let value = take_part(&mut rest, "fields")?;
        if fields.len() == limits::REMOTING_FIELDS_MAX {
            return Err(HeaderError::TooManyFields);
        }
        fields.push(Cow::Borrowed(name), Cow::Borrowed(value));
    }
    Ok(fields)
}

fn take<const N: usize>(rest: &mut &[u8], what: &'static str) -> Result<[u8; N], HeaderError> {
    let (taken, after) = rest.split_first_chunk().ok_or(HeaderError::Truncated(what))?;
    *rest = after;
    Ok(*taken)
}

fn take_bytes<'a>(rest: &mut &'a [u8], bytes: usize, what: &'static str) -> Result<&'a [u8], HeaderError> {
    let (taken, after) = rest.split_at_checked(bytes).ok_or(HeaderError::Truncated(what))?;
    *rest = after;
    Ok(taken)
}

/// A length and so many bytes.
fn take_part<'a>(rest: &mut &'a [u8], what: &'static str) -> Result<&'a [u8], HeaderError> {
    let bytes = u32::from_be_bytes(take(rest, what)?);
    take_bytes(rest, bytes as usize, what)
}

pub(super) fn write(head: &Head<'_>, output: &mut Vec<u8>) {
    output.extend_from_slice(&(head.code as u16).to_be_bytes());
    output.push(head.language.number());
    output.extend_from_slice(&(head.version as u16).to_be_bytes());
    output.extend_from_slice(&head.opaque.to_be_bytes());
    output.extend_from_slice(&head.flag.to_be_bytes());
    let remark = head.remark.unwrap_or_default();
    output.extend_from_slice(&(remark.len() as u32).to_be_bytes());
    output.extend_from_slice(remark.as_bytes());
    write_part(output, |output| {
        for (name, value) in head.fields {
            let name_bytes = u16::try_from(name.len()).expect("a field has a short name");
            output.extend_from_slice(&name_bytes.to_be_bytes());
            output.extend_from_slice(name.as_bytes());
            write_part(output, |output| {
                value.append(output, |output, bytes| output.extend_from_slice(bytes))
            });
        }
    });
}

/// Writes what `part` appends, after its length.
fn write_part(output: &mut Vec<u8>, part: impl FnOnce(&mut Vec<u8>)) {
    let start = output.len();
    output.extend_from_slice(&[0; 4]);
    part(output);
    let bytes = (output.len() - start - 4) as u32;
    output[start..start + 4].copy_from_slice(&bytes.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::remoting::FieldValue;

    /// Written down from the format, byte by byte.
    const LITERAL: &[u8] = b"\x01\x36\x09\x01\x3d\0\0\0\x2a\0\0\0\x02\0\0\0\x02hi\0\0\0\x11\0\x01a\0\0\0\x02pg\0\x01e\0\0\0\x013";

    #[test]
    fn a_header_is_read_and_written_byte_by_byte() {
        let header = read(LITERAL).expect("a header");
        assert_eq!((header.code, header.version, header.opaque), (310, 317, 42));
        assert_eq!((header.language, header.remark.as_deref()), (Language::Go, Some("hi")));
        assert!(header.is_one_way() && !header.is_answer());
        assert_eq!((header.fields.bytes("a"), header.fields.number("e")), (Some(&b"pg"[..]), Some(3)));
        let fields = [("a", FieldValue::Text("pg")), ("e", FieldValue::Number(3))];
        let head = Head {
            code: 310,
            language: Language::Go,
            version: 317,
            opaque: 42,
            flag: 2,
            remark: Some("hi"),
            fields: &fields,
        };
        let mut output = Vec::new();
        write(&head, &mut output);
        assert_eq!(output, LITERAL);
    }

    #[test]
    fn a_header_that_ends_early_is_refused() {
        for end in 0..LITERAL.len() {
            assert!(matches!(read(&LITERAL[..end]), Err(HeaderError::Truncated(_))), "cut at {end}");
        }
    }

    #[test]
    fn codes_of_six_digits_are_known_by_their_lower_half() {
        for code in BEYOND_16_BITS {
            assert_eq!(whole_code(code as u16), code);
        }
        assert_eq!((whole_code(3442), whole_code(310), whole_code(0xFFFF)), (200_050, 310, -1));
    }
}
