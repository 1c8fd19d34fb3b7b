//! Locks of queues, as in `remoting/.../protocol/body/LockBatchRequestBody.java`, `LockBatchResponseBody.java` and
//! `UnlockBatchRequestBody.java`.

use super::offsets::QueueAsked;
use crate::limits;
use crate::protocol::remoting::code::ResponseCode;
use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::json_writer::write_object;
use crate::protocol::remoting::refusal::Refusal;

/// `LOCK_BATCH_MQ` and `UNLOCK_BATCH_MQ`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLocks {
    pub group: String,
    pub client: String,
    pub queues: Vec<LockedQueue>,
}

/// A queue as clients name it: what is granted is told in the same words, since they compare all three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedQueue {
    pub broker: String,
    pub queue: QueueAsked,
}

impl QueueLocks {
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        let refused = |remark: String| Refusal::new(ResponseCode::SystemError, remark);
        let value =
            Value::parse(body).map_err(|error| refused(format!("the list of queues is no JSON: {error}")))?;
        let text = |name| value.get(name).as_text().filter(|text| !text.is_empty()).map(str::to_owned);
        let client = text("clientId").filter(|id| id.len() <= limits::REMOTING_CLIENT_ID_BYTES_MAX);
        Ok(Self {
            group: text("consumerGroup")
                .ok_or_else(|| refused("the list of queues names no group".to_owned()))?,
            client: client.ok_or_else(|| {
                refused("the list of queues names no client, or one with too long an id".to_owned())
            })?,
            queues: value.get("mqSet").items().iter().filter_map(LockedQueue::of).collect(),
        })
    }
}

impl LockedQueue {
    /// What is no queue is none that anybody gets.
    fn of(item: &Value<'_>) -> Option<Self> {
        let queue = i32::try_from(item.get("queueId").as_number()?).ok()?;
        let topic = item.get("topic").as_text()?.to_owned();
        let broker = item.get("brokerName").as_text().unwrap_or_default().to_owned();
        Some(Self { broker, queue: QueueAsked { topic, queue } })
    }
}

/// Appends which queues the client has now.
pub fn write_locked<'a>(queues: impl IntoIterator<Item = &'a LockedQueue>, output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.array("lockOKMQSet", |list| {
            for locked in queues {
                list.object(|queue| {
                    queue.text("brokerName", &locked.broker);
                    queue.number("queueId", i64::from(locked.queue.queue));
                    queue.text("topic", &locked.queue.topic);
                });
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(broker: &str, topic: &str, queue: i32) -> LockedQueue {
        LockedQueue { broker: broker.to_owned(), queue: QueueAsked { topic: topic.to_owned(), queue } }
    }

    /// The members of Go's come in another order, and C++ writes a line end.
    #[test]
    fn what_java_go_and_cpp_ask_for_is_the_same() {
        let java =
            br#"{"clientId":"c@1","consumerGroup":"g","mqSet":[{"brokerName":"b-0","queueId":1,"topic":"t"},
            {"brokerName":"b-0","queueId":0,"topic":"%RETRY%g"}],"onlyThisBroker":false}"#;
        let go =
            br#"{"consumerGroup":"g","clientId":"c@1","mqSet":[{"topic":"t","brokerName":"b-0","queueId":1},
            {"topic":"%RETRY%g","brokerName":"b-0","queueId":0}]}
"#;
        let read = QueueLocks::read(java).expect("a body");
        assert_eq!(read, QueueLocks::read(go).expect("a body"));
        assert_eq!((read.group.as_str(), read.client.as_str()), ("g", "c@1"));
        assert_eq!(read.queues, [queue("b-0", "t", 1), queue("b-0", "%RETRY%g", 0)]);
    }

    #[test]
    fn what_is_no_queue_is_left_out_and_who_is_nobody_is_refused() {
        let read = |body: &[u8]| QueueLocks::read(body).map_err(|refusal| refusal.code);
        let odd = br#"{"clientId":"c","consumerGroup":"g","mqSet":[{"topic":"t"},{"queueId":1},7,null,
            {"topic":"t","queueId":"x"},{"topic":"t","queueId":99999999999},{"topic":"t","queueId":"3"}]}"#;
        assert_eq!(read(odd).expect("a body").queues, [queue("", "t", 3)]);
        assert!(read(br#"{"clientId":"c","consumerGroup":"g"}"#).expect("a body").queues.is_empty());
        let long = format!("{{\"clientId\":\"{}\",\"consumerGroup\":\"g\"}}", "c".repeat(513));
        let bodies: [&[u8]; 5] =
            [b"", b"[]", br#"{"clientId":"c"}"#, br#"{"clientId":"","consumerGroup":"g"}"#, long.as_bytes()];
        for body in bodies {
            assert_eq!(read(body), Err(ResponseCode::SystemError), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn what_is_granted_is_told_without_blanks() {
        let written = |queues: &[LockedQueue]| {
            let mut output = Vec::new();
            write_locked(queues, &mut output);
            String::from_utf8(output).expect("text")
        };
        assert_eq!(written(&[]), "{\"lockOKMQSet\":[]}");
        assert_eq!(
            written(&[queue("b-0", "t", 1)]),
            "{\"lockOKMQSet\":[{\"brokerName\":\"b-0\",\"queueId\":1,\"topic\":\"t\"}]}"
        );
    }
}
