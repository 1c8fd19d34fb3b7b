//! Single messages become batches together, and each is stored, answered and found as if it had come alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::{or, poll_once, zip};
use futures_util::future::join_all;
use turbopump::api::{Failure, Filter, FindMessages, FoundMessage, Release, Reply, Request, Status, Stored};
use turbopump::broker::{PlaceRefusal, Publish, Published, Single};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart, Rule, When};
use turbopump::disk::{DiskErrorKind, Operation};
use turbopump::limits;
use turbopump::testing::{Random, SeededExecutor};
use turbopump::types::{Level, QueueKey, QueueNumber, QueueOffset, RecordLocation, Timestamp, TopicId};
use turbopump::wire::batch::{BatchHeader, stored_records};
use turbopump::wire::properties::{self, names};
use turbopump::wire::record::{Record, RecordView};

use super::leases::{SECOND, create, disk, receive, received};
use super::node::{Node, Setup, TestBroker, group_name, on_node, topic_name};
use super::sweep::crashes;
use super::writing::{batch, fill};

const HOUR: Duration = Duration::from_secs(3600);

/// What a test publishes. Its number is its body, its key and its unique id.
#[derive(Clone, Copy, Debug)]
struct Message {
    number: u64,
    /// Names the queue, with others of the same one.
    sharding_key: u64,
    level: Level,
    tag: &'static str,
    body_bytes: usize,
    wait_max: Duration,
}

fn message(number: u64) -> Message {
    Message { number, sharding_key: 0, level: Level::Durable, tag: "", body_bytes: 16, wait_max: HOUR }
}

fn key_text(number: u64) -> String {
    format!("key{number}")
}

fn unique_text(number: u64) -> String {
    format!("{number:032X}")
}

fn body_of(message: &Message) -> Vec<u8> {
    let mut body = message.number.to_be_bytes().to_vec();
    body.resize(message.body_bytes.max(body.len()), 7);
    body
}

fn number_of(body: &[u8]) -> u64 {
    u64::from_be_bytes(body[..8].try_into().expect("a body of a test"))
}

async fn publish(node: &Node, message: &Message) -> Result<Stored, Failure> {
    match publish_with(node, message, None).await? {
        Published::Stored(stored) => Ok(stored),
        held => panic!("{message:?} became {held:?}"),
    }
}

async fn publish_with(
    node: &Node,
    message: &Message,
    release: Option<Release>,
) -> Result<Published, Failure> {
    let mut text = Vec::new();
    let unique = unique_text(message.number);
    properties::append(&mut text, names::UNIQUE_ID.as_bytes(), unique.as_bytes()).expect("it fits");
    let (key, body) = (key_text(message.number), body_of(message));
    let record = Record {
        key: key.as_bytes(),
        tag: message.tag.as_bytes(),
        properties: &text,
        body: &body,
        ..Record::default()
    };
    let topic = topic_name("t");
    let sharding_key = message.sharding_key.to_string();
    let publish = Publish {
        topic: &topic,
        sharding_key: Some(&sharding_key),
        level: Some(message.level),
        message: Single { born_time: node.clock.now(), record },
        wait_max: message.wait_max,
        release,
        network: IpAddr::from([10, 0, 0, 1]),
    };
    node.broker().publish_message(publish).await
}

fn key_of(topic: TopicId, message: &Message, queues: u32) -> QueueKey {
    QueueKey { topic, queue: QueueNumber::of_key(message.sharding_key.to_string().as_bytes(), queues) }
}

fn counter(node: &Node, name: &str) -> u64 {
    let of = |broker: &Rc<TestBroker>| {
        let counters = broker.metrics().counters();
        counters.iter().find(|(known, _)| known == name).expect("a counter").1
    };
    node.brokers.iter().map(of).sum()
}

async fn found(node: &Node, find: FindMessages) -> Vec<FoundMessage> {
    match node.handle(Request::FindMessages(find)).await {
        Ok(Reply::Found(found)) => found.messages,
        other => panic!("messages were asked for: {other:?}"),
    }
}

