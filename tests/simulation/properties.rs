//! Log and broker against plain lists: random requests, restarts and crashes among them. After every step the node says
//! what the model says.
//!
//! A few sequences; with `TURBOPUMP_SWEEP=full` hundreds, and with `TURBOPUMP_PROPERTY_CASES` as many as it says.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index as Pick;
use turbopump::api::{
    CommitOffset, Failure, OffsetSpec, Produce, Produced, Reply, Request, ResetGroup, ResetTarget, Status,
    TopicChange,
};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::testing::{Random, SeededExecutor, generators};
use turbopump::types::{GroupName, Level, QueueKey, QueueOffset, Retention, Timestamp, TopicName};

use super::checks::remove_derived;
use super::model::{Burst, Model, Stored, TopicModel, check_fetch, fetch, find};
use super::node::{Node, Setup, group_name, topic_name};
use super::sweep::is_full;

const LEVELS: [Level; 3] = [Level::Durable, Level::Written, Level::Accepted];

#[derive(Clone, Debug)]
enum Step {
    Create {
        name: u8,
        queues: u32,
        retention_ms: Option<u64>,
    },
    Grow {
        name: u8,
        by: u32,
    },
    Delete {
        name: u8,
    },
    Produce {
        queue: Pick,
        level: usize,
        seed: u64,
        count: usize,
        body: usize,
    },
    /// Fills most of a segment.
    Fill {
        queue: Pick,
        batches: u64,
    },
    Fetch {
        queue: Pick,
        offset: Pick,
        bytes: u32,
        records: u32,
    },
    FindTime {
        queue: Pick,
        batch: Pick,
        later: u64,
    },
    Commit {
        group: u8,
        queue: Pick,
        offset: Pick,
    },
    Reset {
        group: u8,
        name: u8,
        place: Place,
    },
    /// Retention and housekeeping are due after seconds.
    Wait {
        ms: u64,
    },
    Snapshot {
        shard: Pick,
    },
    Reopen {
        bare: bool,
    },
    /// Batches are on their way when it comes.
    Crash {
        how: Pick,
        seed: u64,
        burst: Vec<(Pick, usize, u64)>,
        yields: u64,
    },
}

#[derive(Clone, Debug)]
enum Place {
    First,
    Last,
    Time(Pick),
    Offset(Pick, Pick),
}

fn steps() -> impl Strategy<Value = Step> {
    let pick = any::<Pick>;
    let place = prop_oneof![
        Just(Place::First),
        Just(Place::Last),
        pick().prop_map(Place::Time),
        (pick(), pick()).prop_map(|(queue, offset)| Place::Offset(queue, offset)),
    ];
    let retention = prop_oneof![3 => Just(None), 1 => (1000..5000_u64).prop_map(Some)];
    prop_oneof![
        3 => (0..3_u8, 1..4_u32, retention)
            .prop_map(|(name, queues, retention_ms)| Step::Create { name, queues, retention_ms }),
        1 => (0..3_u8, 1..3_u32).prop_map(|(name, by)| Step::Grow { name, by }),
        1 => (0..3_u8).prop_map(|name| Step::Delete { name }),
        12 => (pick(), 0..3_usize, any::<u64>(), 1..8_usize, 0..6000_usize).prop_map(
            |(queue, level, seed, count, body)| Step::Produce { queue, level, seed, count, body }
        ),
        2 => (pick(), 2..6_u64).prop_map(|(queue, batches)| Step::Fill { queue, batches }),
        6 => (pick(), pick(), 0..20_000_u32, 0..12_u32).prop_map(
            |(queue, offset, bytes, records)| Step::Fetch { queue, offset, bytes, records }
        ),
        3 => (pick(), pick(), 0..3_u64).prop_map(|(queue, batch, later)| Step::FindTime { queue, batch, later }),
        4 => (0..2_u8, pick(), pick()).prop_map(|(group, queue, offset)| Step::Commit { group, queue, offset }),
        2 => (0..2_u8, 0..3_u8, place).prop_map(|(group, name, place)| Step::Reset { group, name, place }),
        3 => (0..7000_u64).prop_map(|ms| Step::Wait { ms }),
        2 => pick().prop_map(|shard| Step::Snapshot { shard }),
        2 => prop::bool::weighted(0.3).prop_map(|bare| Step::Reopen { bare }),
        2 => (pick(), any::<u64>(), prop::collection::vec((pick(), 0..3_usize, any::<u64>()), 0..6), 0..200_u64)
            .prop_map(|(how, seed, burst, yields)| Step::Crash { how, seed, burst, yields }),
    ]
}

/// A node and what it should be.
struct World<'a> {
    executor: &'a SeededExecutor,
    setup: Setup,
    disk: FaultyDisk,
    node: Option<Rc<Node>>,
    model: Model,
    number: u64,
}

