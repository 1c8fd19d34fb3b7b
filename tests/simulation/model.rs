//! What a node should hold, as plain lists, and holding a node against it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use turbopump::api::{Failure, Fetch, Fetched, OffsetSpec, QueueInfo, Reply, Request};
use turbopump::types::{
    GroupName, Level, LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId, TopicName,
};
use turbopump::wire::batch::{BatchHeader, align_batch};

use super::node::Node;

/// Where the client's part of a batch starts.
const CLIENT_PART: usize = 72;

#[derive(Clone, Debug)]
pub struct Stored {
    pub base: QueueOffset,
    pub count: u32,
    pub position: LogPosition,
    pub store_time: Timestamp,
    pub bytes: Bytes,
}

#[derive(Clone, Debug, Default)]
pub struct QueueModel {
    /// The lowest offset, as last seen; retention moves it in its own time.
    pub first: QueueOffset,
    /// Every batch that was ever there, those below `first` included.
    pub batches: Vec<Stored>,
}

#[derive(Clone, Debug)]
pub struct TopicModel {
    pub id: TopicId,
    pub queue_count: u32,
    pub retention: Option<Duration>,
}

/// A batch whose answer a crash may have overtaken.
pub struct Burst {
    pub key: QueueKey,
    pub bytes: Bytes,
    /// Place and level, when the answer came.
    pub answered: Option<(QueueOffset, Level)>,
}

#[derive(Default)]
pub struct Model {
    pub topics: BTreeMap<TopicName, TopicModel>,
    pub queues: BTreeMap<QueueKey, QueueModel>,
    pub offsets: BTreeMap<(GroupName, QueueKey), QueueOffset>,
}

impl Stored {
    pub fn end(&self) -> QueueOffset {
        self.base.advance(u64::from(self.count))
    }

    fn holds(&self, batch: &[u8]) -> bool {
        batch[CLIENT_PART..] == self.bytes[CLIENT_PART..]
    }
}

impl QueueModel {
    pub fn end(&self) -> QueueOffset {
        self.batches.last().map_or(QueueOffset::ZERO, Stored::end)
    }

    /// First offset of the first batch that `holds`, or the end.
    fn first_where(&self, holds: impl Fn(&Stored) -> bool) -> QueueOffset {
        self.batches.iter().find(|batch| holds(batch)).map_or(self.end(), |batch| batch.base)
    }

    pub fn find_time(&self, time: Timestamp) -> QueueOffset {
        self.first_where(|batch| batch.store_time >= time && batch.end() > self.first).max(self.first)
    }
}

impl Model {
    pub fn keys(&self) -> Vec<QueueKey> {
        self.queues.keys().copied().collect()
    }

    pub fn topic_made(&mut self, name: TopicName, topic: TopicModel) {
        for queue in (0..topic.queue_count).map(QueueNumber) {
            self.queues.entry(QueueKey { topic: topic.id, queue }).or_default();
        }
        self.topics.insert(name, topic);
    }

    pub fn topic_deleted(&mut self, name: &TopicName) {
        let id = self.topics.remove(name).expect("a topic that is there").id;
        self.queues.retain(|key, _| key.topic != id);
        self.offsets.retain(|(_, key), _| key.topic != id);
    }

    /// Topics, bounds and offsets.
    pub async fn check(&mut self, node: &Node) {
        let Ok(Reply::Topics(found)) = node.handle(Request::ListTopics).await else { panic!("no topics") };
        let found: Vec<_> = found.into_iter().map(|info| (info.topic, info.id, info.queue_count)).collect();
        let wanted: Vec<_> =
            self.topics.iter().map(|(name, topic)| (name.clone(), topic.id, topic.queue_count)).collect();
        assert_eq!(found, wanted, "topics");
        let names: Vec<_> = self.topics.iter().map(|(name, topic)| (name.clone(), topic.clone())).collect();
        for (name, topic) in names {
            for info in ranges(node, &name).await {
                let key = QueueKey { topic: topic.id, queue: info.queue };
                let queue = self.queues.get_mut(&key).expect("a queue of a topic that is there");
                assert_eq!(info.end_offset, queue.end(), "end of {key}");
                check_first(node, key, queue, &topic, info.first_offset);
                queue.first = info.first_offset;
            }
        }
        self.check_offsets(node).await;
    }

    async fn check_offsets(&self, node: &Node) {
        for ((group, key), offset) in &self.offsets {
            let request = Request::CommittedOffset { group: group.clone(), key: *key };
            assert_eq!(node.handle(request).await, Ok(Reply::Offset(Some(*offset))), "{group} in {key}");
        }
    }

    /// Every batch of every queue.
    pub async fn check_contents(&self, node: &Node) {
        for (key, queue) in &self.queues {
            let mut offset = queue.first;
            while offset < queue.end() {
                offset = check_fetch(node, *key, queue, offset, 1024 * 1024, u32::MAX).await;
            }
            let past = fetch(node, *key, queue.end().advance(1), 1, 1).await;
            assert!(past.is_err(), "{key}: a fetch behind the end is answered: {past:?}");
        }
    }

    /// Takes the model to what a crash has left: all that was settled, and of the burst what there is, in some order.
    pub async fn settle_crash(&mut self, node: &Node, burst: &[Burst], promised: Level) {
        let names: Vec<_> = self.topics.keys().cloned().collect();
        for name in names {
            let id = self.topics[&name].id;
            for info in ranges(node, &name).await {
                let key = QueueKey { topic: id, queue: info.queue };
                let queue = self.queues.get_mut(&key).expect("a queue of a topic that is there");
                assert!(info.end_offset >= queue.end(), "{key} ends at {}", info.end_offset);
                // What retention had moved in memory only comes back.
                queue.first = info.first_offset.min(queue.end());
                let mut left: Vec<_> = burst.iter().filter(|sent| sent.key == key).collect();
                while queue.end() < info.end_offset {
                    let stored = one_of(node, key, queue.end(), &mut left).await;
                    queue.batches.push(stored);
                }
                let lost = left.iter().find(|sent| sent.answered.is_some_and(|(_, level)| level >= promised));
                assert!(
                    lost.is_none(),
                    "{key}: lost what was answered: {:?}",
                    lost.map(|sent| sent.answered)
                );
            }
        }
    }
}

