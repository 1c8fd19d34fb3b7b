//! Replies to requests of clients' to one another: `SEND_REPLY_MESSAGE`, a send, and `PUSH_REPLY_MESSAGE_TO_CLIENT`, by which the client
//! gets it that waits for it (`broker/.../processor/ReplyMessageProcessor.java`).

use std::net::SocketAddr;

use crate::api::ReplyMessage;
use crate::protocol::remoting::Header;
use crate::protocol::remoting::call::send::{Messages, Send};
use crate::protocol::remoting::code::{ResponseCode, request};
use crate::protocol::remoting::message::{AddedProperties, REGION, system_flag};
use crate::protocol::remoting::refusal::Refusal;
use crate::types::{ShardId, Timestamp};
use crate::wire::properties::{Properties, names};
use crate::wire::record::RecordView;

/// What brokers say of when they have passed a reply on.
const PUSH_TIME: &str = "PUSH_REPLY_TIME";

/// A reply, and whom it is for.
pub struct ReplyRequest {
    pub client: String,
    pub reply: ReplyMessage,
}

impl ReplyRequest {
    /// Reads a reply that came from `born` to a shard.
    pub fn read(
        header: &Header<'_>,
        body: &[u8],
        born: SocketAddr,
        (shard, came): (ShardId, Timestamp),
    ) -> Result<Self, Refusal> {
        let send = Send::read(header, body, born)?;
        let name = if header.code == request::SEND_REPLY_MESSAGE { "producerGroup" } else { "a" };
        let group = header.fields.text(name).unwrap_or_default().into_owned();
        let Messages::Single(message) = &send.messages else {
            return Err(Refusal::new(ResponseCode::MessageIllegal, "a reply is one message, and no batch"));
        };
        if message.release.is_some() || message.delay.is_some() {
            let remark = "a reply is neither delayed nor the half of a transaction";
            return Err(Refusal::new(ResponseCode::MessageIllegal, remark));
        }
        let mut properties = Properties::new(&message.properties);
        let client = properties.find(|(name, _)| *name == names::REPLY_TO_CLIENT.as_bytes());
        let Some((_, client)) = client else {
            let remark = "reply message properties[REPLY_TO_CLIENT] is null";
            return Err(Refusal::new(ResponseCode::SystemError, remark));
        };
        let mut record = Vec::new();
        message.record().encode(&mut record);
        let reply = ReplyMessage {
            producer_group: group,
            topic: send.topic.as_str().to_owned(),
            queue: send.queue.map_or(0, |queue| queue as i32),
            record: record.into(),
            born_time: message.born_time,
            shard,
            came,
        };
        Ok(Self { client: String::from_utf8_lossy(client).into_owned(), reply })
    }
}

/// A reply as the client gets it: the fields of the request, and its body.
pub struct PushedReply {
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// Makes one; `None` for a record that there is none in.
pub fn push(reply: &ReplyMessage, store_host: SocketAddr, cluster: &str) -> Option<PushedReply> {
    let (record, _) = RecordView::cut(&reply.record).ok()?;
    let origin = record.origin()?;
    let came = reply.came.0.to_string();
    let added = [(PUSH_TIME, &*came), ("CLUSTER", cluster), ("MSG_REGION", REGION), ("TRACE_ON", "true")];
    let mut properties = Vec::new();
    AddedProperties::new(&added).write(&record, true, &mut properties);
    // The widths of addresses are those of a record, which this is not.
    let flag = system_flag::of(record.attributes(), ([0; 4], 0).into(), ([0; 4], 0).into());
    let fields = vec![
        ("producerGroup", reply.producer_group.clone()),
        ("topic", reply.topic.clone()),
        ("defaultTopic", "TBW102".to_owned()),
        ("defaultTopicQueueNums", "4".to_owned()),
        ("queueId", reply.queue.to_string()),
        ("sysFlag", flag.to_string()),
        ("bornTimestamp", reply.born_time.0.to_string()),
        ("flag", (origin.flag as i32).to_string()),
        ("properties", String::from_utf8_lossy(&properties).into_owned()),
        ("reconsumeTimes", origin.deliveries_before.to_string()),
        ("unitMode", "false".to_owned()),
        ("bornHost", origin.born.to_string()),
        ("storeHost", store_host.to_string()),
        ("storeTimestamp", came),
    ];
    Some(PushedReply { fields, body: record.body().to_vec() })
}
