//! The end of a transaction: `END_TRANSACTION` (`remoting/.../header/EndTransactionRequestHeader.java`,
//! `broker/.../processor/EndTransactionProcessor.java`), and the question about it, `CHECK_TRANSACTION_STATE`
//! (`CheckTransactionStateRequestHeader.java`).

use std::net::SocketAddr;

use crate::api::Decision;
use crate::protocol::remoting::Fields;
use crate::protocol::remoting::code::ResponseCode;
use crate::protocol::remoting::refusal::Refusal;
use crate::types::{OffsetMessageId, RecordLocation, ShardId};

/// A producer's word about a half message, which it names by what it was answered when it sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndRequest {
    /// Empty when it is not said.
    pub group: String,
    /// In RocketMQ the half's offset in a queue of halves; here the number of the shard that has it.
    pub shard: i64,
    /// `None`: a place that there is none of.
    pub location: Option<RecordLocation>,
    /// `None`: the producer does not know yet.
    pub decision: Option<Decision>,
    /// The producer was asked.
    pub is_asked: bool,
}

impl EndRequest {
    pub fn read(fields: &Fields<'_>) -> Result<Self, Refusal> {
        let group = fields.text("producerGroup").unwrap_or_default().into_owned();
        let shard = fields.required_number("tranStateTableOffset")?;
        let place = fields.required_number("commitLogOffset")?;
        let decision = match fields.required_number::<i32>("commitOrRollback")? {
            0 => None,
            8 => Some(Decision::Commit),
            12 => Some(Decision::Rollback),
            _ => return Err(Refusal::new(ResponseCode::SystemError, "commitOrRollback field wrong")),
        };
        let location = RecordLocation::of_physical_offset(place);
        Ok(Self { group, shard, location, decision, is_asked: fields.boolean("fromTransactionCheck") })
    }
}

/// The question to a producer what becomes of a half, whose record is the body.
#[derive(Clone, Copy, Debug)]
pub struct CheckRequest<'a> {
    /// The shard that has the half, as a broker.
    pub shard: ShardId,
    pub broker: &'a str,
    /// What clients reach it at; `None`: it cannot be told.
    pub address: Option<SocketAddr>,
    pub topic: &'a str,
    pub location: RecordLocation,
    pub unique_id: &'a str,
}

impl CheckRequest<'_> {
    /// A producer returns the first two with its answer.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let id = self.address.and_then(|address| OffsetMessageId::of_location(address, self.location));
        let fields = [
            ("tranStateTableOffset", self.shard.0.to_string()),
            ("commitLogOffset", self.location.physical_offset().to_string()),
            ("msgId", self.unique_id.to_owned()),
            ("transactionId", self.unique_id.to_owned()),
            ("offsetMsgId", id.map(|id| id.text().to_string()).unwrap_or_default()),
            ("topic", self.topic.to_owned()),
            ("bname", self.broker.to_owned()),
        ];
        fields.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogPosition;

    fn read(changes: &[(&'static str, Option<&'static str>)]) -> Result<EndRequest, String> {
        let usual = [
            ("producerGroup", "producers"),
            ("tranStateTableOffset", "3"),
            ("commitLogOffset", "131072"),
            ("commitOrRollback", "8"),
        ];
        let mut fields = Fields::default();
        for (name, value) in usual {
            let change = changes.iter().find(|(changed, _)| *changed == name);
            if let Some(value) = change.map_or(Some(value), |(_, value)| *value) {
                fields.push(name.as_bytes().into(), value.as_bytes().into());
            }
        }
        let more = changes.iter().filter(|(name, _)| usual.iter().all(|(usual, _)| usual != name));
        for (name, value) in more {
            fields.push(name.as_bytes().into(), value.unwrap_or_default().as_bytes().into());
        }
        EndRequest::read(&fields).map_err(|refusal| refusal.remark)
    }

    #[test]
    fn a_decision_names_a_shard_and_a_place() {
        let end = read(&[]).expect("it is complete");
        assert_eq!((end.group.as_str(), end.shard, end.is_asked), ("producers", 3, false));
        let location = end.location.expect("a place");
        assert_eq!((location.position.0, location.index), (16, 0));
        let decision = |text| read(&[("commitOrRollback", Some(text))]).map(|end| end.decision);
        assert_eq!(decision("0"), Ok(None));
        assert_eq!(decision("8"), Ok(Some(Decision::Commit)));
        assert_eq!(decision("12"), Ok(Some(Decision::Rollback)));
        assert_eq!(decision("4"), Err("commitOrRollback field wrong".to_owned()));
        for text in ["1", "true"] {
            assert!(read(&[("fromTransactionCheck", Some(text))]).expect("it is complete").is_asked);
        }
        assert_eq!(read(&[("commitLogOffset", Some("-1"))]).expect("it is complete").location, None);
    }

    #[test]
    fn what_is_missing_is_named() {
        for name in ["tranStateTableOffset", "commitLogOffset", "commitOrRollback"] {
            assert_eq!(read(&[(name, None)]), Err(format!("the custom field <{name}> is null")));
        }
        assert!(read(&[("commitLogOffset", Some("here"))]).is_err());
        assert_eq!(read(&[("producerGroup", None)]).expect("nobody's").group, "");
    }

    #[test]
    fn what_a_producer_is_asked_by_names_the_half() {
        let check = CheckRequest {
            shard: ShardId(3),
            broker: "n-3",
            address: Some(([127, 0, 0, 1], 10_941).into()),
            topic: "orders",
            location: RecordLocation { position: LogPosition(16), index: 0 },
            unique_id: "ID",
        };
        let asked = check.fields();
        let mut fields = Fields::default();
        for (name, value) in asked.iter().filter(|(name, _)| *name != "msgId") {
            fields.push(name.as_bytes().into(), value.as_bytes().into());
        }
        for (name, value) in [("commitOrRollback", "8"), ("producerGroup", "pg")] {
            fields.push(name.as_bytes().into(), value.as_bytes().into());
        }
        let end = EndRequest::read(&fields).expect("the answer");
        assert_eq!((end.shard, end.location), (3, Some(check.location)));
        let id = fields.text("offsetMsgId").expect("an id");
        assert_eq!(id, "7F00000100002ABD0000000000020000");
        assert_eq!(
            (fields.text("transactionId").as_deref(), fields.text("bname").as_deref()),
            (Some("ID"), Some("n-3"))
        );
        assert!(CheckRequest { address: None, ..check }.fields().contains(&("offsetMsgId", String::new())));
    }
}
