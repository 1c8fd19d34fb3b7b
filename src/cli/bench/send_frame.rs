//! Pre-encoded sends of RocketMQ's protocol: a request is written once per queue, and every send changes only what differs.
//! All of that has the same width whatever it says, so it is stamped in place.
//!
//! A message is as RocketMQ's clients send it: with an id of its own (`UNIQ_KEY`) and the wish to wait (`WAIT`), its header in
//! JSON.

use crate::cli::bench::batch_frame::{BatchShape, Stamp};
use crate::cli::bench::message::{Head, RunId, StreamId, blank_body, stamp};
use crate::protocol::remoting::call::send::SendRequest;
use crate::protocol::remoting::message::InnerMessage;
use crate::types::Timestamp;

/// Numbers of requests stand between this one and `i32::MAX`: all have ten digits.
pub const NUMBERS_FIRST: i32 = 1_000_000_000;
/// So many are there before the first one is used again.
pub const NUMBERS: u64 = 1_000_000_000;

/// What is looked for, to be stamped later: no other part of a request says the same.
const BLANK_NUMBER: i32 = i32::MAX;
/// Thirteen digits, as all times have until the year 2286.
const BLANK_TIME: u64 = 9_876_543_210_123;
const BLANK_ID: &[u8; ID_BYTES] = b"0123456789ABCDEFFEDCBA9876543210";
/// Hexadecimal digits of an id.
const ID_BYTES: usize = 32;

/// Who sends to which queue of a broker.
#[derive(Clone, Copy, Debug)]
pub struct SendTarget<'a> {
    pub topic: &'a str,
    /// Of the broker.
    pub queue: u32,
    /// Where the send makes the topic.
    pub queues_wished: u32,
}

/// Sends of one stream to one queue.
pub struct SendFrame {
    run: RunId,
    stream: StreamId,
    bytes: Vec<u8>,
    number_at: usize,
    time_at: usize,
    /// Of each message: where its id stands, and its body.
    messages: Vec<[usize; 2]>,
    body_bytes: usize,
}