/// All messages of a queue by their offsets, each with the position of its batch.
async fn stored(node: &Node, key: QueueKey) -> BTreeMap<QueueOffset, (RecordLocation, u64)> {
    let mut all = BTreeMap::new();
    let Some((mut offset, end)) = node.owner(key).index().bounds(key) else { return all };
    while offset < end {
        let fetched = node.fetch(key, offset).await.expect("a queue that can be read");
        let mut rest = &fetched.batches[..];
        while !rest.is_empty() {
            let header = BatchHeader::decode(rest).expect("a whole batch");
            let records = stored_records(&rest[..header.batch_bytes as usize]);
            for (index, record) in (0..).zip(records) {
                let location = RecordLocation { position: header.position, index };
                let at = header.base_offset.advance(u64::from(index));
                all.insert(at, (location, number_of(record.body())));
            }
            let next = header.end_position().since(header.position) as usize;
            rest = &rest[next.min(rest.len())..];
        }
        offset = fetched.next_offset;
    }
    all
}

#[test]
fn messages_of_one_moment_are_one_batch_and_each_is_answered_and_found_as_its_own() {
    for shard_count in [1, 2] {
        let (disk, _) = disk();
        let setup = Setup { shard_count, ..Setup::default() };
        let ran = on_node(&disk, &setup, 5, async |node| {
            let topic = create(node, "t", 4).await;
            let tags = ["", "red", "green"];
            let of_number = |number: u64| Message {
                sharding_key: number % 7,
                tag: tags[number as usize % 3],
                ..message(number)
            };
            let messages: Vec<_> = (0..60).map(of_number).collect();
            let delayed = message(100);
            let due = Release::At(Timestamp(node.clock.now().0 + 60_000));
            let (answers, held) = zip(
                join_all(messages.iter().map(|message| publish(node, message))),
                publish_with(node, &delayed, Some(due)),
            )
            .await;
            assert!(matches!(held, Ok(Published::Held(_))), "{held:?}");
            let batches = counter(node, "batches_produced");
            assert!((1..=8).contains(&batches), "{batches} batches of 60 messages");
            assert_eq!(counter(node, "messages_produced"), 60);

            for (message, answer) in messages.iter().zip(&answers) {
                let answer = answer.as_ref().expect("a healthy disk");
                let key = key_of(topic, message, 4);
                let in_queue = stored(node, key).await;
                assert_eq!(in_queue.get(&answer.offset), Some(&(answer.location, message.number)));
                assert_eq!(answer.level, Level::Durable);
                let shard = key.queue.shard(shard_count);
                let RecordLocation { position, index } = answer.location;
                let by_location = found(node, FindMessages::Position { shard, position, index }).await;
                let [by_location] = &by_location[..] else {
                    panic!("{message:?} is found as {by_location:?}")
                };
                assert_eq!((by_location.key, by_location.offset), (key, answer.offset));
                assert_eq!(by_location.store_time, answer.store_time);
                for key in [key_text(message.number), unique_text(message.number)] {
                    let find = FindMessages::Key {
                        topic: topic_name("t"),
                        key,
                        count: 8,
                        from: Timestamp(0),
                        to: Timestamp(u64::MAX),
                        before: Vec::new(),
                    };
                    assert_eq!(found(node, find).await, std::slice::from_ref(by_location));
                }
            }
            // In each queue they are in the order in which they came.
            for queue in 0..4 {
                let in_queue = stored(node, QueueKey { topic, queue: QueueNumber(queue) }).await;
                let numbers: Vec<_> = in_queue.values().map(|(_, number)| *number).collect();
                assert!(numbers.is_sorted(), "queue {queue}: {numbers:?}");
                assert!(in_queue.keys().copied().eq((0..in_queue.len() as u64).map(QueueOffset)));
            }
            let mut reds = Vec::new();
            loop {
                let mut asked = receive(32);
                (asked.group, asked.filter) = (group_name("reds"), Filter::parse(Some("red")));
                let some = received(node, asked).await;
                if some.is_empty() {
                    break;
                }
                for message in some {
                    let (record, _) = RecordView::cut(&message.record).expect("a stored record");
                    let number = number_of(record.body());
                    let answer = answers[number as usize].as_ref().expect("it was answered");
                    assert_eq!(message.location, Some(answer.location));
                    reds.push(number);
                }
            }
            reds.sort_unstable();
            assert!(reds.into_iter().eq((0..60).filter(|number| number % 3 == 1)));
        });
        ran.expect("an empty disk");
    }
}

