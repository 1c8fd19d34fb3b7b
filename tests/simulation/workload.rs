//! Things to do with a node while its disk fails.

use std::cell::RefCell;
use std::rc::Rc;

use turbopump::api::{
    CommitOffset, Failure, Produce, Produced, Reply, Request, ResetGroup, ResetTarget, Status, TopicChange,
    TopicInfo,
};
use turbopump::broker::PlaceRefusal;
use turbopump::disk::faulty::FaultyDisk;
use turbopump::testing::{Random, SeededExecutor, Spawner, generators};
use turbopump::types::{Level, QueueKey, QueueNumber, QueueOffset, Timestamp};

use super::ledger::{Ledger, Sent};
use super::node::{Node, OVERLAPPED, Setup, group_name, topic_change, topic_name};

pub type Books = Rc<RefCell<Ledger>>;

/// What a workload is made of.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    pub seed: u64,
    pub setup: Setup,
    /// Batches of each producer and run.
    pub batches: u64,
    pub body_bytes_max: usize,
    /// Batches of nearly the largest size in between, which fill segments.
    pub large_batches: u64,
}

impl Script {
    pub fn small(seed: u64) -> Self {
        Self { seed, setup: Setup::default(), batches: 4, body_bytes_max: 3000, large_batches: 0 }
    }

    /// The same over two shards: topics are made on both, and what belongs to the second goes there through the first.
    pub fn sharded(seed: u64) -> Self {
        Self { setup: Setup { shard_count: 2, ..Setup::default() }, ..Self::small(seed) }
    }

    /// Fills segments, so that they are rolled, retired and used again.
    pub fn rolling(seed: u64) -> Self {
        let segment_bytes = Setup::default().segment_bytes;
        let setup = Setup { retention_bytes: Some(2 * segment_bytes), ..Setup::default() };
        Self { seed, setup, batches: 3, body_bytes_max: 3000, large_batches: 7 }
    }

    /// The same with every group written while the one before it is being flushed, however small.
    pub fn overlapped(mut self) -> Self {
        self.setup.commit = OVERLAPPED;
        self
    }
}

/// Runs the script on `disk` until it ends or the power fails.
pub fn run(disk: &FaultyDisk, script: &Script) -> Ledger {
    let executor = SeededExecutor::new(script.seed);
    run_on(&executor, disk, script)
}

pub fn run_on(executor: &SeededExecutor, disk: &FaultyDisk, script: &Script) -> Ledger {
    let books = Books::default();
    let work = play(disk, script, &books, executor);
    executor.run_until(futures_lite::future::or(work, disk.crashed()));
    executor.cancel_all();
    books.take()
}

/// Two runs with a stop in between.
async fn play(disk: &FaultyDisk, script: &Script, books: &Books, executor: &SeededExecutor) {
    let spawner = executor.spawner();
    for run in 0..2 {
        let started = Node::start(disk, &script.setup, executor.shared_clock(), &spawner).await;
        let node = match started {
            Ok(node) => Rc::new(node),
            // A fault that was planned has struck.
            Err(_) if !disk.injected().is_empty() => return,
            Err(error) => panic!("seed {}: does not start: {error}", script.seed),
        };
        if run == 0 {
            first_run(&node, script, books, &spawner).await;
        } else {
            second_run(&node, script, books, &spawner).await;
        }
        let node = Rc::into_inner(node).expect("every task has ended");
        check_readable(&node, books).await;
        let healthy = node.brokers.iter().all(|broker| !broker.log().watermarks().has_failed());
        node.stop().await;
        if !healthy {
            // What comes next is a restart, for the caller to choose.
            return;
        }
        if !disk.is_crashed() {
            books.borrow_mut().all_durable();
        }
    }
}

