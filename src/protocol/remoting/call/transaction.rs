//! The end of a transaction: `END_TRANSACTION` (`remoting/.../header/EndTransactionRequestHeader.java`,
//! `broker/.../processor/EndTransactionProcessor.java`).

use crate::api::Decision;
use crate::protocol::remoting::Fields;
use crate::protocol::remoting::code::ResponseCode;
use crate::protocol::remoting::refusal::Refusal;
use crate::types::RecordLocation;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
