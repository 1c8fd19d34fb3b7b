//! `CONSUMER_SEND_MSG_BACK`: a message that a consumer could not process (`remoting/.../header/ConsumerSendMsgBackRequestHeader.java`).

use crate::protocol::remoting::Fields;
use crate::protocol::remoting::code::ResponseCode;
use crate::protocol::remoting::consumer_group;
use crate::protocol::remoting::refusal::Refusal;
use crate::types::{GroupName, RecordLocation};

/// A message by its place, and what is to become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentBack {
    pub group: GroupName,
    /// Of the broker that is asked, as the message's id has it.
    pub physical_offset: i64,
    /// Below zero: it is a dead letter. Zero: by how often it was delivered. A level otherwise.
    pub level: i32,
    pub retries_max: Option<i64>,
}

impl SentBack {
    pub fn read(fields: &Fields<'_>) -> Result<Self, Refusal> {
        let group = fields.required_text("group")?;
        let group = consumer_group(&group).map_err(|error| {
            let remark = format!("subscription group not exist, {group} {error}");
            Refusal::new(ResponseCode::SubscriptionGroupNotExist, remark)
        })?;
        Ok(Self {
            group,
            physical_offset: fields.required_number("offset")?,
            level: fields.required_number("delayLevel")?,
            retries_max: fields.number("maxReconsumeTimes"),
        })
    }

    /// The lowest place that it may mean.
    pub fn location(&self) -> Option<RecordLocation> {
        RecordLocation::of_physical_offset(self.physical_offset)
    }

    /// In RocketMQ's words.
    pub fn not_found(&self) -> Refusal {
        let remark = format!("look message by offset failed, {}", self.physical_offset);
        Refusal::new(ResponseCode::SystemError, remark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(entries: &[(&'static str, &'static str)]) -> Fields<'static> {
        let mut fields = Fields::default();
        for (name, value) in entries {
            fields.push(name.as_bytes().into(), value.as_bytes().into());
        }
        fields
    }

    #[test]
    fn what_every_client_sends_is_understood() {
        // The one for C++ says no more than it has to.
        let few = SentBack::read(&fields(&[("group", "g"), ("offset", "131073"), ("delayLevel", "0")]));
        let few = few.expect("a message sent back");
        assert_eq!((few.level, few.retries_max), (0, None));
        let location = few.location().expect("a place");
        assert_eq!((location.position.0, location.index), (16, 1));
        let all = [
            ("group", "g"),
            ("offset", "-1"),
            ("delayLevel", "-1"),
            ("originMsgId", "id"),
            ("originTopic", "orders"),
            ("unitMode", "false"),
            ("maxReconsumeTimes", "2"),
        ];
        let all = SentBack::read(&fields(&all)).expect("a message sent back");
        assert_eq!((all.level, all.retries_max, all.location()), (-1, Some(2), None));
    }

    #[test]
    fn what_is_missing_or_wrong_is_refused() {
        let code = |entries: &[(&'static str, &'static str)]| {
            SentBack::read(&fields(entries)).map_err(|refusal| refusal.code.number())
        };
        assert_eq!(code(&[("group", "g"), ("offset", "1")]), Err(1));
        assert_eq!(code(&[("group", "g"), ("delayLevel", "1")]), Err(1));
        assert_eq!(code(&[("offset", "1"), ("delayLevel", "1")]), Err(1));
        assert_eq!(code(&[("group", ""), ("offset", "1"), ("delayLevel", "1")]), Err(26));
        let long: &'static str = "g".repeat(121).leak();
        assert_eq!(code(&[("group", long), ("offset", "1"), ("delayLevel", "1")]), Err(26));
        assert!(code(&[("group", &long[1..]), ("offset", "1"), ("delayLevel", "1")]).is_ok());
    }
}