/// What readers were shown is served, whatever has happened to the log since.
async fn check_readable(node: &Node, books: &Books) {
    for key in super::checks::live_queues(node) {
        let (first, end) = node.owner(key).index().bounds(key).expect("a queue that was listed");
        let promised = books.borrow().promised(key, Level::Durable);
        let sent = books.borrow().queues.get(&key).cloned().unwrap_or_default();
        let needed = promised
            .checked_sub(1)
            .map_or(QueueOffset::ZERO, |last| sent[last].base_offset.advance(sent[last].count.into()));
        assert!(end >= needed, "{key} ends at {end}, {needed} was answered");
        let mut offset = first;
        while offset < end {
            let fetched = node.fetch(key, offset).await.expect("reads are served after a failed write");
            assert_eq!(fetched.damaged, None);
            offset = fetched.next_offset;
        }
    }
}

async fn first_run(node: &Rc<Node>, script: &Script, books: &Books, spawner: &Spawner) {
    let orders = create(node, books, "orders", 2).await;
    let doomed = create(node, books, "doomed", 1).await;
    let (Ok(orders), Ok(doomed)) = (orders, doomed) else { return };
    let key = |info: &TopicInfo, queue| QueueKey { topic: info.id, queue: QueueNumber(queue) };
    let targets = [key(&orders, 0), key(&orders, 1), key(&orders, 0), key(&doomed, 0)];
    let mut tasks = Vec::new();
    for (number, target) in (0u64..).zip(targets) {
        let (node, books, script) = (node.clone(), books.clone(), *script);
        tasks.push(spawner.spawn(async move { producer(&node, &books, target, &script, number).await }));
    }
    let committing = {
        let (node, books, seed) = (node.clone(), books.clone(), script.seed);
        let target = key(&orders, 0);
        spawner.spawn(async move { committer(&node, &books, target, seed).await })
    };
    let _ = node.owner(targets[1]).take_snapshot().await;
    let last = tasks.pop().expect("there are four");
    last.await;
    let _ = delete(node, books, "doomed").await;
    for task in tasks {
        task.await;
    }
    let _ = node.broker().take_snapshot().await;
    committing.await;
    if script.large_batches > 0 {
        large_batches(node, books, key(&orders, 1), script).await;
    }
    let _ = reset(node, books, "readers", "orders", key(&orders, 0), QueueOffset(1)).await;
}

async fn second_run(node: &Rc<Node>, script: &Script, books: &Books, spawner: &Spawner) {
    let _ = grow(node, books, "orders", 3).await;
    let id = books.borrow().topics.get(&topic_name("orders")).and_then(|entry| entry.id);
    let Some(topic) = id else { return };
    let mut tasks = Vec::new();
    for number in 0..3 {
        let (node, books, script) = (node.clone(), books.clone(), *script);
        let target = QueueKey { topic, queue: QueueNumber(number as u32) };
        tasks.push(spawner.spawn(async move { producer(&node, &books, target, &script, 10 + number).await }));
    }
    // On the last shard, whichever that is.
    let target = QueueKey { topic, queue: QueueNumber(u32::from(script.setup.shard_count) - 1) };
    committer(node, books, target, script.seed + 1).await;
    for task in tasks {
        task.await;
    }
    if script.large_batches > 0 {
        large_batches(node, books, QueueKey { topic, queue: QueueNumber(2) }, script).await;
    }
}

/// Sends batches of every level, sometimes without waiting for the answer.
async fn producer(node: &Rc<Node>, books: &Books, key: QueueKey, script: &Script, number: u64) {
    let mut random = Random::new(script.seed.wrapping_mul(31).wrapping_add(number));
    for batch in 0..script.batches {
        let level = *random.pick(&[Level::Durable, Level::Durable, Level::Written, Level::Accepted]);
        let seed = random.number() ^ batch;
        let is_foreign = node.owner(key).shard() != node.broker().shard();
        let outcome = if is_foreign {
            forward(node, books, key, level, seed, script.body_bytes_max).await
        } else {
            produce(node, books, key, Some(level), seed, script.body_bytes_max).await
        };
        if outcome.is_err() {
            return;
        }
    }
}