/// What is answered for messages that are gathered without a task for each, by one who looks whenever the log moves on.
async fn gathered(
    node: &Node,
    key: QueueKey,
    messages: &[Message],
) -> Vec<(Message, Result<Stored, Failure>)> {
    let broker = node.broker();
    let marks = broker.log().watermarks();
    let (mut waiting, mut answers) = (Vec::new(), Vec::new());
    for message in messages {
        let body = body_of(message);
        let record = Record { body: &body, ..Record::default() };
        let single = Single { born_time: node.clock.now(), record };
        match broker.gather(key, Some(message.level), &single) {
            Ok(pending) => waiting.push((*message, pending)),
            Err(PlaceRefusal::Failed(failure)) => answers.push((*message, Err(failure))),
            Err(PlaceRefusal::Wait(_)) => panic!("there is room for so few"),
        }
    }
    while !waiting.is_empty() {
        let moved = marks.changes().changed();
        waiting.retain(|(message, pending)| match broker.single_outcome(pending) {
            Some(outcome) => {
                answers.push((*message, outcome));
                false
            }
            None => true,
        });
        if !waiting.is_empty() {
            moved.await;
        }
    }
    answers
}

#[test]
fn messages_without_a_task_are_answered_when_the_log_has_moved_on() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 5, async |node| {
        let key = QueueKey { topic: create(node, "t", 1).await, queue: QueueNumber(0) };
        let messages: Vec<_> = (0..30)
            .map(|number| Message { level: Level::ALL[number as usize % 3], ..message(number) })
            .collect();
        let answers = gathered(node, key, &messages).await;
        assert_eq!(answers.len(), messages.len());
        // What is only accepted is placed at once, and those before it with it: the rest is one more batch.
        let batches = counter(node, "batches_produced");
        assert!((10..=11).contains(&batches), "{batches} batches");
        let in_queue = stored(node, key).await;
        for (message, answer) in answers {
            let answer = answer.expect("a healthy disk");
            assert!(answer.level >= message.level);
            assert_eq!(in_queue.get(&answer.offset), Some(&(answer.location, message.number)));
        }
    });
    ran.expect("an empty disk");
}

#[test]
fn messages_without_a_task_are_told_of_a_stop() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 5, async |node| {
        let key = QueueKey { topic: create(node, "t", 1).await, queue: QueueNumber(0) };
        fill(node, &disk, key, 100 * HOUR).await;
        let stopping = async {
            node.clock.sleep(SECOND).await;
            node.broker().stop();
        };
        let patience = async {
            node.clock.sleep(2 * SECOND).await;
            panic!("they still wait")
        };
        let messages = [message(1), message(2)];
        let (answers, ()) = zip(or(gathered(node, key, &messages), patience), stopping).await;
        assert_eq!(answers.len(), messages.len());
        for (_, answer) in answers {
            assert_eq!(answer.map_err(|failure| failure.status).err(), Some(Status::ShuttingDown));
        }
        disk.set_plan(FaultPlan::none());
    });
    ran.expect("an empty disk");
}

#[test]
fn one_message_in_flight_is_placed_at_once() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 5, async |node| {
        create(node, "t", 1).await;
        for number in 0..20 {
            let (begun, flushes) = (node.clock.monotonic(), counter(node, "log_groups"));
            publish(node, &message(number)).await.expect("a healthy disk");
            // Time moves only when everybody waits for a timer.
            assert_eq!(node.clock.monotonic(), begun, "message {number} waited for nothing");
            assert_eq!(counter(node, "log_groups"), flushes + 1, "and for one group");
        }
        assert_eq!(counter(node, "batches_produced"), 20);
    });
    ran.expect("an empty disk");
}

