//! A send as a client writes it, and what it reads in the answer.

use crate::protocol::remoting::client::{Answer, write_request};
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::fields::{FieldError, FieldValue};
use crate::types::{QueueOffset, Timestamp};

/// A message, or a batch, on its way to a broker; with short names, as the clients for Java write them.
#[derive(Clone, Copy, Debug)]
pub struct SendRequest<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    /// Of the broker that it goes to.
    pub queue: u32,
    /// Queues of that broker, where the send makes the topic.
    pub queues_wished: u32,
    pub born_time: Timestamp,
    pub properties: &'a [u8],
    /// `body` is one of [`InnerMessage`](crate::protocol::remoting::message::InnerMessage)s, back to back.
    pub is_batch: bool,
    pub body: &'a [u8],
}

/// Where the first message of a send was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendReceipt {
    /// Of the broker.
    pub queue: u32,
    pub offset: QueueOffset,
}

impl SendRequest<'_> {
    /// Appends the request of that number.
    pub fn write(&self, opaque: i32, output: &mut Vec<u8>) {
        write_request(self.code(), opaque, &self.fields(), self.body, output);
    }

    pub fn code(&self) -> i32 {
        if self.is_batch { request::SEND_BATCH_MESSAGE } else { request::SEND_MESSAGE_V2 }
    }

    /// What its header says.
    pub fn fields(&self) -> [(&'static str, FieldValue<'_>); 12] {
        [
            ("a", FieldValue::Text(self.group)),
            ("b", FieldValue::Text(self.topic)),
            ("c", FieldValue::Text("TBW102")),
            ("d", FieldValue::Number(self.queues_wished.into())),
            ("e", FieldValue::Number(self.queue.into())),
            ("f", FieldValue::Number(0)),
            ("g", FieldValue::Number(self.born_time.0 as i64)),
            ("h", FieldValue::Number(0)),
            ("i", FieldValue::Bytes(self.properties)),
            ("j", FieldValue::Number(0)),
            ("k", FieldValue::Boolean(false)),
            ("m", FieldValue::Boolean(self.is_batch)),
        ]
    }
}

impl SendReceipt {
    /// Reads the answer to a send that was carried out.
    pub fn read(answer: &Answer<'_>) -> Result<Self, FieldError> {
        let fields = &answer.header.fields;
        Ok(Self {
            queue: fields.required_number("queueId")?,
            offset: QueueOffset(fields.required_number("queueOffset")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Stored;
    use crate::protocol::remoting::call::send::{Messages, Send, Sent};
    use crate::protocol::remoting::client::{Received, receive};
    use crate::protocol::remoting::message::InnerMessage;
    use crate::protocol::remoting::{Cut, Head, Header, HeaderForm, ResponseCode, cut};
    use crate::types::{Level, LogPosition, RecordLocation};

    const REQUEST: SendRequest<'_> = SendRequest {
        group: "producers",
        topic: "orders",
        queue: 3,
        queues_wished: 8,
        born_time: Timestamp(1_700_000_000_000),
        properties: b"KEYS\x01k\x02UNIQ_KEY\x01ID\x02WAIT\x01true\x02",
        is_batch: false,
        body: b"body",
    };

    fn read<T>(request: &SendRequest<'_>, check: impl FnOnce(i32, Send<'_>) -> T) -> T {
        let mut bytes = Vec::new();
        request.write(42, &mut bytes);
        let Ok(Cut::Frame(frame)) = cut(&bytes) else { panic!("a frame") };
        let header = Header::read(frame.form, frame.header).expect("a header");
        assert_eq!(header.opaque, 42);
        let born = ([10, 0, 0, 1], 7).into();
        check(header.code, Send::read(&header, frame.body, born).expect("a send"))
    }

    #[test]
    fn a_broker_reads_what_is_written() {
        read(&REQUEST, |code, send| {
            assert_eq!(code, request::SEND_MESSAGE_V2);
            assert_eq!((send.topic.as_str(), send.queue, send.queues_wished), ("orders", Some(3), Some(8)));
            let Messages::Single(message) = send.messages else { panic!("one message") };
            assert_eq!((message.key, message.body, message.unique_id), (&b"k"[..], &b"body"[..], &b"ID"[..]));
            assert_eq!(message.born_time, REQUEST.born_time);
        });
        let mut body = Vec::new();
        for part in [&b"one"[..], b"two"] {
            InnerMessage { flag: 0, body: part, properties: b"" }.write(&mut body);
        }
        read(&SendRequest { is_batch: true, body: &body, ..REQUEST }, |code, send| {
            assert_eq!(code, request::SEND_BATCH_MESSAGE);
            let Messages::Batch(batch) = send.messages else { panic!("a batch") };
            assert_eq!(batch.view().record_count(), 2);
        });
    }

    #[test]
    fn the_place_is_read_from_the_answer() {
        let stored = Stored {
            offset: QueueOffset(77),
            location: RecordLocation { position: LogPosition(64), index: 0 },
            store_time: Timestamp(1),
            level: Level::Durable,
        };
        let sent = Sent {
            stored,
            message_count: 1,
            queue: 3,
            address: None,
            unique_id: Some("ID"),
            recall_handle: None,
            stages: None,
        };
        let mut bytes = Vec::new();
        sent.write(42, HeaderForm::Json, &mut bytes);
        let Ok(Received::Answer { answer, .. }) = receive(&bytes) else { panic!("an answer") };
        assert_eq!(SendReceipt::read(&answer), Ok(SendReceipt { queue: 3, offset: QueueOffset(77) }));
        let mut refused = Vec::new();
        let head = Head::answer_to(1, ResponseCode::SystemBusy);
        head.write(HeaderForm::Json, b"", &mut refused);
        let Ok(Received::Answer { answer, .. }) = receive(&refused) else { panic!("an answer") };
        assert_eq!(SendReceipt::read(&answer), Err(FieldError("queueId")));
    }
}
