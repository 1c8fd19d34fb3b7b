//! `RECALL_MESSAGE`: a producer takes back what is to be delivered later
//! (`broker/.../processor/RecallMessageProcessor.java`). The handle is what its send was answered with; clients read in it which
//! broker to ask (`common/.../producer/RecallMessageHandle.java`).
//!
//! ```text
//! base64, with an alphabet for addresses, of words with a blank between them:
//! v1, topic, broker, time of the delivery in milliseconds, unique id; and here the place where the message waits
//! ```
//!
//! A unique id may have blanks, of which RocketMQ's brokers do not know: they take its first word for it. Here a blank in it is
//! written `%20`, and `%` is `%25`. What a handle of this broker's would not have been written as is none.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

use crate::protocol::remoting::Fields;
use crate::protocol::remoting::code::ResponseCode;
use crate::protocol::remoting::refusal::Refusal;
use crate::types::{LogPosition, Timestamp, TopicName};

const VERSION: &str = "v1";

/// What a handle says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallHandle<'a> {
    pub topic: &'a str,
    pub broker: &'a str,
    pub due: Timestamp,
    pub unique_id: &'a str,
    /// `None` in the handle of another broker.
    pub position: Option<LogPosition>,
}

/// A message that is to be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallRequest {
    pub topic: TopicName,
    pub broker: String,
    pub due: Timestamp,
    pub unique_id: String,
    pub position: Option<LogPosition>,
}

pub fn illegal(what: &str) -> Refusal {
    Refusal::new(ResponseCode::IllegalOperation, format!("recall failed, {what}"))
}

impl RecallHandle<'_> {
    pub fn text(&self) -> String {
        let Self { topic, broker, due, unique_id, position } = self;
        let position = position.map(|position| format!(" {position}")).unwrap_or_default();
        let unique_id = unique_id.replace('%', "%25").replace(' ', "%20");
        URL_SAFE.encode(format!("{VERSION} {topic} {broker} {due} {unique_id}{position}"))
    }
}

impl RecallRequest {
    pub fn read(fields: &Fields<'_>) -> Result<Self, Refusal> {
        let topic = fields.required_text("topic")?;
        let handle = fields.text("recallHandle").unwrap_or_default();
        let topic: TopicName = topic
            .parse()
            .map_err(|error| Refusal::new(ResponseCode::TopicNotExist, format!("recall failed, {error}")))?;
        let invalid = || Refusal::new(ResponseCode::IllegalOperation, "recall handle is invalid");
        let bytes = URL_SAFE_NO_PAD.decode(handle.trim_end_matches('=')).map_err(|_| invalid())?;
        let text = String::from_utf8(bytes).map_err(|_| invalid())?;
        let words: Vec<_> = text.split(' ').collect();
        let [VERSION, named, broker, due, unique_id, more @ ..] = &words[..] else { return Err(invalid()) };
        let position = match more {
            [] => None,
            [position] => Some(LogPosition(position.parse().map_err(|_| invalid())?)),
            _ => return Err(invalid()),
        };
        if *named != topic.as_str() {
            return Err(illegal("topic not match"));
        }
        let due = Timestamp(due.parse().map_err(|_| illegal("timestamp invalid"))?);
        let unique_id = unique_id.replace("%20", " ").replace("%25", "%");
        let meant = RecallHandle { topic: named, broker, due, unique_id: &unique_id, position };
        if position.is_some() && meant.text().trim_end_matches('=') != handle.trim_end_matches('=') {
            return Err(invalid());
        }
        Ok(Self { broker: (*broker).to_owned(), due, unique_id, position, topic })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(topic: &'static str, handle: String) -> Result<RecallRequest, (i32, String)> {
        let mut fields = Fields::default();
        fields.push(b"topic".as_slice().into(), topic.as_bytes().into());
        fields.push(b"recallHandle".as_slice().into(), handle.into_bytes().into());
        RecallRequest::read(&fields).map_err(|refusal| (refusal.code.number(), refusal.remark))
    }

    #[test]
    fn handles_come_back_as_they_were_given_and_those_of_apaches_brokers_are_read() {
        let handle = RecallHandle {
            topic: "orders",
            broker: "n-0",
            due: Timestamp(1_796_036_827_001),
            unique_id: "U2",
            position: Some(LogPosition(4096)),
        };
        let request = read("orders", handle.text()).expect("a handle");
        assert_eq!((request.due, request.position), (handle.due, handle.position));
        assert_eq!((&*request.broker, &*request.unique_id), ("n-0", "U2"));
        let theirs = "djEgb3JkZXJzMTc5NjAzNjgyNCB0aGVpcnMgMTc5NjAzNjgyNzAwMSBVMg==";
        let request = read("orders1796036824", theirs.to_owned()).expect("a handle");
        assert_eq!((&*request.broker, request.position), ("theirs", None));
        assert_eq!(
            RecallHandle { topic: "orders1796036824", broker: "theirs", position: None, ..handle }.text(),
            theirs
        );
    }

    #[test]
    fn a_unique_id_of_any_characters_comes_back() {
        for unique_id in ["a b", " a  b ", "100%", "%20", "a%2520b", "\u{e4}\n", ""] {
            let position = Some(LogPosition(4096));
            let handle = RecallHandle { topic: "t", broker: "n-0", due: Timestamp(7), unique_id, position };
            let request = read("t", handle.text()).expect("a handle");
            assert_eq!((&*request.unique_id, request.position), (unique_id, position));
        }
    }

    #[test]
    fn what_is_no_handle_is_refused() {
        let of = |text: &str| URL_SAFE.encode(text);
        for handle in
            ["".to_owned(), "*".to_owned(), of("v2 t n-0 1 U"), of("v1 t n-0 1"), of("")].into_iter().chain(
                [
                    "v1 t n-0 1 U 4096 7",
                    "v1 t n-0 1 U 4096 ",
                    "v1 t n-0 1 U soon",
                    "v1 t n-0 1 U +4096",
                    "v1 t n-0 01 U 4096",
                    "v1 t n-0 1 U 04096",
                    "v1 t n-0 1 %41% 4096",
                    "v1 t n-0 1 a b",
                ]
                .map(of),
            )
        {
            assert_eq!(
                read("t", handle).expect_err("no handle"),
                (604, "recall handle is invalid".to_owned())
            );
        }
        assert_eq!(read("t", of("v1 other n-0 1 U")).expect_err("another topic").0, 604);
        assert_eq!(read("t", of("v1 t n-0 soon U")).expect_err("no time").0, 604);
        assert_eq!(read("a b", of("v1 t n-0 1 U")).expect_err("no topic").0, 17);
    }
}