/// The batch at `offset`, which is one of `left` and is taken out there.
async fn one_of(node: &Node, key: QueueKey, offset: QueueOffset, left: &mut Vec<&Burst>) -> Stored {
    let fetched = fetch(node, key, offset, 1, 1).await.expect("an offset below the end");
    let header = BatchHeader::decode(&fetched.batches).expect("a whole batch");
    let batch = &fetched.batches[..header.batch_bytes as usize];
    let index = left.iter().position(|sent| {
        sent.bytes[CLIENT_PART..] == batch[CLIENT_PART..]
            && sent.answered.is_none_or(|(base, _)| base == header.base_offset)
    });
    let index = index.unwrap_or_else(|| panic!("{key}: nobody has sent what is at {offset}"));
    let bytes = left.swap_remove(index).bytes.clone();
    Stored {
        base: header.base_offset,
        count: header.record_count,
        position: header.position,
        store_time: header.store_time,
        bytes,
    }
}

async fn ranges(node: &Node, name: &TopicName) -> Vec<QueueInfo> {
    match node.handle(Request::DescribeTopic(name.clone())).await {
        Ok(Reply::Topic(info)) => info.queues,
        other => panic!("topic {name}: {other:?}"),
    }
}

/// A queue starts where a batch does; not before the log, and not after what retention may have taken by now.
fn check_first(node: &Node, key: QueueKey, queue: &QueueModel, topic: &TopicModel, first: QueueOffset) {
    let broker = node.owner(key);
    let segments = broker.log().segments();
    let kept = broker.log().first_position();
    let lowest = queue.first_where(|batch| batch.position >= kept).max(queue.first);
    let active = segments.last().expect("a log has a segment").base;
    let now = node.clock.now();
    let by_segment = queue.first_where(|batch| batch.position >= active);
    let by_age = topic.retention.map_or(QueueOffset::ZERO, |retention| {
        let oldest = Timestamp(now.0.saturating_sub(retention.as_millis() as u64));
        queue.first_where(|batch| batch.store_time >= oldest)
    });
    let highest = if segments.len() > 1 || kept.0 > 0 { by_segment.max(by_age) } else { by_age };
    assert!(
        (lowest..=highest.max(queue.first)).contains(&first),
        "{key} starts at {first}, not {lowest}..={highest}"
    );
    let starts_batch = first == queue.end() || queue.batches.iter().any(|batch| batch.base == first);
    assert!(starts_batch, "{key} starts at {first} within a batch");
}

pub async fn fetch(
    node: &Node,
    key: QueueKey,
    offset: QueueOffset,
    bytes_max: u32,
    records_max: u32,
) -> Result<Fetched, Failure> {
    let fetch = Fetch { session: 0, key, offset, bytes_max, records_max, wait: Duration::ZERO };
    match node.handle(Request::Fetch(fetch)).await? {
        Reply::Fetched(fetched) => Ok(fetched),
        other => panic!("no batches: {other:?}"),
    }
}

/// Fetches at an offset of the queue and returns where the answer ends.
pub async fn check_fetch(
    node: &Node,
    key: QueueKey,
    queue: &QueueModel,
    offset: QueueOffset,
    bytes_max: u32,
    records_max: u32,
) -> QueueOffset {
    let fetched = fetch(node, key, offset, bytes_max, records_max).await;
    let fetched = fetched.unwrap_or_else(|failure| panic!("{key} at {offset}: {failure:?}"));
    assert_eq!((fetched.damaged.as_ref(), fetched.end_offset), (None, queue.end()), "{key} at {offset}");
    let wanted = queue.batches.iter().skip_while(|batch| batch.end() <= offset);
    let (mut rest, mut bytes, mut records, mut end) = (&fetched.batches[..], 0, 0, offset);
    for wanted in wanted {
        if rest.is_empty() {
            break;
        }
        assert!(
            records < u64::from(records_max.max(1)),
            "{key} at {offset}: more than {records_max} records"
        );
        let header = BatchHeader::decode(rest).expect("a whole batch");
        let found = (header.base_offset, header.record_count, header.position, header.store_time);
        assert_eq!(found, (wanted.base, wanted.count, wanted.position, wanted.store_time), "{key}");
        assert!(wanted.holds(&rest[..header.batch_bytes as usize]), "{key} at {offset}: other bytes");
        bytes += u64::from(header.batch_bytes);
        records += wanted.end().0 - wanted.base.max(offset).0;
        end = wanted.end();
        rest = &rest[(align_batch(u64::from(header.batch_bytes)) as usize).min(rest.len())..];
        assert!(bytes <= u64::from(bytes_max) || wanted.base <= offset, "{key} at {offset}: {bytes} bytes");
    }
    assert!(rest.is_empty(), "{key} at {offset}: more than was sent");
    assert_eq!(fetched.next_offset, end, "{key} at {offset}");
    assert!(end > offset || offset == queue.end(), "{key}: nothing at {offset} of {}", queue.end());
    end
}

pub async fn find(node: &Node, key: QueueKey, spec: OffsetSpec) -> QueueOffset {
    match node.handle(Request::FindOffset { key, spec }).await {
        Ok(Reply::OffsetFound(offset)) => offset,
        other => panic!("{key}: no offset: {other:?}"),
    }
}
