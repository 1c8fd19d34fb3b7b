//! What brokers ask consumers when tools want to know: `GET_CONSUMER_RUNNING_INFO`, `GET_CONSUMER_STATUS_FROM_CLIENT` and
//! `CONSUME_MESSAGE_DIRECTLY` (`broker/.../processor/AdminBrokerProcessor.java`, `callConsumer`;
//! `client/.../impl/ClientRemotingProcessor.java`).

use crate::api::ClientQuestion;
use crate::protocol::remoting::Fields;
use crate::protocol::remoting::code::{ResponseCode, request};
use crate::protocol::remoting::fields::FieldError;
use crate::protocol::remoting::refusal::Refusal;
use crate::types::{OffsetMessageId, RecordLocation};

/// Clients below this version (3.1.8, see `common/.../MQVersion.java`) do not understand what they are asked.
const ANSWERS_FROM: i32 = 62;

/// Whom a tool has asked, and as one of which group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consulted {
    pub group: String,
    pub client: String,
}

impl Consulted {
    pub fn read(fields: &Fields<'_>) -> Result<Self, FieldError> {
        let text = |name| fields.required_text(name).map(|text| text.into_owned());
        Ok(Self { group: text("consumerGroup")?, client: text("clientId")? })
    }

    // In RocketMQ's words.

    pub fn not_online(&self) -> Refusal {
        let remark = format!("The Consumer <{}> <{}> not online", self.group, self.client);
        Refusal::new(ResponseCode::SystemError, remark)
    }

    pub fn late(&self) -> Refusal {
        let remark = format!("consumer <{}> <{}> Timeout: it has not answered", self.group, self.client);
        Refusal::new(ResponseCode::ConsumeMessageTimeout, remark)
    }

    /// Refuses a client that is too old to be asked.
    pub fn check_version(&self, version: i32) -> Result<(), Refusal> {
        if answers(version) {
            return Ok(());
        }
        let remark = format!(
            "The Consumer <{}> Version <{version}> too low to finish, please upgrade it to V3_1_8_SNAPSHOT",
            self.client
        );
        Err(Refusal::new(ResponseCode::SystemError, remark))
    }
}

/// Whether clients of a version answer.
pub fn answers(version: i32) -> bool {
    version >= ANSWERS_FROM
}

/// The place of the message that a client is to process, as its offset message id says it.
pub fn message_place(id: &str) -> Result<RecordLocation, Refusal> {
    let place = OffsetMessageId::parse(id).ok();
    let place = place.and_then(|id| RecordLocation::of_physical_offset(id.physical_offset));
    place.ok_or_else(|| no_message(id))
}

/// That there is none.
pub fn no_message(id: &str) -> Refusal {
    let remark =
        format!("can not find message by its id, {id}: it is the offset message id of one of this broker's");
    Refusal::new(ResponseCode::SystemError, remark)
}

/// A question as the client gets it: its code, and the fields of the request. `broker` is the one that has the message.
pub fn asked(question: &ClientQuestion, client: &str, broker: &str) -> (i32, Vec<(&'static str, String)>) {
    let group = question.group().to_string();
    match question {
        ClientQuestion::Condition { with_stacks, .. } => {
            let fields = vec![
                ("consumerGroup", group),
                ("clientId", client.to_owned()),
                ("jstackEnable", with_stacks.to_string()),
            ];
            (request::GET_CONSUMER_RUNNING_INFO, fields)
        }
        ClientQuestion::Places { topic, .. } => {
            let fields = vec![("group", group), ("topic", topic.clone())];
            (request::GET_CONSUMER_STATUS_FROM_CLIENT, fields)
        }
        ClientQuestion::Process { message, id, .. } => {
            let fields = vec![
                ("consumerGroup", group),
                ("clientId", client.to_owned()),
                ("msgId", id.clone()),
                ("brokerName", broker.to_owned()),
                ("topic", message.topic.to_string()),
            ];
            (request::CONSUME_MESSAGE_DIRECTLY, fields)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_that_a_message_can_have() {
        assert!(message_place("7F00000100002A9F0000000000000000").is_ok());
        for wrong in ["", "7F", "7F00000100002A9F8000000000000000", "7F00000100002A9F0000000000000000x"] {
            assert_eq!(
                message_place(wrong).map_err(|refusal| refusal.code),
                Err(ResponseCode::SystemError),
                "{wrong}"
            );
        }
    }

    #[test]
    fn who_is_too_old_is_not_asked() {
        let consulted = Consulted { group: "g".to_owned(), client: "c@1".to_owned() };
        assert_eq!(consulted.check_version(62), Ok(()));
        assert!(
            consulted.check_version(61).is_err_and(|refusal| refusal.remark.contains("Version <61> too low"))
        );
        let question = ClientQuestion::Condition { group: "g".parse().expect("a name"), with_stacks: true };
        let (code, fields) = asked(&question, "c@1", "b-0");
        let expected = [("consumerGroup", "g"), ("clientId", "c@1"), ("jstackEnable", "true")];
        assert_eq!((code, fields), (307, expected.map(|(name, value)| (name, value.to_owned())).to_vec()));
    }
}