#[test]
fn a_message_waits_for_its_own_level_only() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 5, async |node| {
        let topic = create(node, "t", 1).await;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        // The group after this one is taken when this one is written.
        disk.set_clock(node.clock.clone());
        disk.set_plan(FaultPlan { latency_max: 600 * SECOND, ..FaultPlan::none() });
        let (bytes, broker) = (batch(100), node.owner(key));
        broker.produce(key, None, &broker.check_batch(&bytes).expect("whole")).expect("it has room");
        node.clock.sleep(Duration::from_millis(1)).await;
        let begun = node.clock.monotonic();
        let first = message(1);
        let mut durable = Box::pin(publish(node, &first));
        assert!(poll_once(&mut durable).await.is_none());
        let accepted = publish(node, &Message { level: Level::Accepted, ..message(2) }).await;
        let accepted = accepted.expect("it has room");
        assert_eq!(
            (accepted.level, accepted.offset),
            (Level::Accepted, QueueOffset(2)),
            "after the one before"
        );
        assert_eq!(node.clock.monotonic(), begun);
        assert!(poll_once(&mut durable).await.is_none());
        disk.set_plan(FaultPlan::none());
        assert_eq!(
            durable.await.map(|stored| (stored.offset, stored.level)),
            Ok((QueueOffset(1), Level::Durable))
        );
    });
    ran.expect("an empty disk");
}

#[test]
fn batches_and_single_messages_of_a_queue_keep_their_order() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 5, async |node| {
        let topic = create(node, "t", 1).await;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        let (bytes, broker) = (batch(100), node.owner(key));
        let whole = broker.check_batch(&bytes).expect("a whole batch");
        let mut waiting = Vec::new();
        let mut offsets = Vec::new();
        for number in 0..10 {
            let message = message(number);
            let mut publishing = Box::pin(async move { publish(node, &message).await });
            assert!(poll_once(&mut publishing).await.is_none());
            waiting.push(publishing);
            if number % 3 == 2 {
                offsets.push(broker.produce(key, None, &whole).expect("it has room").base_offset);
            }
        }
        assert_eq!(offsets, [QueueOffset(3), QueueOffset(7), QueueOffset(11)]);
        let answers: Vec<_> =
            join_all(waiting).await.into_iter().map(|stored| stored.map(|s| s.offset.0)).collect();
        assert_eq!(answers, [0, 1, 2, 4, 5, 6, 8, 9, 10, 12].map(Ok));
    });
    ran.expect("an empty disk");
}

#[test]
fn what_has_no_room_waits_until_its_deadline_and_takes_nobody_along() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 5, async |node| {
        let topic = create(node, "t", 1).await;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        fill(node, &disk, key, 600 * SECOND).await;
        // Nothing more is gathered after this one.
        let large = Message { body_bytes: limits::GROUP_OVERLAP_BYTES, ..message(1) };
        let mut first = Box::pin(publish(node, &large));
        assert!(poll_once(&mut first).await.is_none());
        let begun = node.clock.monotonic();
        let refused = publish(node, &Message { wait_max: 3 * SECOND, ..message(2) }).await;
        let refused = refused.expect_err("it has no room");
        assert_eq!(refused.status, Status::Busy, "{refused:?}");
        assert_eq!(node.clock.monotonic().since(begun), 3 * SECOND);
        let mut third = Box::pin(async { publish(node, &message(3)).await });
        assert!(poll_once(&mut third).await.is_none());
        disk.set_plan(FaultPlan::none());
        assert_eq!(first.await.map(|stored| stored.offset), Ok(QueueOffset(2)));
        assert_eq!(third.await.map(|stored| stored.offset), Ok(QueueOffset(3)));
        assert_eq!(node.owner(key).index().bounds(key).map(|(_, end)| end), Some(QueueOffset(4)));
    });
    ran.expect("an empty disk");
}

#[test]
fn a_shutdown_is_told_to_everybody_who_waits() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 5, async |node| {
        let topic = create(node, "t", 1).await;
        fill(node, &disk, QueueKey { topic, queue: QueueNumber(0) }, 100 * HOUR).await;
        let bodies = [16, 16, limits::GROUP_OVERLAP_BYTES, 16];
        let messages: Vec<_> =
            (0..4).map(|number| Message { body_bytes: bodies[number as usize], ..message(number) }).collect();
        let patience = async {
            node.clock.sleep(2 * SECOND).await;
            panic!("they still wait")
        };
        let stopping = async {
            node.clock.sleep(SECOND).await;
            node.broker().stop();
        };
        let publishing = join_all(messages.iter().map(|message| publish(node, message)));
        let (answers, ()) = zip(or(publishing, patience), stopping).await;
        for answer in answers {
            assert_eq!(answer.map_err(|failure| failure.status).err(), Some(Status::ShuttingDown));
        }
        disk.set_plan(FaultPlan::none());
    });
    ran.expect("an empty disk");
}

