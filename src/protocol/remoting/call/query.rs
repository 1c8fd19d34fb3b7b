//! Look-ups: `QUERY_MESSAGE` by a key, and `VIEW_MESSAGE_BY_ID` by a place, of what one broker has
//! (`broker/.../processor/QueryMessageProcessor.java`).

use crate::limits;
use crate::protocol::remoting::Fields;
use crate::protocol::remoting::code::ResponseCode;
use crate::protocol::remoting::fields::FieldError;
use crate::protocol::remoting::refusal::Refusal;
use crate::types::{RecordLocation, Timestamp};

/// As many messages are given for an id that the producer gave, whatever was asked for: RocketMQ's `defaultQueryMaxNum`.
const UNIQUE_COUNT: u32 = 32;

/// Messages of a topic by one of their keys, or by the id that their producer gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageQuery {
    /// Nobody has checked that there is such a topic.
    pub topic: String,
    pub key: String,
    /// At most `limits::FIND_MESSAGES_MAX`.
    pub count: u32,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// A message by its place in the log of the broker that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageView {
    pub offset: i64,
}

impl MessageQuery {
    pub fn read(fields: &Fields<'_>) -> Result<Self, Refusal> {
        let text = |name| fields.text(name).unwrap_or_default().into_owned();
        let count: i32 = fields.required_number("maxNum")?;
        let time =
            |name| fields.required_number(name).map(|ms: i64| Timestamp(u64::try_from(ms).unwrap_or(0)));
        let (from, to) = (time("beginTimestamp")?, time("endTimestamp")?);
        let Ok(count) = u32::try_from(count) else {
            return Err(Refusal::new(ResponseCode::SystemError, format!("maxNum is {count}, below zero")));
        };
        // Keys and ids are one index; that of tags is something else.
        if fields.text("indexType").is_some_and(|kind| kind == "T") {
            return Err(Refusal::unsupported("looking messages up by their tag"));
        }
        let count = if fields.boolean("_UNIQUE_KEY_QUERY") { UNIQUE_COUNT } else { count };
        let count = count.min(limits::FIND_MESSAGES_MAX);
        Ok(Self { topic: text("topic"), key: text("key"), count, from, to })
    }

    /// That there is no such message here.
    pub fn not_found(is_complete: bool) -> Refusal {
        let doubt = match is_complete {
            true => "",
            false => "; not everything that is stored could be looked through",
        };
        let remark = format!("can not find message, maybe time range not correct{doubt}");
        Refusal::new(ResponseCode::QueryNotFound, remark)
    }
}

impl MessageView {
    pub fn read(fields: &Fields<'_>) -> Result<Self, FieldError> {
        Ok(Self { offset: fields.required_number("offset")? })
    }

    pub fn location(self) -> Option<RecordLocation> {
        RecordLocation::of_physical_offset(self.offset)
    }

    pub fn not_found(self) -> Refusal {
        let remark = format!("can not find message by the offset, {}", self.offset);
        Refusal::new(ResponseCode::SystemError, remark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::remoting::fields::FieldValue;
    use crate::protocol::remoting::{Cut, Head, Header, HeaderForm, cut};

    fn read<T>(fields: &[(&str, &str)], body: impl FnOnce(&Fields<'_>) -> T) -> T {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, FieldValue::Text(value))).collect();
        let mut bytes = Vec::new();
        Head { fields: &fields, ..Head::default() }.write(HeaderForm::Json, b"", &mut bytes);
        let Ok(Cut::Frame(frame)) = cut(&bytes) else { panic!("a frame") };
        body(&Header::read(frame.form, frame.header).expect("a header").fields)
    }

    const ASKED: [(&str, &str); 5] =
        [("topic", "t"), ("key", "k"), ("maxNum", "7"), ("beginTimestamp", "-5"), ("endTimestamp", "9")];

    fn query(more: &[(&str, &str)]) -> Result<MessageQuery, Refusal> {
        read(&[&ASKED[..], more].concat(), MessageQuery::read)
    }

    #[test]
    fn a_query_is_of_a_key_and_a_time() {
        let expected = MessageQuery {
            topic: "t".to_owned(),
            key: "k".to_owned(),
            count: 7,
            from: Timestamp(0),
            to: Timestamp(9),
        };
        assert_eq!(query(&[]), Ok(expected.clone()));
        assert_eq!(
            query(&[("_UNIQUE_KEY_QUERY", "true")]),
            Ok(MessageQuery { count: 32, ..expected.clone() })
        );
        assert_eq!(query(&[("_UNIQUE_KEY_QUERY", "false"), ("indexType", "K")]), Ok(expected.clone()));
        let most = limits::FIND_MESSAGES_MAX;
        assert_eq!(query(&[("maxNum", "2147483647")]), Ok(MessageQuery { count: most, ..expected }));
    }

    #[test]
    fn what_a_query_needs_is_asked_for() {
        for missing in 2..ASKED.len() {
            let mut fields = ASKED.to_vec();
            let (name, _) = fields.remove(missing);
            let refusal = read(&fields, MessageQuery::read).expect_err("a refusal");
            assert_eq!(refusal.code, ResponseCode::SystemError);
            assert!(refusal.remark.contains(name), "{}", refusal.remark);
        }
        assert!(query(&[("maxNum", "-1")]).is_err_and(|refusal| refusal.code == ResponseCode::SystemError));
        let by_tag = query(&[("indexType", "T")]).expect_err("a refusal");
        assert_eq!(by_tag.code, ResponseCode::RequestCodeNotSupported);
        assert!(MessageQuery::not_found(false).remark.contains("not everything"));
    }

    #[test]
    fn a_view_is_of_a_place() {
        let view = |offset| read(&[("offset", offset)], MessageView::read);
        let view_of = |offset| view(offset).expect("a view").location();
        assert_eq!(view_of("-1"), None);
        assert_eq!(view_of("65537").map(|location| (location.position.0, location.index)), Some((8, 1)));
        assert!(view("x").is_err() && read(&[], MessageView::read).is_err());
        assert!(MessageView { offset: 7 }.not_found().remark.ends_with(", 7"));
    }
}
