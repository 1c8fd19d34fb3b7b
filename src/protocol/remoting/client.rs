//! A connection as one of RocketMQ's clients has it: requests out, answers in, in any order, each told by the number of its
//! request. Nothing here opens a socket or waits.
//!
//! Brokers ask their clients as well, once these have told them of a group; such requests are passed over here.

use super::fields::FieldValue;
use super::frame::{Cut, FrameError, cut};
use super::head::Head;
use super::header::{Header, HeaderError, HeaderForm};

/// What a broker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its `opaque` is the number of the request, its `code` a [`ResponseCode`](super::ResponseCode)'s.
    pub header: Header<'a>,
    pub body: &'a [u8],
}

/// Why a connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("an answer has a body of {0} bytes")]
    Oversized(usize),
}

/// What a look at received bytes has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// The frame has so many bytes, to be dropped from the front.
    Answer { answer: Answer<'a>, frame_bytes: usize },
    /// The same, and it is a request.
    Request { frame_bytes: usize },
    /// The frame has so many bytes, or more than are there if that is not known yet.
    Incomplete { needed: usize },
}

/// Appends a request of that number, with a header in JSON.
pub fn write_request(
    code: i32,
    opaque: i32,
    fields: &[(&str, FieldValue<'_>)],
    body: &[u8],
    output: &mut Vec<u8>,
) {
    let head = Head { code, opaque, fields, ..Head::default() };
    head.write(HeaderForm::Json, body, output);
}

/// Reads what lies first in `bytes`.
pub fn receive(bytes: &[u8]) -> Result<Received<'_>, AnswerError> {
    match cut(bytes)? {
        Cut::Incomplete { needed } => Ok(Received::Incomplete { needed }),
        Cut::Oversized { body_bytes, .. } => Err(AnswerError::Oversized(body_bytes)),
        Cut::Frame(frame) => {
            let header = Header::read(frame.form, frame.header)?;
            let frame_bytes = frame.frame_bytes;
            Ok(match header.is_answer() {
                true => Received::Answer { answer: Answer { header, body: frame.body }, frame_bytes },
                false => Received::Request { frame_bytes },
            })
        }
    }
}

/// The bytes of a connection. Its owner moves them, and may have any number of requests on their way.
#[derive(Debug, Default)]
pub struct ClientCore {
    output: Vec<u8>,
    input: Vec<u8>,
    /// Bytes of `input` that were returned as answers.
    taken: usize,
    requests: i32,
}

impl ClientCore {
    /// Appends a request, with a header in JSON. Returns its number.
    pub fn request(&mut self, code: i32, fields: &[(&str, FieldValue<'_>)], body: &[u8]) -> i32 {
        self.request_with(|opaque, output| write_request(code, opaque, fields, body, output))
    }

    /// The same, where `write` appends the request of a number.
    pub fn request_with(&mut self, write: impl FnOnce(i32, &mut Vec<u8>)) -> i32 {
        let opaque = self.requests;
        self.requests = opaque.wrapping_add(1);
        write(opaque, &mut self.output);
        opaque
    }

    /// What is to be sent.
    pub fn outgoing(&self) -> &[u8] {
        &self.output
    }

    /// Says that so many bytes of it were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.output.drain(..bytes);
    }

    pub fn received(&mut self, bytes: &[u8]) {
        self.input.drain(..std::mem::take(&mut self.taken));
        self.input.extend_from_slice(bytes);
    }

    /// Whether the next answer is there.
    pub fn has_answer(&mut self) -> Result<bool, AnswerError> {
        loop {
            match receive(&self.input[self.taken..])? {
                Received::Answer { .. } => return Ok(true),
                Received::Request { frame_bytes } => self.taken += frame_bytes,
                Received::Incomplete { .. } => return Ok(false),
            }
        }
    }

    /// The next whole answer; `None` until more is received.
    pub fn next_answer(&mut self) -> Result<Option<Answer<'_>>, AnswerError> {
        let Self { input, taken, .. } = self;
        let input: &[u8] = input;
        loop {
            match receive(&input[*taken..])? {
                Received::Answer { answer, frame_bytes } => {
                    *taken += frame_bytes;
                    return Ok(Some(answer));
                }
                Received::Request { frame_bytes } => *taken += frame_bytes,
                Received::Incomplete { .. } => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use crate::protocol::remoting::ResponseCode;
    use crate::protocol::remoting::code::request;

    /// What a broker reads of what the client sends.
    fn requests(core: &mut ClientCore) -> Vec<(i32, i32)> {
        let mut found = Vec::new();
        while let Ok(Cut::Frame(frame)) = cut(core.outgoing()) {
            let header = Header::read(frame.form, frame.header).expect("a header");
            found.push((header.code, header.opaque));
            core.sent(frame.frame_bytes);
        }
        found
    }

    fn answer(opaque: i32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Head::answer_to(opaque, ResponseCode::Success).write(HeaderForm::Json, body, &mut bytes);
        bytes
    }

    #[test]
    fn answers_come_in_any_order_and_in_any_pieces() {
        let mut core = ClientCore::default();
        let first = core.request(request::GET_ROUTEINFO_BY_TOPIC, &[("topic", FieldValue::Text("t"))], b"");
        let second = core.request(request::SEND_MESSAGE_V2, &[], b"body");
        assert_eq!(requests(&mut core), [(105, first), (310, second)]);
        let mut from_broker = answer(second, b"two");
        Head::one_way(request::NOTIFY_CONSUMER_IDS_CHANGED, 7).write(HeaderForm::Json, b"", &mut from_broker);
        from_broker.extend_from_slice(&answer(first, b"one"));
        for step in [1, 7, from_broker.len()] {
            let mut found = Vec::new();
            for piece in from_broker.chunks(step) {
                core.received(piece);
                while let Some(answer) = core.next_answer().expect("well formed") {
                    found.push((answer.header.opaque, answer.body.to_vec()));
                }
            }
            assert_eq!(found, [(second, b"two".to_vec()), (first, b"one".to_vec())], "{step} bytes at once");
        }
        assert_eq!(core.next_answer(), Ok(None));
    }

    #[test]
    fn what_is_no_answer_ends_the_connection() {
        let mut core = ClientCore::default();
        core.received(&u32::MAX.to_be_bytes());
        assert!(matches!(core.next_answer(), Err(AnswerError::Frame(_))));
        let mut large = Vec::new();
        let body_bytes = limits::REMOTING_BODY_BYTES_MAX + 1;
        Head::answer_to(0, ResponseCode::Success).begin(HeaderForm::Json, body_bytes, &mut large);
        assert_eq!(receive(&large), Err(AnswerError::Oversized(body_bytes)));
        assert!(matches!(receive(b"\0\0\0\x05\0\0\0\x01["), Err(AnswerError::Header(_))));
    }
}