fn name_of(number: u8) -> TopicName {
    topic_name(&format!("topic-{number}"))
}

fn group_of(number: u8) -> GroupName {
    group_name(&format!("group-{number}"))
}

fn batch_of(seed: u64, count: usize, body: usize) -> Bytes {
    let mut random = Random::new(seed);
    generators::batch(&generators::messages(&mut random, count, body), Timestamp(1_000)).into()
}

impl World<'_> {
    fn node(&self) -> Rc<Node> {
        self.node.clone().expect("a node between two steps")
    }

    async fn handle(&self, request: Request) -> Result<Reply, Failure> {
        self.node().handle(request).await
    }

    async fn start(&mut self) {
        let clock = self.executor.shared_clock();
        let node = Node::start(&self.disk, &self.setup, clock, &self.executor.spawner()).await;
        let node = node.unwrap_or_else(|error| panic!("does not start: {error}"));
        for report in &node.reports {
            assert!(report.damage.is_empty(), "damage without damage: {report:?}");
        }
        self.node = Some(Rc::new(node));
    }

    async fn stop(&mut self) {
        let node = self.node.take().expect("a node between two steps");
        Rc::into_inner(node).expect("every task has ended").stop().await;
    }

    fn queue(&self, pick: Pick) -> Option<QueueKey> {
        let keys = self.model.keys();
        (!keys.is_empty()).then(|| keys[pick.index(keys.len())])
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Create { name, queues, retention_ms } => self.create(name, queues, retention_ms).await,
            Step::Grow { name, by } => self.grow(name, by).await,
            Step::Delete { name } => self.delete(name).await,
            Step::Produce { queue, level, seed, count, body } => {
                let Some(key) = self.queue(queue) else { return };
                self.number += 1;
                // No two batches are alike, so that each can be told from the others.
                let seed = seed ^ (self.number << 32);
                self.produce(key, LEVELS[level], batch_of(seed, count, body.max(16))).await;
            }
            Step::Fill { queue, batches } => {
                let Some(key) = self.queue(queue) else { return };
                for _ in 0..batches {
                    self.number += 1;
                    let mut message = generators::Message { body: vec![0; 3_900_000], ..Default::default() };
                    Random::new(self.number).fill(&mut message.body[..64]);
                    let batch = generators::batch(&[message], Timestamp(1_000));
                    self.produce(key, Level::Written, batch.into()).await;
                }
            }
            Step::Fetch { queue, offset, bytes, records } => self.fetch(queue, offset, bytes, records).await,
            Step::FindTime { queue, batch, later } => self.find_time(queue, batch, later).await,
            Step::Commit { group, queue, offset } => self.commit(group_of(group), queue, offset).await,
            Step::Reset { group, name, place } => self.reset(group_of(group), name_of(name), place).await,
            Step::Wait { ms } => self.executor.shared_clock().sleep(Duration::from_millis(ms)).await,
            Step::Snapshot { shard } => {
                let node = self.node();
                let broker = &node.brokers[shard.index(node.brokers.len())];
                broker.take_snapshot().await.expect("a healthy disk");
            }
            Step::Reopen { bare } => self.reopen(bare).await,
            Step::Crash { how, seed, burst, yields } => self.crash(how, seed, burst, yields).await,
        }
    }

    async fn create(&mut self, name: u8, queues: u32, retention_ms: Option<u64>) {
        let topic = name_of(name);
        let retention = retention_ms.map(Duration::from_millis);
        let kept = retention.map(Retention::Age);
        let change = TopicChange { topic: topic.clone(), queues: Some(queues), retention: kept, level: None };
        match self.handle(Request::CreateTopic(change)).await {
            Ok(Reply::Topic(info)) => {
                assert!(!self.model.topics.contains_key(&topic), "{topic} was made twice");
                let made = TopicModel { id: info.id, queue_count: queues, retention };
                self.model.topic_made(topic, made);
            }
            Err(failure) if failure.status == Status::TopicExists => {
                assert!(self.model.topics.contains_key(&topic), "{topic} does not exist");
            }
            other => panic!("{topic}: {other:?}"),
        }
    }

    async fn grow(&mut self, name: u8, by: u32) {
        let topic = name_of(name);
        let present = self.model.topics.get(&topic).cloned();
        let queue_count = present.as_ref().map_or(1, |present| present.queue_count) + by;
        let change =
            TopicChange { topic: topic.clone(), queues: Some(queue_count), retention: None, level: None };
        let answer = self.handle(Request::AlterTopic(change)).await;
        match present {
            Some(present) => {
                assert!(answer.is_ok(), "{topic}: {answer:?}");
                self.model.topic_made(topic, TopicModel { queue_count, ..present });
            }
            None => assert!(answer.is_err(), "{topic}: {answer:?}"),
        }
    }

    async fn delete(&mut self, name: u8) {
        let topic = name_of(name);
        let answer = self.handle(Request::DeleteTopic(topic.clone())).await;
        assert_eq!(answer.is_ok(), self.model.topics.contains_key(&topic), "{topic}: {answer:?}");
        if answer.is_ok() {
            self.model.topic_deleted(&topic);
        }
    }

    async fn produce(&mut self, key: QueueKey, level: Level, batch: Bytes) {
        let produced = send(&self.node(), key, level, batch.clone()).await;
        let produced = produced.unwrap_or_else(|failure| panic!("{key}: {failure:?}"));
        assert!(produced.level >= level, "{level:?} was asked, {} is answered", produced.level);
        let queue = self.model.queues.get_mut(&key).expect("a queue that is there");
        assert_eq!(produced.base_offset, queue.end(), "{key}");
        let count =
            turbopump::wire::batch::CheckedBatch::check(&batch).expect("a whole batch").record_count();
        queue.batches.push(Stored {
            base: produced.base_offset,
            count,
            position: produced.position,
            store_time: produced.store_time,
            bytes: batch,
        });
    }

    /// Waits until readers see what was answered at lower levels.
    async fn settle(&self) {
        for broker in &self.node().brokers {
            let marks = broker.log().watermarks();
            marks.level_reached(Level::Durable, marks.appended_end()).await.expect("a healthy disk");
        }
    }

    async fn fetch(&self, queue: Pick, offset: Pick, bytes: u32, records: u32) {
        let Some(key) = self.queue(queue) else { return };
        let queue = &self.model.queues[&key];
        // One before the first, and two after the end.
        let low = queue.first.0.saturating_sub(1);
        let offset = QueueOffset(low + offset.index((queue.end().0 + 3 - low) as usize) as u64);
        if (queue.first..=queue.end()).contains(&offset) {
            check_fetch(&self.node(), key, queue, offset, bytes, records).await;
        } else {
            let refused = fetch(&self.node(), key, offset, bytes, records).await;
            let status = refused.as_ref().map_err(|failure| failure.status).err();
            assert_eq!(status, Some(Status::OffsetOutOfRange), "{key} at {offset}: {refused:?}");
        }
    }

    async fn find_time(&self, queue: Pick, batch: Pick, later: u64) {
        let Some(key) = self.queue(queue) else { return };
        let queue = &self.model.queues[&key];
        let time = self.time(key, batch, later);
        let found = find(&self.node(), key, OffsetSpec::Time(time)).await;
        assert_eq!(found, queue.find_time(time), "{key} at {time:?}");
        assert_eq!(find(&self.node(), key, OffsetSpec::First).await, queue.first, "{key}");
        assert_eq!(find(&self.node(), key, OffsetSpec::Last).await, queue.end(), "{key}");
    }

    /// The store time of one of the queue's batches, or a little later.
    fn time(&self, key: QueueKey, batch: Pick, later: u64) -> Timestamp {
        let batches = &self.model.queues[&key].batches;
        let time = if batches.is_empty() { 0 } else { batches[batch.index(batches.len())].store_time.0 };
        Timestamp(time + later)
    }

    async fn commit(&mut self, group: GroupName, queue: Pick, offset: Pick) {
        let Some(key) = self.queue(queue) else { return };
        let end = self.model.queues[&key].end();
        let offset = QueueOffset(offset.index(end.0 as usize + 2) as u64);
        let answer = self
            .handle(Request::CommitOffset(CommitOffset { group: group.clone(), key, offset, member: None }))
            .await;
        assert_eq!(answer.is_ok(), offset <= end, "{key}, {offset}: {answer:?}");
        if answer.is_ok() {
            self.model.offsets.insert((group, key), offset);
        }
    }

    async fn reset(&mut self, group: GroupName, topic: TopicName, place: Place) {
        let Some(present) = self.model.topics.get(&topic).cloned() else { return };
        let keys: Vec<_> = self.model.keys().into_iter().filter(|key| key.topic == present.id).collect();
        let queue_at = |key: &QueueKey| &self.model.queues[key];
        let (asked, places): (_, Vec<_>) = match place {
            Place::First => {
                let places = keys.iter().map(|key| (*key, queue_at(key).first)).collect();
                (ResetTarget::Every(OffsetSpec::First), places)
            }
            Place::Last => {
                let places = keys.iter().map(|key| (*key, queue_at(key).end())).collect();
                (ResetTarget::Every(OffsetSpec::Last), places)
            }
            Place::Time(batch) => {
                let time = self.time(keys[0], batch, 0);
                let places = keys.iter().map(|key| (*key, queue_at(key).find_time(time))).collect();
                (ResetTarget::Every(OffsetSpec::Time(time)), places)
            }
            Place::Offset(queue, offset) => {
                let key = keys[queue.index(keys.len())];
                let offset = QueueOffset(offset.index(queue_at(&key).end().0 as usize + 1) as u64);
                (ResetTarget::Offset(key.queue, offset), vec![(key, offset)])
            }
        };
        let reset = ResetGroup { group: group.clone(), topic: topic.clone(), target: asked };
        let answer = self.handle(Request::ResetGroup(reset)).await;
        assert_eq!(answer, Ok(Reply::Done), "{topic}");
        for (key, offset) in places {
            self.model.offsets.insert((group.clone(), key), offset);
        }
    }

    async fn reopen(&mut self, bare: bool) {
        self.stop().await;
        if bare {
            remove_derived(&self.disk, &self.setup);
            self.forget_first_offsets();
        }
        self.start().await;
        self.model.check(&self.node()).await;
        self.model.check_contents(&self.node()).await;
    }

    /// An index that is built from the log starts where the log does: what a topic's own retention has hidden is seen
    /// again until the next round.
    fn forget_first_offsets(&mut self) {
        self.model.queues.values_mut().for_each(|queue| queue.first = QueueOffset::ZERO);
    }

    async fn crash(&mut self, how: Pick, seed: u64, burst: Vec<(Pick, usize, u64)>, yields: u64) {
        let how = Restart::ALL[how.index(Restart::ALL.len())];
        let promised = if how == Restart::ProcessKill { Level::Written } else { Level::Durable };
        let books: Rc<RefCell<Vec<Burst>>> = Rc::default();
        let mut tasks = Vec::new();
        for (queue, level, seed) in burst {
            let Some(key) = self.queue(queue) else { continue };
            self.number += 1;
            let bytes = batch_of(seed ^ (self.number << 32), 3, 4000);
            books.borrow_mut().push(Burst { key, bytes: bytes.clone(), answered: None });
            let (node, books, index) = (self.node(), books.clone(), books.borrow().len() - 1);
            tasks.push(self.executor.spawn(async move {
                if let Ok(produced) = send(&node, key, LEVELS[level], bytes).await {
                    books.borrow_mut()[index].answered = Some((produced.base_offset, produced.level));
                }
            }));
        }
        for _ in 0..yields {
            futures_lite::future::yield_now().await;
        }
        let crashed = self.disk.outcome(how, seed);
        let burst: Vec<_> = books
            .borrow()
            .iter()
            .map(|sent| Burst { key: sent.key, bytes: sent.bytes.clone(), answered: sent.answered })
            .collect();
        for task in tasks {
            task.await;
        }
        self.stop().await;
        self.disk = crashed;
        self.start().await;
        self.forget_first_offsets();
        self.model.settle_crash(&self.node(), &burst, promised).await;
        self.model.check(&self.node()).await;
        self.model.check_contents(&self.node()).await;
    }
}

