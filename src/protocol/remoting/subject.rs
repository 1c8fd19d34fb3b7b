//! What requests are about, for whoever looks where their time went: in words that all protocols have.

use super::code::request;
use super::header::Header;
use crate::api::{RequestSubject, RequestTopic};

/// A request with this field, whatever its value, is answered with it: where its time went.
pub const STAGES: &str = "turbopumpStages";

/// Whether the answer is to say where the request's time went.
pub fn wants_stages(header: &Header<'_>) -> bool {
    header.fields.bytes(STAGES).is_some()
}

/// What a request is called.
pub fn kind_of(code: i32) -> &'static str {
    match code {
        request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => "send",
        request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => "pull",
        request::SEND_REPLY_MESSAGE | request::SEND_REPLY_MESSAGE_V2 => "send-reply",
        request::CONSUMER_SEND_MSG_BACK => "send-back",
        request::END_TRANSACTION => "end-transaction",
        request::RECALL_MESSAGE => "recall",
        request::QUERY_MESSAGE | request::VIEW_MESSAGE_BY_ID => "find-messages",
        request::QUERY_CONSUMER_OFFSET => "committed-offset",
        request::UPDATE_CONSUMER_OFFSET => "commit-offset",
        request::SEARCH_OFFSET_BY_TIMESTAMP
        | request::GET_MAX_OFFSET
        | request::GET_MIN_OFFSET
        | request::GET_EARLIEST_MSG_STORETIME => "find-offset",
        request::HEART_BEAT => "heartbeat",
        request::UNREGISTER_CLIENT => "unregister",
        request::LOCK_BATCH_MQ => "lock-queues",
        request::UNLOCK_BATCH_MQ => "unlock-queues",
        request::GET_ROUTEINFO_BY_TOPIC => "route",
        request::GET_CONSUMER_LIST_BY_GROUP => "list-consumers",
        request::CHECK_CLIENT_CONFIG => "check-client",
        _ => "administer",
    }
}

/// What a request is about. The newest form of a send has short names for its fields
/// (`remoting/.../header/SendMessageRequestHeaderV2.java`).
pub fn subject_of(header: &Header<'_>) -> RequestSubject {
    let is_short = matches!(header.code, request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE);
    let topic = header.fields.text(if is_short { "b" } else { "topic" });
    let topic = topic.and_then(|topic| topic.parse().ok()).map_or(RequestTopic::None, RequestTopic::Name);
    RequestSubject { kind: kind_of(header.code), topic, ..RequestSubject::default() }
}
