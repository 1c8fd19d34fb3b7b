//! Messages of one batch in a body (`common/.../message/MessageDecoder.java`, `encodeMessage`), back to back. All numbers are
//! big-endian.
//!
//! ```text
//!  0  u32  message_bytes     this head and everything after it
//!  4  u32  magic             0; not looked at
//!  8  u32  body_crc          0; not looked at
//! 12  u32  flag
//! 16  u32  body_bytes        and the body
//!  .  u16  properties_bytes  and the properties
//! ```

/// Bytes of a message beside its body and its properties.
pub const INNER_HEAD_BYTES: usize = 22;

const FLAG: usize = 12;
const BODY: usize = 20;

/// Why a body is no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InnerError {
    #[error("message {0} of the batch ends after the batch")]
    Truncated(usize),
    #[error("the length of message {0} of the batch is not the sum of its parts")]
    Lengths(usize),
}

/// One message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerMessage<'a> {
    pub flag: u32,
    pub body: &'a [u8],
    pub properties: &'a [u8],
}

/// Iterator over the messages of a body; it ends with the first that is none.
#[derive(Clone, Debug)]
pub struct InnerMessages<'a> {
    rest: &'a [u8],
    count: usize,
}

impl<'a> InnerMessages<'a> {
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body, count: 0 }
    }

    fn read(&mut self) -> Result<InnerMessage<'a>, InnerError> {
        let number = self.count;
        self.count += 1;
        let truncated = InnerError::Truncated(number);
        let message_bytes = be_u32(self.rest, 0).ok_or(truncated)? as usize;
        let (message, rest) = self.rest.split_at_checked(message_bytes).ok_or(truncated)?;
        let message = split(message).ok_or(InnerError::Lengths(number))?;
        self.rest = rest;
        Ok(message)
    }
}

impl<'a> Iterator for InnerMessages<'a> {
    type Item = Result<InnerMessage<'a>, InnerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.read();
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}

impl InnerMessage<'_> {
    /// Appends the message as a client does it.
    pub fn write(&self, output: &mut Vec<u8>) {
        let message_bytes = INNER_HEAD_BYTES + self.body.len() + self.properties.len();
        for number in [message_bytes as u32, 0, 0, self.flag, self.body.len() as u32] {
            output.extend_from_slice(&number.to_be_bytes());
        }
        output.extend_from_slice(self.body);
        output.extend_from_slice(&(self.properties.len() as u16).to_be_bytes());
        output.extend_from_slice(self.properties);
    }
}

/// The parts of a message, if they fill it.
fn split(message: &[u8]) -> Option<InnerMessage<'_>> {
    let flag = be_u32(message, FLAG)?;
    let body_bytes = be_u32(message, FLAG + 4)? as usize;
    let (body, rest) = message.get(BODY..)?.split_at_checked(body_bytes)?;
    let (properties_bytes, properties) = rest.split_first_chunk()?;
    let is_whole = properties.len() == usize::from(u16::from_be_bytes(*properties_bytes));
    is_whole.then_some(InnerMessage { flag, body, properties })
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_follow_each_other_without_a_count() {
        let first = InnerMessage { flag: 7, body: b"one", properties: b"KEYS\x01k\x02" };
        let second = InnerMessage { flag: 0, body: b"", properties: b"" };
        let mut body = Vec::new();
        first.write(&mut body);
        assert_eq!(body, b"\0\0\0\x20\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\x03one\0\x07KEYS\x01k\x02");
        second.write(&mut body);
        assert_eq!(InnerMessages::new(&body).collect::<Vec<_>>(), [Ok(first), Ok(second)]);
        let first_bytes = 32;
        for end in (1..first_bytes).chain(first_bytes + 1..body.len()) {
            let last = InnerMessages::new(&body[..end]).last().expect("something");
            assert!(matches!(last, Err(InnerError::Truncated(_))), "cut at {end}: {last:?}");
        }
    }

    #[test]
    fn lengths_have_to_add_up() {
        let mut body = Vec::new();
        InnerMessage { flag: 0, body: b"one", properties: b"p" }.write(&mut body);
        for (at, value) in [(19, 2), (19, 4), (19, 255), (24, 0), (24, 2)] {
            let mut wrong = body.clone();
            wrong[at] = value;
            assert_eq!(
                InnerMessages::new(&wrong).next(),
                Some(Err(InnerError::Lengths(0))),
                "{value} at {at}"
            );
        }
        // Too short for a head.
        let short = [&20_u32.to_be_bytes()[..], &[0; 16]].concat();
        assert_eq!(InnerMessages::new(&short).next(), Some(Err(InnerError::Lengths(0))));
        assert_eq!(InnerMessages::new(&[0; 8]).next(), Some(Err(InnerError::Lengths(0))), "no bytes at all");
    }
}