#[test]
fn a_message_on_its_way_is_answered_when_its_topic_is_deleted() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 5, async |node| {
        create(node, "t", 1).await;
        let message = message(1);
        let mut publishing = Box::pin(publish(node, &message));
        assert!(poll_once(&mut publishing).await.is_none(), "it is gathered");
        let (deleted, published) = zip(node.handle(Request::DeleteTopic(topic_name("t"))), publishing).await;
        deleted.expect("a healthy disk");
        let outcome = published.map(|_| ()).map_err(|failure| failure.status);
        assert!(matches!(outcome, Ok(()) | Err(Status::TopicNotExist)), "{outcome:?}");
    });
    ran.expect("an empty disk");
}

#[test]
fn a_failed_disk_is_told_to_each_of_them() {
    let faults = [(Operation::Write, DiskErrorKind::Failed), (Operation::Sync, DiskErrorKind::Failed)];
    for (operation, kind) in faults {
        for number in 1..8 {
            let (disk, setup) = disk();
            let ran = on_node(&disk, &setup, number, async |node| {
                create(node, "t", 2).await;
                let rule = Rule::error(operation, When::From(0), kind).in_path(".segment");
                disk.set_clock(node.clock.clone());
                disk.set_plan(FaultPlan { latency_max: SECOND, ..FaultPlan::none().with(rule) });
                let one = async |number: u64| {
                    node.clock.sleep(Duration::from_millis(37 * (number % 50))).await;
                    publish(node, &Message { sharding_key: number % 3, ..message(number) }).await
                };
                let answers = join_all((0..100).map(one)).await;
                let told = [Status::OutcomeUnknown, Status::StorageFailed];
                let mut unknown = 0;
                for answer in answers {
                    let status = answer.expect_err("nothing is stored").status;
                    assert!(told.contains(&status), "{status:?}");
                    unknown += u64::from(status == Status::OutcomeUnknown);
                }
                assert!(unknown < 100, "what was gathered later was not handed to the disk");
                let refused = publish(node, &message(200)).await.expect_err("it has failed");
                assert_eq!(refused.status, Status::StorageFailed);
            });
            ran.expect("an empty disk");
        }
    }
}

#[test]
fn a_full_disk_is_told_to_each_of_them_and_keeps_the_others() {
    let mebibyte = 1024 * 1024;
    let plan = FaultPlan { total_bytes: Some(100 * mebibyte), ..FaultPlan::none() };
    let (disk, setup) = (FaultyDisk::new(3, plan), Setup::default());
    let ran = on_node(&disk, &setup, 5, async |node| {
        let topic = create(node, "t", 2).await;
        let large = |number| Message {
            sharding_key: number % 3,
            body_bytes: 3 * mebibyte as usize,
            ..message(number)
        };
        let answers = join_all((0..60).map(async |number| publish(node, &large(number)).await)).await;
        let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
        let refused: Vec<_> = refused.map(|failure| failure.status).collect();
        assert!((1..60).contains(&refused.len()), "{refused:?}");
        assert!(refused.iter().all(|status| *status == Status::NoSpace), "{refused:?}");
        for (number, answer) in (0..).zip(answers) {
            let Ok(answer) = answer else { continue };
            let in_queue = stored(node, key_of(topic, &large(number), 2)).await;
            assert_eq!(in_queue.get(&answer.offset), Some(&(answer.location, number)));
        }
    });
    ran.expect("an empty disk");
}

/// What a run of the sweep has published, and the answers.
#[derive(Default)]
struct Books {
    topic: Option<TopicId>,
    sent: Vec<(Message, Option<Stored>)>,
}

const QUEUES: u32 = 2;

/// Callers who each send one message after the other, several at once.
fn run_callers(disk: &FaultyDisk, setup: &Setup, seed: u64) -> Books {
    let executor = SeededExecutor::new(seed);
    let books = Rc::new(RefCell::new(Books::default()));
    let work = async {
        let node = match Node::start(disk, setup, executor.shared_clock(), &executor.spawner()).await {
            Ok(node) => Rc::new(node),
            Err(error) => panic!("seed {seed}: does not start: {error}"),
        };
        let topic = create(&node, "t", QUEUES).await;
        books.borrow_mut().topic = Some(topic);
        let mut tasks = Vec::new();
        for caller in 0..9_u64 {
            let (node, books) = (node.clone(), books.clone());
            tasks.push(executor.spawn(async move { call(&node, &books, seed, caller).await }));
        }
        for task in tasks {
            task.await;
        }
        Rc::into_inner(node).expect("every task has ended").stop().await;
    };
    executor.run_until(or(work, disk.crashed()));
    executor.cancel_all();
    books.take()
}

