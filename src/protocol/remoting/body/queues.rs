//! What queues have, entry by entry and by times (`remoting/.../protocol/body/QueryConsumeQueueResponseBody.java`,
//! `QueryConsumeTimeSpanBody.java`, `QuerySubscriptionResponseBody.java`).

use super::consumption::{QueueKeyed, SubscriptionShown, milliseconds};
use crate::protocol::remoting::json_writer::write_object;
use crate::types::Timestamp;

/// A message's entry in its queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueEntry {
    pub physical_offset: i64,
    /// Of the message as clients get it.
    pub bytes: usize,
    /// See `wire::record::tag_hash`.
    pub tag_hash: i64,
}

/// The entries of a queue from some place on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueEntries {
    pub first: u64,
    pub end: u64,
    pub entries: Vec<QueueEntry>,
    /// What the group wants that was asked for.
    pub subscription: Option<SubscriptionShown>,
    /// What is to be said of its expression.
    pub note: Option<String>,
}

impl QueueEntries {
    pub fn write(&self, output: &mut Vec<u8>) {
        write_object(output, |body| {
            if let Some(note) = &self.note {
                body.text("filterData", note);
            }
            body.number("maxQueueIndex", self.end as i64);
            body.number("minQueueIndex", self.first as i64);
            body.array("queueData", |list| {
                for entry in &self.entries {
                    list.object(|members| {
                        members.boolean("eval", false);
                        members.number("physicOffset", entry.physical_offset);
                        members.number("physicSize", entry.bytes as i64);
                        members.number("tagsCode", entry.tag_hash);
                    });
                }
            });
            if let Some(subscription) = &self.subscription {
                body.object("subscriptionData", |members| subscription.write(members));
            }
        });
    }
}

/// When the messages of a queue were stored, and those that a group has consumed.
#[derive(Clone, Copy, Debug)]
pub struct QueueTimes<'a> {
    pub queue: QueueKeyed<'a>,
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
    /// The last one that was consumed.
    pub consumed: Option<Timestamp>,
    /// How old the first one is that was not.
    pub behind_ms: u64,
}

pub fn write_queue_times<'a>(queues: impl Iterator<Item = QueueTimes<'a>>, output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.array("consumeTimeSpanSet", |set| {
            for of in queues {
                set.object(|members| {
                    members.number("consumeTimeStamp", milliseconds(of.consumed));
                    members.number("delayTime", of.behind_ms as i64);
                    members.number("maxTimeStamp", milliseconds(of.last));
                    members.object("messageQueue", |queue| of.queue.write(queue));
                    members.number("minTimeStamp", milliseconds(of.first));
                });
            }
        });
    });
}

/// What a group wants of a topic.
pub fn write_subscription(
    group: &str,
    topic: &str,
    subscription: Option<&SubscriptionShown>,
    output: &mut Vec<u8>,
) {
    write_object(output, |body| {
        body.text("group", group);
        if let Some(subscription) = subscription {
            body.object("subscriptionData", |members| subscription.write(members));
        }
        body.text("topic", topic);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut output = Vec::new();
        write(&mut output);
        String::from_utf8(output).expect("text")
    }

    #[test]
    fn entries_and_times_have_the_names_that_tools_read() {
        let entry = QueueEntry { physical_offset: 7, bytes: 200, tag_hash: -3 };
        let entries = QueueEntries { first: 1, end: 2, entries: vec![entry], ..QueueEntries::default() };
        assert_eq!(
            written(|output| entries.write(output)),
            "{\"maxQueueIndex\":2,\"minQueueIndex\":1,\"queueData\":[{\"eval\":false,\"physicOffset\":7,\"physicSize\":200,\
             \"tagsCode\":-3}]}"
        );
        let queue = QueueKeyed { topic: "t", broker: "b-0", queue: 3 };
        let times = QueueTimes { queue, first: Some(Timestamp(5)), last: None, consumed: None, behind_ms: 9 };
        assert_eq!(
            written(|output| write_queue_times([times].into_iter(), output)),
            "{\"consumeTimeSpanSet\":[{\"consumeTimeStamp\":0,\"delayTime\":9,\"maxTimeStamp\":0,\
             \"messageQueue\":{\"brokerName\":\"b-0\",\"queueId\":3,\"topic\":\"t\"},\"minTimeStamp\":5}]}"
        );
        let none = written(|output| write_subscription("g", "t", None, output));
        assert_eq!(none, "{\"group\":\"g\",\"topic\":\"t\"}");
    }
}