/// Sends messages to another shard through the first one. Nobody else sends to this queue, so that the place is known
/// before the answer.
async fn forward(
    node: &Node,
    books: &Books,
    key: QueueKey,
    level: Level,
    seed: u64,
    body_bytes_max: usize,
) -> Result<Produced, Failure> {
    let mut random = Random::new(seed);
    let messages = generators::messages(&mut random, 5, body_bytes_max);
    let bytes = generators::batch(&messages, Timestamp(1_000));
    let index = {
        let mut books = books.borrow_mut();
        let queue = books.queues.entry(key).or_default();
        let base_offset =
            queue.last().map_or(QueueOffset::ZERO, |last| last.base_offset.advance(last.count.into()));
        let (count, bytes) = (messages.len() as u32, bytes.clone().into());
        queue.push(Sent { base_offset, count, bytes, answered: None });
        queue.len() - 1
    };
    let request = Request::Produce(Produce { key, level: Some(level), batch: bytes.into() });
    let produced = match node.handle(request).await? {
        Reply::Produced(produced) => produced,
        other => panic!("{key}: {other:?}"),
    };
    let mut books = books.borrow_mut();
    let sent = &mut books.queues.get_mut(&key).expect("just sent")[index];
    assert_eq!(produced.base_offset, sent.base_offset, "{key}");
    sent.answered = Some(produced.level);
    Ok(produced)
}

/// Fills segments, and gives retention the time to take them away.
async fn large_batches(node: &Rc<Node>, books: &Books, key: QueueKey, script: &Script) {
    for number in 0..script.large_batches {
        let level = if number % 3 == 2 { Level::Durable } else { Level::Written };
        let seed = script.seed ^ (number << 32);
        if produce_sized(node, books, key, Some(level), seed, 3_900_000).await.is_err() {
            return;
        }
    }
    node.clock.sleep(std::time::Duration::from_secs(3)).await;
}

/// Follows the queue's end, now and then a step back.
async fn committer(node: &Rc<Node>, books: &Books, key: QueueKey, seed: u64) {
    let mut random = Random::new(seed);
    for _ in 0..5 {
        node.clock.sleep(std::time::Duration::from_millis(random.range(0..3))).await;
        let Some((_, end)) = node.owner(key).index().bounds(key) else { return };
        let offset = QueueOffset(random.range(end.0 / 2..=end.0));
        if commit(node, books, "readers", key, offset).await.is_err() {
            return;
        }
    }
}

/// Sends some messages of random shapes.
pub async fn produce(
    node: &Node,
    books: &Books,
    key: QueueKey,
    level: Option<Level>,
    seed: u64,
    body_bytes_max: usize,
) -> Result<Produced, Failure> {
    let mut random = Random::new(seed);
    let messages = generators::messages(&mut random, 5, body_bytes_max);
    place(node, books, key, level, generators::batch(&messages, Timestamp(1_000))).await
}

/// Sends one message of this size.
pub async fn produce_sized(
    node: &Node,
    books: &Books,
    key: QueueKey,
    level: Option<Level>,
    seed: u64,
    body_bytes: usize,
) -> Result<Produced, Failure> {
    let mut message = generators::Message { body: vec![seed as u8; body_bytes], ..Default::default() };
    // Enough to tell one from another.
    Random::new(seed).fill(&mut message.body[..64]);
    place(node, books, key, level, generators::batch(&[message], Timestamp(1_000))).await
}

