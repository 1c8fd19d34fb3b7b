//! A pull as a client writes it, and what it reads in the answer ahead of the messages.

use crate::protocol::remoting::client::{Answer, write_request};
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::fields::{FieldError, FieldValue};
use crate::types::QueueOffset;

/// In the system flag: the pull brings its subscription, so that nobody has to have told of the group before.
const SUBSCRIBES: i64 = 1 << 2;

/// A pull of messages from an offset on, which is answered at once.
#[derive(Clone, Copy, Debug)]
pub struct PullCall<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    /// Of the broker that it goes to.
    pub queue: u32,
    pub offset: QueueOffset,
    /// At most so many.
    pub messages: u32,
    /// Those that are asked for, with `||` between them; `*` for all messages.
    pub tags: &'a str,
}

/// Where a queue is read on, and where it begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullPlace {
    pub next: QueueOffset,
    pub first: QueueOffset,
    pub end: QueueOffset,
}

impl PullCall<'_> {
    /// Appends the request of that number.
    pub fn write(&self, opaque: i32, output: &mut Vec<u8>) {
        write_request(request::PULL_MESSAGE, opaque, &self.fields(), b"", output);
    }

    /// What its header says.
    pub fn fields(&self) -> [(&'static str, FieldValue<'_>); 11] {
        [
            ("consumerGroup", FieldValue::Text(self.group)),
            ("topic", FieldValue::Text(self.topic)),
            ("queueId", FieldValue::Number(self.queue.into())),
            ("queueOffset", FieldValue::Number(self.offset.0 as i64)),
            ("maxMsgNums", FieldValue::Number(self.messages.into())),
            ("sysFlag", FieldValue::Number(SUBSCRIBES)),
            ("commitOffset", FieldValue::Number(0)),
            ("suspendTimeoutMillis", FieldValue::Number(0)),
            ("subscription", FieldValue::Text(self.tags)),
            ("subVersion", FieldValue::Number(0)),
            ("expressionType", FieldValue::Text("TAG")),
        ]
    }
}

impl PullPlace {
    /// Reads the answer to a pull, whether it has messages or not.
    pub fn read(answer: &Answer<'_>) -> Result<Self, FieldError> {
        let fields = &answer.header.fields;
        let offset = |name| fields.required_number(name).map(QueueOffset);
        Ok(Self { next: offset("nextBeginOffset")?, first: offset("minOffset")?, end: offset("maxOffset")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::remoting::ResponseCode;
    use crate::protocol::remoting::client::{Received, receive};
    use crate::protocol::remoting::{Cut, Head, Header, HeaderForm, cut};

    #[test]
    fn a_pull_has_all_that_brokers_ask_for() {
        let mut bytes = Vec::new();
        let call =
            PullCall { group: "g", topic: "t", queue: 3, offset: QueueOffset(70), messages: 32, tags: "*" };
        call.write(42, &mut bytes);
        let Ok(Cut::Frame(frame)) = cut(&bytes) else { panic!("a frame") };
        let header = Header::read(frame.form, frame.header).expect("a header");
        assert_eq!((header.code, header.opaque), (request::PULL_MESSAGE, 42));
        for (name, value) in [("queueId", 3), ("queueOffset", 70), ("maxMsgNums", 32), ("sysFlag", 4)] {
            assert_eq!(header.fields.number(name), Some(value), "{name}");
        }
    }

    #[test]
    fn the_place_is_read_from_the_answer() {
        let fields = ["nextBeginOffset", "minOffset", "maxOffset"]
            .map(|name| (name, FieldValue::Number(name.len() as i64)));
        for (count, expected) in [(3, Ok([15, 9, 9])), (2, Err(FieldError("maxOffset")))] {
            let head = Head { fields: &fields[..count], ..Head::answer_to(1, ResponseCode::PullNotFound) };
            let mut bytes = Vec::new();
            head.write(HeaderForm::Json, b"", &mut bytes);
            let Ok(Received::Answer { answer, .. }) = receive(&bytes) else { panic!("an answer") };
            let read = PullPlace::read(&answer).map(|place| [place.next.0, place.first.0, place.end.0]);
            assert_eq!(read, expected);
        }
    }
}
