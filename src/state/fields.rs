//! Fields of a change that came after its kind.
//!
//! A change's kind has a body that does not change any more. What a release adds to it are *fields*: the kind's highest bit
//! says that there are some, and the body becomes
//!
//! ```text
//! 0  u32  core_bytes
//! 4  core: the body as it was before there were fields
//!    fields, each: u8 tag, u16 bytes, value; tags rise
//! ```
//!
//! 1. A field that is not there has its default, which is what the releases before it did. One with its default is not
//!    written, so a change without any is written as it always was.
//! 2. A release skips a tag below 128 that it does not know, and drops it when it writes the change again, at the latest with
//!    the next checkpoint. A tag from 128 on must be known: who does not know it refuses the log as a newer release's.
//! 3. A value is as long as its field says or longer: what is added to its end is skipped by who knows less of it. A shorter
//!    one cannot be read.
//! 4. Each kind has tags of its own. A tag is never used again for something else.

use crate::wire::bytes::{get_u16, get_u32};

/// In a kind: fields follow.
pub(super) const WITH_FIELDS: u8 = 0x80;
/// In a tag: who does not know it must not go on.
const MUST_BE_KNOWN: u8 = 0x80;
const FIELD_HEADER_BYTES: usize = 3;

/// What became of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Yes,
    /// Its tag is not known to this release.
    Unknown,
    /// Its value is not one.
    Wrong,
}

/// Why fields cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldError {
    Malformed,
    /// It must be known, and is not.
    Unknown(u8),
}

/// Appends a field.
pub(super) fn put_field(output: &mut Vec<u8>, tag: u8, value: &[u8]) {
    let bytes = u16::try_from(value.len()).expect("values are bounded where they are set");
    output.push(tag);
    output.extend_from_slice(&bytes.to_le_bytes());
    output.extend_from_slice(value);
}

/// Puts the length of the core before it and the fields after it. `output` ends with the core, which begins at `start`.
pub(super) fn enclose(output: &mut Vec<u8>, start: usize, fields: &[u8]) {
    let core = output.split_off(start);
    output.extend_from_slice(&(core.len() as u32).to_le_bytes());
    output.extend_from_slice(&core);
    output.extend_from_slice(fields);
}

/// The core of a body, and its fields.
pub(super) fn split(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let core_bytes = get_u32(body.get(..4)?, 0) as usize;
    body[4..].split_at_checked(core_bytes)
}

/// Goes through fields in order.
pub(super) fn take_fields(
    mut fields: &[u8],
    mut take: impl FnMut(u8, &[u8]) -> Taken,
) -> Result<(), FieldError> {
    let mut last = 0;
    while !fields.is_empty() {
        let header = fields.get(..FIELD_HEADER_BYTES).ok_or(FieldError::Malformed)?;
        let (tag, bytes) = (header[0], usize::from(get_u16(header, 1)));
        let rest = &fields[FIELD_HEADER_BYTES..];
        let (value, rest) = rest.split_at_checked(bytes).ok_or(FieldError::Malformed)?;
        if tag <= last {
            return Err(FieldError::Malformed);
        }
        match take(tag, value) {
            Taken::Yes => {}
            Taken::Unknown if tag & MUST_BE_KNOWN == 0 => {}
            Taken::Unknown => return Err(FieldError::Unknown(tag)),
            Taken::Wrong => return Err(FieldError::Malformed),
        }
        (last, fields) = (tag, rest);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(fields: &[u8]) -> Result<Vec<u8>, FieldError> {
        let mut tags = Vec::new();
        take_fields(fields, |tag, value| {
            tags.push(tag);
            match value {
                [] => Taken::Unknown,
                [0, ..] => Taken::Wrong,
                _ => Taken::Yes,
            }
        })?;
        Ok(tags)
    }

    #[test]
    fn an_unknown_field_is_skipped_unless_it_must_be_known() {
        let mut fields = Vec::new();
        put_field(&mut fields, 1, &[1]);
        put_field(&mut fields, 9, &[]);
        assert_eq!(taken(&fields), Ok(vec![1, 9]));
        put_field(&mut fields, 0x81, &[]);
        assert_eq!(taken(&fields), Err(FieldError::Unknown(0x81)));
    }

    #[test]
    fn fields_out_of_order_twice_or_cut_off_are_refused() {
        for tags in [[2, 1], [1, 1], [0, 1]] {
            let mut fields = Vec::new();
            tags.iter().for_each(|tag| put_field(&mut fields, *tag, &[1]));
            assert_eq!(taken(&fields), Err(FieldError::Malformed), "{tags:?}");
        }
        let mut fields = Vec::new();
        put_field(&mut fields, 1, &[1, 2]);
        for end in 1..fields.len() {
            assert_eq!(taken(&fields[..end]), Err(FieldError::Malformed), "cut at {end}");
        }
        assert_eq!(split(&[9, 0, 0, 0, 1]), None);
        assert_eq!(split(&[1, 0, 0, 0, 7, 8]), Some((&[7][..], &[8][..])));
    }
}
