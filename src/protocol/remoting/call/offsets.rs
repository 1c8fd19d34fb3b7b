//! Offsets: where a group is in a queue, and what a queue has. As in `broker/.../processor/ConsumerManageProcessor.java` and
//! `AdminBrokerProcessor.java`.

use crate::protocol::remoting::Fields;
use crate::protocol::remoting::code::ResponseCode;
use crate::protocol::remoting::fields::FieldError;
use crate::protocol::remoting::refusal::Refusal;
use crate::types::Timestamp;

/// A queue by its topic's name, which nobody has checked, and its number to clients, who count those of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueAsked {
    pub topic: String,
    pub queue: i32,
}

/// `QUERY_CONSUMER_OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetQuery {
    pub group: String,
    pub queue: QueueAsked,
    /// A group that has committed nothing may begin with the first message of a queue.
    pub zero_if_new: bool,
}

/// `UPDATE_CONSUMER_OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    pub group: String,
    pub queue: QueueAsked,
    pub offset: u64,
}

/// `SEARCH_OFFSET_BY_TIMESTAMP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeSearch {
    pub queue: QueueAsked,
    pub time: Timestamp,
    pub boundary: Boundary,
}

/// Which message is meant when none was stored at exactly that time (`common/.../BoundaryType.java`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The first one that was stored at that time or after.
    Lower,
    /// The last one that was stored at that time or before.
    Upper,
}

impl QueueAsked {
    pub fn read(fields: &Fields<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            topic: fields.required_text("topic")?.into_owned(),
            queue: fields.required_number("queueId")?,
        })
    }
}

impl OffsetQuery {
    pub fn read(fields: &Fields<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            group: fields.required_text("consumerGroup")?.into_owned(),
            queue: QueueAsked::read(fields)?,
            zero_if_new: fields.optional_boolean("setZeroIfNotFound").unwrap_or(true),
        })
    }
}

impl OffsetCommit {
    pub fn read(fields: &Fields<'_>) -> Result<Self, Refusal> {
        let group = fields.required_text("consumerGroup")?.into_owned();
        let queue = QueueAsked::read(fields)?;
        let invalid = |remark| Refusal::new(ResponseCode::InvalidParameter, remark);
        let Some(offset) = fields.number::<i64>("commitOffset") else {
            return Err(invalid(format!("Offset is null, topic is {}", queue.topic)));
        };
        let offset = u64::try_from(offset)
            .map_err(|_| invalid(format!("offset {offset} of topic {} is below zero", queue.topic)))?;
        Ok(Self { group, queue, offset })
    }
}

impl TimeSearch {
    pub fn read(fields: &Fields<'_>) -> Result<Self, FieldError> {
        let queue = QueueAsked::read(fields)?;
        let time: i64 = fields.required_number("timestamp")?;
        let boundary = match fields.text("boundaryType") {
            Some(boundary) if boundary.eq_ignore_ascii_case("upper") => Boundary::Upper,
            _ => Boundary::Lower,
        };
        // Nothing was stored before 1970.
        Ok(Self { queue, time: Timestamp(u64::try_from(time).unwrap_or(0)), boundary })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::remoting::{FieldValue, Head, Header, HeaderForm, cut};

    fn with_fields<T>(entries: &[(&str, &str)], read: impl FnOnce(&Fields<'_>) -> T) -> T {
        let fields: Vec<_> = entries.iter().map(|(name, value)| (*name, FieldValue::Text(value))).collect();
        let mut bytes = Vec::new();
        Head { fields: &fields, ..Head::default() }.write(HeaderForm::Json, b"", &mut bytes);
        let Ok(crate::protocol::remoting::Cut::Frame(frame)) = cut(&bytes) else { panic!("it is whole") };
        read(&Header::read(frame.form, frame.header).expect("this program wrote it").fields)
    }

    const QUEUE: [(&str, &str); 3] = [("consumerGroup", "g"), ("topic", "t"), ("queueId", "3")];

    #[test]
    fn a_commit_is_of_a_number_that_an_offset_can_be() {
        let commit = |offset: &str| {
            with_fields(&[&QUEUE[..], &[("commitOffset", offset)]].concat(), |fields| {
                OffsetCommit::read(fields).map(|commit| commit.offset).map_err(|refusal| refusal.code)
            })
        };
        assert_eq!((commit("0"), commit("9223372036854775807")), (Ok(0), Ok(i64::MAX as u64)));
        for offset in ["-1", "9223372036854775808", "", "x"] {
            assert_eq!(commit(offset), Err(ResponseCode::InvalidParameter), "{offset}");
        }
        let missing = with_fields(&QUEUE, OffsetCommit::read);
        assert_eq!(missing.expect_err("no offset").remark, "Offset is null, topic is t");
        let nothing = with_fields(&[], OffsetCommit::read);
        assert_eq!(nothing.expect_err("no group").remark, "the custom field <consumerGroup> is null");
    }

    #[test]
    fn searches_say_which_boundary_they_mean() {
        let search =
            |entries: &[(&str, &str)]| with_fields(&[&QUEUE[..], entries].concat(), TimeSearch::read);
        let read = |entries| search(entries).map(|search| (search.time.0, search.boundary));
        assert_eq!(read(&[("timestamp", "17")]), Ok((17, Boundary::Lower)));
        assert_eq!(read(&[("timestamp", "-1"), ("boundaryType", "UPPER")]), Ok((0, Boundary::Upper)));
        assert_eq!(read(&[("timestamp", "1"), ("boundaryType", "upper")]), Ok((1, Boundary::Upper)));
        assert_eq!(read(&[]), Err(FieldError("timestamp")));
    }

    #[test]
    fn a_query_may_ask_what_was_committed_and_nothing_else() {
        let query = |entries: &[(&str, &str)]| {
            let read = |fields: &Fields<'_>| OffsetQuery::read(fields).expect("whole").zero_if_new;
            with_fields(&[&QUEUE[..], entries].concat(), read)
        };
        assert!(query(&[]) && query(&[("setZeroIfNotFound", "true")]) && query(&[("setZeroIfNotFound", "")]));
        assert!(!query(&[("setZeroIfNotFound", "false")]));
    }
}