async fn place(
    node: &Node,
    books: &Books,
    key: QueueKey,
    level: Option<Level>,
    bytes: Vec<u8>,
) -> Result<Produced, Failure> {
    let broker = node.owner(key);
    let batch = broker.check_batch(&bytes)?;
    let pending = loop {
        match broker.produce(key, level, &batch) {
            Ok(pending) => break pending,
            Err(PlaceRefusal::Failed(failure)) => return Err(failure),
            Err(PlaceRefusal::Wait(backpressure)) => broker.wait_out(backpressure).await,
        }
    };
    let count = batch.record_count();
    let sent = Sent { base_offset: pending.base_offset, count, bytes: bytes.into(), answered: None };
    let index = {
        let mut books = books.borrow_mut();
        let queue = books.queues.entry(key).or_default();
        let expected =
            queue.last().map_or(QueueOffset::ZERO, |last| last.base_offset.advance(last.count.into()));
        assert_eq!(sent.base_offset, expected, "offsets of {key} have a gap");
        queue.push(sent);
        queue.len() - 1
    };
    let outcome = broker.settled(&pending).await;
    if let Err(failure) = &outcome {
        let clean = [Status::StorageFailed, Status::OutcomeUnknown, Status::NoSpace, Status::ShuttingDown];
        assert!(clean.contains(&failure.status), "{failure:?}");
        assert!(broker.log().watermarks().has_failed(), "refused by a healthy log: {failure:?}");
    }
    if let Ok(produced) = &outcome {
        assert!(Some(produced.level) >= level, "{level:?} was asked, {} is answered", produced.level);
        books.borrow_mut().queues.get_mut(&key).expect("just sent")[index].answered = Some(produced.level);
    }
    outcome
}

pub async fn create(node: &Node, books: &Books, name: &str, queues: u32) -> Result<TopicInfo, Failure> {
    let change = topic_change(name, queues);
    books.borrow_mut().topics.entry(change.topic.clone()).or_default().queues_asked = queues;
    let info = match node.handle(Request::CreateTopic(change)).await? {
        Reply::Topic(info) => info,
        other => panic!("a topic was asked for: {other:?}"),
    };
    let mut books = books.borrow_mut();
    let entry = books.topics.get_mut(&info.topic).expect("just asked for");
    (entry.id, entry.queues_answered) = (Some(info.id), queues);
    Ok(info)
}

async fn grow(node: &Node, books: &Books, name: &str, queues: u32) -> Result<(), Failure> {
    let topic = topic_name(name);
    if let Some(entry) = books.borrow_mut().topics.get_mut(&topic) {
        entry.queues_asked = queues;
    }
    let change = TopicChange { topic: topic.clone(), queues: Some(queues), retention: None, level: None };
    node.handle(Request::AlterTopic(change)).await?;
    books.borrow_mut().topics.get_mut(&topic).expect("it was altered").queues_answered = queues;
    Ok(())
}

pub async fn delete(node: &Node, books: &Books, name: &str) -> Result<(), Failure> {
    let topic = topic_name(name);
    books.borrow_mut().topics.get_mut(&topic).expect("created").delete_asked = true;
    node.handle(Request::DeleteTopic(topic.clone())).await?;
    books.borrow_mut().topics.get_mut(&topic).expect("created").delete_answered = true;
    Ok(())
}

pub async fn commit(
    node: &Node,
    books: &Books,
    group: &str,
    key: QueueKey,
    offset: QueueOffset,
) -> Result<(), Failure> {
    let group = group_name(group);
    asked(books, group.as_str(), key, offset);
    node.handle(Request::CommitOffset(CommitOffset { group: group.clone(), key, offset, member: None }))
        .await?;
    answered(books, group.as_str(), key);
    Ok(())
}

async fn reset(
    node: &Node,
    books: &Books,
    group: &str,
    topic: &str,
    key: QueueKey,
    offset: QueueOffset,
) -> Result<(), Failure> {
    asked(books, group, key, offset);
    let target = ResetTarget::Offset(key.queue, offset);
    let (group_asked, topic) = (group_name(group), topic_name(topic));
    node.handle(Request::ResetGroup(ResetGroup { group: group_asked, topic, target })).await?;
    answered(books, group, key);
    Ok(())
}

fn asked(books: &Books, group: &str, key: QueueKey, offset: QueueOffset) {
    books.borrow_mut().offsets.entry((group_name(group), key)).or_default().asked.push(offset);
}

fn answered(books: &Books, group: &str, key: QueueKey) {
    let mut books = books.borrow_mut();
    let commits = books.offsets.get_mut(&(group_name(group), key)).expect("just asked");
    commits.answered = commits.asked.len();
}