async fn call(node: &Node, books: &RefCell<Books>, seed: u64, caller: u64) {
    let mut random = Random::new(seed * 31 + caller);
    for turn in 0..3 {
        let level = *random.pick(&[Level::Durable, Level::Durable, Level::Written, Level::Accepted]);
        let body_bytes = random.range(8..=3_000) as usize;
        let number = caller * 100 + turn;
        let message = Message { sharding_key: caller % 3, level, body_bytes, ..message(number) };
        let at = {
            let mut books = books.borrow_mut();
            books.sent.push((message, None));
            books.sent.len() - 1
        };
        let Ok(stored) = publish(node, &message).await else { return };
        assert!(stored.level >= level);
        books.borrow_mut().sent[at].1 = Some(stored);
    }
}

/// Everything that was promised is there, at the place that was answered; of a batch there is all or nothing.
async fn check_books(node: &Node, books: &Books, promised: Level, label: &str) {
    let Some(topic) = books.topic else { return };
    let mut queues = BTreeMap::new();
    for queue in (0..QUEUES).map(QueueNumber) {
        let key = QueueKey { topic, queue };
        let in_queue = stored(node, key).await;
        assert!(
            in_queue.keys().copied().eq((0..in_queue.len() as u64).map(QueueOffset)),
            "{label}: a gap in {key}"
        );
        queues.insert(key, in_queue);
    }
    let mut batches: BTreeMap<_, bool> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for (_, number) in queues.values().flat_map(BTreeMap::values) {
        *counts.entry(*number).or_insert(0) += 1;
    }
    assert!(counts.values().all(|count| *count == 1), "{label}: a message is there twice: {counts:?}");
    let mut of_callers: BTreeMap<(u64, QueueKey), QueueOffset> = BTreeMap::new();
    for (message, answer) in &books.sent {
        counts.remove(&message.number);
        let Some(answer) = answer else { continue };
        let key = key_of(topic, message, QUEUES);
        let found = queues[&key].get(&answer.offset);
        if answer.level >= promised {
            assert!(found.is_some(), "{label}: {message:?} is gone");
        }
        if let Some(found) = found {
            assert_eq!(found, &(answer.location, message.number), "{label}");
        }
        let is_there = batches.entry((key, answer.location.position)).or_insert(found.is_some());
        assert_eq!(*is_there, found.is_some(), "{label}: half of a batch at {}", answer.location.position);
        let before = of_callers.insert((message.number / 100, key), answer.offset);
        assert!(before < Some(answer.offset), "{label}: {message:?} overtook its caller's last one");
    }
    assert!(counts.is_empty(), "{label}: nobody has sent {counts:?}");
}

#[test]
fn a_crash_leaves_all_or_nothing_of_what_was_gathered() {
    for (seed, shard_count, plan) in
        [(1, 1, FaultPlan::none()), (2, 1, FaultPlan::reordered()), (3, 2, FaultPlan::reordered())]
    {
        let setup = Setup { shard_count, ..Setup::default() };
        let calm = FaultyDisk::new(seed, plan.clone());
        let books = run_callers(&calm, &setup, seed);
        let mut positions: Vec<_> = books
            .sent
            .iter()
            .map(|(message, answer)| (message.sharding_key, answer.expect("a calm disk").location.position))
            .collect();
        positions.sort_unstable();
        positions.dedup();
        assert!(positions.len() < books.sent.len(), "seed {seed}: nothing was gathered");
        let run = |disk: &FaultyDisk| run_callers(disk, &setup, seed);
        crashes((seed, &plan), calm.step_count(), 11, run, |outcome, books, how, label| {
            let promised = if how == Restart::ProcessKill { Level::Written } else { Level::Durable };
            let checked = on_node(outcome, &setup, 1, async |node| {
                check_books(node, books, promised, label).await;
            });
            checked.unwrap_or_else(|error| panic!("{label}: does not start: {error}"));
        });
    }
}