impl SendFrame {
    pub fn new(run: RunId, stream: StreamId, shape: BatchShape, target: SendTarget<'_>) -> Self {
        let properties = [b"UNIQ_KEY\x01", &BLANK_ID[..], b"\x02WAIT\x01true\x02"].concat();
        let message = blank_body(run, shape.body_bytes);
        let is_batch = shape.batch_messages > 1;
        let mut batch = Vec::new();
        for _ in 0..shape.batch_messages {
            InnerMessage { flag: 0, body: &message, properties: &properties }.write(&mut batch);
        }
        let mut bytes = Vec::new();
        let request = SendRequest {
            group: "turbopump-bench",
            topic: target.topic,
            queue: target.queue,
            queues_wished: target.queues_wished,
            born_time: Timestamp(BLANK_TIME),
            // A batch's messages have their own.
            properties: if is_batch { b"WAIT\x01true\x02" } else { &properties },
            is_batch,
            body: if is_batch { &batch } else { &message },
        };
        request.write(BLANK_NUMBER, &mut bytes);
        let number_at = place(&bytes, BLANK_NUMBER.to_string().as_bytes());
        let time_at = place(&bytes, BLANK_TIME.to_string().as_bytes());
        let ids = places(&bytes, BLANK_ID);
        let bodies = places(&bytes, &message);
        assert_eq!(ids.len(), shape.batch_messages as usize, "each message has an id");
        assert_eq!(bodies.len(), ids.len(), "each message has a body");
        let messages = ids.into_iter().zip(bodies).map(|(id, body)| [id, body]).collect();
        Self { run, stream, bytes, number_at, time_at, messages, body_bytes: shape.body_bytes }
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the next request. Its number follows from the stamp's correlation.
    pub fn write(&mut self, stamped: Stamp, output: &mut Vec<u8>) {
        let number = u64::from(NUMBERS_FIRST.unsigned_abs()) + stamped.correlation % NUMBERS;
        put_decimal(&mut self.bytes[self.number_at..][..10], number);
        put_decimal(&mut self.bytes[self.time_at..][..13], stamped.born_time.0);
        let mut head =
            Head { run: self.run, stream: self.stream, sequence: stamped.sequence, due_ns: stamped.due_ns };
        for [id, body] in &self.messages {
            put_id(&mut self.bytes[*id..][..ID_BYTES], &head);
            stamp(&mut self.bytes[*body..][..self.body_bytes], &head);
            head.sequence += 1;
        }
        output.extend_from_slice(&self.bytes);
    }
}

/// Where `wanted` stands, which it does once.
fn place(bytes: &[u8], wanted: &[u8]) -> usize {
    let found = places(bytes, wanted);
    assert_eq!(found.len(), 1, "a request says {:?} once", String::from_utf8_lossy(wanted));
    found[0]
}

fn places(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(window) = bytes.get(at..at + wanted.len()) {
        let is_it = window == wanted;
        found.extend(is_it.then_some(at));
        at += if is_it { wanted.len() } else { 1 };
    }
    found
}

/// Fills `digits`; a longer number loses its first ones.
fn put_decimal(digits: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// An id that no other message has: run, stream and sequence.
fn put_id(id: &mut [u8], head: &Head) {
    let number = u128::from(head.run.0) << 96 | u128::from(head.stream.0) << 64 | u128::from(head.sequence);
    for (index, digit) in id.iter_mut().enumerate() {
        let nibble = (number >> (124 - 4 * index)) as usize & 15;
        *digit = b"0123456789ABCDEF"[nibble];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::message::{FillerCheck, Reading};
    use crate::protocol::remoting::code::request;
    use crate::protocol::remoting::message::InnerMessages;
    use crate::protocol::remoting::{Cut, Header, cut};

    #[test]
    fn every_stamped_frame_is_a_send_of_its_own() {
        let target = SendTarget { topic: "orders", queue: 3, queues_wished: 4 };
        for (batch_messages, code) in [(1, request::SEND_MESSAGE_V2), (5, request::SEND_BATCH_MESSAGE)] {
            let shape = BatchShape { body_bytes: 100, batch_messages };
            let mut frame = SendFrame::new(RunId(9), StreamId(2), shape, target);
            let mut output = Vec::new();
            for correlation in [0, 7, NUMBERS + 8] {
                output.clear();
                let stamped = Stamp {
                    correlation,
                    sequence: correlation * 5,
                    due_ns: 77,
                    born_time: Timestamp(1_700_000_000_001),
                };
                frame.write(stamped, &mut output);
                let Ok(Cut::Frame(cut)) = cut(&output) else { panic!("a frame") };
                assert_eq!((cut.frame_bytes, output.len()), (frame.bytes(), frame.bytes()));
                let header = Header::read(cut.form, cut.header).expect("a header");
                assert_eq!(
                    (header.code, header.opaque),
                    (code, NUMBERS_FIRST + (correlation % NUMBERS) as i32)
                );
                assert_eq!(header.fields.number("g"), Some(1_700_000_000_001_u64));
                assert_eq!(header.fields.number("e"), Some(3));
                let of_header = header.fields.bytes("i").expect("properties");
                let bodies: Vec<_> = match batch_messages {
                    1 => vec![(cut.body, of_header)],
                    _ => InnerMessages::new(cut.body)
                        .map(|inner| inner.expect("whole"))
                        .map(|inner| (inner.body, inner.properties))
                        .collect(),
                };
                assert_eq!(bodies.len(), batch_messages as usize);
                for (number, (body, properties)) in bodies.into_iter().enumerate() {
                    let sequence = correlation * 5 + number as u64;
                    let head = Head { run: RunId(9), stream: StreamId(2), sequence, due_ns: 77 };
                    assert_eq!(FillerCheck::default().read(body), Reading::Message(head));
                    let id = format!("UNIQ_KEY\x01{:08X}{:08X}{sequence:016X}\x02WAIT\x01true\x02", 9, 2);
                    assert_eq!(properties, id.as_bytes());
                }
            }
        }
    }
}