async fn send(node: &Node, key: QueueKey, level: Level, batch: Bytes) -> Result<Produced, Failure> {
    match node.handle(Request::Produce(Produce { key, level: Some(level), batch })).await? {
        Reply::Produced(produced) => Ok(produced),
        other => panic!("{key}: {other:?}"),
    }
}

fn play(seed: u64, shard_count: u16, late: bool, steps: Vec<Step>) {
    let executor = SeededExecutor::new(seed);
    executor.set_poll_cost(Duration::from_micros(20));
    let segment_bytes = Setup::default().segment_bytes;
    let setup = Setup { shard_count, retention_bytes: Some(2 * segment_bytes), ..Setup::default() };
    let plan = if late { FaultPlan::reordered() } else { FaultPlan::none() };
    let disk = FaultyDisk::new(seed, plan);
    let model = Model::default();
    let mut world = World { executor: &executor, setup, disk, node: None, model, number: 0 };
    executor.run_until(async {
        world.start().await;
        world.create(0, 2, None).await;
        for step in steps {
            world.run(step).await;
            world.settle().await;
            world.model.check(&world.node()).await;
        }
        world.reopen(false).await;
        world.stop().await;
    });
}

fn cases() -> u32 {
    let number = std::env::var("TURBOPUMP_PROPERTY_CASES").ok().and_then(|value| value.parse().ok());
    number.unwrap_or(if is_full() { 600 } else { 60 })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_node_is_what_plain_lists_are(
        seed in any::<u64>(),
        shard_count in 1..3_u16,
        late in any::<bool>(),
        steps in prop::collection::vec(steps(), 1..60),
    ) {
        play(seed, shard_count, late, steps);
    }
}
